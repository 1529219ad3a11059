"""Connectivity of untrained networks against input dimension, width, depth, gain, stem, and the method's choices.

The paper's conjecture is that inputs are connected because there are many dimensions. Here the experiment of
:mod:`empirical.untrained` is repeated with one thing changed at a time, so that it can be seen from the other side.

With the size of its images the logits of a network grow as well. The dimension alone is what changes when the last
layer is scaled back, until the logits of the same weights spread as they do at the base's size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from empirical import captured, models, untrained
from empirical.models import N_CLASSES, Precision
from empirical.untrained import Bypass, UntrainedSettings
from percolation import campaign
from percolation.campaign import Arrays, Experiment


class ScalingSettings(BaseModel):
    """Settings of the experiment; losses are cross-entropies in nats. The base is that of ``untrained``: a ResNet18."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_sizes: tuple[int, ...] = Field((8, 12, 16, 24, 48, 64), description="pixels on a side of an input")
    scaled_sizes: tuple[int, ...] = Field(
        (8, 12, 16, 24, 48, 64), description="the same with the last layer scaled so that logits spread as at the base"
    )
    widths: tuple[int, ...] = Field((8, 16, 32, 128), description="channels of the first stage")
    blocks: tuple[int, ...] = Field((1, 3, 4), description="basic blocks in each of the four stages")
    gains: tuple[float, ...] = Field((0.5, 0.7, 1.4, 2.0), description="factors on the convolutions' weights")
    networks: tuple[models.Network, ...] = Field(("resnet18_cifar",), description="forms: the other stem")
    bypasses: tuple[Bypass, ...] = Field(("gradient", "free"), description="what is projected off AC")
    mses: tuple[float, ...] = Field((0.1,), description="weights of the mean squared distance of B' from B")
    noises: tuple[float, ...] = Field((0.1,), description="standard deviations of the first input's pixels")
    n_networks: int = Field(10, ge=1, le=10_000, description="networks of each kind; equal numbers mean equal seeds")
    classes: tuple[int, ...] = Field(tuple(range(N_CLASSES)), description="classes of the pairs")
    n_pairs: int = Field(1, ge=1, le=10_000, description="pairs of each class for each network")
    threshold: float = Field(0.005, gt=0, le=1e3, description="loss at which an optimised input is done")
    delta: float = Field(0.01, gt=0, le=1e3, description="a path is connected if its loss is nowhere above this")
    max_iterations: int = Field(4096, ge=0, le=10**9, description="steps after which an end of a pair is given up")
    max_rounds: int = Field(4, ge=0, le=6, description="rounds of bypassing after which a pair is given up")
    precision: Precision = Field("bfloat16", description="of the gradients; reported losses are float32")
    seed: int = Field(0, ge=0, description="seed of the run")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for task in _tasks(self)[:: self.n_networks]:
            try:
                _with(self, task)
            except ValidationError as error:
                first = error.errors()[0]
                name = str((*first["loc"], "")[0])
                if not name:
                    raise ValueError(first["msg"].removeprefix("Value error, ")) from error
                # The base comes first: what is wrong with a later kind is what it changes.
                requirement = first["msg"].removeprefix("Input should ").removeprefix("Value error, ")
                raise ValueError(
                    f"{_CHANGED.get(task.changed, name)} must {requirement}, got {first['input']}"
                ) from error
        return self


_CHANGED = {
    "image_size": "image_sizes",
    "scaled_size": "scaled_sizes",
    "width": "widths",
    "blocks": "blocks",
    "gain": "gains",
    "network": "networks",
    "bypass": "bypasses",
    "mse": "mses",
    "noise": "noises",
}
BASE = "nothing"
SCALED = "scaled_size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One network: the setting that is changed, its value, and the number of the network."""

    changed: str
    value: int | float | str
    network: int


def experiment(device: str) -> Experiment[ScalingSettings, Task]:
    """Return the experiment, computed on ``device``; its tasks are the networks."""
    where = models.check_device(device)

    def run_task(settings: ScalingSettings, task: Task, _seed: np.random.SeedSequence) -> Arrays:
        # Networks of the same number share their seed, whatever is changed: differences are within pairs.
        seed = campaign.seed_sequence(settings.seed, f"network={task.network}")
        with captured.task_on(where):
            found = untrained.run_network(_with(settings, task), seed, where)
        kept = ("barrier", "is_connected", "length_ratio", "deviation", "converged", "iterations", "end_loss")
        return {name: found[name] for name in kept}

    return Experiment(
        name="network_scaling",
        version=2,
        tasks=lambda settings: {_key(task): task for task in _tasks(settings)},
        run_task=run_task,
        collect=_collect,
        summarise=_summarise,
    )


def _tasks(settings: ScalingSettings) -> list[Task]:
    kinds: list[tuple[str, int | float | str]] = [(BASE, "")]
    kinds += [(changed, value) for changed, field in _CHANGED.items() for value in getattr(settings, field)]
    return [
        Task(changed=changed, value=value, network=network)
        for changed, value in kinds
        for network in range(settings.n_networks)
    ]


def _key(task: Task) -> str:
    return f"{task.changed}={task.value} network={task.network}"


def _with(settings: ScalingSettings, task: Task) -> UntrainedSettings:
    common = settings.model_dump(exclude={*_CHANGED.values(), "n_networks", "seed"})
    changes = {} if task.changed == BASE else {task.changed: task.value}
    if task.changed == SCALED:
        changes = {"image_size": task.value, "logits_as_at": UntrainedSettings().image_size}
    return UntrainedSettings(**common, **changes)


FULL = ScalingSettings()
"""A hundred pairs of each of 29 kinds; thresholds ten times those of Fig. 6."""

QUICK = ScalingSettings(
    image_sizes=(8, 16),
    scaled_sizes=(8, 16),
    widths=(8, 16),
    blocks=(1,),
    gains=(),
    networks=(),
    bypasses=(),
    mses=(),
    noises=(),
    n_networks=1,
    classes=(0, 1, 2, 3),
    threshold=0.05,
    delta=0.1,
    precision="float32",
)
"""A few small networks, one of each kind, and thresholds a hundred times those of Fig. 6."""

_EACH = ("kind", "network", "class", "pair")
_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "barrier": ((*_EACH, "round"), "nat", "highest loss found on the path; nan where a round did not happen"),
    "is_connected": ((*_EACH, "round"), "1", "no loss found above delta after at most this many rounds"),
    "length_ratio": ((*_EACH, "round"), "1", "length of the path over the distance of its ends"),
    "deviation": ((*_EACH, "round"), "1", "largest distance from the straight segment over its length"),
    "converged": ((*_EACH, "end"), "1", "the end's loss reached the threshold"),
    "iterations": ((*_EACH, "end"), "1", "optimisation steps of the end"),
    "low_ends": (_EACH, "1", "the losses of both ends are at most delta"),
}


def _collect(settings: ScalingSettings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    tasks = _tasks(settings)[:: settings.n_networks]

    def gathered(name: str) -> np.ndarray:
        each = [arrays[_key(task)] for task in _tasks(settings)]
        if name == "low_ends":
            values = np.stack([untrained.has_low_ends(found["end_loss"], settings.delta) for found in each])
        else:
            values = np.stack([found[name] for found in each])
        return values.reshape(len(tasks), settings.n_networks, *values.shape[1:])

    dataset = xr.Dataset(
        {
            name: (dims, gathered(name), {"units": units, "long_name": text})
            for name, (dims, units, text) in _VARIABLES.items()
        }
    )
    return dataset.assign_coords(
        {
            "changed": ("kind", [task.changed for task in tasks], {"long_name": "setting that differs from the base"}),
            "value": ("kind", [str(task.value) for task in tasks], {"long_name": "its value"}),
            "round": ("round", np.arange(settings.max_rounds + 1), {"long_name": "rounds of bypassing; 0 is primary"}),
            "end": ("end", list(untrained.ENDS), {"long_name": "end of the path"}),
            "class": ("class", list(settings.classes), {"long_name": "class of the pair"}),
        }
    )


def _summarise(settings: ScalingSettings, dataset: xr.Dataset) -> dict[str, Any]:
    rows = []
    for i in range(dataset.sizes["kind"]):
        one = dataset.isel(kind=i)
        is_low = one["low_ends"] != 0  # or not known, nan, in the kept run
        n_low = int(is_low.sum())
        primary = one["barrier"].isel(round=0).where(is_low)
        rows.append(
            {
                "changed": str(one["changed"].item()),
                "value": str(one["value"].item()),
                "n_pairs": is_low.size,
                "n_low_ends": n_low,
                "n_converged": int(one["converged"].all("end").sum()),
                "iterations_median": float(one["iterations"].median()),
                "primary_quartiles": untrained.quartiles(primary.to_numpy()),
                "connected": [
                    untrained.share(int((one["is_connected"].isel(round=k).astype(bool) & is_low).sum()), n_low)
                    for k in range(settings.max_rounds + 1)
                ],
            }
        )
    return {"threshold": settings.threshold, "delta": settings.delta, "rows": rows}
