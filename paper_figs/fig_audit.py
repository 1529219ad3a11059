"""The audit of the theory as a table: verdict, statement, and a number that tells the statement from the truth."""

from __future__ import annotations

import textwrap

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs import style
from paper_figs.plot import Plot, Verdict
from percolation import audit

SETTINGS = {"quick": audit.Settings(), "paper": audit.Settings(), "ci": audit.Settings()}
_LOOKS = {
    "holds": (style.COLOURS["network"], "✓"),
    "holds with a correction": (style.COLOURS["mean field"], "≈"),
    "fails": (style.COLOURS["trained"], "✗"),
}
_RELATIONS = {"=": "", "<=": "≤ ", ">=": "≥ "}
# Inches: a line of the statement and of the quantity, the space around a row, a heading, and the columns' places.
_LINE, _SMALL, _GAP, _HEADING = 0.132, 0.118, 0.075, 0.2
_MARK, _TEXT, _EQUATION, _CLAIMED, _FOUND = 0.12, 0.28, 5.52, 6.32, 7.1
_CHARACTERS = 96


def _number(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    digits, exponent = f"{value:.1e}".split("e")
    return rf"${digits}\cdot 10^{{{int(exponent)}}}$"


def _part(section: str) -> str:
    """Return the heading under which an entry stands."""
    if section.startswith("Section 4"):
        return "Section 4: the conjecture, steps (i) and (ii)"
    return (
        "Appendix C: percolation"
        if section.startswith("App. C")
        else "Appendix D: the proof sketch; B.5: the loss of the experiments"
    )


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the table, from the first entry at the top to the last."""
    statements = [textwrap.wrap(str(text), _CHARACTERS) for text in dataset["statement"].to_numpy()]
    parts = [_part(str(section)) for section in dataset["section"].to_numpy()]
    is_first = [i == 0 or parts[i] != parts[i - 1] for i in range(len(parts))]
    heights = [len(lines) * _LINE + _SMALL + _GAP for lines in statements]
    total = sum(heights) + sum(is_first) * _HEADING + 0.5
    figure = Figure(figsize=(style.WIDTH, total))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, style.WIDTH)
    axes.set_ylim(total, 0)
    axes.set_axis_off()
    for place, (outcome, (colour, mark)) in zip((_TEXT, 1.1, 2.9), _LOOKS.items(), strict=True):
        _mark(axes, place - 0.16, 0.2, colour, mark)
        axes.text(place, 0.2, outcome, fontsize=7.5, va="center")
    for place, text, side in ((_EQUATION, "Eq.", "center"), (_CLAIMED, "paper", "right"), (_FOUND, "found", "right")):
        axes.text(place, 0.2, text, fontsize=7.5, ha=side, va="center", fontweight="bold")
    top = 0.42
    for i, (lines, height) in enumerate(zip(statements, heights, strict=True)):
        entry = dataset.isel(entry=i)
        if is_first[i]:
            axes.axhspan(top - _GAP / 2, top + _HEADING - _GAP / 2, 0.01, 0.99, color="0.93", linewidth=0)
            axes.text(_TEXT, top + _HEADING / 2 - _GAP / 2, parts[i], fontsize=7.5, va="center", fontweight="bold")
            top += _HEADING
        colour, mark = _LOOKS[str(entry["verdict"].item())]
        axes.axhline(top - _GAP / 2, color="0.85", linewidth=0.5, xmin=0.01, xmax=0.99)
        first = top + _LINE / 2
        _mark(axes, _MARK, first, colour, mark)
        for j, line in enumerate(lines):
            axes.text(_TEXT, first + j * _LINE, line, fontsize=7.2, va="center")
        below = top + len(lines) * _LINE + _SMALL / 2
        axes.text(_TEXT, below, str(entry["quantity"].item()), fontsize=6.3, va="center", color="0.35")
        axes.text(_EQUATION, first, str(entry["equations"].item()), fontsize=6.8, ha="center", va="center")
        claimed = _RELATIONS[str(entry["relation"].item())] + _number(float(entry["claimed"]))
        axes.text(_CLAIMED, below, claimed, fontsize=7, ha="right", va="center")
        axes.text(_FOUND, below, _number(float(entry["found"])), fontsize=7, ha="right", va="center", color=colour)
        top += height
    return figure


def _mark(axes: Axes, x: float, y: float, colour: str, mark: str) -> None:
    axes.text(
        *(x, y, mark),
        fontsize=6.5,
        color="white",
        ha="center",
        va="center",
        bbox={"boxstyle": "circle,pad=0.15", "facecolor": colour, "edgecolor": "none"},
    )


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    verdicts = [str(verdict) for verdict in dataset["verdict"].to_numpy()]
    n_equations = len({number for entry in audit.ENTRIES for number in entry.equations})
    return (
        f"Every formula and claim of Section 4 (theory) and Appendices C and D, and the loss of the experiments, {len(verdicts)} in all, "
        f"with {n_equations} numbered equations: "
        f"{verdicts.count('holds')} hold, {verdicts.count('holds with a correction')} hold with a correction, {verdicts.count('fails')} fail. "
        f"{audit.RULE} "
        "Below each statement, in grey, a quantity in which it can be told from what is true; “paper” is its value by the "
        "statement (with ≤ or ≥: its bound), “found” is measured here, by simulation or by evaluating the exact expression. "
        "Corrections and proofs are in percolation.audit.ENTRIES; tests that go red if a verdict were wrong are named there. Counts have "
        "relative errors up to 4 % (one seed)."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the claims that fail; the others are in the figure."""
    failed = dataset.isel(entry=[i for i, verdict in enumerate(dataset["verdict"].to_numpy()) if verdict == "fails"])
    return [
        Verdict(
            claim=str(row["statement"].item()),
            source=str(row["section"].item()),
            measured=f"{row['quantity'].item()}: paper {float(row['claimed']):.4g}, found {float(row['found']):.4g}",
            outcome="fails",
            explanation=str(row["correction"].item()),
        )
        for row in (failed.isel(entry=i) for i in range(failed.sizes["entry"]))
    ]


PLOT = Plot(
    heading="The argument, line by line",
    question=(
        "Which steps of the argument hold? Each formula and claim of the theory is set beside its proof or a counterexample, "
        "and a number that comes out differently if it were otherwise."
    ),
    settings=SETTINGS,
    experiment=lambda _: audit.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
