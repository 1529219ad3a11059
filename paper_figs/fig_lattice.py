"""Fig. 8: site percolation in two dimensions near the critical probability."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from paper_figs import style
from paper_figs.plot import Plot, Verdict
from percolation import picture

SETTINGS = {
    "quick": picture.Settings(shape=(256, 256), p=0.5927460508),
    "paper": picture.Settings(shape=(1024, 1024), p=0.5927460508),
    "ci": picture.Settings(shape=(64, 64), p=0.5927460508),
}


@style.styled
def draw(dataset: xr.Dataset) -> Figure:
    """Return the lattice, coloured by cluster, beside the sizes of its clusters."""
    figure, (left, right) = style.panels(2, height=3.4, width_ratios=(1.15, 1))
    rank = dataset["rank"].to_numpy()
    shown = np.select([rank == 0, rank == 1, rank <= 5], [0, 1, 2], default=3)
    colours = ListedColormap(["white", style.COLOURS["simulation"], style.COLOURS["mean field"], "0.75"])
    left.imshow(shown, cmap=colours, vmin=-0.5, vmax=3.5, interpolation="nearest", origin="lower")
    left.set_xticks([])
    left.set_yticks([])
    for spine in left.spines.values():
        spine.set_visible(True)
    handles = [
        left.scatter([], [], marker="s", color=colours(i), label=text)
        for i, text in ((1, "largest"), (2, "next four"), (3, "others"))
    ]
    left.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3, title="clusters")
    style.name_panel(left, "a", "one lattice")
    sizes = dataset["size"].to_numpy()
    edges = np.unique(np.concatenate([np.arange(1, 8), np.geomspace(8, sizes.max() + 1, 24).astype(int)]))
    counts, _ = np.histogram(sizes, edges)
    widths = np.diff(edges)
    centres = np.sqrt(edges[:-1] * (edges[1:] - 1.0))
    seen = counts >= 4
    density = counts / widths / rank.size
    right.errorbar(
        centres[seen],
        density[seen],
        np.sqrt(counts[seen]) / widths[seen] / rank.size,
        color=style.COLOURS["simulation"],
        linestyle="none",
        marker="o",
        label="this lattice",
    )
    line = np.geomspace(1, 3 * centres[seen].max(), 50)
    at = int(np.argmin(np.abs(centres - 5)))
    right.plot(
        line,
        density[at] * (line / centres[at]) ** (-187 / 91),
        color=style.COLOURS["exact"],
        label=r"slope $-187/91$",
    )
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("sites in the cluster")
    right.set_ylabel("clusters per site")
    right.legend()
    style.name_panel(right, "b", "cluster sizes")
    return figure


def caption(dataset: xr.Dataset) -> str:
    """Return the caption."""
    settings = picture.Settings.model_validate_json(dataset.attrs["settings"])
    summary = picture.summarise(settings, dataset)
    shape = " x ".join(str(length) for length in settings.shape)
    return (
        f"(a) One lattice of {shape} sites, each occupied with probability {settings.p:g}, the critical value of the square "
        f"lattice; the largest of {summary['clusters']:,} clusters holds {summary['largest_share_of_occupied']:.0%} of the "
        "occupied sites. (b) Its clusters by size, in bins of at least four clusters, bars are the square root of the count, beside the exact critical slope "
        "(Fisher exponent 187/91)."
    )


def judge(dataset: xr.Dataset) -> list[Verdict]:
    """Return the verdict on Appendix C's picture."""
    settings = picture.Settings.model_validate_json(dataset.attrs["settings"])
    summary = picture.summarise(settings, dataset)
    spans = all(summary["spans"])
    return [
        Verdict(
            claim="Near the critical probability one cluster crosses the lattice, yet many sites do not belong to it",
            source="Appendix C, Fig. 8",
            measured=(
                f"largest cluster: {summary['largest_share_of_occupied']:.0%} of the occupied sites; it "
                f"{'crosses' if spans else 'does not cross'} both ways; {summary['clusters']:,} clusters in all"
            ),
            outcome="holds" if spans else "open",
            explanation="In two dimensions labels rarely connect; it takes many dimensions, as the next figure shows.",
        )
    ]


PLOT = Plot(
    heading="Percolation: when do equal labels connect?",
    question=(
        "Forget the network for a moment: occupy every site of a grid at random with probability p, and call neighbours "
        "that are both occupied connected. Below a critical p there are only small islands; above it one cluster spans "
        "everything. This is the grid at the critical point, as in Fig. 8 of the paper."
    ),
    settings=SETTINGS,
    experiment=lambda _: picture.EXPERIMENT,
    draw=draw,
    caption=caption,
    judge=judge,
)
