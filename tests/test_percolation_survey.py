"""Thresholds of many lattices in one run, and the first dimension in which a label percolates."""

import numpy as np
import pytest
import xarray as xr

from percolation import campaign, survey, threshold

SMALL = survey.Settings(dimensions=(2, 5, 9), invaded=2**18, seed=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return campaign.run(survey.EXPERIMENT, SMALL, out=tmp_path_factory.mktemp("runs"), n_workers=2)


def test_every_lattice_has_its_runs_and_its_threshold(finished):
    rows = finished.summary["rows"]
    assert [(row["kind"], row["dimension"]) for row in rows] == [(k, d) for k in ("site", "bond") for d in (2, 5, 9)]
    for row in rows:
        assert row["n_runs"] == 8
        assert row["invaded"] == 2**18
        published, error, _ = threshold.PUBLISHED[row["kind"]][row["dimension"]]
        assert (row["published"], row["published_error"]) == (published, error)
        # Student's t of 7 degrees of freedom: 6 tests at 8 standard errors, false alarm 5e-4
        assert abs(row["p_c"] - published) < 8 * row["standard_error"]


def test_runs_are_as_long_as_asked_and_as_fits():
    lengths = {
        (task.lattice.dimension, task.lattice.kind): task.invaded
        for task in survey.tasks(survey.Settings(invaded=2**27)).values()
    }
    assert lengths[3, "site"] == 2**23
    assert lengths[20, "site"] == 2**20  # 39 new sites an invaded one: 0.4 GB
    assert lengths[20, "bond"] == 2**23
    total = dict.fromkeys(lengths, 0)
    for task in survey.tasks(survey.Settings(invaded=2**27)).values():
        total[task.lattice.dimension, task.lattice.kind] += task.invaded
    assert set(total.values()) == {2**27}


def made(dimensions, values, error=1e-6):
    return xr.Dataset(
        {
            "p_c": (("kind", "dimension"), [values]),
            "standard_error": (("kind", "dimension"), [np.full(len(values), error)]),
        },
        coords={"kind": ["site"], "dimension": list(dimensions)},
    )


def test_published_thresholds_say_that_one_label_of_k_first_percolates_in_k_half_plus_two_dimensions():
    published = made(range(2, 14), [threshold.PUBLISHED["site"][d][0] for d in range(2, 14)])
    labels = survey.first_dimensions(published)
    assert [row["labels"] for row in labels] == list(range(2, 24))
    for row in labels:
        assert row["first"] == row["expected"] == row["labels"] // 2 + 2


def test_what_the_thresholds_do_not_decide_is_left_open():
    assert survey.first_dimensions(made((2, 3), (0.59, 0.31)))[0]["first"] == 3
    assert survey.first_dimensions(made((2, 3), (0.59, 0.31), error=0.1))[0]["first"] is None  # 1/2 is too near
    assert survey.first_dimensions(made((2, 3), (0.59, 0.31)))[5]["first"] is None  # K = 7 needs more dimensions
    assert survey.first_dimensions(made((2, 4), (0.59, 0.19)))[1]["first"] is None  # d = 3 was not looked at
