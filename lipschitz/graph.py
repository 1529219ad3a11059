"""A network as a list of known steps; :mod:`lipschitz.reading` makes it from a torch module.

Every step is one operation on one input of the network, without the batch axis. What is not known has no step, so that
bounds and certificates may trust the list. :func:`evaluate` runs it in any precision from the stored weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from lipschitz.pointwise import Function

Kind = Literal[
    "input",
    "linear",
    "convolution",
    "batch_norm",
    "relu",
    "leaky_relu",
    "smooth",
    "max_pool",
    "average_pool",
    "add",
    "concatenate",
    "reshape",
    "gather",
    "scale",
    "shift",
    "softmax",
    "log_softmax",
    "layer_norm",
]
POINTWISE = ("relu", "leaky_relu", "smooth")
GROUPED = ("softmax", "log_softmax", "layer_norm")
"""Kinds that act on all numbers of the last axis together, on each row alone."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One operation of a network.

    Parameters
    ----------
    name : str
        The layer's, as the network names it, or the operation with the line of code that asked for it; the k-th step
        of a name, k > 1, ends in ``#k``.
    kind : str
        What it does: ``linear`` acts on the last axis, ``smooth`` is a pointwise function, ``average_pool`` also an
        adaptive one, ``gather`` copies numbers to other places, ``reshape`` keeps their order, ``scale`` and ``shift``
        multiply by and add constants, ``layer_norm`` takes the mean of the last axis away and divides by its standard
        deviation.
    inputs : tuple of int
        The steps whose outputs it reads, by their place in the list.
    shape : tuple of int
        Of its output for one input, without the batch axis.
    layer : torch.nn.Module or None
        Weights and settings of ``linear``, ``convolution``, ``batch_norm``, ``max_pool`` and ``average_pool``, as torch
        has them; the weights are the network's own, in their precision.
    constant : Tensor of float64 or None
        The slope of ``leaky_relu``, the numbers of ``scale`` and ``shift``, the number that ``layer_norm`` adds to the
        variance; on the CPU, of a shape that broadcasts to ``shape``.
    function : Function or None
        Of ``smooth``.
    axis : int
        Along which ``concatenate`` puts things side by side, without the batch axis.
    index : Tensor of int64 or None
        For ``gather``: which number of the flattened input stands at each place, -1 for a zero; of shape ``shape``.
    """

    name: str
    kind: Kind
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    layer: nn.Module | None = None
    constant: torch.Tensor | None = None
    function: Function | None = None
    axis: int = 0
    index: torch.Tensor | None = None


def evaluate(steps: Sequence[Step], inputs: torch.Tensor) -> torch.Tensor:
    """Return the network's outputs, computed in the precision and on the device of ``inputs``, shape (n, ...)."""
    return outputs(steps, inputs)[-1]


def outputs(steps: Sequence[Step], inputs: torch.Tensor) -> list[torch.Tensor]:
    """Return the outputs of all steps, shape (n, ...) each."""
    values: list[torch.Tensor] = []
    for step in steps:
        values.append(inputs if step.kind == "input" else apply(step, [values[i] for i in step.inputs]))
    return values


def apply(step: Step, values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return what a step makes of the outputs of those it reads, shape (n, ...) each, in their precision."""
    first = values[0]

    def like_first(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.detach().to(first)

    layer: Any = step.layer
    match step.kind:
        case "linear":
            return functional.linear(first, layer.weight.detach().to(first), like_first(layer.bias))
        case "convolution":
            convolve: Callable[..., torch.Tensor] = (
                functional.conv2d if isinstance(layer, nn.Conv2d) else functional.conv1d
            )
            weight, bias = layer.weight.detach().to(first), like_first(layer.bias)
            return convolve(first, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        case "batch_norm":
            scale, shift = batch_norm(layer, first)
            axes = (1, -1, *(1,) * (first.ndim - 2))
            return first * scale.reshape(axes) + shift.reshape(axes)
        case "relu":
            return functional.relu(first)
        case "leaky_relu":
            return torch.where(first > 0, first, first * constant(step, first))
        case "max_pool":
            return functional.max_pool2d(
                first, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
            )
        case "average_pool":
            averages: torch.Tensor = layer(first)
            return averages
        case "smooth" if step.function is not None:
            return step.function.run(first)
        case "add":
            return values[0] + values[1]
        case "concatenate":
            return torch.cat(list(values), dim=1 + step.axis)
        case "reshape":
            return first.reshape(len(first), *step.shape)
        case "gather" if step.index is not None:
            return gather(first, step.index)
        case "scale":
            return first * constant(step, first)
        case "shift":
            return first + constant(step, first)
        case "softmax":
            return torch.softmax(first, dim=-1)
        case "log_softmax":
            return torch.log_softmax(first, dim=-1)
        case "layer_norm":
            return functional.layer_norm(first, first.shape[-1:], eps=float(constant(step, first)))
    raise AssertionError(f"a step of kind {step.kind} has nothing to apply")


def constant(step: Step, like: torch.Tensor) -> torch.Tensor:
    """Return a step's constant in the precision and on the device of ``like``."""
    assert step.constant is not None
    return step.constant.to(like)


def gather(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return for each of (n, ...) the numbers at an index of its flattened places, -1 for zero, shape (n, *index)."""
    flat = values.flatten(1)
    index = index.to(values.device)
    taken = flat[:, index.clamp(min=0).flatten()]
    if bool((index < 0).any()):
        taken = taken.masked_fill(index.flatten() < 0, 0.0)
    return taken.reshape(len(values), *index.shape)


def batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a BatchNorm's scale and shift in evaluation mode, one number a channel, in the precision of ``like``."""
    mean, variance = (
        buffer.detach().to(like) for buffer in (layer.running_mean, layer.running_var) if buffer is not None
    )
    scale = torch.rsqrt(variance + layer.eps)
    if layer.weight is not None:
        scale = scale * layer.weight.detach().to(like)
    shift = -mean * scale
    return scale, shift if layer.bias is None else shift + layer.bias.detach().to(like)
