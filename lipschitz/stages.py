"""A network prepared for tracing: what each stage does to values in float64, and to an error they carry.

A stage computes y = h(x) in float64 from values x that differ from the true ones by at most e in the 2-norm. Then y
differs from the true ones by at most

    e' = L e + r_in max ||x|| + r_out max ||y|| + r_0 ,

with L the Lipschitz constant of the exact h, never below the truth, and r_in, r_out, r_0 from its rounding:

*Affine, y = W x + b, n products a row.* |rounding| <= gamma_{n+1} (|W| |x| + |b|) entry by entry, whatever the order of
the sums (:mod:`lipschitz.norms`). A row's |w| |x| is at most ||w|| times the norm of what it reads, and an entry of x
is read by at most k places of a convolution's kernel; hence || |W| |x| || <= sqrt(k) ||kernel||_F ||x||. A matrix has
k = 1. A BatchNorm behind a convolution or a matrix is folded into it; its factors have a relative error of a few u,
which is counted as a few more terms of the sum.

Products below 2^-1022 lose up to 2^-1074 each, which r_0 holds. Where a computed number is not finite, e' is infinite,
whatever later stages make of it.

*Average pooling* is a matrix A with |A| = A, or -A. *Sums, products with a number*: one rounding, u |y| a time. *ReLU,
max-pooling, reshaping* do not round. *Smooth functions*, all at most 1, are assumed to be right to 16 u, not to so much
of their value: torch's Gaussian distribution function is 0 from -8.4 on.

The constants L come from :mod:`lipschitz.norms`, :mod:`lipschitz.convolutions`, :mod:`lipschitz.pooling` and
:data:`lipschitz.fully_connected.POINTWISE`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from lipschitz import convolutions, factors, graph, norms, pooling, reading

OUTWARD = 1.0 + 2.0**-28
"""Factor that covers the rounding of a few scalar operations, and of a norm of up to 16 million entries."""

UNDERFLOW = 1e-290
"""More than the 2-norm of what underflows in one stage: less than 2^-1074 for each product."""

_MAX_DENSE = 2**23  # entries of a convolution written as a matrix
_DENSE_GAIN = 2.5  # how much faster a product with a matrix is than a convolution, a multiplication (measured)

_NORM_TOLERANCE = 0.1  # of a layer's norm: an error bound need not be tighter

Kind = Literal["input", "map", "concatenate", "relu", "max_pool", "smooth", "grouped"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One operation in float64, and how an error passes through it (see the module's docstring).

    Parameters
    ----------
    name : str
        As the network names it.
    kind : str
        ``map`` is affine along the segment wherever its inputs are; ``relu`` (leaky, too), ``max_pool``, ``smooth``
        and ``grouped`` (functions of all numbers of the last axis) are not; errors of a ``concatenate`` add as squares.
    inputs : tuple of int
        The stages it reads, by their place.
    shape : tuple of int
        Of its output for one input.
    run : callable
        What it computes: from a list of tensors (n, ...), one an input, to a tensor (n, ...).
    upper_slope : float
        L, never below the Lipschitz constant in the 2-norm.
    rounding_in, rounding_out, rounding : float
        r_in, r_out and r_0.
    bend : float
        How strongly it is not affine: the change of slope at a bend of a ReLU or between two leaders of a window, the
        largest second derivative of a smooth function; of a ``grouped`` one, for a velocity of 2-norm one.
    kinks : tuple of (float, float)
        Where a smooth function's slope jumps besides, and by how much.
    epsilon : float
        For a LayerNorm: what it adds to the variance; positive. Its ``bend`` is that of a variance of 0.
    is_shift : bool
        Whether it takes one number away from all of the last axis, as the logarithm of a softmax does.
    is_clipped : bool
        For ``max_pool``: whether zero competes in every window, that is, whether a ReLU is part of it.
    layer : torch.nn.Module or None
        For ``max_pool``: its settings.
    failure_probability : float
        Chance that ``upper_slope`` is too small, from :mod:`lipschitz.convolutions`.
    """

    name: str
    kind: Kind
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    run: Callable[[Sequence[torch.Tensor]], torch.Tensor]
    upper_slope: float = 1.0
    rounding_in: float = 0.0
    rounding_out: float = 0.0
    rounding: float = 0.0
    bend: float = 0.0
    kinks: tuple[tuple[float, float], ...] = ()
    epsilon: float = 0.0
    is_shift: bool = False
    is_clipped: bool = False
    layer: Any = None
    failure_probability: float = 0.0

    def upper_error(self, errors: Sequence[float], before: torch.Tensor, after: torch.Tensor) -> float:
        """Return a bound of the error of ``after``, computed from ``before``, the first input, with such errors."""
        if not bool(after.isfinite().all()):
            return math.inf
        if self.kind == "concatenate":
            carried = math.hypot(*errors) * OUTWARD
        else:
            carried = functools.reduce(factors.add_up, errors)
        error = factors.add_up(factors.multiply_up(self.upper_slope, carried), self.rounding)
        if self.rounding_in:
            error = factors.add_up(error, factors.multiply_up(self.rounding_in, upper_size(before)))
        if self.rounding_out:
            error = factors.add_up(error, factors.multiply_up(self.rounding_out, upper_size(after)))
        return error


def prepare(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    device: torch.device,
    points: torch.Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Stage, ...]:
    """Return the stages of a network, the input first and the output last, weights widened to float64 on ``device``.

    Parameters
    ----------
    model : torch.nn.Module
        Of layers that :func:`lipschitz.reading.read` knows; not changed.
    input_shape : sequence of int
        Of one input, without the batch axis.
    device : torch.device
        Where the stages compute.
    points : Tensor, shape (n, ...), optional
        Inputs at which the reading of the network is checked, beside those of :func:`lipschitz.reading.read`.
    progress : callable, optional
        Called with how many of the network's steps are done and how many there are; norms take long.

    Raises
    ------
    ValueError
        If the network cannot be read, does not compute what was read, or a weight is not a finite number.
    """
    steps = reading.read(model, input_shape)
    if points is not None:
        reading.verify(model, steps, points)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if not torch.isfinite(tensor).all():
            raise ValueError(f"weights must be finite, got {name!r} with a number that is not")
    readers = [[j for j, step in enumerate(steps) if i in step.inputs] for i in range(len(steps))]
    stages: list[Stage] = []
    places: dict[int, int] = {}
    for i, step in enumerate(steps):
        if progress is not None:
            progress(i, len(steps))
        only_reader = steps[readers[i][0]] if len(readers[i]) == 1 else None
        before = steps[step.inputs[0]] if step.inputs else None
        if only_reader is not None and _is_one_stage(step, only_reader):
            continue
        absorbed = before if before is not None and step.inputs[0] not in places else None
        sources = absorbed.inputs if absorbed is not None else step.inputs
        with torch.no_grad():
            stages.append(
                _stage(step, absorbed, tuple(places[j] for j in sources), [steps[j].shape for j in sources], device)
            )
        places[i] = len(stages) - 1
    return tuple(stages)


def _is_one_stage(step: graph.Step, reader: graph.Step) -> bool:
    """Return whether a step and the only one that reads it become one stage."""
    if step.kind == "linear":
        return reader.kind == "batch_norm" and len(step.shape) == 1  # with more axes, the two count along others
    return (step.kind, reader.kind) in (("convolution", "batch_norm"), ("relu", "max_pool"))


def evaluate(stages: Sequence[Stage], inputs: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the outputs for exact inputs (n, ...), float64, shape (n, ...), and a bound of each one's error."""
    values, errors = [inputs], [0.0]
    for stage in stages[1:]:
        read = [values[i] for i in stage.inputs]
        values.append(stage.run(read))
        errors.append(stage.upper_error([errors[i] for i in stage.inputs], read[0], values[-1]))
    return values[-1], errors[-1]


def upper_size(values: torch.Tensor) -> float:
    """Return the largest 2-norm of a row, rounded up."""
    return float(norms.upper_length(values.flatten(1)).max())


def upper_gains(stages: Sequence[Stage]) -> list[float]:
    """Return, for every stage, a Lipschitz constant of the network's outputs as a function of that stage's output."""
    gains = [0.0] * len(stages)
    gains[-1] = 1.0
    for place in range(len(stages) - 1, 0, -1):
        for source in stages[place].inputs:
            gains[source] = factors.add_up(gains[source], factors.multiply_up(gains[place], stages[place].upper_slope))
    return gains


def _stage(
    step: graph.Step,
    absorbed: graph.Step | None,
    inputs: tuple[int, ...],
    shapes: Sequence[tuple[int, ...]],
    device: torch.device,
) -> Stage:
    unit = norms.gamma(1)
    layer: Any = step.layer
    same: dict[str, Any] = {"name": step.name, "inputs": inputs, "shape": step.shape}
    match step.kind:
        case "linear" | "convolution" | "batch_norm":
            return _affine(step, absorbed, inputs, shapes[0], device)
        case "relu" | "leaky_relu":
            below = None if step.constant is None else step.constant.to(device)
            return Stage(
                **same,
                kind="relu",
                run=lambda values: functional.relu(values[0]) if below is None else graph.apply(step, values),
                upper_slope=factors.upper_slope(step),
                rounding_out=0.0 if below is None else unit,
                rounding=0.0 if below is None else UNDERFLOW,
                bend=1.0 if below is None else float((1.0 - below).abs().max()) * OUTWARD,
            )
        case "smooth":
            assert step.function is not None
            root = math.sqrt(math.prod(step.shape)) * OUTWARD
            return Stage(
                **same,
                kind="smooth",
                run=lambda values: graph.apply(step, values),
                upper_slope=factors.upper_slope(step),
                rounding=(16.0 * unit + step.function.rounding) * root,
                rounding_out=16.0 * unit,  # some are not bounded
                bend=step.function.upper_curvature,
                kinks=step.function.kinks,
            )
        case "softmax" | "log_softmax" | "layer_norm":
            return _grouped(step, same)
        case "max_pool":
            return Stage(
                **same,
                kind="max_pool",
                run=lambda values: graph.apply(step, values).clamp_min(0.0 if absorbed else -math.inf),
                upper_slope=pooling.bound_max_pool(layer, shapes[0]).upper,
                bend=1.0,
                is_clipped=absorbed is not None,
                layer=layer,
            )
        case "average_pool":
            slope = pooling.bound_average_pool(layer, shapes[0]).upper
            rounding = norms.gamma(math.prod(shapes[0][1:]) + 2) * slope * OUTWARD
            return Stage(
                **same,
                kind="map",
                run=lambda values: layer(values[0]),
                upper_slope=slope,
                rounding_in=rounding,
                rounding=UNDERFLOW,
            )
        case "gather":
            index = torch.empty(0) if step.index is None else step.index.to(device)
            return Stage(
                **same,
                kind="map",
                run=lambda values: graph.gather(values[0], index),
                upper_slope=factors.bound_step(step, shapes[0], norm=2, tolerance=_NORM_TOLERANCE).upper,
            )
        case "scale":
            slope = float(factors.upper_scale(step).max())
        case _:
            slope = 1.0
    constant = torch.empty(0) if step.constant is None else step.constant.to(device)
    moved = dataclasses.replace(step, constant=constant)
    return Stage(
        **same,
        kind="concatenate" if step.kind == "concatenate" else "input" if step.kind == "input" else "map",
        run=lambda values: graph.apply(moved, values),
        upper_slope=slope,
        # a constant may be a rounded quotient
        rounding_out=4.0 * unit if step.kind in ("add", "scale", "shift") else 0.0,
        rounding=UNDERFLOW if step.kind == "scale" else 0.0,
    )


def _grouped(step: graph.Step, same: dict[str, Any]) -> Stage:
    """Return the stage of a softmax, its logarithm or a LayerNorm of n numbers x, and how it bends.

    Along a line with velocity v, with the softmax p: log p_i bends as the log-sum-exp, whose second derivative is the
    variance of v under p, at most ||v||^2 / 2; so || (log p)'' || <= sqrt(n) ||v||^2 / 2. As p' = p (v - <p, v>),
    p'' = p ((v - <p, v>)^2 - var), and || p'' || <= max (v_i - v_j)^2 <= 2 ||v||^2. A LayerNorm u / s, with
    s^2 = ||u||^2 / n + epsilon, has || (u / s)'' || <= 4 ||v||^2 / (sqrt(n) s^2): -2 v s' / s^2 gives half, as
    |s'| <= ||v|| / sqrt(n), and u (2 s'^2 / s^3 - s'' / s^2) the other, as ||u|| <= sqrt(n) s and
    0 <= s s'' = ||v||^2 / n - s'^2.
    """
    n, root, run = step.shape[-1], math.sqrt(math.prod(step.shape)), functools.partial(graph.apply, step)
    epsilon = float(step.constant) if step.kind == "layer_norm" and step.constant is not None else 0.0
    if step.kind == "layer_norm":
        if not epsilon > 0.0:
            raise ValueError(f"layer {step.name!r} must add a positive number to the variance, got {epsilon}")
        run = functools.partial(_layer_norm, epsilon)
        gamma = norms.gamma(n + 16)
        bend, rounding_in = 4.0 / (math.sqrt(n) * epsilon), 2.0 * gamma * factors.upper_constant(step, 2)
    else:
        gamma = norms.gamma(n + 64)
        bend, rounding_in = (2.0 if step.kind == "softmax" else 0.5 * math.sqrt(n)), 0.0
    return Stage(
        **same,
        kind="grouped",
        run=run,
        upper_slope=factors.upper_constant(step, 2),
        rounding_in=rounding_in * OUTWARD,
        rounding_out=32.0 * norms.gamma(1),
        rounding=gamma * root * OUTWARD,
        bend=bend * OUTWARD,
        epsilon=epsilon,
        is_shift=step.kind == "log_softmax",
    )


def _layer_norm(epsilon: float, values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return (x - mean) / sqrt(variance + epsilon), the mean taken away first.

    The mean of n numbers is off by gamma_n ||x|| / sqrt(n), so that the deviations are by some 2 gamma_n ||x||;
    dividing by their root is Lipschitz with 1 / sqrt(epsilon) and rounds by gamma_{n + 8} of what it returns.
    """
    centred = values[0] - values[0].mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()


def _affine(
    step: graph.Step,
    absorbed: graph.Step | None,
    inputs: tuple[int, ...],
    shape: tuple[int, ...],
    device: torch.device,
) -> Stage:
    """Return the stage of a matrix, a convolution, or a BatchNorm with or without one of them before it."""
    like = torch.zeros((), dtype=torch.float64, device=device)
    source = absorbed if absorbed is not None else step
    layer: Any = source.layer
    weight, bias, bias_size = None, None, like
    lost_in, lost = 0.0, 0.0  # of the weights and of the bias, by products with a BatchNorm's scale that underflow
    if source.kind != "batch_norm":
        weight = factors.weights_of(source).to(like)
        if layer.bias is not None:
            bias = layer.bias.detach().to(like)
            bias_size = bias.abs()
    if step.kind == "batch_norm":
        normalisation: Any = step.layer
        scale, shift = graph.batch_norm(normalisation, like)
        lost_in = 2.0**-1072 * (1.0 if weight is None else weight.numel() * (1.0 + _length(weight)))
        lost = 2.0**-1072 * (len(scale) + _length(bias_size) + _length(normalisation.running_mean.to(like)))
        added = like if normalisation.bias is None else normalisation.bias.detach().to(like).abs()
        bias_size = scale.abs() * (bias_size + normalisation.running_mean.to(like).abs()) + added
        bias = shift if bias is None else bias * scale + shift
        weight = scale if weight is None else weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    assert weight is not None
    if not bool(weight.isfinite().all()):
        raise ValueError(
            f"layer {step.name!r} must have scales, and weights times them, below 1.8e308, got larger ones"
        )
    if source.kind == "convolution":
        run, bound, frobenius, fan_in = _convolution(weight, bias, layer, shape, math.prod(step.shape))
    elif source.kind == "linear":
        matrix, vector = weight, bias
        run, fan_in = (lambda values: functional.linear(values[0], matrix, vector)), weight.shape[1]
        bound, frobenius = norms.bound_norm(weight.cpu().numpy(), tolerance=_NORM_TOLERANCE), _length(weight)
    else:
        axes = (1, -1, *(1,) * (len(shape) - 1))
        factor, offset = weight.reshape(axes), bias.reshape(axes)  # type: ignore[union-attr]
        run, fan_in = (lambda values: values[0] * factor + offset), 1
        frobenius = float(weight.abs().max())
        bound = norms.bound_norm(weight.abs().max().reshape(1, 1).cpu().numpy())
    gamma = norms.gamma(fan_in + 16)  # the sum with its bias, and the few roundings of a folded BatchNorm
    n_places = math.prod(step.shape) // len(bias) if bias is not None else 0
    return Stage(
        name=step.name,
        kind="map",
        inputs=inputs,
        shape=step.shape,
        run=run,
        upper_slope=factors.add_up(
            bound.upper, factors.add_up(factors.multiply_up(norms.gamma(16), frobenius), lost_in)
        ),
        rounding_in=factors.add_up(factors.multiply_up(gamma, frobenius), lost_in),
        rounding=math.sqrt(n_places) * OUTWARD * (factors.multiply_up(gamma, _length(bias_size)) + lost) + UNDERFLOW,
        failure_probability=bound.failure_probability,
    )


def _length(numbers: torch.Tensor) -> float:
    """Return the 2-norm of all numbers, rounded up."""
    return float(norms.upper_length(numbers.reshape(-1)))


def _convolution(
    weight: torch.Tensor, bias: torch.Tensor | None, layer: Any, shape: tuple[int, ...], n_outputs: int
) -> tuple[Callable[[Sequence[torch.Tensor]], torch.Tensor], norms.NormBound, float, int]:
    """Return what runs the convolution, its norm, sqrt(k) ||kernel||_F, and the products of one sum."""
    is_flat = isinstance(layer, nn.Conv1d)
    flat = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    bound = convolutions.bound_norm(
        weight, input_shape=shape[1:], **flat, groups=layer.groups, tolerance=_NORM_TOLERANCE
    )
    if is_flat:  # a convolution of two axes, one of them of length 1
        weight, shape = weight[:, :, None, :], (shape[0], 1, shape[1])
        flat = {name: (1 if name != "padding" else 0, *value) for name, value in flat.items()}

    def convolve(images: torch.Tensor, offset: torch.Tensor | None) -> torch.Tensor:
        # Without cuDNN, whose algorithms do not all sum products: gamma_n holds for those that do.
        with torch.backends.cudnn.flags(enabled=False):
            return functional.conv2d(images, weight, offset, **flat, groups=layer.groups)

    # A tap reads an entry only if dilation * tap meets it modulo the stride: one in stride / gcd of the kernel's taps.
    n_readers = math.prod(
        math.ceil(size * math.gcd(stride, dilation) / stride)
        for size, stride, dilation in zip(weight.shape[2:], flat["stride"], flat["dilation"], strict=True)
    )
    frobenius = math.sqrt(n_readers) * OUTWARD * _length(weight)
    n_inputs = math.prod(shape)
    cost = weight[0].numel() * n_outputs
    if n_inputs * n_outputs > min(_MAX_DENSE, _DENSE_GAIN * cost):

        def run(values: Sequence[torch.Tensor]) -> torch.Tensor:
            images = values[0].unsqueeze(2) if is_flat else values[0]
            made = convolve(images, bias)
            return made.squeeze(2) if is_flat else made
    else:
        basis = torch.eye(n_inputs, dtype=torch.float64, device=weight.device).reshape(n_inputs, *shape)
        columns = convolve(basis, None)
        out_shape = columns.shape[1:] if not is_flat else columns.squeeze(2).shape[1:]
        matrix = columns.flatten(1).T.contiguous()
        vector = None if bias is None else bias.repeat_interleave(n_outputs // len(bias))

        def run(values: Sequence[torch.Tensor]) -> torch.Tensor:
            return functional.linear(values[0].flatten(1), matrix, vector).reshape(-1, *out_shape)

    return run, bound, frobenius, weight[0].numel()
