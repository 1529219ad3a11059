"""The experiment of Fig. 6: what its result holds, and that it repeats to the bit."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from empirical import models, untrained
from percolation import campaign

TINY = untrained.UntrainedSettings(
    network="convnet", classes=(0, 3), n_networks=2, threshold=0.05, delta=0.1, n_points=64, certify=True
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return campaign.run(untrained.experiment("cpu"), TINY, out=tmp_path_factory.mktemp("runs"))


def test_the_presets_are_the_papers_numbers_and_those_of_its_authors_code():
    paper = untrained.PAPER
    assert (paper.threshold, paper.delta, paper.max_iterations, paper.n_points) == (0.0005, 0.001, 4096, 200)
    assert (paper.learning_rate, paper.weight_decay, paper.high_frequency) == (0.05, 1e-7, 2.5e-7)
    assert (paper.bypass_learning_rate, paper.bypass_iterations, paper.mse) == (0.005, 1024, 0.1)
    assert paper.bypass_high_frequency == 1e-7
    official = untrained.OFFICIAL
    assert (official.max_iterations, official.bypass, official.bypass_learning_rate) == (8192, "free", 0.05)
    assert (official.mse, official.bypass_high_frequency, official.threshold) == (0, 0, 0.0005)
    full = untrained.FULL
    assert full.n_networks * len(full.classes) * full.n_pairs == 1000
    assert untrained.QUICK.network == paper.network == full.network == "resnet18"


def test_the_result_holds_numbers_of_every_pair_and_curves_of_some(finished):
    dataset = finished.dataset
    assert dict(dataset.sizes) == {
        "network": 2,
        "class": 2,
        "pair": 1,
        "round": TINY.max_rounds + 1,
        "segment": 2**TINY.max_rounds,
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
    for name in ("barrier_alpha", "gap", "mean", "length_ratio", "deviation"):
        assert np.array_equal(np.isfinite(dataset[name].values), happened), name
    assert np.array_equal(dataset["segment_loss"].max("segment").values, dataset["barrier"].values, equal_nan=True)
    assert (dataset["mean"].values[happened] <= dataset["barrier"].values[happened]).all()
    assert (dataset["deviation"].values[..., 0] == 0).all()
    counts = np.isfinite(dataset["segment_loss"].values).sum(axis=-1)
    assert np.array_equal(counts > 0, happened)
    assert (np.diff(np.where(happened, counts, 99), axis=-1) > 0)[happened[..., 1:]].all()
    first = {"class": 0, "pair": 0}
    drawn = np.isfinite(dataset["drawn_loss"].values)
    assert np.array_equal(drawn.all(axis=-1), happened[:, 0, 0])
    assert np.array_equal(drawn.any(axis=-1), happened[:, 0, 0])
    peaks = dataset["drawn_loss"].max("point").values
    assert (peaks <= dataset["barrier"].isel(first).values)[happened[:, 0, 0]].all()
    stops = np.isfinite(dataset["drawn_stop_alpha"].values).sum(axis=-1)
    assert np.array_equal(np.maximum(stops - 1, 0), counts[:, 0, 0])
    assert dataset["class"].values.tolist() == [0, 3]


def test_connected_means_that_the_last_path_is_below_delta(finished):
    dataset = finished.dataset
    barriers = dataset["barrier"].values.reshape(-1, TINY.max_rounds + 1)
    last = np.array([row[np.isfinite(row)][-1] for row in barriers])
    connected = dataset["is_connected"].values.astype(bool).reshape(barriers.shape)
    assert np.array_equal(connected[:, -1], last <= TINY.delta)
    assert (connected[:, 1:] >= connected[:, :-1]).all()


def test_the_tree_leads_every_segment_back_to_the_straight_one(finished):
    parents = finished.dataset["segment_parent"].values.reshape(-1, TINY.max_rounds + 1, 2**TINY.max_rounds)
    losses = finished.dataset["segment_loss"].values.reshape(parents.shape)
    for tree, loss in zip(parents, losses, strict=True):
        assert tree[0, 0] == -1
        for i in range(1, len(tree)):
            there = np.isfinite(loss[i])
            if not there.any():
                break
            assert set(tree[i][there]) == set(np.flatnonzero(np.isfinite(loss[i - 1])))
            assert (tree[i][~there] == -1).all()
            for parent, count in zip(*np.unique(tree[i][there], return_counts=True), strict=True):
                assert count == (2 if loss[i - 1, parent] > TINY.delta else 1)


def test_the_images_are_the_inputs_of_the_first_curve(finished):
    dataset = finished.dataset
    a, b, bypass, c = dataset["images"].values
    share = float(dataset["barrier_alpha"][0, 0, 0, 0])
    np.testing.assert_allclose(b, a + share * (c - a), atol=1e-5)
    cosine = np.sum((bypass - b) * (c - a)) / np.linalg.norm(bypass - b) / np.linalg.norm(c - a)
    assert abs(cosine) < 1e-5


def test_certificates_enclose_what_was_sampled(finished):
    dataset = finished.dataset
    sampled = dataset["segment_loss"].values[0, 0, 0]
    there = np.isfinite(sampled)
    lower, upper = dataset["certified_lower"].values, dataset["certified_upper"].values
    assert np.array_equal(np.isfinite(upper), there)
    assert (lower <= upper)[there].all()
    assert (sampled <= upper * (1 + 1e-4))[there].all()  # sampled in float32
    assert (sampled >= lower * (1 - 1e-2))[there].all()  # as near as samples come
    assert (dataset["certified_pieces"].values[there] > 10).all()
    np.testing.assert_allclose(finished.summary["certified_barriers"], np.nanmax(upper[there.any(axis=1)], axis=1))


def test_the_summary_quotes_the_result(finished):
    summary, dataset = finished.summary, finished.dataset
    assert summary["n_pairs"] == 4
    is_low = (dataset["end_loss"].values <= TINY.delta).all(axis=-1)
    assert summary["n_pairs_low_ends"] == is_low.sum() > 0
    for i, row in enumerate(summary["rounds"]):
        barriers = dataset["barrier"].values[..., i][is_low]
        barriers = barriers[np.isfinite(barriers)]
        assert row["round"] == i
        assert row["n_paths"] == len(barriers)
        assert row["barrier_range"] == [barriers.min(), barriers.max()]
        assert row["connected"]["n"] == row["connected_all"]["n"] == int(dataset["is_connected"].isel(round=i).sum())
        assert (row["connected"]["of"], row["connected_all"]["of"]) == (is_low.sum(), 4)
    assert summary["converged"]["C"] == int((dataset["end_loss"].values[..., 1] <= TINY.threshold).sum())
    assert summary["n_gradients"] == int(dataset["n_gradients"].sum() + dataset["iterations"].sum())


def test_the_interval_over_networks_is_that_of_students_t(finished):
    shares = np.array([1.0, 0.5, 0.75, 0.75])
    expected = stats.ttest_1samp(shares, 0).confidence_interval(0.95)
    assert untrained._interval(shares) == [pytest.approx(expected.low), 1]
    for alike in (shares[:1], shares[2:]):
        assert np.isnan(untrained._interval(alike)).all()


def test_where_every_network_connects_all_the_interval_is_wilsons_of_networks():
    # Wilson's lower end for n of n is n / (n + z^2), z^2 = 3.841459; for 0 of n, the upper is z^2 / (n + z^2).
    assert untrained._interval(np.ones(20)) == [pytest.approx(20 / 23.841459, abs=1e-7), 1]
    assert untrained._interval(np.zeros(20)) == [0, pytest.approx(3.841459 / 23.841459, abs=1e-7)]


def test_a_pair_with_an_end_above_delta_tells_of_the_optimiser_alone(finished):
    """Made-up: such pairs never connect and have the highest barriers; no number but those of all pairs sees them."""
    dataset = finished.dataset.copy(deep=True)
    dataset["end_loss"][:, 0, 0, 0] = 2 * TINY.delta
    dataset["end_loss"][0, 0, 0, 1] = TINY.delta  # at most delta: no pair is lost by this one
    dataset["end_loss"][0, 1, :, 1] = TINY.delta
    dataset["is_connected"][:, 0, 0] = False
    dataset["is_connected"][:, 1, 0, -1] = True
    dataset["barrier"][:, 0, 0] = 99
    rows = untrained.by_round(dataset, TINY.delta)
    assert [row["connected"]["of"] for row in rows] == [2] * len(rows)
    assert (rows[-1]["connected_all"]["n"], rows[-1]["connected_all"]["of"]) == (rows[-1]["connected"]["n"], 4)
    assert max(row["barrier_range"][1] for row in rows) < 99
    last = untrained.by_round(dataset.isel(round=slice(TINY.max_rounds, None)), TINY.delta)[0]
    assert last["connected"]["n"] == 2
    assert last["over_networks"] == [pytest.approx(2 / 5.841459, abs=1e-7), 1]


@given(st.integers(0, 40), st.integers(0, 40))
def test_the_wilson_interval_solves_its_equation(n, more):
    found = untrained.share(n, n + more)
    if n + more == 0:
        assert np.isnan(found["share"])
        return
    # Wilson: the ends are the p with (share - p)^2 = z^2 p (1 - p) / n, z = 1.959964.
    for end in (found["low"], found["high"]):
        assert abs((found["share"] - end) ** 2 - 1.959963984540054**2 * end * (1 - end) / found["of"]) < 1e-9
    assert found["low"] - 1e-12 <= found["share"] <= found["high"] + 1e-12


def test_the_same_settings_give_the_same_bits_with_any_number_of_workers(finished, tmp_path):
    again = campaign.run(untrained.experiment("cpu"), TINY, out=tmp_path, n_workers=2)
    assert again.dataset.identical(finished.dataset)
    assert again.summary == finished.summary


def test_a_pair_is_shifted_by_no_other(finished, tmp_path):
    fewer = TINY.model_copy(update={"classes": (3,), "n_networks": 1, "certify": False})
    one = campaign.run(untrained.experiment("cpu"), fewer, out=tmp_path).dataset
    kept = finished.dataset.isel(network=0).sel({"class": 3})
    # Another batch: rounding only, see empirical.synthesis.
    np.testing.assert_allclose(one["barrier"].values[0, 0, :, 0], kept["barrier"].values[..., 0], rtol=0.05)
    np.testing.assert_allclose(one["iterations"].values[0, 0], kept["iterations"].values, atol=2)


def test_the_penalty_on_high_frequencies_is_on_a_alone(finished, tmp_path):
    change = {"n_networks": 1, "high_frequency": 1e-3, "max_rounds": 1, "certify": False}
    found = campaign.run(untrained.experiment("cpu"), TINY.model_copy(update=change), out=tmp_path).dataset
    assert not np.array_equal(found["end_loss"][..., 0], finished.dataset["end_loss"][:1, ..., 0])
    assert np.array_equal(found["iterations"][..., 1], finished.dataset["iterations"][:1, ..., 1])
    variation = [np.abs(np.diff(image, axis=-1)).mean() for image in found["images"].values]
    assert variation[0] < 0.9 * variation[3]


def test_inputs_that_did_not_converge_are_reported_as_such(tmp_path):
    change = {"classes": (0,), "n_networks": 1, "max_iterations": 2, "bypass_iterations": 2, "max_rounds": 2}
    found = campaign.run(untrained.experiment("cpu"), TINY.model_copy(update=change), out=tmp_path)
    assert found.summary["converged"] == {"A": 0, "C": 0}
    assert found.summary["rounds"][-1]["connected_all"]["n"] == 0
    assert found.summary["rounds"][-1]["connected"] == {
        "n": 0,
        "of": 0,
        "share": None,
        "low": None,
        "high": None,
    }


def test_the_last_layer_is_scaled_until_logits_spread_as_at_another_size():
    seed, cpu = campaign.seed_sequence(0, "network=0"), torch.device("cpu")
    settings = untrained.UntrainedSettings(width=8, image_size=16)
    plain, scaled, same = (
        untrained.build(settings.model_copy(update={"logits_as_at": size}), seed, cpu) for size in (None, 32, 16)
    )
    factor = (scaled.fc.weight[0, 0] / plain.fc.weight[0, 0]).item()
    assert factor > 1.2  # logits grow with the size
    for (name, before), after, kept in zip(
        plain.named_parameters(), scaled.parameters(), same.parameters(), strict=True
    ):
        torch.testing.assert_close(after, before * (factor if name == "fc.weight" else 1))
        assert torch.equal(kept, before)

    def spread(network, size):
        images = torch.randn(512, 3, size, size, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            logits = network(images) - network.fc.bias
        return float((logits - logits.mean(dim=1, keepdim=True)).square().mean().sqrt())

    # other images than the factor was found with
    assert spread(scaled, 16) == pytest.approx(spread(plain, 32), rel=0.03)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"threshold": 0.01, "delta": 0.01}, "threshold must be below delta = 0.01, got 0.01"),
        ({"n_points": 30, "max_rounds": 4}, "n_points must be at least 32, 2 for each possible segment, got 30"),
        ({"network": "vgg"}, "Input should be 'resnet18', 'resnet18_cifar' or 'convnet'"),
        ({"network": "convnet", "width": 8}, "width, blocks and image_size must be left at 64, 2 and 32 for a convnet"),
        ({"network": "convnet", "logits_as_at": 32}, "logits_as_at must be left out for a convnet"),
        ({"classes": (1, 0)}, r"classes\n.*rise, from 0 to 9"),
        ({"classes": (10,)}, r"classes\n.*rise, from 0 to 9"),
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_connects_as_a_cpu_does():
    """The optimisation is chaotic in the last bits: barriers agree to a few percent."""
    seed = np.random.SeedSequence(0)
    here, there = (
        untrained.run_network(TINY, seed, models.check_device(name), certify=True) for name in ("cpu", "cuda")
    )
    assert np.array_equal(here["converged"], there["converged"])
    np.testing.assert_allclose(there["barrier"][..., 0], here["barrier"][..., 0], rtol=0.1)
    np.testing.assert_allclose(there["certified_upper"][0, 0], here["certified_upper"][0, 0], rtol=0.1)
