"""Finite clusters of Z^d, exactly: the probability that an occupied site's cluster has n sites, in any dimension.

With a(n, t) lattice animals of n sites and perimeter t (:mod:`percolation.animals`) and r = 1 - p,

    P(n) = n p^(n-1) sum_t a(n, t) r^t,

since the occupied site may be any of the animal's n. The sum over n up to N is a lower bound of Q, the probability
that the cluster is finite, wherever p lies; what it leaves out is P(N < size < infinity). No upper bound of that is
given, for none is known that is of use: bounds by the number of animals of n sites, at most (e (2d - 1))^n of any
perimeter, sum to something finite only where e (2d - 1) p < 1, below the threshold, where Q = 1 anyway. Far above the
threshold the terms fall so fast that the first one left out tells the size of the rest; near the threshold they fall
as a power of n, and the sum is of no use there.

References
----------
Stauffer, Aharony, Introduction to Percolation Theory, ch. 2. Gaunt, Sykes, Ruskin, J. Phys. A 9, 1899 (1976),
DOI 10.1088/0305-4470/9/11/015.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from percolation import animals, arguments, meanfield

Floats = NDArray[np.float64]


def finite_cluster(p: ArrayLike, dimension: ArrayLike, n_sites: int) -> Floats:
    """Return the exact probability that an occupied site of Z^d stands in a cluster of ``n_sites`` sites.

    With r = 1 - p: r^(2d) for one site, 2 d p r^(4d-2) for two, 3 p^2 [d r^(6d-4) + 2 d (d-1) r^(6d-5)] for three.

    Parameters
    ----------
    p : array_like
        Occupation probability, in [0, 1].
    dimension : array_like of whole numbers
        d, at least 1.
    n_sites : int
        From 1 to ``animals.MAX_SITES``.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument lies outside its range, or p and the dimensions have shapes that do not fit.

    Notes
    -----
    All terms are positive and no power is taken of a rounded 1 - p: the relative error is below 1e-14 wherever the
    result is a normal number, whatever d.

    Examples
    --------
    >>> float(finite_cluster(0.5, 2, 1))
    0.0625
    """
    chance, d, n_sites = _checked(p, dimension, n_sites)
    # Faces that an animal's sites share or that meet at one empty site, 2 d n - t, are the same in every dimension.
    terms = [
        (n_axes, 2 * n_axes * n_sites - perimeter, found)
        for (n, n_axes), row in animals.COUNTS.items()
        if n == n_sites
        for perimeter, found in row.items()
    ]
    most = np.max([np.where(n_axes <= d, faces, 0) for n_axes, faces, _ in terms], axis=0)
    total = np.zeros(chance.shape)
    for n_axes, faces, found in terms:
        planes = chance ** (n_sites - 1 - n_axes)
        for i in range(n_axes):
            planes = planes * (chance * np.maximum(d - i, 0) / (i + 1))  # p^k C(d, k), no power of d without its p
        total = total + found * planes * np.where(n_axes <= d, _empty(chance, np.maximum(most - faces, 0)), 0)
    half = _empty(chance, d * n_sites - most / 2)  # r^(t_min / 2), twice: an underflow of it is one of the result
    return half * (n_sites * total) * half


def lower_disconnected(p: ArrayLike, dimension: ArrayLike, n_sites: int) -> Floats:
    """Return the probability of a cluster of at most ``n_sites`` sites: Q is never below this.

    The relative rounding error is below 1e-14.

    Parameters
    ----------
    p : array_like
        Occupation probability, in [0, 1].
    dimension : array_like of whole numbers
        d, at least 1.
    n_sites : int
        From 1 to ``animals.MAX_SITES``.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument lies outside its range, or p and the dimensions have shapes that do not fit.
    """
    _, _, n_sites = _checked(p, dimension, n_sites)
    total = finite_cluster(p, dimension, n_sites)
    for n in range(n_sites - 1, 0, -1):  # the smallest first
        total = total + finite_cluster(p, dimension, n)
    return total


def _empty(chance: Floats, count: Floats) -> Floats:
    """Return (1 - p)^n, for n = 0 too."""
    return np.where(count >= 1, meanfield.isolated(chance, np.maximum(count, 1)), 1.0)


def _checked(p: ArrayLike, dimension: ArrayLike, n_sites: int) -> tuple[Floats, Floats, int]:
    """Return p and d in one shape, and the number of sites, or raise as :func:`finite_cluster` does."""
    chance, d = arguments.check_probabilities("p", p), arguments.check_reals("dimension", dimension)
    is_whole = (d >= 1) & (d == np.floor(d))
    if not np.all(is_whole):
        raise ValueError(f"dimension must be a whole number of at least 1, got {d[~is_whole].flat[0]:g}")
    n_sites = arguments.check_whole("n_sites", n_sites, least=1, most=animals.MAX_SITES)
    chance, d = arguments.check_broadcast("p", chance, "dimension", d)
    return chance, d, n_sites
