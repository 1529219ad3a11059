"""P(connected | same label) against dimension, boxes refined until it no longer changes.

A box with all its cubes labelled (:mod:`empirical.conjecture`) has at most 10^8 of them: ten along an axis in eight
dimensions. Here parts that are cut off are looked for and counted on finer lattices, and what was missed is estimated
by a sample of the whole box (:mod:`empirical.refined_lattice`): one network in one box is a task, and the same points
are asked on all lattices, so that what a finer one changes is seen without the networks' spread.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, Conjecture 4.1, Remark D.1.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from empirical import conjecture_tables, network_lattice, refined_lattice
from empirical.network_lattice import Box, LatticeNetwork
from lipschitz.fully_connected import Activation
from lipschitz.threads import one_thread
from percolation.campaign import Arrays, Experiment

_MOST_DIMENSIONS = 12
ROUNDING = 1e-12  # of a complement that is 0


class Settings(BaseModel):
    """Which networks, on which boxes, asked at how many points, refined how often."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    activations: tuple[Activation, ...] = Field(("sin",), description="pointwise functions of the networks")
    boxes: tuple[Box, ...] = Field(
        ("growing",), description="how the half side goes with the dimension: constant, or as its root"
    )
    dimensions: tuple[int, ...] = Field(tuple(range(1, 9)), description="dimensions of the inputs, 1 to 12")
    refinements: tuple[int, ...] = Field(
        (1, 3, 5), description="fine cubes along an axis of a coarse one: odd, ascending"
    )
    depth: int = Field(3, ge=2, le=6, description="weight matrices of the networks")
    width: int = Field(64, ge=1, le=4096, description="units of a hidden layer")
    bias_std: float = Field(0.3, ge=0, le=1e3, description="standard deviation of the biases")
    radius: float = Field(1.5, ge=1e-3, le=1e3, description="half side of the box, in correlation lengths")
    delta: float = Field(0.25, gt=0, le=0.5, description="interval length of Eq. 4; 1/delta is a whole number")
    n_networks: int = Field(4, ge=2, le=10_000, description="networks of each kind and dimension")
    n_sample: int = Field(1_000, ge=1, le=10**6, description="points of the box at which cubes are drawn")
    n_starts: int = Field(64, ge=0, le=10**5, description="points of the box from which extrema are looked for")
    max_coarse: int = Field(1_000, ge=2, le=10_000_000, description="cubes of the coarse box; two an axis at least")
    max_side: int = Field(128, ge=2, le=10**6, description="coarse cubes along an axis")
    budget: int = Field(
        500_000, ge=1, le=10**9, description="fine cubes evaluated to fill a part, before it is given up"
    )
    seed: int = Field(0, ge=0, description="seed of the run")

    @model_validator(mode="after")
    def _has_labels(self) -> Settings:
        network_lattice.label(np.zeros(0), self.delta)  # its cells must be few enough
        return self

    @field_validator("dimensions")
    @classmethod
    def _in_range(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not all(1 <= d <= _MOST_DIMENSIONS for d in value):
            raise ValueError(f"be in 1 to {_MOST_DIMENSIONS} each")
        return value

    @field_validator("refinements")
    @classmethod
    def _ascend(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) < 2 or any(not 1 <= r <= 999 or r % 2 == 0 for r in value) or sorted(set(value)) != list(value):
            raise ValueError("be two or more odd numbers up to 999 in ascending order")
        return value

    @field_validator("activations", "boxes", "dimensions")
    @classmethod
    def _some_that_differ(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name at least one, each once")
        return value


PRESETS = {
    "quick": Settings(),
    "paper": Settings(
        activations=("sin", "relu"),
        boxes=("growing", "fixed"),
        refinements=(3, 5),
        n_networks=20,
        max_side=48,
        n_sample=4_000,
        n_starts=256,
        max_coarse=10_000,
        budget=2_000_000,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One network on one box."""

    law: LatticeNetwork
    dimension: int
    network: int


def tasks(settings: Settings) -> dict[str, Part]:
    """Return every network by key."""
    found = {}
    for activation, box, d in itertools.product(settings.activations, settings.boxes, settings.dimensions):
        law = LatticeNetwork(
            activation=activation,
            box=box,
            depth=settings.depth,
            width=settings.width,
            bias_std=settings.bias_std,
            radius=settings.radius,
        )
        for network in range(settings.n_networks):
            found[_key(activation, box, d, network)] = Part(law=law, dimension=d, network=network)
    return found


def _key(activation: str, box: str, dimension: int, network: int) -> str:
    return f"{activation} {box} d={dimension} network={network}"


def coarse_side(settings: Settings, dimension: int) -> int:
    """Return the cubes along an axis of the coarse box."""
    side: int = min(settings.max_side, round(settings.max_coarse ** (1 / dimension)) + 1)
    while side > 2 and side**dimension > settings.max_coarse:
        side -= 1
    return side


def run_task(settings: Settings, task: Part, seeds: np.random.SeedSequence) -> Arrays:
    """Return what :func:`refined_lattice.connect` finds of one network, over refinements."""
    rng = np.random.default_rng(seeds)
    network = network_lattice.build(task.law, task.dimension, int(rng.integers(2**63))).requires_grad_(False)
    sample = rng.uniform(-1, 1, size=(settings.n_sample, task.dimension))
    starts = _starts(settings.n_starts, task.dimension, rng)
    with one_thread():
        found = [
            refined_lattice.connect(
                network,
                sample,
                starts,
                n_coarse=coarse_side(settings, task.dimension),
                refine=refine,
                radius=network_lattice.half_side(task.law, task.dimension),
                delta=settings.delta,
                budget=settings.budget,
            )
            for refine in settings.refinements
        ]
    return {name: np.array([getattr(one, name) for one in found], dtype=np.float64) for name in _VARIABLES}


def _starts(n_starts: int, dimension: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return points in [-1, 1]^d, uniform, half of them then put to the wall along every axis with even chance."""
    starts = rng.uniform(-1, 1, size=(n_starts, dimension))
    is_put = rng.random(starts.shape) < 0.5
    is_put[: n_starts // 2] = False
    return np.where(is_put, np.sign(starts), starts)


_VARIABLES = {
    "in_label": "P(connected | same label), what was given up taken as not connected",
    "in_label_most": "P(connected | same label), what was given up taken as connected",
    "cut_off": "share of (cube, cube, label) whose first cube is not in the label's largest cluster",
    "at_wall": "share of (cube, cube, label) whose first cube is in another cluster, which touches the box's wall",
    "missed": "share of (cube, cube, label) whose first cube is in another cluster, met by the sample alone",
    "n_given_up": "cubes that were given up, over all labels",
}
_DIMS = ("activation", "box", "dimension", "network", "refinement")


def collect(settings: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return every variable over (activation, box, dimension, network, refinement)."""
    shape = tuple(len(values) for values in (settings.activations, settings.boxes, settings.dimensions))
    full = {
        name: np.stack([arrays[key][name] for key in tasks(settings)]).reshape(*shape, settings.n_networks, -1)
        for name in _VARIABLES
    }
    return xr.Dataset(
        {name: (_DIMS, full[name], {"long_name": text, "units": "1"}) for name, text in _VARIABLES.items()}
        | {
            "side": (
                ("dimension", "refinement"),
                [[coarse_side(settings, d) * r for r in settings.refinements] for d in settings.dimensions],
                {"long_name": "fine cubes along an axis", "units": "1"},
            ),
        },
        coords={
            "activation": list(settings.activations),
            "box": list(settings.boxes),
            "dimension": list(settings.dimensions),
            "refinement": list(settings.refinements),
        },
    )


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return the complement of P(connected) for each activation, box and dimension, means over networks.

    ``apart`` is on the finest lattice, with what was given up as not connected, ``apart_least`` with it as connected;
    ``coarse`` that on the coarsest. ``moved`` is by how much the last refinement moved it, and ``is_resolved`` whether
    that, with two of its standard errors and all that was given up, is at most a tenth of it; ``is_lower`` whether it
    did not rise, but for what was given up and two standard errors. ``n_cut_off`` is on how many networks the mean
    rests, those with any cube cut off, and ``largest`` the share of the sum that the largest of them carries, None
    where there are none. Of the cubes that are cut off, by the triples that they take from P, ``at_wall`` is the share
    in parts that touch the box's wall, and ``missed`` that met by the sample alone, None where there are none.
    """
    found = []
    names = ("activation", "box", "dimension")
    for place in itertools.product(*(dataset[name].to_numpy().tolist() for name in names)):
        here = dataset.sel(dict(zip(names, place, strict=True)))
        apart = 1 - here["in_label"].to_numpy()
        least = 1 - here["in_label_most"].to_numpy()
        moved = apart[:, -1] - apart[:, -2]
        row: dict[str, Any] = dict(zip(names, place, strict=True))
        row["side"] = int(here["side"][-1])
        row |= {"apart": float(apart[:, -1].mean()), "apart_error": conjecture_tables.standard_error(apart[:, -1])}
        row |= {"apart_least": float(least[:, -1].mean()), "coarse": float(apart[:, 0].mean())}
        row |= {"moved": float(moved.mean()), "moved_error": conjecture_tables.standard_error(moved)}
        unknown = abs(row["moved"]) + 2 * row["moved_error"] + row["apart"] - row["apart_least"]
        row["is_resolved"] = bool(unknown <= conjecture_tables.SLACK * row["apart"])
        row["is_lower"] = bool(least[:, -1].mean() <= apart[:, -2].mean() + 2 * row["moved_error"])
        cut_off = here["cut_off"].to_numpy()[:, -1]
        row["n_cut_off"] = int((cut_off > 0).sum())
        row["largest"] = _share(apart[:, -1].max(), apart[:, -1].sum())
        for name in ("at_wall", "missed"):
            row[name] = _share(here[name].to_numpy()[:, -1].sum(), cut_off.sum())
        row["n_given_up"] = int(here["n_given_up"][:, -1].sum())
        found.append(row)
    return found


def _share(part: float, whole: float) -> float | None:
    """Return a part of a whole, None of nothing but rounding."""
    return float(part / whole) if whole > ROUNDING else None


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return the rows and what they are over."""
    return {
        "delta": settings.delta,
        "radius": settings.radius,
        "n_networks": settings.n_networks,
        "rows": rows(dataset),
    }


EXPERIMENT: Experiment[Settings, Part] = Experiment(
    name="refinement", version=2, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
)
