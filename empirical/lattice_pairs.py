"""Two cubes of one label, joined by search: real networks on lattices of any dimension, beside the straight and bypass.

For each lattice and each network one pair of cubes is drawn from all pairs that share a label of Eq. 4, uniformly, and
the shared label in whose interval the pair lies most centrally is tried first, the other one, if there is one, if
that fails. A pair is *found* if a path of cubes is (:mod:`empirical.lattice_search`), *exhausted* if there is none on
this lattice with any shared label. What the centres' values say is then made certain for the points between them
(:mod:`empirical.value_intervals`): the path is straightened as far as a certificate goes, and the certified polygon is
a delta-connected path of the two centres.

The same pairs are put to the straight segment, and to the paper's bypass; what they find is certified as well. Only a
bypass that stays in the box can be held against the cubes, which are those of the box. Every network has one pair, so
that the pairs of a lattice are independent and Wilson's interval is right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import nn

from empirical import lattice_search, network_lattice, value_intervals
from empirical.lattice_search import Integers
from empirical.network_lattice import Box, LatticeNetwork
from lipschitz import threads
from lipschitz.fully_connected import Activation
from lipschitz.stages import Stage
from percolation import labels
from percolation.campaign import Arrays, Experiment
from percolation.growth import Z_95, wilson_interval

STATUSES = ("found", "exhausted", "budget")
_CERTIFICATES = ("certified", "violated", "undecided", "no path")
_MOST_DRAWS = 10_000
_MOST_DIMENSIONS = 1_000_000  # a first matrix of half a gigabyte
_MOST_CELLS = 1_000_000
_MOST_WEIGHTS = 10**8  # of a network, 8 bytes each
Lattice = tuple[Box, int, int]


class Settings(BaseModel):
    """Settings of the experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lattices: tuple[Lattice, ...] = Field(
        min_length=1, description="of each: box (fixed or growing), dimension, cubes along an axis"
    )
    n_networks: int = Field(12, ge=1, le=10_000, description="networks for each lattice, each with one pair")
    activation: Activation = Field("sin", description="pointwise function between the matrices")
    depth: int = Field(3, ge=2, le=6, description="weight matrices of a network")
    width: int = Field(64, ge=1, le=4096, description="units of a hidden layer")
    bias_std: float = Field(0.3, ge=0, le=1e3, description="standard deviation of the biases")
    radius: float = Field(3.0, ge=1e-3, le=1e3, description="half side of the box, in correlation lengths")
    delta: float = Field(0.25, gt=0, le=0.5, description="interval length of Eq. 4; 1/delta is a whole number")
    budget: int = Field(50_000, ge=2, le=10**9, description="cubes evaluated after which a search is given up")
    piece_budget: int = Field(
        20_000, ge=1, le=10**9, description="pieces after which the certificate of a chord is given up"
    )
    max_rounds: int = Field(3, ge=0, le=8, description="rounds of bypassing after which a pair is given up")
    max_iterations: int = Field(300, ge=0, le=10**9, description="steps after which a bypass point is given up")
    seed: int = Field(0, ge=0, description="seed of the run")

    @model_validator(mode="after")
    def _has_labels(self) -> Settings:
        labels.n_cells(self.delta)
        widest = max(dimension for _, dimension, _ in self.lattices)
        n_weights = self.width * (widest + (self.depth - 2) * self.width)
        if n_weights > _MOST_WEIGHTS:
            raise ValueError(f"width must make networks of at most {_MOST_WEIGHTS} weights, got {n_weights}")
        return self

    @field_validator("lattices")
    @classmethod
    def _are_lattices(cls, lattices: tuple[Lattice, ...]) -> tuple[Lattice, ...]:
        for _, dimension, n_cells in lattices:
            if not 1 <= dimension <= _MOST_DIMENSIONS or not 2 <= n_cells <= _MOST_CELLS:
                raise ValueError(
                    f"have a dimension of 1 to {_MOST_DIMENSIONS} and at least 2 cubes an axis, {_MOST_CELLS} at most"
                )
        if len(set(lattices)) < len(lattices):
            raise ValueError("differ from one another")
        return lattices


_LOW: tuple[tuple[int, int], ...] = ((1, 256), (2, 64), (3, 32), (4, 32), (8, 32), (16, 32), (64, 32), (256, 32))
QUICK = Settings(
    lattices=(
        *(("fixed", d, n) for d, n in (*_LOW, (1024, 16), (3072, 16))),
        *(("growing", d, n) for d, n in _LOW[:-1]),
    )
)
PAPER = Settings(
    lattices=(
        *(("fixed", d, n) for d, n in (*_LOW, (1024, 32), (3072, 32), (150_528, 16))),
        *(("growing", d, n) for d, n in (*_LOW, (16, 64), (64, 64), (1024, 32), (3072, 32))),
    ),
    n_networks=200,
    budget=4_000_000,
    max_rounds=6,
    max_iterations=1000,
)
PRESETS = {"quick": QUICK, "paper": PAPER}
CI = Settings(
    lattices=(("fixed", 1, 16), ("fixed", 2, 16), ("fixed", 32, 8), ("growing", 2, 16), ("growing", 4, 8)),
    n_networks=3,
    budget=5000,
    max_rounds=1,
    max_iterations=50,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """Two different cubes that share labels, those in whose intervals they lie more centrally first."""

    start: Integers
    target: Integers
    shared: tuple[int, ...]


def draw_pair(
    network: nn.Sequential, *, dimension: int, n_cells: int, radius: float, delta: float, rng: np.random.Generator
) -> Pair:
    """Draw two different cubes of the box that share a label, uniformly from all such pairs.

    Parameters
    ----------
    network : nn.Sequential
        From (n, d) to (n, 1), values in [0, 1], float64.
    dimension, n_cells, radius, delta
        The box and the labels, as in :func:`lattice_search.search`.
    rng : numpy.random.Generator
        Draws the cubes.

    Raises
    ------
    ValueError
        If none of 10,000 pairs shares a label.
    """
    for _ in range(_MOST_DRAWS):
        cubes = rng.integers(n_cells, size=(2, dimension))
        points = torch.from_numpy(network_lattice.centres(cubes, n_cells=n_cells, radius=radius))
        with torch.no_grad():
            values = network(points)[:, 0].numpy()
        first, second = sorted(labels.cells(values, delta).tolist())
        if second - first > 1 or (cubes[0] == cubes[1]).all():
            continue
        shared = [label for label in range(second - 1, first + 1) if 0 <= label <= labels.n_cells(delta) - 2]
        middle = values.mean()
        return Pair(
            start=cubes[0],
            target=cubes[1],
            shared=tuple(sorted(shared, key=lambda label: abs((label + 1) * delta / 2 - middle))),
        )
    raise ValueError(
        f"two cubes must share a label, got none of {_MOST_DRAWS:,} pairs in {dimension} dimensions: it takes more "
        f"cubes an axis than {n_cells}, or a larger delta than {delta:g}"
    )


def run_task(settings: Settings, lattice: Lattice, seed: np.random.SeedSequence) -> Arrays:
    """Return what search, straight segment and bypass make of one pair of one network."""
    box, dimension, n_cells = lattice
    law = LatticeNetwork(
        activation=settings.activation,
        depth=settings.depth,
        width=settings.width,
        bias_std=settings.bias_std,
        radius=settings.radius,
        box=box,
    )
    of_network, of_pair = seed.spawn(2)
    network = network_lattice.build(law, dimension, int(of_network.generate_state(1, np.uint64)[0] >> np.uint64(1)))
    network.requires_grad_(False)
    radius = network_lattice.half_side(law, dimension)
    with threads.one_thread():
        pair = draw_pair(
            network,
            dimension=dimension,
            n_cells=n_cells,
            radius=radius,
            delta=settings.delta,
            rng=np.random.default_rng(of_pair),
        )
        found = _search(settings, network, pair, n_cells, radius) | _rivals(settings, network, pair, n_cells, radius)
    return {name: np.asarray(found[name], dtype=np.float64) for name in _VARIABLES}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joined:
    """What searching with the labels of a pair in turn came to, up to the first path.

    ``status`` is "found", "budget" if a search was given up, or else "exhausted"; ``last`` is the last search, with
    ``label``; ``n_evaluated`` counts the cubes of all.
    """

    status: lattice_search.Status
    label: int
    last: lattice_search.Found
    n_evaluated: int


def join_pair(network: nn.Sequential, pair: Pair, *, n_cells: int, radius: float, delta: float, budget: int) -> Joined:
    """Search for a path between the cubes of a pair with each label that they share, until one is found."""
    n_evaluated, statuses = 0, []
    for label in pair.shared:
        found = lattice_search.search(
            network,
            pair.start,
            pair.target,
            label=label,
            delta=delta,
            n_cells=n_cells,
            radius=radius,
            budget=budget,
        )
        n_evaluated += found.n_evaluated
        statuses.append(found.status)
        if found.status == "found":
            break
    status: lattice_search.Status = (
        "found" if "found" in statuses else "budget" if "budget" in statuses else "exhausted"
    )
    return Joined(status=status, label=label, last=found, n_evaluated=n_evaluated)


def _search(settings: Settings, network: nn.Sequential, pair: Pair, n_cells: int, radius: float) -> dict[str, float]:
    """Search with the shared labels in turn, and certify the path that is found."""
    joined = join_pair(network, pair, n_cells=n_cells, radius=radius, delta=settings.delta, budget=settings.budget)
    found = joined.last
    known = {
        "status": STATUSES.index(joined.status),
        "n_evaluated": joined.n_evaluated,
        "distance": found.distance,
        "n_steps": np.nan,
        "certificate": _CERTIFICATES.index("no path"),
        "n_stops": np.nan,
        "length_ratio": np.nan,
    }
    if joined.status != "found":
        return known

    def centre(n_steps: int) -> torch.Tensor:
        cube = lattice_search.cube_after(pair.start, found, n_steps)
        return torch.from_numpy(network_lattice.centres(cube[None], n_cells=n_cells, radius=radius)[0])

    low, high = _interval(joined.label, settings.delta)
    certified = value_intervals.certify_path(
        value_intervals.prepare(network, low, high), centre, len(found.axes), piece_budget=settings.piece_budget
    )
    known |= {"n_steps": len(found.axes), "certificate": _CERTIFICATES.index(certified.status)}
    if certified.status == "certified":
        corners = [centre(stop) for stop in certified.stops]
        length = math.fsum(float((b - a).norm()) for a, b in itertools.pairwise(corners))
        known |= {
            "n_stops": len(corners) - 2,
            "length_ratio": length / float((corners[-1] - corners[0]).norm()),
        }
    return known


def _rivals(settings: Settings, network: nn.Sequential, pair: Pair, n_cells: int, radius: float) -> dict[str, float]:
    """Put the pair to the straight segment and to the bypass, with the shared labels in turn."""
    ends = torch.from_numpy(
        network_lattice.centres(np.stack([pair.start, pair.target]), n_cells=n_cells, radius=radius)
    )
    straight = sampled = bypassed = inside = False
    for label in pair.shared:
        low, high = _interval(label, settings.delta)
        prepared = value_intervals.prepare(network, low, high)
        straight |= _is_certified(settings, prepared, ends)
        (found,) = value_intervals.bypass(
            network,
            ends[:1],
            ends[1:],
            low=low,
            high=high,
            max_rounds=settings.max_rounds,
            max_iterations=settings.max_iterations,
        )
        if not found.is_connected:
            continue
        sampled = True
        stops = found.paths[-1].flatten(1)
        if _is_certified(settings, prepared, stops):
            bypassed = True
            inside |= float(stops.abs().max()) <= radius
    return {"straight": straight, "bypass_sampled": sampled, "bypass": bypassed, "bypass_inside": inside}


def _is_certified(settings: Settings, prepared: tuple[Stage, ...], stops: torch.Tensor) -> bool:
    found = value_intervals.certify_polygon(prepared, stops, piece_budget=settings.piece_budget)
    return found.status == "certified"


def _interval(label: int, delta: float) -> tuple[float, float]:
    low, high = labels.intervals(delta)[label].tolist()
    return low, high


# Variable of the result -> (units, long name).
_VARIABLES = {
    "status": ("1", f"what the search ended with: {', '.join(f'{i} {name}' for i, name in enumerate(STATUSES))}"),
    "n_evaluated": ("cube", "cubes evaluated, with all labels tried"),
    "distance": ("cube", "cubes between the two, L1: no path is shorter"),
    "n_steps": ("cube", "steps of the path found; nan without one"),
    "certificate": (
        "1",
        f"of the path, straightened: {', '.join(f'{i} {name}' for i, name in enumerate(_CERTIFICATES))}",
    ),
    "n_stops": ("1", "corners of the certified polygon between its ends; nan without one"),
    "length_ratio": ("1", "length of the certified polygon over the distance of its ends, Euclidean; nan without one"),
    "straight": ("1", "whether the straight segment is certified to stay in a shared interval"),
    "bypass_sampled": ("1", "whether the bypass connects, by the points that it looked at"),
    "bypass": ("1", "whether it connects, certified"),
    "bypass_inside": ("1", "whether it does, with all of the path in the box"),
}


def collect(settings: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return every variable over (lattice, network)."""
    values = {
        name: np.array(
            [
                [float(arrays[_key(lattice, i)][name]) for i in range(settings.n_networks)]
                for lattice in settings.lattices
            ]
        )
        for name in _VARIABLES
    }
    boxes, dimensions, n_cells = zip(*settings.lattices, strict=True)
    return xr.Dataset(
        {
            name: (("lattice", "network"), values[name], {"units": units, "long_name": text})
            for name, (units, text) in _VARIABLES.items()
        },
        coords={
            "box": ("lattice", list(boxes), {"long_name": "how the box goes with the dimension"}),
            "dimension": ("lattice", list(dimensions), {"long_name": "dimension of the inputs", "units": "1"}),
            "n_cells": ("lattice", list(n_cells), {"long_name": "cubes along an axis", "units": "1"}),
        },
    )


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return a row for every lattice: how many pairs are found, how far the paths go, what certificates say."""
    rows = []
    for i, (box, dimension, n_cells) in enumerate(settings.lattices):
        here = dataset.isel(lattice=i)
        is_status = {name: here["status"] == k for k, name in enumerate(STATUSES)}
        n_found = int(is_status["found"].sum())
        low, high = wilson_interval(n_found, settings.n_networks, z=Z_95)
        ratio = (here["n_steps"] / here["distance"]).dropna("network")
        rows.append(
            {
                "box": box,
                "dimension": dimension,
                "n_cells": n_cells,
                "n_pairs": settings.n_networks,
                "low": low,
                "high": high,
                **{f"n_{name}": int(found.sum()) for name, found in is_status.items()},
                "n_certified": int((here["certificate"] == _CERTIFICATES.index("certified")).sum()),
                "path_ratio_median": float(ratio.median()) if n_found else None,
                "path_ratio_max": float(ratio.max()) if n_found else None,
                "n_evaluated_median": float(here["n_evaluated"].median()),
                "n_straight": int(here["straight"].sum()),
                "n_bypass": int(here["bypass"].sum()),
                "n_bypass_inside": int(here["bypass_inside"].sum()),
                # No path of cubes, yet a certified one in the box: this lattice is too coarse.
                "n_contradicted": int((is_status["exhausted"] & (here["bypass_inside"] == 1)).sum()),
            }
        )
    return {
        "activation": settings.activation,
        "depth": settings.depth,
        "width": settings.width,
        "radius": settings.radius,
        "delta": settings.delta,
        "budget": settings.budget,
        "rows": rows,
    }


def _key(lattice: Lattice, network: int) -> str:
    box, dimension, n_cells = lattice
    return f"{box} d={dimension} n={n_cells} network={network}"


def tasks(settings: Settings) -> dict[str, Lattice]:
    """Return the lattice of every task; a task is one network's pair on it."""
    return {_key(lattice, i): lattice for lattice in settings.lattices for i in range(settings.n_networks)}


EXPERIMENT: Experiment[Settings, Lattice] = Experiment(
    name="search", version=1, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
)
