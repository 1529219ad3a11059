"""The product bound after rescaling the channels, and the network of absolute values."""

import math
import warnings

import numpy as np
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lipschitz_upper import NORMS, linear, slopes
from torch import nn

from lipschitz import reading
from lipschitz.absolute import upper_absolute
from lipschitz.rescaling import scale_numbers, upper_rescaled
from lipschitz.upper import upper_product


def relu_network(*matrices):
    layers = [layer for matrix in matrices for layer in (linear(matrix), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def test_uneven_channels_are_balanced():
    # ||W_2 D^-1|| ||D W_1|| with D = diag(1/8, 8) is the norm of |W_2| |W_1|.
    model = relu_network([[8.0], [1 / 8]], [[1 / 8, 8.0]])
    assert upper_product(model, (1,)).value > 64
    bound = upper_rescaled(model, (1,))
    assert 2 <= bound.value <= 2 * (1 + 1e-6)
    assert (bound.method, bound.is_certified) == ("rescaled product", True)
    assert [name for name, _ in bound.factors] == ["0", "1", "2"]


def test_positive_networks_reach_the_norm_of_the_product():
    rng = np.random.default_rng(0)
    matrices = [rng.random(shape) for shape in ((6, 4), (7, 6), (2, 7))]
    truth = np.linalg.norm(matrices[2] @ matrices[1] @ matrices[0], 2)
    assert truth <= upper_rescaled(relu_network(*matrices), (4,)).value <= truth * (1 + 1e-3)


def test_channels_are_balanced_through_convolution_norm_pooling_and_flatten():
    first, last = nn.Conv2d(1, 2, 1, bias=False), nn.Linear(2 * 4, 1, bias=False)
    first.weight.data = torch.tensor([8.0, 1 / 8]).reshape(2, 1, 1, 1)
    last.weight.data = torch.cat([torch.full((4,), 1 / 8), torch.full((4,), 8.0)]).reshape(1, 8)
    between = [nn.BatchNorm2d(2, eps=0.0), nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.AvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(first, *between, last).eval()
    # Two channels of four numbers each: the norm of (1, ..., 1) of length 8 times that of (1, 1).
    assert upper_product(model, (1, 4, 4)).value > 8 * 8 * 2
    assert 4 <= upper_rescaled(model, (1, 4, 4)).value <= 4 * (1 + 2e-3)


def test_sums_tie_scales_and_concatenations_keep_them_apart():
    block = nn.Sequential(linear(np.ones((2, 2))), nn.ReLU(), linear(np.ones((2, 2))))
    model = nn.Sequential(linear(np.ones((2, 3))), strategies.Residual(block), linear(np.ones((1, 2))))
    numbers = [ids.tolist() for ids in scale_numbers(reading.read(model, (3,)))]
    assert numbers[0] == [0, 0, 0]
    assert numbers[1] == numbers[4] == numbers[5]  # the block's end, added to its start
    assert not set(numbers[1]) & set(numbers[2])
    assert numbers[2] == numbers[3]
    assert len(set(numbers[1] + numbers[2]) - {0}) == 4
    assert numbers[6] == [0]
    branches = strategies.Branches(linear(np.ones((2, 2))), nn.Identity(), factor=2.0)
    numbers = [
        ids.tolist() for ids in scale_numbers(reading.read(nn.Sequential(branches, linear(np.ones((1, 4)))), (2,)))
    ]
    assert numbers[3][2:] == [0, 0]
    assert 0 not in numbers[3][:2]


@given(strategies.graph_networks(), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_rescaling_never_passes_the_product_nor_falls_below_a_slope(network_and_shape, seed):
    network, shape = network_and_shape
    bound = upper_rescaled(network, shape, n_steps=15)
    assert bound.is_certified
    assert float(slopes(network, shape, 2, seed).max()) <= bound.value * (1 + 1e-9) + 1e-9
    assert bound.value <= upper_product(network, shape).value


def test_without_steps_or_hidden_channels_the_product_stands():
    model = relu_network(np.ones((3, 2)), np.ones((1, 3)))
    assert upper_rescaled(model, (2,), n_steps=0).value == upper_product(model, (2,)).value
    assert upper_rescaled(linear(np.ones((3, 2))), (2,)).method == "product"


def test_a_network_of_zeros_is_bounded_by_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert upper_rescaled(relu_network(np.zeros((3, 2)), np.ones((1, 3))), (2,)).value == 0.0


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match=r"^n_steps must be at least 0, got -1$"):
        upper_rescaled(nn.Sequential(), (1,), n_steps=-1)


@pytest.mark.parametrize("norm", NORMS)
def test_the_absolute_network_of_nonnegative_layers_is_the_norm_of_their_product(norm):
    rng = np.random.default_rng(1)
    matrices = [rng.random(shape) for shape in ((6, 4), (7, 6), (2, 7))]
    truth = np.linalg.norm(matrices[2] @ matrices[1] @ matrices[0], norm)
    bound = upper_absolute(relu_network(*matrices), (4,), norm=norm)
    assert truth * (1 - 1e-15) <= bound.value <= truth * (1 + 1e-12)
    assert (bound.norm, bound.method, bound.is_certified) == (norm, "absolute values", True)


@pytest.mark.parametrize("norm, shape", [(1, (-1, 1)), (math.inf, (1, -1))])
def test_sums_that_lose_small_terms_are_rounded_up(norm, shape):
    weights = np.full(10_001, 2.0**-54)
    weights[0] = 1.0
    assert (
        upper_absolute(linear(weights.reshape(shape)), (weights.reshape(shape).shape[1],), norm=norm).value > 1 + 5e-13
    )


@pytest.mark.parametrize("norm, truth", [(1, 9), (math.inf, 1), (2, 3)])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_the_absolute_network_counts_the_windows_of_poolings(norm, truth, ceil_mode):
    bound = upper_absolute(nn.MaxPool2d(3, 1, 1, ceil_mode=ceil_mode), (1, 16, 16), norm=norm)
    assert truth * (1 - 1e-15) <= bound.value <= 9 if norm == 2 else truth * (1 + 1e-12)


@given(strategies.graph_networks(), st.sampled_from(NORMS), st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_the_absolute_network_is_never_below_a_slope_nor_above_the_product(network_and_shape, norm, seed):
    network, shape = network_and_shape
    bound = upper_absolute(network, shape, norm=norm)
    assert float(slopes(network, shape, norm, seed).max()) <= bound.value * (1 + 1e-9) + 1e-9
    if norm != 2:
        assert bound.value <= upper_product(network, shape, norm=norm).value * (1 + 1e-9) + 1e-200
        assert upper_rescaled(network, shape, norm=norm).value == bound.value


def test_numbers_that_are_not_finite_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^layer '.*': matrix must hold finite numbers, got nan$"):
        upper_absolute(linear([[math.nan]]), (1,))


def test_a_bound_beyond_float64_is_infinite():
    assert upper_absolute(relu_network([[1e200]], [[1e200]]), (1,)).value == math.inf
