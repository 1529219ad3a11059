"""Staying within an interval of a network's values, as statements about logits.

For f = varphi(z) with an increasing varphi, low <= f <= high means varphi^-1(low) <= z <= varphi^-1(high). The network
of the two outputs z - varphi^-1(high) and varphi^-1(low) - z has its larger one at most 0 just there, and the larger of
two numbers is convex: so :mod:`lipschitz.segment` encloses it on whole segments, both ends of the interval at once.

For the bypass of :mod:`empirical.connect`, which lowers cross-entropies by their gradients, a smooth pair of logits
says the same: 0 and 4 (u^2 - 1), with u = -1 and 1 at the interval's ends. Class 0 has a loss of at most log 2 just
where the value lies in the interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import scipy.special
import torch
from torch import nn

from empirical import connect
from lipschitz import segment, stages
from lipschitz.fully_connected import GaussianCdf
from percolation import arguments

_INVERSE: dict[type[nn.Module], Callable[[float], float]] = {
    GaussianCdf: lambda value: float(scipy.special.ndtri(value)),
    nn.Sigmoid: lambda value: float(scipy.special.logit(value)),
}
_INWARD = 1e-12  # relative, by which ends are moved: far more than what the inverse and the bias are rounded by
_STEEPNESS = 4.0
LARGEST_LOSS = math.log(2.0)  # nat, of the smooth logits at the interval's ends
_LOSS_INSIDE = math.log1p(math.exp(_STEEPNESS * (0.5**2 - 1)))  # nat, half way from the middle to an end

_OUTSIDE = segment.ConvexLoss(function=lambda logits: logits.max(dim=1).values, upper_slope=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """Whether values stay in an interval on a whole polygon.

    Parameters
    ----------
    status : {"certified", "violated", "undecided"}
        On every point; ``violated`` if some point's true value is outside, or within 1e-12 of an end, in what the final
        activation reads.
    stops : tuple of int
        For a path, the steps at which the polygon has its corners, the ends included.
    n_pieces : int
        Pieces followed, those of chords that were given up as well.
    """

    status: Literal["certified", "violated", "undecided"]
    stops: tuple[int, ...]
    n_pieces: int


@torch.no_grad()
def prepare(network: nn.Sequential, low: float, high: float) -> tuple[stages.Stage, ...]:
    """Return the network whose larger output is at most 0 only where ``low <= f <= high``, for certificates.

    Parameters
    ----------
    network : nn.Sequential
        Linear first; one output of a Linear last but one, and GaussianCdf or Sigmoid last.
    low, high : float
        0 <= low < high <= 1; an end at 0 or 1 is no constraint.

    Raises
    ------
    TypeError
        If the network begins or ends otherwise or has more outputs, or an end is no number.
    ValueError
        If the interval is none.
    """
    low, high = arguments.check_real("low", low), arguments.check_real("high", high)
    if not isinstance(network, nn.Sequential) or len(network) < 3 or not isinstance(network[0], nn.Linear):
        raise TypeError(f"network must be a Sequential that begins with a Linear, got {type(network).__name__}")
    if not 0.0 <= low < high <= 1.0:
        raise ValueError(f"low and high must satisfy 0 <= low < high <= 1, got {low} and {high}")
    last, final = network[-2], network[-1]
    if not isinstance(last, nn.Linear) or type(final) not in _INVERSE:
        names = ", ".join(kind.__name__ for kind in _INVERSE)
        got = f"{type(last).__name__}, {type(final).__name__}"
        raise TypeError(f"network must end in a Linear and one of {names}, got {got}")
    if last.out_features != 1:
        raise TypeError(f"network must have one output, got {last.out_features}")
    inverse = _INVERSE[type(final)]
    both = nn.Linear(last.in_features, 2, dtype=torch.float64, device="meta").to_empty(device="cpu")  # draws nothing
    both.weight.zero_()
    both.bias.fill_(-1.0)
    bias = 0.0 if last.bias is None else float(last.bias)
    for row, sign, end in ((0, 1.0, high), (1, -1.0, low)):
        if 0.0 < end < 1.0:
            value = inverse(end)
            value -= sign * _INWARD * (1.0 + abs(value) + abs(bias))
            both.weight[row] = sign * last.weight[0]
            both.bias[row] = sign * (bias - value)
    first = network[0]
    return stages.prepare(nn.Sequential(*list(network)[:-2], both), (first.in_features,), device=both.weight.device)


def certify_polygon(prepared: tuple[stages.Stage, ...], stops: torch.Tensor, *, piece_budget: int) -> Certified:
    """Return whether values stay in the interval on the polygon through ``stops``, shape (n, d).

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If there are fewer than two stops, or ``piece_budget`` is below 1.
    """
    arguments.check_kind("stops", stops, torch.Tensor)
    if stops.ndim != 2 or len(stops) < 2:
        raise ValueError(f"stops must be two or more, of shape (n, d), got shape {tuple(stops.shape)}")
    piece_budget = arguments.check_whole("piece_budget", piece_budget, least=1)
    return _certify(prepared, stops.__getitem__, [(i, i + 1) for i in range(len(stops) - 1)], piece_budget, False)


def certify_path(
    prepared: tuple[stages.Stage, ...], point: Callable[[int], torch.Tensor], n_steps: int, *, piece_budget: int
) -> Certified:
    """Return whether values stay in the interval on a polygon along a path of cubes, straightened as far as that goes.

    The chord from the first to the last centre is tried; one that cannot be certified is split at the centre in the
    middle of the path, down to single steps.

    Parameters
    ----------
    prepared : tuple of Stage
        Of :func:`prepare`.
    point : callable
        From 0, ..., ``n_steps`` to the centre of the path's cube after so many steps, float64, shape (d,).
    n_steps : int
        Steps of the path.
    piece_budget : int
        Of each chord.

    Raises
    ------
    TypeError
        If a number is no whole number.
    ValueError
        If ``n_steps`` is negative, or ``piece_budget`` below 1.
    """
    n_steps = arguments.check_whole("n_steps", n_steps, least=0)
    piece_budget = arguments.check_whole("piece_budget", piece_budget, least=1)
    return _certify(prepared, point, [(0, n_steps)], piece_budget, True)


def _certify(
    prepared: tuple[stages.Stage, ...],
    point: Callable[[int], torch.Tensor],
    chords: list[tuple[int, int]],
    piece_budget: int,
    may_split: bool,
) -> Certified:
    stops, n_pieces = [chords[0][0]], 0
    waiting = chords[::-1]
    while waiting:
        first, last = waiting.pop()
        found = segment.certify_segment(prepared, point(first), point(last), _OUTSIDE, 0.0, piece_budget=piece_budget)
        n_pieces += found.maximum.n_pieces
        if found.status == "certified":
            stops.append(last)
        elif may_split and last - first > 1:
            middle = (first + last) // 2
            waiting += [(middle, last), (first, middle)]
        else:
            return Certified(status=found.status, stops=tuple(stops), n_pieces=n_pieces)
    return Certified(status="certified", stops=tuple(stops), n_pieces=n_pieces)


class IntervalLogits(nn.Module):
    """Images (n, 1, 1, d) to two logits, float32: class 0 has a loss of at most log 2 where low <= f <= high."""

    def __init__(self, network: nn.Module, low: float, high: float) -> None:
        super().__init__()
        self.network, self.low, self.high = network, low, high

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits 0 and 4 (u^2 - 1)."""
        place = (2.0 * self.network(images.flatten(1))[:, 0] - self.low - self.high) / (self.high - self.low)
        return torch.stack([torch.zeros_like(place), _STEEPNESS * (place * place - 1.0)], dim=1).float()


def bypass(
    network: nn.Sequential,
    starts: torch.Tensor,
    ends: torch.Tensor,
    *,
    low: float,
    high: float,
    max_rounds: int,
    max_iterations: int,
) -> list[connect.Connection]:
    """Connect inputs (n, d) within an interval of values by the paper's bypass (:func:`empirical.connect.connect`).

    Points are optimised until they are half as far from the interval's middle as its ends are.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the interval is none, inputs have another shape, or a number lies outside its range.
    """
    low, high = arguments.check_real("low", low), arguments.check_real("high", high)
    if not low < high:
        raise ValueError(f"low must be below high, got {low} and {high}")
    for name, inputs in (("starts", starts), ("ends", ends)):
        arguments.check_kind(name, inputs, torch.Tensor)
        if inputs.ndim != 2 or inputs.shape != starts.shape:
            raise ValueError(f"{name} must be inputs (n, d), as many as the others, got shape {tuple(inputs.shape)}")
    max_rounds = arguments.check_whole("max_rounds", max_rounds, least=0, most=30)
    shape = (len(starts), 1, 1, starts.shape[1])
    return connect.connect(
        IntervalLogits(network, low, high),
        starts.reshape(shape),
        ends.reshape(shape),
        torch.zeros(len(starts), dtype=torch.int64),
        delta=LARGEST_LOSS,
        threshold=_LOSS_INSIDE,
        max_rounds=max_rounds,
        max_iterations=max_iterations,
        mse=0.0,
        n_points=max(200, 8 * 2**max_rounds),
    )
