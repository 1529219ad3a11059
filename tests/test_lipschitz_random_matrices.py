"""What random-matrix theory expects, beside random networks."""

import math

import numpy as np
import pytest
import torch

from lipschitz import fully_connected, random_matrices, upper


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("depth, width, dimension", [(1, 8, 400), (2, 300, 200), (4, 200, 300)])
def test_products_of_random_networks_are_as_expected(depth, width, dimension, norm):
    gain = fully_connected.POINTWISE["tanh"].unit_gain
    found = [
        upper.upper_product(
            fully_connected.random_network(
                dimension, depth=depth, width=width, generator=torch.Generator().manual_seed(seed)
            ),
            (dimension,),
            norm=norm,
        ).value
        for seed in range(4)
    ]
    expected = float(random_matrices.expected_product(depth, width, dimension, gain=gain, norm=norm))
    # A row of n = 200 entries has an absolute sum, or a length, with a relative deviation of 5 %, its mean over four
    # networks 2.5 %; the largest of many and the spectral norm deviate by less, and lie 1 to 3 % below leading order.
    assert np.mean(found) == pytest.approx(expected, rel=0.08)


def test_he_gain_costs_sqrt_4_n_over_pi_a_layer():
    deep, shallow = (
        random_matrices.expected_product(depth, 10**8, 64, gain=math.sqrt(2), norm=math.inf) for depth in (4, 3)
    )
    assert float(deep / shallow) == pytest.approx(math.sqrt(4 * 10**8 / math.pi), rel=1e-3)


def test_the_gradient_of_a_random_network_has_the_norms_of_a_gaussian():
    d = 2000
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal((50, d))
    ratios = np.abs(gaussian).sum(axis=1) / np.linalg.norm(gaussian, axis=1)
    # relative deviation of a ratio sqrt((1 - 3/pi) / ...) is below 1.1 % here; of the mean of 50, 0.2 %: five of them
    assert ratios.mean() == pytest.approx(float(random_matrices.expected_slope_ratio(d)), rel=0.01)


def test_a_norm_without_a_formula_is_refused():
    with pytest.raises(ValueError, match="norm must be 2 or inf, got 1"):
        random_matrices.expected_product(2, 3, 4, gain=1.0, norm=1)
    with pytest.raises(ValueError, match="norm must be 1, 2 or inf, got 3"):
        random_matrices.expected_product(2, 3, 4, gain=1.0, norm=3)
