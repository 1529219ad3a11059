"""Bounds of rounding errors, against the same network with eleven more bits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lipschitz import graph, running_error
from lipschitz.lower import lower_gradient_ascent

LONG = np.longdouble


class Network(nn.Module):
    """Convolution, BatchNorm, ReLU, pooling, a residual and a concatenation, scaled, shifted, and a Linear."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.norm, self.leaky, self.again = nn.BatchNorm2d(3), nn.LeakyReLU(0.3), nn.Conv2d(3, 3, 1, bias=False)
        self.pool, self.mean = nn.MaxPool2d(2, stride=1), nn.AvgPool2d(2, stride=1)
        self.last, self.end = nn.Linear(6 * 2 * 2, 2), nn.Sigmoid()

    def forward(self, x):
        x = self.leaky(self.norm(self.conv(x)))
        x = x + torch.relu(self.again(x))
        x = torch.cat([self.pool(x), self.mean(x) * 3 + 5], dim=1)
        return self.end(self.last(torch.flatten(x, 1)))


def network(seed, gain):
    model = Network().double().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = gain * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    model.norm.running_mean.normal_(generator=generator)
    model.norm.running_var.uniform_(0.1, 2, generator=generator)
    return model


def run_long(model, x):
    """The outputs before the sigmoid, window by window in extended precision."""

    def long(tensor):
        return tensor.numpy().astype(LONG)

    x = np.pad(long(x), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::2, ::2]
    x = np.einsum("chwij,dcij->dhw", windows, long(model.conv.weight)) + long(model.conv.bias)[:, None, None]
    norm = model.norm
    scale = long(norm.weight) / np.sqrt(long(norm.running_var) + LONG(norm.eps))
    x = (x - long(norm.running_mean)[:, None, None]) * scale[:, None, None] + long(norm.bias)[:, None, None]
    x = np.where(x > 0, x, LONG(0.3) * x)
    x = x + np.maximum(np.einsum("chw,dc->dhw", x, long(model.again.weight)[:, :, 0, 0]), 0)
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(1, 2))
    x = np.concatenate([windows.max(axis=(3, 4)), windows.mean(axis=(3, 4), dtype=LONG) * 3 + 5])
    return long(model.last.weight) @ x.ravel() + long(model.last.bias)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 1.0, 10.0]))
@settings(max_examples=40, deadline=None)
def test_error_is_below_its_bound_for_every_kind_of_step(seed, gain):
    model = network(seed, gain)
    steps = graph.read(model, (2, 6, 6))[:-1]
    inputs = 3 * torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values, errors = running_error.evaluate(steps, running_error.step_norms(steps), inputs)
    for x, value, error in zip(inputs, values, errors, strict=True):
        exact = run_long(model, x)
        assert np.linalg.norm(exact - value.numpy().astype(LONG)) <= error.item() * (1 + 1e-9)
        assert error.item() <= 1e-10 * gain * (1 + gain) ** 2 * 100
    assert (errors > 0).all()


def test_a_step_without_its_own_rounding_would_show():
    # One sum of many numbers that cancel: the error is a fair part of its bound.
    layer = nn.Linear(2000, 1, bias=False, dtype=torch.float64).requires_grad_(False)
    layer.weight.data = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs = torch.randn(50, 2000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    steps = graph.read(layer, (2000,))
    values, errors = running_error.evaluate(steps, running_error.step_norms(steps), inputs)
    exact = (inputs.numpy().astype(LONG) * layer.weight.numpy().astype(LONG)).sum(axis=1)
    off = np.abs(exact - values[:, 0].numpy())
    assert (off <= errors.numpy()).all()
    assert off.max() > 1e-5 * errors.max()


@pytest.mark.parametrize("norm", [1, 2, np.inf])
def test_convolutions_attain_certified_slopes(norm):
    model = network(0, 0.5)
    generator = torch.Generator().manual_seed(0)
    starts = torch.randn(8, 2, 6, 6, generator=generator, dtype=torch.float64)
    bound = lower_gradient_ascent(model, starts, generator=generator, norm=norm, n_steps=6)
    assert bound.is_certified
    assert 0 < bound.rounding < 1e-6 * bound.value
    assert bound.value == pytest.approx(bound.derivative, rel=1e-3)


def test_where_rounding_bounds_nothing_the_slope_is_as_computed():
    # Steep in one coordinate and flat in the other, in turn: slope 1, while the norms multiply to 1e36.
    swing = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    swing.weight.data = torch.tensor([[1e6, 0.0], [0.0, 1e-6]], dtype=torch.float64)
    swap = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    swap.weight.data = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    model = nn.Sequential(*[swing, swap] * 6)
    generator = torch.Generator().manual_seed(0)
    bound = lower_gradient_ascent(model, torch.ones(1, 2, dtype=torch.float64), generator=generator, n_steps=1)
    assert not bound.is_certified
    assert bound.rounding == 0.0
    assert bound.value == pytest.approx(1.0, rel=1e-6)


class Times(nn.Module):
    def forward(self, x):
        return x * 0.1


class Plus(nn.Module):
    def forward(self, x):
        return x + 0.1


class Sum(nn.Module):
    def forward(self, x):
        return x + x * 0.1


def batch_norm():
    layer = nn.BatchNorm2d(2).double().eval().requires_grad_(False)
    layer.running_mean.copy_(torch.tensor([0.3, -0.7]))
    layer.running_var.copy_(torch.tensor([0.9, 1.7]))
    return layer


@pytest.mark.parametrize(
    "model, exactly",
    [
        (Times(), lambda x: x * LONG(0.1)),
        (Plus(), lambda x: x + LONG(0.1)),
        (Sum(), lambda x: x + x * LONG(0.1)),
        (nn.LeakyReLU(0.1), lambda x: np.where(x > 0, x, x * LONG(0.1))),
        (nn.AdaptiveAvgPool2d(1), lambda x: x.mean(axis=(2, 3), keepdims=True, dtype=LONG)),
        (
            batch_norm(),
            lambda x: (
                (x - batch_norm().running_mean.numpy()[:, None, None].astype(LONG))
                / np.sqrt(batch_norm().running_var.numpy()[:, None, None].astype(LONG) + LONG(1e-5))
            ),
        ),
    ],
)
def test_the_rounding_of_each_kind_of_step_alone(model, exactly):
    steps = graph.read(model.eval(), (2, 3, 3))
    inputs = torch.randn(200, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, errors = running_error.evaluate(steps, running_error.step_norms(steps), inputs)
    off = (exactly(inputs.numpy().astype(LONG)) - values.numpy()).reshape(200, -1)
    off = np.sqrt((off * off).sum(axis=1))
    assert (off <= errors.numpy()).all()
    assert off.max() > 0.02 * errors.max().item()


def test_errors_grow_by_the_steps_that_follow():
    layers = [nn.Linear(20, 1, bias=False, dtype=torch.float64), nn.Linear(1, 1, bias=False, dtype=torch.float64)]
    layers[1].weight.data.fill_(2.0**20)  # adds no rounding of its own
    inputs = torch.randn(5, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for model in (nn.Sequential(layers[0]), nn.Sequential(*layers)):
        steps = graph.read(model, (20,))
        found.append(running_error.evaluate(steps, running_error.step_norms(steps), inputs)[1])
    assert (found[1] >= 2.0**20 * found[0]).all()
