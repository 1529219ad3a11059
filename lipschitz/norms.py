"""The norm of one dense matrix, from above and from below, rounding included.

Power iteration comes from below and is no bound. Gram iteration comes from above: with G_0 = A and
G_{t+1} = G_t G_t^T, the largest singular value obeys ||G_t||^2 = ||G_{t+1}||, and any norm of G_T that is never below
the spectral one (Frobenius; the geometric mean of the 1- and the inf-norm) gives a bound of ||A|| after T square roots.
The excess of the Frobenius norm, at most a factor sqrt(rank), shrinks to its 2^T-th root.

Rounding. Let u = 2^-53 and gamma_n = n u / (1 - n u). A computed product of matrices with inner dimension n, whatever
the order of its sums and with or without fused multiply-add, differs from the true one by at most gamma_n |A| |B| entry
by entry (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, Eq. 3.13). Hence, as the Frobenius norm
of |A| |B| is at most ||A||_F ||B||_F,

    ||G_t||^2 <= ||computed G_{t+1}|| + gamma_n ||G_t||_F^2 ,

and the square roots are taken of the right-hand side, each scalar operation rounded up. No perturbation theory and no
convergence is assumed: the bound holds after every step. Matrices are rescaled by powers of two, which is exact; what
underflows is below 2^-1022 against a largest entry of at least 1/2, less than the outward rounding of one scalar. All
2-norms in bounds are those of :func:`length` and :func:`upper_length`, whose squares cannot leave the range of float64.

References
----------
Delattre, Barthelemy, Araujo, Allauzen, Efficient Bound of Lipschitz Constant for Convolutional Layers by Gram
Iteration, ICML 2023, arXiv:2305.16173.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike

_UNIT_ROUNDOFF = 2.0**-53
_SMALL, _LARGE = 2.0**-400, 2.0**400  # between them, squares keep their precision
_SHIFT = 2.0**600


@dataclass(frozen=True, slots=True, kw_only=True)
class NormBound:
    """A norm of a matrix between two numbers.

    Parameters
    ----------
    upper, lower : float
        The norm lies in [lower, upper]; ``upper`` is infinite if it passes the range of float64.
    norm : float
        Which norm: 1, 2 or inf, on both sides of the map.
    method : str
        How the bounds were found.
    is_certified : bool
        Whether both hold, rounding included: for certain, or but for ``failure_probability``.
    failure_probability : float
        The probability, over the random numbers that the method draws, that ``upper`` is too small; 0 for a method that
        draws none. As their seed is fixed, it holds against chance, not against an adversary who chooses the weights.
    """

    upper: float
    lower: float
    norm: float
    method: str
    is_certified: bool
    failure_probability: float = 0.0

    @property
    def relative_gap(self) -> float:
        """(upper - lower) / upper, 0 for a zero matrix, 1 where ``upper`` is infinite."""
        if math.isinf(self.upper):
            return 1.0
        return (self.upper - self.lower) / self.upper if self.upper > 0.0 else 0.0


def bound_norm(matrix: ArrayLike, *, norm: float = 2, tolerance: float = 1e-8, max_squarings: int = 32) -> NormBound:
    """Return certified bounds, from above and from below, of the norm of a dense matrix.

    The norm of x -> A x is max ||A x||_p / ||x||_p: the largest absolute column sum for p = 1, the largest singular
    value for p = 2, the largest absolute row sum for p = inf.

    Parameters
    ----------
    matrix : array_like of float16, float32 or float64, shape (m, n)
        The matrix A; narrower numbers are widened to float64, which is exact.
    norm : {1, 2, inf}
        The exponent p.
    tolerance : float
        For p = 2: the relative gap at which squaring stops; in (0, 1).
    max_squarings : int
        For p = 2: the most Gram steps; the bounds hold however few there are. At least 0.

    Returns
    -------
    NormBound
        In the unit of the matrix. Both numbers are 0 for a zero matrix.

    Raises
    ------
    TypeError
        If the matrix does not hold floating-point numbers of at most 64 bits.
    ValueError
        If the matrix is not two-dimensional, is empty or holds a number that is not finite; if ``norm``, ``tolerance``
        or ``max_squarings`` is out of range.

    Notes
    -----
    p = 2 is the Gram iteration of the module's docstring on the smaller side k = min(m, n): m n k + T k^3
    multiplications, k^2 numbers of memory; T = 11 for a Gaussian 1024 x 1024 matrix. The bound from below is
    ||A^T v|| / ||v|| of the largest column v of G_T, less the rounding gamma_k ||A||_F of the product.

    Examples
    --------
    >>> bound = bound_norm([[3.0, 0.0], [0.0, -4.0]])
    >>> bound.lower <= 4.0 <= bound.upper, bound.relative_gap < 1e-8
    (True, True)
    """
    check_norm(norm)
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"tolerance must lie in (0, 1), got {tolerance}")
    if max_squarings < 0:
        raise ValueError(f"max_squarings must be at least 0, got {max_squarings}")
    scaled, exponent = _scale(_checked(matrix))
    if not scaled.any():
        lower, upper = 0.0, 0.0
    elif norm == 2:
        lower, upper = _bound_spectral(scaled if len(scaled) <= scaled.shape[1] else scaled.T, tolerance, max_squarings)
    else:
        lower, upper = _bound_sums(scaled, axis=0 if norm == 1 else 1)
    lower, upper = restore(lower, upper, exponent)
    method = "gram iteration" if norm == 2 else "absolute sums"
    return NormBound(upper=upper, lower=lower, norm=norm, method=method, is_certified=True)


def restore(lower: float, upper: float, exponent: int) -> tuple[float, float]:
    """Return bounds multiplied by a power of two, rounded outward: the upper one inf where float64 ends; zeros stay."""
    if upper == 0.0:
        return 0.0, 0.0
    return max(0.0, _down(_shifted(lower, exponent))), round_up(_shifted(upper, exponent))


def _shifted(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf


def check_norm(norm: float) -> None:
    """Raise ValueError unless ``norm`` is 1, 2 or inf."""
    if norm not in (1, 2, math.inf):
        raise ValueError(f"norm must be 1, 2 or inf, got {norm}")


def gamma(n: int) -> float:
    """Return n u / (1 - n u), u = 2^-53: the relative rounding of a sum of n products, at most."""
    return round_up(n * _UNIT_ROUNDOFF / (1.0 - n * _UNIT_ROUNDOFF))


def _checked(matrix: ArrayLike) -> np.ndarray:
    array = np.asarray(matrix)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"matrix must hold floating-point numbers of at most 64 bits, got {array.dtype}")
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"matrix must have two axes, neither of them empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"matrix must hold finite numbers, got {array[~np.isfinite(array)][0]}")
    return array.astype(np.float64)


def _scale(matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the matrix with its largest entry in [1/2, 1) and the exponent of two that restores it."""
    exponent = int(np.frexp(np.abs(matrix).max())[1])
    return np.ldexp(matrix, -exponent), exponent


def _bound_spectral(matrix: np.ndarray, tolerance: float, max_squarings: int) -> tuple[float, float]:
    """Return (lower, upper) of the spectral norm of a scaled matrix that is at least as wide as high."""
    gram = matrix
    steps: list[tuple[float, int]] = []  # of each squaring: what rounding may have taken, and the scale taken out
    best_lower, best_upper = 0.0, math.inf
    while True:
        upper = min(_upper_frobenius(gram), _upper_sums(gram))
        for rounding, exponent in reversed(steps):
            upper = round_up(math.sqrt(round_up(math.ldexp(upper, exponent) + rounding)))
        best_lower = max(best_lower, _lower_stretch(matrix, gram))
        best_upper = min(best_upper, upper)
        if best_upper - best_lower <= tolerance * best_upper or len(steps) == max_squarings:
            return best_lower, best_upper
        rounding = round_up(round_up(gamma(gram.shape[1]) * round_up(_upper_frobenius(gram) ** 2)))
        gram, exponent = _scale(gram @ gram.T)
        steps.append((rounding, exponent))


def _lower_stretch(matrix: np.ndarray, gram: np.ndarray) -> float:
    """Return ||A^T v|| / ||v||, rounded down, for the largest column v of the Gram iterate."""
    column = gram[:, np.argmax(np.einsum("ij,ij->j", gram, gram))]
    image = matrix.T @ column
    stretch = float(np.linalg.norm(image) / np.linalg.norm(column)) * (1.0 - gamma(image.size + column.size + 8))
    return max(0.0, _down(stretch - round_up(gamma(column.size) * _upper_frobenius(matrix))))


def _upper_frobenius(matrix: np.ndarray) -> float:
    return round_up(float(np.linalg.norm(matrix)) * (1.0 + gamma(matrix.size + 3)))


def _upper_sums(matrix: np.ndarray) -> float:
    """Return the geometric mean of the 1- and the inf-norm, rounded up; it is never below the 2-norm."""
    return round_up(math.sqrt(round_up(_bound_sums(matrix, axis=0)[1] * _bound_sums(matrix, axis=1)[1])))


def _bound_sums(matrix: np.ndarray, axis: int) -> tuple[float, float]:
    """Return (lower, upper) of the largest absolute sum along ``axis``."""
    largest = float(np.abs(matrix).sum(axis=axis).max())
    margin = gamma(matrix.shape[axis] + 2)
    return _down(largest * (1.0 - margin)), round_up(largest * (1.0 + margin))


def length(vectors: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Return 2-norms along an axis of float64 numbers, scaled before they are squared.

    Of n finite numbers, to a relative gamma(n + 4), and half a step where the norm is subnormal; inf or nan otherwise.
    """
    lengths: torch.Tensor = torch.linalg.vector_norm(vectors, dim=dim)
    if bool(((lengths > _SMALL) & (lengths < _LARGE)).all()):
        return lengths
    largest = vectors.abs().amax(dim=dim, keepdim=True)
    one = torch.ones_like(largest)
    scale = torch.where(largest < _SMALL, _SHIFT * one, torch.where(largest > _LARGE, one / _SHIFT, one))
    scaled: torch.Tensor = torch.linalg.vector_norm(vectors * scale, dim=dim) / scale.squeeze(dim)
    return scaled


def upper_length(vectors: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Return the 2-norms along an axis of float64 numbers, rounded up: 0 for zeros alone, inf if one is not finite."""
    lengths = length(vectors, dim) * (1.0 + gamma(vectors.shape[dim] + 8))
    rounded = torch.nextafter(lengths, torch.full_like(lengths, math.inf))
    return torch.where(lengths > 0.0, rounded, lengths).nan_to_num(nan=math.inf, posinf=math.inf)


def round_up(value: float) -> float:
    """Return the next larger float64."""
    return math.nextafter(value, math.inf)


def _down(value: float) -> float:
    return math.nextafter(value, -math.inf)
