"""What random-matrix theory expects of the bounds of a random fully connected network (Eqs. 8-10).

The networks are those of :func:`lipschitz.fully_connected.random_network`: entries of the first matrix have variance
1/d, those of the later ones g^2/N, with N the width and g the gain; one output, behind a Gaussian distribution function
whose slope is at most 1/sqrt(2 pi).

An a x b matrix of entries of variance s^2 has

- spectral norm near s (sqrt(a) + sqrt(b)), or s sqrt(b) for a single row: 1 + sqrt(N/d) for the first matrix, 2 g for
  each hidden one, g for the last;
- inf-norm, its largest absolute row sum, near s b sqrt(2/pi) + s sqrt(2 (1 - 2/pi) b ln a): for a hidden matrix the
  first part is g sqrt(2 N/pi), which is sqrt(4 N/pi) at He's gain sqrt(2).

So Lemma D.1 costs a factor 2 g a layer in the 2-norm and about sqrt(N) in the inf-norm, while the slope that a network
attains stays of order one. Its gradient in the inputs is nearly Gaussian: of one Euclidean length, it has 1-norm (the
slope in the inf-norm) sqrt(2 d/pi) times that length.

References
----------
Davidson, Szarek, Local operator theory, random matrices and Banach spaces, 2001, Th. 2.13. Dirksen, Finke, Geuchen,
Stöger, Voigtlaender, arXiv:2506.19695, for He-initialised networks in every p-norm.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lipschitz import norms

_FINAL_SLOPE = 1.0 / math.sqrt(2.0 * math.pi)


def expected_product(
    depth: ArrayLike, width: ArrayLike, dimension: ArrayLike, *, gain: float, norm: float = 2
) -> NDArray[np.float64]:
    """Return what the product of the layers' norms (Lemma D.1) is expected to be, to leading order in the sizes.

    Parameters
    ----------
    depth, width, dimension : array_like, at least 1
        Number of weight matrices L, length of the hidden layers N, length of an input d; broadcast.
    gain : float
        g, positive.
    norm : {2, inf}
        Of inputs and output.

    Raises
    ------
    ValueError
        If the norm is another one.

    Examples
    --------
    >>> round(float(expected_product(3, 10**6, 10**6, gain=1.0)) * math.sqrt(2 * math.pi), 2)
    4.0
    """
    norms.check_norm(norm)
    if norm == 1:
        raise ValueError("norm must be 2 or inf, got 1")
    layers, n, d = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (depth, width, dimension)))
    size = _spectral if norm == 2 else _row_sums
    several = size(n, d, 1 / d) * size(n, n, gain**2 / n) ** np.maximum(layers - 2, 0) * size(1.0, n, gain**2 / n)
    return _FINAL_SLOPE * np.where(layers == 1, size(1.0, d, 1 / d), several)


def expected_slope_ratio(dimension: ArrayLike) -> NDArray[np.float64]:
    """Return sqrt(2 d/pi): the 1-norm of a Gaussian gradient over its 2-norm, attained slopes of one place."""
    return np.sqrt(2.0 * np.asarray(dimension, dtype=np.float64) / math.pi)


def _spectral(n_rows: ArrayLike, n_columns: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    rows, columns = np.asarray(n_rows, dtype=np.float64), np.asarray(n_columns, dtype=np.float64)
    return np.asarray(np.sqrt(variance) * (np.where(rows > 1, np.sqrt(rows), 0.0) + np.sqrt(columns)))


def _row_sums(n_rows: ArrayLike, n_columns: ArrayLike, variance: ArrayLike) -> NDArray[np.float64]:
    columns = np.asarray(n_columns, dtype=np.float64)
    mean = columns * math.sqrt(2.0 / math.pi)
    spread = np.sqrt(columns * (1.0 - 2.0 / math.pi))
    return np.asarray(np.sqrt(variance) * (mean + spread * np.sqrt(2.0 * np.log(n_rows))))
