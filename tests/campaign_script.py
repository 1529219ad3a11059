"""A campaign of slow tasks for the tests to kill: python campaign_script.py OUT LOG WORKERS SECONDS."""

import sys
import time
from pathlib import Path

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict

from percolation import campaign, runs


class Settings(BaseModel):
    """Six random numbers a task."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    n_tasks: int = 12
    seed: int = 5


def main(out: Path, log: Path, n_workers: int, seconds: float) -> None:
    """Run the campaign; every task that is begun or ended writes a line to ``log``."""

    def run_task(settings: Settings, task: int, seeds: np.random.SeedSequence) -> campaign.Arrays:
        with log.open("a") as lines:
            lines.write(f"begin {task}\n")
        time.sleep(seconds)
        return {"x": np.random.default_rng(seeds).random((1000, 6)) * (task + 1)}

    def collect(settings: Settings, arrays: dict[str, campaign.Arrays]) -> xr.Dataset:
        return xr.Dataset({"x": (("task", "draw", "i"), np.stack([found["x"] for found in arrays.values()]))})

    experiment: campaign.Experiment[Settings, int] = campaign.Experiment(
        name="slow",
        version=1,
        tasks=lambda settings: {f"task={i}": i for i in range(settings.n_tasks)},
        run_task=run_task,
        collect=collect,
        summarise=lambda settings, dataset: {"mean": float(dataset["x"].mean())},
    )
    try:
        campaign.run(experiment, Settings(), out=out, n_workers=n_workers)
    except runs.RunError as error:
        sys.exit(f"RunError: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
