"""What a figure is made of: an experiment with settings by preset, a drawing, a caption, its verdicts on the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import xarray as xr
from matplotlib.figure import Figure
from pydantic import BaseModel

from percolation.campaign import Experiment

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One claim of the paper, what was measured, and what follows, in plain words.

    ``outcome`` is one of "holds", "holds with a correction", "fails", "open".
    """

    claim: str
    source: str
    measured: str
    outcome: str
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One figure: drawing and caption are functions of the dataset alone, computing belongs to the experiment.

    Parameters
    ----------
    heading, question : str
        The section's heading in the report, and the text above the figure for a reader who does not know the paper.
    settings : mapping
        Settings by preset; every preset of the report is there.
    experiment : function of the device name
    draw : function of the dataset
    caption : function of the dataset
        What is drawn, over how many runs, and what the bars mean.
    judge : function of the dataset
        The verdicts on the paper's claims that the figure supports.
    with_data : function of (settings, name or file) or None
        Returns the settings for other images, where a network is trained.
    """

    heading: str
    question: str
    settings: Mapping[str, BaseModel]
    experiment: Callable[[str], Experiment[Any, Any]]
    draw: Callable[[xr.Dataset], Figure]
    caption: Callable[[xr.Dataset], str]
    judge: Callable[[xr.Dataset], list[Verdict]]
    with_data: Callable[[Any, str], Any] | None = None


def with_images(settings: S, name: str, with_digest: Callable[[S], S]) -> S:
    """Return the settings for the named images; a preset that asks for others than the digits keeps them."""
    return with_digest(settings if name == "digits" else settings.model_copy(update={"data": name}))


def uncertain(value: float, error: float) -> str:
    """Return a value with its standard error in brackets after the last digits, such as 0.4463(2)."""
    if not error > 0:
        return f"{value:.6g}"
    digits = 0
    while error * 10**digits < 0.95 and digits < 12:
        digits += 1
    last = round(error * 10**digits)
    return f"{value:.{digits}f}({last})" if last else f"{value:.{digits}f}"
