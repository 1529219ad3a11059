"""Connectivity over training (App. E.1, Figs. 9 and 10).

A network is trained from its initialisation; after chosen numbers of batches or epochs, pairs of class-optimal inputs
are found for every class, A with a penalty on high frequencies and C without, and the loss is taken on the straight
segment between them: the primary curve. Nothing is bypassed here.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import nn

from empirical import data, models, train
from empirical.data import Images
from empirical.models import N_CLASSES, Network
from empirical.paths import loss_curves
from empirical.synthesis import noise, optimise_inputs
from lipschitz import threads
from percolation import campaign
from percolation.campaign import Arrays, Experiment


class EvolutionSettings(BaseModel):
    """Settings of the experiment; losses are cross-entropies in nats."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = Field("digits", description="digits, cifar10, or an .npz file with x_train, y_train, x_test, y_test")
    data_digest: str = Field("", description="stands for the content of the data; filled in by the command")
    network: Network = Field("resnet18", description="the form of the network")
    unit: Literal["batch", "epoch"] = Field("batch", description="what a stage counts")
    batch_stages: tuple[int, ...] = Field(tuple(range(31)), description="stages if the unit is batch; 0 is untrained")
    epoch_stages: tuple[int, ...] = Field(tuple(range(31)), description="stages if the unit is epoch; 0 is untrained")
    n_trainings: int = Field(1, ge=1, description="independent trainings, each with its own first network")
    batch_size: int = Field(512, ge=2, description="images of a training batch")
    training_learning_rate: float = Field(1e-3, gt=0, description="of Adam, for the network")
    augment: bool = Field(True, description="mirror and shift the training images; not for digits")
    classes: tuple[int, ...] = Field(tuple(range(N_CLASSES)), description="classes of the pairs")
    n_pairs: int = Field(5, ge=1, description="pairs of each class at each stage")
    n_points: int = Field(200, ge=2, description="points of a loss curve")
    threshold: float = Field(0.005, gt=0, description="loss at which an optimised input is done")
    max_iterations: int = Field(4096, ge=0, description="steps after which an input is given up")
    learning_rate: float = Field(0.05, gt=0, description="of Adam, for the inputs")
    weight_decay: float = Field(1e-7, ge=0, description="of Adam, for the inputs")
    noise: float = Field(0.01, gt=0, description="standard deviation of the first input's pixels")
    high_frequency: float = Field(2.5e-7, ge=0, description="weight of the total variation of A")
    seed: int = Field(0, ge=0, description="seed of the run")

    @field_validator("batch_stages", "epoch_stages", "classes")
    @classmethod
    def _rises(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or list(value) != sorted(set(value)) or value[0] < 0:
            raise ValueError(f"stages and classes must rise, from 0 or more, got {list(value)}")
        return value

    @field_validator("classes")
    @classmethod
    def _has_outputs(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[-1] >= N_CLASSES:
            raise ValueError(f"classes must be at most {N_CLASSES - 1}, got {value[-1]}")
        return value


PAPER = EvolutionSettings(data="cifar10")
"""The paper's numbers: CIFAR-10, 30 batches or epochs, 5 pairs of each of 10 classes."""

QUICK = EvolutionSettings(
    batch_stages=(0, 1, 4, 8, 16),
    epoch_stages=(0, 1, 2, 3),
    batch_size=64,
    augment=False,
    classes=(0, 1, 2),
    n_pairs=2,
    n_points=51,
    threshold=0.1,
)
"""The same network and method on the digits: fewer stages, classes, pairs and points, and twenty times the threshold.

With the paper's threshold a stage of the first batches takes a thousand steps, with this one some two hundred.
"""


def stages(settings: EvolutionSettings) -> tuple[int, ...]:
    """Return the stages in the unit of the settings."""
    return settings.batch_stages if settings.unit == "batch" else settings.epoch_stages


def with_digest(settings: EvolutionSettings) -> EvolutionSettings:
    """Return the settings with the digest of their data as it is now, so that equal settings mean equal data.

    Raises
    ------
    ValueError
        If the settings have a digest already and the data are others.
    """
    digest = data.load(settings.data).digest
    _check_digest(settings.data_digest or digest, digest, settings.data)
    return settings.model_copy(update={"data_digest": digest})


def _check_digest(asked: str, found: str, name: str) -> None:
    if asked != found:
        raise ValueError(f"data_digest must be that of {name}, {found}, got {asked or 'none'}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One stage of one training."""

    training: int
    stage: int


def experiment(device: str) -> Experiment[EvolutionSettings, Task]:
    """Return the experiment, computed on ``device``; its tasks are the stages of every training.

    A task is a pure function of the settings and its key: the training up to its stage is done again if need be. One
    training is kept under way between tasks, so that stages taken in order train each batch once.
    """
    where = models.check_device(device)
    trainings = _Trainings(where)

    def run_task(settings: EvolutionSettings, task: Task, seed: np.random.SeedSequence) -> Arrays:
        with threads.one_thread():
            network, images = trainings.at(settings, task)
            return _run_stage(settings, network, images, seed)

    return Experiment(
        name="evolution",
        version=1,
        tasks=lambda settings: {_key(task): task for task in _tasks(settings)},
        run_task=run_task,
        collect=_collect,
        summarise=_summarise,
    )


def _key(task: Task) -> str:
    return f"training={task.training} stage={task.stage}"


def _tasks(settings: EvolutionSettings) -> list[Task]:
    pairs = product(range(settings.n_trainings), stages(settings))
    return [Task(training=training, stage=stage) for training, stage in pairs]


def _stage_batches(settings: EvolutionSettings, images: Images) -> list[int]:
    per_stage = 1 if settings.unit == "batch" else train.batches_per_epoch(images, settings.batch_size)
    return [stage * per_stage for stage in stages(settings)]


class _Trainings:
    """The data, and one training under way; hands out copies of the network, one thread at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._images: Images | None = None
        self._owner: tuple[EvolutionSettings, int] | None = None
        self._done = -1

    def at(self, settings: EvolutionSettings, task: Task) -> tuple[nn.Module, Images]:
        """Return the network after the stage of the task, and the data."""
        with self._lock:
            images = self._load(settings)
            target = _stage_batches(settings, images)[stages(settings).index(task.stage)]
            if self._owner != (settings, task.training) or self._done > target:
                self._start(settings, task.training, images)
            while self._done < target:
                self._done = next(self._stops)
            return copy.deepcopy(self._network), images

    def _load(self, settings: EvolutionSettings) -> Images:
        if self._images is None or self._images.name != settings.data:
            self._images = data.load(settings.data)
        _check_digest(settings.data_digest, self._images.digest, settings.data)
        return self._images

    def _start(self, settings: EvolutionSettings, training: int, images: Images) -> None:
        seed = campaign.seed_sequence(settings.seed, f"training={training}")
        generator = models.generator_from(seed, 0)
        self._network = models.build(settings.network, generator=generator, device=self._device)
        self._stops: Iterator[int] = train.snapshots(
            self._network,
            images,
            stages=_stage_batches(settings, images),
            batch_size=settings.batch_size,
            learning_rate=settings.training_learning_rate,
            augment=settings.augment,
            generator=models.generator_from(seed, 1),
        )
        self._owner, self._done = (settings, training), -1


def _run_stage(settings: EvolutionSettings, network: nn.Module, images: Images, seed: np.random.SeedSequence) -> Arrays:
    device = models.device_of(network)
    shape = (len(settings.classes), settings.n_pairs, 2)
    # The generator of an input is named by its class, pair and end: it does not depend on the others.
    rows = list(product(settings.classes, range(settings.n_pairs), range(2)))
    starts = noise([models.generator_from(seed, *row) for row in rows], scale=settings.noise)
    targets = torch.tensor([label for label, _, _ in rows], device=device)
    found = optimise_inputs(
        network,
        starts.to(device),
        targets,
        threshold=settings.threshold,
        max_iterations=settings.max_iterations,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        high_frequency=torch.tensor([settings.high_frequency if end == 0 else 0.0 for _, _, end in rows]),
    )
    pairs = list(found.inputs.reshape(-1, 2, *models.IMAGE_SHAPE))  # A and C of each
    curves = loss_curves(network, pairs, targets[::2], n_points=settings.n_points)
    return {
        "loss": torch.stack([curve.loss for curve in curves]).reshape(*shape[:2], -1).numpy(),
        "barrier": np.array([curve.barrier for curve in curves]).reshape(shape[:2]),
        "barrier_alpha": np.array([curve.barrier_alpha for curve in curves]).reshape(shape[:2]),
        "gap": np.array([curve.gap for curve in curves]).reshape(shape[:2]),
        "converged": found.is_converged.cpu().numpy().reshape(shape),
        "iterations": found.iterations.cpu().numpy().reshape(shape),
        "end_loss": found.losses.cpu().numpy().reshape(shape),
        "test_accuracy": np.array(train.accuracy(network, images)),
    }


_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "loss": (("class", "pair", "point"), "nat", "cross-entropy on the straight segment from A to C"),
    "barrier": (("class", "pair"), "nat", "highest loss found on the segment"),
    "barrier_alpha": (("class", "pair"), "1", "position of the highest loss"),
    "gap": (("class", "pair"), "nat", "barrier less the higher loss of the two ends"),
    "converged": (("class", "pair", "end"), "1", "the end's loss reached the threshold"),
    "iterations": (("class", "pair", "end"), "1", "optimisation steps of the end"),
    "end_loss": (("class", "pair", "end"), "nat", "cross-entropy of the end, in float32"),
    "test_accuracy": ((), "1", "share of test images put in their class"),
}


def _collect(settings: EvolutionSettings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    tasks = _tasks(settings)
    shape = (settings.n_trainings, len(stages(settings)))

    def gathered(name: str) -> np.ndarray:
        values = np.stack([arrays[_key(task)][name] for task in tasks])
        return values.reshape(shape + values.shape[1:])

    dataset = xr.Dataset(
        {
            name: (("seed", "stage", *dims), gathered(name), {"units": units, "long_name": text})
            for name, (dims, units, text) in _VARIABLES.items()
        }
    )
    unit = "batches" if settings.unit == "batch" else "epochs"
    alpha = torch.linspace(0, 1, settings.n_points).numpy()
    return dataset.assign_coords(
        {
            "seed": ("seed", np.arange(settings.n_trainings), {"long_name": "training"}),
            "stage": (
                "stage",
                list(stages(settings)),
                {"units": unit, "long_name": f"{unit} trained on"},
            ),
            "class": ("class", list(settings.classes), {"long_name": "class of the pair"}),
            "end": ("end", ["A", "C"], {"long_name": "end of the segment"}),
            "alpha": ("point", alpha, {"units": "1", "long_name": "position on the segment, from A"}),
        }
    )


def _summarise(settings: EvolutionSettings, dataset: xr.Dataset) -> dict[str, Any]:
    rows = []
    for i, stage in enumerate(stages(settings)):
        one = dataset.isel(stage=i)
        barriers = one["barrier"].values.ravel()
        rows.append(
            {
                "stage": stage,
                "test_accuracy": float(one["test_accuracy"].mean()),
                "barrier_mean": float(barriers.mean()),
                "barrier_median": float(np.median(barriers)),
                "barrier_std": float(barriers.std()),
                "n_inputs": int(one["converged"].size),
                "n_converged": int(one["converged"].sum()),
                "iterations_median": float(one["iterations"].median()),
            }
        )
    return {
        "data": settings.data,
        "network": settings.network,
        "unit": settings.unit,
        "threshold": settings.threshold,
        "n_trainings": settings.n_trainings,
        "n_classes": len(settings.classes),
        "n_pairs": settings.n_pairs,
        "stages": rows,
    }
