"""The experiment of Figs. 9 and 10: what its result holds, resuming, and the data that it is bound to."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from empirical import checkpoints, data, evolution, models, train
from empirical.__main__ import COMMANDS
from percolation import campaign

TINY = evolution.with_digest(
    evolution.EvolutionSettings(
        network="convnet",
        batch_stages=(0, 2, 5),
        epoch_stages=(0, 1),
        batch_size=200,
        n_trainings=2,
        augment=False,
        classes=(1, 7),
        n_pairs=2,
        n_points=21,
        threshold=0.2,
        delta=0.25,
        max_rounds=2,
    )
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return campaign.run(evolution.experiment("cpu"), TINY, out=tmp_path_factory.mktemp("runs"))


def test_the_presets_are_the_papers_numbers_and_quicker_forms():
    paper = evolution.PAPER
    assert (paper.data, paper.threshold, paper.batch_size, paper.n_pairs) == ("cifar10", 0.005, 512, 5)
    assert paper.batch_stages == paper.epoch_stages == tuple(range(31))
    assert len(paper.classes) == 10
    assert paper.n_trainings == 3
    fewer = ("batch_stages", "epoch_stages", "n_pairs", "n_trainings")
    cpu = {name: getattr(evolution.CPU, name) for name in type(paper).model_fields if name not in fewer}
    assert cpu == {name: getattr(paper, name) for name in cpu}
    assert evolution.QUICK.data == "digits"
    assert set(COMMANDS["evolution"].presets) == {"quick", "cpu", "paper"}


def test_the_result_holds_every_pair_at_every_stage(finished):
    dataset = finished.dataset
    expected = {"seed": 2, "stage": 3, "class": 2, "pair": 2, "round": 3, "point": 21, "end": 2, "quartile": 3}
    assert dict(dataset.sizes) == expected
    assert dataset["stage"].values.tolist() == [0, 2, 5]
    assert dataset["stage"].attrs["units"] == "batches"
    for name, variable in dataset.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
        assert np.isfinite(variable.values).all(), name
    primary = dataset["barrier"].isel(round=0)
    assert (primary >= dataset["end_loss"].max("end") - 1e-5).all()
    assert np.array_equal(dataset["converged"].values.astype(bool), dataset["end_loss"].values <= TINY.threshold)
    assert len(np.unique(primary.values)) == primary.size
    np.testing.assert_allclose(dataset["gap"], primary - dataset["end_loss"].max("end"), atol=1e-4)


def test_the_curve_is_that_of_all_pairs(finished):
    """Its mean runs between the quartiles' outer bounds, from the mean loss of the ends A to that of the ends C."""
    dataset = finished.dataset
    ends = dataset["end_loss"].mean(("class", "pair")).transpose("seed", "stage", "end").values
    np.testing.assert_allclose(dataset["loss_mean"].values[..., [0, -1]], ends, atol=1e-4)
    spread = dataset["end_loss"].std(("class", "pair")).transpose("seed", "stage", "end").values
    np.testing.assert_allclose(dataset["loss_std"].values[..., [0, -1]], spread, atol=1e-4)
    assert (dataset["loss_quartiles"].diff("quartile") >= 0).all()
    assert dataset["loss_mean"].max() <= dataset["barrier"].isel(round=0).max()


def test_rounds_bring_the_barrier_below_delta_and_then_leave_it(finished):
    dataset = finished.dataset
    is_connected = evolution.connected(dataset)
    assert np.array_equal(is_connected, dataset["barrier"] <= 0.25)
    settled = is_connected.isel(round=slice(None, -1)).values
    steps = dataset["barrier"].diff("round").values
    assert (steps[settled] == 0).all()
    assert (steps[~settled] != 0).all()
    assert is_connected.isel(round=-1).mean() > is_connected.isel(round=0).mean()
    is_bypassed = dataset["bypass_gradients"] > 0
    assert np.array_equal(is_bypassed, ~is_connected.isel(round=0))


def test_the_summary_quotes_the_result(finished):
    for i, row in enumerate(finished.summary["stages"]):
        barriers = finished.dataset["barrier"].values[:, i, ..., 0].astype(float)
        is_low = (finished.dataset["end_loss"].values[:, i] <= TINY.delta).all(axis=-1)
        assert row["barrier_mean_all"] == barriers.mean()
        assert (row["n_pairs_low_ends"], row["n_pairs_of_stage"]) == (is_low.sum(), 8)
        assert row["barrier_mean"] == pytest.approx(barriers[is_low].mean())
        assert row["barrier_quartiles"][1] == np.median(barriers[is_low])
        each = [barriers[k][is_low[k]].mean() for k in range(2)]
        assert row["barrier_mean_of_trainings"] == pytest.approx(each)
        assert row["barrier_std"] == pytest.approx(barriers[is_low].std(), rel=1e-12)
        assert row["n_converged"] <= row["n_inputs"] == 16
        for k, n in enumerate(row["n_connected_by_round"]):
            of_round = finished.dataset["barrier"].values[:, i, ..., k]
            assert n == (of_round <= TINY.delta).sum() == (of_round[is_low] <= TINY.delta).sum()
        assert 0 <= row["test_accuracy"] <= 1


class _Counted:
    """Counts the batches that are trained on while it is installed."""

    def __init__(self, monkeypatch):
        self.batches = []
        rows = train._rows

        def counted(n, batch_size, batch, seed):
            self.batches.append(batch)
            return rows(n, batch_size, batch, seed)

        monkeypatch.setattr(train, "_rows", counted)


def test_an_interrupted_run_goes_on_to_the_same_bits_and_trains_no_batch_twice(finished, tmp_path, monkeypatch):
    whole = evolution.experiment("cpu")
    done = []

    def break_off(settings, task, seed, scratch):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(task)
        return whole.run_task(settings, task, seed, scratch)

    counted = _Counted(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(dataclasses.replace(whole, run_task=break_off), TINY, out=tmp_path)
    assert sorted(counted.batches) == [0, 0, 1, 1]
    resumed = campaign.run(evolution.experiment("cpu"), TINY, out=tmp_path)
    assert sorted(counted.batches) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert resumed.dataset.identical(finished.dataset)
    assert not (resumed.folder / "scratch").exists()


def test_a_killed_command_goes_on_from_its_last_epoch(tmp_path, monkeypatch):
    """Killed on the way to a stage twenty epochs off; at most the epoch under way is trained again."""
    settings = TINY.model_copy(update={"unit": "epoch", "epoch_stages": (20,), "n_trainings": 1, "network": "convnet"})
    words = ["--network", "convnet", "--unit", "epoch", "--epoch-stages", "20", "--batch-stages", "0", "2", "5"]
    words += ["--batch-size", "200", "--no-augment", "--classes", "1", "7", "--n-pairs", "2", "--n-points", "21"]
    words += ["--threshold", "0.2", "--delta", "0.25", "--max-rounds", "2", "--out", str(tmp_path), "--json"]
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    process = subprocess.Popen(
        [sys.executable, "-m", "empirical", "evolution", *words], env=environment, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300  # a busy machine takes long to import torch
    while time.monotonic() < deadline and process.poll() is None and len(list(tmp_path.glob("*/scratch/*.pt"))) < 2:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = max(int(path.stem.rpartition("=")[2]) for path in tmp_path.glob("*/scratch/*.pt"))
    assert 16 <= kept < 160
    counted = _Counted(monkeypatch)
    resumed = campaign.run(evolution.experiment("cpu"), settings, out=tmp_path)
    assert counted.batches == list(range(kept, 160))  # eight batches an epoch
    assert resumed.folder in tmp_path.iterdir()
    whole = campaign.run(evolution.experiment("cpu"), settings, out=tmp_path / "whole")
    assert whole.dataset.identical(resumed.dataset)


def test_different_trainings_train_at_the_same_time(tmp_path, monkeypatch):
    """Each of two workers waits inside its training for the other to be inside its own."""
    meeting = threading.Barrier(2, timeout=30)
    bring = checkpoints.bring
    met = set()

    def meet(training, advance, **options):
        if options["name"] not in met:
            met.add(options["name"])
            meeting.wait()
        bring(training, advance, **options)

    monkeypatch.setattr(checkpoints, "bring", meet)
    settings = TINY.model_copy(update={"batch_stages": (0, 1), "n_pairs": 1, "classes": (1,)})
    campaign.run(evolution.experiment("cpu"), settings, out=tmp_path, n_workers=2)
    assert met == {"training=0", "training=1"}


def _begun():
    return train.start(models.build("convnet", generator=torch.Generator().manual_seed(0)), learning_rate=1e-3)


def _bring(folder, until, stops=(), name="a"):
    """Bring a training of nothing there; return the stops at which it had to train."""
    training, calls = _begun(), []

    def advance(stop):
        calls.append((training.done, stop))
        training.done = stop

    checkpoints.bring(training, advance, until=until, stops=stops, folder=folder, name=name)
    assert training.done == until
    return calls


def test_a_training_goes_on_from_the_newest_checkpoint_that_is_not_beyond(tmp_path):
    assert _bring(tmp_path, 3, stops=(1, 2, 3, 9)) == [(0, 1), (1, 2), (2, 3)]
    assert _bring(tmp_path, 3) == []
    assert _bring(tmp_path, 5) == [(3, 5)]
    assert _bring(tmp_path, 4) == [(3, 4)]  # not from 5
    assert _bring(tmp_path, 1, name="b") == [(0, 1)]  # another training's are not taken
    assert _bring(None, 5) == [(0, 5)]
    assert _bring(tmp_path, 0) == []


def test_the_last_four_checkpoints_are_kept_and_a_damaged_one_is_passed_over(tmp_path):
    _bring(tmp_path, 6, stops=range(6))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a batches={n}.pt" for n in (3, 4, 5, 6)]
    newest = tmp_path / "a batches=6.pt"
    whole = newest.read_bytes()
    for damage in (
        whole[:500],
        whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:],  # a bit
        b"no training",
    ):
        newest.write_bytes(damage)
        assert _bring(tmp_path, 6) == [(5, 6)]
    for other in (tmp_path / "other" / "scratch", tmp_path / "run" / "scratch"):
        other.mkdir(parents=True)
        _bring(other, 6)
        shutil.copy(other / newest.name, newest)
        assert _bring(tmp_path, 6) == [(5, 6)]  # another run's
    shutil.copy(tmp_path / "a batches=5.pt", newest)
    assert _bring(tmp_path, 6) == [(5, 6)]  # another stage's
    newest.unlink()
    os.mkfifo(newest)
    assert _bring(tmp_path, 6) == [(5, 6)]
    for foreign in ([1, 2], {"done": 6}, {"network": {}, "optimiser": {}, "done": 6}):
        torch.save(foreign, newest)
        (tmp_path / "a batches=abc.pt").write_bytes(b"")
        assert _bring(tmp_path, 6) == [(5, 6)]
    assert _bring(tmp_path, 6) == []


def test_statistics_are_taken_anew_when_asked(finished, tmp_path):
    settings = TINY.model_copy(update={"recalibrate": True, "n_trainings": 1, "batch_stages": (0, 2)})
    again = campaign.run(evolution.experiment("cpu"), settings, out=tmp_path).dataset
    apart = again["test_accuracy"].values[0] - finished.dataset["test_accuracy"].values[0, :2]
    assert apart[1] > 0.05  # two batches of memory a tenth each: the running statistics are still the first ones
    assert (again["barrier"].values != finished.dataset["barrier"].values[:1, :2]).all()


def test_the_number_of_workers_changes_no_bit(finished, tmp_path):
    again = campaign.run(evolution.experiment("cpu"), TINY, out=tmp_path, n_workers=3)
    assert again.dataset.identical(finished.dataset)


def test_a_stage_does_not_depend_on_the_other_stages(finished, tmp_path):
    alone = campaign.run(
        evolution.experiment("cpu"), TINY.model_copy(update={"batch_stages": (5,), "n_trainings": 1}), out=tmp_path
    )
    assert np.array_equal(alone.dataset["barrier"].values[0, 0], finished.dataset["barrier"].values[0, 2])


def test_stages_asked_for_out_of_order_are_the_same(finished):
    whole = evolution.experiment("cpu")
    tasks = list(whole.tasks(TINY).items())
    for i in (5, 1, 2, 0):
        key, task = tasks[i]
        found = whole.run_task(TINY, task, campaign.seed_sequence(TINY.seed, key))
        assert np.array_equal(found["barrier"], finished.dataset["barrier"].values[task.training, i // 2])


def test_an_epoch_is_its_batches(finished, tmp_path):
    # 1442 training images in batches of 200: eight an epoch
    settings = TINY.model_copy(update={"n_trainings": 1, "n_pairs": 1})
    by_epoch = settings.model_copy(update={"unit": "epoch", "epoch_stages": (1,)})
    by_batch = settings.model_copy(update={"batch_stages": (8,)})
    runs = [campaign.run(evolution.experiment("cpu"), one, out=tmp_path).dataset for one in (by_epoch, by_batch)]
    assert runs[0]["stage"].attrs["units"] == "epochs"
    assert np.array_equal(runs[0]["test_accuracy"], runs[1]["test_accuracy"])
    assert runs[0]["test_accuracy"].item() > 0.3


def test_equal_settings_mean_equal_data(tmp_path):
    images = data.load("digits")
    arrays = {key: getattr(images, key).numpy() for key in ("x_train", "y_train", "x_test", "y_test")}
    path = tmp_path / "images.npz"
    np.savez(path, **arrays)
    settings = evolution.with_digest(TINY.model_copy(update={"data": str(path), "data_digest": ""}))
    assert settings.data_digest == TINY.data_digest
    arrays["y_train"] = 9 - arrays["y_train"]
    np.savez(path, **arrays)
    for attempt in (
        lambda: evolution.with_digest(settings),
        lambda: campaign.run(evolution.experiment("cpu"), settings, out=tmp_path),
    ):
        with pytest.raises(ValueError, match=f"data_digest must be that of .*images.npz, .*, got {TINY.data_digest}"):
            attempt()
    nameless = TINY.model_copy(update={"data_digest": ""})
    with pytest.raises(ValueError, match=r"data_digest must be that of digits, .*, got none"):
        campaign.run(evolution.experiment("cpu"), nameless, out=tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"batch_stages": (1, 0)}, r"batch_stages\n.*rise, from 0 or more"),
        ({"epoch_stages": ()}, r"epoch_stages\n.*rise, from 0 or more"),
        ({"classes": (0, 10)}, r"classes\n.*be at most 9 each"),
        ({"delta": 0.005}, "threshold must be below delta = 0.005, got 0.005"),
        ({"n_points": 15}, r"n_points must be at least 2 for each of the 2\^3 segments of 3 rounds, got 15"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        evolution.EvolutionSettings(**change)


def test_a_last_batch_of_one_image_is_refused():
    n_images = len(data.load("digits").x_train)
    with pytest.raises(ValueError, match=f"got {n_images - 1} for {n_images} images"):
        evolution.with_digest(TINY.model_copy(update={"batch_size": n_images - 1}))
