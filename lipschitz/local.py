"""Bounds that hold on a region of inputs only: neurons that cannot switch on are dropped.

On a convex region the difference of a pointwise function between two inputs is, entry by entry, the difference of what
it reads times a slope that the function has between its ends: at most the largest |slope| s on the interval that
:mod:`lipschitz.intervals` finds. So the layer before it may be multiplied by s, row by row; where s is zero nothing
moves at all, and the column of the layer after it may be dropped. For convolutions s is the largest of a channel. The
network of absolute values (:mod:`lipschitz.absolute`) takes the s one by one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from lipschitz import absolute, factors, graph, intervals, norms, reading, upper


def upper_local(
    model: nn.Module, region: intervals.Region, *, norm: float = 2, tolerance: float = 1e-8
) -> upper.UpperBound:
    """Return a bound of the slopes between any two inputs of a ball or a box.

    Parameters
    ----------
    model : torch.nn.Module
        Any that :func:`lipschitz.reading.read` can read, on any device; floating-point weights of at most 64 bits.
    region : intervals.Region
        The inputs; a box by :func:`lipschitz.intervals.box`.
    norm : {1, 2, inf}
        The exponent p of the slopes; it need not be the norm of the ball.
    tolerance : float
        As for :func:`lipschitz.upper.upper_product`.

    Returns
    -------
    UpperBound
        Certified, given what :mod:`lipschitz.intervals` supposes of torch's smooth functions. The least of the product
        of the weighted steps, the network of absolute values, and the product that holds everywhere: never above it.

    Raises
    ------
    ValueError, TypeError
        As for :func:`lipschitz.upper.upper_product`.

    Notes
    -----
    Cost: a few passes through the network in float64, and every norm twice for p = 2. On large regions of deep networks
    the intervals say nothing, and the bound is the global one.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0], [-3.0]])), model[2].weight.data.fill_(1.0)
    >>> region = intervals.Region(centre=torch.tensor([2.0]), radius=1.0)  # the second neuron is off
    >>> round(upper_local(model, region).value, 6)
    1.0
    """
    norms.check_norm(norm)
    steps = reading.read(model, tuple(region.centre.shape))
    ends = intervals.propagate(steps, region)
    slopes = {
        place: intervals.upper_slopes(step, ends[step.inputs[0]])
        for place, step in enumerate(steps)
        if step.kind in graph.POINTWISE
    }
    folded = upper.fold(steps)
    bounds = [
        upper.bound_weighted(steps, folded, norm=norm, tolerance=tolerance, method="product"),
        upper.UpperBound(
            value=absolute.bound_absolute(steps, slopes, norm=norm),
            norm=norm,
            factors=(),
            method="local absolute values",
            is_certified=True,
            relative_gap=0.0,
        ),
    ]
    if norm == 2:  # for the others never below that of the absolute values
        weights = _weigh(steps, folded, slopes, region)
        bounds.append(upper.bound_weighted(steps, weights, norm=norm, tolerance=tolerance, method="local product"))
    return min(bounds, key=lambda bound: bound.value)


def _weigh(
    steps: Sequence[graph.Step],
    folded: upper.Weights,
    slopes: Mapping[int, torch.Tensor],
    region: intervals.Region,
) -> upper.Weights:
    """Return the weights that slopes put on the rows before them, and what does not move on the columns after."""
    rows, columns, constants = dict(folded.rows), {}, dict(folded.constants)
    n_readers = factors.count_readers(steps)
    folds = factors.folds(steps)
    moving = _moving(steps, slopes, region)
    for place, step in enumerate(steps):
        source = step.inputs[0] if step.inputs else place
        if place in slopes:
            layer = folds.get(source, source)
            constants[place] = float(slopes[place].max())
            if n_readers[source] == 1 and factors.has_channels(steps[layer]):
                here = _by_channel(slopes[place])
                rows[layer] = here if layer not in rows else torch.nextafter(rows[layer] * here, _INFINITY)
                constants[place] = 1.0
        if factors.has_channels(step) and len(steps[source].shape) == len(step.shape):
            here = _by_channel(moving[source])
            if not bool(here.all()):
                columns[place] = here
    return upper.Weights(rows=rows, columns=columns, constants=constants)


def _moving(
    steps: Sequence[graph.Step], slopes: Mapping[int, torch.Tensor], region: intervals.Region
) -> list[torch.Tensor]:
    """Return, for each step, 1 where its output can move on the region and 0 where not, shape (1, ...)."""
    found: list[torch.Tensor] = []
    for place, step in enumerate(steps):
        read = [found[source] for source in step.inputs]
        if step.kind == "input":
            moves = intervals.radii(region).expand(1, *step.shape) > 0.0
        elif step.kind in ("linear", "convolution"):
            moves = torch.ones(1, *step.shape)
        elif place in slopes:
            moves = read[0] * (slopes[place] > 0.0)
        elif step.kind in ("batch_norm", "shift"):
            moves = read[0]
        elif step.kind == "scale":
            moves = read[0] * (factors.upper_scale(step) > 0.0)
        elif step.kind in graph.GROUPED:
            moves = read[0].amax(dim=-1, keepdim=True).expand(read[0].shape)
        else:  # sums, concatenations, poolings, and what only moves numbers
            moves = graph.apply(step, read) != 0.0
        found.append(moves.to(torch.float64))
    return found


def _by_channel(values: torch.Tensor) -> torch.Tensor:
    """Return the largest value of each channel, shape (n_channels,)."""
    return values.reshape(values.shape[1], -1).amax(dim=1)


_INFINITY = torch.tensor(math.inf, dtype=torch.float64)
