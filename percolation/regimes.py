"""Where each closed theory holds: its Q against the simulated one over dimension and p, and on the corners of a cube.

Q is the probability that the cluster of an occupied site of Z^d is finite. It is simulated from just above the
threshold p_c(d) to where Q is 1e-260, and each theory's value is put beside it. How far a theory is off is
ln(Q_theory / Q).

Eq. 21 gives a cube d neighbours. That is so for the corners {0, 1}^d of one cube, each of which has d others beside it;
a site of Z^d has 2 d. Both are simulated at one p: {0, 1}^d by labelling all of its 2^d sites, where Q is the share of
occupied sites outside the largest cluster.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, App. D.1.5, Eqs. 21-24. Bollobas, Kohayakawa, Luczak, The evolution of
random subgraphs of the cube, Random Struct. Algorithms 3, 55 (1992), DOI 10.1002/rsa.3240030106.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from percolation import animals, arguments, clusters, finite_clusters, meanfield, scaling, threshold
from percolation.campaign import Arrays, Experiment

Floats = NDArray[np.float64]
Dimension = Annotated[int, Field(ge=3, le=200_000)]
Ratio = Annotated[float, Field(gt=1)]
CornerDimension = Annotated[int, Field(ge=4, le=24)]
THEORIES: dict[str, Callable[[float, int], ArrayLike]] = {
    "poisson_printed": lambda p, d: meanfield.poisson(d * p).disconnected,
    "poisson": lambda p, d: meanfield.poisson(2 * d * p).disconnected,
    "neighbours": lambda p, d: meanfield.neighbours(p, 2 * d).disconnected,
    "bethe": lambda p, d: meanfield.bethe(p, 2 * d).disconnected,
    "finite_clusters": lambda p, d: finite_clusters.lower_disconnected(p, d, animals.MAX_SITES),
    "isolated": lambda p, d: meanfield.isolated(p, 2 * d),
}
_LEAST_LOG = -600  # ln Q: below, products of float64 numbers begin to vanish
_LARGEST_P = 0.95


class Settings(BaseModel):
    """Which lattices, and how many clusters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dimensions: tuple[Dimension, ...] = Field(
        (3, 4, 5, 6, 8, 10, 13, 18, 25, 40, 64, 100, 200, 1000),
        min_length=2,
        description="dimensions d of the lattice Z^d, in ascending order",
    )
    ratios: tuple[Ratio, ...] = Field(
        (
            *(1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2, 2.5, 3, 4, 5, 7, 10, 14, 20, 28, 40, 56, 80),
            *(112, 160, 224, 320, 448, 640),
        ),
        min_length=2,
        description="p / p_c, in ascending order; points with p > 0.95 or Q < 1e-260 are left out",
    )
    samples: int = Field(
        10_000, ge=100, le=10**9, description="clusters grown for each point, fewer where they are dear"
    )
    max_sites: int = Field(2_000, ge=100, le=10**8, description="a cluster of so many sites is taken for infinite")
    corner_dimensions: tuple[CornerDimension, ...] = Field(
        (6, 8, 10, 12, 14, 16, 18, 20), min_length=1, description="dimensions of {0, 1}^d and of Z^d beside it"
    )
    corner_p: float = Field(0.25, gt=0, lt=1, description="occupation probability there")
    corner_sites: int = Field(
        2**22, ge=2**10, le=2**40, description="sites of {0, 1}^d labelled for each dimension; 8 to 2000 cubes"
    )
    seed: int = Field(0, ge=0, description="seed of the run")

    @field_validator("dimensions", "ratios", "corner_dimensions")
    @classmethod
    def _ascend(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if list(values) != sorted(set(values)):
            raise ValueError("ascend")
        return values


PRESETS = {
    "quick": Settings(),
    "paper": Settings(
        dimensions=(3, 4, 5, 6, 7, 8, 10, 13, 18, 25, 40, 64, 100, 180, 320, 1000, 3072, 10_000, 30_000, 150_528),
        samples=200_000,
        max_sites=20_000,
        corner_dimensions=tuple(range(6, 23)),
        corner_sites=2**26,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One lattice: Z^d, or the corners {0, 1}^d."""

    p: float
    dimension: int
    is_corners: bool


def threshold_of(dimension: int) -> float:
    """Return p_c of Z^d for sites: the published value where there is one, the series in 1/(2d - 1) beyond.

    Raises
    ------
    TypeError
        If the dimension is no whole number.
    ValueError
        If it is below 2.
    """
    dimension = arguments.check_whole("dimension", dimension, least=2)
    published = threshold.PUBLISHED["site"]
    return published[dimension][0] if dimension in published else threshold.series(dimension)


def tasks(settings: Settings) -> dict[str, Point]:
    """Return one task for each point of the map that can be simulated, and two for each dimension of {0, 1}^d."""
    found = {}
    for dimension in settings.dimensions:
        for ratio in settings.ratios:
            p = ratio * threshold_of(dimension)
            if p <= _LARGEST_P and 2 * dimension * np.log1p(-p) >= _LEAST_LOG:
                found[f"d={dimension} p/p_c={ratio:g}"] = Point(p=p, dimension=dimension, is_corners=False)
    for dimension in settings.corner_dimensions:
        for is_corners in (True, False):
            name = "{0,1}" if is_corners else "Z"
            point = Point(p=settings.corner_p, dimension=dimension, is_corners=is_corners)
            found[f"{name}^{dimension} p={settings.corner_p:g}"] = point
    return found


def run_task(settings: Settings, task: Point, seeds: np.random.SeedSequence) -> Arrays:
    """Estimate Q of one lattice."""
    if task.is_corners:
        return _corners(settings, task, np.random.default_rng(seeds))
    effort = scaling.Settings(samples=settings.samples, max_sites=settings.max_sites)
    found = scaling.estimate_finite(effort, (task.p, task.dimension), seeds)
    values = {
        "finite": found.value,
        "standard_error": found.standard_error,
        "low": found.low,
        "high": found.high + found.truncation_bound,
        "n_samples": found.n_samples,
        "is_sampled": found.is_sampled,
    }
    return {name: np.asarray(value) for name, value in values.items()}


def _corners(settings: Settings, task: Point, rng: np.random.Generator) -> Arrays:
    """Estimate the share of occupied corners outside the largest cluster: a ratio of two sums over many cubes."""
    shape = (2,) * task.dimension
    n_cubes = int(np.clip(settings.corner_sites >> task.dimension, 8, 2000))
    occupied, outside = np.zeros((2, n_cubes))
    for i in range(n_cubes):
        sizes = clusters.label_clusters(rng.random(shape) < task.p).sizes
        occupied[i] = sizes.sum()
        outside[i] = occupied[i] - sizes.max(initial=0)
    share = outside.sum() / occupied.sum()
    scatter = outside - share * occupied
    error = np.sqrt(np.sum(scatter**2) * n_cubes / (n_cubes - 1)) / occupied.sum()
    values = {"finite": share, "standard_error": error, "low": share - 2 * error, "high": share + 2 * error}
    return {name: np.asarray(value) for name, value in (values | {"n_samples": n_cubes, "is_sampled": False}).items()}


_MEANINGS = {
    "p": "occupation probability",
    "finite": "Q, the probability that an occupied site's cluster is finite",
    "standard_error": "its standard error",
    "low": "lower end of the interval of two standard errors",
    "high": "upper end of that interval, and what the clusters stopped at max_sites could add",
    "n_samples": "clusters grown, or cubes labelled",
    "is_sampled": "whether importance sampling was used; else clusters were counted",
    "poisson_printed": "Q of Eq. 22, mean number of occupied neighbours q = d p as the paper has it",
    "poisson": "Q of Eq. 22, q = 2 d p",
    "neighbours": "Q of Eq. 21 with 2 d neighbours",
    "bethe": "Q on the Bethe lattice of 2 d neighbours",
    "finite_clusters": f"P(the cluster has at most {animals.MAX_SITES} sites)",
    "isolated": "(1 - p)^(2d): no neighbour is occupied",
    "corner_theory": "Q of Eq. 21 with as many neighbours as a site of the lattice has: d on {0, 1}^d, 2 d on Z^d",
}


def collect(settings: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return the map over (dimension, ratio), NaN where a point is left out, and both lattices at one p.

    The second are the variables ``corner_*`` over (lattice, corner_dimension).
    """
    names = list(next(iter(arrays.values())))
    shape = (len(settings.dimensions), len(settings.ratios))
    p = np.array([threshold_of(d) for d in settings.dimensions])[:, None] * np.array(settings.ratios)
    values = {"p": p, **{name: np.full(shape, np.nan) for name in (*names, *THEORIES)}}
    d = np.array(settings.corner_dimensions, dtype=float)
    corners: dict[str, Floats] = {name: np.full((2, d.size), np.nan) for name in names}
    corners["theory"] = np.stack([meanfield.neighbours(settings.corner_p, k * d).disconnected for k in (1, 2)])
    for i, dimension in enumerate(settings.dimensions):
        for j, ratio in enumerate(settings.ratios):
            found = arrays.get(f"d={dimension} p/p_c={ratio:g}")
            if found is None:
                continue
            for name in names:
                values[name][i, j] = found[name]
            for name, theory in THEORIES.items():
                values[name][i, j] = theory(p[i, j], dimension)
    for j, dimension in enumerate(settings.corner_dimensions):
        for i, lattice in enumerate(("{0,1}", "Z")):
            for name in names:
                corners[name][i, j] = arrays[f"{lattice}^{dimension} p={settings.corner_p:g}"][name]
    places = ("dimension", "ratio")
    at_corners = ("lattice", "corner_dimension")
    return xr.Dataset(
        {name: (places, value, _attributes(name)) for name, value in values.items()}
        | {f"corner_{name}": (at_corners, value, _attributes(name)) for name, value in corners.items()},
        coords={
            "dimension": ("dimension", list(settings.dimensions), {"long_name": "dimension d", "units": "1"}),
            "ratio": ("ratio", list(settings.ratios), {"long_name": "p / p_c", "units": "1"}),
            "lattice": ("lattice", ["{0,1}^d", "Z^d"], {"long_name": "lattice"}),
            "corner_dimension": ("corner_dimension", d.astype(int), {"long_name": "dimension d", "units": "1"}),
        },
        attrs={"corner_p": settings.corner_p},
    )


def _attributes(name: str) -> dict[str, str]:
    return {"long_name": _MEANINGS["corner_theory" if name == "theory" else name], "units": "1"}


def miss(dataset: xr.Dataset, theory: str) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Return ln(Q_theory / Q) over the map, and its lowest and highest value within the error of Q.

    Parameters
    ----------
    dataset : Dataset
        What the experiment collected.
    theory : str
        A name of ``THEORIES``.

    Raises
    ------
    ValueError
        If the name is none of these.
    """
    arguments.check_choice("theory", theory, list(THEORIES))
    low, high = dataset["low"].clip(min=np.finfo(np.float64).tiny), dataset["high"].clip(max=1)
    ratios = (dataset[theory] / dataset["finite"], dataset[theory] / high, dataset[theory] / low)
    found, lowest, highest = (xr.apply_ufunc(np.log, ratio) for ratio in ratios)
    return found, lowest, highest


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return ``rows``, one for each point, ``theories``, one for each theory, and ``corners``."""
    rows = []
    for dimension in settings.dimensions:
        for ratio in settings.ratios:
            point = dataset.sel(dimension=dimension, ratio=ratio)
            if np.isnan(point["finite"]):
                continue
            row: dict[str, Any] = {"dimension": dimension, "p_over_p_c": ratio}
            row |= {name: float(point[name]) for name in ("p", "finite", "standard_error", "low", "high", *THEORIES)}
            rows.append(row | {"method": "importance" if point["is_sampled"] else "counting"})
    corners = []
    for lattice, factor in (("{0,1}^d", 1), ("Z^d", 2)):
        for dimension in settings.corner_dimensions:
            point = dataset.sel(lattice=lattice, corner_dimension=dimension)
            row = {"lattice": lattice, "dimension": dimension, "neighbours": factor * dimension, "p": settings.corner_p}
            row |= {name: float(point[f"corner_{name}"]) for name in ("finite", "standard_error", "theory")}
            corners.append(row)
    return {"rows": rows, "theories": [judge_theory(dataset, name) for name in THEORIES], "corners": corners}


def judge_theory(dataset: xr.Dataset, theory: str) -> dict[str, Any]:
    """Return at how many points a theory's Q is within 1 % and 10 % for certain, and from which dimension on.

    Returns
    -------
    dict
        ``theory``; ``n_points``; for 1 % and 10 % each ``within``, ``beyond`` and ``open``, the points that the error
        of Q leaves undecided; ``from_dimension``, the first dimension from which on no point is certainly beyond 10 %,
        None if there is none.
    """
    _, lowest, highest = miss(dataset, theory)
    is_point = dataset["finite"].notnull()
    found: dict[str, Any] = {"theory": theory, "n_points": int(is_point.sum())}
    for percent in (1, 10):
        limit = np.log1p(percent / 100)
        within = is_point & (lowest > -limit) & (highest < limit)
        beyond = is_point & ((lowest > limit) | (highest < -limit))
        found[f"within_{percent}"] = int(within.sum())
        found[f"beyond_{percent}"] = int(beyond.sum())
        found[f"open_{percent}"] = int((is_point & ~within & ~beyond).sum())
    is_off = beyond.any("ratio").to_numpy()
    last = int(np.flatnonzero(is_off).max(initial=-1))
    dimensions = dataset["dimension"].to_numpy()
    found["from_dimension"] = int(dimensions[last + 1]) if last + 1 < dimensions.size else None
    return found


EXPERIMENT: Experiment[Settings, Point] = Experiment(
    name="regimes", version=1, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
)
