"""Command line: ``python -m lipschitz bounds``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

from lipschitz import initialisation
from percolation import campaign, commandline


def experiment(device: str) -> campaign.Experiment[Any, Any]:
    """Return the experiment, computed on ``device``; here, since the package itself knows no campaigns."""
    is_available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not is_available[device]:
        raise ValueError(f"device must be one that torch finds here, got {device}")
    return campaign.Experiment(
        name="bounds",
        version=1,
        tasks=initialisation.tasks,
        run_task=functools.partial(initialisation.run_task, device=device),
        collect=initialisation.collect,
        summarise=initialisation.summarise,
    )


def _describe(summary: Mapping[str, Any]) -> str:
    columns = {
        "depth": "depth",
        "width": "width",
        "upper": "product bound",
        "upper_standard_error": "+-",
        "lower": "attained slope",
        "lower_standard_error": "+-",
        "ratio": "bound / attained",
        "epsilon": "epsilon",
        "cube_side": "cube side",
        "cube_side_inf": "side by inf-norm",
    }
    first = summary["rows"][0]
    networks = (
        f"means over {first['n_networks']} random {first['activation']} networks, {first['input_dimension']} inputs; "
        f"epsilon for delta = {first['delta']:g}, delta' = {first['delta_prime']:g}"
    )
    return f"{networks}\n\n{commandline.table(summary['rows'], columns)}"


COMMANDS = {
    "bounds": commandline.Command(
        summary="Lipschitz bound, attained slope, epsilon and cube side of random networks over depth and width.",
        presets=initialisation.PRESETS,
        experiment=experiment,
        describe=_describe,
        example="python -m lipschitz bounds --depths 2 4 8 --widths 64 256 --seed 0",
        uses_torch=True,
    ),
}

if __name__ == "__main__":
    commandline.main("lipschitz", COMMANDS)
