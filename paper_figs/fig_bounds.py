"""Lipschitz bound, attained slope and cube side of random networks over depth and width (Lemma D.1, Eqs. 13-14)."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lipschitz import fully_connected, initialisation
from lipschitz.__main__ import experiment
from paper_figs import style
from paper_figs.plot import Plot, Verdict

SETTINGS = {
    "quick": initialisation.PRESETS["quick"],
    "paper": initialisation.PRESETS["paper"],
    "ci": initialisation.Settings(depths=(1, 2, 4), widths=(16, 32), n_networks=2, n_starts=4, n_steps=5),
}


def random_matrix_product(depth: np.ndarray, width: float, dimension: int, gain: float) -> np.ndarray:
    """Return what random-matrix theory expects of the product of spectral norms, for one output and a Gaussian cdf.

    An a x b matrix of entries of variance s^2 has norm near s (sqrt(a) + sqrt(b)): 1 + sqrt(N/d) for the first matrix,
    2 gain for each hidden one, gain (1 + 1/sqrt(N)) for the last, which is one row; the final slope is 1/sqrt(2 pi).
    """
    first = 1 + math.sqrt(width / dimension)
    last = gain * (1 + 1 / math.sqrt(width))
    several = first * (2 * gain) ** np.maximum(depth - 2, 0) * last
    one = 1 + 1 / math.sqrt(dimension)
    return np.where(depth == 1, one, several) / math.sqrt(2 * math.pi)


def _points(axis: Axes, values: xr.DataArray, along: str, role: str, label: str, marker: str) -> None:
    """Draw means over networks with their standard deviations."""
    axis.errorbar(
        values[along],
        values.mean("network"),
        values.std("network", ddof=1),
        color=style.COLOURS[role],
        marker=marker,
        linestyle="none",
        label=label,
    )


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return slope against depth, slope against width, and cube side against depth."""
    settings = initialisation.Settings.model_validate_json(dataset.attrs["settings"])
    gain = fully_connected.POINTWISE[settings.activation].unit_gain or 1.0
    figure, (left, middle, right) = style.panels(3, height=2.7)
    widest, deepest = max(settings.widths), max(settings.depths)

    wide = dataset.sel(width=widest)
    depths = np.arange(min(settings.depths), deepest + 1)
    _points(left, wide["upper"], "depth", "upper", "bound (product)", "v")
    _points(left, wide["lower"], "depth", "lower", "attained slope", "^")
    expected = random_matrix_product(depths, widest, settings.input_dimension, gain)
    left.plot(depths, expected, color=style.COLOURS["exact"], label="random matrices")
    left.set_xlabel("depth $L$")
    left.set_ylabel("slope, Euclidean norm")
    style.name_panel(left, "a", f"width {widest}")

    deep = dataset.sel(depth=deepest)
    _points(middle, deep["upper"], "width", "upper", "bound (product)", "v")
    _points(middle, deep["lower"], "width", "lower", "attained slope", "^")
    widths = np.geomspace(min(settings.widths), widest, 50)
    expected = np.array(
        [float(random_matrix_product(np.array(deepest), width, settings.input_dimension, gain)) for width in widths]
    )
    middle.plot(widths, expected, color=style.COLOURS["exact"], label="random matrices")
    middle.set_xscale("log", base=2)
    middle.set_xlabel("width $N$")
    style.name_panel(middle, "b", f"depth {deepest}")
    middle.legend(loc="center")

    _points(right, wide["cube_side"], "depth", "upper", "Euclidean bound", "v")
    _points(right, wide["cube_side_inf"], "depth", "mean field", "maximum-norm bound", "s")
    possible = (wide["epsilon"] * wide["upper"] / wide["lower"] / math.sqrt(settings.input_dimension)).rename("best")
    _points(right, possible, "depth", "lower", "attained slope", "^")
    right.set_xlabel("depth $L$")
    right.set_ylabel("cube side")
    style.name_panel(right, "c", f"width {widest}")
    right.legend(loc="lower left", title="cubes by", alignment="left")
    for axis in (left, middle, right):
        axis.set_yscale("log")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = initialisation.Settings.model_validate_json(dataset.attrs["settings"])
    return (
        f"Random {settings.activation} networks of Eqs. 8–10 on {settings.input_dimension} inputs; {settings.n_networks} "
        "networks a point, bars are standard deviations over networks. (a), (b) The certified product of Lemma D.1, the "
        f"steepest slope found by climbing from {settings.n_starts} starts (the network attains it), and what random-matrix "
        "theory expects of the product. The true Lipschitz constant lies between the two. (c) The side of the cubes that Eqs. "
        f"13–14 allow for delta = {settings.delta:g}: by the Euclidean bound, epsilon/√d; by the bound in the maximum norm, in "
        "which a cube is a ball; and the best that any bound could allow."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdicts on Lemma D.1 and on the cubes."""
    settings = initialisation.Settings.model_validate_json(dataset.attrs["settings"])
    deep = dataset.sel(depth=max(settings.depths), width=max(settings.widths))
    shallow = dataset.sel(depth=min(settings.depths), width=max(settings.widths))
    ordered = bool((dataset["lower"] <= dataset["upper"]).all())
    ratio = float(deep["ratio"].mean())
    return [
        Verdict(
            claim="A random network is Lipschitz: the product of the layers' norms bounds its slope",
            source="Lemma D.1, Eqs. 13–20; Remark D.1",
            measured=(
                f"{dataset['upper'].size} networks: attained slope below the bound in {'all' if ordered else 'NOT all'}; at depth "
                f"{max(settings.depths)}, width {max(settings.widths)} the bound is {ratio:.3g} times the attained slope"
            ),
            outcome="holds with a correction" if ordered else "fails",
            explanation=(
                "The bound holds; the printed induction base puts an activation before the first matrix that Eq. 8 does not "
                "have. It grows by about twice the gain with every layer while the attained slope does not, as Remark D.1 warns."
            ),
        ),
        Verdict(
            claim="There is an epsilon for which cubes of side epsilon/√d are small enough",
            source="Eqs. 13–14",
            measured=(
                f"side by the Euclidean bound {float(shallow['cube_side'].mean()):.2g} at depth {min(settings.depths)}, "
                f"{float(deep['cube_side'].mean()):.2g} at depth {max(settings.depths)}; by the maximum norm "
                f"{float(deep['cube_side_inf'].mean()):.2g} there"
            ),
            outcome="holds",
            explanation=(
                "It exists but shrinks exponentially with depth, so neighbouring cubes are far closer than the scale on which "
                "the network varies: their labels are strongly correlated, not independent."
            ),
        ),
    ]


PLOT = Plot(
    heading="How small must the cubes be? Lipschitz bounds of random networks",
    question=(
        "A bound on how steep the network can be says how small a cube must be for the output to stay within delta. The paper's "
        "Lemma D.1 multiplies the norms of the layers. Here that bound is certified from above, and set beside a slope that the "
        "network really attains."
    ),
    settings=SETTINGS,
    experiment=experiment,
    draw=draw,
    caption=caption,
    judge=judge,
)
