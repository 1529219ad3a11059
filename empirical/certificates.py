"""How much a sampled path hides: certified maxima of the loss along the paths of untrained and of trained networks.

The pairs are connected as in :mod:`empirical.untrained`, the networks trained as in :mod:`empirical.evolution`. Then
every segment of every path, of the straight one and of those that bypass its barriers, is followed piece by piece
(:mod:`lipschitz.segment`): its largest loss is enclosed, on all of its points, and set beside the largest of n equally
spread samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field
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
    that of pair k is its training k.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: Network = Field("resnet18", description="the form of the network")
    n_epochs: int = Field(0, ge=0, description="epochs that the networks are trained for; 0 leaves them untrained")
    data: str = Field("digits", description="what they are trained on: as for evolution")
    data_digest: str = Field("", description="stands for the content of the data; filled in by the command")
    n_pairs: int = Field(1, ge=1, description="pairs, each with its own network; pair k has class k mod 10")
    threshold: float = Field(0.0005, gt=0, description="loss at which an optimised input is done")
    delta: float = Field(0.001, gt=0, description="a path is connected if its loss is nowhere above this")
    max_rounds: int = Field(1, ge=0, le=4, description="rounds of bypassing")
    max_iterations: int = Field(8192, ge=0, description="steps after which an optimised input is given up")
    piece_budget: int = Field(1_000_000, ge=1, description="linear pieces after which a segment is given up")
    seed: int = Field(0, ge=0, description="seed of the run")


def experiment(device: str) -> Experiment[Settings, int]:
    """Return the experiment, computed on ``device``; its tasks are the pairs."""
    where = models.check_device(device)

    def run_task(settings: Settings, pair: int, seed: np.random.SeedSequence) -> Arrays:
        with captured.task_on(where):
            return _run_pair(settings, pair, seed, where)

    return Experiment(
        name="certificates",
        version=2,
        tasks=lambda settings: {f"pair={pair}": pair for pair in range(settings.n_pairs)},
        run_task=run_task,
        collect=_collect,
        summarise=_summarise,
    )


def with_digest(settings: Settings) -> Settings:
    """Return the settings with the digest of the data, if networks are trained; raises as ``evolution`` does."""
    if settings.n_epochs == 0:
        return settings
    return settings.model_copy(update={"data_digest": evolution.with_digest(_training(settings)).data_digest})


def _training(settings: Settings) -> evolution.EvolutionSettings:
    how = evolution.QUICK if settings.data == "digits" else evolution.PAPER
    chosen = {name: getattr(settings, name) for name in ("data", "data_digest", "network", "seed")}
    return how.model_copy(update=chosen | {"unit": "epoch", "epoch_stages": (settings.n_epochs,)})


def _network(
    settings: Settings, how: untrained.UntrainedSettings, pair: int, seed: np.random.SeedSequence, device: torch.device
) -> nn.Module:
    if settings.n_epochs == 0:
        return untrained.build(how, seed, device)
    training, task = _training(settings), evolution.Task(training=pair, stage=settings.n_epochs)
    return evolution.trained(training, task, evolution.Data()(training), device)


def connect_pair(
    settings: Settings, pair: int, seed: np.random.SeedSequence, device: torch.device
) -> tuple[nn.Module, Connection]:
    """Return the network of a pair, and how the pair was connected."""
    how = untrained.UntrainedSettings(
        network=settings.network,
        threshold=settings.threshold,
        delta=settings.delta,
        max_rounds=settings.max_rounds,
        max_iterations=settings.max_iterations,
        bypass_iterations=settings.max_iterations,
    )
    network = _network(settings, how, pair, seed, device)
    starts = noise([models.generator_from(seed, 1), models.generator_from(seed, 2)], scale=how.noise)
    targets = torch.full((2,), class_of(pair), device=device)
    _, (found,) = untrained.connect_pairs(how, network, starts.to(device), targets)
    return network, found


def class_of(pair: int) -> int:
    """Return the class of a pair; the pairs go through all classes."""
    return pair % models.N_CLASSES


def _run_pair(settings: Settings, pair: int, seed: np.random.SeedSequence, device: torch.device) -> Arrays:
    network, found = connect_pair(settings, pair, seed, device)
    target = class_of(pair)
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
    pairs = [arrays[f"pair={pair}"] for pair in range(settings.n_pairs)]
    dataset = xr.Dataset(
        {
            name: (("pair", *dims), np.stack([found[name] for found in pairs]), {"units": units, "long_name": text})
            for name, (dims, units, text) in _VARIABLES.items()
        }
    )
    classes = [class_of(pair) for pair in range(settings.n_pairs)]
    return dataset.assign_coords(
        {
            "round": ("round", np.arange(settings.max_rounds + 1), {"long_name": "rounds of bypassing; 0 is primary"}),
            "n_samples": ("n_samples", list(N_SAMPLES), {"long_name": "samples on the segment, ends included"}),
            "class": ("pair", classes, {"long_name": "class of the pair"}),
        }
    )


def _summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    rows = []
    for pair in range(settings.n_pairs):
        for i in range(settings.max_rounds + 1):
            here = dataset.isel(pair=pair, round=i)
            if not bool(here["loss"].notnull().any()):
                continue
            rows.append(
                {
                    "pair": pair,
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
