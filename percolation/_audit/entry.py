"""What the audit's table is made of: an entry, and the number that is measured for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

Outcome = Literal["holds", "holds with a correction", "fails"]
Needs = Literal["nothing", "a constant", "a reading", "a formula", "an assumption", "no help"]
VERDICTS: dict[Needs, Outcome] = {
    "nothing": "holds",
    "a constant": "holds with a correction",
    "a reading": "holds with a correction",
    "a formula": "fails",
    "an assumption": "fails",
    "no help": "fails",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One formula or claim of the paper, and what became of it.

    Parameters
    ----------
    key : str
        Short name.
    section : str
        Where the paper has it.
    equations : tuple of int
        The numbers of its equations that the entry judges.
    statement : str
        What the paper says, in its own symbols, in a line.
    needs : {"nothing", "a constant", "a reading", "a formula", "an assumption", "no help"}
        What it takes to make it true, which gives the verdict by :data:`percolation.audit.RULE`.
    correction : str
        The statement that is true; empty where the paper's is.
    argument : str
        The proof, or the counterexample.
    evidence : tuple of str
        Tests that go red if the verdict were wrong, as ``tests/FILE.py::NAME``.
    """

    key: str
    section: str
    equations: tuple[int, ...]
    statement: str
    needs: Needs
    correction: str
    argument: str
    evidence: tuple[str, ...]

    @property
    def verdict(self) -> Outcome:
        """What became of it."""
        return VERDICTS[self.needs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One number in which the paper's statement and the true one can be told apart.

    Parameters
    ----------
    quantity : str
        What is measured, and where.
    claimed, corrected : float
        What it is by the paper's statement, and by the corrected one; equal where the statement holds.
    found : float
        What is measured, by simulation or by an evaluation that does not use ``corrected``.
    relation : {"=", "<=", ">="}
        How ``found`` should stand to either.
    tolerance : float
        Of "=": relative, or absolute where the number is 0.
    """

    quantity: str
    claimed: float
    corrected: float
    found: float
    relation: Literal["=", "<=", ">="] = "="
    tolerance: float = 0.01


Measure: TypeAlias = Callable[[np.random.Generator], Check]


def agrees(check: Check, with_value: float) -> bool:
    """Return whether ``check.found`` stands to ``with_value`` as the check's relation asks."""
    if check.relation == "<=":
        return check.found <= with_value
    if check.relation == ">=":
        return check.found >= with_value
    return abs(check.found - with_value) <= check.tolerance * (abs(with_value) or 1.0)
