"""Operator norms of derivatives: written out, or by the power method."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from lipschitz import derivatives

NORMS = (1, 2, math.inf)


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
def test_norms_and_directions(norm, n_outputs):
    model = network(5, n_outputs)
    points, directions = start(6, 5)
    heights, steep = derivatives.operator_norms(model, points, directions, norm=norm, n_steps=500)
    for point, height, direction in zip(points, heights, steep, strict=True):
        matrix = jacobian(model, point)
        exact = np.linalg.norm(matrix, norm)
        if n_outputs <= 16 or norm == 2:
            assert height.item() == pytest.approx(exact, rel=1e-8)
        else:
            assert 0.3 * exact <= height.item() <= exact * (1 + 1e-12)
        assert np.linalg.norm(direction, norm) == pytest.approx(1)
        assert np.linalg.norm(matrix @ direction.numpy(), norm) == pytest.approx(height.item(), rel=1e-8)


@pytest.mark.parametrize("norm, n_outputs", list(itertools.product(NORMS, [1, 40])))
def test_slopes_rise_along_their_gradients(norm, n_outputs):
    model = network(5, n_outputs)
    points, directions = start(6, 5)
    separations = torch.linspace(0.1, 3, 6, dtype=torch.float64)
    gradients = derivatives.rise(model, points, directions, separations, norm=norm)

    def height(middles):
        ends = [model(middles + sign * 0.5 * separations[:, None] * directions) for sign in (1, -1)]
        return torch.linalg.vector_norm(ends[0] - ends[1], ord=norm, dim=1)

    steps = 1e-6 * gradients / gradients.norm(dim=1, keepdim=True)
    rises = (height(points + steps) - height(points - steps)) / 2e-6
    assert rises.numpy() == pytest.approx(gradients.norm(dim=1).numpy(), rel=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_power_method_never_comes_down_and_finds_its_end(norm):
    points, directions = start(4, 5)
    before = torch.zeros(4, dtype=torch.float64)
    for n_steps in (1, 2, 3, 5, 10):
        heights, _ = derivatives.operator_norms(network(5, 30), points, directions, norm=norm, n_steps=n_steps)
        assert (heights >= before * (1 - 1e-12)).all()
        before = heights


@pytest.mark.parametrize("norm, n_outputs", list(itertools.product([1, math.inf], [17, 200])))
def test_power_method_finds_the_largest_sum_at_many_points(norm, n_outputs):
    model = network(5, n_outputs)
    points, directions = start(100, 5)
    heights, _ = derivatives.operator_norms(model, points, directions, norm=norm, n_steps=100)
    exact = np.array([np.linalg.norm(jacobian(model, point), norm) for point in points])
    assert np.mean(heights.numpy() > exact * (1 - 1e-9)) > 0.4  # 0.4 to 0.7 were seen


@pytest.mark.parametrize("norm, n_outputs", list(itertools.product(NORMS, [2, 30])))
def test_linear_and_constant_networks(norm, n_outputs):
    points, directions = start(3, 4)
    linear = nn.Linear(4, n_outputs, dtype=torch.float64).requires_grad_(False)
    heights, _ = derivatives.operator_norms(linear, points, directions, norm=norm, n_steps=2000)
    if norm == 2 or n_outputs == 2:
        assert heights.numpy() == pytest.approx(np.linalg.norm(linear.weight.numpy(), norm), rel=1e-7)

    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones(len(x), n_outputs, dtype=x.dtype)

    heights, _ = derivatives.operator_norms(Constant(), points, directions, norm=norm, n_steps=3)
    assert not heights.any()


def test_overflow_is_a_number_that_is_not_climbed():
    class Exp(nn.Module):
        def forward(self, x):
            return torch.exp(x)

    points, directions = 800 * torch.ones(2, 2, 3, dtype=torch.float64)
    heights, _ = derivatives.operator_norms(Exp(), points, directions, norm=2, n_steps=3)
    assert not torch.isfinite(heights).any()


def test_outputs_that_are_no_batch_are_refused():
    with pytest.raises(ValueError, match=r"^model must return a batch as long as its input, got shapes \(6,\)"):
        derivatives.operator_norms(nn.Flatten(0), torch.ones(2, 3), torch.ones(2, 3), norm=2, n_steps=1)
