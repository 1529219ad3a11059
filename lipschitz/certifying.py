"""A certificate for the segment between two inputs kept in files, as an experiment of one task.

The functions have the signatures that :class:`percolation.campaign.Experiment` asks for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from lipschitz import loading, segment


class Settings(BaseModel):
    """Which network, between which inputs, and what to certify."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: str = Field(description="MODULE:FUNCTION, an importable function that returns a torch.nn.Module")
    a: str = Field(description="one end: a file of numpy's, floating-point numbers without a batch axis")
    b: str = Field(description="the other end")
    target: int | None = Field(None, ge=0, description="class whose cross-entropy is the loss; must be given")
    threshold: float = Field(0.001, gt=0, description="loss, in nats, that no point of the segment shall exceed")
    piece_budget: int = Field(1_000_000, ge=1, description="linear pieces after which tracing stops")
    weights: str | None = Field(None, description="file of a state dict: safetensors, or one that torch saved")
    digests: tuple[str, ...] = Field((), description="SHA-256 of the ends and of the weights; filled in")
    seed: int = Field(0, ge=0, description="seed of the network's own randomness")


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
    """Return the settings with the digests of the files, so that other files are another run.

    Raises
    ------
    ValueError
        If no target is given.
    """
    if settings.target is None:
        raise ValueError("target must be given: the class whose cross-entropy is the loss")
    ends = [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in (settings.a, settings.b)]
    weights = loading.digest(_path(settings.weights))
    return settings.model_copy(update={"digests": (*ends, weights)})


def tasks(_: Settings) -> dict[str, None]:
    """Return the one task."""
    return {"segment": None}


def run_task(
    settings: Settings,
    task: None,
    seed: np.random.SeedSequence,
    *,
    progress: Callable[[float], None],
    device: str = "cpu",
) -> dict[str, np.ndarray]:
    """Return the certificate as arrays, and the point of the largest loss."""
    del task, seed
    network = loading.load_network(settings.network, weights=_path(settings.weights), seed=settings.seed)
    found = segment.certify_segment(
        network,
        _read(settings.a),
        _read(settings.b),
        settings.target if settings.target is not None else -1,
        settings.threshold,
        piece_budget=settings.piece_budget,
        device=device,
        progress=progress,
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


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def _read(name: str) -> torch.Tensor:
    try:
        array = np.load(name, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{name} must be a file that numpy.save wrote: {error}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
        raise ValueError(f"{name} must hold one array of floating-point numbers, got {getattr(array, 'dtype', 'many')}")
    return torch.from_numpy(array)
