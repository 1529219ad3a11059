"""Connection of boxes of cells, pair by pair on explicit graphs, and the models that a network is put beside."""

import math

import networkx as nx
import numpy as np
import pytest
import scipy.stats
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from empirical import lattice_models, network_lattice
from empirical.network_lattice import LatticeNetwork
from percolation import meanfield

FIELDS = ("shares", "connected", "largest", "n_clusters")


def by_pairs(cells: np.ndarray, n_cells: int) -> dict[str, float]:
    """P(connected), counted over all ordered pairs of cubes on one explicit graph for each label."""
    cubes = list(np.ndindex(cells.shape))
    in_label, triples, together = 0, 0, set()
    for k in range(n_cells - 1):
        carrying = [cube for cube in cubes if cells[cube] in (k, k + 1)]
        graph = nx.grid_graph(cells.shape[::-1] if cells.ndim > 1 else cells.shape)
        if cells.ndim == 1:
            graph = nx.relabel_nodes(graph, {i: (i,) for i in range(cells.size)})
        for part in nx.connected_components(graph.subgraph(carrying)):
            in_label += len(part) ** 2
            together |= {(a, b) for a in part for b in part}
        triples += len(carrying) ** 2
    sharing = sum(abs(int(cells[a]) - int(cells[b])) <= 1 for a in cubes for b in cubes)
    return {"in_label": in_label / triples, "in_any": len(together) / sharing}


@settings(max_examples=60)
@given(cells=strategies.cells_of_cubes(max_cubes=60))
def test_connection_is_what_counting_pairs_gives(cells):
    found = lattice_models.connect_cubes(cells.astype(np.int8), 4)
    expected = by_pairs(cells, 4)
    assert found.in_label == pytest.approx(expected["in_label"], rel=1e-12)
    assert found.in_any == pytest.approx(expected["in_any"], rel=1e-12)


@settings(max_examples=60)
@given(cells=strategies.cells_of_cubes(), axis=st.integers(0, 2))
def test_mirrors_of_values_and_of_space_change_nothing(cells, axis):
    cells = cells.astype(np.int8)
    found = lattice_models.connect_cubes(cells, 4)
    for other, step in ((3 - cells, -1), (np.flip(cells, axis % cells.ndim), 1), (cells.T, 1)):
        mirrored = lattice_models.connect_cubes(other, 4)
        assert (mirrored.in_label, mirrored.in_any) == pytest.approx((found.in_label, found.in_any), rel=1e-12)
        for name in FIELDS:
            np.testing.assert_allclose(getattr(mirrored, name)[::step], getattr(found, name))


def test_connection_on_a_line_by_hand():
    """Cells 0 1 3 1: label 0 has cubes 01 and 3, label 1 cubes 1 and 3, label 2 cube 2."""
    found = lattice_models.connect_cubes(np.array([0, 1, 3, 1], dtype=np.int8), 4)
    assert found.shares.tolist() == [0.75, 0.5, 0.25]
    assert found.connected.tolist() == pytest.approx([5 / 9, 1 / 2, 1])
    assert found.largest.tolist() == pytest.approx([2 / 3, 1 / 2, 1])
    assert found.n_clusters.tolist() == [2, 2, 1]
    assert found.in_label == pytest.approx((5 + 2 + 1) / (9 + 4 + 1))
    # Pairs that share a label: 3 x 3 of cells 0 and 1, and the cube of cell 3 with itself. Not connected: cube 3 with
    # 0 and 1, both ways.
    assert found.in_any == pytest.approx((10 - 4) / 10)


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_a_linear_function_is_connected_always(dimension):
    """Its sets {a <= f < b} are convex; cubes follow them when the weights are positive and the sets wide enough."""
    linear = nn.Linear(dimension, 1, dtype=torch.float64)
    linear.weight.data.fill_(0.5 / dimension)
    linear.bias.data.fill_(0.5)
    cells = network_lattice.label_box(linear, dimension, n_cells=8, radius=1.0, delta=0.25)[0]
    found = lattice_models.connect_cubes(cells, 8)
    assert (found.in_label, found.in_any) == (1.0, 1.0)
    assert found.n_clusters.tolist() == [1] * 7


class FastSine(nn.Module):
    """From end to end of [0, 1] and back between neighbouring cubes, (1 + sin(w x)) / 2 with a large w."""

    def forward(self, x):
        return (1 + torch.sin(8 * math.pi * x)) / 2


def test_a_fast_sine_on_a_line_is_a_checkerboard():
    cells = network_lattice.label_box(FastSine(), 1, n_cells=16, radius=1.0, delta=0.25)[0]
    assert sorted(np.unique(cells).tolist()) == [0, 7]
    found = lattice_models.connect_cubes(cells, 8)
    assert found.in_label == pytest.approx(1 / 8)
    assert found.n_clusters.tolist() == [8, 0, 0, 0, 0, 0, 8]
    assert np.isnan(found.connected).tolist() == [False, True, True, True, True, True, False]


def test_independent_cells_have_the_given_frequencies():
    counts = np.array([5, 0, 2, 1])
    found = lattice_models.independent((40, 50, 50), counts, np.random.default_rng(0))
    observed = np.bincount(found.ravel(), minlength=4)
    assert observed[1] == 0
    expected = counts / counts.sum() * found.size
    # false alarm 1e-6
    assert scipy.stats.chisquare(observed[[0, 2, 3]], expected[[0, 2, 3]]).pvalue > 1e-6
    # neighbours agree as often as chance has it: five standard errors, false alarm below 1e-6
    agree = (found[..., 1:] == found[..., :-1]).mean()
    chance = ((counts / counts.sum()) ** 2).sum()
    assert agree == pytest.approx(chance, abs=5 * math.sqrt(0.25 / found.size) * 2)


def test_shuffled_cells_are_the_same_cells_elsewhere():
    cells = (np.arange(1000) // 125).astype(np.int8).reshape(10, 10, 10)
    before = cells.copy()
    found = lattice_models.shuffled(cells, np.random.default_rng(0))
    np.testing.assert_array_equal(cells, before)
    np.testing.assert_array_equal(np.sort(found, axis=None), np.sort(cells, axis=None))
    # of 1000 cells an eighth stays in place by chance, 125 with a standard deviation of 10: false alarm below 1e-9
    assert np.count_nonzero(found == cells) < 200


def test_mean_field_is_the_square_of_the_infinite_cluster():
    shares = np.array([0.3, 0.5])
    survival = meanfield.bethe(shares, 2 * 3 * 0.75).connected
    expected = ((shares * survival) ** 2).sum() / (shares**2).sum()
    assert lattice_models.mean_field(shares, 3, 4) == pytest.approx(expected)
    assert lattice_models.mean_field(np.array([0.2, 0.9]), 1, 50) == 0.0
    assert lattice_models.mean_field(np.ones(3), 2, 2) == 1.0


@pytest.mark.parametrize("activation", ["tanh", "relu", "erf", "sin"])
def test_hidden_layers_of_a_wide_network_carry_the_wide_covariance(activation):
    """The error falls as the root of the width: 1/16 of it for 256 times the width, to a factor of 2."""
    found = []
    for width in (8, 2048):
        law = LatticeNetwork(activation=activation, depth=2, width=width)
        networks = [network_lattice.build(law, 3, seed) for seed in range(4)]
        rng = np.random.default_rng(0)
        found.append(np.mean([lattice_models.covariance_error(network, law, 3, rng) for network in networks]))
    assert found[1] < 0.06
    assert 8 < found[0] / found[1] < 32


@pytest.mark.parametrize(
    "cells, n_cells, message",
    [
        ([0, 1], 1, "n_cells must be a whole number from 2 to 2147483648, got 1"),
        ([0, 4], 4, "cells must be one or more in 0 to 3, got 0 to 4"),
        ([-1, 2], 4, "cells must be one or more in 0 to 3, got -1 to 2"),
        ([], 4, "cells must be one or more in 0 to 3, got none to none"),
    ],
)
def test_what_is_out_of_range_is_refused(cells, n_cells, message):
    with pytest.raises(ValueError, match=message):
        lattice_models.connect_cubes(np.array(cells, dtype=np.int8), n_cells)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda rng: lattice_models.connect_cubes([0, 2**62], 4), ValueError, f"cells must be one .* got 0 to {2**62}"),
        (lambda rng: lattice_models.connect_cubes([0.0, 1.0], 4), TypeError, "cells must be integers, got float64"),
        (
            lambda rng: lattice_models.independent((2, 2), [0, 0], rng),
            ValueError,
            "counts must be up to 128 .* of sum 0",
        ),
        (
            lambda rng: lattice_models.independent((2,), [1] * 129, rng),
            ValueError,
            "counts must be up to 128 .* got 129",
        ),
        (lambda rng: lattice_models.independent((2,), [2, -1], rng), ValueError, "counts must be whole numbers from 0"),
        (lambda rng: lattice_models.independent((0, 2), [1], rng), ValueError, "shape must have at least one axis"),
        (lambda rng: lattice_models.independent((10**9,) * 2, [1], rng), ValueError, "shape must fit .*, which takes"),
        (lambda rng: lattice_models.shuffled(np.zeros(3), 0), TypeError, "rng must be a numpy.random.Generator, got 0"),
        (
            lambda rng: lattice_models.covariance_error(3, LatticeNetwork(), 2, rng),
            TypeError,
            "network must be torch's Seq",
        ),
        (
            lambda rng: lattice_models.mean_field([0.0], 2, 2),
            ValueError,
            r"shares must be one a label, some .* \[0.0\]",
        ),
        (
            lambda rng: lattice_models.covariance_error(nn.Sequential(), LatticeNetwork(), 2**40, rng),
            ValueError,
            "dimension must fit .*, got 1099511627776, which takes",
        ),
        (lambda rng: lattice_models.mean_field([1.5], 2, 2), ValueError, r"shares must lie in \[0, 1\], got 1.5"),
        (
            lambda rng: lattice_models.mean_field([0.5], 2, 0),
            ValueError,
            "n_cells must be a whole number of at least 1",
        ),
    ],
)
def test_what_would_end_in_garbage_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(np.random.default_rng(0))
