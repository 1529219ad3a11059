"""Thresholds of many lattices side by side: p_c of sites and bonds against the dimension.

The same runs as ``threshold``, with as many invaded sites in every dimension instead of as much time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from percolation import arguments, threshold
from percolation.campaign import Arrays, Experiment

KINDS: tuple[threshold.Kind, ...] = ("site", "bond")


class Settings(BaseModel):
    """Which dimensions, and how far each is invaded."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    dimensions: tuple[Annotated[int, Field(ge=2, le=100)], ...] = Field(
        tuple(range(2, 21)), min_length=1, description="dimensions d of the lattice Z^d"
    )
    invaded: int = Field(2**20, ge=2**18, le=2**34, description="sites, and bonds, invaded in each dimension")
    seed: int = Field(0, ge=0, description="seed of the run")


PRESETS = {"quick": Settings(), "paper": Settings(invaded=2**27)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invasion:
    """One run: which lattice, and how far."""

    lattice: threshold.Settings
    invaded: int


def tasks(settings: Settings) -> dict[str, Invasion]:
    """Return at least eight equal runs for each dimension and kind, each as long as memory allows."""
    found = {}
    for dimension in settings.dimensions:
        for kind in KINDS:
            lattice = threshold.Settings(dimension=dimension, kind=kind)
            length = min(threshold.longest_run(dimension, kind), 1 << (settings.invaded // 8).bit_length() - 1)
            for i in range(settings.invaded // length):
                found[f"d={dimension} {kind} run {i}"] = Invasion(lattice=lattice, invaded=length)
    return found


def run_task(settings: Settings, task: Invasion, seeds: np.random.SeedSequence) -> Arrays:  # noqa: ARG001
    """Invade one lattice."""
    return threshold.run_task(task.lattice, task.invaded, seeds)


_MEANINGS = {
    "p_c": "threshold by invasion, extrapolated",
    "standard_error": "standard error, extrapolation included",
    "invaded": "invaded sites or bonds in all runs, short ones beside them not counted",
    "n_runs": "runs",
    "published": "published threshold",
    "published_error": "its standard error",
    "series": "series in 1/(2d-1) to the sixth order",
}


def collect(settings: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return the thresholds over (kind, dimension)."""
    shape = (len(KINDS), len(settings.dimensions))
    values = {name: np.full(shape, np.nan) for name in _MEANINGS}
    for i, kind in enumerate(KINDS):
        for j, d in enumerate(settings.dimensions):
            found = [
                arrays[key]
                for key, task in tasks(settings).items()
                if (task.lattice.kind, task.lattice.dimension) == (kind, d)
            ]
            seen = np.stack([run["seen"] for run in found])
            short = np.stack([run["short"] for run in found]) if "short" in found[0] else None
            estimate = threshold.extrapolate(found[0]["invaded"], seen, d, short=short)
            published, error, _ = threshold.PUBLISHED[kind].get(d, (np.nan, np.nan, ""))
            row = (
                *(estimate.value, estimate.standard_error, float(len(found) * found[0]["invaded"][-1])),
                *(len(found), published, error, threshold.series(d, kind)),
            )
            for name, value in zip(_MEANINGS, row, strict=True):
                values[name][i, j] = value
    return xr.Dataset(
        {
            name: (("kind", "dimension"), value, {"long_name": _MEANINGS[name], "units": "1"})
            for name, value in values.items()
        },
        coords={
            "kind": ("kind", list(KINDS), {"long_name": "what is occupied"}),
            "dimension": ("dimension", list(settings.dimensions), {"long_name": "dimension d", "units": "1"}),
        },
    )


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return ``rows``, one for each kind and dimension, and ``labels``, the first percolating dimension of one in K."""
    rows = []
    for kind in KINDS:
        for d in settings.dimensions:
            point = dataset.sel(kind=kind, dimension=d)
            row = {"kind": kind, "dimension": d} | {name: float(point[name]) for name in _MEANINGS}
            rows.append({name: None if value != value else value for name, value in row.items()})
    return {"rows": rows, "labels": first_dimensions(dataset)}


def first_dimensions(dataset: xr.Dataset, *, z: float = 3.0) -> list[dict[str, int | None]]:
    """Return, for one uniform label out of K = 2 .. 23, the first dimension in which a label percolates: 1/K > p_c.

    ``first`` is None where the thresholds at hand do not decide: where 1/K lies within ``z`` standard errors of one of
    them, or a dimension is missing; ``expected`` is floor(K/2) + 2.
    """
    z = arguments.check_real("z", z, least=0)
    sites = dataset.sel(kind="site")
    found = []
    for k in range(2, 24):
        first: int | None = None
        for d in range(2, int(sites["dimension"].max()) + 1):
            if d not in sites["dimension"]:
                break
            point = sites.sel(dimension=d)
            apart = (1 / k - float(point["p_c"])) / float(point["standard_error"])
            if abs(apart) < z:
                break
            if apart > 0:
                first = d
                break
        found.append({"labels": k, "first": first, "expected": k // 2 + 2})
    return found


EXPERIMENT: Experiment[Settings, Invasion] = Experiment(
    name="survey", version=2, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
)
