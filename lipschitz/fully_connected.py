"""Random fully connected networks (Eqs. 8-10), and the Lipschitz constant of every pointwise function they use.

    f^1 = theta^{1,0} x + theta^1                        (Eq. 8)
    f^l = theta^{l,l-1} phi(f^{l-1}) + theta^l           (Eq. 9)    l = 2..L
    f   = varphi(f^L),  varphi: R -> [0, 1]              (Eq. 10)

The input meets the first matrix without an activation before it. The paper's proof of Lemma D.1 writes the induction
base with one, theta^{1,0} (phi(x + dx) - phi(x)) (Eq. 18), and so carries the constant m of phi into the first layer
(Eq. 19). That is the bound of another network than Eq. 8's: with L layers there are L - 1 activations phi, not L. It is
harmless for m >= 1 and too small for m < 1. This package follows Eq. 8.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, Input Space Mode Connectivity in Deep Neural Networks, App. D.1.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from lipschitz import pointwise

Activation = Literal["tanh", "relu", "erf", "sin"]
FinalActivation = Literal["gaussian_cdf", "sigmoid"]


class Erf(nn.Module):
    """The error function, entry by entry."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return erf(x)."""
        return torch.erf(x)


class Sin(nn.Module):
    """The sine, entry by entry."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return sin(x)."""
        return torch.sin(x)


class GaussianCdf(nn.Module):
    """The distribution function of a standard Gaussian, entry by entry; it makes a standard Gaussian uniform."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return P(Z <= x) for a standard Gaussian Z."""
        probability: torch.Tensor = torch.special.ndtr(x)
        return probability


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointwise:
    """A pointwise function: its module, its Lipschitz constant (rounded up), and the gain that suits it.

    ``unit_gain`` is E[phi(Z)^2]^(-1/2) for a standard Gaussian Z: with it, pre-activations of variance 1 make
    pre-activations of variance 1. None for a function that only stands at the end.
    """

    module: type[nn.Module]
    upper_slope: float
    unit_gain: float | None


POINTWISE: dict[str, Pointwise] = {
    "tanh": Pointwise(module=nn.Tanh, upper_slope=pointwise.TANH.upper_slope, unit_gain=1.59253741972283),
    "relu": Pointwise(module=nn.ReLU, upper_slope=1.0, unit_gain=math.sqrt(2.0)),
    "erf": Pointwise(
        module=Erf,
        upper_slope=pointwise.ERF.upper_slope,
        unit_gain=math.sqrt(math.pi / (2.0 * math.asin(2.0 / 3.0))),
    ),
    "sin": Pointwise(module=Sin, upper_slope=pointwise.SIN.upper_slope, unit_gain=math.sqrt(2.0 / -math.expm1(-2.0))),
    "gaussian_cdf": Pointwise(module=GaussianCdf, upper_slope=pointwise.GAUSSIAN_CDF.upper_slope, unit_gain=None),
    "sigmoid": Pointwise(module=nn.Sigmoid, upper_slope=pointwise.SIGMOID.upper_slope, unit_gain=None),
}


def random_network(
    input_dimension: int,
    *,
    depth: int,
    width: int,
    generator: torch.Generator,
    n_outputs: int = 1,
    activation: Activation = "tanh",
    final_activation: FinalActivation = "gaussian_cdf",
    gain: float | None = None,
    bias_std: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> nn.Sequential:
    """Return a fully connected network (Eqs. 8-10) with Gaussian weights and biases.

    Entries of theta^{1,0} have variance 1 / input_dimension, those of the later matrices gain^2 / width, biases
    bias_std^2. With the default gain and no bias, inputs of squared norm input_dimension give every f^l variance 1 over
    networks (exactly at l = 1, at large width later), so that the Gaussian distribution function makes nearly uniform
    outputs.

    Parameters
    ----------
    input_dimension : int
        Length of an input, at least 1.
    depth : int
        Number of weight matrices L, at least 1.
    width : int
        Length of f^1, ..., f^{L-1}, at least 1.
    generator : torch.Generator
        On the CPU; the only source of randomness. Numbers are drawn in float64 and rounded to ``dtype``.
    n_outputs : int
        Length of f^L, at least 1.
    activation : {"tanh", "relu", "erf", "sin"}
        phi of Eq. 9.
    final_activation : {"gaussian_cdf", "sigmoid"}
        varphi of Eq. 10.
    gain : float, optional
        Positive. By default the one that keeps the variance: ``POINTWISE[activation].unit_gain``.
    bias_std : float
        At least 0.
    dtype : torch.dtype
        Of weights and biases.

    Returns
    -------
    torch.nn.Sequential
        Linear, phi, Linear, ..., Linear, varphi, on the CPU; maps (..., input_dimension) to (..., n_outputs).

    Raises
    ------
    ValueError
        If a number is out of range or a name is unknown.

    Examples
    --------
    >>> network = random_network(3, depth=2, width=5, generator=torch.Generator().manual_seed(0))
    >>> [type(layer).__name__ for layer in network]
    ['Linear', 'Tanh', 'Linear', 'GaussianCdf']
    """
    counts = {"input_dimension": input_dimension, "depth": depth, "width": width, "n_outputs": n_outputs}
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")
    if activation not in get_args(Activation):
        raise ValueError(f"activation must be one of {', '.join(get_args(Activation))}, got {activation}")
    if final_activation not in get_args(FinalActivation):
        raise ValueError(
            f"final_activation must be one of {', '.join(get_args(FinalActivation))}, got {final_activation}"
        )
    if gain is None:
        gain = POINTWISE[activation].unit_gain or 1.0
    if not (gain > 0.0 and math.isfinite(gain)):
        raise ValueError(f"gain must be positive and finite, got {gain}")
    if not (bias_std >= 0.0 and math.isfinite(bias_std)):
        raise ValueError(f"bias_std must be finite and at least 0, got {bias_std}")

    sizes = [input_dimension, *[width] * (depth - 1), n_outputs]
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        if index > 0:
            layers.append(POINTWISE[activation].module())
        # By way of the meta device: torch's own initialisation would draw from the global generator.
        linear = nn.Linear(fan_in, fan_out, device="meta", dtype=dtype).to_empty(device="cpu")
        weight_std = (1.0 if index == 0 else gain) / math.sqrt(fan_in)
        with torch.no_grad():
            linear.weight.copy_(_gaussian((fan_out, fan_in), weight_std, generator))
            linear.bias.copy_(_gaussian((fan_out,), bias_std, generator))
        layers.append(linear)
    return nn.Sequential(*layers, POINTWISE[final_activation].module())


def _gaussian(shape: tuple[int, ...], std: float, generator: torch.Generator) -> torch.Tensor:
    return std * torch.randn(shape, generator=generator, dtype=torch.float64)
