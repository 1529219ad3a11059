"""Slopes that a network really attains: no Lipschitz constant is below them.

The search looks for a point with a steep derivative; the answer is a secant, ||f(x) - f(y)||_p / ||x - y||_p of two
points that are part of the record, so that anyone can check it. A secant bounds the Lipschitz constant from below
whether or not the network is differentiable there. Like :mod:`lipschitz.upper`, this is about the exact function of the
stored weights in evaluation mode: the secant is computed in float64 on the CPU, and what rounding may have added is
taken off.

Rounding. For networks that :mod:`lipschitz.graph` can read, a bound of the error's 2-norm runs along with the values
(:mod:`lipschitz.stages`) and is taken off. It grows with the product of the layers' norms: where it leaves less
than half of the slope, and for any other network, the slope is reported as computed and ``is_certified`` is False.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import nn

from lipschitz import derivatives, norms, pooling, stages

# Distances of the two points of a secant: long ones lose to curvature and kinks, short ones to rounding.
_SEPARATIONS = tuple(10.0 ** (-exponent / 2.0) for exponent in range(15))
# Lengths of a random jump: from within a linear region to across many.
_SHORTEST_JUMP, _LONGEST_JUMP = 1e-2, 2e1
_FIRST_RADIUS = 1.0
_TINY = 2.0**-900  # slopes below are not looked for: there the relative rounding of float64 ends
# Of the power method where there are many outputs: during the search, from the direction before, and at its end.
_POWER_STEPS, _LAST_POWER_STEPS = 3, 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowerBound:
    """A number that the Lipschitz constant is not below, and where it is attained.

    Parameters
    ----------
    value : float
        The secant, less ``rounding``, if certified.
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
        Whether ``rounding`` is a bound of the rounding. If not, ``value`` is the smaller of computed secant and
        derivative, and ``rounding`` is 0.
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
    length drawn log-uniformly in [0.01, 20], across the linear regions of piecewise linear networks. Even steps follow
    the gradient of a secant through x in its steepest direction, by the length of that secant, which doubles on success
    and is halved on failure: long secants feel neighbouring regions, short ones are derivatives.

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
        same length, or the network is not finite at any start; if a max pooling has a window in its padding alone, of
        which torch's gradient would write outside of memory.
    TypeError
        If weights are not real floating-point numbers.

    Notes
    -----
    A search gives no promise to find the steepest place: ``value`` may be far below the Lipschitz constant. Cost: a
    step is a forward pass and a backward pass for each number in an output (or, from 17 on, three pairs of passes of
    the power method); even steps take two pairs more. The search runs in the model's own precision, or
    float32 if that is wider, and on its device; the secant does not.

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
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise TypeError(f"weights must be real floating-point numbers, got {name!r} of {parameter.dtype}")
    own = copy.deepcopy(model).eval().requires_grad_(False)
    if next(own.parameters(), starts).dtype in (torch.float16, torch.bfloat16):  # torch has no matrix norms of these
        own, starts = own.to(torch.float32), starts.to(torch.float32)
    with torch.enable_grad(), torch.inference_mode(False):
        pooling.check_windows(own, starts[:1].detach().to(next(own.parameters(), starts)))
        best, direction, start_value = _climb(own, starts.detach().clone(), norm, n_steps, generator)
        exact = own.to("cpu").to(torch.float64)
        secant = _best_secant(exact, best.to("cpu").to(torch.float64), direction.to("cpu").to(torch.float64), norm)
    return LowerBound(
        value=secant.value,
        norm=norm,
        points=secant.points,
        rounding=secant.rounding,
        derivative=secant.derivative,
        start_value=start_value,
        n_starts=len(starts),
        n_steps=n_steps,
        method="gradient ascent and random jumps",
        is_certified=secant.is_certified,
    )


def _climb(
    model: nn.Module, starts: torch.Tensor, norm: float, n_steps: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Return the steepest point found and its direction, shape (1, ...), and the largest height among the starts."""
    weights = next(iter(model.parameters()), starts)
    points = starts.to(device=weights.device, dtype=weights.dtype)
    directions = _unit(torch.randn(points.shape, generator=generator, dtype=torch.float64)).to(points)
    heights, directions = derivatives.operator_norms(model, points, directions, norm=norm, n_steps=_LAST_POWER_STEPS)
    if not bool(torch.isfinite(heights).any()):
        raise ValueError("model must have a finite derivative at one of the starts at least, got none")
    start_value = float(heights[torch.isfinite(heights)].max())
    heights = torch.nan_to_num(heights, nan=-1.0, posinf=-1.0)
    radii = torch.full_like(heights, _FIRST_RADIUS)
    for step in range(n_steps):
        is_ascent = step % 2 == 0
        if is_ascent:
            uphill = derivatives.rise(model, points, _unit(directions), radii, norm=norm)
            moves = _per_point(radii, points) * _unit(uphill)
        else:
            moves = _jumps(points.shape, generator).to(points)
        tried = points + moves
        tried_heights, tried_directions = derivatives.operator_norms(
            model, tried, directions, norm=norm, n_steps=_POWER_STEPS
        )
        is_better = tried_heights > heights  # never for a height that is not a number
        is_better &= torch.isfinite(tried_heights)
        if is_ascent:
            radii = torch.where(is_better, 2.0 * radii, 0.5 * radii)
        chosen = _per_point(is_better, points)
        points = torch.where(chosen, tried, points)
        directions = torch.where(chosen, tried_directions, directions)
        heights = torch.where(is_better, tried_heights, heights)
    steepest = int(heights.argmax())
    return points[steepest : steepest + 1], directions[steepest : steepest + 1], start_value


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Secant:
    points: torch.Tensor
    value: float
    rounding: float
    derivative: float
    is_certified: bool


def _best_secant(model: nn.Module, point: torch.Tensor, direction: torch.Tensor, norm: float) -> _Secant:
    """Return the best secant through ``point``, all in float64."""
    heights, direction = derivatives.operator_norms(model, point, direction, norm=norm, n_steps=_LAST_POWER_STEPS)
    derivative = float(heights[0])
    try:
        prepared = stages.prepare(model, tuple(point.shape[1:]), device=point.device)
    except ValueError:  # a layer without known rounding
        prepared = ()
    sides = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    certain = _Secant(
        points=point.repeat(2, *[1] * (point.ndim - 1)),
        value=0.0,
        rounding=0.0,
        derivative=derivative,
        is_certified=True,  # no network has less than nothing
    )
    computed = dataclasses.replace(certain, is_certified=False)
    with torch.no_grad():
        for separation in _SEPARATIONS:
            points = point + _per_point(sides * separation, point) * direction
            values, error = stages.evaluate(prepared, points) if prepared else (model(points), 0.0)
            slope, rounding = _slope(points, values, 2.0 * error, norm)
            if prepared and slope - rounding > certain.value:
                certain = dataclasses.replace(certain, points=points, value=slope - rounding, rounding=rounding)
            if min(slope, derivative) > computed.value:
                computed = dataclasses.replace(computed, points=points, value=min(slope, derivative))
    return certain if certain.value >= 0.5 * derivative else computed


def _slope(points: torch.Tensor, values: torch.Tensor, error: float, norm: float) -> tuple[float, float]:
    """Return the slope between two points, as computed, and a bound of its rounding; 0 for coinciding points."""
    values = values.flatten(1)
    rise, run = (_norm(pair[1] - pair[0], norm) for pair in (values, points.flatten(1)))
    if not (run > _TINY and _TINY < rise / run < math.inf and math.isfinite(error)):
        return 0.0, 0.0
    if norm == 1:  # the 1-norm of an error is at most sqrt(length) times its 2-norm
        error *= math.sqrt(values.shape[1])
    # Both norms, the differences in them, and the division are rounded too.
    rounding = (error + norms.gamma(values.shape[1] + points[0].numel() + 16) * (rise + error)) / run
    return rise / run, rounding


def _norm(vector: torch.Tensor, norm: float) -> float:
    return float(norms.length(vector) if norm == 2 else torch.linalg.vector_norm(vector, ord=norm))
