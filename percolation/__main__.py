"""Command line: ``python -m percolation scaling|lattice``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from percolation import commandline, picture, scaling


def _describe_scaling(summary: Mapping[str, Any]) -> str:
    columns = {
        "delta": "delta",
        "dimension": "d",
        "disconnected": "1 - P(connected)",
        "standard_error": "+-",
        "truncation_bound": "truncation <",
        "mean_field": "mean field",
        "isolated": "(1-p)^2d",
        "method": "method",
    }
    fits = {"delta": "delta", "rate": "rate", "rate_standard_error": "+-", "theory_rate": "2 ln(1/(1-p))"}
    rows = commandline.table(summary["rows"], columns)
    return f"{rows}\n\nexponential rate per dimension:\n{commandline.table(summary['fits'], fits)}"


def _describe_lattice(summary: Mapping[str, Any]) -> str:
    return "\n".join(f"{name.replace('_', ' '):26s} {value}" for name, value in summary.items())


COMMANDS = {
    "scaling": commandline.Command(
        summary="1 - P(two far cubes of one label are connected) against the dimension, with fitted rates.",
        presets=scaling.PRESETS,
        experiment=lambda _: scaling.EXPERIMENT,
        describe=_describe_scaling,
        example="python -m percolation scaling --deltas 0.2 0.1 --dimensions 4 8 16 32 --samples 20000 --seed 0",
    ),
    "lattice": commandline.Command(
        summary="Clusters of one lattice of occupied sites, such as Fig. 8.",
        presets=picture.PRESETS,
        experiment=lambda _: picture.EXPERIMENT,
        describe=_describe_lattice,
        example="python -m percolation lattice --shape 512 512 --p 0.6",
    ),
}

if __name__ == "__main__":
    commandline.main("percolation", COMMANDS)
