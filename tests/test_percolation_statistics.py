"""Holm's correction against a worked example, its definition by rejections, and its promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from percolation import statistics


def test_holm_by_hand():
    # In rising order 0.005, 0.01, 0.03, 0.04, times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04; never falling: 0.06 at the end.
    np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02], rtol=1e-12)
    np.testing.assert_allclose(statistics.holm([0.6, 0.3]), [0.6, 0.6])
    assert statistics.holm([0.9, 0.8]).tolist() == [1, 1]
    assert statistics.holm([0.2]).tolist() == [0.2]
    assert statistics.holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, alpha):
    """Step down: test the smallest at alpha/m, the next at alpha/(m - 1), and stop at the first that is kept."""
    rejected = set()
    for k, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        product = (len(p_values) - k) * p_values[i]
        if abs(product - alpha) < 1e-9:
            return  # a tie that rounding decides
        if product > alpha:
            break
        rejected.add(i)
    assert set(np.flatnonzero(statistics.holm(p_values) <= alpha)) == rejected


def test_holm_keeps_its_promise_where_half_of_the_nulls_are_true():
    # 4,000 families of three true nulls and three false: any true one rejected at 5 % in at most 5 % of them.
    # Five standard errors, 0.0034 each: a false alarm once in some millions.
    rng = np.random.default_rng(0)
    p = np.concatenate([rng.uniform(size=(4000, 3)), rng.uniform(size=(4000, 3)) ** 20], axis=1)
    wrong = np.mean([(statistics.holm(family)[:3] <= 0.05).any() for family in p])
    assert wrong < 0.05 + 5 * 0.0034
    assert wrong > np.mean((p[:, :3] <= 0.05 / 6).any(axis=1))  # sharper than Bonferroni's


@pytest.mark.parametrize(
    "p_values, message",
    [
        ([0.5, 1.5], r"p_values must lie in \[0, 1\], got \[0.5, 1.5\]"),
        ([-0.1], r"p_values must lie in \[0, 1\], got \[-0.1\]"),
        ([float("nan")], r"p_values must lie in \[0, 1\], got \[nan\]"),
        (0.5, r"p_values must be one-dimensional, got shape \(\)"),
    ],
)
def test_holm_refuses_what_is_no_p_value(p_values, message):
    with pytest.raises(ValueError, match=message):
        statistics.holm(p_values)
