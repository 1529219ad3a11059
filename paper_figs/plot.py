"""What a figure is made of: an experiment with settings by preset, a drawing, a caption, its verdicts on the paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from pydantic import BaseModel
from scipy import stats

from percolation.campaign import Experiment
from percolation.statistics import holm

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


def decide(family: Sequence[np.ndarray], *, n_families: int = 1) -> list[tuple[str, float]]:
    """Return, for each claim of a family, whether it holds, fails or is open, and the corrected p-value of its test.

    Of each claim there is one number for every independent run (a training, a network), larger than 0 if the claim is
    true of that run. Student's two-sided t-test compares their mean with 0; the p-values are corrected by Holm within
    the family and, by Bonferroni, for ``n_families`` families of as many verdicts on the same claims. Below 0.05 the
    claim holds or fails by the mean's sign, above it is open. So is a claim that is not tested, with p = nan: with
    fewer than two numbers, or none that differ, nothing says how far chance reaches.
    """
    numbers = [values[np.isfinite(values)] for values in family]
    is_tested = np.array([len(values) > 1 and np.ptp(values) > 0 for values in numbers], dtype=bool)
    p = np.full(len(numbers), np.nan)
    tested = [values for values, is_there in zip(numbers, is_tested, strict=True) if is_there]
    p[is_tested] = np.minimum(1, n_families * holm([float(stats.ttest_1samp(values, 0).pvalue) for values in tested]))
    return [
        ("open" if not value < 0.05 else "holds" if values.mean() > 0 else "fails", float(value))
        for values, value in zip(numbers, p, strict=True)
    ]


def uncertain(value: float, error: float) -> str:
    """Return a value with its standard error in brackets after the last digits, such as 0.4463(2)."""
    if not error > 0:
        return f"{value:.6g}"
    digits = 0
    while error * 10**digits < 0.95 and digits < 12:
        digits += 1
    last = round(error * 10**digits)
    return f"{value:.{digits}f}({last})" if last else f"{value:.{digits}f}"
