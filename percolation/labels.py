"""The overlapping intervals of Eq. 4, and which of them a value or a cube carries.

For an interval length delta with 1/delta a whole number, Eq. 4 of the paper covers [0, 1] by the n = 2/delta - 1
intervals [k delta/2, k delta/2 + delta], k = 0 .. n-1. A *label* is such a k. A value lies in two of them almost
everywhere, in one within delta/2 of 0 and of 1. The *cell* of a value is floor(2 value / delta): a value in cell h
carries the labels h - 1 and h (those that exist), and two values share a label if and only if their cells differ by at
most one. One small integer therefore says it all.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, Input Space Mode Connectivity in Deep Neural Networks, arXiv:2409.05800, Eq. 4.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from percolation import arguments


def n_cells(delta: float) -> int:
    """Return 2/delta, the number of cells of length delta/2 in [0, 1].

    Raises
    ------
    TypeError
        If delta is no number.
    ValueError
        If 1/delta is not a whole number, as Eq. 4 supposes.
    """
    delta = arguments.check_real("delta", delta)
    inverse = Fraction(delta).limit_denominator(10**9) if 0 < delta <= 1 else Fraction(2)
    if inverse.numerator != 1:
        raise ValueError(f"delta must be 1/n for a whole number n, got {delta}")
    return 2 * inverse.denominator


def intervals(delta: float) -> NDArray[np.float64]:
    """Return the intervals of Eq. 4, shape (2/delta - 1, 2): the ends of interval k in row k.

    Raises
    ------
    TypeError
        If delta is no number.
    ValueError
        If 1/delta is not a whole number, or the intervals take more than all of the memory.

    Examples
    --------
    >>> intervals(0.5).tolist()
    [[0.0, 0.5], [0.25, 0.75], [0.5, 1.0]]
    """
    cells = n_cells(delta)
    arguments.check_memory("delta", delta, 32 * cells)
    lowest = np.arange(cells - 1)
    return np.stack([lowest / cells, (lowest + 2) / cells], axis=-1)


def cells(values: ArrayLike, delta: float) -> NDArray[np.int32]:
    """Return the cell floor(2 value / delta) of every value, the last cell closed at 1.

    Parameters
    ----------
    values : array_like, any shape
        In [0, 1].
    delta : float
        Interval length; 1/delta is a whole number.

    Raises
    ------
    TypeError
        If a value is no number, or some are masked.
    ValueError
        If a value lies outside [0, 1] or 1/delta is not a whole number.
    """
    known = arguments.check_probabilities("values", values)
    count = n_cells(delta)
    return np.minimum((known * count).astype(np.int32), count - 1).astype(np.int32)


def carried(lowest: ArrayLike, highest: ArrayLike, delta: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last label that a cube with outputs in [lowest, highest] is certain to carry.

    Interval k holds the whole range if k delta/2 <= lowest and highest <= k delta/2 + delta. Where no interval does,
    the first label is greater than the last. A range no longer than delta/2 is always within one.

    Parameters
    ----------
    lowest, highest : array_like, same shape
        Ends of each cube's range of outputs, in [0, 1], lowest <= highest.
    delta : float
        Interval length; 1/delta is a whole number.

    Returns
    -------
    first, last : arrays of int64, that shape

    Raises
    ------
    TypeError
        If an end is no number, or some are masked.
    ValueError
        If an end lies outside [0, 1], a range is reversed, the shapes do not fit, or 1/delta is not a whole number.

    Examples
    --------
    >>> first, last = carried([0.3, 0.1], [0.4, 0.9], 0.5)
    >>> first.tolist(), last.tolist()
    ([0, 2], [1, 0])
    """
    low, high = arguments.check_probabilities("lowest", lowest), arguments.check_probabilities("highest", highest)
    low, high = arguments.check_broadcast("lowest", low, "highest", high)
    if np.any(low > high):
        raise ValueError("lowest must be at most highest, got a reversed range")
    count = n_cells(delta)
    first = np.maximum(np.ceil(high * count).astype(np.int64) - 2, 0)
    last = np.minimum(np.floor(low * count).astype(np.int64), count - 2)
    return first, last
