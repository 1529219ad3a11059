"""Tracing a segment, beside the shortest tracer that can be written for fully connected networks.

In CPU seconds of all cores: OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/bench_segment.py. No package that
installs traces a segment.
"""

import itertools
import time

import numpy as np
import pytest
import torch
from torch import nn

from empirical import models
from lipschitz import segment, stages, tracing

CPU = torch.device("cpu")
pytestmark = pytest.mark.benchmark(timer=time.process_time)


def dense_network(n_hidden=4, width=1024, n_inputs=3072, n_outputs=10):
    generator = torch.Generator().manual_seed(0)
    widths = [n_inputs, *[width] * n_hidden, n_outputs]
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
        nn.init.normal_(layers[-2].weight, std=(2 / before) ** 0.5, generator=generator)
        nn.init.zeros_(layers[-2].bias)
    return nn.Sequential(*layers[:-1]).eval()


def ends(*shape):
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def trace_in_numpy(weights, biases, a, b):
    """Breakpoints and outputs of a ReLU network on a segment; no error bound, no memory bound, no other layers."""
    t, values = np.array([0.0, 1.0]), np.stack([a, b])
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        values = values @ weight.T + bias
        pieces, entries = np.nonzero((values[1:] > 0) != (values[:-1] > 0))
        left, right = values[pieces, entries], values[pieces + 1, entries]
        times = t[pieces] + left / (left - right) * (t[pieces + 1] - t[pieces])
        grid = np.union1d(t, times)
        place = np.clip(np.searchsorted(t, grid, side="right") - 1, 0, len(t) - 2)
        share = ((grid - t[place]) / (t[place + 1] - t[place]))[:, None]
        t, values = grid, np.maximum((1 - share) * values[place] + share * values[place + 1], 0)
    return t, values @ weights[-1].T + biases[-1]


def test_dense_network_in_numpy(benchmark):
    linear = [layer for layer in dense_network() if isinstance(layer, nn.Linear)]
    weights, biases = (
        [getattr(layer, name).detach().double().numpy() for layer in linear] for name in ("weight", "bias")
    )
    a, b = ends(3072).numpy()
    t, _ = benchmark(trace_in_numpy, weights, biases, a, b)
    benchmark.extra_info["n_pieces"] = len(t) - 1


def test_dense_network_traced(benchmark):
    prepared = stages.prepare(dense_network(), (3072,), device=CPU)
    stretches = benchmark(lambda: list(tracing.trace(prepared, *ends(3072))))
    benchmark.extra_info["n_pieces"] = sum(len(stretch.t) - 1 for stretch in stretches)
    benchmark.extra_info["upper_error"] = max(stretch.upper_error for stretch in stretches)


def test_dense_network_certified(benchmark):
    model = dense_network()
    found = benchmark.pedantic(segment.certify_segment, (model, *ends(3072), 0, 100.0), rounds=3)
    assert found.status == "certified"


@pytest.mark.parametrize("scale", [0.01, 0.1])
def test_residual_network_between_noise_images(benchmark, scale):
    model = models.build("resnet18", generator=torch.Generator().manual_seed(0), device=CPU)
    prepared = stages.prepare(model, (3, 32, 32), device=CPU)
    a, b = ends(3, 32, 32)
    stretches = benchmark.pedantic(lambda: list(tracing.trace(prepared, a, torch.lerp(a, b, scale))), rounds=1)
    benchmark.extra_info["n_pieces"] = sum(len(stretch.t) - 1 for stretch in stretches)
    benchmark.extra_info["upper_error"] = max(stretch.upper_error for stretch in stretches)
