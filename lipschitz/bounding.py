"""Every bound of one network, from above and from below, method by method, with the time that each took.

The functions at the end have the signatures that :class:`percolation.campaign.Experiment` asks for; a task is a method.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
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

    network: str = Field(description="MODULE:FUNCTION, an importable function that returns a torch.nn.Module")
    input_shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (3, 32, 32), min_length=1, description="shape of one input, without the batch axis"
    )
    norm: Literal["1", "2", "inf"] = Field("2", description="exponent p of the norm of inputs and outputs")
    weights: str | None = Field(None, description="file of a state dict: safetensors, or one that torch saved")
    weights_digest: str = Field("", description="SHA-256 of that file; filled in")
    n_starts: int = Field(4, ge=1, le=100_000, description="places from which the search for a steep slope starts")
    n_steps: int = Field(20, ge=0, le=100_000, description="steps of the search")
    seed: int = Field(0, ge=0, description="seed of the network's own randomness, and of the search")


def complete(settings: Settings) -> Settings:
    """Return the settings with the digest of the weights, so that other weights are another run."""
    weights = None if settings.weights is None else Path(settings.weights)
    return settings.model_copy(update={"weights_digest": loading.digest(weights)})


_UPPER: dict[str, Callable[..., Any]] = {
    "product": upper.upper_product,
    "product, rescaled": rescaling.upper_rescaled,
    "absolute values": absolute.upper_absolute,
    "LipLT": liplt.upper_liplt,
    "ECLipsE-Fast": closed_forms.upper_eclipse_fast,
    "closed form": closed_forms.upper_closed_form,
    "LipSDP": sdp.upper_lipsdp,
}
_IN_EVERY_NORM = ("product", "product, rescaled", "absolute values")
_ATTAINED = "attained slope"
# Variable of the result -> (long name, units).
_VARIABLES = {
    "value": ("bound of the Lipschitz constant; nan where the method does not go with the network", "1"),
    "is_certified": ("whether it holds for certain, rounding included", "1"),
    "failure_probability": ("chance that a random part of the bound does not hold", "1"),
    "seconds": ("what it took", "s"),
    "note": ("why the method does not go with the network", ""),
}


def tasks(settings: Settings) -> dict[str, str]:
    """Return the methods that go with the norm."""
    names = _UPPER if settings.norm == "2" else _IN_EVERY_NORM
    return {name: name for name in (*names, _ATTAINED)}


def run_task(
    settings: Settings, task: str, seed: np.random.SeedSequence, *, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Return one method's bound, and the seconds that it took; the search runs on ``device``.

    Raises
    ------
    ValueError
        If the network cannot be had, or has a layer that is not known.
    """
    weights = None if settings.weights is None else Path(settings.weights)
    network = loading.load_network(settings.network, weights=weights, seed=settings.seed)
    shape, norm = settings.input_shape, float(settings.norm)
    options = {"norm": norm} if task in _IN_EVERY_NORM else {}
    note = ""
    start = time.perf_counter()
    try:
        with threads.one_thread():  # the methods share the cores
            found = (
                _search(network, settings, seed, device)
                if task == _ATTAINED
                else _UPPER[task](network, shape, **options)
            )
        value, is_certified = found.value, found.is_certified
        failure = getattr(found, "failure_probability", 0.0)
    except ValueError as error:
        if task in ("product", _ATTAINED):  # these take every network
            raise
        value, is_certified, failure, note = math.nan, False, 0.0, str(error)
    seconds = time.perf_counter() - start
    known = (value, is_certified, failure, seconds, note)
    return {name: np.asarray(number) for name, number in zip(_VARIABLES, known, strict=True)}


def collect(settings: Settings, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> xr.Dataset:
    """Return every variable over the methods."""
    methods = list(tasks(settings))
    return xr.Dataset(
        {
            name: ("method", np.stack([arrays[key][name] for key in methods]), {"long_name": meaning, "units": units})
            for name, (meaning, units) in _VARIABLES.items()
        },
        coords={"method": ("method", methods, {"long_name": "method"})},
    )


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return ``rows``, one a method with its bound as ``upper`` or ``lower``, and the best of both."""
    rows: list[dict[str, Any]] = []
    for method in tasks(settings):
        here = {name: dataset[name].sel({"method": method}).item() for name in _VARIABLES}
        side = "lower" if method == _ATTAINED else "upper"
        value = here.pop("value")
        rows.append({"method": method, side: None if math.isnan(value) else value} | here)
    return {
        "network": settings.network,
        "norm": settings.norm,
        "upper": min(row["upper"] for row in rows if row.get("upper") is not None and row["is_certified"]),
        "lower": rows[-1]["lower"],
        "rows": rows,
    }


def _search(network: nn.Module, settings: Settings, seed: np.random.SeedSequence, device: str) -> lower.LowerBound:
    generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0]))
    starts = torch.randn(settings.n_starts, *settings.input_shape, generator=generator)
    return lower.lower_gradient_ascent(
        network.to(device), starts, generator=generator, norm=float(settings.norm), n_steps=settings.n_steps
    )
