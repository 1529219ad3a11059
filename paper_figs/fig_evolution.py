"""Figs. 9 and 10: the barrier between optimal inputs while the network is trained, by batch and by epoch."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from empirical import evolution
from empirical.untrained import has_low_ends, quartiles
from paper_figs import style
from paper_figs.plot import Plot, Verdict, decide, with_images

_CI = evolution.EvolutionSettings(
    batch_stages=(0, 1, 4),
    epoch_stages=(0, 1),
    batch_size=128,
    augment=False,
    classes=(0, 1),
    n_pairs=1,
    n_points=21,
    threshold=0.5,
    delta=1.0,
    max_rounds=1,
    max_iterations=100,
)


def _by(unit: str, *, recalibrate: bool = False) -> dict[str, evolution.EvolutionSettings]:
    presets = {"quick": evolution.QUICK, "paper": evolution.PAPER, "ci": _CI}
    update = {"unit": unit, "recalibrate": recalibrate}
    return {name: settings.model_copy(update=update) for name, settings in presets.items()}


_with_data = functools.partial(with_images, with_digest=evolution.with_digest)


def _settings(dataset: xr.Dataset) -> evolution.EvolutionSettings:
    return evolution.EvolutionSettings.model_validate_json(dataset.attrs["settings"])


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return averaged curves, the barrier by stage in three ways, the rounds that are needed, and the test accuracy."""
    settings = _settings(dataset)
    figure, axes = style.panels(3, n_rows=2, height=4.9)
    curves, *by_stage = axes
    _draw_curves(curves, dataset, settings)
    parts: tuple[tuple[str, Callable[[Axes, xr.Dataset], None]], ...] = (
        ("barrier: mean", _draw_mean),
        ("barrier: quartiles", _draw_quartiles),
        ("spread over pairs", _draw_spread),
        ("rounds of bypassing", _draw_rounds),
        ("the network", _draw_accuracy),
    )
    style.name_panel(curves, "a", "averaged curves")
    for axis, letter, (text, part) in zip(by_stage, "bcdef", parts, strict=True):
        part(axis, dataset)
        style.name_panel(axis, letter, text)
        axis.set_xlabel(f"{settings.unit} (0: untrained)")
    return figure


def _is_low(dataset: xr.Dataset) -> xr.DataArray:
    """Return whether both ends of a pair are at most delta, over (seed, stage, class, pair)."""
    return has_low_ends(dataset["end_loss"], _settings(dataset).delta)


def _primary(dataset: xr.Dataset) -> xr.DataArray:
    """Return the barrier of the straight segment of pairs of low ends, in float64; nan for the others."""
    return dataset["barrier"].isel(round=0).astype(np.float64).where(_is_low(dataset))


def _connected(dataset: xr.Dataset) -> xr.DataArray:
    """Return the share connected, of the pairs of low ends, after each number of rounds, over (stage, round)."""
    return evolution.connected(dataset).where(_is_low(dataset)).mean(("seed", "class", "pair"))


def _draw_curves(axis: Axes, dataset: xr.Dataset, settings: evolution.EvolutionSettings) -> None:
    stages = dataset["stage"].to_numpy()
    alpha = dataset["alpha"].to_numpy()
    colours = sns.color_palette("flare", len(stages))
    each = dataset["loss_mean"].astype(np.float64).mean("seed")
    for i, stage in enumerate(stages):
        is_named = i in (0, len(stages) // 2, len(stages) - 1)
        label = f"{settings.unit} {stage}" if is_named else None
        colour = colours[i] if stage else style.COLOURS["untrained"]
        axis.plot(alpha, each.isel(stage=i), color=colour, linewidth=0.7, label=label, zorder=2 if stage else 6)
    mean = each.mean("stage").to_numpy()
    # Of everything: the mean variance within a stage and training, and the variance of their means.
    within = (dataset["loss_std"].astype(np.float64) ** 2).mean(("seed", "stage"))
    between = dataset["loss_mean"].astype(np.float64).var(("seed", "stage"))
    spread = np.sqrt((within + between).to_numpy())
    axis.plot(alpha, mean, color="black", label="all stages")
    axis.fill_between(alpha, np.maximum(mean - spread, 0), mean + spread, color="0.85", linewidth=0, zorder=0)
    style.threshold(axis, settings.threshold, "")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.45 * max(float(each.max()), float((mean + spread).max())))  # room for the legend
    axis.set_xlabel("position from A to C")
    axis.set_ylabel("loss (nats)")
    axis.legend(loc="upper center", ncols=2, fontsize=7)


def _draw_mean(axis: Axes, dataset: xr.Dataset) -> None:
    barrier = _primary(dataset)
    stages = dataset["stage"].to_numpy()
    mean, spread = barrier.mean(("seed", "class", "pair")), barrier.std(("seed", "class", "pair"))
    for i, stage in enumerate(stages):
        role = "trained" if stage else "untrained"
        marker = "o" if stage else "s"
        axis.errorbar(
            stage, mean[i], spread[i], color=style.COLOURS[role], marker=marker, linestyle="none", linewidth=0.9
        )
    axis.set_ylim(0, None)
    axis.set_ylabel("barrier (nats)")


def _draw_quartiles(axis: Axes, dataset: xr.Dataset) -> None:
    stages = dataset["stage"].to_numpy()
    each = _primary(dataset).transpose("stage", ...).to_numpy().reshape(len(stages), -1)
    lower, median, upper = np.array([quartiles(values) for values in each]).T
    axis.fill_between(stages, lower, upper, color=style.COLOURS["spread"], alpha=0.5, linewidth=0)
    axis.plot(stages, median, "o-", color=style.COLOURS["trained"], markersize=3)
    for one in _primary(dataset).mean(("class", "pair")).transpose("seed", "stage"):
        axis.plot(stages, one, color="0.35", linewidth=0.7)
    axis.set_yscale("log")
    axis.set_ylabel("barrier (nats)")


def _draw_spread(axis: Axes, dataset: xr.Dataset) -> None:
    stages = dataset["stage"].to_numpy()
    spread = _primary(dataset).std(("class", "pair"))
    for one in spread.transpose("seed", "stage"):
        axis.plot(stages, one, color="0.35", linewidth=0.7)
    axis.plot(stages, spread.mean("seed"), "o-", color=style.COLOURS["trained"], markersize=3)
    axis.set_yscale("log")
    axis.set_ylabel("std of barrier (nats)")


def _draw_rounds(axis: Axes, dataset: xr.Dataset) -> None:
    stages = dataset["stage"].to_numpy()
    share = _connected(dataset)
    colours = sns.color_palette("crest", share.sizes["round"])
    for k in range(share.sizes["round"]):
        axis.plot(stages, share.isel(round=k), "o-", color=colours[k], markersize=3, label=str(k))
    low = _is_low(dataset).mean(("seed", "class", "pair"))
    axis.plot(stages, low, color="0.35", linewidth=0.9, linestyle="--")
    axis.set_ylim(-0.04, 1.3)  # room for the legend
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.set_ylabel("share connected")
    axis.legend(title="rounds", fontsize=7, title_fontsize=7, loc="upper center", ncols=4, handlelength=1.2)


def _draw_accuracy(axis: Axes, dataset: xr.Dataset) -> None:
    stages = dataset["stage"].to_numpy()
    for one in dataset["test_accuracy"].transpose("seed", "stage"):
        axis.plot(stages, one, color="0.35", linewidth=0.7)
    axis.plot(stages, dataset["test_accuracy"].mean("seed"), "o-", color=style.COLOURS["trained"], markersize=3)
    style.threshold(axis, 0.1, "chance")
    axis.set_ylim(0, 1.02)
    axis.set_ylabel("test accuracy")


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = _settings(dataset)
    sizes = dataset.sizes
    is_low = _is_low(dataset)
    n_low = int(is_low.sum())
    n_connected = (evolution.connected(dataset) & is_low).sum(("seed", "stage", "class", "pair")).to_numpy()
    paper = evolution.PAPER
    is_smaller = settings.data != paper.data or sizes["class"] * sizes["pair"] < 50
    scale = ""
    if is_smaller or settings.threshold != paper.threshold:
        scale = (
            f" The paper has 31 stages, 10 classes x 5 pairs and a threshold of {paper.threshold:g}, on CIFAR-10; this is a "
            "smaller run of the same method."
        )
    elif sizes["stage"] < 31:
        scale = f" The paper has 31 stages and one training; {31 - sizes['stage']} stages are left out here."
    if settings.precision == "bfloat16":
        scale += " Steps of training and optimisation were taken in bfloat16; every loss shown is float32."
    if settings.recalibrate:
        scale += " The batch norms' statistics were taken anew from training images at every stage."
    return (
        f"{settings.network} trained on {settings.data} in batches of {settings.batch_size}, {sizes['seed']} training(s); at each "
        f"of {sizes['stage']} stages {sizes['pair']} pair(s) of inputs for each of {sizes['class']} classes, optimised to a loss of "
        f"{settings.threshold:g} (dashed in a, close to the axis where barriers are large). (a) Loss on the straight line between them, averaged "
        "over trainings, pairs and classes for each stage, and over everything (black) with its standard deviation (shaded): of all pairs. "
        f"(b-e) Of the pairs whose two ends have a loss of at most {settings.delta:g}, as Section 4 asks of a whole path ({n_low:,} of {is_low.size:,}; "
        "dashed in e: their share at each stage). (b) Highest loss on the line: mean and standard deviation over pairs, classes and trainings, cut at 0. "
        "(c) Its median and quartiles (band); thin lines: the mean of each training. (d) Its standard deviation over pairs and "
        "classes, of each training (thin) and their mean. (e) Share whose path keeps at most "
        f"{settings.delta:g}, as sampled, after so many rounds of bypassing: over all stages {n_connected[0]:,} with none, "
        f"{n_connected[-1]:,} after {sizes['round'] - 1}. (f) What the network had learnt.{scale}"
    )


_N_FIGURES = 2  # Figs. 9 and 10: the same claims are judged by both


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdicts on Appendix E.1: barriers fall early, saturate, and their variance grows.

    Barriers are those of pairs whose two ends are at most delta. The stages after the untrained one are cut into an
    early, a middle and a late third. Each claim is a number of each training, larger than 0 if the claim is true of it:
    pairs of one network are no independent witnesses. The three claims are one family, tested by Student's t,
    two-sided, at 5 % after Holm's correction, and p is doubled, since Figs. 9 and 10 both judge them
    (:func:`paper_figs.plot.decide`). With fewer than two trainings or stages a third nothing is decided.
    """
    settings = _settings(dataset)
    source = f"App. E.1, Fig. {'9' if settings.unit == 'batch' else '10'}"
    barrier = _primary(dataset)
    mean, spread = (getattr(barrier, name)(("class", "pair")) for name in ("mean", "std"))  # over (seed, stage)
    of_stage = mean.mean("seed").to_numpy()
    stages = dataset["stage"].to_numpy()
    after = np.flatnonzero(stages > 0)
    if len(after) < 3 or stages[0] != 0:
        shown = [f"{value:.3g}" if np.isfinite(value) else "none" for value in of_stage[[0, -1]]]
        measured = f"mean barrier {shown[0]} at {settings.unit} {stages[0]}, {shown[1]} at {stages[-1]}"
        why = "Three stages at least after the untrained one are needed to tell a beginning from an end."
        return [_verdict(_FALL, source, measured, "open", why)]
    thirds = np.array_split(after, 3)
    named = [f"{stages[third[0]]}-{stages[third[-1]]}" for third in thirds]
    first = mean.isel(stage=0).to_numpy()
    early, middle, late = (mean.isel(stage=third).mean("stage").to_numpy() for third in thirds)
    spreads = [spread.isel(stage=third).mean("stage") for third in thirds]
    growth = [np.log(one.where(one > 0)).to_numpy() for one in spreads]
    # Saturated: from the middle to the end less than a quarter is lost of what was lost from the untrained to the middle.
    rest = 0.25 * np.abs(first - middle) - np.abs(middle - late)
    numbers = [first - early, rest, growth[2] - growth[0]]
    decided = decide(numbers, n_families=_N_FIGURES)
    means = "mean barrier " + ", ".join(
        f"{_number(values)} {where}"
        for values, where in zip(
            (first, early, middle, late), ("untrained", *(f"at {settings.unit} {name}" for name in named)), strict=True
        )
    )
    highest = int(np.nanargmax(of_stage)) if np.isfinite(of_stage).any() else 0
    rise = ""
    if highest > 0:
        rise = f" They rise first, to {of_stage[highest]:.3g} at {settings.unit} {stages[highest]}, which the paper does not show."
        rise += " The figure recalibrated says why." if settings.unit == "batch" else ""
    deviations = f"standard deviation over pairs {_number(spread.isel(stage=0).to_numpy())} untrained, " + ", ".join(
        f"{_number(one.to_numpy())} at {name}" for one, name in zip(spreads, named, strict=True)
    )
    claims = (
        (_FALL, means, f"the fall from untrained to {named[0]}", rise),
        (_SATURATE, means, "a quarter of the change from the untrained to the middle, less the change after it", ""),
        (_GROW, deviations, "the logarithm of its growth from the early to the late third", ""),
    )
    return [
        _verdict(claim, source, measured, outcome, _tested(values, p, what) + also)
        for (claim, measured, what, also), values, (outcome, p) in zip(claims, numbers, decided, strict=True)
    ]


_FALL = "Barriers fall early in training"
_SATURATE = "The fall of the barriers saturates"
_GROW = "The variance of the barriers grows"


def _verdict(claim: str, source: str, measured: str, outcome: str, explanation: str) -> Verdict:
    return Verdict(claim=claim, source=source, measured=measured, outcome=outcome, explanation=explanation)


def _number(values: np.ndarray) -> str:
    """Return the mean over the trainings that have a number, if any."""
    values = values[np.isfinite(values)]
    return f"{values.mean():.3g}" if values.size else "none"


def _tested(values: np.ndarray, p: float, what: str) -> str:
    """Return how a number of each training, which the claim says is larger than 0, was tested."""
    values = values[np.isfinite(values)]
    shown = ", ".join(f"{value:.2g}" for value in values) or "none"
    if np.isnan(p):
        return f"Of {len(values)} training(s) {what} is {shown}; it takes several, and a spread, to tell."
    return (
        f"Over {len(values)} trainings, {what}: {shown} (two-sided t-test against 0, corrected by Holm for three claims and doubled "
        f"for two figures: p = {p:.2g})."
    )


BATCHES = Plot(
    heading="Training, batch by batch",
    question=(
        "Does training help or hurt? After each of the first batches the network is frozen, optimal inputs are found anew, and "
        "the loss on the straight line between them is measured; then how many detours it takes to keep it low."
    ),
    settings=_by("batch"),
    experiment=evolution.experiment,
    draw=draw,
    caption=caption,
    judge=judge,
    with_data=_with_data,
)
RECALIBRATED = Plot(
    heading="Why the barriers rise first",
    question=(
        "In the first batches the barriers rise before they fall. But a network in evaluation mode is not the one that was "
        "trained: its batch norms' statistics are running means, after ten batches still a third of what they were before "
        "training. Here they are taken anew from training images at every stage; everything else is as before. Do the barriers "
        "still rise?"
    ),
    settings=_by("batch", recalibrate=True),
    experiment=evolution.experiment,
    draw=draw,
    caption=caption,
    judge=lambda _: [],  # no claim of the paper: it does not take statistics anew
    with_data=_with_data,
)
EPOCHS = Plot(
    heading="Training, epoch by epoch",
    question="The same over whole passes through the training images, until the network has learnt them.",
    settings=_by("epoch"),
    experiment=evolution.experiment,
    draw=draw,
    caption=caption,
    judge=judge,
    with_data=_with_data,
)
