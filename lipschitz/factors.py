"""By how much one step of a network may stretch a distance, with positive weights on its channels if wished.

Weights on the channels are what BatchNorm in evaluation mode, a rescaling, or a slope below 1 put on a Linear or a
convolution A: the bound is then of diag(rows) A diag(columns). In every p-norm that norm only grows with the weights,

    0 <= r <= r', 0 <= c <= c'   =>   ||diag(r) A diag(c)|| <= ||diag(r') A diag(c')|| ,

as diag(r) = diag(r / r') diag(r') and the first is at most 1-Lipschitz. So weights may be rounded up, and signs do not
matter; only the product with the entries of A is rounded to nearest, and counted: it is off by at most
gamma_3 |entry| + 2^-1074, a matrix whose norm is at most the geometric mean of its 1- and its inf-norm.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lipschitz import convolutions, graph, norms, pooling

# A convolution's bound is asked to be this tight at most: more costs more than it is worth.
_CONVOLUTION_TOLERANCE = 1e-3
_UNIT_ROUNDOFF = 2.0**-53


def bound_step(
    step: graph.Step,
    input_shape: Sequence[int],
    *,
    norm: float,
    tolerance: float,
    rows: torch.Tensor | None = None,
    columns: torch.Tensor | None = None,
) -> norms.NormBound:
    """Return bounds of what a step with one input does to a distance, at most, over all pairs of inputs.

    Parameters
    ----------
    step : graph.Step
        Any but ``input``, ``add`` and ``concatenate``.
    input_shape : sequence of int
        Of what it reads, without the batch axis.
    norm : {1, 2, inf}
        The exponent p.
    tolerance : float
        Relative gap at which the norm of a matrix is tight enough; of a convolution, the larger of it and 1e-3.
    rows, columns : Tensor of float64, shape (n_outputs,) and (n_inputs,), optional
        Weights of the output and input channels of a Linear or a convolution, not negative, on the CPU.

    Returns
    -------
    norms.NormBound
        ``upper`` and ``lower`` enclose the norm of the weighted step; for pointwise functions and max pooling ``lower``
        is the same number as ``upper``.

    Raises
    ------
    ValueError
        If weights are not finite; the message names the layer.
    TypeError
        If weights are not real floating-point numbers of at most 64 bits.
    """
    layer: Any = step.layer
    match step.kind:
        case "linear" | "convolution":
            return _bound_weighted(step, input_shape, norm, tolerance, rows, columns)
        case "max_pool":
            return pooling.bound_max_pool(layer, input_shape, norm=norm)
        case "average_pool":
            return pooling.bound_average_pool(layer, input_shape, norm=norm)
        case "batch_norm":
            return _known(float(upper_scale(step).max()), norm, "largest scale")
        case "scale":
            return _known(upper_scale(step).max().item(), norm, "largest scale")
        case "relu" | "leaky_relu" | "smooth":
            return _known(upper_slope(step), norm, "largest slope")
        case "gather":
            return _bound_gather(step, input_shape, norm)
        case "softmax" | "log_softmax" | "layer_norm":
            return _known(upper_constant(step, norm), norm, step.kind)
    return _known(1.0, norm, "isometry")


def upper_slope(step: graph.Step) -> float:
    """Return the Lipschitz constant of a pointwise step, rounded up."""
    if step.function is not None:
        return step.function.constant
    return 1.0 if step.constant is None else max(1.0, float(step.constant.abs().max()))


def lower_slopes(step: graph.Step) -> torch.Tensor:
    """Return what no slope of a pointwise step or a ``scale`` is below, one number or one a place; float64."""
    if step.kind == "scale":
        return _constant(step) - 2.0 * _UNIT_ROUNDOFF * _constant(step).abs()  # it may be a rounded quotient
    if step.kind == "leaky_relu":
        return _constant(step).clamp(max=1.0)
    return torch.tensor(0.0 if step.function is None else step.function.lower_slope, dtype=torch.float64)


def upper_slopes(step: graph.Step) -> torch.Tensor:
    """Return what no slope of a pointwise step or a ``scale`` is above, one number or one a place; float64."""
    if step.kind == "scale":
        return _constant(step) + 2.0 * _UNIT_ROUNDOFF * _constant(step).abs()
    if step.kind == "leaky_relu":
        return _constant(step).clamp(min=1.0)
    return torch.tensor(1.0 if step.function is None else step.function.upper_slope, dtype=torch.float64)


def _constant(step: graph.Step) -> torch.Tensor:
    assert step.constant is not None
    return step.constant


def _bound_gather(step: graph.Step, input_shape: Sequence[int], norm: float) -> norms.NormBound:
    """Return the norm of what copies each number to so many places: the root of the largest count."""
    assert step.index is not None
    counts = torch.bincount(step.index[step.index >= 0].flatten(), minlength=math.prod(input_shape))
    most = int(counts.max())
    if norm == 2 and math.isqrt(most) ** 2 != most:
        root = math.sqrt(most)
        lower, upper = math.nextafter(root, 0.0), math.nextafter(root, math.inf)
        return norms.NormBound(upper=upper, lower=lower, norm=norm, method="copies", is_certified=True)
    return _known(float({1: most, 2: math.isqrt(most), math.inf: min(most, 1)}[norm]), norm, "copies")


def upper_constant(step: graph.Step, norm: float) -> float:
    """Return the Lipschitz constant of a softmax, its logarithm or a LayerNorm of n numbers, rounded up.

    With p the softmax, its derivative diag(p) - p p^T has absolute row and column sums 2 p_i (1 - p_i) <= 1/2, so that
    1/2 holds in every norm. That of its logarithm is I - 1 p^T: row sums at most 2, column sums at most
    (1 - p_j) + (n - 1) p_j <= n - 1, and as a projection it has the 2-norm of the complementary one,
    ||1|| ||p|| <= sqrt(n). A LayerNorm's is (I - 1 1^T / n - y y^T / n) / s, with y what it returns, s^2 the variance
    plus epsilon and ||y||^2 <= n: a symmetric matrix between 0 and 1 / s <= 1 / sqrt(epsilon); absolute row sums are at
    most sqrt(n) times that.
    """
    n = step.shape[-1]
    if step.kind == "softmax":
        return 0.5 if n > 1 else 0.0
    if step.kind == "log_softmax":
        if n == 1:
            return 0.0
        return {1: n - 1.0, 2: math.nextafter(math.sqrt(n), math.inf), math.inf: 2.0}[norm]
    epsilon = float(_constant(step))
    if not epsilon > 0.0:
        return math.inf if n > 1 else 0.0
    steepest = math.nextafter(1.0 / math.sqrt(epsilon) * (1.0 + norms.gamma(2)), math.inf)
    if n == 1:
        return 0.0
    return steepest if norm == 2 else math.nextafter(math.sqrt(n) * steepest * (1.0 + norms.gamma(2)), math.inf)


def upper_scale(step: graph.Step) -> torch.Tensor:
    """Return the absolute scales of a BatchNorm (one a channel) or a ``scale``, rounded up, in float64 on the CPU."""
    if step.kind == "scale":
        return _constant(step).abs()
    layer: Any = step.layer
    variance = layer.running_var.detach().cpu().to(torch.float64).numpy()
    weight = np.ones_like(variance)
    if layer.weight is not None:
        weight = np.abs(layer.weight.detach().cpu().to(torch.float64).numpy())
    with np.errstate(all="ignore"):
        # Three roundings, and one of the margin; zero only where the weight is.
        scale = np.nextafter(weight / np.sqrt(variance + layer.eps) * (1.0 + norms.gamma(4)), np.inf)
    if not np.isfinite(scale).all():
        raise ValueError(f"layer {step.name!r} must have finite scales, got {scale[~np.isfinite(scale)][0]}")
    return torch.from_numpy(np.where(weight > 0.0, scale, 0.0))


def folds(steps: Sequence[graph.Step]) -> dict[int, int]:
    """Return the BatchNorms that can be folded: their places, and those of the Linear or convolution before them.

    One can be where it is the only reader of that layer's output and has the same channels.
    """
    n_readers = count_readers(steps)
    found = {}
    for place, step in enumerate(steps):
        if step.kind == "batch_norm":
            before = step.inputs[0]
            if has_channels(steps[before]) and n_readers[before] == 1:
                found[place] = before
    return found


def has_channels(step: graph.Step) -> bool:
    """Return whether a step is a convolution or a Linear of vectors, so that its rows are channels of its output."""
    return step.kind == "convolution" or (step.kind == "linear" and len(step.shape) == 1)


def count_readers(steps: Sequence[graph.Step]) -> list[int]:
    """Return by how many steps each output is read; the network's own output counts as read once more."""
    counts = [0] * len(steps)
    for step in steps:
        for source in step.inputs:
            counts[source] += 1
    counts[-1] += 1
    return counts


def weights_of(step: graph.Step) -> torch.Tensor:
    """Return the weights of a Linear or a convolution in float64 on the CPU, which is exact."""
    layer: Any = step.layer
    weight: torch.Tensor = layer.weight.detach().cpu()
    if not weight.is_floating_point():
        raise TypeError(f"layer {step.name!r} must have real floating-point weights, got {weight.dtype}")
    return weight.to(torch.float64)


def multiply_channels(
    step: graph.Step, weight: torch.Tensor, rows: torch.Tensor | None, columns: torch.Tensor | None
) -> torch.Tensor:
    """Return the weights with each output channel multiplied by ``rows`` and each input channel by ``columns``."""
    ones = (1,) * (weight.ndim - 2)
    if rows is not None:
        weight = weight * rows.reshape(-1, 1, *ones)
    if columns is not None:
        n_groups = step.layer.groups if isinstance(step.layer, (nn.Conv1d, nn.Conv2d)) else 1
        by_group = columns.reshape(n_groups, -1).repeat_interleave(weight.shape[0] // n_groups, dim=0)
        weight = weight * by_group.reshape(*by_group.shape, *ones)
    return weight


def multiply(step: graph.Step, vectors: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return what a Linear or a convolution of these weights, without its bias, makes of vectors, shape (n, ...)."""
    layer: Any = step.layer
    if step.kind == "linear":
        return functional.linear(vectors, weight)
    convolve: Any = functional.conv2d if weight.ndim == 4 else functional.conv1d
    images: torch.Tensor = convolve(vectors, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return images


def multiply_up(a: float, b: float) -> float:
    """Return a b rounded up; exact if either is 0 or 1."""
    if a == 1.0 or b == 1.0:
        return a * b
    return math.nextafter(a * b, math.inf) if a != 0.0 and b != 0.0 else 0.0


def add_up(a: float, b: float) -> float:
    """Return a + b rounded up; exact if either is 0."""
    return math.nextafter(a + b, math.inf) if a != 0.0 and b != 0.0 else a + b


def _bound_weighted(
    step: graph.Step,
    input_shape: Sequence[int],
    norm: float,
    tolerance: float,
    rows: torch.Tensor | None,
    columns: torch.Tensor | None,
) -> norms.NormBound:
    weight = multiply_channels(step, weights_of(step), rows, columns)
    layer: Any = step.layer
    if not bool(weight.isfinite().all()) and bool(weights_of(step).isfinite().all()):  # the weighted ones are too large
        return norms.NormBound(upper=math.inf, lower=0.0, norm=norm, method="overflow", is_certified=True)
    try:
        if step.kind == "linear":
            bound = norms.bound_norm(weight.numpy(), norm=norm, tolerance=tolerance)
        else:
            bound = convolutions.bound_norm(
                weight,
                input_shape=tuple(input_shape[1:]),
                stride=layer.stride,
                padding=layer.padding,
                dilation=layer.dilation,
                groups=layer.groups,
                norm=norm,
                tolerance=max(tolerance, _CONVOLUTION_TOLERANCE),
            )
    except ValueError as error:
        raise ValueError(f"layer {step.name!r}: {error}") from error
    if rows is None and columns is None:
        return bound
    sizes = weight.abs().flatten(2) if weight.ndim > 2 else weight.abs().unsqueeze(2)
    # At most twice too small after its own roundings, and gamma_8 is more than twice gamma_3.
    schur = math.sqrt(float(sizes.sum(dim=(1, 2)).max())) * math.sqrt(float(sizes.sum(dim=(0, 2)).max()))
    rounding = math.nextafter(norms.gamma(8) * schur + weight.numel() * 2.0**-1073, math.inf)
    return dataclasses.replace(
        bound, upper=add_up(bound.upper, rounding), lower=max(0.0, bound.lower * (1.0 - 2.0**-48) - rounding)
    )


def _known(value: float, norm: float, method: str) -> norms.NormBound:
    return norms.NormBound(upper=value, lower=value, norm=norm, method=method, is_certified=True)
