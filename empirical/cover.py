"""A real network's labels on real cubes, in the plane: Eqs. 4, 13 and 14 at work on one random network.

The square [-R, R]^2 is cut into cubes (here squares) of side s. A network f with values in [0, 1] has a certified
Lipschitz bound M; a cube with centre c holds values within M times its half diameter of f(c), and is certain to carry
the labels of Eq. 4 whose intervals hold that whole range.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, Eqs. 4, 8-10, 13, 14.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from empirical import network_lattice
from lipschitz import fully_connected, upper
from percolation import clusters, labels
from percolation.campaign import Arrays, Experiment


class Settings(BaseModel):
    """One random network of Eqs. 8-10 on a square cut into cubes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    delta: float = Field(0.25, gt=0, le=0.5, description="interval length of Eq. 4; 1/delta is a whole number")
    radius: float = Field(8.0, gt=0, description="the square is [-radius, radius]^2")
    cubes: int = Field(560, ge=2, le=4000, description="cubes along each axis")
    depth: int = Field(2, ge=1, description="weight matrices L of the network")
    width: int = Field(64, ge=1, description="units of a hidden layer")
    activation: fully_connected.Activation = Field("sin", description="pointwise function between the matrices")
    bias: float = Field(0.3, ge=0, description="standard deviation of the biases")
    seed: int = Field(0, ge=0, description="seed of the run")


def tasks(settings: Settings) -> dict[str, None]:
    """Return the one task."""
    labels.n_cells(settings.delta)
    return {"network": None}


def run_task(settings: Settings, task: None, seeds: np.random.SeedSequence) -> Arrays:
    """Return the network's value at every cube's centre, and the labels that the cube is certain to carry."""
    del task
    generator = torch.Generator().manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
    network = fully_connected.random_network(
        2,
        depth=settings.depth,
        width=settings.width,
        activation=settings.activation,
        bias_std=settings.bias,
        generator=generator,
    )
    side = 2 * settings.radius / settings.cubes
    reach = network_lattice.upper_reach(network, 2, side=side)
    centres = torch.linspace(
        -settings.radius + side / 2, settings.radius - side / 2, settings.cubes, dtype=torch.float64
    )
    points = torch.cartesian_prod(centres, centres)
    with torch.no_grad():
        values = network(points).reshape(settings.cubes, settings.cubes).numpy()
    # The values lie in [0, 1] whatever the bound says.
    first, last = labels.carried(np.maximum(values - reach, 0), np.minimum(values + reach, 1), settings.delta)
    return {
        "centre": centres.numpy(),
        "value": values,
        "first": first.astype(np.int16),
        "last": last.astype(np.int16),
        "reach": np.asarray(reach),
        "bound": np.asarray(upper.upper_product(network, (2,), norm=2).value),
    }


def collect(_: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return values and certain labels over the square."""
    found = arrays["network"]
    plane = ("y", "x")
    return xr.Dataset(
        {
            "value": (plane, found["value"], {"long_name": "network's output at the cube's centre", "units": "1"}),
            "first": (plane, found["first"], {"long_name": "first label the cube is certain to carry", "units": "1"}),
            "last": (plane, found["last"], {"long_name": "last such label; below the first if none", "units": "1"}),
            "reach": ((), found["reach"], {"long_name": "certified bound of |f - f(centre)| in a cube", "units": "1"}),
            "bound": ((), found["bound"], {"long_name": "Lipschitz bound, Euclidean norm", "units": "1/input unit"}),
        },
        coords={
            "x": ("x", found["centre"], {"long_name": "first input", "units": "input unit"}),
            "y": ("y", found["centre"], {"long_name": "second input", "units": "input unit"}),
        },
    )


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return how many cubes are certain of a label, and how many clusters each label forms."""
    first, last = dataset["first"].to_numpy(), dataset["last"].to_numpy()
    rows = []
    for label in range(labels.n_cells(settings.delta) - 1):
        carries = (first <= label) & (label <= last)
        sizes = clusters.label_clusters(np.where(carries, 0, -1).astype(np.int8)).sizes
        rows.append(
            {
                "label": label,
                "share_of_cubes": float(carries.mean()),
                "clusters": int(sizes.size),
                "share_in_largest_cluster": float(sizes.max() / sizes.sum()) if sizes.size else 0.0,
            }
        )
    return {
        "lipschitz_bound": float(dataset["bound"]),
        "cube_side": 2 * settings.radius / settings.cubes,
        "certain_share": float((first <= last).mean()),
        "rows": rows,
    }


EXPERIMENT: Experiment[Settings, None] = Experiment(
    name="cover", version=1, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
)
