"""P(connected | same label) against dimension: real networks on every cube of a box, beside four models of labels.

For every dimension, random networks label all cubes of a box (:mod:`empirical.network_lattice`), and beside each stand

- the same cells in random places, and cells drawn independently with the same frequencies;
- Gaussian fields with the networks' covariance in the wide limit, put through the same last map;
- the mean field of independent cells, on the Bethe lattice.

Which limit. The size of the box in correlation lengths is held, and the cubes are made smaller until nothing changes:
three ladders' rungs of n/4, n/2 and n cubes along each axis tell whether. What is left is the connectedness of the
sets {a <= f < b} of a smooth random function on a box, at fixed delta. There the cells of neighbours are the same but
at the edge of a set, however small the cubes: the independent lattice is no approximation of it at any epsilon, and its
threshold no threshold of it. On a line two points of one label are connected if and only if f does not leave the
interval between them.

Far above that, where no box can be written down, pairs of cubes are joined by search in fixed boxes
(:mod:`empirical.lattice_search`). Whether such sets percolate is a question of boxes of ever more correlation lengths
in one dimension: growing boxes of several sizes ask it in low ones.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, Section 4, App. D, G.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from empirical import conjecture_tables, lattice_models, lattice_pairs, network_lattice
from empirical.lattice_models import Connection, connect_cubes
from empirical.network_lattice import Box, LatticeNetwork
from lipschitz.fully_connected import Activation, FinalActivation
from lipschitz.threads import one_thread
from percolation import labels
from percolation.campaign import Arrays, Experiment

Kind = Literal["network", "fields", "size", "search"]
MODELS = ("network", "shuffled", "independent", "field")
_RUNGS = (4, 2, 1)  # by what the cubes along an axis are divided
_MOST_DIMENSIONS = 16
_MOST_SEARCHED = 100_000
_MOST_WEIGHTS = 10**8  # of a network, 8 bytes each


class Settings(BaseModel):
    """Which networks, on which boxes, cut how finely."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    activations: tuple[Activation, ...] = Field(("tanh", "sin"), description="pointwise functions of the networks")
    depths: tuple[int, ...] = Field((3,), description="weight matrices of the networks, 2 to 6")
    boxes: tuple[Box, ...] = Field(
        ("fixed", "growing"), description="how the half side goes with the dimension: constant, or as its root"
    )
    dimensions: tuple[int, ...] = Field(tuple(range(1, 9)), description="dimensions of the inputs, 1 to 16")
    width: int = Field(64, ge=1, le=4096, description="units of a hidden layer")
    gain: float | None = Field(
        None,
        ge=1e-3,
        le=1e3,
        description="standard deviation of later matrices' entries times the root of the width; None keeps 1",
    )
    bias_std: float = Field(0.3, ge=0, le=1e3, description="standard deviation of the biases")
    final_activation: FinalActivation = Field("gaussian_cdf", description="last map, to [0, 1]")
    radius: float = Field(3.0, ge=1e-3, le=1e3, description="half side of the box, in correlation lengths")
    size_radii: tuple[float, ...] = Field((1.5, 3.0, 6.0), description="half sides of growing boxes of several sizes")
    size_dimensions: tuple[int, ...] = Field((2, 3), description="dimensions of those boxes")
    search_dimensions: tuple[int, ...] = Field(
        (16, 128, 1024, 3072), description="dimensions of fixed boxes where pairs are joined by search"
    )
    search_side: int = Field(16, ge=2, le=10**6, description="cubes along an axis of those boxes")
    search_budget: int = Field(50_000, ge=2, le=10**9, description="cubes evaluated after which a search is given up")
    delta: float = Field(0.25, gt=0, le=0.5, description="interval length of Eq. 4; 1/delta is a whole number")
    n_pairs: int = Field(
        20, ge=1, le=1000, description="pairs of each kind and dimension for the search, each of its own network"
    )
    n_networks: int = Field(8, ge=2, le=1000, description="networks, and Gaussian fields, of each kind and dimension")
    max_cubes: int = Field(100_000, ge=2, le=100_000_000, description="cubes of a box; two an axis at least")
    max_side: int = Field(256, ge=2, le=10**6, description="cubes along an axis")
    field_cubes: int = Field(100_000, ge=2, le=100_000_000, description="cubes of a box labelled by Gaussian fields")
    field_width: int = Field(
        256, ge=1, le=4096, description="units of a hidden layer of the networks that make the fields"
    )
    shared_fields: int = Field(2, ge=1, description="fields that share hidden layers; half of n_networks at most")
    seed: int = Field(0, ge=0, description="seed of the run")

    @model_validator(mode="after")
    def _check(self) -> Settings:
        network_lattice.label(np.zeros(0), self.delta)  # its cells must be few enough
        widest = max((*self.search_dimensions, *self.dimensions))
        n_weights = self.width * (widest + (max(self.depths) - 2) * self.width)
        if n_weights > _MOST_WEIGHTS:
            raise ValueError(f"width must make networks of at most {_MOST_WEIGHTS} weights, got {n_weights}")
        shared = self.shared_fields
        if self.n_networks % shared or self.n_networks < 2 * shared:
            raise ValueError(
                f"n_networks must be at least twice, and a multiple of, shared_fields = {shared}, got {self.n_networks}"
            )
        return self

    @field_validator("depths")
    @classmethod
    def _deep(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or min(value) < 2 or max(value) > 6:
            raise ValueError("be one or more of 2 to 6")
        return value

    @field_validator("dimensions", "size_dimensions")
    @classmethod
    def _in_range(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not all(1 <= d <= _MOST_DIMENSIONS for d in value):
            raise ValueError(f"be in 1 to {_MOST_DIMENSIONS} each")
        return value

    @field_validator("size_radii")
    @classmethod
    def _sizes(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or not all(1e-3 <= radius <= 1e3 for radius in value):
            raise ValueError("be one or more numbers from 0.001 to 1000")
        if len({f"{radius:g}" for radius in value}) < len(value):
            raise ValueError("differ from one another in their first six digits")
        return value

    @field_validator("activations", "depths", "boxes", "dimensions", "size_dimensions", "search_dimensions")
    @classmethod
    def _differ(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError("differ from one another")
        return value

    @field_validator("search_dimensions")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not all(1 <= d <= _MOST_SEARCHED for d in value):
            raise ValueError(f"be in 1 to {_MOST_SEARCHED} each")
        return value

    @field_validator("activations", "boxes", "dimensions")
    @classmethod
    def _some(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("name at least one")
        return value


PRESETS = {
    "quick": Settings(),
    "paper": Settings(
        activations=("tanh", "relu", "erf", "sin"),
        n_networks=50,
        n_pairs=50,
        max_cubes=1_000_000,  # finer ones are asked where it matters: empirical.refinement
        max_side=1024,
        field_width=1024,
        shared_fields=5,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One network, or one group of Gaussian fields, on one box; ``place`` is where its numbers go, by indices."""

    kind: Kind
    law: LatticeNetwork
    dimension: int
    place: tuple[int, ...]
    numbers: tuple[int, ...]


def tasks(settings: Settings) -> dict[str, Part]:
    """Return every network and every group of fields by key, those of several sizes last."""
    networks: list[tuple[int, ...]] = [(i,) for i in range(settings.n_networks)]
    shared = settings.shared_fields
    groups = [tuple(range(first, first + shared)) for first in range(0, settings.n_networks, shared)]
    found: dict[str, Part] = {}
    pairs: list[tuple[int, ...]] = [(i,) for i in range(settings.n_pairs)]
    kinds: tuple[tuple[Kind, list[tuple[int, ...]]], ...]
    kinds = (("network", networks), ("fields", groups), ("size", networks), ("search", pairs))
    for kind, numbers in kinds:
        for place, law, d in _places(settings, kind):
            law = law.model_copy(update={"width": settings.field_width if kind == "fields" else settings.width})
            for group in numbers:
                key = f"{law.activation} depth={law.depth} {law.box} radius={law.radius:g} d={d} {kind}={group[0]}"
                found[key] = Part(kind=kind, law=law, dimension=d, place=place, numbers=group)
    return found


def _places(settings: Settings, kind: Kind) -> Iterator[tuple[tuple[int, ...], LatticeNetwork, int]]:
    """Yield the indices, law and dimension of each cell of the table to which tasks of one kind belong."""
    boxes, dimensions = [(box, settings.radius) for box in settings.boxes], settings.dimensions
    if kind == "size":
        boxes, dimensions = [("growing", radius) for radius in settings.size_radii], settings.size_dimensions
    elif kind == "search":
        boxes, dimensions = [("fixed", settings.radius)], settings.search_dimensions
    axes = (settings.activations, settings.depths, boxes, dimensions)
    for place in np.ndindex(*map(len, axes)):
        activation, depth, (box, radius), d = (axis[i] for axis, i in zip(axes, place, strict=True))
        law = LatticeNetwork(
            activation=activation,
            depth=depth,
            gain=settings.gain,
            bias_std=settings.bias_std,
            final_activation=settings.final_activation,
            radius=radius,
            box=box,
        )
        yield place, law, d


def sides(settings: Settings, dimension: int) -> tuple[int, ...]:
    """Return the cubes along an axis on each rung, the last a whole even number; 0 for a rung of a single cube."""
    side = min(settings.max_side, round(settings.max_cubes ** (1 / dimension)) + 1)
    while side**dimension > settings.max_cubes or side % 2:
        side -= 1
    ladder = (max(2, side) // part for part in _RUNGS)
    return tuple(side if side > 1 else 0 for side in ladder)


def run_task(settings: Settings, task: Part, seeds: np.random.SeedSequence) -> Arrays:
    """Return the connection of one network's boxes and of the labels made from them, or of a group of fields.

    Arrays are over (model or field, rung, ...), nan where a rung is not computed.
    """
    rng = np.random.default_rng(seeds)
    seed = int(rng.integers(2**63))
    with one_thread():
        run = {"fields": _fields, "search": _search}.get(task.kind, _network)
        return run(settings, task, seed, rng)


def _search(settings: Settings, task: Part, seed: int, rng: np.random.Generator) -> Arrays:
    """Return 1 if a pair that shares a label is joined, 0 if it cannot be on this lattice, nan if it was given up."""
    law, d = task.law, task.dimension
    network, radius = network_lattice.build(law, d, seed), network_lattice.half_side(law, d)
    network.requires_grad_(False)
    lattice: Any = {"n_cells": settings.search_side, "radius": radius, "delta": settings.delta}
    pair = lattice_pairs.draw_pair(network, dimension=d, rng=rng, **lattice)
    joined = lattice_pairs.join_pair(network, pair, budget=settings.search_budget, **lattice)
    is_joined = {"found": 1.0, "budget": np.nan, "exhausted": 0.0}[joined.status]
    return {"is_joined": np.array(is_joined)}


def _network(settings: Settings, task: Part, seed: int, rng: np.random.Generator) -> Arrays:
    law, d, n_cells = task.law, task.dimension, labels.n_cells(settings.delta)
    radius = network_lattice.half_side(law, d)
    network = network_lattice.build(law, d, seed)
    ladder = sides(settings, d)
    found: list[list[Connection | None]] = [[None] * len(_RUNGS) for _ in range(3)]
    by_mean_field = np.full(len(_RUNGS), np.nan)
    for rung, side in enumerate(ladder):
        if side:
            cells = network_lattice.label_box(network, d, n_cells=side, radius=radius, delta=settings.delta)[0]
            found[0][rung] = real = connect_cubes(cells, n_cells)
            counts = np.bincount(cells.ravel(), minlength=n_cells)
            found[1][rung] = connect_cubes(lattice_models.shuffled(cells, rng), n_cells)
            found[2][rung] = connect_cubes(lattice_models.independent(cells.shape, counts, rng), n_cells)
            by_mean_field[rung] = lattice_models.mean_field(real.shares, d, side)
    reach = network_lattice.upper_reach(network, d, side=1.0)
    certain = network_lattice.certain_share(
        *(network, d),
        reach=reach * 2 * radius / ladder[-1],
        n_cells=ladder[-1],
        radius=radius,
        delta=settings.delta,
        rng=rng,
    )
    return _stacked(found, n_cells) | {
        "mean_field": by_mean_field,
        "certain": np.array(certain),
        # A cube's values span twice its reach, and lie in one interval for certain if they span at most delta / 2.
        "certain_side": np.array(np.ceil(2 * radius * reach * 4 / settings.delta)),
    }


def _fields(settings: Settings, task: Part, seed: int, rng: np.random.Generator) -> Arrays:
    law, d, n_cells = task.law, task.dimension, labels.n_cells(settings.delta)
    radius = network_lattice.half_side(law, d)
    network = network_lattice.build(law, d, seed, n_outputs=len(task.numbers))
    found: list[list[Connection | None]] = [[None] * len(_RUNGS) for _ in task.numbers]
    for rung, side in enumerate(sides(settings, d)):
        if side and side**d <= settings.field_cubes:
            boxes = network_lattice.label_box(network, d, n_cells=side, radius=radius, delta=settings.delta)
            for field, cells in enumerate(boxes):
                found[field][rung] = connect_cubes(cells, n_cells)
    error = lattice_models.covariance_error(network, law, d, rng)
    return _stacked(found, n_cells) | {"covariance_error": np.array(error)}


_NUMBERS = ("in_label", "in_any", "n_shared")
_BY_LABEL = ("shares", "connected", "largest", "n_clusters")


def _stacked(found: list[list[Connection | None]], n_cells: int) -> Arrays:
    """Return the numbers of connections as arrays, nan where there is none."""
    missing = {"in_label": np.nan, "in_any": np.nan} | {name: np.full(n_cells - 1, np.nan) for name in _BY_LABEL}
    arrays = {
        name: np.array([[value if one is None else getattr(one, name) for one in row] for row in found])
        for name, value in missing.items()
    }
    return arrays | {"n_shared": (arrays["shares"] ** 2).sum(axis=-1)}


_VARIABLES = {
    "in_label": "P(connected | same label)",
    "in_any": "P(connected in some label | a label shared)",
    "n_shared": "labels that two random cubes of a network share, on average: the network's weight in a ratio of means",
    "in_label_pooled": "P(connected | same label) of the pairs of all networks together: the ratio of means",
    "shares": "share of the cubes that carry the label, mean over networks",
    "connected": "P(connected | both carry the label), mean over the networks with such cubes",
    "largest": "share of the label's cubes in its largest cluster, mean over the networks with such cubes",
    "n_clusters": "clusters of the label, mean over networks",
    "in_label_by_size": "P(connected | same label) in growing boxes of half side size_radius correlation lengths",
    "n_shared_by_size": "labels that two random cubes share, on average, in those boxes",
    "is_joined": "whether a pair is joined by search in a fixed box: 1, 0 if it cannot be, nan if it was given up",
    "mean_field": "P(connected | same label) of independent cells on the Bethe lattice",
    "certain": "share of the finest rung's cubes that carry a label for certain, by the Lipschitz bound",
    "certain_side": "cubes along an axis with which every cube carries a label for certain",
    "covariance_error": "root mean square error of the fields' correlations",
    "side": "cubes along an axis",
    "half_side": "half side of the box",
    "length": "correlation length",
}
_PLACE = ("activation", "depth", "box", "dimension")
_DIMS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_NUMBERS, (*_PLACE, "model", "network", "rung")),
    "in_label_pooled": (*_PLACE, "model", "rung"),
    **dict.fromkeys(_BY_LABEL, (*_PLACE, "model", "rung", "label")),
    **dict.fromkeys(("certain", "certain_side", "covariance_error"), (*_PLACE, "network")),
    **dict.fromkeys(
        ("in_label_by_size", "n_shared_by_size"),
        ("activation", "depth", "size_radius", "size_dimension", "model", "network", "rung"),
    ),
    "is_joined": ("activation", "depth", "search_dimension", "pair"),
    "mean_field": (*_PLACE, "network", "rung"),
    "side": ("dimension", "rung"),
    "half_side": _PLACE,
    "length": ("activation", "depth"),
}


def collect(settings: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return everything over (activation, depth, box, dimension); single labels as means over networks.

    ``in_label`` is each network's own ratio, ``in_label_pooled`` the probability of Eq. 3 with the network random too.
    ``in_label_by_size`` is that of growing boxes over (activation, depth, size_radius, size_dimension).
    """
    outer = tuple(len(getattr(settings, name)) for name in ("activations", "depths", "boxes", "dimensions"))
    sizes = (*outer[:2], len(settings.size_radii), len(settings.size_dimensions))
    n, n_rungs, n_labels = settings.n_networks, len(_RUNGS), labels.n_cells(settings.delta) - 1
    numbers = (len(MODELS), n, n_rungs)
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_BY_LABEL, (*outer, *numbers, n_labels))
    shapes |= dict.fromkeys(_NUMBERS, (*outer, *numbers))
    shapes |= dict.fromkeys(("in_label_by_size", "n_shared_by_size"), (*sizes, *numbers))
    shapes["mean_field"] = (*outer, n, n_rungs)
    shapes |= dict.fromkeys(("certain", "certain_side", "covariance_error"), (*outer, n))
    shapes["is_joined"] = (*outer[:2], 1, len(settings.search_dimensions), settings.n_pairs)
    full = {name: np.full(shape, np.nan) for name, shape in shapes.items()}
    for key, task in tasks(settings).items():
        found = arrays[key]
        if task.kind == "size":
            found = {f"{name}_by_size": found[name] for name in ("in_label", "n_shared")}
        for name, values in found.items():
            if shapes[name][4:7] == numbers:
                models = [3] * len(task.numbers) if task.kind == "fields" else [0, 1, 2]
                of = task.numbers if task.kind == "fields" else task.numbers * 3
                for model, number, row in zip(models, of, values, strict=True):
                    full[name][(*task.place, model, number)] = row
            else:
                for number in task.numbers:
                    full[name][(*task.place, number)] = values
    for name in _BY_LABEL:
        is_there = np.isfinite(full[name])
        total, count = np.where(is_there, full[name], 0).sum(axis=5), is_there.sum(axis=5)
        full[name] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    full["in_label_pooled"] = conjecture_tables.ratio_of_means(full["in_label"], full["n_shared"], axis=5)
    full["is_joined"] = full["is_joined"][:, :, 0]
    places = list(_places(settings, "network"))
    full["half_side"] = np.reshape([network_lattice.half_side(law, d) for _, law, d in places], outer)
    full["length"] = np.reshape([network_lattice.correlation_length(law) for _, law, _ in places], outer)[..., 0, 0]
    full["side"] = np.array([sides(settings, d) for d in settings.dimensions])
    return xr.Dataset(
        {
            name: (_DIMS[name], full[name], {"long_name": text, "units": _unit(name)})
            for name, text in _VARIABLES.items()
        },
        coords={
            "activation": list(settings.activations),
            "depth": list(settings.depths),
            "box": list(settings.boxes),
            "dimension": list(settings.dimensions),
            "size_radius": list(settings.size_radii),
            "size_dimension": list(settings.size_dimensions),
            "search_dimension": list(settings.search_dimensions),
            "model": list(MODELS),
            "label": np.arange(n_labels),
        },
    )


def _unit(name: str) -> str:
    return "input unit" if name in ("half_side", "length") else "1"


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return the rows, those of several sizes and of the search, and what they are over."""
    return {
        "delta": settings.delta,
        "n_networks": settings.n_networks,
        "rows": conjecture_tables.rows(dataset),
        "sizes": conjecture_tables.size_rows(dataset),
        "searches": conjecture_tables.search_rows(dataset),
    }


EXPERIMENT: Experiment[Settings, Part] = Experiment(
    name="conjecture", version=2, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
)
