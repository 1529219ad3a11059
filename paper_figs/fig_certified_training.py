"""Certified barriers of paths over training: the networks of Figs. 9 and 10."""

from __future__ import annotations

import functools

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from empirical import certificates
from paper_figs import style
from paper_figs.fig_certificates import barriers, followed, judge, missed, settings_of
from paper_figs.plot import Plot, with_images

SETTINGS = {
    "quick": certificates.Settings(
        network="convnet", batches=(1, 6, 23, 69), n_pairs=2, max_rounds=2, threshold=0.005, delta=0.01
    ),
    # The paper's network takes hours: it is kept in paper_figs/data. An epoch of CIFAR-10 is 98 batches.
    "paper": certificates.Settings(
        batches=(1, 5, 15, 30, 98, 490, 2940),
        data="cifar10",
        n_pairs=3,
        max_rounds=2,
        threshold=0.005,
        delta=0.01,
        max_iterations=4096,
    ),
    "ci": certificates.Settings(network="convnet", batches=(1, 20), threshold=0.05, delta=0.1, max_iterations=300),
}
_STRAIGHT, _BYPASS = ("untrained", "s"), ("upper", "o")  # role of the colour, and marker


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the certified barriers, what 200 samples miss of them, and the linear pieces, over training."""
    figure, (left, middle, right) = style.panels(3, height=2.6)
    straight, last = _straight_and_last(dataset)
    _draw_pairs(left, straight, _STRAIGHT, label="straight line")
    _draw_pairs(left, last, _BYPASS, label="last path")
    style.threshold(left, settings_of(dataset).delta, "δ")
    left.set_yscale("log")
    left.set_ylabel("certified barrier (nats)")
    left.legend(loc="best")

    shares = missed(dataset).sel(n_samples=200).clip(min=1e-9)
    _draw_pairs(middle, shares.isel(round=0, segment=0), _STRAIGHT, label="straight line")
    _draw_pairs(middle, shares.isel(round=slice(1, None)).max(("round", "segment")), _BYPASS, label="bypasses")
    middle.set_yscale("log")
    middle.set_ylabel("share missed by 200 samples")
    middle.legend(loc="lower left", bbox_to_anchor=(0, 0.12))

    _draw_pairs(right, dataset["n_pieces"].isel(round=0, segment=0), _STRAIGHT, label=None)
    right.set_ylim(0, None)
    right.set_ylabel("linear pieces of the straight line")
    for axis, letter in zip((left, middle, right), "abc", strict=True):
        axis.set_xscale("log")
        axis.set_xlabel("batches trained on")
        style.name_panel(axis, letter)
    return figure


def _straight_and_last(dataset: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the certified barrier, from above, of the straight line and of the last path of each pair."""
    upper = barriers(dataset, "upper_loss_everywhere")
    n_paths = upper.notnull().sum("round")
    return upper.isel(round=0), upper.isel(round=n_paths - 1)


def _draw_pairs(axis: Axes, values: xr.DataArray, look: tuple[str, str], *, label: str | None) -> None:
    """Draw a marker a pair, those of a stage a little beside each other, and a line through the stages' medians."""
    role, marker = look
    batches = values["batches"].to_numpy()
    stages = np.unique(batches)
    number = np.concatenate([np.arange((batches == stage).sum()) for stage in stages])
    axis.plot(
        batches * 1.12 ** (number - number.max() / 2),
        values,
        marker,
        color=style.COLOURS[role],
        markersize=3.5,
        alpha=0.8,
        label=label,
    )
    medians = [np.median(values.to_numpy()[batches == stage]) for stage in stages]
    axis.plot(stages, medians, color=style.COLOURS[role], linewidth=0.8)


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = settings_of(dataset)
    full = SETTINGS["paper"]
    scale = ""
    if settings.network != full.network or settings.data == "digits":
        scale = f" This smaller run uses a {settings.network} on {settings.data} instead of a {full.network} on {full.data}."
    return (
        f"Paths between two class-optimal inputs of networks under training ({settings.network}, {settings.data}; "
        f"{settings.n_pairs} training(s), a pair at each of {len(settings.batches)} stages: "
        f"{', '.join(f'{batches:,}' for batches in settings.batches)} batches), found as in Figs. 9 and 10 with threshold "
        f"{settings.threshold:g} and at most {settings.max_rounds} round(s) of bypassing, then {followed(dataset)}. A marker a pair, lines through medians. (a) The certified barrier, from above, of the "
        f"straight line and of the last path: below δ = {settings.delta:g} the pair is connected at every point. (b) The share of the "
        "largest loss that 200 equally spread samples miss, 1e-9 where it is less, as where an end is highest: of the straight line, and the most over the segments of the "
        f"bypasses. (c) Linear pieces of the straight line.{scale}"
    )


PLOT = Plot(
    heading="Connected at every point: trained networks",
    question=(
        "Training bends the pieces: is a path of a trained network, low at 200 points, low everywhere too? The networks are those of "
        "the figures over training."
    ),
    settings=SETTINGS,
    experiment=certificates.experiment,
    draw=draw,
    caption=caption,
    judge=judge,
    with_data=functools.partial(with_images, with_digest=certificates.with_digest),
)
