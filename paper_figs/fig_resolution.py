"""1 - P(connected | same label) against the dimension and the size of the cubes, in boxes that need fewer of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from empirical import conjecture, conjecture_tables
from empirical.network_lattice import Box
from lipschitz.fully_connected import Activation
from paper_figs import style
from paper_figs.fig_conjecture import (
    BOXES_ALONE,
    CLAIM,
    MARKERS,
    SURE,
    Rows,
    gap_in_errors,
    ratio_of_means,
    settings_of,
    too_large,
)
from paper_figs.plot import Plot, Verdict, uncertain

# Half the side of the figure `conjecture`: cubes of the same number are half as large.
_BOX: dict[str, Any] = BOXES_ALONE | {"radius": 1.5, "max_side": 128}


def _presets(box: Box, activations: tuple[Activation, ...]) -> dict[str, conjecture.Settings]:
    """Return the settings by preset for one kind of box; ``activations`` are those of the preset paper."""
    few: dict[str, Any] = _BOX | {"boxes": (box,), "activations": ("sin",)}
    paper = conjecture.PRESETS["paper"].model_copy(update=few | {"activations": activations, "max_cubes": 2**24})
    return {
        "quick": conjecture.Settings(max_cubes=300_000, **few),
        "paper": paper,
        "ci": conjecture.Settings(dimensions=(1, 2, 4), n_networks=2, max_cubes=700, shared_fields=1, **few),
    }


ROUNDING = 1e-12  # of a complement that is 0
_FEW_DECADES = 30  # an axis shorter than this has numbers within the decades


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the complement of P(connected) against the dimension, and of each dimension against the cubes' size."""
    settings = settings_of(dataset)
    rows = conjecture_tables.rows(dataset)
    figure, (left, middle, right) = style.panels(3, height=3.2, sharey=True)
    for k, activation in enumerate(settings.activations):
        part = [row for row in rows if row["activation"] == activation]
        draw_networks(left, part, shift=0.14 * k, label=f"real networks, {activation}")
    first = [row for row in rows if row["activation"] == settings.activations[0]]
    d, independent, error = (
        np.array([row[name] for row in first]) for name in ("dimension", "independent", "independent_error")
    )
    left.errorbar(
        *(d, 1 - independent, error),
        color=style.COLOURS["simulation"],
        marker="s",
        linestyle="none",
        label="independent labels",
    )
    left.set_yscale("log")
    left.set_ylim(0.3 * _least(dataset), 1.6)
    left.set_xticks(settings.dimensions)
    left.set_xlabel("dimension $d$")
    left.set_ylabel("1 − P(connected | same label)")
    left.legend(loc="lower left", fontsize=7)
    style.name_panel(left, "a")
    for axes, letter, model, text in (
        (middle, "b", "network", f"real networks, {settings.activations[0]}"),
        (right, "c", "independent", "independent labels"),
    ):
        _against_side(axes, settings, dataset, model)
        style.name_panel(axes, letter, text)
    return figure


def _least(dataset: xr.Dataset) -> float:
    """Return the least mean complement that is above 0."""
    found = 1 - dataset["in_label"].mean("network").to_numpy()
    return float(found[found > ROUNDING].min(initial=1.0))


def draw_networks(axes: Axes, rows: Rows, *, shift: float, label: str, **look: Any) -> None:
    """Draw networks of one kind on the finest cubes, filled where halving the cubes changed nothing."""
    drawn = [row for row in rows if row["network"] < 1]
    for row in drawn:
        axes.errorbar(
            *(row["dimension"] + shift, 1 - row["network"], row["network_error"]),
            color=style.COLOURS["network"],
            marker=MARKERS[row["activation"]],
            markerfacecolor=None if row["is_resolved"] else "white",
            linestyle="none",
            label=label if row is drawn[0] else None,
            **look,
        )


def _against_side(axes: Axes, settings: conjecture.Settings, dataset: xr.Dataset, model: str) -> None:
    """Draw the complement against the size of the cubes in correlation lengths, a line for each dimension."""
    here = 1 - dataset["in_label"].sel(model=model, box=settings.boxes[0]).isel(activation=0, depth=0)
    sides = dataset["side"].where(dataset["side"] > 0)
    colour = style.COLOURS["network" if model == "network" else "simulation"]
    draw_against_side(axes, here, 2 * settings.radius / sides, colour, settings.boxes[0])


def draw_against_side(axes: Axes, apart: xr.DataArray, lengths: xr.DataArray, colour: str, box: Box) -> None:
    """Draw the complement of P(connected), over networks, against the cubes' size, a line for each dimension.

    ``apart`` is over (dimension, network, lattice), ``lengths`` over (dimension, lattice), nan where there is none: in a
    fixed box the diagonal of a cube, in a growing one its side, in correlation lengths.
    """
    mean, error = apart.mean("network"), apart.std("network", ddof=1) / np.sqrt(apart.sizes["network"])
    shades = np.linspace(0.35, 1.0, apart.sizes["dimension"])
    for d, shade in zip(apart["dimension"].to_numpy().tolist(), shades, strict=True):
        value, bar, length = (one.sel(dimension=d).to_numpy() for one in (mean, error, lengths))
        there = (value > ROUNDING) & np.isfinite(length)
        if not there.any():
            continue
        value, bar, length = value[there], bar[there], length[there]
        axes.errorbar(length, value, bar, color=colour, alpha=shade, marker="o", linewidth=0.8)
        place, above = (length[-1], value[-1]), 0.0 if d % 2 else -5.0  # neighbours may lie close
        axes.annotate(f"{d}", place, xytext=(-5, above), textcoords="offset points", ha="right", fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel(f"cube {'diagonal' if box == 'fixed' else 'side'}, corr. lengths")
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < _FEW_DECADES * low else (1.0,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = settings_of(dataset)
    sides = ", ".join(f"{conjecture.sides(settings, d)[-1]} (d = {d})" for d in settings.dimensions)
    side = f"{2 * settings.radius:g}"
    box, size = f"a growing box, {side} correlation lengths along a side in every dimension", "side"
    if settings.boxes[0] == "fixed":
        size = "diagonal"
        box = (
            f"a fixed box, {side} correlation lengths across the diagonal in every dimension and {side}/√d along a side"
        )
    return (
        f"Random networks of Eqs. 8–10 ({', '.join(settings.activations)}; width {settings.width}, delta = {settings.delta:g}) "
        f"label every cube of {box}. (a) The share of pairs of cubes of one "
        f"label that are not connected in it, mean and standard error over {settings.n_networks} networks, with "
        f"{sides} cubes along an axis; filled where halving the cubes moved it, with two standard errors of the move, by at most a tenth of "
        f"itself; independent labels have the frequencies of the {settings.activations[0]} networks' labels. A point at 0 is not drawn. (b) The same against the cubes' {size}, "
        "the dimension beside the smallest cubes; (c) independent labels on the same lattices. "
        + ratio_of_means(dataset, conjecture_tables.rows(dataset))
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdicts on the conjecture where the cubes are small enough, and on arbitrarily small cubes."""
    settings, rows = settings_of(dataset), conjecture_tables.rows(dataset)
    return [_rises(settings, rows), _shrinks(settings, rows)]


def _rises(settings: conjecture.Settings, rows: Rows) -> Verdict:
    parts, is_up = [], []
    for activation in settings.activations:
        part = [row for row in rows if row["activation"] == activation]
        sound = [row for row in part if row["is_resolved"] and row["network"] < 1]
        is_up.append(len(sound) > 1 and 1 - sound[-1]["network"] < (1 - sound[0]["network"]) / 10)
        if len(sound) > 1:
            first, last = sound[0], sound[-1]
            ratio = (1 - last["network"]) / (1 - first["network"])
            rate = ratio ** (1 / (last["dimension"] - first["dimension"]))
            parts.append(
                f"{activation}: {_with_error(first)} at d = {first['dimension']}, {_with_error(last)} at d = "
                f"{last['dimension']}, a factor of {rate:.2f} a dimension"
            )
        else:
            parts.append(f"{activation}: cubes are small enough in {len(sound)} of {len(part)} dimensions")
    measured = (
        f"complement of P(connected), where the cubes are small enough: {'; '.join(parts)} (infinite independent lattice: "
        f"{(1 - settings.delta) ** 2:.2f})"
    )
    coarse, is_lower = too_large(rows)
    if coarse:
        least = min(coarse, key=lambda row: 1 - float(row["network"]))
        measured += f"; {len(coarse)} of {len(rows)} points have cubes that may be too large"
        if is_lower:
            measured += (
                f", and all of them fell when the cubes were halved: bounds from above, down to {_with_error(least)} "
                f"({least['activation']}, d = {least['dimension']})"
            )
    return Verdict(
        claim=CLAIM,
        source="Conjecture 4.1",
        measured=measured,
        outcome="holds" if all(is_up) and is_lower else "open",
        explanation=(
            "It counts as holding, as far as measured, if from the first to the last dimension whose cubes are small enough the "
            "complement falls at least tenfold for every activation, and smaller cubes lower it in all others. The limit itself "
            "is extrapolation."
        ),
    )


def _with_error(row: dict[str, Any]) -> str:
    """Return the complement and its standard error, of two digits and one."""
    return f"{1 - row['network']:.2g} ± {row['network_error']:.1g}"


def _shrinks(settings: conjecture.Settings, rows: Rows) -> Verdict:
    """Return whether the networks' labels near independent ones where smaller cubes change nothing any more."""
    sound = [row for row in rows if row["is_resolved"] and row["activation"] == settings.activations[0]]
    parts, is_apart = [], bool(sound)
    for row in sound:
        is_apart &= gap_in_errors(row) > SURE
        parts.append(
            f"d = {row['dimension']}: {_with_error(row)} (halving the cubes changed it by {-row['moved']:.1g}) against "
            f"{uncertain(1 - row['independent'], row['independent_error'])}"
        )
    return Verdict(
        claim="The cubes may be arbitrarily small: their labels are then those of a large lattice of independent cubes",
        source="Remark D.1, App. D.1.5",
        measured=(
            f"complement of P(connected), {settings.activations[0]} networks against independent labels of the same frequencies, "
            f"where the cubes are small enough: {'; '.join(parts) or 'none, 0 dimensions'}"
        ),
        outcome="fails" if is_apart else "open",
        explanation=(
            "Any small cubes will do, and there P(connected) has its limit; but it is that of a smooth function between two levels "
            "on this box, not the lattice's. It counts as failing if in every dimension whose cubes are small enough the two are more "
            "than three standard errors apart."
        ),
    )


PLOT = Plot(
    heading="Smaller boxes, smaller cubes",
    question=(
        "In the boxes of the figure before, cubes may be too large from four dimensions on. A box of half the side asks less of them: "
        "is the rise to one still there where smaller cubes no longer change it? And do smaller cubes ever make independent labels "
        "as connected as those of a network?"
    ),
    settings=_presets("fixed", ("sin", "relu")),
    experiment=lambda _: conjecture.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
STATIONARY = Plot(
    heading="Boxes that stay as wide",
    question=(
        "A box of fixed coordinates holds ever fewer correlation lengths along a side as the dimension grows. Is that why its labels "
        "connect? Here the coordinates grow as the root of the dimension, and the sine's random field is the same in every part of the "
        "box: as many correlation lengths along every side, in every dimension."
    ),
    settings=_presets("growing", ("sin",)),
    experiment=lambda _: conjecture.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
