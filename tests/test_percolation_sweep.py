"""Newman-Ziff sweeps: every step against a graph built from scratch, every average against full enumeration."""

import itertools
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import oracles
import pytest
import references
import scipy.stats
import strategies
from hypothesis import given, settings

from percolation import arguments, clusters, sweep


def replay(lattice):
    """The states of one run by the kernel, and by networkx after every step."""
    shape, periodic = np.array(lattice.shape), np.array(lattice.periodic)
    order = np.array(lattice.order, dtype=np.int32)
    largest, second, others, crossed_at = sweep.microcanonical(order, lattice.by_bond, shape, periodic)
    all_bonds = [(int(bond) // shape.size, int(bond) % shape.size) for bond in sweep.bonds(shape, periodic)]
    for n in range(order.size + 1):
        if lattice.by_bond:
            sites = range(int(shape.prod()))
            bonds = [(int(bond) // shape.size, int(bond) % shape.size) for bond in order[:n]]
        else:
            sites = order[:n].tolist()
            present = set(sites)
            bonds = [(s, a) for s, a in all_bonds if s in present and _up(s, a, lattice.shape) in present]
        sizes = [*sorted(_sizes(sites, bonds, lattice.shape), reverse=True), 0, 0]
        assert largest[n] == sizes[0]
        assert second[n] == sizes[1]
        assert others[n] == sum(size**2 for size in sizes[1:])
        crossing = oracles.crossing_axes(lattice.shape, lattice.periodic, sites, bonds)
        assert (n >= crossed_at).tolist() == crossing


def _up(site, axis, shape):
    place = list(np.unravel_index(site, shape))
    place[axis] = (place[axis] + 1) % shape[axis]
    return int(np.ravel_multi_index(place, shape))


def _sizes(sites, bonds, shape):
    owner = {site: {site} for site in sites}
    for site, axis in bonds:
        first, second = owner[site], owner[_up(site, axis, shape)]
        if first is not second:
            first |= second
            for member in second:
                owner[member] = first
    return [len(cluster) for cluster in {id(cluster): cluster for cluster in owner.values()}.values()]


def test_the_crossing_oracle_on_lattices_drawn_by_hand():
    # a row of three around a ring wraps; the same row on an open chain joins both faces
    assert oracles.crossing_axes((3,), [True], [0, 1, 2], [(0, 0), (1, 0), (2, 0)]) == [True]
    assert oracles.crossing_axes((3,), [True], [0, 1, 2], [(0, 0), (1, 0)]) == [False]
    assert oracles.crossing_axes((3,), [False], [0, 1, 2], [(0, 0), (1, 0)]) == [True]
    # a diagonal staircase around a 3 x 3 torus wraps both ways at once
    stairs = [0, 1, 4, 5, 8, 6]
    bonds = [(0, 1), (1, 0), (4, 1), (5, 0), (8, 1), (6, 0)]
    assert oracles.crossing_axes((3, 3), [True, True], stairs, bonds) == [True, True]


@given(strategies.occupation_orders())
@settings(max_examples=60)
def test_every_state_matches_the_graph(lattice):
    replay(lattice)


@pytest.mark.parametrize("periodic", [True, False])
def test_canonical_averages_match_the_sum_over_all_configurations(periodic):
    """All 2^9 site configurations of a 3 x 3 lattice; 4000 sweeps, five standard errors: false alarm 1e-5."""
    chances = np.array([0.2, 0.5927, 0.9])
    exact = np.zeros((5, 3))
    all_bonds = sweep.bonds(np.array([3, 3]), np.array([periodic] * 2))
    for occupied in itertools.product([False, True], repeat=9):
        sites = [i for i, here in enumerate(occupied) if here]
        present = set(sites)
        bonds = [(int(b) // 2, int(b) % 2) for b in all_bonds]
        bonds = [(s, a) for s, a in bonds if s in present and _up(s, a, (3, 3)) in present]
        sizes = [*sorted(_sizes(sites, bonds, (3, 3)), reverse=True), 0, 0]
        values = [sizes[0] / 9, sizes[1] / 9, (sum(s**2 for s in sizes) - sizes[0] ** 2) / 9]
        values += oracles.crossing_axes((3, 3), [periodic] * 2, sites, bonds)
        weight = chances ** len(sites) * (1 - chances) ** (9 - len(sites))
        exact += np.outer(values, weight)
    found = sweep.sweep((3, 3), chances, periodic=periodic, n_runs=4000, seeds=np.random.SeedSequence(1), n_workers=1)
    estimates = [found.largest, found.second_largest, found.susceptibility]
    for estimate, truth in zip(estimates, exact, strict=False):
        assert np.all(np.abs(estimate.mean - truth) <= 5 * estimate.standard_error + 1e-12)
    assert np.all(np.abs(found.crossing.mean - exact[3:]) <= 5 * found.crossing.standard_error + 1e-12)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_self_dual_bond_percolation_crosses_in_half_of_all_configurations(n):
    """n rows of n + 1 sites; the bonds within the first and last column decide nothing and are left out."""
    shape, periodic = np.array([n, n + 1]), np.array([False, False])
    bonds = [int(b) for b in sweep.bonds(shape, periodic) if b % 2 == 1 or 0 < (b // 2) % (n + 1) < n]
    crossed = 0
    for present in itertools.product([False, True], repeat=len(bonds)):
        order = np.array([b for b, here in zip(bonds, present, strict=True) if here], dtype=np.int32)
        crossed += sweep.microcanonical(order, True, shape, periodic)[3][1] <= order.size
    assert 2 * crossed == 2 ** len(bonds)


def test_self_dual_bond_percolation_crosses_with_probability_one_half():
    """A crossing of n rows and n + 1 columns of sites and a dual one exclude each other and are equally likely."""
    seeds = np.random.SeedSequence(2)
    found = sweep.sweep((8, 9), [0.5], kind="bond", periodic=False, n_runs=2000, seeds=seeds, n_workers=2)
    mean, error = found.crossing.mean[1, 0], found.crossing.standard_error[1, 0]
    assert abs(mean - 0.5) < 4.5 * error  # false alarm 7e-6
    assert error < 0.012


@pytest.mark.parametrize("kind", ["site", "bond"])
def test_wrapping_probability_of_the_square_torus_at_threshold(kind):
    value, _, _ = references.TORUS_WRAPPING_2D
    p_c = {"site": references.SITE_THRESHOLD_2D[0], "bond": 0.5}[kind]
    found = sweep.sweep((48, 48), [p_c], kind=kind, n_runs=1500, seeds=np.random.SeedSequence(3), n_workers=2)
    for mean, error in zip(found.crossing.mean[:, 0], found.crossing.standard_error[:, 0], strict=True):
        # finite-size corrections fall as L^-2 (Newman and Ziff); 4.5 standard errors, four tests: false alarm 3e-5
        assert abs(mean - value) < 4.5 * error + 2 / 48**2
        assert error < 0.012


def test_largest_cluster_at_threshold_grows_with_the_published_dimension():
    """L^(91/48) from L = 32 to 128; corrections to scaling are below 0.01, a Euclidean 2 is 0.1 away."""
    dimension, _, _ = references.CLUSTER_DIMENSION_2D
    p_c, _, _ = references.SITE_THRESHOLD_2D
    shares = [
        sweep.sweep((length,) * 2, [p_c], n_runs=n_runs, seeds=np.random.SeedSequence(length), n_workers=2).largest
        for length, n_runs in ((32, 2000), (128, 400))
    ]
    slope = 2 + np.log(shares[1].mean[0] / shares[0].mean[0]) / np.log(4)
    error = np.hypot(*(share.standard_error[0] / share.mean[0] for share in shares)) / np.log(4)
    assert abs(slope - dimension) < 4.5 * error + 0.01  # false alarm 7e-6
    assert error < 0.01


@pytest.mark.parametrize("shape, periodic", [((40, 30), True), ((9, 8, 7), (True, False, True)), ((5,) * 4, False)])
def test_states_on_the_way_are_those_of_the_labelled_lattice(shape, periodic):
    axes = np.array([periodic] * len(shape) if isinstance(periodic, bool) else periodic)
    order = np.random.default_rng(6).permutation(np.prod(shape)).astype(np.int32)
    largest, second, others, _ = sweep.microcanonical(order, False, np.array(shape), axes)
    for n in np.linspace(0, order.size, 23).astype(int):
        labels = np.full(order.size, -1)
        labels[order[:n]] = 0
        sizes = np.sort(clusters.label_clusters(labels.reshape(shape), periodic=axes.tolist()).sizes)[::-1]
        assert [largest[n], second[n]] == [*sizes.tolist(), 0, 0][:2]
        assert others[n] == (sizes[1:] ** 2).sum()


def test_the_next_smaller_cluster_is_found_across_blocks_of_sizes():
    rng = np.random.default_rng(13)
    sizes = np.unique([1, 7, 510, 511, 512, 1023, 1024, 1025, 2047, *rng.integers(1, 6000, 4), 5119])
    for top in range(sizes.size):
        of_size = np.bincount(sizes[:top], minlength=6001)
        of_block = np.bincount(sizes[:top] >> sweep.kernels.BITS, minlength=12)
        for size in [*range(1, 6000, 97), *sizes]:
            expected = max(sizes[:top][sizes[:top] <= size], default=0)
            assert sweep.kernels.next_size(size, of_size, of_block) == expected


def test_averages_are_those_of_lattices_drawn_at_one_p():
    """Largest, second largest and susceptibility against 1000 labelled lattices; five combined errors: 2e-6."""
    rng = np.random.default_rng(7)
    drawn = np.empty((1000, 3))
    for row in drawn:
        labels = np.where(rng.random((12, 12)) < 0.55, 0, -1)
        sizes = np.append(np.sort(clusters.label_clusters(labels, periodic=True).sizes)[::-1], [0, 0])
        row[:] = sizes[0] / 144, sizes[1] / 144, (sizes[1:] ** 2).sum() / 144
    found = sweep.sweep((12, 12), 0.55, n_runs=1000, seeds=np.random.SeedSequence(8), n_workers=2)
    for column, estimate in zip(drawn.T, (found.largest, found.second_largest, found.susceptibility), strict=True):
        error = np.hypot(estimate.standard_error[0], column.std() / np.sqrt(len(drawn)))
        assert abs(estimate.mean[0] - column.mean()) < 5 * error


def helix(shape):
    """Bonds of a path from site 0 through all sites of a torus, down its first axis again and again."""
    towers = [
        tuple(x if sum(tower[:i]) % 2 == 0 else shape[1 + i] - 1 - x for i, x in enumerate(tower))
        for tower in itertools.product(*(range(length) for length in shape[1:]))
    ]  # to and fro, so that each stands beside the one before it
    sites, height = [], 0
    for tower in towers:
        sites += [((height - step) % shape[0], *tower) for step in range(shape[0])]
        height = sites[-1][0]
    bonds = []
    for one, two in itertools.pairwise(sites):
        (axis,) = (i for i, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)
        low = one if (two[axis] - one[axis]) % shape[axis] == 1 else two
        bonds.append(len(shape) * int(np.ravel_multi_index(low, shape)) + axis)
    return bonds


@pytest.mark.parametrize("shape, n_open", [((3, 6, 5, 5), 1), ((3, 6, 5, 5), 2), ((3, 26_000), 1)])
def test_a_way_that_winds_too_often_for_its_bits_is_followed_in_wider_fields(shape, n_open):
    """A path winds 100 or 17,333 times around the first axis; the bond that closes it crosses the second one's seam."""
    n_axes = len(shape) + (n_open > 1)
    along = np.array([*helix(shape), len(shape) * (shape[1] - 1) * int(np.prod(shape[2:])) + 1])
    along = n_axes * n_open * (along // len(shape)) + along % len(shape)
    shape, periodic = np.array([*shape, n_open][:n_axes]), np.array([True] * len(shape) + [False])[:n_axes]
    rest = np.setdiff1d(sweep.bonds(shape, periodic), along)
    if n_open > 1:  # open faces are joined on the way, at site 0
        rest = np.setdiff1d(rest, n_axes - 1)
        along = np.insert(along, 10, n_axes - 1)
    order = np.concatenate([along, np.random.default_rng(9).permutation(rest)])
    crossed_at = sweep.microcanonical(order, True, shape, periodic)[3]
    assert crossed_at[:2].tolist() == [along.size] * 2
    for n in crossed_at[2:]:
        assert_crossing_around(n, order, shape, periodic, crossed_at)


def assert_crossing_around(n, order, shape, periodic, crossed_at):
    """With n bonds occupied and with one less, the axes crossed are those of the unrolled clusters."""
    for k in (n - 1, n):
        bonds = [(int(bond) // shape.size, int(bond) % shape.size) for bond in order[:k]]
        found = oracles.crossing_axes(tuple(shape.tolist()), periodic, range(int(shape.prod())), bonds)
        assert (crossed_at <= k).tolist() == found


def test_more_axes_than_one_integer_follows():
    shape, periodic = np.full(8, 3), np.array([True] * 8)
    order = np.random.default_rng(10).permutation(sweep.bonds(shape, periodic))
    crossed_at = sweep.microcanonical(order, True, shape, periodic)[3]
    assert crossed_at.max() < order.size // 4
    for n in crossed_at:
        assert_crossing_around(n, order, shape, periodic, crossed_at)


@pytest.mark.parametrize("kind", ["site", "bond"])
@pytest.mark.parametrize("shape", [(7, 9), (3,) * 5, (3,) * 8])
def test_wrapping_is_that_of_the_sweeps_with_the_same_seeds(shape, kind):
    chances = np.array([0.02, 0.08, 0.2, 0.5, 0.9])
    found = sweep.sweep(shape, chances, kind=kind, n_runs=5, seeds=np.random.SeedSequence(5), n_workers=1)
    wrapped_at = sweep.wrapping(shape, kind=kind, n_runs=5, seeds=np.random.SeedSequence(5), n_workers=1)
    assert wrapped_at.shape == (5, len(shape))
    assert wrapped_at.dtype == np.int64
    n_elements = int(np.prod(shape)) * (len(shape) if kind == "bond" else 1)
    tails = scipy.stats.binom.sf(wrapped_at[:, :, None] - 1, n_elements, chances)
    np.testing.assert_allclose(found.crossing.mean, tails.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.crossing.standard_error, tails.std(axis=0, ddof=1) / np.sqrt(5), atol=1e-12)


def test_drawing_the_order_in_pieces_changes_no_number(monkeypatch):
    def run():
        wrapped_at = [
            sweep.wrapping(shape, kind=kind, n_runs=3, seeds=np.random.SeedSequence(11), n_workers=1)
            for shape, kind in (((6, 5, 4), "bond"), ((3,) * 8, "site"))
        ]
        found = sweep.sweep((6, 5), [0.5], n_runs=3, seeds=np.random.SeedSequence(11), n_workers=1)
        return np.hstack(wrapped_at), found.susceptibility.mean

    whole = run()
    monkeypatch.setattr(sweep, "_CHUNK", 7)
    for before, after in zip(whole, run(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_every_order_is_equally_likely():
    """All 24 orders of four sites, 24,000 draws: chi-squared with 23 degrees of freedom; false alarm 1e-6."""
    rng = np.random.default_rng(12)
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for _ in range(24_000):
        order = np.arange(4, dtype=np.int32)
        sweep.kernels.shuffle(order, 0, rng.random(3))
        sweep.kernels.shuffle(order, 3, rng.random(1))
        counts[tuple(order.tolist())] += 1
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-6


@pytest.mark.parametrize("kind", ["site", "bond"])
def test_memory_is_what_the_docstring_says(kind):
    def run(length):
        sweep.sweep((length,) * 2, [0.5], kind=kind, n_runs=2, seeds=np.random.SeedSequence(0), n_workers=1)

    run(3)  # compiles
    tracemalloc.start()
    try:
        run(600)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 360_000 * {"site": 40 + 4, "bond": 20 + 2 * 20 + 2 * 4}[kind] + 2**20


def test_compiled_and_plain_python_sweep_the_same():
    script = (
        "import numpy as np\n"
        "from percolation import sweep\n"
        "seeds = np.random.SeedSequence(3)\n"
        "for shape, kind, periodic in (((9, 8), 'site', True), ((4, 3, 5), 'bond', (False, True, True))):\n"
        "    s = sweep.sweep(shape, [0.3, 0.6], kind=kind, periodic=periodic, n_runs=3, seeds=seeds, n_workers=1)\n"
        "    for e in (s.largest, s.second_largest, s.susceptibility, s.crossing):\n"
        "        print(e.mean.tolist(), e.standard_error.tolist())\n"
        "print(sweep.wrapping((3,) * 5, kind='bond', n_runs=2, seeds=seeds, n_workers=1).tolist())\n"
        "print(sweep.wrapping((4,) * 4, n_runs=2, seeds=seeds, n_workers=1).tolist())\n"
    )
    outputs = []
    for disable in ("0", "1"):
        environment = os.environ | {"NUMBA_DISABLE_JIT": disable}
        command = [sys.executable, "-W", "error", "-c", script]
        outputs.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("kind", ["site", "bond"])
def test_number_of_workers_changes_no_bit(kind):
    def run(n_workers):
        kwargs = {"kind": kind, "n_runs": 8, "n_workers": n_workers}
        wrapped_at = sweep.wrapping((10, 10), seeds=np.random.SeedSequence(4), **kwargs)
        return sweep.sweep((10, 10), [0.5, 0.6], seeds=np.random.SeedSequence(4), **kwargs), wrapped_at

    (one, first), (two, second) = run(1), run(2)
    for name in ("largest", "second_largest", "susceptibility", "crossing"):
        np.testing.assert_array_equal(getattr(one, name).mean, getattr(two, name).mean)
        np.testing.assert_array_equal(getattr(one, name).standard_error, getattr(two, name).standard_error)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("n, p", [(9, 0.3), (1000, 0.001), (10**6, 0.5927), (50, 0.0), (50, 1.0)])
def test_binomial_weights_are_scipys(n, p):
    first, weights = sweep.binomial(n, p)
    k = np.arange(first, first + weights.size)
    np.testing.assert_allclose(weights, scipy.stats.binom.pmf(k, n, p), rtol=1e-7, atol=1e-300)
    assert weights.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": ()}, "shape must have at least one axis"),
        ({"shape": (0, 3)}, "shape must have at least one axis and one site along each"),
        ({"shape": (2, 5)}, "shape must be at least 3 along a periodic axis"),
        ({"shape": (3,) * 16}, "shape must have at most 15 axes, got 16"),
        ({"shape": (60_000, 60_000)}, "shape must have at most 2.31 - 2 sites, got 3600000000"),
        ({"p": [1.2]}, r"p must lie in \[0, 1\], got 1.2"),
        ({"kind": "edge"}, "kind must be site or bond, got edge"),
        ({"periodic": (True,)}, "periodic must be one bool or 2, got 1"),
        ({"p": [[0.5]]}, r"p must be one number or a row of numbers, got shape \(1, 1\)"),
        ({"p": [np.nan]}, r"p must lie in \[0, 1\], got nan"),
        ({"shape": (2**31, 2**31, 4)}, "shape must have at most 2.31 - 2 sites, got 18446744073709551616"),
        ({"n_runs": 1}, "n_runs must be a whole number of at least 2, got 1"),
        ({"n_workers": 0}, "n_workers must be a whole number from 1 to 1024, got 0"),
        ({"shape": np.array([100, 100, 100, 100, 100], dtype=np.int8)}, "shape must have at most 2.31 - 2 sites, got"),
        ({"n_runs": 10**12}, "n_runs must fit into the .* GB of memory, got 1000000000000, which takes 5e"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"shape": (4, 4), "p": [0.5], "n_runs": 2, "seeds": np.random.SeedSequence(0)}
    with pytest.raises(ValueError, match=message):
        sweep.sweep(**(good | change))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": (2, 5)}, "shape must be at least 3 along a periodic axis"),
        ({"kind": "edge"}, "kind must be site or bond, got edge"),
        ({"n_runs": 0}, "n_runs must be a whole number of at least 1, got 0"),
        ({"n_workers": 0}, "n_workers must be a whole number from 1 to 1024, got 0"),
    ],
)
def test_bad_input_of_wrapping_is_named(change, message):
    good = {"shape": (4, 4), "n_runs": 2, "seeds": np.random.SeedSequence(0)}
    with pytest.raises(ValueError, match=message):
        sweep.wrapping(**(good | change))


def test_lengths_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match=r"shape must be integers, got \(4\.5, 4\)"):
        sweep.sweep((4.5, 4), 0.5, n_runs=2, seeds=np.random.SeedSequence(0))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shape": 4}, "shape must be integers, one an axis, got 4"),
        ({"p": ["0.5"]}, "p must be numbers, got"),
        ({"p": np.ma.array([0.5, 0.6], mask=[0, 1])}, "p must have no masked entries, got 1 of them"),
        ({"n_runs": 2.5}, "n_runs must be a whole number of at least 2, got 2.5"),
        ({"seeds": 0}, "seeds must be numpy's SeedSequence, got 0"),
        ({"periodic": (1, 0)}, r"periodic must be one bool or 2, got \(1, 0\)"),
    ],
)
def test_another_kind_is_named(change, message):
    good = {"shape": (4, 4), "p": [0.5], "n_runs": 2, "seeds": np.random.SeedSequence(0)}
    with pytest.raises(TypeError, match=message):
        sweep.sweep(**(good | change))


@pytest.mark.parametrize(
    "order, message",
    [
        (np.full(9, 10**6), "order must be whole numbers from 0 to 8, got 1000000"),
        (np.arange(9) + (np.arange(9) == 1) * 2**32, "order must be whole numbers from 0 to 8, got 4294967297"),
        (np.arange(9) - 1, "order must be whole numbers from 0 to 8, got -1"),
        (np.array([2**63, *range(8)], dtype=np.uint64), f"order must be whole numbers from 0 to 8, got {2**63}"),
        (np.zeros(9, dtype=int), "order must hold each entry once, got 0 twice"),
        (np.arange(8), r"order must have shape \(9,\), got \(8,\)"),
        (np.arange(9).reshape(3, 3), r"order must have 1 axes, got shape \(3, 3\)"),
    ],
)
def test_an_order_of_other_sites_is_refused(order, message):
    with pytest.raises(ValueError, match=message):
        sweep.wrapping_in_order(order, (3, 3))
    if order.shape != (8,):  # where fewer sites are welcome
        with pytest.raises(ValueError, match=message):
            sweep.microcanonical(order, False, (3, 3), True)


def test_bonds_that_the_lattice_lacks_are_refused():
    with pytest.raises(
        ValueError, match="order must hold bonds of the lattice, got 5, which leads out of an open face"
    ):
        sweep.microcanonical(np.array([0, 5]), True, (3, 3), False)
    with pytest.raises(ValueError, match="order must be whole numbers from 0 to 17, got 18"):
        sweep.microcanonical(np.array([18]), True, (3, 3), True)
    with pytest.raises(TypeError, match="by_bond must be a bool, got 1"):
        sweep.microcanonical(np.array([0]), 1, (3, 3), True)


def test_what_takes_more_than_all_of_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(arguments, "memory", lambda: 1e6)
    how = {"shape": (100, 100), "n_runs": 8, "seeds": np.random.SeedSequence(0)}
    assert sweep.wrapping(**how, n_workers=1).shape == (8, 2)
    message = r"shape must fit into the 0.001 GB of memory, got \(100, 100\), which takes 0.00"
    for call in (
        lambda: sweep.wrapping(**how, n_workers=8),
        lambda: sweep.sweep(p=0.5, **how, n_workers=8),
        lambda: sweep.wrapping_in_order(np.arange(40_000), (200, 200)),
        lambda: sweep.microcanonical(np.arange(40_000), False, (200, 200), True),
        lambda: sweep.bonds((200, 200), True),
    ):
        with pytest.raises(ValueError, match=message.replace("100", "[12]00")):
            call()
    with pytest.raises(ValueError, match=r"p must fit .*, got shape \(10000,\) of float64, which takes 0.2"):
        sweep.sweep(p=np.zeros(10_000), **how, n_workers=1)


@pytest.mark.parametrize("order", [[2, 0, 1], np.array([2, 0, 1], dtype=">i8"), np.array([2, 9, 0, 9, 1])[::2]])
def test_orders_of_every_kind_and_layout_give_the_same(order):
    assert sweep.wrapping_in_order(order, (3,)).tolist() == [3]
    assert sweep.microcanonical(order, False, [3], [True])[0].tolist() == [0, 1, 2, 3]
    with pytest.raises(TypeError, match="order must be integers, got"):
        sweep.wrapping_in_order(np.asarray(order, dtype=float), (3,))


@pytest.mark.parametrize(
    "n, p, message",
    [
        (-1, 0.5, "n must be a whole number from 0 to 9007199254740992, got -1"),
        (2**63, 0.5, f"n must be a whole number from 0 to 9007199254740992, got {2**63}"),
        (2**53, 0.5, "n must fit into the .* GB of memory, got 9007199254740992, which takes"),
        (5, float("nan"), r"p must lie in \[0, 1\], got nan"),
    ],
)
def test_a_binomial_of_other_numbers_is_refused(n, p, message):
    with pytest.raises(ValueError, match=message):
        sweep.binomial(n, p)
