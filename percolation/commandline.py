"""Command lines from settings: one record makes the flags, their help, and the saved JSON.

Used by the ``__main__`` of every package; nothing else in the project prints.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import tyro
from pydantic import BaseModel, ValidationError

from percolation import campaign, runs

Device = Literal["cpu", "cuda", "mps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One subcommand: the experiment, its presets (the first is the default), how it prints.

    ``experiment`` is called with the device name. ``example`` is the line shown by ``--help``. ``positional`` names
    the settings that stand first on the line without their flags; ``prepare`` completes settings by what lies in files;
    ``memory`` foresees the bytes that a run takes at least, where settings within their ranges may take too many.
    """

    summary: str
    presets: Mapping[str, BaseModel]
    experiment: Callable[[str], campaign.Experiment[Any, Any]]
    describe: Callable[[Mapping[str, Any]], str]
    example: str
    uses_torch: bool = False
    positional: tuple[str, ...] = ()
    prepare: Callable[[Any], Any] | None = None
    memory: Callable[[Any], float] | None = None


def main(program: str, commands: Mapping[str, Command], arguments: Sequence[str] | None = None) -> None:
    """Run ``python -m program NAME ...``; exit status 0, or 2 with one line on standard error."""
    with one_line_errors(program):
        _run(program, commands, arguments)


def _run(program: str, commands: Mapping[str, Command], arguments: Sequence[str] | None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_overview(program, commands))
        raise SystemExit(0 if words else 2)
    name = words.pop(0)
    if name not in commands:
        fail(program, f"there is no command {name!r}; known: {', '.join(commands)}")
    command = commands[name]
    options = _parse(f"{program} {name}", command, words)
    settings = options.settings
    if not 1 <= options.workers <= _MOST_WORKERS["cpu"]:
        raise ValueError(f"--workers must be from 1 to {_MOST_WORKERS['cpu']}, got {options.workers}")
    if command.memory is not None and command.memory(settings) > _free_memory():
        gigabytes = f"{command.memory(settings) / 1e9:.3g} GB, with {_free_memory() / 1e9:.3g} GB free"
        raise ValueError(f"settings must fit into memory, got some that take {gigabytes}; ask for less")
    device = getattr(options, "device", "cpu")
    with contextlib.redirect_stdout(sys.stderr):  # for what a user's network prints
        if command.prepare is not None:
            settings = command.prepare(settings)
        finished = campaign.run(
            command.experiment(device),
            settings,
            out=options.out,
            n_workers=workers(device, options.workers),
            device=device,
            show_progress=not options.json,
        )
    if options.json:
        print(runs.as_json(finished.summary))
    else:
        print(command.describe(finished.summary))
        print(f"\n{'found again in' if finished.is_reused else 'written to'} {finished.folder}")


def fail(program: str, message: str) -> NoReturn:
    """Print one line on standard error and exit with status 2."""
    with contextlib.suppress(OSError):  # the status says it, too
        print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


def as_program(program: str, main: Callable[[], None]) -> None:
    """Run ``main`` as the program. When it fails, it is over at once, whatever its workers are at.

    Threads that compute while the interpreter ends would be killed inside foreign code, which aborts the process.
    """
    if sys.stderr is None:  # closed by who started it; bars and complaints must go somewhere
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123  # to the end of the program
    try:
        with one_line_errors(program):
            if sys.stdout is None:
                raise ValueError("standard output must be open, got one that is closed")
            try:
                main()
            except SystemExit as end:
                if end.code:
                    raise
            sys.stdout.flush()  # a failure at exit would be a traceback
        return
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  # it is printed whole, and the program is over
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # closed, or None
            stream.flush()
    os._exit(status)


@contextlib.contextmanager
def one_line_errors(program: str) -> Any:
    """Turn what a user can mend into one line and exit status 2; what is our mistake keeps its traceback."""
    try:
        yield
    except ValidationError as error:
        fail(program, _setting(" ".join(str(error).split())))
    except BrokenPipeError:
        fail(program, "standard output was closed before everything was printed")
    except (runs.RunError, ValueError, OSError) as error:
        fail(program, str(error))
    except MemoryError as error:
        fail(program, f"there is not enough memory ({error}); ask for less")
    except RuntimeError as error:
        # neither torch on the CPU nor threads have a type of their own for it
        if not any(words in str(error) for words in ("allocate", "start new thread")):
            raise
        fail(program, f"there is not enough memory ({error}); ask for less")


def _overview(program: str, commands: Mapping[str, Command]) -> str:
    lines = [f"usage: python -m {program} COMMAND [--help]", ""]
    lines += [f"  {name:12s} {command.summary}" for name, command in commands.items()]
    return "\n".join([*lines, "", "for example:", *(f"  {command.example}" for command in commands.values())])


def _parse(program: str, command: Command, words: list[str]) -> Any:
    """Return the options as a record with ``settings``, ``out``, ``workers``, ``json`` and perhaps ``device``."""
    preset = _preset(words) or next(iter(command.presets))
    if preset not in command.presets:
        raise ValueError(f"--preset must be one of {', '.join(command.presets)}, got {preset}")
    settings = command.presets[preset]
    if not {"-h", "--help"} & set(words):
        words = _named(program, command.positional, words)

    def field(name: str, kind: Any, value: Any, text: str) -> tuple[str, Any, Any]:
        return name, Annotated[kind, tyro.conf.arg(help=text)], value

    fields = [
        ("settings", tyro.conf.OmitArgPrefixes[type(settings)], settings),  # type: ignore[misc]
        field("out", Path, Path("runs"), "the run folder is made below this folder"),
        field("json", tyro.conf.FlagCreatePairsOff[bool], False, "print the summary as JSON and nothing else"),
        field("workers", int, workers("cpu"), "tasks under way at once; changes no number on a CPU"),
    ]
    if len(command.presets) > 1:
        kind = Literal[tuple(command.presets)]  # type: ignore[valid-type]
        fields.append(field("preset", kind, preset, "the settings to start from; other flags change them"))
    if command.uses_torch:
        fields.append(field("device", Device, "cpu", "where torch computes"))
    record = make_dataclass("Options", fields, frozen=True)
    return parse(record, program, words, f"{command.summary}\n\nfor example: {command.example}")


def _preset(words: Sequence[str]) -> str | None:
    """Return the last preset that is asked for, if any: its settings must be known before tyro reads the words."""
    found = None
    for word, after in zip(words, [*words, "nothing"][1:], strict=True):
        if word == "--preset":
            found = after
        elif word.startswith("--preset="):
            found = word.removeprefix("--preset=") or "nothing"
    return found


def _named(program: str, positional: tuple[str, ...], words: list[str]) -> list[str]:
    """Return the words with a flag before each of those that stand first."""
    first = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    if positional and len(first) != len(positional):
        expected = " ".join(name.upper() for name in positional)
        raise ValueError(f"{program} must be followed by {expected}, got {' '.join(first) or 'nothing'}")
    flags = [[f"--{name.replace('_', '-')}", word] for name, word in zip(positional, first, strict=False)]
    return [*itertools.chain.from_iterable(flags), *words[len(positional) :]]


def parse(record: Any, program: str, words: Sequence[str], description: str) -> Any:
    """Return ``record`` filled from the command line by tyro; a mistake raises ValueError with one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(record, prog=f"python -m {program}", args=list(words), description=description)
    except SystemExit as error:
        if error.code:
            raise ValueError(_flatten(complaint.getvalue())) from None
        raise


def _free_memory() -> float:
    """Return the bytes that this process may still take, as far as the system says."""
    free = float("inf")
    with contextlib.suppress(OSError, ValueError):
        found = re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())
        free = 1024 * float(found[1]) if found else free
    with contextlib.suppress(OSError, ValueError, ImportError):
        import resource  # not on every system

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            free = min(free, limit - taken)
    return free


_MOST_WORKERS = {"cpu": 256, "cuda": 16, "mps": 1}  # each is a thread; torch has 32 streams of a GPU


def workers(device: str, asked: int | None = None) -> int:
    """Return how many tasks run at once: as many as asked for, else one a core; on a GPU 16 at most."""
    return min(asked or os.cpu_count() or 1, _MOST_WORKERS[device])


def _flatten(box: str) -> str:
    """Return the first part of tyro's framed complaint as one line; settings errors name field, rule and value."""
    # Framed, the title stands in the frame; without UTF-8 it is a line of its own above a rule of dashes.
    lines = [line.strip("│ ") for line in box.splitlines() if line[:1] not in ("╭", "╰")]
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line and set(line) <= {"─", "-"}:
            blocks.append([])
        else:
            blocks[-1].append(line)
    return _setting(" ".join(" ".join(blocks[0] if box.startswith("╭") else blocks[1]).split()))


def _setting(text: str) -> str:
    """Return the first of pydantic's complaints as one line, or the text if there is none."""
    pattern = (
        r"validation errors? for \w+ (\S+ )?(?:\w+ should|Value error,) "
        r"(.*?) \[type=\w+, input_value=(.*?), input_type"
    )
    match = re.search(pattern, text)
    if match is None:
        return text
    place, requirement, value = match.groups()
    if place is None:
        return requirement
    parts = place.strip().split(".")
    name = parts[0] + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts[1:])
    return f"{name} must {requirement}, got {value}"


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Return ``rows`` as text in aligned columns; ``columns`` maps each key to its heading."""
    cells = [list(columns.values())] + [[_cell(row.get(key)) for key in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)) for line in cells)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
