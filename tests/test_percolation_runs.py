"""Run folders, damaged in hundreds of ways: refused in one line, or the same to the bit; never wrong, never waiting."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import campaign_script
import numpy as np
import pytest
import xarray as xr

from percolation import campaign, runs

KINDS = ("empty", "pipe", "folder", "device", "nowhere", "deep", "deeper", "other", "missing")
FILES = {"SHA256SUMS", "provenance.json", "result.nc", "settings.json", "summary.json"}
Settings = campaign_script.Settings


def experiment(*, stop_at=None, collect=None):
    def run_task(settings, task, seeds, scratch):
        if task == stop_at:
            raise KeyboardInterrupt
        return {"x": np.random.default_rng(seeds).random((2, 3)) * (task + 1)}

    def stacked(settings, found):
        return xr.Dataset({"x": (("task", "i", "j"), [arrays["x"] for arrays in found.values()])})

    return campaign.Experiment(
        name="three",
        version=1,
        tasks=lambda settings: {f"task={i}": i for i in range(3)},
        run_task=run_task,
        collect=collect or stacked,
        summarise=lambda settings, dataset: {"mean": float(dataset["x"].mean())},
        has_scratch=True,
    )


def run(out, seed=5, **options):
    return campaign.run(experiment(**options), Settings(seed=seed), out=out)


@pytest.fixture(scope="module", autouse=True)
def no_git():
    """Ask git for the commit once, not in each of hundreds of runs."""
    commit = runs._commit()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_commit", lambda: commit)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a finished and an unfinished run, the same two with another seed, and the clean result."""
    out = tmp_path_factory.mktemp("clean")
    finished = run(out / "finished", seed=5)
    time.sleep(1.1)  # so that the two runs' provenance is not the same to the second
    other = run(out / "finished", seed=6)
    for seed in (5, 6):
        with pytest.raises(KeyboardInterrupt):
            run(out / "unfinished", seed=seed, stop_at=2)
    unfinished = {folder.name: folder for folder in (out / "unfinished").iterdir()}
    pairs = {
        "finished": (finished.folder, other.folder),
        "unfinished": (unfinished[finished.folder.name], unfinished[other.folder.name]),
    }
    return pairs, finished


def damage(path, kind, other):
    """Put something else in the place of a file: of a kind, or its content cut or changed at a share of it."""
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    if kind == "empty":
        path.touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "nowhere":
        path.symlink_to("nowhere")
    elif kind == "deep":  # json reads it, what walks through it may not
        path.write_text('{"a": ' * 600 + "1" + "}" * 600)
    elif kind == "deeper":
        path.write_text("[" * 100_000)
    elif kind == "other":
        shutil.copy(other, path)
    elif kind != "missing":
        what, share = kind
        place = int(share * len(content))
        end = b"" if what == "cut" else bytes([content[place] ^ 0x11]) + content[place + 1 :]
        path.write_bytes(content[:place] + end)


def shares(n):
    return [(what, i / n) for what in ("cut", "changed") for i in range(n)]


def attempt(out, clean):
    """Return whether the run is refused, in one line and soon; if not, it is the clean one and leaves nothing over."""

    def stop(*_):
        raise AssertionError("it waits")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    try:
        found, complaint = run(out), ""
    except runs.RunError as error:
        found, complaint = None, str(error)
    finally:
        signal.alarm(0)
    if found is None:
        assert "\n" not in complaint
        assert str(out) in complaint
        return True
    assert found.dataset.identical(clean.dataset)
    assert found.summary == clean.summary
    assert {path.name for path in found.folder.iterdir()} == FILES
    return False


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_finished_folder_with_any_file_damaged_is_refused(name, folders, tmp_path):
    pairs, clean = folders
    folder, other = pairs["finished"]
    for i, kind in enumerate((*KINDS, *shares(20))):
        copy = tmp_path / str(i) / folder.name
        shutil.copytree(folder, copy)
        damage(copy / name, kind, other / name)
        before = {path.name: path.lstat().st_mtime_ns for path in copy.iterdir()}
        assert attempt(copy.parent, clean), kind
        assert {path.name: path.lstat().st_mtime_ns for path in copy.iterdir()} == before, kind


@pytest.mark.parametrize("name", ["settings.json", "journal.sqlite", "journal.sqlite-journal", "scratch"])
def test_an_unfinished_folder_with_any_file_damaged_is_refused_or_ends_the_same(name, folders, tmp_path):
    pairs, clean = folders
    folder, other = pairs["unfinished"]
    foreign = other / name if (other / name).is_file() else other / "journal.sqlite"
    refused = []
    for i, kind in enumerate((*KINDS, *(shares(12) if (folder / name).is_file() else []))):
        copy = tmp_path / str(i) / folder.name
        shutil.copytree(folder, copy)
        if name == "scratch":
            shutil.rmtree(copy / name)
        damage(copy / name, kind, foreign)
        if attempt(copy.parent, clean):
            refused.append(kind)
    if name == "scratch":
        assert set(refused) == set(KINDS) - {"folder", "missing"}
    elif name == "journal.sqlite-journal":
        assert {"pipe", "folder", "device"} <= set(refused)
    else:
        assert {"pipe", "folder", "device", "nowhere", "deep", "deeper", "other", ("cut", 0.5)} <= set(refused)
        assert "missing" in refused or name == "journal.sqlite"  # nothing is done yet, then


@pytest.mark.parametrize("name", sorted(FILES - {"settings.json", "SHA256SUMS"}))
def test_what_lies_in_an_unfinished_folder_is_written_over(name, folders, tmp_path):
    """A kill between the files at the end leaves some of them, and nobody knows of which run those are."""
    pairs, clean = folders
    folder = pairs["unfinished"][0]
    for i, kind in enumerate((*KINDS, *shares(3))):
        copy = tmp_path / str(i) / folder.name
        shutil.copytree(folder, copy)
        shutil.copy(clean.folder / name, copy / name)
        damage(copy / name, kind, pairs["finished"][1] / name)
        assert attempt(copy.parent, clean) == (kind in ("pipe", "folder", "device", "nowhere")), kind


def test_files_of_two_runs_never_make_one(folders, tmp_path):
    """Any of the files of one run, with the rest of another."""
    (folder, other), clean = folders[0]["finished"], folders[1]
    names = sorted(FILES)
    for chosen in range(1, 2 ** len(names) - 1):
        copy = tmp_path / str(chosen) / folder.name
        shutil.copytree(folder, copy)
        for i, name in enumerate(names):
            if chosen >> i & 1:
                shutil.copy(other / name, copy / name)
        assert attempt(copy.parent, clean)


def test_settings_inside_and_beside_must_agree(folders, tmp_path):
    """Even where the digests are those of what lies there."""
    (folder, other), clean = folders[0]["finished"], folders[1]
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    shutil.copy(other / "result.nc", copy)
    runs.finish(copy)
    with pytest.raises(runs.RunError, match=r"result.nc is damaged \(its settings are not those of settings.json\)"):
        run(tmp_path)
    shutil.copy(other / "settings.json", copy)
    runs.finish(copy)
    with pytest.raises(runs.RunError, match="holds a run with other settings"):
        run(tmp_path)
    for text, message in (("[]", "no JSON object"), ("{", "Expecting")):
        shutil.copy(folder / "settings.json", copy)
        shutil.copy(folder / "result.nc", copy)
        (copy / "summary.json").write_text(text)
        runs.finish(copy)
        with pytest.raises(runs.RunError, match=rf"summary.json is damaged \({message}"):
            run(tmp_path)
    (copy / "result.nc").write_bytes(b"no netCDF")
    runs.finish(copy)
    with pytest.raises(runs.RunError, match=r"result.nc is damaged \("):
        run(tmp_path)
    assert not attempt(folder.parent, clean)


def test_a_file_that_fits_into_no_memory_is_refused(folders, tmp_path):
    folder = folders[0]["finished"][0]
    shutil.copytree(folder, tmp_path / folder.name)
    os.truncate(tmp_path / folder.name / "result.nc", 2**43)  # a hole
    with pytest.raises(runs.RunError, match=r"result.nc is damaged \(it does not fit into the memory\)"):
        run(tmp_path)


def test_a_result_without_its_digests_is_refused(folders, tmp_path):
    folder = folders[0]["finished"][0]
    shutil.copytree(folder, tmp_path / folder.name)
    (tmp_path / folder.name / "SHA256SUMS").unlink()
    with pytest.raises(runs.RunError, match="has a result without SHA256SUMS: it was made by an older version or is"):
        run(tmp_path)


def test_one_true_and_one_point_nought_are_other_settings(tmp_path):
    folder = runs.open_folder(tmp_path, "x", 1, Settings(seed=1))
    known = folder / "settings.json"
    text = known.read_text()
    for other in ("true", "1.0", '"1"', "[1]"):
        known.write_text(text.replace('"seed": 1', f'"seed": {other}'))
        with pytest.raises(runs.RunError, match="holds a run with other settings"):
            runs.open_folder(tmp_path, "x", 1, Settings(seed=1))
    known.write_text(json.dumps(json.loads(text)))
    assert runs.open_folder(tmp_path, "x", 1, Settings(seed=1)) == folder


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tasks SET arrays = zeroblob(10)",
        "UPDATE tasks SET arrays = NULL",
        "UPDATE tasks SET arrays = 'text'",
        "UPDATE tasks SET seconds = seconds + 1",
        "UPDATE tasks SET seconds = 'long'",
        "UPDATE tasks SET seconds = 9e999",
        "UPDATE tasks SET key = 'task=2' WHERE key = 'task=0'",
        "UPDATE tasks SET key = NULL",
        "UPDATE tasks SET key = x'00ff' WHERE key = 'task=0'",
        "UPDATE tasks SET digest = NULL",
        "INSERT INTO tasks SELECT 'task=2', arrays, digest, seconds FROM tasks WHERE key = 'task=0'",
        "DROP TABLE tasks; CREATE TABLE tasks (key TEXT)",
        "DROP TABLE tasks; CREATE TABLE others (key TEXT)",
        "DROP TABLE tasks; CREATE VIEW tasks AS WITH RECURSIVE t(key) AS (SELECT 1 UNION ALL SELECT key FROM t) "
        "SELECT key FROM t",
        "CREATE TABLE others (key TEXT)",
        "PRAGMA writable_schema = 1; UPDATE sqlite_master SET rootpage = 999",
    ],
)
def test_a_record_that_this_run_did_not_write_is_refused(change, folders, tmp_path):
    folder = folders[0]["unfinished"][0]
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    connection = sqlite3.connect(copy / "journal.sqlite")
    connection.executescript(change)
    connection.commit()
    connection.close()
    with pytest.raises(runs.RunError, match=r"journal.sqlite is damaged \(.*\); nothing was changed, move it away"):
        run(tmp_path)


def test_records_that_make_no_result_are_refused_where_another_process_wrote_them(folders, tmp_path):
    """They carry the right digest: only code that changed without its version, or this test, writes such."""
    folder = runs.open_folder(tmp_path, "three", 1, Settings())
    with campaign._Journal(folder) as journal:
        journal.write("task=0", {"y": np.zeros(4)}, 0.1)
    with pytest.raises(runs.RunError, match="its records do not fit this run, KeyError: 'x'"):
        run(tmp_path)

    def mistaken(settings, found):
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):  # a mistake of the experiment keeps its traceback
        run(tmp_path / "new", collect=mistaken)


def test_a_folder_that_is_moved_or_removed_is_noticed_at_the_next_task(tmp_path):
    for name, move in (
        ("moved", lambda folder: folder.rename(tmp_path / "elsewhere")),
        ("removed", shutil.rmtree),
        ("exchanged", lambda folder: (folder.rename(tmp_path / "old"), folder.mkdir())),
    ):
        begun = []

        def run_task(settings, task, seeds, scratch, *, move=move, name=name, begun=begun):
            begun.append(task)
            if task == 1:
                move(next((tmp_path / name).iterdir()))
            return {"x": np.zeros((2, 3))}

        changed = campaign.Experiment(
            **{field: getattr(experiment(), field) for field in experiment().__slots__} | {"run_task": run_task}
        )
        with pytest.raises(runs.RunError, match="was moved or removed while it was in use; move it back to go on"):
            campaign.run(changed, Settings(), out=tmp_path / name)
        assert begun == [0, 1]
    with sqlite3.connect(tmp_path / "elsewhere" / "journal.sqlite") as journal:
        assert journal.execute("SELECT key FROM tasks").fetchall() == [("task=0",)]
    journal.close()


def test_only_what_a_killed_run_left_is_removed(folders, tmp_path):
    folder, clean = folders[0]["finished"][0], folders[1]
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    for name in ("result.nc.123.part", "journal.sqlite", "journal.sqlite-journal"):
        (copy / name).write_bytes(b"half")
    (copy / "scratch").mkdir()
    (copy / "scratch" / "a.pt.7.part").touch()
    assert not attempt(tmp_path, clean)
    mine = {"notes.part", "journal.sqlite.old", "pictures"}
    for name in mine:
        (copy / name).mkdir()
    assert run(tmp_path).is_reused
    assert {path.name for path in copy.iterdir()} == FILES | mine


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(OSError, match="not a regular file"):
            runs.open_file(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        runs.open_file(tmp_path)
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    with runs.open_file(tmp_path / "link") as file:
        assert file.read() == b"text"


def test_killed_at_any_of_its_events_it_ends_the_same_and_leaves_nothing_over(tmp_path):
    command = [sys.executable, campaign_script.__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.stderr == ""
    assert int(done.stdout) > 60


def test_a_disk_that_is_full_at_the_end_is_one_line_and_no_more(tmp_path):
    """HDF5 on the disk itself goes on to complain when its objects are thrown away."""
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "import numpy as np, xarray as xr\n"
        "from percolation import runs\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "numbers = np.random.default_rng(0).random((4, 20000))\n"
        "try:\n"
        "    runs.write_dataset(Path(sys.argv[1]) / 'result.nc', xr.Dataset({'x': (('i', 'j'), numbers)}))\n"
        "except runs.RunError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"cannot write {tmp_path / 'result.nc'}: File too large\n"
    assert list(tmp_path.iterdir()) == []
