"""Pairs of cubes joined by search on lattices of any dimension: how many, how far, at what cost."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from empirical import lattice_pairs
from paper_figs import style
from paper_figs.plot import Plot, Verdict
from percolation.growth import Z_95, wilson_interval

SETTINGS = {**lattice_pairs.PRESETS, "ci": lattice_pairs.CI}
BOXES = {"fixed": "coordinates alike in every $d$", "growing": r"coordinates $\propto\sqrt{d}$"}
_WAYS = {
    "search": ("path of cubes", "network", "o"),
    "bypass_inside": ("bypass in the box, certified", "untrained", "s"),
    "straight": ("straight, certified", "exact", "D"),
}
_BOX_LOOKS = {"fixed": ("network", "o"), "growing": ("upper", "^")}
_HIGH = 16  # dimensions from which the issue counts as high


def _settings(dataset: xr.Dataset) -> lattice_pairs.Settings:
    return lattice_pairs.Settings.model_validate_json(dataset.attrs["settings"])


def _count(part: xr.Dataset, way: str) -> np.ndarray:
    """Return on how many of each lattice's pairs a way succeeds."""
    has = part["status"] == lattice_pairs.STATUSES.index("found") if way == "search" else part[way] == 1
    return np.asarray(has.sum("network"))


def _box(dataset: xr.Dataset, box: str) -> xr.Dataset:
    """Return the lattices of one kind of box."""
    return dataset.isel(lattice=np.flatnonzero(dataset["box"].to_numpy() == box))


def _draw_shares(axes: Axes, part: xr.Dataset) -> None:
    n = part.sizes["network"]
    for k, (way, (text, role, marker)) in enumerate(_WAYS.items()):
        counts = _count(part, way)
        ends = np.array([wilson_interval(int(count), n, z=Z_95) for count in counts])
        share = counts / n
        axes.errorbar(
            part["dimension"] * 1.12 ** (k - 1),
            share,
            np.abs(ends.T - share),
            color=style.COLOURS[role],
            marker=marker,
            linestyle="none",
            label=text,
        )
    axes.set_xscale("log", base=2)
    axes.set_ylim(-0.12, 1.04)  # room for the legend
    axes.set_xlabel("dimension $d$")
    axes.set_ylabel("share of pairs connected")


def _draw_quartiles(axes: Axes, dimensions: np.ndarray, values: xr.DataArray, box: str) -> None:
    """Draw medians and quartiles over the pairs."""
    low, middle, high = (values.quantile(q, "network").to_numpy() for q in (0.25, 0.5, 0.75))
    role, marker = _BOX_LOOKS[box]
    axes.errorbar(
        dimensions * (1.1 if box == "growing" else 1),
        middle,
        [middle - low, high - middle],
        color=style.COLOURS[role],
        marker=marker,
        linestyle="none",
        label=f"{box} box",
    )


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the shares of connected pairs for both boxes, path length over distance, and cubes evaluated."""
    figure, (fixed, growing, length, cost) = style.panels(2, n_rows=2, height=5.2)
    for axes, letter, box in ((fixed, "a", "fixed"), (growing, "b", "growing")):
        part = _box(dataset, box)
        if part.sizes["lattice"]:
            _draw_shares(axes, part)
        style.name_panel(axes, letter, f"{box} box: {BOXES[box]}")
    fixed.legend(loc="lower left")
    for box in BOXES:
        part = _box(dataset, box)
        ratio = part["n_steps"] / part["distance"]
        has_paths = np.flatnonzero(ratio.notnull().any("network").to_numpy())
        if has_paths.size:
            there = part.isel(lattice=has_paths)
            _draw_quartiles(length, there["dimension"].to_numpy(), ratio.isel(lattice=has_paths), box)
        if part.sizes["lattice"]:
            _draw_quartiles(cost, part["dimension"].to_numpy(), part["n_evaluated"], box)
    distances = dataset["distance"].median("network").groupby("dimension").median()
    cost.plot(distances["dimension"], distances, color=style.COLOURS["exact"], label="distance")
    for axes in (length, cost):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("dimension $d$")
        axes.legend()
    length.set_ylabel("path / L1 distance")
    cost.set_yscale("log")
    cost.set_ylabel("cubes evaluated")
    style.name_panel(length, "c", "length of the paths found")
    style.name_panel(cost, "d", "cost of a pair")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = _settings(dataset)
    found = dataset["status"] == lattice_pairs.STATUSES.index("found")
    n_found = int(found.sum())
    n_certified = int(dataset["length_ratio"].notnull().sum())
    sizes = ", ".join(f"{box} " + ", ".join(f"{d}: {n}" for b, d, n in settings.lattices if b == box) for box in BOXES)
    return (
        f"Random networks of Eqs. 8-10 ({settings.activation}, {settings.depth} matrices, width {settings.width}), "
        f"{settings.n_networks} for each lattice, each with one pair of cubes drawn from those that share a label, δ = "
        f"{settings.delta:g}; half sides of {settings.radius:g} correlation lengths along the axes in a growing box, of {settings.radius:g}/√d in a fixed one; cubes along "
        f"an axis, by dimension: {sizes}. (a, b) The share of pairs joined by a path of face-neighbouring cubes that all "
        "carry a shared label, and of the same pairs joined within a shared interval by a certified straight segment, or bypass that stays in the box "
        f"(at most {settings.max_rounds} rounds); bars are Wilson's 95 % intervals. A search ends with a path, with all cubes "
        f"that can be reached from one of the ends, or after {settings.budget:,} cubes. (c) Steps of the paths over the "
        "least possible. (d) Cubes evaluated for a pair, and the distance of the two; median and quartiles over pairs. Of "
        f"{n_found} paths found, {n_certified}, straightened, are certified to stay in the interval at every point. In more than "
        f"{settings.width} dimensions the outputs do not change along those that the first matrix sends to zero."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdicts on connectedness in high dimension and on cubes as paths.

    The first holds if Wilson's 95 % interval of the share joined, over all lattices of high dimension, lies above 0.9.
    Each pair has a network of its own, drawn anew for every lattice: pairs are independent.
    """
    settings = _settings(dataset)
    n = settings.n_networks
    is_high = dataset["dimension"].to_numpy() >= _HIGH
    found, straight = _count(dataset, "search"), _count(dataset, "straight")
    n_high, n_low = int(is_high.sum()) * n, int((~is_high).sum()) * n
    low, _ = wilson_interval(int(found[is_high].sum()), n_high, z=Z_95) if n_high else (0.0, 1.0)
    least = wilson_interval(int(found[is_high].min()), n, z=Z_95)[0] if n_high else 0.0
    exhausted = int((dataset["status"] == lattice_pairs.STATUSES.index("exhausted")).to_numpy()[is_high].sum())
    n_paths = int(found.sum())
    n_certified = int(dataset["length_ratio"].notnull().sum())
    contradicted = (dataset["status"] == lattice_pairs.STATUSES.index("exhausted")) & (dataset["bypass_inside"] == 1)
    shortest = ((dataset["n_steps"] == dataset["distance"]).sum("network").to_numpy())[is_high]
    return [
        Verdict(
            claim="Two inputs of one label are connected with a probability that tends to 1 in high dimension",
            source="Section 4, Eq. 3; App. D",
            measured=(
                f"d >= {_HIGH}: {int(found[is_high].sum())} of {n_high} pairs joined (95 %: at least {low:.3f}; of "
                f"the {n} of any one lattice at least {least:.2f}), "
                f"{exhausted} proved apart on the lattice, {int(straight[is_high].sum())} by the straight segment; below: "
                f"{int(found[~is_high].sum())} of {n_low}"
            ),
            outcome="open" if not n_high or low < 0.9 else "holds",
            explanation=(
                f"In high dimension {int(shortest.sum())} of {int(found[is_high].sum())} paths have no step more than the "
                "distance of the pair: one never turns back, only chooses the order of the axes so that the value stays "
                "where it is. Each step changes the value little, and there are d of them to choose from. That is not "
                "percolation of independent cubes, whose clusters near their threshold are mazes: neighbours agree because "
                "the network is smooth."
            ),
        ),
        Verdict(
            claim="A path of cubes that share an interval is a delta-connected path of inputs",
            source="Section 4, App. D.1",
            measured=(
                f"{n_certified} of {n_paths} paths found certified at every point of a polygon through their centres; "
                f"{int(contradicted.sum())} pairs without a path of cubes have a certified one in the box"
            ),
            outcome="holds" if n_certified == n_paths and not bool(contradicted.any()) else "holds with a correction",
            explanation=(
                "Cubes are labelled at their centres here, and the labels of real networks do not come in cubes: what the "
                "value does between the centres is certified afterwards, by following the network piece by piece. Where the "
                "lattice is coarse a step can leave the interval, or a thin neck can lie between the cubes."
            ),
        ),
    ]


PLOT = Plot(
    heading="Real networks cut into cubes: paths by search in any dimension",
    question=(
        "In a few dimensions every cube of a box can be labelled; in 3,072, the pixels of a small colour image, there are more "
        "of them than can be counted. But to find a path between two of them one only has to look at the cubes on the way. Do "
        "random networks let pairs of one label through, how long are the paths, and does the value stay where it should "
        "between the cubes' centres?"
    ),
    settings=SETTINGS,
    experiment=lambda _: lattice_pairs.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
