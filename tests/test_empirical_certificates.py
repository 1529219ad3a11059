"""Certified maxima along the paths of untrained and of trained networks."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional

from empirical import certificates, data, evolution, train
from empirical.certificates import N_SAMPLES, Settings, Task
from percolation import campaign

TINY = Settings(network="convnet", n_pairs=2, threshold=0.05, delta=0.1, max_rounds=1, max_iterations=150)


def _connected(settings, key):
    seed, trainings = campaign.seed_sequence(settings.seed, key), evolution.Trainings(torch.device("cpu"))
    return certificates.connect_pair(settings, certificates.tasks(settings)[key], seed, trainings)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return campaign.run(certificates.experiment("cpu"), TINY, out=tmp_path_factory.mktemp("runs"))


def test_no_sample_is_above_the_certified_maximum(run):
    data = run.dataset
    assert data["sampled"].sizes == {"pair": 2, "round": 2, "segment": 2, "n_samples": len(N_SAMPLES)}
    assert int(data["loss"].notnull().sum()) >= 2
    # Samples in float64 are rounded, too, by far less than this.
    assert not bool((data["sampled"] > data["upper_loss"] * (1 + 1e-9)).any())
    assert not bool((data["lower_loss"] > data["upper_loss"]).any())
    assert not bool((data["sampled"].sel(n_samples=1000) < data["loss"] * 0.99).any())
    # in float32, rounding reaches further
    np.testing.assert_allclose(data["refined"], data["loss"], rtol=1e-2)
    there = data["loss"].notnull()
    assert bool((data["covered"].where(there, 1) == 1).all())
    assert bool((data["n_pieces"].where(there, 99) > 10).all())


def test_the_maximum_stands_where_it_is_said(run):
    network, found = _connected(TINY, "pair=1")
    here = run.dataset.isel(pair=1, round=0, segment=0)
    a, c = found.paths[0].double()
    point = a + float(here["t"]) * (c - a)
    with torch.no_grad():
        loss = functional.cross_entropy(network.double()(point[None]), torch.tensor([1]))
    assert float(loss) == pytest.approx(float(here["loss"]), rel=1e-9)
    assert float(run.dataset["zoom_loss"].isel(pair=1, zoom=100)) == pytest.approx(float(loss), rel=1e-9)


def test_summary_says_which_paths_are_connected_everywhere(run):
    rows = run.summary["rows"]
    assert [row["pair"] for row in rows if row["round"] == 0] == [0, 1]
    for row in rows:
        upper = run.dataset["upper_loss_everywhere"].isel(pair=row["pair"], round=row["round"]).max()
        assert row["is_connected"] == bool(upper <= TINY.delta)
        assert row["lower"] <= row["upper"]
        assert row["n_segments"] == int(run.dataset["loss"].isel(pair=row["pair"], round=row["round"]).notnull().sum())
    json.dumps(run.summary, allow_nan=False)


def test_same_bits_for_any_number_of_workers(run, tmp_path):
    again = campaign.run(certificates.experiment("cpu"), TINY, out=tmp_path, n_workers=2)
    xr.testing.assert_identical(run.dataset, again.dataset)


def test_stages_follow_each_other_and_share_the_trainings():
    settings = Settings(batches=(5, 20), n_pairs=2)
    assert certificates.tasks(settings) == {
        "pair=0": Task(batches=5, number=0),
        "pair=1": Task(batches=5, number=1),
        "pair=2": Task(batches=20, number=0),
        "pair=3": Task(batches=20, number=1),
    }


@pytest.mark.parametrize("batches", [(), (3, 2), (2, 2), (0, 5), (-1,)])
def test_stages_that_do_not_rise_are_refused(batches):
    with pytest.raises(ValueError, match="rise, from 1 or more, or be 0 alone"):
        Settings(batches=batches)


def test_a_trained_network_is_that_of_the_evolution(tmp_path):
    settings = certificates.with_digest(TINY.model_copy(update={"batches": (2, 23), "n_pairs": 1}))
    network, found = _connected(settings, "pair=1")
    # An epoch of the digits has 23 batches.
    how = evolution.QUICK.model_copy(update={"network": "convnet", "unit": "epoch", "epoch_stages": (0, 1)})
    trainings = evolution.Trainings(torch.device("cpu"))
    other = trainings.network(evolution.with_digest(how), evolution.Task(training=0, stage=1), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    assert train.accuracy(network, data.load("digits")) > 0.3  # a tenth by chance
    result = campaign.run(certificates.experiment("cpu"), settings, out=tmp_path).dataset
    assert result["batches"].values.tolist() == [2, 23]
    assert not bool((result["sampled"] > result["upper_loss"] * (1 + 1e-9)).any())
    assert float(result["refined"].isel(pair=1, round=0, segment=0)) == pytest.approx(found.curves[0].barrier, rel=1e-6)


def test_other_data_than_the_settings_say_are_refused():
    assert certificates.with_digest(TINY) is TINY  # no data are needed
    settings = TINY.model_copy(update={"batches": (1,), "data_digest": "0123456789abcdef"})
    with pytest.raises(ValueError, match=r"data_digest must be that of digits, .*, got 0123456789abcdef"):
        _connected(settings, "pair=0")


def test_every_variable_says_what_it_is(run):
    for variable in run.dataset.data_vars.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]
    assert run.dataset["class"].values.tolist() == [0, 1]


def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="device must be one that this computer has"):
        certificates.experiment("nowhere")
