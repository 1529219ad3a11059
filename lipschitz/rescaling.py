"""The product bound after an optimised rescaling of the channels between the layers.

Multiplying every channel of the output of step i by a positive number d_i[c] changes no network, as long as what reads
it divides first: a linear map A from step i to step j becomes diag(d_j) A diag(1 / d_i). Pointwise functions, BatchNorm
and poolings treat each channel alone, and a pointwise function has the same slopes between any two inputs whatever
their size, so their difference quotients are a diagonal matrix, which commutes with diag(d); max pooling commutes with
positive numbers, average pooling with any. So if step j reads step i and is one of these, d_j = d_i leaves its constant
as it is. A sum keeps its bound when all that it adds have the same d, a concatenation always, and d is 1 at the input
and at the output. Within these rules any d gives a bound of the same network, and the composed bound of
:mod:`lipschitz.upper` can be made small: first in float32 by gradient steps, where nothing is certified, then the
rescaled steps are bounded like any others. diag(1 / d) is rounded up, which only raises the norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import nn

from lipschitz import absolute, factors, graph, norms, reading, upper

# Steps that treat each channel alone, positive numbers on it passing through.
_BY_CHANNEL = (*graph.POINTWISE, "batch_norm", "scale", "shift")
_POOLS = ("max_pool", "average_pool")
_LEARNING_RATE = 0.05
_N_VECTORS = 8
_N_SQUARINGS = 4
_MOST_PIXELS = 12  # along an axis


def upper_rescaled(
    model: nn.Module, input_shape: Sequence[int], *, norm: float = 2, tolerance: float = 1e-8, n_steps: int = 200
) -> upper.UpperBound:
    """Return the smaller of the product bound and the product bound of the best rescaling found.

    Parameters
    ----------
    model, input_shape, norm, tolerance
        As for :func:`lipschitz.upper.upper_product`.
    n_steps : int
        Gradient steps on the logarithms of the scales, for the 2-norm; at least 0.

    Returns
    -------
    UpperBound
        Certified. ``factors`` are those of the rescaled steps. For the norms 1 and inf the best rescaling by single
        numbers instead of channels is known: it makes the product that of
        :func:`lipschitz.absolute.upper_absolute`, which is returned.

    Raises
    ------
    ValueError, TypeError
        As for :func:`lipschitz.upper.upper_product`; ValueError also if ``n_steps`` is negative.

    Notes
    -----
    Cost: each step is about five passes of eight inputs, cut to 12 x 12 pixels, in float32; then every norm is bounded
    twice, rescaled and not. Not random: power iteration starts from a fixed seed.

    Examples
    --------
    >>> first, last = nn.Linear(1, 2, bias=False), nn.Linear(2, 1, bias=False)
    >>> _ = first.weight.data.copy_(torch.tensor([[8.0], [0.5]])), last.weight.data.copy_(torch.tensor([[0.5, 8.0]]))
    >>> model = nn.Sequential(first, nn.ReLU(), last)
    >>> round(upper.upper_product(model, (1,)).value), round(upper_rescaled(model, (1,)).value, 2)
    (64, 8.0)
    """
    norms.check_norm(norm)
    if n_steps < 0:
        raise ValueError(f"n_steps must be at least 0, got {n_steps}")
    if norm != 2:
        return absolute.upper_absolute(model, input_shape, norm=norm)
    steps = reading.read(model, input_shape)
    folded = upper.fold(steps)
    plain = upper.bound_weighted(steps, folded, norm=norm, tolerance=tolerance, method="product")
    channels = scale_numbers(steps)
    if n_steps == 0 or not (0.0 < plain.value < math.inf) or not any(ids.any() for ids in channels):
        return plain
    logarithms = _optimise(steps, folded, channels, n_steps)
    weights = _weigh(steps, folded, channels, logarithms)
    rescaled = upper.bound_weighted(steps, weights, norm=norm, tolerance=tolerance, method="rescaled product")
    return min(plain, rescaled, key=lambda bound: bound.value)


def scale_numbers(steps: Sequence[graph.Step]) -> list[np.ndarray]:
    """Return which scale each channel of each step's output has: its number, or 0 for those that must be 1.

    One array a step, of the length of the first axis of its output.
    """
    numbers: list[np.ndarray] = []
    pairs: list[np.ndarray] = []  # numbers of scales that must be equal
    n_scales = 1

    def fix(ids: np.ndarray) -> None:
        pairs.append(np.stack([ids, np.zeros_like(ids)]))

    for step in steps:
        n_channels = step.shape[0] if step.shape else 1
        read = [numbers[source] for source in step.inputs]
        here = np.zeros(n_channels, dtype=np.int64)
        if step.kind in _BY_CHANNEL or (step.kind in _POOLS and len(step.shape) == 3):
            here = read[0]
        elif step.kind == "concatenate" and step.axis == 0:
            here = np.concatenate(read)
        elif step.kind == "concatenate":
            here = read[0]
            pairs.extend(np.stack([read[0], other]) for other in read[1:])
        elif step.kind == "add":
            here = read[0]
            pairs.append(np.stack([read[0], read[-1]]))
        elif step.kind in ("reshape", "gather") and step.shape:
            here = _moved(step, steps[step.inputs[0]].shape, read[0], pairs)
        elif factors.has_channels(step):
            here = np.arange(n_scales, n_scales + n_channels)
            n_scales += n_channels
        else:
            for ids in read:
                fix(ids)
        numbers.append(here)
    fix(numbers[-1])
    rows, columns = np.concatenate(pairs, axis=1)
    linked = scipy.sparse.coo_array((np.ones(rows.size), (rows, columns)), shape=(n_scales, n_scales))
    found = scipy.sparse.csgraph.connected_components(linked, directed=False)[1]
    # The part that holds 0 becomes 0 itself.
    found = np.where(found == found[0], 0, np.where(found < found[0], found + 1, found))
    return [found[ids] for ids in numbers]


def _moved(step: graph.Step, shape: Sequence[int], ids: np.ndarray, pairs: list[np.ndarray]) -> np.ndarray:
    """Return the numbers of what a step makes of channels that it moves; what it puts into one channel is linked."""
    n_channels = step.shape[0]
    index = torch.arange(math.prod(shape)) if step.index is None else step.index
    moved = index.reshape(n_channels, -1).numpy()
    numbers = np.where(moved >= 0, ids[moved // max(math.prod(shape) // len(ids), 1)], -1)
    first = numbers.max(axis=1)  # a channel of zeros can have any; 1 is the input's
    linked = np.broadcast_to(first[:, None], numbers.shape)
    differs = (numbers >= 0) & (numbers != linked)
    if differs.any():
        pairs.append(np.unique(np.stack([numbers[differs], linked[differs]]), axis=1))
    found: np.ndarray = np.maximum(first, 0)
    return found


def _combine(logarithms: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the logarithm of the root of the sum of squares."""
    return 0.5 * torch.logsumexp(2.0 * torch.stack(list(logarithms)), dim=0)


def _optimise(
    steps: Sequence[graph.Step], folded: upper.Weights, channels: Sequence[np.ndarray], n_steps: int
) -> np.ndarray:
    """Return the logarithms of the scales by their numbers, the first of them 0."""
    generator = torch.Generator().manual_seed(0)
    free = torch.zeros(max(int(ids.max()) for ids in channels), dtype=torch.float32, requires_grad=True)
    optimiser = torch.optim.Adam([free], lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    ids = [torch.from_numpy(numbers) for numbers in channels]
    blocks: dict[int, _Block] = {}
    fixed: list[torch.Tensor] = []  # logarithms of the constants that do not depend on the scales
    for place, step in enumerate(steps):
        constant = folded.constants.get(place, 1.0)
        if step.kind in ("linear", "convolution"):
            blocks[place] = _Block(step, folded.rows.get(place), steps[step.inputs[0]].shape, generator)
        elif place not in folded.constants and step.kind not in ("input", "add", "concatenate"):
            constant = factors.bound_step(step, steps[step.inputs[0]].shape, norm=2, tolerance=0.1).upper
        fixed.append(torch.tensor(math.log(constant) if constant > 0.0 else -math.inf, dtype=torch.float32))
    with torch.enable_grad(), torch.inference_mode(False):
        for _ in range(n_steps):
            logarithms = torch.cat([torch.zeros(1, dtype=torch.float32), free])
            constants = list(fixed)
            for place, block in blocks.items():
                source = steps[place].inputs[0]
                constants[place] = block(logarithms[ids[place]], -logarithms[ids[source]])
            value = upper.compose(
                steps,
                constants,
                one=torch.zeros((), dtype=torch.float32),
                multiply=torch.add,
                add=torch.logaddexp,
                combine=_combine,
            )
            if not bool(value.isfinite()):  # a branch of zeros, or numbers that float32 or float64 does not hold
                break
            (free.grad,) = torch.autograd.grad(value, free)
            optimiser.step()
            schedule.step()
    return np.concatenate([[0.0], free.detach().double().numpy()])


class _Block:
    """The largest singular values of diag(rows) A diag(columns), by subspace iteration that goes on where it stopped.

    The image is cut to a few pixels: the scales are only guessed from it.
    """

    def __init__(
        self, step: graph.Step, rows: torch.Tensor | None, shape: Sequence[int], generator: torch.Generator
    ) -> None:
        self.step = step
        weight = factors.multiply_channels(step, factors.weights_of(step), rows, None)
        self.size = float(weight.abs().max().clamp(2.0**-1000, 2.0**1000))  # taken out, as float32 would not hold it
        self.weight = (weight / self.size).float()
        # a convolution's image is cut; the last axis of a Linear is its features
        spans = [_span(step, axis) for axis in range(len(shape) - 1)] if step.kind == "convolution" else shape[1:]
        sides = [min(side, max(_MOST_PIXELS, span)) for side, span in zip(shape[1:], spans, strict=True)]
        self.vectors = torch.randn(_N_VECTORS, shape[0], *sides, generator=generator, dtype=torch.float32)
        self.n_iterations = 10

    def __call__(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Return the logarithm of a smooth function near the largest, from the logarithms of the weights."""
        axes = (1, -1, *(1,) * (self.vectors.ndim - 2))
        left, right = rows.exp().reshape(axes), columns.exp().reshape(axes)
        with torch.no_grad():
            for _ in range(self.n_iterations):
                images = right * self.adjoint(left * left * self.forward(right * self.vectors))
                basis = torch.linalg.qr(images.flatten(1).T)[0].T
                self.vectors = basis.reshape(-1, *images.shape[1:])
        self.n_iterations = 1
        images = (left * self.forward(right * self.vectors)).flatten(1)
        gram = images @ images.T
        if not bool(gram.isfinite().all()):
            return gram.new_tensor(math.nan)
        largest = torch.linalg.eigvalsh(gram.detach())[-1].clamp_min(1e-30)
        power = gram / largest
        for _ in range(_N_SQUARINGS):
            power = power @ power
        smooth: torch.Tensor = 0.5 * (largest.log() + power.trace().log() / 2**_N_SQUARINGS) + math.log(self.size)
        return smooth

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return factors.multiply(self.step, vectors, self.weight)

    def adjoint(self, images: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            vectors = torch.zeros_like(self.vectors, requires_grad=True)
            (result,) = torch.autograd.grad(self.forward(vectors), vectors, images)
        return result


def _span(step: graph.Step, axis: int) -> int:
    """Return how many pixels a convolution's kernel spans along an axis."""
    layer: Any = step.layer
    return int(layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1)


def _weigh(
    steps: Sequence[graph.Step], folded: upper.Weights, channels: Sequence[np.ndarray], logarithms: np.ndarray
) -> upper.Weights:
    """Return the weights of the folded BatchNorms and of the scales, rounded up."""
    scales = np.exp(logarithms)
    inverses = np.nextafter(1.0 / scales, np.inf)
    rows, columns = dict(folded.rows), {}
    for place, step in enumerate(steps):
        if step.kind not in ("linear", "convolution"):
            continue
        if channels[place].any():
            here = torch.from_numpy(scales[channels[place]])
            rows[place] = here if place not in rows else torch.nextafter(rows[place] * here, torch.tensor(math.inf))
        if channels[step.inputs[0]].any():
            columns[place] = torch.from_numpy(
                np.where(channels[step.inputs[0]] > 0, inverses[channels[step.inputs[0]]], 1.0)
            )
    return upper.Weights(rows=rows, columns=columns, constants=folded.constants)
