"""The largest loss on a whole segment between two inputs, and a certificate that it stays below a threshold.

A loss that is convex in the logits is convex in t wherever the logits are affine in t: on a piece of the segment it is
largest at one of the ends. So the breakpoints of :mod:`lipschitz.tracing`, not a sample, give the largest loss of a
network of affine maps, ReLUs and max-poolings. The computed logits are within e of the true ones everywhere, and the
certificate carries e.

The cross-entropy of class y is l = log(1 + exp(m)) with the log-odds against y,

    m(z) = log sum_{j != y} exp(z_j - z_y) .

Its gradient has the entries q_j of a probability vector and -1 at y, so its 2-norm is at most sqrt(2), and m is convex
(a log-sum-exp of linear functions). Hence logits within e of z have m within sqrt(2) e, and, since
exp(l) - 1 = exp(m),

    exp(-sqrt(2) e) <= (exp(l') - 1) / (exp(l) - 1) <= exp(sqrt(2) e) :

an error of the logits changes a small loss by a small *factor*. The cross-entropy's own constant sqrt(2) would add
sqrt(2) e to a loss of 0.001. Everything is compared in m and stated in l.

What is certified is the exact function of the stored weights, in real arithmetic, with BatchNorm in evaluation mode.
A float32 execution of the same network is another function, that differs by its own rounding.

Smooth functions are traced with chords (:mod:`lipschitz.tracing`), whose distance from the function is part of e. The
maximum is then no longer exact, but enclosed; a certificate refines the chords until it is decided or out of budget.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from lipschitz import factors, norms
from lipschitz.stages import OUTWARD, UNDERFLOW, Stage, evaluate, prepare, upper_gains
from lipschitz.tracing import CURVED, Stretch, trace

_N_PROBES = 33  # points evaluated first, for a violation that needs no tracing
_FIRST_TOLERANCE = 0.1  # of a certificate, for what smooth functions add to the error of the logits
_LOSS_ROUNDING, _TINY = 2.0**-46, 1e-300  # of log(1 + exp(m)), relative and absolute, with some room


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvexLoss:
    """A loss that is a convex function of the logits.

    Parameters
    ----------
    function : callable
        From logits, a float64 tensor (n, k), to losses, a float64 tensor (n,). That it is convex is taken on trust.
    upper_slope : float
        A Lipschitz constant of it in the 2-norm, never below the truth.
    upper_rounding : float
        What rounding may change a computed loss by.
    """

    function: Callable[[torch.Tensor], torch.Tensor]
    upper_slope: float
    upper_rounding: float = 0.0

    def __post_init__(self) -> None:
        for name in ("upper_slope", "upper_rounding"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentMaximum:
    """The largest loss on x(t) = a + t (b - a), enclosed.

    Parameters
    ----------
    loss : float
        The largest computed loss, in nats for the cross-entropy: the one at ``t``; inf where logits pass the range of
        float64, of whose losses nothing is known.
    lower_loss, upper_loss : float
        The largest true loss on the part that was covered, and at ``t``, lies in between.
    t : float
        Where, in [0, 1].
    point : Tensor of float64, shape (...)
        x(t), rounded to float64.
    covered : float
        The part that was covered is 0 <= t <= covered; 1 is the whole segment.
    upper_loss_everywhere : float
        No loss on the whole segment is above it: ``upper_loss``, or where a part was left out, a bound by the network's
        Lipschitz constant, which may be huge or infinite.
    upper_error : float
        Bound of the error of the logits, in the 2-norm, on the part that was covered.
    n_pieces : int
        Pieces of the part that was covered.
    failure_probability : float
        Chance that a norm among the error bounds is too small: 0, or some 1e-15 where large convolutions are bounded
        by a random method (:mod:`lipschitz.convolutions`); against chance, not against an adversary who knows its seed.
    """

    loss: float
    lower_loss: float
    upper_loss: float
    t: float
    point: torch.Tensor
    covered: float
    upper_loss_everywhere: float
    upper_error: float
    n_pieces: int
    failure_probability: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """Whether the loss is at most a threshold on a whole segment.

    Parameters
    ----------
    status : {"certified", "violated", "undecided"}
        Of every point's true loss; ``violated`` if ``maximum.point`` has a true loss above the threshold.
    loss_threshold : float
        In the unit of the loss.
    reason : str
        Why it is undecided; empty otherwise.
    maximum : SegmentMaximum
        What is known. Where a violation was found, tracing stopped: it need not be the largest loss.
    """

    status: Literal["certified", "violated", "undecided"]
    loss_threshold: float
    reason: str
    maximum: SegmentMaximum


@torch.no_grad()
def maximise_segment(
    model: nn.Module | tuple[Stage, ...],
    a: torch.Tensor | ArrayLike,
    b: torch.Tensor | ArrayLike,
    target: int | ConvexLoss,
    *,
    tolerance: float = 1e-3,
    piece_budget: int = 1_000_000,
    device: str | torch.device = "cpu",
    progress: Callable[[float], None] | None = None,
) -> SegmentMaximum:
    """Return the largest loss on the segment between two inputs, and where it is.

    Parameters
    ----------
    model : torch.nn.Module, or tuple of Stage
        In evaluation mode, one that :func:`lipschitz.reading.read` can read, with one axis of logits; not changed. Or
        what :func:`lipschitz.stages.prepare` made of it on this device, for many segments of one network.
    a, b : Tensor or array_like of floating-point numbers, shape (...)
        The ends, without a batch axis.
    target : int or ConvexLoss
        The class whose cross-entropy is the loss, in nats; or another loss.
    tolerance : float
        What chords of smooth functions may add to the error of the logits; positive. It costs nothing, and does
        nothing, where there are none.
    piece_budget : int
        Pieces after which tracing stops, once the part in hand is done; at least 1.
    device : str or torch.device
        Where to compute, in float64.
    progress : callable, optional
        Called with the fraction of the segment that is done.

    Returns
    -------
    SegmentMaximum

    Raises
    ------
    TypeError
        If an end does not hold floating-point numbers.
    ValueError
        If the model is not known layer by layer or has no vector of at least two logits; if the ends have different
        shapes, numbers that are not finite, or differences that are not; if an argument is out of range.

    Notes
    -----
    About one evaluation in float64 a piece, in batches, and the norms of all layers before that.

    Examples
    --------
    >>> model = nn.Linear(1, 2).eval()
    >>> _ = model.load_state_dict({"weight": torch.tensor([[0.0], [1.0]]), "bias": torch.zeros(2)})
    >>> found = maximise_segment(model, [-1.0], [1.0], 0)
    >>> found.t, found.lower_loss <= math.log(1.0 + math.e) <= found.upper_loss
    (1.0, True)
    """
    search = _prepared(model, a, b, target, piece_budget, device)
    tolerance = float(tolerance)
    if not tolerance > 0.0:
        raise ValueError(f"tolerance must be positive, got {tolerance}")
    return search.result(search.run(tolerance, piece_budget, math.inf, progress or (lambda _: None)))


@torch.no_grad()
def certify_segment(
    model: nn.Module | tuple[Stage, ...],
    a: torch.Tensor | ArrayLike,
    b: torch.Tensor | ArrayLike,
    target: int | ConvexLoss,
    loss_threshold: float,
    *,
    piece_budget: int = 1_000_000,
    device: str | torch.device = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Certificate:
    """Return whether the loss is at most a threshold on the whole segment between two inputs.

    Parameters
    ----------
    model, a, b, target, device, progress
        As in :func:`maximise_segment`; with smooth functions the fraction done may start again.
    loss_threshold : float
        In the unit of the loss; positive for the cross-entropy.
    piece_budget : int
        Pieces after which tracing stops, once the part in hand is done; at least 1.

    Returns
    -------
    Certificate

    Raises
    ------
    TypeError
        As :func:`maximise_segment`.
    ValueError
        As :func:`maximise_segment`, and if the threshold is out of range.

    Notes
    -----
    A few points are evaluated first; a violation among them ends it there. Tracing stops at the first violation.

    Examples
    --------
    >>> model = nn.Linear(1, 2).eval()
    >>> _ = model.load_state_dict({"weight": torch.tensor([[0.0], [1.0]]), "bias": torch.zeros(2)})
    >>> [certify_segment(model, [-1.0], [0.0], 0, threshold).status for threshold in (0.7, 0.6)]
    ['certified', 'violated']
    """
    search = _prepared(model, a, b, target, piece_budget, device)
    loss_threshold = float(loss_threshold)  # compared with float32, losses would be rounded to it
    if not math.isfinite(loss_threshold) or (search.is_cross_entropy and loss_threshold <= 0.0):
        raise ValueError(f"loss_threshold must be finite, for the cross-entropy positive, got {loss_threshold}")
    limit = _log_expm1(loss_threshold) if search.is_cross_entropy else loss_threshold
    found = search.probe()
    if found.lower <= limit:
        found = search.decide(limit, piece_budget, progress or (lambda _: None))
    maximum = search.result(found)
    status: Literal["certified", "violated", "undecided"] = "undecided"
    reason = ""
    if search.result(search.look_at(found.t)).lower_loss > loss_threshold:
        status = "violated"
    elif found.covered == 1.0 and maximum.upper_loss <= loss_threshold:
        status = "certified"
    elif found.covered < 1.0:
        reason = f"the piece budget was spent at t = {found.covered:.6g}"
    else:
        reason = f"the error bound of the logits, {found.upper_error:.2g}, leaves it open"
    return Certificate(status=status, loss_threshold=loss_threshold, reason=reason, maximum=maximum)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is known of the scores, which are losses or log-odds, on 0 <= t <= covered."""

    score: float = -math.inf
    t: float = 0.0
    lower: float = -math.inf
    upper: float = -math.inf
    upper_end: float = -math.inf
    covered: float = 0.0
    upper_error: float = 0.0
    n_pieces: int = 0

    def join(self, other: _Found) -> _Found:
        """Return what is known together with what is known of the stretch after it."""
        best = self if self.score >= other.score else other
        return _Found(
            score=best.score,
            t=best.t,
            lower=max(self.lower, other.lower),
            upper=max(self.upper, other.upper),
            upper_end=other.upper_end,
            covered=other.covered,
            upper_error=max(self.upper_error, other.upper_error),
            n_pieces=self.n_pieces + other.n_pieces,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """A network, a segment, and a convex score of the logits."""

    stages: tuple[Stage, ...]
    a: torch.Tensor
    b: torch.Tensor
    score: ConvexLoss
    is_cross_entropy: bool

    def run(self, tolerance: float, piece_budget: int, limit: float, progress: Callable[[float], None]) -> _Found:
        """Trace from ``a`` towards ``b``, until a true score is above ``limit`` for certain or the budget is spent."""
        found = _Found()
        for stretch in trace(self.stages, self.a, self.b, tolerance=tolerance):
            found = found.join(self.look(stretch))
            progress(found.covered)
            if found.lower > limit or found.n_pieces >= piece_budget:
                break
        return found

    def look(self, stretch: Stretch) -> _Found:
        """Return what is known of the scores on one stretch."""
        n_pieces, covered = len(stretch.t) - 1, float(stretch.t[-1]) if len(stretch.t) > 1 else 1.0
        is_known = bool(torch.isfinite(stretch.outputs).all())
        scores = self.score.function(stretch.outputs) if is_known else torch.full_like(stretch.t, math.inf)
        if not bool(torch.isfinite(scores).all()):
            if is_known and not self.is_cross_entropy:
                raise ValueError("the loss must be finite on the segment, got a number that is not")
            return _Found(  # logits, or their differences, beyond the range of float64
                score=math.inf,
                t=float(stretch.t[0]),
                upper=math.inf,
                upper_end=math.inf,
                covered=covered,
                upper_error=math.inf,
                n_pieces=n_pieces,
            )
        margin = (self.score.upper_slope * stretch.upper_error + self.score.upper_rounding) * OUTWARD
        if self.is_cross_entropy:
            n_logits = stretch.outputs.shape[1]
            size = 2.0 * float(stretch.outputs.abs().max()) + math.log(n_logits) + 1.0
            margin += norms.gamma(n_logits + 16) * size * OUTWARD
        margin = margin if margin < math.inf else math.inf  # nan, too
        place = int(scores.argmax())
        score = float(scores[place])
        return _Found(
            score=score,
            t=float(stretch.t[place]),
            lower=math.nextafter(score - margin, -math.inf),
            upper=math.nextafter(score + margin, math.inf),
            upper_end=math.nextafter(float(scores[-1]) + margin, math.inf),
            covered=covered,
            upper_error=stretch.upper_error,
            n_pieces=n_pieces,
        )

    def at(self, t: float) -> torch.Tensor:
        """Return x(t), rounded to float64."""
        return self.b if t == 1.0 else self.a + t * (self.b - self.a)

    def look_at(self, t: float) -> _Found:
        """Return what is known of the score at x(t), both the exact point and the rounded one."""
        point = self.at(t)
        sizes = factors.add_up(_length(self.a), _length(self.b))
        rounding = norms.gamma(4) * sizes * OUTWARD + UNDERFLOW
        (stretch,) = trace(self.stages, point, point, upper_error=rounding)
        return replace(self.look(stretch), t=t)

    def probe(self) -> _Found:
        """Return the largest score of a few points; nothing is covered."""
        points = [k / (_N_PROBES - 1) for k in range(_N_PROBES)]
        scores = [
            self.score.function(evaluate(self.stages, torch.stack([self.at(t) for t in some]))[0])
            for some in (points[k : k + 8] for k in range(0, _N_PROBES, 8))
        ]
        largest = self.look_at(points[int(torch.cat(scores).argmax())])
        return replace(largest, covered=0.0, upper_end=self.look_at(0.0).upper)

    def decide(self, limit: float, piece_budget: int, progress: Callable[[float], None]) -> _Found:
        """Trace, with finer and finer chords of smooth functions, until the scores are below or above ``limit``."""
        tolerance = _FIRST_TOLERANCE
        found = self.run(tolerance, piece_budget, limit, progress)
        while (
            any(stage.kind in CURVED for stage in self.stages)
            and found.covered == 1.0
            and found.score < limit < found.upper
            and found.upper_error < 2.0 * tolerance  # else it is rounding that leaves it open
        ):
            piece_budget -= found.n_pieces
            tolerance = min(tolerance / 4.0, (limit - found.score) / max(4.0 * self.score.upper_slope, 1e-300))
            if piece_budget < 1:
                break
            finer = self.run(tolerance, piece_budget, limit, progress)
            if finer.covered < 1.0 and finer.lower <= limit:
                break
            found = finer
        return found

    def upper_everywhere(self, found: _Found) -> float:
        """Return a bound of the score on the whole segment; of the part left out, by the Lipschitz constant.

        Between two points at a distance d whose scores are at most s and s', no score is above (s + s' + L d) / 2.
        """
        if found.covered == 1.0:
            return found.upper
        left_out = 1.0 - found.covered
        distance = factors.multiply_up(left_out, _length(self.b - self.a) * OUTWARD)
        slope = factors.multiply_up(self.score.upper_slope, upper_gains(self.stages)[0])
        ends = 0.5 * found.upper_end + 0.5 * self.look_at(1.0).upper
        rest = ends + 0.5 * factors.multiply_up(slope, distance) + 2.0 * norms.gamma(4) * abs(ends)
        return math.nextafter(max(found.upper, rest), math.inf) if rest < math.inf else math.inf

    def result(self, found: _Found) -> SegmentMaximum:
        """Return the record, in losses."""
        everywhere = self.upper_everywhere(found)
        loss, lower, upper = found.score, found.lower, found.upper
        if self.is_cross_entropy:
            loss, lower, upper, everywhere = (_softplus(score) for score in (loss, lower, upper, everywhere))
            lower = max(0.0, lower * (1.0 - _LOSS_ROUNDING) - _TINY)
            upper, everywhere = (value * (1.0 + _LOSS_ROUNDING) + _TINY for value in (upper, everywhere))
        return SegmentMaximum(
            loss=loss,
            lower_loss=lower,
            upper_loss=upper,
            t=found.t,
            point=self.at(found.t),
            covered=found.covered,
            upper_loss_everywhere=everywhere,
            upper_error=found.upper_error,
            n_pieces=found.n_pieces,
            failure_probability=math.fsum(stage.failure_probability for stage in self.stages),
        )


def _prepared(
    model: nn.Module | tuple[Stage, ...],
    a: torch.Tensor | ArrayLike,
    b: torch.Tensor | ArrayLike,
    target: int | ConvexLoss,
    piece_budget: int,
    device: str | torch.device,
) -> _Search:
    """Return the search for a model and its segment, or raise what the public functions promise."""
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be one of torch's, got {device}") from error
    ends = [_end(name, values, where) for name, values in (("a", a), ("b", b))]
    if ends[0].shape != ends[1].shape:
        raise ValueError(f"a and b must have one shape, got {tuple(ends[0].shape)} and {tuple(ends[1].shape)}")
    if not bool(torch.isfinite(ends[1] - ends[0]).all()):
        raise ValueError("a and b must differ by numbers below 1.8e308, the largest float64, got larger ones")
    if piece_budget < 1:
        raise ValueError(f"piece_budget must be at least 1, got {piece_budget}")
    if isinstance(model, nn.Module):
        stages = prepare(model, ends[0].shape, device=where, points=torch.stack(ends))
    else:
        stages = model
    if stages[0].shape != tuple(ends[0].shape):
        raise ValueError(f"a and b must have the network's shape {stages[0].shape}, got {tuple(ends[0].shape)}")
    shape = stages[-1].shape
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(f"model must return one vector of at least two logits an input, got shape {shape}")
    if isinstance(target, ConvexLoss):
        target = replace(target, upper_slope=float(target.upper_slope), upper_rounding=float(target.upper_rounding))
        return _Search(stages=stages, a=ends[0], b=ends[1], score=target, is_cross_entropy=False)
    try:
        is_class = not isinstance(target, bool) and 0 <= operator.index(target) < shape[0]
    except TypeError:
        is_class = False
    if not is_class:
        raise ValueError(f"target must be a class from 0 to {shape[0] - 1}, got {target}")
    if stages[-1].is_shift:  # the cross-entropy of what log-softmax returns is that of what it reads
        stages = stages[:-1]
    others = torch.tensor([k for k in range(shape[0]) if k != target], device=where)

    def log_odds(logits: torch.Tensor) -> torch.Tensor:
        return torch.logsumexp(logits[:, others] - logits[:, target, None], dim=1)

    score = ConvexLoss(function=log_odds, upper_slope=math.nextafter(math.sqrt(2.0), 2.0))
    return _Search(stages=stages, a=ends[0], b=ends[1], score=score, is_cross_entropy=True)


def _length(numbers: torch.Tensor) -> float:
    """Return the 2-norm of all numbers, rounded up."""
    return float(norms.upper_length(numbers.reshape(-1)))


def _end(name: str, values: torch.Tensor | ArrayLike, device: torch.device) -> torch.Tensor:
    tensor = values.detach() if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values))
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must hold floating-point numbers, got {tensor.dtype}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name} must hold finite numbers, got {float(tensor[~torch.isfinite(tensor)][0])}")
    return tensor.to(device=device, dtype=torch.float64)


def _softplus(log_odds: float) -> float:
    """Return log(1 + exp(m)), the cross-entropy with log-odds m against the class."""
    return max(log_odds, 0.0) + math.log1p(math.exp(-abs(log_odds)))


def _log_expm1(loss: float) -> float:
    """Return log(exp(l) - 1), the log-odds at which the cross-entropy is l."""
    return loss + math.log(-math.expm1(-loss))
