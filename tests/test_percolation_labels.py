"""The intervals of Eq. 4."""

import numpy as np
import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from percolation import labels


@given(strategies.deltas())
def test_intervals_cover_the_unit_interval_with_steps_of_half_their_length(delta):
    found = labels.intervals(delta)
    assert len(found) == round(2 / delta) - 1
    np.testing.assert_allclose(found[:, 1] - found[:, 0], delta, rtol=1e-12)
    np.testing.assert_allclose(np.diff(found[:, 0]), delta / 2, rtol=1e-9)
    assert found[0, 0] == 0
    assert found[-1, 1] == 1


@given(strategies.deltas(), st.floats(0, 1), st.floats(0, 1))
def test_two_values_share_an_interval_exactly_when_their_cells_differ_by_at_most_one(delta, x, y):
    grid = np.array([x, y]) * round(2 / delta)
    if np.any(np.abs(grid - np.round(grid)) < 1e-6):
        return  # on an end of an interval a value lies in three of them; the statement is about the others
    low, high = labels.intervals(delta).T
    shared = np.any((low <= min(x, y)) & (max(x, y) <= high))
    cells = labels.cells([x, y], delta)
    is_near = abs(int(cells[0]) - int(cells[1])) <= 1
    # delta = 1 has one interval only, which everything shares
    assert shared == is_near


@given(strategies.deltas(), st.floats(0, 1), st.floats(0, 1))
def test_carried_labels_are_those_whose_interval_holds_the_whole_range(delta, x, y):
    lowest, highest = min(x, y), max(x, y)
    grid = np.array([x, y]) * round(2 / delta)
    if np.any(np.abs(grid - np.round(grid)) < 1e-6):
        return
    low, high = labels.intervals(delta).T
    expected = np.flatnonzero((low <= lowest) & (highest <= high))
    first, last = labels.carried(lowest, highest, delta)
    assert list(range(int(first), int(last) + 1)) == expected.tolist()


@given(strategies.deltas(), st.floats(0, 1), st.floats(0, 0.49))
def test_a_range_shorter_than_half_an_interval_is_always_carried(delta, start, share):
    lowest = start * (1 - share * delta)
    first, last = labels.carried(lowest, lowest + share * delta, delta)
    assert first <= last


def test_interior_label_has_probability_delta():
    # 200,000 uniform values, binomial standard error 0.0009 at delta = 0.2: five of them, false alarm 6e-7
    cells = labels.cells(np.random.default_rng(0).random(200_000), 0.2)
    carries = np.mean((cells == 4) | (cells == 5))  # label 4
    assert abs(carries - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 200_000)


@pytest.mark.parametrize("delta", [0.0, -0.1, 0.3, 1.5, 0.7])
def test_delta_that_does_not_divide_one_is_refused(delta):
    with pytest.raises(ValueError, match=r"delta must be 1/n for a whole number n, got"):
        labels.n_cells(delta)


def test_values_outside_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match=r"values must lie in \[0, 1\], got 1.5"):
        labels.cells([0.5, 1.5], 0.5)
    with pytest.raises(ValueError, match=r"lowest must lie in \[0, 1\], got nan"):
        labels.carried(float("nan"), 0.5, 0.5)
    with pytest.raises(ValueError, match="lowest must be at most highest"):
        labels.carried(0.6, 0.5, 0.5)
