"""Operator norms of derivatives: written out, or by the power method."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from lipschitz import derivatives

NORMS = (1, 2, math.inf)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(n_inputs, n_outputs, activation=nn.Tanh, seed=0):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(n_inputs, 12), activation(), nn.Linear(12, n_outputs)).double()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.requires_grad_(False)


def start(n, n_inputs, seed=1):
    return torch.randn(2, n, n_inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jacobian(model, point):
    return torch.autograd.functional.jacobian(model, point).numpy()


@pytest.mark.parametrize("norm, n_outputs", list(itertools.product(NORMS, [1, 3, 16, 17, 40])))
def test_norms_directions_and_gradients(norm, n_outputs):
    model = network(5, n_outputs)
    points, directions = start(6, 5)
    heights, uphill, steep = derivatives.operator_norms(
        model, points, directions, norm=norm, n_steps=500, with_uphill=True
    )
    for point, height, slope, direction in zip(points, heights, uphill, steep, strict=True):
        matrix = jacobian(model, point)
        exact = np.linalg.norm(matrix, norm)
        if n_outputs <= 16 or norm == 2:
            assert height.item() == pytest.approx(exact, rel=1e-8)
        else:
            assert 0.3 * exact <= height.item() <= exact * (1 + 1e-12)
        assert np.linalg.norm(direction, norm) == pytest.approx(1)
        assert np.linalg.norm(matrix @ direction.numpy(), norm) == pytest.approx(height.item(), rel=1e-8)
        step = 1e-6 * slope / slope.norm()  # the height rises along its gradient by the gradient's length
        ends = [np.linalg.norm(jacobian(model, point + sign * step) @ direction.numpy(), norm) for sign in (1, -1)]
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope.norm().item(), rel=1e-3)


@pytest.mark.parametrize("norm", NORMS)
def test_power_method_never_comes_down_and_finds_its_end(norm):
    points, directions = start(4, 5)
    before = torch.zeros(4, dtype=torch.float64)
    for n_steps in (1, 2, 3, 5, 10):
        heights, _, _ = derivatives.operator_norms(
            network(5, 30), points, directions, norm=norm, n_steps=n_steps, with_uphill=False
        )
        assert (heights >= before * (1 - 1e-12)).all()
        before = heights


@pytest.mark.parametrize("norm, n_outputs", list(itertools.product([1, math.inf], [17, 200])))
def test_power_method_finds_the_largest_sum_at_many_points(norm, n_outputs):
    model = network(5, n_outputs)
    points, directions = start(100, 5)
    heights, _, _ = derivatives.operator_norms(model, points, directions, norm=norm, n_steps=100, with_uphill=False)
    exact = np.array([np.linalg.norm(jacobian(model, point), norm) for point in points])
    assert np.mean(heights.numpy() > exact * (1 - 1e-9)) > 0.4  # 0.4 to 0.7 were seen


@pytest.mark.parametrize("norm, n_outputs", list(itertools.product(NORMS, [2, 30])))
def test_linear_and_constant_networks_have_no_gradient(norm, n_outputs):
    points, directions = start(3, 4)
    linear = nn.Linear(4, n_outputs, dtype=torch.float64).requires_grad_(False)
    heights, uphill, _ = derivatives.operator_norms(
        linear, points, directions, norm=norm, n_steps=2000, with_uphill=True
    )
    assert not uphill.any()
    if norm == 2 or n_outputs == 2:
        assert heights.numpy() == pytest.approx(np.linalg.norm(linear.weight.numpy(), norm), rel=1e-7)

    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), n_outputs, dtype=x.dtype)

    heights, uphill, _ = derivatives.operator_norms(
        Constant(), points, directions, norm=norm, n_steps=3, with_uphill=True
    )
    assert not heights.any()
    assert not uphill.any()


def test_overflow_is_a_number_that_is_not_climbed():
    class Exp(nn.Module):
        def forward(self, x):
            return torch.exp(x)

    points, directions = 800 * torch.ones(2, 2, 3, dtype=torch.float64)
    heights, _, _ = derivatives.operator_norms(Exp(), points, directions, norm=2, n_steps=3, with_uphill=True)
    assert not torch.isfinite(heights).any()


def test_outputs_that_are_no_batch_are_refused():
    with pytest.raises(ValueError, match=r"^model must return a batch as long as its input, got shapes \(6,\)"):
        derivatives.operator_norms(
            nn.Flatten(0), torch.ones(2, 3), torch.ones(2, 3), norm=2, n_steps=1, with_uphill=False
        )
