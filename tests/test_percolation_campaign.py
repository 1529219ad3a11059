"""Campaigns: killed, resumed, damaged, out of disk, and still the same to the bit."""

import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import campaign_script
import numpy as np
import pytest
import xarray as xr

from percolation import campaign, commandline, runs
from percolation.__main__ import COMMANDS

SCRIPT = Path(campaign_script.__file__)


def start(out, log, *, n_workers=1, seconds=0.0, **options):
    command = [sys.executable, str(SCRIPT), str(out), str(log), str(n_workers), str(seconds)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def finish(process):
    complaint = process.communicate(timeout=60)[1]
    return process.returncode, complaint


def folder_of(out):
    (found,) = out.iterdir()
    return found


def test_killed_and_resumed_is_bit_identical_and_repeats_no_finished_task(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert finish(start(whole, tmp_path / "whole.log", n_workers=2)) == (0, "")
    log = tmp_path / "killed.log"
    for _ in range(2):  # kill it twice, each time in the middle
        before = len(log.read_text().splitlines()) if log.exists() else 0
        process = start(killed, log, n_workers=1, seconds=0.15)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if log.exists() and len(log.read_text().splitlines()) >= before + 4:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert finish(process)[0] == -signal.SIGKILL
    with sqlite3.connect(f"file:{folder_of(killed) / 'journal.sqlite'}?mode=ro", uri=True) as journal:
        finished = {int(key.split("=")[1]) for (key,) in journal.execute("SELECT key FROM tasks")}
    journal.close()
    assert 2 <= len(finished) < 12
    begun_before = log.read_text()
    assert finish(start(killed, log)) == (0, "")
    begun_after = {int(line.split()[1]) for line in log.read_text()[len(begun_before) :].splitlines()}
    assert begun_after == set(range(12)) - finished
    for name in ("result.nc", "summary.json", "settings.json"):
        assert (folder_of(whole) / name).read_bytes() == (folder_of(killed) / name).read_bytes(), name
    assert not (folder_of(killed) / "journal.sqlite").exists()


def test_a_second_process_on_the_same_folder_is_refused(tmp_path):
    log = tmp_path / "log"
    first = start(tmp_path / "out", log, seconds=0.5)
    while not log.exists():
        time.sleep(0.01)
    code, complaint = finish(start(tmp_path / "out", log))
    first.kill()
    finish(first)
    assert code == 1
    assert "is in use by another process" in complaint
    assert complaint.count("\n") == 1


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    """A limit on the size of files stands in for the full disk: the same failing write at the same place."""

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    out, log = tmp_path / "out", tmp_path / "log"
    code, complaint = finish(start(out, log, preexec_fn=small_files))
    assert code == 1
    assert "cannot be written" in complaint
    assert "finished tasks are kept" in complaint
    assert complaint.count("\n") == 1
    begun = log.read_text().count("begin")
    assert finish(start(out, log)) == (0, "")
    again = log.read_text().count("begin") - begun
    assert begun + again <= 12 + 1  # at most the task whose write failed is done twice
    assert (folder_of(out) / "result.nc").exists()


def test_a_full_disk_at_the_end_leaves_no_half_written_result(tmp_path):
    target = tmp_path / "result.nc"
    with pytest.raises(runs.RunError, match=r"cannot write .*result.nc: No space left on device"):
        runs.write(target, lambda part: part.write_text("half") and _fail_with_enospc())
    assert list(tmp_path.iterdir()) == []


def _fail_with_enospc():
    raise OSError(28, os.strerror(28))


def test_a_damaged_journal_is_refused_and_left_alone(tmp_path):
    log = tmp_path / "log"
    process = start(tmp_path / "out", log, seconds=0.2)
    while not log.exists() or log.read_text().count("begin") < 3:
        time.sleep(0.01)
    process.kill()
    finish(process)
    journal = folder_of(tmp_path / "out") / "journal.sqlite"
    content = bytearray(journal.read_bytes())
    content[:40] = b"x" * 40
    journal.write_bytes(content)
    code, complaint = finish(start(tmp_path / "out", log))
    assert code == 1
    assert "journal.sqlite is damaged" in complaint
    assert journal.read_bytes() == content


def test_a_changed_record_in_the_journal_is_noticed(tmp_path):
    settings = campaign_script.Settings()
    folder = runs.open_folder(tmp_path, "x", 1, settings)
    with campaign._Journal(folder) as journal:
        journal.write("a", {"x": np.arange(3)}, 0.1)
        np.testing.assert_array_equal(journal.read("a")["x"], [0, 1, 2])
        journal._ask("UPDATE tasks SET digest = x'00'")
        with pytest.raises(runs.RunError, match="the record of task 'a' was not written by this run"):
            journal.read("a")


def experiment(values=(1.0, 2.0)):
    return campaign.Experiment(
        name="values",
        version=1,
        tasks=lambda settings: {str(value): value for value in values},
        run_task=lambda settings, task, seeds: {"x": np.random.default_rng(seeds).random(3) + task},
        collect=lambda settings, arrays: xr.Dataset(
            {"x": (("task", "i"), np.stack([a["x"] for a in arrays.values()]))}
        ),
        summarise=lambda settings, dataset: {"largest": float(dataset["x"].max()), "nothing": float("nan")},
    )


def test_number_of_workers_and_added_tasks_change_no_number(tmp_path):
    settings = campaign_script.Settings()
    one = campaign.run(experiment(), settings, out=tmp_path / "1", n_workers=1).dataset
    two = campaign.run(experiment(), settings, out=tmp_path / "2", n_workers=2).dataset
    more = campaign.run(experiment((0.5, 1.0, 2.0)), settings, out=tmp_path / "3").dataset
    xr.testing.assert_identical(one, two)
    np.testing.assert_array_equal(more["x"][1:], one["x"])
    other = campaign.run(experiment(), campaign_script.Settings(seed=6), out=tmp_path / "1").dataset
    assert not np.any(other["x"] == one["x"])


def test_a_finished_folder_is_reused_and_says_how_it_was_made(tmp_path):
    settings = campaign_script.Settings()
    first = campaign.run(experiment(), settings, out=tmp_path)
    assert not first.is_reused
    second = campaign.run(experiment(), settings, out=tmp_path)
    assert second.is_reused
    assert second.summary == first.summary
    assert second.summary["nothing"] is None
    record = json.loads((first.folder / "provenance.json").read_text())
    assert {"versions", "commit", "machine", "seconds", "command"} <= set(record)
    assert record["versions"]["numpy"] == np.__version__


def test_folders_that_do_not_fit_are_refused_and_left_alone(tmp_path):
    settings = campaign_script.Settings()
    finished = campaign.run(experiment(), settings, out=tmp_path)
    known = finished.folder / "settings.json"
    original = known.read_text()

    known.write_text(original.replace('"seed": 5', '"seed": 6'))
    with pytest.raises(runs.RunError, match="holds a run with other settings; nothing was changed"):
        campaign.run(experiment(), settings, out=tmp_path)
    known.write_text("{")
    with pytest.raises(runs.RunError, match=r"settings.json is damaged"):
        campaign.run(experiment(), settings, out=tmp_path)
    known.write_text(original)

    result = finished.folder / "result.nc"
    whole = result.read_bytes()
    result.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(runs.RunError, match=r"result.nc is damaged"):
        campaign.run(experiment(), settings, out=tmp_path)
    assert result.stat().st_size == len(whole) // 2
    # One bit of an array of numbers: its check sum tells.
    numbers = finished.dataset["x"].to_numpy().tobytes()
    place = whole.index(numbers)
    result.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    journal = finished.folder / "journal.sqlite"
    journal.write_bytes(b"a journal")
    with pytest.raises(runs.RunError, match=r"result.nc is damaged"):
        campaign.run(experiment(), settings, out=tmp_path)
    assert journal.read_bytes() == b"a journal"  # nothing is thrown away before the result is read
    journal.unlink()
    result.write_bytes(whole)

    (finished.folder / "summary.json").write_text("nonsense")
    with pytest.raises(runs.RunError, match=r"summary.json is damaged"):
        campaign.run(experiment(), settings, out=tmp_path)

    known.unlink()
    with pytest.raises(runs.RunError, match=r"is not a run folder; move it"):
        campaign.run(experiment(), settings, out=tmp_path)


def test_a_program_that_fails_does_not_wait_for_its_workers_nor_abort_on_them():
    """A thread inside foreign code, as of torch, cannot be stopped: an interpreter that ends around it aborts."""
    script = (
        "import sys, threading, torch\n"
        "from percolation import commandline\n"
        "def work():\n"
        "    while True: torch.ones(300, 300) @ torch.ones(300, 300)\n"
        "def main():\n"
        "    threading.Thread(target=work, daemon=True).start()\n"
        "    raise {error}\n"
        "commandline.as_program('program', main)\n"
    )
    for error, code, complaint in (
        ("ValueError('p must be less')", 2, "program: p must be less\n"),
        (
            "RuntimeError('cannot allocate 9 B')",
            2,
            "program: there is not enough memory (cannot allocate 9 B); ask for less\n",
        ),
    ):
        command = [sys.executable, "-c", script.format(error=error)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr) == (code, complaint)
    command = [sys.executable, "-c", script.format(error="KeyError('a mistake of ours')")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("KeyError: 'a mistake of ours'\n")


@pytest.mark.parametrize(
    "package, imported",
    [("percolation", "numpy"), ("lipschitz", "torch.nn"), ("empirical", "torch._C"), ("paper_figs", "matplotlib")],
)
def test_ctrl_c_while_a_program_imports_is_one_line(package, imported):
    """The signal comes as the import system looks for a module, in the middle of the program's imports."""
    script = (
        "import os, runpy, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        name == {imported!r} and os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        f"runpy.run_module({package!r}, run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == f"{package}: stopped; the same command goes on from here\n"
    assert done.returncode == 130


def test_standard_output_that_cannot_be_written_is_one_line(tmp_path):
    script = "from percolation import commandline\ncommandline.as_program('program', lambda: print('text'))\n"
    command = [sys.executable, "-c", script]
    unread, written = os.pipe()
    os.close(unread)
    done = subprocess.run(command, stdout=written, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(written)
    complaint = "program: standard output was closed before everything was printed\n"
    assert (done.returncode, done.stderr) == (2, complaint)
    closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, text=True, check=False)
    assert closed.returncode == 2
    assert closed.stderr == "program: standard output must be open, got one that is closed\n"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "program: [Errno 28] No space left on device\n")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--preset"], "--preset must be one of quick, paper, got nothing"),
        (["--preset="], "--preset must be one of quick, paper, got nothing"),
        (["--preset", "--json"], "--preset must be one of quick, paper, got --json"),
        (
            ["--workers", "1", "--samples", "10000000000"],
            "samples must be less than or equal to 1000000000, got 10000000000",
        ),
        (["--workers", "0"], "--workers must be from 1 to 256, got 0"),
        (["--workers", "100000"], "--workers must be from 1 to 256, got 100000"),
    ],
)
def test_flags_of_every_command_are_checked_in_one_line(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        commandline.main("percolation", COMMANDS, ["scaling", "--out", str(tmp_path), *words])
    assert stopped.value.code == 2
    assert capsys.readouterr() == ("", f"percolation: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_a_long_task_says_what_it_does_and_a_mistake_is_not_below_a_bar(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(campaign, "_QUIET", 0.1)

    def work(settings, task, seeds, progress):
        progress("norms of layers")
        time.sleep(0.3)
        if task == "mistake":
            raise ValueError("task must be another, got this")
        progress("pieces")
        return {"x": np.zeros(1)}

    def measure(task):
        experiment = campaign.Experiment(
            name="long",
            version=1,
            tasks=lambda settings: {"only": task},
            run_task=work,
            collect=lambda settings, arrays: xr.Dataset(),
            summarise=lambda settings, dataset: {},
            has_long_tasks=True,
        )
        campaign.run(experiment, campaign_script.Settings(), out=tmp_path / task, show_progress=True)

    measure("right")
    drawn = capsys.readouterr().err
    assert drawn.index("only: norms of layers") < drawn.index("only: pieces")
    monkeypatch.setattr(campaign, "_QUIET", 60.0)
    with pytest.raises(ValueError, match="task must be another"):
        measure("mistake")
    assert capsys.readouterr().err == ""


def test_a_lattice_that_cannot_fit_into_memory_is_refused_before_it_is_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commandline, "_free_memory", lambda: 2.0e9)
    words = ["lattice", "--shape", "31622", "31622", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        commandline.main("percolation", COMMANDS, words)
    assert stopped.value.code == 2
    complaint = "percolation: settings must fit into memory, got some that take 16 GB, with 2 GB free; ask for less\n"
    assert capsys.readouterr() == ("", complaint)
    assert list(tmp_path.iterdir()) == []


def test_free_memory_is_what_the_system_and_the_limits_of_the_process_leave():
    """A limit on the size of the process leaves less than that, whatever the machine has."""
    script = (
        "import resource\n"
        "from percolation import commandline\n"
        "print(commandline._free_memory())\n"
        "resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))\n"
        "print(commandline._free_memory())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    machine, limited = (float(line) for line in done.stdout.splitlines())
    assert 2**20 < machine < 2**50
    assert 2**20 < limited < 3 * 2**30


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(runs.RunError, match=r"cannot use .*file.values-.*: Not a directory"):
        campaign.run(experiment(), campaign_script.Settings(), out=tmp_path / "file")


def test_a_read_only_folder_is_named(tmp_path):
    """Root writes anywhere: a read-only folder is one that a plain user finds without the right to write."""
    folder = tmp_path / "fixed"
    folder.mkdir()
    folder.chmod(0o555)
    script = (
        "import os, sys\n"
        "sys.path[:0] = sys.argv[2:]\n"
        "import pathlib, campaign_script\n"
        "os.getuid() or os.setuid(65534)\n"
        "campaign_script.main(pathlib.Path(sys.argv[1]), pathlib.Path('/dev/null'), 1, 0)\n"
    )
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    command = [sys.executable, "-c", script, str(folder), str(SCRIPT.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert done.stderr.startswith("RunError: cannot use")
    assert list(folder.iterdir()) == []


def test_an_experiment_with_a_time_goes_on_until_it_is_spent_and_not_further(tmp_path):
    def measure(seconds, pause):
        experiment = campaign.Experiment(
            name="timed",
            version=1,
            tasks=lambda settings: {f"run {i}": i for i in range(100)},
            run_task=lambda settings, task, seeds: time.sleep(pause) or {"value": np.array(task)},
            collect=lambda settings, arrays: xr.Dataset({"value": ("run", [a["value"] for a in arrays.values()])}),
            summarise=lambda settings, dataset: {"runs": dataset["value"].to_numpy().tolist()},
            seconds=lambda settings: seconds,
        )
        settings = campaign_script.Settings(seed=round(100 * seconds))
        return campaign.run(experiment, settings, out=tmp_path, n_workers=2).summary

    short = measure(0.01, 0.01)  # at least eight
    assert short["runs"] == list(range(8))
    found = measure(1.0, 0.05)  # the first of them in order, none left out
    assert found["runs"] == list(range(len(found["runs"])))
    assert 10 < len(found["runs"]) <= 44
    assert 0.5 < found["seconds"] < 10
    found = measure(2.0, 0.3)  # two workers: 12 in 1.8 s, and none that would end after 2 s
    assert len(found["runs"]) <= 12
