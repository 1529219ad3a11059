"""Fig. 6: loss curves between two class-optimal inputs of an untrained ResNet18, and what a thousand pairs do."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from empirical import untrained
from paper_figs import style
from paper_figs.plot import Plot, Verdict

SETTINGS = {
    # Drawn from the thousand pairs of "paper", which are kept in paper_figs/data; this one with --preset quick.
    "quick": untrained.QUICK,
    "paper": untrained.FULL,
    "ci": untrained.UntrainedSettings(
        classes=(0,), threshold=0.5, delta=1.0, max_iterations=120, bypass_iterations=20, max_rounds=2
    ),
}
_ROUNDS = ("primary", "secondary", "tertiary")
_ROLES = ("untrained", "mean field", "network", "upper", "exact", "spread")
_STOPS = (("A", "C"), ("A", "B′", "C"), ("A", "B′S1", "B′", "B′S2", "C"))
_NEARLY_ALL = 0.95
# What the axes of the paper's Fig. 6 show at their upper ends, in nats, read off to one digit.
_PAPERS_AXES = {1: (0.0005, 0.005), 2: (0.0004, 0.001)}


def _settings(dataset: xr.Dataset) -> untrained.UntrainedSettings:
    return untrained.UntrainedSettings.model_validate_json(dataset.attrs["settings"])


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the curves of one pair, a panel a round, the statistics of all pairs, and the drawn pair's inputs."""
    figure = Figure(figsize=(style.WIDTH, 6.0))
    grid = figure.add_gridspec(3, 1, height_ratios=(1.5, 1.5, 1))
    above, middle, below = (figure.add_subfigure(grid[i]) for i in range(3))
    for i, (axes, letter) in enumerate(zip(above.subplots(1, 3), "abc", strict=True)):
        _draw_curve(axes, dataset, i)
        style.name_panel(axes, letter, _ROUNDS[i])
        axes.set_title(axes.get_title(loc="left"), loc="left", pad=16)
    shares, barriers, lengths = middle.subplots(1, 3)
    _draw_shares(shares, dataset)
    style.name_panel(shares, "d", "pairs connected")
    _draw_barriers(barriers, dataset)
    style.name_panel(barriers, "e", "barriers, ends at most δ")
    _draw_lengths(lengths, dataset)
    style.name_panel(lengths, "f", "length of the path")
    for axes, image, name in zip(
        below.subplots(1, 4), dataset["images"].to_numpy(), ("A", "B", "B′", "C"), strict=True
    ):
        axes.set_xticks([])
        axes.set_yticks([])
        if not np.isfinite(image).all():
            axes.axis("off")
            continue
        scale = np.quantile(np.abs(image), 0.99)
        axes.imshow(np.clip(0.5 + 0.5 * image / scale, 0, 1).transpose(1, 2, 0), interpolation="nearest")
        axes.set_xlabel(f"{name}  (rms {np.sqrt(np.mean(image**2)):.2g})")
    return figure


def _drawn(dataset: xr.Dataset) -> xr.Dataset:
    """Return what belongs to the pair that is drawn."""
    return dataset.isel({"network": 0, "class": 0, "pair": 0})


def _is_low(dataset: xr.Dataset) -> xr.DataArray:
    """Return whether both ends of a pair are at most delta, over (network, class, pair)."""
    return untrained.has_low_ends(dataset["end_loss"], _settings(dataset).delta)


def _draw_curve(axes: Axes, dataset: xr.Dataset, i: int) -> None:
    settings = _settings(dataset)
    pair = _drawn(dataset)
    axes.set_xlabel("position on the path")
    if i >= pair.sizes["round"] or not np.isfinite(pair["barrier"][i]):
        axes.text(0.5, 0.5, "not needed:\nthe path is below δ already", transform=axes.transAxes, ha="center")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    curve = pair.isel(round=i)
    stops = curve["drawn_stop_alpha"].to_numpy()
    stops = stops[np.isfinite(stops)]
    for stop in stops[1:-1]:
        axes.axvline(stop, color="0.85", linewidth=0.8, zorder=0)
    colour = style.COLOURS["untrained"]
    axes.plot(curve["drawn_alpha"], curve["drawn_loss"], color=colour, marker=".", markersize=2, linewidth=0.8)
    axes.plot(curve["barrier_alpha"], curve["barrier"], "o", color=style.COLOURS["upper"], markerfacecolor="none")
    top = 1.15 * max(float(curve["barrier"]), settings.delta)
    style.threshold(axes, settings.delta, "δ")
    if settings.threshold > 0.1 * top:
        style.threshold(axes, settings.threshold, "")
        axes.annotate(
            "threshold of the ends",
            (0.5, settings.threshold),
            xytext=(0, -10),
            ha="center",
            va="top",
            textcoords="offset points",
            fontsize=7,
            color=style.COLOURS["threshold"],
        )
    axes.set_ylim(0, top)
    axes.set_xlim(0, 1)
    axes.ticklabel_format(axis="y", scilimits=(-2, 3))
    axes.yaxis.get_offset_text().set_visible(False)
    power = int(np.floor(np.log10(top)))
    if i == 0 or power < -2:
        unit = "nats" if power >= -2 else rf"$10^{{{power}}}$ nats"
        axes.set_ylabel(f"loss ({unit})")
    above = axes.secondary_xaxis("top")
    names = _STOPS[i] if len(stops) == len(_STOPS[i]) else [str(k) for k in range(len(stops))]
    above.set_xticks(stops, names, fontsize=7)
    above.tick_params(length=2)


def _draw_shares(axes: Axes, dataset: xr.Dataset) -> None:
    rows = untrained.by_round(dataset, _settings(dataset).delta)
    rounds = np.array([row["round"] for row in rows])
    for key, role, label, shift in (
        ("connected_all", "untrained", "all pairs", -0.06),
        ("connected", "mean field", "both ends at most δ", 0.06),
    ):
        found = [row[key] for row in rows]
        share, low, high = (np.array([one[name] for one in found]) for name in ("share", "low", "high"))
        axes.errorbar(
            rounds + shift,
            share,
            [np.maximum(share - low, 0), np.maximum(high - share, 0)],
            color=style.COLOURS[role],
            marker="o" if shift < 0 else "s",
            linestyle="none",
            label=f"{label} ({found[0]['of']:,})",
        )
    axes.set_ylim(-0.03, 1.5)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xticks(rounds)
    axes.set_xlabel("rounds of bypassing")
    axes.set_ylabel("share connected")
    axes.legend(loc="upper left", handletextpad=0.2)


def _draw_barriers(axes: Axes, dataset: xr.Dataset) -> None:
    settings = _settings(dataset)
    barriers = dataset["barrier"].where(_is_low(dataset)).to_numpy().reshape(-1, dataset.sizes["round"])
    shown = [(i, column[np.isfinite(column)]) for i, column in enumerate(barriers.T) if np.isfinite(column).any()]
    spread = np.random.default_rng(0).uniform(-0.28, 0.28, len(barriers))  # drawing only: dots side by side
    for i, column in shown:
        axes.plot(i + spread[: len(column)], column, ".", color=style.COLOURS["spread"], markersize=1.5, zorder=1)
        lower, median, upper = np.quantile(column, (0.25, 0.5, 0.75))
        bars = [[median - lower], [upper - median]]
        axes.errorbar(i, median, bars, color=style.COLOURS["untrained"], marker="o", linestyle="none", zorder=3)
    style.threshold(axes, settings.delta, "δ")
    axes.set_yscale("log")
    axes.set_xlim(-0.5, len(shown) - 0.2)
    axes.set_xticks([i for i, _ in shown])
    axes.set_xlabel("rounds of bypassing")
    axes.set_ylabel("barrier (nats)")


def _draw_lengths(axes: Axes, dataset: xr.Dataset) -> None:
    ratios = dataset["length_ratio"].where(_is_low(dataset)).to_numpy().reshape(-1, dataset.sizes["round"])
    for i, column in list(enumerate(ratios.T))[1:]:
        column = np.sort(column[np.isfinite(column)])
        if not len(column):
            break
        share = (np.arange(len(column)) + 0.5) / len(column)
        label = _ROUNDS[i] if i < len(_ROUNDS) else f"round {i}"
        axes.plot(column, share, color=style.COLOURS[_ROLES[i]], label=label, drawstyle="steps-mid")
    axes.set_ylim(0, 1)
    axes.set_xlabel("length / distance of ends")
    axes.set_ylabel("share of paths below")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.75 * (high - low))  # room for the legend
    axes.legend(loc="lower right")


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = _settings(dataset)
    pair = _drawn(dataset)
    converged = pair["converged"].to_numpy()
    ends = ", ".join(
        f"{name} {'took' if done else 'had not come so far after'} {steps:,} steps"
        for name, steps, done in zip(("A (smoothed)", "C"), pair["iterations"].to_numpy(), converged, strict=True)
    )
    connected = pair["is_connected"].to_numpy().astype(bool)
    outcome = f"connected after {int(np.argmax(connected))} round(s)" if connected.any() else "not connected in the end"
    n_pairs = dataset["n_bypasses"].size
    reached = dataset["converged"].sum(("network", "class", "pair")).to_numpy()
    scale = ""
    if settings.delta > 0.001:
        scale = (
            f" The paper's thresholds are 0.0005 and delta = 0.001; this smaller run uses {settings.threshold:g} and "
            f"{settings.delta:g}, so that it ends in a minute."
        )
    elif n_pairs < 1000:
        scale = f" A run of {n_pairs} pair(s); the kept full-scale run has 1,000."
    return (
        f"(a-c) Loss along the path between two optimal inputs, A and C, of class {int(pair['class'])} of an untrained "
        f"{settings.network}, {settings.n_points} points a curve; the circle is the highest point, grey lines are the stops of the "
        "path. It is the first pair of the first network, not chosen. Inputs were "
        f"optimised from noise until their loss was {settings.threshold:g}: {ends}. Every barrier above delta (dashed) is bypassed by "
        f"optimising its highest point in the hyperplane orthogonal to its segment; this pair is {outcome}. (d) {n_pairs:,} pairs "
        f"({settings.n_networks} network(s), {len(settings.classes)} class(es), {settings.n_pairs} pair(s) each): share connected after so many "
        f"rounds, of all and of the {int(_is_low(dataset).sum()):,} whose two ends have a loss of at most delta, as Section 4 asks of a whole path; 95 % Wilson intervals, as if pairs of "
        f"one network were independent. Of A and C, {reached[0]:,} and {reached[1]:,} reached the threshold within "
        f"{settings.max_iterations:,} steps. (e, f) Of pairs with both ends at most delta: (e) barrier of every path that a round made, median and quartiles; "
        f"(f) length of these paths, the share that is shorter.{scale} Below: the drawn pair's inputs, each scaled to its own range."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdict on Appendix B.5, from the pairs whose two ends are at most delta.

    It holds if two rounds connect at least 95 % of them, and with a correction if more rounds do. Networks are the
    witnesses: fewer than two with such pairs decide nothing, nor does a lesser share.
    """
    settings = _settings(dataset)
    rows = untrained.by_round(dataset, settings.delta)
    last, second = rows[-1], rows[min(2, len(rows) - 1)]
    found, everyone = last["connected"], last["connected_all"]
    per_network = dataset["is_connected"].isel(round=-1).where(_is_low(dataset)).mean(("class", "pair")).to_numpy()
    per_network = per_network[np.isfinite(per_network)]
    low, high = last["over_networks"]
    over = ""
    if np.isfinite(low):
        over = f" (95 % over {len(per_network)} networks: {low:.3f} to {high:.3f})"
    elif found["of"]:
        over = f" (95 % as if pairs were independent: {found['low']:.3f} to {found['high']:.3f})"
    certified = dataset["certified_upper"].max("segment").to_numpy()
    certified = certified[np.isfinite(certified)]
    sampled = _drawn(dataset)["barrier"].to_numpy()
    paths = ", ".join(f"{upper:.6g} ({found:.6g})" for upper, found in zip(certified, sampled, strict=False))
    everywhere = (
        f". The drawn pair's barriers at every point, certified (and sampled): {paths}" if len(certified) else ""
    )
    is_full = settings.delta <= 0.001 and everyone["of"] >= 1000
    outcome, correction = "open", ""
    of_rounds = ""
    if found["of"]:
        shares = ", ".join(f"{row['connected']['share']:.3f}" for row in rows)
        medians = ", ".join(f"{row['barrier_quartiles'][1]:.3g}" for row in rows)
        axes = "; ".join(
            f"{_ROUNDS[row['round']]} {row['barrier_quartiles'][0]:.2g} to {row['barrier_quartiles'][2]:.2g} (paper's axis "
            f"{_PAPERS_AXES[row['round']][0]:g} to {_PAPERS_AXES[row['round']][1]:g})"
            for row in rows
            if row["round"] in _PAPERS_AXES
        )
        of_rounds = f". Share by round: {shares}. Median barrier by round: {medians}. Quartiles: {axes}"
    if len(per_network) > 1 and second["connected"]["share"] >= _NEARLY_ALL:
        outcome = "holds"
    elif len(per_network) > 1 and found["share"] >= _NEARLY_ALL:
        outcome = "holds with a correction"
        enough = next(row["round"] for row in rows if row["connected"]["share"] >= _NEARLY_ALL)
        correction = f"For {second['connected']['share']:.0%} after two rounds, for nearly all after {enough}. "
    n_high = everyone["of"] - found["of"]
    return [
        Verdict(
            claim="Class-optimal inputs of an untrained network are connected after two rounds of bypassing",
            source="App. B.5, Fig. 6",
            measured=(
                f"Of {found['of']:,} pairs whose two ends are at most {settings.delta:g}, {found['n']:,} are connected in the end{over}; "
                f"{n_high:,} of {everyone['of']:,} pairs have an end above it{of_rounds}{everywhere}"
            ),
            outcome=outcome,
            explanation=correction
            + (
                "Paths are sampled at a finite number of points and refined at their peaks; the paths that are drawn, and those of the next "
                "figure, are certified at every point. A pair with an end above delta is no counterexample, since no path from there can stay "
                "below: with the paper's weights penalty and weight decay hold the loss of A up at about the threshold itself (see "
                "empirical.untrained)." + ("" if is_full else " This is a smaller run than the kept one.")
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
