"""The cells of cubes are those of the network's values, cube by cube, and what the Lipschitz bound says of them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from empirical import network_lattice
from empirical.network_lattice import LatticeNetwork
from lipschitz.fully_connected import POINTWISE
from percolation import labels


class Ramp(nn.Module):
    """(x_1 + 1) / 2: from 0 to 1 across the box [-1, 1]^d."""

    def forward(self, x):
        return (x[:, :1] + 1) / 2


def test_centres_by_hand():
    found = network_lattice.centres(np.array([[0, 3], [1, 2]]), n_cells=4, radius=2.0)
    assert found.tolist() == [[-1.5, 1.5], [-0.5, 0.5]]
    assert network_lattice.axis_centres(1, radius=7.0).tolist() == [0.0]


@given(n_cells=st.integers(1, 60), radius=st.floats(1e-3, 1e3))
def test_centres_are_symmetric_and_equally_spaced(n_cells, radius):
    along = network_lattice.axis_centres(n_cells, radius=radius)
    assert along.tolist() == (-along[::-1]).tolist()
    np.testing.assert_allclose(np.diff(along), 2 * radius / n_cells)
    assert along[-1] + radius / n_cells == pytest.approx(radius)


@pytest.mark.parametrize("bias_std", [2.5, 4.0])
def test_length_of_a_sine_of_random_phase_is_exact(bias_std):
    """Phases of so wide a bias are uniform: K = (gain^2 / 2) exp(-t^2 / 2) + bias^2, so Var f / E (df/dt)^2."""
    law = LatticeNetwork(activation="sin", depth=2, bias_std=bias_std)
    half = (POINTWISE["sin"].unit_gain or 0) ** 2 / 2
    assert network_lattice.correlation_length(law) == pytest.approx(math.sqrt(1 + bias_std**2 / half), rel=2e-3)


def test_half_side_is_fixed_or_grows_as_the_root_of_the_dimension():
    fixed, growing = (LatticeNetwork(radius=2.0, box=box) for box in ("fixed", "growing"))
    length = network_lattice.correlation_length(fixed)
    assert network_lattice.half_side(fixed, 9) == pytest.approx(2 * length)
    assert network_lattice.half_side(growing, 9) == pytest.approx(6 * length)


@pytest.mark.parametrize("activation", ["tanh", "relu", "erf", "sin"])
def test_outputs_at_the_typical_point_are_standard_before_the_last_map(activation):
    law = LatticeNetwork(activation=activation, width=32, box="growing")
    point = torch.full((1, 3), network_lattice.half_side(law, 3) / math.sqrt(3), dtype=torch.float64)
    with torch.no_grad():
        values = [float(network_lattice.build(law, 3, seed)[:-1](point)) for seed in range(400)]
    # The variance of 400 numbers, nearly Gaussian, has a relative error of 0.07; five of them: false alarm below 1e-5
    # each, and a wrong scale (2, or the 1.1 to 2 of output_std squared) lies beyond for relu and tanh.
    assert np.mean(np.square(values)) == pytest.approx(1, abs=0.35)
    assert network_lattice.output_std(law, 3) > 1.05


def test_the_seed_makes_the_network():
    law = LatticeNetwork(width=4)
    first, again, other = (network_lattice.build(law, 2, seed) for seed in (1, 1, 2))
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)
    assert first[0].weight.dtype == torch.float64


def test_cells_on_a_line_by_hand():
    found = network_lattice.label_box(Ramp(), 1, n_cells=8, radius=1.0, delta=0.5)
    assert found.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]


@settings(max_examples=40, deadline=None)
@given(
    dimension=st.integers(1, 4),
    n_cells=st.integers(1, 6),
    batch=st.integers(1, 200),
    n_outputs=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_cells_are_those_of_the_values_cube_by_cube(dimension, n_cells, batch, n_outputs, seed):
    network = network_lattice.build(LatticeNetwork(width=5), dimension, seed, n_outputs=n_outputs)
    found = network_lattice.label_box(network, dimension, n_cells=n_cells, radius=2.0, delta=0.125, batch=batch)
    assert found.shape == (n_outputs, *[n_cells] * dimension)
    assert network[0].weight.dtype == torch.float64
    indices = np.argwhere(np.ones(found.shape[1:]))
    points = torch.from_numpy(network_lattice.centres(indices, n_cells=n_cells, radius=2.0))
    with torch.no_grad():
        values = network(points).numpy()
    # in float32 a value may fall on the other side of a cell's end
    is_clear = np.abs(values * 16 - np.round(values * 16)) > 1e-4
    expected = labels.cells(values, 0.125)
    np.testing.assert_array_equal(found.reshape(n_outputs, -1).T[is_clear], expected[is_clear])


@settings(max_examples=30, deadline=None)
@given(dimension=st.integers(1, 4), side=st.floats(0.01, 3), seed=st.integers(0, 99))
def test_no_value_in_a_cube_is_beyond_the_reach(dimension, side, seed):
    network = network_lattice.build(LatticeNetwork(width=6, activation="sin"), dimension, seed)
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(20, 1, dimension))
    corners = centre + side / 2 * rng.choice([-1, 1], size=(20, 30, dimension))
    with torch.no_grad():
        at_centre, at_corners = (network(torch.from_numpy(points)).numpy() for points in (centre, corners))
    assert np.abs(at_corners - at_centre).max() <= network_lattice.upper_reach(network, dimension, side=side)


def test_reach_takes_the_better_norm():
    """Of x_1 + x_2 the two norms agree, of x_1 alone the maximum norm is better by sqrt(2), on d = 2."""
    for weight, expected in (([[1.0, 1.0]], 1.0), ([[1.0, 0.0]], 0.5)):
        linear = nn.Linear(2, 1, dtype=torch.float64)
        linear.weight.data.copy_(torch.tensor(weight))
        found = network_lattice.upper_reach(nn.Sequential(linear), 2, side=1.0)
        assert expected <= found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("reach, expected", [(0.0, 1.0), (0.12, 1.0), (0.2, 0.5), (0.3, 0.5), (0.4, 0.0)])
def test_share_of_certain_cubes_by_hand(reach, expected):
    """Centres 1/8, 3/8, 5/8, 7/8; delta = 1/2: the inner two lie 1/8 from an interval's end, the outer two 3/8."""
    found = network_lattice.certain_share(
        Ramp(), 3, reach=reach, n_cells=4, radius=1.0, delta=0.5, rng=np.random.default_rng(0)
    )
    # five standard errors of 10,000 draws: false alarm below 1e-6
    assert found == pytest.approx(expected, abs=0.025 if expected == 0.5 else 0)


def _box(**changes):
    return network_lattice.label_box(Ramp(), **({"dimension": 1, "n_cells": 2, "radius": 1.0, "delta": 0.5} | changes))


def _share(**changes):
    given = {"dimension": 1, "reach": 0.1, "n_cells": 2, "radius": 1.0, "delta": 0.5, "rng": np.random.default_rng(0)}
    return network_lattice.certain_share(Ramp().double(), **(given | changes))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: network_lattice.build(LatticeNetwork(), 0, 0),
            "dimension must be a whole number of at least 1, got 0",
        ),
        (lambda: network_lattice.axis_centres(0, radius=1.0), "n_cells must be a whole number of at least 1, got 0"),
        (lambda: network_lattice.axis_centres(2, radius=0.0), "radius must be positive and finite, got 0.0"),
        (lambda: network_lattice.axis_centres(2, radius=math.inf), "radius must be positive and finite, got inf"),
        (
            lambda: network_lattice.centres(np.array([[0, 3]]), n_cells=3, radius=1.0),
            "indices must be whole numbers from 0 to 2, got 3",
        ),
        (
            lambda: network_lattice.centres(np.array([[-1, 1]]), n_cells=3, radius=1.0),
            "indices must be whole numbers from 0 to 2, got -1",
        ),
        (lambda: network_lattice.label(np.array([0.5]), 1 / 64), "delta must be at least 0.01587, got 0.015625"),
        (lambda: network_lattice.label(np.array([0.5]), 0.3), "delta must be 1/n for a whole number n, got 0.3"),
        (lambda: network_lattice.label(np.array([1.5]), 0.5), r"values must lie in \[0, 1\], got 1.5"),
        (lambda: _box(dimension=0), "dimension must be a whole number of at least 1, got 0"),
        (lambda: _box(batch=0), "batch must be a whole number of at least 1, got 0"),
        (lambda: _box(dimension=10**9), r"n_cells and dimension must fit .*, got \(2, 1000000000\), which takes"),
        (lambda: _box(n_cells=1, dimension=64), "axes must be 1 to 63, got 64"),
        (lambda: network_lattice.label_grid(Ramp(), [np.zeros(0)], delta=0.5), r"axes must have one .*, got \[0\]"),
        (
            lambda: network_lattice.label_grid(Ramp(), [np.zeros(10**7)] * 3, delta=0.5),
            r"axes must fit .*, got \[10000000, 10000000, 10000000\], which takes",
        ),
        (
            lambda: network_lattice.label_box(nn.Linear(3, 1), 2, n_cells=2, radius=1.0, delta=0.5),
            r"network must take points \(1, 2\) of torch.float32 on cpu, got an error: .*shapes cannot be multiplied",
        ),
        (lambda: network_lattice.axis_centres(10**15, radius=1.0), "n_cells must fit .*, got 1000000000000000, which"),
        (lambda: network_lattice.build(LatticeNetwork(), 10**9, 0), r"dimension, width and outputs must fit"),
        (lambda: network_lattice.build(LatticeNetwork(), 2, -1), "seed must be a whole number of at least 0, got -1"),
        (lambda: network_lattice.build(LatticeNetwork(), 2, 0, n_outputs=0), "n_outputs must be a whole .*, got 0"),
        (
            lambda: network_lattice.half_side(LatticeNetwork(), 0),
            "dimension must be a whole number of at least 1, got 0",
        ),
        (lambda: network_lattice.upper_reach(Ramp(), 1, side=math.nan), "side must be at least 0 and finite, got nan"),
        (lambda: _share(reach=-1.0), "reach must be at least 0 and finite, got -1.0"),
        (lambda: _share(dimension=10**12), "dimension must fit .*, got 1000000000000, which takes"),
        (lambda: _box(radius=4.0), r"values must lie in \[0, 1\], got -0.5"),
    ],
)
def test_what_is_out_of_range_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: _box(n_cells=2.0), "n_cells must be a whole number of at least 1, got 2.0"),
        (lambda: network_lattice.half_side(3, 2), "settings must be empirical's LatticeNetwork, got 3"),
        (lambda: _share(rng=0), "rng must be a numpy.random.Generator, got 0"),
        (lambda: network_lattice.build("law", 2, 0), "settings must be empirical's LatticeNetwork, got law"),
        (lambda: network_lattice.centres(np.array([[0.5]]), n_cells=3, radius=1.0), "indices must be integers, got"),
        (lambda: network_lattice.label_grid(nn.Flatten(0), [np.zeros(3)], delta=0.5), "network must make values"),
        (lambda: network_lattice.label_grid(3, [np.zeros(3)], delta=0.5), "network must be torch's Module, got 3"),
        (
            lambda: network_lattice.label(np.ma.array([0.5, 0.1], mask=[0, 1]), 0.5),
            "values must have no masked entries",
        ),
    ],
)
def test_another_kind_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_most_cells_fit_an_int8():
    assert network_lattice.label(np.array([0.0, 1.0]), 1 / 63).tolist() == [0, 125]
