"""All occupation probabilities at once: Newman-Ziff sweeps of sites or bonds, in any dimension.

A run occupies the sites (or bonds) of a lattice in random order and follows the clusters by union-find; after n of M
it is one *sample state*. The *microcanonical* averages at every n give the *canonical* average at any p by convolution
with the binomial distribution, Q(p) = sum_n B(M, n, p) Q_n. Each run is convolved by itself, so that error bars over
runs count the correlation of its states.

References
----------
Newman, Ziff, Phys. Rev. E 64, 016706 (2001), DOI 10.1103/PhysRevE.64.016706.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import joblib
import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

from percolation import arguments
from percolation._kernels import sweep as kernels

Floats = NDArray[np.float64]
States = tuple[NDArray[np.int32], NDArray[np.int32], Floats, NDArray[np.int64]]
Kind = Literal["site", "bond"]

_CHUNK = 2**16  # steps whose order is drawn at a time
_MOST_AXES = 7  # whose turns one integer holds; nine bits each


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Mean over runs and its standard error, of equal shape."""

    mean: Floats
    standard_error: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Canonical averages of one lattice at every asked p.

    Parameters
    ----------
    p : array, shape (n_p,)
        Occupation probabilities.
    largest, second_largest : Estimate, shape (n_p,)
        Share of all sites in the largest and second largest cluster; the first tends to the strength P of the
        infinite cluster.
    susceptibility : Estimate, shape (n_p,)
        (sum of s^2 over all clusters but the largest) / number of sites.
    crossing : Estimate, shape (n_axes, n_p)
        Probability that a cluster wraps around a periodic axis or joins both faces of an open one.
    n_runs : int
        Independent runs.
    """

    p: Floats
    largest: Estimate
    second_largest: Estimate
    susceptibility: Estimate
    crossing: Estimate
    n_runs: int


def sweep(
    shape: Sequence[int],
    p: ArrayLike,
    *,
    kind: Kind = "site",
    periodic: bool | Sequence[bool] = True,
    n_runs: int,
    seeds: np.random.SeedSequence,
    n_workers: int | None = None,
) -> Sweep:
    """Return canonical averages over ``n_runs`` Newman-Ziff sweeps of a hypercubic lattice.

    Parameters
    ----------
    shape : sequence of int
        Sites along each axis; at least 3 along a periodic one.
    p : array_like, shape (n_p,)
        Occupation probabilities, in [0, 1].
    kind : {"site", "bond"}
        What is occupied. With bonds all sites are there.
    periodic : bool or one bool an axis
        Whether opposite faces are neighbours.
    n_runs : int
        Independent runs, at least 2.
    seeds : numpy.random.SeedSequence
        A child for each run.
    n_workers : int, optional
        Runs under way at once, in threads, 1 to 1024; one a core by default. Changes no number.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument lies outside its range, or the runs would need more than all of the memory.

    Notes
    -----
    Time is nearly linear in the number of sites times axes. Memory is at most 40 bytes a site and worker, with bonds
    20 + 20 d and once 4 d more, and 150 n_sites^(1/2) bytes for each p. Averages are sums in float64 of exact integers.

    Examples
    --------
    >>> found = sweep((3,), [0.0, 1.0], n_runs=2, seeds=np.random.SeedSequence(0), n_workers=1)
    >>> found.largest.mean.tolist()
    [0.0, 1.0]
    """
    chances = np.atleast_1d(arguments.check_probabilities("p", p))
    if chances.ndim != 1:
        raise ValueError(f"p must be one number or a row of numbers, got shape {chances.shape}")
    lengths, axes = _lattice(shape, periodic)
    n_runs, n_workers = _check(kind, lengths, n_runs, seeds, n_workers, least=2)
    arguments.check_memory("p", chances, 150 * chances.size * math.isqrt(int(lengths.prod()) * lengths.size))
    elements = _bonds(lengths, axes) if kind == "bond" else np.arange(lengths.prod(), dtype=np.int32)
    weights = [binomial(elements.size, chance) for chance in chances]

    def one(seed: np.random.SeedSequence) -> Floats:
        states = _run(elements.copy(), kind == "bond", lengths, axes, rng=np.random.default_rng(seed), to_end=True)
        return _canonical(states, int(lengths.prod()), weights)

    workers = joblib.Parallel(n_jobs=n_workers, backend="threading")
    runs = np.stack(workers(joblib.delayed(one)(seed) for seed in seeds.spawn(n_runs)))
    mean, error = runs.mean(axis=0), runs.std(axis=0, ddof=1) / np.sqrt(n_runs)
    estimates = [Estimate(mean=mean[i], standard_error=error[i]) for i in range(3)]
    return Sweep(
        p=chances,
        largest=estimates[0],
        second_largest=estimates[1],
        susceptibility=estimates[2],
        crossing=Estimate(mean=mean[3:], standard_error=error[3:]),
        n_runs=n_runs,
    )


def bonds(shape: Sequence[int], periodic: bool | Sequence[bool]) -> NDArray[np.integer]:
    """Return the bonds of a lattice: d times the site in C order, plus the axis along which it leads.

    Raises
    ------
    TypeError, ValueError
        As for the lattice of :func:`sweep`.
    """
    lengths, axes = _lattice(shape, periodic)
    arguments.check_memory("shape", tuple(shape), 16 * lengths.size * int(lengths.prod()))
    return _bonds(lengths, axes)


def _bonds(shape: NDArray[np.int64], periodic: NDArray[np.bool_]) -> NDArray[np.integer]:
    n_axes = shape.size
    dtype = np.int32 if n_axes * int(shape.prod()) < 2**31 else np.int64
    sites = np.arange(shape.prod(), dtype=dtype).reshape(shape)
    found = []
    for axis in range(n_axes):
        starts = sites if periodic[axis] else sites.take(np.arange(shape[axis] - 1), axis=axis)
        found.append(n_axes * starts.ravel() + axis)
    return np.concatenate(found)


def wrapping(
    shape: Sequence[int],
    *,
    kind: Kind = "site",
    n_runs: int,
    seeds: np.random.SeedSequence,
    n_workers: int | None = None,
) -> NDArray[np.int64]:
    """Return how many sites or bonds of a torus are occupied when a cluster first wraps around each axis.

    Parameters
    ----------
    shape : sequence of int
        Sites along each axis, at least 3; every axis is periodic.
    kind : {"site", "bond"}
        What is occupied. With bonds all sites are there.
    n_runs : int
        Independent runs, at least 1.
    seeds : numpy.random.SeedSequence
        A child for each run.
    n_workers : int, optional
        Runs under way at once, in threads, 1 to 1024; one a core by default. Changes no number.

    Returns
    -------
    array of int64, shape (n_runs, n_axes)
        Entry (r, i) is the smallest n at which a cluster of run r winds around axis i: with n of all sites or bonds
        occupied in random order, it does at n and later, not before.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument lies outside its range, or the runs would need more than all of the memory.

    Notes
    -----
    The runs are those of :func:`sweep` with the same seeds; each stops once every axis is wrapped, which saves time but
    no memory.

    Examples
    --------
    >>> wrapping((3,), n_runs=2, seeds=np.random.SeedSequence(0), n_workers=1).tolist()
    [[3], [3]]
    """
    lengths, axes = _lattice(shape, True)
    n_runs, n_workers = _check(kind, lengths, n_runs, seeds, n_workers, least=1)
    elements = _bonds(lengths, axes) if kind == "bond" else np.arange(lengths.prod(), dtype=np.int32)

    def one(seed: np.random.SeedSequence) -> NDArray[np.int64]:
        rng = np.random.default_rng(seed)
        return _run(elements.copy(), kind == "bond", lengths, axes, rng=rng, to_end=False)[3]

    workers = joblib.Parallel(n_jobs=n_workers, backend="threading")
    return np.stack(workers(joblib.delayed(one)(seed) for seed in seeds.spawn(n_runs)))


def wrapping_in_order(order: NDArray[np.integer], shape: Sequence[int]) -> NDArray[np.int64]:
    """Return how many sites of a torus are occupied when a cluster first wraps around each axis, in a given order.

    Parameters
    ----------
    order : array of int, shape (n_sites,)
        The sites in C order, as a permutation: those of a field from its largest value down make its level sets.
    shape : sequence of int
        Sites along each axis, at least 3; every axis is periodic.

    Returns
    -------
    array of int64, shape (n_axes,)

    Raises
    ------
    TypeError
        If a length or an entry is not an integer.
    ValueError
        If a length is below 3, or ``order`` is no permutation of the sites.

    Examples
    --------
    >>> wrapping_in_order(np.array([2, 0, 1]), (3,)).tolist()
    [3]
    """
    lengths, axes = _lattice(shape, True)
    n_sites = int(lengths.prod())
    sites = arguments.check_integers("order", order, least=0, most=n_sites - 1, ndim=1)
    if sites.size != n_sites:
        raise ValueError(f"order must have shape ({n_sites},), got {sites.shape}")
    _check_memory(lengths, False, 1)
    _check_distinct(sites, n_sites)
    return _run(sites.astype(np.int32), False, lengths, axes, rng=None, to_end=False)[3]


def _check(
    kind: Kind,
    lengths: NDArray[np.int64],
    n_runs: int,
    seeds: np.random.SeedSequence,
    n_workers: int | None,
    *,
    least: int,
) -> tuple[int, int]:
    """Return how many runs and threads there are, at most one thread a run, all checked."""
    arguments.check_choice("kind", kind, get_args(Kind))
    n_runs = arguments.check_whole("n_runs", n_runs, least=least)
    arguments.check_kind("seeds", seeds, np.random.SeedSequence)
    n_workers = min(arguments.check_workers(n_workers), n_runs)
    # a child of the seed, and the numbers that a run comes to
    arguments.check_memory("n_runs", n_runs, 500 * n_runs)
    _check_memory(lengths, kind == "bond", n_workers)
    return n_runs, n_workers


def _check_memory(lengths: NDArray[np.int64], by_bond: bool, n_workers: int) -> None:
    each = 20 + 20 * lengths.size if by_bond else 40
    arguments.check_memory("shape", tuple(lengths.tolist()), n_workers * each * int(lengths.prod()))


def _check_distinct(order: NDArray[np.int64], n_elements: int) -> None:
    """Raise ValueError if an entry of ``order``, all below ``n_elements``, is there twice."""
    is_there = np.zeros(n_elements, dtype=np.bool_)
    is_there[order] = True
    if np.count_nonzero(is_there) < order.size:
        known = np.sort(order)
        raise ValueError(f"order must hold each entry once, got {known[1:][known[1:] == known[:-1]][0]} twice")


def _lattice(shape: Sequence[int], periodic: bool | Sequence[bool]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the lengths of the axes and whether each is periodic, checked."""
    lengths = arguments.check_shape("shape", shape)
    axes = arguments.check_axes("periodic", periodic, len(lengths))
    if len(lengths) > 15:
        raise ValueError(f"shape must have at most 15 axes, got {len(lengths)}")
    if any(around and length < 3 for around, length in zip(axes, lengths, strict=True)):
        raise ValueError(f"shape must be at least 3 along a periodic axis, got {lengths}")
    if math.prod(lengths) > 2**31 - 2:
        raise ValueError(f"shape must have at most 2^31 - 2 sites, got {math.prod(lengths)}")
    return np.array(lengths, dtype=np.int64), axes


def microcanonical(
    order: NDArray[np.integer], by_bond: bool, shape: Sequence[int], periodic: bool | Sequence[bool]
) -> States:
    """Return the states of the run that occupies sites, or bonds, in ``order``.

    These are the largest and second largest cluster and the sum of s^2 over all but the largest at every n = 0 .. M,
    and the n at which each axis is first crossed, M + 1 if it never is.

    Parameters
    ----------
    order : array of int, shape (M,)
        Sites in C order, or bonds as :func:`bonds` numbers them, each at most once; not all need be there.
    by_bond : bool
        Whether bonds are occupied.
    shape, periodic
        The lattice, as for :func:`sweep`.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an entry is no site, or no bond, of the lattice, or is there twice; or as for :func:`sweep`.
    """
    lengths, axes = _lattice(shape, periodic)
    arguments.check_kind("by_bond", by_bond, bool)
    n_elements = int(lengths.prod()) * (lengths.size if by_bond else 1)
    elements = arguments.check_integers("order", order, least=0, most=n_elements - 1, ndim=1)
    _check_memory(lengths, by_bond, 1)
    if by_bond:
        is_bond = np.zeros(n_elements, dtype=np.bool_)
        is_bond[_bonds(lengths, axes)] = True
        if not is_bond[elements].all():
            missing = int(elements[~is_bond[elements]][0])
            raise ValueError(f"order must hold bonds of the lattice, got {missing}, which leads out of an open face")
    _check_distinct(elements, n_elements)
    dtype = np.int32 if n_elements < 2**31 else np.int64
    return _run(elements.astype(dtype), by_bond, lengths, axes, rng=None, to_end=True)


def _run(
    order: NDArray[np.integer],
    by_bond: bool,
    shape: NDArray[np.int64],
    periodic: NDArray[np.bool_],
    *,
    rng: np.random.Generator | None,
    to_end: bool,
) -> States:
    """Return the states of a run, as :func:`microcanonical` does; ``rng``, where given, draws the order on the way.

    Unless the run goes ``to_end``, it stops once every periodic axis is wrapped, and later states have no meaning.
    """
    n_sites, n_steps = int(shape.prod()), order.size
    largest, second = np.empty((2, n_steps + 1), dtype=np.int32)
    others = np.empty(n_steps + 1)
    crossed_at = np.empty(shape.size, dtype=np.int64)
    parents = np.empty(n_sites, dtype=np.int32)
    of_size = np.empty(n_sites + 1, dtype=np.int32)
    of_block = np.empty((n_sites >> kernels.BITS) + 1, dtype=np.int64)
    crossed_at[:] = np.where(~periodic & (shape == 1) & by_bond, 0, n_steps + 1)
    n_drawn = 0 if rng else n_steps
    around = np.flatnonzero(periodic)
    groups = [around[k : k + _MOST_AXES] for k in range(0, max(around.size, 1), _MOST_AXES)]
    is_first = True
    while groups:
        axes = groups.pop()
        faces = _faces(shape, periodic) if is_first else np.empty(0, dtype=np.int32)
        dtype, bits, weights = _turns(axes, shape.size)
        turns = np.zeros(n_sites if axes.size else 0, dtype=dtype)
        parents[:] = -1 if by_bond else n_sites
        of_size[:] = of_block[:] = 0
        largest[0] = second[0] = others[0] = 0
        if by_bond:
            of_size[1] = of_block[0] = n_sites
            largest[0], second[0], others[0] = 1, min(n_sites - 1, 1), n_sites - 1
        tallies = np.array([largest[0], second[0], n_sites if by_bond else 0, 0], dtype=np.int64)
        fits = True
        for first in range(0, n_steps, _CHUNK):
            last = min(first + _CHUNK, n_steps)
            if rng and last > n_drawn:
                kernels.shuffle(order, first, rng.random(last - first))
                n_drawn = last
            fits = kernels.sweep(
                *(order, first, last, by_bond, shape, periodic, weights, bits, parents, turns, faces, of_size),
                *(of_block, tallies, largest, second, others, crossed_at),
            )
            if not fits or (not (to_end and is_first) and np.all(crossed_at[axes] <= last)):
                break
        if fits:
            is_first = False
        else:
            groups += np.array_split(axes, 2)  # what was crossed up to here, was
    return largest, second, others, crossed_at


def _faces(shape: NDArray[np.int64], periodic: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return the open faces that each site touches, bit 2i for the low and 2i + 1 for the high one; none if none."""
    if periodic.all():
        return np.empty(0, dtype=np.int32)
    faces = np.zeros(shape, dtype=np.int32)
    for axis in np.flatnonzero(~periodic):
        along = np.moveaxis(faces, axis, 0)
        along[0] |= 1 << (2 * axis)
        along[-1] |= 2 << (2 * axis)
    return faces.ravel()


def _turns(axes: NDArray[np.int64], n_axes: int) -> tuple[type[np.signedinteger], int, NDArray[np.int64]]:
    """Return how turns around ``axes`` are kept: in what integers, with how many bits an axis, and all axes' weights.

    The field of a single axis has room for any turn; the kernel tells when one among several has not.
    """
    dtype, n_bits = (np.int32, 31) if 2 <= axes.size <= 4 else (np.int64, 63)  # the small ones are faster
    bits = n_bits // max(axes.size, 1)
    weights = np.zeros(n_axes, dtype=np.int64)
    weights[axes] = 1 << (bits * np.arange(axes.size))
    return dtype, bits, weights


def _canonical(states: States, n_sites: int, weights: Sequence[tuple[int, Floats]]) -> Floats:
    """Return one run's observables at every p: largest, second largest, susceptibility, crossing of each axis."""
    largest, second, others, crossed_at = states
    values = np.empty((3 + crossed_at.size, len(weights)))
    for k, (first, chances) in enumerate(weights):
        window = slice(first, first + chances.size)
        # not by @: the linear algebra's threads would decide the order of the sum
        values[0, k] = np.sum(chances * largest[window]) / n_sites
        values[1, k] = np.sum(chances * second[window]) / n_sites
        values[2, k] = np.sum(chances * others[window]) / n_sites
        for axis, n in enumerate(crossed_at):
            values[3 + axis, k] = chances[max(0, n - first) :].sum()
    return values


def binomial(n: int, p: float) -> tuple[int, Floats]:
    """Return the binomial distribution B(n, k, p) where it is above 1e-18 or so: its first k, and the values.

    The values sum to 1; what is cut off on either side is below 1e-15.

    Raises
    ------
    TypeError
        If n is no whole number, or p no number.
    ValueError
        If n is negative or above 2^53, p lies outside [0, 1], or the values need more than all of the memory.
    """
    n, p = arguments.check_whole("n", n, least=0, most=2**53), arguments.check_probability("p", p)
    arguments.check_memory("n", n, 40 * (20 * math.isqrt(n) + 30))
    spread = 9 * np.sqrt(n * p * (1 - p)) + 12
    first, last = max(0, int(n * p - spread)), min(n, int(np.ceil(n * p + spread)))
    k = np.arange(first, last + 1, dtype=np.float64)
    logs = scipy.special.gammaln(n + 1) - scipy.special.gammaln(k + 1) - scipy.special.gammaln(n - k + 1)
    logs += scipy.special.xlogy(k, p) + scipy.special.xlog1py(n - k, -p)
    weights = np.exp(logs - logs.max())
    return first, weights / weights.sum()
