"""A fully connected network as a chain of matrices with intervals of slopes between them.

What :mod:`lipschitz.sdp` and :mod:`lipschitz.closed_forms` work on: between any two inputs, each neuron's output
changes by a slope in [low, high] times the change of its input.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from lipschitz import factors, graph, reading

_UNIT_ROUNDOFF = 2.0**-53
_TINY = 2.0**-1074


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """W_1, ..., W_{h+1}, the slopes' ends (low, high) after each but the last, and what stands around, multiplied."""

    weights: list[np.ndarray]
    slopes: list[tuple[np.ndarray, np.ndarray]]
    factor: float


def read(model: nn.Module, input_shape: Sequence[int]) -> Chain:
    """Return the network as matrices and slopes between them, or raise ValueError that names what does not fit."""
    weights: list[np.ndarray] = []
    slopes: list[tuple[np.ndarray, np.ndarray]] = []
    factor = 1.0
    low = high = np.ones(1)
    steps = reading.read(model, input_shape)
    for place, step in enumerate(steps):
        if place > 0 and step.inputs != (place - 1,):
            raise ValueError(
                f"step {step.name!r} must read the one before it, as LipSDP is for chains, got {step.kind}"
            )
        if step.kind == "linear":
            layer = cast("nn.Linear", step.layer)
            if len(step.shape) != 1:
                raise ValueError(f"layer {step.name!r} must map vectors, got outputs of shape {step.shape}")
            weight = layer.weight.detach().cpu()
            if not weight.is_floating_point():
                raise TypeError(f"layer {step.name!r} must have real floating-point weights, got {weight.dtype}")
            if not bool(torch.isfinite(weight).all()):
                raise ValueError(f"layer {step.name!r} must have finite weights")
            if weights:
                slopes.append((low, high))
            else:
                factor = factors.multiply_up(factor, float(np.maximum(-low, high).max()))
            weights.append(weight.to(torch.float64).numpy())
            low = high = np.ones(len(weight))
        elif step.kind not in ("input", "reshape", "shift"):
            low, high = _multiply(low, high, *_slopes(step))
    if not weights:
        raise ValueError("model must have a Linear layer, got none")
    factor = factors.multiply_up(factor, float(np.maximum(-low, high).max()))
    return Chain(weights=weights, slopes=slopes, factor=factor)


def balance(weights: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Return matrices of norm 1/2 to 1 with rows of like size, and the powers of two taken out.

    With rows_0 = 0 and C_l = common_1 + .. + common_l, x_l = 2^(C_l + rows_l) times the balanced network's x_l. The
    second list holds, for l = 1..h, the e with T_l = 4^e times the balanced network's T_l, the number is C_{h+1}.
    Powers of two are exact, unless they leave float64's range.
    """
    balanced = []
    columns = np.zeros(weights[0].shape[1], dtype=int)
    commons, shifts = [], [columns]
    for place, weight in enumerate(weights):
        sizes = np.abs(np.ldexp(weight, columns)).max(axis=1)
        largest = int(np.frexp(sizes.max())[1])
        is_scaled = (sizes > 0.0) & (place < len(weights) - 1)
        rows = np.where(is_scaled, np.frexp(sizes)[1] - largest, 0)
        scaled = np.ldexp(weight, columns - rows[:, None] - largest)
        common = int(np.frexp(np.linalg.norm(scaled, 2))[1])
        scaled = np.ldexp(scaled, -common)
        if not np.array_equal(np.ldexp(np.ldexp(scaled, common), largest + rows[:, None] - columns), weight):
            raise ValueError(f"weights must differ by less than the range of float64, got matrix {place + 1}")
        balanced.append(scaled)
        commons.append(largest + common)
        shifts.append(rows)
        columns = rows
    shares = [sum(commons[place:]) - shifts[place] for place in range(1, len(weights))]
    return balanced, shares, sum(commons)


def _slopes(step: graph.Step) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest slope of a pointwise step, one number or one a feature."""
    if step.kind in (*graph.POINTWISE, "scale"):
        low, high = factors.lower_slopes(step).numpy(), factors.upper_slopes(step).numpy()
        is_by_feature = len(step.shape) == 1  # else one number for all
        return np.atleast_1d(low if is_by_feature else low.min()), np.atleast_1d(high if is_by_feature else high.max())
    if step.kind == "batch_norm" and len(step.shape) == 1:
        layer: Any = step.layer
        scale = graph.batch_norm(layer, torch.zeros(1, dtype=torch.float64))[0].cpu().numpy()
        if not np.isfinite(scale).all():
            raise ValueError(f"layer {step.name!r} must have finite scales, got {scale[~np.isfinite(scale)][0]}")
        margin = 8.0 * _UNIT_ROUNDOFF * np.abs(scale)  # a sum, a root, two quotients or products, this line
        margin = margin + (_TINY if layer.weight is None else _TINY * (layer.weight.detach().cpu().numpy() != 0.0))
        return scale - margin, scale + margin
    raise ValueError(f"step {step.name!r} must be Linear or pointwise for LipSDP, got {step.kind}")


def _multiply(
    low: np.ndarray, high: np.ndarray, other_low: np.ndarray, other_high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the products of two intervals of slopes, rounded outward."""
    ends = []
    for first, second in itertools.product((low, high), (other_low, other_high)):
        is_zero = (first == 0.0) | (second == 0.0)  # exactly, whatever the other; any other product may underflow
        with np.errstate(over="ignore", invalid="ignore"):
            product = np.where(is_zero, 0.0, first * second)
        margin = 4.0 * _UNIT_ROUNDOFF * np.where(np.isfinite(product), np.abs(product), 0.0)
        margin = margin + np.where(is_zero, 0.0, _TINY)
        ends.append((product - margin, product + margin))
    return np.min([end[0] for end in ends], axis=0), np.max([end[1] for end in ends], axis=0)
