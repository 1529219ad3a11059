"""Every bound of one network, from above and from below, method by method, with the time that each took.

The functions at the end have the signatures that :class:`percolation.campaign.Experiment` asks for; a task is a method.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from lipschitz import absolute, closed_forms, liplt, loading, lower, rescaling, sdp, threads, upper


class Settings(BaseModel):
    """Which network, and in which norm."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: str = Field(
        description="MODULE:FUNCTION or FILE.py:FUNCTION, of a function that returns a torch.nn.Module"
    )
    input_shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (3, 32, 32), min_length=1, description="shape of one input, without the batch axis"
    )
    norm: Literal["1", "2", "inf"] = Field("2", description="exponent p of the norm of inputs and outputs")
    weights: str | None = Field(None, description="file of a state dict: safetensors, or one that torch saved")
    network_digest: str = Field("", description="SHA-256 of its weights and of its function's file; filled in")
    n_starts: int = Field(4, ge=1, le=100_000, description="places from which the search for a steep slope starts")
    n_steps: int = Field(20, ge=0, le=100_000, description="steps of the search")
    seed: int = Field(0, ge=0, lt=2**64, description="seed of the network's own randomness, and of the search")


def complete(settings: Settings) -> Settings:
    """Return the settings with the digest of the network, so that another network is another run.

    Raises
    ------
    ValueError
        If the network cannot be had.
    """
    anew = settings.model_copy(update={"network_digest": ""})
    return anew.model_copy(update={"network_digest": loading.digest_of(settings.network, _load(anew))})


_PRODUCT = "product"
_UPPER: dict[str, Callable[..., Any]] = {
    _PRODUCT: upper.upper_product,
    "product, rescaled": rescaling.upper_rescaled,
    "absolute values": absolute.upper_absolute,
    "LipLT": liplt.upper_liplt,
    "ECLipsE-Fast": closed_forms.upper_eclipse_fast,
    "closed form": closed_forms.upper_closed_form,
    "LipSDP": sdp.upper_lipsdp,
}
_IN_EVERY_NORM = (_PRODUCT, "product, rescaled", "absolute values")
_ATTAINED = "attained slope"
# Variable of the result -> (long name, units).
_VARIABLES = {
    "value": ("bound of the Lipschitz constant; nan where the method does not go with the network", "1"),
    "is_certified": ("whether it holds for certain, rounding included", "1"),
    "failure_probability": ("chance that a random part of the bound does not hold", "1"),
    "seconds": ("what it took", "s"),
    "note": ("why the method does not go with the network", ""),
}


def methods(settings: Settings) -> tuple[str, ...]:
    """Return the methods that go with the norm, the search for a steep slope last."""
    return (*(_UPPER if settings.norm == "2" else _IN_EVERY_NORM), _ATTAINED)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """One method, and the network that it bounds, which is not to be changed."""

    method: str
    network: nn.Module


def tasks(settings: Settings) -> dict[str, Task]:
    """Return the network for every method: loaded once, here, since loading seeds torch's global generator.

    Raises
    ------
    ValueError
        If the network cannot be had, is not that of the settings' digest, or does not take inputs of the shape.
    """
    network = _load(settings)
    loading.check_input(settings.network, network, settings.input_shape)
    return {method: Task(method=method, network=network) for method in methods(settings)}


def run_task(
    settings: Settings, task: Task, seed: np.random.SeedSequence, *, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Return one method's bound, and the seconds that it took; the search runs on ``device``.

    Whatever goes wrong is the note of this method, and the others' bounds stand; but for a lack of memory, which is
    not the method's.

    Raises
    ------
    ValueError
        If the network is refused by the product of norms, which takes every network that can be read.
    """
    shape, norm = settings.input_shape, float(settings.norm)
    options = {"norm": norm} if task.method in _IN_EVERY_NORM else {}
    note = ""
    start = time.perf_counter()
    try:
        with threads.one_thread():  # the methods share the cores
            network = copy.deepcopy(task.network)  # the search changes it for a while, and others read it
            found = (
                _search(network, settings, seed, device)
                if task.method == _ATTAINED
                else _UPPER[task.method](network, shape, **options)
            )
        value, is_certified = found.value, found.is_certified
        failure = getattr(found, "failure_probability", 0.0)
    except ValueError as error:
        if task.method == _PRODUCT:
            raise
        value, is_certified, failure, note = math.nan, False, 0.0, str(error)
    except (Exception, SystemExit) as error:  # of a method, or of the network's own code
        if isinstance(error, MemoryError) or "allocate" in str(error):  # as torch says it
            raise
        value, is_certified, failure = math.nan, False, 0.0
        note = f"it failed: {type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    known = (value, is_certified, failure, seconds, " ".join(note.split()))
    return {name: np.asarray(number) for name, number in zip(_VARIABLES, known, strict=True)}


def collect(settings: Settings, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> xr.Dataset:
    """Return every variable over the methods."""
    names = methods(settings)
    return xr.Dataset(
        {
            name: ("method", np.stack([arrays[key][name] for key in names]), {"long_name": meaning, "units": units})
            for name, (meaning, units) in _VARIABLES.items()
        },
        coords={"method": ("method", list(names), {"long_name": "method"})},
    )


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return ``rows``, one a method with its bound as ``upper`` or ``lower``, and the best of both."""
    rows: list[dict[str, Any]] = []
    for method in methods(settings):
        here = {name: dataset[name].sel({"method": method}).item() for name in _VARIABLES}
        side = "lower" if method == _ATTAINED else "upper"
        value = here.pop("value")
        rows.append({"method": method, side: None if math.isnan(value) else value} | here)
    uppers = [row["upper"] for row in rows if row.get("upper") is not None and row["is_certified"]]
    return {
        "network": settings.network,
        "norm": settings.norm,
        "upper": min(uppers, default=None),
        "lower": rows[-1]["lower"],
        "rows": rows,
    }


def _load(settings: Settings) -> nn.Module:
    weights = None if settings.weights is None else Path(settings.weights)
    return loading.load_network(settings.network, weights=weights, seed=settings.seed, digest=settings.network_digest)


def _search(network: nn.Module, settings: Settings, seed: np.random.SeedSequence, device: str) -> lower.LowerBound:
    generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0]))
    starts = torch.randn(settings.n_starts, *settings.input_shape, generator=generator)
    return lower.lower_gradient_ascent(
        network.to(device), starts, generator=generator, norm=float(settings.norm), n_steps=settings.n_steps
    )
