"""Percolation thresholds p_c of Z^d by invasion percolation, the published values, and the series in 1/(2d - 1).

Invade, from the origin, the site (or bond) of the smallest value that was seen and not yet invaded; once N are invaded
and B were seen, N/B tends to p_c. On the Bethe lattice B is a fixed function of N; in high dimension only loops make it
vary, and N/B is far less noisy than any counting of N events. The invaded cluster of N sites looks like the lattice at
p_c + O(N^-s), s = 1/(nu d_f), so that

    N/B = p_c (1 + a N^-s + b N^-2s + c N^-3s + ...).

Each run is extrapolated by the same linear function of its N/B at N = 2^10, 2^11, ...; the error bar comes from the
scatter of the runs, and from what another extrapolation gives. A long run is one sample of N/B at small N, where a, b
and c show: a fifth of the time is better spent on short runs beside it.

References
----------
Wilkinson, Willemsen, J. Phys. A 16, 3365 (1983), DOI 10.1088/0305-4470/16/14/028. Mertens, Moore, Phys. Rev. E 98,
022120 (2018), DOI 10.1103/PhysRevE.98.022120, arXiv:1806.08067, and Phys. Rev. E 96, 042116 (2017).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import scipy.linalg
import xarray as xr
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from percolation import arguments, growth
from percolation._kernels import invasion as kernels
from percolation.campaign import LEAST_TASKS, Arrays, Experiment

Kind = Literal["site", "bond"]

# Where the series has no say: (value, uncertainty, source), by kind and dimension; neighbours share a face.
_JACOBSEN = "Jacobsen, J. Phys. A 48, 454003 (2015), DOI 10.1088/1751-8113/48/45/454003"
_XU = "Xu, Wang, Lv, Deng, Phys. Rev. E 89, 012120 (2014), DOI 10.1103/PhysRevE.89.012120"
_MERTENS = "Mertens, Moore, Phys. Rev. E 98, 022120 (2018), DOI 10.1103/PhysRevE.98.022120"
PUBLISHED: dict[Kind, dict[int, tuple[float, float, str]]] = {
    "site": {
        2: (0.59274605079210, 2e-14, _JACOBSEN),
        3: (0.31160768, 1.5e-7, _XU),
        4: (0.19688561, 3e-8, _MERTENS),
        5: (0.14079633, 4e-8, _MERTENS),
        6: (0.109016661, 8e-9, _MERTENS),
        7: (0.088951121, 1e-9, _MERTENS),
        8: (0.075210128, 1e-9, _MERTENS),
        9: (0.0652095348, 6e-10, _MERTENS),
        10: (0.0575929488, 4e-10, _MERTENS),
        11: (0.0515896843, 2e-10, _MERTENS),
        12: (0.0467309755, 1e-10, _MERTENS),
        13: (0.04271507960, 1.0e-10, _MERTENS),
    },
    "bond": {
        2: (0.5, 0.0, "Kesten, Commun. Math. Phys. 74, 41 (1980), DOI 10.1007/BF01197577: exact"),
        3: (0.24881185, 1.0e-7, _XU),
        4: (0.16013122, 6e-8, _MERTENS),
        5: (0.11817145, 3e-8, _MERTENS),
        6: (0.09420165, 2e-8, _MERTENS),
        7: (0.078675230, 2e-9, _MERTENS),
        8: (0.0677084181, 3e-10, _MERTENS),
        9: (0.0594960034, 1e-10, _MERTENS),
        10: (0.0530925842, 2e-10, _MERTENS),
        11: (0.04794968373, 8e-11, _MERTENS),
        12: (0.04372385825, 1.0e-10, _MERTENS),
        13: (0.04018761703, 6e-11, _MERTENS),
    },
}
_SERIES: dict[Kind, tuple[float, ...]] = {
    "site": (1, 3 / 2, 15 / 4, 83 / 4, 6577 / 48, 119077 / 96),
    "bond": (1, 0, 5 / 2, 15 / 2, 57, 4855 / 12),
}
# 1/(nu d_f): exact in two dimensions; nu of Koza, Pola, J. Stat. Mech. (2016) 103206, DOI
# 10.1088/1742-5468/2016/10/103206, with d_f 2.523, 3.0446, 3.526; mean field from six on.
_DRIFT = {2: 36 / 91, 3: 0.4517, 4: 0.4794, 5: 0.4956}
_LEAST = 2**10  # N/B of fewer sites is not used: lattice effects beyond any expansion
_SHORT = 2**16  # invaded in a short run
_SHORT_SHARE = 4  # a run has short ones beside it, one for as many invaded sites as this many of them have
_LOAD = 1.3  # slots of the hash for every site that could be seen
_PACE = 8e-8  # seconds that invading a site or bond takes for each of its neighbours; 5e-8 to 9e-8 measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """An extrapolated threshold.

    Parameters
    ----------
    value : float
        p_c.
    standard_error : float
        The scatter of the runs, and in quadrature by how much another extrapolation differs beyond that scatter.
    statistical_error : float
        The first of the two alone.
    """

    value: float
    standard_error: float
    statistical_error: float


def series(dimension: int, kind: Kind = "site") -> float:
    """Return the expansion of p_c in 1/(2d - 1) to the sixth order; asymptotic, and of no use below d = 6 or so.

    Raises
    ------
    TypeError
        If the dimension is no whole number.
    ValueError
        If it is below 1, or the kind is none of the two.

    References
    ----------
    Gaunt, Sykes, Ruskin, J. Phys. A 9, 1899 (1976), DOI 10.1088/0305-4470/9/11/015. Mertens, Moore, Phys. Rev. E 98,
    022120 (2018) and J. Phys. A 51, 475001 (2018), arXiv:1805.02701.

    Examples
    --------
    >>> round(series(13), 7)
    0.0427122
    """
    arguments.check_choice("kind", kind, get_args(Kind))
    branching = 2 * arguments.check_whole("dimension", dimension, least=1) - 1
    return float(sum(c / branching ** (k + 1) for k, c in enumerate(_SERIES[kind])))


def invade(
    dimension: int,
    checkpoints: NDArray[np.int64],
    *,
    kind: Kind = "site",
    neighbourhood: growth.Neighbourhood = "face",
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return how many sites (bonds) one invasion of Z^d has seen when ``checkpoints`` of them are invaded.

    Parameters
    ----------
    dimension : int
        d, at least 2.
    checkpoints : array of int, shape (n,)
        Rising, the first at least 1.
    kind : {"site", "bond"}
        What is invaded.
    neighbourhood : {"face", "corner"}
        As for :func:`percolation.growth.grow`; bonds are those between neighbours that share a face.
    rng : numpy.random.Generator
        Chooses the lattice.

    Returns
    -------
    array of int64, shape (n,)
        A site is seen when it or a neighbour is invaded, a bond when one of its ends is in the cluster.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument lies outside its range, or the run would need more than 2^32 slots or all of the memory.

    Notes
    -----
    Memory is about 10 bytes for every site that could be seen, N (2 d - 1), and 20 for every invaded one; for bonds,
    12 bytes for every invaded one and 20 for every one in the heap, about as many.
    """
    dimension = arguments.check_whole("dimension", dimension, least=2)
    checkpoints = np.ascontiguousarray(arguments.check_integers("checkpoints", checkpoints, least=1, ndim=1))
    if checkpoints.size == 0 or np.any(np.diff(checkpoints) < 1):
        raise ValueError(f"checkpoints must rise from at least 1, got {arguments.shown(checkpoints)}")
    arguments.check_choice("kind", kind, get_args(Kind))
    if kind == "bond" and neighbourhood != "face":
        raise ValueError(f"neighbourhood must be face for bonds, got {neighbourhood}")
    salts, steps = growth.lattice(dimension, dimension if kind == "bond" else 1, rng, neighbourhood)
    seen = np.empty(checkpoints.size, dtype=np.int64)
    n_slots = _slots(int(checkpoints[-1]), steps.size, kind)
    if n_slots >= 2**32:
        raise ValueError(f"checkpoints must need fewer than 2^32 slots, got {checkpoints[-1]}, which need {n_slots}")
    heap = 20 * int(checkpoints[-1]) * (1 if kind == "site" else 2)
    arguments.check_memory("checkpoints", checkpoints[-1], 8 * n_slots + heap)
    table = np.empty(n_slots, dtype=np.uint64)
    with np.errstate(over="ignore"):
        if kind == "site":
            kernels.invade_sites(salts[0], steps, checkpoints, table, seen)
        else:
            kernels.invade_bonds(salts, steps, checkpoints, table, seen)
    return seen


def _slots(n_invaded: int, n_neighbours: int, kind: Kind) -> int:
    """Return the slots of the hash: an invaded site shows at most z - 1 new ones, an invaded bond at most one site."""
    return int(_LOAD * (n_invaded + 1) * (n_neighbours - 1 if kind == "site" else 1)) + 2 * n_neighbours


def extrapolate(
    checkpoints: NDArray[np.int64],
    seen: NDArray[np.int64],
    dimension: int,
    *,
    short: NDArray[np.int64] | None = None,
) -> Threshold:
    """Return p_c from invasions, N to infinity.

    Parameters
    ----------
    checkpoints : array of int64, shape (n,)
        Invaded sites or bonds N; those below 2^10 are left out, and at least four are above.
    seen : array of int64, shape (n_runs, n)
        Seen sites or bonds B of each run; at least two runs.
    dimension : int
        d, for the exponent s of the drift.
    short : array of int64, shape (n_runs, n_short, m), optional
        B of shorter runs beside each, at the first m checkpoints.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If there are too few checkpoints or runs, their numbers do not match, or a count is not positive.

    Notes
    -----
    p_c, a, b and c of N/B = p_c (1 + a N^-s + b N^-2s + c N^-3s) by generalised least squares with the covariance
    1 / max(N, N') of a walk with independent steps; a wrong covariance costs precision, not validity, since the error
    is that of the mean over runs. The other extrapolation leaves out c and all N below 2^12; by as much as the square
    of the mean difference exceeds its own variance, it adds to the squared error. In six dimensions logarithms
    multiply the powers: there the error is the least certain.
    """
    dimension = arguments.check_whole("dimension", dimension, least=1)
    columns = arguments.check_reals("checkpoints", checkpoints, least=1, ndim=1)
    long = arguments.check_reals("seen", seen)
    beside = None if short is None else arguments.check_reals("short", short, ndim=3)
    if np.any(np.diff(columns) < 1):
        raise ValueError(f"checkpoints must rise from at least 1, got {arguments.shown(columns)}")
    n_used = np.count_nonzero(columns >= 8 * _LEAST)
    if long.ndim != 2 or long.shape[0] < 2 or n_used < 3:
        raise ValueError(
            f"seen must have at least two runs and three checkpoints from {8 * _LEAST} on, got shape {long.shape} and "
            f"{n_used}"
        )
    is_matched = long.shape[1] == columns.size and (beside is None or _are_beside(beside, long))
    if not is_matched or np.any(long <= 0) or (beside is not None and np.any(beside <= 0)):
        raise ValueError(
            f"seen and short must be positive, (n_runs, {columns.size}) and (n_runs, n_short, fewer), got shapes "
            f"{long.shape} and {None if beside is None else beside.shape}"
        )
    ratio = columns / long
    covariance = 1 / np.maximum(columns[:, None], columns[None, :])
    if beside is not None:
        fewer = columns[: beside.shape[2]]
        covariance = scipy.linalg.block_diag(covariance, covariance[: fewer.size, : fewer.size] / beside.shape[1])
        ratio = np.concatenate([ratio, (fewer / beside).mean(axis=1)], axis=1)
        columns = np.concatenate([columns, fewer])
    drift = _DRIFT.get(dimension, 0.5)
    runs = ratio @ _intercept(columns, covariance, _LEAST, (drift, 2 * drift, 3 * drift))
    others = ratio @ _intercept(columns, covariance, 4 * _LEAST, (drift, 2 * drift))
    n = runs.size
    variance = runs.var(ddof=1) / n
    excess = max(0.0, (others - runs).mean() ** 2 - (others - runs).var(ddof=1) / n)
    return Threshold(
        value=float(runs.mean()),
        standard_error=float(np.sqrt(variance + excess)),
        statistical_error=float(np.sqrt(variance)),
    )


def _are_beside(short: NDArray[np.float64], seen: NDArray[np.float64]) -> bool:
    return bool(short.shape[0] == seen.shape[0] and short.shape[1] > 0 and 0 < short.shape[2] <= seen.shape[1])


def _intercept(
    n: NDArray[np.float64], covariance: NDArray[np.float64], least: int, powers: tuple[float, ...]
) -> NDArray[np.float64]:
    """Return the weights with which N/B in columns of N from ``least`` on add up to its limit."""
    used = n >= least
    inverse = np.linalg.inv(covariance[np.ix_(used, used)])
    # N^-s in units of the largest N, so that the columns are of one size
    design = np.stack([(n[used] / n.max()) ** -power for power in (0.0, *powers)], axis=1)
    weights = np.zeros(n.size)
    weights[used] = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse)[0]
    return weights


def _neighbours(dimension: int, neighbourhood: growth.Neighbourhood) -> int:
    return 2 * dimension if neighbourhood == "face" else 3**dimension - 1


def _pace(dimension: int, neighbourhood: growth.Neighbourhood) -> float:
    """Return about how many seconds invading one site or bond takes."""
    return _PACE * max(_neighbours(dimension, neighbourhood), 8)


class Settings(BaseModel):
    """Which lattice, and how long."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dimension: int = Field(7, ge=2, le=100, description="dimension d of the lattice Z^d")
    kind: Kind = Field("site", description="whether sites or bonds are occupied")
    neighbourhood: growth.Neighbourhood = Field(
        "face", description="neighbouring sites share a face (2 d) or a corner (3^d - 1; sites only, d up to 8)"
    )
    seconds: float = Field(
        40.0, ge=1, le=10**6, description="what all invasions take: none is begun that would end later"
    )
    seed: int = Field(0, ge=0, description="seed of the run")

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if self.neighbourhood == "corner" and (self.kind == "bond" or self.dimension > 8):
            raise ValueError("neighbourhood must be face for bonds and above dimension 8, got corner")
        least = LEAST_TASKS * 32 * _LEAST * _pace(self.dimension, self.neighbourhood) / 2  # by two workers
        if self.seconds < least:
            raise ValueError(f"seconds must be at least {least:.0f} with so many neighbours, got {self.seconds:g}")
        return self


PRESETS = {"quick": Settings()}


def invaded_in_a_run(settings: Settings) -> int:
    """Return how far one invasion goes: the longest that fits, and 32 times into the seconds of one worker."""
    longest = longest_run(settings.dimension, settings.kind, settings.neighbourhood)
    in_time = int(settings.seconds / (4 * LEAST_TASKS) / _pace(settings.dimension, settings.neighbourhood))
    return min(longest, max(32 * _LEAST, 1 << max(in_time, 1).bit_length() - 1))


def longest_run(dimension: int, kind: Kind, neighbourhood: growth.Neighbourhood = "face") -> int:
    """Return the power of two, at most 2^23 and at least 2^15, of invaded sites whose hash takes at most 0.8 GB.

    Raises
    ------
    TypeError
        If the dimension is no whole number.
    ValueError
        If it is below 1, or above 12 with neighbours at corners, or a word is none of those known.
    """
    arguments.check_choice("kind", kind, get_args(Kind))
    arguments.check_choice("neighbourhood", neighbourhood, get_args(growth.Neighbourhood))
    dimension = arguments.check_whole("dimension", dimension, least=1, most=12 if neighbourhood == "corner" else None)
    neighbours = _neighbours(dimension, neighbourhood)
    fits = int(10**8 / _LOAD / (neighbours - 1 if kind == "site" else 1))
    return min(2**23, max(32 * _LEAST, 1 << max(fits, 1).bit_length() - 1))


def tasks(settings: Settings) -> dict[str, int]:
    """Return more runs than there will be time for."""
    return {f"run {i}": invaded_in_a_run(settings) for i in range(10_000)}


def n_short_runs(invaded: int) -> int:
    """Return how many short runs stand beside one that invades so many; none beside one that is not much longer.

    Raises
    ------
    TypeError
        If it is no whole number.
    ValueError
        If it is negative.
    """
    invaded = arguments.check_whole("invaded", invaded, least=0)
    return invaded // (_SHORT_SHARE * _SHORT)


def run_task(settings: Settings, task: int, seeds: np.random.SeedSequence) -> Arrays:
    """Invade one lattice up to ``task`` sites or bonds, and beside it others up to fewer, if any."""
    rng = np.random.default_rng(seeds)

    def run(invaded: int) -> NDArray[np.int64]:
        checkpoints = 2 ** np.arange(int(invaded).bit_length())
        return invade(
            settings.dimension, checkpoints, kind=settings.kind, neighbourhood=settings.neighbourhood, rng=rng
        )

    found = {"invaded": 2 ** np.arange(int(task).bit_length()), "seen": run(task)}
    shorter = [run(_SHORT) for _ in range(n_short_runs(task))]
    return found | ({"short": np.stack(shorter)} if shorter else {})


def collect(settings: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return what every run has seen, over (run, invaded), and the short ones beside it, over (run, beside, ...)."""
    found = list(arrays.values())
    name = f"{settings.kind}s seen when so many are invaded"
    about = {"long_name": name, "units": "1"}
    invaded = found[0]["invaded"]
    dataset = xr.Dataset(
        {"seen": (("run", "invaded"), np.stack([run["seen"] for run in found]), about)},
        coords={"invaded": ("invaded", invaded, {"long_name": "invaded", "units": "1"})},
    )
    if "short" in found[0]:
        short = np.stack([run["short"] for run in found])
        dataset["short"] = (("run", "beside", "invaded_beside"), short, about)
    return dataset


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return p_c beside the published value and the series."""
    longest = int(dataset["invaded"][-1])
    found = extrapolate(
        dataset["invaded"].to_numpy(),
        dataset["seen"].to_numpy(),
        settings.dimension,
        short=dataset["short"].to_numpy() if "short" in dataset else None,
    )
    is_face = settings.neighbourhood == "face"
    known = PUBLISHED[settings.kind].get(settings.dimension) if is_face else None
    value, error, source = known or (None, None, None)
    apart = None if known is None else (found.value - known[0]) / float(np.hypot(found.standard_error, known[1]))
    return {
        "dimension": settings.dimension,
        "kind": settings.kind,
        "neighbourhood": settings.neighbourhood,
        "p_c": found.value,
        "standard_error": found.standard_error,
        "statistical_error": found.statistical_error,
        "relative_error": found.standard_error / found.value,
        "published": value,
        "published_error": error,
        "published_source": source,
        "standard_errors_apart": apart,
        "series": series(settings.dimension, settings.kind) if is_face else None,
        "invaded": dataset.sizes["run"] * (longest + n_short_runs(longest) * _SHORT),
        "n_runs": dataset.sizes["run"],
    }


EXPERIMENT: Experiment[Settings, int] = Experiment(
    name="threshold",
    version=3,
    tasks=tasks,
    run_task=run_task,
    collect=collect,
    summarise=summarise,
    seconds=lambda settings: settings.seconds,
)
