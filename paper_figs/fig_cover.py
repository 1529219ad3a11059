"""The interval cover of Eq. 4 on a real network: labels of values, and of the cubes that are certain to carry them."""

from __future__ import annotations

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from empirical import cover
from paper_figs import style
from paper_figs.plot import Plot, Verdict
from percolation import labels

SETTINGS = {
    "quick": cover.Settings(),
    "paper": cover.Settings(cubes=2000),
    "ci": cover.Settings(cubes=200),
}


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return a cut through the network with its cubes and intervals, and the square of cubes by cell."""
    settings = cover.Settings.model_validate_json(dataset.attrs["settings"])
    cells = labels.n_cells(settings.delta)
    colours = sns.color_palette("viridis", cells)
    figure, (left, middle, right) = style.panels(3, height=3.1, width_ratios=(1.0, 0.32, 1.15))
    x = dataset["x"].to_numpy()
    side = x[1] - x[0]
    values = dataset["value"].to_numpy()
    n_shown = 48
    climb = np.abs(values[:, n_shown:] - values[:, :-n_shown])
    row, start = np.unravel_index(np.argmax(climb), climb.shape)  # where the output changes most over so many cubes
    value, shown = values[row], slice(int(start), int(start) + n_shown)
    reach = float(dataset["reach"])
    first, last = dataset["first"].to_numpy()[row], dataset["last"].to_numpy()[row]
    for i in range(settings.cubes)[shown]:
        certain = first[i] <= last[i]
        corner = (x[i] - side / 2, value[i] - reach)
        face = "0.86" if certain else style.COLOURS["upper"]
        left.add_patch(Rectangle(corner, side, 2 * reach, facecolor=face, edgecolor="0.5", linewidth=0.4))
    left.plot(x[shown], value[shown], color=style.COLOURS["network"])
    left.set_xlim(x[shown][0] - side / 2, x[shown][-1] + side / 2)
    left.set_ylim(0, 1)
    left.set_yticks(np.arange(0, 1 + settings.delta / 2, settings.delta))
    left.locator_params(axis="x", nbins=4)
    left.set_xlabel("position along one axis")
    left.set_ylabel("network's output")
    for edge in np.arange(cells + 1) / cells:
        left.axhline(edge, color="0.85", linewidth=0.5, zorder=0)
    style.name_panel(left, "a", "cubes on a line")

    for label, (low, high) in enumerate(labels.intervals(settings.delta)):
        at = label % 2
        middle.plot([at, at], [low, high], color=colours[label], linewidth=3, solid_capstyle="butt")
        middle.text(at + 0.12, (low + high) / 2, str(label), va="center", fontsize=7.5)
    middle.set_xlim(-0.3, 1.5)
    middle.set_ylim(0, 1)
    middle.set_xticks([])
    middle.set_yticks(np.arange(0, 1 + settings.delta / 2, settings.delta))
    style.name_panel(middle, "b", "Eq. 4")

    field = np.minimum((values * cells).astype(int), cells - 1)
    extent = (-settings.radius, settings.radius) * 2
    image = right.imshow(
        field,
        origin="lower",
        extent=extent,
        cmap=ListedColormap(colours),
        norm=BoundaryNorm(np.arange(cells + 1) - 0.5, cells),
        interpolation="nearest",
    )
    uncertain = np.ma.masked_where((dataset["first"] <= dataset["last"]).to_numpy(), np.ones(field.shape))
    right.imshow(uncertain, origin="lower", extent=extent, cmap=ListedColormap([style.COLOURS["upper"]]))
    right.plot(
        [x[shown][0], x[shown][-1]],
        [dataset["y"].to_numpy()[row]] * 2,
        color="white",
        linewidth=2.2,
        solid_capstyle="butt",
    )
    right.set_xlabel("first input")
    right.set_ylabel("second input")
    bar = figure.colorbar(image, ax=right, ticks=range(cells), shrink=0.9)
    bar.set_label("cell of the output")
    style.name_panel(right, "c", "the whole square")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = cover.Settings.model_validate_json(dataset.attrs["settings"])
    summary = cover.summarise(settings, dataset)
    return (
        f"One random network of Eqs. 8–10 ({settings.depth} matrices, width {settings.width}, {settings.activation}, 2 inputs) "
        f"on a square of {settings.cubes:,} x {settings.cubes:,} cubes of side {summary['cube_side']:.3g}. (a) Its output along "
        "the white line of (c), where it changes most; each box is a cube with the range its outputs cannot leave, by the certified Lipschitz bound "
        f"{summary['lipschitz_bound']:.3g}. (b) The overlapping intervals of Eq. 4 for delta = {settings.delta:g}, numbered; "
        "every range shorter than delta/2 lies in one. (c) The cell, of length delta/2, that the output at each cube's centre "
        f"falls in; {summary['certain_share']:.1%} of the cubes are certain to carry a label (red: those that are not)."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdict on the cover: do small cubes carry labels, and does Eq. 14 make them small enough."""
    settings = cover.Settings.model_validate_json(dataset.attrs["settings"])
    summary = cover.summarise(settings, dataset)
    return [
        Verdict(
            claim="Cubes of side epsilon/√d each lie in one interval of Eq. 4, and cubes of similar inputs share one",
            source="Section 4 (i), Eqs. 4 and 14",
            measured=(
                f"a random network on the plane, range of a cube {2 * float(dataset['reach']):.3f} against delta/2 = "
                f"{settings.delta / 2:g}: {summary['certain_share']:.1%} of the cubes certainly carry a label"
            ),
            outcome="holds with a correction",
            explanation=(
                "A range of outputs is sure to lie in one interval only up to length delta/2, since neighbouring intervals "
                "overlap by no more. So Eq. 14 must ask for delta' ≥ delta/2, and for |f(x0) − f(x1)| + 2 (delta − delta') ≤ "
                "delta/2 if the cubes of two inputs are to share one; with the paper's delta' arbitrarily close to delta "
                "the sentence fails. Smaller cubes mend it."
            ),
        )
    ]


PLOT = Plot(
    heading="From values to labels: the cover of Eq. 4",
    question=(
        "The network's output between 0 and 1 is covered by overlapping intervals of length delta, one starting every delta/2. "
        "A cube is labelled with every interval that holds all of its outputs. Two neighbouring cubes with a common label can be "
        "walked through without the output changing by more than delta. Here is a real random network with its cubes."
    ),
    settings=SETTINGS,
    experiment=lambda _: cover.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
