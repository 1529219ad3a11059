"""Slopes that a network really attains: no Lipschitz constant is below them.

The search looks for a point with a steep derivative; the answer is a secant, ||f(x) - f(y)||_p / ||x - y||_p of two
points that are part of the record, so that anyone can check it. A secant bounds the Lipschitz constant from below
whether or not the network is differentiable there. Like :mod:`lipschitz.upper`, this is about the exact function of the
stored weights in evaluation mode: the secant is computed in float64 on the CPU, and what rounding may have added is
taken off.

Rounding. For the layers that :mod:`lipschitz.upper` knows, a bound e of the error's 2-norm runs along with the values.
A Linear with n inputs makes of it ||W||_2 e + gamma_{n+2} || |W| |x| + |b| ||_2, a pointwise function of slope L makes
L e + 8 u ||max(1, |value|)||_2; the last term supposes that the library's tanh, erf, sin, ... are within 8 u of the
true value, relatively or absolutely, u = 2^-53 (they claim a few units in the last place). For any other layer there is
no such bound: the secant is reported as computed and ``is_certified`` is False.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import nn

from lipschitz import norms, upper

_UNIT_ROUNDOFF = 2.0**-53
# Distances of the two points of a secant: long ones lose to curvature and kinks, short ones to rounding.
_SEPARATIONS = tuple(10.0 ** (-exponent / 2.0) for exponent in range(15))
# Lengths of a random jump: from within a linear region to across many.
_SHORTEST_JUMP, _LONGEST_JUMP = 1e-2, 2e1
# Layers that only copy, move or drop numbers.
_EXACT = (nn.ReLU, nn.Identity, nn.Dropout, nn.Flatten)

_Factors = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowerBound:
    """A number that the Lipschitz constant is not below, and where it is attained.

    Parameters
    ----------
    value : float
        The secant, less ``rounding``.
    norm : float
        The exponent p of the norm of inputs and outputs: 1, 2 or inf.
    points : Tensor, shape (2, ...), float64
        Two inputs, on the CPU, between which the network has this slope.
    rounding : float
        What was taken off the computed secant.
    derivative : float
        The operator norm of the derivative between the two points, in float64, rounding not accounted for: what the
        secant approaches when the points do.
    start_value : float
        The largest derivative among the starts, before the search.
    n_starts, n_steps : int
        Size of the search.
    method : str
        How it was found.
    is_certified : bool
        Whether ``rounding`` is a bound of the rounding. If not, ``value`` is the computed secant.
    """

    value: float
    norm: float
    points: torch.Tensor
    rounding: float
    derivative: float
    start_value: float
    n_starts: int
    n_steps: int
    method: str
    is_certified: bool


def lower_gradient_ascent(
    model: nn.Module, starts: torch.Tensor, *, generator: torch.Generator, norm: float = 2, n_steps: int = 100
) -> LowerBound:
    """Return the steepest slope found by climbing from ``starts``.

    The height of a point x is the operator norm of the derivative J(x) in the p-norm: for a scalar output the dual norm
    of the gradient. All starts climb at once, each keeping its best point. Odd steps jump in a random direction, by a
    length drawn log-uniformly in [0.01, 20], across the linear regions of piecewise linear networks; even steps follow
    the gradient of the height, where there is one, by a length that doubles on success and is halved on failure.

    Parameters
    ----------
    model : torch.nn.Module
        Maps (n, ...) to (n, ...), each input alone, differentiable almost everywhere. It is copied, and left as it is.
    starts : Tensor, shape (n_starts, ...)
        Where to begin; finite. Draw them as the inputs of the network are.
    generator : torch.Generator
        On the CPU; the only source of randomness.
    norm : {1, 2, inf}
        The exponent p, for inputs and for outputs, over all their numbers.
    n_steps : int
        Steps of the search, at least 0.

    Returns
    -------
    LowerBound
        ``value`` is 0 if no slope beyond rounding was found.

    Raises
    ------
    ValueError
        If a number is out of range, the starts are not a batch of finite numbers, the outputs are not a batch of the
        same length, or the network is not finite at any start.

    Notes
    -----
    A search gives no promise to find the steepest place: ``value`` may be far below the Lipschitz constant. Cost: a
    step is a forward and a backward pass for each number in an output, and on even steps a pass through both again.
    The search runs in the model's own precision and on its device; the secant does not.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, dtype=torch.float64)
    >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> generator = torch.Generator().manual_seed(0)
    >>> bound = lower_gradient_ascent(layer, torch.zeros(1, 2), generator=generator, n_steps=1)
    >>> 5.0 - 1e-12 < bound.value <= 5.0, bound.is_certified
    (True, True)
    """
    norms.check_norm(norm)
    if n_steps < 0:
        raise ValueError(f"n_steps must be at least 0, got {n_steps}")
    if starts.ndim < 2 or starts.numel() == 0 or not bool(torch.isfinite(starts).all()):
        raise ValueError(f"starts must be a batch of finite numbers, got shape {tuple(starts.shape)}")
    own = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.enable_grad(), torch.inference_mode(False):
        best, start_value = _climb(own, starts.detach().clone(), norm, n_steps, generator)
        exact = own.to("cpu").to(torch.float64)
        factors = _rounding_factors(exact, tuple(starts.shape[1:]))
        points, value, rounding, derivative = _best_secant(exact, best.to("cpu").to(torch.float64), norm, factors)
    return LowerBound(
        value=value,
        norm=norm,
        points=points,
        rounding=rounding,
        derivative=derivative,
        start_value=start_value,
        n_starts=len(starts),
        n_steps=n_steps,
        method="gradient ascent and random jumps",
        is_certified=factors is not None,
    )


def _climb(
    model: nn.Module, starts: torch.Tensor, norm: float, n_steps: int, generator: torch.Generator
) -> tuple[torch.Tensor, float]:
    """Return the steepest point found, shape (1, ...), and the largest height among the starts."""
    weights = next(iter(model.parameters()), starts)
    points = starts.to(device=weights.device, dtype=weights.dtype)
    heights, uphill = _heights(model, points, norm)
    if not bool(torch.isfinite(heights).any()):
        raise ValueError("model must have a finite derivative at one of the starts at least, got none")
    start_value = float(heights[torch.isfinite(heights)].max())
    heights = torch.nan_to_num(heights, nan=-1.0, posinf=-1.0)
    radii = torch.ones_like(heights)
    for step in range(n_steps):
        if step % 2 == 0:
            moves = _per_point(radii, points) * _unit(uphill)
        else:
            moves = _jumps(points.shape, generator).to(points)
        tried = points + moves
        tried_heights, tried_uphill = _heights(model, tried, norm)
        is_better = tried_heights > heights  # never for a height that is not a number
        is_better &= torch.isfinite(tried_heights)
        if step % 2 == 0:
            radii = torch.where(is_better, 2.0 * radii, 0.5 * radii)
        chosen = _per_point(is_better, points)
        points = torch.where(chosen, tried, points)
        uphill = torch.where(chosen, tried_uphill, uphill)
        heights = torch.where(is_better, tried_heights, heights)
    steepest = int(heights.argmax())
    return points[steepest : steepest + 1], start_value


def _jumps(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Return random directions, of lengths log-uniform between the shortest and the longest jump."""
    directions = _unit(torch.randn(shape, generator=generator, dtype=torch.float64))
    exponents = torch.rand(shape[0], generator=generator, dtype=torch.float64)
    return _per_point(_SHORTEST_JUMP * (_LONGEST_JUMP / _SHORTEST_JUMP) ** exponents, directions) * directions


def _per_point(values: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    return values.reshape(-1, *[1] * (points.ndim - 1))


def _unit(directions: torch.Tensor) -> torch.Tensor:
    """Return the directions at length one each; zero stays zero."""
    lengths = directions.flatten(1).norm(dim=1)
    return directions / _per_point(torch.where(lengths > 0.0, lengths, torch.ones_like(lengths)), directions)


def _heights(model: nn.Module, points: torch.Tensor, norm: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the operator norms of the derivatives, shape (n,), and their gradients, zero where there is none."""
    points = points.detach().requires_grad_()
    heights = _operator_norms(_jacobians(model, points), norm)
    if not heights.requires_grad:  # a linear model
        return heights, torch.zeros_like(points)
    (uphill,) = torch.autograd.grad(heights.sum(), points, materialize_grads=True)
    return heights.detach(), torch.nan_to_num(uphill, nan=0.0, posinf=0.0, neginf=0.0)


def _jacobians(model: nn.Module, points: torch.Tensor) -> torch.Tensor:
    """Return the derivatives, shape (n, n_outputs, n_inputs), with a graph."""
    outputs = model(points)
    if outputs.ndim == 0 or len(outputs) != len(points):
        raise ValueError(
            f"model must return a batch as long as its input, got shapes {tuple(outputs.shape)} "
            f"from {tuple(points.shape)}"
        )
    outputs = outputs.reshape(len(points), -1)
    if not outputs.requires_grad:
        return torch.zeros(*outputs.shape, points[0].numel(), device=points.device, dtype=points.dtype)
    rows = [
        torch.autograd.grad(column.sum(), points, create_graph=True, materialize_grads=True)[0].flatten(1)
        for column in outputs.unbind(1)
    ]
    return torch.stack(rows, dim=1)


def _operator_norms(jacobians: torch.Tensor, norm: float) -> torch.Tensor:
    """Return max ||J v||_p over ||v||_p = 1 for each of (n, n_outputs, n_inputs)."""
    if norm == 1:
        return jacobians.abs().sum(dim=1).amax(dim=1)
    if norm == math.inf:
        return jacobians.abs().sum(dim=2).amax(dim=1)
    if jacobians.shape[1] == 1:
        lengths: torch.Tensor = torch.linalg.vector_norm(jacobians[:, 0], dim=1)
    else:
        lengths = torch.linalg.matrix_norm(jacobians, ord=2)
    return lengths


def _steepest_direction(jacobian: torch.Tensor, norm: float) -> torch.Tensor:
    """Return a v of p-norm one with the largest ||J v||_p, shape (n_inputs,)."""
    if norm == 1:
        return nn.functional.one_hot(jacobian.abs().sum(dim=0).argmax(), jacobian.shape[1]).to(jacobian)
    if norm == math.inf:
        row = jacobian[jacobian.abs().sum(dim=1).argmax()]
        return torch.where(row < 0.0, -torch.ones_like(row), torch.ones_like(row))
    direction: torch.Tensor = torch.linalg.svd(jacobian, full_matrices=False).Vh[0]
    return direction


def _best_secant(
    model: nn.Module, point: torch.Tensor, norm: float, factors: _Factors | None
) -> tuple[torch.Tensor, float, float, float]:
    """Return (points, value, rounding, derivative) of the best secant through ``point``, all in float64."""
    jacobian = _jacobians(model, point.detach().requires_grad_()).detach()
    derivative = float(_operator_norms(jacobian, norm)[0])
    direction = _steepest_direction(jacobian[0], norm).reshape(point.shape[1:])
    sides = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    best = (point.repeat(2, *[1] * (point.ndim - 1)), 0.0, 0.0)
    with torch.no_grad():
        for separation in _SEPARATIONS:
            points = point + _per_point(sides * separation, point) * direction
            value, rounding = _secant(model, points, norm, factors)
            if value > best[1]:
                best = (points, value, rounding)
    return *best, derivative


def _secant(model: nn.Module, points: torch.Tensor, norm: float, factors: _Factors | None) -> tuple[float, float]:
    """Return the slope between two points, less its rounding, and the rounding; 0 for coinciding points."""
    values, error = (model(points), 0.0) if factors is None else _run_with_errors(model, points, factors)
    values = values.flatten(1)
    rise = float(torch.linalg.vector_norm(values[1] - values[0], ord=norm))
    run = float(torch.linalg.vector_norm((points[1] - points[0]).flatten(), ord=norm))
    if run == 0.0 or not math.isfinite(rise + error):
        return 0.0, 0.0
    rounding = 0.0
    if factors is not None:
        if norm == 1:  # the 1-norm of an error is at most sqrt(length) times its 2-norm
            error *= math.sqrt(values.shape[1])
        # Both norms, the differences in them, and the division are rounded too.
        rounding = (error + norms.gamma(values.shape[1] + points[0].numel() + 16) * (rise + error)) / run
    return max(0.0, rise / run - rounding), rounding


def _run_with_errors(model: nn.Module, points: torch.Tensor, factors: _Factors) -> tuple[torch.Tensor, float]:
    """Return the values at two points and the sum of the 2-norms of their rounding errors, at most."""
    values, errors = points, torch.zeros(len(points), dtype=torch.float64)
    for (_, layer), (_, factor) in zip(upper.walk_layers(model), factors, strict=True):
        before, values = values, layer(values)
        errors = factor * errors
        if isinstance(layer, nn.Linear):
            bias = None if layer.bias is None else layer.bias.abs()
            sizes = nn.functional.linear(before.abs(), layer.weight.abs(), bias)
            errors += norms.gamma(layer.in_features + 2) * sizes.flatten(1).norm(dim=1)
        elif not isinstance(layer, _EXACT):
            errors += 8.0 * _UNIT_ROUNDOFF * values.abs().clamp(min=1.0).flatten(1).norm(dim=1)
        # The bound's own sums are rounded; they have no negative terms.
        errors *= 1.0 + norms.gamma(before[0].numel() + values[0].numel() + 16)
    return values, float(errors.sum())


def _rounding_factors(model: nn.Module, input_shape: tuple[int, ...]) -> _Factors | None:
    """Return by how much each layer may stretch an error, in the 2-norm, or None if a layer is not known."""
    if any(upper.refusal(layer) is not None for _, layer in upper.walk_layers(model)):
        return None
    return upper.upper_product(model, input_shape, norm=2, tolerance=0.01).factors
