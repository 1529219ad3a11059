"""The Gaussian fields that random fully connected networks (Eqs. 8-10) tend to as their layers widen.

    f^1 = theta^{1,0} x + theta^1,   f^l = theta^{l,l-1} phi(f^{l-1}) + theta^l,   l = 2..L,

with entries of theta^{1,0} of variance 1/d, of the later matrices weight_variance/width, of the biases bias_variance.
At infinite width f^L, before the final activation, is a Gaussian field of mean 0 and covariance K^L,

    K^1(x, y) = x y / d + bias_variance,
    K^l(x, y) = weight_variance E[phi(u) phi(v)] + bias_variance,  (u, v) ~ N(0, K^{l-1} on {x, y}).

The expectation is closed for relu (arc-cosine kernel of order 1), erf (arc-sine kernel) and the sine; for tanh it is
Mehler's series: with u = sqrt(a) z and rho the correlation, E = sum_k c_k(a) c_k(b) rho^k, where c_k(a) is the
coefficient of tanh(sqrt(a) z) at the normalised Hermite polynomial h_k, an integral over one variable.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, Eqs. 8-10. Cho, Saul, NIPS 22 (2009). Williams, Neural Comput. 10, 1203
(1998), DOI 10.1162/089976698300017412. Lee et al., ICLR 2018, arXiv:1711.00165. Williams, Seeger, NIPS 13 (2000).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from percolation import arguments

Floats = NDArray[np.float64]
Activation = Literal["tanh", "relu", "erf", "sin"]

_MOST_TERMS = 1600  # of tanh's series: odd k up to 3199
_SERIES_ERROR = 1e-6  # relative, of the variance that the left out terms hold: no covariance is off by more
_STEP = 0.02
_NODES = np.arange(-600, 601) * _STEP  # trapezoidal rule: exact to rounding for what is analytic near the real line
_RANK_ERROR = 1e-10  # relative: directions of less variance are rounding
_CHUNK = 1024  # points whose covariances with the landmarks are at hand together
_N_CHECKED = 1000
_MOST_LAYERS = 10_000
_LARGEST_VARIANCE = 1e150


def _relu_pair(a: Floats, b: Floats, c: Floats) -> Floats:
    scale = np.sqrt(np.multiply.outer(a, b))
    cosine = np.clip(np.divide(c, scale, out=np.zeros_like(c), where=scale > 0), -1, 1)
    sine = np.sqrt((1 - cosine) * (1 + cosine))
    return np.asarray(scale / (2 * np.pi) * (sine + (np.pi - np.arccos(cosine)) * cosine))


def _erf_pair(a: Floats, b: Floats, c: Floats) -> Floats:
    # rounding may lift a correlation of 1 to just above
    ratio = 2 * c / np.sqrt(np.multiply.outer(1 + 2 * a, 1 + 2 * b))
    return 2 / np.pi * np.arcsin(np.clip(ratio, -1, 1))


def _sin_pair(a: Floats, b: Floats, c: Floats) -> Floats:
    # exp(-(a + b)/2) sinh(c), where sinh alone may overflow
    mean = np.add.outer(a, b) / 2
    return (np.exp(c - mean) - np.exp(-c - mean)) / 2


def _tanh_pair(a: Floats, b: Floats, c: Floats) -> Floats:
    n_terms = _tanh_terms(float(max(a.max(initial=0), b.max(initial=0))))
    left, right = _tanh_coefficients(a, n_terms), _tanh_coefficients(b, n_terms)
    scale = np.sqrt(np.multiply.outer(a, b))
    correlation = np.clip(np.divide(c, scale, out=np.zeros_like(c), where=scale > 0), -1, 1)
    squared, total = correlation**2, np.zeros_like(c)
    for k in range(n_terms - 1, -1, -1):
        total *= squared
        total += np.multiply.outer(left[:, k], right[:, k])
    return correlation * total


def _tanh_square(a: Floats) -> Floats:
    weights = np.exp(-(_NODES**2) / 2) * _STEP / np.sqrt(2 * np.pi)
    found: Floats = np.tanh(np.multiply.outer(np.sqrt(a), _NODES)) ** 2 @ weights
    return found


def _tanh_coefficients(a: Floats, n_terms: int) -> Floats:
    """Return c_k(a) of tanh at k = 1, 3, 5, ..., shape (n, n_terms); those of even k vanish."""
    coefficients: Floats = np.tanh(np.multiply.outer(np.sqrt(a), _NODES)) @ _hermite()[:n_terms].T
    return coefficients


@functools.cache
def _hermite() -> Floats:
    """Return the odd normalised Hermite polynomials times the weights of the integral, shape (terms, nodes)."""
    # With the root of the Gaussian's density the recursion stays bounded; the other root comes at the end.
    root = np.exp(-(_NODES**2) / 4) / (2 * np.pi) ** 0.25
    before, here = root, _NODES * root
    rows = [here]
    for k in range(1, 2 * _MOST_TERMS - 2, 2):
        before = (_NODES * here - np.sqrt(k) * before) / np.sqrt(k + 1)
        here = (_NODES * before - np.sqrt(k + 1) * here) / np.sqrt(k + 2)
        rows.append(here)
    return np.asarray(np.stack(rows) * (root * _STEP))


def _tanh_terms(variance: float) -> int:
    """Return how many terms hold all but a millionth of E tanh^2 at this variance, whose series is the slowest."""
    largest = np.array([variance])
    held = np.cumsum(_tanh_coefficients(largest, _MOST_TERMS)[0] ** 2)
    enough = np.flatnonzero(held >= (1 - _SERIES_ERROR) * _tanh_square(largest)[0])
    if enough.size == 0:
        raise ValueError(
            f"variances before tanh must be small enough for a series of {_MOST_TERMS} terms, got {variance:.4g}"
        )
    return int(enough[0]) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expectation:
    """E[phi(u) phi(v)], of variances a (n,), b (m,) and covariances c (n, m), and E[phi(u)^2], of variances a."""

    pair: Callable[[Floats, Floats, Floats], Floats]
    square: Callable[[Floats], Floats]


_EXPECTATIONS: dict[str, _Expectation] = {
    "tanh": _Expectation(pair=_tanh_pair, square=_tanh_square),
    "relu": _Expectation(pair=_relu_pair, square=lambda a: a / 2),
    "erf": _Expectation(pair=_erf_pair, square=lambda a: 2 / np.pi * np.arcsin(2 * a / (1 + 2 * a))),
    "sin": _Expectation(pair=_sin_pair, square=lambda a: -np.expm1(-2 * a) / 2),
}


def wide_covariance(
    points: Floats,
    others: Floats | None = None,
    *,
    depth: int,
    activation: Activation,
    weight_variance: float,
    bias_variance: float = 0.0,
) -> Floats:
    """Return the covariance K^L of the wide limit between ``points`` and ``others``.

    Parameters
    ----------
    points : array, shape (n, d)
        Inputs x.
    others : array, shape (m, d), optional
        Inputs y; by default the same as ``points``.
    depth : int
        Number of weight matrices L, 1 to 10,000; with 1 the network is linear.
    activation : {"tanh", "relu", "erf", "sin"}
        phi of Eq. 9.
    weight_variance : float
        Width times the variance of an entry of the later matrices, positive: the square of the gain.
    bias_variance : float
        Variance of a bias, at least 0.

    Returns
    -------
    array, shape (n, m)
        Right to rounding, for tanh to 1e-6 of the variance a layer: the left out terms of the series. Either way it is
        the covariance of a field, without negative variances.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument lies outside its range, a variance passes what a float64 holds, or tanh's series is too slow,
        from variances of about 200 on.

    Notes
    -----
    Time is that of n m d multiplications and, a layer, of n m arc-cosines, arc-sines or exponentials; for tanh of 14
    terms at variance 1, 42 at 4, 93 at 10.

    Examples
    --------
    >>> points = np.array([[1.0, 1.0], [1.0, -1.0]])
    >>> wide_covariance(points, depth=2, activation="relu", weight_variance=2.0).round(4).tolist()
    [[1.0, 0.3183], [0.3183, 1.0]]
    """
    points = arguments.check_reals("points", points)
    others = points if others is None else arguments.check_reals("others", others)
    if points.ndim != 2 or others.ndim != 2 or points.shape[1] != others.shape[1] or points.shape[1] == 0:
        raise ValueError(
            f"points and others must be rows of equal length, got shapes {points.shape} and {others.shape}"
        )
    depth = arguments.check_whole("depth", depth, least=1, most=_MOST_LAYERS)
    arguments.check_choice("activation", activation, list(_EXPECTATIONS))
    weight_variance = arguments.check_real("weight_variance", weight_variance, above=0)
    bias_variance = arguments.check_real("bias_variance", bias_variance, least=0)
    arguments.check_memory("points", points, 32 * len(points) * len(others))
    expectation = _EXPECTATIONS[activation]
    with np.errstate(over="ignore", invalid="ignore"):
        a, b = ((rows**2).mean(axis=1) + bias_variance for rows in (points, others))
        covariance: Floats = points @ others.T / points.shape[1] + bias_variance
        for _ in range(depth - 1):
            _check_variances(a, b)
            covariance = weight_variance * expectation.pair(a, b, covariance) + bias_variance
            a, b = (weight_variance * expectation.square(variances) + bias_variance for variances in (a, b))
    _check_variances(a, b)
    return covariance


def _check_variances(*variances: Floats) -> None:
    largest = max(float(some.max(initial=0.0)) for some in variances)
    if not largest < _LARGEST_VARIANCE:  # the root of two of them is taken of their product
        raise ValueError(f"points and variances must keep variances below {_LARGEST_VARIANCE:g}, got {largest:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WideSample:
    """Fields of the wide limit.

    Parameters
    ----------
    values : array, shape (n_samples, n)
        One field a row.
    missing : float
        The largest share of a point's variance that the fields lack, of up to 1000 points drawn at random: 0 up to
        rounding where the fields are exact.
    """

    values: Floats
    missing: float


def sample_wide(
    points: Floats,
    *,
    n_samples: int,
    depth: int,
    activation: Activation,
    weight_variance: float,
    bias_variance: float = 0.0,
    n_landmarks: int = 1000,
    rng: np.random.Generator,
) -> WideSample:
    """Draw fields of the wide limit at ``points``: what f^L of an infinitely wide network is there.

    Up to ``n_landmarks`` points the fields are exact. Of more points, so many are drawn as landmarks: the fields are
    exact there, and elsewhere the mean of the Gaussian field given its values at the landmarks.

    Parameters
    ----------
    points : array, shape (n, d)
        Inputs.
    n_samples : int
        Independent fields, at least 1; beyond the first they cost little.
    depth, activation, weight_variance, bias_variance
        As for :func:`wide_covariance`.
    n_landmarks : int
        At least 1.
    rng : numpy.random.Generator
        Chooses fields and landmarks.

    Returns
    -------
    WideSample

    Raises
    ------
    TypeError, ValueError
        As for :func:`wide_covariance`; or if the fields take more than all of the memory.

    Notes
    -----
    The bias has one direction: the variance is too small, at no point by more than the mean squared difference to the
    exact field, and the fields are smoother by it. ``missing`` says by how much; it falls with n_landmarks, fast for
    the smooth kernels (tanh, erf, sine), as a power for relu, and slowly where depth or dimension is large. Time is
    that of n n_landmarks covariances, and of n n_landmarks n_samples multiplications; memory 8 n n_samples bytes.

    References
    ----------
    Williams, Seeger, Using the Nystroem method to speed up kernel machines, NIPS 13 (2000).

    Examples
    --------
    >>> grid = np.linspace(-1, 1, 50)[:, None]
    >>> limit = {"depth": 3, "activation": "erf", "weight_variance": 2.0}
    >>> found = sample_wide(grid, n_samples=4, n_landmarks=20, rng=np.random.default_rng(0), **limit)
    >>> found.values.shape, found.missing < 1e-6
    ((4, 50), True)
    """
    n_samples = arguments.check_whole("n_samples", n_samples, least=1)
    n_landmarks = arguments.check_whole("n_landmarks", n_landmarks, least=1)
    arguments.check_generator("rng", rng)
    points = arguments.check_reals("points", points)
    if points.ndim != 2 or points.size == 0:
        raise ValueError(f"points must be rows, at least one, got shape {points.shape}")
    held = min(n_landmarks, len(points))
    arguments.check_memory("n_samples", n_samples, 8 * n_samples * (len(points) + held))
    arguments.check_memory("n_landmarks", n_landmarks, 40 * held**2)

    def covariance(rows: Floats, columns: Floats) -> Floats:
        return wide_covariance(
            *(rows, columns),
            depth=depth,
            activation=activation,
            weight_variance=weight_variance,
            bias_variance=bias_variance,
        )

    n = points.shape[0]
    chosen = points if n <= n_landmarks else points[rng.choice(n, n_landmarks, replace=False)]
    variances, directions = np.linalg.eigh(covariance(chosen, chosen))
    is_kept = variances > _RANK_ERROR * variances[-1]
    # A covariance with the landmarks, times this, is a point's row of a root of the covariance.
    root = directions[:, is_kept] / np.sqrt(variances[is_kept])
    weights = root @ rng.normal(size=(root.shape[1], n_samples))
    values = np.empty((n_samples, n))
    for first in range(0, n, _CHUNK):
        block = slice(first, first + _CHUNK)
        values[:, block] = (covariance(points[block], chosen) @ weights).T
    checked = points if n <= _N_CHECKED else points[rng.choice(n, _N_CHECKED, replace=False)]
    held = ((covariance(checked, chosen) @ root) ** 2).sum(axis=1)
    full = np.concatenate([covariance(few, few).diagonal() for few in np.array_split(checked, 100)])
    shares = np.divide(held, full, out=np.ones_like(held), where=full > 0)
    return WideSample(values=values, missing=float(max(0.0, np.max(1 - shares))))
