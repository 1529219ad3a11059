"""Norms of the convolutions of ResNet18 and GoogLeNet, beside what others say, on an idle machine:
python -m pytest -s tests/benchmarks/bench_norms.py

A line a layer: bounds, gap, method, seconds; then orthogonium (if it is installed; four Gram iterations, layers of at
most 64 channels), the norm of the reshaped kernel (torch's spectral_norm), and the largest singular value on the torus
of the image's size (Sedghi, Gupta, Long 2019; stride 1). Only ours is of the layer as it stands. Last, the peak memory.
"""

import importlib
import resource
import time

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from lipschitz import convolutions

NETWORKS = {
    "resnet18 at 32": (lambda: torchvision.models.resnet18(num_classes=10), 32),
    "resnet18 at 224": (lambda: torchvision.models.resnet18(), 224),
    "googlenet at 224": (lambda: torchvision.models.googlenet(aux_logits=False, init_weights=False), 224),
}


def layers(model, side):
    """Every convolution with the height and width of what it reads."""
    found = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, inputs, _, name=name: found.append((name, layer, tuple(inputs[0].shape[2:])))
            )
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side))
    return found


def bound(layer, input_shape):
    settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    return convolutions.bound_norm(layer.weight, input_shape=input_shape, **settings)


def on_the_torus(layer, input_shape):
    if layer.stride != (1, 1) or layer.groups > 1:
        return float("nan")
    symbols = np.fft.fft2(layer.weight.detach().double().numpy(), input_shape)
    return np.linalg.norm(symbols.transpose(2, 3, 0, 1).reshape(-1, *symbols.shape[:2]), 2, axis=(1, 2)).max()


def by_orthogonium(layer):
    try:
        peer = importlib.import_module("orthogonium.layers.conv.singular_values")
    except ImportError:
        return float("nan")
    if max(layer.in_channels, layer.out_channels) > 64:
        return float("nan")
    return float(peer.get_conv_sv(layer, n_iter=4, return_stab_rank=False))


def line(name, layer, input_shape, found, seconds):
    reshaped = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
    sizes = "x".join(map(str, layer.weight.shape)), "x".join(map(str, input_shape)), f"s{layer.stride[0]}"
    return (
        f"{name:28s} {' '.join(sizes):24s} {found.upper:9.6f} {found.upper / found.lower - 1:.1e} {found.method:9s}"
        f" {seconds:5.1f} s | {by_orthogonium(layer):9.6f} {reshaped:9.6f} {on_the_torus(layer, input_shape):9.6f}"
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_every_convolution(benchmark, network):
    torch.manual_seed(0)
    build, side = NETWORKS[network]
    found, lines = [], []

    def run():
        for name, layer, input_shape in layers(build(), side):
            start = time.perf_counter()
            found.append(bound(layer, input_shape))
            lines.append((name, layer, input_shape, found[-1], time.perf_counter() - start))

    benchmark.pedantic(run, rounds=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\n{network}: ours; orthogonium, reshaped kernel, torus", *(line(*each) for each in lines), sep="\n")
    print(f"{benchmark.stats.stats.total:.0f} s in all, {peak:.2f} GB")
    assert all(each.upper <= 1.001 * each.lower for each in found)


def test_what_others_get_wrong(benchmark):
    torch.manual_seed(0)
    grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
    grouped.weight.data /= 2.0
    plain = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    found = benchmark.pedantic(lambda: [bound(layer, (8, 8)) for layer in (grouped, plain)], rounds=1)
    print()
    for name, layer, each in zip(("four groups", "one group"), (grouped, plain), found, strict=True):
        n = layer.in_channels * 64
        matrix = layer(torch.eye(n).reshape(n, -1, 8, 8)).flatten(1).detach().double()
        truth = torch.linalg.matrix_norm(matrix, 2)
        print(f"{line(name, layer, (8, 8), each, 0.0)}; by SVD {truth:.6f}")
