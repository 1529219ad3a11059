"""How much a sampled path hides: certified maxima of the loss along the paths of untrained and of trained networks.

The pairs are connected as in :mod:`empirical.untrained`, the networks trained as in :mod:`empirical.evolution`. Then
every segment of every path, of the straight one and of those that bypass its barriers, is followed piece by piece
(:mod:`lipschitz.segment`): its largest loss is enclosed, on all of its points, and set beside the largest of n equally
spread samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn
from torch.nn import functional

from empirical import captured, evolution, models, untrained
from empirical.connect import Connection
from empirical.models import Network
from empirical.paths import on_segments
from empirical.synthesis import noise
from lipschitz import segment, stages
from percolation.campaign import Arrays, Experiment

N_SAMPLES = (5, 10, 20, 50, 100, 200, 500, 1000)
_ZOOM = 201  # points drawn around the largest loss of the straight path


class Settings(BaseModel):
    """Settings of the experiment; losses are cross-entropies in nats. The rest is as in ``untrained``.

    Networks are trained as by ``evolution``, on digits as in its preset quick, on other images as in its preset paper:
    that of the k-th pair of a stage is its training k.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: Network = Field("resnet18", description="the form of the network")
    batches: tuple[int, ...] = Field((0,), description="stages, in batches trained on; 0 alone leaves them untrained")
    data: str = Field("digits", description="what they are trained on: as for evolution")
    data_digest: str = Field("", description="stands for the content of the data; filled in by the command")
    n_pairs: int = Field(1, ge=1, le=10_000, description="pairs of a stage, each with a network of its own")
    threshold: float = Field(0.0005, gt=0, le=1e3, description="loss at which an optimised input is done")
    delta: float = Field(0.001, gt=0, le=1e3, description="a path is connected if its loss is nowhere above this")
    max_rounds: int = Field(1, ge=0, le=4, description="rounds of bypassing")
    max_iterations: int = Field(8192, ge=0, le=10**9, description="steps after which an optimised input is given up")
    piece_budget: int = Field(1_000_000, ge=1, le=10**9, description="linear pieces after which a segment is given up")
    seed: int = Field(0, ge=0, description="seed of the run")

    @field_validator("batches")
    @classmethod
    def _rises(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or list(value) != sorted(set(value)) or (value[0] < 1 and value != (0,)):
            raise ValueError("rise, from 1 or more, or be 0 alone")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One pair: the ``number``-th of its stage, which is ``batches`` of training."""

    batches: int
    number: int


def experiment(device: str) -> Experiment[Settings, Task]:
    """Return the experiment, computed on ``device``; its tasks are the pairs."""
    trainings = evolution.Trainings(models.check_device(device))

    def run_task(settings: Settings, task: Task, seed: np.random.SeedSequence, scratch: Path | None = None) -> Arrays:
        with captured.task_on(trainings.device):
            return _run_pair(settings, task, seed, trainings, scratch)

    return Experiment(
        name="certificates",
        version=2,
        tasks=tasks,
        run_task=run_task,
        collect=_collect,
        summarise=_summarise,
        has_scratch=True,
    )


def tasks(settings: Settings) -> dict[str, Task]:
    """Return the pairs of every stage by their key, ``pair=0`` to the last, the stages in turn."""
    pairs = product(settings.batches, range(settings.n_pairs))
    return {f"pair={i}": Task(batches=batches, number=number) for i, (batches, number) in enumerate(pairs)}


def with_digest(settings: Settings) -> Settings:
    """Return the settings with the digest of the data, if networks are trained; raises as ``evolution`` does."""
    if settings.batches == (0,):
        return settings
    return settings.model_copy(update={"data_digest": evolution.with_digest(_training(settings)).data_digest})


def _training(settings: Settings) -> evolution.EvolutionSettings:
    how = evolution.QUICK if settings.data == "digits" else evolution.PAPER
    chosen = {name: getattr(settings, name) for name in ("data", "data_digest", "network", "seed")}
    return how.model_copy(update=chosen | {"unit": "batch", "batch_stages": settings.batches})


def connect_pair(
    settings: Settings,
    task: Task,
    seed: np.random.SeedSequence,
    trainings: evolution.Trainings,
    scratch: Path | None = None,
) -> tuple[nn.Module, Connection]:
    """Return the network of a pair, on the device of the trainings, and how the pair was connected."""
    how = untrained.UntrainedSettings(
        network=settings.network,
        threshold=settings.threshold,
        delta=settings.delta,
        max_rounds=settings.max_rounds,
        max_iterations=settings.max_iterations,
        bypass_iterations=settings.max_iterations,
    )
    if task.batches == 0:
        network = untrained.build(how, seed, trainings.device)
    else:
        stage = evolution.Task(training=task.number, stage=task.batches)
        network = trainings.network(_training(settings), stage, scratch)
    starts = noise([models.generator_from(seed, 1), models.generator_from(seed, 2)], scale=how.noise)
    targets = torch.full((2,), class_of(task), device=trainings.device)
    _, (found,) = untrained.connect_pairs(how, network, starts.to(trainings.device), targets)
    return network, found


def class_of(task: Task) -> int:
    """Return the class of a pair; those of a stage go through all classes."""
    return task.number % models.N_CLASSES


def _run_pair(
    settings: Settings,
    task: Task,
    seed: np.random.SeedSequence,
    trainings: evolution.Trainings,
    scratch: Path | None,
) -> Arrays:
    network, found = connect_pair(settings, task, seed, trainings, scratch)
    target, device = class_of(task), trainings.device
    prepared = stages.prepare(network, models.IMAGE_SHAPE, device=device)
    shape = (settings.max_rounds + 1, 2**settings.max_rounds)
    arrays = {name: np.full(shape, np.nan) for name in _OF_SEGMENTS}
    arrays["sampled"] = np.full((*shape, len(N_SAMPLES)), np.nan)
    for i, (path, curve) in enumerate(zip(found.paths, found.curves, strict=True)):
        for j, (a, b) in enumerate(zip(path[:-1].double(), path[1:].double(), strict=True)):
            known = segment.maximise_segment(prepared, a, b, target, piece_budget=settings.piece_budget, device=device)
            for name in _OF_SEGMENTS:
                arrays[name][i, j] = float(curve.peak_loss[j]) if name == "refined" else getattr(known, name)
            for k, n in enumerate(N_SAMPLES):
                losses = _losses(prepared, a, b, target, torch.linspace(0, 1, n, dtype=torch.float64))
                arrays["sampled"][i, j, k] = float(losses.max())
    # Three spacings of the paper's 200 points around the largest loss of the straight path.
    where = float(arrays["t"][0, 0]) + torch.linspace(-1.5, 1.5, _ZOOM, dtype=torch.float64) / 199
    a, b = found.paths[0].double()
    arrays["zoom_t"] = where.numpy()
    arrays["zoom_loss"] = _losses(prepared, a, b, target, where).cpu().numpy()
    return arrays


def _losses(
    prepared: Sequence[stages.Stage], a: torch.Tensor, b: torch.Tensor, target: int, t: torch.Tensor
) -> torch.Tensor:
    """Return the loss, in float64, at places on one segment."""
    found = []
    with torch.no_grad():
        for part in torch.split(t.to(a.device), 256):
            points = on_segments(a.expand(len(part), *a.shape), b.expand(len(part), *b.shape), part)
            targets = torch.full((len(part),), target, device=a.device)
            found.append(functional.cross_entropy(stages.evaluate(prepared, points)[0], targets, reduction="none"))
    return torch.cat(found)


_OF_SEGMENTS = {
    "loss": ("nat", "largest loss on the segment; nan where there is none"),
    "lower_loss": ("nat", "the true largest loss is no smaller"),
    "upper_loss": ("nat", "the true largest loss on the part that was covered is no larger"),
    "upper_loss_everywhere": ("nat", "the true largest loss is no larger"),
    "t": ("1", "where on the segment it is"),
    "covered": ("1", "the part that was covered within the budget"),
    "upper_error": ("1", "bound of the error of the logits, 2-norm"),
    "n_pieces": ("1", "linear pieces"),
    "refined": ("nat", "largest of 200 samples a path and of a finer grid around the highest, in float32"),
}
_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    **{name: (("round", "segment"), units, text) for name, (units, text) in _OF_SEGMENTS.items()},
    "sampled": (("round", "segment", "n_samples"), "nat", "largest of so many equally spread samples, in float64"),
    "zoom_t": (("zoom",), "1", "places around the largest loss of the straight path"),
    "zoom_loss": (("zoom",), "nat", "loss there"),
}


def _collect(settings: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    pairs = [arrays[key] for key in tasks(settings)]
    dataset = xr.Dataset(
        {
            name: (("pair", *dims), np.stack([found[name] for found in pairs]), {"units": units, "long_name": text})
            for name, (dims, units, text) in _VARIABLES.items()
        }
    )
    all_tasks = tasks(settings).values()
    return dataset.assign_coords(
        {
            "round": ("round", np.arange(settings.max_rounds + 1), {"long_name": "rounds of bypassing; 0 is primary"}),
            "n_samples": ("n_samples", list(N_SAMPLES), {"long_name": "samples on the segment, ends included"}),
            "class": ("pair", [class_of(task) for task in all_tasks], {"long_name": "class of the pair"}),
            "batches": ("pair", [task.batches for task in all_tasks], {"long_name": "batches trained on"}),
        }
    )


def _summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    rows = []
    for pair, task in enumerate(tasks(settings).values()):
        for i in range(settings.max_rounds + 1):
            here = dataset.isel(pair=pair, round=i)
            if not bool(here["loss"].notnull().any()):
                continue
            rows.append(
                {
                    "pair": pair,
                    "batches": task.batches,
                    "round": i,
                    "n_segments": int(here["loss"].notnull().sum()),
                    "n_pieces": int(here["n_pieces"].sum()),
                    "sampled_200": float(here["sampled"].sel(n_samples=200).max()),
                    "refined": float(here["refined"].max()),
                    "lower": float(here["lower_loss"].max()),
                    "upper": float(here["upper_loss_everywhere"].max()),
                    "is_connected": bool(here["upper_loss_everywhere"].max() <= settings.delta),
                }
            )
    return {"network": settings.network, "delta": settings.delta, "rows": rows}
