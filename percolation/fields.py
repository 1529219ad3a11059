"""Stationary Gaussian fields in any dimension: anywhere in R^d by random features, on a torus by FFT.

A stationary Gaussian field is known by its covariance C(x - y), or by its spectrum, the Fourier transform of C, which
says how much variance stands at which frequency. Two ways to draw one:

- *random features*, at any points of R^d: a sum of m cosines with frequencies drawn from the spectrum. The covariance
  is exact on average over draws, the field is Gaussian up to 1/m;
- by FFT on a torus: exact, at every site of it.

Fields of wide networks, which are not stationary, are in :mod:`percolation.wide`.

References
----------
Rahimi, Recht, Random features for large-scale kernel machines, NIPS 20 (2007). Dietrich, Newsam, SIAM J. Sci. Comput.
18, 1088 (1997), DOI 10.1137/S1064827592240555.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from percolation import arguments
from percolation._kernels import waves

Floats = NDArray[np.float64]
Radii = Callable[[int, int, np.random.Generator], Floats]

_BLOCK = 256  # points whose phases are at hand together: they stay in the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """One field phi(x) = sqrt(2/m) sum_j cos(w_j x + b_j) of unit variance.

    Parameters
    ----------
    frequencies : array, shape (m, d)
        w_j, in radians for each unit of length.
    phases : array, shape (m,)
        b_j, in radians.
    """

    frequencies: Floats
    phases: Floats


def squared_exponential(length: float) -> Radii:
    """Return the spectral law of the covariance exp(-|x - y|^2 / (2 length^2)), for :func:`draw_modes`.

    Frequencies are Gaussian of standard deviation 1 / length along every axis; their lengths follow a chi law.

    Raises
    ------
    TypeError
        If ``length`` is no number.
    ValueError
        If ``length`` is not positive and finite.
    """
    length = arguments.check_real("length", length, above=0)

    def radii(n_modes: int, dimension: int, rng: np.random.Generator) -> Floats:
        return np.asarray(np.sqrt(rng.chisquare(dimension, n_modes)) / length)

    return radii


def draw_modes(dimension: int, *, n_modes: int, radii: Radii, rng: np.random.Generator) -> Modes:
    """Draw an isotropic stationary field of unit variance as a sum of cosines.

    Parameters
    ----------
    dimension : int
        d, at least 1.
    n_modes : int
        m, at least 1.
    radii : function of (m, d, rng)
        Draws |w|, shape (m,), from the radial spectral law; the directions are uniform. :func:`squared_exponential`
        makes one.
    rng : numpy.random.Generator
        Chooses the field.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If a number is out of range, the field takes more than all of the memory, or ``radii`` returns another shape,
        or a negative or infinite frequency.

    Notes
    -----
    Over draws, mean, variance and covariance are exact for every m. The marginal is not Gaussian: its excess kurtosis
    is -3/(2m). Within one draw the averages over all space are those of its m cosines: the covariance differs from the
    law's by about (2m)^(-1/2).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> modes = draw_modes(20, n_modes=1000, radii=squared_exponential(2.0), rng=rng)
    >>> evaluate(modes, np.zeros((3, 20))).shape
    (3,)
    """
    dimension = arguments.check_whole("dimension", dimension, least=1)
    n_modes = arguments.check_whole("n_modes", n_modes, least=1)
    arguments.check_generator("rng", rng)
    if not callable(radii):
        raise TypeError(f"radii must be a function of (m, d, rng), got {arguments.shown(radii)}")
    arguments.check_memory("n_modes", n_modes, 24 * n_modes * dimension)
    lengths = np.asarray(radii(n_modes, dimension, rng), dtype=np.float64)
    if lengths.shape != (n_modes,) or not np.all(np.isfinite(lengths) & (lengths >= 0)):
        raise ValueError(f"radii must return {n_modes} finite frequencies of at least 0, got shape {lengths.shape}")
    directions = rng.normal(size=(n_modes, dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return Modes(frequencies=lengths[:, None] * directions, phases=rng.uniform(0, 2 * np.pi, n_modes))


def evaluate(modes: Modes, points: Floats) -> Floats:
    """Return the field of ``modes`` at ``points``, shape (n, d) to (n,).

    Raises
    ------
    TypeError
        If the points are no numbers.
    ValueError
        If the points do not have the field's dimension, or one is not finite, or the field has not a phase a mode.

    Notes
    -----
    Time is n m (d + 12) multiplications or so; memory beyond the points and values is 2 kB a mode. Errors are those of
    rounding the phases, about 1e-16 |w| |x|.
    """
    arguments.check_kind("modes", modes, Modes)
    frequencies = arguments.check_reals("modes.frequencies", modes.frequencies, ndim=2)
    phases = arguments.check_reals("modes.phases", modes.phases, ndim=1)
    if phases.size != len(frequencies) or phases.size == 0:
        raise ValueError(f"modes must have a phase for each frequency, got {phases.size} for {len(frequencies)}")
    points, dimension = arguments.check_reals("points", points), frequencies.shape[1]
    if points.ndim != 2 or points.shape[1] != dimension:
        raise ValueError(f"points must have shape (n, {dimension}), got {points.shape}")
    turns, phases = frequencies / (2 * np.pi), phases / (2 * np.pi)
    sums = np.zeros(points.shape[0])
    for first in range(0, points.shape[0], _BLOCK):
        block = slice(first, first + _BLOCK)
        waves.add_cosines(turns @ points[block].T, phases, sums[block])
    return np.asarray(np.sqrt(2 / phases.size) * sums)


def free_field_spectrum(shape: Sequence[int]) -> Floats:
    """Return the spectrum of the Gaussian free field on a torus, without its zero mode.

    S(k) = 1 / sum_i 2 (1 - cos k_i) at k_i = 2 pi n_i / L_i, and S(0) = 0: the covariance is the inverse of the
    lattice's minus Laplacian, (sum over the 2d neighbours y of phi(x) - phi(y)), on fields whose average is 0.

    Parameters
    ----------
    shape : sequence of int
        Sites along each axis, at least 1.

    Raises
    ------
    TypeError
        If a length is no integer.
    ValueError
        If there is no axis, a length is below 1, or the spectrum takes more than all of the memory.

    Notes
    -----
    On Z^d the covariance falls as r^(2-d). On a torus that of the field without its zero mode is smaller everywhere by
    about L^(2-d): its average over the torus is 0.

    Examples
    --------
    >>> free_field_spectrum((4,)).round(12).tolist()
    [0.0, 0.5, 0.25, 0.5]
    """
    shape = _checked_shape(shape)
    energies = np.zeros(shape)
    for axis, length in enumerate(shape):
        # by the sine, which loses nothing at small k
        along = 4 * np.sin(np.pi * np.arange(length) / length) ** 2
        energies += along.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    energies.flat[0] = np.inf
    return 1 / energies


def squared_exponential_spectrum(shape: Sequence[int], length: float) -> Floats:
    """Return the spectrum of the periodic squared exponential of unit variance.

    The covariance is the product over the axes of sum_n exp(-(x + n L)^2 / (2 length^2)), divided by its value at 0.

    Parameters
    ----------
    shape : sequence of int
        Sites along each axis, at least 1.
    length : float
        In sites, positive.

    Raises
    ------
    TypeError, ValueError
        As for :func:`free_field_spectrum`; and if ``length`` is not positive and finite, or so short that its images in
        frequency take more than all of the memory.
    """
    shape = _checked_shape(shape)
    length = arguments.check_real("length", length, above=0)
    arguments.check_memory("length", length, int(min(40 / (np.pi * length), 1e300)) * 24 * max(shape))
    spectrum = np.ones(())
    for sites in shape:
        # By Poisson's formula the spectrum is a sum of Gaussians too: positive, without rounding to below 0.
        k = 2 * np.pi * np.arange(sites) / sites
        n_images = int(np.ceil(40 / (2 * np.pi * length))) + 1
        images = k[:, None] + 2 * np.pi * np.arange(-n_images, n_images + 1)
        with np.errstate(over="ignore"):  # a field as good as constant
            along = np.exp(-0.5 * (length * images) ** 2).sum(axis=1)
        spectrum = np.multiply.outer(spectrum, along / along.mean())
    return spectrum


def on_torus(spectrum: Floats, *, rng: np.random.Generator) -> Floats:
    """Draw a stationary Gaussian field on a torus, exactly, at every site.

    Parameters
    ----------
    spectrum : array, shape (L_1, ..., L_d)
        S(k) >= 0 with S(k) = S(-k), in the order of numpy.fft; the covariance is its inverse transform, the variance
        its mean.
    rng : numpy.random.Generator
        Chooses the field.

    Returns
    -------
    array, shape (L_1, ..., L_d)

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the spectrum is negative or infinite somewhere, or not even, or has no site.

    Notes
    -----
    White noise is multiplied by sqrt(S) between two real FFTs. Memory is 24 bytes a site beyond spectrum and field.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> field = on_torus(free_field_spectrum((8, 8, 8)), rng=rng)
    >>> bool(abs(field.mean()) < 1e-12)
    True
    """
    spectrum = arguments.check_numbers("spectrum", spectrum)
    if spectrum.ndim < 1 or spectrum.size == 0 or not np.all(np.isfinite(spectrum) & (spectrum >= 0)):
        raise ValueError("spectrum must be finite and at least 0 everywhere, at one site or more, got one that is not")
    axes = tuple(range(spectrum.ndim))
    if not np.allclose(spectrum, np.roll(np.flip(spectrum), 1, axis=axes), rtol=1e-9, atol=0):
        raise ValueError("spectrum must be even, S(k) = S(-k), got one that is not")
    arguments.check_generator("rng", rng)
    coefficients = scipy.fft.rfftn(rng.normal(size=spectrum.shape))
    coefficients *= np.sqrt(spectrum[..., : coefficients.shape[-1]])
    field: Floats = scipy.fft.irfftn(coefficients, s=spectrum.shape, overwrite_x=True)
    return field


def _checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    lengths = arguments.check_shape("shape", shape)
    arguments.check_memory("shape", lengths, 16 * math.prod(lengths))
    return lengths
