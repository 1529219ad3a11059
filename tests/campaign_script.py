"""A campaign of slow tasks for the tests to kill.

``python campaign_script.py OUT LOG WORKERS SECONDS`` runs it; ``python campaign_script.py OUT`` kills a small one at
each of its events in turn, and goes on with it.
"""

import os
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pydantic import BaseModel, ConfigDict

from percolation import campaign, runs

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "sqlite3.connect", "shutil.rmtree", "os.listdir"}


class Settings(BaseModel):
    """Six random numbers a task."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    n_tasks: int = 12
    seed: int = 5


def experiment(log: Path, seconds: float) -> campaign.Experiment[Settings, int]:
    """Return the campaign; every task that is begun writes a line to ``log`` and a file to its scratch folder."""

    def run_task(settings: Settings, task: int, seeds: np.random.SeedSequence, scratch: Path) -> campaign.Arrays:
        with log.open("a") as lines:
            lines.write(f"begin {task}\n")
        runs.write(scratch / f"{task}", lambda part: part.write_text("cache"))
        time.sleep(seconds)
        return {"x": np.random.default_rng(seeds).random((1000, 6)) * (task + 1)}

    def collect(settings: Settings, arrays: dict[str, campaign.Arrays]) -> xr.Dataset:
        return xr.Dataset({"x": (("task", "draw", "i"), np.stack([found["x"] for found in arrays.values()]))})

    return campaign.Experiment(
        name="slow",
        version=1,
        tasks=lambda settings: {f"task={i}": i for i in range(settings.n_tasks)},
        run_task=run_task,
        collect=collect,
        summarise=lambda settings, dataset: {"mean": float(dataset["x"].mean())},
        has_scratch=True,
    )


def main(out: Path, log: Path, n_workers: int, seconds: float) -> None:
    """Run the campaign."""
    try:
        campaign.run(experiment(log, seconds), Settings(), out=out, n_workers=n_workers)
    except runs.RunError as error:
        sys.exit(f"RunError: {error}")


def kill_at(n: int, out: str) -> None:
    """Kill this process at its ``n``-th event: a file of ``out`` opened, renamed or removed, a word to the journal."""
    left = n

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = plain_connect(*arguments, **options)
        connection.set_trace_callback(count)
        return connection

    plain_connect = sqlite3.connect
    sqlite3.connect = connect
    sys.addaudithook(lambda event, values: count() if event in EVENTS and str(values[0]).startswith(out) else None)


def kills(out: Path) -> None:
    """Kill the campaign at each of its events in turn, go on, and compare with the one that nobody killed."""
    runs._commit = lambda: "unknown"  # git takes longer than all the rest
    settings = Settings(n_tasks=2)
    small = experiment(out / "log", 0)
    campaign.run(small, settings, out=out / "whole")  # and all imports are done
    (whole,) = (out / "whole").iterdir()
    n = 0
    while True:
        child = os.fork()
        if child == 0:
            kill_at(n, str(out))
            status = 1
            try:
                campaign.run(small, settings, out=out / f"{n}")
                status = 0
            finally:
                os._exit(status)
        status = os.waitpid(child, 0)[1]
        if status == 0:
            break
        if status != signal.SIGKILL:
            sys.exit(f"not killed at event {n}: status {status}")
        found = campaign.run(small, settings, out=out / f"{n}").folder
        if {path.name for path in found.iterdir()} != {path.name for path in whole.iterdir()}:
            sys.exit(f"killed at event {n}: {sorted(path.name for path in found.iterdir())}")
        for name in ("result.nc", "summary.json", "settings.json"):
            if (found / name).read_bytes() != (whole / name).read_bytes():
                sys.exit(f"killed at event {n}: {name}")
        n += 1
    sys.stdout.write(f"{n}\n")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        kills(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
