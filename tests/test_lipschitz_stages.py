"""Stages of a network: what they compute in float64, against more digits, and how errors pass."""

import copy

import mpmath
import numpy as np
import pytest
import strategies
import torch
from torch import nn
from torch.nn import functional

from lipschitz import stages, tracing
from lipschitz.fully_connected import Erf, GaussianCdf, Sin

CPU = torch.device("cpu")
SMOOTH = (nn.Tanh, nn.Sigmoid, Erf, Sin, GaussianCdf)

LAYERS = [
    (nn.Linear(9, 4, bias=False), (9,)),
    (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), (3,)),
    (nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(2)), (2, 3)),  # of another axis: not folded
    (nn.Sequential(nn.Conv1d(2, 3, 2, stride=2), nn.BatchNorm1d(3)), (2, 5)),
    (nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4)), (2, 4, 5)),
    (nn.Conv2d(16, 2, 3, padding=1), (16, 40, 40)),  # too large to be written as a matrix
    (nn.BatchNorm2d(2, affine=False), (2, 3, 3)),
    (nn.AvgPool2d(3, 1, 1), (2, 4, 5)),
    (nn.AdaptiveAvgPool2d(2), (1, 5, 5)),
    (nn.LeakyReLU(0.3), (5,)),
    (strategies.Residual(nn.Identity()), (5,)),
    (strategies.Branches(nn.Identity(), factor=0.3), (5,)),
]


def in_long_double(layer, x):
    """What a layer computes, in 64 bits of mantissa, for one input."""
    if isinstance(layer, (nn.Sequential, strategies.Residual, strategies.Branches)):
        value = x
        for part in layer if isinstance(layer, nn.Sequential) else []:
            value = in_long_double(part, value)
        if isinstance(layer, strategies.Residual):
            return x + x
        return value if isinstance(layer, nn.Sequential) else np.longdouble(layer.factor) * x + 1
    if isinstance(layer, nn.LeakyReLU):
        return np.where(x > 0, x, np.longdouble(layer.negative_slope) * x)
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
        one = np.longdouble(1)
        mean, variance, scale, shift = (
            default if tensor is None else wide(tensor).reshape(-1, *(1,) * (x.ndim - 1))
            for tensor, default in (
                (layer.running_mean, 0), (layer.running_var, 1), (layer.weight, one), (layer.bias, 0 * one)
            )
        )  # fmt: skip
        return (x - mean) / np.sqrt(variance + np.longdouble(layer.eps)) * scale + shift
    if isinstance(layer, (nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
        sums, counts = window_sums(layer, x)
        return sums / counts
    bias = 0 if layer.bias is None else wide(layer.bias)
    if isinstance(layer, nn.Linear):
        return x @ wide(layer.weight).T + bias
    images = torch.from_numpy(x.astype(float))  # an input: exact
    weight = layer.weight if images.ndim == 3 else layer.weight[:, :, None]
    settings = {"dilation": layer.dilation, "padding": layer.padding, "stride": layer.stride}
    if images.ndim == 2:
        images, settings = images[:, None], {"stride": (1, *layer.stride)}
    windows = functional.unfold(images[None], weight.shape[2:], **settings)[0]
    grouped = wide(weight.flatten(1).unflatten(0, (layer.groups, -1))) @ wide(windows.unflatten(0, (layer.groups, -1)))
    y = grouped.reshape(len(weight), -1) + bias[:, None]
    return y.reshape(len(weight), *layer(torch.from_numpy(x.astype(float))[None]).shape[2:])


def wide(tensor):
    return tensor.detach().numpy().astype(np.longdouble)


def window_sums(layer, x):
    """Sums over the windows of a pooling and their numbers of entries, the padding among them."""
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        (n, side) = layer.output_size, x.shape[-1]
        spans = [(k * side // n, -(-(k + 1) * side // n)) for k in range(n)]
        sums = np.array([[[plane[i:j, k:m].sum() for k, m in spans] for i, j in spans] for plane in x])
        return sums, np.array([[(j - i) * (m - k) for k, m in spans] for i, j in spans])
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2)).sum((-2, -1)), 9


@pytest.mark.parametrize("layer, shape", LAYERS)
def test_affine_stages_compute_what_the_layers_do_to_rounding(layer, shape):
    generator = torch.Generator().manual_seed(0)
    layer = copy.deepcopy(layer).eval()
    for part in layer.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.normal_(generator=generator)
            part.running_var.uniform_(0.1, 3, generator=generator)
        for parameter in part.parameters(recurse=False):
            nn.init.normal_(parameter, generator=generator)
    prepared = stages.prepare(layer, shape, device=CPU)
    exact = layer.double()
    x, y = torch.randn(2, 3, *shape, generator=generator, dtype=torch.float64)
    x[0] = 0.0  # leaves the rounding of what is added alone
    (outputs, error), (others, _) = (stages.evaluate(prepared, values) for values in (x, y))
    stretch = (others - outputs).flatten(1).norm(dim=1) / (y - x).flatten(1).norm(dim=1)
    assert float(stretch.max()) <= stages.upper_gains(prepared)[0] * (1 + 1e-12)
    for point, output in zip(x, outputs, strict=True):
        gap = wide(output) - in_long_double(exact, wide(point))
        (only,) = tracing.trace(prepared, point, point)
        assert float(np.sqrt((gap**2).sum())) <= only.upper_error <= error * (1 + 1e-8)


@pytest.mark.parametrize(
    "function, exact",
    [
        (nn.Tanh, mpmath.tanh),
        (nn.Sigmoid, lambda x: 1 / (1 + mpmath.exp(-x))),
        (Erf, mpmath.erf),
        (Sin, mpmath.sin),
        (GaussianCdf, mpmath.ncdf),
    ],
)
def test_smooth_functions_are_as_right_as_is_assumed(function, exact):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.cat([x, 4 * x, 100 * x])
    stage = stages.prepare(function().eval(), (1,), device=CPU)[-1]
    found = stage.run([x]).tolist()
    with mpmath.workdps(50):
        gaps = [abs(y - exact(mpmath.mpf(point))) for point, y in zip(x.tolist(), found, strict=True)]
    assert max(gaps) <= stage.rounding < 1e-14


@pytest.mark.parametrize("function", SMOOTH)
def test_curvature_is_that_of_the_function(function):
    x = torch.linspace(-4, 4, 80001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(function()(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    (stage,) = [s for s in stages.prepare(function(), (1,), device=CPU) if s.kind == "smooth"]
    assert 0.999 * stage.bend <= float(curvature.abs().max()) <= stage.bend
