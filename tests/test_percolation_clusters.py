"""Clusters of labelled lattices against networkx and scipy's sparse graphs, and facts that hold for every lattice."""

import itertools
import os
import subprocess
import sys
import tracemalloc
from unittest import mock

import numpy as np
import oracles
import pytest
import scipy.ndimage
import strategies
from hypothesis import given

from percolation import clusters


def as_sets(numbers):
    return {frozenset(map(tuple, np.argwhere(numbers == k))) for k in range(numbers.max(initial=-1) + 1)}


def label(lattice, blocks=(1024, 65536)):
    with mock.patch.multiple(clusters, _BLOCK=blocks[0], _CHUNK=blocks[1]):
        return clusters.label_clusters(lattice.labels, periodic=lattice.periodic, reach=lattice.reach)


def random_labels(shape, p, n_labels, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < p, rng.integers(0, n_labels, shape), -1).astype(np.int8)


def test_the_oracles_themselves_on_a_lattice_drawn_by_hand():
    labels = np.array([[0, 0, -1], [1, -1, 2], [0, 0, 2]])
    found = oracles.components_by_graph(labels, (False, False), 0)
    expected = [{(0, 0), (0, 1)}, {(1, 0)}, {(1, 2), (2, 2)}, {(2, 0), (2, 1)}]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))
    assert len(oracles.components_by_graph(labels, (True, False), 0)) == 3  # the zeros meet across the faces
    assert oracles.cluster_numbers(labels, (False, False), 0).tolist() == [[0, 0, -1], [1, -1, 2], [3, 3, 2]]
    assert oracles.cluster_numbers(labels, (True, False), 1).tolist() == [[0, 0, -1], [0, -1, 1], [0, 0, 1]]
    assert oracles.agreeing_bonds(labels, (True, False), 0) == [(0, 1), (5, 0), (6, 0), (6, 1), (7, 0)]
    distances = [[1, 0, -1], [2, -1, 2], [2, 1, -1]]
    labels[1] = (0, -1, 0)
    labels[2, 2] = -1
    labels[0, 2] = 0
    distances = [[1, 0, 1], [2, -1, 2], [2, 1, -1]]
    assert oracles.distances_by_graph(labels, (True, False), 0, (0, 1)).tolist() == distances


@given(strategies.labelled_lattices(), strategies.block_sizes())
def test_clusters_match_the_graph_components(lattice, blocks):
    found = label(lattice, blocks)
    expected = set(oracles.components_by_graph(lattice.labels, lattice.periodic, lattice.reach))
    assert as_sets(found.numbers) == expected
    assert (found.numbers < 0).sum() == (lattice.labels < 0).sum()
    assert found.sizes.tolist() == [int((found.numbers == k).sum()) for k in range(found.sizes.size)]
    firsts = [np.flatnonzero(found.numbers.ravel() == k)[0] for k in range(found.sizes.size)]
    assert firsts == sorted(firsts)
    assert found.labels.tolist() == lattice.labels.ravel()[firsts].tolist()
    assert found.labels.dtype == lattice.labels.dtype


@given(strategies.dense_lattices(), strategies.block_sizes())
def test_spanning_and_wrapping_match_the_unrolled_clusters(lattice, blocks):
    found = label(lattice, blocks)
    shape = lattice.labels.shape
    bonds = oracles.agreeing_bonds(lattice.labels, lattice.periodic, lattice.reach)
    for k in range(found.sizes.size):
        sites = np.flatnonzero(found.numbers.ravel() == k).tolist()
        within = [bond for bond in bonds if bond[0] in set(sites)]
        crossing = oracles.crossing_axes(shape, lattice.periodic, sites, within)
        spans = oracles.crossing_axes(shape, [False] * len(shape), sites, within)
        assert found.spans[k].tolist() == spans
        assert found.wraps[k].tolist() == [c and around for c, around in zip(crossing, lattice.periodic, strict=True)]


@given(strategies.dense_lattices())
def test_distances_and_connectedness_match_the_graph(lattice):
    source = np.unravel_index(lattice.labels.size // 2, lattice.labels.shape)
    found = label(lattice)
    distances = clusters.chemical_distances(lattice.labels, source, periodic=lattice.periodic, reach=lattice.reach)
    expected = oracles.distances_by_graph(lattice.labels, lattice.periodic, lattice.reach, source)
    np.testing.assert_array_equal(distances, expected)
    for site in np.ndindex(lattice.labels.shape):
        assert clusters.are_connected(found, source, site) == (expected[site] >= 0)


@given(strategies.labelled_lattices())
def test_the_two_largest_and_the_mean_size_are_those_of_the_sorted_sizes(lattice):
    found = label(lattice)
    ranked = sorted(found.sizes.tolist(), reverse=True)
    for n, number in enumerate((found.largest, found.second_largest)):
        assert number == -1 if len(ranked) <= n else found.sizes[number] == ranked[n]
    if len(ranked) > 1:
        assert found.largest != found.second_largest
    sites = found.sizes[found.numbers[found.numbers >= 0]]  # for each occupied site, the size of its cluster
    assert clusters.mean_size(found, with_largest=True) == pytest.approx(sites.mean() if sites.size else 0.0)
    others = found.sizes[found.numbers[(found.numbers >= 0) & (found.numbers != found.largest)]]
    assert clusters.mean_size(found, with_largest=False) == pytest.approx(others.mean() if others.size else 0.0)


@pytest.mark.parametrize(
    "sizes, expected",
    [((1, 3, 1), (1, 0)), ((2, 2, 2), (0, 1)), ((1, 2, 3), (2, 1)), ((3, 1, 2), (0, 2)), ((4,), (0, -1))],
)
def test_of_equal_clusters_the_first_ranks_higher(sizes, expected):
    found = clusters.label_clusters(np.repeat(np.arange(len(sizes)), sizes))
    assert (found.largest, found.second_largest) == expected


@given(strategies.dense_lattices())
def test_transposing_the_lattice_changes_no_cluster(lattice):
    found = label(lattice)
    turned = clusters.label_clusters(lattice.labels.T, periodic=lattice.periodic[::-1], reach=lattice.reach)
    assert as_sets(found.numbers) == as_sets(turned.numbers.T)
    partners = [turned.numbers.T[tuple(np.argwhere(found.numbers == k)[0])] for k in range(found.sizes.size)]
    np.testing.assert_array_equal(found.sizes, turned.sizes[partners])
    np.testing.assert_array_equal(found.spans, turned.spans[partners, ::-1])
    np.testing.assert_array_equal(found.wraps, turned.wraps[partners, ::-1])


@given(strategies.labelled_lattices())
def test_labels_are_not_changed(lattice):
    before = lattice.labels.copy()
    label(lattice)
    clusters.chemical_distances(lattice.labels, (0,) * before.ndim, periodic=lattice.periodic, reach=lattice.reach)
    np.testing.assert_array_equal(before, lattice.labels)


@pytest.mark.parametrize("reach", [0, 1])
@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize(
    "shape, p, n_labels",
    [
        ((300_000,), 0.99, 1),
        ((5_000, 61), 0.6, 1),
        ((3, 90_000), 0.8, 2),
        ((90_000, 3), 1.0, 3),
        ((61, 64, 67), 0.32, 1),
        ((61, 64, 67), 1.0, 7),
        ((8,) * 6, 0.11, 1),
        ((3,) * 11, 0.06, 1),
        ((2,) * 13, 0.5, 3),
        ((2,) * 18, 0.06, 1),
        ((3, 2, 3, 2, 2, 1, 5, 2, 3, 2, 2, 2, 3), 0.4, 2),
    ],
)
def test_large_lattices_in_many_dimensions_match_the_sparse_graph(shape, p, n_labels, around, reach):
    labels = random_labels(shape, p, n_labels, 3)
    found = clusters.label_clusters(labels, periodic=around, reach=reach)
    np.testing.assert_array_equal(found.numbers, oracles.cluster_numbers(labels, [around] * len(shape), reach))
    np.testing.assert_array_equal(found.sizes, np.bincount(found.numbers[labels >= 0]))
    for axis in range(len(shape)):
        both = set(found.numbers.take(0, axis).ravel()) & set(found.numbers.take(-1, axis).ravel()) - {-1}
        assert both == set(np.flatnonzero(found.spans[:, axis]))


@pytest.mark.parametrize("n_labels", [1, 2, 3, 4])
def test_two_corners_of_a_square_are_joined_as_often_as_their_labels_say(n_labels):
    # Uniform labels out of K on 2 x 2: the corners agree (1/K), and so does one of the others at least.
    joined = [
        clusters.are_connected(clusters.label_clusters(np.ma.reshape(labels, (2, 2))), (0, 0), (1, 1))
        for labels in itertools.product(range(n_labels), repeat=4)
    ]
    assert sum(joined) == n_labels * (2 * n_labels - 1)  # K^4 labellings times 1/K times 1 - (1 - 1/K)^2


@pytest.mark.parametrize(
    "shape, lowest, highest, periodic, reach",
    [
        ((2, 3), -1, 1, False, 0),
        ((2, 3), 0, 2, False, 1),
        ((2, 2, 2), -1, 0, False, 0),
        ((3, 3), -1, 0, (True, False), 0),
        ((6,), -1, 1, True, 0),
    ],
)
def test_all_labellings_of_a_box_join_two_corners_as_often_as_counted(shape, lowest, highest, periodic, reach):
    corner, other = (0,) * len(shape), tuple(n - 1 for n in shape)
    axes = (periodic,) * len(shape) if isinstance(periodic, bool) else periodic
    counts = np.zeros(3, dtype=int)
    for flat in itertools.product(range(lowest, highest + 1), repeat=int(np.prod(shape))):
        labels = np.ma.reshape(flat, shape)  # nothing is masked: labels, also where they are zeros and ones alone
        found = clusters.label_clusters(labels, periodic=periodic, reach=reach)
        distances = clusters.chemical_distances(labels, corner, periodic=periodic, reach=reach)
        counts[0] += clusters.are_connected(found, corner, other)
        counts[1] += distances[other] >= 0
        counts[2] += any({corner, other} <= sites for sites in oracles.components_by_graph(labels, axes, reach))
    assert 0 < counts[0] < (highest - lowest + 1) ** np.prod(shape)
    assert counts.tolist() == [counts[2]] * 3


def test_windings_drawn_by_hand():
    line = np.full((5, 5), -1)
    line[2, :] = 0
    staircase = np.full((5, 5), -1)
    staircase[range(5), range(5)] = staircase[range(5), [1, 2, 3, 4, 0]] = 0
    gap = line.copy()
    gap[2, 3] = -1
    for labels, expected in ((line, [False, True]), (staircase, [True, True]), (gap, [False, False])):
        assert clusters.label_clusters(labels, periodic=True).wraps.tolist() == [expected]
    assert clusters.label_clusters(line, periodic=(True, False)).wraps.tolist() == [[False, False]]
    # Around an axis of length 1 or 2 there is nothing to wind.
    assert not clusters.label_clusters(np.zeros((1, 2), dtype=int), periodic=True).wraps.any()
    assert clusters.label_clusters(np.zeros((1, 3), dtype=int), periodic=True).wraps.tolist() == [[False, True]]


@pytest.mark.parametrize("shape, p", [((20, 20), 0.6), ((6, 6, 6), 0.33), ((4, 3, 5, 4), 0.22)])
def test_wrapping_near_the_threshold_matches_the_unrolled_clusters(shape, p):
    around = [True] * len(shape)
    for seed in range(40):
        labels = random_labels(shape, p, 1, seed)
        wraps = clusters.label_clusters(labels, periodic=True).wraps
        bonds = oracles.agreeing_bonds(labels, around, 0)
        sites = np.flatnonzero(labels >= 0).tolist()
        assert wraps.any(axis=0).tolist() == oracles.crossing_axes(shape, around, sites, bonds)


@pytest.mark.parametrize("around", [False, True])
def test_distances_on_a_full_lattice_are_sums_of_steps_along_the_axes(around):
    shape, source = (40, 37, 30), (3, 30, 11)
    steps = [np.abs(place - at) for place, at in zip(np.indices(shape), source, strict=True)]
    if around:
        steps = [np.minimum(step, length - step) for step, length in zip(steps, shape, strict=True)]
    found = clusters.chemical_distances(np.zeros(shape, dtype=np.int8), source, periodic=around)
    np.testing.assert_array_equal(found, sum(steps))


def test_an_empty_lattice_has_no_cluster():
    found = clusters.label_clusters(np.full((3, 3), -1), periodic=True)
    assert found.sizes.size == 0
    assert found.spans.shape == found.wraps.shape == (0, 2)
    assert (found.largest, found.second_largest) == (-1, -1)
    assert clusters.mean_size(found, with_largest=True) == clusters.mean_size(found, with_largest=False) == 0
    assert not clusters.are_connected(found, (0, 0), (0, 0))
    assert (clusters.chemical_distances(np.full((3, 3), -1), (1, 1)) == -1).all()


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", ">i4", "i8"])
def test_labels_of_every_kind_and_layout_give_the_same(dtype):
    labels = random_labels((20, 30), 1.0, 3, 5)
    expected = clusters.label_clusters(labels, reach=1)
    for given_labels in (labels.astype(dtype), np.asfortranarray(labels.astype(dtype))):
        found = clusters.label_clusters(given_labels, reach=1)
        np.testing.assert_array_equal(found.numbers, expected.numbers)
        np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(
        clusters.label_clusters(labels.astype(np.int64) + (2**63 - 3), reach=1).numbers, expected.numbers
    )


def test_more_sites_and_more_clusters_than_a_number_holds():
    """What happens at 2^31 of them, at 2^7: the union-find is wide from the start, the sites' numbers when need be."""
    assert [clusters._narrowest(n) for n in (2**31 - 1, 2**31, 2**40)] == [np.int32, np.int64, np.int64]
    few = np.zeros((30, 40), dtype=np.int8)
    few[10::11] = -1
    many = random_labels((30, 40), 1.0, 7, 0)
    for labels, dtype in ((few, np.int8), (many, np.int16)):
        expected = clusters.label_clusters(labels, periodic=(False, True))
        with mock.patch.multiple(clusters, _WIDTHS=(np.int8, np.int16), _BLOCK=4, _CHUNK=16):
            found = clusters.label_clusters(labels, periodic=(False, True))
        assert found.numbers.dtype == dtype
        np.testing.assert_array_equal(found.numbers, expected.numbers)
        np.testing.assert_array_equal(found.sizes, expected.sizes)
        np.testing.assert_array_equal(found.wraps, expected.wraps)
    assert clusters.label_clusters(few).sizes.max() > np.iinfo(np.int8).max
    assert clusters.label_clusters(many).sizes.size > np.iinfo(np.int8).max


@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize(
    "shape, p",
    [((1_500, 1_500), 0.5927), ((128,) * 3, 0.3116), ((11,) * 6, 0.109), ((6,) * 8, 0.0752), ((3,) * 13, 0.0427),
     ((2,) * 21, 0.05)],
    ids=lambda value: f"d{len(value)}" if isinstance(value, tuple) else "",
)  # fmt: skip
def test_memory_near_the_threshold_is_five_bytes_a_site(shape, p, around):
    labels = random_labels(shape, p, 1, 0)
    clusters.label_clusters(labels[:2], periodic=around)  # compiled
    tracemalloc.start()
    try:
        clusters.label_clusters(labels, periodic=around)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 5 * labels.size


def test_compiled_and_plain_python_agree_to_the_last_site():
    script = (
        "import numpy as np\n"
        "from percolation import clusters\n"
        "clusters._BLOCK, clusters._CHUNK = 8, 30\n"
        "rng = np.random.default_rng(3)\n"
        "lattices = ((6, 5, 4), -1, True, 1), ((9, 7), -1, True, 0), ((12, 12, 11), 0, False, 1)\n"
        "for shape, low, periodic, reach in lattices:\n"
        "    labels = rng.integers(low, 2, shape).astype(np.int8)\n"
        "    found = clusters.label_clusters(labels, periodic=periodic, reach=reach)\n"
        "    for part in (found.numbers, found.sizes, found.labels, found.spans, found.wraps):\n"
        "        print(part.tolist())\n"
        "    source = (0,) * len(shape)\n"
        "    print(clusters.chemical_distances(labels, source, periodic=periodic, reach=reach).tolist())\n"
    )
    outputs = []
    for disable in ("0", "1"):
        command = [sys.executable, "-W", "error", "-c", script]
        environment = os.environ | {"NUMBA_DISABLE_JIT": disable}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


def test_two_dimensional_crossing_at_threshold_is_near_one_half():
    # Spanning probability of an open square at p_c is exactly 1/2 in the limit (Cardy, by duality for the matching
    # pair: site percolation at finite L differs by about 0.01). 400 lattices: standard error 0.025; band of 5: 6e-7.
    rng = np.random.default_rng(1)
    crossed = [
        clusters.label_clusters(np.where(rng.random((96, 96)) < 0.59274605, 0, -1)).spans[:, 0].any()
        for _ in range(400)
    ]
    assert abs(np.mean(crossed) - 0.5) < 0.14


def test_two_dimensional_wrapping_at_threshold_has_its_exact_probability():
    # 0.521058290 in a given direction (Pinson 1994; Newman, Ziff 2001), corrections of order L^-2. 1,600 lattices:
    # standard error 0.0125; a band of 5 of them, either side: false alarm 6e-7.
    rng = np.random.default_rng(2)
    wrapped = [
        clusters.label_clusters(np.where(rng.random((48, 48)) < 0.59274605, 0, -1), periodic=True).wraps[:, 0].any()
        for _ in range(1_600)
    ]
    assert abs(np.mean(wrapped) - 0.52105829) < 5 * 0.0125


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"labels": [0.5]}, TypeError, r"labels must be integers .* or a masked array, got float64"),
        ({"labels": np.array([3], dtype="m8[s]")}, TypeError, r"labels must be integers .* got timedelta64"),
        ({"labels": np.empty((0, 3), dtype=int)}, ValueError, "labels must have at least one site"),
        ({"labels": 3}, ValueError, "labels must have at least one site"),
        ({"labels": np.zeros((1,) * 33, dtype=int)}, ValueError, "labels must have at most 32 axes, got 33"),
        ({"labels": np.array([2**63], dtype=np.uint64)}, ValueError, f"labels must be below 2\\^63, got {2**63}"),
        ({"labels": [1], "periodic": (True, False)}, ValueError, "periodic must be one bool or 1, got 2"),
        (
            {"labels": np.ma.array([2**63, 1], dtype=np.uint64, mask=[0, 1])},
            ValueError,
            f"labels must be below 2\\^63, got {2**63}",
        ),
        ({"labels": [1], "periodic": "x"}, TypeError, "periodic must be one bool or 1, got x"),
        ({"labels": [1], "periodic": 1}, TypeError, "periodic must be one bool or 1, got 1"),
        ({"labels": [1], "reach": -1}, ValueError, "reach must be a whole number from 0 to .*, got -1"),
        ({"labels": [1], "reach": 2**63}, ValueError, f"reach must be a whole number from 0 .*, got {2**63}"),
        ({"labels": [1], "reach": 0.5}, TypeError, "reach must be a whole number .*, got 0.5"),
        ({"labels": [1], "reach": True}, TypeError, "reach must be a whole number .*, got True"),
        (
            {"labels": np.broadcast_to(np.int8(1), (10**6, 10**7))},
            ValueError,
            r"labels must fit into the .* GB of memory, got shape \(1000000, 10000000\), which takes 5e\+04 GB",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        clusters.label_clusters(**arguments)
    with pytest.raises(error, match=message):
        clusters.chemical_distances(**arguments, source=(0,))


def test_a_mask_is_taken_for_what_it_says():
    mask = np.random.default_rng(0).random((40, 30)) < 0.4
    numbers, n_clusters = scipy.ndimage.label(mask)
    dtypes = [np.uint8, np.int8, np.int32, ">i4", np.uint64]
    masks = [mask, mask[:, ::-1][:, ::-1], mask.tolist(), np.ma.array(mask, mask=False)]
    masked = [np.ma.masked_equal(mask.astype(dtype), 0) for dtype in dtypes]
    masked.append(np.ma.array(np.full(mask.shape, 200, np.uint8), mask=~mask))
    for given_mask in (*masks, *masked, np.ma.array(np.ones_like(mask), mask=~mask)):
        found = clusters.label_clusters(given_mask)
        np.testing.assert_array_equal(found.numbers, numbers - 1)
        assert found.sizes.size == n_clusters
        source = tuple(np.argwhere(mask)[0])
        distances = clusters.chemical_distances(given_mask, source)
        np.testing.assert_array_equal(distances >= 0, numbers == numbers[source])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, int, np.int8, ">i2"])
def test_what_may_be_a_mask_or_labels_is_refused_with_the_remedy(dtype):
    mask = np.eye(3).astype(dtype)
    message = (
        r"labels must say which sites are empty, got .* from 0 to 1, which may be a mask: give bools \(False: empty"
    )
    with pytest.raises(ValueError, match=message):
        clusters.label_clusters(mask)
    with pytest.raises(ValueError, match=message):
        clusters.chemical_distances(mask, (0, 0))
    assert clusters.label_clusters(np.ma.asarray(mask)).sizes.tolist() == [1, 3, 3, 1, 1]  # nothing is masked: labels
    assert clusters.label_clusters(mask + mask.dtype.type(1)).sizes.size == 5
    assert clusters.label_clusters(mask, reach=1).sizes.tolist() == [9]  # cells, which no mask is


def test_unsigned_labels_with_a_zero_are_refused_and_all_zeros_are_a_full_lattice():
    with pytest.raises(ValueError, match="labels must say which sites are empty, got uint8 from 0 to 255"):
        clusters.label_clusters(255 * np.eye(3, dtype=np.uint8))
    assert clusters.label_clusters(np.where(np.ones((2, 2), dtype=bool), 0, -1)).sizes.tolist() == [4]


@pytest.mark.parametrize("site", [(0,), (0, 3), (-1, 0), (0, 0, 0)])
def test_a_site_elsewhere_is_refused(site):
    labels = np.zeros((2, 3), dtype=int)
    found = clusters.label_clusters(labels)
    where = r"must be a site of the lattice \(2, 3\), got \(" + str(site)[1:-1]
    with pytest.raises(ValueError, match="first " + where):
        clusters.are_connected(found, site, (0, 0))
    with pytest.raises(ValueError, match="second " + where):
        clusters.are_connected(found, (0, 0), site)
    with pytest.raises(ValueError, match="source " + where):
        clusters.chemical_distances(labels, site)


def test_a_site_of_another_kind_is_refused():
    found = clusters.label_clusters(np.zeros((2, 3), dtype=int))
    with pytest.raises(TypeError, match=r"first must be integers, got \(0.5, 0\)"):
        clusters.are_connected(found, (0.5, 0), (0, 0))
    with pytest.raises(TypeError, match="found must be percolation's Clusters, got 3"):
        clusters.mean_size(3, with_largest=True)
    with pytest.raises(TypeError, match="with_largest must be a bool, got no"):
        clusters.mean_size(found, with_largest="no")
    with pytest.raises(TypeError, match="found must be percolation's Clusters, got 3"):
        clusters.are_connected(3, (0, 0), (0, 0))
