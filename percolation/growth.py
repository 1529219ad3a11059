"""Clusters grown from a site of the infinite lattice Z^d, which is never stored.

A site is occupied with probability p, independently; whether it is, is a pure function of (salt, site), so that only
the sites of the growing cluster are kept (:mod:`percolation._kernels` has the representation). A growth that reaches
``max_sites`` sites is stopped and taken for infinite; :func:`truncation_bound` bounds what that costs.

References
----------
Leath, Phys. Rev. B 14, 5046 (1976), DOI 10.1103/PhysRevB.14.5046. Grassberger, Phys. Rev. E 67, 036101 (2003),
DOI 10.1103/PhysRevE.67.036101.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from percolation._kernels import growth as kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Independent clusters of an occupied site of Z^d.

    Parameters
    ----------
    p : float
        Occupation probability.
    dimension : int
        d; a site has 2 d neighbours.
    max_sites : int
        Where growth was stopped.
    sizes : array of int64, shape (n_samples,)
        Sites in each cluster, ``max_sites`` where it was stopped.
    n_tested : int
        Sites asked whether they are occupied, with repetition.
    """

    p: float
    dimension: int
    max_sites: int
    sizes: NDArray[np.int64]
    n_tested: int


def grow(p: float, dimension: int, *, n_samples: int, max_sites: int, rng: np.random.Generator) -> Growth:
    """Grow the cluster of an occupied site of Z^d, ``n_samples`` times.

    Parameters
    ----------
    p : float
        Occupation probability, in [0, 1].
    dimension : int
        d, at least 1.
    n_samples : int
        Independent clusters, at least 1.
    max_sites : int
        A cluster of that many sites is stopped and taken for infinite; at least 2.
    rng : numpy.random.Generator
        Chooses the lattices.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    Time is 2 d tests a site; memory is about 32 bytes times ``max_sites``. Two of the n sites of one cluster share a
    key, and one of them is lost, with probability about n^2 / 2^65.

    Examples
    --------
    >>> sizes = grow(0.0, 3, n_samples=4, max_sites=10, rng=np.random.default_rng(0)).sizes
    >>> sizes.tolist()
    [1, 1, 1, 1]
    """
    check(p, dimension, n_samples=n_samples, max_sites=max_sites)
    salts, steps = lattice(dimension, n_samples, rng)
    table = np.zeros(1 << int(2 * max_sites - 1).bit_length(), dtype=np.uint64)
    sizes = np.empty(n_samples, dtype=np.int64)
    with np.errstate(over="ignore"):
        n_tested = kernels.grow(salts, threshold(p), steps, max_sites, table, sizes)
    return Growth(p=p, dimension=dimension, max_sites=max_sites, sizes=sizes, n_tested=int(n_tested))


def lattice(dimension: int, n_samples: int, rng: np.random.Generator) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return a salt for every sample, and the 2 d key differences from a site of Z^d to its neighbours."""
    salts = rng.integers(0, 2**64, size=n_samples, dtype=np.uint64)
    forward = rng.integers(0, 2**64, size=dimension, dtype=np.uint64) | np.uint64(1)
    return salts, np.concatenate([forward, ~forward + np.uint64(1)])


def threshold(p: float) -> np.uint64:
    """Return the 64-bit word below which a mixed word means occupied; exact to 2^-64 (p = 1: all words but one)."""
    return np.uint64(min(int(p * 2.0**64), 2**64 - 1))


def check(p: float, dimension: int, *, n_samples: int, max_sites: int) -> None:
    """Raise ValueError, naming the argument, unless all of them lie in their ranges."""
    if not 0 <= p <= 1:
        raise ValueError(f"p must lie in [0, 1], got {p}")
    for name, value, least in (("dimension", dimension, 1), ("n_samples", n_samples, 1), ("max_sites", max_sites, 2)):
        if value != int(value) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")


def wilson_interval(count: float, n_samples: int, *, z: float) -> tuple[float, float]:
    """Return Wilson's score interval of a probability, ``z`` standard errors to each side; right for zero counts.

    Raises
    ------
    ValueError
        If the count lies outside [0, n_samples].

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22, 209 (1927), DOI 10.1080/01621459.1927.10502953.
    """
    if not 0 <= count <= n_samples:
        raise ValueError(f"count must lie in [0, {n_samples}], got {count}")
    share, width = count / n_samples, z**2 / n_samples
    centre = share + width / 2
    half = math.sqrt(width * (share * (1 - share) + width / 4))
    return max(0.0, (centre - half) / (1 + width)), min(1.0, (centre + half) / (1 + width))


def window_ratio(dimension: int) -> float:
    """Return r such that, at criticality, P(size >= r n) is half of P(size >= n): r = 2^(1/(tau - 2)).

    The Fisher exponent tau: 187/91 in two dimensions (exact), measured values in three to five, 5/2 from six on;
    infinite in one, where there is no transition above which a tail could be cut.
    """
    exponents = {2: 187 / 91, 3: 2.18906, 4: 2.3135, 5: 1 + 5 / 3.5260}
    if dimension == 1:
        return float("inf")
    return float(2 ** (1 / (exponents.get(dimension, 2.5) - 2)))


def truncation_bound(growth: Growth, *, z: float = 2.0) -> float:
    """Return an upper bound of P(max_sites <= size < infinity): how many stopped clusters were finite after all.

    Above the threshold the tail of finite sizes falls at least as fast as at criticality, where P(size >= r n) is half
    of P(size >= n) (:func:`window_ratio`). So the tail beyond ``max_sites`` is at most what lies in the window
    [max_sites / r, max_sites), whose probability is counted and bounded by Wilson's interval. Where
    (2d - 1) p < 1 there is no infinite cluster, and Markov's inequality on the mean size bounds it instead.

    Parameters
    ----------
    growth : Growth
        Clusters, some of them stopped.
    z : float
        Standard errors of the counted window that the bound takes on top.

    Notes
    -----
    The first part rests on scaling theory and on a count, so it is a statistical bound, not a proof; the second is
    exact. If the window reaches below one site, the bound is no better than the probability of being finite.
    """
    finite = growth.sizes < growth.max_sites
    window = finite & (growth.sizes >= growth.max_sites / window_ratio(growth.dimension))
    bound = wilson_interval(int(window.sum()), growth.sizes.size, z=z)[1]
    branching = (2 * growth.dimension - 1) * growth.p
    if branching < 1:
        mean_size = 1 + 2 * growth.dimension * growth.p / (1 - branching)
        bound = min(bound, mean_size / growth.max_sites)
    return bound
