"""Growth on Z^d against exact probabilities, an explicit lattice, and itself without the compiler."""

import itertools
import os
import subprocess
import sys

import numpy as np
import oracles
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from percolation import arguments, finite_clusters, growth
from percolation._kernels import growth as kernels


@pytest.mark.parametrize("p, dimension", [(0.3, 1), (0.4, 2), (0.2, 3), (0.15, 5), (0.0576, 10), (0.02, 40)])
def test_small_clusters_have_their_exact_probabilities(p, dimension):
    grown = growth.grow(p, dimension, n_samples=50_000, max_sites=100, rng=np.random.default_rng(5))
    for n in (1, 2, 3):
        expected = float(finite_clusters.finite_cluster(p, dimension, n))
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


def search(salt, steps, p, moves, occupied=(), *, limit):
    """Breadth-first distances from the origin, with coordinates, on the lattice that the hash defines."""
    dimension = len(moves[0])
    origin = (0,) * dimension
    distances = {origin: 0}
    queue = [origin]
    for site in queue:
        for move in moves:
            other = tuple(x + m for x, m in zip(site, move, strict=True))
            key = (1 + sum(x * int(g) for x, g in zip(other, steps[:dimension], strict=True))) % 2**64
            is_occupied = other in occupied or oracles.mixed_word(key, salt) < int(growth.threshold(p))
            if is_occupied and other not in distances:
                distances[other] = distances[site] + 1
                queue.append(other)
        if len(distances) > limit:
            break
    return distances


def faces(dimension):
    return [tuple(sign * (i == axis) for i in range(dimension)) for axis in range(dimension) for sign in (1, -1)]


@given(
    dimension=st.integers(1, 4),
    p=st.floats(0.05, 0.4),
    seed=st.integers(0, 2**32),
)
def test_growth_is_the_cluster_of_the_lattice_that_the_hash_defines(dimension, p, seed):
    """Rebuild the same lattice with coordinates in Python and search it breadth first."""
    max_sites = 60
    grown = growth.grow(p, dimension, n_samples=3, max_sites=max_sites, rng=np.random.default_rng(seed))
    salts, steps = growth.lattice(dimension, 3, np.random.default_rng(seed))
    for salt, size in zip(salts, grown.sizes.tolist(), strict=True):
        found = search(salt, steps, p, faces(dimension), limit=4 * max_sites)
        assert size == min(len(found), max_sites)


@given(p=st.floats(0.02, 0.1), seed=st.integers(0, 2**32))
def test_growth_over_corners_is_the_cluster_of_all_26_neighbours(p, seed):
    corners = [move for move in itertools.product((-1, 0, 1), repeat=3) if any(move)]
    grown = growth.grow(
        p, 3, n_samples=3, max_sites=60, rng=np.random.default_rng(seed), neighbourhood="corner", n_workers=1
    )
    salts, steps = growth.lattice(3, 3, np.random.default_rng(seed))  # its first draws are the same
    assert grown.n_neighbours == 26
    for salt, size in zip(salts, grown.sizes.tolist(), strict=True):
        assert size == min(len(search(salt, steps, p, corners, limit=240)), 60)


@given(
    p=st.floats(0.1, 0.45),
    displacement=st.lists(st.integers(-2, 2), min_size=1, max_size=3).filter(any),
    seed=st.integers(0, 2**32),
)
def test_two_sites_are_connected_by_a_shortest_path(p, displacement, seed):
    target, max_sites = tuple(displacement), 60
    found = growth.connect(p, displacement, n_samples=3, max_sites=max_sites, rng=np.random.default_rng(seed))
    salts, steps = growth.lattice(len(target), 3, np.random.default_rng(seed))
    for salt, distance in zip(salts, found.distances.tolist(), strict=True):
        whole = search(salt, steps, p, faces(len(target)), {target, (0,) * len(target)}, limit=400)
        if distance == -2:
            assert len(whole) >= max_sites
        elif len(whole) <= 400 or target in whole:
            assert distance == whole.get(target, -1)
        else:  # the search gave up: the target is farther than it came, or in a small cluster of its own
            assert distance == -1 or distance >= max(whole.values())


def test_a_full_end_still_finds_the_shortest_path():
    """At p = 1 the chemical distance is the sum of the steps, however early growth from an end is stopped."""
    for displacement, max_sites in (((3, 2), 40), ((4, -1, 2), 300), ((1,), 2)):
        found = growth.connect(1.0, displacement, n_samples=1, max_sites=max_sites, rng=np.random.default_rng(0))
        assert found.distances[0] in (sum(map(abs, displacement)), -2)
    assert growth.connect(1.0, (9, 9), n_samples=1, max_sites=5, rng=np.random.default_rng(0)).distances[0] == -2


def test_neighbours_connect_with_certainty_and_next_neighbours_with_their_exact_probability_on_a_line():
    rng = np.random.default_rng(11)
    assert (growth.connect(0.0, (0, 1), n_samples=50, max_sites=9, rng=rng).distances == 1).all()
    line = growth.connect(0.3, (3,), n_samples=20_000, max_sites=100, rng=rng)
    assert set(np.unique(line.distances)) == {-1, 3}
    count = int((line.distances == 3).sum())
    assert scipy.stats.binomtest(count, 20_000, 0.09).pvalue > 1e-5  # both sites between: false alarm 1e-5


def test_the_number_of_threads_changes_nothing():
    def sizes(n_workers):
        rng = np.random.default_rng(2)
        grown = growth.grow(0.3, 3, n_samples=101, max_sites=300, rng=rng, n_workers=n_workers)
        met = growth.connect(0.3, (2, 2, 1), n_samples=101, max_sites=300, rng=rng, n_workers=n_workers)
        return grown.n_tested, grown.sizes.tolist(), met.distances.tolist()

    assert sizes(1) == sizes(2) == sizes(7)


def test_many_neighbours_are_tested_as_few_are():
    """Blocks of vector instructions on one side, one by one on the other; the last block is not full."""
    salts, steps = growth.lattice(77, 1, np.random.default_rng(0))
    keys, words, more_keys, more_words = np.zeros((4, 300), dtype=np.uint64)
    for p in (0.0, 0.003, 0.1, 1.0):
        arguments = (np.uint64(12345), salts[0], growth.threshold(p), steps)
        n = kernels.few_neighbours(*arguments, keys, words, 0)
        assert n == kernels.many_neighbours(*arguments, more_keys, more_words, 0)
        np.testing.assert_array_equal(keys[:n], more_keys[:n])
        np.testing.assert_array_equal(words[:n], more_words[:n])
        assert [int(word) for word in words[:n]] == [oracles.mixed_word(key, salts[0]) for key in keys[:n]]
    assert n == 154


def test_on_a_line_the_size_distribution_and_p_infinite_are_exact():
    """A run of n or more sites through an occupied one: P(size >= n) = n p^(n-1) - (n-1) p^n."""
    p, n_samples = 0.7, 40_000
    grown = growth.grow(p, 1, n_samples=n_samples, max_sites=12, rng=np.random.default_rng(4))
    n = np.arange(1, 13)
    share, error = growth.size_distribution(grown, n)
    exact = n * p ** (n - 1.0) - (n - 1) * p**n
    # twelve tests at 5 standard errors: false alarm 7e-6
    assert (np.abs(share - exact) <= 5 * np.sqrt(exact * (1 - exact) / n_samples)).all()
    np.testing.assert_allclose(error, np.sqrt(share * (1 - share) / n_samples))
    found = growth.infinite_probability(grown)
    assert found.value == share[-1]
    assert found.low < found.value < found.high
    with pytest.raises(ValueError, match="sizes must be whole numbers from 1 to 12, got 13"):
        growth.size_distribution(grown, 13)


def test_at_the_threshold_sizes_fall_with_the_mean_field_exponent():
    """P(size >= n) ~ n^(2 - tau), tau = 5/2 above six dimensions; published p_c of d = 10."""
    grown = growth.grow(0.0575929488, 10, n_samples=40_000, max_sites=10_000, rng=np.random.default_rng(12))
    share, error = growth.size_distribution(grown, [100, 10_000])
    slope = np.log(share[1] / share[0]) / np.log(100)
    # 4 standard errors (false alarm 6e-5), and 0.02 for the corrections to scaling
    assert abs(slope + 0.5) < 4 * np.hypot(*(error / share)) / np.log(100) + 0.02


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
        "from percolation import arguments, growth, rare, clusters\n"
        "rng = np.random.default_rng(3)\n"
        "print(growth.grow(0.25, 3, n_samples=20, max_sites=200, rng=rng).sizes.tolist())\n"
        "print(growth.grow(0.03, 40, n_samples=9, max_sites=200, rng=rng, neighbourhood='face').sizes.tolist())\n"
        "print(growth.connect(0.5, (3, 1), n_samples=9, max_sites=99, rng=rng).distances.tolist())\n"
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
        ({"n_samples": 0}, "n_samples must be a whole number of at least 1, got 0"),
        ({"max_sites": 1}, "max_sites must be a whole number from 2 to 1073741824, got 1"),
        ({"n_workers": 0}, "n_workers must be a whole number from 1 to 1024, got 0"),
        ({"n_workers": -1}, "n_workers must be a whole number from 1 to 1024, got -1"),
        ({"n_samples": 10**13}, "n_samples must fit into the .* GB of memory, got 10000000000000, which takes"),
        ({"dimension": 2**40}, "dimension must fit into the .* GB of memory, got 1099511627776, which takes"),
        ({"max_sites": 2**30 + 1}, "max_sites must be a whole number from 2 to 1073741824, got 1073741825"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"p": 0.2, "dimension": 3, "n_samples": 2, "max_sites": 10}
    with pytest.raises(ValueError, match=message):
        growth.grow(**(good | change), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda k: growth.connect(0.2, (0, 0), **k), r"displacement must not be zero along every axis, got \(0, 0\)"),
        (lambda k: growth.connect(0.2, (), **k), r"displacement must not be zero along every axis, got \(\)"),
        (lambda k: growth.connect(0.2, ((1, 2),), **k), r"displacement must have 1 axes, got shape \(1, 2\)"),
        (lambda k: growth.connect(0.2, (1,), n_workers=-1, **k), "n_workers must be a whole number from 1 to 1024"),
        (lambda k: growth.lattice(0, 1, k["rng"]), "dimension must be a whole number of at least 1, got 0"),
        (lambda k: growth.lattice(1, 0, k["rng"]), "n_samples must be a whole number of at least 1, got 0"),
        (lambda k: growth.threshold(float("nan")), r"p must lie in \[0, 1\], got nan"),
        (lambda k: growth.window_ratio(0), "dimension must be a whole number of at least 1, got 0"),
        (lambda k: growth.wilson_interval(0, 0, z=1), "n_samples must be a whole number of at least 1, got 0"),
        (lambda k: growth.wilson_interval(1, 2, z=-1), "z must be at least 0 and finite, got -1"),
        (lambda k: growth.wilson_interval(1, 2, z=float("nan")), "z must be at least 0 and finite, got nan"),
        (lambda k: growth.connect(1.2, (1,), **k), r"p must lie in \[0, 1\], got 1.2"),
        (lambda k: growth.grow(0.2, 3, neighbourhood="edge", **k), "neighbourhood must be face or corner, got edge"),
        (lambda k: growth.grow(0.2, 13, neighbourhood="corner", **k), "dimension must be at most 12 .* got 13"),
    ],
)
def test_bad_neighbourhoods_and_displacements_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call({"n_samples": 2, "max_sites": 10, "rng": np.random.default_rng(0)})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"p": "0.2"}, r"p must be a number in \[0, 1\], got 0.2 \(str\)"),
        ({"p": True}, r"p must be a number in \[0, 1\], got True \(bool\)"),
        ({"dimension": 2.5}, r"dimension must be a whole number of at least 1, got 2.5 \(float\)"),
        ({"n_workers": 2.0}, r"n_workers must be a whole number from 1 to 1024, got 2.0 \(float\)"),
        ({"rng": 0}, r"rng must be a numpy.random.Generator, got 0 \(int\)"),
    ],
)
def test_another_kind_is_named(change, message):
    good = {"p": 0.2, "dimension": 3, "n_samples": 2, "max_sites": 10, "rng": np.random.default_rng(0)}
    with pytest.raises(TypeError, match=message):
        growth.grow(**(good | change))
    with pytest.raises(TypeError, match=r"displacement must be integers, got \(0.5, 1\) \(float64\)"):
        growth.connect(0.2, (0.5, 1), **{k: v for k, v in good.items() if k not in ("p", "dimension")})


def test_what_takes_more_than_all_of_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(arguments, "memory", lambda: 1e6)
    how = {"n_samples": 9, "max_sites": 10_000, "rng": np.random.default_rng(0)}
    assert growth.grow(0.2, 3, **how, n_workers=1).sizes.size == 9
    with pytest.raises(
        ValueError, match=r"max_sites must fit into the 0.001 GB of memory, got 10000, which takes 0.00308"
    ):
        growth.grow(0.2, 3, **how, n_workers=9)
    with pytest.raises(
        ValueError, match=r"max_sites must fit into the 0.001 GB of memory, got 10000, which takes 0.00"
    ):
        growth.connect(0.2, (1, 1), **how, n_workers=9)


def test_small_integers_pass_over_no_end():
    """2 max_sites - 1 of an int8 is -57: the table would be too small."""
    grown = [
        growth.grow(0.3, kind(3), n_samples=kind(20), max_sites=kind(100), rng=np.random.default_rng(1)).sizes
        for kind in (int, np.int8)
    ]
    assert grown[0].tolist() == grown[1].tolist()
