"""The number beside each entry on cubes and networks: Eqs. 4 and 8-20, Section 4 (i) and (ii).

Networks are written out in numpy here; the tests repeat the same on those of :mod:`lipschitz.fully_connected`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from percolation import clusters, labels
from percolation._audit.entry import Check, Measure
from percolation.wide import wide_covariance

Floats = NDArray[np.float64]
_DELTA = 0.1
_N_INTERVALS = 19
_TANH_GAIN = 1.59253741972283  # E[tanh(Z)^2]^(-1/2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """A smooth function of the plane with values in [0, 1], and a Lipschitz bound of it in the 2-norm."""

    value: Callable[[Floats], Floats]
    upper: float


def wave(rng: np.random.Generator) -> Wave:
    """Return (1 + tanh(a sin(W x + b))) / 2 with random a, W and b: a network with one hidden layer of eight."""
    last, first, bias = rng.standard_normal(8), 2 * rng.standard_normal((8, 2)), rng.uniform(0, 2 * np.pi, 8)
    upper = 0.5 * float(np.linalg.norm(last) * np.linalg.norm(first, 2))
    return Wave(value=lambda x: (1 + np.tanh(np.sin(x @ first.T + bias) @ last)) / 2, upper=upper)


def cut(function: Wave, upper_range: float) -> tuple[Floats, float]:
    """Return the centres of cubes on [-1, 1]^2, shape (n, n, 2), and their side; values in one lie within the range."""
    side = upper_range / (function.upper * np.sqrt(2))
    axis = np.arange(-1, 1, side) + side / 2
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1), side


def cover(rng: np.random.Generator) -> Check:
    """Try ranges of length delta/2."""
    low = rng.uniform(0, 1 - _DELTA / 2, 100_000)
    first, last = labels.carried(low, low + _DELTA / 2 * (1 - 1e-9), _DELTA)
    return Check(
        quantity="share of ranges of length δ/2 that lie in one interval",
        claimed=1.0,
        corrected=1.0,
        found=float((first <= last).mean()),
        tolerance=1e-9,
    )


def one_interval(rng: np.random.Generator) -> Check:
    """Try ranges of length delta - delta' for a small delta'."""
    width = 0.8 * _DELTA
    low = rng.uniform(0, 1 - width, 200_000)
    first, last = labels.carried(low, low + width, _DELTA)
    return Check(
        quantity="share of ranges of length δ − δ′ in one interval, δ′ = δ/5",
        claimed=1.0,
        corrected=_N_INTERVALS * (_DELTA - width) / (1 - width),
        found=float((first <= last).mean()),
        tolerance=0.02,
    )


def shared_interval(rng: np.random.Generator) -> Check:
    """Try pairs of values delta' apart."""
    apart = 0.9 * _DELTA
    low = rng.uniform(0, 1 - apart, 200_000)
    difference = labels.cells(low + apart, _DELTA) - labels.cells(low, _DELTA)
    return Check(
        quantity="P(two values δ′ apart share an interval), δ′ = 0.9 δ",
        claimed=1.0,
        corrected=_N_INTERVALS * (_DELTA - apart) / (1 - apart),
        found=float((difference <= 1).mean()),
        tolerance=0.03,
    )


def path_of_cubes(rng: np.random.Generator) -> Check:
    """Walk the largest cluster of a label and look how far the function comes from the middle of its interval."""
    delta = 0.25
    function = wave(rng)
    centres, side = cut(function, delta / 2)
    middle = function.value(centres)
    low, high = np.clip(middle - delta / 4, 0, 1), np.clip(middle + delta / 4, 0, 1)  # a centre is half as far
    first, last = labels.carried(low, high, delta)
    label = int(np.bincount(first.ravel()).argmax())
    found = clusters.label_clusters(np.where((first <= label) & (label <= last), 0, -1))
    inside = found.numbers == found.sizes.argmax()
    walked = centres[inside] + side * rng.uniform(-0.5, 0.5, (20, int(inside.sum()), 2))
    start, end = labels.intervals(delta)[label]
    return Check(
        quantity="largest |f − y| on a cluster of cubes, y mid-interval, over δ",
        claimed=1.0,
        corrected=0.5,
        found=float(np.abs(function.value(walked) - (start + end) / 2).max()) / delta,
        relation="<=",
    )


def label_probability(rng: np.random.Generator) -> Check:
    """Count cubes with a uniform middle value that are certain of one label."""
    width = _DELTA / 2
    middle = rng.uniform(0, 1, 400_000)
    low, high = np.clip(middle - width / 2, 0, 1), np.clip(middle + width / 2, 0, 1)
    first, last = labels.carried(low, high, _DELTA)
    return Check(
        quantity="P(cube certain of a given label), range δ/2, uniform, δ = 0.1",
        claimed=_DELTA,
        corrected=_DELTA - width,
        found=float(((first <= 9) & (last >= 9)).mean()),
        tolerance=0.05,
    )


def independence(rng: np.random.Generator) -> Check:
    """Compare neighbouring cubes' labels with those of the same cubes shuffled."""
    delta = 0.25
    function = wave(rng)
    centres, _ = cut(function, delta / 4)
    middle = function.value(centres)
    low, high = np.clip(middle - delta / 8, 0, 1), np.clip(middle + delta / 8, 0, 1)
    first, last = labels.carried(low, high, delta)
    order = rng.permutation(first.size)
    shuffled_first, shuffled_last = first.ravel()[order], last.ravel()[order]
    share = np.maximum(first[1:], first[:-1]) <= np.minimum(last[1:], last[:-1])
    by_chance = np.maximum(shuffled_first[1:], shuffled_first[:-1]) <= np.minimum(shuffled_last[1:], shuffled_last[:-1])
    return Check(
        quantity="P(cubes that share a face share a label); paper: if independent",
        claimed=float(by_chance.mean()),
        corrected=1.0,
        found=float(share.mean()),
        tolerance=1e-9,
    )


def attention(x: float, y: float) -> float:
    """Return the first output of self-attention of the two tokens x and y, all three matrices 1."""
    weights = special.softmax([x * x, x * y])
    return float(weights @ np.array([x, y]))


def network_class(_: np.random.Generator) -> Check:
    """Differentiate self-attention at two places."""
    step = 1e-5
    near, far = ((attention(step, y) - attention(-step, y)) / (2 * step) for y in (10.0, 100.0))
    return Check(
        quantity="slope of self-attention at tokens (0, 100), over that at (0, 10)",
        claimed=1.0,
        corrected=(0.5 + 100**2 / 4) / (0.5 + 10**2 / 4),
        found=far / near,
    )


def loss(_: np.random.Generator) -> Check:
    """Look for the y around which the values between 0.2 and 0.7 have the smallest largest loss."""
    on_path, around = np.linspace(0.2, 0.7, 501), np.linspace(0, 1, 1001)
    difference = on_path[:, None] - around
    largest = np.abs(difference - np.round(2 * difference) / 2).max(axis=0)
    return Check(
        quantity="least loss on a path between values 0.2 and 0.7 of loss 0; paper: δ",
        claimed=_DELTA,
        corrected=0.25,
        found=float(largest.min()),
        relation="<=",
    )


def cross_entropy(_: np.random.Generator) -> Check:
    """Evaluate the cross-entropy of two equal outputs against themselves."""
    logits = np.zeros(2)
    return Check(
        quantity="cross-entropy L(y, y) at y = (1/2, 1/2)",
        claimed=0.0,
        corrected=float(np.log(2)),
        found=-float(special.softmax(logits) @ special.log_softmax(logits)),
        tolerance=1e-9,
    )


def network(rng: np.random.Generator) -> tuple[list[Floats], Callable[[Floats], Floats]]:
    """Return the matrices of a random tanh network of Eqs. 8-10, 16-32-32-1, and the network."""
    matrices = [
        gain / np.sqrt(columns) * rng.standard_normal((rows, columns))
        for rows, columns, gain in ((32, 16, 1.0), (32, 32, _TANH_GAIN), (1, 32, _TANH_GAIN))
    ]

    def value(x: Floats) -> Floats:
        hidden = np.tanh(np.tanh(x @ matrices[0].T) @ matrices[1].T)
        return np.asarray(special.ndtr(hidden @ matrices[2].T))[..., 0]

    return matrices, value


def lemma(rng: np.random.Generator) -> Check:
    """Climb nowhere, only sample: secants of a random network against the product of norms."""
    matrices, value = network(rng)
    x = rng.standard_normal((20_000, 16))
    step = 1e-3 * rng.standard_normal(x.shape)
    slopes = np.abs(value(x + step) - value(x)) / np.linalg.norm(step, axis=1)
    product = float(np.prod([np.linalg.norm(m, 2) for m in matrices])) / np.sqrt(2 * np.pi)
    return Check(
        quantity="steepest secant of a random network; paper: product of norms",
        claimed=product,
        corrected=product,
        found=float(slopes.max()),
        relation="<=",
    )


def epsilon(rng: np.random.Generator) -> Check:
    """Cut cubes by Eq. 14 and compare the values at their corners."""
    delta, delta_prime = 0.25, 0.15
    function = wave(rng)
    centres, side = cut(function, delta - delta_prime)
    offsets = side / 2 * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1], [0, 0]])
    values = function.value(centres[..., None, :] + offsets)
    return Check(
        quantity="largest range in a cube of side ε/√d; paper: δ − δ′",
        claimed=delta - delta_prime,
        corrected=delta - delta_prime,
        found=float(np.ptp(values, axis=-1).max()),
        relation="<=",
    )


def pointwise(rng: np.random.Generator) -> Check:
    """Compare what tanh does to a difference of vectors, in the 2-norm."""
    x = 2 * rng.standard_normal((50_000, 8))
    step = rng.standard_normal(x.shape) * 10 ** rng.uniform(-3, 1, (50_000, 1))
    ratios = np.linalg.norm(np.tanh(x + step) - np.tanh(x), axis=1) / np.linalg.norm(step, axis=1)
    return Check(
        quantity="largest ‖φ(x + Δx) − φ(x)‖ / ‖Δx‖ of tanh (m = 1)",
        claimed=1.0,
        corrected=1.0,
        found=float(ratios.max()),
        relation="<=",
    )


def first_layer(rng: np.random.Generator) -> Check:
    """Compare the first layer of Eq. 8 with Eq. 19, for phi(x) = tanh(x / 2)."""
    matrix, bias = rng.standard_normal((3, 4)), rng.standard_normal(3)
    x, step = rng.standard_normal((2, 20_000, 4))
    change = ((x + step) @ matrix.T + bias) - (x @ matrix.T + bias)
    return Check(
        quantity="largest ‖f¹(x + Δx) − f¹(x)‖ / (‖θ‖‖Δx‖), φ = tanh(·/2); paper: m",
        claimed=0.5,
        corrected=1.0,
        found=float(np.max(np.linalg.norm(change, axis=1) / np.linalg.norm(step, axis=1)) / np.linalg.norm(matrix, 2)),
        relation="<=",
    )


def upper_norm(n_rows: int, n_columns: int, failure: float) -> float:
    """Return sqrt(a) + sqrt(b) + sqrt(2 ln(1/failure)): no norm of a standard Gaussian matrix, but for ``failure``.

    References
    ----------
    Davidson, Szarek, Local operator theory, random matrices and Banach spaces (2001), Th. 2.13.
    """
    return float(np.sqrt(n_rows) + np.sqrt(n_columns) + np.sqrt(2 * np.log(1 / failure)))


def bound_probability(rng: np.random.Generator) -> Check:
    """Count the Gaussian matrices beyond the bound that 9 of 10 should keep."""
    beyond = [np.linalg.norm(rng.standard_normal((8, 8)), 2) > upper_norm(8, 8, 0.1) for _ in range(4000)]
    return Check(
        quantity="share of 8 × 8 Gaussian matrices beyond m′, p = 0.9; paper: 1 − p",
        claimed=0.1,
        corrected=0.1,
        found=float(np.mean(beyond)),
        relation="<=",
    )


def induction(rng: np.random.Generator) -> Check:
    """Draw ten layers of one neuron, each within its own bound with probability 0.9."""
    quantile = stats.chi(1).ppf(0.9)
    keeps = np.all(np.abs(rng.standard_normal((20_000, 10))) <= quantile, axis=1)
    return Check(
        quantity="P(all ten layers keep bounds that each keeps with p = 0.9)",
        claimed=0.9,
        corrected=0.9**10,
        found=float(keeps.mean()),
        tolerance=0.05,
    )


def far_from_optimal(rng: np.random.Generator) -> Check:
    """Stack ten blocks |x| = relu(x) + relu(-x), whose norms are sqrt 2 each and whose composition is |x|."""
    block = [np.array([[1.0], [-1.0]]), np.array([[1.0, 1.0]])]
    product = float(np.prod([np.linalg.norm(m, 2) for m in block * 10]))
    x = rng.standard_normal((1000, 1))
    step = 0.1 * rng.standard_normal(x.shape)
    before, after = x, x + step
    for _ in range(10):
        before, after = (np.maximum(v @ block[0].T, 0) @ block[1].T for v in (before, after))
    attained = float(np.max(np.abs(after - before) / np.abs(step)))
    return Check(
        quantity="product of norms over the exact slope, ten blocks |x|; paper: 2",
        claimed=2.0,
        corrected=2.0**10 * (1 - 1e-9),
        found=product / attained,
        relation=">=",
    )


def shrinking_cubes(rng: np.random.Generator) -> Check:
    """Measure by what a further layer of a tanh network divides the cubes' side."""
    n = 512
    found = _TANH_GAIN * np.linalg.norm(rng.standard_normal((n, n)), 2) / np.sqrt(n)
    return Check(
        quantity="a further layer divides the cubes' side by (tanh, width 512)",
        claimed=1.0,
        corrected=2 * _TANH_GAIN,
        found=float(found),
        tolerance=0.05,
    )


def one_network(rng: np.random.Generator) -> Check:
    """Draw ReLU networks of six layers and correlate their outputs at two orthogonal inputs."""
    n_networks, width = 800, 96
    hidden = np.stack([rng.standard_normal((n_networks, width)) for _ in range(2)], axis=1)
    for rows in (*[width] * 4, 1):
        weights = np.sqrt(2 / width) * rng.standard_normal((n_networks, rows, width))
        hidden = np.einsum("nij,nkj->nki", weights, np.maximum(hidden, 0), optimize=True)
    # The two inputs are orthogonal, of length sqrt(2): the first layer's outputs are independent, of variance 1.
    wide_limit = wide_covariance(np.sqrt(2) * np.eye(2), depth=6, activation="relu", weight_variance=2.0)
    return Check(
        quantity="correlation of outputs at orthogonal inputs, 6 ReLU layers",
        claimed=0.0,
        corrected=float(wide_limit[0, 1] / wide_limit[0, 0]),
        found=float(np.asarray(np.corrcoef(hidden[:, :, 0].T))[0, 1]),
        tolerance=0.12,
    )


def sign_of_correlations(rng: np.random.Generator) -> Check:
    """Draw tanh networks of three matrices and correlate their outputs at inputs 120 degrees apart."""
    n_networks, width = 6000, 48
    inputs = np.sqrt(2) * np.array([[1.0, 0.0], [-0.5, np.sqrt(0.75)]])
    hidden = np.tanh(inputs @ rng.standard_normal((n_networks, 2, width)) / np.sqrt(2))
    scale = _TANH_GAIN / np.sqrt(width)
    hidden = np.tanh(scale * hidden @ rng.standard_normal((n_networks, width, width)))
    outputs = (scale * hidden @ rng.standard_normal((n_networks, width, 1)))[..., 0]
    wide_limit = wide_covariance(inputs, depth=3, activation="tanh", weight_variance=_TANH_GAIN**2)
    return Check(
        quantity="correlation of outputs at inputs 120° apart, tanh; paper: not negative",
        claimed=0.0,
        corrected=float(wide_limit[0, 1] / wide_limit[0, 0]),
        found=float(np.corrcoef(outputs.T)[0, 1]),
        tolerance=0.15,
    )


def any_radius(rng: np.random.Generator) -> Check:
    """Draw first layers with weights of variance 1/d on an input of length 1."""
    d = 1024
    x = rng.standard_normal(d)
    outputs = rng.standard_normal((4000, d)) @ (x / np.linalg.norm(x)) / np.sqrt(d)
    return Check(
        quantity="spread of f¹ at ‖x‖ = R = 1, weights of variance 1/d, d = 1024",
        claimed=1.0,
        corrected=1 / np.sqrt(d),
        found=float(outputs.std()),
        tolerance=0.06,
    )


MEASURES: dict[str, Measure] = {
    "cover": cover,
    "one interval a cube": one_interval,
    "shared interval": shared_interval,
    "path of cubes": path_of_cubes,
    "label probability": label_probability,
    "independent labels": independence,
    "networks": network_class,
    "any radius": any_radius,
    "labels in one network": one_network,
    "sign of correlations": sign_of_correlations,
    "loss": loss,
    "cross-entropy": cross_entropy,
    "Lipschitz lemma": lemma,
    "size of the cubes": epsilon,
    "activation": pointwise,
    "first layer": first_layer,
    "probability of the bound": bound_probability,
    "induction": induction,
    "far from optimal": far_from_optimal,
    "arbitrarily small cubes": shrinking_cubes,
}
