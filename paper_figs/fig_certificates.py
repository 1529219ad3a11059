"""Certified against sampled maxima of the loss along real paths of untrained networks."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from empirical import certificates
from paper_figs import style
from paper_figs.plot import Plot, Verdict
from percolation.growth import Z_95, wilson_interval

SETTINGS = {
    # The paper's network and thresholds take hours: they are kept in paper_figs/data.
    "quick": certificates.Settings(network="convnet", n_pairs=4, max_rounds=2, max_iterations=4096),
    "paper": certificates.Settings(n_pairs=10, max_rounds=2),
    "ci": certificates.Settings(network="convnet", threshold=0.05, delta=0.1, max_rounds=2, max_iterations=300),
}
_ROUNDS = ("primary", "secondary", "tertiary", "fourth", "fifth")
_MARKERS = "osD^v"
_ROLES = ("simulation", "mean field", "network", "upper", "exact")


def settings_of(dataset: xr.Dataset) -> certificates.Settings:
    """Return the settings of the run."""
    return certificates.Settings.model_validate_json(dataset.attrs["settings"])


def barriers(dataset: xr.Dataset, name: str) -> xr.DataArray:
    """Return the highest value on each path, over (pair, round)."""
    return dataset[name].max("segment")


def missed(dataset: xr.Dataset) -> xr.DataArray:
    """Return the part of the largest loss that equally spread samples miss, over all segments."""
    return 1 - dataset["sampled"] / dataset["loss"]


def followed(dataset: xr.Dataset) -> str:
    """Return what the caption says of the segments: how many, of how many pieces, and how well the logits are known."""
    known = dataset["n_pieces"].to_numpy()
    known = known[np.isfinite(known)]
    return (
        f"followed piece by piece: {known.size} segments of {int(known.min()):,} to {int(known.max()):,} linear pieces, the logits "
        f"known to {float(dataset['upper_error'].max()):.1g}"
    )


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the top of a straight path, what samples miss, and the barriers by round."""
    settings = settings_of(dataset)
    figure, (left, middle, right) = style.panels(3, height=2.7)

    pair = dataset.isel(pair=0)
    straight = pair.isel(round=0, segment=0)
    top = float(straight["loss"])
    where, loss = pair["zoom_t"].to_numpy(), 100 * (pair["zoom_loss"].to_numpy() / top - 1)
    grid = np.linspace(0, 1, 200)
    shown = grid[(grid >= where[0]) & (grid <= where[-1])]
    left.plot(where, loss, color=style.COLOURS["untrained"], label="loss")
    left.plot(shown, np.interp(shown, where, loss), "o", color=style.COLOURS["simulation"], label="200 samples")
    low, high = (100 * (float(straight[name]) / top - 1) for name in ("lower_loss", "upper_loss"))
    left.axhspan(low, high, color=style.COLOURS["upper"], alpha=0.6, linewidth=1, label="certified maximum")
    left.set_ylim(bottom=1.6 * loss.min())
    left.set_xlabel("position on the segment")
    left.set_ylabel(f"loss, % above {top:.4g} nats")
    left.legend(loc="lower center")
    style.name_panel(left, "a")

    shares = missed(dataset)
    n_samples = dataset["n_samples"].to_numpy()
    for i in range(dataset.sizes["round"]):
        there = shares.isel(round=i).stack(path=("pair", "segment")).dropna("path")
        if there.sizes["path"] == 0:
            continue
        lower, median, upper = (there.clip(min=1e-9).quantile(q, "path").to_numpy() for q in (0.25, 0.5, 0.75))
        middle.errorbar(
            n_samples * 1.06**i,
            median,
            [median - lower, upper - median],
            color=style.COLOURS[_ROLES[i]],
            marker=_MARKERS[i],
            linestyle="none",
            label=_ROUNDS[i],
        )
    middle.set_xscale("log")
    middle.set_yscale("log")
    middle.set_xlabel("samples on a segment")
    middle.set_ylabel("share of the maximum missed")
    middle.legend(loc="upper right")
    style.name_panel(middle, "b")

    most, least = barriers(dataset, "upper_loss_everywhere"), barriers(dataset, "lower_loss")
    for k in range(dataset.sizes["pair"]):
        there = most.isel(pair=k).dropna("round")
        centre = (there + least.isel(pair=k).dropna("round")) / 2
        right.errorbar(
            there["round"],
            centre,
            (there - centre).clip(min=0),
            color=style.COLOURS["upper"],
            marker=".",
            linewidth=0.7,
        )
    style.threshold(right, settings.delta, "δ")
    right.set_yscale("log")
    needed = most.dropna("round", how="all")["round"].to_numpy()
    right.set_xticks(needed, [_ROUNDS[i] for i in needed])
    right.set_xlim(-0.25, needed[-1] + 0.5)  # room for the threshold's name
    right.set_ylabel("certified barrier (nats)")
    right.set_xlabel("path")
    style.name_panel(right, "c")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = settings_of(dataset)
    scale = ""
    full = SETTINGS["paper"]
    if settings.network != full.network or settings.delta > full.delta:
        scale = (
            f" This smaller run uses a small network, or thresholds above those of the full one (a ResNet18, {full.threshold:g} and {full.delta:g}), so that "
            "it ends in a minute."
        )
    return (
        f"Paths between two class-optimal inputs of untrained networks ({settings.network}, {settings.n_pairs} pair(s), each with "
        f"a network of its own), found until the loss was {settings.threshold:g} and {followed(dataset)}. (a) The top of the first "
        "straight path, the samples that a grid of 200 points puts there, and the certified enclosure of the largest loss on the "
        "whole segment. (b) The share of the largest loss that n equally spread samples miss, 1e-9 where it is less; median and quartiles over segments. "
        "(c) The certified barrier of every path, a line a pair; the bars, mostly smaller than the points, are enclosures of all that "
        f"rounding can do. A path below δ = {settings.delta:g} is connected at every point.{scale}"
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdict on what sampled paths say.

    It rests on the paths that are low by samples, at most one a pair. If all of them are certified it holds, provided
    that Wilson's 95 % interval of their share, as if pairs were independent, lies above a half; else it is open. One
    that is not makes it hold with a correction.
    """
    settings = settings_of(dataset)
    upper = barriers(dataset, "upper_loss_everywhere")
    sampled = barriers(dataset.sel(n_samples=200), "sampled")
    is_there = upper.notnull().to_numpy()
    certified = (upper.to_numpy() <= settings.delta)[is_there]
    by_samples = (sampled.to_numpy() <= settings.delta)[is_there]
    is_pair = (upper <= settings.delta).any("round").to_numpy()
    shares = missed(dataset).sel(n_samples=200).to_numpy()
    n_low, n_both = int(by_samples.sum()), int((certified & by_samples).sum())
    least = wilson_interval(n_both, n_low, z=Z_95)[0] if n_low else 0.0
    outcome = "open" if least <= 0.5 else "holds"
    if n_both < n_low:
        outcome = "holds with a correction"
    return [
        Verdict(
            claim="A path whose loss is low at 200 points is low everywhere",
            source="App. B.5, Fig. 6; Section 3",
            measured=(
                f"{int(is_pair.sum())} of {is_pair.size} pair(s) certified below {settings.delta:g} on every point of a path; "
                f"{n_low} of {by_samples.size} paths are below by samples, {n_both} of these by certificate (95 %: at least "
                f"{least:.2f} of such paths); "
                f"200 samples miss {100 * float(np.nanmedian(shares)):.2g} % of the largest loss (median), at most "
                f"{100 * float(np.nanmax(shares)):.2g} %"
            ),
            outcome=outcome,
            explanation=(
                "The loss is convex on each linear piece, so that its largest value stands at a breakpoint; all breakpoints "
                "are visited, and the error of the logits is bounded. Samples come from below: near δ only a certificate decides."
            ),
        )
    ]


PLOT = Plot(
    heading="Connected at every point: certified paths of untrained networks",
    question=(
        "So far a path counted as connected when the loss was low at 200 points of it. Between two points a network of ReLUs is "
        "made of linear pieces, thousands of them, and on each the loss is convex: visiting every breakpoint gives its largest "
        "value on the whole path, for certain. How much do samples hide?"
    ),
    settings=SETTINGS,
    experiment=certificates.experiment,
    draw=draw,
    caption=caption,
    judge=judge,
)
