"""1 - P(connected | same label) against the dimension for networks of several depths."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from empirical import conjecture, conjecture_tables
from paper_figs import style
from paper_figs.fig_conjecture import (
    BOXES_ALONE,
    CLAIM,
    SURE,
    Rows,
    gap_in_errors,
    ratio_of_means,
    settings_of,
    too_large,
)
from paper_figs.fig_resolution import draw_networks
from paper_figs.plot import Plot, Verdict, uncertain

_FEW: dict[str, Any] = BOXES_ALONE | {"boxes": ("growing",), "depths": (2, 4, 6)}
SETTINGS = {
    "quick": conjecture.Settings(dimensions=(1, 2, 3, 4), max_cubes=30_000, **_FEW),
    "paper": conjecture.PRESETS["paper"].model_copy(update=_FEW),
    "ci": conjecture.Settings(
        activations=("sin",),
        dimensions=(1, 2, 4),
        n_networks=2,
        max_cubes=700,
        shared_fields=1,
        **_FEW | {"depths": (2, 6)},
    ),
}


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the complement of P(connected) against the dimension, a panel for each activation."""
    settings, rows = settings_of(dataset), conjecture_tables.rows(dataset)
    figure, panels = style.panels(len(settings.activations), height=3.0, sharey=True)
    for letter, axes, activation in zip("abcd", panels, settings.activations, strict=False):
        here = [row for row in rows if row["activation"] == activation]
        _independent(axes, here)
        shades = np.linspace(0.3, 1.0, len(settings.depths))
        for k, (depth, shade) in enumerate(zip(settings.depths, shades, strict=True)):
            part = [row for row in here if row["depth"] == depth]
            draw_networks(axes, part, shift=0.14 * k, label=f"{depth} matrices", alpha=shade, markersize=3.5)
        axes.set_xticks(settings.dimensions)
        axes.set_xlabel("dimension $d$")
        style.name_panel(axes, letter, activation)
    panels[0].set_yscale("log")
    panels[0].set_ylabel("1 − P(connected | same label)")
    panels[0].legend(loc="lower left", fontsize=6.5)
    return figure


def _independent(axes: Axes, rows: Rows) -> None:
    """Draw the independent labels of all depths: a band from the least to the most connected."""
    dimensions = sorted({row["dimension"] for row in rows})
    apart = [[1 - row["independent"] for row in rows if row["dimension"] == d] for d in dimensions]
    axes.fill_between(
        *(dimensions, [min(one) for one in apart], [max(one) for one in apart]),
        color=style.COLOURS["simulation"],
        alpha=0.3,
        linewidth=1,
        label="independent labels",
    )


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = settings_of(dataset)
    sides = ", ".join(f"{conjecture.sides(settings, d)[-1]} (d = {d})" for d in settings.dimensions)
    return (
        f"Random networks of Eqs. 8–10 with {', '.join(map(str, settings.depths))} matrices, from pale to dark; width {settings.width}, "
        f"delta = {settings.delta:g}, half side {settings.radius:g} correlation lengths of the networks' own depth along every axis. The share of "
        f"pairs of cubes of one label that are not connected in it, mean and standard error over {settings.n_networks} networks, with "
        f"{sides} cubes along an axis; filled where halving the cubes moved it, with two standard errors of the move, by at most a tenth "
        "of itself. Band: independent labels with the frequencies of these networks' labels, over depths. A point at 0 is not drawn. "
        + ratio_of_means(dataset, conjecture_tables.rows(dataset))
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdict on the conjecture at every depth."""
    settings, rows = settings_of(dataset), conjecture_tables.rows(dataset)
    parts, is_up = [], []
    for depth in settings.depths:
        of_depth = [row for row in rows if row["depth"] == depth]
        for activation in settings.activations:
            part = [row for row in of_depth if row["activation"] == activation]
            is_up.append(1 - part[-1]["network"] < (1 - part[0]["network"]) / 10)
        parts.append(f"{depth} matrices {_range(of_depth, settings, 0)} to {_range(of_depth, settings, -1)}")
    coarse, is_lower = too_large(rows)
    n_above = sum(gap_in_errors(row) > SURE for row in rows)
    return [
        Verdict(
            claim=CLAIM,
            source="Conjecture 4.1",
            measured=(
                f"P(connected), the least and the most connected activation, from d = {settings.dimensions[0]} to "
                f"{settings.dimensions[-1]}: {'; '.join(parts)}. More than {SURE} standard errors above independent labels in "
                f"{n_above} of {len(rows)} points; {len(coarse)} points have cubes that may be too large"
                + (", and all of them rose when the cubes were halved" if coarse and is_lower else "")
            ),
            outcome="holds" if all(is_up) and is_lower else "open",
            explanation=(
                "It counts as holding, as far as measured, if the complement falls at least tenfold over these dimensions for every "
                "activation and depth, and smaller cubes only connect more."
            ),
        )
    ]


def _range(rows: Rows, settings: conjecture.Settings, place: int) -> str:
    """Return the least and the largest P(connected) in one dimension."""
    here = [row for row in rows if row["dimension"] == settings.dimensions[place]]
    least, most = (by(here, key=lambda row: float(row["network"])) for by in (min, max))
    return " – ".join(uncertain(row["network"], row["network_error"]) for row in (least, most))


PLOT = Plot(
    heading="Shallow and deep networks",
    question=(
        "All networks before have three matrices. Does it take a certain depth? Here growing boxes are labelled by shallower and deeper "
        "ones, each box a number of its own networks' correlation lengths."
    ),
    settings=SETTINGS,
    experiment=lambda _: conjecture.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
