"""Fig. 6: primary, secondary and tertiary loss curves between two class-optimal inputs of an untrained ResNet18."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from empirical import untrained
from paper_figs import style
from paper_figs.plot import Plot, Verdict

SETTINGS = {
    # Longer than the command's own quick preset, for the sake of the paper's thresholds.
    "quick": untrained.PAPER.model_copy(update={"n_pairs": 2}),
    "paper": untrained.PAPER,
    "ci": untrained.UntrainedSettings(threshold=0.5, delta=1.0, max_iterations=120, bypass_iterations=20, max_rounds=2),
}
_ROUNDS = ("primary", "secondary", "tertiary")
_STOPS = (("A", "C"), ("A", "B′", "C"), ("A", "B′S1", "B′", "B′S2", "C"))


def _settings(dataset: xr.Dataset) -> untrained.UntrainedSettings:
    return untrained.UntrainedSettings.model_validate_json(dataset.attrs["settings"])


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the loss curves of the first pair, one panel a round, above the inputs that were found."""
    settings = _settings(dataset)
    pair = dataset.isel(pair=0)
    figure = Figure(figsize=(style.WIDTH, 4.4))
    grid = figure.add_gridspec(2, 1, height_ratios=(1.7, 1))
    above, below = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    for i, (axis, letter, name) in enumerate(zip(above.subplots(1, 3), "abc", _ROUNDS, strict=True)):
        style.name_panel(axis, letter, name)
        axis.set_xlabel("position on the path")
        if i >= pair.sizes["round"] or not int(pair["n_segments"][i]):
            axis.text(0.5, 0.5, "not needed:\nthe path is below δ already", transform=axis.transAxes, ha="center")
            axis.set_xticks([])
            axis.set_yticks([])
            continue
        curve = pair.isel(round=i)
        stops = curve["stop_alpha"].to_numpy()
        stops = stops[np.isfinite(stops)]
        for stop in stops[1:-1]:
            axis.axvline(stop, color="0.85", linewidth=0.8, zorder=0)
        axis.plot(
            curve["alpha"], curve["loss"], color=style.COLOURS["untrained"], marker=".", markersize=2, linewidth=0.8
        )
        axis.plot(curve["barrier_alpha"], curve["barrier"], "o", color=style.COLOURS["upper"], markerfacecolor="none")
        style.threshold(axis, settings.delta, "δ")
        axis.set_ylim(0, 1.12 * max(float(curve["barrier"]), settings.delta))
        axis.set_xlim(0, 1)
        axis.ticklabel_format(axis="y", scilimits=(-2, 3))
        axis.yaxis.get_offset_text().set_visible(False)
        power = int(np.floor(np.log10(axis.get_ylim()[1])))
        if i == 0 or power < -2:
            unit = "nats" if power >= -2 else rf"$10^{{{power}}}$ nats"
            axis.set_ylabel(f"loss ({unit})")
        top = axis.secondary_xaxis("top")
        names = _STOPS[i] if len(stops) == len(_STOPS[i]) else [str(k) for k in range(len(stops))]
        top.set_xticks(stops, names, fontsize=7)
        top.tick_params(length=2)
        axis.set_title(axis.get_title(loc="left"), loc="left", pad=16)
    images = pair["images"].to_numpy()
    for axis, image, name in zip(below.subplots(1, 4), images, ("A", "B", "B′", "C"), strict=True):
        axis.set_xticks([])
        axis.set_yticks([])
        if not np.isfinite(image).all():
            axis.axis("off")
            continue
        scale = np.quantile(np.abs(image), 0.99)
        axis.imshow(np.clip(0.5 + 0.5 * image / scale, 0, 1).transpose(1, 2, 0), interpolation="nearest")
        axis.set_xlabel(f"{name}  (rms {np.sqrt(np.mean(image**2)):.2g})")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = _settings(dataset)
    pair = dataset.isel(pair=0)
    iterations = pair["iterations"].to_numpy()
    converged = pair["converged"].to_numpy()
    ends = ", ".join(
        f"{name} {'took' if done else 'had not come so far after'} {steps:,} steps"
        for name, steps, done in zip(("A (smoothed)", "C"), iterations, converged, strict=True)
    )
    connected = pair["is_connected"].to_numpy().astype(bool)
    outcome = f"connected after {int(np.argmax(connected))} round(s)" if connected.any() else "not connected in the end"
    scale = ""
    if settings.delta > 0.001:
        scale = (
            f" The paper's thresholds are 0.0005 and delta = 0.001; this smaller run uses {settings.threshold:g} and "
            f"{settings.delta:g}, so that it ends in a minute."
        )
    return (
        f"Loss along the path between two optimal inputs, A and C, of class {int(pair['class'])} of an untrained "
        f"{settings.network} (first of {dataset.sizes['pair']} pair(s)), {settings.n_points} points a curve; the circle is the "
        "highest point, grey lines are the stops of the path. Inputs were optimised from noise until their loss was "
        f"{settings.threshold:g}: {ends}. Every barrier above delta (dashed) is bypassed by optimising its "
        f"highest point in the hyperplane orthogonal to its segment; this pair is {outcome}.{scale} Below: the inputs, each scaled to its own range."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdict on Appendix B.5."""
    settings = _settings(dataset)
    barriers = dataset["barrier"].to_numpy()
    connected = dataset["is_connected"].to_numpy().astype(bool)
    needed = [int(np.argmax(row)) if row.any() else -1 for row in connected]
    n_connected = int(connected[:, -1].sum())
    n_pairs = dataset.sizes["pair"]
    medians = ", ".join(f"{np.median(b[np.isfinite(b)]):.3g}" for b in barriers.T if np.isfinite(b).any())
    all_connected = n_connected == n_pairs
    return [
        Verdict(
            claim="Class-optimal inputs of an untrained network are connected after a few rounds of bypassing",
            source="App. B.5, Fig. 6",
            measured=(
                f"{n_connected} of {n_pairs} pair(s) connected below {settings.delta:g}, rounds needed: "
                f"{', '.join(str(k) if k >= 0 else 'more' for k in needed)}; barriers by round (median): {medians}"
            ),
            outcome="holds" if all_connected else "open",
            explanation=(
                "On a path sampled at a finite number of points; a certificate for every point of it is another matter. "
                + ("" if settings.delta <= 0.001 else "Thresholds are relaxed tenfold at this preset.")
            ).strip(),
        )
    ]


PLOT = Plot(
    heading="A real network before training: its optimal inputs are connected",
    question=(
        "Now a real network with random weights. Two inputs are optimised, from noise, until the network is sure of one class; "
        "on the straight line between them it is not sure. The highest point is then optimised, sideways to the line, and the "
        "line bent through it; what still sticks out is treated the same way."
    ),
    settings=SETTINGS,
    experiment=untrained.experiment,
    draw=draw,
    caption=caption,
    judge=judge,
)
