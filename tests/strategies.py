"""Every hypothesis strategy for the objects of the toolkit; small by default, limits are keywords."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.nn import functional

from lipschitz import fully_connected


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the function of x."""
        return self.function(x)


PIECEWISE_LINEAR = (nn.ReLU6, nn.PReLU, lambda: nn.Hardtanh(-0.4, 0.3), lambda: Function(torch.abs))
"""Layers that are made of ReLUs of more than one kind."""

CURVED = (
    *(nn.GELU, lambda: nn.GELU("tanh"), nn.SiLU, nn.Mish, nn.Hardswish, nn.ELU, nn.SELU, lambda: nn.CELU(0.5)),
    *(lambda: nn.ELU(0.3), nn.Softplus, nn.LogSigmoid, lambda: nn.Softshrink(0.2), lambda: Function(torch.cos)),
    lambda: Function(torch.atan),
)
"""Smooth pointwise layers, some with kinks."""

GROUPED = (
    lambda: Function(lambda x: torch.softmax(x, -1)),
    lambda: Function(lambda x: torch.log_softmax(x, -1)),
    lambda: Function(lambda x: functional.layer_norm(x, x.shape[-1:], eps=0.1)),
)
"""Layers of all numbers of the last axis."""


@dataclass(frozen=True)
class LabelledLattice:
    """A small lattice of labels (negative: empty) with its boundaries and the reach of a bond."""

    labels: np.ndarray
    periodic: tuple[bool, ...]
    reach: int


@st.composite
def labelled_lattices(draw: st.DrawFn, *, max_axes: int = 4, max_sites: int = 200) -> LabelledLattice:
    """Lattices of one to four axes, of up to three labels."""
    shape = draw(
        st.lists(st.integers(1, 7), min_size=1, max_size=max_axes).filter(lambda s: int(np.prod(s)) <= max_sites)
    )
    labels = draw(hnp.arrays(np.int16, tuple(shape), elements=st.integers(-1, 3)).filter(_is_no_mask))
    periodic = tuple(draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape))))
    return LabelledLattice(labels=labels, periodic=periodic, reach=draw(st.integers(0, 1)))


def _is_no_mask(labels: np.ndarray) -> bool:
    """Zeros and ones alone, both of them, may be a mask or labels, and are refused."""
    return (int(labels.min()), int(labels.max())) != (0, 1)


def deltas() -> st.SearchStrategy[float]:
    """Interval lengths 1/n."""
    return st.integers(1, 200).map(lambda n: 1 / n)


def probabilities() -> st.SearchStrategy[float]:
    """Probabilities in [0, 1], the ends included."""
    return st.floats(0, 1, allow_subnormal=False)


@st.composite
def matrices(draw: st.DrawFn, *, max_side: int = 8, max_exponent: int = 200) -> np.ndarray:
    """Float64 matrices: any, of rank one, with rows of very different size, zero; entries up to 10^max_exponent."""
    shape = draw(st.tuples(st.integers(1, max_side), st.integers(1, max_side)))
    numbers = st.floats(-1.0, 1.0, allow_subnormal=False)
    kind = draw(st.sampled_from(["any", "rank one", "bad rows", "zero"]))
    if kind == "zero":
        return np.zeros(shape)
    if kind == "rank one":
        matrix = np.outer(*(draw(hnp.arrays(np.float64, length, elements=numbers)) for length in shape))
    else:
        matrix = draw(hnp.arrays(np.float64, shape, elements=numbers))
    exponents = st.integers(-max_exponent, max_exponent)
    if kind == "bad rows":
        return matrix * 10.0 ** draw(hnp.arrays(np.int64, (shape[0], 1), elements=exponents)).astype(float)
    return matrix * 10.0 ** draw(exponents)


@st.composite
def small_networks(draw: st.DrawFn, *, max_depth: int = 4, max_width: int = 6) -> nn.Sequential:
    """Random fully connected networks of every kind: depth, width, activations, gain, biases, precision."""
    return fully_connected.random_network(
        draw(st.integers(1, max_width)),
        depth=draw(st.integers(1, max_depth)),
        width=draw(st.integers(1, max_width)),
        n_outputs=draw(st.integers(1, 3)),
        activation=draw(st.sampled_from(["tanh", "relu", "erf", "sin"])),
        final_activation=draw(st.sampled_from(["gaussian_cdf", "sigmoid"])),
        gain=draw(st.floats(0.1, 5.0)),
        bias_std=draw(st.floats(0.0, 2.0)),
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
        generator=torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1))),
    )


@st.composite
def networks_of_any_scale(draw: st.DrawFn, *, n_outputs: int | None = None) -> nn.Sequential:
    """Tiny ReLU networks in float64 whose weights are whole numbers times powers of two, from 2^-1074 to 2^1020.

    Often the powers of all layers together are near one, so that what is lost on the way matters at the end.
    """
    sizes = draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    sizes[-1] = n_outputs or sizes[-1]
    exponents: list[int] = []
    layers: list[nn.Module] = []
    for place, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        exponents.append(draw(st.integers(-1074, 1020) | st.integers(-700, 700)))
        if place + 2 == len(sizes) and draw(st.booleans()):
            exponents[-1] = max(-1074, min(1020, draw(st.integers(-3, 3)) - sum(exponents[:-1])))
        layer = nn.Linear(n_in, n_out, dtype=torch.float64)
        spread = draw(st.sampled_from([0, 0, 500]))
        for parameter in (layer.weight, layer.bias):
            shape = tuple(parameter.shape)
            numbers = draw(hnp.arrays(np.int64, shape, elements=st.integers(-3, 3))).astype(float)
            lower = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, spread)))
            parameter.data.copy_(torch.from_numpy(np.ldexp(numbers, np.maximum(exponents[-1] - lower, -1074))))
        if draw(st.booleans()):
            layer.bias.data.zero_()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def numbers_of_any_scale() -> st.SearchStrategy[float]:
    """Whole numbers times powers of two, from 2^-1074 to 2^1000."""
    exponents = st.integers(-1074, 1000) | st.integers(-30, 3)
    return st.builds(lambda number, exponent: float(np.ldexp(float(number), exponent)), st.integers(-9, 9), exponents)


@st.composite
def images(draw: st.DrawFn, *, max_images: int = 3, max_side: int = 6) -> torch.Tensor:
    """Float32 images (n, 3, h, w) of small whole numbers, so that sums of their differences are exact."""
    shape = (draw(st.integers(1, max_images)), 3, draw(st.integers(1, max_side)), draw(st.integers(1, max_side)))
    return torch.from_numpy(draw(hnp.arrays(np.int8, shape, elements=st.integers(-9, 9)))).float()


@st.composite
def linear_classifiers(draw: st.DrawFn, *, max_gain: float = 3.0) -> nn.Module:
    """Networks 3x4x4 -> 5 logits that are one linear map: their cross-entropy is convex in the input."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    gain = draw(st.floats(0.1, max_gain))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=gain / 7, generator=generator)
    return network


@dataclass(frozen=True)
class OccupationOrder:
    """A small lattice and the order in which its sites, or bonds, are occupied."""

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]
    by_bond: bool
    order: tuple[int, ...]


@st.composite
def occupation_orders(draw: st.DrawFn) -> OccupationOrder:
    """Lattices of one to three axes, at least 3 along a periodic one, with a permutation of sites or bonds."""
    n_axes = draw(st.integers(1, 3))
    periodic = tuple(draw(st.lists(st.booleans(), min_size=n_axes, max_size=n_axes)))
    longest = {1: 8, 2: 4, 3: 3}[n_axes]
    shape = tuple(draw(st.integers(3 if around else 1, longest)) for around in periodic)
    by_bond = draw(st.booleans())
    elements = list(range(int(np.prod(shape))))
    if by_bond:
        sites = np.arange(int(np.prod(shape))).reshape(shape)
        starts = [
            sites if around else sites.take(range(shape[axis] - 1), axis=axis) for axis, around in enumerate(periodic)
        ]
        elements = [int(n_axes * site + axis) for axis in range(n_axes) for site in starts[axis].ravel()]
    return OccupationOrder(
        shape=shape, periodic=periodic, by_bond=by_bond, order=tuple(draw(st.permutations(elements)))
    )


@st.composite
def dense_lattices(draw: st.DrawFn, *, max_axes: int = 3, max_sites: int = 150) -> LabelledLattice:
    """Lattices of one to three axes with few labels, mostly periodic: clusters that wrap, in every manner."""
    shape = draw(
        st.lists(st.integers(1, 9), min_size=1, max_size=max_axes).filter(lambda s: int(np.prod(s)) <= max_sites)
    )
    top = draw(st.integers(0, 2))
    elements = st.sampled_from([-1, *range(top + 1), 0])
    labels = draw(hnp.arrays(np.int8, tuple(shape), elements=elements).filter(_is_no_mask))
    periodic = tuple(draw(st.sampled_from([True, True, False])) for _ in shape)
    return LabelledLattice(labels=labels, periodic=periodic, reach=draw(st.integers(0, 1)))


def block_sizes() -> st.SearchStrategy[tuple[int, int]]:
    """Sites of a block and of a chunk of the labelling, down to one, so that small lattices have many of them."""
    return st.sampled_from([(1, 1), (2, 7), (3, 3), (8, 24), (64, 200), (1024, 65536)])


@st.composite
def graph_networks(
    draw: st.DrawFn,
    *,
    pointwise: tuple[Callable[[], nn.Module], ...] = (
        *(nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, *PIECEWISE_LINEAR),
        *(*CURVED, *GROUPED),
    ),
) -> tuple[nn.Module, tuple[int, ...]]:
    """A random network of every layer kind, in float64 and evaluation mode, and the shape of its input.

    Convolutions (strided, padded, dilated, grouped), BatchNorm, pointwise functions, poolings that overlap and are
    padded, residual blocks, concatenations, a number that multiplies, and a Linear at the end.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    n_axes = draw(st.sampled_from([0, 1, 2, 2]))
    side = draw(st.integers(3, 6))
    input_shape = (draw(st.integers(1, 3)), *(side, side + 1)[:n_axes]) if n_axes else (draw(st.integers(1, 6)),)
    network = nn.Sequential()
    shape = input_shape
    for _ in range(draw(st.integers(1, 4))):
        layer = _graph_layer(draw, shape, pointwise).eval()
        shape = tuple(layer(torch.zeros(1, *shape, dtype=torch.float64)).shape[1:])
        network.append(layer)
    if draw(st.booleans()):
        network.append(nn.Flatten()).append(nn.Linear(int(np.prod(shape)), 2, dtype=torch.float64))
    for layer in network.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.1, 3, generator=generator)
        for parameter in layer.parameters(recurse=False):
            nn.init.normal_(parameter, std=draw(st.sampled_from([0.3, 1.0])), generator=generator)
    return network.eval(), input_shape


class Residual(nn.Module):
    """A block added to its input."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return block(x) + x."""
        y: torch.Tensor = self.block(x) + x
        return y


class Branches(nn.Module):
    """Blocks side by side, concatenated, multiplied by a number and shifted."""

    def __init__(self, *blocks: nn.Module, factor: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return factor * (blocks[0](x), ...) + 1."""
        return torch.cat([block(x) for block in self.blocks], 1) * self.factor + 1.0


def _graph_layer(draw: st.DrawFn, shape: tuple[int, ...], pointwise: tuple[Callable[[], nn.Module], ...]) -> nn.Module:
    """A layer or a small block that takes inputs of this shape."""
    n_channels, sides = shape[0], shape[1:]
    function = draw(st.sampled_from(pointwise))().double()
    kinds = ["layer", "layer", "normalised", "residual", "branches", "function"]
    kind = draw(st.sampled_from([*kinds, "max", "average", "adaptive"] if len(sides) == 2 else kinds))

    def linear(n_outputs: int, *, keep_shape: bool) -> nn.Module:
        if not sides:
            return nn.Linear(n_channels, n_outputs, dtype=torch.float64)
        convolution = nn.Conv2d if len(sides) == 2 else nn.Conv1d
        n_groups = draw(st.sampled_from([1, np.gcd(n_channels, n_outputs)]))
        if keep_shape:
            return convolution(n_channels, n_outputs, 3, padding=1, groups=int(n_groups), dtype=torch.float64)
        size = draw(st.integers(1, min(3, *sides)))
        stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, 2))
        dilation = draw(st.integers(1, 2)) if (size - 1) * 2 < min(sides) else 1
        return convolution(
            n_channels, n_outputs, size, stride, padding, dilation, int(n_groups), False, dtype=torch.float64
        )

    def normalised(n_outputs: int, *, keep_shape: bool) -> list[nn.Module]:
        norm = nn.BatchNorm2d if len(sides) == 2 else nn.BatchNorm1d
        return [
            linear(n_outputs, keep_shape=keep_shape),
            norm(n_outputs, dtype=torch.float64, affine=draw(st.booleans())),
            function,
        ]

    n_outputs = draw(st.integers(1, 4))
    match kind:
        case "layer":
            return nn.Sequential(linear(n_outputs, keep_shape=False), function)
        case "normalised":
            return nn.Sequential(*normalised(n_outputs, keep_shape=False), nn.Dropout())
        case "residual":
            return Residual(
                nn.Sequential(*normalised(n_channels, keep_shape=True), linear(n_channels, keep_shape=True))
            )
        case "branches":
            first = nn.Sequential(*normalised(n_outputs, keep_shape=True))
            factor = draw(st.sampled_from([-1.5, 0.25]))
            return Branches(first, linear(2, keep_shape=True), nn.Identity(), factor=factor)
        case "function":
            return function
        case "adaptive":
            return nn.AdaptiveAvgPool2d((draw(st.integers(1, 3)), draw(st.integers(1, 3))))
    size = draw(st.integers(1, min(3, *sides)))
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(0, size // 2))
    if kind == "max":
        dilation = draw(st.integers(1, 2)) if (size - 1) * 2 < min(sides) else 1
        return nn.MaxPool2d(size, stride, padding, dilation, ceil_mode=draw(st.booleans()))
    divisor = draw(st.sampled_from([None, 2]))
    return nn.AvgPool2d(size, stride, padding, draw(st.booleans()), draw(st.booleans()), divisor)


@dataclass(frozen=True)
class Convolution:
    """Weights, shape (c_out, c_in / groups, k_h, k_w), and how they are applied to an image."""

    weight: np.ndarray
    input_shape: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int


@st.composite
def convolutions(draw: st.DrawFn, *, max_channels: int = 3, max_side: int = 6) -> Convolution:
    """Convolutions of every form: kernels larger and smaller than stride, padding and image, even, odd, in groups."""

    def pair(least: int, most: int) -> tuple[int, int]:
        return draw(st.integers(least, most)), draw(st.integers(least, most))

    groups = draw(st.integers(1, 3))
    shape = (groups * draw(st.integers(1, max_channels)), draw(st.integers(1, max_channels)), *pair(1, 4))
    dilation, padding, sides = pair(1, 3), pair(0, 4), pair(1, max_side)
    # an image with its padding holds one window at least
    height, width = (
        max(side, d * (kernel - 1) + 1 - 2 * p)
        for side, d, kernel, p in zip(sides, dilation, shape[2:], padding, strict=True)
    )
    kind = draw(st.sampled_from(["gaussian", "positive", "whole"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.integers(-2, 3, shape).astype(float) if kind == "whole" else rng.standard_normal(shape)
    return Convolution(
        weight=np.abs(weight) if kind == "positive" else weight,
        input_shape=(height, width),
        stride=pair(1, 5),
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


@st.composite
def cells_of_cubes(draw: st.DrawFn, *, max_dimension: int = 3, max_cubes: int = 150) -> np.ndarray:
    """Cells 0 to 3 (delta = 1/2) of the n^d cubes of a box, with more than one cube."""
    dimension = draw(st.integers(1, max_dimension))
    n_cells = draw(st.integers(2, int(max_cubes ** (1 / dimension) + 1e-9)))
    return draw(hnp.arrays(np.int64, (n_cells,) * dimension, elements=st.integers(0, 3)))
