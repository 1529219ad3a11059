"""One labelled lattice in memory, its clusters and their sizes: Fig. 8 of the paper, in any dimension.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, App. C, Fig. 8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from percolation import arguments, clusters
from percolation.campaign import Arrays, Experiment

Length = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """One lattice of independently occupied sites."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    shape: tuple[Length, ...] = Field((256, 256), min_length=1, description="sites along each axis")
    p: float = Field(0.5927460508, ge=0, le=1, description="occupation probability")
    periodic: bool = Field(False, description="whether opposite faces are neighbours")
    seed: int = Field(0, ge=0, description="seed of the run")


PRESETS = {"quick": Settings()}


def tasks(settings: Settings) -> dict[str, tuple[int, ...]]:
    """Return the one task: the lattice's shape."""
    if math.prod(settings.shape) > 10**9:
        raise ValueError(f"shape must have at most 10^9 sites, got {math.prod(settings.shape)}")
    arguments.check_memory("shape", settings.shape, 14 * math.prod(settings.shape))
    return {"lattice": settings.shape}


def memory(settings: Settings) -> float:
    """Return the bytes that the lattice takes: about 20 a site (measured), 16 at least."""
    return 16.0 * math.prod(settings.shape)


def run_task(settings: Settings, task: tuple[int, ...], seeds: np.random.SeedSequence) -> Arrays:
    """Occupy the sites and rank their clusters by size: 0 for empty sites, 1 for the largest cluster, and so on."""
    rng = np.random.default_rng(seeds)
    found = clusters.label_clusters(rng.random(task) < settings.p, periodic=settings.periodic)
    order = np.argsort(-found.sizes, kind="stable")
    ranks = np.empty(found.sizes.size + 1, dtype=np.int32)
    ranks[order] = np.arange(1, found.sizes.size + 1)
    ranks[-1] = 0  # the number of empty sites, -1, points here
    return {"rank": ranks[found.numbers], "sizes": found.sizes[order], "spans": found.spans[order]}


def collect(settings: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return the lattice of ranks, and the clusters' sizes."""
    found = arrays["lattice"]
    axes = tuple(f"axis_{i}" for i in range(len(settings.shape)))
    return xr.Dataset(
        {
            "rank": (axes, found["rank"], {"long_name": "cluster by size: 1 the largest, 0 empty", "units": "1"}),
            "size": ("cluster", found["sizes"], {"long_name": "sites in the cluster", "units": "1"}),
            "spans": (("cluster", "axis"), found["spans"], {"long_name": "touches both faces", "units": "1"}),
        }
    )


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return how many sites and clusters there are, and what the largest cluster holds and spans."""
    sizes = dataset["size"].to_numpy()
    occupied = int(sizes.sum())
    largest = int(sizes[0]) if sizes.size else 0
    return {
        "shape": list(settings.shape),
        "p": settings.p,
        "sites": math.prod(settings.shape),
        "occupied": occupied,
        "clusters": int(sizes.size),
        "largest": largest,
        "second_largest": int(sizes[1]) if sizes.size > 1 else 0,
        "largest_share_of_occupied": largest / occupied if occupied else 0.0,
        "spans": [bool(axis) for axis in dataset["spans"].to_numpy()[0]] if sizes.size else [],
    }


EXPERIMENT: Experiment[Settings, tuple[int, ...]] = Experiment(
    name="lattice", version=1, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
)
