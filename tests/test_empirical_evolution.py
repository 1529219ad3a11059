"""The experiment of Figs. 9 and 10: what its result holds, resuming, and the data that it is bound to."""

import numpy as np
import pytest
from pydantic import ValidationError

from empirical import data, evolution
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
    )
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return campaign.run(evolution.experiment("cpu"), TINY, out=tmp_path_factory.mktemp("runs"))


def test_the_presets_are_the_papers_numbers_and_a_quicker_form():
    paper = evolution.PAPER
    assert (paper.data, paper.threshold, paper.batch_size, paper.n_pairs) == ("cifar10", 0.005, 512, 5)
    assert paper.batch_stages == paper.epoch_stages == tuple(range(31))
    assert len(paper.classes) == 10
    assert evolution.QUICK.data == "digits"


def test_the_result_holds_every_pair_at_every_stage(finished):
    dataset = finished.dataset
    assert dict(dataset.sizes) == {"seed": 2, "stage": 3, "class": 2, "pair": 2, "point": 21, "end": 2}
    assert dataset["stage"].values.tolist() == [0, 2, 5]
    assert dataset["stage"].attrs["units"] == "batches"
    for name, variable in dataset.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
        assert np.isfinite(variable.values).all(), name
    assert (dataset["barrier"] >= dataset["loss"].max("point")).all()
    np.testing.assert_allclose(dataset["loss"].values[..., [0, -1]], dataset["end_loss"].values, atol=1e-4)
    assert np.array_equal(dataset["converged"].values.astype(bool), dataset["end_loss"].values <= TINY.threshold)
    assert len(np.unique(dataset["barrier"].values)) == dataset["barrier"].size


def test_the_summary_quotes_the_result(finished):
    for i, row in enumerate(finished.summary["stages"]):
        barriers = finished.dataset["barrier"].values[:, i]
        assert row["barrier_median"] == np.median(barriers)
        assert row["barrier_std"] == barriers.std()
        assert row["n_converged"] <= row["n_inputs"] == 16
        assert 0 <= row["test_accuracy"] <= 1


def test_an_interrupted_run_goes_on_to_the_same_bits(finished, tmp_path):
    whole = evolution.experiment("cpu")
    calls = []

    def break_off(settings, task, seed):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(task)
        return whole.run_task(settings, task, seed)

    broken = campaign.Experiment(
        name=whole.name,
        version=whole.version,
        tasks=whole.tasks,
        run_task=break_off,
        collect=whole.collect,
        summarise=whole.summarise,
    )
    with pytest.raises(KeyboardInterrupt):
        campaign.run(broken, TINY, out=tmp_path)
    done = list(calls)
    resumed = campaign.run(evolution.experiment("cpu"), TINY, out=tmp_path)
    assert len(done) == 4
    assert resumed.dataset.identical(finished.dataset)


def test_the_number_of_workers_changes_no_bit(finished, tmp_path):
    again = campaign.run(evolution.experiment("cpu"), TINY, out=tmp_path, n_workers=3)
    assert again.dataset.identical(finished.dataset)


def test_a_stage_does_not_depend_on_the_other_stages(finished, tmp_path):
    alone = campaign.run(
        evolution.experiment("cpu"), TINY.model_copy(update={"batch_stages": (5,), "n_trainings": 1}), out=tmp_path
    )
    assert np.array_equal(alone.dataset["loss"].values[0, 0], finished.dataset["loss"].values[0, 2])


def test_stages_asked_for_out_of_order_are_the_same(finished):
    whole = evolution.experiment("cpu")
    tasks = list(whole.tasks(TINY).items())
    for i in (5, 1, 2, 0):
        key, task = tasks[i]
        found = whole.run_task(TINY, task, campaign.seed_sequence(TINY.seed, key))
        assert np.array_equal(found["loss"], finished.dataset["loss"].values[divmod(i, 3)])


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
        ({"batch_stages": (1, 0)}, r"stages and classes must rise, from 0 or more, got \[1, 0\]"),
        ({"epoch_stages": ()}, r"stages and classes must rise, from 0 or more, got \[\]"),
        ({"classes": (0, 10)}, "classes must be at most 9, got 10"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        evolution.EvolutionSettings(**change)
