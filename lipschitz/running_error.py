"""A network's values in float64 with a bound of their rounding errors.

A bound e of the error's 2-norm runs along with the values of each step. With u = 2^-53, |.| entry by entry:

    Linear, convolution    ||W|| e + gamma_{n+2} || |W| |x| + |b| ||,  n products a sum
    BatchNorm              max |s| e + gamma_8 || |s| |x| + |s| |mean| + |b| ||,  s the scale
    average pooling        ||A|| e + gamma_{n+2} ||A |x|||
    pointwise functions    L e + 8 u ||max(1, |value|)||: the library's tanh, erf, sin, ... are supposed to be within
                           8 u of the true value, relatively or absolutely (they claim a few units in the last place)
    sum                    e + e' + u ||value||
    concatenation          (e^2 + e'^2 + ...)^(1/2)
    max pooling            its Lipschitz constant times e
    times, plus a number   |c| e + u ||value||,  e + u ||value||

and nothing more for steps that only move or drop numbers. The errors of single steps are thus multiplied by the norms
of all later ones: sharp enough for untrained networks, not for deep trained ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from lipschitz import factors, graph, norms, upper

_UNIT_ROUNDOFF = 2.0**-53


def step_norms(steps: Sequence[graph.Step]) -> list[float]:
    """Return by how much each step may stretch an error, in the 2-norm; 1 for inputs, sums and concatenations."""
    return [
        1.0
        if step.kind in ("input", "add", "concatenate")
        else factors.bound_step(step, steps[step.inputs[0]].shape, norm=2, tolerance=0.5).upper
        for step in steps
    ]


def least_amplification(steps: Sequence[graph.Step]) -> float:
    """Return about how much, at least, an error of the input grows in the bound, by the norms of kernels alone."""
    return upper.compose(
        steps,
        [
            float(torch.linalg.matrix_norm(cast("nn.Linear", step.layer).weight.detach().flatten(1).double(), ord=2))
            if step.kind in ("linear", "convolution")
            else (float(factors.upper_scale(step).max()) if step.kind == "batch_norm" else 1.0)
            for step in steps
        ],
        one=1.0,
        multiply=lambda a, b: a * b,
        add=lambda a, b: a + b,
        combine=lambda bounds: math.hypot(*bounds),
    )


def evaluate(
    steps: Sequence[graph.Step], stretches: Sequence[float], inputs: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the outputs, shape (n, ...), and bounds of the 2-norms of their errors, shape (n,).

    Parameters
    ----------
    steps : sequence of graph.Step
        A network.
    stretches : sequence of float
        Of :func:`step_norms`.
    inputs : Tensor of float64, shape (n, ...)
        Exact.
    """
    values: list[torch.Tensor] = []
    errors: list[torch.Tensor] = []
    for step, stretch in zip(steps, stretches, strict=True):
        if step.kind == "input":
            values.append(inputs)
            errors.append(torch.zeros(len(inputs), dtype=torch.float64))
            continue
        read = [values[source] for source in step.inputs]
        value = graph.apply(step, read)
        carried = [errors[source] for source in step.inputs]
        if step.kind == "add":
            error = carried[0] + carried[-1]
        elif step.kind == "concatenate":
            error = torch.stack(carried).norm(dim=0)
        else:
            error = stretch * carried[0]
        error = error + _own_rounding(step, read[0], value)
        # The bound's own sums are rounded; they have no negative terms.
        errors.append(error * (1.0 + norms.gamma(read[0][0].numel() + value[0].numel() + 16)))
        values.append(value)
    return values[-1], errors[-1]


def _own_rounding(step: graph.Step, before: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Return a bound of the 2-norm of what a step's own arithmetic adds, shape (n,)."""
    layer: Any = step.layer
    match step.kind:
        case "linear" | "convolution":
            sizes = _apply_sizes(step, before)
            return norms.gamma(layer.weight[0].numel() + 2) * _lengths(sizes)
        case "batch_norm":
            scale = graph.batch_norm(layer, before)[0].abs()
            offset = scale * layer.running_mean.to(before).abs()
            if layer.bias is not None:
                offset = offset + layer.bias.detach().to(before).abs()
            axes = (1, -1, *(1,) * (before.ndim - 2))
            return norms.gamma(8) * _lengths(before.abs() * scale.reshape(axes) + offset.reshape(axes))
        case "average_pool":
            return norms.gamma(before[0, 0].numel() + 2) * _lengths(graph.apply(step, [before.abs()]))
        case "smooth":
            return 8.0 * _UNIT_ROUNDOFF * _lengths(value.abs().clamp(min=1.0))
        case "leaky_relu" | "add" | "scale" | "shift":
            return _UNIT_ROUNDOFF * _lengths(value) * (1.0 + 2.0**-50)
    return torch.zeros(len(value), dtype=torch.float64)


def _apply_sizes(step: graph.Step, before: torch.Tensor) -> torch.Tensor:
    """Return |W| |x| + |b| of a Linear or a convolution."""
    layer: Any = step.layer
    weight = layer.weight.detach().to(before).abs()
    bias = None if layer.bias is None else layer.bias.detach().to(before).abs()
    if step.kind == "linear":
        return torch.nn.functional.linear(before.abs(), weight, bias)
    convolve: Any = torch.nn.functional.conv2d if weight.ndim == 4 else torch.nn.functional.conv1d
    sizes: torch.Tensor = convolve(
        before.abs(), weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return sizes


def _lengths(values: torch.Tensor) -> torch.Tensor:
    lengths: torch.Tensor = values.flatten(1).norm(dim=1)
    return lengths
