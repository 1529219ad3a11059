"""Training, from one number of batches to the next (App. E.1): batch 512, Adam with learning rate 1e-3.

Batch b is a function of a seed and b alone: the order of the images belongs to its epoch, flips and crops to itself.
So a training that was saved after any batch and goes on later, elsewhere, is the one that was never interrupted.
"""

from __future__ import annotations

import copy
import pickle
import zipfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from empirical.data import Images, normalise
from empirical.models import Precision, device_of, frozen, generator_from
from percolation import arguments

_CHUNK = 500  # test images in one forward pass
_PAD = 4
_ORDER, _CHANGES, _CALIBRATION = 0, 1, 2  # what a child of the seed is for
_CALIBRATION_BATCHES = 10
_FEW = 4  # output pixels up to which a convolution is done by matrices


@dataclass(slots=True, kw_only=True)
class Training:
    """A training under way: the network, in evaluation mode, its Adam, and the number of batches that are done."""

    network: nn.Module
    optimiser: torch.optim.Adam
    done: int = 0


def start(network: nn.Module, *, learning_rate: float) -> Training:
    """Return a training of ``network``, which is changed in place, that has done nothing yet.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the learning rate is not positive and finite.
    """
    arguments.check_kind("network", network, nn.Module)
    learning_rate = arguments.check_real("learning_rate", learning_rate, above=0)
    network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    return Training(network=network, optimiser=torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True))


def batches_per_epoch(data: Images, batch_size: int) -> int:
    """Return the number of batches of an epoch; the last one may be smaller.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If ``batch_size`` is below 1.
    """
    arguments.check_kind("data", data, Images)
    batch_size = arguments.check_whole("batch_size", batch_size, least=1)
    return -(-len(data.x_train) // batch_size)


def advance(
    training: Training,
    data: Images,
    *,
    until: int,
    batch_size: int,
    augment: bool,
    precision: Precision,
    seed: np.random.SeedSequence,
) -> None:
    """Train until ``until`` batches are done.

    Parameters
    ----------
    training : Training
        Changed in place.
    data : Images
        Its training images; moved to the network's device once.
    until : int
        Number of batches, counted from the first network.
    batch_size : int
        Images a batch; the last batch of an epoch holds the rest.
    augment : bool
        Mirror half of the images and shift each by up to 4 pixels, black from outside; for natural images only.
    precision : str
        ``"bfloat16"`` lets autocast choose where the forward and backward passes of a step are bfloat16; weights,
        statistics and Adam are float32 either way.
    seed : SeedSequence
        The only source of randomness, the same in every call of a training.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If more batches than ``until`` are done already, ``batch_size`` is below 1, or ``precision`` none of the two.

    Notes
    -----
    ResNet18, batch 512, one idle core of an AMD EPYC (Zen 5), augmentation included: 1,600 images a second in bfloat16,
    880 in float32; without lean convolutions 1,000 and 670 (tests/benchmarks/bench_training.py).
    """
    arguments.check_kind("training", training, Training)
    arguments.check_kind("data", data, Images)
    until = arguments.check_whole("until", until, least=0)
    batch_size = arguments.check_whole("batch_size", batch_size, least=1)
    arguments.check_kind("augment", augment, bool)
    arguments.check_choice("precision", precision, get_args(Precision))
    arguments.check_kind("seed", seed, np.random.SeedSequence)
    if until < training.done:
        raise ValueError(f"until must be at least the {training.done} batches done, got {until}")
    device = device_of(training.network)
    images, labels = data.x_train.to(device), data.y_train.to(device)
    # Lean convolutions save work on a CPU; on a GPU they would be more and smaller kernels.
    network = (_lean(training.network) if device.type == "cpu" else training.network).train()
    while training.done < until:
        rows = _rows(len(images), batch_size, training.done, seed).to(device)
        batch = images[rows]
        if augment:
            batch = augmented(batch, generator_from(seed, _CHANGES, training.done))
        batch = normalise(batch, data).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(batch)
        loss = functional.cross_entropy(logits.float(), labels[rows])
        training.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stubs
        training.optimiser.step()
        training.done += 1


def _rows(n: int, batch_size: int, batch: int, seed: np.random.SeedSequence) -> torch.Tensor:
    """Return the images of a batch: every epoch shows all of them, in an order of its own."""
    epoch, place = divmod(batch, -(-n // batch_size))
    order = torch.randperm(n, generator=generator_from(seed, _ORDER, epoch))
    return order[place * batch_size : (place + 1) * batch_size]


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the images (n, c, h, w), half of them mirrored, each shifted by up to 4 pixels either way.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the images have another number of axes, or there are none.
    """
    arguments.check_kind("images", images, torch.Tensor)
    if images.ndim != 4 or images.numel() == 0:
        raise ValueError(f"images must be (n, c, h, w), one or more, got shape {tuple(images.shape)}")
    arguments.check_kind("generator", generator, torch.Generator)
    n, _, height, width = images.shape
    mirrored = torch.rand(n, generator=generator) < 0.5
    shifts = torch.randint(2 * _PAD + 1, (2, n), generator=generator)
    columns = torch.arange(width).expand(n, -1)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns) + shifts[0][:, None]
    rows = torch.arange(height) + shifts[1][:, None]
    padded = functional.pad(images, (_PAD, _PAD, _PAD, _PAD)).permute(0, 2, 3, 1).contiguous()
    row, column = rows[:, :, None].to(images.device), columns[:, None, :].to(images.device)
    each = torch.arange(n, device=images.device)[:, None, None]
    return padded[each, row, column].permute(0, 3, 1, 2)


_DAMAGE = (
    *(OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError),
    *(zipfile.BadZipFile, pickle.UnpicklingError),
)


def save(training: Training, path: Path | BinaryIO) -> None:
    """Write the training to ``path``."""
    content = {
        "network": training.network.state_dict(),
        "optimiser": training.optimiser.state_dict(),
        "done": training.done,
    }
    torch.save(content, path)


def load(training: Training, path: Path | BinaryIO) -> None:
    """Bring ``training``, of the same network and learning rate, to where the one in ``path`` was saved.

    Raises
    ------
    ValueError
        If the file is not a whole one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch itself does not look at the check sums
        if damaged is not None:
            raise ValueError(f"{damaged} does not match its check sum")
        if not isinstance(path, Path):
            path.seek(0)
        content = torch.load(path, map_location=device_of(training.network), weights_only=True)
        network, optimiser, done = (content[name] for name in ("network", "optimiser", "done"))
        shapes = {name: tensor.shape for name, tensor in training.network.state_dict().items()}
        if {name: tensor.shape for name, tensor in network.items()} != shapes:
            raise ValueError("the weights of another network")
        training.optimiser.load_state_dict(optimiser)
    except _DAMAGE as error:
        raise ValueError(f"{path} must be a training that was saved, got {error}") from error
    training.network.load_state_dict(network)
    training.done = done


def recalibrate(network: nn.Module, data: Images, *, batch_size: int, seed: np.random.SeedSequence) -> None:
    """Set the statistics of every batch norm to their plain mean over ten batches of training images, in place.

    Running statistics forget their first values, mean 0 and variance 1, by a tenth a batch: after ten batches a third
    of a network in evaluation mode is still the untrained one. This takes them from the network as it is.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If ``batch_size`` is below 1.
    """
    arguments.check_kind("network", network, nn.Module)
    arguments.check_kind("data", data, Images)
    batch_size = arguments.check_whole("batch_size", batch_size, least=1)
    arguments.check_kind("seed", seed, np.random.SeedSequence)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches seen
    network.train()
    with torch.no_grad():
        for i in range(_CALIBRATION_BATCHES):
            rows = torch.randint(len(data.x_train), (batch_size,), generator=generator_from(seed, _CALIBRATION, i))
            network(normalise(data.x_train[rows].to(device_of(network)), data))
    network.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def accuracy(network: nn.Module, data: Images) -> float:
    """Return the share of test images that the network, in evaluation mode, puts in their class.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If there are no test images, or the network has no parameters.
    """
    arguments.check_kind("data", data, Images)
    if len(data.x_test) == 0:
        raise ValueError("data must have test images, got none")
    device = device_of(network)
    n_right = 0
    with frozen(network), torch.no_grad():
        for images, labels in zip(torch.split(data.x_test, _CHUNK), torch.split(data.y_test, _CHUNK), strict=True):
            guesses = network(normalise(images.to(device), data)).argmax(dim=1)
            n_right += int((guesses == labels.to(device)).sum())
    return n_right / len(data.x_test)


def _lean(network: nn.Module) -> nn.Module:
    """Return a twin that shares every parameter and buffer, its convolutions lean where they put out few pixels."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    twin = copy.deepcopy(network, shared)
    plain = {
        name: module
        for name, module in twin.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    }
    for name, convolution in plain.items():
        twin.set_submodule(name, _Lean(convolution))
    return twin


class _Lean(nn.Module):
    """A convolution that multiplies no padding where it puts out few pixels: one matrix a pixel.

    A 3x3 kernel on one pixel and its padding spends eight ninths of its work on zeros, on 2x2 pixels five ninths.
    Without them a training step of ResNet18 on 32x32 images takes two thirds of the time in bfloat16 (measured, batch
    512, one core).
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the convolution returns."""
        convolution = self.convolution
        kernel, stride, padding = convolution.kernel_size, convolution.stride, convolution.padding
        down, right = (
            _spans(images.shape[2 + axis], kernel[axis], stride[axis], int(padding[axis])) for axis in range(2)
        )
        if len(down) * len(right) > _FEW:
            found: torch.Tensor = convolution(images)
            return found
        pixels = []
        for (rows, kernel_rows), (columns, kernel_columns) in product(down, right):
            weight = convolution.weight[:, :, kernel_rows, kernel_columns]
            seen = images[:, :, rows, columns]
            pixels.append(functional.linear(seen.flatten(1), weight.flatten(1), convolution.bias))
        return torch.stack(pixels, dim=2).reshape(len(images), -1, len(down), len(right))


def _spans(size: int, kernel: int, stride: int, padding: int) -> list[tuple[slice, slice]]:
    """Return, for every output along one axis, the part of the image that the kernel meets, and that of the kernel."""
    firsts = [stride * i - padding for i in range((size + 2 * padding - kernel) // stride + 1)]
    spans = []
    for first in firsts:
        low = min(max(first, 0), size)
        high = max(min(first + kernel, size), low)  # a kernel may meet nothing but padding
        spans.append((slice(low, high), slice(low - first, high - first)))
    return spans
