"""The audit's entries on percolation: Eq. 3, Appendix C, the cubes of a ball, Eqs. 21-24."""

import itertools
import math

import numpy as np
import pytest
import strategies
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special

from percolation import clusters, growth, meanfield, rare, threshold
from percolation._audit import lattice_checks

# App. C and the lattice


@given(strategies.labelled_lattices(max_axes=3, max_sites=60), st.integers(0, 2**32 - 1))
def test_a_further_dimension_never_disconnects(lattice, seed):
    layer = np.random.default_rng(seed).integers(-1, 4, lattice.labels.shape).astype(np.int16)
    below = clusters.label_clusters(lattice.labels)
    above = clusters.label_clusters(np.ma.stack([layer, lattice.labels, layer]))
    numbers, higher = below.numbers.ravel(), above.numbers[1].ravel()
    for cluster in range(below.sizes.size):
        assert len(set(higher[numbers == cluster])) == 1


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
def test_some_cell_is_cut_off_as_surely_as_the_bound_says(p):
    def connected(side):
        total = 0.0
        for occupied in itertools.product((0, -1), repeat=side * side):
            n = occupied.count(0)
            if clusters.label_clusters(np.array(occupied, dtype=np.int8).reshape(side, side)).sizes.size <= 1:
                total += p**n * (1 - p) ** (side * side - n)
        return total

    few = (1 - p) ** 9 + 9 * p * (1 - p) ** 8
    assert connected(3) <= (1 - p * (1 - p) ** 4) + few
    assert (1 - p * (1 - p) ** 4) ** (10**6 // 3) ** 2 < 1e-6


@pytest.mark.parametrize("p", [0.5, 0.65])
def test_two_occupied_cells_are_connected_with_the_square_of_the_infinite_cluster(p):
    """In the plane, below and above p_c; theta by growing clusters, pairs by labelling. Four standard errors."""
    rng = np.random.default_rng(2)
    grown = growth.grow(p, 2, n_samples=600, max_sites=4000, rng=rng, n_workers=1).sizes
    theta = (grown >= 4000).mean()
    sizes = clusters.label_clusters(np.where(rng.random((700, 700)) < p, 0, -1)).sizes.astype(float)
    connected = (sizes**2).sum() / sizes.sum() ** 2
    assert connected == pytest.approx(theta**2, abs=0.01 + 4 * 2 * theta * math.sqrt(theta * (1 - theta) / 600))
    assert (connected < 0.01) == (p < threshold.PUBLISHED["site"][2][0])


def test_thresholds_lie_above_the_tree_and_tend_to_half_of_one_over_d():
    sites = {d: value for d, (value, _, _) in threshold.PUBLISHED["site"].items()}
    sites |= {d: threshold.series(d) for d in (20, 50, 200, 10_000)}
    assert all(value > 1 / (2 * d - 1) for d, value in sites.items())
    scaled = [2 * d * value for d, value in sorted(sites.items())]
    assert scaled == sorted(scaled, reverse=True)
    assert scaled[0] == pytest.approx(2.371, abs=1e-3)
    assert 2 * 13 * sites[13] == pytest.approx(1.1106, abs=1e-4)
    assert scaled[-1] == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("d", [100, 1000, 10_000])
def test_the_series_is_the_proven_expansion_to_third_order(d):
    x = 1 / (2 * d)
    assert abs(threshold.series(d) - (x + 5 / 2 * x**2 + 31 / 4 * x**3)) < 60 * x**4


@pytest.mark.parametrize("dimension, diameter", [(1, 0.3), (3, 0.5), (40, 1.0)])
def test_the_share_of_neighbours_in_a_ball_tends_to_the_gaussian_one(dimension, diameter):
    """Four standard errors, at most 0.5/sqrt(n) each: false alarms below 1e-4."""
    found = lattice_checks.neighbours_in_ball(dimension, diameter, 20_000, np.random.default_rng(1)) / (2 * dimension)
    assert found.mean() == pytest.approx(
        lattice_checks.share_in_ball(dimension, diameter), abs=4 * found.std() / math.sqrt(20_000)
    )
    assert lattice_checks.share_in_ball(10**6, diameter) == pytest.approx(2 * special.ndtr(-diameter / 2), rel=1e-4)


def test_cubes_at_the_sphere_have_half_of_the_neighbours():
    rng = np.random.default_rng(5)
    x = rng.standard_normal((500, 64))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    side = 0.3 / 8
    inside = sum((np.sum((x + sign * side * axis) ** 2, axis=1) <= 1) for axis in np.eye(64) for sign in (-1, 1))
    assert inside.max() <= 64  # never both directions of an axis
    assert inside.mean() > 50
    # d E (1-p)^n over (1-p)^d does not fall with d, where an infinite lattice's would be d (1-p)^d
    scaled = []
    for d in (32, 64, 128):
        n = lattice_checks.neighbours_in_ball(d, 0.3, 10_000, rng)
        scaled.append(d * np.mean(0.7 ** (n - d).astype(float)))
    assert min(scaled) > 0.5


@pytest.mark.parametrize("diameter", [0.3, 1.0, 2.0])
def test_isolation_in_a_ball_falls_at_the_rate_of_the_sphere(diameter):
    """d E (1-p)^n over (1-p)^(2 cdf(-eps/2R) d) does not fall with d; radii by quantiles, the outermost closest."""
    p, share, scaled = 0.1, 2 * special.ndtr(-diameter / 2), []
    assert share < 1  # so that the rate is less than half of that of Z^d
    rng = np.random.default_rng(4)
    outside = np.geomspace(1e-4, 1, 41)  # the share of the ball that lies farther out
    for d in (50, 200, 800):
        x = rng.standard_normal((200, d))
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        side = diameter / np.sqrt(d)
        means = []
        for part in outside:
            centres = x * (1 - part) ** (1 / d) if part < 1 else 0 * x
            squares = (centres**2).sum(axis=1, keepdims=True)
            n = sum((squares + 2 * sign * side * centres + side**2 <= 1).sum(axis=1) for sign in (-1, 1))
            means.append(np.mean((1 - p) ** (n - share * d)))
            if part == outside[0]:
                assert n.mean() == pytest.approx(share * d, rel=0.05)
        scaled.append(d * np.trapezoid(means, outside))
    assert scaled == sorted(scaled)
    assert scaled[0] > 0.5


@pytest.mark.parametrize("n, d", [(2, 3), (3, 4), (5, 3), (4, 5)])
def test_isolation_in_a_box_is_a_product_over_axes(n, d):
    places = np.indices((n,) * d)
    neighbours = ((places > 0).astype(int) + (places < n - 1)).sum(axis=0)
    assert (neighbours == 2 * d).mean() == pytest.approx((1 - 2 / n) ** d)
    p = 0.3
    assert np.mean((1 - p) ** neighbours) == pytest.approx(((1 - p) * (1 - p + 2 * p / n)) ** d)


@pytest.mark.parametrize("p, d", [(0.2, 4), (0.1, 8), (0.4, 3)])
def test_the_two_equations_of_the_tree_are_those_of_its_branching(p, d):
    """Generations of occupied cubes, 2d - 1 new neighbours each but the first. Four standard errors."""
    inner = 0.0
    for _ in range(10_000):
        inner = (1 - p * (1 - inner)) ** (2 * d - 1)
    lost = (1 - p * (1 - inner)) ** (2 * d)
    rng, n = np.random.default_rng(3), 20_000
    alive = rng.binomial(2 * d, p, n)
    for _ in range(60):
        alive = np.where(alive > 200, alive, rng.binomial(np.minimum(alive, 200) * (2 * d - 1), p))
    assert (alive == 0).mean() == pytest.approx(lost, abs=4 * math.sqrt(lost * (1 - lost) / n))
    assert float(meanfield.bethe(p, 2 * d).disconnected) == pytest.approx(lost)


# Eq. 3


@given(st.integers(2, 8), st.floats(0, 1), st.floats(0, 1), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_window_chosen_by_the_two_values_holds_both(n, value, part, d, seed):
    """x0 is left around every y no more often than around one y alone, which has p = 2 delta."""
    delta = 1 / n
    other = value + (2 * part - 1) * delta
    assume(0 <= other <= 1)
    low, high = min(value, other), max(value, other)
    window = np.clip(high - 2 * delta, 0, 1 - 2 * delta)  # its y is delta above
    assert window <= low + 1e-15
    assert high <= window + 2 * delta + 1e-15
    neighbours = np.random.default_rng(seed).random((500, 2 * d))
    is_in_window = (window <= neighbours) & (neighbours <= window + 2 * delta)
    assert np.all(shares_a_window(neighbours, low, high, delta) | ~is_in_window)


def shares_a_window(neighbours, low, high, delta):
    """Whether some y is within delta of x0's and x1's values and of the neighbour's: the three span 2 delta at most."""
    return np.maximum(neighbours, high) - np.minimum(neighbours, low) <= 2 * delta


@pytest.mark.parametrize("delta, part, d", [(0.05, 0.5, 2), (0.1, 0.9, 2), (0.1, 0.1, 5), (0.2, 0.5, 3)])
def test_values_near_an_end_are_left_around_any_y_as_often_as_the_bound_says(delta, part, d):
    """Simulated; first, every y of a fine row tried one by one. Four standard errors: false alarms below 1e-4."""
    rng = np.random.default_rng(6)
    values = rng.random((100_000, 1)) + part * delta * rng.uniform(-1, 1, (100_000, 1)) * [0, 1]
    values = values[((values >= 0) & (values <= 1)).all(axis=1)]
    neighbours = rng.random((len(values), 2 * d))
    low, high = np.sort(values).T[:, :, None]
    is_joined = shares_a_window(neighbours, low, high, delta)
    y = np.linspace(0, 1, 1001)
    few, near = values[:500, None], neighbours[:500]
    tried = (np.abs(few - y[:, None]) <= delta).all(axis=2)[:, None] & (np.abs(near[:, :, None] - y) <= delta)
    span = np.maximum(near, high[:500]) - np.minimum(near, low[:500])
    assert np.all((tried.any(axis=2) == is_joined[:500]) | (np.abs(span - 2 * delta) < 2e-3))
    left = 1 - is_joined.any(axis=1).mean()
    assert left > (1 - 2 * delta) ** (2 * d + 1) / (2 * d + 1) + 4 * np.sqrt(left / len(values))


@pytest.mark.parametrize("delta", [0.05, 0.1, 0.2])
def test_the_rate_around_any_y_is_that_of_one_window(delta):
    """Exact isolation of x0 or x1, by quadrature: above the bound and 8/(2 - delta') of it in the end."""
    delta_prime = delta / 2
    v = (np.arange(4000) + 0.5) / 4000
    shift = delta_prime * (np.arange(-20, 20) + 0.5) / 20
    other = v[:, None] + shift
    low, high = np.minimum(v[:, None], other), np.maximum(v[:, None], other)
    there = (other >= 0) & (other <= 1)
    taken = np.minimum(1, low + 2 * delta) - np.maximum(0, high - 2 * delta)
    for d in (20, 60, 200):
        bound = (1 - 2 * delta) ** (2 * d + 1) / (2 * d + 1)
        either = 2 * ((1 - taken[there]) ** (2 * d)).mean()
        assert bound < either < 2 * (1 - 2 * delta) ** (2 * d)
    assert either == pytest.approx(8 / (2 - delta_prime) * bound, rel=0.02)
    rates = [-(math.log(1 - 2 * delta) * (2 * d + 1) - math.log(2 * d + 1)) / d for d in (100, 10_000, 10**6)]
    assert rates[-1] == pytest.approx(2 * math.log(1 / (1 - 2 * delta)), abs=2e-5)
    # the bound that was printed before, (1 - 4 delta)^(2d), is idle from there on
    assert (1 - 4 * delta) ** 400 < bound


def test_cells_that_share_a_label_share_one_as_often_as_the_prefactor_says():
    """The prefactor of Eq. 3 for cubes that share a label is 2 P(one is shared | any is) = 4/(3 - delta)."""
    for n in range(1, 30):
        cells = np.arange(2 * n)
        first, last = np.maximum(cells - 1, 0), np.minimum(cells, 2 * n - 2)  # the labels of a cell
        shared = np.minimum(last[:, None], last) - np.maximum(first[:, None], first) + 1
        assert 2 * (shared == 1).sum() / (shared >= 1).sum() == pytest.approx(4 / (3 - 1 / n))


# Eqs. 21-24


@given(st.integers(2, 5000), st.floats(0.01, 0.99))
def test_equation_22_promises_an_infinite_cluster_below_every_threshold(d, part):
    """Between 1/(2d) and 1/(2d - 1) there is none on Z^d, for there is none on the tree that holds its clusters."""
    p = 1 / (2 * d) + part * (1 / (2 * d - 1) - 1 / (2 * d))
    assert meanfield.poisson(2 * d * p).connected > 0
    assert meanfield.bethe(p, 2 * d).connected == 0


@pytest.mark.parametrize("d, p", [(3, 0.34), (3, 0.5), (6, 0.17), (10, 0.11), (20, 0.051), (20, 0.1)])
def test_half_of_the_neighbours_make_equation_22_a_lower_bound_from_three_dimensions_on(d, p):
    """Clusters of 50,000 sites count as infinite; 600 grown, four standard errors of at most 0.02."""
    grown = growth.grow(p, d, n_samples=600, max_sites=50_000, rng=np.random.default_rng(d), n_workers=1)
    assert (grown.sizes >= 50_000).mean() - 4 * 0.5 / math.sqrt(600) > float(meanfield.poisson(d * p).connected)


def test_q_is_the_isolated_site_between_two_proven_bounds():
    """The bounds of the entry on Eq. 3 at p = 0.8, planes of k = 2, in which p > p_c; t is at least 0.9 (counted)."""
    p, k = 0.8, 2
    grown = growth.grow(p, k, n_samples=500, max_sites=20_000, rng=np.random.default_rng(0), n_workers=1)
    assert growth.infinite_probability(grown, z=5).low > 0.9
    rest = 1 - 0.9
    most = 1 + math.floor(2 * k * math.log(1 - p) / math.log(rest))
    ratios = []
    for d in (20, 60, 120, 160):
        isolated = float(meanfield.isolated(p, 2 * d))
        blocks = (d - most) // k
        few = sum((2 * d * p / (1 - p)) ** n * rest ** (n * blocks) for n in range(1, most))
        upper = isolated * (1 + few) + rest ** (most * blocks)
        found = rare.finite_probability(p, d, n_samples=500, max_sites=500, rng=np.random.default_rng(d)).value
        assert isolated * (1 - 1e-12) <= found <= upper
        ratios.append(upper / isolated)
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] < 1 + 1e-6


def test_loops_matter_less_in_every_higher_dimension():
    p, above, poisson = 0.25, [], []
    for d in (8, 12, 16, 24):
        found = rare.finite_probability(p, d, n_samples=20_000, max_sites=2000, rng=np.random.default_rng(d))
        above.append(found.value / float(meanfield.bethe(p, 2 * d).disconnected) - 1)
        poisson.append(float(meanfield.poisson(2 * d * p).disconnected) / found.value)
        assert above[-1] > -4 * found.standard_error / found.value
    assert above == sorted(above, reverse=True)
    assert above[-1] < 1e-3
    assert poisson == sorted(poisson)
    assert poisson[-1] > 5


@given(st.floats(2, 300))
def test_the_corrected_expansion_has_the_error_it_states_and_the_printed_one_has_not(q):
    lost, small = float(meanfield.poisson(q).disconnected), math.exp(-q)
    assert abs((1 - q * small) * lost - small) <= small * (q * lost) ** 2 + 1e-15 * small
    assert abs(lost - small / (1 - q * small)) <= 2 * q**2 * small**3 / (1 - q * small) + 1e-15 * small
    assert (1 + q * math.exp(q)) * lost - small > q / 2  # printed: of the order of q^2 Q^2
    assert lost - float(meanfield.printed_expansion(q)) > 0.5 * small


@given(st.floats(1.5, 100))
def test_the_series_of_lagrange_sums_to_the_root(q):
    terms = [math.exp((n - 1) * math.log(n * q) - special.gammaln(n + 1) - n * q) for n in range(1, 400)]
    assert sum(terms) == pytest.approx(float(meanfield.poisson(q).disconnected), rel=1e-9)


@given(st.floats(0, 700))
def test_q_lies_between_the_exponential_and_e_times_it(q):
    lost = float(meanfield.poisson(q).disconnected)
    assert math.exp(-q) * (1 - 1e-14) <= lost <= math.exp(1 - q) * (1 + 1e-14) or q < 1
    assert lost <= math.exp(1 - q) * (1 + 1e-14)
