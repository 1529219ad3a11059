"""Closed theories beside which the simulations are put: Eqs. 21-24, the Bethe lattice, the isolated site.

It shares no code with the simulators: it is the independent witness against them. Throughout, an *occupied* site is
given; P is the probability that it belongs to the infinite cluster and Q = 1 - P that it does not. Q is computed as
such, never as 1 - P, so that it keeps its digits when it is tiny.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, App. D.1.5. Corless, Gonnet, Hare, Jeffrey, Knuth, On the Lambert W
function, Adv. Comput. Math. 5 (1996), DOI 10.1007/BF02124750. Stauffer, Aharony, Introduction to Percolation Theory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from percolation import arguments

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survival:
    """P, in the infinite cluster, Q = 1 - P, not in it, and ln Q: each to a few units in its last place.

    The first keeps its digits just above the threshold, the second down to 1e-307, the third beyond that.
    """

    connected: Floats
    disconnected: Floats
    log_disconnected: Floats


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
    The relative residual Q / exp(-q P) - 1 is below 1e-15, and so is the error of P and Q, at every q (both measured
    against 50 digits). W itself loses half of its digits at its branch point, which is the threshold q = 1; here
    Newton's method solves u = q (1 - e^-u), u = -ln Q, in the form

        (u - 1 + e^-u) - (q - 1) (1 - e^-u) = 0,

    in which nothing cancels: q - 1 is exact, and the first bracket is summed as a series where u is small.

    Examples
    --------
    >>> float(poisson(2.0).disconnected)  # doctest: +ELLIPSIS
    0.20318786997997...
    """
    mean = _mean(q)
    excess = mean - 1
    u = _root(
        mean,
        lambda u: _exponential_rest(u) + excess * np.expm1(-u),
        lambda u: -np.expm1(-u) - excess * np.exp(-u),
    )
    u = np.where(excess > 0, u, 0.0)
    # Far from the threshold q has more digits of ln Q than u has: Q = e^-q e^(q Q), and q Q is small.
    return _survival(u, np.exp(-mean) * np.exp(mean * np.exp(-u)), -u)


def neighbours(p: ArrayLike, n_neighbours: ArrayLike) -> Survival:
    """Return the largest root of 1 - P = (1 - p P)^n: Eq. 21 before its bound by an exponential.

    Parameters
    ----------
    p : array_like
        Occupation probability, in [0, 1].
    n_neighbours : array_like
        Neighbours of a cube, at least 1. The paper writes d, which is right for the corners {0, 1}^d of one cube; a
        site of Z^d has 2 d.

    Raises
    ------
    ValueError
        If p lies outside [0, 1], or the number of neighbours is below 1 or not finite.

    Notes
    -----
    As exact as :func:`poisson`: the relative residual is below 1e-14 for every p and every whole n.
    """
    chance, count = _checked(p, n_neighbours, least=1)
    return _branching(chance, count, count)


def bethe(p: ArrayLike, n_neighbours: ArrayLike) -> Survival:
    """Return P on the Bethe lattice: the root has z neighbours, every later site z - 1 new ones.

    With Q' the probability that an occupied later site is cut off, Q' = (1 - p (1 - Q'))^(z-1), Q = (1 - p (1 - Q'))^z.
    On a lattice with z neighbours Q is never smaller: a cluster grown there, with a neighbour that two of its sites
    share tested once, is part of one grown on the Bethe lattice.

    Parameters
    ----------
    p : array_like
        Occupation probability, in [0, 1].
    n_neighbours : array_like
        The coordination number z, at least 2; 2 d for Z^d.

    Raises
    ------
    ValueError
        If p lies outside [0, 1], or z is below 2 or not finite.
    """
    chance, count = _checked(p, n_neighbours, least=2)
    return _branching(chance, count - 1, count)


def isolated(p: ArrayLike, n_neighbours: ArrayLike) -> Floats:
    """Return (1 - p)^n, the probability that none of n neighbours is occupied.

    Raises
    ------
    ValueError
        If p lies outside [0, 1] or the number of neighbours is below 1.
    """
    chance, count = _checked(p, n_neighbours, least=1)
    return _power(chance, count)


def printed_expansion(q: ArrayLike) -> Floats:
    """Return e^-q / (1 + q e^q), the leading term of Q as Eq. 24 prints it.

    It is not the expansion of the root of Eq. 22: (1 - q e^-q) Q = e^-q, which is Eq. 23 with its signs put right,
    gives Q = e^-q (1 + q e^-q + ...), whereas the printed form behaves as e^(-2q) / q.

    Parameters
    ----------
    q : array_like
        Mean number of occupied neighbours, at least 0.

    Raises
    ------
    ValueError
        If q is negative or not finite.
    """
    mean = _mean(q)
    return np.exp(-2 * mean) / (np.exp(-mean) + mean)


def pair_disconnected(disconnected: ArrayLike) -> Floats:
    """Return 1 - (1 - Q)^2: two far occupied sites are connected when both are in the (unique) infinite cluster.

    Parameters
    ----------
    disconnected : array_like
        Q, in [0, 1]: the ``disconnected`` of a :class:`Survival`, or an estimate.

    Raises
    ------
    TypeError
        If Q is no number.
    ValueError
        If Q lies outside [0, 1].
    """
    lost = arguments.check_probabilities("disconnected", disconnected)
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
    lost = _branching(chance, count - 1, count - 1).disconnected
    # Given that its cluster is finite, a tested neighbour is occupied with probability p Q' / (1 - p + p Q').
    with np.errstate(invalid="ignore"):
        return np.where(chance < 1, chance * lost / ((1 - chance) + chance * lost), 0.0)


def rate_per_dimension(p: ArrayLike) -> Floats:
    """Return 2 ln(1/(1-p)), the rate at which 1 - P(connected) falls with d for fixed p as d grows.

    For fixed p and large d the smallest finite cluster, the isolated site, rules: 1 - P(two far sites are connected)
    = 2 (1-p)^(2d) (1 + o(1)).

    Parameters
    ----------
    p : array_like
        Occupation probability, in [0, 1].

    Raises
    ------
    ValueError
        If p lies outside [0, 1].
    """
    chance, _ = _checked(p, 1, least=1)
    with np.errstate(divide="ignore"):
        return -2 * np.log1p(-chance)


def _branching(chance: Floats, later: Floats, first: Floats) -> Survival:
    """Return Q = s^first, s = 1 - p (1 - Q'), for the smallest root of Q' = s^later.

    Newton's method in u = -ln Q' on u + later ln(1 - p f) = 0, f = 1 - e^-u, in a form in which nothing cancels:
    (u - f) - later (-ln(1 - p f) - p f) - (later p - 1) f.
    """
    excess = _product_less_one(chance, later)
    with np.errstate(divide="ignore"):
        start = -later * np.log1p(-chance)

    def residual(u: Floats) -> Floats:
        fallen = -np.expm1(-u)
        return _exponential_rest(u) - later * _logarithm_rest(chance * fallen) - excess * fallen

    def slope(u: Floats) -> Floats:
        fallen = -np.expm1(-u)
        logarithm = later * chance**2 * fallen / ((1 - chance) + chance * np.exp(-u))
        return fallen - (logarithm + excess) * np.exp(-u)

    u = np.where(excess > 0, _root(start, residual, slope), 0.0)
    u = np.where(chance == 1, np.inf, u)
    # Far from the threshold 1 - p rules: s = (1 - p) (1 + p Q' / (1 - p)), and p Q' / (1 - p) is small.
    lost = np.exp(-u)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(2):  # a step divides the rounding error of u by later p Q' / s, at the least
            beyond = np.where(chance == 1, 0.0, np.log1p(chance * lost / (1 - chance)))
            lost = np.where(u > 1, _power(chance, later) * np.exp(later * beyond), lost)
        far = _power(chance, first) * np.exp(first * beyond)
        return _survival(u * (first / later), far, first * (np.log1p(-chance) + beyond))


def _root(start: Floats, residual: Callable[[Floats], Floats], slope: Callable[[Floats], Floats]) -> Floats:
    """Return the largest root of a residual that is convex in u and not negative at ``start``.

    Newton's method falls to it monotonically; at worst, near a double root, each step halves the distance.
    """
    u = np.where(np.isfinite(start), start, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        for _ in range(200):
            step = residual(u) / slope(u)
            step = np.where(np.isfinite(step), np.clip(step, 0, u), 0.0)
            u = u - step
            if np.all(step <= 1e-15 * u):
                break
    return u


def _exponential_rest(u: Floats) -> Floats:
    """Return u - 1 + e^-u without cancellation, for u >= 0."""
    coefficients = [0.0, 0.0, *((-1) ** k / math.factorial(k) for k in range(2, 20))]
    return np.where(u < 1, np.polynomial.polynomial.polyval(np.minimum(u, 1), coefficients), u + np.expm1(-u))


def _logarithm_rest(x: Floats) -> Floats:
    """Return -ln(1 - x) - x without cancellation, for 0 <= x <= 1."""
    coefficients = [0.0, 0.0, *(1 / k for k in range(2, 30))]
    with np.errstate(divide="ignore"):
        return np.where(
            x < 0.25, np.polynomial.polynomial.polyval(np.minimum(x, 0.25), coefficients), -np.log1p(-x) - x
        )


def _product_less_one(a: Floats, b: Floats) -> Floats:
    """Return a b - 1 rounded once or twice: the product's rounding error is added back (Dekker 1971)."""
    high_a, high_b = ((x * 134217729.0) - ((x * 134217729.0) - x) for x in (a, b))
    low_a, low_b = a - high_a, b - high_b
    product = a * b
    error = ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b
    return (product - 1) + error


def _power(chance: Floats, count: Floats) -> Floats:
    """Return (1 - p)^n with the rounding error of 1 - p, which the power would multiply by n, taken back."""
    rest = 1 - chance
    error = (1 - rest) - chance  # exact: 1 - p = rest + error
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(rest > 0, np.power(rest, count) * np.exp(count * (error / rest)), 0.0)


def _survival(u: Floats, far: Floats, log_far: Floats) -> Survival:
    """Return the survival from u = -ln Q near the threshold, from Q and ln Q as given where u > 1."""
    is_far = u > 1
    return Survival(
        connected=-np.expm1(-u),
        disconnected=np.where(is_far, far, np.exp(-u)),
        log_disconnected=np.where(is_far, log_far, 0.0 - u),
    )


def _mean(q: ArrayLike) -> Floats:
    return arguments.check_reals("q", q, least=0)


def _checked(p: ArrayLike, n: ArrayLike, *, least: int) -> tuple[Floats, Floats]:
    chance, count = arguments.check_probabilities("p", p), arguments.check_reals("n_neighbours", n, least=least)
    return arguments.check_broadcast("p", chance, "n_neighbours", count)
