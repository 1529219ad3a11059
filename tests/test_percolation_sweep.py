"""Newman-Ziff sweeps: every step against a graph built from scratch, every average against full enumeration."""

import itertools

import numpy as np
import oracles
import pytest
import references
import scipy.stats
import strategies
from hypothesis import given, settings

from percolation import sweep


def replay(lattice):
    """The states of one run by the kernel, and by networkx after every step."""
    shape, periodic = np.array(lattice.shape), np.array(lattice.periodic)
    order = np.array(lattice.order, dtype=np.int32)
    largest, second, squares, crossed_at = sweep.microcanonical(order, lattice.by_bond, shape, periodic)
    all_bonds = [(int(bond) // shape.size, int(bond) % shape.size) for bond in sweep.bonds(shape, periodic)]
    for n in range(order.size + 1):
        if lattice.by_bond:
            sites = range(int(shape.prod()))
            bonds = [(int(bond) // shape.size, int(bond) % shape.size) for bond in order[:n]]
        else:
            sites = order[:n].tolist()
            present = set(sites)
            bonds = [(s, a) for s, a in all_bonds if s in present and _up(s, a, lattice.shape) in present]
        sizes = [*sorted(_sizes(sites, bonds, lattice.shape), reverse=True), 0, 0]
        assert largest[n] == sizes[0]
        assert second[n] == sizes[1]
        assert squares[n] == sum(size**2 for size in sizes)
        crossing = oracles.crossing_axes(lattice.shape, lattice.periodic, sites, bonds)
        assert (n >= crossed_at).tolist() == crossing


def _up(site, axis, shape):
    place = list(np.unravel_index(site, shape))
    place[axis] = (place[axis] + 1) % shape[axis]
    return int(np.ravel_multi_index(place, shape))


def _sizes(sites, bonds, shape):
    owner = {site: {site} for site in sites}
    for site, axis in bonds:
        first, second = owner[site], owner[_up(site, axis, shape)]
        if first is not second:
            first |= second
            for member in second:
                owner[member] = first
    return [len(cluster) for cluster in {id(cluster): cluster for cluster in owner.values()}.values()]


def test_the_crossing_oracle_on_lattices_drawn_by_hand():
    # a row of three around a ring wraps; the same row on an open chain joins both faces
    assert oracles.crossing_axes((3,), [True], [0, 1, 2], [(0, 0), (1, 0), (2, 0)]) == [True]
    assert oracles.crossing_axes((3,), [True], [0, 1, 2], [(0, 0), (1, 0)]) == [False]
    assert oracles.crossing_axes((3,), [False], [0, 1, 2], [(0, 0), (1, 0)]) == [True]
    # a diagonal staircase around a 3 x 3 torus wraps both ways at once
    stairs = [0, 1, 4, 5, 8, 6]
    bonds = [(0, 1), (1, 0), (4, 1), (5, 0), (8, 1), (6, 0)]
    assert oracles.crossing_axes((3, 3), [True, True], stairs, bonds) == [True, True]


@given(strategies.occupation_orders())
@settings(max_examples=60)
def test_every_state_matches_the_graph(lattice):
    replay(lattice)


@pytest.mark.parametrize("periodic", [True, False])
def test_canonical_averages_match_the_sum_over_all_configurations(periodic):
    """All 2^9 site configurations of a 3 x 3 lattice; 4000 sweeps, five standard errors: false alarm 1e-5."""
    chances = np.array([0.2, 0.5927, 0.9])
    exact = np.zeros((5, 3))
    all_bonds = sweep.bonds(np.array([3, 3]), np.array([periodic] * 2))
    for occupied in itertools.product([False, True], repeat=9):
        sites = [i for i, here in enumerate(occupied) if here]
        present = set(sites)
        bonds = [(int(b) // 2, int(b) % 2) for b in all_bonds]
        bonds = [(s, a) for s, a in bonds if s in present and _up(s, a, (3, 3)) in present]
        sizes = [*sorted(_sizes(sites, bonds, (3, 3)), reverse=True), 0, 0]
        values = [sizes[0] / 9, sizes[1] / 9, (sum(s**2 for s in sizes) - sizes[0] ** 2) / 9]
        values += oracles.crossing_axes((3, 3), [periodic] * 2, sites, bonds)
        weight = chances ** len(sites) * (1 - chances) ** (9 - len(sites))
        exact += np.outer(values, weight)
    found = sweep.sweep((3, 3), chances, periodic=periodic, n_runs=4000, seeds=np.random.SeedSequence(1), n_workers=1)
    estimates = [found.largest, found.second_largest, found.susceptibility]
    for estimate, truth in zip(estimates, exact, strict=False):
        assert np.all(np.abs(estimate.mean - truth) <= 5 * estimate.standard_error + 1e-12)
    assert np.all(np.abs(found.crossing.mean - exact[3:]) <= 5 * found.crossing.standard_error + 1e-12)


def test_self_dual_bond_percolation_crosses_with_probability_one_half():
    """A crossing of n rows and n + 1 columns of sites and a dual one exclude each other and are equally likely."""
    seeds = np.random.SeedSequence(2)
    found = sweep.sweep((8, 9), [0.5], kind="bond", periodic=False, n_runs=2000, seeds=seeds, n_workers=2)
    mean, error = found.crossing.mean[1, 0], found.crossing.standard_error[1, 0]
    assert abs(mean - 0.5) < 4.5 * error  # false alarm 7e-6
    assert error < 0.012


def test_wrapping_probability_of_the_square_torus_at_threshold():
    value, _, _ = references.TORUS_WRAPPING_2D
    p_c, _, _ = references.SITE_THRESHOLD_2D
    found = sweep.sweep((48, 48), [p_c], n_runs=1500, seeds=np.random.SeedSequence(3), n_workers=2)
    for mean, error in zip(found.crossing.mean[:, 0], found.crossing.standard_error[:, 0], strict=True):
        # finite-size corrections fall as L^-2 (Newman and Ziff); 4.5 standard errors, two tests: false alarm 1e-5
        assert abs(mean - value) < 4.5 * error + 2 / 48**2


def test_number_of_workers_changes_no_bit():
    def run(n_workers):
        return sweep.sweep((10, 10), [0.5, 0.6], n_runs=8, seeds=np.random.SeedSequence(4), n_workers=n_workers)

    one, two = run(1), run(2)
    for name in ("largest", "second_largest", "susceptibility", "crossing"):
        np.testing.assert_array_equal(getattr(one, name).mean, getattr(two, name).mean)


@pytest.mark.parametrize("n, p", [(9, 0.3), (1000, 0.001), (10**6, 0.5927), (50, 0.0), (50, 1.0)])
def test_binomial_weights_are_scipys(n, p):
    first, weights = sweep.binomial(n, p)
    k = np.arange(first, first + weights.size)
    np.testing.assert_allclose(weights, scipy.stats.binom.pmf(k, n, p), rtol=1e-7, atol=1e-300)
    assert weights.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": ()}, "shape must have at least one axis"),
        ({"shape": (0, 3)}, "shape must have at least one axis and one site along each"),
        ({"shape": (2, 5)}, "shape must be at least 3 along a periodic axis"),
        ({"shape": (3,) * 16}, "shape must have at most 15 axes, got 16"),
        ({"shape": (60_000, 60_000)}, "shape must have at most 2.31 - 2 sites, got 3600000000"),
        ({"p": [1.2]}, r"p must lie in \[0, 1\], got 1.2"),
        ({"kind": "edge"}, "kind must be site or bond, got edge"),
        ({"periodic": (True,)}, "periodic must be one bool or 2, got 1"),
        ({"n_runs": 1}, "n_runs must be at least 2, got 1"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"shape": (4, 4), "p": [0.5], "n_runs": 2, "seeds": np.random.SeedSequence(0)}
    with pytest.raises(ValueError, match=message):
        sweep.sweep(**(good | change))
