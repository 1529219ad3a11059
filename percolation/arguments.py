"""What public functions take: each argument is checked for kind, range and memory before a kernel sees it.

Kernels check nothing, so that a wrong number here is a wrong read there. A value of the wrong kind is a TypeError, one
out of range a ValueError; either is one line, *name must be requirement, got value*. A bool is no number, a float no
whole number, and a masked entry no value: nothing is cast that could change what was meant.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST_WORKERS = 1024
_MOST_AXES = 64  # of an array
_SHOWN = 80  # characters of a value in a message
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def shown(value: object) -> str:
    """Return a value as a message shows it: arrays by shape and kind, the rest in one short line."""
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"shape {value.shape} of {value.dtype}"
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, int) and value.bit_length() > 256:  # Python itself refuses to write very many digits
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, list | tuple) and len(value) > _SHOWN:
        return f"a {type(value).__name__} of {len(value)}"
    text = " ".join((str(value) if isinstance(value, str | np.generic) else repr(value)).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def check_whole(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Return a whole number as an int.

    Raises
    ------
    TypeError
        If it is something else, a bool or a float as well.
    ValueError
        If it is below ``least``, above ``most``, or no int64.
    """
    wanted = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    if not isinstance(value, int | np.integer) or isinstance(value, bool):
        raise TypeError(f"{name} must be {wanted}, got {shown(value)} ({type(value).__name__})")
    if not (least <= value and (most is None or value <= most)):
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")
    if value >= 2**63:
        raise ValueError(f"{name} must be a whole number below 2^63, got {shown(value)}")
    return int(value)


def check_real(name: str, value: object, *, least: float = -math.inf, above: float = -math.inf) -> float:
    """Return a finite number, at least ``least`` and greater than ``above``, as a float.

    Raises
    ------
    TypeError
        If it is no real number.
    ValueError
        If it is nan or infinite, or too small.
    """
    bounds = ["positive"] if above == 0 else [f"above {above:g}"] if above > -math.inf else []
    bounds += [f"at least {least:g}"] if least > -math.inf else []
    wanted = " and ".join([*bounds, "finite"])
    number = _number(name, value, wanted)
    if not (abs(number) <= _LARGEST and number >= least and number > above):
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")
    return float(number)


def check_probability(name: str, value: object) -> float:
    """Return a number in [0, 1] as a float.

    Raises
    ------
    TypeError
        If it is no real number.
    ValueError
        If it lies elsewhere.
    """
    number = _number(name, value, "a number in [0, 1]")
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {shown(value)}")
    return float(number)


_LARGEST = float(np.finfo(np.float64).max)


def _number(name: str, value: object, wanted: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name} must be {wanted}, got {shown(value)} ({type(value).__name__})")
    return int(value) if isinstance(value, int | np.integer) else float(value)


def check_numbers(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return real numbers, nan and infinite ones as well, as an array.

    Raises
    ------
    TypeError
        If they are no numbers, or some are masked.
    """
    return _array(name, values, "iuf", "numbers", None)


def check_reals(
    name: str, values: ArrayLike, *, least: float = -math.inf, ndim: int | None = None
) -> NDArray[np.float64]:
    """Return finite numbers, at least ``least``, as an array of float64, of ``ndim`` axes where that is given.

    Raises
    ------
    TypeError
        If they are no numbers, or some are masked.
    ValueError
        If they make no array of that many axes, or one is nan, infinite or too small.
    """
    found = _array(name, values, "iuf", "numbers", ndim).astype(np.float64, copy=False)
    is_good = np.isfinite(found) & (found >= least)
    if not np.all(is_good):
        wanted = "finite" + (f" and at least {least:g}" if least > -math.inf else "")
        raise ValueError(f"{name} must be {wanted}, got {found[~is_good].flat[0]}")
    return found


def check_probabilities(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return numbers in [0, 1] as an array of float64.

    Raises
    ------
    TypeError
        If they are no numbers, or some are masked.
    ValueError
        If one lies elsewhere.
    """
    found = _array(name, values, "iuf", "numbers", None).astype(np.float64, copy=False)
    is_good = (found >= 0) & (found <= 1)
    if not np.all(is_good):
        raise ValueError(f"{name} must lie in [0, 1], got {found[~is_good].flat[0]}")
    return found


def check_broadcast(
    name: str, first: NDArray[np.float64], other: str, second: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return two arrays in their common shape, or raise ValueError, naming both, if they have none."""
    try:
        shape = np.broadcast_shapes(first.shape, second.shape)
    except ValueError:
        got = f"{first.shape} and {second.shape}"
        raise ValueError(f"{name} and {other} must have shapes that fit, got {got}") from None
    return np.broadcast_to(first, shape), np.broadcast_to(second, shape)


def check_integers(
    name: str, values: ArrayLike, *, least: int, most: int = 2**63 - 1, ndim: int | None = None
) -> NDArray[np.int64]:
    """Return whole numbers from ``least`` to ``most`` as an array of int64, of ``ndim`` axes where that is given.

    Raises
    ------
    TypeError
        If they are no integers, or some are masked.
    ValueError
        If they make no array of that many axes, or one lies outside.
    """
    found = _array(name, values, "iu", "integers", ndim)
    if found.size and (int(found.min()) < least or int(found.max()) > most):
        bad = int(found.min()) if int(found.min()) < least else int(found.max())
        raise ValueError(f"{name} must be whole numbers from {least} to {most}, got {bad}")
    return found.astype(np.int64, copy=False)


def _array(name: str, values: ArrayLike, kinds: str, wanted: str, ndim: int | None) -> NDArray[Any]:
    """Return values as an array of one of these kinds."""
    check_unmasked(name, values)
    try:
        found = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors that are not on the CPU
        raise TypeError(f"{name} must be {wanted}, in an array or a sequence, got {shown(values)}") from error
    # an empty list is an array of floats
    if found.dtype.kind not in kinds and not (isinstance(values, Sequence) and found.size == 0 and found.ndim):
        raise TypeError(f"{name} must be {wanted}, got {shown(values)} ({found.dtype})")
    check_memory(name, f"shape {found.shape}", 8 * found.size)
    if ndim is not None and found.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {found.shape}")
    return found


def check_unmasked(name: str, values: object) -> None:
    """Raise TypeError if some entries of a masked array are masked: there is nothing to compute with."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise TypeError(f"{name} must have no masked entries, got {int(np.ma.getmaskarray(values).sum())} of them")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless a value is one of these words."""
    if not isinstance(value, str) or value not in choices:
        known = " or ".join(choices) if len(choices) == 2 else f"one of {', '.join(choices)}"
        raise ValueError(f"{name} must be {known}, got {shown(value)}")


def check_kind(name: str, value: object, kind: type) -> None:
    """Raise TypeError unless a value is of this kind."""
    if not isinstance(value, kind):
        owner = kind.__module__.split(".")[0]
        wanted = f"a {kind.__name__}" if owner == "builtins" else f"{owner}'s {kind.__name__}"
        raise TypeError(f"{name} must be {wanted}, got {shown(value)} ({type(value).__name__})")


def check_generator(name: str, rng: object) -> None:
    """Raise TypeError unless numbers can be drawn: a seed is no generator."""
    if not callable(getattr(rng, "normal", None)):
        raise TypeError(f"{name} must be a numpy.random.Generator, got {shown(rng)} ({type(rng).__name__})")


def check_shape(name: str, shape: Sequence[Any]) -> tuple[int, ...]:
    """Return the lengths of a lattice's axes as ints, whose product passes over no end.

    Raises
    ------
    TypeError
        If they are no integers.
    ValueError
        If there are none, or more than 64, or one is below 1.
    """
    if isinstance(shape, str | bytes) or not hasattr(shape, "__len__"):
        raise TypeError(f"{name} must be integers, one an axis, got {shown(shape)}")
    try:
        n_axes = len(shape)
    except TypeError as error:  # an array without axes
        raise TypeError(f"{name} must be integers, one an axis, got {shown(shape)}") from error
    if n_axes > _MOST_AXES:
        raise ValueError(f"{name} must have at most {_MOST_AXES} axes, got {n_axes}")
    lengths = tuple(shape)
    if not all(isinstance(x, int | np.integer) and not isinstance(x, bool) for x in lengths):
        raise TypeError(f"{name} must be integers, got {shown(lengths)}")
    if len(lengths) == 0 or min(lengths) < 1:
        raise ValueError(f"{name} must have at least one axis and one site along each, got {shown(lengths)}")
    return tuple(int(x) for x in lengths)


def check_axes(name: str, flags: bool | Sequence[bool], n_axes: int) -> NDArray[np.bool_]:
    """Return one bool an axis.

    Raises
    ------
    TypeError
        If they are no bools: a word or a number would be true, whatever it says.
    ValueError
        If there are neither one nor ``n_axes`` of them.
    """
    try:
        n_flags = n_axes if isinstance(flags, bool | np.bool_) else len(flags)
    except TypeError as error:
        raise TypeError(f"{name} must be one bool or {n_axes}, got {shown(flags)}") from error
    if n_flags != n_axes:
        raise ValueError(f"{name} must be one bool or {n_axes}, got {n_flags}")
    found = [flags] * n_axes if isinstance(flags, bool | np.bool_) else list(flags)
    if not all(isinstance(flag, bool | np.bool_) for flag in found):
        raise TypeError(f"{name} must be one bool or {n_axes}, got {shown(flags)}")
    return np.array(found, dtype=np.bool_)


def check_workers(n_workers: int | None) -> int:
    """Return the number of threads: as given, one a core for None.

    Raises
    ------
    TypeError
        If it is no whole number.
    ValueError
        If it is below 1 or above ``MOST_WORKERS``.
    """
    if n_workers is None:
        return os.cpu_count() or 1
    return check_whole("n_workers", n_workers, least=1, most=MOST_WORKERS)


@functools.cache
def memory() -> float:
    """Return the bytes of memory of this computer, or of the container that it runs in; infinite if nobody says."""
    try:
        most = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        most = math.inf
    try:
        return min(most, float(_CGROUP.read_text()))
    except (OSError, ValueError):  # none, or the word "max"
        return most


def check_memory(name: str, value: object, n_bytes: int) -> None:
    """Raise ValueError if what an argument asks for, so many bytes, is more than all of the memory.

    Without this a system that promises more than it has would end the interpreter, in the midst of a run.
    """
    if n_bytes > memory():
        raise ValueError(
            f"{name} must fit into the {memory() / 1e9:.3g} GB of memory, got {shown(value)}, "
            f"which takes {n_bytes / 1e9:.3g} GB"
        )
