"""Connectivity against the size of a network: what is changed, what is kept equal, what is summarised."""

import numpy as np
import pytest

from empirical import scaling, untrained
from percolation import campaign

TINY = scaling.QUICK.model_copy(
    update={
        "image_sizes": (8,),
        "scaled_sizes": (16,),
        "widths": (8,),
        "blocks": (),
        "bypasses": ("free",),
        "classes": (0, 4),
        "threshold": 0.5,
        "delta": 1.0,
        "max_iterations": 60,
        "max_rounds": 1,
    }
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return campaign.run(scaling.experiment("cpu"), TINY, out=tmp_path_factory.mktemp("runs"))


def test_the_base_stands_first_and_every_kind_differs_in_one_thing(finished):
    dataset = finished.dataset
    assert dataset["changed"].values.tolist() == [scaling.BASE, "image_size", "scaled_size", "width", "bypass"]
    assert dataset["value"].values.tolist() == ["", "8", "16", "8", "free"]
    assert dict(dataset.sizes) == {"kind": 5, "network": 1, "class": 2, "pair": 1, "round": 2, "end": 2}
    base = untrained.UntrainedSettings().model_dump()
    tasks = scaling._tasks(scaling.FULL)
    for task in tasks:
        found = scaling._with(scaling.FULL, task).model_dump()
        common = {"threshold", "delta", "max_rounds", "precision"}
        different = {name for name, value in found.items() if value != base[name]} - common
        changed = {"image_size", "logits_as_at"} if task.changed == scaling.SCALED else {task.changed}
        assert different == changed - {scaling.BASE}, task
    assert len({(task.changed, task.value) for task in tasks}) == len(tasks) // scaling.FULL.n_networks == 29


def test_kinds_share_the_seeds_of_their_networks(finished):
    # The bypass comes after the ends: with or without its projection they are the same.
    ends = finished.dataset[["iterations", "converged"]]
    base, free = ends.isel(kind=0), ends.isel(kind=4)
    assert base.drop_vars(("changed", "value")).equals(free.drop_vars(("changed", "value")))
    barriers = finished.dataset["barrier"]
    assert np.array_equal(barriers[0, ..., 0], barriers[4, ..., 0])
    assert not np.array_equal(barriers[0, ..., 0], barriers[1, ..., 0])


def test_the_summary_quotes_the_result(finished):
    for i, row in enumerate(finished.summary["rows"]):
        one = finished.dataset.isel(kind=i)
        assert row["n_pairs"] == 2
        is_low = one["low_ends"].values
        assert row["n_converged"] == int(one["converged"].all("end").sum()) <= row["n_low_ends"] == is_low.sum()
        # Only pairs of low ends can be connected.
        assert [part["n"] for part in row["connected"]] == one["is_connected"].sum(
            ("network", "class", "pair")
        ).values.tolist()
        assert {part["of"] for part in row["connected"]} == {is_low.sum()}
        if is_low.any():
            median = np.median(one["barrier"].values[..., 0][is_low])
            np.testing.assert_allclose(row["primary_quartiles"][1], median, rtol=1e-6)


def test_low_ends_are_those_of_the_networks_own_losses(finished):
    task = scaling._tasks(TINY)[3]
    found = scaling.experiment("cpu").run_task(TINY, task, campaign.seed_sequence(0, "of no weight"))
    low = (found["end_loss"] <= TINY.delta).all(axis=-1)
    assert np.array_equal(finished.dataset["low_ends"].values[3, 0], low)


def test_the_same_bits_with_any_number_of_workers(finished, tmp_path):
    again = campaign.run(scaling.experiment("cpu"), TINY, out=tmp_path, n_workers=2)
    assert again.dataset.identical(finished.dataset)
