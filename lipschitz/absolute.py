"""Bounds through the network of absolute values: what each input can move, entry by entry.

If a step's output moves by at most A v entry by entry whenever its input moves by at most v (A >= 0), then so does a
composition, by the product of the A: |W| for a Linear or a convolution, |scale| for a BatchNorm, the largest slope for
a pointwise function, the sum of the window for a max pooling, sums for sums. With A the product for the whole network,

    ||f(x) - f(y)||_inf <= max(A 1) ||x - y||_inf ,      ||f(x) - f(y)||_1 <= max(A^T 1) ||x - y||_1 ,
    ||f(x) - f(y)||_2^2 <= max_i (A^T A v)_i / v_i  ||x - y||_2^2    for any v > 0

(Collatz and Wielandt's bound of the largest eigenvalue of A^T A). For the norm inf a max pooling may take the largest
of its window in place of the sum. This is never above the product of the layers' norms for 1 and inf, nor above any
product with rescaled channels or entries: ||diag(d_1) |W| diag(1/d_0)||_inf <= c_1 says |W| d_0^-1 <= c_1 d_1^-1, and
so on through the layers. For nonnegative networks without activations it is the norm itself, in all three.

All numbers are nonnegative, so that each operation is off by a relative gamma_n, added outward after every step, with
2^-1000 for what underflows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from lipschitz import factors, graph, norms, pooling, reading, upper

_N_ITERATIONS = 20
_MOVES = ("shift", "reshape", "concatenate", "input")  # nothing is rounded


def upper_absolute(model: nn.Module, input_shape: Sequence[int], *, norm: float = math.inf) -> upper.UpperBound:
    """Return the norm of the network of absolute values.

    Parameters
    ----------
    model : torch.nn.Module
        Any that :func:`lipschitz.reading.read` can read, on any device; floating-point weights of at most 64 bits.
    input_shape : sequence of int
        Of one input, without the batch axis.
    norm : {1, 2, inf}
        The exponent p. For 2 this is mostly far above the product bound, unless weights have one sign.

    Returns
    -------
    UpperBound
        Certified, without factors. Infinite if it passes the range of float64.

    Raises
    ------
    ValueError
        If the model cannot be read or holds numbers that are not finite; the message names the layer.
    TypeError
        If weights are not real floating-point numbers.

    Notes
    -----
    Cost: one pass through the network in float64, forward for inf, backward for 1; 40 for 2.

    Examples
    --------
    >>> first, last = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
    >>> _ = first.weight.data.copy_(torch.tensor([[8.0], [0.5]])), last.weight.data.copy_(torch.tensor([[0.5, 8.0]]))
    >>> round(upper_absolute(nn.Sequential(first, nn.ReLU(), last), (1,)).value, 6)
    8.0
    """
    norms.check_norm(norm)
    steps = reading.read(model, input_shape)
    return upper.UpperBound(
        value=bound_absolute(steps, {}, norm=norm),
        norm=norm,
        factors=(),
        method="absolute values",
        is_certified=True,
        relative_gap=0.0,
    )


def bound_absolute(steps: Sequence[graph.Step], slopes: Mapping[int, torch.Tensor], *, norm: float) -> float:
    """Return the bound, pointwise steps having the given largest |slopes|, shape (1, ...), or their own constants."""
    maps = {place: _absolute(step) for place, step in enumerate(steps) if step.kind in ("linear", "convolution")}
    maps |= {place: factors.upper_scale(step) for place, step in enumerate(steps) if step.kind == "batch_norm"}
    maps |= dict(slopes)
    for step in steps:
        if step.kind == "max_pool":  # refuses windows in the padding alone
            pooling.bound_max_pool(cast("nn.MaxPool2d", step.layer), steps[step.inputs[0]].shape, norm=norm)
    ones = torch.ones(1, *steps[0].shape, dtype=torch.float64)
    if norm == math.inf:
        value = float(_forward(steps, maps, ones, is_sum=False).max())
    elif norm == 1:
        value = float(
            _backward(steps, maps, torch.ones(1, *steps[-1].shape, dtype=torch.float64), is_one_norm=True).max()
        )
    else:
        value = math.inf
        vector = ones
        for _ in range(_N_ITERATIONS):
            image = _backward(steps, maps, _forward(steps, maps, vector, is_sum=True), is_one_norm=False)
            value = min(value, float((image / vector).max()) * (1.0 + norms.gamma(2)))
            if not 0.0 < value < math.inf:
                break
            image = image / image.max()
            vector = image.clamp(min=1e-9)
        value = math.nextafter(math.sqrt(value), math.inf)
    return math.inf if math.isnan(value) else value


def _absolute(step: graph.Step) -> torch.Tensor:
    weight = factors.weights_of(step).abs()
    if not bool(weight.isfinite().all()):
        raise ValueError(
            f"layer {step.name!r}: matrix must hold finite numbers, got {float(weight[~weight.isfinite()][0])}"
        )
    return weight


def _forward(
    steps: Sequence[graph.Step], maps: Mapping[int, torch.Tensor], vector: torch.Tensor, *, is_sum: bool
) -> torch.Tensor:
    """Return A v, rounded up."""
    values: list[torch.Tensor] = []
    for place, step in enumerate(steps):
        if step.kind == "input":
            values.append(vector)
            continue
        read = [values[source] for source in step.inputs]
        if step.kind in graph.GROUPED and not is_sum:
            value = factors.upper_constant(step, math.inf) * read[0].amax(dim=-1, keepdim=True).expand(read[0].shape)
        else:
            value = _apply(step, read, maps.get(place), is_sum=is_sum)
        n_terms = maps[place][0].numel() if step.kind in ("linear", "convolution") else _n_terms(step)
        values.append(_outward(step, value, n_terms))
    return values[-1]


def _backward(
    steps: Sequence[graph.Step], maps: Mapping[int, torch.Tensor], vector: torch.Tensor, *, is_one_norm: bool
) -> torch.Tensor:
    """Return A^T v, rounded up; for the 1-norm less where a step's column sums are less than those of an A."""
    gradients = [torch.zeros(1, *step.shape, dtype=torch.float64) for step in steps]
    gradients[-1] = vector
    for place in range(len(steps) - 1, 0, -1):
        step = steps[place]
        if step.kind == "input":
            continue
        if step.kind in graph.GROUPED and is_one_norm:
            largest = gradients[place].amax(dim=-1, keepdim=True).expand(gradients[place].shape)
            result = factors.upper_constant(step, 1) * largest
            gradients[step.inputs[0]] = (gradients[step.inputs[0]] + _outward(step, result, 4)) * (1.0 + norms.gamma(2))
            continue
        with torch.enable_grad(), torch.inference_mode(False):
            zeros = [torch.zeros_like(gradients[source]).requires_grad_() for source in step.inputs]
            value = _apply(step, zeros, maps.get(place), is_sum=True)
            results = torch.autograd.grad(value, zeros, gradients[place])
        n_terms = maps[place].numel() if step.kind in ("linear", "convolution") else _n_terms(step)
        for source, result in zip(step.inputs, results, strict=True):
            gradients[source] = (gradients[source] + _outward(step, result, n_terms)) * (1.0 + norms.gamma(2))
    return gradients[0]


def _apply(
    step: graph.Step, values: Sequence[torch.Tensor], weight: torch.Tensor | None, *, is_sum: bool
) -> torch.Tensor:
    """Return A v of one step, linear in v but for the largest of a window where ``is_sum`` is False."""
    first = values[0]
    layer: Any = step.layer
    match step.kind:
        case "linear" | "convolution":
            assert weight is not None
            return factors.multiply(step, first, weight)
        case "batch_norm":
            assert weight is not None
            return first * weight.reshape(1, -1, *(1,) * (first.ndim - 2))
        case "relu" | "leaky_relu" | "smooth":
            return first * (factors.upper_slope(step) if weight is None else weight)
        case "scale":
            return first * factors.upper_scale(step)
        case "shift":
            return first * 1.0
        case "softmax" | "log_softmax" | "layer_norm":
            # No entry of the derivative is above 1/4, 1, or the 2-norm.
            largest = {"softmax": 0.25, "log_softmax": 1.0}.get(step.kind) or factors.upper_constant(step, 2)
            return largest * first.sum(dim=-1, keepdim=True).expand(first.shape)
        case "max_pool" if is_sum:
            return _sum_pool(step, first)
        case "average_pool":
            sign = -1.0 if (getattr(layer, "divisor_override", None) or 1) < 0 else 1.0
            return graph.apply(step, values) * sign
    return graph.apply(step, values)


def _sum_pool(step: graph.Step, first: torch.Tensor) -> torch.Tensor:
    """Return the sums of a max pooling's windows."""
    layer: Any = step.layer
    size, stride, padding, dilation = (
        pooling.per_axis(value) for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    )
    # Zeros around, as many as the last window of each axis reaches over; fewer where it does not reach the end.
    after = [
        (step.shape[axis - 2] - 1) * stride[axis]
        + dilation[axis] * (size[axis] - 1)
        + 1
        - first.shape[axis - 2]
        - padding[axis]
        for axis in (0, 1)
    ]
    padded = functional.pad(first, (padding[1], after[1], padding[0], after[0]))
    images = padded.reshape(-1, 1, *padded.shape[-2:])
    sums = functional.conv2d(images, images.new_ones(1, 1, *size), None, stride, 0, dilation)
    return sums.reshape(1, *step.shape)


def _n_terms(step: graph.Step) -> int:
    """Return how many numbers an entry of a step's output, or of its transpose's, may sum, at most."""
    if step.kind == "gather":
        return math.prod(step.shape) + 4
    if step.kind in graph.GROUPED:
        return step.shape[-1] + 4
    if step.kind in ("max_pool", "average_pool"):
        layer: Any = step.layer
        size = getattr(layer, "kernel_size", None)
        return 10**6 if size is None else math.prod(pooling.per_axis(size)) + 4
    return 4


def _outward(step: graph.Step, value: torch.Tensor, n_terms: int) -> torch.Tensor:
    if step.kind in _MOVES:
        return value
    return value * (1.0 + norms.gamma(n_terms + 4)) + 2.0**-1000
