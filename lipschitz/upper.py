"""Bounds of a whole network that are never too small, from the bounds of its steps.

The bound is of the exact function of the stored weights, in evaluation mode: ||f(x) - f(y)||_p <= M ||x - y||_p for
all inputs x and y, where a norm of more than one axis is that of all numbers in it. What rounding does when the network
itself is run in float32 is not in it.

The bound of each step comes from those of the steps it reads: a step with one input multiplies by its own constant, a
sum adds (L_f + L_skip for a residual block), a concatenation takes the p-norm of the vector of bounds:
||(f, g)(x) - (f, g)(y)||_p^p = ||f(x) - f(y)||_p^p + ||g(x) - g(y)||_p^p <= (L_f^p + L_g^p) ||x - y||_p^p.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from lipschitz import factors, graph, norms, reading

Number = TypeVar("Number")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperBound:
    """A number that the Lipschitz constant does not exceed.

    Parameters
    ----------
    value : float
        The bound.
    norm : float
        The exponent p of the norm of inputs and outputs: 1, 2 or inf.
    factors : tuple of (str, float)
        Each step's name and its own bound, in the order of the network, but for the input, sums and concatenations; a
        BatchNorm folded into the layer before it has 1. Empty for methods that do not go step by step.
    method : str
        How it was found.
    is_certified : bool
        Whether it holds for certain, rounding of the bound's own arithmetic included.
    relative_gap : float
        By how much the bounds of the single steps may exceed the steps' norms, together, as a part of ``value``; it
        says nothing of how far the bound lies above the network's constant. 0 for methods that do not go step by step.
    failure_probability : float
        Probability, over the random starts of the Krylov bounds of large convolutions, that the bound does not hold;
        0 where every part is deterministic. Their seed is fixed: it holds against chance, not against an adversary.
    """

    value: float
    norm: float
    factors: tuple[tuple[str, float], ...]
    method: str
    is_certified: bool
    relative_gap: float
    failure_probability: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """What is put on the channels of steps, by the step's place, before their norms are taken.

    Parameters
    ----------
    rows, columns : mapping of int to Tensor of float64
        Of a Linear's or a convolution's output and input channels; see :func:`lipschitz.factors.bound_step`.
    constants : mapping of int to float
        Of steps whose own constant is replaced: 1 where it has moved into the rows of another.
    """

    rows: Mapping[int, torch.Tensor]
    columns: Mapping[int, torch.Tensor]
    constants: Mapping[int, float]


def upper_product(
    model: nn.Module, input_shape: Sequence[int], *, norm: float = 2, tolerance: float = 1e-8
) -> UpperBound:
    """Return the bound composed of the steps' Lipschitz constants (Lemma D.1; sums and concatenations as above).

    Parameters
    ----------
    model : torch.nn.Module
        Any that :func:`lipschitz.reading.read` can read, on any device; floating-point weights of at most 64 bits.
    input_shape : sequence of int
        Of one input, without the batch axis.
    norm : {1, 2, inf}
        The exponent p.
    tolerance : float
        Relative gap at which the norm of a matrix is tight enough, in (0, 1); convolutions stop at 1e-3 if it is
        smaller. A loose one is quicker, and as certain.

    Returns
    -------
    UpperBound
        Certified: the steps' norms are, and every operation on them is rounded up. Infinite if the bound passes the
        range of float64.

    Raises
    ------
    ValueError
        If the model cannot be read, or a layer holds numbers that are not finite. The message names it; nothing is
        skipped.
    TypeError
        If weights are not real floating-point numbers.

    Notes
    -----
    A BatchNorm that alone reads a Linear or a convolution multiplies the rows of its weights, elsewhere it is a map
    of its own, with norm max |scale|. A layer that stands twice counts twice. Cost: one norm for each Linear and each
    convolution.

    References
    ----------
    Vrabel et al., Input Space Mode Connectivity in Deep Neural Networks, Lemma D.1 (with Eq. 8 as it stands:
    see :mod:`lipschitz.fully_connected`).

    Examples
    --------
    >>> layer = nn.Linear(2, 2, dtype=torch.float64)
    >>> _ = layer.weight.data.copy_(torch.diag(torch.tensor([2.0, 1.0])))
    >>> bound = upper_product(nn.Sequential(layer, nn.ReLU(), layer), (2,))
    >>> bool(4.0 <= bound.value < 4.0 + 1e-7)
    True
    """
    norms.check_norm(norm)
    steps = reading.read(model, input_shape)
    return bound_weighted(steps, fold(steps), norm=norm, tolerance=tolerance, method="product")


def fold(steps: Sequence[graph.Step]) -> Weights:
    """Return the weights by which BatchNorms are folded into the layers before them."""
    folds = factors.folds(steps)
    return Weights(
        rows={before: factors.upper_scale(steps[place]) for place, before in folds.items()},
        columns={},
        constants=dict.fromkeys(folds, 1.0),
    )


def bound_weighted(
    steps: Sequence[graph.Step], weights: Weights, *, norm: float, tolerance: float, method: str
) -> UpperBound:
    """Return the bound composed of the constants of weighted steps, rounded up."""
    uppers, lowers = [1.0] * len(steps), [1.0] * len(steps)
    known: dict[tuple[object, ...], norms.NormBound] = {}
    failure = 0.0
    is_certified = True
    for place, step in enumerate(steps):
        if place in weights.constants:
            uppers[place] = lowers[place] = weights.constants[place]
        elif step.kind not in ("input", "add", "concatenate"):
            rows, columns = weights.rows.get(place), weights.columns.get(place)
            shape = steps[step.inputs[0]].shape
            # A layer used again has the same norm again; its weights on the channels may differ.
            key = (id(step.layer), shape) if step.layer is not None and rows is columns is None else (place,)
            if key not in known:
                known[key] = factors.bound_step(step, shape, norm=norm, tolerance=tolerance, rows=rows, columns=columns)
                failure = factors.add_up(failure, known[key].failure_probability)
                is_certified &= known[key].is_certified
            uppers[place], lowers[place] = known[key].upper, known[key].lower
    value = compose(
        steps,
        uppers,
        one=1.0,
        multiply=factors.multiply_up,
        add=factors.add_up,
        combine=lambda bounds: combine_up(bounds, norm),
    )
    lower = compose(
        steps,
        lowers,
        one=1.0,
        multiply=lambda a, b: a * b,
        add=lambda a, b: a + b,
        combine=lambda bounds: math.hypot(*bounds) if norm == 2 else float(np.linalg.norm(bounds, norm)),
    )
    return UpperBound(
        value=value,
        norm=norm,
        factors=tuple(
            (step.name, constant)
            for step, constant in zip(steps, uppers, strict=True)
            if step.kind not in ("input", "add", "concatenate")
        ),
        method=method,
        is_certified=is_certified,
        relative_gap=(value - lower) / value if 0.0 < value < math.inf else 0.0,
        failure_probability=failure,
    )


def compose(
    steps: Sequence[graph.Step],
    constants: Sequence[Number],
    *,
    one: Number,
    multiply: Callable[[Number, Number], Number],
    add: Callable[[Number, Number], Number],
    combine: Callable[[Sequence[Number]], Number],
) -> Number:
    """Return the bound of the last step, from the constants of all, in any arithmetic of numbers."""
    bounds: list[Number] = []
    for step, constant in zip(steps, constants, strict=True):
        read = [bounds[source] for source in step.inputs]
        if step.kind == "input":
            bounds.append(one)
        elif step.kind == "add":
            bounds.append(add(read[0], read[-1]))
        elif step.kind == "concatenate":
            bounds.append(combine(read))
        else:
            bounds.append(multiply(constant, read[0]))
    return bounds[-1]


def combine_up(bounds: Sequence[float], norm: float) -> float:
    """Return the p-norm of a vector of bounds, rounded up."""
    largest = max(bounds)
    if norm == math.inf or largest in (0.0, math.inf):
        return largest
    if norm == 1:
        return functools.reduce(factors.add_up, bounds)
    # hypot does not overflow before its result does; it is right to a few units in the last place.
    return factors.add_up(math.hypot(*bounds), 2.0**-49 * largest)
