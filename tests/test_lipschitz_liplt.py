"""LipLT: norms of products of layers."""

import math

import numpy as np
import oracles
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lipschitz_rescaling import relu_network
from test_lipschitz_upper import NORMS, linear, slopes
from torch import nn

from lipschitz import liplt
from lipschitz.fully_connected import Sin
from lipschitz.liplt import upper_liplt
from lipschitz.upper import upper_product


@pytest.mark.parametrize("norm", NORMS)
def test_two_layers_by_hand(norm):
    rng = np.random.default_rng(0)
    first, last = rng.standard_normal((5, 4)), rng.standard_normal((3, 5))

    def size(matrix):
        return np.linalg.norm(matrix, norm)

    truth = size(last @ first) / 2 + size(last) * size(first) / 2
    bound = upper_liplt(relu_network(first, last), (4,), norm=norm)
    assert truth * (1 - 1e-14) <= bound.value <= truth * (1 + 1e-5)
    assert (bound.norm, bound.method, bound.is_certified) == (norm, "liplt", True)


def test_three_layers_by_hand():
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(shape) for shape in ((5, 4), (6, 5), (3, 6)))

    def size(matrix):
        return np.linalg.norm(matrix, 2)

    first = size(a)
    second = size(b @ a) / 2 + size(b) * first / 2
    truth = size(c @ b @ a) / 4 + size(c @ b) * first / 4 + size(c) * second / 2
    assert truth * (1 - 1e-14) <= upper_liplt(relu_network(a, b, c), (4,)).value <= truth * (1 + 1e-5)


def test_a_residual_block_adds_maps_before_it_takes_a_norm():
    # x - relu(x): half of it is x / 2 whose sum with x is x / 2, the other half moves by 1/2. The product bound is 2.
    block = nn.Sequential(linear(np.eye(3)), nn.ReLU(), linear(-np.eye(3)))
    assert upper_product(strategies.Residual(block), (3,)).value >= 2
    assert 1 <= upper_liplt(strategies.Residual(block), (3,)).value <= 1 + 1e-5


def test_linear_networks_have_the_norm_of_their_map():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, 2, 1, dtype=torch.float64),
        nn.BatchNorm2d(3, dtype=torch.float64),
        strategies.Branches(nn.Identity(), nn.Conv2d(3, 1, 1, dtype=torch.float64), factor=-1.5),
        nn.AvgPool2d(2, 1),
        nn.Flatten(),
        nn.Linear(16, 3, dtype=torch.float64),
    ).eval()
    units = torch.eye(50, dtype=torch.float64).reshape(50, 2, 5, 5)
    with torch.no_grad():
        matrix = (model(units) - model(torch.zeros_like(units))).T.numpy()
    for norm in NORMS:
        truth = np.linalg.norm(matrix, norm)
        assert truth * (1 - 1e-12) <= upper_liplt(model, (2, 5, 5), norm=norm).value <= truth * (1 + 1e-5)


def test_the_rounding_of_a_product_is_counted():
    # 1e16 + 1 - 1e16 is 0 or 2 in float64, whichever way it is summed; the truth is 1.
    model = nn.Sequential(linear([[1e16], [1.0], [-1e16]]), linear([[1.0, 1.0, 1.0]]))
    assert 1.0 <= upper_liplt(model, (1,)).value < 100


def test_the_sine_gains_nothing():
    model = nn.Sequential(linear(np.eye(2)), Sin(), linear(np.eye(2)))
    assert upper_liplt(model, (2,)).value == pytest.approx(upper_product(model, (2,)).value, rel=1e-5)


@given(strategies.graph_networks(), st.sampled_from(NORMS), st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_no_sampled_slope_exceeds_it_nor_it_the_product(network_and_shape, norm, seed):
    network, shape = network_and_shape
    bound = upper_liplt(network, shape, norm=norm)
    assert float(slopes(network, shape, norm, seed).max()) <= bound.value * (1 + 1e-9) + 1e-9
    if not any(isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) for layer in network.modules()):
        assert bound.value <= upper_product(network, shape, norm=norm).value * 1.01 + 1e-200


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("norm", NORMS)
def test_it_is_not_below_exact_constants(seed, norm):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(shape) for shape in ((4, 2), (3, 4), (2, 3))]
    exact = oracles.relu_lipschitz_constant(weights, [np.zeros(length) for length in (4, 3, 2)], norm)
    assert exact <= upper_liplt(relu_network(*weights), (2,), norm=norm).value


def test_maps_that_would_not_fit_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(liplt, "_MOST_NUMBERS", 8)
    with pytest.raises(ValueError, match=r"^step 'Linear' must have maps of at most 8 numbers$"):
        upper_liplt(linear(np.ones((3, 2))), (2,))


def test_a_bound_beyond_float64_is_infinite():
    assert upper_liplt(relu_network([[1e200]], [[1e200]]), (1,)).value == math.inf
