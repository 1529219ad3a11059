"""Slopes that a network attains."""

import itertools
import math
from fractions import Fraction

import numpy as np
import oracles
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lipschitz import fully_connected
from lipschitz.lower import lower_gradient_ascent
from lipschitz.upper import upper_product

NORMS = (1, 2, math.inf)
NAMES = {pointwise.module: name for name, pointwise in fully_connected.POINTWISE.items()}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def relu_network(sizes, seed, dtype=torch.float64):
    """A ReLU network, linear at the end, with biases, and its weights and biases as arrays."""
    rng = np.random.default_rng(seed)
    layers, weights, biases = [], [], []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layer = nn.Linear(fan_in, fan_out, device="meta", dtype=dtype).to_empty(device="cpu")
        layer.weight.data = torch.as_tensor(rng.standard_normal((fan_out, fan_in)), dtype=dtype)
        layer.bias.data = torch.as_tensor(rng.standard_normal(fan_out), dtype=dtype)
        weights.append(layer.weight.detach().double().numpy())
        biases.append(layer.bias.detach().double().numpy())
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]), weights, biases


def test_oracle_knows_networks_worked_out_by_hand():
    # |x| = relu(x) + relu(-x) has slope 1; relu(x) + relu(x - 1) has slope 2; relu(x) - relu(x + 1) has slope 1.
    one = np.array([1.0])
    up_down = [np.array([[1.0], [-1.0]]), np.array([[1.0, 1.0]])]
    assert oracles.relu_lipschitz_constant(up_down, [np.zeros(2), 0 * one], 2) == 1
    up_up = [np.array([[1.0], [1.0]]), np.array([[1.0, 1.0]])]
    assert oracles.relu_lipschitz_constant(up_up, [np.array([0.0, -1.0]), 0 * one], 2) == 2
    difference = [np.array([[1.0], [1.0]]), np.array([[1.0, -1.0]])]
    assert oracles.relu_lipschitz_constant(difference, [np.array([0.0, 1.0]), 0 * one], 2) == 1
    hinge = [np.array([[2.0]]), np.array([[3.0]])]
    slope = oracles.secant(hinge, [0 * one, 0 * one], ["relu", "identity"], np.array([-1.0]), np.array([1.0]), 2)
    assert slope == 3  # rises from 0 to 6 over a distance of 2


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "sizes, seed, n_starts",
    [((2, 5, 1), 0, 64), ((3, 4, 3, 1), 1, 512), ((2, 6, 2), 2, 64), ((1, 3, 3, 2), 3, 64)],
)
def test_search_attains_the_exact_constant_of_tiny_relu_networks(sizes, seed, n_starts, norm):
    model, weights, biases = relu_network(sizes, seed)
    truth = oracles.relu_lipschitz_constant(weights, biases, norm)
    # The second network's steepest region is small: with 64 starts the search misses it.
    starts = 3 * torch.randn(n_starts, sizes[0], generator=generator(), dtype=torch.float64)
    bound = lower_gradient_ascent(model, starts, generator=generator(1), norm=norm, n_steps=100)
    assert truth * (1 - 1e-9) <= bound.value <= truth
    assert bound.is_certified


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 5), (4, 3), (3, 1)])
def test_a_linear_network_has_the_norm_of_its_matrix_everywhere(shape, norm):
    model, weights, _ = relu_network(shape[::-1], 4)
    bound = lower_gradient_ascent(model, torch.zeros(1, shape[1]), generator=generator(), norm=norm, n_steps=2)
    truth = np.linalg.norm(weights[0], norm)
    assert truth * (1 - 1e-12) <= bound.value <= truth * (1 + 1e-15)
    if norm == 2:
        assert not oracles.is_at_least_spectral_norm(math.nextafter(bound.value, 0), weights[0])


@given(strategies.small_networks(), st.sampled_from(NORMS), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_reported_slope_is_below_the_true_secant_and_the_product(network, norm, seed):
    starts = torch.randn(4, network[0].in_features, generator=generator(seed))
    bound = lower_gradient_ascent(network, starts, generator=generator(seed), norm=norm, n_steps=4)
    assert bound.is_certified
    assert bound.value <= upper_product(network, (network[0].in_features,), norm=norm).value
    linears = [layer for layer in network if isinstance(layer, nn.Linear)]
    truth = (
        oracles.secant(
            [layer.weight.detach().double().numpy() for layer in linears],
            [layer.bias.detach().double().numpy() for layer in linears],
            [NAMES[type(layer)] for layer in network if not isinstance(layer, nn.Linear)],
            *bound.points.numpy(),
            norm,
        )
        if bound.value > 0
        else 0
    )
    assert bound.value <= truth
    # What was taken off is the rounding: nothing else is lost.
    assert truth <= bound.value + 2 * bound.rounding


def test_rounding_margin_matters():
    # Far out on a plateau of height one the computed secants are noise; none may be reported as a slope.
    model = nn.Sequential(nn.Linear(1, 1, dtype=torch.float64), nn.Tanh())
    model[0].weight.data.fill_(1.0)
    model[0].bias.data.fill_(30.0)
    bound = lower_gradient_ascent(model, torch.zeros(1, 1), generator=generator(), n_steps=0)
    assert bound.value <= 1e-20


@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_early_layers_is_carried_through_steep_later_ones(seed):
    # Two nearly equal numbers are subtracted and the difference blown up: the first layer's rounding is what counts.
    rng = np.random.default_rng(seed)
    row = rng.standard_normal(20)
    weights = [np.array([row, row + 1e-9 * rng.standard_normal(20)]), np.array([[1.0, -1.0]]), np.array([[1e6]])]
    biases = [rng.standard_normal(len(weight)) for weight in weights]
    layers = [nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64) for weight in weights]
    for layer, weight, bias in zip(layers, weights, biases, strict=True):
        layer.weight.data, layer.bias.data = torch.as_tensor(weight), torch.as_tensor(bias)
    starts = torch.randn(1, 20, generator=generator(seed))
    bound = lower_gradient_ascent(nn.Sequential(*layers), starts, generator=generator(), n_steps=0)
    assert 0 < bound.value <= oracles.secant(weights, biases, ["identity"] * 3, *bound.points.numpy(), 2)


class Exp(nn.Module):
    def forward(self, x):
        return torch.exp(x)


def test_places_where_the_network_overflows_are_not_climbed():
    starts = torch.full((4, 1), 700.0, dtype=torch.float64)
    bound = lower_gradient_ascent(Exp(), starts, generator=generator(), n_steps=50)
    assert math.exp(700) < bound.value < math.inf


@pytest.mark.parametrize("activation", ["tanh", "relu", "erf", "sin"])
def test_secant_approaches_the_derivative_and_the_search_gains(activation):
    network = fully_connected.random_network(
        10, depth=3, width=32, generator=generator(), activation=activation, dtype=torch.float32
    )
    starts = torch.randn(8, 10, generator=generator(1))
    short, long = (
        lower_gradient_ascent(network, starts, generator=generator(2), n_steps=n_steps) for n_steps in (0, 40)
    )
    assert long.start_value == short.start_value
    assert long.value > 1.05 * short.value
    for bound in (short, long):
        assert bound.value == pytest.approx(bound.derivative, rel=1e-6)
        assert 0 < bound.rounding < 1e-6 * bound.value
    assert short.derivative == pytest.approx(short.start_value, rel=1e-4)  # float32 found it, float64 confirms
    assert (long.n_starts, long.n_steps, long.norm) == (8, 40, 2)
    assert long.points.shape == (2, 10)
    assert long.points.dtype == torch.float64


def test_gradient_alone_climbs_to_the_middle_of_a_sigmoid():
    model = nn.Sequential(nn.Linear(1, 1, dtype=torch.float64), nn.Sigmoid())
    model[0].weight.data.fill_(1.0)
    model[0].bias.data.fill_(0.0)
    bound = lower_gradient_ascent(model, torch.full((1, 1), 2.0), generator=generator(), n_steps=60)
    assert 0.25 * (1 - 1e-6) <= bound.value <= 0.25


def test_other_layers_are_searched_but_not_certified():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Softsign(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator()))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bound = lower_gradient_ascent(
        model, torch.randn(4, 1, 4, 4, generator=generator()), generator=generator(), n_steps=6
    )
    assert not bound.is_certified
    assert bound.rounding == 0.0
    assert bound.value == pytest.approx(bound.derivative, rel=1e-3)
    assert bound.value >= bound.start_value * (1 - 1e-3)
    # A batch norm in training mode would have moved its averages.
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(layer.training for layer in model.modules())


@pytest.mark.parametrize("model", [nn.Sequential(nn.Tanh()), nn.Sequential(nn.Tanh(), nn.Flatten(), nn.Dropout())])
def test_a_network_without_weights_is_searched(model):
    bound = lower_gradient_ascent(model, torch.zeros(1, 2, 2), generator=generator(), norm=math.inf, n_steps=3)
    assert 1 - 1e-6 <= bound.value <= 1
    assert bound.is_certified


def test_a_constant_network_has_slope_zero():
    model = nn.Sequential(nn.Linear(2, 1))
    model[0].weight.data.zero_()
    bound = lower_gradient_ascent(model, torch.zeros(1, 2), generator=generator(), n_steps=2)
    assert (bound.value, bound.derivative) == (0.0, 0.0)


def test_the_model_the_starts_and_the_global_random_state_are_left_as_they_were():
    network = fully_connected.random_network(3, depth=3, width=4, generator=generator(), dtype=torch.float32)
    network[0].weight.requires_grad_(False)
    network[2].eval()
    starts = torch.randn(4, 3, generator=generator())
    copies = [parameter.detach().clone() for parameter in network.parameters()]
    starts_copy, state, default = starts.clone(), torch.get_rng_state(), torch.get_default_dtype()
    with torch.no_grad():
        lower_gradient_ascent(network, starts, generator=generator(), n_steps=3)
        assert not torch.is_grad_enabled()
    assert [layer.training for layer in network] == [True, True, False, True, True, True]
    assert [parameter.requires_grad for parameter in network.parameters()] == [False] + 5 * [True]
    assert all(parameter.grad is None and parameter.dtype == torch.float32 for parameter in network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(copies, network.parameters(), strict=True))
    assert torch.equal(starts, starts_copy)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_default_dtype() is default


def test_same_generator_state_same_bits():
    network = fully_connected.random_network(3, depth=3, width=4, generator=generator())
    starts = torch.randn(4, 3, generator=generator())
    one, two = (lower_gradient_ascent(network, starts, generator=generator(5), n_steps=20) for _ in range(2))
    assert (one.value, one.derivative) == (two.value, two.derivative)
    assert torch.equal(one.points, two.points)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"norm": 4}, r"^norm must be 1, 2 or inf, got 4$"),
        ({"n_steps": -1}, r"^n_steps must be at least 0, got -1$"),
        ({"starts": torch.zeros(3)}, r"^starts must be a batch of finite numbers, got shape \(3,\)$"),
        ({"starts": torch.zeros(0, 3)}, r"^starts must be a batch of finite numbers, got shape \(0, 3\)$"),
        ({"starts": torch.full((1, 3), math.nan)}, r"^starts must be a batch of finite numbers, got shape \(1, 3\)$"),
        (
            {"model": nn.Flatten(0)},
            r"^model must return a batch as long as its input, got shapes \(6,\) from \(2, 3\)$",
        ),
    ],
)
def test_bad_input_is_refused(changes, message):
    keywords = {"model": nn.Tanh(), "starts": torch.zeros(2, 3), "generator": generator()} | changes
    with pytest.raises(ValueError, match=message):
        lower_gradient_ascent(keywords.pop("model"), keywords.pop("starts"), **keywords)


def test_a_network_that_is_nowhere_finite_is_refused():
    model = nn.Linear(2, 1)
    model.weight.data.fill_(math.nan)
    with pytest.raises(
        ValueError, match=r"^model must have a finite derivative at one of the starts at least, got none$"
    ):
        lower_gradient_ascent(model, torch.zeros(2, 2), generator=generator())


@pytest.mark.parametrize("exponent", [-600, -535, -300, 300, 600, 1000])
def test_secants_of_any_scale_are_below_the_norm(exponent):
    layer = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    layer.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64) * 2.0**exponent)
    bound = lower_gradient_ascent(layer, torch.ones(1, 2), generator=generator(), n_steps=2)
    assert bound.is_certified
    x, y = ([Fraction(number) for number in point] for point in bound.points.tolist())
    ends = [oracles.relu_outputs([layer.weight.detach().numpy()], [np.zeros(2)], point) for point in (x, y)]
    dx, dy = ([b - a for a, b in zip(*pair, strict=True)] for pair in ((x, y), ends))
    assert Fraction(bound.value) ** 2 * sum(d * d for d in dx) <= sum(d * d for d in dy)
    assert bound.value > 2.0 * 2.0**exponent


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_weights_are_searched(dtype):
    layer = nn.Linear(2, 1, bias=False).to(dtype)
    layer.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    bound = lower_gradient_ascent(layer, torch.ones(1, 2), generator=generator(), n_steps=2)
    assert 5.0 - 1e-12 < bound.value <= 5.0


def test_weights_that_are_no_real_numbers_are_refused():
    model = nn.Linear(2, 2, dtype=torch.complex64)
    with pytest.raises(
        TypeError, match=r"^weights must be real floating-point numbers, got 'weight' of torch.complex64$"
    ):
        lower_gradient_ascent(model, torch.ones(1, 2), generator=generator())
