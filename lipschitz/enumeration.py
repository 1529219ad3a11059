"""The Lipschitz constant of a tiny piecewise linear network, from all its linear regions.

On the set of inputs where every ReLU keeps its sign the network is affine; its Lipschitz constant is the largest norm
of the matrices of these regions. Going through the neurons in order, a region of the ones before, known by a point
inside it, lies on the side of that point; a linear program finds whether it also reaches the other side, and a point
there: the centre of the largest ball in the intersection. Only patterns that occur are visited, so the number is the
constant itself. (The maximum over *all* patterns would be an upper bound, as products of norms are; one over patterns
seen at sampled points a lower one.)

References
----------
Jordan, Dimakis, Exactly computing the local Lipschitz constant of ReLU networks, NeurIPS 2020, arXiv:2003.01219.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from torch import nn

from lipschitz import graph, norms, reading

_MOST_NEURONS = 40
_MOST_REGIONS = 100_000
_AFFINE = ("linear", "convolution", "batch_norm", "average_pool", "reshape", "gather", "scale", "shift")
_THINNEST = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExactConstant:
    """The Lipschitz constant of a network.

    Parameters
    ----------
    value : float
        The constant: attained, and, but for rounding and regions too thin to be seen, not exceeded.
    norm : float
        The exponent p of the norm of inputs and outputs: 1, 2 or inf.
    point : Tensor, shape of an input, float64
        A point in a region with this slope.
    n_regions : int
        Patterns of activation that occur.
    narrowest : float
        Radius of the smallest ball that showed a region to exist, at most 1, relative to 1 + the largest coordinate of
        its centre. Far above 1e-8, nothing was near to being overlooked.
    """

    value: float
    norm: float
    point: torch.Tensor
    n_regions: int
    narrowest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Region:
    """Inputs x with rows x <= limits, one of them, and the radius of a ball about it."""

    rows: np.ndarray
    limits: np.ndarray
    point: np.ndarray
    radius: float


def exact_constant(model: nn.Module, input_shape: Sequence[int], *, norm: float = 2) -> ExactConstant:
    """Return the Lipschitz constant of a tiny network of ReLUs and affine steps.

    Parameters
    ----------
    model : torch.nn.Module
        Of Linear, Conv1d, Conv2d, BatchNorm and Dropout in evaluation mode, ReLU, LeakyReLU, average pooling, sums,
        concatenations, flattening, multiplication by and addition of numbers, as :func:`lipschitz.reading.read` reads
        them, with at most 40 neurons (numbers that pass a ReLU).
    input_shape : sequence of int
        Of one input, without the batch axis.
    norm : {1, 2, inf}
        The exponent p.

    Returns
    -------
    ExactConstant
        Up to float64 rounding, which is not bounded.

    Raises
    ------
    ValueError
        If a step is not one of these, if there are more than 40 neurons, or if ``norm`` is none of the three.
    RuntimeError
        If there are more than 100,000 regions, or a linear program cannot be solved.

    Notes
    -----
    Regions with no ball of radius 1e-8 (1 + its centre's largest coordinate) are not seen: linear programs are solved
    to about 1e-9. Cost: a linear program of d + 1 variables for each region and each neuron, about 2 ms; n neurons in a
    first layer cut d dimensions into at most sum_{k <= d} binomial(n, k) regions.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(1, 2, dtype=torch.float64), nn.ReLU(), nn.Linear(2, 1, dtype=torch.float64))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]])), model[2].weight.data.fill_(1.0)
    >>> found = exact_constant(model, (1,))  # |x|, if a little shifted
    >>> found.value
    1.0
    """
    norms.check_norm(norm)
    steps = reading.read(model, input_shape)
    for step in steps[1:]:
        if step.kind not in (*_AFFINE, "relu", "leaky_relu", "add", "concatenate"):
            raise ValueError(f"step {step.name!r} must be affine or a ReLU for an exact constant, got {step.kind}")
    n_neurons = sum(int(np.prod(step.shape)) for step in steps if step.kind in ("relu", "leaky_relu"))
    if n_neurons > _MOST_NEURONS:
        raise ValueError(f"model must have at most {_MOST_NEURONS} neurons for an exact constant, got {n_neurons}")
    n_inputs = int(np.prod(tuple(input_shape)))
    # The affine map of a region: its values at the origin, and what each coordinate adds.
    start = torch.cat([torch.zeros(1, n_inputs), torch.eye(n_inputs)]).to(torch.float64).reshape(-1, *input_shape)
    whole = _Region(rows=np.zeros((0, n_inputs)), limits=np.zeros(0), point=np.zeros(n_inputs), radius=1.0)
    best, where, narrowest, n_regions = -1.0, whole.point, 1.0, 0
    for region, outputs in _regions(steps, [start], whole):
        n_regions += 1
        if n_regions > _MOST_REGIONS:
            raise RuntimeError(f"model must have at most {_MOST_REGIONS} regions for an exact constant, got more")
        slope = float(np.linalg.norm(outputs[1:].reshape(n_inputs, -1).numpy().T, norm))
        narrowest = min(narrowest, region.radius / (1.0 + float(np.abs(region.point).max(initial=0.0))))
        if slope > best:
            best, where = slope, region.point
    return ExactConstant(
        value=best,
        norm=norm,
        point=torch.from_numpy(where.reshape(tuple(input_shape))),
        n_regions=n_regions,
        narrowest=narrowest,
    )


def _regions(
    steps: Sequence[graph.Step], values: list[torch.Tensor], region: _Region
) -> Iterator[tuple[_Region, torch.Tensor]]:
    """Yield the regions inside one on which the steps before are affine, with the last step's affine map on each."""
    values = list(values)
    for place in range(len(values), len(steps)):
        step = steps[place]
        read = [values[source] for source in step.inputs]
        if step.kind in ("relu", "leaky_relu"):
            constant = torch.zeros(()) if step.constant is None else step.constant
            below = constant.expand(step.shape).flatten().numpy()
            for smaller, slopes in _split(read[0].flatten(1).numpy(), region, below):
                yield from _regions(steps, [*values, read[0] * torch.from_numpy(slopes).reshape(step.shape)], smaller)
            return
        value = graph.apply(step, read)
        if step.kind in _AFFINE:
            value[1:] -= graph.apply(step, [torch.zeros_like(read[0][:1])])
        values.append(value)
    yield region, values[-1]


def _split(affine: np.ndarray, region: _Region, below: np.ndarray) -> Iterator[tuple[_Region, np.ndarray]]:
    """Yield the parts of a region on which each neuron of (1 + n_inputs, n_neurons) keeps its sign, and the slopes.

    The slopes are 1 above zero and ``below`` below it.
    """
    parts = [(region, np.zeros(0))]
    for offset, row, constant in zip(affine[0], affine[1:].T, below, strict=True):
        finer = []
        for part, slopes in parts:
            if not row.any():
                finer.append((part, np.append(slopes, 1.0 if offset > 0.0 else constant)))
                continue
            for sign, slope in ((1.0, 1.0), (-1.0, constant)):
                side = _cut(part, -sign * row, sign * offset)
                if side is not None:
                    finer.append((side, np.append(slopes, slope)))
        parts = finer
    yield from parts


def _cut(region: _Region, row: np.ndarray, limit: float) -> _Region | None:
    """Return the part of a region with row x <= limit, or None if it has no interior."""
    length = float(np.linalg.norm(row))
    rows, limits = np.vstack([region.rows, row / length]), np.append(region.limits, limit / length)
    slack = limits[-1] - float(rows[-1] @ region.point)
    if slack > 0.5 * region.radius:  # the ball about the point, or half of it, is in this part
        return _Region(rows=rows, limits=limits, point=region.point, radius=min(region.radius, slack))
    found = scipy.optimize.linprog(
        c=[0.0] * rows.shape[1] + [-1.0],  # the largest radius
        A_ub=np.column_stack([rows, np.ones(len(rows))]),
        b_ub=limits,
        bounds=[(None, None)] * rows.shape[1] + [(None, 1.0)],
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.status != 0:
        raise RuntimeError(f"linear program of {len(rows)} conditions must be solved, got: {found.message}")
    solution = np.asarray(found.x)
    point, radius = solution[:-1], float(solution[-1])
    if radius <= _THINNEST * (1.0 + float(np.abs(point).max())):
        return None
    return _Region(rows=rows, limits=limits, point=point, radius=radius)
