"""Everything on one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from paper_figs.plot import Plot, Verdict
from percolation import runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One figure as the page shows it; ``image`` is base64."""

    name: str
    plot: Plot
    image: str
    caption: str
    folder: Path
    seconds: float
    settings: str
    verdicts: list[Verdict]


def section(name: str, plot: Plot, image: bytes, caption: str, verdicts: list[Verdict], folder: Path) -> Section:
    """Return the section of one figure, with its run's settings and time read from the run folder."""
    record = runs.read_json(folder / "provenance.json")
    settings = runs.read_json(folder / "settings.json")
    return Section(
        name=name,
        plot=plot,
        image=base64.b64encode(image).decode(),
        caption=caption,
        folder=folder,
        seconds=float(record["seconds_of_tasks"]),
        settings=str(settings["settings"]),
        verdicts=verdicts,
    )


def write(path: Path, sections: Sequence[Section], *, preset: str, out: Path, record: dict[str, Any]) -> None:
    """Write the page to ``path``.

    Parameters
    ----------
    path : Path
        The page; its folder must exist.
    sections : sequence of Section
        In the order of the argument.
    preset : str
        The preset that was run.
    out : Path
        Where the run folders are.
    record : dict
        As :func:`percolation.runs.provenance` returns it.

    Raises
    ------
    RunError
        If the page cannot be written.
    """
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("paper_figs", "."), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("report.html")
    machine = record["machine"]
    text = template.render(
        sections=sections,
        verdicts=[verdict for part in sections for verdict in part.verdicts],
        preset=preset,
        out=out,
        machine=f"{machine['processor']}, {machine['cores']} cores, networks on {machine['device']}",
        command="Command: " + " ".join(["python -m paper_figs", *record["command"][1:]]),
        commit=record["commit"],
        versions=", ".join(f"{name} {version}" for name, version in record["versions"].items()),
    )
    runs.write(path, lambda part: part.write_text(text, encoding="utf-8"))
