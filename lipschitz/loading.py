"""A network named on the command line: MODULE:FUNCTION, with weights from a file.

Nothing is unpickled but what ``torch.load(weights_only=True)`` allows.
"""

from __future__ import annotations

import hashlib
import importlib
import pickle
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from lipschitz import torchvision_operators


def load_network(name: str, *, weights: Path | None = None, seed: int = 0) -> nn.Module:
    """Return the network that a function makes, in evaluation mode, on the CPU.

    Parameters
    ----------
    name : str
        MODULE:FUNCTION, such as ``torchvision.models:resnet18``: a module that can be imported, and a function in it
        that makes a :class:`torch.nn.Module` without arguments.
    weights : Path, optional
        A state dict: safetensors, if the name ends so, or what :func:`torch.save` wrote. By default the weights are as
        the function leaves them.
    seed : int
        Of torch's global generators while the function runs; they are put back afterwards.

    Raises
    ------
    ValueError
        If the name is no such function, it fails, or the weights are not those of its network.

    Examples
    --------
    >>> load_network("torch.nn:Identity")
    Identity()
    """
    make = _function(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            network = make()
        except TypeError as error:
            raise ValueError(f"network must be made without arguments, got {name}: {error}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"network must be a torch.nn.Module, got {type(network).__name__} from {name}")
    if weights is not None:
        try:
            network.load_state_dict(_read(weights))
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(f"weights must be those of {name}, got {weights}: {_line(error)}") from error
    return network.cpu().eval()


def digest(weights: Path | None) -> str:
    """Return the SHA-256 of a file of weights, empty if there is none."""
    return "" if weights is None else hashlib.sha256(weights.read_bytes()).hexdigest()


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"network must be MODULE:FUNCTION, got {name}")
    try:
        try:
            found = importlib.import_module(module)
        except RuntimeError as error:  # torchvision beside a CPU-only torch
            if "operator torchvision::" not in str(error):
                raise
            torchvision_operators.declare()
            found = importlib.import_module(module)
        return getattr(found, function)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise ValueError(f"network must be MODULE:FUNCTION that can be imported, got {name}: {_line(error)}") from error


def _read(weights: Path) -> Any:
    """Return the state dict in a file."""
    if weights.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(weights)
        except safetensors.SafetensorError as error:
            raise ValueError(f"weights must be a safetensors file, got {weights}: {_line(error)}") from error
    try:
        return torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its text fills a page
        raise ValueError(f"weights must be a state dict of tensors alone, got {weights}") from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"weights must be a state dict, got {weights}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
