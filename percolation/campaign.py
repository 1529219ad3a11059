"""Campaigns: many independent tasks, killed at any moment and gone on with, the same to the bit.

An experiment is a list of tasks, each a pure function of (settings, task, seed of the task). A finished task is written
to ``journal.sqlite`` in one transaction and is never done again; when all are there they are folded into ``result.nc``.
Each record carries a digest of the run, the task and the arrays, so that no other run's is taken for it.
The seed of a task comes from the run's seed and the task's key alone, so that neither the number of workers nor the
order of the tasks, nor an interruption, nor a task added later changes a number.
"""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import joblib
import numpy as np
import xarray as xr
from pydantic import BaseModel
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from percolation import runs
from percolation.runs import RunError


class SeededSettings(Protocol):
    """Settings of an experiment: a frozen pydantic model with a field ``seed``."""

    @property
    def seed(self) -> int:
        """The seed of the run."""


S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")
Arrays = dict[str, np.ndarray]
LEAST_TASKS = 8  # of an experiment that is stopped by time
_QUIET = 1.0  # seconds before a bar is drawn, so that a mistake is one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment(Generic[S, T]):
    """What a campaign runs.

    Parameters
    ----------
    name : str
        The experiment's name, the first word of its run folder.
    version : int
        Raised whenever the code changes what a run returns, so that old folders are not taken for new ones.
    tasks : function of settings
        The tasks by key, in the order of work; a key is a short text for people, such as ``"delta=0.1 d=8"``.
    run_task : function of (settings, task, SeedSequence)
        One task's arrays by name; a pure function. With ``has_long_tasks`` it also takes ``progress``, a function that
        it calls with a few words on what it does and how far it is.
    collect : function of (settings, arrays by key)
        The labelled result; a pure function.
    summarise : function of (settings, dataset)
        The numbers that a person would quote, as plain data.
    seconds : function of settings or None
        The time that all tasks take: once eight are there, none is begun that would end later. They are equal runs, as
        many as there is time for, and ``summary.json`` has the seconds that were spent. Without it all tasks are done.
    has_scratch : bool
        Whether ``run_task`` also takes ``scratch``, a folder for caches on which no result depends; one process at a
        time uses it, and it is deleted when the run is finished.
    """

    name: str
    version: int
    tasks: Callable[[S], Mapping[str, T]]
    run_task: Callable[..., Arrays]
    collect: Callable[[S, Mapping[str, Arrays]], xr.Dataset]
    summarise: Callable[[S, xr.Dataset], dict[str, Any]]
    seconds: Callable[[S], float] | None = None
    has_long_tasks: bool = False
    has_scratch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run: its folder, its result, its summary, and whether it was there before."""

    folder: Path
    dataset: xr.Dataset
    summary: dict[str, Any]
    is_reused: bool


def seed_sequence(seed: int, key: str) -> np.random.SeedSequence:
    """Return the seed of the task ``key`` in a run with ``seed``; it depends on nothing else."""
    words = np.frombuffer(hashlib.blake2b(key.encode(), digest_size=16).digest(), dtype="<u4")
    return np.random.SeedSequence(entropy=seed, spawn_key=tuple(int(word) for word in words))


def run(
    experiment: Experiment[S, T],
    settings: S,
    *,
    out: Path,
    n_workers: int = 1,
    device: str = "cpu",
    show_progress: bool = False,
) -> Run:
    """Run ``experiment`` with ``settings``, or go on with it, or return it if it is finished.

    Parameters
    ----------
    experiment : Experiment
        What to run.
    settings : pydantic model
        With a field ``seed``.
    out : Path
        The run folder is made below it.
    n_workers : int
        Tasks under way at once, in threads of this process.
    device : str
        Where torch computes; for the record only.
    show_progress : bool
        Whether to draw a progress bar on standard error.

    Returns
    -------
    Run
        The dataset is read back from the folder, so that it is the same whether it was computed now or before.

    Raises
    ------
    RunError
        If the folder cannot be used (another run's files, damaged, in use, not writable, moved away meanwhile) or the
        disk is full. Finished tasks are kept, and the same call goes on.
    """
    folder = runs.open_folder(out, experiment.name, experiment.version, settings)
    is_reused = runs.is_finished(folder)
    if not is_reused:
        # One thread of linear algebra a worker: workers already use the cores, and sums then do not depend on either.
        with _Journal(folder) as journal, threadpool_limits(limits=1, user_api="blas"):
            is_reused = runs.is_finished(folder)  # by a process that held the journal until now
            if not is_reused:
                _finish(experiment, settings, journal, folder, n_workers, device, show_progress)
    dataset, summary = runs.read_finished(folder)
    runs.remove_leftovers(folder)  # only a result that can be read makes them superfluous
    return Run(folder=folder, dataset=dataset, summary=summary, is_reused=is_reused)


def _finish(
    experiment: Experiment[S, T],
    settings: S,
    journal: _Journal,
    folder: Path,
    n_workers: int,
    device: str,
    show_progress: bool,
) -> None:
    """Run what is missing and write the files of the finished run, while no other process can."""
    start = time.perf_counter()
    scratch = _scratch(experiment, folder)
    for place in (folder, *([] if scratch is None else [scratch])):
        runs.remove_parts(place)
    tasks = dict(experiment.tasks(settings))
    is_resumed = bool(journal.keys())
    _run_missing(experiment, settings, tasks, journal, scratch, n_workers, show_progress)
    finished = journal.keys()
    try:
        dataset = experiment.collect(settings, {key: journal.read(key) for key in tasks if key in finished})
        dataset.attrs["settings"] = json.dumps(settings.model_dump(mode="json"), sort_keys=True)
        summary = experiment.summarise(settings, dataset)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if not is_resumed:  # the mistake is the experiment's
            raise
        raise journal.misfit(error) from error
    seconds = journal.seconds()
    if experiment.seconds is not None:
        summary["seconds"] = round(seconds / n_workers, 1)
    record = runs.provenance(time.perf_counter() - start, device) | {"seconds_of_tasks": round(seconds, 3)}
    journal.check_place()
    runs.write_json(folder / "provenance.json", record)
    runs.write_json(folder / "summary.json", summary)
    runs.write_dataset(folder / "result.nc", dataset)
    runs.finish(folder)


def _scratch(experiment: Experiment[S, T], folder: Path) -> Path | None:
    """Return the folder for the caches of an experiment that asks for one."""
    if not experiment.has_scratch:
        return None
    scratch = folder / runs.SCRATCH
    try:
        scratch.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot use {scratch}: {error.strerror or error}", folder) from error
    return scratch


def _run_missing(
    experiment: Experiment[S, T],
    settings: S,
    tasks: Mapping[str, T],
    journal: _Journal,
    scratch: Path | None,
    n_workers: int,
    show_progress: bool,
) -> None:
    """Run the tasks that the journal lacks, each written as soon as it is done."""
    done = journal.keys()
    missing = [key for key in tasks if key not in done]
    budget = float("inf") if experiment.seconds is None else experiment.seconds(settings) * n_workers
    budget -= journal.seconds()
    start = time.perf_counter()
    seed = int(settings.model_dump()["seed"])
    took: list[float] = []

    def work(key: str) -> tuple[str, Arrays, float]:
        start = time.perf_counter()
        options: dict[str, Any] = {} if scratch is None else {"scratch": scratch}
        if experiment.has_long_tasks:
            options["progress"] = lambda state: bar.set_postfix_str(f"{key}: {state}", refresh=is_late())
        arrays = experiment.run_task(settings, tasks[key], seed_sequence(seed, key), **options)
        return key, arrays, time.perf_counter() - start

    def is_late() -> bool:
        return time.perf_counter() - start >= _QUIET

    def due() -> Iterator[Any]:
        for n, key in enumerate(missing):
            expected = sum(took) / len(took) if took else 0.0  # and no task is begun that would end too late
            if len(done) + n >= LEAST_TASKS and (time.perf_counter() - start + expected) * n_workers > budget:
                return
            yield joblib.delayed(work)(key)

    workers = joblib.Parallel(
        n_jobs=n_workers, backend="threading", return_as="generator_unordered", pre_dispatch="n_jobs"
    )
    with tqdm(
        total=len(tasks) if experiment.seconds is None else None,
        initial=len(tasks) - len(missing),
        desc=experiment.name,
        unit="task",
        disable=not show_progress,
        delay=_QUIET,
    ) as bar:
        first = threading.Timer(_QUIET, bar.refresh)  # though no task is done by then
        first.daemon = True
        first.start()
        try:
            for key, arrays, seconds in workers(due()):
                took.append(seconds)
                journal.write(key, arrays, seconds)
                bar.set_postfix_str(key, refresh=False)
                bar.update()
        finally:
            first.cancel()


class _Journal:
    """The finished tasks of one run folder, held by one process at a time."""

    _SCHEMA = "CREATE TABLE tasks (key TEXT PRIMARY KEY, arrays BLOB, digest BLOB, seconds REAL)"

    def __init__(self, folder: Path) -> None:
        self._path = folder / runs.JOURNAL
        self._folder = folder

    def __enter__(self) -> _Journal:
        try:
            self._connection = sqlite3.connect(self._path, timeout=0, isolation_level=None)
        except sqlite3.Error as error:
            raise self._failure(error) from error
        try:
            self._open()
        except BaseException:
            self._connection.close()
            raise
        return self

    def _open(self) -> None:
        # One process at a time; the lock goes with the process, however it ends.
        self._ask("PRAGMA locking_mode = EXCLUSIVE")
        self._ask("BEGIN EXCLUSIVE")
        schema = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
        if not self._ask(schema):
            self._ask(self._SCHEMA)
        self._ask("COMMIT")
        self._place = self._stat()
        if self._ask(schema) != [(self._SCHEMA,)]:
            raise self._damaged("its tables are not those of a journal")
        answer = self._ask("PRAGMA quick_check")[0][0]
        if answer != "ok":
            raise self._damaged(answer)
        for (key,) in self._ask("SELECT key FROM tasks"):
            self.read(key)

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def keys(self) -> set[str]:
        """Return the keys of the finished tasks."""
        return {row[0] for row in self._ask("SELECT key FROM tasks")}

    def seconds(self) -> float:
        """Return the seconds spent in finished tasks."""
        return float(self._ask("SELECT COALESCE(SUM(seconds), 0) FROM tasks")[0][0])

    def write(self, key: str, arrays: Arrays, seconds: float) -> None:
        """Keep the arrays of one finished task, in one transaction."""
        self.check_place()
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        content = buffer.getvalue()
        self._ask("INSERT INTO tasks VALUES (?, ?, ?, ?)", (key, content, self._digest(key, content, seconds), seconds))

    def read(self, key: str) -> Arrays:
        """Return the arrays of one finished task."""
        content, digest, seconds = self._ask("SELECT arrays, digest, seconds FROM tasks WHERE key IS ?", (key,))[0]
        is_record = isinstance(key, str) and isinstance(content, bytes) and isinstance(seconds, float)
        if not is_record or self._digest(key, content, seconds) != digest:
            raise self._damaged(f"the record of task {key!r} was not written by this run")
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    def check_place(self) -> None:
        """Raise RunError if the journal is no longer in its folder, where the result is to be written."""
        if self._stat() != self._place:
            raise self._moved()

    def _stat(self) -> tuple[int, int]:
        """Return what tells the file of the journal from any other."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise self._moved() from error
        return found.st_dev, found.st_ino

    def _moved(self) -> RunError:
        message = f"{self._folder} was moved or removed while it was in use; move it back to go on with its tasks"
        return RunError(message, self._folder)

    def misfit(self, error: Exception) -> RunError:
        """Return what to say when the result cannot be made of records that were there before."""
        return self._damaged(f"its records do not fit this run, {type(error).__name__}: {error}")

    def _digest(self, key: str, content: bytes, seconds: float) -> bytes:
        return runs.seal(self._folder, json.dumps([key, float(seconds)]), content)

    def _damaged(self, reason: str) -> RunError:
        return self._failure(sqlite3.DatabaseError(reason))

    def _ask(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    def _failure(self, error: sqlite3.Error) -> RunError:
        """Return one line that says what happened to the journal and what to do."""
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if code is not None else None
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            what = "is in use by another process; wait for it, or give another --out"
        elif primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            what = f"cannot be written ({error}: is the disk full?); finished tasks are kept, run the same again"
        elif primary in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            what = f"cannot be written ({error}); make the folder writable, or give another --out"
        else:
            what = f"is damaged ({error}); nothing was changed, move it away to compute its tasks again"
        return RunError(f"{self._path} {' '.join(what.split())}", self._folder)
