"""Command line: ``python -m paper_figs report`` and ``python -m paper_figs NAME ...``."""

from __future__ import annotations

from percolation import interrupt

if __name__ == "__main__":
    interrupt.end_in_one_line("paper_figs")  # before the imports below, which take seconds

import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
import xarray as xr
from tqdm.auto import tqdm

from paper_figs import (
    fig_audit,
    fig_bounds,
    fig_certificates,
    fig_certified_training,
    fig_conjecture,
    fig_cover,
    fig_depth,
    fig_evolution,
    fig_lattice,
    fig_levelsets,
    fig_network_scaling,
    fig_refinement,
    fig_regimes,
    fig_resolution,
    fig_scaling,
    fig_search,
    fig_thresholds,
    fig_untrained,
    report,
    style,
)
from paper_figs.plot import Plot
from percolation import campaign, commandline, runs

# Name -> figure, in the order of the argument. The numbers are those of the paper's figures.
PLOTS: dict[str, Plot] = {
    "bounds": fig_bounds.PLOT,
    "cover": fig_cover.PLOT,
    "fig08": fig_lattice.PLOT,
    "thresholds": fig_thresholds.PLOT,
    "scaling": fig_scaling.PLOT,
    "regimes": fig_regimes.PLOT,
    "levelsets": fig_levelsets.PLOT,
    "fig06": fig_untrained.PLOT,
    "network_scaling": fig_network_scaling.PLOT,
    "certificates": fig_certificates.PLOT,
    "fig09": fig_evolution.BATCHES,
    "recalibrated": fig_evolution.RECALIBRATED,
    "fig10": fig_evolution.EPOCHS,
    "certificates_trained": fig_certified_training.PLOT,
    "conjecture": fig_conjecture.PLOT,
    "resolution": fig_resolution.PLOT,
    "stationary": fig_resolution.STATIONARY,
    "refinement": fig_refinement.PLOT,
    "finer": fig_refinement.FINER,
    "depth": fig_depth.PLOT,
    "search": fig_search.PLOT,
    "audit": fig_audit.PLOT,
}
# Run folders of full-scale runs, copied here under the figure's name.
KEPT = Path(__file__).parent / "data"
PRESETS = ("quick", "paper", "ci")
PROGRAM = "paper_figs"
_DEFAULT: Literal["quick"] = "quick"


@dataclass(frozen=True)
class Options:
    """Flags of every figure and of the report."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(help="figures, or: report")]
    preset: Annotated[
        Literal["quick", "paper", "ci"] | None,
        tyro.conf.arg(
            help="scale of the runs; by default quick, and the results in paper_figs/data where they are kept"
        ),
    ] = None
    out: Annotated[Path, tyro.conf.arg(help="run folders are made below this folder")] = Path("runs")
    to: Annotated[Path, tyro.conf.arg(help="figures and the page are written here")] = Path("report")
    seed: Annotated[int, tyro.conf.arg(help="seed of every run")] = 0
    data: Annotated[
        str | None,
        tyro.conf.arg(help="images to train on: digits, cifar10, or an .npz with x_train, y_train, x_test, y_test"),
    ] = None
    recompute: Annotated[
        tyro.conf.FlagCreatePairsOff[bool],
        tyro.conf.arg(help="run again what is kept in paper_figs/data, with the settings of the kept run"),
    ] = False
    device: Annotated[commandline.Device, tyro.conf.arg(help="where torch computes")] = "cpu"
    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="print the summary as JSON only")] = False


def main(arguments: list[str] | None = None) -> None:
    """Draw the named figures, or all of them on one page; exit status 2 with one line on a mistake."""
    words = sys.argv[1:] if arguments is None else arguments
    with commandline.one_line_errors(PROGRAM):
        known = ", ".join(PLOTS)
        description = (
            f"The paper's figures from runs made here. Figures: {known}. A finished run is found again.\n\n"
            "for example: python -m paper_figs report, or: python -m paper_figs scaling fig08"
        )
        options = commandline.parse(Options, PROGRAM, words, description)
        is_report = options.names == ("report",)
        names = tuple(PLOTS) if is_report else options.names
        unknown = [name for name in names if name not in PLOTS]
        if unknown or not names:
            raise ValueError(f"name must be report or one of {known}, got {' '.join(unknown) or 'nothing'}")
        _prepare(options.to)
        start = time.perf_counter()
        sections = _draw(names, options)
        summary: dict[str, Any] = {
            "figures": {part.name: str(options.to / f"{part.name}.png") for part in sections},
            "claims": [dataclasses.asdict(verdict) for part in sections for verdict in part.verdicts],
        }
        if is_report:
            page = options.to / "index.html"
            record = runs.provenance(time.perf_counter() - start, options.device)
            report.write(page, sections, preset=options.preset or _DEFAULT, out=options.out, record=record)
            summary["page"] = str(page)
        if options.json:
            print(runs.as_json(summary))
            return
        for part in sections:
            print(f"{options.to / part.name}.png  {part.plot.heading}")
        print()
        print(commandline.table(summary["claims"], {"outcome": "verdict", "source": "where", "claim": "claim"}))
        if is_report:
            print(f"\nthe page is {page.resolve()}")


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if runs.is_part(path) and path.name.split(".")[0] in (*PLOTS, "index"):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise runs.RunError(f"cannot use {folder}: {error.strerror or error}", folder) from error


def _draw(names: tuple[str, ...], options: Options) -> list[report.Section]:
    """Compute or find again, and draw, each figure; progress on standard error."""
    sections = []
    with tqdm(total=len(names), unit="figure", disable=options.json, position=0, delay=1.0) as bar:
        for name in names:
            bar.set_description(f"{name}: {PLOTS[name].heading}", refresh=False)
            plot = PLOTS[name]
            is_drawn_at_once = _is_kept(name, options) and not options.recompute
            dataset, folder = _kept(name) if is_drawn_at_once else _computed(name, options)
            path = style.save(plot.draw(dataset), options.to, name)
            caption, verdicts = plot.caption(dataset), plot.judge(dataset)
            sections.append(report.section(name, plot, path.read_bytes(), caption, verdicts, folder))
            bar.update()
    return sections


def _computed(name: str, options: Options) -> tuple[xr.Dataset, Path]:
    """Return the dataset of a figure and its run folder, computed now or found again."""
    finished = campaign.run(
        PLOTS[name].experiment(options.device),
        _settings(name, options),
        out=options.out,
        n_workers=commandline.workers(options.device),
        device=options.device,
        show_progress=not options.json,
    )
    return finished.dataset, finished.folder


def _is_kept(name: str, options: Options) -> bool:
    """Return whether the figure is that of the run folder that is kept with the package: nothing else is asked for."""
    is_other = options.seed != 0 or (PLOTS[name].with_data is not None and options.data is not None)
    return (KEPT / name).exists() and options.preset is None and not is_other


def _kept(name: str) -> tuple[xr.Dataset, Path]:
    """Return the dataset of the kept run and its folder; its files are those that were written together."""
    return runs.read_finished(KEPT / name)[0], KEPT / name


def _settings(name: str, options: Options) -> Any:
    """Return the kept run's settings, or the preset's with the seed, and the data where the figure trains a network."""
    plot = PLOTS[name]
    chosen = plot.settings[options.preset or _DEFAULT]
    if _is_kept(name, options):
        return type(chosen).model_validate_json(_kept(name)[0].attrs["settings"])
    fields = chosen.model_dump() | {"seed": options.seed}
    if plot.with_data is not None:
        return plot.with_data(type(chosen)(**fields), options.data or "digits")
    return type(chosen)(**fields)


if __name__ == "__main__":
    commandline.as_program(PROGRAM, main)
