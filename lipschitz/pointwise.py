"""Smooth pointwise functions: value, slope, and where either turns, so that both can be enclosed on an interval.

Between two neighbouring *turns* a function is monotone, between two neighbouring *bends* its slope is. So the extremes
on an interval stand at its ends or at what lies inside of it. *Kinks* are bends at which the slope jumps. The numbers
are rounded outward; ``tests/test_lipschitz_pointwise.py`` compares them with dense sampling at many digits.

ReLU, leaky ReLU and what is made of them (absolute value, ReLU6, hard tanh, hard sigmoid) are piecewise linear and are
kinds of :class:`lipschitz.graph.Step` of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

LIBRARY = 16.0 * 2.0**-53
"""What torch's tanh, sigmoid, erf, sin, exp and the like may be off by, in float64: of the value, or of 1."""

_SLOPE_ROUNDING = 2.0**-46  # of a computed slope: some roundings of numbers of size 1
_NORMAL = 1.0 / math.sqrt(2.0 * math.pi)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Function:
    """A pointwise function phi.

    Parameters
    ----------
    name : str
        As torch calls it.
    run : callable
        phi, from a tensor to a tensor of its shape and precision.
    slope : callable
        The derivative of phi, in float64; either side's at a kink.
    lower_slope, upper_slope : float
        All difference quotients lie in between.
    upper_curvature : float
        Never below |phi''| away from kinks.
    turns : tuple of float
        Where phi has an extremum, to within 1e-12.
    bends : tuple of (float, float)
        Where |phi'| may have a maximum, to within 1e-12, and a bound of it there.
    kinks : tuple of (float, float)
        Where phi' jumps, exactly, and a bound of the jump.
    period : float
        By which turns and bends repeat; inf for never.
    rounding : float
        What ``run`` may be off by in float64, beside 16 units of rounding of its value or of 1.
    """

    name: str
    run: Callable[[torch.Tensor], torch.Tensor]
    slope: Callable[[torch.Tensor], torch.Tensor]
    lower_slope: float
    upper_slope: float
    upper_curvature: float
    turns: tuple[float, ...] = ()
    bends: tuple[tuple[float, float], ...] = ()
    kinks: tuple[tuple[float, float], ...] = ()
    period: float = math.inf
    rounding: float = 0.0

    @property
    def constant(self) -> float:
        """The Lipschitz constant, rounded up."""
        return max(-self.lower_slope, self.upper_slope)


def upper_slopes(function: Function, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Return a bound of |phi'| on the intervals [low, high], entry by entry; float64, not above the constant."""
    # slopes of tiny size keep their relative accuracy only in part: the margin is absolute
    slopes = torch.maximum(function.slope(low).abs(), function.slope(high).abs()) + _SLOPE_ROUNDING
    slopes = torch.nan_to_num(slopes, nan=math.inf)
    for place, size in function.bends:
        slopes = torch.where(holds(low, high, place, function.period), slopes.clamp(min=size), slopes)
    return slopes.clamp(max=function.constant)


def enclose(function: Function, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and the largest phi on the intervals [low, high], rounded outward, entry by entry; float64."""
    ends = function.run(low), function.run(high)
    least, most = torch.minimum(*ends), torch.maximum(*ends)
    for place in function.turns:
        value = function.run(torch.full_like(low, place))
        is_inside = holds(low, high, place, function.period)
        least = torch.where(is_inside, torch.minimum(least, value), least)
        most = torch.where(is_inside, torch.maximum(most, value), most)
    # at a turn phi is flat: 1e-12 from it, it is the same to rounding
    margin = LIBRARY * torch.maximum(least.abs(), most.abs()).clamp(min=1.0) + function.rounding
    return least - margin, most + margin


def holds(low: torch.Tensor, high: torch.Tensor, place: float, period: float) -> torch.Tensor:
    """Return whether an interval may hold one of the numbers place + k period; where in doubt, True."""
    slack = 1e-9 + 1e-14 * torch.maximum(low.abs(), high.abs())
    if math.isinf(period):
        return (low - slack <= place) & (place <= high + slack)
    next_one = place + period * torch.ceil((low - slack - place) / period)
    return (next_one <= high + 2.0 * slack) | (high - low >= period) | ~(low.isfinite() & high.isfinite())


def _bell(x: torch.Tensor) -> torch.Tensor:
    return _NORMAL * torch.exp(-0.5 * x * x)


def _gelu_slope(x: torch.Tensor) -> torch.Tensor:
    slopes: torch.Tensor = torch.special.ndtr(x) + x * _bell(x)
    return slopes


def _gelu_tanh_slope(x: torch.Tensor) -> torch.Tensor:
    root = math.sqrt(2.0 / math.pi)
    inner = torch.tanh(root * (x + 0.044715 * x**3))
    slopes: torch.Tensor = 0.5 * (1.0 + inner) + 0.5 * x * (1.0 - inner**2) * root * (1.0 + 3.0 * 0.044715 * x**2)
    return slopes


def _silu_slope(x: torch.Tensor) -> torch.Tensor:
    step = torch.sigmoid(x)
    return step + x * step * torch.sigmoid(-x)


def _mish_slope(x: torch.Tensor) -> torch.Tensor:
    step, inner = torch.sigmoid(x), torch.tanh(functional.softplus(x))
    return inner + x * step * (1.0 - inner**2)


TANH = Function(
    name="tanh",
    run=torch.tanh,
    slope=lambda x: 1.0 - torch.tanh(x) ** 2,
    lower_slope=0.0,
    upper_slope=1.0,
    upper_curvature=0.7699,  # 4 / sqrt(27)
    bends=((0.0, 1.0),),
)
SIGMOID = Function(
    name="sigmoid",
    run=torch.sigmoid,
    slope=lambda x: torch.sigmoid(x) * torch.sigmoid(-x),
    lower_slope=0.0,
    upper_slope=0.25,
    upper_curvature=0.0963,  # 1 / sqrt(108)
    bends=((0.0, 0.25),),
)
ERF = Function(
    name="erf",
    run=torch.erf,
    slope=lambda x: 2.0 / math.sqrt(math.pi) * torch.exp(-x * x),
    lower_slope=0.0,
    upper_slope=math.nextafter(2.0 / math.sqrt(math.pi), 2.0),
    upper_curvature=0.968,  # sqrt(8 / (pi e))
    bends=((0.0, math.nextafter(2.0 / math.sqrt(math.pi), 2.0)),),
)
GAUSSIAN_CDF = Function(
    name="special_ndtr",
    run=torch.special.ndtr,
    slope=_bell,
    lower_slope=0.0,
    upper_slope=math.nextafter(_NORMAL, 1.0),
    upper_curvature=0.242,  # 1 / sqrt(2 pi e)
    bends=((0.0, math.nextafter(_NORMAL, 1.0)),),
)
SIN = Function(
    name="sin",
    run=torch.sin,
    slope=torch.cos,
    lower_slope=-1.0,
    upper_slope=1.0,
    upper_curvature=1.0,
    turns=(-math.pi / 2.0, math.pi / 2.0),
    bends=((0.0, 1.0), (math.pi, 1.0)),
    period=2.0 * math.pi,
)
COS = Function(
    name="cos",
    run=torch.cos,
    slope=lambda x: -torch.sin(x),
    lower_slope=-1.0,
    upper_slope=1.0,
    upper_curvature=1.0,
    turns=(0.0, math.pi),
    bends=((math.pi / 2.0, 1.0), (-math.pi / 2.0, 1.0)),
    period=2.0 * math.pi,
)
ATAN = Function(
    name="atan",
    run=torch.atan,
    slope=lambda x: 1.0 / (1.0 + x * x),
    lower_slope=0.0,
    upper_slope=1.0,
    upper_curvature=0.6496,  # sqrt(27) / 8
    bends=((0.0, 1.0),),
)
GELU = Function(
    name="gelu",
    run=functional.gelu,
    slope=_gelu_slope,
    lower_slope=-0.12890414518515479,
    upper_slope=1.1289041451851548,
    upper_curvature=0.79789,  # at 0: sqrt(2 / pi)
    turns=(-0.75179152469356446,),
    bends=((-math.sqrt(2.0), 0.12890414518515479), (math.sqrt(2.0), 1.1289041451851548)),
)
GELU_TANH = Function(
    name="gelu of tanh",
    run=lambda x: functional.gelu(x, approximate="tanh"),
    slope=_gelu_tanh_slope,
    lower_slope=-0.12899306865877177,
    upper_slope=1.1289930686587718,
    upper_curvature=0.79789,
    turns=(-0.75246142207101626,),
    bends=((-1.41850400879082836, 0.12899306865877177), (1.41850400879082836, 1.1289930686587718)),
)
SILU = Function(
    name="silu",
    run=functional.silu,
    slope=_silu_slope,
    lower_slope=-0.09983932012886692,
    upper_slope=1.0998393201288671,
    upper_curvature=0.5,
    turns=(-1.27846454276107380,),
    bends=((-2.39935728051546767, 0.09983932012886692), (2.39935728051546767, 1.0998393201288671)),
)
MISH = Function(
    name="mish",
    run=functional.mish,
    slope=_mish_slope,
    lower_slope=-0.11252612238946257,
    upper_slope=1.0884981612517280,
    upper_curvature=0.64421,
    turns=(-1.19243121451549521,),
    bends=((-2.25637639636079312, 0.11252612238946257), (1.49057117948542846, 1.0884981612517280)),
)
HARDSWISH = Function(
    name="hardswish",
    run=functional.hardswish,
    slope=lambda x: torch.where(x <= -3.0, torch.zeros_like(x), torch.where(x >= 3.0, 1.0, (2.0 * x + 3.0) / 6.0)),
    lower_slope=-0.5,
    upper_slope=1.5,
    upper_curvature=1.0 / 3.0 + 1e-15,
    turns=(-1.5,),
    bends=((-3.0, 0.5), (3.0, 1.5)),
    kinks=((-3.0, 0.5), (3.0, 0.5)),
)
LOG_SIGMOID = Function(
    name="log_sigmoid",
    run=functional.logsigmoid,
    slope=lambda x: torch.sigmoid(-x),
    lower_slope=0.0,
    upper_slope=1.0,
    upper_curvature=0.25,
)


def elu(alpha: float, scale: float, input_scale: float) -> Function:
    """Return scale x for x > 0, else scale alpha (exp(input_scale x) - 1): ELU, CELU (input_scale = 1/alpha), SELU.

    ``input_scale`` must be positive, and the numbers finite.
    """
    if not (input_scale > 0.0 and math.isfinite(input_scale * alpha * scale)):
        raise ValueError(f"elu must have finite numbers and rise with its input, got {alpha}, {scale}, {input_scale}")
    left = scale * alpha * input_scale
    is_plain = alpha == scale == input_scale == 1.0  # nothing is rounded, and the slope does not jump
    margin = 0.0 if is_plain else 4e-15 * max(abs(scale), abs(left))
    return Function(
        name="elu",
        run=lambda x: torch.where(x > 0.0, scale * x, scale * alpha * torch.expm1(input_scale * x.clamp(max=0.0))),
        slope=lambda x: torch.where(
            x > 0.0, torch.full_like(x, scale), scale * alpha * input_scale * torch.exp(input_scale * x.clamp(max=0.0))
        ),
        lower_slope=min(0.0, scale, left - margin),
        upper_slope=max(0.0, scale, left + margin),
        upper_curvature=abs(left) * input_scale * (1.0 + 4e-15),
        turns=(0.0,),
        bends=((0.0, max(abs(scale), abs(left)) + margin),),
        kinks=() if is_plain else ((0.0, abs(scale - left) + margin),),
        rounding=LIBRARY * abs(scale * alpha),
    )


def softplus(beta: float, threshold: float) -> Function:
    """Return log(1 + exp(beta x)) / beta; torch gives x beyond beta x = threshold, which is counted as rounding.

    The threshold must be at least 20, as by default: the jump there is 2e-9 / beta.
    """
    if not threshold >= 20.0:
        raise ValueError(f"softplus must have a threshold of at least 20, below which it jumps, got {threshold}")
    if beta == 0.0 or not math.isfinite(beta):
        raise ValueError(f"softplus must have a finite beta other than 0, got {beta}")
    return Function(
        name="softplus",
        run=lambda x: functional.softplus(x, beta, threshold),
        slope=lambda x: torch.sigmoid(beta * x),
        lower_slope=0.0,
        upper_slope=1.0,
        upper_curvature=abs(beta) / 4.0 * (1.0 + 1e-15),
        rounding=(LIBRARY + math.log1p(math.exp(-threshold))) / abs(beta) * (1.0 + 1e-15),
    )


def softshrink(threshold: float) -> Function:
    """Return x less ``threshold`` towards zero, and zero within it; at least 0."""
    if not threshold >= 0.0:
        raise ValueError(f"softshrink must have a threshold of at least 0, got {threshold}")
    return Function(
        name="softshrink",
        run=lambda x: functional.softshrink(x, threshold),
        slope=lambda x: (x.abs() > threshold).to(x),
        lower_slope=0.0,
        upper_slope=1.0,
        upper_curvature=0.0,
        bends=((-threshold, 1.0), (threshold, 1.0)),
        kinks=((-threshold, 1.0), (threshold, 1.0)),
    )
