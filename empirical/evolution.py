"""Connectivity over training (App. E.1, Figs. 9 and 10).

A network is trained from its initialisation; after chosen numbers of batches or epochs, pairs of class-optimal inputs
are found for every class, A with a penalty on high frequencies and C without, and the loss is taken on the straight
segment between them: the primary curve. Then, which the paper leaves open, the barrier is bypassed round by round until
the pair is connected: no loss found on its path is above delta.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import nn

from empirical import captured, checkpoints, data, models, train
from empirical.data import Images
from empirical.models import N_CLASSES, Network, Precision
from empirical.synthesis import noise
from empirical.untrained import UntrainedSettings, connect_pairs, has_low_ends, quartiles
from percolation import campaign
from percolation.campaign import Arrays, Experiment

_MOST_STAGES = 10**7  # batches or epochs


class EvolutionSettings(BaseModel):
    """Settings of the experiment; losses are cross-entropies in nats."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str = Field("digits", description="digits, cifar10, or an .npz file with x_train, y_train, x_test, y_test")
    data_digest: str = Field("", description="stands for the content of the data; filled in by the command")
    network: Network = Field("resnet18", description="the form of the network")
    unit: Literal["batch", "epoch"] = Field("batch", description="what a stage counts")
    batch_stages: tuple[int, ...] = Field(tuple(range(31)), description="stages if the unit is batch; 0 is untrained")
    epoch_stages: tuple[int, ...] = Field(tuple(range(31)), description="stages if the unit is epoch; 0 is untrained")
    n_trainings: int = Field(1, ge=1, le=10_000, description="independent trainings, each with its own first network")
    batch_size: int = Field(512, ge=2, le=65_536, description="images of a training batch")
    training_learning_rate: float = Field(1e-3, gt=0, le=1e3, description="of Adam, for the network")
    augment: bool = Field(True, description="mirror and shift the training images; not for digits")
    classes: tuple[int, ...] = Field(tuple(range(N_CLASSES)), description="classes of the pairs")
    n_pairs: int = Field(5, ge=1, le=10_000, description="pairs of each class at each stage")
    n_points: int = Field(200, ge=2, le=100_000, description="points of a loss curve")
    threshold: float = Field(0.005, gt=0, le=1e3, description="loss at which an optimised input is done")
    max_iterations: int = Field(4096, ge=0, le=10**9, description="steps after which an input is given up")
    learning_rate: float = Field(0.05, gt=0, le=1e3, description="of Adam, for the inputs")
    weight_decay: float = Field(1e-7, ge=0, le=1e3, description="of Adam, for the inputs")
    noise: float = Field(0.01, gt=0, le=1e3, description="standard deviation of the first input's pixels")
    high_frequency: float = Field(2.5e-7, ge=0, le=1e3, description="weight of the total variation of A")
    delta: float = Field(0.01, gt=0, le=1e3, description="loss above which a segment is bypassed")
    max_rounds: int = Field(3, ge=0, le=6, description="rounds of bypassing; 0 looks at the straight segment only")
    recalibrate: bool = Field(False, description="take the batch norms' statistics anew before each stage's synthesis")
    precision: Precision = Field("float32", description="of the steps of training and optimisation; losses are float32")
    seed: int = Field(0, ge=0, description="seed of the run")

    @field_validator("batch_stages", "epoch_stages", "classes")
    @classmethod
    def _rises(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or list(value) != sorted(set(value)) or value[0] < 0:
            raise ValueError("rise, from 0 or more")
        return value

    @field_validator("batch_stages", "epoch_stages")
    @classmethod
    def _ends(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[-1] > _MOST_STAGES:
            raise ValueError(f"be at most {_MOST_STAGES} each")
        return value

    @field_validator("classes")
    @classmethod
    def _has_outputs(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[-1] >= N_CLASSES:
            raise ValueError(f"be at most {N_CLASSES - 1} each")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.threshold < self.delta:
            raise ValueError(f"threshold must be below delta = {self.delta}, got {self.threshold}")
        if self.n_points < 2 ** (self.max_rounds + 1):
            least = f"2 for each of the 2^{self.max_rounds} segments of {self.max_rounds} rounds"
            raise ValueError(f"n_points must be at least {least}, got {self.n_points}")
        return self


PAPER = EvolutionSettings(data="cifar10", n_trainings=3, precision="bfloat16")
"""The paper's numbers: CIFAR-10, 30 batches or epochs, 5 pairs of each of 10 classes; three trainings for its one."""

CPU = EvolutionSettings(
    data="cifar10",
    batch_stages=(0, 1, 2, 3, 5, 8, 12, 20, 30),
    epoch_stages=(0, 1, 2, 3, 5, 8, 12, 20, 30),
    n_pairs=2,
    precision="bfloat16",
)
"""The paper's method in every number, at nine stages and with two pairs of a class; for two cores of a CPU."""

QUICK = EvolutionSettings(
    batch_stages=(0, 1, 4, 8, 16),
    epoch_stages=(0, 1, 2, 3),
    batch_size=64,
    augment=False,
    classes=(0, 1, 2),
    n_pairs=2,
    n_points=51,
    threshold=0.1,
    delta=0.2,
    max_rounds=2,
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
        If the settings have a digest already and the data are others, or the last batch would be one image.
    """
    images = data.load(settings.data)
    digest, n_images = images.digest, len(images.x_train)
    if n_images % settings.batch_size == 1 % settings.batch_size:
        raise ValueError(
            f"batch_size must not leave a last batch of one image, got {settings.batch_size} for {n_images} images"
        )
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

    A task is a pure function of the settings and its key. The training up to its stage goes on from the last checkpoint
    in the scratch folder of the run, and starts anew without one.
    """
    where = models.check_device(device)
    trainings = Trainings(where)

    def run_task(
        settings: EvolutionSettings, task: Task, seed: np.random.SeedSequence, scratch: Path | None = None
    ) -> Arrays:
        with captured.task_on(where):
            network = trainings.network(settings, task, scratch)
            return _run_stage(settings, network, trainings.images(settings), seed)

    return Experiment(
        name="evolution",
        version=2,
        tasks=lambda settings: {_key(task): task for task in _tasks(settings)},
        run_task=run_task,
        collect=_collect,
        summarise=_summarise,
        has_scratch=True,
    )


def _key(task: Task) -> str:
    return f"training={task.training} stage={task.stage}"


def _tasks(settings: EvolutionSettings) -> list[Task]:
    """Return the tasks, the trainings of a stage in turn, so that workers train side by side."""
    return [
        Task(training=training, stage=stage) for stage in stages(settings) for training in range(settings.n_trainings)
    ]


class Trainings:
    """The networks of trainings on one device; those who ask for one training wait for each other."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._reading = threading.Lock()
        self._images: Images | None = None
        self._locks: dict[int, threading.Lock] = {}

    def images(self, settings: EvolutionSettings) -> Images:
        """Return the data of the settings; others than their digest stands for are refused by a ``ValueError``."""
        with self._reading:
            if self._images is None or self._images.name != settings.data:
                self._images = data.load(settings.data)
            _check_digest(settings.data_digest, self._images.digest, settings.data)
            return self._images

    def network(self, settings: EvolutionSettings, task: Task, scratch: Path | None = None) -> nn.Module:
        """Return the network after the stage of the task, from the last checkpoint in ``scratch`` on, if any."""
        images = self.images(settings)
        with self._locks.setdefault(task.training, threading.Lock()):
            return _trained(settings, task, images, self.device, scratch)


def _trained(
    settings: EvolutionSettings, task: Task, images: Images, device: torch.device, scratch: Path | None
) -> nn.Module:
    per_epoch = train.batches_per_epoch(images, settings.batch_size)
    per_stage = 1 if settings.unit == "batch" else per_epoch
    until = task.stage * per_stage
    first, batches = (
        campaign.seed_sequence(settings.seed, f"training={task.training} {what}") for what in ("network", "batches")
    )
    network = models.build(settings.network, generator=models.generator_from(first), device=device)
    training = train.start(network, learning_rate=settings.training_learning_rate)
    checkpoints.bring(
        training,
        lambda stop: train.advance(
            training,
            images,
            until=stop,
            batch_size=settings.batch_size,
            augment=settings.augment,
            precision=settings.precision,
            seed=batches,
        ),
        until=until,
        stops={*(stage * per_stage for stage in stages(settings)), *range(0, until, per_epoch)},
        folder=scratch,
        name=f"training={task.training}",
    )
    if settings.recalibrate:
        train.recalibrate(network, images, batch_size=settings.batch_size, seed=batches)
    return network


def _run_stage(settings: EvolutionSettings, network: nn.Module, images: Images, seed: np.random.SeedSequence) -> Arrays:
    device = models.device_of(network)
    shape = (len(settings.classes), settings.n_pairs, 2)
    # The generator of an input is named by its class, pair and end: it does not depend on the others.
    rows = list(product(settings.classes, range(settings.n_pairs), range(2)))
    starts = noise([models.generator_from(seed, *row) for row in rows], scale=settings.noise)
    targets = torch.tensor([label for label, _, _ in rows])
    how = UntrainedSettings(
        n_points=settings.n_points,
        threshold=settings.threshold,
        delta=settings.delta,
        max_iterations=settings.max_iterations,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        high_frequency=settings.high_frequency,
        max_rounds=settings.max_rounds,
        bypass_iterations=settings.max_iterations,
        bypass_learning_rate=settings.learning_rate,
        precision=settings.precision,
    )
    found, connections = connect_pairs(how, network, starts.to(device), targets.to(device))
    primary = [connection.curves[0] for connection in connections]
    loss = torch.stack([curve.loss for curve in primary]).numpy()
    # A pair that needs no further round keeps the barrier that it has.
    barriers = [
        [connection.curves[min(k, len(connection.curves) - 1)].barrier for k in range(settings.max_rounds + 1)]
        for connection in connections
    ]
    return {
        "loss_mean": loss.mean(axis=0),
        "loss_std": loss.std(axis=0),
        "loss_quartiles": np.quantile(loss, _QUARTILES, axis=0).astype(np.float32),
        "barrier": np.array(barriers, dtype=np.float32).reshape(*shape[:2], -1),
        "barrier_alpha": np.array([curve.barrier_alpha for curve in primary], dtype=np.float32).reshape(shape[:2]),
        "gap": np.array([curve.gap for curve in primary], dtype=np.float32).reshape(shape[:2]),
        "converged": found.is_converged.cpu().numpy().reshape(shape),
        "iterations": found.iterations.to(torch.int32).cpu().numpy().reshape(shape),
        "end_loss": found.losses.cpu().numpy().reshape(shape),
        "bypass_gradients": np.array([connection.n_gradients for connection in connections]).reshape(shape[:2]),
        "test_accuracy": np.array(train.accuracy(network, images)),
    }


_QUARTILES = (0.25, 0.5, 0.75)
_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "loss_mean": (("point",), "nat", "cross-entropy on the straight segment from A to C, mean over classes and pairs"),
    "loss_std": (("point",), "nat", "standard deviation of this loss over classes and pairs"),
    "loss_quartiles": (("quartile", "point"), "nat", "quartiles of this loss over classes and pairs"),
    "barrier": (("class", "pair", "round"), "nat", "highest loss found on the path after so many rounds of bypassing"),
    "barrier_alpha": (("class", "pair"), "1", "position of the highest loss on the straight segment"),
    "gap": (("class", "pair"), "nat", "barrier of the straight segment less the higher loss of its two ends"),
    "converged": (("class", "pair", "end"), "1", "the end's loss reached the threshold"),
    "iterations": (("class", "pair", "end"), "1", "optimisation steps of the end"),
    "end_loss": (("class", "pair", "end"), "nat", "cross-entropy of the end, in float32"),
    "bypass_gradients": (("class", "pair"), "1", "optimisation steps of all bypass points of the pair"),
    "test_accuracy": ((), "1", "share of test images put in their class"),
}


def _collect(settings: EvolutionSettings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    tasks = _tasks(settings)
    shape = (len(stages(settings)), settings.n_trainings)

    def gathered(name: str) -> np.ndarray:
        values = np.stack([arrays[_key(task)][name] for task in tasks])
        return np.swapaxes(values.reshape(shape + values.shape[1:]), 0, 1)

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
            "round": ("round", np.arange(settings.max_rounds + 1), {"long_name": "rounds of bypassing"}),
            "quartile": ("quartile", list(_QUARTILES), {"long_name": "share of the losses below"}),
            "alpha": ("point", alpha, {"units": "1", "long_name": "position on the segment, from A"}),
        }
    )


def _summarise(settings: EvolutionSettings, dataset: xr.Dataset) -> dict[str, Any]:
    rows = []
    for i, stage in enumerate(stages(settings)):
        one = dataset.isel(stage=i)
        is_low = has_low_ends(one["end_loss"], settings.delta)
        everywhere = one["barrier"].isel(round=0).astype(np.float64)
        primary = everywhere.where(is_low)
        rows.append(
            {
                "stage": stage,
                "test_accuracy": float(one["test_accuracy"].mean()),
                "n_pairs_of_stage": int(is_low.size),
                "n_pairs_low_ends": int(is_low.sum()),
                "barrier_mean": float(primary.mean()),
                "barrier_std": float(primary.std()),
                "barrier_quartiles": quartiles(primary.to_numpy()),
                "barrier_mean_of_trainings": primary.mean(("class", "pair")).values.tolist(),
                "n_connected_by_round": (connected(one) & is_low).sum(("seed", "class", "pair")).values.tolist(),
                "barrier_mean_all": float(everywhere.mean()),
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
        "delta": settings.delta,
        "n_trainings": settings.n_trainings,
        "n_classes": len(settings.classes),
        "n_pairs": settings.n_pairs,
        "stages": rows,
    }


def connected(dataset: xr.Dataset) -> xr.DataArray:
    """Return whether no loss found on the path of a pair is above delta, after each number of rounds."""
    settings = EvolutionSettings.model_validate_json(dataset.attrs["settings"])
    return dataset["barrier"] <= settings.delta
