"""The audit: what became of every formula and claim of the paper's theory, and a number for each.

The table, ``ENTRIES``, covers Section 4 (theory), Appendices C and D, the remark of G.1 and the loss of the experiments
(B.5, E.1): statement, verdict by one ``RULE``, the corrected statement, its proof or counterexample, and the tests that
go red if the verdict were wrong. Beside each entry stands a number in which the statement and its correction can be
told apart, measured by :func:`run_task`. What needs torch stands in the tests alone.

The proofs are elementary but for what they name: uniqueness of the infinite cluster (Burton, Keane 1989), Davidson and
Szarek's tail, Pitt's and Royen's inequalities, the isodiametric inequality.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800. Pitt, Ann. Probab. 10, 496 (1982), DOI 10.1214/aop/1176993872. Royen,
Far East J. Theor. Stat. 48, 139 (2014), arXiv:1408.1028. Heydenreich, Matzke, arXiv:1912.04584.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict, Field

from percolation._audit import appendix_c, appendix_d, lattice_checks, network_checks, section_4
from percolation._audit.entry import Entry, Measure
from percolation.campaign import Arrays, Experiment

RULE = (
    "A claim holds if it is true as printed, under the paper's own assumptions. It holds with a correction if it "
    "becomes true under them once constants in it are replaced (a factor, an exponent, a step, a probability), or "
    "if only one of two readings is true. It fails if it has a counterexample and needs more: another formula, a "
    "further assumption, or nothing helps. What the paper assumes is judged by whether its own construction can "
    "meet it."
)
"""The one rule by which every verdict is given."""
ENTRIES: tuple[Entry, ...] = (*section_4.ENTRIES, *appendix_c.ENTRIES, *appendix_d.ENTRIES)
MEASURES: dict[str, Measure] = {**lattice_checks.MEASURES, **network_checks.MEASURES}
_COLUMNS = {
    "section": "where the paper has it",
    "equations": "numbers of its equations",
    "statement": "what the paper says",
    "verdict": "what became of it",
    "needs": "what it takes to make it true",
    "correction": "what is true instead",
}
_NUMBERS = {
    "claimed": "the quantity by the paper's statement",
    "corrected": "the quantity by the corrected statement",
    "found": "the quantity as measured",
}


class Settings(BaseModel):
    """Nothing to choose but the seed: the table is what it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    seed: int = Field(0, ge=0, description="seed of the run")


def tasks(_: Settings) -> dict[str, str]:
    """Return one task for each entry."""
    return {entry.key: entry.key for entry in ENTRIES}


def run_task(_: Settings, task: str, seeds: np.random.SeedSequence) -> Arrays:
    """Measure the number beside one entry."""
    check = MEASURES[task](np.random.default_rng(seeds))
    return {name: np.asarray(getattr(check, name)) for name in ("quantity", "relation", *_NUMBERS)}


def collect(_: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return the table with its numbers, entry by entry."""
    texts: dict[str, list[str]] = {
        name: [str(getattr(entry, name)) for entry in ENTRIES] for name in _COLUMNS if name != "equations"
    }
    texts["equations"] = [", ".join(map(str, entry.equations)) for entry in ENTRIES]
    texts["quantity"] = [str(arrays[entry.key]["quantity"]) for entry in ENTRIES]
    texts["relation"] = [str(arrays[entry.key]["relation"]) for entry in ENTRIES]
    meanings = _COLUMNS | {"quantity": "what is measured", "relation": "how found should stand to the other two"}
    variables = {name: ("entry", column, {"long_name": meanings[name]}) for name, column in texts.items()}
    numbers = {
        name: ("entry", [float(arrays[entry.key][name]) for entry in ENTRIES], {"long_name": meaning, "units": "1"})
        for name, meaning in _NUMBERS.items()
    }
    return xr.Dataset(variables | numbers, coords={"entry": ("entry", [entry.key for entry in ENTRIES])})


def summarise(_: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return ``rows``, one for each entry, and ``counts``, of entries by verdict."""
    rows = [
        {"key": key, **{name: str(row[name].item()) for name in ("section", "equations", "verdict", "quantity")}}
        | {name: float(row[name]) for name in _NUMBERS}
        for key in dataset["entry"].to_numpy()
        for row in (dataset.sel(entry=key),)
    ]
    verdicts, counts = np.unique(dataset["verdict"].to_numpy(), return_counts=True)
    return {"rows": rows, "counts": {str(name): int(count) for name, count in zip(verdicts, counts, strict=True)}}


EXPERIMENT: Experiment[Settings, str] = Experiment(
    name="audit", version=2, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
)
