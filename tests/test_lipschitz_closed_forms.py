"""Closed-form multipliers: the numbers of ECLipsE-Fast, and bounds that are proved."""

import math

import numpy as np
import oracles
import pytest
import references
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lipschitz_sdp import eclipse_network, gaussian, product, stack
from test_lipschitz_upper import linear, slopes
from torch import nn

from lipschitz import closed_forms
from lipschitz.closed_forms import upper_closed_form, upper_eclipse_fast
from lipschitz.fully_connected import GaussianCdf, Sin
from lipschitz.sdp import upper_lipsdp
from lipschitz.upper import upper_product

ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid, GaussianCdf, Sin, lambda: nn.LeakyReLU(0.3), lambda: nn.LeakyReLU(-0.5))


def fast(weights):
    """ECLipsE-Fast as its authors write it: X_i = l I - l^2 m^2 W X^-1 W^T, l = 1 / (2 m^2 lambda_max), m = 1/2."""
    x = np.eye(weights[0].shape[1])
    for weight in weights[:-1]:
        gram = weight @ np.linalg.solve(x, weight.T)
        rate = 2 / np.linalg.eigvalsh(gram)[-1]
        x = rate * np.eye(len(gram)) - rate**2 / 4 * gram
    return math.sqrt(np.linalg.eigvalsh(weights[-1] @ np.linalg.solve(x, weights[-1].T))[-1])


@pytest.mark.parametrize("layers, ratio", list(zip(*references.ECLIPSE_FAST_OVER_PRODUCT[:2], strict=True)))
def test_fast_has_the_published_ratios(layers, ratio):
    weights = eclipse_network(layers)
    bound = upper_eclipse_fast(stack(weights), (4,))
    assert f"{bound.value / product(weights):.5f}" == f"{ratio:.5f}"
    assert (bound.method, bound.norm, bound.is_certified) == ("eclipse fast", 2, True)
    logarithm, _ = closed_forms._recur(
        weights, [(np.zeros(1), np.ones(1))] * (layers - 1), closed_forms._SHAPES["eclipse fast"]
    )
    assert math.exp(logarithm / 2) == pytest.approx(fast(weights), rel=1e-12)
    assert fast(weights) * (1 - 1e-12) <= bound.value <= fast(weights) * (1 + 1e-7)


@pytest.mark.parametrize("layers", [2, 5, 20])
def test_the_best_closed_form_lies_between_the_exact_constant_and_fast(layers):
    weights = eclipse_network(layers)
    exact = np.linalg.norm(np.linalg.multi_dot(weights[::-1]), 2)  # all weights are positive
    bound = upper_closed_form(stack(weights), (4,))
    assert exact < bound.value < 0.99 * fast(weights)
    assert bound.method.startswith("closed form")


@pytest.mark.parametrize("seed", range(4))
def test_closed_forms_lie_between_exact_constant_lipsdp_and_product(seed):
    weights = gaussian((3, 5, 4, 2), seed)
    exact = oracles.relu_lipschitz_constant(weights, [np.zeros(len(weight)) for weight in weights], 2)
    model = stack(weights)
    best, eclipse = upper_closed_form(model, (3,)), upper_eclipse_fast(model, (3,))
    assert exact <= best.value * (1 + 1e-12)
    assert upper_lipsdp(model, (3,)).value <= best.value * (1 + 1e-5)
    assert best.value <= eclipse.value * (1 + 1e-8)
    assert eclipse.value <= upper_product(model, (3,)).value * (1 + 1e-8)


@st.composite
def networks(draw):
    sizes = draw(st.lists(st.integers(1, 6), min_size=2, max_size=5))
    weights = gaussian(sizes, draw(st.integers(0, 2**32 - 1)))
    model = stack(weights, draw(st.sampled_from(ACTIVATIONS)))
    if draw(st.booleans()):
        norm = nn.BatchNorm1d(sizes[1], dtype=torch.float64).eval()
        norm.weight.data.copy_(torch.linspace(-1, 2, sizes[1]))  # some neurons flipped, perhaps one dead
        model.insert(1, norm)
    return model, (sizes[0],)


@given(networks(), st.integers(0, 2**32 - 1))
@settings(max_examples=300)
def test_no_sampled_slope_exceeds_a_closed_form_nor_it_the_product(network, seed):
    model, shape = network
    largest = float(slopes(model, shape, 2, seed).max())
    bound = upper_closed_form(model, shape)
    assert largest <= bound.value * (1 + 1e-9) + 1e-11
    assert largest <= upper_eclipse_fast(model, shape).value * (1 + 1e-9) + 1e-11
    plain = upper_product(model, shape).value
    if not any(isinstance(layer, nn.BatchNorm1d) for layer in model):
        assert bound.value <= plain * (1 + 1e-4)


def test_a_steep_network_stays_in_range():
    weights = [1e100 * weight for weight in gaussian((3, 4, 4, 2), 0)]
    ordinary = upper_closed_form(stack(gaussian((3, 4, 4, 2), 0)), (3,)).value
    assert upper_closed_form(stack(weights), (3,)).value == pytest.approx(1e300 * ordinary, rel=1e-6)


def test_a_constant_network_has_the_bound_zero():
    model = nn.Sequential(linear(np.zeros((2, 2))), nn.ReLU(), linear(np.ones((1, 2))))
    assert upper_closed_form(model, (2,)).value == upper_eclipse_fast(model, (2,)).value == 0.0


def test_other_layers_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^step '0' must be Linear or pointwise for LipSDP, got convolution$"):
        upper_eclipse_fast(nn.Sequential(nn.Conv1d(1, 1, 1), nn.Flatten(), nn.Linear(4, 1)), (1, 4))
