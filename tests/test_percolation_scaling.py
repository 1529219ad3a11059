"""The scaling experiment as a user meets it: rows, fits, and what they must satisfy."""

import json

import numpy as np
import pytest
import xarray as xr

from percolation import __main__ as command
from percolation import campaign, commandline, meanfield, picture, scaling

SMALL = scaling.Settings(deltas=(0.2, 0.1), dimensions=(3, 6, 16, 32), samples=2000, max_sites=1000, seed=4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return campaign.run(scaling.EXPERIMENT, SMALL, out=tmp_path_factory.mktemp("runs"))


def test_rows_have_what_the_readme_promises(finished):
    names = (
        "delta dimension p neighbours n_samples disconnected standard_error method truncation_bound mean_field isolated"
    )
    assert len(finished.summary["rows"]) == 8
    for row in finished.summary["rows"]:
        assert set(names.split()) <= set(row)
        assert row["neighbours"] == 2 * row["dimension"]
        assert row["p"] == row["delta"]
        assert row["isolated"] == pytest.approx((1 - row["p"]) ** row["neighbours"])
        assert 0 <= row["low"] <= row["disconnected"] <= row["high"] <= 1
        assert row["disconnected"] >= row["isolated"]  # an isolated site is disconnected
        q = row["neighbours"] * row["p"]
        survival = float(meanfield.poisson(q).connected)
        assert row["mean_field"] == pytest.approx(1 - survival**2, abs=1e-12)
        # below a mean of one new occupied neighbour all clusters are finite: nothing to simulate
        is_trivial = (row["neighbours"] - 1) * row["p"] <= 1
        assert row["method"] in (("exact",) if is_trivial else ("counting", "importance"))
        assert row["n_samples"] == SMALL.samples


def test_disconnection_falls_with_dimension_and_ends_as_two_isolated_sites(finished):
    for delta in SMALL.deltas:
        rows = [row for row in finished.summary["rows"] if row["delta"] == delta]
        values = [row["disconnected"] for row in rows]
        assert values == sorted(values, reverse=True)
        p, d = delta, 32
        both = 2 * (1 - p) ** (2 * d)
        first_correction = 2 * d * p * (1 - p) ** (2 * d - 2)
        assert values[-1] / both == pytest.approx(1 + first_correction, rel=0.01)


def test_fitted_rate_is_the_theorys(finished):
    for fit in finished.summary["fits"]:
        assert fit["theory_rate"] == pytest.approx(-2 * np.log1p(-fit["delta"]))
        # the error is a bound on curvature, not a statistical one
        assert abs(fit["rate"] - fit["theory_rate"]) < 3 * fit["rate_standard_error"]


def test_fit_recovers_a_known_rate_and_refuses_a_single_point():
    d = np.array([10, 20, 30, 40])
    curve = xr.Dataset(
        {"disconnected": ("dimension", 0.5 * np.exp(-0.3 * d)), "standard_error": ("dimension", np.full(4, 1e-6))},
        coords={"dimension": d, "delta": 0.2},
    )
    fit = scaling.fit_rate(curve)
    assert fit["rate"] == pytest.approx(0.3)
    assert fit["n_points"] == 4
    assert scaling.fit_rate(curve.isel(dimension=[0]))["rate"] is None


def test_dataset_says_what_it_holds(finished):
    for name, variable in finished.dataset.data_vars.items():
        assert variable.attrs["long_name"], name
        assert variable.attrs["units"] == "1"
    assert json.loads(finished.dataset.attrs["settings"])["seed"] == 4


def test_counting_covers_zero_counts():
    # nothing finite will be seen: 1e-7
    settings = scaling.Settings(samples=100, max_sites=100)
    arrays = scaling._pair(scaling._count(settings, (0.2, 40), np.random.default_rng(0)))
    assert arrays["disconnected"] == 0
    assert arrays["standard_error"] > 0
    assert arrays["high"] == pytest.approx(1 - (1 - 4 / 104) ** 2)


def test_commands_print_a_table_and_the_folder_or_only_json(tmp_path, capsys):
    line = "scaling --deltas 0.2 --dimensions 8 16 --samples 500 --max-sites 500 --seed 1 --out".split()
    commandline.main("percolation", command.COMMANDS, [*line, str(tmp_path)])
    shown = capsys.readouterr().out
    assert "1 - P(connected)" in shown
    assert str(tmp_path / "scaling-") in shown
    commandline.main("percolation", command.COMMANDS, [*line, str(tmp_path), "--json"])
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 2
    commandline.main(
        "percolation", command.COMMANDS, ["lattice", "--shape", "20", "20", "--out", str(tmp_path), "--json"]
    )
    assert json.loads(capsys.readouterr().out)["sites"] == 400


def test_lattice_ranks_clusters_by_size(tmp_path):
    settings = picture.Settings(shape=(30, 40), p=0.5, seed=2)
    finished = campaign.run(picture.EXPERIMENT, settings, out=tmp_path)
    sizes = finished.dataset["size"].to_numpy()
    assert (np.diff(sizes) <= 0).all()
    ranks = finished.dataset["rank"].to_numpy()
    assert [(ranks == k + 1).sum() for k in range(sizes.size)] == sizes.tolist()
    assert finished.summary["occupied"] == (ranks > 0).sum()
    empty = campaign.run(picture.EXPERIMENT, picture.Settings(shape=(3,), p=0), out=tmp_path)
    assert empty.summary["clusters"] == 0


@pytest.mark.parametrize(
    "line, message",
    [
        ("scaling --deltas 0.2 1.5", "deltas[1] must be less than 1, got 1.5"),
        ("scaling --dimensions 1", "dimensions[0] must be greater than or equal to 2, got 1"),
        ("scaling --samples 3", "samples must be greater than or equal to 100, got 3"),
        ("scaling --samples many", "--samples: invalid literal"),
        ("scaling --deltas 0.2 0.2", "deltas must be without repetition, got (0.2, 0.2)"),
        ("scaling --workers 0", "--workers must be from 1 to 256, got 0"),
        ("scaling --seed -1", "seed must be greater than or equal to 0, got -1"),
        ("scaling --sample 3", "Unrecognized options: --sample"),
        ("scaling --preset huge", "--preset must be one of quick, paper, got huge"),
        ("lattice --p 1.2", "p must be less than or equal to 1, got 1.2"),
        ("threshold --dimension 1", "dimension must be greater than or equal to 2, got 1"),
        (
            "threshold --dimension 9 --neighbourhood corner",
            "neighbourhood must be face for bonds and above dimension 8",
        ),
        ("threshold --kind edge", "--kind"),
        ("threshold --seconds 0", "seconds must be greater than or equal to 1, got 0"),
        ("threshold --seed 1.5", "--seed: invalid literal"),
        ("lattice --shape 100000 100000", "must fit into memory, got some that take 160 GB"),
        ("growth", "there is no command 'growth'; known: scaling, lattice, threshold"),
        ("scaling --out /proc/nowhere", "cannot use /proc/nowhere/scaling-"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_two(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        commandline.main("percolation", command.COMMANDS, line.split())
    assert stopped.value.code == 2
    complaint = capsys.readouterr().err.strip().splitlines()
    assert len(complaint) == 1
    assert complaint[0].startswith("percolation: ")
    assert message in complaint[0]


def test_what_does_not_fit_into_memory_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped, commandline.one_line_errors("percolation"):
        np.empty(2**50)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("percolation: there is not enough memory (Unable to allocate 8.00 PiB")


def test_a_threshold_is_printed_beside_the_published_one(tmp_path, capsys):
    line = "threshold --dimension 11 --seconds 1 --seed 1 --out".split()
    commandline.main("percolation", command.COMMANDS, [*line, str(tmp_path)])
    shown = capsys.readouterr().out
    assert "published                  0.05158968430 +- 2.0e-10" in shown
    assert "Mertens, Moore" in shown
    commandline.main("percolation", command.COMMANDS, [*line, str(tmp_path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {"dimension", "p_c", "standard_error", "published", "published_error", "invaded", "seconds"} <= set(found)


def test_help_shows_an_example(capsys):
    for name in command.COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            commandline.main("percolation", command.COMMANDS, [name, "--help"])
        assert stopped.value.code == 0
        assert f"python -m percolation {name}" in capsys.readouterr().out


def test_imagenets_dimension_is_within_reach_and_points_beyond_it_are_left_out(tmp_path):
    chosen = scaling.Settings(
        deltas=(0.2, 0.01, 5e-4), dimensions=(8, 3072, 16_384, 150_528), samples=1000, max_sites=1000
    )
    found = campaign.run(scaling.EXPERIMENT, chosen, out=tmp_path)
    assert [(row["delta"], row["dimension"]) for row in found.summary["rows"]] == [
        *((0.2, 8), (0.01, 8), (0.01, 3072), (5e-4, 8), (5e-4, 3072), (5e-4, 16_384), (5e-4, 150_528)),
    ]
    assert int(found.dataset["disconnected"].isnull().sum()) == 5
    last = found.summary["rows"][-1]
    assert last["disconnected"] == pytest.approx(2 * (1 - 5e-4) ** 301_056, rel=1e-9)
    assert last["standard_error"] < 0.01 * last["disconnected"]
    assert last["effective_samples"] > 900
    assert found.summary["fits"][2]["rate"] == pytest.approx(2 * np.log(1 / (1 - 5e-4)), rel=1e-3)
    assert found.summary["fits"][0]["rate"] is None


def test_a_point_that_would_take_minutes_gets_fewer_samples():
    assert scaling._affordable(20_000, 2 * 10 * 40.0, 10**8) == 20_000
    assert scaling._affordable(20_000, 2 * 1024 * 40.0, 10**8) == 1220
    assert scaling._affordable(20_000, 1e9, 10**8) == 100
    assert scaling._affordable(50, 1e9, 10**8) == 50
