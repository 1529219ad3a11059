"""Networks by name, initialised from an explicit generator.

A network maps images (n, 3, 32, 32), in the normalised pixel space of the data, to n x 10 logits. The global random
state is never touched: networks are laid out without memory on torch's meta device and then filled, in the order of
their modules, with torchvision's distributions drawn from the caller's generator on the CPU. The same generator state
gives the same network on every device.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lipschitz import torchvision_operators
from percolation import arguments

torchvision_operators.declare()

from torchvision.models.resnet import BasicBlock, ResNet  # noqa: E402

N_CLASSES = 10
IMAGE_SHAPE = (3, 32, 32)

Network = Literal["resnet18", "resnet18_cifar", "convnet"]
Precision = Literal["float32", "bfloat16"]


def build(
    name: Network,
    *,
    generator: torch.Generator,
    width: int = 64,
    blocks: int = 2,
    gain: float = 1.0,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """Return the untrained network ``name`` in evaluation mode.

    Parameters
    ----------
    name : str
        ``"resnet18"``: torchvision's form with 10 outputs, its 7x7 stem of stride 2 and its max-pool kept (Figs. 6, 9
        and 10 in the authors' code); ``"resnet18_cifar"``: a 3x3 stem of stride 1 and no max-pool (Fig. 12);
        ``"convnet"``: three small convolutions, for images of 32x32, for tests and quick looks.
    generator : torch.Generator
        On the CPU; advanced by one draw for each weight.
    width : int
        Channels of a ResNet's first stage, doubled in each of the next three, 1 to 65,536. 64 is ResNet18.
    blocks : int
        Basic blocks, of two convolutions, in each of a ResNet's four stages, 1 to 1024. 2 is ResNet18.
    gain : float
        Factor on the standard deviation of the convolutions' weights, at least 0.
    device : str or torch.device
        Where the network is to live.

    Returns
    -------
    nn.Module
        float32 parameters; batch norms with weight 1, bias 0, running mean 0 and running variance 1.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the name is not known, a number is out of range, the weights take more than all of the memory, or a convnet
        is asked for in another width or depth than its own.
    """
    arguments.check_choice("network", name, get_args(Network))
    arguments.check_kind("generator", generator, torch.Generator)
    width = arguments.check_whole("width", width, least=1, most=2**16)
    blocks = arguments.check_whole("blocks", blocks, least=1, most=1024)
    gain = arguments.check_real("gain", gain, least=0)
    if name != "convnet":  # 85 width^2 of 3x3 kernels twice a block, of float32, but for the first blocks' halves
        arguments.check_memory("width and blocks", (width, blocks), 4 * 9 * 85 * width**2 * (2 * blocks - 1))
    with torch.device("meta"):
        network = _layout(name, width, blocks)
    network.to_empty(device="cpu")
    for module in network.modules():
        _initialise(module, generator, gain)
    return network.eval().to(device)


def logit_spread(network: nn.Module, image_size: int, generator: torch.Generator) -> float:
    """Return how far the logits of a ResNet lie apart: root mean square of a logit less the mean over classes.

    The mean is over classes and 512 images of unit noise, ``image_size`` pixels a side, drawn from ``generator`` on the
    CPU. The last bias is left out, so that a factor on the last layer's weights is one on this.

    Raises
    ------
    TypeError
        If an argument is of another kind, or the network no ResNet.
    ValueError
        If ``image_size`` is below 1, or the images take more than all of the memory.
    """
    arguments.check_kind("network", network, ResNet)
    image_size = arguments.check_whole("image_size", image_size, least=1)
    arguments.check_memory("image_size", image_size, 4 * 64 * 3 * image_size**2)
    arguments.check_kind("generator", generator, torch.Generator)
    images = (torch.randn(64, 3, image_size, image_size, generator=generator) for _ in range(8))
    bias, device = network.get_parameter("fc.bias"), device_of(network)
    with torch.no_grad():
        logits = torch.cat([network(image.to(device)) - bias for image in images]).double()
    return float((logits - logits.mean(dim=1, keepdim=True)).square().mean().sqrt())


class _ResNet(ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet of basic blocks in another width."""

    def __init__(self, width: int, blocks: int) -> None:
        self.width = width
        super().__init__(BasicBlock, [blocks] * 4, num_classes=N_CLASSES)
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.fc = nn.Linear(8 * width, N_CLASSES)

    def _make_layer(self, block: Any, planes: int, blocks: int, *arguments: Any, **options: Any) -> nn.Sequential:
        if planes == 64:
            self.inplanes = self.width
        layer: nn.Sequential = super()._make_layer(block, planes * self.width // 64, blocks, *arguments, **options)
        return layer


def _layout(name: str, width: int, blocks: int) -> nn.Module:
    if name == "convnet":
        if (width, blocks) != (64, 2):
            raise ValueError(f"width and blocks must be left at 64 and 2 for a convnet, got {width} and {blocks}")
        return nn.Sequential(
            *_convolution(3, 16), *_convolution(16, 32), *_convolution(32, 64), nn.Flatten(), nn.Linear(1024, N_CLASSES)
        )
    network = _ResNet(width, blocks)
    if name == "resnet18_cifar":
        network.conv1 = nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return network


def _convolution(n_in: int, n_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(n_in, n_out, kernel_size=3, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()


def _initialise(module: nn.Module, generator: torch.Generator, gain: float) -> None:
    """Fill the module's own parameters and buffers as torchvision's ResNet does, but for the gain."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        with torch.no_grad():
            module.weight *= gain
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.in_features)  # torch's default, for the weight as for the bias
        nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def generator_from(seed: np.random.SeedSequence, *key: int) -> torch.Generator:
    """Return a generator on the CPU for the child ``key`` of ``seed``; no child shifts another.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If a part of the key is negative.
    """
    arguments.check_kind("seed", seed, np.random.SeedSequence)
    key = tuple(arguments.check_whole("key", part, least=0) for part in key)
    child = np.random.SeedSequence(entropy=seed.entropy, spawn_key=(*seed.spawn_key, *key))
    return torch.Generator().manual_seed(int(child.generate_state(1, np.uint64)[0]))


def check_device(device: str) -> torch.device:
    """Return the device, or raise ValueError if this computer does not have it.

    On CUDA this turns TF32 convolutions off for the process, so that float32 losses are float32 there too.
    """
    arguments.check_kind("device", device, str)
    is_there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not is_there.get(device.split(":")[0], False):
        names = ", ".join(name for name, there in is_there.items() if there)
        raise ValueError(f"device must be one that this computer has ({names}), got {device}")
    if device.startswith("cuda"):
        torch.backends.cudnn.allow_tf32 = False
    return torch.device(device)


def device_of(network: nn.Module) -> torch.device:
    """Return the device of the network's parameters.

    Raises
    ------
    TypeError
        If it is no network.
    ValueError
        If it has no parameters.
    """
    arguments.check_kind("network", network, nn.Module)
    first = next(network.parameters(), None)
    if first is None:
        raise ValueError(f"network must have parameters, got {type(network).__name__} without")
    return first.device


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Hold the network in evaluation mode, without gradients to its parameters; afterwards it is as it was."""
    modes = [(module, module.training) for module in network.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    try:
        network.eval()
        network.requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in gradients:
            parameter.requires_grad_(flag)


def for_gradients(
    network: nn.Module, images: torch.Tensor, *, precision: Precision
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a faster way from images like ``images``, on their device, to the float32 logits of a frozen network.

    With ``"float32"`` they differ from the network's own by rounding only; with ``"bfloat16"`` by half a percent, in a
    third to two thirds of the time: autocast, with the channels of a pixel side by side in memory. On a GPU, where
    every kernel costs the same few microseconds, batch norms are folded into the convolutions before them.
    """
    arguments.check_choice("precision", precision, get_args(Precision))
    faster = with_matrices(folded(network, images) if images.is_cuda else network, images)
    if precision == "float32":
        return faster
    if faster is network:
        faster = copy.deepcopy(network)
    faster = faster.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    for module in faster.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | _Matrix):
            module.to(torch.bfloat16)  # what autocast would do again in every step

    def logits(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            found: torch.Tensor = faster(x.contiguous(memory_format=torch.channels_last))
        return found.float()

    return logits


def folded(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """Return a copy with each batch norm that takes what a convolution gives folded into the convolution.

    ``network`` is in evaluation mode. It is returned as it is if the copy does not give the same logits, beyond
    rounding: where what a convolution gives is used elsewhere too.
    """
    outputs: dict[str, torch.Tensor] = {}
    pairs: dict[str, str] = {}

    def note(name: str, _module: nn.Module, _arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        outputs[name] = output

    def match(name: str, _module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        for convolution, output in outputs.items():
            if output is arguments[0]:
                pairs[name] = convolution

    modules = dict(network.named_modules())
    handles = []
    for name, module in modules.items():
        if type(module) is nn.Conv2d:
            handles.append(module.register_forward_hook(functools.partial(note, name)))
        elif type(module) is nn.BatchNorm2d and module.track_running_stats:
            handles.append(module.register_forward_pre_hook(functools.partial(match, name)))
    try:
        with torch.no_grad():
            logits = network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    copied = copy.deepcopy(network)
    for norm, convolution in pairs.items():
        copied.set_submodule(convolution, fuse_conv_bn_eval(modules[convolution], modules[norm]))
        copied.set_submodule(norm, nn.Identity())
    with torch.no_grad():
        is_same = (copied(images[:1]) - logits).norm() <= 1e-3 * logits.norm()
    return copied if is_same else network


def with_matrices(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """Return the network with each convolution whose kernel is no smaller than its input as the matrix that it is.

    A 3x3 kernel on 1x1 or 2x2 pixels and their padding multiplies zeros with most of its weights. Leaving them out
    changes rounding only, and an optimisation step of a ResNet18 on 32x32 images takes two thirds of the time
    (measured on a CPU, 2 to 20 images). If anything changes it is a copy, which does not follow ``network`` any more.
    """
    shapes: dict[str, torch.Size] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        return lambda _module, arguments, _output: shapes.update({name: arguments[0].shape[1:]})

    plain = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros" and math.prod(module.kernel_size) > 1
    }
    handles = [module.register_forward_hook(note(name)) for name, module in plain.items()]
    try:
        with frozen(network), torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    small = {name: shape for name, shape in shapes.items() if shape[1:].numel() <= math.prod(plain[name].kernel_size)}
    if not small:
        return network
    faster = copy.deepcopy(network)
    for name, shape in small.items():
        faster.set_submodule(name, _Matrix(plain[name], shape))
    return faster


class _Matrix(nn.Module):
    """A convolution of inputs (n, *shape) as a matrix: what it makes of each of their basis vectors."""

    matrix: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, convolution: nn.Conv2d, shape: torch.Size) -> None:
        super().__init__()
        weight = convolution.weight.detach()
        basis = torch.eye(shape.numel(), dtype=weight.dtype, device=weight.device).reshape(-1, *shape)
        how = {name: getattr(convolution, name) for name in ("stride", "padding", "dilation", "groups")}
        columns = functional.conv2d(basis, weight, **how)
        self.shape = columns.shape[1:]
        self.register_buffer("matrix", columns.flatten(1).T.contiguous())
        bias = convolution.bias
        self.register_buffer("bias", None if bias is None else bias.detach().repeat_interleave(self.shape[1:].numel()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, *self.shape)."""
        return functional.linear(images.flatten(1), self.matrix, self.bias).reshape(-1, *self.shape)
