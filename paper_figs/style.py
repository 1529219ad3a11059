"""How the figures look: sizes, fonts, one colour for each role, and saving without dates.

Data are markers with error bars, theory is lines, thresholds are thin dashes labelled in place. Colours come from
seaborn's colour-blind-safe palette and stand for roles, the same in every figure.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from percolation import runs

_PALETTE = sns.color_palette("colorblind").as_hex()
COLOURS = {
    "simulation": _PALETTE[0],
    "mean field": _PALETTE[1],
    "exact": _PALETTE[7],
    "network": _PALETTE[2],
    "trained": _PALETTE[4],
    "untrained": _PALETTE[0],
    "upper": _PALETTE[3],
    "lower": _PALETTE[2],
    "threshold": "0.35",
    "spread": _PALETTE[9],
}
WIDTH = 7.2  # inches, the width of a page's text
STYLE: Any = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "errorbar.capsize": 2,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "input-connectivity",
}


Drawing = Callable[[xr.Dataset], Figure]


def styled(draw: Drawing) -> Drawing:
    """Return ``draw`` done in the house style, whatever style is in force around it."""

    @functools.wraps(draw)
    def drawn(dataset: xr.Dataset) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(dataset)

    return drawn


def panels(n_columns: int, *, height: float, n_rows: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure of the page's width with ``n_rows`` x ``n_columns`` axes, row by row; ``height`` in inches."""
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots(n_rows, n_columns, squeeze=False, **options)
    return figure, list(axes.flat)


def name_panel(axes: Axes, letter: str, text: str = "") -> None:
    """Write a panel's letter and what it shows above its upper left corner."""
    axes.set_title(f"({letter}) {text}".rstrip(), loc="left")


def threshold(axes: Axes, value: float, text: str) -> None:
    """Draw a thin dashed line at ``value``, labelled in place."""
    axes.axhline(value, color=COLOURS["threshold"], linestyle=(0, (4, 3)), linewidth=0.8, zorder=1)
    axes.annotate(
        text,
        (1, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
        color=COLOURS["threshold"],
    )


def png(figure: Figure) -> bytes:
    """Return the figure as PNG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write ``name``.png and ``name``.pdf into ``folder`` and return the path of the PNG.

    Raises
    ------
    RunError
        If a file cannot be written.
    """
    image = png(figure)
    runs.write(folder / f"{name}.png", lambda part: part.write_bytes(image))
    with mpl.rc_context(STYLE):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    runs.write(folder / f"{name}.pdf", lambda part: part.write_bytes(buffer.getvalue()))
    return folder / f"{name}.png"
