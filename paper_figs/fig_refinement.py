"""1 - P(connected | same label) against the dimension, on lattices that are fine enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from empirical import refinement
from paper_figs import style
from paper_figs.fig_conjecture import CLAIM, MARKERS, Rows
from paper_figs.fig_resolution import ROUNDING, draw_against_side
from paper_figs.plot import Plot, Verdict
from percolation import labels

SETTINGS = refinement.PRESETS | {
    "ci": refinement.Settings(dimensions=(1, 2, 4), refinements=(1, 3), n_networks=2, max_coarse=200, width=16)
}


def _settings_of(dataset: xr.Dataset) -> refinement.Settings:
    return refinement.Settings.model_validate_json(dataset.attrs["settings"])


def _coarsest(settings: refinement.Settings) -> str:
    """Return what the coarsest lattice is called."""
    return f"{settings.refinements[0]} fine cubes a coarse one" if settings.refinements[0] > 1 else "coarse lattice"


def _smallest(settings: refinement.Settings, dimension: int) -> float:
    """Return the complement if one sampled cube of one label in one network is cut off, labels being alike."""
    n_labels = labels.n_cells(settings.delta) - 1
    of_label = settings.delta * refinement.coarse_side(settings, dimension) ** dimension
    return float(2 / (n_labels * of_label * settings.n_networks))


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the complement of P(connected) against the dimension for each box, and against the size of the cubes."""
    settings, rows = _settings_of(dataset), refinement.rows(dataset)
    n_boxes = len(settings.boxes)
    figure, panels = style.panels(n_boxes + 1, height=3.2, sharey=True)
    for letter, axes, box in zip("ab", panels, settings.boxes, strict=False):
        _against_dimension(axes, settings, [row for row in rows if row["box"] == box])
        style.name_panel(axes, letter, f"{box} box")
    panels[0].set_ylabel("1 − P(connected | same label)")
    panels[0].legend(loc="lower left", fontsize=6.5)
    apart = 1 - dataset["in_label"].isel(activation=0, box=0)
    lengths = 2 * settings.radius / dataset["side"]
    draw_against_side(panels[-1], apart, lengths, style.COLOURS["network"], settings.boxes[0])
    style.name_panel(panels[-1], "abc"[n_boxes], f"{settings.boxes[0]} box, {settings.activations[0]}")
    panels[0].set_yscale("log")
    drawn = [row["apart"] for row in rows if row["apart"] >= ROUNDING]
    panels[0].set_ylim(0.2 * min(drawn + [_smallest(settings, d) for d in settings.dimensions]), 2)
    return figure


def _against_dimension(axes: Axes, settings: refinement.Settings, rows: Rows) -> None:
    """Draw each activation's networks on the finest lattice, and the first one's on the coarsest."""
    for k, activation in enumerate(settings.activations):
        part = [row for row in rows if row["activation"] == activation]
        is_labelled = False
        for row in part:
            place = row["dimension"] + 0.14 * (k - (len(settings.activations) - 1) / 2)
            style_of: dict[str, Any] = {"color": style.COLOURS["network"], "linestyle": "none"}
            if row["apart"] < ROUNDING:
                axes.plot(place, _smallest(settings, row["dimension"]), marker="$↓$", markersize=6, **style_of)
                continue
            axes.errorbar(
                *(place, row["apart"], row["apart_error"]),
                marker=MARKERS[activation],
                markerfacecolor=None if row["is_resolved"] else "white",
                label=None if is_labelled else activation,
                **style_of,
            )
            is_labelled = True
    first = [row for row in rows if row["activation"] == settings.activations[0]]
    d, coarse = (np.array([row[name] for row in first]) for name in ("dimension", "coarse"))
    axes.plot(
        *(d, coarse),
        color="0.6",
        marker=".",
        linewidth=0.8,
        label=f"{settings.activations[0]}, {_coarsest(settings)}",
    )
    if first[0]["definite"] is not None:
        definite = np.array([row["definite"] for row in first])
        seen = definite > 0
        axes.plot(d[seen], definite[seen], color="0.3", linestyle="--", linewidth=0.8, label="curved one way")
    independent = 2 * (1 - settings.delta) ** (2 * d)
    axes.plot(d, independent, color=style.COLOURS["simulation"], linestyle=":", label="independent, $2(1-δ)^{2d}$")
    axes.set_xticks(settings.dimensions)
    axes.set_xlabel("dimension $d$")


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings, rows = _settings_of(dataset), refinement.rows(dataset)
    sides = ", ".join(
        f"{refinement.coarse_side(settings, d) * settings.refinements[-1]} (d = {d})" for d in settings.dimensions
    )
    n_given_up = sum(row["n_given_up"] for row in rows)
    return (
        f"Random networks of Eqs. 8–10 ({', '.join(settings.activations)}; {settings.depth} matrices, width {settings.width}, "
        f"delta = {settings.delta:g}) on a coarse box, whose cubes are the sample, and how these are connected on finer lattices "
        f"that are never labelled as a whole. Half side {settings.radius:g} correlation lengths: in a growing box along the axes, "
        f"in a fixed one along the diagonal. The share of pairs of cubes of one label that are not connected in it, mean and standard "
        f"error over {settings.n_networks} networks, with {sides} fine cubes along an axis; filled where the last refinement, from "
        f"{settings.refinements[-2]} to {settings.refinements[-1]} fine cubes a coarse one, moved it by at most a tenth of itself, two standard "
        f"errors and {n_given_up} clusters given up included. Arrows: no sampled cube was cut off in any network; the arrow stands about where one "
        f"would. Grey: the same cubes of {settings.activations[0]} networks on the coarsest lattice drawn ({_coarsest(settings)}); dashed: the share of random points where all "
        "curvatures of these networks have one sign, as at an extremum, which every pocket inside the box holds or surrounds. Dotted: isolated cubes of independent labels on an infinite lattice. "
        "The last panel has the same against the cubes' size, the dimension beside the smallest cubes."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdict on the conjecture."""
    settings, rows = _settings_of(dataset), refinement.rows(dataset)
    parts, is_up = [], []
    for activation in settings.activations:
        for box in settings.boxes:
            part = [row for row in rows if (row["activation"], row["box"]) == (activation, box)]
            parts.append(f"{activation}, {box} box: {_describe(part, settings.n_networks)}")
            is_up.append(part[-1]["apart"] < part[0]["apart"] / 10)
    coarse = [row for row in rows if not row["is_resolved"]]
    is_lower = all(row["is_lower"] for row in coarse)
    return [
        Verdict(
            claim=CLAIM,
            source="Conjecture 4.1",
            measured=(
                f"complement of P(connected): {'; '.join(parts)} (infinite independent lattice: a factor of "
                f"{(1 - settings.delta) ** 2:.2f} a dimension); smaller cubes change {len(rows) - len(coarse)} of {len(rows)} points by "
                f"less than a tenth{', and raise none of the others: bounds from above' if coarse and is_lower else ''}"
            ),
            outcome="holds" if all(is_up) and is_lower else "open",
            explanation=(
                "It counts as holding, as far as measured, if for every kind of network and box the complement falls at least "
                "tenfold over these dimensions, and smaller cubes raise it nowhere but by what was given up, which is counted as not "
                "connected. The limit itself is extrapolation."
            ),
        )
    ]


def _describe(rows: Rows, n_networks: int) -> str:
    """Return the first and the last complement of one kind that is above 0, the fall, and where none was found."""
    seen = [row for row in rows if row["apart"] >= ROUNDING]
    if not seen:
        return f"none cut off in {n_networks} networks of each dimension"
    first, last = seen[0], seen[-1]
    text = f"{_with_error(first)}"
    if last is not first:
        factor = (last["apart"] / first["apart"]) ** (1 / (last["dimension"] - first["dimension"]))
        text += f" to {_with_error(last)}, a factor of {factor:.2f} a dimension"
    none = [row["dimension"] for row in rows if row["apart"] < ROUNDING]
    return text + (f", none cut off at d = {', '.join(map(str, none))}" if none else "")


def _with_error(row: dict[str, Any]) -> str:
    """Return the complement, its standard error and the dimension."""
    return f"{row['apart']:.2g} ± {row['apart_error']:.1g} at d = {row['dimension']}"


def _judge_finer(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdict on whether smaller cubes leave P(connected) as it is."""
    settings, rows = _settings_of(dataset), refinement.rows(dataset)
    still = [row for row in rows if row["is_resolved"]]
    moved = [
        f"{row['activation']}, {row['box']} box, from {row['apart'] - row['moved']:.2g} to {_with_error(row)}"
        for row in rows
        if not row["is_resolved"]
    ]
    return [
        Verdict(
            claim="The cubes may be arbitrarily small: P(connected) does not depend on them any more",
            source="Remark D.1",
            measured=(
                f"from {settings.refinements[-2]} to {settings.refinements[-1]} fine cubes a coarse one the complement moved by less than "
                f"a tenth, with two standard errors, in {len(still)} of {len(rows)} points"
                + (f"; otherwise: {'; '.join(moved)}" if moved else "")
            ),
            outcome="holds" if not moved else "open",
            explanation=(
                "It counts as holding if no point moves by more, clusters given up included. A point that falls is a bound from above: "
                "smaller cubes only connect more there."
            ),
        )
    ]


PLOT = Plot(
    heading="Lattices that are fine enough",
    question=(
        "In the figures before, cubes may be too large from four or five dimensions on. Here few cubes are sampled, and joined on lattices of up to "
        "10¹⁰ cubes whose labels are made only where they are needed. Is the rise to one still there, and at which rate?"
    ),
    settings=SETTINGS,
    experiment=lambda _: refinement.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
FINER = Plot(
    heading="Finer still",
    question=(
        "In the figure before, smaller cubes still moved some points of four and five dimensions, open there. Here the same sampled cubes "
        "of the same networks are joined on lattices nearly twice as fine along every axis. Do the points stay?"
    ),
    settings={
        "quick": refinement.PRESETS["quick"].model_copy(update={"dimensions": (3, 4), "refinements": (5, 9)}),
        "paper": refinement.PRESETS["paper"].model_copy(
            update={"activations": ("sin", "relu"), "dimensions": (4, 5), "refinements": (5, 9), "budget": 100_000_000}
        ),
        "ci": SETTINGS["ci"].model_copy(update={"refinements": (3, 5)}),
    },
    experiment=lambda _: refinement.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=_judge_finer,
)
