"""The closed theories against root finding, Lambert's W, and each other."""

import re

import mpmath
import numpy as np
import oracles
import pytest
import scipy.special
import strategies
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from percolation import meanfield


def relative_errors(found, u, first=1, later=1):
    """Of P, Q and ln Q against the exact u = -ln Q, times first / later; Q only where it is a normal number."""
    with mpmath.workdps(50):
        u = u * first / later
        exact = [(found.connected, 1 - mpmath.exp(-u)), (found.log_disconnected, -u)]
        if u < 708:
            exact.append((found.disconnected, mpmath.exp(-u)))
        return [abs(float(mpmath.mpf(float(value)) / truth - 1)) for value, truth in exact]


# From the nearest double above the threshold to where Q is 1e-304, and beyond, where only its logarithm is left.
EXCESSES = [2.0**-52, 1e-15, 1e-12, 1e-8, 1e-4, 0.01, 0.3, 0.58, 0.59, 1.0, 4.0, 30.0, 300.0, 699.0, 1e4]


@pytest.mark.parametrize("q", [1 + excess for excess in EXCESSES])
def test_poisson_root_is_exact_from_the_threshold_to_where_q_underflows(q):
    assert max(relative_errors(meanfield.poisson(q), oracles.poisson_root(q))) < 1e-15


@settings(max_examples=50)
@given(st.floats(1 + 2**-52, 800))
def test_poisson_root_is_exact_everywhere(q):
    assert max(relative_errors(meanfield.poisson(q), oracles.poisson_root(q))) < 1e-15


@pytest.mark.parametrize("n", [2, 3, 10, 127, 6144, 301_056, 10**9])
@pytest.mark.parametrize("excess", EXCESSES[1:])
def test_neighbours_and_bethe_are_exact_from_the_threshold_to_a_full_lattice(n, excess):
    p = min((1 + excess) / n, 1 - 1 / (n * (1 + excess)))
    if p * n <= 1 + 2**-52:  # the product is rounded here; in the code it is not
        p = float(np.nextafter(1 / n, 1) * (1 + 2**-51))
    u = oracles.branching_root(p, n)
    assert u > 0
    assert max(relative_errors(meanfield.neighbours(p, n), u)) < 1e-15
    assert max(relative_errors(meanfield.bethe(p, n + 1), u, n + 1, n)) < 1e-15


@settings(max_examples=50)
@given(st.floats(0.001, 1, exclude_max=True), st.integers(2, 5000))
def test_neighbours_and_bethe_are_exact_everywhere(p, n):
    u = oracles.branching_root(p, n)
    assume(u > 0)
    assert max(relative_errors(meanfield.neighbours(p, n), u)) < 1e-15
    assert max(relative_errors(meanfield.bethe(p, n + 1), u, n + 1, n)) < 1e-15


@given(st.floats(0, 700), st.floats(0, 1), st.integers(1, 400))
def test_residuals_of_equations_21_and_22_are_below_1e_14(q, p, n):
    """Q over the right side at that Q, minus 1, as a reader with fifty digits finds it."""
    with mpmath.workdps(50):
        lost = mpmath.mpf(float(meanfield.poisson(q).disconnected))
        assert abs(lost / mpmath.exp(-mpmath.mpf(q) * (1 - lost)) - 1) < 1e-14
        lost = mpmath.mpf(float(meanfield.neighbours(p, n).disconnected))
        if lost > 1e-307:
            assert abs(lost / (1 - mpmath.mpf(p) * (1 - lost)) ** n - 1) < 1e-14


@given(st.floats(1.01, 700))
def test_poisson_root_is_lamberts_w(q):
    """Q = -W(-q e^-q) / q; the argument's rounding costs SciPy q units in the last place, and more near q = 1."""
    expected = -scipy.special.lambertw(-q * np.exp(-q)).real / q
    assert float(meanfield.poisson(q).disconnected) == pytest.approx(expected, rel=1e-12 * max(q, 10))


def test_oracle_of_the_roots_on_two_neighbours():
    """Q = (1 - p (1 - Q))^2 has the root ((1 - p) / p)^2."""
    assert float(mpmath.exp(-oracles.branching_root(0.75, 2))) == pytest.approx(1 / 9, rel=1e-15)
    assert oracles.branching_root(0.5, 2) == oracles.poisson_root(1.0) == 0
    assert float(oracles.poisson_root(1 + 1e-9)) == pytest.approx(2e-9, rel=1e-6)


def test_q_keeps_its_digits_down_to_1e_300():
    """At p = 1/2 and n = 996 neighbours Q = 2^-996 (1 + 2^-996)^996, which is 2^-996 to all digits."""
    assert float(meanfield.neighbours(0.5, 996).disconnected) == 2.0**-996
    assert float(meanfield.poisson(690.0).disconnected) == pytest.approx(np.exp(-690.0), rel=4e-16)
    assert meanfield.poisson(1e5).disconnected == 0
    assert meanfield.poisson(1e5).log_disconnected == -1e5


@given(strategies.probabilities(), st.integers(2, 300))
def test_below_their_thresholds_nothing_percolates(p, n):
    if p * n <= 1:
        assert meanfield.neighbours(p, n).connected == 0
    if p * (n - 1) <= 1:
        assert meanfield.bethe(p, n).connected == 0


def test_the_chain_percolates_only_when_full():
    assert meanfield.bethe(0.999999, 2).connected == 0
    assert meanfield.bethe(1.0, 3).disconnected == 0
    assert meanfield.bethe(1.0, 2).disconnected == 0
    assert meanfield.neighbours(1.0, 1).connected == 1


@given(st.floats(0, 1), st.integers(1, 1000))
def test_equation_21_bound_is_a_bound(p, d):
    """(1 - p P)^n <= e^(-n p P), so Eq. 22 underestimates P at the same number of neighbours."""
    assert meanfield.poisson(p * d).connected <= meanfield.neighbours(p, d).connected + 1e-12


@given(st.floats(0.001, 0.999), st.integers(3, 500))
def test_conjugate_probability_is_subcritical_and_shares_the_likelihood_factor(p, z):
    conjugate = float(meanfield.conjugate_probability(p, z))
    assert conjugate <= 1 / (z - 1) * (1 + 1e-9)
    if p <= 1 / (z - 1):
        assert conjugate == p
    log_factor = [np.log(x) + (z - 2) * np.log1p(-x) for x in (p, conjugate)] if conjugate > 1e-300 else [0, 0]
    assert log_factor[0] == pytest.approx(log_factor[1], rel=1e-13, abs=1e-13)


def test_isolated_site_and_its_limits():
    for p, n in ((0.01, 6144), (5e-4, 301_056), (0.3, 1900), (1e-20, 10**6)):
        with mpmath.workdps(50):
            expected = float((1 - mpmath.mpf(p)) ** n)
        assert float(meanfield.isolated(p, n)) == pytest.approx(expected, rel=1e-15)
    assert meanfield.isolated(1.0, 4) == 0
    assert meanfield.isolated(0.0, 4) == 1
    assert meanfield.pair_disconnected(1.0) == 1
    assert float(meanfield.pair_disconnected(1e-30)) == pytest.approx(2e-30)
    assert float(meanfield.rate_per_dimension(0.2)) == pytest.approx(-2 * np.log(0.8))


def test_the_printed_expansion_is_not_the_root():
    """Eq. 24 divides by 1 + q e^q where Eq. 23 gives 1 - q e^-q: it is too small by a factor of about q e^q."""
    q = 10.0
    root = float(meanfield.poisson(q).disconnected)
    assert root == pytest.approx(np.exp(-q) / (1 - q * np.exp(-q)), rel=1e-6)
    assert float(meanfield.printed_expansion(q)) / root == pytest.approx(1 / (q * np.exp(q)), rel=1e-3)
    assert meanfield.printed_expansion(1000.0) == 0


def test_the_corners_of_a_cube_and_the_sites_of_a_lattice():
    """{0, 1}^d has d neighbours, Z^d has 2 d: at equal p the second behaves as the first in twice the dimension."""
    assert meanfield.neighbours(0.1, 2 * 15).disconnected == meanfield.neighbours(0.1, 30).disconnected
    lost = [float(meanfield.neighbours(0.1, n).disconnected) for n in (15, 30)]
    assert lost == sorted(lost, reverse=True)


def test_arrays_broadcast():
    assert meanfield.bethe([[0.1], [0.2]], [10, 20, 30]).connected.shape == (2, 3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: meanfield.poisson(-1), "q must be finite and at least 0, got -1"),
        (lambda: meanfield.poisson(float("nan")), "q must be finite and at least 0, got nan"),
        (lambda: meanfield.neighbours(1.5, 3), r"p must lie in \[0, 1\], got 1.5"),
        (lambda: meanfield.poisson([2.0, float("inf")]), "q must be finite and at least 0, got inf"),
        (lambda: meanfield.isolated(0.5, 0), "n_neighbours must be finite and at least 1, got 0"),
        (lambda: meanfield.bethe(0.5, 1), "n_neighbours must be finite and at least 2, got 1"),
        (lambda: meanfield.neighbours(0.5, np.inf), "n_neighbours must be finite and at least 1, got inf"),
        (lambda: meanfield.conjugate_probability(0.5, 2), "must be finite and at least 3, got 2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: meanfield.printed_expansion(-1.0), "q must be finite and at least 0, got -1.0"),
        (lambda: meanfield.rate_per_dimension(1.5), "p must lie in [0, 1], got 1.5"),
    ],
)
def test_what_is_no_mean_or_probability_is_refused(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
