"""Slow and obviously right: the independent witnesses. Imports nothing of ours and uses other methods."""

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

import mpmath
import networkx as nx
import numpy as np
import scipy.optimize
import scipy.sparse


def components_by_graph(labels: np.ndarray, periodic: Sequence[bool], reach: int) -> list[frozenset[tuple[int, ...]]]:
    """Clusters of a labelled lattice as sets of coordinates, by networkx on the explicit graph."""
    graph: nx.Graph = nx.Graph()
    for site in np.ndindex(labels.shape):
        if labels[site] < 0:
            continue
        graph.add_node(site)
        for axis, length in enumerate(labels.shape):
            other = list(site)
            other[axis] += 1
            if other[axis] == length:
                if not periodic[axis]:
                    continue
                other[axis] = 0
            neighbour = tuple(other)
            if labels[neighbour] >= 0 and abs(int(labels[neighbour]) - int(labels[site])) <= reach:
                graph.add_edge(site, neighbour)
    return [frozenset(component) for component in nx.connected_components(graph)]


def animals(dimension: int, n_sites: int) -> set[frozenset[tuple[int, ...]]]:
    """All connected sets of n sites of Z^d that hold the origin, by adding a neighbour at a time."""
    found = {frozenset([(0,) * dimension])}
    for _ in range(n_sites - 1):
        found = {animal | {site} for animal in found for site in neighbours(animal)}
    return found


def neighbours(animal: frozenset[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """The sites beside a set of sites."""
    beside = set()
    for site in animal:
        for axis, step in itertools.product(range(len(site)), (-1, 1)):
            other = list(site)
            other[axis] += step
            beside.add(tuple(other))
    return beside - animal


def cluster_size_probability(p: float, dimension: int, n_sites: int) -> float:
    """P(the cluster of an occupied site of Z^d has n sites), by summing over all animals."""
    return sum(p ** (n_sites - 1) * (1 - p) ** len(neighbours(animal)) for animal in animals(dimension, n_sites))


def is_at_least_spectral_norm(value: float, matrix: np.ndarray) -> bool:
    """Whether value >= ||A||_2, without rounding: value^2 I - A A^T has no negative pivot in rational arithmetic."""
    rows = [[Fraction(float(entry)) for entry in row] for row in matrix]
    n = len(rows)
    rest = [
        [
            (Fraction(value) ** 2 if i == j else 0) - sum(a * b for a, b in zip(rows[i], rows[j], strict=True))
            for j in range(n)
        ]
        for i in range(n)
    ]
    left = list(range(n))
    while left:
        pivot = max(left, key=lambda i: rest[i][i])
        if rest[pivot][pivot] <= 0:  # then nothing but zeros may be left
            return all(rest[i][j] == 0 for i in left for j in left)
        left.remove(pivot)
        for i, j in itertools.product(left, repeat=2):
            rest[i][j] -= rest[i][pivot] * rest[pivot][j] / rest[pivot][pivot]
    return True


def relu_lipschitz_constant(weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], norm: float) -> float:
    """The Lipschitz constant of a ReLU network, linear at the end, from all its activation patterns.

    Each pattern makes the network affine on a polytope; a linear program finds out whether it has an interior.
    """
    n_inputs = weights[0].shape[1]
    sizes = [len(bias) for bias in biases[:-1]]
    steepest = 0.0
    for pattern in itertools.product((0.0, 1.0), repeat=sum(sizes)):
        slope, offset = np.eye(n_inputs), np.zeros(n_inputs)
        conditions: list[np.ndarray] = []
        for layer, size in enumerate(sizes):
            on = np.array(pattern[sum(sizes[:layer]) : sum(sizes[:layer]) + size])
            slope, offset = weights[layer] @ slope, weights[layer] @ offset + biases[layer]
            # Active: slope x + offset >= margin; inactive: <= -margin. As rows of G [x, margin] <= h.
            signs = 1.0 - 2.0 * on
            conditions.append(np.column_stack([signs[:, None] * slope, np.ones(size), -signs * offset]))
            slope, offset = on[:, None] * slope, on * offset
        system = np.vstack(conditions)
        best = scipy.optimize.linprog(
            c=[0.0] * n_inputs + [-1.0],
            A_ub=system[:, :-1],
            b_ub=system[:, -1],
            bounds=[(-1e3, 1e3)] * n_inputs + [(None, 1.0)],
        )
        if best.status == 0 and -best.fun > 1e-6:
            steepest = max(steepest, float(np.linalg.norm(weights[-1] @ slope, norm)))
    return steepest


def secant(
    weights: Sequence[np.ndarray],
    biases: Sequence[np.ndarray],
    functions: Sequence[str],
    x: np.ndarray,
    y: np.ndarray,
    norm: float,
) -> mpmath.mpf:
    """The slope of a fully connected network between two points, with sixty digits; a function after each matrix."""
    with mpmath.workdps(60):
        known = {
            "relu": lambda t: max(t, mpmath.mpf(0)),
            "tanh": mpmath.tanh,
            "erf": mpmath.erf,
            "sin": mpmath.sin,
            "gaussian_cdf": mpmath.ncdf,
            "sigmoid": lambda t: 1 / (1 + mpmath.exp(-t)),
            "identity": lambda t: t,
        }

        def run(point: np.ndarray) -> list[mpmath.mpf]:
            values = [mpmath.mpf(float(number)) for number in point]
            for weight, bias, name in zip(weights, biases, functions, strict=True):
                values = [
                    known[name](
                        mpmath.fdot((mpmath.mpf(float(w)), v) for w, v in zip(row, values, strict=True)) + float(b)
                    )
                    for row, b in zip(weight, bias, strict=True)
                ]
            return values

        rise = [a - b for a, b in zip(run(x), run(y), strict=True)]
        distance = [mpmath.mpf(float(a)) - mpmath.mpf(float(b)) for a, b in zip(x, y, strict=True)]
        return mpmath.norm(rise, norm) / mpmath.norm(distance, norm)


def total_variation_by_pixels(image: np.ndarray) -> float:
    """Sum of |differences| of neighbouring pixels of one image (c, h, w), pixel by pixel."""
    channels, height, width = image.shape
    total = 0.0
    for channel, row, column in itertools.product(range(channels), range(height), range(width)):
        for other in ((row + 1, column), (row, column + 1)):
            if other[0] < height and other[1] < width:
                total += abs(float(image[channel, row, column]) - float(image[(channel, *other)]))
    return total


def cross_entropy_by_logits(logits: np.ndarray, target: int) -> float:
    """Minus the logarithm of the softmax of the target, in float64."""
    shifted = logits.astype(np.float64) - logits.max()
    return float(np.log(np.exp(shifted).sum()) - shifted[target])


def crossing_axes(
    shape: tuple[int, ...], periodic: Sequence[bool], sites: Sequence[int], bonds: Sequence[tuple[int, int]]
) -> list[bool]:
    """Whether some cluster joins both faces of an open axis or wraps around a periodic one, by unrolling each cluster.

    ``bonds`` are (site, axis), leading one step up the axis. A cluster is laid out on the infinite lattice breadth
    first; a site met again elsewhere than where it was laid shows a way around.
    """
    found = [False] * len(shape)
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(sites)
    for site, axis in bonds:
        place = list(np.unravel_index(site, shape))
        place[axis] = (place[axis] + 1) % shape[axis]
        other = int(np.ravel_multi_index(place, shape))
        graph.add_edge(site, other, step=(axis, 1))
        graph.add_edge(other, site, step=(axis, -1))
    for cluster in nx.weakly_connected_components(graph):
        start = min(cluster)
        laid = {start: (0,) * len(shape)}
        queue = [start]
        for site in queue:
            for other, step in ((o, e["step"]) for o, e in graph[site].items()):
                where = tuple(x + step[1] * (i == step[0]) for i, x in enumerate(laid[site]))
                if other not in laid:
                    laid[other] = where
                    queue.append(other)
                for axis, (a, b) in enumerate(zip(laid[other], where, strict=True)):
                    found[axis] |= a != b and periodic[axis]
        places = np.array([np.unravel_index(site, shape) for site in cluster])
        for axis, length in enumerate(shape):
            column = places[:, axis]
            found[axis] |= not periodic[axis] and 0 in column and length - 1 in column
    return found


def poisson_root(q: float) -> mpmath.mpf:
    """The largest u with u = q (1 - e^-u), by bisection with sixty digits; 0 unless q > 1."""
    with mpmath.workdps(60):
        return _largest_root(lambda u: u - mpmath.mpf(q) * (1 - mpmath.exp(-u)), mpmath.mpf(q))


def branching_root(p: float, n: float) -> mpmath.mpf:
    """The largest u with e^-u = (1 - p (1 - e^-u))^n, by bisection with sixty digits; 0 unless n p > 1."""
    with mpmath.workdps(60):
        chance, count = mpmath.mpf(p), mpmath.mpf(n)
        if chance == 1:
            return mpmath.inf
        return _largest_root(
            lambda u: u + count * mpmath.log(1 - chance * (1 - mpmath.exp(-u))), -count * mpmath.log(1 - chance)
        )


def _largest_root(function: Callable[[mpmath.mpf], mpmath.mpf], above: mpmath.mpf) -> mpmath.mpf:
    """The root above 1e-20 of a function that is negative before it; 0 if there is none."""
    below = mpmath.mpf(10) ** -20
    if function(below) >= 0:
        return mpmath.mpf(0)
    for _ in range(170):
        middle = (below + above) / 2
        below, above = (middle, above) if function(middle) < 0 else (below, middle)
    return above


def mixed_word(key: int, salt: int) -> int:
    """The 64-bit word that decides about a key, in Python's own integers: two rounds of shift, xor and multiply."""
    mixed = int(key) ^ int(salt)
    mixed = ((mixed ^ (mixed >> 33)) * 0xFF51AFD7ED558CCD) % 2**64
    return ((mixed ^ (mixed >> 29)) * 0xC4CEB9FE1A85EC53) % 2**64


def invade_sites(salt: int, generators: Sequence[int], n_steps: int) -> list[tuple[int, int]]:
    """Invasion of sites with coordinates: (sites seen, word invaded) after each step, the origin being the first."""
    dimension = len(generators)

    def word(site: tuple[int, ...]) -> int:
        key = 1 + sum(x * int(g) for x, g in zip(site, generators, strict=True))
        return mixed_word(key % 2**64, salt)

    origin = (0,) * dimension
    cluster, seen, steps = {origin}, {origin}, []
    invaded = origin
    for _ in range(n_steps):
        seen |= neighbours(frozenset({invaded}))
        steps.append((len(seen), word(invaded)))
        invaded = min(seen - cluster, key=word)
        cluster.add(invaded)
    return steps


def invade_bonds(salts: Sequence[int], generators: Sequence[int], n_steps: int) -> list[int]:
    """Invasion of bonds with coordinates: bonds seen after each step; a bond is (lower end, axis)."""
    dimension = len(generators)

    def bonds_of(site: tuple[int, ...]) -> set[tuple[tuple[int, ...], int]]:
        below = (tuple(x - (i == axis) for i, x in enumerate(site)) for axis in range(dimension))
        return {(site, axis) for axis in range(dimension)} | {(low, axis) for axis, low in enumerate(below)}

    def word(bond: tuple[tuple[int, ...], int]) -> int:
        key = 1 + sum(x * int(g) for x, g in zip(bond[0], generators, strict=True))
        return mixed_word(key % 2**64, int(salts[bond[1]]))

    seen, invaded, counts = bonds_of((0,) * dimension), set(), []
    for _ in range(n_steps):
        bond = min(seen - invaded, key=word)
        invaded.add(bond)
        low, axis = bond
        seen |= bonds_of(low) | bonds_of(tuple(x + (i == axis) for i, x in enumerate(low)))
        counts.append(len(seen))
    return counts


def agreeing_bonds(labels: np.ndarray, periodic: Sequence[bool], reach: int) -> list[tuple[int, int]]:
    """Bonds (site, axis), one step up the axis, between sites that join; across periodic faces from length 3 on."""
    bonds = []
    for place in np.ndindex(labels.shape):
        for axis, length in enumerate(labels.shape):
            up = list(place)
            up[axis] = (up[axis] + 1) % length
            if up[axis] == 0 and not (periodic[axis] and length > 2):
                continue
            low, high = int(labels[place]), int(labels[tuple(up)])
            if low >= 0 and high >= 0 and abs(low - high) <= reach:
                bonds.append((int(np.ravel_multi_index(place, labels.shape)), axis))
    return bonds


def distances_by_graph(labels: np.ndarray, periodic: Sequence[bool], reach: int, source: tuple[int, ...]) -> np.ndarray:
    """Shortest ways from a site to all sites, by networkx; -1 where there is none."""
    graph: nx.Graph = nx.Graph()
    graph.add_nodes_from(int(site) for site in np.flatnonzero(labels >= 0))
    for site, axis in agreeing_bonds(labels, periodic, reach):
        place = list(np.unravel_index(site, labels.shape))
        place[axis] = (place[axis] + 1) % labels.shape[axis]
        graph.add_edge(site, int(np.ravel_multi_index(place, labels.shape)))
    distances = np.full(labels.size, -1)
    start = int(np.ravel_multi_index(source, labels.shape))
    if start in graph:
        for site, distance in nx.single_source_shortest_path_length(graph, start).items():
            distances[site] = distance
    return distances.reshape(labels.shape)


def cluster_numbers(labels: np.ndarray, periodic: Sequence[bool], reach: int) -> np.ndarray:
    """Clusters numbered in the order of first sites, -1 for empty ones, by scipy on the sparse graph; any dimension."""
    wide = labels.astype(np.int64)
    sites = np.arange(labels.size).reshape(labels.shape)
    pairs = []
    for axis, length in enumerate(labels.shape):
        ups = np.roll(sites, -1, axis=axis)
        beside = np.abs(wide - np.roll(wide, -1, axis=axis)) <= reach
        there = (wide >= 0) & (np.roll(wide, -1, axis=axis) >= 0) & beside
        if not periodic[axis]:
            there &= np.expand_dims(np.arange(length) < length - 1, tuple(i for i in range(labels.ndim) if i != axis))
        pairs.append(np.stack([sites[there], ups[there]]))
    first, second = np.concatenate(pairs, axis=1)
    graph = scipy.sparse.coo_array((np.ones(first.size), (first, second)), shape=(labels.size, labels.size))
    found = scipy.sparse.csgraph.connected_components(graph, directed=False)[1]
    occupied = labels.ravel() >= 0
    _, firsts, inverse = np.unique(found[occupied], return_index=True, return_inverse=True)
    numbers = np.full(labels.size, -1)
    numbers[occupied] = np.argsort(np.argsort(firsts))[inverse]
    return numbers.reshape(labels.shape)


def is_positive_semidefinite(matrix: list[list[Fraction]]) -> bool:
    """Whether a symmetric rational matrix is positive semidefinite, by elimination without rounding."""
    rest = [row[:] for row in matrix]
    left = list(range(len(rest)))
    while left:
        pivot = max(left, key=lambda i: rest[i][i])
        if rest[pivot][pivot] <= 0:  # then nothing but zeros may be left
            return all(rest[i][j] == 0 for i in left for j in left)
        left.remove(pivot)
        for i in left:
            ratio = rest[i][pivot] / rest[pivot][pivot]
            if ratio:
                for j in left:
                    rest[i][j] -= ratio * rest[pivot][j]
    return True


def convolution_matrix(
    weight: np.ndarray,
    input_shape: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> np.ndarray:
    """The matrix of a zero-padded convolution on flattened images, entry by entry."""
    n_outputs, n_inputs, *kernel = weight.shape
    shape = tuple(
        (input_shape[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    )
    matrix = np.zeros((n_outputs, *shape, n_inputs * groups, *input_shape))
    for output, row, column, i, k, j in np.ndindex(n_outputs, *shape, *weight.shape[1:]):
        height = row * stride[0] + k * dilation[0] - padding[0]
        width = column * stride[1] + j * dilation[1] - padding[1]
        if 0 <= height < input_shape[0] and 0 <= width < input_shape[1]:
            channel = output // (n_outputs // groups) * n_inputs + i
            matrix[output, row, column, channel, height, width] = weight[output, i, k, j]
    return matrix.reshape(n_outputs * shape[0] * shape[1], -1)


def walk_segment(
    weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], a: Sequence[float], b: Sequence[float]
) -> list[tuple[Fraction, list[Fraction]]]:
    """The breakpoints t of a ReLU network on a + t (b - a), ends included, and its outputs there, in exact arithmetic.

    Piece after piece: the slopes just right of a point, and the first zero of any pre-activation after it.
    """
    layers = [
        ([[Fraction(float(w)) for w in row] for row in weight], [Fraction(float(c)) for c in bias])
        for weight, bias in zip(weights, biases, strict=True)
    ]
    start = [Fraction(float(x)) for x in a]
    direction = [Fraction(float(y)) - x for x, y in zip(start, b, strict=True)]
    t, found = Fraction(0), []
    while True:
        values, slopes = [x + t * d for x, d in zip(start, direction, strict=True)], direction
        following = Fraction(1)
        for depth, (weight, bias) in enumerate(layers):
            values, slopes = (
                [sum((w * x for w, x in zip(row, xs, strict=True)), c) for row, c in zip(weight, offset, strict=True)]
                for xs, offset in ((values, bias), (slopes, [Fraction(0)] * len(bias)))
            )
            if depth + 1 < len(layers):
                zeros = [t - x / d for x, d in zip(values, slopes, strict=True) if x * d < 0]
                following = min([following, *zeros])
                is_on = [x > 0 or (x == 0 and d > 0) for x, d in zip(values, slopes, strict=True)]
                values, slopes = ([x * on for x, on in zip(xs, is_on, strict=True)] for xs in (values, slopes))
        found.append((t, values))
        if t == 1:
            return found
        t = following


def relu_outputs(
    weights: Sequence[np.ndarray], biases: Sequence[np.ndarray], point: Sequence[Fraction]
) -> list[Fraction]:
    """The outputs of a ReLU network, linear at the end, in exact arithmetic."""
    values = list(point)
    for depth, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        values = [
            sum((Fraction(float(w)) * x for w, x in zip(row, values, strict=True)), Fraction(float(c)))
            for row, c in zip(weight, bias, strict=True)
        ]
        if depth + 1 < len(weights):
            values = [max(x, Fraction(0)) for x in values]
    return values


def is_at_least_secant(value: float, dx: Sequence[Fraction], dy: Sequence[Fraction], norm: float) -> bool:
    """Whether value >= ||dy|| / ||dx|| in the p-norm, without rounding."""
    if value == np.inf:
        return True
    if norm == 2:
        return Fraction(value) ** 2 * sum(x * x for x in dx) >= sum(y * y for y in dy)
    measure: Callable[..., Fraction] = sum if norm == 1 else max  # type: ignore[assignment]
    return Fraction(value) * measure(abs(x) for x in dx) >= measure(abs(y) for y in dy)


def gaussian_expectation(phi: Callable[[np.ndarray], np.ndarray], a: float, b: float, correlation: float) -> float:
    """E[phi(u) phi(v)] for centred Gaussian u, v of variances a, b: the trapezoidal rule over the plane."""
    z = np.arange(-450, 451) * 0.02
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * 0.02
    v = np.sqrt(b) * (correlation * z[:, None] + np.sqrt(1 - correlation**2) * z[None, :])
    return float(density @ (phi(np.sqrt(a) * z)[:, None] * phi(v)) @ density)


def wide_network_covariance(
    points: np.ndarray,
    phi: Callable[[np.ndarray], np.ndarray],
    *,
    depth: int,
    width: int,
    weight_variance: float,
    bias_variance: float,
    n_networks: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Covariance of the output over random networks of Eqs. 8-9, by drawing all layers but the last."""
    total = np.zeros((len(points), len(points)))
    for _ in range(n_networks):
        layer = points @ rng.normal(size=(points.shape[1], width)) / np.sqrt(points.shape[1])
        layer += rng.normal(size=width) * np.sqrt(bias_variance)
        for _ in range(depth - 2):
            layer = phi(layer) @ rng.normal(size=(width, width)) * np.sqrt(weight_variance / width)
            layer += rng.normal(size=width) * np.sqrt(bias_variance)
        total += weight_variance / width * phi(layer) @ phi(layer).T + bias_variance
    return total / n_networks
