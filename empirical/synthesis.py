"""Class-optimal inputs by optimisation (Section 3, Apps. A, B and B.5).

An input is optimised by Adam so that a fixed network gives it a chosen class with a cross-entropy below a threshold.
Many inputs share the batches, each with its own state: one that has reached the threshold leaves, the batch shrinks,
and what a row becomes does not depend on its companions, beyond the last bits that a network's batched arithmetic
leaves open (measured on a ResNet18, alone against eight rows: losses within 1e-6 over 100 steps, pixels within 0.005).

The high-frequency penalty is the anisotropic total variation: the sum over channels and pixels of the absolute
differences of neighbouring pixels, as the authors' code has it.

Gradients may be taken in bfloat16. Whether a row is done is decided in float32, and so is what is reported.

On a GPU the steps are a captured graph (``captured``), which says there what it does otherwise.

Networks do not share a batch: with their weights stacked (torch.func.vmap, whose convolutions are then grouped) four
ResNet18 take 1.5 times the time of one after the other with 20 rows each, and twice with 4 (measured, one core). They
are tasks side by side instead, on a GPU each on a stream of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import nn

from empirical import batches, captured
from empirical.descent import Descent, Projection, Rows, Rule, cross_entropies, unit_vectors
from empirical.models import IMAGE_SHAPE, Precision, for_gradients, frozen
from percolation import arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimised:
    """Optimised inputs, one a row: ``inputs`` (n, 3, h, w) and what is known about each, shape (n,).

    ``losses`` are cross-entropies evaluated once more in float32 at the end; ``is_converged`` says whether they are
    at most the threshold; ``iterations`` counts the steps taken, each of which cost one gradient.
    """

    inputs: torch.Tensor
    losses: torch.Tensor
    is_converged: torch.Tensor
    iterations: torch.Tensor


def noise(
    generators: Sequence[torch.Generator], *, scale: float = 0.01, shape: tuple[int, ...] = IMAGE_SHAPE
) -> torch.Tensor:
    """Return starts N(0, scale^2), one row from each generator, shape (len(generators), *shape), on the CPU.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If there is no generator, ``scale`` is negative or not finite, or a length is below 1.
    """
    if not isinstance(generators, Sequence):
        raise TypeError(f"generators must be a sequence, one for each row, got {type(generators).__name__}")
    for generator in generators:
        arguments.check_kind("generators", generator, torch.Generator)
    if len(generators) == 0:
        raise ValueError("generators must be one for each row, got none")
    scale = arguments.check_real("scale", scale, least=0)
    shape = arguments.check_shape("shape", shape)
    arguments.check_memory("shape", shape, 8 * math.prod(shape) * len(generators))
    return torch.stack([scale * torch.randn(shape, generator=generator) for generator in generators])


def optimise_inputs(
    network: nn.Module,
    starts: torch.Tensor,
    targets: torch.Tensor,
    *,
    threshold: float,
    max_iterations: int,
    learning_rate: float = 0.05,
    weight_decay: float = 0.0,
    high_frequency: torch.Tensor | None = None,
    mse: float = 0.0,
    anchors: torch.Tensor | None = None,
    normals: torch.Tensor | None = None,
    projection: Projection = "step",
    precision: Precision = "float32",
) -> Optimised:
    """Optimise inputs until the network gives each its target with a cross-entropy of at most ``threshold``.

    Adam minimises, for every row, CE(network(x), target) + high_frequency TV(x - anchor) + mse mean((x - anchor)^2),
    with weight_decay x added to the gradient. The input with the smallest cross-entropy on the way is kept.

    Parameters
    ----------
    network : nn.Module
        Used in evaluation mode, without gradients to its parameters; left as it was. On a GPU its forward pass must
        be one that a CUDA graph can capture: the same kernels for every input.
    starts : Tensor, shape (n, c, h, w)
        First inputs, on the network's device; not changed.
    targets : Tensor of int64, shape (n,)
        Classes.
    threshold : float
        Cross-entropy, in nats, at which a row is done.
    max_iterations : int
        Steps after which a row is given up.
    learning_rate, weight_decay : float
        Of Adam; weight decay is inside Adam, as a gradient.
    high_frequency : Tensor, shape (n,)
        Weight of the total variation of each row; none by default.
    mse : float
        Weight of the mean squared distance from the anchor.
    anchors : Tensor, shape (n, c, h, w)
        From where total variation and distance are measured; the black image by default.
    normals : Tensor, shape (n, c, h, w)
        Directions in which a row must not move. Free by default.
    projection : str
        How it is kept from them. ``"step"``: x - start is projected off the normal after every step, so that the row
        stays in the hyperplane through its start. ``"gradient"``: the gradient is, before Adam, as in the authors'
        code; this does not hold the hyperplane, as Adam then scales each pixel by itself.
    precision : str
        Of the gradients, ``"float32"`` or ``"bfloat16"``. In bfloat16 the smallest cross-entropy on the way is told
        to half a percent only.

    Returns
    -------
    Optimised
        On the device of ``starts``.

    Raises
    ------
    TypeError
        If an argument is of another kind: the network no module, or not one that makes logits; inputs no tensors of
        floating-point numbers; classes no int64; a number no number.
    ValueError
        If inputs are not alike, or no images; a class is negative or none of the network's; the threshold,
        a weight, the learning rate or the number of steps is negative or not finite; an option is not one of those
        above; or the rows of two arguments differ in number.
    """
    batches.check_images("starts", starts)
    starts = starts.detach()
    n = len(starts)
    batches.check_classes("targets", targets, n=n, of="starts")
    max_iterations = arguments.check_whole("max_iterations", max_iterations, least=0)
    numbers = {"threshold": threshold, "learning_rate": learning_rate, "weight_decay": weight_decay, "mse": mse}
    for option, value in numbers.items():
        arguments.check_real(option, value, least=0)
    arguments.check_choice("projection", projection, get_args(Projection))
    arguments.check_choice("precision", precision, get_args(Precision))
    for name, rows_of in (("high_frequency", high_frequency), ("anchors", anchors), ("normals", normals)):
        if rows_of is None:
            continue
        arguments.check_kind(name, rows_of, torch.Tensor)
        if rows_of.ndim > 0 and len(rows_of) != n:
            raise ValueError(f"{name} must have a row for each of the {n} starts, got {len(rows_of)}")
        if name != "high_frequency":
            batches.check_images(name, rows_of, like=starts)
        elif rows_of.ndim != 1 or not bool(((rows_of >= 0) & (rows_of < math.inf)).all()):
            got = arguments.shown(rows_of.tolist())
            raise ValueError(f"{name} must be one number of at least 0 for each row, finite, got {got}")
    batches.check_network(network, starts, targets)
    weights = torch.zeros(n, device=starts.device) if high_frequency is None else high_frequency.to(starts)
    rule = Rule(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        mse=mse,
        has_variation=bool((weights > 0).any()),
        projection=projection,
    )
    rows = Rows(
        index=torch.arange(n, device=starts.device),
        targets=targets,
        weights=weights,
        starts=starts,
        origins=torch.zeros_like(starts) if anchors is None else anchors,
        units=None if normals is None else unit_vectors(normals),
        x=starts.clone(),
        mean=torch.zeros_like(starts),
        square=torch.zeros_like(starts),
    )
    # Rows leave a thousandth below the threshold, so that no rounding lifts them above it again in another batch.
    target = 0.999 * threshold
    with frozen(network):
        descent = Descent(
            network=network,
            logits=for_gradients(network, starts, precision=precision),
            rule=rule,
            target=target,
            max_iterations=max_iterations,
            precision=precision,
        )
        best, iterations = (captured.descend if starts.device.type == "cuda" else _descend)(descent, rows)
        with torch.no_grad():
            final = cross_entropies(network(best), targets).float()
    return Optimised(inputs=best, losses=final, is_converged=final <= threshold, iterations=iterations)


def _descend(descent: Descent, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the best input of each row and the steps it took; a row leaves the batch when it is at the target."""
    network, rule, target, max_iterations = descent.network, descent.rule, descent.target, descent.max_iterations
    best, best_losses = rows.x.clone(), torch.full_like(rows.weights, torch.inf, dtype=torch.float32)
    iterations = torch.full_like(rows.index, max_iterations)
    for step in range(1, max_iterations + 2):
        x = rows.x.requires_grad_(True)
        with torch.enable_grad():
            losses = cross_entropies(descent.logits(x), rows.targets)
        with torch.no_grad():
            is_done = losses <= target
            if descent.precision != "float32" and is_done.any():
                is_done[is_done.clone()] = cross_entropies(network(x[is_done]), rows.targets[is_done]) <= target
            is_better = (losses < best_losses[rows.index]) | is_done
            best[rows.index[is_better]] = x[is_better]
            best_losses[rows.index[is_better]] = losses[is_better].float()
            iterations[rows.index[is_done]] = step - 1
            stay = ~is_done
        if step > max_iterations or not stay.any():
            break
        with torch.enable_grad():
            gradient = rule.gradient(rows, x, losses)
        rows.x = x.detach()
        if not stay.all():
            rows, gradient = rows.taken(stay), gradient[stay]
        rows.x, rows.mean, rows.square = rule.moved(rows, gradient, *rule.corrections(step))
    return best, iterations
