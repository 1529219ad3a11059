"""Random fully connected networks, Eqs. 8-10."""

import itertools
import math
from typing import get_args

import mpmath
import numpy as np
import pytest
import scipy.integrate
import torch

from lipschitz import fully_connected
from lipschitz.fully_connected import POINTWISE, random_network


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_slope_constants_are_the_steepest_derivatives_rounded_up():
    with mpmath.workdps(40):
        steepest = {
            "tanh": 1,
            "relu": 1,
            "erf": 2 / mpmath.sqrt(mpmath.pi),
            "sin": 1,
            "gaussian_cdf": 1 / mpmath.sqrt(2 * mpmath.pi),
            "sigmoid": mpmath.mpf(1) / 4,
        }
        assert set(steepest) == set(POINTWISE)
        for name, truth in steepest.items():
            assert truth <= POINTWISE[name].upper_slope <= truth * (1 + mpmath.mpf(2) ** -51)


@pytest.mark.parametrize("name", POINTWISE)
def test_no_secant_of_a_pointwise_function_is_steeper_and_some_come_near(name):
    x = torch.linspace(-6, 6, 200_001, dtype=torch.float64)
    slopes = POINTWISE[name].module()(x).diff().abs() / x.diff()
    assert float(slopes.max()) <= POINTWISE[name].upper_slope * (1 + 1e-10)
    assert float(slopes.max()) >= POINTWISE[name].upper_slope * (1 - 1e-8)


@pytest.mark.parametrize("name", get_args(fully_connected.Activation))
def test_unit_gain_keeps_the_variance_of_a_standard_gaussian(name):
    def integrand(z):
        value = POINTWISE[name].module()(torch.tensor(z, dtype=torch.float64))
        return float(value) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    second_moment = sum(scipy.integrate.quad(integrand, *ends, limit=200)[0] for ends in ((-12, 0), (0, 12)))
    assert POINTWISE[name].unit_gain ** 2 * second_moment == pytest.approx(1, rel=1e-8)


def test_network_is_equations_8_to_10():
    network = random_network(3, depth=3, width=4, generator=generator(), activation="sin", bias_std=0.5, n_outputs=2)
    assert [type(layer).__name__ for layer in network] == ["Linear", "Sin", "Linear", "Sin", "Linear", "GaussianCdf"]
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator(1))
    f = x @ network[0].weight.T + network[0].bias  # Eq. 8: no activation before the first matrix
    for layer in (network[2], network[4]):
        f = torch.sin(f) @ layer.weight.T + layer.bias  # Eq. 9
    torch.testing.assert_close(network(x), torch.special.ndtr(f), rtol=1e-14, atol=0)  # Eq. 10


def test_a_network_of_depth_l_has_l_minus_one_activations():
    for depth in (1, 2, 5):
        layers = list(random_network(2, depth=depth, width=3, generator=generator()))
        assert sum(isinstance(layer, torch.nn.Linear) for layer in layers) == depth
        assert sum(isinstance(layer, torch.nn.Tanh) for layer in layers) == depth - 1


@pytest.mark.parametrize("activation", get_args(fully_connected.Activation))
def test_weights_have_the_variance_asked_for(activation):
    network = random_network(400, depth=3, width=300, generator=generator(), activation=activation, bias_std=0.3)
    matrices = [layer for layer in network if isinstance(layer, torch.nn.Linear)]
    gains = [1.0, POINTWISE[activation].unit_gain, POINTWISE[activation].unit_gain]
    for layer, gain in zip(matrices[:2], gains, strict=False):
        n = layer.weight.numel()
        # Variance of a sample variance: 2/n of its square. Five standard errors: false alarm 6e-7 each.
        assert abs(float(layer.weight.detach().var()) * layer.in_features / gain**2 - 1) < 5 * math.sqrt(2 / n)
        assert abs(float(layer.bias.detach().var()) / 0.09 - 1) < 5 * math.sqrt(2 / layer.bias.numel())


@pytest.mark.parametrize("activation", get_args(fully_connected.Activation))
def test_outputs_are_nearly_uniform_over_networks(activation):
    # One output each of 400 networks on an input of squared norm d; f^L has variance 1 in the limit of large width.
    x = torch.ones(64, dtype=torch.float64)
    shared = generator()
    networks = (random_network(64, depth=3, width=128, generator=shared, activation=activation) for _ in range(400))
    outputs = [float(network(x).detach()) for network in networks]
    distance = np.abs(np.sort(outputs) - (np.arange(400) + 0.5) / 400).max()
    # Kolmogorov: P(distance > 1.95 / sqrt(400)) = 0.001 for a uniform law; a little more room for the finite width.
    assert distance < 0.11


def test_same_generator_state_same_bits_and_dtype_rounds_the_same_draws():
    one, two = (random_network(3, depth=2, width=4, generator=generator(7)) for _ in range(2))
    narrow = random_network(3, depth=2, width=4, generator=generator(7), dtype=torch.float32)
    for a, b, c in zip(one.parameters(), two.parameters(), narrow.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a.to(torch.float32), c)


def test_global_random_state_is_untouched():
    before = torch.get_rng_state()
    random_network(3, depth=2, width=4, generator=generator())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"input_dimension": 0}, r"^input_dimension must be at least 1, got 0$"),
        ({"depth": 0}, r"^depth must be at least 1, got 0$"),
        ({"width": -2}, r"^width must be at least 1, got -2$"),
        ({"n_outputs": 0}, r"^n_outputs must be at least 1, got 0$"),
        ({"activation": "gelu"}, r"^activation must be one of tanh, relu, erf, sin, got gelu$"),
        ({"final_activation": "tanh"}, r"^final_activation must be one of gaussian_cdf, sigmoid, got tanh$"),
        ({"gain": 0.0}, r"^gain must be positive and finite, got 0.0$"),
        ({"gain": math.nan}, r"^gain must be positive and finite, got nan$"),
        ({"bias_std": -0.1}, r"^bias_std must be finite and at least 0, got -0.1$"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    keywords = {"input_dimension": 3, "depth": 2, "width": 4} | changes
    with pytest.raises(ValueError, match=message):
        random_network(**keywords, generator=generator())


def test_every_hidden_and_final_name_stands_in_the_table():
    names = itertools.chain(get_args(fully_connected.Activation), get_args(fully_connected.FinalActivation))
    assert set(names) == set(POINTWISE)
