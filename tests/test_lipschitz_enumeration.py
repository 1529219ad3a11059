"""Exact constants of tiny networks."""

import itertools
import math

import numpy as np
import oracles
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lipschitz import enumeration
from lipschitz.enumeration import exact_constant
from lipschitz.lower import lower_gradient_ascent
from lipschitz.sdp import upper_lipsdp
from lipschitz.upper import upper_product

NORMS = (1, 2, math.inf)


def network(weights, biases, activation=nn.ReLU):
    layers = []
    for weight, bias in zip(weights, biases, strict=True):
        layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta", dtype=torch.float64).to_empty(device="cpu")
        layer.weight.data, layer.bias.data = torch.from_numpy(np.array(weight)), torch.from_numpy(np.array(bias))
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1]).eval()


def random_parameters(sizes, seed):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((n, m)) for m, n in itertools.pairwise(sizes)]
    return weights, [rng.standard_normal(n) for n in sizes[1:]]


def derivative(model, point):
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x[None])[0].flatten(), point)
    return jacobian.reshape(-1, point.numel()).numpy()


@given(
    st.sampled_from([(1, 4, 2), (2, 5, 1), (2, 3, 3, 2), (3, 4, 2), (1, 2, 2, 2, 1)]),
    st.integers(0, 2**32 - 1),
    st.sampled_from(NORMS),
)
@settings(max_examples=15, deadline=None)
def test_constant_is_that_of_all_patterns_by_linear_programs(sizes, seed, norm):
    weights, biases = random_parameters(sizes, seed)
    found = exact_constant(network(weights, biases), sizes[:1], norm=norm)
    if found.narrowest > 1e-4:  # the oracle does not see regions thinner than 1e-6
        assert found.value == pytest.approx(oracles.relu_lipschitz_constant(weights, biases, norm), rel=1e-12)
    slope = np.linalg.norm(derivative(network(weights, biases), found.point), norm)
    assert found.value == pytest.approx(slope, rel=1e-12)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n_neurons, n_inputs", [(6, 2), (5, 3), (3, 5)])
def test_regions_of_one_layer_are_those_of_an_arrangement_in_general_position(n_neurons, n_inputs, norm):
    weights, biases = random_parameters((n_inputs, n_neurons, 2), 5)
    found = exact_constant(network(weights, biases), (n_inputs,), norm=norm)
    assert found.n_regions == sum(math.comb(n_neurons, k) for k in range(n_inputs + 1))  # Schlaefli


def test_patterns_that_do_not_occur_do_not_count():
    # relu(2 x) - relu(-x) has slopes 2 and 1; both on, which never are, would have 3.
    weights, biases = [np.array([[2.0], [-1.0]]), np.array([[1.0, -1.0]])], [np.array([0.0, 0.0]), np.zeros(1)]
    assert exact_constant(network(weights, biases), (1,)).value == 2.0
    assert exact_constant(network(weights, biases), (1,)).n_regions == 2
    shifted = [np.array([0.0, 1.0]), np.zeros(1)]  # 2 relu(x) - relu(1 - x): both on in (0, 1)
    found = exact_constant(network(weights, shifted), (1,))
    assert (found.value, found.n_regions) == (3.0, 3)
    assert 0 < found.point.item() < 1


def test_networks_without_bias_and_with_coinciding_neurons():
    weights = [np.array([[1.0, 0.0], [-1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 1.0, 0.5, 7.0]])]
    found = exact_constant(network(weights, [np.zeros(4), np.zeros(1)]), (2,))
    assert (found.value, found.n_regions) == (2.0, 2)  # relu(x) + relu(-x) + relu(x): 2 on the right, 1 on the left


@pytest.mark.parametrize("slope, expected", [(0.5, 1.0), (-2.0, 6.0)])
def test_leaky_neurons(slope, expected):
    model = network([np.array([[1.0], [-1.0]]), np.array([[2.0, 2.0]])], [np.zeros(2), np.zeros(1)])
    model[1] = nn.LeakyReLU(slope)
    assert exact_constant(model, (1,)).value == expected  # 2 |1 - slope| on either side


class Block(nn.Module):
    """x + conv(relu(norm(conv(x)))), pooled, beside the pooled input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, (1, 2)), nn.Conv2d(2, 1, (1, 2), padding=(0, 1))
        self.norm, self.pool = nn.BatchNorm2d(2), nn.AvgPool2d((1, 2), stride=1)

    def forward(self, x):
        y = x + self.second(torch.relu(self.norm(self.first(x))))
        return torch.flatten(torch.cat([self.pool(y), self.pool(x)], dim=1), 1) * 2 + 1


@pytest.mark.parametrize("norm", NORMS)
def test_convolutions_batch_norms_and_residuals(norm):
    model = Block().double().eval()
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    model.norm.running_var.uniform_(0.5, 2, generator=generator)
    found = exact_constant(model, (1, 1, 3), norm=norm)
    points = 3 * torch.randn(300, 1, 1, 3, generator=generator, dtype=torch.float64)
    slopes = [np.linalg.norm(derivative(model, point), norm) for point in points]
    assert max(slopes) <= found.value * (1 + 1e-12)
    assert found.value == pytest.approx(np.linalg.norm(derivative(model, found.point), norm), rel=1e-12)
    bound = lower_gradient_ascent(model, points[:256], generator=generator, norm=norm, n_steps=200)
    assert found.value * 0.99 <= bound.value <= found.value * (1 + 1e-12)  # the steepest region may lie far out


def test_search_reaches_most_constants_and_bounds_lie_above():
    rng = np.random.default_rng(0)
    n_reached = 0
    for seed in range(20):
        sizes = (int(rng.integers(1, 5)), int(rng.integers(2, 7)), int(rng.integers(2, 5)), int(rng.integers(1, 4)))
        model = network(*random_parameters(sizes, seed))
        norm = NORMS[seed % 3]
        found = exact_constant(model, sizes[:1], norm=norm)
        generator = torch.Generator().manual_seed(seed)
        starts = 3 * torch.randn(256, sizes[0], generator=generator, dtype=torch.float64)
        bound = lower_gradient_ascent(model, starts, generator=generator, norm=norm, n_steps=120)
        assert bound.is_certified
        assert bound.value <= found.value * (1 + 1e-12)
        n_reached += bound.value >= found.value * (1 - 1e-9)
        assert found.value <= upper_product(model, sizes[:1], norm=norm).value
        if norm == 2:
            assert found.value <= upper_lipsdp(model, sizes[:1]).value
    assert n_reached >= 17  # 54 of 60 such networks were


def test_the_model_is_left_alone():
    model = network(*random_parameters((2, 3, 1), 0))
    copies = [parameter.detach().clone() for parameter in model.parameters()]
    exact_constant(model, (2,))
    assert all(torch.equal(a, b) for a, b in zip(copies, model.parameters(), strict=True))


@pytest.mark.parametrize(
    "model, keywords, message",
    [
        (nn.Linear(2, 2), {"norm": 3}, r"^norm must be 1, 2 or inf, got 3$"),
        (nn.Tanh(), {}, r"^step 'Tanh' must be affine or a ReLU for an exact constant, got smooth$"),
        (
            nn.Sequential(nn.Linear(2, 41), nn.ReLU()),
            {},
            r"^model must have at most 40 neurons for an exact constant, got 41$",
        ),
    ],
)
def test_bad_input_is_refused(model, keywords, message):
    with pytest.raises(ValueError, match=message):
        exact_constant(model, (2,), **keywords)


def test_too_many_regions_are_an_error(monkeypatch):
    monkeypatch.setattr(enumeration, "_MOST_REGIONS", 3)
    with pytest.raises(RuntimeError, match=r"^model must have at most 3 regions for an exact constant, got more$"):
        exact_constant(network(*random_parameters((2, 3, 1), 0)), (2,))


def test_a_failing_linear_program_is_an_error(monkeypatch):
    failure = scipy.optimize.OptimizeResult(status=4, message="numerical difficulties")
    monkeypatch.setattr(enumeration.scipy.optimize, "linprog", lambda **_: failure)
    with pytest.raises(RuntimeError, match=r"^linear program of 1 conditions must be solved, got: numerical difficult"):
        exact_constant(network(*random_parameters((2, 3, 1), 0)), (2,))
