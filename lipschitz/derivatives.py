"""Operator norms of a network's derivatives, and where slopes rise.

Up to 16 outputs a derivative J is written out row by row. Beyond, ||J||_p is approached from below by the power method
for p-norms: from a direction v of p-norm one, w is the dual direction of J v and the next v that of J^T w. ||J v||_p
never falls; for p = 2 it is the power method, for p = 1 and inf it may stop short of the largest. Neither counts
rounding: these numbers lead a search, they are no bounds.

References
----------
Boyd, The power method for l^p norms, Linear Algebra Appl. 9, 95 (1974).
Higham, Estimating the matrix p-norm, Numer. Math. 62, 539 (1992).
"""

from __future__ import annotations

import math

import torch
from torch import nn

_FEW_OUTPUTS = 16


def operator_norms(
    model: nn.Module, points: torch.Tensor, directions: torch.Tensor, *, norm: float, n_steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the operator norms of the derivatives at points, and steep directions.

    Parameters
    ----------
    model : torch.nn.Module
        Maps (n, ...) to (n, ...), each input alone, differentiable almost everywhere, parameters frozen.
    points, directions : Tensor, shape (n, ...)
        Where, and the directions from which the power method starts; not zero.
    norm : {1, 2, inf}
        The exponent p, for inputs and for outputs.
    n_steps : int
        Of the power method, at least 1; it stops earlier where it gains less than 1e-10.

    Returns
    -------
    tuple of Tensor, shapes (n,), (n, ...)
        Norms that are not finite are nan or inf; the directions have p-norm one.

    Raises
    ------
    ValueError
        If the outputs are not a batch of the same length.
    """
    points = points.detach().requires_grad_()
    outputs = model(points)
    if outputs.ndim == 0 or len(outputs) != len(points):
        raise ValueError(
            f"model must return a batch as long as its input, got shapes {tuple(outputs.shape)} "
            f"from {tuple(points.shape)}"
        )
    outputs = outputs.reshape(len(points), -1)
    if not outputs.requires_grad:
        return torch.zeros(len(points)).to(points), directions
    if outputs.shape[1] <= _FEW_OUTPUTS:
        rows = [
            torch.autograd.grad(column.sum(), points, retain_graph=True, materialize_grads=True)[0].flatten(1)
            for column in outputs.unbind(1)
        ]
        jacobians = torch.stack(rows, dim=1)
        is_finite = torch.isfinite(jacobians).flatten(1).all(dim=1)
        jacobians = torch.where(is_finite[:, None, None], jacobians, 0.0)  # decompositions refuse other numbers
        heights = torch.where(is_finite, _matrix_norms(jacobians, norm), math.nan)
        return heights, _steepest(jacobians, norm).reshape(points.shape)
    return _power(outputs, points, directions, norm, n_steps)


def rise(
    model: nn.Module, points: torch.Tensor, directions: torch.Tensor, separations: torch.Tensor, *, norm: float
) -> torch.Tensor:
    """Return the gradients of the secants' slopes with respect to their middles, but for a factor; shape (n, ...).

    The secants lead through the points, along ``directions``, with lengths ``separations``, of shape (n,). Unlike the
    gradient of a derivative's norm these do not vanish for piecewise linear networks, whose secants bend across
    regions; for short separations they agree with it.
    """
    reaches = 0.5 * separations.reshape(-1, *[1] * (points.ndim - 1)) * directions
    ends = torch.cat([points + reaches, points - reaches]).detach().requires_grad_()
    outputs = model(ends).reshape(len(ends), -1)
    if not outputs.requires_grad:
        return torch.zeros_like(points)
    with torch.no_grad():
        duals = _dual(outputs[: len(points)] - outputs[len(points) :], norm)
    (slopes,) = torch.autograd.grad(outputs, ends, torch.cat([duals, duals]), materialize_grads=True)
    return torch.nan_to_num(slopes[: len(points)] - slopes[len(points) :], nan=0.0, posinf=0.0, neginf=0.0)


def _power(
    outputs: torch.Tensor, points: torch.Tensor, directions: torch.Tensor, norm: float, n_steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ||J v||_p and the directions v."""
    # J^T w as a function of w is linear; its derivative in w along v is J v.
    variable = torch.zeros_like(outputs, requires_grad=True)
    (pulled,) = torch.autograd.grad(outputs, points, variable, create_graph=True, materialize_grads=True)
    heights = torch.zeros(len(points)).to(points)
    lengths = torch.linalg.vector_norm(directions.flatten(1), ord=norm, dim=1)
    directions = directions / lengths.reshape(-1, *[1] * (points.ndim - 1))
    while True:
        if pulled.requires_grad:
            (images,) = torch.autograd.grad(pulled, variable, directions, retain_graph=True, materialize_grads=True)
        else:
            images = torch.zeros_like(outputs)
        duals = _dual(images, norm)
        before, heights = heights, (duals * images).sum(dim=1)
        n_steps -= 1
        if n_steps <= 0 or not bool((heights > before * (1.0 + 1e-10)).any()):
            return heights, directions
        (back,) = torch.autograd.grad(outputs, points, duals, retain_graph=True)
        directions = _dual(back.flatten(1), norm if norm == 2 else (1 if norm == math.inf else math.inf)).reshape(
            points.shape
        )


def _dual(vectors: torch.Tensor, norm: float) -> torch.Tensor:
    """Return w of dual norm one with w . v = ||v||_p, for each of (n, length)."""
    signs = torch.where(vectors < 0.0, -1.0, 1.0).to(vectors)
    if norm == 1:
        return signs
    if norm == math.inf:
        places = vectors.abs().argmax(dim=1, keepdim=True)
        return torch.zeros_like(vectors).scatter(1, places, signs.gather(1, places))
    lengths = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(lengths > 0.0, lengths, 1.0)


def _matrix_norms(jacobians: torch.Tensor, norm: float) -> torch.Tensor:
    """Return max ||J v||_p over ||v||_p = 1 for each of (n, n_outputs, n_inputs)."""
    if norm == 1:
        return jacobians.abs().sum(dim=1).amax(dim=1)
    if norm == math.inf:
        return jacobians.abs().sum(dim=2).amax(dim=1)
    if jacobians.shape[1] == 1:
        lengths: torch.Tensor = torch.linalg.vector_norm(jacobians[:, 0], dim=1)
    else:
        lengths = torch.linalg.matrix_norm(jacobians, ord=2)
    return lengths


def _steepest(jacobians: torch.Tensor, norm: float) -> torch.Tensor:
    """Return a v of p-norm one with the largest ||J v||_p for each of (n, n_outputs, n_inputs), shape (n, n_inputs)."""
    if norm == 1:
        return nn.functional.one_hot(jacobians.abs().sum(dim=1).argmax(dim=1), jacobians.shape[2]).to(jacobians)
    if norm == math.inf:
        places = jacobians.abs().sum(dim=2).argmax(dim=1)
        return _dual(jacobians[torch.arange(len(places)), places], 1)
    directions: torch.Tensor = torch.linalg.svd(jacobians, full_matrices=False).Vh[:, 0]
    return directions
