"""How large the cubes are at initialisation: bounds of random fully connected networks over depth and width.

The experiment draws networks of Eqs. 8-10, bounds each from above by the product of Lemma D.1 (2-norm and inf-norm),
climbs to a slope that it attains, and cuts the cubes of Eqs. 13-14. Remark D.1 says that the product is far from the
best bound; the ratio of product to attained slope shows how far at most. The functions at the end have the signatures
that :class:`percolation.campaign.Experiment` asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lipschitz import cubes, fully_connected, lower, threads, upper

Count = Annotated[int, Field(ge=1, le=100_000)]

# Variable of the result -> (long name, units). All have the dimensions depth, width, network.
_VARIABLES = {
    "upper": ("product of spectral norms (Lemma D.1), certified from above", "1 / unit of input"),
    "upper_inf": ("product of inf-norms (Lemma D.1), certified from above", "1 / unit of input"),
    "lower": ("attained slope in the 2-norm, certified from below", "1 / unit of input"),
    "lower_inf": ("attained slope in the inf-norm at the same place, certified from below", "1 / unit of input"),
    "ratio": ("product of spectral norms over attained slope", "1"),
    "epsilon": ("diameter of the cubes in the 2-norm (Eq. 14)", "unit of input"),
    "cube_side": ("side of the cubes by the 2-norm, epsilon / sqrt(d)", "unit of input"),
    "cube_side_inf": ("side of the cubes by the inf-norm", "unit of input"),
}


class Settings(BaseModel):
    """Which networks, how many of each, and how long to climb."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depths: tuple[Count, ...] = Field((1, 2, 4, 6, 8), min_length=1, description="numbers of weight matrices L")
    widths: tuple[Count, ...] = Field((32, 64, 128, 256), min_length=1, description="widths of the hidden layers")
    input_dimension: Count = Field(64, description="dimension d of the inputs; they are standard Gaussian")
    activation: fully_connected.Activation = Field("tanh", description="phi of Eq. 9")
    final_activation: fully_connected.FinalActivation = Field("gaussian_cdf", description="varphi of Eq. 10")
    delta: float = Field(0.1, gt=0, le=0.5, description="length of the intervals of Eq. 4; 1/delta is whole")
    delta_prime: float | None = Field(
        None, description="delta' of Eq. 14, below delta; by default delta/2, where every cube carries an interval"
    )
    n_networks: int = Field(4, ge=2, le=10_000, description="networks of each depth and width")
    n_starts: int = Field(16, ge=1, le=100_000, description="places from which the climb for a steep slope starts")
    n_steps: int = Field(40, ge=0, le=100_000, description="steps of the climb")
    seed: int = Field(0, ge=0, description="seed of the run")

    @property
    def effective_delta_prime(self) -> float:
        """The delta' of Eq. 14: delta / 2 if none is given."""
        return self.delta / 2.0 if self.delta_prime is None else self.delta_prime

    @model_validator(mode="after")
    def _check(self) -> Settings:
        cubes.check_deltas(self.delta, self.effective_delta_prime)
        for name in ("depths", "widths"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must not repeat a value, got {values}")
        return self


PRESETS = {
    "quick": Settings(),
    "paper": Settings(
        depths=(1, 2, 3, 4, 6, 8, 12, 16),
        widths=(64, 128, 256, 512, 1024),
        input_dimension=3072,
        n_networks=8,
        n_starts=32,
        n_steps=100,
    ),
}


def tasks(settings: Settings) -> dict[str, tuple[int, int, int]]:
    """Return the tasks (depth, width, network) by key, one a network."""
    return {
        _key(depth, width, network): (depth, width, network)
        for depth in settings.depths
        for width in settings.widths
        for network in range(settings.n_networks)
    }


def run_task(
    settings: Settings, task: tuple[int, int, int], seed: np.random.SeedSequence, *, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Return the bounds of one network and the cubes they make, each an array of no dimension.

    Parameters
    ----------
    settings : Settings
        Of the run.
    task : (int, int, int)
        Depth, width, and the number of the network, which only names the seed.
    seed : numpy.random.SeedSequence
        Of the task; weights, starts and jumps come from it.
    device : str
        Where the climb computes. Weights are drawn, and bounds certified, on the CPU.

    Returns
    -------
    dict of str to ndarray, shape (), float64
        The variables of :func:`collect`.
    """
    depth, width, _ = task
    generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0]))
    network = fully_connected.random_network(
        settings.input_dimension,
        depth=depth,
        width=width,
        generator=generator,
        activation=settings.activation,
        final_activation=settings.final_activation,
        dtype=torch.float32,
    )
    product, product_inf = (
        upper.upper_product(network, (settings.input_dimension,), norm=norm) for norm in (2, math.inf)
    )
    starts = torch.randn(settings.n_starts, settings.input_dimension, generator=generator)
    with threads.one_thread():
        attained = lower.lower_gradient_ascent(
            network.to(device), starts, generator=generator, n_steps=settings.n_steps
        )
        attained_inf = lower.lower_gradient_ascent(
            network, attained.points.mean(dim=0, keepdim=True), generator=generator, norm=math.inf, n_steps=0
        )
    cut, cut_inf = (
        cubes.cut_cubes(
            bound.value,
            dimension=settings.input_dimension,
            delta=settings.delta,
            delta_prime=settings.effective_delta_prime,
            norm=bound.norm,
        )
        for bound in (product, product_inf)
    )
    numbers = {
        "upper": product.value,
        "upper_inf": product_inf.value,
        "lower": attained.value,
        "lower_inf": attained_inf.value,
        "ratio": product.value / attained.value if attained.value > 0.0 else math.inf,
        "epsilon": cut.epsilon,
        "cube_side": cut.side,
        "cube_side_inf": cut_inf.side,
    }
    return {name: np.array(number) for name, number in numbers.items()}


def collect(settings: Settings, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> xr.Dataset:
    """Return the labelled result: every variable over (depth, width, network)."""
    dimensions = ("depth", "width", "network")
    shape = (len(settings.depths), len(settings.widths), settings.n_networks)
    data = {
        name: xr.Variable(
            dimensions,
            np.array([float(arrays[key][name]) for key in tasks(settings)]).reshape(shape),
            {"long_name": long_name, "units": units},
        )
        for name, (long_name, units) in _VARIABLES.items()
    }
    coordinates = {
        "depth": ("depth", list(settings.depths), {"long_name": "number of weight matrices L", "units": "1"}),
        "width": ("width", list(settings.widths), {"long_name": "width of the hidden layers", "units": "1"}),
        "network": ("network", np.arange(settings.n_networks), {"long_name": "number of the network", "units": "1"}),
    }
    return xr.Dataset(data, coords=coordinates)


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return the means over networks and their standard errors, a row for each depth and width."""
    rows = []
    for depth in settings.depths:
        for width in settings.widths:
            here = dataset.sel(depth=depth, width=width)
            row: dict[str, Any] = {
                "depth": depth,
                "width": width,
                "input_dimension": settings.input_dimension,
                "activation": settings.activation,
                "delta": settings.delta,
                "delta_prime": settings.effective_delta_prime,
                "n_networks": settings.n_networks,
            }
            for name in _VARIABLES:
                values = here[name].to_numpy()
                row[name] = float(values.mean())
                row[f"{name}_standard_error"] = float(values.std(ddof=1) / math.sqrt(len(values)))
            rows.append(row)
    return {"rows": rows}


def _key(depth: int, width: int, network: int) -> str:
    return f"depth={depth} width={width} network={network}"
