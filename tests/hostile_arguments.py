"""Every public function is called with one argument that means harm; run as a program, since some calls may end it.

    python tests/hostile_arguments.py PACKAGE [FIRST]

prints a line before each call and a line for each answer that is none of ours, from call number FIRST on.
"""

import importlib
import inspect
import resource
import signal
import sys
import traceback
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
SECONDS = 8
# What a campaign calls, with what it was given by ``tasks`` and by settings that pydantic has checked.
PROTOCOL = {"tasks", "run_task", "collect", "summarise"}
# A number of steps takes as long as it says; what ``prepare`` made is nobody's to make.
AS_ASKED = {"max_iterations", "until", "prepared"}
EXPERIMENTS_OWN = {"settings", "dataset", "curve"}
SIMPLE = (int, float, str, list, tuple)

HOSTILE = {
    "-1": lambda good: -1,
    "0": lambda good: 0,
    "2^32 + 1": lambda good: 2**32 + 1,
    "2^63": lambda good: 2**63,
    "10^400": lambda good: 10**400,
    "nan": lambda good: float("nan"),
    "-inf": lambda good: -float("inf"),
    "inf": lambda good: float("inf"),
    "1.5": lambda good: 1.5,
    "word": lambda good: "3",
    "True": lambda good: True,
    "None": lambda good: None,
    "list": lambda good: [1, 2, 3],
    "ragged": lambda good: [[1], [2, 3]],
    "bytes": lambda good: b"3",
    "object": lambda good: np.array([object()]),
    "complex": lambda good: np.array([1j, 2]),
    "int8": lambda good: np.array([100, 100, 100], dtype=np.int8),
    "(10^9, 10^9)": lambda good: (10**9, 10**9),
    "nans": lambda good: np.full(np.shape(good), np.nan),
    "millions": lambda good: np.full(np.shape(good), 10**6),
    "minus ones": lambda good: np.full(np.shape(good), -1),
    "2^62": lambda good: np.full(np.shape(good), 2**62),
    "2^32 + good": lambda good: np.asarray(good) + 2**32,
    "empty": lambda good: np.zeros((0,) * max(1, np.ndim(good))),
    "one axis more": lambda good: np.asarray(good)[None],
    "masked": lambda good: np.ma.masked_equal(np.ones(np.shape(good) or 3), 1),
    "big-endian": lambda good: np.asarray(good).astype(np.asarray(good).dtype.newbyteorder(">")),
    "read-only": lambda good: np.broadcast_to(np.asarray(good), np.shape(good)),
    "every other": lambda good: np.repeat(np.asarray(good), 2, axis=-1)[..., ::2] if np.ndim(good) else good,
    "huge": lambda good: np.broadcast_to(np.asarray(good).flat[0], (10**9,) * max(1, np.ndim(good))),
    "as list": lambda good: np.asarray(good).tolist(),
}


def percolation_calls():
    from percolation import fields, growth

    rng, seeds = np.random.default_rng(0), np.random.SeedSequence(0)
    grow = {"p": 0.2, "dimension": 3, "n_samples": 3, "max_sites": 50, "rng": rng}
    labels = np.array([[1, 1, -1], [2, 1, 2]])
    found = importlib.import_module("percolation.clusters").label_clusters(labels)
    modes = fields.Modes(frequencies=np.ones((3, 2)), phases=np.zeros(3))
    limit = {"depth": 2, "activation": "erf", "weight_variance": 1.0, "bias_variance": 0.1}
    grown = growth.grow(**grow)
    lengths = np.array([4, 6, 8, 12])
    torus = {"shape": (3, 4), "n_runs": 2, "seeds": seeds, "n_workers": 1}
    lattice = {"labels": labels, "periodic": (True, False), "reach": 0}
    checkpoints, seen = 2 ** np.arange(18), np.stack([4.0 * 2 ** np.arange(18)] * 2)
    return {
        "growth.grow": grow | {"neighbourhood": "face", "n_workers": 1},
        "growth.connect": {k: v for k, v in grow.items() if k != "dimension"}
        | {"displacement": (1, 1), "n_workers": 2},
        "growth.lattice": {"dimension": 3, "n_samples": 3, "rng": rng, "neighbourhood": "corner"},
        "growth.threshold": {"p": 0.2},
        "growth.check": {k: v for k, v in grow.items() if k != "rng"},
        "growth.infinite_probability": {"growth": grown, "z": 1.0},
        "growth.size_distribution": {"growth": grown, "sizes": [1, 2, 3]},
        "growth.wilson_interval": {"count": 1, "n_samples": 2, "z": 1.0},
        "growth.window_ratio": {"dimension": 3},
        "growth.truncation_bound": {"growth": grown, "z": 1.0},
        "rare.finite_probability": grow | {"dimension": 5},
        "sweep.sweep": torus | {"p": [0.1, 0.5], "kind": "site", "periodic": (True, False)},
        "sweep.bonds": {"shape": (3, 4), "periodic": (True, False)},
        "sweep.wrapping": torus | {"kind": "bond"},
        "sweep.wrapping_in_order": {"order": np.arange(12), "shape": (3, 4)},
        "sweep.microcanonical": {"order": np.arange(12), "by_bond": True, "shape": (3, 4), "periodic": True},
        "sweep.binomial": {"n": 10, "p": 0.3},
        "clusters.label_clusters": lattice,
        "clusters.chemical_distances": lattice | {"source": (0, 1)},
        "clusters.are_connected": {"found": found, "first": (0, 0), "second": (1, 1)},
        "clusters.mean_size": {"found": found, "with_largest": True},
        "labels.n_cells": {"delta": 0.5},
        "labels.intervals": {"delta": 0.5},
        "labels.cells": {"values": [0.1, 0.5, 1.0], "delta": 0.5},
        "labels.carried": {"lowest": [0.1, 0.2], "highest": [0.3, 0.9], "delta": 0.5},
        "threshold.series": {"dimension": 3, "kind": "site"},
        "threshold.invade": {"dimension": 2, "checkpoints": np.array([1, 4, 9]), "kind": "site", "rng": rng},
        "threshold.extrapolate": {"checkpoints": checkpoints, "seen": seen, "dimension": 3, "short": seen[:, None, :9]},
        "threshold.longest_run": {"dimension": 3, "kind": "site", "neighbourhood": "face"},
        "threshold.n_short_runs": {"invaded": 10**6},
        "fields.squared_exponential": {"length": 2.0},
        "fields.draw_modes": {"dimension": 2, "n_modes": 3, "radii": fields.squared_exponential(1.0), "rng": rng},
        "fields.evaluate": {"modes": modes, "points": np.zeros((2, 2))},
        "fields.free_field_spectrum": {"shape": (3, 4)},
        "fields.squared_exponential_spectrum": {"shape": (3, 4), "length": 1.0},
        "fields.on_torus": {"spectrum": np.ones((3, 4)), "rng": rng},
        "wide.wide_covariance": limit | {"points": np.ones((2, 2)), "others": np.ones((3, 2))},
        "wide.sample_wide": limit | {"points": np.ones((2, 2)), "n_samples": 2, "n_landmarks": 2, "rng": rng},
        "finite_clusters.finite_cluster": {"p": 0.5, "dimension": 3, "n_sites": 2},
        "finite_clusters.lower_disconnected": {"p": [0.5, 0.6], "dimension": [3, 4], "n_sites": 2},
        "animals.count": {"max_sites": 3},
        "meanfield.poisson": {"q": [1.5, 2.0]},
        "meanfield.neighbours": {"p": [0.1, 0.2], "n_neighbours": [4, 6]},
        "meanfield.bethe": {"p": [0.1, 0.2], "n_neighbours": [4, 6]},
        "meanfield.isolated": {"p": [0.1, 0.2], "n_neighbours": [4, 6]},
        "meanfield.printed_expansion": {"q": [1.5, 2.0]},
        "meanfield.pair_disconnected": {"disconnected": [0.1, 0.2]},
        "meanfield.conjugate_probability": {"p": [0.1, 0.2], "n_neighbours": [4, 6]},
        "meanfield.rate_per_dimension": {"p": [0.1, 0.2]},
        "levelsets.wrapping_densities": {"field": rng.random((3, 4))},
        "levelsets.extrapolate": {
            "lengths": lengths,
            "means": 0.3 + 1 / lengths[:, None] ** np.ones(2),
            "covariances": np.stack([np.eye(2)] * 4),
            "n_fields": np.full(4, 9),
            "nu": 1.0,
        },
        "regimes.threshold_of": {"dimension": 3},
    }


def empirical_calls():
    import torch
    from torch import nn

    from empirical import data, lattice_search, models, network_lattice, train, value_intervals

    rng, seeds, generator = np.random.default_rng(0), np.random.SeedSequence(0), torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    starts, targets = torch.zeros(2, 3, 2, 2), torch.tensor([0, 1])
    numbers = {"threshold": 0.01, "max_iterations": 2, "learning_rate": 0.1, "mse": 0.1, "precision": "float32"}
    line = nn.Sequential(nn.Linear(2, 1, dtype=torch.float64), nn.Linear(1, 1, dtype=torch.float64), nn.Sigmoid())
    with torch.no_grad():
        for parameter in line.parameters():
            parameter.fill_(0.1)
    box = {"n_cells": 4, "radius": 1.0, "delta": 0.5}
    ends = {"start": np.array([0, 0]), "target": np.array([3, 3])}
    found = lattice_search.search(line, **ends, label=1, **box, budget=100)
    prepared = value_intervals.prepare(line, 0.1, 0.9)
    law = network_lattice.LatticeNetwork(depth=2, width=2)
    images = data.Images(
        name="digits",
        x_train=torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
        y_train=torch.tensor([0, 1, 2, 0]),
        x_test=torch.zeros(2, 1, 2, 2, dtype=torch.uint8),
        y_test=torch.tensor([0, 1]),
        digest="",
        mean=torch.tensor([0.5]),
        std=torch.tensor([0.5]),
    )
    small = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    training = train.start(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 3)), learning_rate=0.1)
    resnet = models.build("resnet18", generator=generator, width=1, blocks=1)
    built = {"name": "resnet18", "generator": generator, "width": 1, "blocks": 1, "gain": 1.0}
    steps = {"until": 1, "batch_size": 2, "augment": True, "precision": "float32", "seed": seeds}
    return {
        "connect.connect": numbers
        | {"network": network, "starts": starts, "ends": starts + 1, "targets": targets, "delta": 0.1, "max_rounds": 1}
        | {"high_frequency": 0.1, "projection": "step", "n_points": 8},
        "paths.loss_curves": {
            "network": network,
            "paths": [starts, starts],
            "targets": targets,
            "n_points": 4,
            "tolerance": 0.1,
        },
        "paths.on_segments": {"starts": starts, "ends": starts, "positions": torch.tensor([0.5, 1.0])},
        "synthesis.noise": {"generators": [generator], "scale": 0.1, "shape": (3, 2, 2)},
        "synthesis.optimise_inputs": numbers
        | {"network": network, "starts": starts, "targets": targets, "weight_decay": 0.1, "projection": "step"}
        | {"high_frequency": torch.ones(2), "anchors": starts, "normals": starts},
        "models.build": built,
        "models.logit_spread": {"network": resnet, "image_size": 4, "generator": generator},
        "models.generator_from": {"seed": seeds},
        "models.check_device": {"device": "cpu"},
        "models.device_of": {"network": network},
        "train.start": {"network": small, "learning_rate": 0.1},
        "train.batches_per_epoch": {"data": images, "batch_size": 2},
        "train.advance": {"training": training, "data": images} | steps,
        "train.augmented": {"images": starts, "generator": generator},
        "train.recalibrate": {"network": small, "data": images, "batch_size": 2, "seed": seeds},
        "train.accuracy": {"network": small, "data": images},
        "network_lattice.half_side": {"settings": law, "dimension": 2},
        "network_lattice.output_std": {"settings": law, "dimension": 2},
        "network_lattice.build": {"settings": law, "dimension": 2, "seed": 0, "n_outputs": 1},
        "network_lattice.axis_centres": {"n_cells": 4, "radius": 1.0},
        "network_lattice.centres": {"indices": np.array([[0, 1]]), "n_cells": 4, "radius": 1.0},
        "network_lattice.label": {"values": np.array([0.1, 0.5]), "delta": 0.5},
        "network_lattice.label_box": {"network": line, "dimension": 2, "batch": 8} | box,
        "network_lattice.label_grid": {"network": line, "axes": [np.zeros(2), np.ones(3)], "delta": 0.5, "batch": 8},
        "network_lattice.upper_reach": {"network": line, "dimension": 2, "side": 0.1},
        "network_lattice.certain_share": {"network": line, "dimension": 2, "reach": 0.1, "rng": rng} | box,
        "lattice_search.search": {"network": line, "label": 1, "budget": 100} | ends | box,
        "lattice_search.cube_after": {"start": ends["start"], "found": found, "n_steps": 2},
        "lattice_search.first_layer": {"network": line},
        "lattice_models.connect_cubes": {"cells": np.array([[0, 1], [1, 3]], dtype=np.int8), "n_cells": 4},
        "lattice_models.independent": {"shape": (3, 4), "counts": np.array([1, 2, 3]), "rng": rng},
        "lattice_models.shuffled": {"cells": np.array([[0, 1], [1, 3]], dtype=np.int8), "rng": rng},
        "lattice_models.covariance_error": {"network": line, "settings": law, "dimension": 2, "rng": rng},
        "lattice_models.mean_field": {"shares": np.array([0.5, 0.6]), "dimension": 3, "n_cells": 4},
        "value_intervals.prepare": {"network": line, "low": 0.1, "high": 0.9},
        "value_intervals.certify_polygon": {"prepared": prepared, "stops": torch.zeros(2, 2), "piece_budget": 9},
        "value_intervals.bypass": {
            "network": line,
            "starts": torch.zeros(1, 2, dtype=torch.float64),
            "ends": torch.ones(1, 2, dtype=torch.float64),
            "low": 0.1,
            "high": 0.9,
            "max_rounds": 1,
            "max_iterations": 2,
        },
        "refined_lattice.connect": {
            "network": line,
            "sample": np.zeros((2, 2)),
            "starts": np.zeros((1, 2)),
            "n_coarse": 3,
            "refine": 3,
            "radius": 1.0,
            "delta": 0.5,
            "budget": 9,
        },
    }


def public(module):
    """Return the names of a module's own public functions, those left out that only an experiment calls."""
    members = inspect.getmembers(module, inspect.isfunction)
    return [
        name
        for name, function in members
        if function.__module__ == module.__name__
        and name[0] != "_"
        and name not in PROTOCOL
        and not EXPERIMENTS_OWN & set(inspect.signature(function).parameters)
    ]


def hostile_calls(calls):
    """Return every call with one argument changed, as (name, argument, kind of value)."""
    return [
        (name, argument, kind)
        for name, good in calls.items()
        for argument, value in good.items()
        if argument not in AS_ASKED
        for kind in (HOSTILE if isinstance(value, SIMPLE) or hasattr(value, "ndim") else ("None", "word", "list"))
    ]


def is_ours(error):
    """Return whether an error is one line, of the kinds that we raise, and raised by our own code."""
    place = traceback.extract_tb(error.__traceback__)[-1].filename
    is_known = type(error) in (TypeError, ValueError, RuntimeError)
    return is_known and "\n" not in str(error) and Path(place).is_relative_to(ROOT) and "tests" not in place


def main(package, first):
    resource.setrlimit(resource.RLIMIT_AS, (12 * 10**9, 12 * 10**9))
    calls = globals()[f"{package}_calls"]()
    for number, (name, argument, kind) in enumerate(hostile_calls(calls)):
        if number < first:
            continue
        sys.stdout.write(f"{number} {name}({argument} = {kind})\n")
        sys.stdout.flush()
        module, function = name.split(".")
        good = calls[name]
        try:
            bad = HOSTILE[kind](good[argument])
        except (TypeError, ValueError, OverflowError, np.exceptions.AxisError):
            continue  # no such value beside this one
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            with mock.patch("percolation.arguments.memory", return_value=1e9):
                found = getattr(importlib.import_module(f"{package}.{module}"), function)(**(good | {argument: bad}))
            sys.stdout.write(f"  {' '.join(repr(found).split())[:150]}\n")
        except Exception as error:  # noqa: BLE001  # what else it may be is what is looked for
            place = traceback.extract_tb(error.__traceback__)[-1]
            line = f"{type(error).__name__} {error} at {place.filename}:{place.lineno}".replace("\n", " | ")
            sys.stdout.write(f"{' ' if is_ours(error) else '!'} {line[:300]}\n")
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
