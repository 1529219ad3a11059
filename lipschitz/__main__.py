"""Command line: ``python -m lipschitz bound|certify|bounds``."""

from __future__ import annotations

from percolation import interrupt

if __name__ == "__main__":
    interrupt.end_in_one_line("lipschitz")  # before the imports below, which take seconds

import functools
from collections.abc import Mapping
from typing import Any

import torch

from lipschitz import bounding, certifying, initialisation
from percolation import campaign, commandline


def _experiment(
    name: str, version: int, room: Any, device: str, *, has_long_tasks: bool = False
) -> campaign.Experiment[Any, Any]:
    """Return the experiment that a module's functions make; here, as the package itself knows no campaigns."""
    is_available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not is_available[device]:
        raise ValueError(f"device must be one that torch finds here, got {device}")
    return campaign.Experiment(
        name=name,
        version=version,
        tasks=room.tasks,
        run_task=functools.partial(room.run_task, device=device),
        collect=room.collect,
        summarise=room.summarise,
        has_long_tasks=has_long_tasks,
    )


def experiment(device: str) -> campaign.Experiment[Any, Any]:
    """Return the experiment on random networks, computed on ``device``."""
    return _experiment("bounds", 2, initialisation, device)


def _describe_bounds(summary: Mapping[str, Any]) -> str:
    columns = {
        "depth": "depth",
        "width": "width",
        "input_dimension": "inputs",
        "upper": "product",
        "upper_closed": "closed form",
        "upper_sdp": "LipSDP",
        "lower": "attained",
        "ratio": "product / attained",
        "epsilon": "epsilon",
        "cube_side": "cube side",
        "cube_side_inf": "side by inf-norm",
    }
    first = summary["rows"][0]
    networks = (
        f"means over {first['n_networks']} random {first['activation']} networks; "
        f"epsilon for delta = {first['delta']:g}, delta' = {first['delta_prime']:g}"
    )
    return f"{networks}\n\n{commandline.table(summary['rows'], columns)}"


def _describe_bound(summary: Mapping[str, Any]) -> str:
    columns = {"method": "method", "upper": "upper", "lower": "lower", "seconds": "seconds", "note": "note"}
    norm = f"Lipschitz constant of {summary['network']}, {summary['norm']}-norm"
    return f"{norm}\n\n{commandline.table(summary['rows'], columns)}"


def _describe_certificate(summary: Mapping[str, Any]) -> str:
    lines = {
        "status": f"{summary['status']}: {_STATUS[summary['status']].format(**summary)}",
        "largest loss found": f"{summary['loss']:.10g} at t = {summary['t']:.10g}",
        "true loss there": f"at least {summary['lower_loss']:.10g}",
    }
    if summary["covered"] > 0:
        lines[f"true loss, 0 <= t <= {summary['covered']:.6g}"] = f"at most {summary['upper_loss']:.10g}"
        lines["pieces"] = f"{summary['n_pieces']:,}"
    lines["error of the logits"] = f"at most {summary['upper_error']:.2g}"
    return "\n".join(f"{name:26s} {text}" for name, text in lines.items())


_STATUS = {
    "certified": "the cross-entropy of class {target} is at most {threshold:g} on the whole segment",
    "violated": "the cross-entropy of class {target} is above {threshold:g} at t = {t:.10g}",
    "undecided": "{reason}",
}

COMMANDS = {
    "bound": commandline.Command(
        summary="Upper and lower bounds of the Lipschitz constant of any network, by every method that goes with it.",
        presets={"quick": bounding.Settings(network="torchvision.models:resnet18")},
        experiment=lambda device: _experiment("bound", 1, bounding, device),
        describe=_describe_bound,
        example="python -m lipschitz bound torchvision.models:resnet18 --input-shape 3 32 32 --norm 2",
        uses_torch=True,
        positional=("network",),
        prepare=bounding.complete,
    ),
    "certify": commandline.Command(
        summary="Whether the cross-entropy is below a threshold on every point between two inputs.",
        presets={"quick": certifying.Settings(network="torchvision.models:resnet18", a="A.npy", b="B.npy")},
        experiment=lambda device: _experiment("certificate", 1, certifying, device, has_long_tasks=True),
        describe=_describe_certificate,
        example="python -m lipschitz certify MODULE:FUNCTION A.npy B.npy --target 3 --threshold 0.001",
        uses_torch=True,
        positional=("network", "a", "b"),
        prepare=certifying.complete,
    ),
    "bounds": commandline.Command(
        summary="Bounds, attained slope, epsilon and cube side of random networks over depth, width and dimension.",
        presets=initialisation.PRESETS,
        experiment=experiment,
        describe=_describe_bounds,
        example="python -m lipschitz bounds --depths 2 4 8 --widths 64 256 --seed 0",
        uses_torch=True,
    ),
}

if __name__ == "__main__":
    commandline.as_program("lipschitz", lambda: commandline.main("lipschitz", COMMANDS))
