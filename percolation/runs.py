"""Run folders: where a result lives, and what proves how it was made.

A run folder is ``<out>/<experiment>-<hash>``; the hash covers the experiment's name, its version and its settings, so
that equal settings find the finished result and different settings never meet. It holds

- ``settings.json``, written first: what was asked;
- ``journal.sqlite``, while the run is under way: the finished tasks (:mod:`percolation.campaign`);
- ``provenance.json`` and ``summary.json``: how it was made, and the numbers a person would quote;
- ``result.nc``, written last: a folder with this file is finished.

Every file is written beside its place and renamed into it, so that a reader never meets half of one.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from pydantic import BaseModel

_LIBRARIES = ("input-connectivity", "numpy", "scipy", "numba", "torch", "torchvision", "scikit-learn", "xarray")


class RunError(RuntimeError):
    """A run that cannot go on, in one line for the person who started it; ``folder`` is where."""

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder


def digest(name: str, version: int, settings: BaseModel) -> str:
    """Return twelve hexadecimal digits that stand for an experiment, its version and its settings."""
    identity = json.dumps([name, version, settings.model_dump(mode="json")], sort_keys=True)
    return hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()


def open_folder(out: Path, name: str, version: int, settings: BaseModel) -> Path:
    """Return the run folder of these settings below ``out``, made if it is not there.

    Raises
    ------
    RunError
        If the folder cannot be made or read, holds other settings, or is something else than a run folder.
    """
    folder = out / f"{name}-{digest(name, version, settings)}"
    record = {"experiment": name, "version": version, "settings": settings.model_dump(mode="json")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "settings.json"
        if known.exists():
            found = read_json(known)
        elif any(not path.name.endswith(".part") for path in folder.iterdir()):
            raise RunError(f"{folder} is not empty and has no settings.json: it is not a run folder; move it", folder)
        else:
            write_json(known, record)
            found = record
    except OSError as error:
        raise RunError(f"cannot use {folder}: {error.strerror or error}", folder) from error
    if found != record:
        raise RunError(f"{folder} holds a run with other settings; nothing was changed, move the folder away", folder)
    return folder


def write(path: Path, save: Callable[[Path], object]) -> None:
    """Call ``save`` on a file beside ``path`` and rename it to ``path``; nothing half-written stays behind.

    Raises
    ------
    RunError
        If the file cannot be written (a full disk, a read-only folder).
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save(part)
        part.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}", path.parent) from error
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as JSON, numbers that are not finite as null."""
    write(path, lambda part: part.write_text(as_json(content) + "\n"))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises
    ------
    RunError
        If the file is missing or damaged.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged ({error}); move the folder away to run again", path.parent) from error
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged (no JSON object); move the folder away to run again", path.parent)
    return found


def as_json(content: Any) -> str:
    """Return ``content`` as indented JSON text, numbers that are not finite as null."""
    return json.dumps(_plain(content), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """Write ``dataset`` as netCDF 4, arrays of numbers compressed and with check sums."""
    encoding = {
        name: {"zlib": True, "fletcher32": True}
        for name, variable in dataset.variables.items()
        if variable.size and variable.ndim and variable.dtype.kind in "biuf"
    }
    write(path, lambda part: dataset.to_netcdf(part, engine="h5netcdf", encoding=encoding))


def read_dataset(path: Path) -> xr.Dataset:
    """Return the dataset in ``path``, loaded.

    Raises
    ------
    RunError
        If the file is damaged.
    """
    try:
        return xr.load_dataset(path, engine="h5netcdf")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path} is damaged ({reason}); move the folder away to run again", path.parent) from error


def provenance(seconds: float, device: str) -> dict[str, Any]:
    """Return how a result was made: versions, commit, hardware, wall time in seconds, command."""
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "not installed"
    return {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "command": sys.argv,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": versions,
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": device,
        },
    }


def _commit() -> str:
    """Return the commit of the code that runs, with '+' for uncommitted changes, or 'unknown'."""
    here = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
