"""The dimension-scaling experiment: how fast 1 - P(two far cubes of one label are connected) falls with dimension.

Conjecture 4.1 says P(connected) = 1 - O(e^(-d delta-bar)). On the independent lattice of App. D.1.5 a cube carries a
given interval of Eq. 4 with probability p = delta, so the cubes that carry it are the occupied sites of Z^d. Two far
occupied sites are connected when both belong to the infinite cluster (there is only one), two nearly independent
events, so with Q the probability that an occupied site's cluster is finite,

    1 - P(connected) = 1 - (1 - Q)^2.

Q is estimated by importance sampling where its weights can be trusted, by counting grown clusters elsewhere. For fixed
p and large d the isolated site rules: 1 - P -> 2 (1-p)^(2d), a rate of 2 ln(1/(1-p)) per dimension.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, Conjecture 4.1 (Eq. 3), Eqs. 21-24.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, field_validator

from percolation import finite_clusters, growth, meanfield, rare
from percolation.campaign import Arrays, Experiment

Delta = Annotated[float, Field(gt=0, lt=1)]
Dimension = Annotated[int, Field(ge=2, le=200_000)]


class Settings(BaseModel):
    """Which cubes, in which dimensions, and how many clusters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    deltas: tuple[Delta, ...] = Field(
        (0.2, 0.1, 0.05, 0.01, 0.0005), min_length=1, description="interval lengths of Eq. 4; p = delta"
    )
    dimensions: tuple[Dimension, ...] = Field(
        (3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 128, 256, 512, 1024, 3072, 6144, 16384, 65536, 150_528),
        min_length=1,
        description="dimensions d of the lattice Z^d; pairs with 2 d ln(1/(1-p)) > 160 are left out",
    )
    samples: int = Field(
        20_000,
        ge=100,
        le=10**9,
        description="clusters grown for each delta and dimension; fewer where that would take minutes",
    )
    max_sites: int = Field(5_000, ge=100, le=10**8, description="a cluster of so many sites is taken for infinite")
    seed: int = Field(0, ge=0, description="seed of the run")

    @field_validator("deltas", "dimensions")
    @classmethod
    def _differ(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) < len(values):
            raise ValueError("be without repetition")
        return values


# Of interest to nobody, and near what float64 can hold for a product of three.
_LARGEST_EXPONENT = 160
# No point takes more tests of a neighbour in counting, or more stored neighbours, which cost more, in importance
# sampling; unless a hundred clusters do.
_MOST_TESTS = 4 * 10**9
_MOST_STORED = 10**8
_ROUNDING = 1e-14  # relative, of a probability of 1e-69
PRESETS = {
    "quick": Settings(),
    "paper": Settings(
        deltas=(0.2, 0.1, 0.05, 0.01, 0.0005),
        dimensions=(
            *(3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512, 768),
            *(1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384, 32768, 65536, 100_000, 150_528),
        ),
        samples=200_000,
        max_sites=50_000,
    ),
}


def tasks(settings: Settings) -> dict[str, tuple[float, int]]:
    """Return one task for each delta and dimension, where 1 - P is above 1e-69 or so."""
    return {
        f"delta={delta} d={d}": (delta, d)
        for delta in settings.deltas
        for d in settings.dimensions
        if float(meanfield.rate_per_dimension(delta)) * d <= _LARGEST_EXPONENT
    }


def run_task(settings: Settings, task: tuple[float, int], seeds: np.random.SeedSequence) -> Arrays:
    """Estimate the probability that two far occupied sites are not connected."""
    return _pair(estimate_finite(settings, task, seeds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The probability Q that an occupied site's cluster is finite, and its interval of two standard errors.

    ``truncation_bound`` bounds what the stopped clusters would add; ``is_sampled`` tells importance sampling from
    counting.
    """

    value: float
    standard_error: float
    low: float
    high: float
    truncation_bound: float
    effective_samples: float
    n_samples: int
    is_sampled: bool


def estimate_finite(settings: Settings, task: tuple[float, int], seeds: np.random.SeedSequence) -> Estimate:
    """Estimate the probability that the cluster of an occupied site is finite, by importance sampling.

    Near the threshold, where importance sampling refuses, clusters are counted.
    """
    p, dimension = task
    sampling_seed, counting_seed = seeds.spawn(2)
    # Clusters of more than one site store their neighbours; their share and mean size are those of the Bethe lattice.
    sampling = float(meanfield.conjugate_probability(p, 2 * dimension))
    share = 1 - float(meanfield.isolated(sampling, 2 * dimension)) + 0.03
    mean_size = 1 / max(1 - (2 * dimension - 1) * sampling, 1e-3)
    n_samples = _affordable(settings.samples, 2 * dimension * share * mean_size, _MOST_STORED)
    try:
        sampled = rare.finite_probability(
            p,
            dimension,
            n_samples=n_samples,
            max_sites=min(settings.max_sites, 2000),
            rng=np.random.default_rng(sampling_seed),
        )
    except RuntimeError:
        return _count(settings, task, np.random.default_rng(counting_seed))
    return Estimate(
        value=sampled.value,
        standard_error=sampled.standard_error,
        low=sampled.value - 2 * sampled.standard_error,
        high=sampled.value + 2 * sampled.standard_error,
        truncation_bound=sampled.truncation_bound,
        effective_samples=sampled.effective_samples,
        n_samples=n_samples,
        is_sampled=True,
    )


def _count(settings: Settings, task: tuple[float, int], rng: np.random.Generator) -> Estimate:
    """Estimate the same by growing clusters and counting the finite ones."""
    p, dimension = task
    n_samples = _affordable(settings.samples, 2 * dimension * settings.max_sites, _MOST_TESTS)
    grown = growth.grow(p, dimension, n_samples=n_samples, max_sites=settings.max_sites, rng=rng, n_workers=1)
    one, two = (growth.infinite_probability(grown, z=z) for z in (1.0, 2.0))
    return Estimate(
        value=1 - one.value,
        standard_error=(one.high - one.low) / 2,
        low=1 - two.high,
        high=1 - two.low,
        truncation_bound=one.truncation_bound,
        effective_samples=n_samples,
        n_samples=n_samples,
        is_sampled=False,
    )


def _affordable(n_samples: int, cost: float, most: int) -> int:
    """Return how many samples of such a cost each there will be: as many as asked, a hundred at least, or what fits."""
    return min(n_samples, max(100, int(most / cost)))


def _pair(found: Estimate) -> Arrays:
    """Return the estimate for one site turned into the one for two: Q -> 1 - (1 - Q)^2, whose slope is 2 (1 - Q)."""
    finite = min(found.value, 1.0)
    values = {
        "disconnected": meanfield.pair_disconnected(finite),
        # At Q = 1 the slope vanishes and the second order is left.
        "standard_error": max(2 * (1 - finite) * found.standard_error, found.standard_error**2),
        "low": meanfield.pair_disconnected(np.clip(found.low, 0, 1)),
        "high": meanfield.pair_disconnected(np.clip(found.high, 0, 1)),
        "truncation_bound": min(2 * (1 - finite) * found.truncation_bound, 1.0),
        "effective_samples": found.effective_samples,
        "n_samples": found.n_samples,
        "is_sampled": found.is_sampled,
    }
    return {name: np.asarray(value) for name, value in values.items()}


_MEANINGS = {
    "disconnected": "1 - P(two far occupied sites are connected)",
    "standard_error": "standard error; for counts half the width of Wilson's interval of one standard error",
    "low": "lower end of the interval of two standard errors, Wilson's for counts",
    "high": "upper end of that interval",
    "truncation_bound": "upper bound of what the clusters stopped at max_sites would add",
    "effective_samples": "effective sample size",
    "n_samples": "clusters grown",
    "is_sampled": "whether importance sampling was used; else clusters were counted",
    "mean_field": "1 - P^2 with P of Eq. 22, mean number of occupied neighbours q = 2 d p",
    "mean_field_printed": "1 - P^2 with P of Eq. 22, q = d p as the paper has it",
    "bethe": "1 - P^2 on the Bethe lattice of 2 d neighbours",
    "isolated": "(1 - p)^(2d): no neighbour is occupied",
}


def collect(settings: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return the estimates and the theories over (delta, dimension)."""
    shape = (len(settings.deltas), len(settings.dimensions))
    values = {name: np.full(shape, np.nan) for name in next(iter(arrays.values()))}
    for key, (delta, dimension) in tasks(settings).items():
        place = settings.deltas.index(delta), settings.dimensions.index(dimension)
        for name, value in arrays[key].items():
            values[name][place] = value
    p = np.array(settings.deltas)[:, None]
    d = np.array(settings.dimensions)[None, :]
    values["mean_field"] = meanfield.pair_disconnected(meanfield.poisson(2 * d * p).disconnected)
    values["mean_field_printed"] = meanfield.pair_disconnected(meanfield.poisson(d * p).disconnected)
    values["bethe"] = meanfield.pair_disconnected(meanfield.bethe(p, 2 * d).disconnected)
    values["isolated"] = meanfield.isolated(p, 2 * d)
    return xr.Dataset(
        {
            name: (("delta", "dimension"), value, {"long_name": _MEANINGS[name], "units": "1"})
            for name, value in values.items()
        },
        coords={
            "delta": ("delta", list(settings.deltas), {"long_name": "interval length; p = delta", "units": "1"}),
            "dimension": ("dimension", list(settings.dimensions), {"long_name": "dimension d", "units": "1"}),
        },
        attrs={"n_samples": settings.samples, "max_sites": settings.max_sites},
    )


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return ``rows``, one for each delta and dimension, and ``fits``, one for each delta."""
    rows = []
    for delta, d in tasks(settings).values():
        point = dataset.sel(delta=delta, dimension=d)
        names = ("disconnected", "standard_error", "low", "high", "truncation_bound", "mean_field", "isolated")
        row: dict[str, Any] = {"delta": delta, "dimension": d, "p": delta, "neighbours": 2 * d}
        row |= {name: float(point[name]) for name in (*names, "effective_samples")}
        row["n_samples"] = int(point["n_samples"])
        is_trivial = (2 * d - 1) * delta <= 1
        row["method"] = "exact" if is_trivial else "importance" if point["is_sampled"] else "counting"
        rows.append(row)
    return {"rows": rows, "fits": [fit_rate(dataset.sel(delta=delta)) for delta in settings.deltas]}


def fit_rate(curve: xr.Dataset) -> dict[str, float | None]:
    """Return the fitted exponential rate of one delta's curve: -d ln(1 - P) / d dimension.

    Weighted least squares of ln(1 - P(connected)) against d, over the points with 0 < 1 - P < 0.1. A point's error is
    its standard error and, in quadrature, the ratio 2 d p (1-p)^(2d-2) of two-site clusters to single sites: by about
    so much a pure exponential misses there; and 1e-14 for rounding. Fewer than two points give no rate.

    Returns
    -------
    dict
        ``delta``, ``rate``, ``rate_standard_error``, ``theory_rate`` = 2 ln(1/(1-p)), ``n_points``.
    """
    delta = float(curve["delta"])
    d = curve["dimension"].to_numpy().astype(float)
    y, error = curve["disconnected"].to_numpy(), curve["standard_error"].to_numpy()
    used = (y > 0) & (y < 0.1)
    rate = rate_error = None
    if np.unique(d[used]).size >= 2:
        pairs = finite_clusters.finite_cluster(delta, d[used], 2) / finite_clusters.finite_cluster(delta, d[used], 1)
        sigma = np.sqrt((error[used] / y[used]) ** 2 + pairs**2 + _ROUNDING**2)
        weights = (sigma.min() / sigma) ** 2
        # From the most certain point on, whose weight may exceed the others' by more than float64 resolves.
        offset, logs = d[used] - d[used][np.argmin(sigma)], np.log(y[used]) - np.log(y[used][np.argmin(sigma)])
        offset, logs = (x - np.average(x, weights=weights) for x in (offset, logs))
        spread = float(np.sum(weights * offset**2))
        rate = -float(np.sum(weights * offset * logs)) / spread
        rate_error = float(sigma.min()) / np.sqrt(spread)
    return {
        "delta": delta,
        "rate": rate,
        "rate_standard_error": rate_error,
        "theory_rate": float(meanfield.rate_per_dimension(delta)),
        "n_points": int(used.sum()),
    }


EXPERIMENT: Experiment[Settings, tuple[float, int]] = Experiment(
    name="scaling", version=2, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
)
