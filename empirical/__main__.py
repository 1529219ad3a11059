"""Command line: ``python -m empirical untrained|evolution``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from empirical import evolution, untrained
from percolation.commandline import Command, main, table


def _describe_untrained(summary: Mapping[str, Any]) -> str:
    columns = {"pair": "pair", "class": "class"}
    rows = []
    for pair in summary["pairs"]:
        row = {key: pair[key] for key in ("pair", "class", "n_segments", "length_ratio", "is_connected")}
        row["iterations"] = " ".join(
            f"{steps}{'' if done else '*'}" for steps, done in zip(pair["iterations"], pair["converged"], strict=True)
        )
        row |= {f"barrier_{i}": barrier for i, barrier in enumerate(pair["barriers"])}
        rows.append(row)
    columns["iterations"] = "iterations A, C"
    names = ("primary", "secondary", "tertiary")
    for i in range(len(summary["rounds"])):
        columns[f"barrier_{i}"] = names[i] if i < len(names) else f"round {i}"
    columns |= {"n_segments": "segments", "length_ratio": "length", "is_connected": "connected"}
    return "\n".join(
        [
            f"Untrained {summary['network']}: highest loss on the path by round of bypassing, in nats",
            "",
            table(rows, columns),
            "",
            f"{summary['n_connected']} of {summary['n_pairs']} pairs connected: loss at most {summary['delta']:g}"
            " everywhere on the path, as sampled",
            f"* the input did not reach the threshold {summary['threshold']:g}; length: over the distance of the ends",
        ]
    )


def _describe_evolution(summary: Mapping[str, Any]) -> str:
    rows = [row | {"converged": f"{row['n_converged']} of {row['n_inputs']}"} for row in summary["stages"]]
    columns = {
        "stage": summary["unit"],
        "test_accuracy": "test accuracy",
        "barrier_mean": "barrier mean",
        "barrier_median": "median",
        "barrier_std": "std",
        "converged": "converged",
        "iterations_median": "iterations",
    }
    about = f"{summary['n_classes']} classes x {summary['n_pairs']} pairs x {summary['n_trainings']} training(s)"
    return "\n".join(
        [
            f"{summary['network']} trained on {summary['data']}: highest loss between two inputs of a class, in nats",
            "",
            table(rows, columns),
            "",
            f"{about}; inputs optimised to a loss of {summary['threshold']:g}; {summary['unit']} 0 is untrained",
        ]
    )


COMMANDS = {
    "untrained": Command(
        summary="Connect pairs of class-optimal inputs of untrained networks (App. B.5, Fig. 6).",
        presets={"quick": untrained.QUICK, "paper": untrained.PAPER},
        experiment=untrained.experiment,
        describe=_describe_untrained,
        example="python -m empirical untrained --n-pairs 2 --seed 1",
        uses_torch=True,
    ),
    "evolution": Command(
        summary="Follow the barrier between class-optimal inputs over training (App. E.1, Figs. 9 and 10).",
        presets={"quick": evolution.QUICK, "paper": evolution.PAPER},
        experiment=evolution.experiment,
        describe=_describe_evolution,
        example="python -m empirical evolution --unit epoch --data FILE.npz",
        uses_torch=True,
        prepare=evolution.with_digest,
    ),
}

if __name__ == "__main__":
    main("empirical", COMMANDS)
