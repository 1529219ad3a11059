"""Corrections for many tests at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return the p-values of a family of tests, adjusted by Holm's step-down procedure.

    Rejecting each null hypothesis whose adjusted value is at most alpha rejects any true one with a probability of at
    most alpha, however the tests depend on each other. With p_1 <= ... <= p_m in rising order, the adjusted k-th is
    max over j <= k of min(1, (m - j + 1) p_j).

    Parameters
    ----------
    p_values : array_like, shape (m,)
        The p-values of all tests of the family, in [0, 1].

    Returns
    -------
    ndarray of float64, shape (m,)
        The adjusted values, in the order of the argument; each at least the value it came from.

    Raises
    ------
    ValueError
        If the p-values are no one-dimensional array, or not all in [0, 1].

    References
    ----------
    Holm, Scand. J. Stat. 6, 65 (1979).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03, 0.005]).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"p_values must be one-dimensional, got shape {p.shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values must lie in [0, 1], got {p.tolist()}")
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(np.minimum(1, np.arange(p.size, 0, -1) * p[order]))
    return adjusted
