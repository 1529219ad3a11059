"""Bypassing a barrier, and doing it again until the whole path is low (Section 4, Apps. A and B, Fig. 6).

The highest point B of a segment AC is optimised to B', as a rule within the hyperplane through B orthogonal to AC,
until its cross-entropy is below a threshold; the path then goes A, B', C. A round does this to every segment whose
highest loss is above delta: the first gives the secondary path of two segments, the second the tertiary one of at most
four. The segments of all pairs that share a network are optimised in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import nn

from empirical import batches
from empirical.descent import Projection
from empirical.models import Precision
from empirical.paths import Curve, loss_curves, on_segments
from empirical.synthesis import optimise_inputs
from percolation import arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How one pair was connected: a path and its loss curve for each round, the straight segment first.

    ``parents[k]`` holds, for each segment of round k, the number of the segment of round k - 1 that it is or was split
    from; -1 for the straight one. ``n_converged`` of the ``n_bypasses`` optimised points reached the threshold, at a
    cost of ``n_gradients`` gradients; ``n_evaluations`` counts the points of the loss curves. ``is_connected`` says
    that no loss found on the last path is above delta.
    """

    paths: tuple[torch.Tensor, ...]
    curves: tuple[Curve, ...]
    parents: tuple[tuple[int, ...], ...]
    n_bypasses: int
    n_converged: int
    n_gradients: int
    n_evaluations: int
    is_connected: bool


def connect(
    network: nn.Module,
    starts: torch.Tensor,
    ends: torch.Tensor,
    targets: torch.Tensor,
    *,
    delta: float,
    threshold: float,
    max_rounds: int,
    max_iterations: int,
    learning_rate: float = 0.05,
    mse: float = 0.1,
    high_frequency: float = 0.0,
    projection: Projection | None = "step",
    n_points: int = 200,
    precision: Precision = "float32",
) -> list[Connection]:
    """Connect each start with its end by a path whose loss is at most ``delta``.

    Parameters
    ----------
    network : nn.Module
        Used in evaluation mode and left as it was.
    starts, ends : Tensor, shape (n, c, h, w)
        The inputs A and C of each pair, on the network's device.
    targets : Tensor of int64, shape (n,)
        The class of each pair.
    delta : float
        Loss above which a segment is bypassed, in nats.
    threshold : float
        Cross-entropy at which a bypass point is done; below ``delta``.
    max_rounds : int
        Rounds after which a pair is given up, up to 30; 0 looks at the straight segment only.
    max_iterations, learning_rate : int, float
        Of Adam, for each bypass point.
    mse, high_frequency : float
        Weights of mean((B' - B)^2) and of the total variation of B' - B. 0.1 is the paper's mse; on an untrained ResNet
        it leaves nearly all pairs apart, and 0 connects them (figure ``network_scaling``).
    projection : str or None
        How B' - B is kept orthogonal to AC: ``"step"``, exactly; ``"gradient"``, as in the authors' code for images,
        which does not hold it; None, not at all, as there for untrained networks. See ``synthesis.optimise_inputs``.
    n_points : int
        Points of a loss curve; at least 2 for each of up to 2^max_rounds segments.
    precision : str
        Of the bypass's gradients; losses are float32.

    Returns
    -------
    list of Connection
        One a pair; a pair has no more rounds than it needed.

    Raises
    ------
    TypeError
        If an argument is of another kind: the network no module, or not one that makes logits; inputs no tensors of
        floating-point numbers; classes no int64; a number no number.
    ValueError
        If inputs are not alike, or no images; a class is negative or none of the network's; ``n_points``
        is too small; ``threshold`` is not below ``delta``; a number is negative or not finite; or a word is none of
        these.

    Notes
    -----
    A segment whose highest point is one of its own ends cannot be mended by a bypass and is left alone; if no other
    is too high, the pair ends unconnected.
    """
    batches.check_images("starts", starts)
    batches.check_images("ends", ends, like=starts)
    batches.check_classes("targets", targets, n=len(starts), of="pairs")
    numbers = {"delta": delta, "threshold": threshold, "learning_rate": learning_rate, "mse": mse}
    for name, number in (numbers | {"high_frequency": high_frequency}).items():
        arguments.check_real(name, number, least=0)
    max_rounds = arguments.check_whole("max_rounds", max_rounds, least=0, most=30)
    n_points = arguments.check_whole("n_points", n_points, least=2)
    arguments.check_whole("max_iterations", max_iterations, least=0)
    if projection is not None:
        arguments.check_choice("projection", projection, get_args(Projection))
    arguments.check_choice("precision", precision, get_args(Precision))
    if not threshold < delta:
        raise ValueError(f"threshold must be below delta = {delta}, got {threshold}")
    if n_points < 2 * 2**max_rounds:
        raise ValueError(f"n_points must be at least 2 for each of {2**max_rounds} segments, got {n_points}")
    paths = [[torch.stack(ends_of_pair)] for ends_of_pair in zip(starts, ends, strict=True)]
    curves = [[curve] for curve in loss_curves(network, [path[0] for path in paths], targets, n_points=n_points)]
    parents: list[list[tuple[int, ...]]] = [[(-1,)] for _ in paths]
    n_bypasses, n_converged, n_gradients = ([0] * len(paths) for _ in range(3))

    for _ in range(max_rounds):
        work = [(pair, segment) for pair in range(len(paths)) for segment in _too_high(curves[pair][-1], delta)]
        if not work:
            break
        pairs = [pair for pair, _ in work]
        classes = targets[pairs]
        a = torch.stack([paths[pair][-1][segment] for pair, segment in work])
        c = torch.stack([paths[pair][-1][segment + 1] for pair, segment in work])
        b = on_segments(a, c, torch.stack([curves[pair][-1].peak_position[segment] for pair, segment in work]))
        bypass = optimise_inputs(
            network,
            b,
            classes,
            threshold=threshold,
            max_iterations=max_iterations,
            learning_rate=learning_rate,
            high_frequency=torch.full((len(work),), high_frequency),
            mse=mse,
            anchors=b,
            normals=None if projection is None else c - a,
            projection=projection or "step",
            precision=precision,
        )
        for pair, converged, steps in zip(pairs, bypass.is_converged.tolist(), bypass.iterations.tolist(), strict=True):
            n_bypasses[pair] += 1
            n_converged[pair] += converged
            n_gradients[pair] += steps
        busy = sorted(set(pairs))
        for pair in busy:
            new = {segment: bypass.inputs[i] for i, (owner, segment) in enumerate(work) if owner == pair}
            parents[pair].append(tuple(i for i in range(len(paths[pair][-1]) - 1) for _ in range(1 + (i in new))))
            paths[pair].append(_insert(paths[pair][-1], new))
        longer = [paths[pair][-1] for pair in busy]
        for pair, curve in zip(busy, loss_curves(network, longer, targets[busy], n_points=n_points), strict=True):
            curves[pair].append(curve)

    return [
        Connection(
            paths=tuple(paths[pair]),
            curves=tuple(curves[pair]),
            parents=tuple(parents[pair]),
            n_bypasses=n_bypasses[pair],
            n_converged=n_converged[pair],
            n_gradients=n_gradients[pair],
            n_evaluations=sum(curve.n_evaluations for curve in curves[pair]),
            is_connected=curves[pair][-1].barrier <= delta,
        )
        for pair in range(len(paths))
    ]


def _too_high(curve: Curve, delta: float) -> Sequence[int]:
    """Return the segments to bypass: too high, and not at one of their own ends."""
    is_inside = (curve.peak_position > 0) & (curve.peak_position < 1)
    return [int(i) for i in torch.nonzero((curve.peak_loss > delta) & is_inside)]


def _insert(stops: torch.Tensor, new: dict[int, torch.Tensor]) -> torch.Tensor:
    """Return the path with a new stop in the segments that are keys of ``new``."""
    longer = []
    for i, stop in enumerate(stops):
        longer.append(stop)
        if i in new:
            longer.append(new[i])
    return torch.stack(longer)
