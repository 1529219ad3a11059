"""Bounds of a whole network that are never too small.

The bound is of the exact function of the stored weights, in evaluation mode: ||f(x) - f(y)||_p <= M ||x - y||_p for
all inputs x and y, where a norm of more than one axis is that of all numbers in it. What rounding does when the network
itself is run in float32 is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from lipschitz import norms
from lipschitz.fully_connected import POINTWISE

# Layers without weights: what they do to a distance, at most, in every p-norm. Only these very types: a class made from
# one of them may do something else.
_UPPER_SLOPES: dict[type[nn.Module], float] = {
    **{pointwise.module: pointwise.upper_slope for pointwise in POINTWISE.values()},
    nn.Identity: 1.0,
    nn.Flatten: 1.0,
    nn.Dropout: 1.0,
}


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
        Each layer's name and its own bound, in the order of the network.
    method : str
        How it was found.
    is_certified : bool
        Whether it holds for certain, rounding of the bound's own arithmetic included.
    relative_gap : float
        By how much the bounds of the single layers may exceed the layers' norms, together, as a part of ``value``; it
        says nothing of how far the product lies above the network's constant.
    """

    value: float
    norm: float
    factors: tuple[tuple[str, float], ...]
    method: str
    is_certified: bool
    relative_gap: float


def upper_product(model: nn.Module, *, norm: float = 2, tolerance: float = 1e-8) -> UpperBound:
    """Return the product of the layers' Lipschitz constants (Lemma D.1).

    Parameters
    ----------
    model : torch.nn.Sequential, nested or not, or a single layer
        Of Linear, Tanh, ReLU, Sigmoid, Erf, Sin, GaussianCdf, Identity, Flatten, and Dropout in evaluation mode.
        Any device; floating-point weights of at most 64 bits.
    norm : {1, 2, inf}
        The exponent p.
    tolerance : float
        Relative gap at which the norm of a matrix is tight enough, in (0, 1); a loose one is quicker, and as certain.

    Returns
    -------
    UpperBound
        Certified: the norms of the matrices are (:func:`lipschitz.norms.bound_norm`), constants of activations are
        rounded up, and so is every multiplication. Infinite if the product passes the range of float64.

    Raises
    ------
    ValueError
        If a layer is not one of these, has hooks, is a Dropout in training mode, or holds numbers that are not finite.
        The message names it; nothing is skipped.
    TypeError
        If weights are not real floating-point numbers.

    Notes
    -----
    A layer that stands twice counts twice. Cost: one :func:`~lipschitz.norms.bound_norm` a Linear.

    References
    ----------
    Vrabel et al., Input Space Mode Connectivity in Deep Neural Networks, Lemma D.1 (with Eq. 8 as it stands:
    see :mod:`lipschitz.fully_connected`).

    Examples
    --------
    >>> layer = nn.Linear(2, 2, dtype=torch.float64)
    >>> _ = layer.weight.data.copy_(torch.diag(torch.tensor([2.0, 1.0])))
    >>> bound = upper_product(nn.Sequential(layer, nn.ReLU(), layer))
    >>> bool(4.0 <= bound.value < 4.0 + 1e-7)
    True
    """
    norms.check_norm(norm)
    factors: list[tuple[str, float]] = []
    value, lower = 1.0, 1.0
    for name, layer in walk_layers(model):
        reason = refusal(layer)
        if reason is not None:
            raise ValueError(f"layer {name!r} {reason}")
        upper_factor, lower_factor = _bound_factor(name, layer, norm, tolerance)
        factors.append((name, upper_factor))
        value, lower = _multiply_up(value, upper_factor), lower * lower_factor
    return UpperBound(
        value=value,
        norm=norm,
        factors=tuple(factors),
        method="product",
        is_certified=True,
        relative_gap=(value - lower) / value if 0.0 < value < math.inf else 0.0,
    )


def walk_layers(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of nested Sequentials with their names, in order; a layer that stands twice comes twice."""
    if type(model) is nn.Sequential and not _has_hooks(model):
        # Not named_children(), which drops repetitions.
        for key, child in model._modules.items():
            if child is not None:
                yield from walk_layers(child, f"{name}.{key}" if name else key)
    else:
        yield name or "model", model


def refusal(layer: nn.Module) -> str | None:
    """Return why ``upper_product`` does not know what this layer does, or None if it knows."""
    kind = type(layer)
    if kind is not nn.Linear and kind not in _UPPER_SLOPES:
        known = ", ".join(["Linear", *(module.__name__ for module in _UPPER_SLOPES)])
        return f"must be one of {known}, got {kind.__name__}"
    if _has_hooks(layer):
        return f"must have no hooks, got a {kind.__name__} with hooks"
    if kind is nn.Dropout and layer.training:
        return "must be in evaluation mode, got a Dropout in training mode"
    return None


def _has_hooks(layer: nn.Module) -> bool:
    """Whether code is attached that may change what the layer computes (old-style weight_norm, for one)."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _bound_factor(name: str, layer: nn.Module, norm: float, tolerance: float) -> tuple[float, float]:
    """Return (upper, lower) of the norm of a known layer."""
    if not isinstance(layer, nn.Linear):
        return _UPPER_SLOPES[type(layer)], _UPPER_SLOPES[type(layer)]
    weight = layer.weight.detach().cpu()
    if not weight.is_floating_point():
        raise TypeError(f"layer {name!r} must have real floating-point weights, got {weight.dtype}")
    try:
        bound = norms.bound_norm(weight.to(torch.float64).numpy(), norm=norm, tolerance=tolerance)
    except ValueError as error:
        raise ValueError(f"layer {name!r}: {error}") from error
    return bound.upper, bound.lower


def _multiply_up(a: float, b: float) -> float:
    """Return a b rounded up; 0 if either is 0."""
    return math.nextafter(a * b, math.inf) if a != 0.0 and b != 0.0 else 0.0
