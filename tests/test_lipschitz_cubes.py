"""Cube sides, Eqs. 13-14, and what the intervals of Eq. 4 ask of them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lipschitz import cubes

NORMS = (1, 2, math.inf)


def intervals(n):
    """Eq. 4 for delta = 1/n, exactly."""
    return [(Fraction(k, 2 * n), Fraction(k + 2, 2 * n)) for k in range(2 * n - 1)]


def labels(lowest, highest, n):
    return {k for k, (start, end) in enumerate(intervals(n)) if start <= lowest and highest <= end}


@given(
    st.floats(1e-6, 1e12), st.integers(1, 10_000), st.integers(2, 1000), st.floats(0.01, 0.99), st.sampled_from(NORMS)
)
def test_epsilon_and_side_are_equations_13_and_14_and_never_too_large(upper, dimension, n, part, norm):
    delta = 1 / n
    delta_prime = part * delta
    cut = cubes.cut_cubes(upper, dimension=dimension, delta=delta, delta_prime=delta_prime, norm=norm)
    exact = (Fraction(delta) - Fraction(delta_prime)) / Fraction(upper)
    assert exact * (1 - Fraction(1, 10**14)) < Fraction(cut.epsilon) <= exact
    # Corner to corner in the norm: s d^(1/p).
    corner = {1: Fraction(cut.side) * dimension, math.inf: Fraction(cut.side)}
    if norm == 2:
        assert Fraction(cut.side) ** 2 * dimension <= Fraction(cut.epsilon) ** 2
        assert cut.side == pytest.approx(cut.epsilon / math.sqrt(dimension), rel=1e-14)
    else:
        assert Fraction(cut.epsilon) * (1 - Fraction(1, 10**14)) < corner[norm] <= Fraction(cut.epsilon)
    assert Fraction(cut.upper_range) >= Fraction(delta) - Fraction(delta_prime)


@pytest.mark.parametrize("upper", [1e-320, 1e-300, 1e300, 1e307])
@pytest.mark.parametrize("norm", NORMS)
def test_cubes_of_extreme_bounds_are_never_too_large(upper, norm):
    cut = cubes.cut_cubes(upper, dimension=7, delta=0.5, delta_prime=0.25, norm=norm)
    assert 0 < Fraction(cut.epsilon) <= Fraction(1, 4) / Fraction(upper)
    assert 0 < Fraction(cut.side) <= Fraction(cut.epsilon)
    assert Fraction(cut.side) ** 2 * 7 <= Fraction(cut.epsilon) ** 2 or norm == math.inf


def test_numbers_of_float32_do_not_make_float32_of_the_cubes():
    cut = cubes.cut_cubes(np.float32(0.3), dimension=3, delta=np.float32(0.25), delta_prime=np.float32(0.2), norm=1)
    width = Fraction(1, 4) - Fraction(float(np.float32(0.2)))
    assert Fraction(float(cut.epsilon)) <= width / Fraction(float(np.float32(0.3)))
    assert Fraction(float(cut.upper_range)) >= width


def test_worked_example():
    cut = cubes.cut_cubes(2.0, dimension=4, delta=0.5, delta_prime=0.25)
    assert cut.epsilon == pytest.approx(0.125, rel=1e-15)
    assert cut.side == pytest.approx(0.0625, rel=1e-15)
    assert (cut.norm, cut.dimension, cut.is_labelled) == (2, 4, True)
    by_maximum = cubes.cut_cubes(2.0, dimension=4, delta=0.5, delta_prime=0.25, norm=math.inf)
    assert by_maximum.side == pytest.approx(0.125, rel=1e-15)  # the whole side, not its half


@given(st.integers(2, 30), st.fractions(0, 1), st.fractions(0, 1))
def test_values_within_half_delta_lie_in_an_interval(n, lowest, part):
    highest = min(Fraction(1), lowest + part * Fraction(1, 2 * n))
    assert labels(lowest, highest, n)


@given(st.integers(2, 30), st.data())
def test_half_delta_is_the_best_constant(n, data):
    k = data.draw(st.integers(0, 2 * n - 3))
    t = data.draw(st.fractions(0, 1).filter(bool)) / (10 * n)
    assert not labels(Fraction(k + 1, 2 * n) - t, Fraction(k + 2, 2 * n) + t, n)


@given(st.integers(2, 30), st.data())
def test_inputs_that_differ_by_little_share_an_interval_with_the_cubes_as_cut(n, data):
    delta = Fraction(1, n)
    difference = data.draw(st.fractions(0, 1)) * delta / 2
    delta_prime = Fraction(3, 4) * delta + difference / 2  # delta_prime_that_shares, exactly
    width = delta - delta_prime
    f0 = data.draw(st.fractions(0, 1))
    f1 = min(Fraction(1), max(Fraction(0), f0 + data.draw(st.fractions(-1, 1)) * difference))
    shared = set(range(2 * n))
    for value in (f0, f1):
        # Any range of the cube's width that holds the value.
        below = data.draw(st.fractions(0, 1)) * width
        shared &= labels(max(Fraction(0), value - below), min(Fraction(1), value + width - below), n)
    assert shared


@given(st.integers(2, 30), st.fractions(Fraction(1, 100), Fraction(99, 100)))
def test_the_paper_s_choice_does_not_make_its_sentence_certain(n, part):
    # Below Eq. 14: |f(x0) - f(x1)| <= delta' and cubes of range delta - delta'. Together they may span more than delta.
    delta = Fraction(1, n)
    delta_prime = part * delta
    width = delta - delta_prime
    f0 = width
    f1 = f0 + delta_prime
    assert f1 + width > delta
    assert not labels(f0 - width, f0, n) & labels(f1, f1 + width, n)


@given(st.integers(2, 1000), st.floats(0, 0.99))
def test_delta_prime_that_shares_is_undone_by_the_cubes(n, part):
    delta = 1 / n
    difference = part * delta / 2
    delta_prime = cubes.delta_prime_that_shares(delta, difference)
    cut = cubes.cut_cubes(1.0, dimension=3, delta=delta, delta_prime=delta_prime)
    assert difference <= cut.lower_shared_difference <= difference + 1e-14 * delta
    assert cut.is_labelled


@pytest.mark.parametrize("delta_prime, is_labelled", [(0.05, True), (0.0499, False), (0.09, True)])
def test_every_cube_is_labelled_from_half_delta_on(delta_prime, is_labelled):
    cut = cubes.cut_cubes(1.0, dimension=3, delta=0.1, delta_prime=delta_prime)
    assert cut.is_labelled is is_labelled
    if delta_prime < 0.075:
        assert cut.lower_shared_difference == 0.0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"upper": 0.0}, r"^upper must be positive and finite, got 0.0$"),
        ({"upper": math.inf}, r"^upper must be positive and finite, got inf$"),
        (
            {"upper": 1e308, "dimension": 10**40, "norm": 1},
            r"^upper must leave the cubes a side that float64 holds, got ",
        ),
        ({"dimension": 0}, r"^dimension must be at least 1, got 0$"),
        ({"delta": 0.0}, r"^delta must lie in \(0, 1/2\], got 0.0$"),
        ({"delta": 1.0}, r"^delta must lie in \(0, 1/2\], got 1.0$"),
        ({"delta": 0.3}, r"^delta must be 1 over a whole number, got 0.3$"),
        ({"delta_prime": 0.1}, r"^delta_prime must lie in \(0, delta\) = \(0, 0.1\), got 0.1$"),
        ({"norm": 3}, r"^norm must be 1, 2 or inf, got 3$"),
    ],
)
def test_bad_numbers_are_refused(changes, message):
    keywords = {"upper": 1.0, "dimension": 3, "delta": 0.1, "delta_prime": 0.05} | changes
    with pytest.raises(ValueError, match=message):
        cubes.cut_cubes(keywords.pop("upper"), **keywords)


@pytest.mark.parametrize("difference", [-0.01, 0.05, math.nan])
def test_differences_beyond_half_delta_cannot_be_shared_for_certain(difference):
    with pytest.raises(ValueError, match=r"^difference must lie in \[0, delta / 2\) = \[0, 0.05\), got "):
        cubes.delta_prime_that_shares(0.1, difference)
