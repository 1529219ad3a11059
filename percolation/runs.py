"""Run folders: where a result lives, and what proves how it was made.

A run folder is ``<out>/<experiment>-<hash>``; the hash covers the experiment's name, its version and its settings, so
that equal settings find the finished result and different settings never meet. It holds

- ``settings.json``, written first: what was asked;
- ``journal.sqlite``, while the run is under way: the finished tasks (:mod:`percolation.campaign`);
- ``provenance.json`` and ``summary.json``: how it was made, and the numbers a person would quote;
- ``result.nc``: the labelled result, with the settings in its attributes;
- ``SHA256SUMS``, written last: the digests of these four. A folder with this file is finished, and no file of it is
  read that is not the one written then. ``sha256sum -c SHA256SUMS`` checks the same, and makes the file anew.

Every file is written beside its place and renamed into it, so that a reader never meets half of one.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import importlib.metadata
import io
import json
import math
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import xarray as xr
from pydantic import BaseModel

_LIBRARIES = ("input-connectivity", "numpy", "scipy", "numba", "torch", "torchvision", "scikit-learn", "xarray")
JOURNAL = "journal.sqlite"
_JOURNALS = tuple(JOURNAL + ending for ending in ("", "-journal", "-shm", "-wal"))  # with what SQLite puts beside it
SCRATCH = "scratch"
_FILES = ("provenance.json", "result.nc", "settings.json", "summary.json")
_SUMS = "SHA256SUMS"
_MOST_JSON = 2**26  # bytes
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


class RunError(RuntimeError):
    """A run that cannot go on, in one line for the person who started it; ``folder`` is where."""

    def __init__(self, message: str, folder: Path) -> None:
        super().__init__(message)
        self.folder = folder


def digest(name: str, version: int, settings: BaseModel) -> str:
    """Return twelve hexadecimal digits that stand for an experiment, its version and its settings."""
    identity = json.dumps([name, version, settings.model_dump(mode="json")], sort_keys=True)
    return hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()


def seal(folder: Path, name: str, content: bytes | memoryview) -> bytes:
    """Return sixteen bytes that stand for ``content``, kept under ``name`` for the run in ``folder``, and no other."""
    # The folder's name stands for the experiment, its version and its settings.
    owner = hashlib.blake2b(json.dumps([folder.name, name]).encode(), digest_size=16).digest()
    return hashlib.blake2b(content, key=owner, digest_size=16).digest()


def open_folder(out: Path, name: str, version: int, settings: BaseModel) -> Path:
    """Return the run folder of these settings below ``out``, made if it is not there.

    Raises
    ------
    RunError
        If the folder cannot be made or read, holds other settings or a result without its digests, or is something
        else than a run folder.
    """
    folder = out / f"{name}-{digest(name, version, settings)}"
    record = {"experiment": name, "version": version, "settings": settings.model_dump(mode="json")}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = {path.name: path for path in folder.iterdir() if not is_part(path)}
        # SQLite, too, would wait for a pipe.
        for path in found.values():
            is_ours = path.name in (*_FILES, _SUMS, *_JOURNALS)
            if is_ours and not path.is_file() and os.path.lexists(path):  # SQLite's come and go
                raise RunError(f"{path} must be a regular file; nothing was changed, move it away", folder)
        # The journal is removed after the digests are written: asked for in this order, no other process deceives.
        if "result.nc" in found and JOURNAL not in found and not is_finished(folder):
            raise RunError(
                f"{folder} has a result without {_SUMS}: it was made by an older version or is damaged; "
                f"move the folder away to run again",
                folder,
            )
        known = folder / "settings.json"
        if known.name not in found:
            if found:
                raise RunError(
                    f"{folder} is not empty and has no settings.json: it is not a run folder; move it", folder
                )
            write_json(known, record)
    except OSError as error:
        raise RunError(f"cannot use {folder}: {error.strerror or error}", folder) from error
    if not _agree(read_json(known), record):
        raise RunError(f"{folder} holds a run with other settings; nothing was changed, move the folder away", folder)
    return folder


def is_finished(folder: Path) -> bool:
    """Return whether the run in ``folder`` is finished."""
    return (folder / _SUMS).exists()


def finish(folder: Path) -> None:
    """Write the digests of the files of a run: it is finished.

    Raises
    ------
    RunError
        If a file cannot be read or the digests cannot be written.
    """
    content = {name: _read(folder / name) for name in _FILES}
    write(folder / _SUMS, lambda part: part.write_text(_sums(content)))


def read_finished(folder: Path) -> tuple[xr.Dataset, dict[str, Any]]:
    """Return the dataset, loaded, and the summary of the finished run in ``folder``.

    Raises
    ------
    RunError
        If a file is missing or is not the one that was written with the others.
    """
    content = {name: _read(folder / name) for name in _FILES}
    known = _read(folder / _SUMS).decode(errors="replace").splitlines()
    for line in _sums(content).splitlines():
        if line not in known:
            path = folder / line.split()[1]
            raise _damaged(path, f"its digest is not that of {_SUMS}")
    # The digests come first: HDF5 may never return from a damaged file.
    try:
        dataset = xr.load_dataset(io.BytesIO(content["result.nc"]), engine="h5netcdf")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _damaged(folder / "result.nc", str(error)) from error
    inside = _parse(dataset.attrs.get("settings", "null"), folder / "result.nc")
    if not _agree(inside, _parse(content["settings.json"], folder / "settings.json").get("settings")):
        raise _damaged(folder / "result.nc", "its settings are not those of settings.json")
    return dataset, _parse(content["summary.json"], folder / "summary.json")


def remove_parts(folder: Path) -> None:
    """Remove what :func:`write` left half-written in ``folder`` when its process was killed."""
    _remove(path for path in folder.iterdir() if is_part(path))


def remove_leftovers(folder: Path) -> None:
    """Remove what only a run under way needs, from the folder of a finished one."""
    remove_parts(folder)
    _remove(folder / name for name in _JOURNALS)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):  # a folder that may only be read is read
            path.unlink(missing_ok=True)


def is_part(path: Path) -> bool:
    """Return whether ``path`` is named as what :func:`write` has half-written."""
    return re.fullmatch(r".+\.\d+\.part", path.name) is not None and not path.is_dir()


def _sums(content: Mapping[str, bytes]) -> str:
    return "".join(f"{hashlib.sha256(content[name]).hexdigest()}  {name}\n" for name in content)


def _agree(found: Any, expected: Any) -> bool:
    """Return whether two contents are the same JSON; 1, 1.0 and true are not."""
    try:
        one, other = (json.dumps(_plain(content), sort_keys=True) for content in (found, expected))
    except RecursionError:  # nested too deep to be any settings of ours
        return False
    return one == other


def _damaged(path: Path, reason: object) -> RunError:
    """Return the one line for a file that cannot be used."""
    return RunError(
        f"{path} is damaged ({' '.join(str(reason).split())}); move the folder away to run again", path.parent
    )


def open_file(path: Path) -> BinaryIO:
    """Open a regular file to read; a pipe or a device, which may never end or answer, raises OSError at once."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAIT))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _read(path: Path, most: int = -1) -> bytes:
    """Return the first ``most`` bytes of a regular file, or all."""
    try:
        with open_file(path) as file:
            return file.read(most)
    except OSError as error:
        raise _damaged(path, error.strerror or error) from error
    except MemoryError as error:
        raise _damaged(path, "it does not fit into the memory") from error


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
    return _parse(_read(path, _MOST_JSON), path)


def _parse(content: bytes | str, path: Path) -> dict[str, Any]:
    """Return the object in the JSON text ``content`` of the file ``path``."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(found, dict):
        raise _damaged(path, "no JSON object")
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
    # In memory first: HDF5 that meets a full disk complains long after, from wherever its objects are thrown away.
    content = dataset.to_netcdf(engine="h5netcdf", encoding=encoding)
    write(path, lambda part: part.write_bytes(content))


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
