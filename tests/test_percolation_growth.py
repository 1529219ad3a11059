"""Growth on Z^d against exact probabilities, an explicit lattice, and itself without the compiler."""

import os
import subprocess
import sys

import numpy as np
import oracles
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from percolation import growth, meanfield
from percolation._kernels import growth as kernels


@pytest.mark.parametrize("p, dimension", [(0.3, 1), (0.4, 2), (0.2, 3), (0.15, 5), (0.0576, 10), (0.02, 40)])
def test_small_clusters_have_their_exact_probabilities(p, dimension):
    grown = growth.grow(p, dimension, n_samples=50_000, max_sites=100, rng=np.random.default_rng(5))
    for n in (1, 2, 3):
        expected = float(meanfield.finite_cluster(p, dimension, n))
        count = int((grown.sizes == n).sum())
        # 18 two-sided tests at 1e-5 each: false alarm below 2e-4
        assert scipy.stats.binomtest(count, 50_000, expected).pvalue > 1e-5, (n, count / 50_000, expected)


@pytest.mark.parametrize("dimension, n_sites", [(2, 4), (2, 5), (3, 4)])
def test_larger_clusters_match_the_sum_over_all_animals(dimension, n_sites):
    p = 0.3
    grown = growth.grow(p, dimension, n_samples=50_000, max_sites=100, rng=np.random.default_rng(6))
    expected = oracles.cluster_size_probability(p, dimension, n_sites)
    count = int((grown.sizes == n_sites).sum())
    assert scipy.stats.binomtest(count, 50_000, expected).pvalue > 1e-5  # three tests: false alarm 3e-5


def test_animal_counts_are_the_known_ones():
    # fixed site animals: 1, 2, 6, 19, 63 in d = 2 (OEIS A001168); n of them hold the origin for each
    assert [len(oracles.animals(2, n)) for n in (1, 2, 3, 4, 5)] == [1, 4, 18, 76, 315]
    assert [len(oracles.animals(3, n)) for n in (1, 2, 3, 4)] == [1, 6, 45, 344]  # OEIS A001931 times n


@given(
    dimension=st.integers(1, 4),
    p=st.floats(0.05, 0.4),
    seed=st.integers(0, 2**32),
)
def test_growth_is_the_cluster_of_the_lattice_that_the_hash_defines(dimension, p, seed):
    """Rebuild the same lattice with coordinates in Python and search it breadth first."""
    max_sites = 60
    rng = np.random.default_rng(seed)
    grown = growth.grow(p, dimension, n_samples=3, max_sites=max_sites, rng=rng)
    salts, steps = growth.lattice(dimension, 3, np.random.default_rng(seed))
    word = 2**64
    for salt, size in zip(salts.tolist(), grown.sizes.tolist(), strict=True):
        found = {(0,) * dimension: 1}
        queue = [(0,) * dimension]
        for site in queue:
            for axis in range(dimension):
                for step in (1, -1):
                    other = tuple(x + step * (i == axis) for i, x in enumerate(site))
                    key = (1 + sum(x * int(g) for x, g in zip(other, steps[:dimension], strict=True))) % word
                    mixed = key ^ salt
                    mixed = ((mixed ^ (mixed >> 33)) * 0xFF51AFD7ED558CCD) % word
                    mixed = ((mixed ^ (mixed >> 29)) * 0xC4CEB9FE1A85EC53) % word
                    if mixed < int(growth.threshold(p)) and other not in found:
                        found[other] = key
                        queue.append(other)
            if len(found) > 4 * max_sites:
                break
        assert size == min(len(found), max_sites)


def test_the_mixing_function_is_even_in_every_bit_and_for_neighbouring_keys():
    with np.errstate(over="ignore"):
        words = np.array([kernels.mix(key) for key in np.arange(1, 20_001, dtype=np.uint64)], np.uint64)
    high = (words >> np.uint64(32)).astype(np.float64) / 2**32
    assert scipy.stats.kstest(high, "uniform").pvalue > 1e-6
    pairs = np.corrcoef(high[:-1], high[1:])[0, 1]
    assert abs(pairs) < 6 / np.sqrt(high.size)  # 6 standard errors: false alarm 2e-9


def test_same_seed_gives_the_same_clusters_and_another_seed_others():
    def sizes(seed):
        return growth.grow(0.2, 4, n_samples=200, max_sites=500, rng=np.random.default_rng(seed)).sizes

    np.testing.assert_array_equal(sizes(1), sizes(1))
    assert (sizes(1) != sizes(2)).any()


def test_compiled_and_plain_python_agree_to_the_last_site():
    script = (
        "import numpy as np\n"
        "from percolation import growth, rare, clusters\n"
        "rng = np.random.default_rng(3)\n"
        "print(growth.grow(0.25, 3, n_samples=20, max_sites=200, rng=rng).sizes.tolist())\n"
        "r = rare.finite_probability(0.2, 6, n_samples=300, max_sites=200, rng=rng)\n"
        "print(repr(r.value), repr(r.standard_error))\n"
        "print(clusters.label_clusters(rng.integers(-1, 3, (6, 5, 4)), periodic=True, reach=1).numbers.tolist())\n"
    )
    outputs = []
    for disable in ("0", "1"):
        command = [sys.executable, "-W", "error", "-c", script]
        environment = os.environ | {"NUMBA_DISABLE_JIT": disable}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


def test_certain_and_impossible_occupation():
    assert growth.grow(0.0, 5, n_samples=3, max_sites=10, rng=np.random.default_rng(0)).sizes.tolist() == [1, 1, 1]
    assert growth.grow(1.0, 5, n_samples=3, max_sites=10, rng=np.random.default_rng(0)).sizes.tolist() == [10] * 3


def test_truncation_bound_holds_where_the_truth_can_be_had():
    """Stop early, and compare with what a far later stop shows to have been finite."""
    early = growth.grow(0.25, 4, n_samples=20_000, max_sites=100, rng=np.random.default_rng(8))
    late = growth.grow(0.25, 4, n_samples=20_000, max_sites=2_000, rng=np.random.default_rng(8))
    missed = np.mean((late.sizes >= 100) & (late.sizes < 2_000))
    assert 0 < missed <= growth.truncation_bound(early)


def test_below_the_branching_threshold_the_bound_is_markovs():
    grown = growth.grow(0.05, 3, n_samples=100, max_sites=10_000, rng=np.random.default_rng(0))
    assert growth.truncation_bound(grown) == pytest.approx((1 + 0.3 / 0.75) / 10_000)


def test_wilson_interval_is_the_textbook_formula_and_right_at_zero():
    n, k, z = 50, 7, 1.7
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    assert growth.wilson_interval(k, n, z=z) == pytest.approx((centre - half, centre + half), rel=1e-9)
    low, high = growth.wilson_interval(0, 100, z=2)
    assert low == 0
    assert high == pytest.approx(4 / 104)
    with pytest.raises(ValueError, match=r"count must lie in \[0, 10\], got 11"):
        growth.wilson_interval(11, 10, z=1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"p": 1.3}, r"p must lie in \[0, 1\], got 1.3"),
        ({"p": float("nan")}, r"p must lie in \[0, 1\], got nan"),
        ({"dimension": 0}, "dimension must be a whole number of at least 1, got 0"),
        ({"dimension": 2.5}, "dimension must be a whole number of at least 1, got 2.5"),
        ({"n_samples": 0}, "n_samples must be a whole number of at least 1, got 0"),
        ({"max_sites": 1}, "max_sites must be a whole number of at least 2, got 1"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"p": 0.2, "dimension": 3, "n_samples": 2, "max_sites": 10}
    with pytest.raises(ValueError, match=message):
        growth.grow(**(good | change), rng=np.random.default_rng(0))
