"""Command line: ``python -m percolation scaling|lattice|threshold|regimes|levelsets``."""

from __future__ import annotations

from percolation import interrupt

if __name__ == "__main__":
    interrupt.end_in_one_line("percolation")  # before the imports below, which take seconds

import math
from collections.abc import Mapping
from typing import Any

from percolation import commandline, levelsets, picture, regimes, scaling, threshold


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


def _describe_regimes(summary: Mapping[str, Any]) -> str:
    columns = {
        "theory": "theory",
        "n_points": "points",
        "within_1": "within 1 %",
        "beyond_1": "beyond",
        "open_1": "open",
        "within_10": "within 10 %",
        "beyond_10": "beyond",
        "open_10": "open",
        "from_dimension": "none beyond from d",
    }
    corners = {
        "lattice": "lattice",
        "dimension": "d",
        "neighbours": "neighbours",
        "p": "p",
        "finite": "Q",
        "standard_error": "+-",
        "theory": "Eq. 21",
    }
    theories = commandline.table(summary["theories"], columns)
    return f"{theories}\n\nboth lattices at one p:\n{commandline.table(summary['corners'], corners)}"


def _describe_lattice(summary: Mapping[str, Any]) -> str:
    return "\n".join(f"{name.replace('_', ' '):26s} {value}" for name, value in summary.items())


def _digits(error: float) -> int:
    """Return the decimals that a number with this standard error is known to: two digits of the error."""
    return min(15, max(0, 1 - math.floor(math.log10(error)))) if error > 0 else 15


def _describe_threshold(summary: Mapping[str, Any]) -> str:
    n_digits = _digits(summary["standard_error"])
    lines = [
        f"p_c                        {summary['p_c']:.{n_digits}f} +- {summary['standard_error']:.{n_digits}f}",
        f"relative error             {summary['relative_error']:.1e}",
    ]
    if summary["published"] is not None:
        apart = f"{summary['standard_errors_apart']:+.2f} combined standard errors apart"
        value, error = summary["published"], summary["published_error"]
        known = f"{value:.{_digits(error)}f} +- {error:.1e}" if error else f"{value:g}, exact"
        lines.append(f"published                  {known}, {apart}")
        lines.append(f"                           {summary['published_source']}")
    if summary["series"] is not None:
        lines.append(f"series in 1/(2d-1)         {summary['series']:.10f}")
    lines.append(
        f"invaded                    {summary['invaded']:,} in {summary['n_runs']} runs, {summary['seconds']} s"
    )
    return "\n".join(lines)


def _describe_levelsets(summary: Mapping[str, Any]) -> str:
    columns = {
        "field": "field",
        "dimension": "d",
        "p_c": "critical density",
        "total_error": "+-",
        "level": "level / sd",
        "published": "published",
        "published_error": "+-",
        "nu": "nu",
        "nu_measured": "nu measured",
        "nu_error": "+-",
        "n_fields": "fields",
        "largest": "L up to",
        "source": "source",
    }
    return commandline.table(summary["rows"], columns)


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
        memory=picture.memory,
    ),
    "threshold": commandline.Command(
        summary="The percolation threshold of Z^d, sites or bonds, by invasion percolation.",
        presets=threshold.PRESETS,
        experiment=lambda _: threshold.EXPERIMENT,
        describe=_describe_threshold,
        example="python -m percolation threshold --dimension 7 --seconds 120 --seed 1",
    ),
    "regimes": commandline.Command(
        summary="Where mean field, Bethe lattice and finite clusters hold, over dimension and p.",
        presets=regimes.PRESETS,
        experiment=lambda _: regimes.EXPERIMENT,
        describe=_describe_regimes,
        example="python -m percolation regimes --dimensions 3 6 13 40 --ratios 1.2 2 5 20 --seed 0",
    ),
    "levelsets": commandline.Command(
        summary="The density at which level sets of the Gaussian free field percolate, and of independent sites.",
        presets=levelsets.PRESETS,
        experiment=lambda _: levelsets.EXPERIMENT,
        describe=_describe_levelsets,
        example="python -m percolation levelsets --sites 4000000 --seed 0",
    ),
}

if __name__ == "__main__":
    commandline.as_program("percolation", lambda: commandline.main("percolation", COMMANDS))
