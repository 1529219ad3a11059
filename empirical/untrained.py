"""Connectivity of untrained networks (App. B.5, Fig. 6).

For each pair: an untrained network, two inputs of one class found by optimisation, A with a penalty on high frequencies
and C without, the loss on the straight segment between them (the primary curve), and on the paths that bypass its
barriers, round after round (secondary, tertiary), until the whole path is below delta.

The bypass has no penalties here, as in the authors' code for untrained networks. Those of App. B (0.1 mean squared
distance) are made for natural images: an untrained network's optimal inputs are some 250 times their first noise, a
bypass point moves by about 0.6 a pixel, and the penalty then holds its loss above 0.009 (measured), far above delta.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from empirical import models
from empirical.connect import Connection, connect
from empirical.models import N_CLASSES, Network
from empirical.synthesis import Optimised, noise, optimise_inputs
from lipschitz import threads
from percolation.campaign import Arrays, Experiment

ENDS = ("A", "C")
IMAGES = ("A", "B", "B'", "C")


class UntrainedSettings(BaseModel):
    """Settings of the experiment; losses are cross-entropies in nats."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Network = Field("resnet18", description="the form of the network")
    n_pairs: int = Field(1, ge=1, description="pairs, each with its own network; pair k has class k mod 10")
    n_points: int = Field(200, ge=2, description="points of a loss curve")
    threshold: float = Field(0.0005, gt=0, description="loss at which an optimised input is done")
    delta: float = Field(0.001, gt=0, description="a path is connected if its loss is nowhere above this")
    max_iterations: int = Field(4096, ge=0, description="steps after which an end of a pair is given up")
    learning_rate: float = Field(0.05, gt=0, description="of Adam, for the ends")
    weight_decay: float = Field(1e-7, ge=0, description="of Adam, for the ends")
    noise: float = Field(0.01, gt=0, description="standard deviation of the first input's pixels")
    high_frequency: float = Field(2.5e-7, ge=0, description="weight of the total variation of A")
    max_rounds: int = Field(4, ge=0, le=8, description="rounds of bypassing after which a pair is given up")
    bypass_iterations: int = Field(1024, ge=0, description="steps after which a bypass point is given up")
    bypass_learning_rate: float = Field(0.05, gt=0, description="of Adam, for the bypass points")
    mse: float = Field(0.0, ge=0, description="weight of the mean squared distance of B' from B")
    bypass_high_frequency: float = Field(0.0, ge=0, description="weight of the total variation of B' - B")
    seed: int = Field(0, ge=0, description="seed of the run")

    @model_validator(mode="after")
    def _check(self) -> UntrainedSettings:
        if not self.threshold < self.delta:
            raise ValueError(f"threshold must be below delta = {self.delta}, got {self.threshold}")
        if self.n_points < 2 * 2**self.max_rounds:
            least = 2 * 2**self.max_rounds
            raise ValueError(f"n_points must be at least {least}, 2 for each possible segment, got {self.n_points}")
        return self


PAPER = UntrainedSettings(n_pairs=10)
"""The paper's numbers, for ten pairs instead of one."""

QUICK = UntrainedSettings(n_pairs=2, threshold=0.005, delta=0.01)
"""Two pairs; thresholds ten times the paper's, with which the ends converge in a quarter of the steps."""


def experiment(device: str) -> Experiment[UntrainedSettings, int]:
    """Return the experiment, computed on ``device``; its tasks are the pairs."""
    where = models.check_device(device)

    def run_task(settings: UntrainedSettings, pair: int, seed: np.random.SeedSequence) -> Arrays:
        with threads.one_thread():
            return _run_pair(settings, pair, seed, where)

    return Experiment(
        name="untrained",
        version=1,
        tasks=lambda settings: {f"pair={pair}": pair for pair in range(settings.n_pairs)},
        run_task=run_task,
        collect=_collect,
        summarise=_summarise,
    )


def connect_pair(
    settings: UntrainedSettings, pair: int, seed: np.random.SeedSequence, device: torch.device
) -> tuple[nn.Module, Optimised, Connection]:
    """Return the network of a pair, its two ends, A and C, and how they were connected."""
    network = models.build(settings.network, generator=models.generator_from(seed, 0), device=device)
    starts = noise([models.generator_from(seed, 1), models.generator_from(seed, 2)], scale=settings.noise)
    target = torch.tensor([class_of(pair)], device=device)
    ends = optimise_inputs(
        network,
        starts.to(device),
        target.expand(2),
        threshold=settings.threshold,
        max_iterations=settings.max_iterations,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        high_frequency=torch.tensor([settings.high_frequency, 0.0]),
    )
    (found,) = connect(
        network,
        ends.inputs[:1],
        ends.inputs[1:],
        target,
        delta=settings.delta,
        threshold=settings.threshold,
        max_rounds=settings.max_rounds,
        max_iterations=settings.bypass_iterations,
        learning_rate=settings.bypass_learning_rate,
        mse=settings.mse,
        high_frequency=settings.bypass_high_frequency,
        n_points=settings.n_points,
    )
    return network, ends, found


def class_of(pair: int) -> int:
    """Return the class of a pair; the pairs go through all classes."""
    return pair % N_CLASSES


def _run_pair(settings: UntrainedSettings, pair: int, seed: np.random.SeedSequence, device: torch.device) -> Arrays:
    _, ends, found = connect_pair(settings, pair, seed, device)
    a, c = ends.inputs
    primary = found.curves[0]
    b = a + primary.barrier_alpha * (c - a)
    bypass = found.paths[1][1] if len(found.paths) > 1 else torch.full_like(a, torch.nan)

    n_rounds, n_stops = settings.max_rounds + 1, 2**settings.max_rounds + 1
    curves = {name: np.full((n_rounds, settings.n_points), np.nan, np.float32) for name in ("alpha", "loss")}
    stop_alpha = np.full((n_rounds, n_stops), np.nan, np.float32)
    numbers = {name: np.full(n_rounds, np.nan) for name in ("barrier", "barrier_alpha", "gap", "length_ratio")}
    n_segments = np.zeros(n_rounds, np.int64)
    for i, curve in enumerate(found.curves):
        curves["alpha"][i], curves["loss"][i] = curve.alpha.numpy(), curve.loss.numpy()
        n_segments[i] = len(curve.stop_alpha) - 1
        stop_alpha[i, : n_segments[i] + 1] = curve.stop_alpha.numpy()
        for name, values in numbers.items():
            values[i] = getattr(curve, name)
    barriers = numbers["barrier"]
    return {
        **curves,
        **numbers,
        "stop_alpha": stop_alpha,
        "n_segments": n_segments,
        # Rounds that were not needed, or could not help, leave things as they were.
        "is_connected": np.logical_or.accumulate(barriers <= settings.delta),
        "converged": ends.is_converged.cpu().numpy(),
        "iterations": ends.iterations.cpu().numpy(),
        "end_loss": ends.losses.cpu().numpy(),
        "n_bypasses": np.array(found.n_bypasses),
        "n_bypasses_converged": np.array(found.n_converged),
        "n_gradients": np.array(found.n_gradients + int(ends.iterations.sum())),
        "images": torch.stack([a, b, bypass, c]).cpu().numpy(),
    }


_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "alpha": (("round", "point"), "1", "position along the path: share of its length, from A"),
    "loss": (("round", "point"), "nat", "cross-entropy along the path; nan where a round did not happen"),
    "stop_alpha": (("round", "stop"), "1", "position of the stops of the path"),
    "n_segments": (("round",), "1", "segments of the path; 0 where a round did not happen"),
    "barrier": (("round",), "nat", "highest loss found on the path"),
    "barrier_alpha": (("round",), "1", "position of the highest loss"),
    "gap": (("round",), "nat", "barrier less the higher loss of the two ends"),
    "length_ratio": (("round",), "1", "length of the path over the distance of its ends"),
    "is_connected": (("round",), "1", "no loss found above delta after at most this many rounds"),
    "converged": (("end",), "1", "the end's loss reached the threshold"),
    "iterations": (("end",), "1", "optimisation steps of the end"),
    "end_loss": (("end",), "nat", "cross-entropy of the end, in float32"),
    "n_bypasses": ((), "1", "bypass points optimised"),
    "n_bypasses_converged": ((), "1", "bypass points whose loss reached the threshold"),
    "n_gradients": ((), "1", "gradients of one input evaluated, ends and bypass points"),
    "images": (("image", "channel", "row", "column"), "1", "inputs in normalised pixel space; B' is nan if not needed"),
}


def _collect(settings: UntrainedSettings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
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
            "end": ("end", list(ENDS), {"long_name": "end of the path"}),
            "image": ("image", list(IMAGES), {"long_name": "input"}),
            "class": ("pair", classes, {"long_name": "class of the pair"}),
        }
    )


def _summarise(settings: UntrainedSettings, dataset: xr.Dataset) -> dict[str, Any]:
    rounds = []
    for i in range(settings.max_rounds + 1):
        barriers = dataset["barrier"].values[:, i]
        barriers = barriers[np.isfinite(barriers)]
        if not len(barriers):
            break
        rounds.append(
            {
                "round": i,
                "n_pairs": len(barriers),
                "barrier_median": float(np.median(barriers)),
                "barrier_min": float(barriers.min()),
                "barrier_max": float(barriers.max()),
                "connected": int(dataset["is_connected"].values[:, i].sum()),
            }
        )
    pairs = [
        {
            "pair": k,
            "class": int(one["class"]),
            "converged": one["converged"].values.astype(bool).tolist(),
            "iterations": one["iterations"].values.tolist(),
            "end_loss": one["end_loss"].values.tolist(),
            "barriers": [float(value) for value in one["barrier"].values if np.isfinite(value)],
            "n_segments": int(one["n_segments"].max()),
            "length_ratio": float(one["length_ratio"].values[np.isfinite(one["barrier"].values)][-1]),
            "is_connected": bool(one["is_connected"][-1]),
            "n_bypasses": int(one["n_bypasses"]),
            "n_bypasses_converged": int(one["n_bypasses_converged"]),
            "n_gradients": int(one["n_gradients"]),
        }
        for k, one in ((k, dataset.isel(pair=k)) for k in range(settings.n_pairs))
    ]
    return {
        "network": settings.network,
        "threshold": settings.threshold,
        "delta": settings.delta,
        "n_pairs": settings.n_pairs,
        "n_connected": sum(pair["is_connected"] for pair in pairs),
        "rounds": rounds,
        "pairs": pairs,
    }
