"""A certificate for the segment between two inputs kept in files, as an experiment of one task.

The functions have the signatures that :class:`percolation.campaign.Experiment` asks for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from lipschitz import loading, segment, stages


class Settings(BaseModel):
    """Which network, between which inputs, and what to certify."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: str = Field(
        description="MODULE:FUNCTION or FILE.py:FUNCTION, of a function that returns a torch.nn.Module"
    )
    a: str = Field(description="one end: a file of numpy's, floating-point numbers without a batch axis")
    b: str = Field(description="the other end")
    target: int | None = Field(None, ge=0, description="class whose cross-entropy is the loss; must be given")
    threshold: float = Field(0.001, gt=0, description="loss, in nats, that no point of the segment shall exceed")
    piece_budget: int = Field(1_000_000, ge=1, description="linear pieces after which tracing stops")
    weights: str | None = Field(None, description="file of a state dict: safetensors, or one that torch saved")
    digests: tuple[str, ...] = Field((), description="SHA-256 of the ends and of the network; filled in")
    seed: int = Field(0, ge=0, lt=2**64, description="seed of the network's own randomness")


# Variable of the result -> (long name, units).
_VARIABLES = {
    "status": ("certified, violated or undecided: whether the loss is at most the threshold everywhere", ""),
    "reason": ("why it is undecided", ""),
    "loss": ("largest loss found, or a violation", "nat"),
    "lower_loss": ("the true loss there is no smaller", "nat"),
    "upper_loss": ("no true loss on the part that was covered is larger", "nat"),
    "upper_loss_everywhere": ("no true loss on the segment is larger", "nat"),
    "t": ("where that loss is: a + t (b - a)", "1"),
    "covered": ("the part that was covered ends at this t", "1"),
    "upper_error": ("bound of the error of the logits, 2-norm", "1"),
    "n_pieces": ("linear pieces of the part that was covered", "1"),
    "failure_probability": ("chance that a norm among the error bounds is too small", "1"),
}


def complete(settings: Settings) -> Settings:
    """Return the settings with the digests of the ends and of the network, so that others are another run.

    Raises
    ------
    ValueError
        If no target is given, or an end or the network cannot be had.
    """
    if settings.target is None:
        raise ValueError("target must be given: the class whose cross-entropy is the loss")
    ends = []
    for name in (settings.a, settings.b):
        _read(name)
        ends.append(loading.file_digest(Path(name)))
    anew = settings.model_copy(update={"digests": ()})
    return anew.model_copy(update={"digests": (*ends, loading.digest_of(settings.network, _load(anew)))})


def tasks(settings: Settings) -> dict[str, nn.Module]:
    """Return the one task: the network, loaded here, since loading seeds torch's global generator.

    Raises
    ------
    ValueError
        If the network cannot be had, is not that of the settings' digest, or does not take the ends.
    """
    network = _load(settings)
    loading.check_input(settings.network, network, tuple(_read(settings.a).shape))
    return {"segment": network}


def run_task(
    settings: Settings,
    task: nn.Module,
    seed: np.random.SeedSequence,
    *,
    progress: Callable[[str], None],
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """Return the certificate as arrays, and the point of the largest loss; say to ``progress`` what is done."""
    del seed
    progress("reading the network")
    a, b = _read(settings.a), _read(settings.b)
    prepared = stages.prepare(
        task,
        a.shape,
        device=torch.device(device),
        points=torch.stack([a, b]) if a.shape == b.shape else None,  # refused below
        progress=lambda done, total: progress(f"norms of layers, {done} of {total} steps"),
    )
    found = segment.certify_segment(
        prepared,
        a,
        b,
        settings.target if settings.target is not None else -1,
        settings.threshold,
        piece_budget=settings.piece_budget,
        device=device,
        progress=lambda fraction: progress(f"tracing pieces, {fraction:.1%} of the segment"),
    )
    known = {name: getattr(found if name in ("status", "reason") else found.maximum, name) for name in _VARIABLES}
    arrays = {name: np.asarray(value) for name, value in known.items()}
    return arrays | {"point": found.maximum.point.cpu().numpy()}


def collect(_: Settings, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> xr.Dataset:
    """Return the certificate, and the point over its own axes."""
    found = arrays["segment"]
    point = found["point"]
    axes = [f"axis_{i}" for i in range(point.ndim)]
    return xr.Dataset(
        {
            name: ((), found[name], {"long_name": long_name, "units": units})
            for name, (long_name, units) in _VARIABLES.items()
        }
        | {"point": (axes, point, {"long_name": "input with that loss", "units": "unit of input"})}
    )


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return the certificate as plain data."""
    return {"target": settings.target, "threshold": settings.threshold} | {
        name: dataset[name].item() for name in _VARIABLES
    }


def _load(settings: Settings) -> nn.Module:
    weights = None if settings.weights is None else Path(settings.weights)
    digest = settings.digests[-1] if settings.digests else ""
    return loading.load_network(settings.network, weights=weights, seed=settings.seed, digest=digest)


def _read(name: str) -> torch.Tensor:
    """Return what numpy saved. Mapped first: a damaged header's shape is held against the file, not allocated."""
    loading.check_regular(Path(name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of syntax, in a damaged header
            array = np.load(name, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damage is found by whatever stumbles over it
        raise ValueError(f"{name} must be a file that numpy.save wrote: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise ValueError(f"{name} must hold one array of floating-point numbers, got {getattr(array, 'dtype', 'many')}")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
