"""Search on implicit lattices: mazes against breadth-first components, real networks, certificates, the experiment."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from empirical import lattice_pairs, lattice_search, network_lattice, value_intervals
from empirical.__main__ import COMMANDS
from lipschitz import fully_connected
from percolation import campaign, labels
from percolation.commandline import main
from tests import oracles, strategies

DELTA = 0.5  # four cells, three labels


class Table(nn.Module):
    """From a cube's centre to the middle of the cell that a table has for it; the gradient is zero."""

    def __init__(self, cells):
        super().__init__()
        self.cells = torch.from_numpy(cells)

    def forward(self, x):
        n_cells = len(self.cells)
        index = ((x + 1) / 2 * n_cells).floor().long()
        cells = self.cells[tuple(index.T)]
        return ((cells + 0.5) / 4 + 0 * x.sum(dim=1))[:, None]


def maze(cells):
    """A network whose value at the cubes of [-1, 1]^d is known: the identity, then a table."""
    identity = nn.Linear(cells.ndim, cells.ndim, bias=False, dtype=torch.float64)
    with torch.no_grad():
        identity.weight.copy_(torch.eye(cells.ndim))
    return nn.Sequential(identity, Table(cells))


def walk(cells, start, target, *, label=1, budget=10**6):
    return lattice_search.search(
        maze(cells),
        np.array(start),
        np.array(target),
        label=label,
        delta=DELTA,
        n_cells=len(cells),
        radius=1.0,
        budget=budget,
    )


def cubes_of(start, found):
    return [tuple(lattice_search.cube_after(np.array(start), found, k).tolist()) for k in range(len(found.axes) + 1)]


def component(cells, label, start):
    """The cubes that can be reached from a cube within a label, by breadth-first search."""
    carries = np.where((cells == label) | (cells == label + 1), 0, -1)
    parts = oracles.components_by_graph(carries, [False] * cells.ndim, 0)
    return next(part for part in parts if start in part)


@given(
    strategies.cells_of_cubes(),
    st.integers(0, 2),
    st.randoms(use_true_random=False),
    st.booleans(),
    st.sampled_from([1, 3, 256]),
    st.sampled_from([1, 1000]),
)
@settings(max_examples=150)
def test_search_finds_a_path_just_where_breadth_first_search_does(cells, label, random, is_hashed, batch, patience):
    carries = sorted(zip(*np.nonzero((cells == label) | (cells == label + 1)), strict=True))
    if not carries:
        return
    start, target = (tuple(int(i) for i in random.choice(carries)) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lattice_search, "_BATCH", batch)
        patch.setattr(lattice_search, "_PATIENCE", patience)
        if is_hashed:
            patch.setattr(lattice_search, "MOST_NUMBERED", 0)
        found = walk(cells, start, target, label=label)
    reachable = component(cells, label, start)
    assert found.status == ("found" if target in reachable else "exhausted")
    assert found.is_exact is not is_hashed
    assert found.distance == sum(abs(a - b) for a, b in zip(start, target, strict=True))
    if found.status == "exhausted":
        assert found.n_enclosed in (len(reachable), len(component(cells, label, target)))
        assert len(found.axes) == 0
        return
    assert found.n_enclosed == 0
    path = cubes_of(start, found)
    assert path[-1] == target
    assert set(path) <= reachable
    for before, after in itertools.pairwise(path):
        assert sum(abs(a - b) for a, b in zip(before, after, strict=True)) == 1


def test_a_wall_is_walked_around_and_a_budget_ends_the_search():
    cells = np.full((9, 9), 1)
    cells[4, :8] = 3  # label 1 is cells 1 and 2; a gap at the far end
    found = walk(cells, (0, 0), (8, 0))
    assert found.status == "found"
    assert len(found.axes) == 24
    assert (4, 8) in cubes_of((0, 0), found)
    stopped = walk(cells, (0, 0), (8, 0), budget=5)
    assert stopped.status == "budget"
    assert len(stopped.axes) == 0
    cells[4, 8] = 3
    closed = walk(cells, (0, 0), (8, 0))
    assert (closed.status, closed.n_enclosed) == ("exhausted", 36)


def test_the_pocket_is_explored_and_not_the_rest_of_the_box():
    cells = np.full((60, 60), 1)
    cells[50:53, 50:53] = 3
    cells[51, 51] = 1
    for ends in (((0, 0), (51, 51)), ((51, 51), (0, 0))):
        found = walk(cells, *ends)
        assert (found.status, found.n_enclosed) == ("exhausted", 1)
        assert found.n_evaluated < 1500


def test_a_way_out_is_found_sooner_than_the_way_in():
    # The target lies at the inner end of a corridor that leads away; from outside its mouth is far from the way.
    cells = np.full((60, 60), 1)
    cells[29:32, 10:40] = 3
    cells[30, 11:40] = 1
    start, target = (0, 12), (30, 12)
    evaluated = {}
    for patience in (1, 10**6):  # the other end soon has its turn, or never
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lattice_search, "_PATIENCE", patience)
            patch.setattr(lattice_search, "_BATCH", 16)
            found = walk(cells, start, target)
        path = cubes_of(start, found)
        assert path[-1] == target
        assert all(cells[cube] == 1 for cube in path)
        assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in itertools.pairwise(path))
        evaluated[patience] = found.n_evaluated
    assert evaluated[1] < evaluated[10**6]


def test_a_cube_is_connected_to_itself():
    found = walk(np.full((3, 3), 1), (1, 2), (1, 2))
    assert (found.status, len(found.axes), found.distance) == ("found", 0, 0)


@pytest.mark.parametrize("dimension, n_cells", [(40, 8), (500, 6)])
@pytest.mark.parametrize("activation", ["relu", "sin"])
def test_paths_in_high_dimension_keep_the_label_of_the_network_itself(dimension, n_cells, activation):
    law = network_lattice.LatticeNetwork(activation=activation)
    network = network_lattice.build(law, dimension, 3)
    radius = network_lattice.half_side(law, dimension)
    where = {"n_cells": n_cells, "radius": radius}
    pair = lattice_pairs.draw_pair(network, dimension=dimension, delta=0.25, rng=np.random.default_rng(5), **where)
    before = [parameter.clone() for parameter in network.parameters()]
    found = lattice_search.search(
        network, pair.start, pair.target, label=pair.shared[0], delta=0.25, budget=50_000, **where
    )
    assert found.status == "found"
    assert not found.is_exact
    # the cubes on the way, evaluated from their centres and not by columns
    path = np.array(cubes_of(pair.start, found))
    assert (path[-1] == pair.target).all()
    assert path.min() >= 0
    assert path.max() < n_cells
    with torch.no_grad():
        values = network(torch.from_numpy(network_lattice.centres(path, **where)))[:, 0].numpy()
    carried = labels.cells(values, 0.25) - pair.shared[0]
    assert set(carried.tolist()) <= {0, 1}
    # Most steps go to the target, and most of what is evaluated is used.
    assert len(path) - 1 <= 1.1 * found.distance
    assert found.n_evaluated <= 8 * len(path)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_same_search_again_is_the_same():
    cells = np.random.default_rng(1).integers(0, 4, size=(12, 12))
    cells[0, 0] = cells[11, 11] = 1
    first, second = (walk(cells, (0, 0), (11, 11)) for _ in range(2))
    assert first.status == second.status
    assert first.n_evaluated == second.n_evaluated
    np.testing.assert_array_equal(first.axes, second.axes)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"start": (0,)}, r"start must have an index for each of 2 axes, got shape \(1,\)"),
        ({"target": (0, 3)}, r"target must be a cube with indices 0 to 2, got \[0, 3\]"),
        ({"start": (-1, 0)}, r"start must be a cube with indices 0 to 2, got \[-1, 0\]"),
        ({"label": 3}, "label must be a whole number from 0 to 2, got 3"),
        ({"label": -1}, "label must be a whole number from 0 to 2, got -1"),
        ({"label": 0}, "target must carry label 0, got the value 0.625"),
        ({"start": (1, 1), "label": 2}, "start must carry label 2, got the value 0.125"),
    ],
)
def test_a_bad_argument_is_refused(change, message):
    cells = np.full((3, 3), 1)
    cells[2, 2], cells[1, 1] = 2, 0
    with pytest.raises(ValueError, match=message):
        walk(cells, **{"start": (0, 0), "target": (2, 2)} | change)


def test_a_network_without_a_first_matrix_in_float64_is_refused():
    for network, message in [
        (nn.Sequential(nn.Linear(2, 1), nn.Sigmoid()), "network must have weights of float64, got torch.float32"),
        (nn.Sequential(nn.Sigmoid(), nn.Linear(2, 1)), "network must be a Sequential that begins with a Linear"),
        (nn.Linear(2, 1), "network must be a Sequential that begins with a Linear"),
    ]:
        with pytest.raises(TypeError, match=message):
            lattice_search.search(network, np.zeros(2, int), np.ones(2, int), **SMALL)


SMALL = {"label": 0, "delta": 0.5, "n_cells": 2, "radius": 1.0, "budget": 10}


def test_arguments_of_another_kind_or_size_are_refused():
    network = nn.Sequential(nn.Linear(2, 1, dtype=torch.float64), nn.Sigmoid())
    ends = np.zeros(2, int), np.ones(2, int)
    for change, error, message in (
        ({"budget": -1}, ValueError, "budget must be a whole number of at least 0, got -1"),
        ({"budget": 1.5}, TypeError, "budget must be a whole number of at least 0, got 1.5"),
        ({"n_cells": 2.0}, TypeError, "n_cells must be a whole number of at least 1, got 2.0"),
        ({"delta": float("nan")}, ValueError, "delta must be finite, got nan"),
        ({"radius": float("nan")}, ValueError, "radius must be positive and finite, got nan"),
    ):
        with pytest.raises(error, match=message):
            lattice_search.search(network, *ends, **(SMALL | change))
    with pytest.raises(TypeError, match=r"start must be integers, got .*0.5"):
        lattice_search.search(network, ends[0] + 0.5, ends[1], **SMALL)
    flat = nn.Sequential(network[0], nn.Flatten(0))
    with pytest.raises(TypeError, match=r"network must make values \(n, n_outputs\) of points, got \(1,\) of torch.fl"):
        lattice_search.search(flat, *ends, **SMALL)
    with pytest.raises(ValueError, match="network must be on the CPU, got one on meta"):
        lattice_search.first_layer(nn.Sequential(nn.Linear(2, 1, dtype=torch.float64, device="meta"), nn.Sigmoid()))


def test_a_step_that_the_path_has_not_is_refused():
    cells = np.full((5, 5), 1)
    found = walk(cells, (0, 0), (4, 4))
    start = np.zeros(2, dtype=np.int64)
    assert lattice_search.cube_after(start, found, len(found.axes)).tolist() == [4, 4]
    for n_steps in (-1, len(found.axes) + 1):
        with pytest.raises(ValueError, match=f"n_steps must be a whole number from 0 to 8, got {n_steps}"):
            lattice_search.cube_after(start, found, n_steps)
    with pytest.raises(ValueError, match="start must have an index for each of the path's axes, got 1"):
        lattice_search.cube_after(start[:1], found, 0)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda p: value_intervals.certify_polygon(p, torch.zeros(1, 1), piece_budget=1),
            ValueError,
            "stops must be two",
        ),
        (
            lambda p: value_intervals.certify_polygon(p, [[0.0]], piece_budget=1),
            TypeError,
            "stops must be torch's Tensor",
        ),
        (
            lambda p: value_intervals.certify_polygon(p, torch.zeros(2, 1), piece_budget=0),
            ValueError,
            "piece_budget must be a whole number of at least 1, got 0",
        ),
        (
            lambda p: value_intervals.certify_path(p, torch.zeros(2, 1).__getitem__, -1, piece_budget=1),
            ValueError,
            "n_steps must be a whole number of at least 0, got -1",
        ),
        (
            lambda p: value_intervals.prepare(nn.Linear(1, 1), 0.1, 0.2),
            TypeError,
            "network must be a Sequential that begi",
        ),
        (lambda p: value_intervals.prepare(nn.Sequential(), math.nan, 0.2), ValueError, "low must be finite, got nan"),
        (
            lambda p: bypassed(torch.zeros(2, 1), low=0.5, high=0.5),
            ValueError,
            "low must be below high, got 0.5 and 0.5",
        ),
        (lambda p: bypassed(torch.zeros(2)), ValueError, r"starts must be inputs \(n, d\), .* got shape \(2,\)"),
        (lambda p: bypassed([[0.0]]), TypeError, "starts must be torch's Tensor, got"),
    ],
)
def test_intervals_and_polygons_that_are_none_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(value_intervals.prepare(line_network(nn.Sigmoid()), 0.2, 0.8))


def bypassed(starts, *, low=0.2, high=0.8):
    how = {"low": low, "high": high, "max_rounds": 1, "max_iterations": 1}
    return value_intervals.bypass(line_network(nn.Sigmoid()), starts, starts, **how)


def line_network(final, weight=2.0, bias=0.5):
    """final(weight x + bias) of one input, as a network of two matrices."""
    first, last = (nn.Linear(1, 1, dtype=torch.float64) for _ in range(2))
    with torch.no_grad():
        for layer, (w, b) in ((first, (1.0, 0.0)), (last, (weight, bias))):
            layer.weight.fill_(w)
            layer.bias.fill_(b)
    return nn.Sequential(first, last, final)


@pytest.mark.parametrize("final", [fully_connected.GaussianCdf(), nn.Sigmoid()])
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=4), st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(any))
def test_on_a_monotone_line_the_ends_decide(final, stops, ends):
    low, high = sorted(end / 8 for end in ends)
    network = line_network(final)
    if low == high:
        with pytest.raises(ValueError, match=f"low and high must satisfy 0 <= low < high <= 1, got {low} and {high}"):
            value_intervals.prepare(network, low, high)
        return
    points = torch.tensor(stops, dtype=torch.float64)[:, None]
    with torch.no_grad():
        values = network(points)
    margin = float(torch.minimum(values - low, high - values).min())
    if abs(margin) < 1e-9 and margin != 0:
        return  # too near to an end for the certificate
    found = value_intervals.certify_polygon(value_intervals.prepare(network, low, high), points, piece_budget=100)
    if margin > 0 or (low, high) == (0.0, 1.0):
        assert found.status == "certified"
        assert found.stops == tuple(range(len(stops)))
    elif margin < 0:
        assert found.status == "violated"


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_certificates_of_networks_agree_with_samples(activation):
    n_certified = n_violated = 0
    for seed in range(20):
        law = network_lattice.LatticeNetwork(activation=activation, width=16)
        network = network_lattice.build(law, 3, seed)
        ends = torch.randn(2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with torch.no_grad():
            values = network(torch.lerp(ends[:1], ends[1:], torch.linspace(0, 1, 2001)[:, None].double()))[:, 0]
        low, high = 0.3, 0.7
        prepared = value_intervals.prepare(network, low, high)
        found = value_intervals.certify_polygon(prepared, ends, piece_budget=10_000)
        if bool(((values < low) | (values > high)).any()):
            assert found.status == "violated"
            n_violated += 1
        else:
            assert found.status == "certified"
            n_certified += 1
    assert min(n_certified, n_violated) >= 3


def test_a_path_is_straightened_as_far_as_it_stays_inside():
    # Inside |x - 1| + |y - 1| >= 1 in the plane: a corner has to be walked around.
    first, middle, last = (nn.Linear(*shape, dtype=torch.float64) for shape in ((2, 2), (2, 4), (4, 1)))
    with torch.no_grad():
        first.weight.copy_(torch.eye(2))
        first.bias.fill_(-1.0)
        middle.weight.copy_(torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]]))
        middle.bias.zero_()
        last.weight.fill_(1.0)
        last.bias.fill_(-1.0)
    network = nn.Sequential(first, middle, nn.ReLU(), last, fully_connected.GaussianCdf())
    prepared = value_intervals.prepare(network, 0.5, 1.0)
    around = [(0.25 * k, -0.1) for k in range(9)] + [(2.1, 0.25 * k) for k in range(9)]
    points = torch.tensor(around, dtype=torch.float64)
    found = value_intervals.certify_path(prepared, points.__getitem__, len(points) - 1, piece_budget=100)
    assert found.status == "certified"
    assert found.stops[0] == 0
    assert found.stops[-1] == 17
    assert 3 <= len(found.stops) <= 7
    assert value_intervals.certify_polygon(prepared, points[list(found.stops)], piece_budget=100).status == "certified"
    straight = value_intervals.certify_path(prepared, points[:9].__getitem__, 8, piece_budget=100)
    assert straight.stops == (0, 8)
    through = torch.tensor([(0.0, 0.0), (0.5, 0.4), (1.5, 1.6), (2.0, 2.0)], dtype=torch.float64)
    assert value_intervals.certify_path(prepared, through.__getitem__, 3, piece_budget=100).status == "violated"


def test_the_smooth_loss_is_log_2_at_the_ends_of_the_interval():
    network = line_network(fully_connected.GaussianCdf())
    logits = value_intervals.IntervalLogits(network, 0.25, 0.75)
    x = torch.linspace(-2, 2, 401, dtype=torch.float64)[:, None]
    with torch.no_grad():
        values = network(x)[:, 0]
        loss = functional.cross_entropy(
            logits(x[:, :, None, None]), torch.zeros(401, dtype=torch.int64), reduction="none"
        )
    is_inside = (values >= 0.25) & (values <= 0.75)
    assert torch.equal(loss <= value_intervals.LARGEST_LOSS, is_inside)
    assert 0 < int(is_inside.sum()) < 401


def test_a_network_that_ends_otherwise_is_refused():
    first = nn.Linear(2, 2, dtype=torch.float64)
    for last, message in [
        ((nn.Linear(2, 1, dtype=torch.float64), nn.Tanh()), "GaussianCdf, Sigmoid, got Linear, Tanh"),
        ((nn.Tanh(), nn.Sigmoid()), "got Tanh, Sigmoid"),
        ((nn.Linear(2, 3, dtype=torch.float64), nn.Sigmoid()), "one output, got 3"),
    ]:
        with pytest.raises(TypeError, match=message):
            value_intervals.prepare(nn.Sequential(first, *last), 0.1, 0.2)


def test_pairs_share_the_labels_they_are_said_to():
    law = network_lattice.LatticeNetwork()
    network = network_lattice.build(law, 3, 1)
    radius = network_lattice.half_side(law, 3)
    rng = np.random.default_rng(0)
    for _ in range(50):
        pair = lattice_pairs.draw_pair(network, dimension=3, n_cells=6, radius=radius, delta=0.25, rng=rng)
        centres = network_lattice.centres(np.stack([pair.start, pair.target]), n_cells=6, radius=radius)
        with torch.no_grad():
            values = network(torch.from_numpy(centres))[:, 0].numpy()
        first, last = np.array([[max(cell - 1, 0), min(cell, 6)] for cell in labels.cells(values, 0.25).tolist()]).T
        assert sorted(pair.shared) == list(range(max(first), min(last) + 1))
        distances = [abs((label + 1) / 8 - values.mean()) for label in pair.shared]
        assert distances == sorted(distances)
        assert (pair.start != pair.target).any()


def test_pairs_that_share_nothing_end_the_draw():
    network = network_lattice.build(network_lattice.LatticeNetwork(), 2, 1)
    with pytest.raises(ValueError, match="two cubes must share a label, got none of 10,000 pairs in 2 dimensions"):
        lattice_pairs.draw_pair(network, dimension=2, n_cells=1, radius=1.0, delta=0.25, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return campaign.run(lattice_pairs.EXPERIMENT, lattice_pairs.CI, out=tmp_path_factory.mktemp("runs"))


def test_the_summary_counts_what_the_dataset_says(run):
    data = run.dataset
    assert data["status"].sizes == {"lattice": 5, "network": 3}
    for i, row in enumerate(run.summary["rows"]):
        here = data.isel(lattice=i)
        assert (row["box"], row["dimension"], row["n_cells"]) == lattice_pairs.CI.lattices[i]
        assert row["n_found"] + row["n_exhausted"] + row["n_budget"] == row["n_pairs"] == 3
        assert row["n_found"] == int(here["n_steps"].notnull().sum())
        assert row["n_certified"] == int(here["length_ratio"].notnull().sum())
        assert row["low"] <= row["n_found"] / 3 <= row["high"]
    json.dumps(run.summary, allow_nan=False)


def test_records_are_consistent(run):
    data = run.dataset
    found = data["status"] == 0
    assert bool(found.any())
    assert bool((found == data["n_steps"].notnull()).all())
    assert bool((data["n_steps"] >= data["distance"]).where(found, True).all())
    assert bool((data["n_evaluated"] > data["n_steps"]).where(found, True).all())
    # No certified polygon is shorter than the straight segment, but for rounding, nor longer than the path of cubes.
    ratio = data["length_ratio"]
    assert bool((ratio.where(ratio.notnull(), 1) >= 1 - 1e-12).all())
    # A straight segment that stays inside is a path of the bypass, without a bypass.
    straight = data["straight"] == 1
    assert bool(straight.any())
    assert bool((data["bypass_inside"] == 1).where(straight, True).all())
    for more, less in itertools.pairwise(("bypass_sampled", "bypass", "bypass_inside")):
        assert bool((data[more] >= data[less]).all())
    # in one dimension there is no other way
    line = data.isel(lattice=0)
    assert ((line["status"] == 0) == (line["straight"] == 1)).all()


def test_a_bypass_may_leave_the_box(tmp_path):
    # In 3,072 dimensions some coordinate of a midpoint is nearly always near a face, and a bypass moves them all.
    settings = lattice_pairs.Settings(lattices=(("fixed", 3072, 8),), n_networks=6)
    data = campaign.run(lattice_pairs.EXPERIMENT, settings, out=tmp_path).dataset
    assert 0 < int(data["bypass_inside"].sum()) < int(data["bypass"].sum())


def test_same_bits_for_any_number_of_workers(run, tmp_path):
    again = campaign.run(lattice_pairs.EXPERIMENT, lattice_pairs.CI, out=tmp_path, n_workers=2)
    xr.testing.assert_identical(run.dataset, again.dataset)


def test_every_variable_says_what_it_is(run):
    for variable in run.dataset.data_vars.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]


def test_the_command_prints_a_row_for_each_lattice(tmp_path, capsys):
    words = ["search", "--lattices", "fixed", "32", "8", "growing", "2", "8", "--n-networks", "2", "--max-rounds", "0"]
    main("empirical", COMMANDS, [*words, "--activation", "tanh", "--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    (first,) = [line.split() for line in lines if line.split()[:1] == ["fixed"]]
    assert first[:4] == ["fixed", "32", "8", "2"]
    assert any(line.split()[:4] == ["growing", "2", "8", "2"] for line in lines)
    assert "joined by search (tanh, 3 matrices, width 64)" in lines[0]


@pytest.mark.parametrize(
    "lattices, message",
    [
        ([("fixed", 0, 4)], "have a dimension of 1 to 1000000 and at least 2 cubes an axis"),
        ([("growing", 3, 1)], "have a dimension of 1 to 1000000 and at least 2 cubes an axis"),
        ([("fixed", 3, 4), ("fixed", 3, 4)], "differ from one another"),
        ([], "at least 1 item"),
    ],
)
def test_lattices_that_are_none_are_refused(lattices, message):
    with pytest.raises(ValueError, match=message):
        lattice_pairs.Settings(lattices=lattices)


def test_delta_must_be_one_over_a_whole_number():
    with pytest.raises(ValueError, match=r"delta must be 1/n for a whole number n, got 0\.3"):
        lattice_pairs.Settings(**lattice_pairs.CI.model_dump() | {"delta": 0.3})
