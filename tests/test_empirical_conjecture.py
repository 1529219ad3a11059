"""P(connected) against dimension: the ladder of cubes, the numbers of one network, the rows, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import xarray as xr
from pydantic import ValidationError

import paper_figs
from empirical import conjecture, conjecture_tables, lattice_models, network_lattice
from empirical.__main__ import COMMANDS
from empirical.conjecture import Settings
from empirical.network_lattice import LatticeNetwork
from paper_figs import fig_conjecture
from percolation import campaign, runs
from percolation.commandline import main

TINY = Settings(
    activations=("sin", "relu"),
    depths=(2,),
    dimensions=(1, 3, 8),
    width=8,
    n_networks=4,
    max_cubes=1000,
    max_side=32,
    field_cubes=300,
    field_width=16,
    search_dimensions=(16, 40),
    n_pairs=3,
    search_budget=3000,
    size_radii=(1.0, 2.0),
    size_dimensions=(2, 8),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return campaign.run(conjecture.EXPERIMENT, TINY, out=tmp_path_factory.mktemp("runs"))


def test_ladder_is_what_the_cubes_allow():
    chosen = Settings(max_cubes=100_000_000, max_side=2000)
    assert conjecture.sides(chosen, 1) == (500, 1000, 2000)
    assert conjecture.sides(chosen, 4) == (25, 50, 100)
    assert conjecture.sides(chosen, 8) == (2, 5, 10)
    assert conjecture.sides(TINY, 1) == (8, 16, 32)
    assert conjecture.sides(TINY, 3) == (2, 5, 10)
    assert conjecture.sides(TINY, 8) == (0, 0, 2)


@pytest.mark.parametrize("dimension", range(1, 17))
def test_no_box_has_more_cubes_than_allowed(dimension):
    for max_cubes in (2**dimension, 10**5 + 1, 3**dimension - 1):
        side = conjecture.sides(Settings(max_cubes=max(2, max_cubes), max_side=512), dimension)[-1]
        assert side % 2 == 0
        assert side**dimension <= max_cubes or side == 2
        assert side == 512 or (side + 2) ** dimension > max_cubes


def test_numbers_are_those_of_the_network(run):
    """The network of a task by its seed, its box labelled, its cubes connected: the same number as in the dataset."""
    key = "relu depth=2 growing radius=3 d=3 network=2"
    seed = int(np.random.default_rng(campaign.seed_sequence(TINY.seed, key)).integers(2**63))
    law = LatticeNetwork(activation="relu", depth=2, width=8, box="growing")
    cells = network_lattice.label_box(
        network_lattice.build(law, 3, seed), 3, n_cells=10, radius=network_lattice.half_side(law, 3), delta=0.25
    )
    expected = lattice_models.connect_cubes(cells[0], 8)
    here = run.dataset.sel(activation="relu", depth=2, box="growing", dimension=3, model="network")
    assert float(here["in_label"].isel(network=2, rung=-1)) == expected.in_label
    assert float(here["in_any"].isel(network=2, rung=-1)) == expected.in_any
    mean_field = run.dataset["mean_field"].sel(activation="relu", depth=2, box="growing", dimension=3)
    assert float(mean_field.isel(network=2, rung=-1)) == lattice_models.mean_field(expected.shares, 3, 10)


def test_every_setting_of_the_networks_reaches_them():
    chosen = Settings(
        activations=("erf",), depths=(4,), boxes=("fixed",), width=7, gain=2.0, bias_std=0.1, final_activation="sigmoid"
    )
    laws = {part.kind: part.law for part in conjecture.tasks(chosen).values()}
    expected = LatticeNetwork(
        activation="erf", depth=4, width=7, gain=2.0, bias_std=0.1, final_activation="sigmoid", box="fixed"
    )
    assert laws["network"] == expected
    assert laws["fields"] == expected.model_copy(update={"width": 256})
    assert laws["size"] == expected.model_copy(update={"box": "growing", "radius": 6.0})


def test_shuffled_labels_have_the_networks_frequencies(run):
    shares = run.dataset["shares"]
    xr.testing.assert_allclose(shares.sel(model="shuffled", drop=True), shares.sel(model="network", drop=True))
    assert float(abs(shares.sel(model="independent") - shares.sel(model="network")).max()) > 0


def test_fields_stop_where_their_cubes_end(run):
    field = run.dataset["in_label"].sel(model="field")
    assert bool(field.sel(dimension=1).notnull().all())
    is_there = field.sel(dimension=3).notnull().all(("activation", "depth", "box", "network"))
    assert is_there.to_numpy().tolist() == [True, True, False]  # 10^3 cubes are more than 300


def test_rows_say_what_the_dataset_holds(run):
    rows = run.summary["rows"]
    assert len(rows) == 2 * 1 * 2 * 3
    row = next(row for row in rows if (row["activation"], row["box"], row["dimension"]) == ("sin", "fixed", 3))
    here = run.dataset["in_label"].sel(activation="sin", depth=2, box="fixed", dimension=3)
    values = here.sel(model="network").isel(rung=-1).to_numpy()
    assert row["network"] == pytest.approx(values.mean())
    assert row["network_error"] == pytest.approx(values.std(ddof=1) / 2)
    assert row["moved"] == pytest.approx(values.mean() - here.sel(model="network").isel(rung=1).to_numpy().mean())
    moved = values - here.sel(model="network").isel(rung=1).to_numpy()
    assert row["moved_error"] == pytest.approx(moved.std(ddof=1) / 2)
    assert row["is_resolved"] == (abs(row["moved"]) + 2 * row["moved_error"] <= 0.1 * (1 - values.mean()))
    fields = here.sel(model="field").isel(rung=1).to_numpy()
    pairs = fields.reshape(2, 2).mean(axis=1)  # two at a time share hidden layers
    assert (row["field"], row["field_side"]) == (pytest.approx(fields.mean()), 5)
    assert row["field_error"] == pytest.approx(pairs.std(ddof=1) / np.sqrt(2))
    assert row["network_at_field"] == pytest.approx(here.sel(model="network").isel(rung=1).to_numpy().mean())
    last = next(row for row in rows if row["dimension"] == 8)
    assert (last["moved"], last["is_resolved"]) == (None, False)  # two cubes along an axis cannot be halved
    json.dumps(run.summary, allow_nan=False)


def test_the_ratio_of_means_counts_the_pairs_of_all_networks_alike(run):
    """Pairs by label, from the boxes themselves: connected ones of all networks over all of one label."""
    law, connected, pairs = LatticeNetwork(activation="relu", depth=2, width=8, box="growing"), 0.0, 0.0
    ratios = []
    for network in range(4):
        key = f"relu depth=2 growing radius=3 d=3 network={network}"
        seed = int(np.random.default_rng(campaign.seed_sequence(TINY.seed, key)).integers(2**63))
        cells = network_lattice.label_box(
            network_lattice.build(law, 3, seed), 3, n_cells=10, radius=network_lattice.half_side(law, 3), delta=0.25
        )[0]
        of_network = [0.0, 0.0]
        for label in range(7):
            mask = (cells == label) | (cells == label + 1)
            sizes = np.bincount(scipy.ndimage.label(mask)[0].ravel())[1:].astype(float)
            of_network[0] += (sizes**2).sum()
            of_network[1] += float(mask.sum()) ** 2
        ratios.append(of_network[0] / of_network[1])
        connected, pairs = connected + of_network[0], pairs + of_network[1]
    where = {"activation": "relu", "depth": 2, "box": "growing", "dimension": 3}
    row = next(row for row in run.summary["rows"] if {name: row[name] for name in where} == where)
    assert row["network"] == pytest.approx(np.mean(ratios))
    assert row["network_pooled"] == pytest.approx(connected / pairs)
    assert row["network_pooled"] != pytest.approx(row["network"], abs=1e-6)
    pooled = run.dataset["in_label_pooled"].sel(where | {"model": "network"})
    assert float(pooled.isel(rung=-1)) == pytest.approx(connected / pairs)
    assert all(row["independent_pooled_error"] >= 0 for row in run.summary["sizes"])
    # runs that did not keep the pairs say so
    older = conjecture_tables.rows(run.dataset.drop_vars(["n_shared", "in_label_pooled"]))
    assert {(one["network_pooled"], one["network_pooled_error"]) for one in older} == {(None, None)}
    assert "did not keep" in fig_conjecture.caption(run.dataset.drop_vars("n_shared"))
    assert "times as large" in fig_conjecture.caption(run.dataset)


def test_the_readme_s_ratio_of_means_is_that_of_the_kept_run_s_networks():
    """The kept run has no pairs by network: they are counted in its networks, where README has the largest factor."""
    dataset = runs.read_finished(Path(paper_figs.__file__).parent / "data" / "conjecture")[0]
    chosen = Settings.model_validate_json(dataset.attrs["settings"])
    kept = dataset["in_label"].sel(activation="tanh", depth=3, box="fixed", dimension=1, model="network").isel(rung=-1)
    side = conjecture.sides(chosen, 1)[-1]
    found = []
    for network in range(chosen.n_networks):
        key = f"tanh depth=3 fixed radius=3 d=1 network={network}"
        seed = int(np.random.default_rng(campaign.seed_sequence(chosen.seed, key)).integers(2**63))
        law = LatticeNetwork(activation="tanh", box="fixed")
        cells = network_lattice.label_box(
            network_lattice.build(law, 1, seed), 1, n_cells=side, radius=network_lattice.half_side(law, 1), delta=0.25
        )
        connection = lattice_models.connect_cubes(cells[0], 8)
        assert connection.in_label == pytest.approx(
            float(kept[network]), abs=0.01
        )  # a value at a cell's end may differ
        found.append((connection.in_label, (connection.shares**2).sum()))
    ratios, weights = np.array(found).T
    factor = (1 - float(conjecture_tables.ratio_of_means(ratios, weights))) / (1 - ratios.mean())
    readme = " ".join((Path(paper_figs.__file__).parent.parent / "README.md").read_text().split())
    assert f"0.90 to {factor:.2f} times as large" in readme


def test_the_error_of_a_ratio_of_means_is_that_of_leaving_one_out():
    rng = np.random.default_rng(3)
    weights = rng.uniform(0.2, 5, 50)
    ratios = rng.uniform(0, 0.2, 50) + 1 / (1 + weights)
    table = {"in_label": ratios, "n_shared": weights}
    dataset = xr.Dataset(
        {name: (("model", "network", "rung"), value[None, :, None]) for name, value in table.items()},
        coords={"model": ["network"]},
    )
    found = conjecture_tables._pooled(dataset, "in_label", "n_shared", "network")
    assert found["network_pooled"] == pytest.approx((ratios @ weights) / weights.sum())
    without = np.array([np.delete(ratios * weights, i).sum() / np.delete(weights, i).sum() for i in range(50)])
    jackknife = np.sqrt(49 / 50 * ((without - without.mean()) ** 2).sum())
    assert found["network_pooled_error"] == pytest.approx(jackknife, rel=0.05)
    assert abs(conjecture_tables.standard_error(ratios) / jackknife - 1) > 0.2  # that of the mean of ratios


def test_boxes_of_several_sizes_are_growing_ones(run):
    key = "sin depth=2 growing radius=2 d=2 size=3"
    seed = int(np.random.default_rng(campaign.seed_sequence(TINY.seed, key)).integers(2**63))
    law = LatticeNetwork(activation="sin", depth=2, width=8, box="growing", radius=2.0)
    cells = network_lattice.label_box(
        network_lattice.build(law, 2, seed), 2, n_cells=30, radius=network_lattice.half_side(law, 2), delta=0.25
    )
    here = run.dataset["in_label_by_size"].sel(activation="sin", depth=2, size_radius=2.0, size_dimension=2)
    values = here.sel(model="network").isel(rung=-1).to_numpy()
    assert values[3] == lattice_models.connect_cubes(cells[0], 8).in_label
    rows = run.summary["sizes"]
    assert len(rows) == 2 * 1 * 2 * 2
    row = next(row for row in rows if (row["activation"], row["size_radius"], row["size_dimension"]) == ("sin", 2.0, 2))
    assert row["network"] == pytest.approx(values.mean())
    assert row["moved"] == pytest.approx((values - here.sel(model="network").isel(rung=1).to_numpy()).mean())
    assert [row["moved"] for row in rows if row["size_dimension"] == 8] == [None] * 4


@pytest.mark.parametrize("budget, expected", [(3000, 1.0), (2, np.nan)])
def test_a_search_joins_a_pair_or_is_given_up(run, budget, expected):
    """On sixteen axes of a fixed box a pair is joined within thousands of cubes, and not within two."""
    key = "sin depth=2 fixed radius=3 d=16 search=1"
    chosen = TINY.model_copy(update={"search_budget": budget})
    seeds = campaign.seed_sequence(TINY.seed, key)
    found = conjecture.run_task(chosen, conjecture.tasks(chosen)[key], seeds)["is_joined"]
    np.testing.assert_equal(float(found), expected)
    if budget == TINY.search_budget:
        here = run.dataset["is_joined"].sel(activation="sin", depth=2, search_dimension=16)
        assert float(here.isel(pair=1)) == expected


def test_pairs_given_up_count_as_not_joined(run):
    changed = run.dataset.copy(deep=True)
    changed["is_joined"][:] = [1.0, np.nan, 0.0]
    row = conjecture_tables.search_rows(changed)[0]
    assert (row["n_pairs"], row["n_joined"], row["n_given_up"]) == (3, 1, 1)
    assert 0 < row["low"] < 1 / 3 < row["high"] < 1
    assert [row["search_dimension"] for row in run.summary["searches"]] == [16, 40] * 2


def test_a_pair_that_cannot_be_joined_is_told(run):
    """On a line what stands between cannot be passed: of twelve long lines some join their pair and some do not."""
    chosen = Settings(
        activations=("sin",),
        depths=(2,),
        boxes=("fixed",),
        dimensions=(1,),
        search_dimensions=(1,),
        n_pairs=12,
        radius=12,
    )
    found = [
        float(conjecture.run_task(chosen, task, campaign.seed_sequence(0, key))["is_joined"])
        for key, task in conjecture.tasks(chosen).items()
        if task.kind == "search"
    ]
    assert set(found) == {0.0, 1.0}


def test_cubes_that_certify_are_those_of_the_bound(run):
    """With so many cubes along an axis, and not with fewer, half of delta is the most that a cube's values span."""
    key = "sin depth=2 fixed radius=3 d=1 network=0"
    seed = int(np.random.default_rng(campaign.seed_sequence(TINY.seed, key)).integers(2**63))
    law = LatticeNetwork(activation="sin", depth=2, width=8)
    network, radius = network_lattice.build(law, 1, seed), network_lattice.half_side(law, 1)
    side = int(run.dataset["certain_side"].sel(activation="sin", depth=2, box="fixed", dimension=1)[0])
    enough, too_few = (
        2 * network_lattice.upper_reach(network, 1, side=2 * radius / n) <= TINY.delta / 2 * (1 + 1e-9)
        for n in (side, side - 1)
    )
    assert (enough, too_few) == (True, False)


def test_same_bits_for_any_number_of_workers(run, tmp_path):
    again = campaign.run(conjecture.EXPERIMENT, TINY, out=tmp_path, n_workers=2)
    xr.testing.assert_identical(run.dataset, again.dataset)


def test_every_variable_says_what_it_is(run):
    for variable in run.dataset.data_vars.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"depths": (1,)}, r"depths\n.*be one or more of 2 to 6"),
        ({"depths": ()}, r"depths\n.*be one or more of 2 to 6"),
        ({"dimensions": (0, 1)}, r"dimensions\n.*be in 1 to 16 each"),
        ({"dimensions": (17,)}, r"dimensions\n.*be in 1 to 16 each"),
        ({"dimensions": ()}, r"dimensions\n.*name at least one"),
        ({"size_radii": (1.0, 0.0)}, r"size_radii\n.*be one or more numbers from 0.001 to 1000"),
        ({"search_dimensions": (16, 0)}, r"search_dimensions\n.*be in 1 to 100000 each"),
        ({"boxes": ()}, r"boxes\n.*name at least one"),
        ({"activations": ()}, r"activations\n.*name at least one"),
        ({"delta": 0.3}, "delta must be 1/n for a whole number n, got 0.3"),
        ({"n_networks": 5}, "n_networks must be at least twice, and a multiple of, shared_fields = 2, got 5"),
        ({"shared_fields": 8}, "n_networks must be at least twice, and a multiple of, shared_fields = 8, got 8"),
        ({"max_cubes": 10**9}, "less than or equal to 100000000"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        Settings(**changes)


def test_the_command_prints_a_table(tmp_path, capsys):
    words = "lattice --activations tanh --boxes fixed --dimensions 1 2 --width 4 --n-networks 2 --shared-fields 1"
    words += (
        f" --max-cubes 64 --field-width 4 --size-dimensions 2 --size-radii 1.5 --search-dimensions 9 --out {tmp_path}"
    )
    main("empirical", COMMANDS, words.split())
    printed = " ".join(capsys.readouterr().out.split())
    assert "delta = 0.25: are they connected in it?" in printed
    assert "tanh 3 fixed 2 8 " in printed
    assert "tanh 3 2 1.5 " in printed
    assert "tanh 3 9 20 20 0 " in printed
