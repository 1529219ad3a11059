"""How large the cubes are at initialisation: bounds of random fully connected networks over depth, width and dimension.

The experiment draws networks of Eqs. 8-10, bounds each from above by the product of Lemma D.1 and by tighter methods,
climbs to a slope that it attains, and cuts the cubes of Eqs. 13-14. Remark D.1 says that the product is far from the
best bound; the ratio of a bound to the attained slope shows how far at most. :mod:`lipschitz.random_matrices` says what
is expected of the products.

Depth, width and dimension vary one at a time, along three lines that cross in one case: the deepest and widest network
on ``input_dimension`` inputs. The functions at the end have the signatures that
:class:`percolation.campaign.Experiment` asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lipschitz import closed_forms, cubes, fully_connected, lower, sdp, threads, upper

Count = Annotated[int, Field(ge=1, le=100_000)]
Depth = Annotated[int, Field(ge=1, le=1_000)]
Axis = Literal["depth", "width", "input_dimension"]

# Variable of the result -> (long name, units). All have the dimensions case, network.
_VARIABLES = {
    "upper": ("product of spectral norms (Lemma D.1), certified from above", "1 / unit of input"),
    "upper_inf": ("product of inf-norms (Lemma D.1), certified from above", "1 / unit of input"),
    "upper_closed": ("best of the closed forms, certified from above", "1 / unit of input"),
    "upper_sdp": ("LipSDP, certified from above", "1 / unit of input"),
    "lower": ("attained slope in the 2-norm, certified from below", "1 / unit of input"),
    "lower_inf": ("attained slope in the inf-norm at the same place, certified from below", "1 / unit of input"),
    "ratio": ("product of spectral norms over attained slope", "1"),
    "epsilon": ("diameter of the cubes in the 2-norm (Eq. 14)", "unit of input"),
    "cube_side": ("side of the cubes by the 2-norm, epsilon / sqrt(d)", "unit of input"),
    "cube_side_inf": ("side of the cubes by the inf-norm", "unit of input"),
}
_MOST_NUMBERS = 10**8  # weights of a network, or coordinates of the starts in a layer; 4 to 16 bytes each
_SDP_TOLERANCE = 1e-2  # relative, of LipSDP's least value: far below what a point's marker shows


class Settings(BaseModel):
    """Which networks, how many of each, and how long to climb."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    depths: tuple[Depth, ...] = Field((1, 2, 4, 6, 8), min_length=1, description="numbers of weight matrices L")
    widths: tuple[Count, ...] = Field((32, 64, 128, 256), min_length=1, description="widths of the hidden layers")
    dimensions: tuple[Count, ...] = Field((16, 256, 1024), description="other dimensions of the inputs")
    input_dimension: Count = Field(64, description="dimension d of the inputs; they are standard Gaussian")
    activation: fully_connected.Activation = Field("tanh", description="phi of Eq. 9")
    final_activation: fully_connected.FinalActivation = Field("gaussian_cdf", description="varphi of Eq. 10")
    delta: float = Field(0.1, gt=0, le=0.5, description="length of the intervals of Eq. 4; 1/delta is whole")
    delta_prime: float | None = Field(
        None, description="delta' of Eq. 14, below delta; by default delta/2, where every cube carries an interval"
    )
    n_networks: int = Field(4, ge=2, le=10_000, description="networks of each depth, width and dimension")
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
        for name in ("depths", "widths", "dimensions"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must not repeat a value, got {values}")
        width, d = max(self.widths), max((self.input_dimension, *self.dimensions))
        n_weights = width * (d + max(max(self.depths) - 2, 0) * width)
        if n_weights > _MOST_NUMBERS:
            raise ValueError(f"widths must make networks of at most {_MOST_NUMBERS} weights, got {n_weights}")
        n_coordinates = self.n_starts * max(width, d)
        if n_coordinates > _MOST_NUMBERS:
            raise ValueError(f"n_starts must have at most {_MOST_NUMBERS} coordinates in a layer, got {n_coordinates}")
        if self.input_dimension in self.dimensions:
            raise ValueError(f"dimensions must not hold input_dimension {self.input_dimension}, got {self.dimensions}")
        return self


PRESETS = {
    "quick": Settings(),
    "paper": Settings(
        depths=(1, 2, 3, 4, 6, 8, 12, 16),
        widths=(64, 128, 256, 512, 1024),
        dimensions=(16, 64, 256, 1024),
        input_dimension=3072,
        n_networks=8,
        n_starts=32,
        n_steps=100,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The sizes of a network of Eqs. 8-10."""

    depth: int
    width: int
    input_dimension: int


def cases(settings: Settings) -> list[Case]:
    """Return the cases of the three lines, each once, ordered by depth, width, dimension."""
    deepest, widest, d = max(settings.depths), max(settings.widths), settings.input_dimension
    lines = (
        *((depth, widest, d) for depth in settings.depths),
        *((deepest, width, d) for width in settings.widths),
        *((deepest, widest, dimension) for dimension in settings.dimensions),
    )
    return [Case(depth=depth, width=width, input_dimension=dimension) for depth, width, dimension in sorted(set(lines))]


def line(dataset: xr.Dataset, along: Axis) -> xr.Dataset:
    """Return the cases of one line of a result, over ``along`` instead of ``case``.

    Raises
    ------
    ValueError
        If ``along`` is no axis.
    """
    if along not in get_args(Axis):
        raise ValueError(f"along must be one of {', '.join(get_args(Axis))}, got {along}")
    settings = Settings.model_validate_json(dataset.attrs["settings"])
    centre = {
        "depth": max(settings.depths),
        "width": max(settings.widths),
        "input_dimension": settings.input_dimension,
    }
    is_on = np.logical_and.reduce([dataset[axis] == value for axis, value in centre.items() if axis != along])
    return dataset.isel(case=np.flatnonzero(is_on)).swap_dims(case=along).sortby(along)


def tasks(settings: Settings) -> dict[str, Case]:
    """Return one task a network, by key."""
    return {_key(case, network): case for case in cases(settings) for network in range(settings.n_networks)}


def run_task(
    settings: Settings, task: Case, seed: np.random.SeedSequence, *, device: str = "cpu"
) -> dict[str, np.ndarray]:
    """Return the bounds of one network and the cubes they make, each an array of no dimension.

    Parameters
    ----------
    settings : Settings
        Of the run.
    task : Case
        Sizes of the network.
    seed : numpy.random.SeedSequence
        Of the task; weights, starts and jumps come from it.
    device : str
        Where the climb computes. Weights are drawn, and bounds certified, on the CPU.

    Returns
    -------
    dict of str to ndarray, shape (), float64
        The variables of :func:`collect`.
    """
    generator = torch.Generator().manual_seed(int(seed.generate_state(1, np.uint64)[0]))
    d = task.input_dimension
    network = fully_connected.random_network(
        d,
        depth=task.depth,
        width=task.width,
        generator=generator,
        activation=settings.activation,
        final_activation=settings.final_activation,
        dtype=torch.float32,
    )
    product, product_inf = (upper.upper_product(network, (d,), norm=norm) for norm in (2, math.inf))
    starts = torch.randn(settings.n_starts, d, generator=generator)
    with threads.one_thread():
        closed = closed_forms.upper_closed_form(network, (d,)).value
        tightest = sdp.upper_lipsdp(network, (d,), tolerance=_SDP_TOLERANCE).value
        attained = lower.lower_gradient_ascent(
            network.to(device), starts, generator=generator, n_steps=settings.n_steps
        )
        attained_inf = lower.lower_gradient_ascent(
            network, attained.points.mean(dim=0, keepdim=True), generator=generator, norm=math.inf, n_steps=0
        )
    cut, cut_inf = (
        cubes.cut_cubes(
            bound.value, dimension=d, delta=settings.delta, delta_prime=settings.effective_delta_prime, norm=bound.norm
        )
        for bound in (product, product_inf)
    )
    numbers = {
        "upper": product.value,
        "upper_inf": product_inf.value,
        "upper_closed": closed,
        "upper_sdp": tightest,
        "lower": attained.value,
        "lower_inf": attained_inf.value,
        "ratio": product.value / attained.value if attained.value > 0.0 else math.inf,
        "epsilon": cut.epsilon,
        "cube_side": cut.side,
        "cube_side_inf": cut_inf.side,
    }
    return {name: np.array(number) for name, number in numbers.items()}


def collect(settings: Settings, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> xr.Dataset:
    """Return the labelled result: every variable over (case, network), the sizes as coordinates of the case."""
    found = cases(settings)
    data = {
        name: xr.Variable(
            ("case", "network"),
            [[float(arrays[_key(case, network)][name]) for network in range(settings.n_networks)] for case in found],
            {"long_name": long_name, "units": units},
        )
        for name, (long_name, units) in _VARIABLES.items()
    }
    meanings = {
        "depth": "number of weight matrices L",
        "width": "width of the hidden layers",
        "input_dimension": "dimension d of the inputs",
    }
    coordinates: dict[str, Any] = {
        name: ("case", [getattr(case, name) for case in found], {"long_name": meaning, "units": "1"})
        for name, meaning in meanings.items()
    }
    coordinates["network"] = (
        "network",
        np.arange(settings.n_networks),
        {"long_name": "number of the network", "units": "1"},
    )
    return xr.Dataset(data, coords=coordinates)


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return the means over networks and their standard errors, a row for each case."""
    rows = []
    for i, case in enumerate(cases(settings)):
        here = dataset.isel(case=i)
        row: dict[str, Any] = {
            "depth": case.depth,
            "width": case.width,
            "input_dimension": case.input_dimension,
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


def _key(case: Case, network: int) -> str:
    return f"depth={case.depth} width={case.width} dimension={case.input_dimension} network={network}"
