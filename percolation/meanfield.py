"""Closed theories beside which the simulations are put: Eqs. 21-24, the Bethe lattice, small finite clusters.

It shares no code with the simulators: it is the independent witness against them. Throughout, an *occupied* site is
given; P is the probability that it belongs to the infinite cluster and Q = 1 - P that it does not. Q is computed as
such, never as 1 - P, so that it keeps its digits when it is tiny.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, App. D.1.5. Corless, Gonnet, Hare, Jeffrey, Knuth, On the Lambert W
function, Adv. Comput. Math. 5 (1996), DOI 10.1007/BF02124750. Stauffer, Aharony, Introduction to Percolation Theory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """P, in the infinite cluster, and Q = 1 - P, not; both keep their digits however small they are."""

    connected: Floats
    disconnected: Floats


def poisson(q: ArrayLike) -> Survival:
    """Return the largest root of P = 1 - exp(-q P), Eq. 22; in closed form Q = -W(-q e^-q) / q with Lambert's W.

    Parameters
    ----------
    q : array_like
        Mean number of occupied neighbours, at least 0; the paper sets q = d p, on Z^d a site has 2 d p.

    Raises
    ------
    ValueError
        If q is negative or not finite.

    Notes
    -----
    Solved by Newton's method in u = -ln Q: u = q (1 - e^-u). W itself loses half of its digits at its branch point,
    which is the threshold q = 1.

    Examples
    --------
    >>> float(poisson(2.0).disconnected)  # doctest: +ELLIPSIS
    0.20318786997997...
    """
    mean = np.asarray(q, dtype=np.float64)
    if not np.all(np.isfinite(mean) & (mean >= 0)):
        raise ValueError(f"q must be finite and at least 0, got {mean.min()}")
    return _survival(_root(mean, lambda u: -mean * np.expm1(-u), lambda u: mean * np.exp(-u)))


def neighbours(p: ArrayLike, n_neighbours: ArrayLike) -> Survival:
    """Return the largest root of 1 - P = (1 - p P)^n: Eq. 21 before its bound by an exponential.

    Parameters
    ----------
    p : array_like
        Occupation probability, in [0, 1].
    n_neighbours : array_like
        Neighbours of a cube; the paper writes d, on Z^d there are 2 d.

    Raises
    ------
    ValueError
        If p lies outside [0, 1] or the number of neighbours is below 1.
    """
    chance, count = _checked(p, n_neighbours, least=1)
    return _survival(_branching(chance, count))


def bethe(p: ArrayLike, n_neighbours: ArrayLike) -> Survival:
    """Return P on the Bethe lattice: the root has z neighbours, every later site z - 1 new ones.

    With Q' the probability that an occupied later site is cut off, Q' = (1 - p (1 - Q'))^(z-1), Q = (1 - p (1 - Q'))^z.

    Parameters
    ----------
    p : array_like
        Occupation probability, in [0, 1].
    n_neighbours : array_like
        The coordination number z, at least 2; 2 d for Z^d.

    Raises
    ------
    ValueError
        If p lies outside [0, 1] or z is below 2.
    """
    chance, count = _checked(p, n_neighbours, least=2)
    return _survival(_branching(chance, count - 1) * count / (count - 1))


def isolated(p: ArrayLike, n_neighbours: ArrayLike) -> Floats:
    """Return (1 - p)^n, the probability that none of n neighbours is occupied.

    Raises
    ------
    ValueError
        If p lies outside [0, 1] or the number of neighbours is below 1.
    """
    chance, count = _checked(p, n_neighbours, least=1)
    with np.errstate(divide="ignore"):
        return np.exp(count * np.log1p(-chance))


def printed_expansion(q: ArrayLike) -> Floats:
    """Return e^-q / (1 + q e^q), the leading term of Q as Eq. 24 prints it.

    It is not the expansion of the root of Eq. 22: solving (1 - q e^-q) Q = e^-q, the first line of Eq. 23, gives
    Q = e^-q (1 + q e^-q + ...), whereas the printed form behaves as e^(-2q) / q.
    """
    mean = np.asarray(q, dtype=np.float64)
    return np.exp(-mean) / (1 + mean * np.exp(mean))


def pair_disconnected(q: ArrayLike) -> Floats:
    """Return 1 - (1 - Q)^2: two far occupied sites are connected when both are in the (unique) infinite cluster."""
    lost = np.asarray(q, dtype=np.float64)
    return lost * (2 - lost)


def conjugate_probability(p: ArrayLike, n_neighbours: ArrayLike) -> Floats:
    """Return the p' below 1/(z-1) with p' (1 - p')^(z-2) = p (1 - p)^(z-2).

    On the Bethe lattice, clusters at p conditioned on being finite are distributed as clusters at p'.

    Parameters
    ----------
    p : array_like
        Occupation probability, in [0, 1].
    n_neighbours : array_like
        The coordination number z, at least 3.

    Returns
    -------
    array of float64
        p itself where p <= 1/(z-1).

    Raises
    ------
    ValueError
        If p lies outside [0, 1] or z is below 3.
    """
    chance, count = _checked(p, n_neighbours, least=3)
    lost = _survival(_branching(chance, count - 1))
    # Given that its cluster is finite, a tested neighbour is occupied with probability p Q' / (1 - p + p Q').
    with np.errstate(invalid="ignore"):
        return np.where(chance < 1, chance * lost.disconnected / (1 - chance * lost.connected), 0.0)


def finite_cluster(p: ArrayLike, dimension: ArrayLike, n_sites: int) -> Floats:
    """Return the exact probability that an occupied site of Z^d stands in a cluster of 1, 2 or 3 sites.

    With r = 1 - p: r^(2d); 2 d p r^(4d-2); 3 p^2 [d r^(6d-4) + 2 d (d-1) r^(6d-5)].

    Raises
    ------
    ValueError
        If p lies outside [0, 1], d is below 1, or ``n_sites`` is not 1, 2 or 3.
    """
    chance, d = _checked(p, dimension, least=1)
    with np.errstate(divide="ignore"):
        log_empty = np.log1p(-chance)
    if n_sites == 1:
        return np.exp(2 * d * log_empty)
    if n_sites == 2:
        return 2 * d * chance * np.exp((4 * d - 2) * log_empty)
    if n_sites == 3:
        straight = d * np.exp((6 * d - 4) * log_empty)
        bent = 2 * d * (d - 1) * np.exp((6 * d - 5) * log_empty)
        return 3 * chance**2 * (straight + bent)
    raise ValueError(f"n_sites must be 1, 2 or 3, got {n_sites}")


def rate_per_dimension(p: ArrayLike) -> Floats:
    """Return 2 ln(1/(1-p)), the rate at which 1 - P(connected) falls with d for fixed p as d grows.

    For fixed p and large d the smallest finite cluster, the isolated site, rules: 1 - P(two far sites are connected)
    = 2 (1-p)^(2d) (1 + o(1)).
    """
    return -2 * np.log1p(-np.asarray(p, dtype=np.float64))


def _branching(chance: Floats, count: Floats) -> Floats:
    """Return u = -ln Q for the smallest root of Q = (1 - p (1 - Q))^n."""
    with np.errstate(divide="ignore"):
        return _root(
            chance * count,
            lambda u: -count * np.log1p(chance * np.expm1(-u)),
            lambda u: count * chance * np.exp(-u) / (1 + chance * np.expm1(-u)),
        )


def _root(mean: Floats, image: Callable[[Floats], Floats], slope: Callable[[Floats], Floats]) -> Floats:
    """Return the largest root of u = image(u), image concave with slope ``mean`` at 0; 0 unless mean > 1.

    Newton's method from u = image(infinity) falls to the root monotonically; at worst, at the threshold, each step
    halves the distance.
    """
    u = image(np.full(mean.shape, np.inf))
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(100):
            step = (u - image(u)) / (1 - slope(u))
            u = np.where(np.isfinite(step), np.maximum(u - step, 0), u)
    return np.where(mean > 1, u, 0.0)


def _survival(u: Floats) -> Survival:
    return Survival(connected=-np.expm1(-u), disconnected=np.exp(-u))


def _checked(p: ArrayLike, n: ArrayLike, *, least: int) -> tuple[Floats, Floats]:
    chance, count = np.asarray(p, dtype=np.float64), np.asarray(n, dtype=np.float64)
    if not np.all((chance >= 0) & (chance <= 1)):
        raise ValueError(f"p must lie in [0, 1], got {chance[~((chance >= 0) & (chance <= 1))].flat[0]}")
    if not np.all(count >= least):
        raise ValueError(f"the number of neighbours or dimensions must be at least {least}, got {count.min()}")
    return chance, count
