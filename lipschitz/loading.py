"""A network named on the command line: MODULE:FUNCTION or FILE.py:FUNCTION, with weights from a file.

Nothing is unpickled but what ``torch.load(weights_only=True)`` allows. The zip files that :func:`torch.save` writes
have a check sum for each of their parts, which is compared; safetensors and torch's form from before 1.6 have none:
there a changed bit among the numbers is another number, and nobody can tell.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import pickle
import re
import stat
import sys
import sysconfig
import traceback
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from lipschitz import torchvision_operators

_LISTED = 5  # keys of weights, in a complaint


def load_network(name: str, *, weights: Path | None = None, seed: int = 0, digest: str = "") -> nn.Module:
    """Return the network that a function makes, in evaluation mode, on the CPU.

    Not for threads: torch's global generators are seeded meanwhile.

    Parameters
    ----------
    name : str
        MODULE:FUNCTION, such as ``torchvision.models:resnet18``, of a module that can be imported; or FILE.py:FUNCTION,
        such as ``./mynet.py:net``, of a file, which may import what lies beside it. The function makes a
        :class:`torch.nn.Module` without arguments.
    weights : Path, optional
        A state dict: safetensors, if the name ends so, or what :func:`torch.save` wrote. By default the weights are as
        the function leaves them.
    seed : int
        Of torch's global generators while the function runs; they are put back afterwards.
    digest : str
        That of the network that is expected (:func:`digest_of`), if any is.

    Raises
    ------
    ValueError
        If the name is no such function, it fails or ends the program, the weights are not those of its network, or it
        is not the network that is expected.

    Examples
    --------
    >>> load_network("torch.nn:Identity")
    Identity()
    """
    with _beside(name), torch.random.fork_rng():
        torch.manual_seed(seed)  # for what the module draws as it is imported
        make = _function(name)
        torch.manual_seed(seed)
        with _foreign(f"network must be made without failing, got {name}"):
            network = make()
    if not isinstance(network, nn.Module):
        raise ValueError(f"network must be a torch.nn.Module, got {type(network).__name__} from {name}")
    if weights is not None:
        _fill(network, name, weights)
    network = network.cpu().eval()
    if digest and digest_of(name, network) != digest:
        raise ValueError(f"network must be the same whenever it is made, got others from {name}: seed what it draws")
    return network


def digest_of(name: str, network: nn.Module) -> str:
    """Return the SHA-256 of a network's weights and of the file that its function is in.

    What that file imports in turn is not part of it.

    Raises
    ------
    ValueError
        If a weight is no dense tensor, or not there yet.
    """
    found = hashlib.sha256()
    module = sys.modules[_module_name(name)]
    source = Path(getattr(module, "__file__", None) or "")
    if source.is_file():
        found.update(source.read_bytes())
    for key, value in network.state_dict().items():
        try:
            found.update(repr((key, value.dtype, value.shape)).encode())
            found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
        except (AttributeError, RuntimeError, TypeError) as error:
            raise ValueError(f"weights of {name} must be dense numbers, got {key}: {_told(error)}") from error
    return found.hexdigest()


def check_input(name: str, network: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise ValueError if the network does not take an input of a shape, be it by ending the program."""
    with _foreign(f"network must take inputs of shape {shape}, got {name}"), torch.no_grad():
        network(torch.zeros(1, *shape))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no regular file: a device may never end, and a pipe never begin.
    """
    check_regular(path)
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def check_regular(path: Path) -> None:
    """Raise ValueError if ``path`` is a pipe, a device, a folder: anything but a file; OSError if it is not there."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{path} must be a file, got a folder, a pipe or a device")


def _split(name: str) -> tuple[str, str]:
    """Return the module, or the file, and the function."""
    module, _, function = name.rpartition(":")
    is_relative = module.startswith(".") and not module.endswith(".py")
    if not module or not function or is_relative:
        raise ValueError(f"network must be MODULE:FUNCTION or FILE.py:FUNCTION, got {name}")
    return module, function


def _module_name(name: str) -> str:
    """Return the name under which Python knows the module; a file's is one that no other module has."""
    module, _ = _split(name)
    return "network_file_" + re.sub(r"\W", "_", Path(module).stem) if module.endswith(".py") else module


@contextlib.contextmanager
def _beside(name: str) -> Iterator[None]:
    """Let a file import what lies beside it, as if it were run."""
    module, _ = _split(name)
    before = list(sys.path)
    if module.endswith(".py"):
        sys.path.insert(0, str(Path(module).resolve().parent))
    try:
        yield
    finally:
        sys.path[:] = before


@contextlib.contextmanager
def _foreign(complaint: str) -> Iterator[None]:
    """Run the user's code: whatever it raises, and ``sys.exit``, is a ValueError with its place."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise ValueError(f"{complaint}: {_told(error)}") from error


def _function(name: str) -> Any:
    """Return the function, which can be called without arguments."""
    module, function = _split(name)
    kind = "FILE.py:FUNCTION" if module.endswith(".py") else "MODULE:FUNCTION"
    with _foreign(f"network must be {kind} that can be imported, got {name}"):
        try:
            found = _module(name)
        except RuntimeError as error:  # torchvision beside a CPU-only torch
            if "operator torchvision::" not in str(error):
                raise
            torchvision_operators.declare()
            found = _module(name)
        make = getattr(found, function)
    try:
        inspect.signature(make).bind()
    except TypeError as error:
        raise ValueError(f"network must be a function without arguments, got {name}: {error}") from error
    except ValueError:  # compiled functions may have no signature
        pass
    return make


def _module(name: str) -> Any:
    """Return the module, imported; a file is read anew, past any compiled form of it, which may be older."""
    place, _ = _split(name)
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place)
    check_regular(path)
    spec = importlib.util.spec_from_file_location(_module_name(name), path)
    assert spec is not None  # of a name that ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    return module


def _fill(network: nn.Module, name: str, weights: Path) -> None:
    """Put the weights from a file into the network."""
    state = _read(weights)
    complaint = f"weights must be those of {name}, got {weights}"
    if not isinstance(state, Mapping):
        raise ValueError(f"weights must be a state dict, got {weights} with a {type(state).__name__}")
    misfits = _misfits(network.state_dict(), state)
    try:
        network.load_state_dict(state)
    except Exception as error:  # the network's own hooks may raise anything
        raise ValueError(f"{complaint}: {'; '.join(misfits) or _told(error)}") from error
    if any(" complex" in misfit for misfit in misfits):  # torch would drop the imaginary parts
        raise ValueError(f"{complaint}: {'; '.join(misfits)}")


def _misfits(own: Mapping[str, Any], state: Mapping[Any, Any]) -> list[str]:
    """Return how a state dict differs from the network's own, by key."""
    both = [key for key in own if key in state and isinstance(own[key], torch.Tensor)]
    kept = {key: state[key] for key in both if isinstance(state[key], torch.Tensor)}
    parts = {
        "it lacks ": [key for key in own if key not in state],
        "it has ": [str(key) for key in state if key not in own],
        "no tensor is ": [key for key in both if key not in kept],
        "of another shape is ": [
            f"{key}, {tuple(value.shape)} for {tuple(own[key].shape)}"
            for key, value in kept.items()
            if value.shape != own[key].shape
        ],
        "complex is ": [key for key, value in kept.items() if value.is_complex() and not own[key].is_complex()],
    }
    return [start + _listed(keys) for start, keys in parts.items() if keys]


def _listed(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + more


def _read(weights: Path) -> Any:
    """Return what a file of weights holds."""
    check_regular(weights)
    if weights.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(weights)
        except (safetensors.SafetensorError, ValueError, RuntimeError, KeyError) as error:
            raise ValueError(f"weights must be a safetensors file, got {weights}: {_told(error)}") from error
    _check_sums(weights)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numbers of protocols that damage has made up
            return torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # its text fills a page
        raise ValueError(f"weights must be a state dict of tensors alone, got {weights}") from error
    except Exception as error:  # damage is found by whatever stumbles over it
        raise ValueError(f"weights must be a state dict, got {weights}: {_told(error)}") from error


def _check_sums(weights: Path) -> None:
    """Raise ValueError if a zip file is not what its check sums say. Torch can leave them out: all are 0 then."""
    try:
        if not zipfile.is_zipfile(weights):
            return
        with zipfile.ZipFile(weights) as archive:
            damaged = archive.testzip() if any(part.CRC for part in archive.infolist()) else None
    except Exception as error:  # damage is found by whatever stumbles over it
        raise ValueError(f"weights must be a whole zip file, got {weights}: {_told(error)}") from error
    if damaged is not None:
        raise ValueError(f"weights must be as their check sums say, got {weights}, whose part {damaged} is not")


def _told(error: BaseException) -> str:
    """Return an error in one line: its kind, its text, and the last line of the user's own files on its way."""
    text = (str(error).strip() or "no reason given").splitlines()[0]
    paths = sysconfig.get_paths()
    others = (__file__, "<", paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"
