"""Connectivity of untrained networks against dimension, width, depth, gain, stem and the method's choices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from empirical import scaling, untrained
from paper_figs import style
from paper_figs.plot import Plot, Verdict, decide

SETTINGS = {
    "quick": scaling.QUICK,
    "paper": scaling.FULL,
    "ci": scaling.QUICK.model_copy(
        update={
            "image_sizes": (8,),
            "widths": (8,),
            "blocks": (),
            "classes": (0, 1),
            "threshold": 0.5,
            "delta": 1.0,
            "max_iterations": 60,
            "max_rounds": 2,
        }
    ),
}
_BASE = {"image_size": "32", scaling.SCALED: "32", "width": "64", "blocks": "2", "gain": "1.0"}
_SIZES = {
    "image_size": ("as they come", "untrained", "o"),
    scaling.SCALED: ("spread as at 32 pixels", "mean field", "s"),
}
_ROLES = ("exact", "untrained", "mean field", "network", "upper")
_MARKERS = "xosD^"
_CHOICES = {
    "network": "CIFAR stem",
    "bypass gradient": "gradient\nonly",
    "bypass free": "free\nbypass",
    "mse": "MSE\npenalty",
    "noise": "start\nsd 0.1",
}

_CHOICES_MADE = {
    "networks": "the other stem (3x3, no pooling)",
    "bypasses": "only the gradient projected off AC, or nothing (free)",
    "mses": "a penalty of 0.1 mean squared distance, the paper's",
    "noises": "a start of standard deviation 0.1",
}


def _settings(dataset: xr.Dataset) -> scaling.ScalingSettings:
    return scaling.ScalingSettings.model_validate_json(dataset.attrs["settings"])


def _kinds(dataset: xr.Dataset, changed: str) -> list[tuple[float, xr.Dataset]]:
    """Return (value, pairs) of everything where this was changed, and of the base, in rising order."""
    found = []
    for i, (name, value) in enumerate(zip(dataset["changed"].values, dataset["value"].values, strict=True)):
        if name in (changed, scaling.BASE):
            found.append((float(_BASE[changed] if name == scaling.BASE else value), dataset.isel(kind=i)))
    return sorted(found, key=lambda one: one[0])


def _is_low(pairs: xr.Dataset) -> xr.DataArray:
    """Return whether both ends of a pair are at most delta, or not known: such pairs, all apart, count against a share."""
    return pairs["low_ends"] != 0


def _shares(each: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of each count of so many, and how far its interval reaches below and above, shape (2, n)."""
    found = [untrained.share(n, of) for n, of in each]
    share, low, high = (np.array([one[name] for one in found]) for name in ("share", "low", "high"))
    return share, np.maximum([share - low, high - share], 0)


def _connected(pairs: xr.Dataset, i: int) -> tuple[int, int]:
    """Return how many pairs of low ends are connected after i rounds, and of how many."""
    is_low = _is_low(pairs)
    return int((pairs["is_connected"].isel(round=i).astype(bool) & is_low).sum()), int(is_low.sum())


def _draw_shares(axes: Axes, places: Sequence[float], kinds: Sequence[xr.Dataset], *, is_log: bool) -> None:
    n_rounds = kinds[0].sizes["round"]
    for k in range(n_rounds):
        shares, reach = _shares([_connected(pairs, k) for pairs in kinds])
        shift = (k - (n_rounds - 1) / 2) * 0.03
        x = np.array(places) * (1 + shift) if is_log else np.array(places) + 3 * shift
        axes.errorbar(
            x,
            shares,
            reach,
            color=style.COLOURS[_ROLES[k % len(_ROLES)]],
            marker=_MARKERS[k % len(_MARKERS)],
            linewidth=0.8 if is_log else 0,
            elinewidth=0.8,
            label=f"{k}",
        )
    axes.set_ylim(-0.04, 1.04)


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the share of pairs connected against each thing that was changed, and what dimension does besides."""
    figure, axes = style.panels(3, n_rows=3, height=6.9)
    shares = {
        "a": ("image_size", "dimension", "input dimension"),
        "b": (scaling.SCALED, "logits' spread held", "input dimension"),
        "d": ("width", "width", "width of the first stage"),
        "e": ("blocks", "depth", "convolutions"),
        "f": ("gain", "gain", "gain of the weights"),
    }
    panels = dict(zip("abcdefghi", axes, strict=True))
    for letter, (changed, title, name) in shares.items():
        places, kinds = _placed(dataset, changed)
        _draw_shares(panels[letter], places.tolist(), kinds, is_log=True)
        _set_places(panels[letter], places, name)
        style.name_panel(panels[letter], letter, title)
    for letter in "adg":
        panels[letter].set_ylabel("share connected")
    handles, rounds = panels["a"].get_legend_handles_labels()
    figure.legend(handles, [f"{k} rounds" for k in rounds], loc="outside upper center", ncols=len(rounds), fontsize=7)
    _draw_ends(panels["c"], dataset)
    style.name_panel(panels["c"], "c", "ends")
    _draw_choices(panels["g"], dataset)
    style.name_panel(panels["g"], "g", "stem, method")
    _draw_needed(panels["h"], dataset)
    style.name_panel(panels["h"], "h", "rounds needed")
    _draw_barriers(panels["i"], dataset)
    style.name_panel(panels["i"], "i", "barriers")
    return figure


def _placed(dataset: xr.Dataset, changed: str) -> tuple[np.ndarray, list[xr.Dataset]]:
    """Return where each kind stands on its axis, rising: dimensions, convolutions, or the value itself; and its pairs."""
    values, kinds = zip(*_kinds(dataset, changed), strict=True)
    places = np.array(values)
    if changed in _SIZES:
        places = 3 * places**2
    elif changed == "blocks":
        places = 8 * places + 1
    return places, list(kinds)


def _set_dimensions(axis: Axes, dataset: xr.Dataset) -> None:
    places = [_placed(dataset, changed)[0] for changed in _SIZES]
    _set_places(axis, np.unique(np.concatenate(places)), "input dimension")


def _set_places(axis: Axes, places: np.ndarray, name: str) -> None:
    axis.set_xscale("log")
    axis.minorticks_off()
    axis.set_xticks(places, [f"{place:g}" for place in places], fontsize=7, rotation=45)
    axis.set_xlabel(name)


def _draw_ends(axis: Axes, dataset: xr.Dataset) -> None:
    """Draw the share of pairs whose two ends are at most delta, with and without the scaled last layer."""
    for i, (changed, (label, role, marker)) in enumerate(_SIZES.items()):
        places, kinds = _placed(dataset, changed)
        axis.errorbar(
            places * 1.04**i,
            *_shares([(int(_is_low(pairs).sum()), _is_low(pairs).size) for pairs in kinds]),
            color=style.COLOURS[role],
            marker=marker,
            linewidth=0.8,
            label=label,
        )
    _set_dimensions(axis, dataset)
    axis.set_ylim(-0.04, 1.04)
    axis.set_ylabel("both ends at most δ")
    axis.legend(loc="lower right", fontsize=7)


def _draw_choices(axis: Axes, dataset: xr.Dataset) -> None:
    labels, kinds = [], []
    for i, (name, value) in enumerate(zip(dataset["changed"].values, dataset["value"].values, strict=True)):
        label = "base" if name == scaling.BASE else _CHOICES.get(f"{name} {value}", _CHOICES.get(name))
        if label is not None:
            labels.append(label)
            kinds.append(dataset.isel(kind=i))
    _draw_shares(axis, range(len(labels)), kinds, is_log=False)
    axis.set_xticks(range(len(labels)), labels, fontsize=6.5, rotation=45)


def _draw_needed(axis: Axes, dataset: xr.Dataset) -> None:
    """Draw the rounds that pairs of low ends needed, mean and standard error over networks."""
    for i, (changed, (_, role, marker)) in enumerate(_SIZES.items()):
        places, kinds = _placed(dataset, changed)
        for place, pairs in zip(places, kinds, strict=True):
            each = [_rounds(pairs.isel(network=[k])) for k in range(pairs.sizes["network"])]
            means = np.array([one.mean() for one in each if one.size])
            if means.size == 0:
                continue
            error = means.std(ddof=1) / np.sqrt(means.size) if means.size > 1 else 0
            axis.errorbar(
                place * 1.04**i, means.mean(), error, color=style.COLOURS[role], marker=marker, elinewidth=0.8
            )
    _set_dimensions(axis, dataset)
    axis.set_ylabel("rounds needed, mean")


def _draw_barriers(axis: Axes, dataset: xr.Dataset) -> None:
    dimension, kinds = _placed(dataset, "image_size")
    for k, label in enumerate(("primary", "secondary", "tertiary")[: dataset.sizes["round"]]):
        there = [pairs["barrier"].isel(round=k).where(_is_low(pairs)).to_numpy() for pairs in kinds]
        is_there = np.array([bool(np.isfinite(barriers).any()) for barriers in there])
        if not is_there.any():
            break  # no pair needed so many rounds
        spread = np.array(
            [np.nanquantile(barriers, (0.25, 0.5, 0.75)) for barriers in there if np.isfinite(barriers).any()]
        )
        axis.errorbar(
            dimension[is_there] * (1 + 0.03 * k),
            spread[:, 1],
            np.abs(spread[:, [0, 2]] - spread[:, [1]]).T,
            color=style.COLOURS[_ROLES[k]],
            marker=_MARKERS[k],
            linewidth=0.8,
            label=label,
        )
    style.threshold(axis, _settings(dataset).delta, "")
    axis.set_yscale("log")
    axis.set_ylim(top=30 * axis.get_ylim()[1])  # room for the legend
    _set_places(axis, dimension, "input dimension")
    axis.set_ylabel("barrier (nats)")
    axis.legend(loc="upper right", fontsize=7)


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = _settings(dataset)
    n_pairs = dataset["barrier"].isel(kind=0, round=0).size
    is_low = _is_low(dataset)
    made = [text for field, text in _CHOICES_MADE.items() if getattr(settings, field)]
    choices = f"Against the base: {', '.join(made)}" if made else "The base alone"
    scale = ""
    if settings.delta > 0.01 or settings.n_networks < scaling.FULL.n_networks:
        scale = (
            f" The preset paper has {scaling.FULL.n_networks} networks of each kind and delta = {scaling.FULL.delta:g}."
        )
    return (
        f"Untrained ResNets, one thing changed at a time from ResNet18 on 32x32 images; {n_pairs} pairs of each kind "
        f"({settings.n_networks} network(s), {len(settings.classes)} class(es), {settings.n_pairs} pair(s) each), the same seeds for all kinds. "
        f"Ends optimised to a loss of {settings.threshold:g} within {settings.max_iterations:,} steps; everything but (c) is of the {int(is_low.sum()):,} of "
        f"{is_low.size:,} pairs whose two ends are at most delta = {settings.delta:g}{_unknown(dataset)}. (a, b, d-f) Share of pairs connected below delta after 0, 1, 2... rounds "
        "of bypassing, with 95 % Wilson intervals as if pairs were independent, against the input's dimension, with the network as it comes (a) and with its last layer "
        "scaled until logits of unit noise spread as they do at 32 pixels (b); against the channels of the first stage (d), the number of "
        f"convolutions (e), and the factor on the standard deviation of their weights (f){_unreached(dataset)}. (c) Share of pairs whose two ends "
        f"are at most delta. (h) Rounds that they needed, {settings.max_rounds + 1} where {settings.max_rounds} did not suffice, mean and standard error over networks{_left_out(dataset)}. "
        f"(g) {choices}. (i) Median barrier without scaling, bars are quartiles; dashed: delta.{scale}"
    )


def _unknown(dataset: xr.Dataset) -> str:
    """Return how many pairs count as having low ends since their ends' losses are not known, as a remark."""
    n = int(dataset["low_ends"].isnull().sum())
    remark = f", {n} of them, none connected, since the kept run has no losses of theirs: shares connected are bounds from below, (c) from above"
    return remark if n else ""


def _left_out(dataset: xr.Dataset) -> str:
    return "; without those whose ends' losses are not known" if bool(dataset["low_ends"].isnull().any()) else ""


def _unreached(dataset: xr.Dataset) -> str:
    """Return the gains with which no end reached the threshold, as a remark."""
    names = [
        f"{value:g}"
        for value, pairs in _kinds(dataset, "gain")
        if not bool(pairs["converged"].any()) and pairs["converged"].size
    ]
    return f" (at {' and '.join(names)} no end reached the threshold)" if names else ""


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return what a real network says about the dimension, as it comes and with its logits' spread held.

    The number of a network is the slope of the rounds that its pairs of low ends need over the logarithm of the
    dimension: pairs of one network are no independent witnesses. The two claims are one family, tested by Student's t
    over networks, two-sided, at 5 % after Holm's correction (:func:`paper_figs.plot.decide`).
    """
    settings = _settings(dataset)
    by_size = {changed: _kinds(dataset, changed) for changed in _SIZES}
    by_size = {changed: kinds for changed, kinds in by_size.items() if changed == "image_size" or len(kinds) > 1}
    slopes = [_slopes(np.log([3 * value**2 for value, _ in kinds]), kinds) for kinds in by_size.values()]
    decided = decide([-one for one in slopes])
    return [
        _of_sizes(kinds, settings, one, outcome, p, is_scaled=changed == scaling.SCALED)
        for (changed, kinds), one, (outcome, p) in zip(by_size.items(), slopes, decided, strict=True)
    ]


def _of_sizes(
    kinds: Sequence[tuple[float, xr.Dataset]],
    settings: scaling.ScalingSettings,
    slopes: np.ndarray,
    outcome: str,
    p: float,
    *,
    is_scaled: bool,
) -> Verdict:
    dimensions = [int(3 * value**2) for value, _ in kinds]
    last = [_connected(pairs, -1) for _, pairs in kinds]
    rounds = [_rounds(pairs) for _, pairs in kinds]
    needed = ", ".join(f"{one.mean():.3g}" if one.size else "none" for one in rounds)
    trend = {"holds": "falling", "fails": "rising", "open": "neither clearly falling nor rising"}[outcome]
    shown = ", ".join(f"{slope:.2f}" for slope in slopes) or "none"
    half = len(kinds) // 2
    upper = _slopes(np.log(dimensions[half:]), kinds[half:])
    corrected = "" if np.isnan(p) else f", p = {p:.2g} corrected by Holm"
    explanation = (
        f"Rounds by which the need changes with each e-fold of the dimension, by network: {shown} (two-sided t-test over "
        f"{len(slopes)} networks{corrected}: {trend}). From {dimensions[half]} dimensions on it falls in {int((upper < 0).sum())} of "
        f"{len(upper)} networks."
    )
    if not is_scaled:
        outcome = "holds with a correction" if outcome == "holds" else outcome
        explanation += (
            " It is not the dimension alone: with the size of its input the logits of an untrained ResNet18 grow as well, and a gain of "
            "the weights alone decides whether ends reach the threshold at all (f). The next verdict holds the logits' spread."
        )
    return Verdict(
        claim="Inputs of a real network are the better connected, the higher the input's dimension"
        + (", its logits' spread held" if is_scaled else ""),
        source="Section 4, conjecture; App. B.5",
        measured=(
            f"dimensions {', '.join(map(str, dimensions))}: of pairs with both ends at most {settings.delta:g}, connected in the end "
            f"{', '.join(f'{n} of {of}' for n, of in last)}; rounds that they needed, on average {needed} "
            f"({settings.max_rounds + 1} where {settings.max_rounds} did not suffice)"
        ),
        outcome=outcome,
        explanation=explanation,
    )


def _rounds(pairs: xr.Dataset) -> np.ndarray:
    """Return the rounds that each pair of low ends needed; one more than were made where they did not suffice.

    Pairs whose ends are not known, all apart and most of them in low dimension, are left out: that works against a need
    that falls with the dimension.
    """
    connected = pairs["is_connected"].to_numpy().astype(bool).reshape(-1, pairs.sizes["round"])
    needed: np.ndarray = np.where(connected.any(axis=1), connected.argmax(axis=1), connected.shape[1])
    return np.compress(pairs["low_ends"].to_numpy().ravel() == 1, needed)


def _slopes(x: np.ndarray, kinds: Sequence[tuple[float, xr.Dataset]]) -> np.ndarray:
    """Return, for each network with pairs of low ends at two sizes or more, the slope over x of the rounds needed."""
    found = []
    for network in range(kinds[0][1].sizes["network"]):
        means = [_rounds(pairs.isel(network=[network])) for _, pairs in kinds]
        is_there = np.array([one.size > 0 for one in means])
        if is_there.sum() > 1:
            found.append(np.polyfit(x[is_there], [one.mean() for one in means if one.size], 1)[0])
    return np.array(found)


PLOT = Plot(
    heading="Does the dimension do it? Untrained networks of many sizes",
    question=(
        "The conjecture is about dimension. A real network can be given inputs of other sizes, and other widths and depths of its "
        "own, and the experiment done again: does connectivity come with the dimension, or with the network?"
    ),
    settings=SETTINGS,
    experiment=scaling.experiment,
    draw=draw,
    caption=caption,
    judge=judge,
)
