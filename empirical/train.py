"""Training with snapshots after chosen numbers of batches (App. E.1): batch 512, Adam with learning rate 1e-3.

Every random choice, the order of the images, the flips and the crops, comes from one explicit generator on the CPU,
drawn batch by batch: where snapshots are taken changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional

from empirical.data import Images, normalise
from empirical.models import device_of, frozen

_CHUNK = 500  # test images in one forward pass
_PAD = 4


def batches_per_epoch(data: Images, batch_size: int) -> int:
    """Return the number of batches of an epoch; the last one may be smaller."""
    return -(-len(data.x_train) // batch_size)


def snapshots(
    network: nn.Module,
    data: Images,
    *,
    stages: Sequence[int],
    batch_size: int,
    learning_rate: float,
    augment: bool,
    generator: torch.Generator,
) -> Iterator[int]:
    """Train ``network`` in place and stop after each number of batches in ``stages``.

    Parameters
    ----------
    network : nn.Module
        Trained where it is; in evaluation mode at every stop.
    data : Images
        Its training images; moved to the network's device once.
    stages : sequence of int
        Numbers of batches, rising, from 0 (untrained) on.
    batch_size : int
        Images a batch; the last batch of an epoch holds the rest.
    learning_rate : float
        Of Adam.
    augment : bool
        Mirror half of the images and shift each by up to 4 pixels, black from outside; for natural images only.
    generator : torch.Generator
        On the CPU; the only source of randomness.

    Yields
    ------
    int
        The number of batches trained on, each stage in turn. Training goes on when the next is asked for.

    Raises
    ------
    ValueError
        If the stages do not rise from 0 or more.
    """
    if list(stages) != sorted(set(stages)) or min(stages, default=0) < 0:
        raise ValueError(f"stages must rise, from 0 or more, got {list(stages)}")
    device = device_of(network)
    images, labels = data.x_train.to(device), data.y_train.to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    batches = _batches(len(images), batch_size, generator)
    done = 0
    for stage in stages:
        network.train()
        while done < stage:
            rows = next(batches).to(device)
            batch = augmented(images[rows], generator) if augment else images[rows]
            loss = functional.cross_entropy(network(normalise(batch, data)), labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            done += 1
        network.eval()
        yield done


def _batches(n: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    while True:
        yield from torch.split(torch.randperm(n, generator=generator), batch_size)


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the images (n, c, h, w), half of them mirrored, each shifted by up to 4 pixels either way."""
    n, _, height, width = images.shape
    mirrored = torch.rand(n, generator=generator) < 0.5
    shifts = torch.randint(2 * _PAD + 1, (2, n), generator=generator)
    columns = torch.arange(width).expand(n, -1)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns) + shifts[0][:, None]
    rows = torch.arange(height) + shifts[1][:, None]
    padded = functional.pad(images, (_PAD, _PAD, _PAD, _PAD))
    row, column = rows[:, :, None].to(images.device), columns[:, None, :].to(images.device)
    each = torch.arange(n, device=images.device)[:, None, None]
    return padded[each, :, row, column].permute(0, 3, 1, 2).contiguous()


def accuracy(network: nn.Module, data: Images) -> float:
    """Return the share of test images that the network, in evaluation mode, puts in their class."""
    device = device_of(network)
    n_right = 0
    with frozen(network), torch.no_grad():
        for images, labels in zip(torch.split(data.x_test, _CHUNK), torch.split(data.y_test, _CHUNK), strict=True):
            guesses = network(normalise(images.to(device), data)).argmax(dim=1)
            n_right += int((guesses == labels.to(device)).sum())
    return n_right / len(data.x_test)
