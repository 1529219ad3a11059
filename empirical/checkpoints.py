"""Trainings that go on from their last checkpoint: a cache on the disk, on which no result depends.

A checkpoint is one file, ``<name> batches=<n>.pt``, written beside its place and renamed into it: a digest of the run,
the file's name and the training, so that no other run's is taken, then the training as torch saves it. A training is
brought to a number of batches from the newest one that is not beyond it, or from the first network if there is none.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from pathlib import Path

from empirical import train
from empirical.train import Training
from percolation import runs

_N_DIGEST = 16  # bytes

# Tasks side by side ask for neighbouring stages of one training, and not always the earlier one first.
_KEPT = 4


def bring(
    training: Training,
    advance: Callable[[int], None],
    *,
    until: int,
    stops: Iterable[int],
    folder: Path | None,
    name: str,
) -> None:
    """Bring ``training`` to ``until`` batches, by way of ``stops``, each of which becomes a checkpoint.

    Parameters
    ----------
    training : Training
        That has done nothing yet; changed in place.
    advance : function of the number of batches
        Trains until they are done.
    until : int
        Number of batches.
    stops : iterable of int
        Numbers of batches after which to keep a checkpoint; those beyond ``until`` are left out.
    folder : Path or None
        Where checkpoints are, in the run folder; none are read or written without it. One process at a time.
    name : str
        Of this training among those of the folder.

    Raises
    ------
    RunError
        If a checkpoint cannot be written.

    Notes
    -----
    A checkpoint of ResNet18 holds 134 MB; the last four of a training are kept. One that is damaged is passed over.
    """
    if folder is not None:
        _resume(training, _checkpoints(folder, name), until)
    for stop in sorted({until, *(stop for stop in stops if training.done < stop < until)}):
        if stop == training.done:
            continue
        advance(stop)
        if folder is not None:
            _write(folder / f"{name} batches={stop}.pt", training)
            for old in sorted(_checkpoints(folder, name).items())[:-_KEPT]:
                old[1].unlink()


def _checkpoints(folder: Path, name: str) -> dict[int, Path]:
    """Return the checkpoints of one training by their number of batches."""
    paths = {path.stem.rpartition("=")[2]: path for path in folder.glob(f"{name} batches=*.pt")}
    return {int(done): path for done, path in paths.items() if done.isdecimal() and path.is_file()}


def _write(path: Path, training: Training) -> None:
    saved = io.BytesIO()
    train.save(training, saved)
    content = saved.getbuffer()

    def save(part: Path) -> None:
        with part.open("wb") as file:
            file.write(runs.seal(path.parent.parent, path.name, content))
            file.write(content)

    runs.write(path, save)


def _resume(training: Training, checkpoints: dict[int, Path], until: int) -> None:
    for done in sorted((done for done in checkpoints if done <= until), reverse=True):
        path = checkpoints[done]
        try:
            with runs.open_file(path) as file:
                digest, content = file.read(_N_DIGEST), file.read()
            if digest != runs.seal(path.parent.parent, path.name, content):
                continue
            train.load(training, io.BytesIO(content))
        except (OSError, ValueError):
            continue
        return
