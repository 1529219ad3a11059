"""Weights on the channels of single steps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lipschitz_upper import NORMS, linear
from torch import nn

from lipschitz import factors, reading


@st.composite
def weighted_convolutions(draw):
    """A convolution, grouped or not, weights of its output and input channels, and the length of its input."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    n_groups = draw(st.integers(1, 3))
    n_in, n_out = n_groups * draw(st.integers(1, 3)), n_groups * draw(st.integers(1, 3))
    layer = nn.Conv1d(n_in, n_out, 2, padding=1, groups=n_groups, bias=False, dtype=torch.float64)
    nn.init.normal_(layer.weight, generator=generator)
    rows, columns = (10 * torch.rand(n, generator=generator, dtype=torch.float64) for n in (n_out, n_in))
    return layer, rows, columns, draw(st.integers(1, 4))


@given(weighted_convolutions(), st.sampled_from(NORMS))
@settings(max_examples=150)
def test_channels_are_weighted_before_and_after_a_convolution(case, norm):
    layer, rows, columns, length = case
    step = reading.read(layer, (layer.in_channels, length))[1]
    units = torch.eye(layer.in_channels * length, dtype=torch.float64).reshape(-1, layer.in_channels, length)
    with torch.no_grad():
        images = layer(units * columns[:, None]) * rows[:, None]
        weighted = factors.multiply(
            step, units, factors.multiply_channels(step, factors.weights_of(step), rows, columns)
        )
    torch.testing.assert_close(weighted, images, rtol=1e-13, atol=1e-13)
    shape = (layer.in_channels, length)
    bound = factors.bound_step(step, shape, norm=norm, tolerance=1e-6, rows=rows, columns=columns)
    truth = np.linalg.norm(images.flatten(1).T.numpy(), norm)
    assert bound.lower * (1 - 1e-12) <= truth <= bound.upper * (1 + 1e-12)
    assert bound.upper <= truth * (1 + 2e-3) + 1e-300


def test_the_rounding_of_weighted_entries_is_counted():
    # 1/3 of 3 rounds to 1 exactly; the bound must cover the entry that a third, rounded, truly has.
    third = 1.0 / 3.0
    step = reading.read(linear([[3.0]]), (1,))[1]
    rows = torch.tensor([math.nextafter(third, 1.0)], dtype=torch.float64)
    for norm in NORMS:
        bound = factors.bound_step(step, (1,), norm=norm, tolerance=1e-8, rows=rows)
        assert bound.upper > 1.0 + 2.0**-53


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-300])
def test_products_and_sums_are_rounded_up_except_by_zero(value):
    assert factors.multiply_up(0.0, value) == factors.multiply_up(value, 0.0) == 0.0
    assert factors.add_up(0.0, value) == value
    assert factors.multiply_up(0.1, 0.1) > 0.1 * 0.1
    assert factors.add_up(0.1, 0.2) > 0.1 + 0.2
