"""1 - P(connected | same label) against the dimension, on lattices that are fine enough."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from empirical import refinement
from paper_figs import style
from paper_figs.fig_conjecture import CLAIM, MARKERS, Rows
from paper_figs.fig_resolution import ROUNDING
from paper_figs.plot import Plot, Verdict

SETTINGS = refinement.PRESETS | {
    "ci": refinement.Settings(dimensions=(1, 2, 4), refinements=(1, 3), n_networks=2, max_coarse=200, width=16)
}


def _settings_of(dataset: xr.Dataset) -> refinement.Settings:
    return refinement.Settings.model_validate_json(dataset.attrs["settings"])


def _coarsest(settings: refinement.Settings) -> str:
    """Return what the coarsest lattice is called."""
    return f"{settings.refinements[0]} fine cubes a coarse one" if settings.refinements[0] > 1 else "coarse lattice"


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the complement of P(connected) against the dimension for each box, and against the size of the cubes."""
    settings, rows = _settings_of(dataset), refinement.rows(dataset)
    n_boxes = len(settings.boxes)
    figure, panels = style.panels(n_boxes + 1, height=3.2)
    for letter, axes, box in zip("ab", panels, settings.boxes, strict=False):
        _against_dimension(axes, settings, [row for row in rows if row["box"] == box])
        style.name_panel(axes, letter, f"{box} box")
    panels[0].set_ylabel("1 − P(connected | same label)")
    panels[0].legend(loc="lower left", fontsize=6.5)
    drawn = [row["apart"] for row in rows if row["apart"] >= ROUNDING]
    for axes in panels[:-1]:
        axes.set_yscale("log")
        axes.set_ylim(0.2 * min([*drawn, 1.0]), 2)
    _at_wall(panels[-1], settings, rows)
    style.name_panel(panels[-1], "abc"[n_boxes], "cut off at the wall")
    return figure


def _at_wall(axes: Axes, settings: refinement.Settings, rows: Rows) -> None:
    """Draw the share of what is cut off that lies in parts that touch the box's wall."""
    kinds = list(itertools.product(settings.activations, settings.boxes))
    for k, (activation, box) in enumerate(kinds):
        part = [row for row in rows if (row["activation"], row["box"]) == (activation, box)]
        seen = [row for row in part if row["at_wall"] is not None]
        shift = 0.14 * (k - (len(kinds) - 1) / 2)
        axes.plot(
            *([row["dimension"] + shift for row in seen], [row["at_wall"] for row in seen]),
            marker=MARKERS[activation],
            color=style.COLOURS["network"],
            markerfacecolor=None if box == settings.boxes[0] else "white",
            linestyle="none",
            label=f"{activation}, {box}",
        )
    axes.set_ylim(0, 1.08)
    axes.set_xticks(settings.dimensions)
    axes.set_xlabel("dimension $d$")
    axes.set_ylabel("share of what is cut off")
    axes.legend(loc="lower right", fontsize=6.5)


def _against_dimension(axes: Axes, settings: refinement.Settings, rows: Rows) -> None:
    """Draw each activation's networks on the finest lattice, and the first one's on the coarsest."""
    for k, activation in enumerate(settings.activations):
        part = [row for row in rows if row["activation"] == activation]
        is_labelled = False
        for row in part:
            place = row["dimension"] + 0.14 * (k - (len(settings.activations) - 1) / 2)
            style_of: dict[str, Any] = {"color": style.COLOURS["network"], "linestyle": "none"}
            if row["apart"] < ROUNDING:
                # At the panel's lower end, whatever its scale.
                where = axes.get_xaxis_transform()
                axes.plot(place, 0.03, marker="$↓$", markersize=6, transform=where, **style_of)
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
        f"delta = {settings.delta:g}) in boxes of half side {settings.radius:g} correlation lengths: in a growing box along the axes, "
        f"in a fixed one along the diagonal. The share of pairs of cubes of one label that are not connected in it, over all cubes of a "
        f"lattice that is never labelled as a whole, with {sides} fine cubes along an axis; mean and standard error over {settings.n_networks} "
        f"networks. Parts that are cut off are looked for from {settings.n_starts} starts and counted cube by cube, "
        f"what was missed is estimated by {settings.n_sample} cubes drawn from the whole box. Filled where the last refinement, from "
        f"{settings.refinements[-2]} to {settings.refinements[-1]} fine cubes a coarse one, moved it by at most a tenth of itself, two standard "
        f"errors and {n_given_up} cubes given up included. Arrows: nothing was found cut off in any network. Grey: "
        f"{settings.activations[0]} networks on the coarsest lattice drawn ({_coarsest(settings)}). Dotted: isolated cubes of independent labels on an "
        f"infinite lattice. On how many of the networks a mean rests, and the share that the largest carries: {_rests(settings, rows)}. "
        "The last panel: of what is cut off on the finest lattice, the share in parts that touch the box's wall; hollow: the second kind of box."
    )


def _rests(settings: refinement.Settings, rows: Rows) -> str:
    """Return the networks that each mean rests on and the largest one's share, by kind and dimension."""
    parts = []
    for activation, box in itertools.product(settings.activations, settings.boxes):
        part = [row for row in rows if (row["activation"], row["box"]) == (activation, box)]
        each = [
            f"{row['n_cut_off']}" + ("" if row["largest"] is None else f" ({100 * row['largest']:.0f} %)")
            for row in part
        ]
        parts.append(f"{activation}, {box} box, {', '.join(each)}")
    return "; ".join(parts)


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
                f"less than a tenth{', and raise none of the others: bounds from above' if coarse and is_lower else ''}; {_walls(rows)}"
            ),
            outcome="holds" if all(is_up) and is_lower else "open",
            explanation=(
                "It counts as holding, as far as measured, if for every kind of network and box the complement falls at least "
                "tenfold over these dimensions, and smaller cubes raise it nowhere but by two standard errors and what was given up, which is counted as not "
                "connected. The limit itself is extrapolation."
            ),
        )
    ]


def _walls(rows: Rows) -> str:
    """Return the range over points of the share of what is cut off that touches the wall, and how few networks."""
    seen = [row for row in rows if row["at_wall"] is not None]
    if not seen:
        return "nothing is cut off"
    parts = []
    for name, few in (("d = 1", [row for row in seen if row["dimension"] == 1]), ("d > 1", seen)):
        chosen = few if name == "d = 1" else [row for row in seen if row["dimension"] > 1]
        if chosen:
            low, high = (100 * limit([row["at_wall"] for row in chosen]) for limit in (min, max))
            parts.append(f"{low:.3g} to {high:.3g} % ({name})")
    least = min(seen, key=lambda row: int(row["n_cut_off"]))
    return (
        f"of what is cut off {' and '.join(parts)} is in parts that touch the box's wall; the fewest networks that a "
        f"point above 0 rests on are {least['n_cut_off']} ({least['activation']}, {least['box']} box, d = {least['dimension']})"
    )


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
                "It counts as holding if no point moves by more, what was given up included. A point that falls is a bound from above: "
                "smaller cubes only connect more there."
            ),
        )
    ]


PLOT = Plot(
    heading="Lattices that are fine enough",
    question=(
        "In the figures before, cubes may be too large from four or five dimensions on. Here the lattices are finer, and labels are made only "
        "where they are needed: around what is cut off. Is the rise to one still there, at which rate, and where does the rest lie?"
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
        "In the figure before, smaller cubes still moved some points of four and five dimensions, open there. Here the same "
        "networks are asked on lattices nearly twice as fine along every axis. Do the points stay?"
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
