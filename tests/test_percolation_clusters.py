"""Clusters of labelled lattices against networkx, and facts that hold for every lattice."""

import numpy as np
import oracles
import pytest
import strategies
from hypothesis import given

from percolation import clusters


def as_sets(numbers):
    return {frozenset(map(tuple, np.argwhere(numbers == k))) for k in range(numbers.max(initial=-1) + 1)}


def test_the_oracle_itself_on_a_lattice_drawn_by_hand():
    labels = np.array([[0, 0, -1], [1, -1, 2], [0, 0, 2]])
    found = oracles.components_by_graph(labels, (False, False), 0)
    expected = [{(0, 0), (0, 1)}, {(1, 0)}, {(1, 2), (2, 2)}, {(2, 0), (2, 1)}]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    assert len(oracles.components_by_graph(labels, (True, False), 0)) == 3  # the zeros meet across the faces


@given(strategies.labelled_lattices())
def test_clusters_match_the_graph_components(lattice):
    found = clusters.label_clusters(lattice.labels, periodic=lattice.periodic, reach=lattice.reach)
    expected = set(oracles.components_by_graph(lattice.labels, lattice.periodic, lattice.reach))
    assert as_sets(found.numbers) == expected
    assert (found.numbers < 0).sum() == (lattice.labels < 0).sum()
    assert found.sizes.tolist() == [int((found.numbers == k).sum()) for k in range(found.sizes.size)]
    assert found.sizes.sum() == (lattice.labels >= 0).sum()
    for k in range(found.sizes.size):
        sites = np.argwhere(found.numbers == k)
        assert found.labels[k] == lattice.labels[tuple(sites[0])]
        touches = [(0 in sites[:, a]) and (n - 1 in sites[:, a]) for a, n in enumerate(lattice.labels.shape)]
        assert found.spans[k].tolist() == touches


@given(strategies.labelled_lattices())
def test_transposing_the_lattice_changes_no_cluster(lattice):
    found = clusters.label_clusters(lattice.labels, periodic=lattice.periodic, reach=lattice.reach)
    turned = clusters.label_clusters(lattice.labels.T, periodic=lattice.periodic[::-1], reach=lattice.reach)
    assert sorted(found.sizes) == sorted(turned.sizes)


@given(strategies.labelled_lattices())
def test_labels_are_not_changed(lattice):
    before = lattice.labels.copy()
    clusters.label_clusters(lattice.labels, periodic=lattice.periodic, reach=lattice.reach)
    np.testing.assert_array_equal(before, lattice.labels)


def test_numbers_follow_the_order_of_first_sites():
    found = clusters.label_clusters(np.random.default_rng(0).integers(-1, 3, (20, 20)))
    firsts = [np.flatnonzero(found.numbers.ravel() == k)[0] for k in range(found.sizes.size)]
    assert firsts == sorted(firsts)
    assert found.sizes[found.largest] == found.sizes.max()


def test_an_empty_lattice_has_no_cluster():
    found = clusters.label_clusters(np.full((3, 3), -1))
    assert found.sizes.size == 0
    assert found.largest == -1


def test_two_dimensional_crossing_at_threshold_is_near_one_half():
    # Spanning probability of an open square at p_c is exactly 1/2 in the limit (Cardy, by duality for the matching
    # pair: site percolation at finite L differs by about 0.01). 400 lattices: standard error 0.025; band of 5: 6e-7.
    rng = np.random.default_rng(1)
    crossed = [
        clusters.label_clusters(np.where(rng.random((96, 96)) < 0.59274605, 0, -1)).spans[:, 0].any()
        for _ in range(400)
    ]
    assert abs(np.mean(crossed) - 0.5) < 0.14


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"labels": [0.5]}, TypeError, "labels must be integers"),
        ({"labels": [True]}, TypeError, "labels must be integers"),
        ({"labels": np.empty((0, 3), dtype=int)}, ValueError, "labels must have at least one site"),
        ({"labels": 3}, ValueError, "labels must have at least one site"),
        ({"labels": [1], "periodic": (True, False)}, ValueError, "periodic must be one bool or 1, got 2"),
        ({"labels": [1], "reach": -1}, ValueError, "reach must be at least 0, got -1"),
    ],
)
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        clusters.label_clusters(**arguments)
