"""Norms of dense matrices, from above and from below."""

import math
from fractions import Fraction

import numpy as np
import oracles
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipschitz import norms

NORMS = (1, 2, math.inf)


def test_oracle_knows_a_matrix_worked_out_by_hand():
    matrix = np.array([[3.0, 0.0], [4.0, 5.0]])  # A A^T = [[9, 12], [12, 41]], largest eigenvalue 45
    assert oracles.is_at_least_spectral_norm(math.nextafter(math.sqrt(45), 7), matrix)
    assert not oracles.is_at_least_spectral_norm(math.nextafter(math.sqrt(45), 6), matrix)
    assert oracles.is_at_least_spectral_norm(5.0, np.diag([5.0, -5.0]))
    assert not oracles.is_at_least_spectral_norm(math.nextafter(5.0, 0), np.diag([5.0, -5.0]))


@given(strategies.matrices(max_side=5))
@settings(max_examples=200)
def test_spectral_bounds_hold_in_rational_arithmetic(matrix):
    bound = norms.bound_norm(matrix)
    assert oracles.is_at_least_spectral_norm(bound.upper, matrix)
    assert bound.lower == 0 or not oracles.is_at_least_spectral_norm(math.nextafter(bound.lower, 0), matrix)


@given(strategies.matrices(max_side=5), st.integers(0, 3))
@settings(max_examples=100)
def test_spectral_bounds_hold_however_few_the_squarings(matrix, max_squarings):
    bound = norms.bound_norm(matrix, max_squarings=max_squarings)
    assert oracles.is_at_least_spectral_norm(bound.upper, matrix)
    assert bound.lower == 0 or not oracles.is_at_least_spectral_norm(math.nextafter(bound.lower, 0), matrix)


@given(strategies.matrices(max_side=12))
@settings(max_examples=200)
def test_spectral_bounds_enclose_the_largest_singular_value_tightly(matrix):
    scale = np.abs(matrix).max() or 1.0
    truth = np.linalg.svd(matrix / scale, compute_uv=False)[0]
    bound = norms.bound_norm(matrix)
    assert bound.relative_gap <= 1e-8
    # LAPACK's own error is a few units of rounding.
    assert abs(bound.upper / scale - truth) <= 2e-8 * truth
    assert bound.lower <= bound.upper


@given(strategies.matrices(max_side=12), st.sampled_from((1, math.inf)))
def test_sums_agree_with_numpy_and_enclose(matrix, norm):
    truth = np.linalg.norm(matrix, norm)
    bound = norms.bound_norm(matrix, norm=norm)
    assert bound.lower <= truth <= bound.upper
    assert bound.relative_gap <= 1e-14
    exact = max(math.fsum(np.abs(line)) for line in (matrix if norm == math.inf else matrix.T))
    assert bound.lower <= exact <= bound.upper


@given(strategies.matrices(), st.integers(-300, 300), st.sampled_from(NORMS))
def test_a_power_of_two_comes_out_as_it_went_in(matrix, exponent, norm):
    plain, scaled = (norms.bound_norm(factor * matrix, norm=norm) for factor in (1.0, 2.0**exponent))
    assert scaled.upper == pytest.approx(2.0**exponent * plain.upper, rel=1e-15, abs=0)
    assert scaled.lower == pytest.approx(2.0**exponent * plain.lower, rel=1e-15, abs=0)


@pytest.mark.parametrize("norm", NORMS)
def test_exact_norms_of_simple_matrices(norm):
    cases = [
        (np.diag([3.0, -7.0, 0.0]), {1: 7, 2: 7, math.inf: 7}),
        (np.array([[3.0, 4.0]]), {1: 4, 2: 5, math.inf: 7}),
        (np.array([[3.0], [4.0]]), {1: 7, 2: 5, math.inf: 4}),
        (np.outer([1.0, 2.0, 2.0], [3.0, 4.0]), {1: 20, 2: 15, math.inf: 14}),
        (np.array([[0.6, -0.8], [0.8, 0.6]]) * 1e200, {1: 1.4e200, 2: 1e200, math.inf: 1.4e200}),
        (np.array([[0.6, -0.8], [0.8, 0.6]]) * 1e-200, {1: 1.4e-200, 2: 1e-200, math.inf: 1.4e-200}),
    ]
    for matrix, truth in cases:
        bound = norms.bound_norm(matrix, norm=norm)
        # 0.6 and 0.8 are rounded: their norms are those to a few units of rounding only.
        assert bound.lower * (1 - 1e-15) <= truth[norm] <= bound.upper * (1 + 1e-15)
        assert bound.relative_gap <= 1e-8
        assert (bound.norm, bound.is_certified) == (norm, True)


@pytest.mark.parametrize("norm", NORMS)
def test_zero_matrix_has_norm_zero(norm):
    bound = norms.bound_norm(np.zeros((3, 4)), norm=norm)
    assert (bound.lower, bound.upper, bound.relative_gap) == (0.0, 0.0, 0.0)


def test_subnormal_matrix_is_bounded():
    bound = norms.bound_norm(np.full((3, 4), 5e-324))
    assert bound.lower <= math.sqrt(12) * 5e-324 <= bound.upper


def test_equal_singular_values_are_tight_after_one_squaring():
    orthogonal = np.linalg.qr(np.random.default_rng(1).standard_normal((64, 64)))[0]
    bound = norms.bound_norm(orthogonal, max_squarings=1)
    assert bound.lower <= 1 + 1e-14
    assert bound.upper >= 1 - 1e-14
    assert bound.relative_gap <= 1e-10


@pytest.mark.parametrize("n_rows", [1, 2, 3])
@pytest.mark.parametrize("max_squarings", [0, 1, 3])
def test_small_entries_that_rounding_swallows_are_counted(n_rows, max_squarings):
    # 1 + 2^-54 rounds to 1: sums of squares of this row come out too small wherever they start from the one.
    row = np.full(4097, 2.0**-27)
    row[0] = 1.0
    matrix = np.outer((-1.0) ** np.arange(n_rows), row)
    exact = n_rows * (1 + 4096 * Fraction(2) ** -54)  # of the squared norm
    bound = norms.bound_norm(matrix, tolerance=1e-15, max_squarings=max_squarings)
    assert Fraction(bound.lower) ** 2 <= exact <= Fraction(bound.upper) ** 2
    assert bound.relative_gap <= 1e-11


def test_excess_of_the_frobenius_norm_halves_in_the_logarithm():
    matrix = np.random.default_rng(0).standard_normal((40, 60))
    truth = np.linalg.norm(matrix, 2)
    for max_squarings in range(5):
        excess = math.log(norms.bound_norm(matrix, max_squarings=max_squarings).upper / truth)
        assert 0 <= excess <= math.log(40) / 2 ** (max_squarings + 1)


def test_large_gaussian_is_tight():
    matrix = np.random.default_rng(0).standard_normal((400, 900))
    truth = math.sqrt(np.linalg.eigvalsh(matrix @ matrix.T)[-1])
    bound = norms.bound_norm(matrix)
    assert bound.relative_gap <= 1e-8
    assert bound.lower * (1 - 1e-13) <= truth <= bound.upper * (1 + 1e-13)


@pytest.mark.parametrize("norm", NORMS)
def test_transpose_swaps_one_and_inf(norm):
    matrix = np.random.default_rng(2).standard_normal((7, 3))
    dual = {1: math.inf, 2: 2, math.inf: 1}[norm]
    one, other = norms.bound_norm(matrix, norm=norm), norms.bound_norm(matrix.T, norm=dual)
    assert one.upper == pytest.approx(other.upper, rel=1e-15)


def test_float32_is_widened_exactly_and_left_alone():
    matrix = np.random.default_rng(3).standard_normal((5, 6)).astype(np.float32)
    before = matrix.copy()
    assert norms.bound_norm(matrix) == norms.bound_norm(matrix.astype(np.float64))
    np.testing.assert_array_equal(matrix, before)
    assert matrix.dtype == np.float32


def test_float64_input_is_not_changed():
    matrix = np.random.default_rng(4).standard_normal((5, 6))
    matrix.flags.writeable = False
    norms.bound_norm(matrix)


@pytest.mark.parametrize(
    "matrix, keywords, kind, message",
    [
        ([[1.0]], {"norm": 3}, ValueError, r"^norm must be 1, 2 or inf, got 3$"),
        ([[1.0]], {"tolerance": 0.0}, ValueError, r"^tolerance must lie in \(0, 1\), got 0.0$"),
        ([[1.0]], {"max_squarings": -1}, ValueError, r"^max_squarings must be at least 0, got -1$"),
        ([[1.0, math.nan]], {}, ValueError, r"^matrix must hold finite numbers, got nan$"),
        ([[1.0, -math.inf]], {}, ValueError, r"^matrix must hold finite numbers, got -inf$"),
        ([1.0], {}, ValueError, r"^matrix must have two axes, neither of them empty, got shape \(1,\)$"),
        (np.zeros((0, 3)), {}, ValueError, r"neither of them empty, got shape \(0, 3\)$"),
        ([[1]], {}, TypeError, r"^matrix must hold floating-point numbers of at most 64 bits, got int64$"),
        ([[1j]], {}, TypeError, r"got complex128$"),
    ],
)
def test_bad_input_is_refused_in_one_line(matrix, keywords, kind, message):
    with pytest.raises(kind, match=message):
        norms.bound_norm(matrix, **keywords)


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_a_norm_beyond_float64_is_infinite(norm):
    bound = norms.bound_norm(np.full((2, 2), 1.7e308), norm=norm)
    assert (bound.upper, bound.lower, bound.relative_gap) == (math.inf, np.finfo(float).max, 1.0)


@given(st.lists(st.lists(strategies.numbers_of_any_scale(), min_size=3, max_size=3), min_size=1, max_size=3))
@settings(max_examples=200)
def test_lengths_are_right_at_any_scale(rows):
    squares = [sum(Fraction(number) ** 2 for number in row) for row in rows]
    for square, length, upper in zip(
        squares,
        norms.length(torch.tensor(rows, dtype=torch.float64)).tolist(),
        norms.upper_length(torch.tensor(rows, dtype=torch.float64)).tolist(),
        strict=True,
    ):
        assert upper == math.inf or Fraction(upper) ** 2 >= square
        assert (upper == 0.0) == (square == 0)
        if 1e-300 < length < math.inf:
            assert abs(Fraction(length) ** 2 / square - 1) < Fraction(1, 2**48)


def test_lengths_of_what_is_not_finite_are_infinite():
    values = torch.tensor([[1.0, math.nan], [math.inf, 1.0], [-math.inf, 0.0]], dtype=torch.float64)
    assert norms.upper_length(values).tolist() == [math.inf] * 3
