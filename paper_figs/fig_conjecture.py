"""P(connected | same label) against dimension: real networks on real cubes, and what stands beside them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from empirical import conjecture, conjecture_tables
from lipschitz.fully_connected import Activation
from paper_figs import style
from paper_figs.plot import Plot, Verdict, uncertain
from percolation import labels, meanfield, threshold

SETTINGS = {
    "quick": conjecture.PRESETS["quick"],
    "paper": conjecture.PRESETS["paper"],
    "ci": conjecture.Settings(
        activations=("sin",),
        dimensions=(1, 2, 4),
        n_networks=2,
        max_cubes=700,
        max_side=40,
        field_width=32,
        shared_fields=1,
        size_dimensions=(1, 2),
        search_dimensions=(16, 64),
        n_pairs=3,
    ),
}
# The settings of figures that have no Gaussian fields, boxes of several sizes or searches: they are in this one.
BOXES_ALONE: dict[str, Any] = {"field_cubes": 2, "field_width": 1, "size_dimensions": (), "search_dimensions": ()}
MARKERS: dict[Activation, str] = {"tanh": "o", "sin": "D", "relu": "s", "erf": "^"}
_BOXES = {"fixed": "fixed box", "growing": "growing box"}
CLAIM = "Two inputs with the same label are connected with a probability that tends to 1 as the dimension grows"
SURE = 3  # standard errors
Rows = list[dict[str, Any]]


def settings_of(dataset: xr.Dataset) -> conjecture.Settings:
    """Return the settings that a dataset was made with."""
    return conjecture.Settings.model_validate_json(dataset.attrs["settings"])


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return P(connected) above and 1 - P(connected) below for each kind of box, and against the size of the box."""
    settings = settings_of(dataset)
    rows = conjecture_tables.rows(dataset)
    n_boxes = len(settings.boxes)
    figure, panels = style.panels(n_boxes + 1, n_rows=2, height=5.4)
    laws = list(itertools.product(settings.activations, settings.depths))
    places = {d: max(settings.dimensions) + 1.7 + 2.7 * i for i, d in enumerate(settings.search_dimensions)}
    for i, box in enumerate(settings.boxes):
        upper, lower = panels[i], panels[n_boxes + 1 + i]
        here = [row for row in rows if row["box"] == box]
        _lattice(upper, lower, settings, here)
        for k, law in enumerate(laws):
            part = [row for row in here if (row["activation"], row["depth"]) == law]
            _networks(upper, lower, part, law[0], shift=0.12 * k, is_first=k == 0)
        upper.set_ylim(-0.03, 1.04)
        lower.set_yscale("log")
        lower.set_ylim(_floor(rows), 1.5)
        for axes in (upper, lower):
            axes.set_xticks(settings.dimensions)
            axes.set_xlabel("dimension $d$")
        if box == "fixed":
            _searches(upper, places, conjecture_tables.search_rows(dataset))
            upper.set_xticks(
                [*settings.dimensions, *places.values()], [f"{d}" for d in (*settings.dimensions, *places)]
            )
            upper.tick_params(axis="x", labelsize=6)
        style.name_panel(upper, "abc"[i], _BOXES[box])
        style.name_panel(lower, "abcde"[n_boxes + 1 + i])
    panels[0].set_ylabel("P(connected | same label)")
    panels[n_boxes + 1].set_ylabel("1 − P(connected | same label)")
    _sizes(panels[n_boxes], settings, conjecture_tables.size_rows(dataset))
    style.name_panel(panels[n_boxes], "abc"[n_boxes], "growing boxes")
    panels[-1].axis("off")
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center left")
    return figure


def _searches(axes: Axes, places: dict[int, float], rows: Rows) -> None:
    """Draw the share of pairs joined by search, with their intervals, beyond a break of the axis of dimensions."""
    for k, activation in enumerate(dict.fromkeys(row["activation"] for row in rows)):
        part = [row for row in rows if row["activation"] == activation]
        shares = np.array([row["n_joined"] / row["n_pairs"] for row in part])
        limits = np.array([[row["low"], row["high"]] for row in part]).T
        axes.errorbar(
            np.array([places[row["search_dimension"]] for row in part]) + 0.25 * k,
            shares,
            np.abs(limits - shares),
            color=style.COLOURS["network"],
            marker=MARKERS[activation],
            fillstyle="bottom",
            linestyle="none",
            label="real networks, by search" if k == 0 else None,
        )
    if places:
        axes.axvline(min(places.values()) - 0.7, color="0.8", linewidth=0.6)


def _floor(rows: Rows) -> float:
    """Return the lower end of the axis of 1 - P."""
    below = [1 - row[model] for row in rows for model in ("network", "field") if row[model] is not None]
    return 0.4 * min((value for value in below if value > 0), default=0.1)


def _sizes(axes: Axes, settings: conjecture.Settings, rows: Rows) -> None:
    """Draw P(connected) of growing boxes of several sizes: networks, and independent labels."""
    shades = np.linspace(1.0, 0.4, len(settings.size_dimensions))
    for activation, depth in itertools.product(settings.activations, settings.depths):
        for d, shade in zip(settings.size_dimensions, shades, strict=True):
            part = [row for row in rows if (row["activation"], row["depth"]) == (activation, depth)]
            part = [row for row in part if row["size_dimension"] == d]
            sizes = np.array([row["size_radius"] for row in part])
            for model, colour, marker in (
                ("network", "network", MARKERS[activation]),
                ("independent", "simulation", "s"),
            ):
                if model == "independent" and activation != settings.activations[0]:
                    continue
                values, errors = (np.array([row[name] for row in part]) for name in (model, f"{model}_error"))
                axes.errorbar(
                    *(sizes, values, errors), color=style.COLOURS[colour], marker=marker, alpha=shade, linewidth=0.7
                )
    axes.set_xscale("log")
    axes.set_xticks(settings.size_radii, [f"{radius:g}" for radius in settings.size_radii])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.04)
    axes.set_xlabel("half side, correlation lengths")


def _networks(upper: Axes, lower: Axes, rows: Rows, activation: Activation, *, shift: float, is_first: bool) -> None:
    """Draw networks, filled where the cubes are small enough, and Gaussian fields."""
    for model, colour, name in (("network", "network", "real networks"), ("field", "spread", "Gaussian field")):
        for row in rows:
            if row[model] is None:
                continue
            look = {
                "color": style.COLOURS[colour],
                "marker": MARKERS[activation],
                "markerfacecolor": None if row["is_resolved"] else "white",
                "linestyle": "none",
            }
            is_labelled = row is rows[0] and (model == "network" or is_first)
            text = f"{name}, {activation}" if model == "network" else name
            x = row["dimension"] + shift + (0.25 if model == "field" else 0)
            upper.errorbar(x, row[model], row[f"{model}_error"], **look, label=text if is_labelled else None)
            if row[model] < 1:
                lower.errorbar(x, 1 - row[model], row[f"{model}_error"], **look)


def _lattice(upper: Axes, lower: Axes, settings: conjecture.Settings, rows: Rows) -> None:
    """Draw independent and shuffled labels of the first networks, the mean field, and the rate of large d."""
    first = [row for row in rows if row["activation"] == settings.activations[0] and row["depth"] == settings.depths[0]]
    d = np.array([row["dimension"] for row in first])
    looks = (
        ("shuffled", "exact", "x", "the same labels, shuffled"),
        ("independent", "simulation", "s", "independent labels"),
    )
    for axes, sign in ((upper, 0.0), (lower, 1.0)):  # P is drawn above, 1 - P below
        for model, colour, marker, text in looks:
            values, errors = (np.array([row[name] for row in first]) for name in (model, f"{model}_error"))
            look = {"color": style.COLOURS[colour], "marker": marker, "linestyle": "none", "label": text}
            axes.errorbar(d - (0.24 if model == "shuffled" else 0.12), np.abs(sign - values), errors, **look)
        mean_field = np.abs(sign - np.array([row["mean_field"] for row in first]))
        axes.plot(d, mean_field, color=style.COLOURS["mean field"], label="independent, mean field")
        above = d[[_threshold(int(one)) < settings.delta for one in d]]
        if above.size:
            axes.plot(
                *(above, np.abs(sign - 1 + 2 * meanfield.isolated(settings.delta, 2 * above))),
                color=style.COLOURS["mean field"],
                linestyle=":",
                label="infinite lattice,\n$1 - 2(1-δ)^{2d}$",
            )


def _threshold(dimension: int) -> float:
    """Return the density at which independent cubes percolate; 1 on a line."""
    return 1.0 if dimension == 1 else threshold.PUBLISHED["site"][dimension][0]


def ratio_of_means(dataset: xr.Dataset, rows: Rows) -> str:
    """Return the caption's sentence on the ratio of means, which Eq. 3 is with the network random too."""
    if "n_shared" not in dataset:
        return (
            "These are means over networks of each one's own ratio; the ratio of means, which Eq. 3 is with the network random too, "
            "asks how many pairs of each network share a label, which this run did not keep."
        )
    found = [(1 - row["network_pooled"]) / (1 - row["network"]) for row in rows if row["network"] < 1]
    return (
        "These are means over networks of each one's own ratio; in the ratio of means, which Eq. 3 is with the network random too, "
        f"the networks' complement is {min(found, default=1.0):.2f} to {max(found, default=1.0):.2f} times as large."
    )


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = settings_of(dataset)
    coarser = f", on at most {settings.field_cubes:,} cubes" if settings.field_cubes < settings.max_cubes else ""
    sides = ", ".join(f"{conjecture.sides(settings, d)[-1]} (d = {d})" for d in settings.dimensions)
    return (
        f"Random networks of Eqs. 8–10 ({', '.join(settings.activations)}; {' or '.join(map(str, settings.depths))} matrices, "
        f"width {settings.width}) label every cube of a box by the value at its centre, delta = {settings.delta:g}. Two random "
        "cubes that carry one label are connected if a way of neighbouring cubes with that label joins them: above the "
        f"probability, below its complement. Mean and standard error over {settings.n_networks} networks or fields. "
        f"Half side {settings.radius:g} correlation lengths, in a growing box along the axes, in a fixed one along the diagonal: "
        f"along an axis {settings.radius:g}/√d. Cubes along an axis: {sides}; points are filled where halving the cubes moved the networks' mean, with two "
        "standard errors of the move, by at most a tenth of its distance from 1, open where the cubes may still be too large. Gaussian "
        f"fields are networks of width {settings.field_width}, Gaussian given their hidden layers, their correlations within "
        f"{float(dataset['covariance_error'].max()):.2f} (root mean square) of the wide limit's{coarser}; independent and shuffled labels have the frequencies of the {settings.activations[0]} networks' labels in the same "
        "box, the mean field is that of the box's average number of neighbours. Dotted: the infinite lattice of labels of density "
        "delta, as isolated cubes alone would have it, where such labels percolate. Right of the line in "
        f"a fixed box: the share of pairs of cubes, {settings.n_pairs} of one network each, {settings.search_side} cubes along an "
        f"axis, that a search on the cubes joins, with 95 % intervals. ({'abc'[len(settings.boxes)]}) Growing boxes of several sizes, "
        f"networks (green) and independent labels (blue), from dark to pale d = {', '.join(map(str, settings.size_dimensions))}. "
        + ratio_of_means(dataset, conjecture_tables.rows(dataset))
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdicts on the conjecture, on its reason, and on what independence leaves out."""
    settings, rows = settings_of(dataset), conjecture_tables.rows(dataset)
    sizes = conjecture_tables.size_rows(dataset)
    return [
        _rises(settings, rows, conjecture_tables.search_rows(dataset)),
        _reason(settings, rows),
        _percolates(settings, sizes),
        _underestimates(settings, rows),
    ]


def _rises(settings: conjecture.Settings, rows: Rows, searches: Rows) -> Verdict:
    parts, is_up, factors = [], [], []
    for law in _laws(rows):
        part = [row for row in rows if (row["activation"], row["depth"], row["box"]) == law]
        low, high = part[0], part[-1]
        is_up.append(1 - high["network"] < (1 - low["network"]) / 10)
        parts.append(
            f"{law[0]}, {law[1]} matrices, {law[2]} box {uncertain(low['network'], low['network_error'])} to "
            f"{uncertain(high['network'], high['network_error'])}"
        )
        sound = [row for row in part if row["is_resolved"] and row["network"] < 1]
        if len(sound) > 1:
            n_steps = sound[-1]["dimension"] - sound[0]["dimension"]
            factors.append(((1 - sound[-1]["network"]) / (1 - sound[0]["network"])) ** (1 / n_steps))
    coarse, is_lower = too_large(rows)
    measured = f"from d = {settings.dimensions[0]} to {settings.dimensions[-1]}: {'; '.join(parts)}"
    if factors:
        measured += (
            f"; where the cubes are small enough the complement falls by a factor of {min(factors):.2f} to {max(factors):.2f} "
            f"a dimension (infinite independent lattice: {(1 - settings.delta) ** 2:.2f})"
        )
    if coarse:
        measured += f"; {len(coarse)} of {len(rows)} points have cubes that may be too large"
        measured += ", and all of them rose when the cubes were halved" if is_lower else ""
    if searches:
        n_joined, n_pairs = (sum(row[name] for row in searches) for name in ("n_joined", "n_pairs"))
        measured += (
            f"; by search in fixed boxes of {settings.search_dimensions[0]} to {settings.search_dimensions[-1]} dimensions "
            f"{n_joined} of {n_pairs} pairs are joined, {sum(row['n_given_up'] for row in searches)} given up"
        )
    return Verdict(
        claim=CLAIM,
        source="Conjecture 4.1",
        measured=measured,
        outcome="holds" if all(is_up) and is_lower else "open",
        explanation=(
            "It counts as holding, as far as measured, if the complement falls at least tenfold over these dimensions for every "
            "kind of network and box, and smaller cubes only connect more. The limit itself is extrapolation."
        ),
    )


def too_large(rows: Rows) -> tuple[Rows, bool]:
    """Return the points whose cubes may be too large, and whether P(connected) rose in all of them when halved."""
    coarse = [row for row in rows if not row["is_resolved"] and row["moved"] is not None]
    return coarse, all(row["moved"] > 0 for row in coarse)


def gap_in_errors(row: dict[str, Any]) -> float:
    """Return by how many standard errors networks lie above independent labels."""
    error = float(np.hypot(row["network_error"], row["independent_error"]))
    return float(row["network"] - row["independent"]) / max(error, 1e-12)


def _reason(settings: conjecture.Settings, rows: Rows) -> Verdict:
    """Return whether networks connect where independent labels of their density do not percolate."""
    below = [row for row in rows if _threshold(row["dimension"]) > settings.delta and row["is_resolved"]]
    parts, is_apart = [], bool(below)
    for d in sorted({row["dimension"] for row in below}):
        worst = min(
            (row for row in below if row["dimension"] == d), key=lambda row: row["network"] - row["independent"]
        )
        gap = worst["network"] - worst["independent"]
        is_apart &= gap > max(0.1, SURE * float(np.hypot(worst["network_error"], worst["independent_error"])))
        parts.append(
            f"d = {d} ({worst['activation']}, {worst['box']} box) {uncertain(worst['network'], worst['network_error'])} against "
            f"{uncertain(worst['independent'], worst['independent_error'])}"
        )
    fields = [row for row in rows if row["field"] is not None]
    by_field, by_chance = (
        float(np.mean([abs(row[name] - row[model]) for row in fields]))
        for name, model in (("network_at_field", "field"), ("network", "independent"))
    )
    return Verdict(
        claim="Percolation of the cubes is why they are connected",
        source="Section 4, App. D.1.5",
        measured=(
            f"where labels of density {settings.delta:g} do not percolate, networks against independent labels of the same "
            f"frequencies, the least differences: {'; '.join(parts) or 'none measured, 0 points'}. Mean difference of the networks "
            f"from Gaussian fields {by_field:.3f}, from independent labels {by_chance:.3f}"
        ),
        outcome="fails" if is_apart else "open",
        explanation=(
            "Networks are connected where independent labels of their density do not percolate, and smaller cubes do not change "
            "it: neighbours then have nearly always the same cell, whatever the threshold of independent ones. The same cells in "
            "other places are as little connected as independent ones. What connects the inputs is that the network is a smooth "
            "function, as a Gaussian field with its covariance is."
        ),
    )


def _percolates(settings: conjecture.Settings, rows: Rows) -> Verdict:
    """Return whether P(connected) outlasts the growth of the box, by dimension."""
    parts, lasting = [], []
    telling = ("sin",) if "sin" in settings.activations else settings.activations
    for d in settings.size_dimensions:
        is_lasting = True
        for activation, depth in itertools.product(settings.activations, settings.depths):
            part = [row for row in rows if (row["activation"], row["depth"]) == (activation, depth)]
            part = sorted(
                (row for row in part if row["size_dimension"] == d), key=lambda row: float(row["size_radius"])
            )
            *_, before, last = [part[0], *part]
            error = float(np.hypot(before["network_error"], last["network_error"]))
            if activation in telling:
                is_lasting &= before["network"] - last["network"] <= SURE * error
            values = ", ".join(uncertain(row["network"], row["network_error"]) for row in part)
            parts.append(f"d = {d}, {activation}: {values}")
        lasting.append(is_lasting)
    radii = ", ".join(f"{radius:g}" for radius in sorted(settings.size_radii))
    return Verdict(
        claim="Cubes of one label reach through the input space, however large it is",
        source="Section 4, App. C",
        measured=f"P(connected) in growing boxes of half side {radii} correlation lengths: {'; '.join(parts)}",
        outcome=_of_each(lasting),
        explanation=(
            "It counts as holding in a dimension if the last growth of the box does not lower P(connected) by more than three "
            "standard errors. Where it falls, the sets of one label do not percolate, and inputs are connected only for want of "
            "distance; where it does not, the sets percolate as those of a smooth random field do, at a density below the threshold "
            f"of independent cubes where that is above {settings.delta:g}. The sine decides, if it is there: its field is the same in "
            "every part of the box; those of the others are smoother far out, so that a larger box is another field."
        ),
    )


def _of_each(holds: list[bool]) -> str:
    if not holds:
        return "open"
    return "holds" if all(holds) else "holds with a correction" if any(holds) else "fails"


def _underestimates(settings: conjecture.Settings, rows: Rows) -> Verdict:
    gaps = [gap_in_errors(row) for row in rows]
    k = int(np.argmin(gaps))
    return Verdict(
        claim="Assuming independence only underestimates connectivity",
        source="Section 4, Appendix G.1",
        measured=(
            f"in {sum(gap > 0 for gap in gaps)} of {len(gaps)} comparisons the networks lie above independent labels in the same "
            f"box, the least by {gaps[k]:.1f} standard errors (d = {rows[k]['dimension']}, {rows[k]['activation']}, "
            f"{rows[k]['box']} box)"
        ),
        outcome="holds" if gaps[k] > SURE else "fails" if gaps[k] < -SURE else "open",
        explanation=(
            f"On average over the {labels.n_cells(settings.delta) - 1} labels and over networks, with these boxes and cubes. It "
            "holds if the least difference exceeds three standard errors; the audit has constructions where it fails for one label."
        ),
    )


def _laws(rows: Rows) -> list[tuple[str, int, str]]:
    return list(dict.fromkeys((row["activation"], row["depth"], row["box"]) for row in rows))


PLOT = Plot(
    heading="Is it percolation? Real networks on real cubes",
    question=(
        "The paper conjectures that two inputs with the same output are connected, nearly surely once the dimension is large, and "
        "argues by cubes that carry their labels independently. Here the cubes are labelled by real networks, all of them, in one to "
        "eight dimensions. Does the probability rise to one, how fast, and is percolation the reason?"
    ),
    settings=SETTINGS,
    experiment=lambda _: conjecture.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
