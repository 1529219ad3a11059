"""What functions of images take: tensors, classes and networks, looked at before a network runs on them.

torch answers a wrong argument late, from within, and a class of -100 not at all: that is one whose loss is nothing.
As in :mod:`percolation.arguments`, a wrong kind is a TypeError and a wrong value a ValueError, in one line.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from empirical.models import frozen
from percolation.arguments import check_kind, shown


def check_images(name: str, images: torch.Tensor, *, like: torch.Tensor | None = None) -> None:
    """Check that these are images (n, c, h, w), at least one, of floating-point numbers.

    A number may be nan: what becomes of it is nan as well, which no threshold takes for low.

    Raises
    ------
    TypeError
        If they are no tensor of floating-point numbers.
    ValueError
        If they have another number of axes, or nothing in them; or, with ``like``, are not of its shape, kind and
        device.
    """
    check_kind(name, images, torch.Tensor)
    if not images.is_floating_point():
        raise TypeError(f"{name} must be floating-point numbers, got {images.dtype}: embed tokens, scale whole numbers")
    if images.ndim != 4 or images.numel() == 0:
        raise ValueError(
            f"{name} must be images (n, c, h, w), one or more, got shape {tuple(images.shape)}; vectors (n, d) are "
            "images (n, 1, 1, d)"
        )
    if like is not None and (images.shape, images.dtype, images.device) != (like.shape, like.dtype, like.device):
        raise ValueError(f"{name} must be {_described(like)} as the others are, got {_described(images)}")


def _described(images: torch.Tensor) -> str:
    return f"{tuple(images.shape)} of {images.dtype} on {images.device}"


def check_paths(paths: object) -> None:
    """Check that these are paths (n_stops, c, h, w) of two stops or more, their images all alike.

    Raises
    ------
    TypeError
        If they are no tensors of floating-point numbers.
    ValueError
        If there is none, one has fewer stops, or images are not alike.
    """
    if isinstance(paths, torch.Tensor | str) or not isinstance(paths, Sequence):
        raise TypeError(f"paths must be a sequence of tensors (n_stops, c, h, w), got {type(paths).__name__}")
    if len(paths) == 0:
        raise ValueError("paths must be at least one, got none")
    for stops in paths:
        check_images("paths", stops)
        check_images("paths", stops[:1], like=paths[0][:1])
    if min(len(stops) for stops in paths) < 2:
        raise ValueError("paths must have at least 2 stops each, got 1")


def check_classes(name: str, classes: torch.Tensor, *, n: int, of: str) -> None:
    """Check that these are whole numbers of at least 0, one for each of the ``n`` rows ``of`` something.

    Raises
    ------
    TypeError
        If they are no tensor of int64.
    ValueError
        If they are more or fewer, or one is negative.
    """
    if not isinstance(classes, torch.Tensor) or classes.dtype != torch.int64:
        is_tensor = isinstance(classes, torch.Tensor)
        got = str(classes.dtype) if is_tensor else f"{shown(classes)} ({type(classes).__name__})"
        raise TypeError(f"{name} must be a tensor of int64, shape ({n},), got {got}")
    if classes.ndim != 1 or len(classes) != n:
        got = str(len(classes)) if classes.ndim == 1 else f"shape {tuple(classes.shape)}"
        raise ValueError(f"{name} must have a row for each of the {n} {of}, got {got}")
    if n > 0 and int(classes.min()) < 0:
        raise ValueError(f"{name} must be classes from 0 on, got {int(classes.min())}")


def check_points(network: nn.Module, dimension: int, *, dtype: torch.dtype) -> None:
    """Check that a network makes values (n, n_outputs) of points (n, d) of this kind, on the CPU; it is run on one.

    Raises
    ------
    TypeError
        If it is no module, or makes something else.
    ValueError
        If it does not take such points.
    """
    check_kind("network", network, nn.Module)
    values = _made(network, torch.zeros((1, dimension), dtype=dtype), "points")
    if not isinstance(values, torch.Tensor) or values.ndim != 2 or len(values) != 1:
        got = _described(values) if isinstance(values, torch.Tensor) else type(values).__name__
        raise TypeError(f"network must make values (n, n_outputs) of points, got {got} of one")


def _made(network: nn.Module, inputs: torch.Tensor, called: str) -> object:
    """Return what a network makes of inputs, or raise ValueError if it does not take them."""
    try:
        with frozen(network), torch.no_grad():
            return network(inputs)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise ValueError(f"network must take {called} {_described(inputs)}, got an error: {shown(error)}") from error


def check_network(network: nn.Module, images: torch.Tensor, classes: torch.Tensor) -> None:
    """Check that a network makes logits (n, n_classes) of such images, with these classes among them.

    It is run once, on the first image.

    Raises
    ------
    TypeError
        If it is no module, or makes something else.
    ValueError
        If it does not take such images, or has fewer classes.
    """
    check_kind("network", network, nn.Module)
    logits = _made(network, images[:1], "images")
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != 1 or not logits.is_floating_point():
        got = _described(logits) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise TypeError(f"network must make logits (n, n_classes) of images, got {got} of one")
    if int(classes.max()) >= logits.shape[1]:
        raise ValueError(f"targets must be classes from 0 to {logits.shape[1] - 1}, got {int(classes.max())}")
