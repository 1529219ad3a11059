"""Connectivity of untrained networks (App. B.5, Fig. 6).

For each pair: an untrained network, two inputs of one class found by optimisation, A with a penalty on high frequencies
and C without, the loss on the straight segment between them (the primary curve), and on the paths that bypass its
barriers, round after round (secondary, tertiary), until the whole path is below delta. All pairs of a network share its
batches.

The bypass has no penalties, except in the preset ``paper``. Those of App. B (0.1 mean squared distance) are made for
natural images: an untrained network's optimal inputs are some 250 times their first noise, a bypass point moves by
about 0.6 a pixel, and the penalty then holds its loss above 0.009 (measured), far above delta.

Why A is slow to reach the paper's threshold, or never does: an input at rest is at rest along itself, so that

    high_frequency TV(x) + weight_decay |x|^2 = -x . grad CE(x).

An untrained network is positively homogeneous, but for its last bias; the right side is then the sum over the other
classes of their probability times their margin, at most about loss ln(9 / loss). With the paper's weights the left side
is 0.003 + 0.002 for inputs of standard deviation 2.5, where the loss rests at 0.0005 to 0.0006: the threshold lies at
the floor. Without the penalty, C, the floor is at 0.0001.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from scipy import stats
from torch import nn

from empirical import captured, models
from empirical.connect import Connection, connect
from empirical.models import N_CLASSES, Network, Precision
from empirical.synthesis import Optimised, noise, optimise_inputs
from lipschitz import segment, stages
from percolation.campaign import Arrays, Experiment
from percolation.growth import Z_95, wilson_interval

A = TypeVar("A", xr.DataArray, np.ndarray)
Bypass = Literal["step", "gradient", "free"]
ENDS = ("A", "C")
IMAGES = ("A", "B", "B'", "C")
_MOST_NUMBERS = 10**9  # of the points of a curve, 4 bytes each


class UntrainedSettings(BaseModel):
    """Settings of the experiment; losses are cross-entropies in nats."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: Network = Field("resnet18", description="the form of the network")
    width: int = Field(64, ge=1, le=512, description="channels of a ResNet's first stage")
    blocks: int = Field(2, ge=1, le=64, description="basic blocks in each of a ResNet's four stages")
    gain: float = Field(
        1.0, ge=1e-3, le=1e3, description="factor on the standard deviation of the convolutions' weights"
    )
    image_size: int = Field(
        32, ge=8, le=512, description="pixels on a side of an input; its dimension is 3 times the square"
    )
    logits_as_at: int | None = Field(
        None,
        ge=8,
        le=512,
        description="scale the last layer so that logits spread over unit noise as they do at so many pixels a side",
    )
    n_networks: int = Field(1, ge=1, le=10_000, description="networks, each with its own seed")
    classes: tuple[int, ...] = Field(tuple(range(N_CLASSES)), description="classes of the pairs")
    n_pairs: int = Field(1, ge=1, le=10_000, description="pairs of each class for each network")
    n_points: int = Field(200, ge=2, le=100_000, description="points of a loss curve")
    threshold: float = Field(0.0005, gt=0, le=1e3, description="loss at which an optimised input is done")
    delta: float = Field(0.001, gt=0, le=1e3, description="a path is connected if its loss is nowhere above this")
    max_iterations: int = Field(4096, ge=0, le=10**9, description="steps after which an end of a pair is given up")
    learning_rate: float = Field(0.05, gt=0, le=1e3, description="of Adam, for the ends")
    weight_decay: float = Field(1e-7, ge=0, le=1e3, description="of Adam, for the ends")
    noise: float = Field(0.01, gt=0, le=1e3, description="standard deviation of the first input's pixels")
    high_frequency: float = Field(2.5e-7, ge=0, le=1e3, description="weight of the total variation of A")
    max_rounds: int = Field(4, ge=0, le=8, description="rounds of bypassing after which a pair is given up")
    bypass: Bypass = Field("step", description="what is projected off AC, if anything")
    bypass_iterations: int = Field(1024, ge=0, le=10**9, description="steps after which a bypass point is given up")
    bypass_learning_rate: float = Field(0.05, gt=0, le=1e3, description="of Adam, for the bypass points")
    mse: float = Field(0.0, ge=0, le=1e3, description="weight of the mean squared distance of B' from B")
    bypass_high_frequency: float = Field(0.0, ge=0, le=1e3, description="weight of the total variation of B' - B")
    precision: Precision = Field("float32", description="of the gradients; reported losses are float32")
    certify: bool = Field(False, description="enclose the largest loss on every path of the first network's first pair")
    seed: int = Field(0, ge=0, description="seed of the run")

    @field_validator("classes")
    @classmethod
    def _rises(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or list(value) != sorted(set(value)) or not 0 <= value[0] <= value[-1] < N_CLASSES:
            raise ValueError(f"rise, from 0 to {N_CLASSES - 1}")
        return value

    @model_validator(mode="after")
    def _check(self) -> UntrainedSettings:
        n_numbers = self.n_points * 3 * self.image_size**2
        if n_numbers > _MOST_NUMBERS:
            raise ValueError(f"n_points must make paths of at most {_MOST_NUMBERS} pixels, got {n_numbers}")
        if not self.threshold < self.delta:
            raise ValueError(f"threshold must be below delta = {self.delta}, got {self.threshold}")
        if self.n_points < 2 * 2**self.max_rounds:
            least = 2 * 2**self.max_rounds
            raise ValueError(f"n_points must be at least {least}, 2 for each possible segment, got {self.n_points}")
        if self.network == "convnet" and (self.width, self.blocks, self.image_size) != (64, 2, 32):
            raise ValueError("width, blocks and image_size must be left at 64, 2 and 32 for a convnet")
        if self.network == "convnet" and self.logits_as_at is not None:
            raise ValueError("logits_as_at must be left out for a convnet, whose images are all of one size")
        return self


PAPER = UntrainedSettings(classes=(0,), bypass_learning_rate=0.005, mse=0.1, bypass_high_frequency=1e-7)
"""The paper's numbers as written: one pair, the bypass of App. B, whose penalty on distance stops it (see above)."""

OFFICIAL = UntrainedSettings(classes=(0,), max_iterations=8192, bypass="free")
"""One pair as the authors' code does it: twice the iterations, and a bypass without penalties or hyperplane."""

QUICK = UntrainedSettings(classes=(0, 1), threshold=0.005, delta=0.01)
"""Two pairs; thresholds ten times the paper's, with which the ends converge in a quarter of the steps."""

FULL = UntrainedSettings(n_networks=20, n_pairs=5, max_iterations=8192, precision="bfloat16", certify=True)
"""A thousand pairs: 20 networks, 10 classes, 5 pairs; the authors' iterations, the bypass kept in its hyperplane."""


def experiment(device: str) -> Experiment[UntrainedSettings, int]:
    """Return the experiment, computed on ``device``; its tasks are the networks."""
    where = models.check_device(device)

    def run_task(settings: UntrainedSettings, network: int, seed: np.random.SeedSequence) -> Arrays:
        with captured.task_on(where):
            return run_network(settings, seed, where, certify=settings.certify and network == 0)

    return Experiment(
        name="untrained",
        version=2,
        tasks=lambda settings: {f"network={network}": network for network in range(settings.n_networks)},
        run_task=run_task,
        collect=_collect,
        summarise=_summarise,
    )


def build(settings: UntrainedSettings, seed: np.random.SeedSequence, device: torch.device) -> nn.Module:
    """Return the network of a seed: the same weights for images of any size, but for the factor on the last layer."""
    network = models.build(
        settings.network,
        generator=models.generator_from(seed, 0),
        width=settings.width,
        blocks=settings.blocks,
        gain=settings.gain,
        device=device,
    )
    if settings.logits_as_at not in (None, settings.image_size):
        here, there = (
            models.logit_spread(network, size, models.generator_from(seed, 2))
            for size in (settings.image_size, settings.logits_as_at)
        )
        with torch.no_grad():
            network.get_parameter("fc.weight").mul_(there / here)
    return network


def connect_pairs(
    settings: UntrainedSettings, network: nn.Module, starts: torch.Tensor, targets: torch.Tensor
) -> tuple[Optimised, list[Connection]]:
    """Return the ends of pairs and how they were connected.

    ``starts``, (2 n, 3, h, w), are the first inputs: of A and C of the first pair, of the second, and so on;
    ``targets``, (2 n,), their classes.
    """
    ends = optimise_inputs(
        network,
        starts,
        targets,
        threshold=settings.threshold,
        max_iterations=settings.max_iterations,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        high_frequency=torch.tensor([settings.high_frequency, 0.0]).repeat(len(starts) // 2),
        precision=settings.precision,
    )
    found = connect(
        network,
        ends.inputs[::2],
        ends.inputs[1::2],
        targets[::2],
        delta=settings.delta,
        threshold=settings.threshold,
        max_rounds=settings.max_rounds,
        max_iterations=settings.bypass_iterations,
        learning_rate=settings.bypass_learning_rate,
        mse=settings.mse,
        high_frequency=settings.bypass_high_frequency,
        projection=None if settings.bypass == "free" else settings.bypass,
        n_points=settings.n_points,
        precision=settings.precision,
    )
    return ends, found


def run_network(
    settings: UntrainedSettings, seed: np.random.SeedSequence, device: torch.device, *, certify: bool = False
) -> Arrays:
    """Return what is kept of one network: numbers for every pair, curves and images of its first pair.

    The pairs go through the classes, ``n_pairs`` of each. A start depends on its own class, number and end alone.
    """
    network = build(settings, seed, device)
    rows = list(product(settings.classes, range(settings.n_pairs), range(2)))
    image = (3, settings.image_size, settings.image_size)
    starts = noise([models.generator_from(seed, 1, *row) for row in rows], scale=settings.noise, shape=image)
    targets = torch.tensor([label for label, _, _ in rows])
    ends, found = connect_pairs(settings, network, starts.to(device), targets.to(device))
    n_rounds, n_segments = settings.max_rounds + 1, 2**settings.max_rounds
    each = [_numbers(one, n_rounds, n_segments) for one in found]
    arrays = {name: np.stack([numbers[name] for numbers in each]) for name in each[0]}
    arrays |= {
        # Rounds that were not needed, or could not help, leave things as they were.
        "is_connected": np.logical_or.accumulate(arrays["barrier"] <= settings.delta, axis=1),
        "converged": ends.is_converged.cpu().numpy().reshape(-1, 2),
        "iterations": ends.iterations.cpu().numpy().reshape(-1, 2),
        "end_loss": ends.losses.cpu().numpy().reshape(-1, 2),
    }
    shape = (len(settings.classes), settings.n_pairs)
    arrays = {name: values.reshape(*shape, *values.shape[1:]) for name, values in arrays.items()}
    arrays |= _drawn(settings, ends.inputs[:2], found[0])
    return arrays | _certified(network if certify else None, found[0], settings)


_OF_ROUNDS = ("barrier", "barrier_alpha", "gap", "mean", "length_ratio", "deviation")


def _numbers(found: Connection, n_rounds: int, n_segments: int) -> Arrays:
    numbers: Arrays = {name: np.full(n_rounds, np.nan, np.float32) for name in _OF_ROUNDS}
    numbers["segment_loss"] = np.full((n_rounds, n_segments), np.nan, np.float32)
    numbers["segment_parent"] = np.full((n_rounds, n_segments), -1, np.int16)
    for i, (curve, parents) in enumerate(zip(found.curves, found.parents, strict=True)):
        for name in _OF_ROUNDS:
            numbers[name][i] = getattr(curve, name)
        numbers["segment_loss"][i, : len(parents)] = curve.peak_loss.numpy()
        numbers["segment_parent"][i, : len(parents)] = parents
    for name in ("n_bypasses", "n_converged", "n_gradients", "n_evaluations"):
        numbers[name] = np.array(getattr(found, name))
    return numbers


def _drawn(settings: UntrainedSettings, ends: torch.Tensor, found: Connection) -> Arrays:
    n_rounds, n_stops = settings.max_rounds + 1, 2**settings.max_rounds + 1
    arrays: Arrays = {
        name: np.full((n_rounds, settings.n_points), np.nan, np.float32) for name in ("drawn_alpha", "drawn_loss")
    }
    arrays["drawn_stop_alpha"] = np.full((n_rounds, n_stops), np.nan, np.float32)
    for i, curve in enumerate(found.curves):
        arrays["drawn_alpha"][i], arrays["drawn_loss"][i] = curve.alpha.numpy(), curve.loss.numpy()
        arrays["drawn_stop_alpha"][i, : len(curve.stop_alpha)] = curve.stop_alpha.numpy()
    a, c = ends
    b = a + found.curves[0].barrier_alpha * (c - a)
    bypass = found.paths[1][1] if len(found.paths) > 1 else torch.full_like(a, torch.nan)
    arrays["images"] = torch.stack([a, b, bypass, c]).cpu().numpy()
    return arrays


def _certified(network: nn.Module | None, found: Connection, settings: UntrainedSettings) -> Arrays:
    """Enclose the largest loss on each segment of the first pair's paths; nan without a network."""
    n_rounds, n_segments = settings.max_rounds + 1, 2**settings.max_rounds
    arrays: Arrays = {name: np.full((n_rounds, n_segments), np.nan) for name in _CERTIFIED}
    if network is None:
        return arrays
    device = models.device_of(network)
    prepared = stages.prepare(network, tuple(found.paths[0].shape[1:]), device=device)
    for i, path in enumerate(found.paths):
        for j, (a, b) in enumerate(zip(path[:-1].double(), path[1:].double(), strict=True)):
            known = segment.maximise_segment(prepared, a, b, settings.classes[0], device=device)
            for name, field in _CERTIFIED.items():
                arrays[name][i, j] = getattr(known, field)
    return arrays


_CERTIFIED = {
    "certified_lower": "lower_loss",
    "certified_upper": "upper_loss_everywhere",
    "certified_pieces": "n_pieces",
}
_EACH = ("network", "class", "pair")
_VARIABLES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "barrier": ((*_EACH, "round"), "nat", "highest loss found on the path; nan where a round did not happen"),
    "barrier_alpha": ((*_EACH, "round"), "1", "position of the highest loss"),
    "gap": ((*_EACH, "round"), "nat", "barrier less the higher loss of the two ends"),
    "mean": ((*_EACH, "round"), "nat", "loss averaged over the path"),
    "length_ratio": ((*_EACH, "round"), "1", "length of the path over the distance of its ends"),
    "deviation": ((*_EACH, "round"), "1", "largest distance from the straight segment over its length"),
    "segment_loss": ((*_EACH, "round", "segment"), "nat", "highest loss found on each segment"),
    "segment_parent": ((*_EACH, "round", "segment"), "1", "segment of the round before that it is or was split from"),
    "is_connected": ((*_EACH, "round"), "1", "no loss found above delta after at most this many rounds"),
    "converged": ((*_EACH, "end"), "1", "the end's loss reached the threshold"),
    "iterations": ((*_EACH, "end"), "1", "optimisation steps of the end"),
    "end_loss": ((*_EACH, "end"), "nat", "cross-entropy of the end, in float32"),
    "n_bypasses": (_EACH, "1", "bypass points optimised"),
    "n_converged": (_EACH, "1", "bypass points whose loss reached the threshold"),
    "n_gradients": (_EACH, "1", "gradients of one input evaluated for the bypass points"),
    "n_evaluations": (_EACH, "1", "points at which the loss on paths was evaluated"),
    "drawn_alpha": (("network", "round", "point"), "1", "first pair of the network: position along the path, from A"),
    "drawn_loss": (("network", "round", "point"), "nat", "first pair of the network: cross-entropy along the path"),
    "drawn_stop_alpha": (("network", "round", "stop"), "1", "first pair of the network: position of the path's stops"),
}
_OF_THE_FIRST: dict[str, tuple[tuple[str, ...], str, str]] = {
    "images": (
        ("image", "channel", "row", "column"),
        "1",
        "first pair of the first network: inputs, in normalised pixel space; B' is nan if not needed",
    ),
    "certified_lower": (("round", "segment"), "nat", "the same pair: the largest loss is no smaller; nan if not asked"),
    "certified_upper": (("round", "segment"), "nat", "the same pair: the largest loss is no larger"),
    "certified_pieces": (("round", "segment"), "1", "the same pair: linear pieces"),
}


def _collect(settings: UntrainedSettings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    networks = [arrays[f"network={network}"] for network in range(settings.n_networks)]
    dataset = xr.Dataset(
        {
            name: (dims, np.stack([found[name] for found in networks]), {"units": units, "long_name": text})
            for name, (dims, units, text) in _VARIABLES.items()
        }
    )
    for name, (dims, units, text) in _OF_THE_FIRST.items():
        dataset[name] = (dims, networks[0][name], {"units": units, "long_name": text})
    return dataset.assign_coords(
        {
            "round": ("round", np.arange(settings.max_rounds + 1), {"long_name": "rounds of bypassing; 0 is primary"}),
            "end": ("end", list(ENDS), {"long_name": "end of the path"}),
            "image": ("image", list(IMAGES), {"long_name": "input"}),
            "class": ("class", list(settings.classes), {"long_name": "class of the pair"}),
        }
    )


def share(n_true: int, n: int) -> dict[str, Any]:
    """Return a count, its share and 95 % Wilson interval, as if all were independent; nan for none of none."""
    if n == 0:
        return {"n": 0, "of": 0, "share": np.nan, "low": np.nan, "high": np.nan}
    low, high = wilson_interval(n_true, n, z=Z_95)
    return {"n": n_true, "of": n, "share": n_true / n, "low": low, "high": high}


def has_low_ends(end_losses: A, delta: float) -> A:
    """Return, for every pair, whether the losses of both its ends, along the last axis, are at most delta.

    A path is connected around a class if the loss for it is at most delta on all of it (Section 4), ends included:
    a pair without low ends is apart whatever the network, and tells of the optimisation of its ends alone.
    """
    is_low: A = end_losses.max(axis=-1) <= delta
    return is_low


def quartiles(values: np.ndarray) -> list[float]:
    """Return the quartiles of the values that are finite; nan for none."""
    there = values[np.isfinite(values)]
    return np.quantile(there, (0.25, 0.5, 0.75)).tolist() if there.size else [np.nan] * 3


def _interval(shares: np.ndarray) -> list[float]:
    """Return a 95 % interval of the mean share over networks, within 0 and 1; nan for fewer than two networks.

    Student's t, with networks as the independent samples. Where the share is 1 in all n of them, from the lower end of
    Wilson's interval of n networks of n: the mean share is no smaller than the probability that a network's is 1. Where
    it is 0 in all, likewise up to the upper end; nan where all have another one.
    """
    n = len(shares)
    if n < 2:
        return [np.nan, np.nan]
    if np.ptp(shares) == 0:
        is_limit = shares[0] in (0, 1)
        return list(wilson_interval(n * shares[0], n, z=Z_95)) if is_limit else [np.nan, np.nan]
    reach = stats.t.ppf(0.975, n - 1) * shares.std(ddof=1) / np.sqrt(n)
    return [max(0.0, float(shares.mean() - reach)), min(1.0, float(shares.mean() + reach))]


def by_round(dataset: xr.Dataset, delta: float) -> list[dict[str, Any]]:
    """Return, for each round that any pair of low ends needed, such pairs connected by then and their paths' barriers.

    Everything is of the pairs of :func:`has_low_ends`, but for ``connected_all``, over all pairs: a pair whose end lies
    above delta is never connected. The intervals of shares are Wilson's, as if pairs were independent.
    ``over_networks`` is the 95 % interval of the mean of networks' own shares, with networks as the independent
    samples: Student's t, or Wilson's where all connect all or none of their pairs; nan for a single network.
    """
    is_low = has_low_ends(dataset["end_loss"], delta)
    connected = dataset["is_connected"].astype(bool)
    each = connected.where(is_low).mean(("class", "pair")).to_numpy()  # of each network, of all rounds
    rows = []
    for i in range(dataset.sizes["round"]):
        column = dataset["barrier"].isel(round=i).where(is_low).to_numpy()
        column = column[np.isfinite(column)]
        if i > 0 and not len(column):
            break
        there = connected.isel(round=i)
        shares = each[:, i][np.isfinite(each[:, i])]
        rows.append(
            {
                "round": i,
                "n_paths": len(column),
                "barrier_quartiles": quartiles(column),
                "barrier_range": [float(column.min()), float(column.max())] if len(column) else [np.nan] * 2,
                "connected": share(int((there & is_low).sum()), int(is_low.sum())),
                "over_networks": _interval(shares),
                "connected_all": share(int(there.sum()), there.size),
            }
        )
    return rows


def _summarise(settings: UntrainedSettings, dataset: xr.Dataset) -> dict[str, Any]:
    is_low = has_low_ends(dataset["end_loss"], settings.delta)
    n_rounds = dataset["length_ratio"].notnull().sum("round")
    last = dataset["length_ratio"].isel(round=n_rounds - 1).where(is_low)  # of each pair's last path
    certified = dataset["certified_upper"].max("segment").to_numpy()
    per_network = dataset["is_connected"].isel(round=-1).where(is_low).mean(("class", "pair")).to_numpy()
    return {
        "network": settings.network,
        "threshold": settings.threshold,
        "delta": settings.delta,
        "n_networks": settings.n_networks,
        "n_pairs": dataset["barrier"].isel(round=0).size,
        "n_pairs_low_ends": int(is_low.sum()),
        "rounds": by_round(dataset, settings.delta),
        "connected_by_network": per_network.tolist(),
        "iterations_median": dict(zip(ENDS, dataset["iterations"].median(_EACH).to_numpy().tolist(), strict=True)),
        "converged": {end: int(n) for end, n in zip(ENDS, dataset["converged"].sum(_EACH).to_numpy(), strict=True)},
        "length_ratio_median": float(last.median()),
        "length_ratio_max": float(last.max()),
        "certified_barriers": [value for value in certified.tolist() if np.isfinite(value)],
        "n_bypasses": int(dataset["n_bypasses"].sum()),
        "n_bypasses_converged": int(dataset["n_converged"].sum()),
        "n_gradients": int(dataset["n_gradients"].sum() + dataset["iterations"].sum()),
        "n_evaluations": int(dataset["n_evaluations"].sum()),
    }
