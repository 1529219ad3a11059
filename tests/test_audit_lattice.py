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


@pytest.mark.parametrize("n, d", [(2, 3), (3, 4), (5, 3), (4, 5)])
def test_isolation_in_a_box_is_a_product_over_axes(n, d):
    places = np.indices((n,) * d)
    neighbours = ((places > 0).astype(int) + (places < n - 1)).sum(axis=0)
    assert (neighbours == 2 * d).mean() == pytest.approx((1 - 2 / n) ** d)
    p = 0.3
    assert np.mean((1 - p) ** neighbours) == pytest.approx(((1 - p) * (1 - p + 2 * p / n)) ** d)


# Eq. 3


@given(st.integers(2, 8), st.floats(0, 1), st.floats(0, 1), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_a_window_around_any_y_is_left_between_the_two_bounds(n, value, part, d, seed):
    """x0 is left around every y more often than (1 - 4 delta)^(2d) and more rarely than around one y alone."""
    delta = 1 / n
    other = value + (2 * part - 1) * delta
    assume(0 <= other <= 1)
    low, high = min(value, other), max(value, other)
    window = np.clip(high - 2 * delta, 0, 1 - 2 * delta)  # its y is delta above
    assert window <= low + 1e-15
    assert high <= window + 2 * delta + 1e-15
    neighbours = np.random.default_rng(seed).random((500, 2 * d))
    is_in_window = (window <= neighbours) & (neighbours <= window + 2 * delta)
    # some y within delta of x0, x1 and the neighbour: the three span 2 delta at most
    is_in_any = np.maximum(neighbours, high) - np.minimum(neighbours, low) <= 2 * delta
    assert np.all(is_in_any | ~is_in_window)
    assert np.all(np.abs(neighbours[is_in_any] - value) <= 2 * delta)


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
