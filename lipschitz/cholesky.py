"""A bound of the largest eigenvalue of Hermitian matrices, by one factorisation.

If the Cholesky factorisation of M runs to its end in floating point, its factor obeys L L^H = M + D with
|D| <= gamma |L| |L^H| entry by entry, so that no eigenvalue of M is below -gamma ||L||_F^2. With M = value I - G this
bounds the eigenvalues of G, for a sixth of the multiplications of one product of such matrices.

A complex sum of n products is two real sums of 2 n each, and libraries may multiply by the reciprocal of a pivot
instead of dividing by it; the gamma used here is of four times n, and doubled.

References
----------
Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed. 2002, Theorem 10.3.
Rump, Verification of positive definiteness, BIT 46 (2006) 433-452, doi:10.1007/s10543-006-0056-1.
"""

from __future__ import annotations

import math

import torch

from lipschitz.norms import gamma, round_up


def upper_eigenvalue(matrices: torch.Tensor, value: float) -> float | None:
    """Return a bound, barely above ``value``, of every eigenvalue of every matrix, or None if that cannot be shown.

    Parameters
    ----------
    matrices : torch.Tensor of float64 or complex128, shape (n_matrices, n, n)
        Hermitian; the lower triangles are read.
    value : float
        Where the eigenvalues are thought to end; positive.

    Examples
    --------
    >>> upper_eigenvalue(torch.tensor([[[2.0, 1.0], [1.0, 2.0]]], dtype=torch.float64), 2.999) is None
    True
    """
    n = matrices.shape[-1]
    size = 2.0 ** max(-1000, min(1000, math.frexp(value)[1]))  # divided out, exactly, before anything is squared
    shifted = -matrices / size
    shifted.diagonal(dim1=-2, dim2=-1).add_(value / size)
    largest = float(shifted.diagonal(dim1=-2, dim2=-1).real.abs().max())
    factors, failures = torch.linalg.cholesky_ex(shifted)
    if bool((failures != 0).any()):
        return None
    square = float(torch.linalg.matrix_norm(factors).square().max()) * (1.0 + gamma(2 * n * n + 8))
    above = 2.0 * gamma(4 * n + 16) * square + gamma(2) * largest
    return (value + round_up(above * size)) * (1.0 + 1e-15)
