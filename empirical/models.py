"""Networks by name, initialised from an explicit generator.

A network maps images (n, 3, 32, 32), in the normalised pixel space of the data, to n x 10 logits. The global random
state is never touched: networks are laid out without memory on torch's meta device and then filled, in the order of
their modules, with torchvision's distributions drawn from the caller's generator on the CPU. The same generator state
gives the same network on every device.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18

N_CLASSES = 10
IMAGE_SHAPE = (3, 32, 32)

Network = Literal["resnet18", "resnet18_cifar", "convnet"]


def build(name: Network, *, generator: torch.Generator, device: str | torch.device = "cpu") -> nn.Module:
    """Return the untrained network ``name`` in evaluation mode.

    Parameters
    ----------
    name : str
        ``"resnet18"``: torchvision's form with 10 outputs, its 7x7 stem of stride 2 and its max-pool kept (Figs. 6, 9
        and 10 in the authors' code); ``"resnet18_cifar"``: a 3x3 stem of stride 1 and no max-pool (Fig. 12);
        ``"convnet"``: three small convolutions, for tests and quick looks.
    generator : torch.Generator
        On the CPU; advanced by one draw for each weight.
    device : str or torch.device
        Where the network is to live.

    Returns
    -------
    nn.Module
        float32 parameters; batch norms with weight 1, bias 0, running mean 0 and running variance 1.

    Raises
    ------
    ValueError
        If the name is not known.
    """
    with torch.device("meta"):
        network = _layout(name)
    network.to_empty(device="cpu")
    for module in network.modules():
        _initialise(module, generator)
    return network.eval().to(device)


def _layout(name: str) -> nn.Module:
    if name == "convnet":
        return nn.Sequential(
            *_convolution(3, 16), *_convolution(16, 32), *_convolution(32, 64), nn.Flatten(), nn.Linear(1024, N_CLASSES)
        )
    if name not in ("resnet18", "resnet18_cifar"):
        raise ValueError(f"network must be one of resnet18, resnet18_cifar, convnet, got {name}")
    network: nn.Module = resnet18(num_classes=N_CLASSES)
    if name == "resnet18_cifar":
        network.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    return network


def _convolution(n_in: int, n_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(n_in, n_out, kernel_size=3, stride=2, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()


def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Fill the module's own parameters and buffers as torchvision's ResNet does."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
    elif isinstance(module, nn.BatchNorm2d):
        module.reset_parameters()
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.in_features)  # torch's default, for the weight as for the bias
        nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        nn.init.uniform_(module.bias, -bound, bound, generator=generator)


def generator_from(seed: np.random.SeedSequence, *key: int) -> torch.Generator:
    """Return a generator on the CPU for the child ``key`` of ``seed``; no child shifts another."""
    child = np.random.SeedSequence(entropy=seed.entropy, spawn_key=(*seed.spawn_key, *key))
    return torch.Generator().manual_seed(int(child.generate_state(1, np.uint64)[0]))


def check_device(device: str) -> torch.device:
    """Return the device, or raise ValueError if this computer does not have it."""
    is_there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not is_there.get(device.split(":")[0], False):
        names = ", ".join(name for name, there in is_there.items() if there)
        raise ValueError(f"device must be one that this computer has ({names}), got {device}")
    return torch.device(device)


def device_of(network: nn.Module) -> torch.device:
    """Return the device of the network's parameters."""
    return next(network.parameters()).device


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


def with_matrices(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """Return the network with each convolution that puts out a single pixel as the matrix that it then is.

    A 3x3 kernel on one pixel and its padding multiplies zeros with eight ninths of its weights. Leaving them out
    changes rounding only, and an optimisation step of a ResNet18 on 32x32 images takes two thirds of the time
    (measured on a CPU, 2 to 20 images). If anything changes it is a copy, which does not follow ``network`` any more.
    """
    shapes: dict[str, tuple[torch.Size, torch.Size]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        return lambda _module, arguments, output: shapes.update({name: (arguments[0].shape, output.shape)})

    plain = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    }
    handles = [module.register_forward_hook(note(name)) for name, module in plain.items()]
    try:
        with frozen(network), torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    single = {name: before for name, (before, after) in shapes.items() if tuple(after[2:]) == (1, 1)}
    if not single:
        return network
    faster = copy.deepcopy(network)
    for name, before in single.items():
        faster.set_submodule(name, _Matrix(plain[name], height=before[2], width=before[3]))
    return faster


class _Matrix(nn.Module):
    """A convolution with one output pixel: the part of the kernel that meets the image, not its padding."""

    matrix: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, convolution: nn.Conv2d, *, height: int, width: int) -> None:
        super().__init__()
        top, left = (int(side) for side in convolution.padding)
        kernel = convolution.weight.detach()[:, :, top : top + height, left : left + width]
        self.seen = kernel.shape[2:]
        self.register_buffer("matrix", kernel.flatten(1).contiguous())
        self.register_buffer("bias", None if convolution.bias is None else convolution.bias.detach())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, c, 1, 1)."""
        rows, columns = self.seen
        return functional.linear(images[:, :, :rows, :columns].flatten(1), self.matrix, self.bias)[:, :, None, None]
