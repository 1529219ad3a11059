"""Command line: ``python -m empirical untrained|scaling|evolution|lattice|refine|search``."""

from __future__ import annotations

from percolation import interrupt

if __name__ == "__main__":
    interrupt.end_in_one_line("empirical")  # before the imports below, which take seconds

from collections.abc import Mapping
from typing import Any

from empirical import conjecture, evolution, lattice_pairs, refinement, scaling, untrained
from percolation.commandline import Command, as_program, main, table

_NAMES = ("primary", "secondary", "tertiary")


def _describe_untrained(summary: Mapping[str, Any]) -> str:
    rows = []
    for found in summary["rounds"]:
        connected, everyone = found["connected"], found["connected_all"]
        rows.append(
            {
                "path": _NAMES[found["round"]] if found["round"] < len(_NAMES) else f"round {found['round']}",
                "n_paths": found["n_paths"],
                **dict(zip(("q1", "q2", "q3"), found["barrier_quartiles"], strict=True)),
                "connected": f"{connected['n']} of {connected['of']}",
                "interval": f"{connected['low']:.3f} to {connected['high']:.3f}" if connected["of"] else "",
                "all": f"{everyone['n']} of {everyone['of']}",
            }
        )
    columns = {
        "path": "path",
        "n_paths": "paths",
        "q1": "barrier, quartile",
        "q2": "median",
        "q3": "quartile",
        "connected": "connected by then",
        "interval": "95 % (Wilson)",
        "all": "of all",
    }
    n_pairs = summary["n_pairs"]
    lengths = "no pair has both ends at most delta"
    if summary["n_pairs_low_ends"]:
        lengths = (
            "length of the last path of such pairs over the distance of its ends: median "
            f"{summary['length_ratio_median']:.3g}, largest {summary['length_ratio_max']:.3g}"
        )
    ends = ", ".join(
        f"{end}: {n} of {n_pairs} reached it, median {summary['iterations_median'][end]:g} steps"
        for end, n in summary["converged"].items()
    )
    return "\n".join(
        [
            f"Untrained {summary['network']}: highest loss on the path by round of bypassing, in nats",
            "",
            table(rows, columns),
            "",
            f"{n_pairs} pairs, {summary['n_networks']} network(s); the table is of the {summary['n_pairs_low_ends']}"
            f" whose two ends are at most {summary['delta']:g}; connected: so is all of the path, as sampled",
            f"ends optimised to {summary['threshold']:g}: {ends}",
            lengths,
        ]
    )


def _describe_scaling(summary: Mapping[str, Any]) -> str:
    rows = []
    for found in summary["rows"]:
        row = {"changed": f"{found['changed']} {found['value']}".strip(), "iterations": found["iterations_median"]}
        row |= {"ends": f"{found['n_low_ends']} of {found['n_pairs']}", "primary": found["primary_quartiles"][1]}
        row |= {f"round_{k}": str(one["n"]) for k, one in enumerate(found["connected"])}
        rows.append(row)
    columns = {"changed": "changed", "iterations": "steps", "ends": "pairs of low ends", "primary": "primary barrier"}
    columns |= {key: f"after {key.removeprefix('round_')}" for key in rows[0] if key.startswith("round_")}
    return "\n".join(
        [
            f"Untrained ResNets: share of pairs connected below {summary['delta']:g} after so many rounds of bypassing",
            "",
            table(rows, columns),
            "",
            f"medians over pairs; ends optimised to a loss of {summary['threshold']:g}; base: ResNet18 on 32x32",
        ]
    )


def _describe_evolution(summary: Mapping[str, Any]) -> str:
    rows = []
    for stage in summary["stages"]:
        row = dict(stage)
        row |= zip(("lower", "median", "upper"), stage["barrier_quartiles"], strict=True)
        row["connected"] = " ".join(str(n) for n in stage["n_connected_by_round"])
        row["low_ends"] = f"{stage['n_pairs_low_ends']} of {stage['n_pairs_of_stage']}"
        rows.append(row)
    columns = {
        "stage": summary["unit"],
        "test_accuracy": "test accuracy",
        "barrier_mean": "barrier mean",
        "barrier_std": "std",
        "median": "median",
        "lower": "quartiles",
        "upper": "",
        "low_ends": "pairs of low ends",
        "connected": "connected by round",
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
            f"of pairs of low ends: both at most {summary['delta']:g}; connected: loss at most that on the path,"
            " as sampled, after 0, 1, ... bypassing rounds",
        ]
    )


def _describe_lattice(summary: Mapping[str, Any]) -> str:
    columns = {
        "activation": "network",
        "depth": "depth",
        "box": "box",
        "dimension": "d",
        "network_side": "cubes an axis",
        "network": "P(connected)",
        "network_error": "error",
        "moved": "moved by",
        "is_resolved": "resolved",
        "field": "Gaussian field",
        "field_error": "error",
        "shuffled": "shuffled",
        "independent": "independent",
        "mean_field": "mean field",
        "certain": "certain",
    }
    sizes = {
        "activation": "network",
        "depth": "depth",
        "size_dimension": "d",
        "size_radius": "R",
        "network": "P(connected)",
        "network_error": "error",
        "moved": "moved by",
        "independent": "independent",
    }
    searches = {
        "activation": "network",
        "depth": "depth",
        "search_dimension": "d",
        "n_pairs": "pairs",
        "n_joined": "joined",
        "n_given_up": "given up",
        "low": "P(connected), 95 %",
        "high": "",
    }
    parts = [
        f"Two cubes of one label of Eq. 4, delta = {summary['delta']:g}: are they connected in it?",
        table(summary["rows"], columns),
    ]
    if summary["sizes"]:
        parts += ["growing boxes of several sizes, R correlation lengths", table(summary["sizes"], sizes)]
    if summary["searches"]:
        parts += ["fixed boxes, pairs joined by search", table(summary["searches"], searches)]
    parts.append(
        f"{summary['n_networks']} networks, and as many fields, for each row; errors are standard errors over them\n"
        "moved by: what halving the cubes changed; resolved: by no more than the error or a tenth of 1 - P\n"
        "certain: share of the cubes whose label the Lipschitz bound proves"
    )
    return "\n\n".join(parts)


def _describe_refinement(summary: Mapping[str, Any]) -> str:
    rows = []
    for found in summary["rows"]:
        row = {name: found[name] for name in ("activation", "box", "dimension", "side", "is_resolved", "n_given_up")}
        row |= {name: f"{found[name]:.2e}" for name in ("coarse", "apart", "apart_error", "apart_least", "moved")}
        shares = {name: found[name] for name in ("largest", "at_wall", "missed")}
        row |= {name: "-" if share is None else f"{share:.3f}" for name, share in shares.items()}
        rows.append(row | {"n_cut_off": f"{found['n_cut_off']} of {summary['n_networks']}"})
    columns = {
        "activation": "network",
        "box": "box",
        "dimension": "d",
        "side": "cubes an axis",
        "coarse": "1 - P, coarse",
        "apart": "fine",
        "apart_error": "error",
        "apart_least": "at least",
        "moved": "moved by",
        "is_resolved": "resolved",
        "n_cut_off": "rests on",
        "largest": "largest",
        "at_wall": "at wall",
        "missed": "missed",
        "n_given_up": "given up",
    }
    return "\n".join(
        [
            f"Two cubes of one label of Eq. 4, delta = {summary['delta']:g}: not connected in it on finer lattices",
            "",
            table(rows, columns),
            "",
            "means over networks, errors are standard errors over them; at least: with all that was given up connected",
            "moved by: what the last refinement changed; resolved: by at most a tenth of 1 - P, two errors included",
            "rests on: networks with any cube cut off; largest: the share of the mean that the largest of them carries",
            "at wall: share of what is cut off in parts that touch the box's wall; missed: met by the sample alone",
        ]
    )


def _describe_search(summary: Mapping[str, Any]) -> str:
    rows = [dict(row, interval=f"{row['low']:.3f} to {row['high']:.3f}") for row in summary["rows"]]
    columns = {
        "box": "box",
        "dimension": "d",
        "n_cells": "cubes an axis",
        "n_pairs": "pairs",
        "n_found": "found",
        "interval": "95 % (Wilson)",
        "n_exhausted": "none",
        "n_budget": "given up",
        "n_certified": "certified",
        "path_ratio_median": "path / distance",
        "path_ratio_max": "largest",
        "n_evaluated_median": "cubes evaluated",
        "n_straight": "straight",
        "n_bypass": "bypass",
    }
    law = f"{summary['activation']}, {summary['depth']} matrices, width {summary['width']}"
    return "\n".join(
        [
            f"Two cubes that share a label, delta = {summary['delta']:g}, joined by search ({law})",
            "",
            table(rows, columns),
            "",
            "none: all that can be reached was, and the other cube is not among it; certified: the path found,",
            "straightened, stays in the interval at every point; straight, bypass: certified paths of the same pairs",
            f"path / distance, cubes evaluated: medians over pairs; given up after {summary['budget']:,} cubes",
        ]
    )


COMMANDS = {
    "untrained": Command(
        summary="Connect pairs of class-optimal inputs of untrained networks (App. B.5, Fig. 6).",
        presets={
            "quick": untrained.QUICK,
            "paper": untrained.PAPER,
            "official": untrained.OFFICIAL,
            "full": untrained.FULL,
        },
        experiment=untrained.experiment,
        describe=_describe_untrained,
        example="python -m empirical untrained --preset official --classes 7 --seed 1",
        uses_torch=True,
    ),
    "scaling": Command(
        summary="Connect pairs of untrained networks of many kinds: input dimension, width, depth, gain, stem.",
        presets={"quick": scaling.QUICK, "full": scaling.FULL},
        experiment=scaling.experiment,
        describe=_describe_scaling,
        example="python -m empirical scaling --image-sizes 8 16 --widths --seed 1",
        uses_torch=True,
    ),
    "evolution": Command(
        summary="Follow the barrier between class-optimal inputs over training (App. E.1, Figs. 9 and 10).",
        presets={"quick": evolution.QUICK, "cpu": evolution.CPU, "paper": evolution.PAPER},
        experiment=evolution.experiment,
        describe=_describe_evolution,
        example="python -m empirical evolution --unit epoch --data FILE.npz",
        uses_torch=True,
        prepare=evolution.with_digest,
    ),
    "lattice": Command(
        summary="Cut a box into cubes, label all by a random network, and ask which are connected (Section 4).",
        presets=conjecture.PRESETS,
        experiment=lambda _: conjecture.EXPERIMENT,
        describe=_describe_lattice,
        example="python -m empirical lattice --activations sin --boxes growing --dimensions 2 3 4 --seed 1",
    ),
    "refine": Command(
        summary="Connect the cubes of a coarse box on lattices too fine to store, by a random network's labels.",
        presets=refinement.PRESETS,
        experiment=lambda _: refinement.EXPERIMENT,
        describe=_describe_refinement,
        example="python -m empirical refine --activations sin relu --dimensions 4 6 8 --seed 1",
    ),
    "search": Command(
        summary="Join cubes of one label by search on lattices of any dimension, and certify the paths (Section 4).",
        presets=lattice_pairs.PRESETS,
        experiment=lambda _: lattice_pairs.EXPERIMENT,
        describe=_describe_search,
        example="python -m empirical search --lattices fixed 16 32 fixed 3072 16 --n-networks 20 --seed 1",
    ),
}

if __name__ == "__main__":
    as_program("empirical", lambda: main("empirical", COMMANDS))
