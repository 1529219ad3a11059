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

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import joblib
import numpy as np
from numpy.typing import ArrayLike, NDArray

from percolation import arguments
from percolation._kernels import growth as kernels

Words = NDArray[np.uint64]
Neighbourhood = Literal["face", "corner"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Independent clusters of an occupied site of Z^d.

    Parameters
    ----------
    p : float
        Occupation probability.
    dimension : int
        d.
    n_neighbours : int
        Neighbours of a site, 2 d or 3^d - 1.
    max_sites : int
        Where growth was stopped.
    sizes : array of int64, shape (n_samples,)
        Sites in each cluster, ``max_sites`` where it was stopped.
    n_tested : int
        Sites asked whether they are occupied, with repetition.
    """

    p: float
    dimension: int
    n_neighbours: int
    max_sites: int
    sizes: NDArray[np.int64]
    n_tested: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Proportion:
    """An estimated probability, the ends of its interval, and an upper bound of its bias by truncation."""

    value: float
    low: float
    high: float
    truncation_bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Whether two given occupied sites of Z^d are connected, in independent lattices.

    Parameters
    ----------
    p : float
        Occupation probability.
    displacement : tuple of int
        From one site to the other; its length is d.
    max_sites : int
        Where growth from either end was stopped.
    distances : array of int64, shape (n_samples,)
        The chemical distance, the steps of the shortest path over occupied sites; -1 where the sites are in different
        clusters; -2 where both clusters reached ``max_sites`` before they met, and are taken for the infinite one: a
        share that is too large by at most twice the :func:`truncation_bound` of clusters grown at the same p.
    """

    p: float
    displacement: tuple[int, ...]
    max_sites: int
    distances: NDArray[np.int64]


def grow(
    p: float,
    dimension: int,
    *,
    n_samples: int,
    max_sites: int,
    rng: np.random.Generator,
    neighbourhood: Neighbourhood = "face",
    n_workers: int | None = None,
) -> Growth:
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
        A cluster of that many sites is stopped and taken for infinite; 2 to 2^30.
    rng : numpy.random.Generator
        Chooses the lattices.
    neighbourhood : {"face", "corner"}
        Neighbouring cubes share a face (2 d of them), or at least a corner (3^d - 1, for d up to 12).
    n_workers : int, optional
        Threads, 1 to 1024; one a core by default. Changes no number.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument lies outside its range, or the run would need more than all of the memory.

    Notes
    -----
    Time is one test a neighbour and site; memory is about 24 to 40 bytes times ``max_sites``, for each worker. Two of
    the n sites of one cluster share a key, and one of them is lost, with probability about n^2 / 2^65.

    Examples
    --------
    >>> sizes = grow(0.0, 3, n_samples=4, max_sites=10, rng=np.random.default_rng(0)).sizes
    >>> sizes.tolist()
    [1, 1, 1, 1]
    """
    p, dimension, n_samples, max_sites = check(p, dimension, n_samples=n_samples, max_sites=max_sites)
    n_workers = min(arguments.check_workers(n_workers), n_samples)
    slots = 1 << int(2 * max_sites - 1).bit_length()
    arguments.check_memory("max_sites", max_sites, n_workers * 8 * (slots + max_sites))
    salts, steps = lattice(dimension, n_samples, rng, neighbourhood)
    sizes = np.empty(n_samples, dtype=np.int64)

    def work(part: slice) -> int:
        table = np.zeros(slots, dtype=np.uint64)
        with np.errstate(over="ignore"):
            return int(kernels.grow(salts[part], threshold(p), steps, max_sites, table, sizes[part]))

    n_tested = sum(_in_threads(work, n_samples, n_workers))
    return Growth(
        p=p, dimension=dimension, n_neighbours=steps.size, max_sites=max_sites, sizes=sizes, n_tested=n_tested
    )


def connect(
    p: float,
    displacement: Sequence[int],
    *,
    n_samples: int,
    max_sites: int,
    rng: np.random.Generator,
    neighbourhood: Neighbourhood = "face",
    n_workers: int | None = None,
) -> Connection:
    """Grow from two given occupied sites of Z^d until their clusters meet, ``n_samples`` times.

    Both ends grow breadth first, the smaller frontier next, so that the first contact is on a shortest path.

    Parameters
    ----------
    p : float
        Occupation probability of every other site, in [0, 1].
    displacement : sequence of int, shape (d,)
        From one site to the other, not zero; each below 2^63.
    n_samples : int
        Independent lattices, at least 1.
    max_sites : int
        A cluster of that many sites is stopped; 2 to 2^30.
    rng, neighbourhood, n_workers
        As for :func:`grow`.

    Raises
    ------
    TypeError, ValueError
        As for :func:`grow`.

    Examples
    --------
    >>> connect(1.0, (2, -1), n_samples=1, max_sites=100, rng=np.random.default_rng(0)).distances.tolist()
    [3]
    """
    steps_between = arguments.check_integers("displacement", displacement, least=-(2**63), ndim=1)
    if not np.any(steps_between):
        raise ValueError(f"displacement must not be zero along every axis, got {arguments.shown(displacement)}")
    p, _, n_samples, max_sites = check(p, steps_between.size, n_samples=n_samples, max_sites=max_sites)
    n_workers = min(arguments.check_workers(n_workers), n_samples)
    slots = 1 << int(4 * max_sites - 1).bit_length()
    arguments.check_memory("max_sites", max_sites, n_workers * (12 * slots + 32 * max_sites))
    salts, steps, forward = _generators(steps_between.size, n_samples, rng, neighbourhood)
    distances = np.empty(n_samples, dtype=np.int64)
    with np.errstate(over="ignore"):
        target = np.uint64(1) + (steps_between.astype(np.uint64) * forward).sum(dtype=np.uint64)

    def work(part: slice) -> None:
        table = np.zeros(slots, dtype=np.uint64)
        marks = np.zeros(table.size, dtype=np.int32)
        with np.errstate(over="ignore"):
            kernels.connect(salts[part], threshold(p), np.sort(steps), target, max_sites, table, marks, distances[part])

    _in_threads(work, n_samples, n_workers)
    return Connection(p=p, displacement=tuple(int(x) for x in steps_between), max_sites=max_sites, distances=distances)


def lattice(
    dimension: int, n_samples: int, rng: np.random.Generator, neighbourhood: Neighbourhood = "face"
) -> tuple[Words, Words]:
    """Return a salt for every sample, and the key differences from a site of Z^d to its neighbours.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If a number is below 1, or the neighbourhood is unknown or has too many sites.
    """
    salts, steps, _ = _generators(dimension, n_samples, rng, neighbourhood)
    return salts, steps


def _generators(
    dimension: int, n_samples: int, rng: np.random.Generator, neighbourhood: Neighbourhood
) -> tuple[Words, Words, Words]:
    """Return salts, the steps to all neighbours, and the steps along the axes."""
    dimension = arguments.check_whole("dimension", dimension, least=1)
    n_samples = arguments.check_whole("n_samples", n_samples, least=1)
    arguments.check_generator("rng", rng)
    arguments.check_choice("neighbourhood", neighbourhood, get_args(Neighbourhood))
    if neighbourhood == "corner" and dimension > 12:
        raise ValueError(f"dimension must be at most 12 for the 3^d - 1 neighbours at a corner, got {dimension}")
    arguments.check_memory("dimension", dimension, 80 * dimension)
    arguments.check_memory("n_samples", n_samples, 16 * n_samples)
    salts = rng.integers(0, 2**64, size=n_samples, dtype=np.uint64)
    forward = rng.integers(0, 2**64, size=dimension, dtype=np.uint64) | np.uint64(1)
    if neighbourhood == "face":
        return salts, np.concatenate([forward, ~forward + np.uint64(1)]), forward
    moves = np.array(list(itertools.product((0, 1, -1), repeat=dimension))[1:], dtype=np.int64)
    return salts, (moves.astype(np.uint64) * forward).sum(axis=1, dtype=np.uint64), forward


def _in_threads(work: Callable[[slice], T], n_samples: int, count: int) -> list[T]:
    """Call ``work`` with ``count`` parts of the samples, side by side."""
    ends = [n_samples * i // count for i in range(count + 1)]
    parts = [slice(*ends[i : i + 2]) for i in range(count)]
    return list(joblib.Parallel(n_jobs=count, backend="threading")(joblib.delayed(work)(part) for part in parts))


def threshold(p: float) -> np.uint64:
    """Return the 64-bit word below which a mixed word means occupied; exact to 2^-64 (p = 1: all words but one).

    Raises
    ------
    TypeError
        If p is no number.
    ValueError
        If p lies outside [0, 1].
    """
    return np.uint64(min(int(arguments.check_probability("p", p) * 2.0**64), 2**64 - 1))


def check(p: float, dimension: int, *, n_samples: int, max_sites: int) -> tuple[float, int, int, int]:
    """Return the arguments of a growth as plain numbers.

    Raises
    ------
    TypeError
        If one of them is of another kind.
    ValueError
        If one of them lies outside its range.
    """
    return (
        arguments.check_probability("p", p),
        arguments.check_whole("dimension", dimension, least=1),
        arguments.check_whole("n_samples", n_samples, least=1),
        # the hash has four slots a site, and 2^32 at most
        arguments.check_whole("max_sites", max_sites, least=2, most=2**30),
    )


def infinite_probability(growth: Growth, *, z: float = 1.0) -> Proportion:
    """Return the share of clusters that were stopped: P(infinite), with Wilson's interval of ``z`` standard errors.

    The value is too large by the finite clusters among them, at most its ``truncation_bound``.
    """
    arguments.check_kind("growth", growth, Growth)
    stopped = int(np.count_nonzero(growth.sizes == growth.max_sites))
    low, high = wilson_interval(stopped, growth.sizes.size, z=z)
    return Proportion(value=stopped / growth.sizes.size, low=low, high=high, truncation_bound=truncation_bound(growth))


def size_distribution(growth: Growth, sizes: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return P(an occupied site's cluster has at least n sites) for each n, and the binomial standard errors.

    Parameters
    ----------
    growth : Growth
        Clusters.
    sizes : array_like of int
        In [1, growth.max_sites], up to where truncation changes nothing.

    Raises
    ------
    TypeError
        If a size is no integer.
    ValueError
        If a size lies outside that range.
    """
    arguments.check_kind("growth", growth, Growth)
    asked = arguments.check_integers("sizes", sizes, least=1, most=growth.max_sites)
    n = growth.sizes.size
    share = 1 - np.searchsorted(np.sort(growth.sizes), asked, side="left") / n
    return share, np.sqrt(share * (1 - share) / n)


Z_95 = 1.959963984540054
"""Standard errors to each side of a normal 95 % interval."""


def wilson_interval(count: float, n_samples: int, *, z: float) -> tuple[float, float]:
    """Return Wilson's score interval of a probability, ``z`` standard errors to each side; right for zero counts.

    Raises
    ------
    TypeError
        If an argument is no number.
    ValueError
        If there is no sample, the count lies outside [0, n_samples], or z is negative or not finite.

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22, 209 (1927), DOI 10.1080/01621459.1927.10502953.
    """
    n_samples = arguments.check_whole("n_samples", n_samples, least=1)
    count, z = arguments.check_real("count", count), arguments.check_real("z", z, least=0)
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

    Raises
    ------
    TypeError
        If the dimension is no whole number.
    ValueError
        If it is below 1.
    """
    dimension = arguments.check_whole("dimension", dimension, least=1)
    exponents = {2: 187 / 91, 3: 2.18906, 4: 2.3135, 5: 1 + 5 / 3.5260}
    if dimension == 1:
        return float("inf")
    return float(2 ** (1 / (exponents.get(dimension, 2.5) - 2)))


def truncation_bound(growth: Growth, *, z: float = 2.0) -> float:
    """Return an upper bound of P(max_sites <= size < infinity): how many stopped clusters were finite after all.

    Above the threshold the tail of finite sizes falls at least as fast as at criticality, where P(size >= r n) is half
    of P(size >= n) (:func:`window_ratio`). So the tail beyond ``max_sites`` is at most what lies in the window
    [max_sites / r, max_sites), whose probability is counted and bounded by Wilson's interval. Where (z - 1) p < 1, with
    z neighbours, there is no infinite cluster, and Markov's inequality on the mean size bounds it instead.

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
    arguments.check_kind("growth", growth, Growth)
    finite = growth.sizes < growth.max_sites
    window = finite & (growth.sizes >= growth.max_sites / window_ratio(growth.dimension))
    bound = wilson_interval(int(window.sum()), growth.sizes.size, z=z)[1]
    branching = (growth.n_neighbours - 1) * growth.p
    if branching < 1:
        mean_size = 1 + growth.n_neighbours * growth.p / (1 - branching)
        bound = min(bound, mean_size / growth.max_sites)
    return bound
