"""Bounds, attained slope and cube side of random networks over depth, width and dimension (Lemma D.1, Eqs. 13-14)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lipschitz import fully_connected, initialisation, random_matrices
from lipschitz.__main__ import experiment
from paper_figs import style
from paper_figs.plot import Plot, Verdict

SETTINGS = {
    "quick": initialisation.PRESETS["quick"],
    "paper": initialisation.PRESETS["paper"],
    "ci": initialisation.Settings(
        depths=(1, 2, 4), widths=(16, 32), dimensions=(16, 128), n_networks=2, n_starts=4, n_steps=5
    ),
}
# Variable -> (role, label, marker).
_UPPERS = {
    "upper": ("upper", "product (Lemma D.1)", "v"),
    "upper_closed": ("mean field", "closed form", "s"),
    "upper_sdp": ("trained", "LipSDP", "D"),
}


def _points(axis: Axes, values: xr.DataArray, role: str, label: str, marker: str) -> None:
    """Draw means over networks with their standard deviations."""
    axis.errorbar(
        values[str(values.dims[0])],
        values.mean("network"),
        values.std("network", ddof=1),
        color=style.COLOURS[role],
        marker=marker,
        linestyle="none",
        label=label,
    )


def _slopes(axis: Axes, cases: xr.Dataset, gain: float) -> None:
    """Draw every bound, the attained slope, and what is expected of the product, along one line of cases."""
    along = str(cases["upper"].dims[0])
    for name, (role, label, marker) in _UPPERS.items():
        _points(axis, cases[name], role, label, marker)
    _points(axis, cases["lower"], "lower", "attained slope", "^")
    axis.plot(
        cases[along], _expected(cases, gain, norm=2), color=style.COLOURS["exact"], label="product, random matrices"
    )


def _expected(cases: xr.Dataset, gain: float, *, norm: float) -> np.ndarray:
    sizes = (cases[name].to_numpy() for name in ("depth", "width", "input_dimension"))
    return random_matrices.expected_product(*sizes, gain=gain, norm=norm)


def _line(dataset: xr.Dataset, along: Literal["depth", "width", "input_dimension"]) -> xr.Dataset:
    return initialisation.line(dataset, along)


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return slopes against depth, width and dimension, and cube side against depth."""
    settings = initialisation.Settings.model_validate_json(dataset.attrs["settings"])
    gain = fully_connected.POINTWISE[settings.activation].unit_gain or 1.0
    figure, (upper_left, upper_right, lower_left, lower_right) = style.panels(2, n_rows=2, height=5.4)
    widest, deepest, d = max(settings.widths), max(settings.depths), settings.input_dimension

    by_depth = _line(dataset, "depth")
    _slopes(upper_left, by_depth, gain)
    upper_left.set_xlabel("depth $L$")
    upper_left.set_ylabel("slope, Euclidean norm")
    upper_left.legend(loc="upper left")
    style.name_panel(upper_left, "a", f"width {widest}, {d} inputs")

    _slopes(upper_right, _line(dataset, "width"), gain)
    upper_right.set_xscale("log", base=2)
    upper_right.set_xlabel("width $N$")
    style.name_panel(upper_right, "b", f"depth {deepest}, {d} inputs")

    by_dimension = _line(dataset, "input_dimension")
    _points(lower_left, by_dimension["upper_inf"], "upper", "product of inf-norms", "v")
    _points(lower_left, by_dimension["lower_inf"], "lower", "attained slope, maximum norm", "^")
    _points(lower_left, by_dimension["lower"], "simulation", "attained slope, Euclidean norm", "o")
    dimensions = by_dimension["input_dimension"].to_numpy()
    expected = _expected(by_dimension, gain, norm=math.inf)
    lower_left.plot(dimensions, expected, color=style.COLOURS["exact"], label="random matrices")
    ratio = random_matrices.expected_slope_ratio(dimensions)
    gaussian = by_dimension["lower"].mean("network").to_numpy() * ratio
    lower_left.plot(dimensions, gaussian, color=style.COLOURS["exact"], linestyle="--", label="Gaussian gradient")
    lower_left.set_xscale("log", base=2)
    lower_left.set_xlabel("dimension $d$")
    lower_left.set_ylabel("slope")
    lower_left.legend(loc="center", bbox_to_anchor=(0.5, 0.62))
    style.name_panel(lower_left, "c", f"depth {deepest}, width {widest}")

    _points(lower_right, by_depth["cube_side"], "upper", "product, Euclidean norm", "v")
    _points(lower_right, by_depth["cube_side_inf"], "mean field", "product, maximum norm", "s")
    side = by_depth["epsilon"] * by_depth["upper"] / math.sqrt(d)
    _points(lower_right, side / by_depth["upper_sdp"], "trained", "LipSDP, Euclidean norm", "D")
    _points(lower_right, side / by_depth["lower"], "lower", "attained slope", "^")
    lower_right.set_xlabel("depth $L$")
    lower_right.set_ylabel("cube side")
    lower_right.legend(loc="lower left", title="cubes by", alignment="left")
    style.name_panel(lower_right, "d", f"width {widest}, {d} inputs")
    for axis in (upper_left, upper_right, lower_left, lower_right):
        axis.set_yscale("log")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = initialisation.Settings.model_validate_json(dataset.attrs["settings"])
    return (
        f"Random {settings.activation} networks of Eqs. 8–10; {settings.n_networks} networks a point, bars are standard deviations "
        "over networks. (a), (b) Certified bounds: the product of Lemma D.1, the best of the closed forms, and a semidefinite "
        f"program; the steepest slope found by climbing from {settings.n_starts} starts, which the network attains; and what "
        "random-matrix theory expects of the product. The true Lipschitz constant lies between bounds and attained slope. (c) In "
        "the maximum norm, in which a cube is a ball: the product, which costs about √(2N/π) times the gain a layer, and the "
        "attained slope, which is the 1-norm of a nearly Gaussian gradient, √(2d/π) times its length (dashed). (d) The side of the "
        f"cubes that Eqs. 13–14 allow for delta = {settings.delta:g}: by the Euclidean bounds, epsilon/√d; by the product in the "
        "maximum norm; and the best that any Euclidean bound could allow."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdicts on Lemma D.1 and on the cubes."""
    settings = initialisation.Settings.model_validate_json(dataset.attrs["settings"])
    by_depth, by_dimension = _line(dataset, "depth"), _line(dataset, "input_dimension")
    deep, shallow = by_depth.isel(depth=-1), by_depth.isel(depth=0)
    ordered = all(not bool((dataset["lower"] > dataset[name]).any()) for name in _UPPERS)
    ratio = float(deep["ratio"].mean())
    tighter = float((deep["upper"] / deep["upper_sdp"]).mean())
    gaussian = random_matrices.expected_slope_ratio(by_dimension["input_dimension"].to_numpy())
    attained = (by_dimension["lower_inf"] / by_dimension["lower"]).mean("network").to_numpy()
    off = float(np.abs(attained / gaussian - 1).max())
    return [
        Verdict(
            claim="A random network is Lipschitz: the product of the layers' norms bounds its slope",
            source="Lemma D.1, Eqs. 13–20; Remark D.1",
            measured=(
                f"{dataset['upper'].size} networks: attained slope below every bound in {'all' if ordered else 'NOT all'}; at depth "
                f"{max(settings.depths)}, width {max(settings.widths)} the product is {ratio:.3g} times the attained slope and "
                f"LipSDP {ratio / tighter:.3g} times"
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
                f"side by the Euclidean product {float(shallow['cube_side'].mean()):.2g} at depth {min(settings.depths)}, "
                f"{float(deep['cube_side'].mean()):.2g} at depth {max(settings.depths)}; by the maximum norm "
                f"{float(deep['cube_side_inf'].mean()):.2g} there; attained slopes in the two norms stand as those of a Gaussian "
                f"gradient to {100 * off:.0f} %"
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
        "Lemma D.1 multiplies the norms of the layers. Here that bound, and tighter ones, are certified from above and set beside a "
        "slope that the network really attains."
    ),
    settings=SETTINGS,
    experiment=experiment,
    draw=draw,
    caption=caption,
    judge=judge,
)
