"""What every step of a network can take on a region of inputs: intervals, rounded outward.

A linear step maps centre and radius of the intervals that it reads, A c + b and |A| r; on a ball of the 2-norm the rows
of the first one give ||a|| R by Cauchy and Schwarz. Pointwise functions map the ends, or their extremes in between.
Rounding is added to the radius (gamma_n (|A| |c| + |b|), see :mod:`lipschitz.norms`). It is supposed that torch's tanh,
sigmoid, erf, sin, cos, exp and the Gaussian distribution function are within 16 u of the truth, relatively or
absolutely, u = 2^-53.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lipschitz import factors, graph, norms, pointwise
from lipschitz.pointwise import LIBRARY as _LIBRARY

Interval = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """A ball of inputs, or a box.

    Parameters
    ----------
    centre : Tensor, shape of one input
        Finite floating-point numbers, on any device; what is stored is taken exactly.
    radius : float or Tensor of the shape of the centre
        At least 0; in the unit of the inputs; a Python number as the float64 that it is. One number an entry makes a
        box, for the norm inf only.
    norm : {2, inf}
        Of the ball.

    Raises
    ------
    TypeError
        If the centre does not hold real floating-point numbers, or the radius no real numbers.
    ValueError
        If a number is out of range, or the radius has another shape.
    """

    centre: torch.Tensor
    radius: float | torch.Tensor
    norm: float = math.inf

    def __post_init__(self) -> None:
        if self.norm not in (2, math.inf):
            raise ValueError(f"norm of a region must be 2 or inf, got {self.norm}")
        _check_numbers("centre", self.centre)
        if not bool(torch.isfinite(self.centre).all()):
            raise ValueError("centre must hold finite numbers")
        if isinstance(self.radius, torch.Tensor):
            _check_numbers("radius", self.radius)
        radius = radii(self)
        if radius.ndim > 0 and (self.norm == 2 or radius.shape != self.centre.shape):
            raise ValueError(
                f"radius must be one number, or of the centre's shape for a box, got shape {tuple(radius.shape)}"
            )
        if not bool(((radius >= 0.0) & torch.isfinite(radius)).all()):
            raise ValueError("radius must be finite and at least 0")


def radii(region: Region) -> torch.Tensor:
    """Return the radius of a region, exactly: one number or one an entry, in float64 on the CPU."""
    if isinstance(region.radius, torch.Tensor):
        return region.radius.detach().cpu().to(torch.float64)
    # not as_tensor alone, which would round to the default dtype, float32
    return torch.as_tensor(region.radius, dtype=torch.float64)


def _check_numbers(name: str, tensor: torch.Tensor) -> None:
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        raise TypeError(
            f"{name} must be a tensor of floating-point numbers, got {getattr(tensor, 'dtype', type(tensor).__name__)}"
        )


def box(lower: torch.Tensor, upper: torch.Tensor) -> Region:
    """Return the least region in centre and radius that holds the box between two corners.

    Raises
    ------
    TypeError
        If a corner does not hold real floating-point numbers.
    ValueError
        If the corners differ in shape, are not finite, or the lower one is above the upper one somewhere.
    """
    _check_numbers("lower", lower)
    _check_numbers("upper", upper)
    if lower.shape != upper.shape or not bool((lower <= upper).all()):
        raise ValueError("lower must be at most upper, entry by entry, and of its shape")
    low, high = lower.detach().cpu().to(torch.float64), upper.detach().cpu().to(torch.float64)
    if not bool((low.isfinite() & high.isfinite()).all()):
        raise ValueError("lower and upper must hold finite numbers")
    centre, radius = _centre(low, high)
    is_fixed = low == high
    return Region(
        centre=torch.where(is_fixed, low, centre), radius=torch.where(is_fixed, torch.zeros_like(low), radius)
    )


def propagate(steps: Sequence[graph.Step], region: Region) -> list[Interval]:
    """Return the interval of every step's output on the region, ends of shape (1, ...), in float64 on the CPU."""
    found: list[Interval] = []
    for step in steps:
        if step.kind == "input":
            centre = region.centre.detach().cpu().to(torch.float64).unsqueeze(0)
            found.append(_outward(centre - radii(region), centre + radii(region)))
            continue
        read = [found[source] for source in step.inputs]
        ends = _apply(step, read)
        if region.norm == 2 and step.kind in ("linear", "convolution") and _reads_input(steps, step):
            ends = _intersect(_known(ends), _known(_by_rows(step, region)))
        found.append(_known(ends))
    return found


def upper_slopes(step: graph.Step, interval: Interval) -> torch.Tensor:
    """Return the largest |slope| of a pointwise step on the interval that it reads, entry by entry, rounded up."""
    low, high = interval
    if step.function is not None:
        return pointwise.upper_slopes(step.function, low, high)
    if step.kind == "relu":
        return (high > 0.0).to(low)
    steep = graph.constant(step, low).abs().expand(low.shape)
    return torch.where(high <= 0.0, steep, torch.where(low >= 0.0, torch.ones_like(low), steep.clamp(min=1.0)))


def _apply(step: graph.Step, read: Sequence[Interval]) -> Interval:
    """Return the interval of a step's output from those that it reads."""
    low, high = read[0]
    match step.kind:
        case "linear" | "convolution":
            return _affine(step, low, high)
        case "batch_norm":
            return _batch_norm(step, low, high)
        case "smooth":
            assert step.function is not None
            return _outward(*pointwise.enclose(step.function, low, high))
        case "softmax" | "log_softmax":
            return _softmax(step, low, high)
        case "layer_norm":
            return _layer_norm(step, low, high)
        case "leaky_relu":
            ends = _extremes(graph.apply(step, [low]), graph.apply(step, [high]))
            crosses = (low < 0.0) & (high > 0.0)  # the least value of a negative slope is at zero
            bottom = torch.where(crosses, ends[0].clamp(max=0.0), ends[0])
            return _outward(bottom, ends[1])
        case "average_pool":
            ends = _extremes(graph.apply(step, [low]), graph.apply(step, [high]))
            sizes = graph.apply(step, [torch.maximum(low.abs(), high.abs())]).abs()
            return _widen(*ends, norms.gamma(math.prod(low.shape[-2:]) + 8) * sizes)
        case "add":
            return _outward(read[0][0] + read[-1][0], read[0][1] + read[-1][1])
        case "scale":  # by numbers that may be rounded quotients
            ends = _extremes(graph.apply(step, [low]), graph.apply(step, [high]))
            return _widen(*ends, norms.gamma(4) * torch.maximum(ends[0].abs(), ends[1].abs()))
        case "shift":
            return _outward(graph.apply(step, [low]), graph.apply(step, [high]))
    # Relu, max pooling and what only moves numbers: increasing and exact.
    return graph.apply(step, [ends[0] for ends in read]), graph.apply(step, [ends[1] for ends in read])


def _affine(step: graph.Step, low: torch.Tensor, high: torch.Tensor) -> Interval:
    weight = factors.weights_of(step)
    centre, radius = _centre(low, high)
    middle = factors.multiply(step, centre, weight)
    spread = factors.multiply(step, radius, weight.abs())
    sizes = factors.multiply(step, centre.abs(), weight.abs())
    layer: Any = step.layer
    if layer.bias is not None:
        bias = layer.bias.detach().cpu().to(torch.float64)
        if step.kind == "convolution":
            bias = bias.reshape(-1, *(1,) * (weight.ndim - 2))
        middle, sizes = middle + bias, sizes + bias.abs()
    margin = norms.gamma(weight[0].numel() + 8)
    return _widen(middle, middle, spread * (1.0 + margin) + margin * sizes)


def _by_rows(step: graph.Step, region: Region) -> Interval:
    """Return the interval of a linear step on a ball of the 2-norm: ||row|| R about the image of the centre."""
    weight = factors.weights_of(step)
    centre = region.centre.detach().cpu().to(torch.float64).unsqueeze(0)
    shape = centre.shape if step.kind == "convolution" else (1, *step.shape[:-1], weight.shape[1])
    low, high = _affine(step, centre.reshape(shape), centre.reshape(shape))
    # Each row is scaled by its largest entry before it is squared.
    largest = weight.abs().flatten(1).amax(dim=1).clamp(min=2.0**-1000)
    axes = (-1, *(1,) * (weight.ndim - 1))
    shares = factors.multiply(step, torch.ones(shape, dtype=torch.float64), (weight / largest.reshape(axes)) ** 2)
    rows = shares.sqrt() * (1.0 + norms.gamma(weight[0].numel() + 16)) + 2.0**-500  # and what underflows
    rows = rows * (largest if step.kind == "linear" else largest.reshape(axes[:-1])) + 2.0**-1000
    return _widen(low, high, rows * float(radii(region)))


def _batch_norm(step: graph.Step, low: torch.Tensor, high: torch.Tensor) -> Interval:
    layer: Any = step.layer
    centre, radius = _centre(low, high)
    axes = (1, -1, *(1,) * (low.ndim - 2))
    scale, shift = (part.reshape(axes) for part in graph.batch_norm(layer, low))
    mean = layer.running_mean.detach().to(low).reshape(axes)
    bias = 0.0 if layer.bias is None else layer.bias.detach().to(low).reshape(axes).abs()
    sizes = (centre.abs() + mean.abs()) * scale.abs() + bias
    middle = centre * scale + shift
    # Scale and shift are a few roundings of their own; the scale may underflow.
    margin = norms.gamma(16) * sizes + 2.0**-1070 * (centre.abs() + mean.abs() + radius)
    return _widen(middle, middle, radius * scale.abs() * (1.0 + norms.gamma(16)) + margin)


def _softmax(step: graph.Step, low: torch.Tensor, high: torch.Tensor) -> Interval:
    """Return the interval of a softmax or its logarithm, x - log(sum(exp(x))): each part on its own interval."""
    sums = torch.logsumexp(low, dim=-1, keepdim=True), torch.logsumexp(high, dim=-1, keepdim=True)
    sizes = torch.maximum(low.abs(), high.abs()).amax(dim=-1, keepdim=True)
    margin = (_LIBRARY * low.shape[-1] + norms.gamma(8)) * (1.0 + sizes)
    bottom, top = _widen(low - sums[1], high - sums[0], margin.expand(low.shape))
    top = top.clamp(max=0.0)
    if step.kind == "log_softmax":
        return bottom, top
    bottom, top = _widen(bottom.exp(), top.exp(), torch.full_like(low, _LIBRARY))
    return bottom.clamp(min=0.0), top.clamp(max=1.0)


def _layer_norm(step: graph.Step, low: torch.Tensor, high: torch.Tensor) -> Interval:
    """Return the interval of (x - mean) / sqrt(variance + epsilon): at most sqrt(n) in size, and numerator by root."""
    n = low.shape[-1]
    margin = norms.gamma(n + 8) * torch.maximum(low.abs(), high.abs()).amax(dim=-1, keepdim=True)
    bottom, top = _widen(
        low - high.mean(dim=-1, keepdim=True), high - low.mean(dim=-1, keepdim=True), (4.0 * margin).expand(low.shape)
    )
    nearest = torch.where(bottom > 0.0, bottom, torch.where(top < 0.0, -top, torch.zeros_like(top)))
    variance = nearest.square().mean(dim=-1, keepdim=True) * (1.0 - norms.gamma(n + 8))
    inverse = torch.rsqrt(variance + graph.constant(step, low)) * (1.0 + norms.gamma(8))
    farthest = torch.maximum(bottom.abs(), top.abs()).square().mean(dim=-1, keepdim=True) * (1.0 + norms.gamma(n + 8))
    least = torch.rsqrt(farthest + graph.constant(step, low)) * (1.0 - norms.gamma(8))
    most = math.sqrt(n) * (1.0 + norms.gamma(4))
    # a negative end is least over the smaller root, a positive one over the larger
    lower = torch.where(bottom < 0.0, bottom * inverse, bottom * least)
    upper = torch.where(top > 0.0, top * inverse, top * least)
    lower, upper = _outward(torch.nan_to_num(lower, nan=-most), torch.nan_to_num(upper, nan=most))
    return lower.clamp(min=-most, max=most), upper.clamp(min=-most, max=most)


def _reads_input(steps: Sequence[graph.Step], step: graph.Step) -> bool:
    """Whether nothing but reshaping stands between the input and a step."""
    source = step.inputs[0]
    while steps[source].kind == "reshape":
        source = steps[source].inputs[0]
    return steps[source].kind == "input" and (step.kind == "linear" or source == step.inputs[0])


def _centre(low: torch.Tensor, high: torch.Tensor) -> Interval:
    """Return centre and radius of intervals, the radius rounded up."""
    centre = 0.5 * low + 0.5 * high
    radius = torch.maximum(high - centre, centre - low)
    return centre, _up(radius)


def _extremes(first: torch.Tensor, second: torch.Tensor) -> Interval:
    return torch.minimum(first, second), torch.maximum(first, second)


def _intersect(first: Interval, second: Interval) -> Interval:
    return torch.maximum(first[0], second[0]), torch.minimum(first[1], second[1])


def _known(ends: Interval) -> Interval:
    """Return an interval with what left the range of float64, or is no number, as an end at infinity."""
    low, high = ends
    infinity = torch.full_like(low, math.inf)
    return torch.where(low < math.inf, low, -infinity), torch.where(high > -math.inf, high, infinity)


def _widen(low: torch.Tensor, high: torch.Tensor, margin: torch.Tensor) -> Interval:
    margin = _up(margin + 2.0**-1000)
    return _outward(low - margin, high + margin)


def _outward(low: torch.Tensor, high: torch.Tensor) -> Interval:
    return torch.nextafter(low, torch.tensor(-math.inf, dtype=low.dtype)), _up(high)


def _up(value: torch.Tensor) -> torch.Tensor:
    return torch.nextafter(value, torch.tensor(math.inf, dtype=value.dtype))
