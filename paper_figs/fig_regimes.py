"""Where mean field, Bethe lattice and finite clusters each hold, over dimension and p, and on which lattice Eq. 21 does."""

from __future__ import annotations

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from paper_figs import style
from paper_figs.plot import Plot, Verdict
from percolation import animals, regimes

SETTINGS = {
    "quick": regimes.PRESETS["quick"],
    "paper": regimes.PRESETS["paper"],
    "ci": regimes.Settings(
        dimensions=(3, 6, 12, 40),
        ratios=(1.2, 2, 5, 20),
        samples=1000,
        max_sites=500,
        corner_dimensions=(6, 8, 10, 12),
        corner_sites=2**15,
    ),
}
_NAMES = {
    "poisson_printed": "Eq. 22, $q = dp$",
    "poisson": "Eq. 22, $q = 2dp$",
    "neighbours": "Eq. 21, $2d$",
    "bethe": "Bethe, $z = 2d$",
    "finite_clusters": f"up to {animals.MAX_SITES} sites",
    "isolated": "$(1-p)^{2d}$",
}
# Classes of Q_theory / Q by their edges, from far too small to far too large.
_EDGES = np.log([1 / 10, 1 / 2, 1 / 1.1, 1 / 1.01, 1.01, 1.1, 2, 10])
_TICKS = ("1/10", "1/2", "−10 %", "−1 %", "+1 %", "+10 %", "2", "10")
_COLOURS = ListedColormap(sns.color_palette("RdYlBu_r", len(_EDGES) + 1).as_hex())
_NORM = BoundaryNorm([-1e4, *_EDGES, 1e4], _COLOURS.N)
_LINES = {level: rf"$10^{{{level}}}$" for level in (-1, -3, -10, -30, -100)}  # of equal Q


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the map of Q, one map of the miss for each theory, and both lattices at one p."""
    figure, axes = style.panels(4, n_rows=2, height=4.6)
    _simulated(axes[0], dataset)
    for axis, letter, theory in zip(axes[1:7], "bcdefg", _NAMES, strict=True):
        _missed(axis, dataset, theory)
        style.name_panel(axis, letter, _NAMES[theory])
    for axis in axes[:7]:
        _threshold(axis, dataset)
    for axis in (axes[1], axes[2], axes[3], axes[5], axes[6]):
        axis.set_yticklabels([])
    for axis in axes[:3]:
        axis.set_xticklabels([])
    for axis in axes[3:7]:
        axis.set_xlabel("dimension $d$")
    for axis in (axes[0], axes[4]):
        axis.set_ylabel("$p$", labelpad=0)
    _both_lattices(axes[7], dataset)
    bar = figure.colorbar(ScalarMappable(_NORM, _COLOURS), ax=axes, location="bottom", aspect=45, fraction=0.05)
    bar.set_ticks(_EDGES.tolist(), labels=_TICKS)
    bar.minorticks_off()
    bar.set_label("$Q$ of the theory over the simulated $Q$")
    return figure


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the geometric middles between neighbours, and as far beyond the two ends."""
    middles = np.sqrt(centres[1:] * centres[:-1])
    return np.concatenate([[centres[0] ** 2 / middles[0]], middles, [centres[-1] ** 2 / middles[-1]]])


def _thresholds(dataset: xr.Dataset, d: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p_c at any d, whole or not: 2 d p_c changes slowly, and is taken between the dimensions drawn."""
    known = dataset["dimension"].to_numpy()
    scaled = np.array([2 * dimension * regimes.threshold_of(int(dimension)) for dimension in known])
    return np.asarray(np.interp(np.log(d), np.log(known), scaled) / (2 * d), dtype=np.float64)


def _missed(axis: Axes, dataset: xr.Dataset, theory: str) -> None:
    """Draw the classes of one theory's miss, with a dot where the error of Q leaves open whether it is within 1 %."""
    d = _edges(dataset["dimension"].to_numpy().astype(float))
    ratios = _edges(dataset["ratio"].to_numpy())
    ratios[0] = 1
    p = np.minimum(_thresholds(dataset, d)[:, None] * ratios, 1)
    found, lowest, highest = (values.to_numpy() for values in regimes.miss(dataset, theory))
    axis.pcolormesh(np.broadcast_to(d[:, None], p.shape), p, np.ma.masked_invalid(found), cmap=_COLOURS, norm=_NORM)
    limit = np.log(1.01)
    undecided = ((lowest < limit) & (highest > limit)) | ((lowest < -limit) & (highest > -limit))
    where = np.nonzero(undecided & np.isfinite(found))
    axis.plot(
        dataset["dimension"].to_numpy()[where[0]], dataset["p"].to_numpy()[where], ".", color="0.25", markersize=1.5
    )
    if theory == "poisson":
        axis.plot(d, np.sqrt(0.1 / d), color="black", linestyle=(0, (3, 2)), linewidth=0.8)
        at = float(d[-1]) ** 0.6
        axis.text(at, 1.25 * np.sqrt(0.1 / at), "$dp^2 = 0.1$", fontsize=7, ha="left", va="bottom")


def _simulated(axis: Axes, dataset: xr.Dataset) -> None:
    """Draw the points that were simulated, and lines of equal Q, labelled where they end."""
    dimensions = dataset["dimension"].to_numpy()
    d, p = np.broadcast_arrays(dimensions[:, None], dataset["p"].to_numpy())
    finite = dataset["finite"].to_numpy()
    axis.plot(d[finite > 0], p[finite > 0], ".", color=style.COLOURS["simulation"], markersize=1.2, alpha=0.6)
    for level, text in _LINES.items():
        line = np.full(dimensions.size, np.nan)
        for i, (column, values) in enumerate(zip(p, finite, strict=True)):
            order = np.flatnonzero(values > 0)[::-1]  # Q falls with p; interpolated between points in ln p and ln Q
            if values[order].min(initial=1) < 10.0**level < values[order].max(initial=0):
                line[i] = np.exp(np.interp(level * np.log(10), np.log(values[order]), np.log(column[order])))
        axis.plot(dimensions, line, color="black", linewidth=0.8)
        seen = np.flatnonzero(np.isfinite(line))
        if seen.size:
            axis.text(dimensions[seen[-1]], line[seen[-1]], f" {text}", fontsize=6.5, ha="left", va="center")
    style.name_panel(axis, "a", "simulated $Q$")


def _threshold(axis: Axes, dataset: xr.Dataset) -> None:
    """Draw p_c and the region below it, and set the scales."""
    centres = dataset["dimension"].to_numpy().astype(float)
    d = np.geomspace(_edges(centres)[0], _edges(centres)[-1], 200)
    p_c = _thresholds(dataset, d)
    lowest = 0.6 * float(p_c.min())
    axis.fill_between(d, lowest, p_c, color="0.9", linewidth=0)
    axis.plot(d, p_c, color=style.COLOURS["threshold"], linewidth=1)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlim(d[0], d[-1])
    axis.set_ylim(lowest, 1)
    axis.text(0.05, 0.05, r"$p < p_c(d)$", transform=axis.transAxes, fontsize=7, color=style.COLOURS["threshold"])


def _both_lattices(axis: Axes, dataset: xr.Dataset) -> None:
    """Draw Q at one p on {0, 1}^d and on Z^d, beside Eq. 21 with d and with 2d neighbours."""
    d = dataset["corner_dimension"].to_numpy()
    names = (
        ("{0,1}^d", r"$\{0,1\}^d$: $d$", style.COLOURS["simulation"], "-", 0.97, 0.9, "right"),
        ("Z^d", r"$\mathbb{Z}^d$: $2d$", "white", "--", 0.05, 0.05, "left"),
    )
    for lattice, text, face, line, x, y, side in names:
        found = dataset.sel(lattice=lattice)
        theory = found["corner_theory"].to_numpy()
        axis.plot(d, theory, color=style.COLOURS["mean field"], linestyle=line)
        axis.errorbar(
            d,
            found["corner_finite"],
            2 * found["corner_standard_error"],
            color=style.COLOURS["simulation"],
            markerfacecolor=face,
            linestyle="none",
            marker="o",
            markersize=3.5,
            zorder=5,
        )
        axis.text(x, y, text, transform=axis.transAxes, ha=side)
    axis.set_yscale("log")
    axis.yaxis.tick_right()
    axis.spines["right"].set_visible(True)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("dimension $d$")
    style.name_panel(axis, "h", f"$Q$ at $p$ = {float(dataset.attrs['corner_p']):g}")


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = regimes.Settings.model_validate_json(dataset.attrs["settings"])
    is_point = dataset["finite"].notnull()
    sampled = int((dataset["is_sampled"] == 1).sum())
    return (
        "Q is the probability that the cluster of an occupied site is finite. (a) Where it was simulated on Z^d, "
        f"{int(is_point.sum())} points, {sampled} by importance sampling and the others by counting, up to "
        f"{settings.samples:,} clusters each, with lines of equal Q; grey: below the threshold, where Q = 1. Left white: "
        "p above 0.95 or Q below 1e-260. (b–g) By how much each theory's Q misses: mean field (Eq. 22) as the paper prints it and with 2d "
        "neighbours, Eq. 21 with 2d neighbours, the Bethe lattice, the exact probability of a cluster of at most "
        f"{animals.MAX_SITES} sites, and that of an isolated site. Blue is too small, red too large, yellow within 1 %; a dot "
        "where the error (two standard errors, and what stopped clusters could add) leaves open whether it is. (h) "
        f"Both lattices at p = {settings.corner_p:g}: the 2^d corners of a cube, each with d neighbours (filled), and Z^d, each "
        "site with 2d (open); markers are simulations, bars two standard errors, lines Eq. 21 with that number of neighbours."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdicts on Eqs. 21 and 22."""
    last = dataset.isel(corner_dimension=-1)
    corners, lattice = last.sel(lattice="{0,1}^d"), last.sel(lattice="Z^d")
    d = int(last["corner_dimension"])
    on_corners = float(corners["corner_theory"] / corners["corner_finite"])
    error = float(corners["corner_standard_error"] / corners["corner_finite"]) * on_corners
    on_lattice = float(lattice["corner_theory"] / lattice["corner_finite"])
    swapped = float(corners["corner_theory"] / lattice["corner_finite"])
    found = {name: regimes.judge_theory(dataset, name) for name in regimes.THEORIES}
    n = found["poisson"]["n_points"]
    within = {name: found[name]["within_10"] for name in found}
    first = found["bethe"]["from_dimension"]
    furthest = regimes.miss(dataset, "poisson")[0].max()
    return [
        Verdict(
            claim="A cube of the lattice has d neighbours: Q = (1 − pP)^d",
            source="Eq. 21",
            measured=(
                f"p = {float(dataset.attrs['corner_p']):g}, d = {d}: on {{0,1}}^d Eq. 21 with d gives {on_corners:.3f} ± "
                f"{error:.3f} of the simulated Q; on Z^d with 2d it gives {on_lattice:.5f}, with d {swapped:.3g} times Q"
            ),
            outcome="holds with a correction",
            explanation=(
                "Eq. 21 with d neighbours is right for the corners of one cube, {0,1}^d. The cubes of a grid have 2d "
                "neighbours, two along each axis; with 2d Eq. 21 is right there, and Q is about the square of what is printed."
            ),
        ),
        Verdict(
            claim="(1 − pP)^d may be replaced by e^(−pdP)",
            source="Eqs. 21–22",
            measured=(
                f"within 10 % of the simulated Q: Eq. 22 with q = dp at {within['poisson_printed']} of {n} points, with q = 2dp "
                f"at {within['poisson']}, Eq. 21 with 2d at {within['neighbours']}, Bethe lattice at {within['bethe']}; Eq. 22 "
                f"with 2dp is up to e^{float(furthest):.0f} times too large"
            ),
            outcome="holds with a correction",
            explanation=(
                "e^(−pdP) keeps the first term of ln(1 − pP), so Eq. 22 holds only where dp² is small. At a fixed p it "
                "overestimates Q by about e^(dp²), more and more as d grows, though Q falls exponentially either way. Near the "
                "threshold the theories with 2d neighbours, which know no loops, put Q too low"
                + (f"; from d = {first} on the Bethe lattice is nowhere more than 10 % off." if first else ".")
            ),
        ),
    ]


PLOT = Plot(
    heading="Which theory holds where",
    question=(
        "The paper replaces the lattice by mean field: every neighbour of a cube leads on independently, and a cube has d of "
        "them. How far is that from the lattice itself, for which dimension and which p? And on which lattice does a cube "
        "have d neighbours? Each theory is put beside the simulated probability that a cube is cut off."
    ),
    settings=SETTINGS,
    experiment=lambda _: regimes.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
