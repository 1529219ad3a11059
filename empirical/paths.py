"""Piecewise-linear paths between inputs: the loss along them, and the barrier (Section 3, Eq. 2).

A path is its stops, (n_stops, c, h, w), joined by straight segments. Position along it, alpha, is the share of the
path's length behind a point, in [0, 1]; for one segment this is the alpha of Eq. 2 counted from A. The loss is the
cross-entropy of one class, the same for the whole path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from empirical import batches
from empirical.descent import cross_entropies
from empirical.models import frozen
from percolation import arguments

_CHUNK, _CHUNK_OF_CUDA = 256, 4096  # points in one forward pass
_N_FINE = 15  # points of each finer grid around the highest point of a segment
_MOST_GRIDS = 6  # finer grids, each an eighth as wide as the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The loss along one path; tensors on the CPU, losses in float32.

    ``alpha`` and ``loss``, (n_points,), are the grid; ``stop_alpha``, (n_stops,), is where the stops lie.
    ``peak_loss`` and ``peak_position``, (n_segments,), are the highest loss found on each segment and where on it, in
    [0, 1]: the grid's, refined by finer grids between the neighbours of the highest point. They are lower bounds of
    the true maximum. ``barrier`` is the highest of them, at ``barrier_alpha``; ``gap`` is the barrier less the higher
    of the losses at the two ends; ``mean`` is the loss averaged over the path's length (trapezoids of the grid).
    ``length_ratio`` is the path's length over the distance of its ends, at least 1; ``deviation`` the largest distance
    of a point of the path from the straight segment between its ends, over their distance. ``n_evaluations`` counts
    the points at which the network was evaluated.
    """

    alpha: torch.Tensor
    loss: torch.Tensor
    stop_alpha: torch.Tensor
    peak_loss: torch.Tensor
    peak_position: torch.Tensor
    barrier: float
    barrier_alpha: float
    gap: float
    mean: float
    length_ratio: float
    deviation: float
    n_evaluations: int


def loss_curves(
    network: nn.Module,
    paths: Sequence[torch.Tensor],
    targets: torch.Tensor,
    *,
    n_points: int = 200,
    tolerance: float = 1e-4,
) -> list[Curve]:
    """Return the loss along each path.

    Parameters
    ----------
    network : nn.Module
        Used in evaluation mode and left as it was.
    paths : sequence of Tensors, shape (n_stops, c, h, w)
        On the network's device.
    targets : Tensor of int64, shape (len(paths),)
        The class of each path.
    n_points : int
        Points a path, shared out equally among its segments (the first ones get what is left over); those of a
        segment are equally spread and include both its ends, so that an inner stop appears twice. At least 2 a
        segment. The paper takes 200.
    tolerance : float
        The highest point of a segment is settled when a grid eight times finer raises its loss by no more than this
        share of it; at least 0.

    Returns
    -------
    list of Curve

    Raises
    ------
    TypeError
        If an argument is of another kind: the network no module, or not one that makes logits; inputs no tensors of
        floating-point numbers; classes no int64; a number no number.
    ValueError
        If a path has no segment, inputs are not alike or no images, a class is negative or none of the
        network's, ``n_points`` gives a segment fewer than two points or takes more than all of the memory, or the
        tolerance is negative or not finite.
    """
    batches.check_paths(paths)
    batches.check_classes("targets", targets, n=len(paths), of="paths")
    n_points = arguments.check_whole("n_points", n_points, least=2)
    tolerance = arguments.check_real("tolerance", tolerance, least=0)
    most = max(len(stops) - 1 for stops in paths)
    if n_points < 2 * most:
        raise ValueError(f"n_points must be at least 2 for each of {most} segments, got {n_points}")
    arguments.check_memory("n_points", n_points, 24 * n_points * len(paths))
    batches.check_network(network, paths[0], targets)
    starts = torch.cat([stops[:-1] for stops in paths])
    ends = torch.cat([stops[1:] for stops in paths])
    classes = torch.cat([target.expand(len(stops) - 1) for stops, target in zip(paths, targets, strict=True)])

    sizes = [size for stops in paths for size in _shares(n_points, len(stops) - 1)]
    grids = [torch.linspace(0, 1, size) for size in sizes]
    losses = _losses(network, starts, ends, classes, grids)

    peaks = _peaks(network, starts, ends, classes, grids, losses, tolerance)

    curves = []
    first = 0
    for stops in paths:
        last = first + len(stops) - 1
        curves.append(_curve(stops, grids[first:last], losses[first:last], peaks[first:last]))
        first = last
    return curves


def on_segments(starts: torch.Tensor, ends: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return one point on each segment: start + position (end - start), exact at both ends.

    Raises
    ------
    TypeError
        If starts and ends are no tensors of floating-point numbers, or positions no tensor.
    ValueError
        If ends are not such as starts are, or there is not a position in [0, 1] for each.
    """
    batches.check_images("starts", starts)
    batches.check_images("ends", ends, like=starts)
    arguments.check_kind("positions", positions, torch.Tensor)
    if positions.shape != (len(starts),) or not bool(((positions >= 0) & (positions <= 1)).all()):
        raise ValueError(
            f"positions must lie in [0, 1], one for each of {len(starts)} segments, got shape {tuple(positions.shape)}"
        )
    return _on_segments(starts, ends, positions)


def _on_segments(starts: torch.Tensor, ends: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    share = positions.to(starts)[:, None, None, None]
    return torch.where(share < 1, starts + share * (ends - starts), ends)


def _shares(n_points: int, n_segments: int) -> list[int]:
    return [n_points // n_segments + (i < n_points % n_segments) for i in range(n_segments)]


@dataclass(slots=True)
class _Peak:
    """The highest point of a segment so far, and the spacing of the grid that it was found on."""

    loss: float
    position: float
    spacing: float
    n_evaluations: int


def _peaks(
    network: nn.Module,
    starts: torch.Tensor,
    ends: torch.Tensor,
    classes: torch.Tensor,
    grids: Sequence[torch.Tensor],
    losses: Sequence[torch.Tensor],
    tolerance: float,
) -> list[_Peak]:
    """Refine the highest point of every segment, those that are not settled yet in one batch."""
    peaks = []
    for grid, found in zip(grids, losses, strict=True):
        top = int(found.argmax())
        peaks.append(_Peak(float(found[top]), float(grid[top]), 1 / (len(grid) - 1), len(grid)))
    rough = list(range(len(peaks)))
    for _ in range(_MOST_GRIDS):
        if not rough:
            break
        finer = []
        for i in rough:
            low, high = max(peaks[i].position - peaks[i].spacing, 0), min(peaks[i].position + peaks[i].spacing, 1)
            finer.append(torch.linspace(low, high, _N_FINE + 2)[1:-1])
        higher = _losses(network, starts[rough], ends[rough], classes[rough], finer)
        rougher = []
        for i, grid, found in zip(rough, finer, higher, strict=True):
            top = int(found.argmax())
            if float(found[top]) > (1 + tolerance) * peaks[i].loss:
                rougher.append(i)
            if not float(found[top]) <= peaks[i].loss:  # or nan, which argmax finds
                peaks[i].loss, peaks[i].position = float(found[top]), float(grid[top])
            peaks[i].spacing = float(grid[1] - grid[0])
            peaks[i].n_evaluations += _N_FINE
        rough = rougher
    return peaks


def _losses(
    network: nn.Module,
    starts: torch.Tensor,
    ends: torch.Tensor,
    classes: torch.Tensor,
    grids: Sequence[torch.Tensor],
) -> list[torch.Tensor]:
    """Return the loss at the positions ``grids[i]`` of segment i, on the CPU."""
    segment = torch.cat([torch.full((len(grid),), i) for i, grid in enumerate(grids)]).to(starts.device)
    position = torch.cat(list(grids)).to(starts.device)
    chunk = _CHUNK_OF_CUDA if starts.device.type == "cuda" else _CHUNK
    losses = []
    with frozen(network), torch.no_grad():
        for rows, where in zip(torch.split(segment, chunk), torch.split(position, chunk), strict=True):
            logits = network(_on_segments(starts[rows], ends[rows], where))
            losses.append(cross_entropies(logits.float(), classes[rows]))
    return list(torch.split(torch.cat(losses).cpu(), [len(grid) for grid in grids]))


def _curve(
    stops: torch.Tensor,
    grids: Sequence[torch.Tensor],
    losses: Sequence[torch.Tensor],
    peaks: Sequence[_Peak],
) -> Curve:
    exact = stops.cpu().double().flatten(1)
    lengths = exact.diff(dim=0).norm(dim=1)
    total, distance = float(lengths.sum()), float((exact[-1] - exact[0]).norm())
    # A path that stays in its place has no lengths to go by: then its segments count alike.
    shares = lengths / total if total > 0 else torch.full_like(lengths, 1 / len(lengths))
    stop_alpha = torch.cat([torch.zeros(1), shares.cumsum(0).float()])
    stop_alpha[-1] = 1.0
    alpha = torch.cat([a + grid * (b - a) for a, b, grid in zip(stop_alpha[:-1], stop_alpha[1:], grids, strict=True)])
    loss = torch.cat(list(losses))
    top = max(range(len(peaks)), key=lambda i: (math.isnan(peaks[i].loss), peaks[i].loss))
    barrier, position = peaks[top].loss, peaks[top].position
    a, b = float(stop_alpha[top]), float(stop_alpha[top + 1])
    return Curve(
        alpha=alpha,
        loss=loss,
        stop_alpha=stop_alpha,
        peak_loss=torch.tensor([peak.loss for peak in peaks]),
        peak_position=torch.tensor([peak.position for peak in peaks]),
        barrier=barrier,
        barrier_alpha=a + position * (b - a),
        gap=barrier - max(float(loss[0]), float(loss[-1])),
        mean=float(torch.trapezoid(loss.double(), alpha.double())),
        length_ratio=total / distance if distance > 0 else 1.0,
        deviation=_deviation(exact, distance),
        n_evaluations=sum(peak.n_evaluations for peak in peaks),
    )


def _deviation(stops: torch.Tensor, distance: float) -> float:
    """Return the largest distance from the segment between the ends over its length; it is attained at a stop."""
    if distance == 0:
        return 0.0
    straight = stops[-1] - stops[0]
    share = ((stops - stops[0]) @ straight / distance**2).clamp(0, 1)
    return float((stops - stops[0] - share[:, None] * straight).norm(dim=1).max()) / distance
