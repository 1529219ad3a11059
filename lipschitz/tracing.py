"""A network along a segment, piece by piece, with a bound of every error.

On x(t) = a + t (b - a), 0 <= t <= 1, a network of affine maps, ReLUs and max-poolings is piecewise affine in t. It is
traced layer by layer: a grid of points t_0 < ... < t_m and the values of the current layer at each; the layer's output
between two points is understood as the straight line between their values. Where that is not what the layer does,
points are put in: the zeros of what a ReLU reads, and the places where another entry of a window becomes the largest.

The error. Let g(t) be the computed, piecewise affine function of a layer and f(t) the true one. One number
e >= max_t ||g(t) - f(t)||_2 passes from layer to layer (:mod:`lipschitz.stages`), together with what the layer's own
bends leave between the points:

*ReLU.* If g_j has the values p > 0 and -q < 0 at two neighbouring points, the line from p to 0 and the ReLU of the
line from p to -q differ by at most r_j = p q / (p + q), at the zero. Points make r_j zero, to rounding; what is left is
computed, and max over pieces of ||r||_2 is added to e. A leaky ReLU of slope s has |1 - s| r_j.

*Max-pooling.* Let entry i be a window's largest at the left point and j at the right one, p and q the amounts by which
they lead over one another there. The line between the two largest values exceeds max(g_i, g_j), so all the more the
true maximum, by at most p q / (p + q), and is never below it. This is again the zero of g_i - g_j; further entries
that lead in between show when the new pieces are looked at. With zero as one more entry it is a ReLU and a max-pooling
at once.

*Smooth functions.* The line between two values of phi(g_j) differs from phi by at most max|phi''| d_j^2 / 8, d_j the
change of g_j along the piece (the error of linear interpolation). Pieces are cut until its 2-norm is below a tolerance.
Where the slope jumps besides, there is a bend as of a ReLU, and points are put there. Functions of all numbers of an
axis (softmax, LayerNorm) have a bound of the second derivative along any line (:mod:`lipschitz.stages`).

*Interpolation.* At a new point all live values are interpolated, in computed numbers: v + s (w - v) with s from
differences of grid points has an error of at most gamma_8 (|v| + |w|), and moves the line through it by no more.

The segment is followed depth-first: where a grid has become too long it is cut into parts, each of which goes on alone
to the output. Memory stays bounded and what comes out runs from t = 0 to t = 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from lipschitz import factors, norms
from lipschitz.stages import OUTWARD, UNDERFLOW, Stage, upper_gains, upper_size

CURVED = ("smooth", "grouped")
"""Kinds of stages that are followed by chords."""

_BENDING = ("relu", "max_pool", *CURVED)
_MAX_CUTS = 256  # of one piece at once, by a smooth function
_MAX_PIECES = 2**24  # that a smooth function may ask for in one part


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stretch:
    """A part of the segment on which the network's outputs are known.

    Parameters
    ----------
    t : Tensor of float64, shape (m + 1,)
        Points, increasing; neighbouring stretches share one.
    outputs : Tensor of float64, shape (m + 1, ...)
        The network's outputs at the points.
    upper_error : float
        At every t between the first and the last point, the line through the outputs is this close to the true outputs
        in the 2-norm.
    """

    t: torch.Tensor
    outputs: torch.Tensor
    upper_error: float


@dataclass(frozen=True, slots=True)
class _Value:
    """A stage's output at the points, shape (m + 1, ...), and the error it carries."""

    at: torch.Tensor
    error: float


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the segment on its way: its points, and the values that stages from ``place`` on will read."""

    place: int
    t: torch.Tensor
    live: dict[int, _Value]


def trace(
    stages: Sequence[Stage],
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    upper_error: float = 0.0,
    tolerance: float = 1e-3,
    max_numbers: int = 2**23,
) -> Iterator[Stretch]:
    """Follow a network from input ``a`` to input ``b``, and yield its outputs stretch by stretch.

    Parameters
    ----------
    stages : sequence of Stage
        The network (:func:`lipschitz.stages.prepare`).
    a, b : Tensor of float64, shape (...)
        Inputs without a batch axis, on the stages' device. If they are equal the one stretch has one point.
    upper_error : float
        How far the true segment may be from the one between ``a`` and ``b``, in the 2-norm.
    tolerance : float
        What smooth functions may add to the error of the outputs, all together; positive. Without them no matter.
        Where that would take more than 2^24 pieces, they are not cut, and what they add is in the error.
    max_numbers : int
        Most float64 numbers held for one part of the segment at one time; a part has two points at least.

    Yields
    ------
    Stretch
        From t = 0 to t = 1, each on the device of the inputs.
    """
    n_curved = sum(stage.kind in CURVED for stage in stages)
    gains = upper_gains(stages)
    # Chords finer than the rounding of the function itself, or before an infinite gain, would gain nothing.
    tolerances = [
        max(tolerance / max(n_curved, 1) / max(gain, 1e-300), stage.rounding) if gain < math.inf else math.inf
        for stage, gain in zip(stages, gains, strict=True)
    ]
    last_readers = [
        max((j for j, stage in enumerate(stages) if i in stage.inputs), default=i) for i in range(len(stages))
    ]
    last_readers[-1] = len(stages)
    tracer = _Tracer(
        stages=stages,
        tolerances=tolerances,
        last_readers=last_readers,
        max_points=_max_points(stages, last_readers, max_numbers),
    )
    is_point = bool((a == b).all())
    t = torch.tensor([0.0] if is_point else [0.0, 1.0], dtype=torch.float64, device=a.device)
    inputs = torch.stack([a] if is_point else [a, b])
    return tracer.follow(t, {0: _Value(inputs, upper_error)})


def _max_points(stages: Sequence[Stage], last_readers: Sequence[int], max_numbers: int) -> list[int]:
    """Return how many points may be carried from each stage on, up to the next one that may put points in."""
    n_live = [sum(math.prod(stages[j].shape) for j in range(i + 1) if last_readers[j] >= i) for i in range(len(stages))]
    result, most = [0] * len(stages), 1
    for i in range(len(stages) - 1, -1, -1):
        most = max(most, n_live[i])
        result[i] = max(2, max_numbers // most)
        if stages[i].kind in _BENDING:
            most = n_live[i]
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tracer:
    stages: Sequence[Stage]
    tolerances: Sequence[float]
    last_readers: Sequence[int]
    max_points: Sequence[int]

    def follow(self, t: torch.Tensor, live: dict[int, _Value]) -> Iterator[Stretch]:
        """Yield the outputs on the grid ``t``, part by part; ``live`` holds the input."""
        waiting: list[Iterator[_Part]] = [iter([_Part(1, t, live)])]  # a path down the tree of parts
        while waiting:
            part = next(waiting[-1], None)
            if part is None:
                waiting.pop()
                continue
            reached = self.advance(part)
            if isinstance(reached, Stretch):
                yield reached
            else:
                waiting.append(reached)

    def advance(self, part: _Part) -> Stretch | Iterator[_Part]:
        """Take a part to the output, or to the next stage that needs points in it; then return the parts it becomes."""
        t, live = part.t, part.live
        for here in range(part.place, len(self.stages)):
            stage = self.stages[here]
            inputs = [live[i] for i in stage.inputs]
            residue = 0.0
            if stage.kind in _BENDING:
                times, residue = _bends(stage, t, inputs[0].at, self.tolerances[here])
                if len(times) or len(t) > self.max_points[here]:
                    return _refined(_Part(here, t, live), times, self.max_points[here])
            at = stage.run([value.at for value in inputs])
            error = factors.add_up(residue, stage.upper_error([value.error for value in inputs], inputs[0].at, at))
            kept = {i: value for i, value in live.items() if self.last_readers[i] > here}
            live = {**kept, here: _Value(at, error)}
            del inputs, at, kept  # what no later stage reads is freed before the next one runs
        last = live[len(self.stages) - 1]
        return Stretch(t=t, outputs=last.at, upper_error=last.error)


def _bends(stage: Stage, t: torch.Tensor, values: torch.Tensor, tolerance: float) -> tuple[torch.Tensor, float]:
    """Return where to put points in, and by how much in the 2-norm the line between points may miss the stage.

    The second number holds for the grid as it is; it matters once there is nothing to put in.
    """
    if len(t) < 2:
        return t[:0], 0.0
    if stage.kind in CURVED:
        return _smooth_bends(stage, t, values, tolerance)
    bends = _zero_bends(values) if stage.kind == "relu" else _window_bends(stage, values)
    times, residues = _at_bends(t, values, *bends)
    return times, factors.multiply_up(stage.bend, float(residues.max()))


def _at_bends(
    t: torch.Tensor, values: torch.Tensor, pieces: torch.Tensor, p: torch.Tensor, q: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places of bends with leads p and q, and a bound of what they leave in the 2-norm, for each piece."""
    if not len(pieces):
        return t[:0], torch.zeros(len(t) - 1, dtype=t.dtype, device=t.device)
    less, ratio = torch.minimum(p, q), torch.minimum(p, q) / torch.maximum(p, q)  # so that no sum or product overflows
    left = torch.where(p <= q, ratio, 1.0) / (1.0 + ratio)
    residue = less / (1.0 + ratio)
    times = t[pieces] + left * (t[pieces + 1] - t[pieces])
    # Below some units of rounding a bend is left as it is, and counted.
    is_new = (residue > 16.0 * norms.gamma(1) * values.abs().max()) & (times > t[pieces]) & (times < t[pieces + 1])
    largest = max(float(residue.max()), 2.0**-1000)  # by which residues are divided, as their squares would underflow
    squares = torch.zeros(len(t) - 1, dtype=t.dtype, device=t.device)
    if not largest < math.inf:
        return times[is_new], torch.full_like(squares, math.inf)
    squares.index_add_(0, pieces, (residue / largest).square())
    return times[is_new], largest * squares.sqrt() * OUTWARD + UNDERFLOW


def _zero_bends(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the pieces on which an entry changes sign, once an entry, and its distances from zero at both ends."""
    flat = values.flatten(1)
    is_positive = flat > 0.0
    pieces, entries = (is_positive[1:] != is_positive[:-1]).nonzero(as_tuple=True)
    return pieces, flat[pieces, entries].abs(), flat[pieces + 1, entries].abs()


def _window_bends(stage: Stage, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the pieces on which a window's largest entry changes, once a window, and the leads p and q."""
    layer = stage.layer
    values = values.reshape(len(values), -1, *values.shape[-2:])
    largest, winners = functional.max_pool2d(
        values, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
    )
    largest, winners = largest.flatten(2), winners.flatten(2)
    if stage.is_clipped:
        winners = winners.masked_fill(largest <= 0.0, -1)
        largest = largest.clamp_min(0.0)
    pieces, channels, windows = (winners[1:] != winners[:-1]).nonzero(as_tuple=True)
    planes = values.flatten(2)

    def lead(point: torch.Tensor, over: torch.Tensor) -> torch.Tensor:
        other = winners[over, channels, windows]
        value = planes[point, channels, other.clamp_min(0)].masked_fill(other < 0, 0.0)
        return largest[point, channels, windows] - value

    p, q = lead(pieces, pieces + 1), lead(pieces + 1, pieces)
    is_real = (p > 0.0) & (q > 0.0)  # elsewhere two entries are equal at an end
    return pieces[is_real], p[is_real], q[is_real]


def _smooth_bends(stage: Stage, t: torch.Tensor, values: torch.Tensor, tolerance: float) -> tuple[torch.Tensor, float]:
    if not bool(values.isfinite().all()):
        return t[:0], math.inf
    residues = _chords(stage, values) * OUTWARD
    needed = (residues / tolerance).sqrt().ceil().nan_to_num(1.0)
    if float(needed.sum()) > _MAX_PIECES:
        times = t[:0]
    else:
        n_parts = needed.clamp(1, _MAX_CUTS).long()
        pieces = torch.repeat_interleave(torch.arange(len(t) - 1, device=t.device), n_parts)
        first = torch.cumsum(n_parts, 0) - n_parts
        share = (torch.arange(len(pieces), device=t.device) - first[pieces]) / n_parts[pieces].double()
        times = t[pieces] + share * (t[pieces + 1] - t[pieces])
        times = times[(times > t[pieces]) & (times < t[pieces + 1])]
    for place, jump in stage.kinks:
        at_kink, more = _at_bends(t, values, *_zero_bends(values - place))
        times, residues = torch.cat([times, at_kink]), residues + jump * more * OUTWARD
    return times, float(residues.max()) * OUTWARD


def _chords(stage: Stage, values: torch.Tensor) -> torch.Tensor:
    """Return how far a line between two values may be from what a curved stage does, in the 2-norm, for each piece."""
    if stage.kind == "smooth":
        flat = values.flatten(1)
        return (stage.bend / 8.0) * norms.upper_length((flat[1:] - flat[:-1]).square())
    change = (values[1:] - values[:-1]).square().sum(dim=-1) + 2.0**-1000  # and what underflows
    bends = torch.full_like(change, stage.bend)
    if stage.epsilon > 0.0:  # a LayerNorm bends as one over its variance, which is at least that of the middle, less
        centred = values - values.mean(dim=-1, keepdim=True)
        sizes = torch.linalg.vector_norm(centred, dim=-1)
        least = (0.5 * (sizes[1:] + sizes[:-1] - change.sqrt()) * (1.0 - 2.0**-40)).clamp(min=0.0)
        bends = bends / (1.0 + least.square() / (values.shape[-1] * stage.epsilon) * (1.0 - 2.0**-40))
    return norms.upper_length((bends / 8.0 * change).reshape(len(change), -1))


def _refined(whole: _Part, times: torch.Tensor, max_points: int) -> Iterator[_Part]:
    """Yield a part with the new points, in parts of at most so many points that share their ends."""
    t = whole.t
    merged = torch.cat([t, times]).unique()  # type: ignore[no-untyped-call]
    errors = {
        i: factors.add_up(value.error, _upper_interpolation(value.at) if len(times) else 0.0)
        for i, value in whole.live.items()
    }
    n_parts = math.ceil((len(merged) - 1) / (max_points - 1))
    cuts = [round(k * (len(merged) - 1) / n_parts) for k in range(n_parts + 1)]
    for first, last in itertools.pairwise(cuts):
        part = merged[first : last + 1]
        left = torch.searchsorted(t, part, right=True) - 1
        new = (t[left] != part).nonzero()[:, 0]
        before = left[new]
        share = (part[new] - t[before]) / (t[before + 1] - t[before])
        live = {i: _Value(_at(value.at, left, new, before, share), errors[i]) for i, value in whole.live.items()}
        yield _Part(whole.place, part, live)


def _upper_interpolation(values: torch.Tensor) -> float:
    """Return what rounding may do to values at new points; inf where differences may pass the range of float64."""
    if not float(values.abs().max()) < 2.0**1022:
        return math.inf
    return 2.0 * norms.gamma(8) * upper_size(values) * OUTWARD + UNDERFLOW


def _at(
    values: torch.Tensor, left: torch.Tensor, new: torch.Tensor, before: torch.Tensor, share: torch.Tensor
) -> torch.Tensor:
    """Return values at old points, and between them v + share (w - v)."""
    result = values[left]
    if len(new):
        change = values[before + 1] - values[before]
        result.index_add_(0, new, change.mul_(share.reshape(-1, *(1,) * (values.ndim - 1))))
    return result
