"""Percolation thresholds against the dimension, and the dimension in which the first label percolates."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paper_figs import style
from paper_figs.plot import Plot, Verdict, uncertain
from percolation import survey, threshold

SETTINGS = {
    "quick": survey.PRESETS["quick"],
    "paper": survey.PRESETS["paper"],
    "ci": survey.Settings(dimensions=(2, 3, 4, 5, 6, 9, 13, 15), invaded=2**18),
}
_LOOKS = {"site": (style.COLOURS["simulation"], "o"), "bond": (style.COLOURS["network"], "s")}


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return thresholds, residuals, and first dimensions."""
    figure, axes = style.panels(2, n_rows=2, height=5.2)
    values, residuals, errors, first = axes
    smooth = np.arange(6, int(dataset["dimension"].max()) + 1)
    values.axhline(1, color=style.COLOURS["exact"], label="Bethe lattice")
    for kind, (colour, marker) in _LOOKS.items():
        found = dataset.sel(kind=kind)
        d = found["dimension"].to_numpy()
        look = {"color": colour, "marker": marker, "linestyle": "none"}
        values.plot(d, (2 * d - 1) * found["p_c"], **look, label=f"{kind}s", zorder=5)
        order = [(2 * x - 1) * threshold.series(int(x), "site" if kind == "site" else "bond") for x in smooth]
        values.plot(smooth, order, color=style.COLOURS["mean field"], label="series" if kind == "bond" else None)
        is_known = found["published"].notnull()
        reference = found["published"].where(is_known, found["series"])
        apart = (found["p_c"] - reference) / np.hypot(found["standard_error"], found["published_error"].fillna(0))
        beside = d + (0.15 if kind == "bond" else -0.15)
        is_drawn = is_known.to_numpy() | (d > 13)
        for part, face in ((is_known.to_numpy(), colour), (~is_known.to_numpy() & is_drawn, "white")):
            residuals.errorbar(beside[part], apart[part], 1, markerfacecolor=face, **look)
        errors.plot(d, found["standard_error"] / found["p_c"], **look)
    values.set_ylabel(r"$(2d-1)\, p_c$")
    values.legend()
    residuals.axhline(0, color=style.COLOURS["exact"], zorder=1)
    residuals.set_ylabel("difference / standard error")
    errors.set_yscale("log")
    errors.set_ylabel("relative standard error")
    labels = survey.first_dimensions(dataset)
    k = np.array([row["labels"] for row in labels])
    first.plot(
        k,
        np.array([row["expected"] for row in labels], dtype=int),
        color=style.COLOURS["exact"],
        label=r"$\lfloor K/2\rfloor + 2$",
    )
    decided = [(row["labels"], row["first"]) for row in labels if row["first"] is not None]
    first.plot(
        *np.array(decided).reshape(-1, 2).T,
        color=style.COLOURS["simulation"],
        marker="o",
        linestyle="none",
        label=r"$1/K > p_c$ first",
    )
    first.set_xlabel("labels $K$")
    first.set_ylabel("first percolating dimension")
    first.legend()
    texts = ("thresholds", "beside the published value, or the series", "how well they are known", "one label of $K$")
    for axis, letter, text in zip(axes, "abcd", texts, strict=True):
        style.name_panel(axis, letter, text)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis in (values, residuals, errors):
        axis.set_xlabel("dimension $d$")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = survey.Settings(**json.loads(dataset.attrs["settings"]))
    high = dataset.where(dataset["dimension"] >= 7, drop=True)
    worst = float((high["standard_error"] / high["p_c"]).max())
    return (
        f"(a) Thresholds of Z^d, sites and bonds, by invasion percolation, times 2d - 1; {settings.invaded:,} sites and as many "
        f"bonds invaded in each dimension, in {int(dataset['n_runs'].min())} to {int(dataset['n_runs'].max())} runs, extrapolated to infinite "
        "clusters; the series in 1/(2d-1) is to the sixth order, the Bethe lattice has p_c = 1/(2d-1). (b) Difference to the "
        "published values (filled, d = 2 to 13) and, where none is published, to the series (open), in combined standard errors. "
        f"(c) The relative standard error, extrapolation included: at most {worst:.1e} from d = 7 on. "
        "(d) With one uniform label out of K on every cube, the first dimension in which a label percolates; K whose 1/K "
        "lies within three standard errors of a threshold are left out."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdict on Appendix C's threshold."""
    sites = dataset.sel(kind="site")
    d = int(sites["dimension"].max())
    last = sites.sel(dimension=d)
    known = dataset.where(dataset["published"].notnull())
    apart = (known["p_c"] - known["published"]) / np.hypot(known["standard_error"], known["published_error"])
    labels = survey.first_dimensions(dataset)
    decided = [row for row in labels if row["first"] is not None]
    right = [row for row in decided if row["first"] == row["expected"]]
    return [
        Verdict(
            claim="The critical probability is inversely proportional to the dimension",
            source="Appendix C",
            measured=(
                f"2d p_c = {4 * float(sites.sel(dimension=2)['p_c']):.3f} at d = 2 and "
                f"{2 * d * float(last['p_c']):.4f} at d = {d}, where p_c = {uncertain(float(last['p_c']), float(last['standard_error']))}; "
                f"{int(apart.count())} published thresholds are met within {float(abs(apart).max()):.1f} standard errors"
            ),
            outcome="holds with a correction",
            explanation=(
                "For sites p_c = 1/(2d-1) (1 + 3/2 /(2d-1) + ...): proportional to 1/(2d) in the limit, half of what d "
                "neighbours would give, and larger by 3/(4d) or so on the way. Of K equally likely labels one percolates "
                f"first in dimension floor(K/2) + 2 ({len(right)} of the {len(decided)} K = 2..23 that are decided here)."
            ),
        )
    ]


PLOT = Plot(
    heading="How many dimensions does a label need?",
    question=(
        "Where exactly is the critical probability, and how does it fall with the dimension? A cluster is grown by always "
        "taking the best site in reach (invasion percolation), millions of times; the share of sites that it takes of those "
        "it has seen is the threshold. Up to 13 dimensions there are published values to be measured against."
    ),
    settings=SETTINGS,
    experiment=lambda _: survey.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
