"""A step of Adam on many inputs at once, each row with its own state: the arithmetic of ``synthesis``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import torch
from torch import nn
from torch.nn import functional

from empirical.models import Precision

Projection = Literal["step", "gradient"]

_NOBODY = torch.iinfo(torch.int64).min  # torch's default, -100, would be a class without a loss
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's usual constants


@dataclass(slots=True, kw_only=True)
class Rows:
    """Inputs under way and all that belongs to each, a row of every tensor; images are (n, c, h, w).

    ``index`` says which of the inputs that were asked for a row is. ``weights`` are those of the total variation of x -
    ``origins``; ``units`` the directions in which a row must not move, if any; ``mean`` and ``square`` Adam's moments.
    """

    index: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    starts: torch.Tensor
    origins: torch.Tensor
    units: torch.Tensor | None
    x: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor

    def taken(self, which: torch.Tensor) -> Self:
        """Return copies of some of the rows."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            values[field.name] = None if value is None else value[which]
        return type(self)(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is minimised, and how; the same for all rows. See ``synthesis.optimise_inputs``."""

    learning_rate: float
    weight_decay: float
    mse: float
    has_variation: bool
    projection: Projection

    def corrections(self, step: int) -> tuple[float, float]:
        """Return the length of Adam's step number ``step``, from 1, and what divides its mean square gradient."""
        return self.learning_rate / (1 - _BETA_1**step), 1 - _BETA_2**step

    def gradient(self, rows: Rows, x: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Return the gradient, at ``x``, of what is minimised; ``losses`` are the cross-entropies there, with graph."""
        objective = losses.sum()
        if self.mse > 0:
            objective = objective + self.mse * (x - rows.origins).square().mean(dim=(1, 2, 3)).sum()
        (gradient,) = torch.autograd.grad(objective, x)
        if self.has_variation:
            gradient = gradient + variation_gradient(x.detach() - rows.origins, rows.weights)
        return gradient

    def moved(
        self, rows: Rows, gradient: torch.Tensor, length: float | torch.Tensor, correction: float | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return x and Adam's two moments after a step; ``length`` and ``correction`` may be tensors (n, 1, 1, 1)."""
        if self.weight_decay > 0:
            gradient = gradient + self.weight_decay * rows.x
        if rows.units is not None and self.projection == "gradient":
            gradient = _off(gradient, rows.units)
        mean = _BETA_1 * rows.mean + (1 - _BETA_1) * gradient
        square = _BETA_2 * rows.square + (1 - _BETA_2) * gradient * gradient
        root = (square / correction).sqrt() + _EPSILON
        x = rows.x - length * mean / root
        if rows.units is not None and self.projection == "step":
            x = rows.starts + _off(x - rows.starts, rows.units)
        return x, mean, square


@dataclass(frozen=True, slots=True, kw_only=True)
class Descent:
    """What both loops, of ``synthesis`` and of ``captured``, do with rows.

    ``logits`` are the network's as gradients are taken of them; ``target`` is the cross-entropy, in ``network``'s
    float32, at which a row is done, and ``max_iterations`` the steps after which it is given up.
    """

    network: nn.Module
    logits: Callable[[torch.Tensor], torch.Tensor]
    rule: Rule
    target: float
    max_iterations: int
    precision: Precision


def variation_gradient(images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the gradient of each image's total variation times its weight, for images (n, c, h, w), weights (n,).

    The total variation is the anisotropic one: the sum of the absolute differences of neighbouring pixels. Autograd
    gives the same, to the bit, in four times as many kernels.
    """
    gradient = torch.zeros_like(images)
    for axis in (3, 2):
        size = images.shape[axis] - 1
        signs = (images.narrow(axis, 1, size) - images.narrow(axis, 0, size)).sign()
        signs *= weights[:, None, None, None]
        gradient.narrow(axis, 0, size).sub_(signs)
        gradient.narrow(axis, 1, size).add_(signs)
    return gradient


def cross_entropies(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each row, in nats, shape (n,).

    Targets are classes of the logits'; none is one whose loss torch would count as nothing.
    """
    return functional.cross_entropy(logits, targets, ignore_index=_NOBODY, reduction="none")


def unit_vectors(vectors: torch.Tensor) -> torch.Tensor:
    """Return the rows (n, c, h, w) divided by their norms; zeros stay."""
    norms: torch.Tensor = vectors.flatten(1).norm(dim=1).clamp_min(torch.finfo(vectors.dtype).tiny)
    return vectors / norms[:, None, None, None]


def _off(moves: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
    """Return each move without its part along the unit vector of its row."""
    along = (moves * units).sum(dim=(1, 2, 3), keepdim=True)
    return moves - along * units
