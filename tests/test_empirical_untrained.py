"""The experiment of Fig. 6: what its result holds, and that it repeats to the bit."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from empirical import untrained
from percolation import campaign

TINY = untrained.UntrainedSettings(network="convnet", n_pairs=2, threshold=0.05, delta=0.1, n_points=64)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return campaign.run(untrained.experiment("cpu"), TINY, out=tmp_path_factory.mktemp("runs"))


def test_the_presets_are_the_papers_numbers_and_a_quicker_form():
    paper = untrained.PAPER
    assert (paper.threshold, paper.delta, paper.max_iterations, paper.n_points) == (0.0005, 0.001, 4096, 200)
    assert (paper.learning_rate, paper.weight_decay, paper.high_frequency) == (0.05, 1e-7, 2.5e-7)
    assert untrained.QUICK.network == paper.network == "resnet18"


def test_the_result_holds_the_curves_of_every_round(finished):
    dataset = finished.dataset
    assert dict(dataset.sizes) == {
        "pair": 2,
        "round": TINY.max_rounds + 1,
        "point": 64,
        "stop": 2**TINY.max_rounds + 1,
        "end": 2,
        "image": 4,
        "channel": 3,
        "row": 32,
        "column": 32,
    }
    for name, variable in dataset.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
    happened = np.isfinite(dataset["barrier"].values)
    assert np.array_equal(np.isfinite(dataset["loss"].values).all(axis=2), happened)
    assert np.array_equal(np.isfinite(dataset["loss"].values).any(axis=2), happened)
    assert np.array_equal(dataset["n_segments"].values > 0, happened)
    assert np.array_equal(np.isfinite(dataset["stop_alpha"]).sum("stop") - happened, dataset["n_segments"])
    assert (dataset["barrier"].values[happened] >= dataset["loss"].values[happened].max(axis=1)).all()
    last = [row[np.isfinite(row)][-1] for row in dataset["barrier"].values]
    assert np.array_equal(dataset["is_connected"].values[:, -1].astype(bool), np.array(last) <= TINY.delta)
    assert dataset["class"].values.tolist() == [0, 1]


def test_the_images_are_the_inputs_of_the_curve(finished):
    dataset = finished.dataset.isel(pair=0)
    a, b, bypass, c = dataset["images"].values
    share = float(dataset["barrier_alpha"][0])
    np.testing.assert_allclose(b, a + share * (c - a), atol=1e-5)
    cosine = np.sum((bypass - b) * (c - a)) / np.linalg.norm(bypass - b) / np.linalg.norm(c - a)
    assert abs(cosine) < 1e-5


def test_the_summary_quotes_the_result(finished):
    summary = finished.summary
    assert summary["n_connected"] == int(finished.dataset["is_connected"][:, -1].sum())
    assert [row["round"] for row in summary["rounds"]] == list(range(len(summary["rounds"])))
    for k, pair in enumerate(summary["pairs"]):
        barriers = finished.dataset["barrier"].values[k]
        assert pair["barriers"] == barriers[np.isfinite(barriers)].tolist()
        assert pair["converged"] == [loss <= TINY.threshold for loss in pair["end_loss"]]


def test_the_same_settings_give_the_same_bits_with_any_number_of_workers(finished, tmp_path):
    again = campaign.run(untrained.experiment("cpu"), TINY, out=tmp_path, n_workers=2)
    assert again.dataset.identical(finished.dataset)
    assert again.summary == finished.summary


def test_a_pair_is_not_shifted_by_the_number_of_pairs(finished, tmp_path):
    one = campaign.run(untrained.experiment("cpu"), TINY.model_copy(update={"n_pairs": 1}), out=tmp_path)
    assert np.array_equal(one.dataset["loss"].values[0], finished.dataset["loss"].values[0], equal_nan=True)


def test_inputs_that_did_not_converge_are_reported_as_such(tmp_path):
    short = TINY.model_copy(update={"n_pairs": 1, "max_iterations": 2, "bypass_iterations": 2, "max_rounds": 2})
    found = campaign.run(untrained.experiment("cpu"), short, out=tmp_path)
    assert found.summary["pairs"][0]["converged"] == [False, False]
    assert found.summary["pairs"][0]["is_connected"] is False


@pytest.mark.parametrize(
    "change, message",
    [
        ({"threshold": 0.01, "delta": 0.01}, "threshold must be below delta = 0.01, got 0.01"),
        ({"n_points": 30, "max_rounds": 4}, "n_points must be at least 32, 2 for each possible segment, got 30"),
        ({"network": "vgg"}, "Input should be 'resnet18', 'resnet18_cifar' or 'convnet'"),
        ({"colour": 1}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        untrained.UntrainedSettings(**change)


@pytest.mark.parametrize("name, module", [("cuda", torch.cuda), ("mps", torch.backends.mps)])
def test_a_device_that_is_not_there_is_refused(name, module, monkeypatch):
    monkeypatch.setattr(module, "is_available", lambda: False)
    with pytest.raises(ValueError, match=rf"device must be one that this computer has \(cpu.*\), got {name}"):
        untrained.experiment(name)
