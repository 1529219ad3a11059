"""Bounds through products of linear maps: LipLT's loop transformation, for any graph of layers.

A pointwise function phi with slopes in [low, high] is phi(z) = c z + psi(z) with c = (low + high) / 2, and psi moves by
at most r |dz|, r = (high - low) / 2. Put so, every step's output is a sum of linear maps of *sources*: the input x, and
the psi of each pointwise step before it. Between two inputs,

    dz = M_0 dx + sum_j M_j dpsi_j ,    ||dz|| <= ||M_0|| ||dx|| + sum_j ||M_j|| r_j m_j ||dx|| ,

where m_j is the bound of what psi_j reads, by the same formula: as the M are products of layers, with the c between
them, their norms are smaller than the products of the layers' norms (Fazlyab et al. 2023, for chains and p = 2). A
residual sum adds the maps of its two branches before a norm is taken, which no product of norms can; a concatenation
puts them side by side. Max pooling begins with a source of its own and no linear part. At every step the smaller of
this bound and the one composed of the steps' constants is kept, so that the result is never above the product bound.
(The proof uses the triangle inequality only: any p.)

Rounding. Each computed map carries a bound e of its distance to the true one, in the p-norm. A linear step A with n
products a sum makes of it |A| e + gamma_n |A| F(M), |A| a bound of the p-norm of the absolute values of A
(the root of its 1- and inf-norms for p = 2), F the Frobenius norm for p = 2, else the p-norm: both do not see signs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lipschitz import factors, graph, norms, reading, upper

_MOST_NUMBERS = 2**26  # of the maps of one step: 512 MB
_OUTWARD = 1.0 + 2.0**-20  # covers the rounding of the sums that make an error, of a million numbers and more
_UNDERFLOW = 2.0**-1000  # of one number
_SOURCES = (*graph.POINTWISE, *graph.GROUPED, "max_pool")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Map:
    """A linear map of one source, shape (length of the source, *shape of the output), and its rounding, at most."""

    columns: torch.Tensor
    error: float


def upper_liplt(
    model: nn.Module, input_shape: Sequence[int], *, norm: float = 2, tolerance: float = 1e-6
) -> upper.UpperBound:
    """Return the LipLT bound of a network, composed of norms of products of its layers.

    Parameters
    ----------
    model : torch.nn.Module
        Any that :func:`lipschitz.reading.read` can read, if it is small: matrices of all inputs and neurons are made.
    input_shape : sequence of int
        Of one input, without the batch axis.
    norm : {1, 2, inf}
        The exponent p.
    tolerance : float
        Relative gap at which the norm of a matrix is tight enough, in (0, 1).

    Returns
    -------
    UpperBound
        Certified, without factors; not above the product bound, up to ``tolerance`` a layer.

    Raises
    ------
    ValueError
        If the model cannot be read, holds numbers that are not finite, or has a step whose maps have more than 2^26
        numbers; the message names it.
    TypeError
        If weights are not real floating-point numbers.

    Notes
    -----
    Cost for h hidden layers of n neurons: h^2 / 2 products and norms of n x n matrices. Worth it for deep networks
    and for residual blocks; one-signed or nearly linear slopes gain most, slopes in [-1, 1] (the sine) nothing.

    References
    ----------
    Fazlyab, Entesari, Roy, Chellappa, Certified Robustness via Dynamic Margin Maximization and Improved Lipschitz
    Regularization, NeurIPS 2023, arXiv:2310.00116 (Sec. 3, LipLT).

    Examples
    --------
    A matrix and its transpose's inverse around a ReLU: half of the product is that of the identity.

    >>> first, last = (nn.Linear(2, 2, bias=False, dtype=torch.float64) for _ in range(2))
    >>> _ = first.weight.data.copy_(torch.diag(torch.tensor([4.0, 0.25])))
    >>> _ = last.weight.data.copy_(torch.diag(torch.tensor([0.25, 4.0])))
    >>> round(upper_liplt(nn.Sequential(first, nn.ReLU(), last), (2,)).value, 5)  # (1 + 16) / 2
    8.5
    """
    norms.check_norm(norm)
    steps = reading.read(model, input_shape)
    maps: list[dict[int, _Map]] = []  # of each step, by the source
    moves: dict[int, float] = {0: 1.0}  # how far each source moves, at most
    bounds: list[float] = []
    failure = 0.0
    for place, step in enumerate(steps):
        read = [maps[source] for source in step.inputs]
        lengths = {key: len(part.columns) for branch in read for key, part in branch.items()}
        if sum(lengths.values(), start=math.prod(step.shape)) * math.prod(step.shape) > _MOST_NUMBERS:
            raise ValueError(f"step {step.name!r} must have maps of at most {_MOST_NUMBERS} numbers")
        if step.kind == "input":
            bounds.append(1.0)
            maps.append({place: _identity(step)})
            continue
        below = [bounds[source] for source in step.inputs]
        if step.kind == "add":
            bounds.append(factors.add_up(below[0], below[-1]))
            maps.append(_add(read))
            continue
        if step.kind == "concatenate":
            bounds.append(upper.combine_up(below, norm))
            maps.append(_concatenate(step, read))
            continue
        constant = factors.bound_step(step, steps[step.inputs[0]].shape, norm=norm, tolerance=tolerance)
        failure = factors.add_up(failure, constant.failure_probability)
        if step.kind in _SOURCES:
            below[0] = bounds[step.inputs[0]] = min(below[0], _total(read[0], moves, norm, tolerance))
            centre, radius = _split(step, constant.upper)
            moves[place] = factors.multiply_up(radius, below[0])
            maps.append({key: _scale(part, centre, norm) for key, part in read[0].items() if bool(centre.any())})
            maps[-1][place] = _identity(step)
        else:
            maps.append({key: _apply(step, part, steps[step.inputs[0]].shape, norm) for key, part in read[0].items()})
        bounds.append(factors.multiply_up(constant.upper, below[0]))
    return upper.UpperBound(
        value=min(bounds[-1], _total(maps[-1], moves, norm, tolerance)),
        norm=norm,
        factors=(),
        method="liplt",
        is_certified=True,
        relative_gap=0.0,
        failure_probability=failure,
    )


def _split(step: graph.Step, upper_slope: float) -> tuple[torch.Tensor, float]:
    """Return c, one number or one a place, and r of a step that is not linear; c = 0 where it has no linear part."""
    if step.kind not in graph.POINTWISE:
        return torch.zeros((), dtype=torch.float64), upper_slope
    low, high = factors.lower_slopes(step), factors.upper_slopes(step)
    centre = 0.5 * (low + high)
    return centre, math.nextafter(float(torch.maximum(high - centre, centre - low).max()), math.inf)


def _total(maps: Mapping[int, _Map], moves: Mapping[int, float], norm: float, tolerance: float) -> float:
    """Return the bound of a sum of maps of sources."""
    total = 0.0
    for key, part in maps.items():
        if not bool(part.columns.isfinite().all()):
            return math.inf
        bound = norms.bound_norm(part.columns.reshape(len(part.columns), -1).T.numpy(), norm=norm, tolerance=tolerance)
        total = factors.add_up(total, factors.multiply_up(factors.add_up(bound.upper, part.error), moves[key]))
    return total


def _identity(step: graph.Step) -> _Map:
    n = math.prod(step.shape)
    return _Map(columns=torch.eye(n, dtype=torch.float64).reshape(n, *step.shape), error=0.0)


def _scale(part: _Map, numbers: torch.Tensor, norm: float) -> _Map:
    """Return a map times numbers, one or one a place; they may be rounded quotients."""
    columns = part.columns * numbers
    largest = float(numbers.abs().max())
    rounding = norms.gamma(3) * _size(columns, norm) + _UNDERFLOW * columns.numel()
    return _Map(columns=columns, error=_OUTWARD * (largest * part.error + rounding))


def _add(read: Sequence[Mapping[int, _Map]]) -> dict[int, _Map]:
    """Return the maps of a sum; of something and itself, where it is read once."""
    first, second = dict(read[0]), read[-1]
    for key, part in second.items():
        if key not in first:
            first[key] = part
            continue
        columns = first[key].columns + part.columns
        # Frobenius norms, 1- and inf-norms of a matrix are all at most the sum of its entries.
        rounding = norms.gamma(1) * float(columns.abs().sum())
        first[key] = _Map(columns=columns, error=_OUTWARD * (first[key].error + part.error + rounding))
    return first


def _concatenate(step: graph.Step, read: Sequence[Mapping[int, _Map]]) -> dict[int, _Map]:
    """Return the maps side by side, zeros where a branch does not read a source."""
    axis = 1 + step.axis
    shapes = [next(iter(maps.values())).columns.shape[1:] for maps in read]
    found = {}
    for key in {key: None for maps in read for key in maps}:
        n_source = next(len(maps[key].columns) for maps in read if key in maps)
        blocks = [
            maps[key].columns if key in maps else torch.zeros(n_source, *shape, dtype=torch.float64)
            for maps, shape in zip(read, shapes, strict=True)
        ]
        error = sum(maps[key].error for maps in read if key in maps)
        found[key] = _Map(columns=torch.cat(blocks, dim=axis), error=_OUTWARD * error)
    return found


def _apply(step: graph.Step, part: _Map, shape: Sequence[int], norm: float) -> _Map:
    """Return what a linear step with one input makes of a map."""
    if step.kind in ("linear", "convolution"):
        weight = factors.weights_of(step)
        columns = factors.multiply(step, part.columns, weight)
        sizes = weight.abs().reshape(*weight.shape[:2], -1)
        sums = {1: float(sizes.sum(dim=(0, 2)).max()), math.inf: float(sizes.sum(dim=(1, 2)).max())}
        size = sums[norm] if norm in sums else math.sqrt(sums[1]) * math.sqrt(sums[math.inf])
        rounding = norms.gamma(weight[0].numel())
    elif step.kind == "average_pool":
        columns = graph.apply(step, [part.columns])
        size = factors.bound_step(step, shape, norm=norm, tolerance=0.1).upper
        rounding = norms.gamma(math.prod(shape) + 4)
    elif step.kind == "batch_norm":
        layer: Any = step.layer
        scale = graph.batch_norm(layer, part.columns)[0]
        columns = part.columns * scale.reshape(1, -1, *(1,) * (part.columns.ndim - 2))
        size, rounding = float(factors.upper_scale(step).max()) + _UNDERFLOW, norms.gamma(16)
    elif step.kind == "scale":
        return _scale(part, graph.constant(step, part.columns), norm)
    elif step.kind == "shift":
        return part
    else:  # reshape, gather
        size = factors.bound_step(step, shape, norm=norm, tolerance=0.1).upper
        return _Map(columns=graph.apply(step, [part.columns]), error=size * part.error * _OUTWARD)
    rounding = size * (part.error + rounding * _size(part.columns, norm)) + _UNDERFLOW * columns.numel()
    return _Map(columns=columns, error=_OUTWARD * rounding)


def _size(columns: torch.Tensor, norm: float) -> float:
    """Return the Frobenius norm of a map for p = 2, else its p-norm."""
    sizes = columns.reshape(len(columns), -1).abs()
    if norm == 2:
        return float(norms.upper_length(sizes.flatten()))
    return float(sizes.sum(dim=1 if norm == 1 else 0).max())
