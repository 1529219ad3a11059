"""The closed theories against root finding, Lambert's W, and each other."""

import numpy as np
import oracles
import pytest
import scipy.optimize
import scipy.special
import strategies
from hypothesis import assume, given
from hypothesis import strategies as st

from percolation import meanfield


@given(st.floats(0, 700))
def test_poisson_root_satisfies_equation_22(q):
    found = meanfield.poisson(q)
    residual = float(found.disconnected) - np.exp(-q * float(found.connected))
    assert abs(residual) < 1e-14
    assert 0 <= found.connected <= 1
    assert (found.connected > 0) == (q > 1) or q - 1 < 1e-12


@given(st.floats(1.01, 700))
def test_poisson_root_is_lamberts_w(q):
    expected = -scipy.special.lambertw(-q * np.exp(-q)).real / q
    assert float(meanfield.poisson(q).disconnected) == pytest.approx(expected, rel=1e-12 * max(q, 10))


def test_poisson_root_near_the_threshold_and_far_from_it():
    # P = 2 e - 8/3 e^2 + O(e^3) at q = 1 + e
    for excess in (1e-3, 1e-5, 1e-7):
        q = 1 + excess
        series = 2 * (q - 1) - 8 / 3 * (q - 1) ** 2
        assert float(meanfield.poisson(q).connected) == pytest.approx(series, rel=20 * excess**2 + 1e-15 / excess)
    # far above, Q = e^-q (1 + q e^-q + ...) keeps its digits
    assert float(meanfield.poisson(690.0).disconnected) == pytest.approx(np.exp(-690.0), rel=1e-12)


@given(st.floats(0.001, 1), st.integers(2, 400))
def test_neighbours_and_bethe_match_bracketed_root_finding(p, n):
    assume(p * (n - 1) > 1.01)

    def root(count):
        return scipy.optimize.brentq(lambda q: (1 - p * (1 - q)) ** count - q, 0, 1 - 1e-9, xtol=1e-15)

    assert float(meanfield.neighbours(p, n).disconnected) == pytest.approx(root(n), rel=1e-9, abs=1e-14)
    cut_off = root(n - 1)
    expected = (1 - p * (1 - cut_off)) ** n
    assert float(meanfield.bethe(p, n).disconnected) == pytest.approx(expected, rel=1e-9, abs=1e-14)


@given(strategies.probabilities(), st.integers(2, 300))
def test_below_their_thresholds_nothing_percolates(p, n):
    if p * n <= 1:
        assert meanfield.neighbours(p, n).connected == 0
    if p * (n - 1) <= 1:
        assert meanfield.bethe(p, n).connected == 0


def test_the_chain_percolates_only_when_full():
    assert meanfield.bethe(0.999999, 2).connected == 0
    assert meanfield.bethe(1.0, 3).disconnected == 0


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
    assert log_factor[0] == pytest.approx(log_factor[1], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dimension", [1, 2, 3, 4])
@pytest.mark.parametrize("n_sites", [1, 2, 3])
@pytest.mark.parametrize("p", [0.1, 0.45, 0.9])
def test_small_cluster_formulas_match_enumeration(dimension, n_sites, p):
    expected = oracles.cluster_size_probability(p, dimension, n_sites)
    assert float(meanfield.finite_cluster(p, dimension, n_sites)) == pytest.approx(expected, rel=1e-12)


def test_isolated_site_and_its_limits():
    assert float(meanfield.isolated(0.01, 6144)) == pytest.approx(0.99**6144, rel=1e-12)
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


def test_arrays_broadcast():
    assert meanfield.bethe([[0.1], [0.2]], [10, 20, 30]).connected.shape == (2, 3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: meanfield.poisson(-1), "q must be finite and at least 0, got -1"),
        (lambda: meanfield.poisson(float("nan")), "q must be finite and at least 0, got nan"),
        (lambda: meanfield.neighbours(1.5, 3), r"p must lie in \[0, 1\], got 1.5"),
        (lambda: meanfield.bethe(0.5, 1), "number of neighbours or dimensions must be at least 2, got 1"),
        (lambda: meanfield.conjugate_probability(0.5, 2), "must be at least 3, got 2"),
        (lambda: meanfield.finite_cluster(0.5, 2, 7), "n_sites must be 1, 2 or 3, got 7"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
