"""The map of theories: what is simulated, how far each theory is off, and which lattice has d neighbours."""

import itertools
import json
import math

import numpy as np
import oracles
import pytest
import xarray as xr
from pydantic import ValidationError

from percolation import __main__ as command
from percolation import animals, campaign, commandline, finite_clusters, meanfield, regimes, threshold

SMALL = regimes.Settings(
    dimensions=(3, 6, 40, 100),
    ratios=(1.2, 3, 8, 640),
    samples=4000,
    max_sites=1000,
    corner_dimensions=(6, 12, 14),
    corner_p=0.3,
    corner_sites=2**16,
    seed=3,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return campaign.run(regimes.EXPERIMENT, SMALL, out=tmp_path_factory.mktemp("runs"))


def test_points_beyond_the_largest_p_or_the_smallest_q_are_left_out(finished):
    p, finite = finished.dataset["p"].to_numpy(), finished.dataset["finite"].to_numpy()
    d = finished.dataset["dimension"].to_numpy()[:, None]
    assert (np.isnan(finite) == ((p > 0.95) | (p >= 1) | (2 * d * np.log1p(-np.minimum(p, 0.99)) < -600))).all()
    assert np.isnan(finite).any()
    assert len(finished.summary["rows"]) == np.count_nonzero(~np.isnan(finite))


def test_every_theory_is_its_own_and_the_simulation_is_bounded_by_what_is_exact(finished):
    for row in finished.summary["rows"]:
        p, d = row["p"], row["dimension"]
        assert p == pytest.approx(row["p_over_p_c"] * regimes.threshold_of(d))
        assert row["poisson_printed"] == float(meanfield.poisson(d * p).disconnected)
        assert row["poisson"] == float(meanfield.poisson(2 * d * p).disconnected)
        assert row["neighbours"] == float(meanfield.neighbours(p, 2 * d).disconnected)
        assert row["isolated"] == float(meanfield.isolated(p, 2 * d))
        # Q is never below the probability of ten sites or fewer, nor below the Bethe lattice; four standard errors of
        # 26 comparisons, false alarm 1e-3
        high = row["high"] + 2 * row["standard_error"] + 1e-12 * row["finite"]
        assert float(finite_clusters.lower_disconnected(p, d, animals.MAX_SITES)) == row["finite_clusters"] <= high
        assert float(meanfield.bethe(p, 2 * d).disconnected) == row["bethe"] <= high


def test_far_above_the_threshold_the_expansion_is_within_one_percent_and_the_printed_mean_field_is_not(finished):
    far = finished.dataset.sel(ratio=8, dimension=[40, 100])
    for theory in ("neighbours", "bethe", "finite_clusters"):
        assert abs(regimes.miss(far, theory)[0]).max() < 0.01
    assert regimes.miss(far, "poisson_printed")[0].min() > 1
    # the exponential of Eq. 22 keeps one term of the logarithm: it misses by d p^2, and the cubic term, and so on
    for point in (far.isel(dimension=i) for i in range(2)):
        p, d = float(point["p"]), float(point["dimension"])
        assert float(regimes.miss(point, "poisson")[0]) == pytest.approx(-2 * d * (np.log1p(-p) + p), rel=0.02)


def test_near_the_threshold_of_few_dimensions_no_theory_is_within_ten_percent(finished):
    near = finished.dataset.sel(ratio=1.2, dimension=3)
    for theory in ("neighbours", "bethe", "finite_clusters", "isolated"):
        assert float(regimes.miss(near, theory)[2]) < -0.1


def test_corners_have_d_neighbours_and_sites_of_a_lattice_two_d(finished):
    rows = {(row["lattice"], row["dimension"]): row for row in finished.summary["corners"]}
    for lattice, factor in (("{0,1}^d", 1), ("Z^d", 2)):
        row = rows[lattice, 14]
        assert row["neighbours"] == factor * 14
        assert row["theory"] == float(meanfield.neighbours(0.3, factor * 14).disconnected)
        # loops cost 2 % at d = 14, d p = 4.2; and four standard errors, false alarm 6e-5
        assert abs(row["finite"] / row["theory"] - 1) < 0.03 + 4 * row["standard_error"] / row["finite"]
    assert rows["{0,1}^d", 14]["finite"] > 50 * rows["Z^d", 14]["finite"]
    # as many neighbours, nearly the same Q: {0,1}^12 and Z^6
    assert rows["{0,1}^d", 12]["finite"] == pytest.approx(rows["Z^d", 6]["finite"], rel=0.2)


def test_the_share_outside_the_largest_cluster_matches_enumeration():
    """All 2^8 occupations of {0, 1}^3, weighted; 2000 cubes, four standard errors, false alarm 6e-5."""
    p = 0.4
    weights, outside, occupied = [], [], []
    for cells in itertools.product((-1, 0), repeat=8):
        labels = np.array(cells).reshape(2, 2, 2)
        sizes = [len(cluster) for cluster in oracles.components_by_graph(labels, [False] * 3, 0)]
        n = sum(sizes)
        weights.append(p**n * (1 - p) ** (8 - n))
        occupied.append(n)
        outside.append(n - max(sizes, default=0))
    assert math.isclose(sum(weights), 1)
    exact = np.dot(weights, outside) / np.dot(weights, occupied)
    settings = regimes.Settings(corner_sites=2**20)
    point = regimes.Point(p=p, dimension=3, is_corners=True)
    found = regimes.run_task(settings, point, np.random.SeedSequence(1))
    assert found["n_samples"] == 2000
    assert abs(found["finite"] - exact) < 4 * found["standard_error"]
    assert found["standard_error"] < 0.05 * exact


def test_miss_has_the_error_of_q_around_it():
    one = np.ones((1, 1))
    dataset = xr.Dataset(
        {name: (("dimension", "ratio"), value * one) for name, value in (("finite", 0.2), ("low", 0.1), ("high", 0.4))}
    ).assign(bethe=(("dimension", "ratio"), 0.2 * one))
    found, lowest, highest = regimes.miss(dataset, "bethe")
    assert [value.item() for value in (found, lowest, highest)] == pytest.approx([0, -np.log(2), np.log(2)])


def test_judgement_counts_what_is_certain():
    """Two dimensions of three points: too small, too large, undecided; then all within 10 %."""
    theory = np.array([[0.25, 1.0, 0.5], [0.5, 0.525, 0.5]])
    width = np.array([[0.001, 0.001, 0.2], [0.001, 0.001, 0.001]])
    values = {"finite": np.full((2, 3), 0.5), "low": 0.5 - width, "high": 0.5 + width, "bethe": theory}
    places = ("dimension", "ratio")
    dataset = xr.Dataset({name: (places, value) for name, value in values.items()}, coords={"dimension": [3, 4]})
    judged = regimes.judge_theory(dataset, "bethe")
    assert judged == {
        "theory": "bethe",
        "n_points": 6,
        "within_1": 2,
        "beyond_1": 3,
        "open_1": 1,
        "within_10": 3,
        "beyond_10": 2,
        "open_10": 1,
        "from_dimension": 4,
    }


def test_thresholds_are_the_published_ones_and_the_series_beyond():
    assert regimes.threshold_of(7) == threshold.PUBLISHED["site"][7][0]
    assert regimes.threshold_of(1000) == threshold.series(1000)


def test_the_command_prints_theories_and_both_lattices(tmp_path, capsys):
    line = (
        "regimes --dimensions 6 10 --ratios 2 4 --samples 200 --max-sites 200 --corner-dimensions 6 --corner-sites 1024"
    )
    commandline.main("percolation", command.COMMANDS, [*line.split(), "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert "poisson_printed" in shown
    assert "{0,1}^d" in shown
    commandline.main("percolation", command.COMMANDS, [*line.split(), "--out", str(tmp_path), "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert len(summary["rows"]) == 4
    assert [row["theory"] for row in summary["theories"]] == list(regimes.THEORIES)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dimensions": (5, 4)}, "ascend"),
        ({"ratios": (2, 2)}, "ascend"),
        ({"ratios": (1, 2)}, "greater than 1"),
        ({"dimensions": (2, 3)}, "greater than or equal to 3"),
        ({"dimensions": (3,)}, "at least 2 items"),
        ({"corner_dimensions": (25,)}, "less than or equal to 24"),
        ({"corner_p": 1.0}, "less than 1"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValidationError, match=message):
        regimes.Settings(**change)
