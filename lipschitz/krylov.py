"""The largest singular value of a linear map that is known by its products alone.

From below: Lanczos finds a vector that the map stretches almost as much as any, and the stretch of that one vector is
computed with its rounding.

From above: let B = [b_1 ... b_m] hold independent standard normal vectors. Whatever the leading right singular vector v
of A is, v^T B is a standard normal vector of m numbers, and

    P(||v^T B|| <= t) <= t^m / (2^(m/2) Gamma(m/2 + 1)) ,

the volume of a ball times the largest density. Unless that happens, every polynomial p obeys
|p(sigma^2)| t <= ||p(A^T A) B||_F, for the right-hand side holds the component along v among others. With the Chebyshev
polynomial T_k of [0, c], c just below sigma^2, the right-hand side stays near sqrt(n m / 2) while the left-hand one
grows as cosh(k theta), sigma = sqrt(c) cosh(theta / 2): some 150 steps bring sigma down to 0.1 %. The probability is
over the draw of B. As its seed is fixed, it holds against chance, for weights that do not depend on B, and not against
an adversary, who may choose weights whose leading vector is orthogonal to B.

Rounding. Let x = 2 sigma^2 / c - 1 >= 1, and let e_j be the error of the j-th step of the recurrence
y_j = 2 (2 A^T A / c - 1) y_(j-1) - y_(j-2). The component of the computed y_k along v is that of B times T_k(x), plus
the sum over j of U_(k-j)(x) times that of e_j, U the Chebyshev polynomials of the second kind. Hence

    t <= (||y_k|| + sum_j U_(k-j)(x) ||e_j||) / T_k(x) ,

whose right-hand side does not rise with x (for i < k, U_i / T_k does not), so that sigma is below every x that
violates it. ||e_j|| is bounded by the gamma of :mod:`lipschitz.norms` and by a bound of the norm of |A|.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch

from lipschitz.norms import gamma

FAILURE_PROBABILITY = 1e-15
_N_STARTS = 6
# The t of the module's docstring for this probability, rounded down.
_SMALLEST = 0.999 * (FAILURE_PROBABILITY * 2 ** (_N_STARTS / 2) * math.gamma(_N_STARTS / 2 + 1)) ** (1 / _N_STARTS)
_N_BASIS_NUMBERS = 2**27  # of the Lanczos basis, at most: 1 GB


@dataclass(frozen=True, slots=True, kw_only=True)
class Products:
    """A linear map A by its products.

    Parameters
    ----------
    forward, adjoint : callable
        Take float64 tensors of shape (batch, n), (batch, m) to A x and A^T y; each number is a sum of products of an
        entry of A and one of the vector, in any order.
    n_inputs : int
        The n above.
    n_terms, n_adjoint_terms : int
        The most products in one sum of ``forward`` and of ``adjoint``.
    absolute_norm : float
        At least the spectral norm of |A|, the matrix of absolute entries.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    adjoint: Callable[[torch.Tensor], torch.Tensor]
    n_inputs: int
    n_terms: int
    n_adjoint_terms: int
    absolute_norm: float


def lower_norm(products: Products, *, tolerance: float, max_steps: int = 400) -> float:
    """Return a number that the spectral norm is not below, rounding included, and is near it as a rule.

    Parameters
    ----------
    products : Products
        The map.
    tolerance : float
        Relative; the search stops when ten steps of Lanczos have changed sigma by less than a tenth of it.
    max_steps : int
        The most Lanczos steps; they start afresh from the best vector when 1 GB is full of vectors.

    Notes
    -----
    One product with A and one with A^T a step; full reorthogonalisation.
    """
    n = products.n_inputs
    vector = _normal_vectors(1, n, seed=1)
    basis = torch.empty((max(2, min(n, max_steps, _N_BASIS_NUMBERS // n)), n), dtype=torch.float64)
    taken, best, is_done = 0, 0.0, False
    while not is_done and taken < max_steps:
        best_before = best
        vector, value, n_steps = _lanczos(products, vector, basis, tolerance)
        taken, best = taken + n_steps, max(best, value)
        is_done = n_steps < len(basis) or n_steps == n or best - best_before <= 0.2 * tolerance * best
    return _lower_stretch(products, vector)


def _lower_stretch(products: Products, vectors: torch.Tensor) -> float:
    """Return the largest of ||A x|| / ||x|| over the vectors, shape (n_vectors, n), rounded down."""
    images = products.forward(vectors)
    stretched = images.norm(dim=1) * (1.0 - gamma(images.shape[1] + 8))
    lengths = vectors.norm(dim=1) * (1.0 + gamma(vectors.shape[1] + 8))
    lost = 1.01 * gamma(products.n_terms) * products.absolute_norm
    return max(0.0, (float((stretched / lengths).max()) - lost) * (1.0 - 1e-15))


def _lanczos(
    products: Products, start: torch.Tensor, basis: torch.Tensor, tolerance: float
) -> tuple[torch.Tensor, float, int]:
    """Return the Ritz vector, shape (1, n), its value and the number of steps."""
    diagonal: list[float] = []
    beside: list[float] = []
    values: list[float] = []
    vector = start / start.norm()
    for step in range(len(basis)):
        basis[step] = vector[0]
        image = products.adjoint(products.forward(vector))
        diagonal.append(float(image[0] @ basis[step]))
        known = basis[: step + 1]
        for _ in range(2):
            image -= (image @ known.T) @ known
        length = float(image.norm())
        top, weights = scipy.linalg.eigh_tridiagonal(diagonal, beside, select="i", select_range=(step, step))
        values.append(float(top[0]))
        beside.append(length)
        if length <= 1e-13 * values[-1]:
            break
        if step >= 20 and values[-1] - values[-11] <= 0.2 * tolerance * values[-1]:
            break
        vector = image / length
    return torch.from_numpy(weights.T) @ basis[: len(weights)], values[-1], len(values)


def bound_norm(products: Products, *, lower: float, tolerance: float, max_steps: int = 1000) -> tuple[float, float]:
    """Return (lower, upper) of the spectral norm; upper is too small with a probability of FAILURE_PROBABILITY at most.

    Parameters
    ----------
    products : Products
        The map.
    lower : float
        A number that the spectral norm is not below; positive. The nearer, the fewer the steps.
    tolerance : float
        Relative; the steps end when the gap (upper - lower) / lower is no larger.
    max_steps : int
        The most steps; the bounds hold however few there are.

    Notes
    -----
    Six products with A and six with A^T a step; about 5 / sqrt(tolerance) steps. If sigma is well above ``lower``, the
    vectors of the recurrence turn to the leading one, and show it; then c is set anew, with the same B.
    """
    upper = math.inf
    while True:
        found, above = _recurrence(products, lower, tolerance, max_steps)
        upper, is_new, lower = min(upper, above), found > lower * (1.0 + tolerance), max(lower, found)
        if upper <= lower * (1.0 + tolerance) or not is_new:
            return lower, upper


def _recurrence(products: Products, lower: float, tolerance: float, max_steps: int) -> tuple[float, float]:
    """Return (lower, upper) once they are near each other, the first is well above what was known, or steps run out."""
    factor = 4.0 / lower**2  # this number defines c = 4 / factor
    absolute = factor * products.absolute_norm**2
    relative = gamma(products.n_terms) + gamma(products.n_adjoint_terms) + gamma(8)
    before, length_before = torch.zeros(()), 0.0
    current = _normal_vectors(_N_STARTS, products.n_inputs, seed=0)
    errors: list[float] = []
    found, upper = lower, math.inf
    for step in range(1, max_steps + 1):
        length = float(current.norm()) * (1.0 + gamma(current.numel() + 8))
        errors.append(1.02 * (absolute * relative * length + gamma(8) * (2.0 * length + length_before)))
        image = products.adjoint(products.forward(current))
        if step == 1:
            following = image.mul_(factor / 2.0).sub_(current)
        else:
            following = image.mul_(factor).sub_(current, alpha=2.0).sub_(before)
        before, current, length_before = current, following, length
        if step % 10 == 0 or step == max_steps:
            length = float(current.norm()) * (1.0 + gamma(current.numel() + 8))
            theta = _largest_angle(length, np.array(errors))
            upper = min(upper, 2.0 * math.cosh(theta / 2.0) / math.sqrt(factor) * (1.0 + 1e-14))
            found = max(found, _lower_stretch(products, current))
            if upper <= found * (1.0 + tolerance) or found > lower * (1.0 + tolerance):
                break
    return found, upper


def _largest_angle(length: float, errors: np.ndarray) -> float:
    """Return the largest theta, rounded up, at which x = cosh(theta) obeys the inequality of the module's docstring."""
    k = len(errors)
    degrees = np.arange(k, 0, -1)

    def is_violated(theta: float) -> bool:
        if k * theta > 600.0:
            return False
        seconds = np.sinh(degrees * theta) / math.sinh(theta)
        total = (length + float(seconds @ errors)) / math.cosh(k * theta)
        return bool(total < _SMALLEST * (1.0 - 1e-9))

    low, high = 0.0, 1.0 / k
    while not is_violated(high):
        low, high = high, 2.0 * high
        if k * low > 600.0:
            return math.inf
    while high - low > 1e-4 * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if is_violated(middle) else (middle, high)
    return high


def _normal_vectors(n_vectors: int, length: int, *, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_vectors, length, generator=generator, dtype=torch.float64)
