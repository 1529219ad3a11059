"""The number beside each entry on percolation: Eq. 3, Appendix C, Eqs. 21-24, correlations.

Every function returns a :class:`Check`; what is random comes from ``rng``. Those that compare counts use tolerances of
four standard errors or more: a correct code fails them with probability below 1e-4 each.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special, stats
from scipy.sparse import csgraph

from percolation import clusters, growth, labels, meanfield, rare, threshold
from percolation._audit.entry import Check, Measure

Floats = NDArray[np.float64]


def conjecture(rng: np.random.Generator) -> Check:
    """Simulate 1 - P of two far sites, Eq. 3."""
    p, d = 0.1, 64
    lost = rare.finite_probability(p, d, n_samples=2000, max_sites=500, rng=rng).value
    return Check(
        quantity="1 − P(connected in one label), δ = 0.1, d = 64; paper: e^(−dδ), by Eq. 24",
        claimed=float(np.exp(-d * p)),
        corrected=2 * (1 - p) ** (2 * d),
        found=float(meanfield.pair_disconnected(lost)),
    )


def grows(rng: np.random.Generator) -> Check:
    """Grow clusters in two dimensions of the lattice."""
    low, high = (
        float((growth.grow(0.1, d, n_samples=500, max_sites=2000, rng=rng, n_workers=1).sizes >= 2000).mean())
        for d in (8, 16)
    )
    return Check(
        quantity="P(a cube is in the infinite cluster), p = 0.1, d = 16; paper: d = 8",
        claimed=low,
        corrected=low,
        found=high,
        relation=">=",
    )


def sharp_transition(rng: np.random.Generator) -> Check:
    """Count grids whose occupied cells are all connected."""
    p, side = 0.9, 1000
    grids = [clusters.label_clusters(np.where(rng.random((side, side)) < p, 0, -1)).sizes.size for _ in range(3)]
    return Check(
        quantity="P(all occupied cells of 1000 × 1000 are connected), p = 0.9",
        claimed=1.0,
        corrected=0.0,
        found=float(np.mean(np.asarray(grids) == 1)),
    )


def two_dimensions(rng: np.random.Generator) -> Check:
    """Bisect the p at which a square is crossed, on 24 squares."""
    thresholds = []
    for _ in range(24):
        values, low, high = rng.random((384, 384)), 0.5, 0.7
        while high - low > 1e-3:
            middle = (low + high) / 2
            crosses = clusters.label_clusters(np.where(values < middle, 0, -1)).spans[:, 0].any()
            low, high = (low, middle) if crosses else (middle, high)
        thresholds.append((low + high) / 2)
    return Check(
        quantity="p_c of sites in two dimensions",
        claimed=0.59,
        corrected=threshold.PUBLISHED["site"][2][0],
        found=float(np.mean(thresholds)),
        tolerance=0.015,
    )


def inverse_dimension(rng: np.random.Generator) -> Check:
    """Invade a lattice of thirteen dimensions."""
    n = 2**18
    seen = threshold.invade(13, np.array([n]), rng=rng)[0]
    return Check(
        quantity="13 p_c(13); paper: 3 p_c(3)",
        claimed=3 * threshold.PUBLISHED["site"][3][0],
        corrected=13 * threshold.series(13),
        found=13 * n / float(seen),
        tolerance=0.005,
    )


def first_percolating(p: float, first: int, rng: np.random.Generator) -> int:
    """Invade lattices of ``first`` and more dimensions until the threshold lies below ``p``; off by 1 % at most."""
    n = 2**18
    return next(d for d in itertools.count(first) if n / float(threshold.invade(d, np.array([n]), rng=rng)[0]) < p)


def percolation_phase(rng: np.random.Generator) -> Check:
    """Look for the first dimension whose threshold lies below delta."""
    return Check(
        quantity="first dimension in which a label percolates, δ = 0.1; paper: p_c = 1/d",
        claimed=11,
        corrected=10 // 2 + 2,
        found=first_percolating(0.1, 4, rng),
        tolerance=1e-9,
    )


def vector_outputs(rng: np.random.Generator) -> Check:
    """Look for the first dimension that suffices for two outputs: a disc of diameter 1/2 is 1/16 of the unit disc."""
    return Check(
        quantity="first dimension that percolates, uniform outputs in the disc, δ = 1/2; paper: as in [−1, 1]",
        claimed=4 // 2 + 2,
        corrected=16 // 2 + 2,
        found=first_percolating(1 / 16, 4, rng),
        tolerance=1e-9,
    )


def connected_cubes(rng: np.random.Generator) -> Check:
    """Join neighbours that share some interval, on a cube of independent values."""
    delta, side = 0.25, 40
    values = rng.random((side,) * 3)
    cells, numbers = labels.cells(values, delta), np.arange(values.size).reshape(values.shape)
    pairs = []
    for axis in range(3):
        near = np.take(numbers, range(side - 1), axis).ravel(), np.take(numbers, range(1, side), axis).ravel()
        pairs.append(np.stack(near)[:, np.abs(cells.ravel()[near[0]] - cells.ravel()[near[1]]) <= 1])
    first, last = np.concatenate(pairs, axis=1)
    graph = sparse.coo_array((np.ones(first.size), (first, last)), shape=(values.size, values.size))
    _, found = csgraph.connected_components(graph, directed=False)
    return Check(
        quantity="spread of f on a cluster whose neighbours share some interval; paper: δ",
        claimed=delta,
        corrected=1.0,
        found=float(np.ptp(values.ravel()[found == np.bincount(found).argmax()])),
    )


def dictionary(rng: np.random.Generator) -> Check:
    """Compare the largest components of two lattices of one p."""
    small, large = (
        int(clusters.label_clusters(np.where(rng.random((n, n)) < 0.65, 0, -1)).sizes.max()) for n in (256, 1024)
    )
    return Check(
        quantity="largest component, N = 1024 over N = 256, p = 0.65",
        claimed=1.0,
        corrected=16.0,
        found=large / small,
        tolerance=0.05,
    )


def two_routes(law: Floats) -> float:
    """Return P(a route is open) of two parallel sites with joint law ``law[a, b]``, by enumeration."""
    return float(sum(law[a, b] for a, b in itertools.product((0, 1), repeat=2) if a or b))


def correlation_helps(_: np.random.Generator) -> Check:
    """Enumerate two parallel routes, independent and equal."""
    return Check(
        quantity="P(one of two routes is open), p = 1/2, equal sites; paper: independent ones",
        claimed=two_routes(np.full((2, 2), 0.25)),
        corrected=0.5,
        found=two_routes(np.diag([0.5, 0.5])),
        relation=">=",
    )


def line_between(label: tuple[float, float], n_networks: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return P(f(x1) carries ``label`` | f(x0), f(x2) do) and P(f(x1) carries it), f = cdf(theta x) of Eqs. 8-10.

    Three inputs of unit length, 45 degrees apart: correlations 1/sqrt 2 and 0, none negative.
    """
    theta = rng.standard_normal((n_networks, 2))
    inputs = np.array([[1, 0], [np.sqrt(0.5), np.sqrt(0.5)], [0, 1]])
    values = special.ndtr(theta @ inputs.T)
    is_in = (values >= label[0]) & (values <= label[1])
    ends = is_in[:, 0] & is_in[:, 2]
    return float(is_in[ends, 1].mean()), float(is_in[:, 1].mean())


def positive_correlation(rng: np.random.Generator) -> Check:
    """Draw linear networks on three inputs."""
    found, _ = line_between((0.85, 0.9), 400_000, rng)
    return Check(
        quantity="P(middle cube | both ends carry [0.85, 0.9]), linear network",
        claimed=0.05,
        corrected=0.0,
        found=found,
        relation=">=",
    )


def neighbour_count(_: np.random.Generator) -> Check:
    """Count the cubes that share a face with one, in five dimensions."""
    offsets = itertools.product((-1, 0, 1), repeat=5)
    return Check(
        quantity="cubes that share a face with one, d = 5",
        claimed=5,
        corrected=10,
        found=sum(1 for offset in offsets if np.abs(offset).sum() == 1),
        tolerance=1e-9,
    )


def lower_bound(rng: np.random.Generator) -> Check:
    """Grow clusters in the plane below its threshold, where Eq. 22 has a positive root."""
    p = 0.55
    grown = growth.grow(p, 2, n_samples=500, max_sites=200_000, rng=rng, n_workers=1)
    return Check(
        quantity="P(in the infinite cluster), d = 2, p = 0.55; paper: root of Eq. 22",
        claimed=float(meanfield.poisson(2 * p).connected),
        corrected=0.0,
        found=float((grown.sizes >= 200_000).mean()),
        relation=">=",
    )


def closed_loops(rng: np.random.Generator) -> Check:
    """Simulate Q and put it beside the lattice without loops."""
    p, d = 0.25, 24
    found = rare.finite_probability(p, d, n_samples=5000, max_sites=2000, rng=rng).value
    exact = float(meanfield.bethe(p, 2 * d).disconnected)
    return Check(
        quantity="Q of Z^d over Q without loops (Bethe lattice), p = 0.25, d = 24",
        claimed=1.0,
        corrected=1.0,
        found=found / exact,
    )


def root(rng: np.random.Generator) -> Check:
    """Count Poisson branching processes of mean 2 that die out."""
    q, n = 2.0, 100_000
    alive = np.ones(n, dtype=np.int64)
    for _ in range(60):
        alive = np.where(alive > 200, alive, rng.poisson(q * np.minimum(alive, 200)))
    exact = float(-special.lambertw(-q * np.exp(-q)).real / q)
    return Check(
        quantity="Q of Eq. 22 at q = 2, by branching processes",
        claimed=exact,
        corrected=exact,
        found=float((alive == 0).mean()),
        tolerance=0.03,
    )


def expansion(_: np.random.Generator) -> Check:
    """Evaluate the factor of Q in Eq. 23 at the exact root."""
    q = 5.0
    return Check(
        quantity="factor of Q in Eq. 23, e^(−q)/Q, at q = 5",
        claimed=float(1 + q * np.exp(q)),
        corrected=float(1 - q * np.exp(-q)),
        found=float(np.exp(-q) / meanfield.poisson(q).disconnected),
    )


def leading_term(_: np.random.Generator) -> Check:
    """Compare the exact root with Eq. 24."""
    q = 5.0
    return Check(
        quantity="Q of Eq. 24 at q = 5",
        claimed=float(meanfield.printed_expansion(q)),
        corrected=float(np.exp(-q) / (1 - q * np.exp(-q))),
        found=float(meanfield.poisson(q).disconnected),
    )


def order(_: np.random.Generator) -> Check:
    """Look for the largest Q e^q."""
    q = np.concatenate([np.linspace(0, 3, 3001), np.geomspace(3, 600, 500)])
    return Check(
        quantity="largest Q e^q over q of 0 to 600 (at most e)",
        claimed=float(np.e),
        corrected=float(np.e),
        found=float(np.max(meanfield.poisson(q).disconnected * np.exp(q))),
        relation="<=",
    )


def neighbours_in_ball(dimension: int, diameter: float, n_cubes: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how many neighbours of random cubes of the unit ball have their centres in it too.

    Parameters
    ----------
    dimension : int
        d, at least 1.
    diameter : float
        epsilon / R, of cubes of side epsilon / sqrt(d).
    n_cubes : int
    rng : numpy.random.Generator

    Returns
    -------
    array of int64, shape (n_cubes,)
        From 0 to 2 d.
    """
    directions = rng.standard_normal((n_cubes, dimension))
    centres = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    centres *= rng.random((n_cubes, 1)) ** (1 / dimension)
    side = diameter / np.sqrt(dimension)
    room = 1 - np.sum(centres**2, axis=1, keepdims=True)
    steps = (2 * side * centres + side**2 <= room, -2 * side * centres + side**2 <= room)
    inside: NDArray[np.int64] = np.sum(np.concatenate(steps, axis=1), axis=1)
    return inside


def share_in_ball(dimension: int, diameter: float) -> float:
    """Return the mean share of the neighbours that lie in the ball, exactly.

    It is the volume that two unit balls share when their centres are a cube's side s apart, I_{1 - s^2/4}((d+1)/2, 1/2)
    of one ball's with the regularised incomplete beta function; as d grows, 2 cdf(-epsilon / (2 R)).
    """
    return float(special.betainc((dimension + 1) / 2, 0.5, 1 - diameter**2 / (4 * dimension)))


def ball_boundary(rng: np.random.Generator) -> Check:
    """Count the neighbours that cubes of a ball have."""
    d, share = 1024, 0.5
    found = neighbours_in_ball(d, share, 4000, rng).mean() / (2 * d)
    return Check(
        quantity="neighbours of a cube of the ball, over 2d, ε = R/2, d = 1024",
        claimed=1.0,
        corrected=share_in_ball(d, share),
        found=float(found),
        tolerance=0.02,
    )


def label_of_starved(rng: np.random.Generator) -> Check:
    """Draw networks with a sigmoid at the end, and count outputs in the first interval."""
    n, width, gain = 50_000, 128, 1.59253741972283
    counts = 0
    for _ in range(10):
        hidden = np.tanh(rng.standard_normal((n // 10, width)))
        last = gain / np.sqrt(width) * np.sum(hidden * rng.standard_normal(hidden.shape), axis=1)
        counts += int(np.sum(special.expit(last) <= 0.1))
    return Check(
        quantity="P(label [0, 0.1]) over random networks, sigmoid at the end",
        claimed=0.1,
        corrected=float(stats.norm.cdf(special.logit(0.1))),
        found=counts / n,
        tolerance=0.17,
    )


MEASURES: dict[str, Measure] = {
    "connection probability": conjecture,
    "growth with dimension": grows,
    "sharp transition": sharp_transition,
    "threshold in the plane": two_dimensions,
    "threshold against dimension": inverse_dimension,
    "percolation phase": percolation_phase,
    "vector outputs": vector_outputs,
    "connected cubes": connected_cubes,
    "dictionary": dictionary,
    "correlation helps": correlation_helps,
    "positive correlation": positive_correlation,
    "number of neighbours": neighbour_count,
    "lower bound": lower_bound,
    "closed loops": closed_loops,
    "root": root,
    "expansion": expansion,
    "leading term": leading_term,
    "order of Q": order,
    "cubes of a ball": ball_boundary,
    "labels at initialisation": label_of_starved,
}
