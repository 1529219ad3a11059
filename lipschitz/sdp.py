"""LipSDP: the tightest bound that semidefinite programming gives of a fully connected network, checked afterwards.

The network is x_l = phi_l(W_l x_{l-1} + b_l), l = 1..h, and W_{h+1} x_h + b_{h+1} at the end. Between any two inputs
each neuron's output changes by a slope in [alpha, beta] times the change of its input; with u_l = W_l x_{l-1} for
changes, 0 <= (x_l - alpha u_l)^T T_l (beta u_l - x_l) for every diagonal T_l >= 0. Twice the sum of these proves
||W_{h+1} x_h||^2 <= rho ||x_0||^2 as soon as the symmetric block-tridiagonal matrix M(rho, T) with

    M_{l-1,l} = -W_l^T (alpha + beta) T_l,   M_{l,l} = 2 T_l - Q_l,   M_{0,0} = rho I - Q_0,
    Q_{l-1} = -2 W_l^T alpha beta T_l W_l (l <= h),   Q_h = W_{h+1}^T W_{h+1}

is positive semidefinite (Fazlyab et al. 2019, Theorem 2, as a chain; T_0 = 0). Three steps:

*Solve.* The dual of "least rho" is the same network with vectors of length r for numbers: a neuron may turn its input u
into any x with ||x - (alpha + beta) u / 2|| <= (beta - alpha) ||u|| / 2, and the output's Frobenius norm is maximised
over inputs of norm one. With r above the square root of twice the number of neurons this is not only a restriction of
the dual program but generally as good as it (Burer and Monteiro); less will do. Each sweep goes forward with x along
y, then backward with y, the half gradient of the squared output, along u; the input becomes the gradient at length one:
a power iteration in which neurons rotate. At a fixed point T_l = ||y|| / ((beta - alpha) ||u||) is the multiplier.

*Repair.* For any T the least rho follows by eliminating blocks from the last: P_h = Q_h,
P_{l-1} = Q_{l-1} + W_l^T cT_l (2 T_l - P_l)^{-1} cT_l W_l with c = alpha + beta, rho = the largest eigenvalue of P_0.
Multiplying T_l by (1 + d)^{h-l+1} and rho by (1 + d)^{h+1} leaves slack in every block.

*Check.* A floating-point Cholesky factorisation that succeeds proves its matrix positive semidefinite up to
sum_i gamma_{k+1} / (1 - gamma_{k+1}) a_ii, k the longest inner product (Rump 2006). It is run on M, scaled by powers of
two, less that number and less the rounding of M's own entries. So the bound holds whatever the first two steps did.

References
----------
Fazlyab, Robey, Hassani, Morari, Pappas, Efficient and Accurate Estimation of Lipschitz Constants for Deep Neural
Networks, NeurIPS 2019, arXiv:1906.04893.
Burer, Monteiro, A nonlinear programming algorithm for solving semidefinite programs via low-rank factorization,
Math. Program. 95, 329 (2003).
Rump, Verification of positive definiteness, BIT Numer. Math. 46, 433 (2006).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from torch import nn

from lipschitz import chain, factors, norms

_UNIT_ROUNDOFF = 2.0**-53
_FIRST_SWEEPS = 32  # before the first look at the gap; doubled each time
# r of the module's docstring. Solutions have rank 2 to 8 on random networks of 10 to 1000 neurons.
_MOST_VECTOR_ENTRIES = 32
# By how much 2 T is raised above P where it is not: little suits solutions at which 2 T - P is singular, and slopes in
# [-1, 1]; much suits multipliers that are far from any solution.
_ROOMS = (1e-7, 1e-4, 1e-2, 1.0)
_REPAIRS = (0.0, *(10.0**exponent for exponent in range(-14, 1)))  # d of the module's docstring


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SdpBound:
    """A number that the Lipschitz constant does not exceed, with its proof.

    Parameters
    ----------
    value : float
        The bound.
    norm : float
        Always 2, of inputs and of outputs.
    method : str
        How it was found.
    is_certified : bool
        Always True: rounding is accounted for.
    relative_gap : float
        At most this part of ``value`` lies above the least number that the semidefinite program can give (up to
        rounding); it says nothing of how far that lies above the network's constant.
    multipliers : tuple of ndarray
        The diagonals T_l, l = 1..h, of the proof.
    n_sweeps : int
        Sweeps of the solver.
    """

    value: float
    norm: float
    method: str
    is_certified: bool
    relative_gap: float
    multipliers: tuple[np.ndarray, ...]
    n_sweeps: int


def upper_lipsdp(
    model: nn.Module, input_shape: Sequence[int], *, tolerance: float = 1e-6, max_sweeps: int = 8192
) -> SdpBound:
    """Return the LipSDP bound of a fully connected network in the 2-norm.

    Parameters
    ----------
    model : torch.nn.Module
        A chain, as :func:`lipschitz.reading.read` reads it, of Linear layers on vectors and anything pointwise: ReLU,
        LeakyReLU, Tanh, Sigmoid, Erf, Sin, GaussianCdf, BatchNorm1d and Dropout in evaluation mode, Identity, Flatten,
        multiplication by and addition of numbers. On any device; it is computed on the CPU in float64.
    input_shape : sequence of int
        Of one input, without the batch axis.
    tolerance : float
        Relative gap to the program's best value at which the solver stops, in (0, 1).
    max_sweeps : int
        At least 1. The bound holds however few there are; the gap says what was reached.

    Returns
    -------
    SdpBound
        Certified. 0 only for a network that is constant; infinite if the bound passes the range of float64.

    Raises
    ------
    ValueError
        If a number is out of range or a step is not one of these; the message names it, nothing is skipped.
    TypeError
        If weights are not real floating-point numbers.
    RuntimeError
        If no repair could be verified, for instance as weights span more than float64's range.

    Notes
    -----
    What stands before the first Linear or after the last counts by its steepest slope. Two Linear layers with nothing
    between them are allowed, at a loss of about 1e-5 each. The solver starts from a fixed draw: same network, same
    bits. Cost, with widths n and r = min(32, sqrt(2 h n)): a sweep h n^2 r, each look at the gap and the check h n^3;
    memory h n^2. The input may be large: beyond the width of the first layer its matrix is replaced by a triangle that
    is not smaller (Douglas' lemma).

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(1, 2, dtype=torch.float64), nn.ReLU(), nn.Linear(2, 1, dtype=torch.float64))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0], [-1.0]])), model[2].weight.data.fill_(1.0)
    >>> bound = upper_lipsdp(model, (1,))  # of |x|; the product bound is 2
    >>> 1.0 <= bound.value < 1.0 + 1e-5
    True
    """
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"tolerance must lie in (0, 1), got {tolerance}")
    if max_sweeps < 1:
        raise ValueError(f"max_sweeps must be at least 1, got {max_sweeps}")
    network = chain.read(model, input_shape)
    weights, shares, exponent = chain.balance(network.weights)
    slopes, exponents = _scale_slopes(network.slopes)
    multipliers: list[np.ndarray] = []
    value, gap, n_sweeps = 0.0, 0.0, 0
    if _is_constant(network):
        pass
    elif not _is_in_range(network):
        value, gap = math.inf, 1.0
    else:
        if weights[0].shape[1] > weights[0].shape[0]:
            weights[0] = _triangle_above(weights[0])
        multipliers, primal, n_sweeps = _solve(weights, slopes, tolerance, max_sweeps)
        rho, multipliers = _repair(weights, slopes, multipliers)
        gap = max(0.0, 1.0 - primal / norms.round_up(math.sqrt(rho)))
        value = _finish(rho, exponent + sum(exponents), network.factor)
        later = [share + sum(exponents[place:]) for place, share in enumerate(shares, start=1)]
        with np.errstate(over="ignore"):
            multipliers = [np.ldexp(part, 2 * share) for part, share in zip(multipliers, later, strict=True)]
    return SdpBound(
        value=value,
        norm=2,
        method="lipsdp",
        is_certified=True,
        relative_gap=gap,
        multipliers=tuple(multipliers),
        n_sweeps=n_sweeps,
    )


def bound_by_multipliers(
    model: nn.Module,
    input_shape: Sequence[int],
    choose: Callable[[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]], list[np.ndarray]],
) -> float:
    """Return the certified bound that multipliers prove, which ``choose`` makes of the matrices and the slopes.

    See :func:`upper_lipsdp` for the model and what is raised. ``choose`` is given matrices that are scaled, each by a
    power of two, to a norm of about 1; it is not called for a network that is constant.
    """
    network = chain.read(model, input_shape)
    weights, shares, exponent = chain.balance(network.weights)
    if _is_constant(network):
        return 0.0
    if not _is_in_range(network):
        return math.inf
    sizes = [int(np.frexp(np.abs(weight).max())[1]) for weight in network.weights]
    sizes = [
        size + int(np.frexp(np.linalg.norm(np.ldexp(weight, -size)))[1])
        for size, weight in zip(sizes, network.weights, strict=True)
    ]
    slopes, exponents = _scale_slopes(network.slopes)
    chosen = choose([np.ldexp(weight, -size) for weight, size in zip(network.weights, sizes, strict=True)], slopes)
    multipliers = [
        np.ldexp(part, 2 * (sum(sizes[place:]) - share))
        for place, (part, share) in enumerate(zip(chosen, shares, strict=True), start=1)
    ]
    if weights[0].shape[1] > weights[0].shape[0]:
        weights[0] = _triangle_above(weights[0])
    return _finish(_repair(weights, slopes, multipliers)[0], exponent + sum(exponents), network.factor)


def _is_constant(network: chain.Chain) -> bool:
    return network.factor == 0.0 or not all(weight.any() for weight in network.weights)


def _is_in_range(network: chain.Chain) -> bool:
    """Whether the slopes between the matrices, and what stands around them, are numbers that float64 holds."""
    return math.isfinite(network.factor) and all(np.isfinite(ends).all() for pair in network.slopes for ends in pair)


def _scale_slopes(
    slopes: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[int]]:
    """Return the slopes of each layer divided by a power of two, the largest of size 1 to 2, and the exponents.

    Dividing the outputs of a layer divides those of the network. What underflows is rounded outward.
    """
    scaled, exponents = [], []
    for low, high in slopes:
        exponent = int(np.frexp(max(np.abs(low).max(), np.abs(high).max()))[1]) - 1
        ends = []
        for end, direction in ((low, -np.inf), (high, np.inf)):
            smaller = np.ldexp(end, -exponent)
            is_exact = np.ldexp(smaller, exponent) == end
            ends.append(np.where(is_exact, smaller, np.nextafter(smaller, direction)))
        low, high = ends
        scaled.append((low, high))
        exponents.append(exponent)
    return scaled, exponents


def _finish(rho: float, exponent: int, factor: float) -> float:
    """Return the bound of the network from that of the balanced one, rounded up."""
    try:
        value = norms.round_up(math.ldexp(norms.round_up(math.sqrt(rho)), exponent))
        return factors.multiply_up(value, factor)
    except OverflowError:
        return math.inf


def _solve(
    weights: list[np.ndarray], slopes: list[tuple[np.ndarray, np.ndarray]], tolerance: float, max_sweeps: int
) -> tuple[list[np.ndarray], float, int]:
    """Return (multipliers, the output's norm, sweeps): the norm is at most the root of the program's best rho."""
    rng = np.random.default_rng(0)
    rank = min(_MOST_VECTOR_ENTRIES, math.isqrt(2 * sum(len(weight) for weight in weights[:-1])) + 2)
    inputs = rng.standard_normal((weights[0].shape[1], rank))
    inputs /= np.linalg.norm(inputs)
    gradients = [rng.standard_normal((len(weight), rank)) for weight in weights[:-1]]
    for gradient in gradients:  # mostly alike, as if all neurons were on: the solution, or nearly, in deep networks
        gradient[:, 0] += 3.0 * math.sqrt(rank)
    halves = [((low + high)[:, None] / 2.0, (high - low)[:, None] / 2.0) for low, high in slopes]
    best: tuple[float, list[np.ndarray]] = (math.inf, [])
    primal, look = 0.0, _FIRST_SWEEPS
    for sweep in range(1, max_sweeps + 1):
        changes, values = [], inputs
        for weight, gradient, (middle, radius) in zip(weights[:-1], gradients, halves, strict=True):
            changes.append(weight @ values)
            values = middle * changes[-1] + radius * _lengths(changes[-1]) * _directions(gradient)
        outputs = weights[-1] @ values
        primal = max(primal, float(np.linalg.norm(outputs)))
        for layer in range(len(slopes) - 1, -1, -1):
            gradients[layer] = weights[layer + 1].T @ outputs
            middle, radius = halves[layer]
            outputs = middle * gradients[layer] + radius * _lengths(gradients[layer]) * _directions(changes[layer])
        inputs = weights[0].T @ outputs
        length = float(np.linalg.norm(inputs))
        if sweep in (look, max_sweeps) or length == 0.0:
            look *= 2
            multipliers = _multipliers(changes, gradients, slopes)
            root, multipliers = _least(weights, slopes, multipliers)
            best = min(best, (root, multipliers), key=lambda pair: pair[0])
            if primal >= (1.0 - tolerance) * best[0] or length == 0.0:
                break
        inputs /= length
    return best[1], primal, sweep


def _lengths(vectors: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    return lengths


def _directions(vectors: np.ndarray) -> np.ndarray:
    directions: np.ndarray = vectors / np.maximum(_lengths(vectors), np.finfo(float).tiny)
    return directions


def _multipliers(
    changes: list[np.ndarray], gradients: list[np.ndarray], slopes: list[tuple[np.ndarray, np.ndarray]]
) -> list[np.ndarray]:
    """Return T = ||y|| / ((beta - alpha) ||u||), kept finite where a neuron has no input or no freedom."""
    found = []
    for change, gradient, (low, high) in zip(changes, gradients, slopes, strict=True):
        freedom = np.maximum(high - low, 1e-5 * np.maximum(np.abs(low), np.abs(high)))
        below = freedom * _lengths(change)[:, 0]
        above = _lengths(gradient)[:, 0]
        ratios = np.divide(above, below, out=np.zeros_like(above), where=below > 1e-200)
        found.append(np.where(below > 1e-200, ratios, 1e8 * ratios.max()))
    return found


def _least(
    weights: list[np.ndarray], slopes: list[tuple[np.ndarray, np.ndarray]], multipliers: list[np.ndarray]
) -> tuple[float, list[np.ndarray]]:
    """Return the root of the least rho, as computed, and the multipliers, raised where blocks had no inverse."""
    best: tuple[float, list[np.ndarray]] = (math.inf, multipliers)
    for room in _ROOMS:
        root, raised, is_raised = _eliminate(weights, slopes, multipliers, room)
        if root < best[0]:
            best = root, raised
        if not is_raised:
            break
    return best


def _eliminate(
    weights: list[np.ndarray], slopes: list[tuple[np.ndarray, np.ndarray]], multipliers: list[np.ndarray], room: float
) -> tuple[float, list[np.ndarray], bool]:
    """Return (root of the least rho, multipliers, whether they were raised), 2 T - P at least about room P."""
    is_raised = False
    raised = []
    cost = weights[-1].T @ weights[-1]  # P_h
    for weight, (low, high), given in reversed(list(zip(weights[:-1], slopes, multipliers, strict=True))):
        diagonal = np.diagonal(cost)
        floor = 0.51 * diagonal + 1e-14 * max(float(diagonal.max()), np.finfo(float).tiny)
        multiplier = np.maximum(given, floor)
        roots = np.sqrt(multiplier)
        relative = cost / np.outer(roots, roots)
        largest = largest_eigenvalue(relative)
        if largest >= 2.0 * (1.0 - _ROOMS[0]):  # 2 T - P must be positive definite
            is_raised = True
            factor = 0.5 * largest * (1.0 + room)
            multiplier, relative = factor * multiplier, relative / factor
            roots = np.sqrt(multiplier)
        raised.append(multiplier)
        triangle = scipy.linalg.cholesky(2.0 * np.eye(len(cost)) - relative, lower=True)
        half = scipy.linalg.solve_triangular(triangle, ((low + high) * roots)[:, None] * weight, lower=True)
        cost = half.T @ half - weight.T @ ((2.0 * low * high * multiplier)[:, None] * weight)
    return math.sqrt(max(0.0, largest_eigenvalue(cost))), raised[::-1], is_raised


def largest_eigenvalue(matrix: np.ndarray) -> float:
    """Return the largest eigenvalue of a symmetric matrix, as computed: no bound."""
    last = len(matrix) - 1
    return float(scipy.linalg.eigh(matrix, eigvals_only=True, subset_by_index=(last, last))[0])


def _repair(
    weights: list[np.ndarray], slopes: list[tuple[np.ndarray, np.ndarray]], multipliers: list[np.ndarray]
) -> tuple[float, list[np.ndarray]]:
    """Return a rho and multipliers for which M is verified to be positive semidefinite."""
    root, multipliers = _least(weights, slopes, multipliers)
    least = root * root * (1.0 + 8.0 * _UNIT_ROUNDOFF) + np.finfo(float).tiny
    n_hidden = len(multipliers)
    for slack in _REPAIRS:
        rho = least * (1.0 + slack) ** (n_hidden + 1)
        wider = [
            multiplier * (1.0 + slack) ** (n_hidden - place) for place, multiplier in enumerate(multipliers)
        ]  # place counts from 0: T_{place + 1}
        if _is_proof(weights, slopes, wider, rho):
            return rho, wider
    raise RuntimeError(f"multipliers must verify with a slack of at most {_REPAIRS[-1]:g} a layer, got none that does")


def _is_proof(
    weights: list[np.ndarray], slopes: list[tuple[np.ndarray, np.ndarray]], multipliers: list[np.ndarray], rho: float
) -> bool:
    """Whether M(rho, T) is positive semidefinite for certain; False proves nothing.

    Entries of M are rounded as often as their longest sum has terms and a few times more; the absolute error is below
    gamma_k times the same expression in absolute values, whose row sums bound its 2-norm from above.
    """
    middles = [(low + high) * multiplier for (low, high), multiplier in zip(slopes, multipliers, strict=True)]
    inner = [*(-2.0 * low * high * t for (low, high), t in zip(slopes, multipliers, strict=True)), np.ones(1)]
    outer = [np.full(weights[0].shape[1], rho), *(2.0 * multiplier for multiplier in multipliers)]
    blocks = [
        np.diag(first) - weight.T @ (second[:, None] * weight)
        for first, second, weight in zip(outer, inner, weights, strict=True)
    ]
    couplings = [-middle[:, None] * weight for middle, weight in zip(middles, weights[:-1], strict=True)]
    if not all((np.diagonal(block) > 0.0).all() and np.isfinite(block).all() for block in blocks):
        return False
    # Then what underflows is below 2^-150 once it is scaled, far below the shift, which is doubled for it.
    is_in_range = min(part.min() for part in outer) > 2.0**-900
    if not (is_in_range and max(np.abs(part).max() for part in (*outer, *middles, *inner)) < 2.0**900):
        return False
    scales = [np.ldexp(1.0, -(np.frexp(np.diagonal(block))[1] // 2)) for block in blocks]
    sizes = [len(block) for block in blocks]
    longest = max(itertools.starmap(max, (weight.shape for weight in weights))) + 16
    n_terms = max(map(sum, itertools.pairwise([*sizes, 0]))) + 16

    errors = []  # row sums of the scaled error's bound
    for first, second, weight, scale in zip(outer, inner, weights, scales, strict=True):
        sums = np.abs(weight).T @ (np.abs(second) * (np.abs(weight) @ scale))
        errors.append(scale * (2.0 * first * scale + 2.0 * sums))
    for place, coupling in enumerate(np.abs(part) for part in couplings):
        errors[place] += scales[place] * (coupling.T @ scales[place + 1])
        errors[place + 1] += scales[place + 1] * (coupling @ scales[place])
    blocks = [scale[:, None] * block * scale for scale, block in zip(scales, blocks, strict=True)]
    # The factorisation's own error; the quotient covers gamma / (1 - gamma), the doubling the sum and underflow.
    trace = sum(float(np.trace(block)) for block in blocks)
    shift = 2.0 * norms.gamma(n_terms) * trace / (1.0 - norms.gamma(n_terms))
    below: np.ndarray | None = None
    for place in range(len(blocks) - 1, -1, -1):  # eliminate from the last
        block = blocks[place]
        block[np.diag_indices(len(block))] -= 2.0 * norms.gamma(longest) * errors[place] + shift
        if below is not None:
            block -= below.T @ below
        try:
            factor = scipy.linalg.cholesky(block, lower=True)
        except scipy.linalg.LinAlgError:
            return False
        if place > 0:
            coupling = scales[place][:, None] * couplings[place - 1] * scales[place - 1]
            below = scipy.linalg.solve_triangular(factor, coupling, lower=True)
    return True


def _triangle_above(matrix: np.ndarray) -> np.ndarray:
    """Return a square L with A A^T <= L L^T for certain: then A maps no unit ball beyond where L maps it (Douglas)."""
    rows = np.linalg.norm(matrix, axis=1)
    scales = np.where(rows > 0.0, np.ldexp(1.0, -np.frexp(rows)[1]), 1.0)
    scaled = scales[:, None] * matrix
    gram = scaled @ scaled.T
    errors = norms.gamma(matrix.shape[1] + 16) * (np.abs(scaled) @ np.abs(scaled).sum(axis=0))
    gram[np.diag_indices(len(gram))] += 2.0 * errors + 4.0 * norms.gamma(len(gram) + 16) * len(gram)
    factor: np.ndarray = scipy.linalg.cholesky(gram, lower=True)
    return factor / scales[:, None]
