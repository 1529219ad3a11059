"""Figs. 9 and 10: the barrier between optimal inputs while the network is trained, by batch and by epoch."""

from __future__ import annotations

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure

from empirical import evolution
from paper_figs import style
from paper_figs.plot import Plot, Verdict

_CI = evolution.EvolutionSettings(
    batch_stages=(0, 1, 4),
    epoch_stages=(0, 1),
    batch_size=128,
    augment=False,
    classes=(0, 1),
    n_pairs=1,
    n_points=21,
    threshold=0.5,
    max_iterations=100,
)


def _by(unit: str) -> dict[str, evolution.EvolutionSettings]:
    presets = {"quick": evolution.QUICK, "paper": evolution.PAPER, "ci": _CI}
    return {name: settings.model_copy(update={"unit": unit}) for name, settings in presets.items()}


def _with_data(settings: evolution.EvolutionSettings, name: str) -> evolution.EvolutionSettings:
    """Return the settings for the named images; a preset that asks for others than the digits keeps them."""
    if name != "digits":
        settings = settings.model_copy(update={"data": name})
    return evolution.with_digest(settings)


def _settings(dataset: xr.Dataset) -> evolution.EvolutionSettings:
    return evolution.EvolutionSettings.model_validate_json(dataset.attrs["settings"])


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return averaged curves by stage, barriers by stage, and test accuracy by stage."""
    settings = _settings(dataset)
    stages = dataset["stage"].to_numpy()
    figure, (left, middle, right) = style.panels(3, height=2.9)
    alpha = dataset["alpha"].to_numpy()
    averaged = ("seed", "class", "pair")
    colours = sns.color_palette("flare", len(stages))
    for i, stage in enumerate(stages):
        curve = dataset["loss"].isel(stage=i).mean(averaged)
        is_named = i in (0, len(stages) // 2, len(stages) - 1)
        label = f"{settings.unit} {stage}" if is_named else None
        left.plot(alpha, curve, color=colours[i], linewidth=0.9, label=label)
    mean = dataset["loss"].mean(("stage", *averaged)).to_numpy()
    spread = dataset["loss"].std(("stage", *averaged)).to_numpy()
    left.plot(alpha, mean, color="black", label="all stages")
    left.fill_between(alpha, np.maximum(mean - spread, 0), mean + spread, color="0.85", linewidth=0, zorder=0)
    style.threshold(left, settings.threshold, "")
    left.set_xlim(0, 1)
    left.set_ylim(0, 1.45 * float(dataset["loss"].mean(averaged).max()))  # room for the legend above the curves
    left.set_xlabel("position from A to C")
    left.set_ylabel("loss (nats)")
    left.legend(loc="upper center", ncols=2, fontsize=7)
    style.name_panel(left, "a", "averaged curves")

    flat = dataset["barrier"].stack(sample=averaged)
    for i, stage in enumerate(stages):
        role = "untrained" if stage == 0 else "trained"
        values = flat.isel(stage=i).to_numpy()
        jitter = np.linspace(-0.22, 0.22, values.size)
        middle.plot(i + jitter, values, ".", color="0.7", markersize=2.5, zorder=1)
        middle.errorbar(
            i, values.mean(), values.std(), color=style.COLOURS[role], marker="o" if stage else "s", linestyle="none"
        )
    middle.set_ylim(0, None)
    middle.set_ylabel("barrier (nats)")
    style.name_panel(middle, "b", "barriers")
    right.plot(range(len(stages)), dataset["test_accuracy"].mean("seed"), "o-", color=style.COLOURS["trained"])
    right.axhline(0.1, color=style.COLOURS["threshold"], linestyle=(0, (4, 3)), linewidth=0.8)
    right.text(len(stages) - 1, 0.11, "chance", ha="right", va="bottom", fontsize=8, color=style.COLOURS["threshold"])
    right.set_ylim(0, 1.02)
    right.set_ylabel("test accuracy")
    style.name_panel(right, "c", "the network")
    step = max(1, len(stages) // 8)
    for axis in (middle, right):
        axis.set_xticks(range(0, len(stages), step), [str(stage) for stage in stages[::step]])
        axis.set_xlabel(f"{settings.unit} (0: untrained)")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = _settings(dataset)
    sizes = dataset.sizes
    converged = dataset["converged"]
    scale = ""
    if settings.data != "cifar10" or sizes["stage"] < 31:
        scale = (
            " The paper has 31 stages, 10 classes x 5 pairs and a threshold of 0.005, on CIFAR-10; this is a smaller run of "
            "the same method."
        )
    return (
        f"{settings.network} trained on {settings.data} in batches of {settings.batch_size}, {sizes['seed']} training(s); at each "
        f"of {sizes['stage']} stages {sizes['pair']} pair(s) of optimal inputs for each of {sizes['class']} classes, threshold "
        f"{settings.threshold:g} (dashed; {int(converged.sum())} of {converged.size} inputs reached it). (a) Loss on the straight "
        "line between them, averaged over pairs and classes for each stage, and over everything (black) with its standard "
        "deviation (shaded). (b) Highest loss on the line: every pair (dots), mean and standard deviation. (c) What the network "
        f"had learnt.{scale}"
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdict on Appendix E.1."""
    settings = _settings(dataset)
    barrier = dataset["barrier"].mean(("seed", "class", "pair")).to_numpy()
    spread = dataset["barrier"].std(("seed", "class", "pair")).to_numpy()
    per_stage = dataset["barrier"].isel(stage=0).size
    stages = dataset["stage"].to_numpy()
    lowest = int(np.argmin(barrier))
    error = float(np.hypot(spread[0], spread[lowest]) / np.sqrt(per_stage))
    falls = lowest > 0 and barrier[0] - barrier[lowest] > 2 * error
    highest = int(np.argmax(barrier))
    rise = ""
    if 0 < highest < lowest and barrier[highest] - barrier[0] > 2 * error:
        rise = f"They first rise, to {barrier[highest]:.3g} at {settings.unit} {stages[highest]}, which the paper does not show. "
    return [
        Verdict(
            claim="Barriers fall early in training, then saturate while their variance grows",
            source=f"App. E.1, Fig. {'9' if settings.unit == 'batch' else '10'}",
            measured=(
                f"{settings.data}, by {settings.unit}: mean barrier {barrier[0]:.3g}±{spread[0]:.2g} untrained, lowest "
                f"{barrier[lowest]:.3g}±{spread[lowest]:.2g} at {settings.unit} {stages[lowest]}, "
                f"{barrier[-1]:.3g}±{spread[-1]:.2g} at {settings.unit} {stages[-1]} ({per_stage} pairs a stage)"
            ),
            outcome="holds" if falls else "open",
            explanation=rise
            + (
                "The mean falls by more than twice its standard error; whether it saturates and the variance grows needs the "
                "paper's scale."
                if falls
                else "At this scale the mean does not fall clearly below the untrained network's: the spread over pairs is as "
                "large as the effect, or barriers rise. The paper's scale is needed to tell."
            ),
        )
    ]


BATCHES = Plot(
    heading="Training, batch by batch",
    question=(
        "Does training help or hurt? After each of the first batches the network is frozen, optimal inputs are found anew, and "
        "the loss on the straight line between them is measured, with no detour."
    ),
    settings=_by("batch"),
    experiment=evolution.experiment,
    draw=draw,
    caption=caption,
    judge=judge,
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
