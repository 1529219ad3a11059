"""Closed forms for fully connected networks: multipliers of LipSDP's matrix inequality without solving it.

The inequality is that of :mod:`lipschitz.sdp`, M(rho, T) >= 0 with slopes in [alpha, beta] (one pair a neuron), divided
by rho. Eliminating blocks from the first, P_0 = I and, with c = alpha + beta, E = 2 alpha beta T_l,
G = W_l P_{l-1}^{-1} W_l^T,

    P_l = 2 T_l - c T_l G (I + E G)^{-1} T_l c ,        1 / rho = 1 / lambda_max(W_{h+1} P_h^{-1} W_{h+1}^T) ,

is a proof of the bound sqrt(rho) as long as every P_l is positive definite. Here T_l is chosen layer by layer.

*Feasible.* Let D >= G be diagonal and positive, and T = tau / D with, neuron by neuron, tau = 2 / (w (w + |c|)),
w = beta - alpha. (For slopes in [0, 1], tau = 1.) As G (I + E G)^{-1} = (G^{-1} + E)^{-1} only grows with G,
it is at most D / (1 + 2 alpha beta tau), so that P_l is at least (2 tau - c^2 tau^2 / (1 + 2 alpha beta tau)) / D. For
c >= 0 we have tau = 1 / (beta w) and 1 + 2 alpha beta tau = c / w, which makes this

    (2 tau - c w tau^2) / D = (2 beta - c) / (beta^2 w D) = 1 / (beta^2 D) ,

and for c < 0, exchanging (alpha, beta) for (-beta, -alpha), 1 / (alpha^2 D). (A singular G is the limit of
G + epsilon I, and c = 0 that of c > 0.) So P_l is positive definite for every such D, and the bound is at most that of
P_l = 1 / (s^2 D), s = max(|alpha|, |beta|), which for D = ||G|| I is the product of the norms; keeping P_l itself is
what gains on it.

*Choices of D.* D = mu S with S any positive diagonal and mu = lambda_max(S^{-1/2} G S^{-1/2}), the least that D >= G
allows. S = I is ECLipsE-Fast. Tried here beside it: S = diag(G)^{1/2}, S = diag(G), and S = sums of the rows of |G|
(for which mu <= 1, by Gershgorin's theorem). Syed and Hu (2025) choose D more generally, too, and show that
ECLipsE-Fast is a special case; this family was derived here, from the inequality above; it need not be theirs.

The recursion runs in float64 and proves nothing by itself: the multipliers it finds go through the repair and the
verified Cholesky factorisation of :mod:`lipschitz.sdp`.

References
----------
Xu, Sivaranjani, ECLipsE: Efficient Compositional Lipschitz Constant Estimation for Deep Neural Networks, NeurIPS 2024,
arXiv:2404.04375.
Syed, Hu, Improved Scalable Lipschitz Bounds for Deep Neural Networks, 2025, arXiv:2503.14297.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import nn

from lipschitz import sdp, upper

_Slopes = tuple[np.ndarray, np.ndarray]
_Shape = Callable[[np.ndarray], np.ndarray]
_SHAPES: dict[str, _Shape] = {
    "eclipse fast": lambda gram: np.ones(len(gram)),
    "closed form, roots of the diagonal": lambda gram: np.sqrt(np.diagonal(gram)),
    "closed form, diagonal": np.diagonal,
    "closed form, sums": lambda gram: np.abs(gram).sum(axis=1),
}


def upper_eclipse_fast(model: nn.Module, input_shape: Sequence[int]) -> upper.UpperBound:
    """Return the ECLipsE-Fast bound of a fully connected network, in the 2-norm.

    Parameters
    ----------
    model : torch.nn.Module
        A chain of Linear layers and pointwise functions, as for :func:`lipschitz.sdp.upper_lipsdp`.
    input_shape : sequence of int
        Of one input, without the batch axis.

    Returns
    -------
    UpperBound
        Certified, without factors. The formula is not above the product of the spectral norms; the proof lies above the
        formula by some 1e-10 a layer.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        As for :func:`lipschitz.sdp.upper_lipsdp`.

    Notes
    -----
    Cost: some h n^3 for h hidden layers of n neurons, and the check about as much again.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    >>> _ = model[0].weight.data.fill_(1.0), model[2].weight.data.fill_(1.0)
    >>> round(upper_eclipse_fast(model, (1,)).value, 6)
    2.0
    """
    return _bound(model, input_shape, {"eclipse fast": _SHAPES["eclipse fast"]})


def upper_closed_form(model: nn.Module, input_shape: Sequence[int]) -> upper.UpperBound:
    """Return the least of the closed-form bounds of this module, ECLipsE-Fast among them; as for that one.

    ``method`` says which choice of D was the best. The others are only estimated, in float64, not certified.
    """
    return _bound(model, input_shape, _SHAPES)


def _bound(model: nn.Module, input_shape: Sequence[int], shapes: Mapping[str, _Shape]) -> upper.UpperBound:
    """Return the certified bound of the choice that the recursion finds to be the best."""
    found: dict[str, tuple[float, list[np.ndarray]]] = {}

    def choose(weights: list[np.ndarray], slopes: list[_Slopes]) -> list[np.ndarray]:
        found.update({name: _recur(weights, slopes, shape) for name, shape in shapes.items()})
        return found[min(found, key=lambda name: found[name][0])][1]

    value = sdp.bound_by_multipliers(model, input_shape, choose)
    return upper.UpperBound(
        value=value,
        norm=2,
        factors=(),
        method=min(found or shapes, key=lambda name: found[name][0] if found else 0.0),
        is_certified=True,
        relative_gap=0.0,
    )


def _recur(weights: Sequence[np.ndarray], slopes: Sequence[_Slopes], shape: _Shape) -> tuple[float, list[np.ndarray]]:
    """Return (logarithm of rho, multipliers T) of one choice of D, as computed.

    The size of every G is taken out, so that nothing leaves the range of float64.
    """
    inverse = np.eye(weights[0].shape[1])
    logarithm = 0.0  # of the number by which P^{-1} is larger than ``inverse``
    multipliers: list[tuple[np.ndarray, float]] = []
    for weight, (low, high) in zip(weights[:-1], slopes, strict=True):
        gram = weight @ inverse @ weight.T
        size = float(np.abs(gram).max())
        gram = (gram + gram.T) / (2.0 * size)
        logarithm += math.log(size)
        bound = shape(gram)
        bound = np.maximum(bound, 1e-12 * bound.max())  # rows of zeros
        roots = np.sqrt(bound)
        bound = bound * sdp.largest_eigenvalue(gram / np.outer(roots, roots))
        bound *= 1.0 + 1e-9 * bool((low < 0.0).any())  # for c = 0, I + E G would be singular
        steepest = np.maximum(np.abs(low), np.abs(high))
        width = np.maximum(high - low, 1e-5 * np.maximum(steepest, 1e-5))
        multiplier = 2.0 / (width * (width + np.abs(low + high))) / bound
        inner = np.eye(len(gram)) + gram * (2.0 * low * high * multiplier)
        middle = np.linalg.solve(inner, gram)  # (I + G E)^{-1} G = G (I + E G)^{-1}
        coupling = (low + high) * multiplier
        block = 2.0 * np.diag(multiplier) - coupling[:, None] * middle * coupling
        inverse = np.linalg.inv((block + block.T) / 2.0)
        multipliers.append((multiplier, -logarithm))
    last = weights[-1] @ inverse @ weights[-1].T
    rho = logarithm + math.log(sdp.largest_eigenvalue((last + last.T) / 2.0))
    # M of the other module has rho I in its first block and the output's matrix as it is.
    found = [multiplier * math.exp(exponent + rho) for multiplier, exponent in multipliers]
    return rho, found
