"""Lattice animals and the probabilities of finite clusters: enumeration, exact identities, simulation."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import mpmath
import numpy as np
import oracles
import pytest
import references
import scipy.stats
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from percolation import animals, finite_clusters, growth, meanfield

LARGEST = animals.MAX_SITES
SIZES = range(1, LARGEST + 1)


def counts_by_perimeter(dimension, n_sites):
    """a(n, t) of Z^d from the table of proper animals."""
    found = Counter()
    for (n, k), row in animals.COUNTS.items():
        if n == n_sites and k <= dimension:
            for perimeter, number in row.items():
                found[perimeter + 2 * (dimension - k) * n] += math.comb(dimension, k) * number
    return found


def test_the_table_is_what_the_enumeration_counts():
    recounted = animals.count(7)
    assert recounted == {key: row for key, row in animals.COUNTS.items() if key[0] <= 7}
    assert max(n for n, _ in animals.COUNTS) == LARGEST


@pytest.mark.parametrize("dimension, n_sites", [(1, 7), (2, 7), (3, 6), (4, 5), (5, 4), (7, 3)])
def test_counts_by_perimeter_match_exhaustive_enumeration(dimension, n_sites):
    for n in range(1, n_sites + 1):
        rooted = Counter(len(oracles.neighbours(animal)) for animal in oracles.animals(dimension, n))
        assert {t: n * number for t, number in counts_by_perimeter(dimension, n).items()} == rooted


@pytest.mark.parametrize("dimension", range(1, 14))
def test_below_the_threshold_all_clusters_are_finite(dimension):
    """sum_n n p^(n-1) sum_t a(n, t) (1-p)^t = 1 for small p: every coefficient of p, up to the largest n counted."""
    coefficients = [0] * LARGEST
    for n in SIZES:
        for perimeter, number in counts_by_perimeter(dimension, n).items():
            for power in range(LARGEST - n + 1):
                coefficients[n - 1 + power] += n * number * (-1) ** power * math.comb(perimeter, power)
    assert coefficients == [1] + [0] * (LARGEST - 1)


def test_totals_are_the_published_ones():
    proper = {key: sum(row.values()) for key, row in animals.COUNTS.items()}
    for n in SIZES[1:]:
        assert proper[n, n - 1] == round(2 ** (n - 1) * Fraction(n) ** (n - 3))  # trees, one new axis a site
    published, _ = references.PROPER_POLYCUBES_3D
    assert [proper[n, 3] for n in SIZES[3:]] == list(published[: len(SIZES) - 3])
    published, _ = references.PROPER_POLYCUBES_N_MINUS_4
    assert [proper[n, n - 4] for n in SIZES[4:]] == list(published[: len(SIZES) - 4])


@pytest.mark.parametrize("dimension, n_sites", [(1, 6), (2, 6), (3, 6), (4, 5), (5, 4)])
@pytest.mark.parametrize("p", [0.1, 0.45, 0.9])
def test_finite_cluster_matches_enumeration(dimension, n_sites, p):
    for n in range(1, n_sites + 1):
        expected = oracles.cluster_size_probability(p, dimension, n)
        assert float(finite_clusters.finite_cluster(p, dimension, n)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dimension", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.7, 1.0])
def test_one_to_three_sites_are_the_textbook_formulas(p, dimension):
    d, r = dimension, 1 - p
    known = [r ** (2 * d), 2 * d * p * r ** (4 * d - 2)]
    known.append(3 * p**2 * (d * r ** (6 * d - 4) + 2 * d * (d - 1) * r ** (6 * d - 5)))
    for n, value in enumerate(known, start=1):
        assert float(finite_clusters.finite_cluster(p, d, n)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "p, dimension",
    [(0.3, 3), (1 / 128, 64), (0.01, 3072), (1e-4, 3072), (5e-4, 150_528), (5e-6, 150_528), (1 - 2**-40, 5), (0.5, 70)],
)
def test_finite_cluster_keeps_its_digits_in_any_dimension(p, dimension):
    for n in SIZES:
        with mpmath.workdps(40):
            chance = mpmath.mpf(p)
            exact = sum(
                n * number * chance ** (n - 1) * (1 - chance) ** perimeter
                for perimeter, number in counts_by_perimeter(dimension, n).items()
            )
        if exact < 1e-300:
            break
        found = float(finite_clusters.finite_cluster(p, dimension, n))
        assert found == pytest.approx(float(exact), rel=1e-14), n


@settings(max_examples=30)
@given(strategies.probabilities(), st.integers(1, 10**6))
def test_partial_sums_rise_and_are_probabilities(p, dimension):
    sums = [float(finite_clusters.lower_disconnected(p, dimension, n)) for n in SIZES]
    assert sums == sorted(sums)
    assert sums[0] >= 0
    assert sums[-1] <= 1 + 1e-14


def test_below_the_threshold_the_sum_tends_to_one_and_above_it_to_q():
    assert float(finite_clusters.lower_disconnected(0.01, 3, LARGEST)) == pytest.approx(1, abs=1e-9)
    # The chain: a cluster of n sites has probability n p^(n-1) (1-p)^2, whatever n.
    for n, p in itertools.product(SIZES, (0.2, 0.7)):
        assert float(finite_clusters.finite_cluster(p, 1, n)) == pytest.approx(n * p ** (n - 1) * (1 - p) ** 2)


@pytest.mark.parametrize("p, dimension", [(0.2, 20), (0.05, 100), (0.01, 3072), (0.6, 8)])
def test_the_bethe_lattice_never_has_more_finite_clusters(p, dimension):
    """A cluster of Z^d is part of one of the Bethe lattice that covers it; so far above the threshold the sum is Q."""
    ratio = float(
        finite_clusters.lower_disconnected(p, dimension, LARGEST) / meanfield.bethe(p, 2 * dimension).disconnected
    )
    assert 1 - 1e-13 < ratio < 1.1


@pytest.mark.parametrize("p, dimension", [(0.25, 3), (0.4, 3), (0.1, 5), (0.08, 9)])
def test_growth_meets_every_size(p, dimension):
    """A chi-squared test over every size of the table and the rest; four tests, false alarm 1e-6 each."""
    n_samples = 200_000
    sizes = growth.grow(p, dimension, n_samples=n_samples, max_sites=LARGEST + 1, rng=np.random.default_rng(5)).sizes
    expected = np.array([float(finite_clusters.finite_cluster(p, dimension, n)) for n in SIZES])
    expected = n_samples * np.append(expected, 1 - expected.sum())
    observed = np.bincount(sizes, minlength=LARGEST + 2)[1:]
    assert expected.min() > 10
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-6


def test_arrays_broadcast_and_integers_are_welcome():
    assert finite_clusters.finite_cluster([[0.1], [0.2]], [1, 2, 30], 4).shape == (2, 3)
    assert finite_clusters.lower_disconnected(0, np.arange(1, 4), LARGEST).tolist() == [1, 1, 1]
    assert finite_clusters.lower_disconnected(1, 4, LARGEST) == 0


@pytest.mark.parametrize("function", [finite_clusters.finite_cluster, finite_clusters.lower_disconnected])
@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1.5, 3, 2), r"p must lie in \[0, 1\], got 1.5"),
        ((0.5, 0, 2), "dimension must be a whole number of at least 1, got 0"),
        ((0.5, 2.5, 2), "dimension must be a whole number of at least 1, got 2.5"),
        ((0.5, float("nan"), 2), "dimension must be finite, got nan"),
        ((0.5, 2, 0), "n_sites must be a whole number from 1 to .*, got 0"),
        ((0.5, 2, 99), "n_sites must be a whole number from 1 to .*, got 99"),
    ],
)
def test_bad_input_is_named(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_a_count_of_no_sites_is_refused():
    with pytest.raises(ValueError, match="max_sites must be a whole number from 1 to 12, got 0"):
        animals.count(0)
