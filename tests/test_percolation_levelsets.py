"""Level sets against clusters that are unrolled, extrapolation against data that are made, the control, the command."""

import json
import math
from pathlib import Path

import numpy as np
import oracles
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import paper_figs
from paper_figs.plot import uncertain
from percolation import __main__ as command
from percolation import campaign, fields, levelsets, runs, sweep

SMALL = levelsets.Settings(max_sites=111_000, sites=2**20, seed=2)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return campaign.run(levelsets.EXPERIMENT, SMALL, out=tmp_path_factory.mktemp("runs"), n_workers=2)


def wrapped_axes(shape, sites):
    """Which axes the clusters of these sites of a torus wrap around, by unrolling each cluster."""
    present = set(sites)
    bonds = []
    for site in present:
        place = np.unravel_index(site, shape)
        for axis in range(len(shape)):
            other = list(place)
            other[axis] = (other[axis] + 1) % shape[axis]
            if int(np.ravel_multi_index(other, shape)) in present:
                bonds.append((site, axis))
    return oracles.crossing_axes(shape, [True] * len(shape), sorted(present), bonds)


@settings(max_examples=40)
@given(shape=st.lists(st.integers(3, 5), min_size=1, max_size=3).map(tuple), seed=st.integers(0, 2**32))
def test_an_axis_is_wrapped_at_its_density_and_not_before(shape, seed):
    field = np.random.default_rng(seed).normal(size=shape)
    for order, densities in zip(
        (np.argsort(-field, axis=None), np.argsort(field, axis=None)),
        levelsets.wrapping_densities(field),
        strict=True,
    ):
        for axis, density in enumerate(densities):
            n = round(density * field.size)
            assert density * field.size == pytest.approx(n)
            assert wrapped_axes(shape, order[:n].tolist())[axis]
            assert not wrapped_axes(shape, order[: n - 1].tolist())[axis]


@given(seed=st.integers(0, 2**32))
def test_only_the_order_of_the_values_counts_and_the_negative_is_the_other_end(seed):
    field = fields.on_torus(fields.free_field_spectrum((6, 5, 4)), rng=np.random.default_rng(seed))
    found = levelsets.wrapping_densities(field)
    assert np.array_equal(levelsets.wrapping_densities(np.exp(3 * field)), found)
    assert np.array_equal(levelsets.wrapping_densities(-field), found[::-1])
    assert np.array_equal(levelsets.wrapping_densities(np.roll(field, 2, axis=1)), found)
    assert np.array_equal(levelsets.wrapping_densities(np.moveaxis(field, 0, 2)), found[:, [1, 2, 0]])


def test_a_random_order_is_that_of_the_sweep():
    shape, axes = np.array([9, 8, 7]), np.ones(3, dtype=bool)
    order = np.random.default_rng(3).permutation(504)
    whole = sweep.microcanonical(order.astype(np.int32), False, shape, axes)[3]
    assert np.array_equal(sweep.wrapping_in_order(order, (9, 8, 7)), whole)


LADDER = np.array([8, 12, 16, 24, 32, 48])


def made(nu, p_c, slopes, bends, *, noise=None, n_fields=100):
    """Means of fields that follow the expansion, with Gaussian scatter of the size of the slopes' shift."""
    x = LADDER ** (-1 / nu)
    means = p_c + np.outer(x, slopes) + np.outer(x**2, bends)
    root = np.linalg.cholesky(0.5 + 0.5 * np.eye(len(slopes)))
    covariances, samples = [], []
    for k, u in enumerate(x):
        if noise is None:
            covariances.append(u**2 * root @ root.T)
            continue
        sample = means[k] + 0.3 * u * noise.normal(size=(n_fields, len(slopes))) @ root.T
        samples.append(sample.mean(axis=0))
        covariances.append(np.cov(sample.T))
    counts = np.full(LADDER.size, n_fields)
    return LADDER, means if noise is None else np.array(samples), np.array(covariances), counts


def test_extrapolation_is_exact_for_what_it_expects():
    found = levelsets.extrapolate(*made(2.0, 0.16, [0.2, -0.3, 0.4], [0.5, 0.0, -1.0]), nu=2.0)
    assert found.value == pytest.approx(0.16, abs=1e-12)
    np.testing.assert_allclose(found.slopes, [0.2, -0.3, 0.4], atol=1e-11)
    np.testing.assert_allclose(found.bends, [0.5, 0.0, -1.0], atol=1e-11)


def test_errors_are_as_large_as_they_say():
    """400 sets of fields: the mean square of (found - true) / error is 1 with a standard error of 0.07; 5 of them."""
    noise = np.random.default_rng(4)
    off = []
    for _ in range(400):
        found = levelsets.extrapolate(*made(1.0, 0.1, [0.2, 0.3], [0.0, 0.0], noise=noise), nu=1.0)
        off.append((found.value - 0.1) / found.statistical_error)
        assert found.standard_error >= found.statistical_error
    assert 0.65 < np.mean(np.square(off)) < 1.35
    assert abs(np.mean(off)) < 5 / np.sqrt(400)


KEPT = runs.read_finished(Path(paper_figs.__file__).parent / "data" / "levelsets")[0]


def with_free_exponent(point):
    """p_c, and by how much it may change with the best chi^2 no more than 1 larger, by lines through all means.

    A fit of our own: numpy's least squares over a grid of nu, places taken as independent.
    """
    d, n = int(point["dimension"]), int(point["n_fields"].count())
    mean, error = (point[name].to_numpy()[:n, :d] for name in ("mean", "mean_error"))
    found = []
    for nu in float(point["nu"]) * np.geomspace(0.5, 2, 60):
        x = point["length"].to_numpy()[:n, None] ** (-1 / nu)
        columns = [np.ones((n * d, 1)), np.kron(x, np.eye(d)), np.kron(x**2, np.eye(d))]
        design = np.concatenate(columns, axis=1) / error.ravel()[:, None]
        solution, rest, *_ = np.linalg.lstsq(design, mean.ravel() / error.ravel())
        found.append((rest[0], nu, solution[0]))
    least = min(found)[0]
    return np.array([(nu, p_c) for rest, nu, p_c in found if rest < least + 1])


@pytest.mark.parametrize("dimension", levelsets.LENGTHS)
def test_the_kept_errors_have_the_exponent_in_them(dimension):
    """A fit with nu free goes as far as the error says, within a half; the exponent's part is most of the error."""
    point = KEPT.sel(law="free", dimension=dimension)
    part = levelsets.exponent_part(KEPT, "free", dimension)
    assert part > 1.5 * float(point["standard_error"])
    total = np.hypot(part, float(point["standard_error"]))
    free = with_free_exponent(point)
    assert np.abs(free[:, 1] - float(point["p_c"])).max() < 1.5 * total
    white = levelsets.exponent_part(KEPT, "white", dimension)
    assert white < 0.1 * float(KEPT["standard_error"].sel(law="white", dimension=dimension))


def test_an_exponent_taken_wrongly_is_in_the_error():
    """Means of nu = 1.6, fitted with 2: p_c is off by more than the scatter, by less than the exponent's part."""
    lengths, means, covariances, counts = made(1.6, 0.16, [0.2, 0.3, 0.4], [0.0, 0.0, 0.0])
    found = levelsets.extrapolate(lengths, means, 1e-6 * covariances, counts, nu=2.0)
    assert abs(found.value - 0.16) > 3 * found.statistical_error
    errors = np.sqrt(1e-6 * np.diagonal(covariances, axis1=1, axis2=2) / counts[:, None])
    table = {"mean": (("size", "place"), means), "mean_error": (("size", "place"), errors)}
    table |= {"length": ("size", lengths), "n_fields": ("size", counts)}
    numbers = {"nu": 2.0, "nu_measured": 1.6, "nu_error": 0.1}
    point = xr.Dataset(table | numbers, coords={"place": [1, 2, 3]}).expand_dims(law=["free"], dimension=[3])
    part = levelsets.exponent_part(point, "free", 3)
    assert abs(found.value - 0.16) < part < 2 * abs(found.value - 0.16)


def test_the_readme_quotes_the_kept_critical_densities_with_the_exponent_in_their_errors():
    readme = " ".join((Path(paper_figs.__file__).parent.parent / "README.md").read_text().split())
    quoted, exponents = [], []
    for d, digits in ((3, 3), (4, 4), (5, 4)):
        point = KEPT.sel(law="free", dimension=d)
        total = np.hypot(float(point["standard_error"]), levelsets.exponent_part(KEPT, "free", d))
        quoted.append(f"{float(point['p_c']):.{digits}f}({total * 10**digits:.0f})")
        exponents.append(uncertain(float(point["nu_measured"]), float(point["nu_error"])))
    assert f"{quoted[0]} in d = 3 (published: 0.16), {quoted[1]} in 4 and {quoted[2]} in 5" in readme
    assert f"{exponents[0]}, {exponents[1]} and {exponents[2]} instead of 2, 1 and 0.67" in readme


def test_what_the_expansion_lacks_is_in_the_error():
    found = levelsets.extrapolate(
        *made(1.0, 0.1, [0.2, 0.3], [2.0, 3.0], noise=np.random.default_rng(5), n_fields=10_000), nu=2.0
    )
    assert found.standard_error > 3 * found.statistical_error


def test_independent_sites_have_the_published_thresholds(finished):
    """Three values at 5 standard errors of some 1000 fields: false alarm 2e-6."""
    rows = [row for row in finished.summary["rows"] if row["field"] == "independent sites"]
    assert [row["dimension"] for row in rows] == [3, 4, 5]
    for row in rows:
        assert abs(row["p_c"] - row["published"]) < 5 * row["standard_error"]
        assert row["standard_error"] < 0.01
        assert row["level"] is None


def test_the_free_field_percolates_where_it_is_known_to(finished):
    """In d = 3 at 0.16 within 5 standard errors, 6e-7; in every dimension at fewer sites than independent ones do."""
    rows = {row["dimension"]: row for row in finished.summary["rows"] if row["field"] == "Gaussian free field"}
    assert abs(rows[3]["p_c"] - 0.16) < 5 * rows[3]["standard_error"]
    assert rows[3]["standard_error"] < 0.04
    for d, (independent, _, _) in levelsets.PUBLISHED["white"].items():
        wrapped = finished.dataset.sel(law="free", dimension=d, place=d)
        largest = int(wrapped["n_fields"].count()) - 1
        # even the last axis of a small torus, where the density is too large
        assert wrapped["mean"][largest] + 5 * wrapped["mean_error"][largest] < independent
        assert (rows[d]["published"] is None) == (d > 3)


def test_the_result_holds_every_length_and_place(finished):
    dataset = finished.dataset
    assert dataset["length"].sel(dimension=4, law="free").to_numpy().tolist() == [8, 10, 12, 16]
    for d in levelsets.LENGTHS:
        part = dataset.sel(dimension=d)
        assert np.isfinite(part["mean"].sel(place=range(1, d + 1))).all()
        assert np.isnan(part["mean"].sel(place=range(d + 1, 6))).all()
        assert (part["mean"].diff("place").sel(place=range(2, d + 1)) > 0).all()
        assert (part["quantile"].diff("share") >= 0).all()
        expected = np.maximum(16, SMALL.sites // part["length"] ** d)
        assert part["n_fields"].equals(expected.where(expected > 0) + 0 * part["n_fields"])
    # correlations widen the distribution, and it narrows more slowly
    spread = dataset["spread"].sel(dimension=3)
    assert (spread.sel(law="free") > 1.5 * spread.sel(law="white")).all()


def test_batches_share_the_fields_and_are_not_too_long():
    large = levelsets.Settings(max_sites=8_000_000, sites=2**26)
    n_fields = {}
    for task in levelsets.tasks(large).values():
        assert task.n_fields == 1 or task.n_fields * task.length**task.dimension <= 2**22
        key = (task.law, task.dimension, task.length)
        n_fields[key] = n_fields.get(key, 0) + task.n_fields
    assert n_fields["free", 3, 192] == 16  # never fewer
    assert n_fields["white", 3, 64] == 2**26 // 64**3
    assert len(n_fields) == 2 * 3 * 8


def test_the_command_prints_the_table(capsys, tmp_path):
    line = f"levelsets --max-sites 111000 --sites 65536 --out {tmp_path}"
    command.commandline.main("percolation", command.COMMANDS, line.split())
    table = capsys.readouterr().out
    assert "Gaussian free field" in table
    assert "Marinov" in table
    command.commandline.main("percolation", command.COMMANDS, [*line.split(), "--json"])
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 6


def extrapolated(**changes):
    given = {
        "lengths": np.arange(3, 7),
        "means": np.ones((4, 2)),
        "covariances": np.stack([np.eye(2)] * 4),
        "n_fields": np.full(4, 9),
        "nu": 1.0,
    }
    return levelsets.extrapolate(**(given | changes))


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: levelsets.wrapping_densities(np.ones((3, 2))), ValueError, "at least 3 along a periodic axis"),
        (
            lambda: sweep.wrapping_in_order(np.arange(8), (3, 3)),
            ValueError,
            r"order must have shape \(9,\), got \(8,\)",
        ),
        (
            lambda: levelsets.extrapolate(np.arange(3, 6), np.ones((3, 2)), np.ones((3, 2, 2)), np.full(3, 9), nu=1.0),
            ValueError,
            "lengths must be at least 4, got 3",
        ),
        (lambda: extrapolated(nu=math.nan), ValueError, "nu must be positive and finite, got nan"),
        (lambda: extrapolated(nu=1e9), ValueError, "nu must tell the lengths apart .*, got 1e"),
        (lambda: extrapolated(lengths=np.arange(9, 5, -1)), ValueError, r"lengths must rise, got \[9"),
        (lambda: extrapolated(means=np.ones((4, 3))), ValueError, r"means, n_fields and .* got shapes \(4, 3\)"),
        (lambda: extrapolated(covariances=-np.stack([np.eye(2)] * 4)), ValueError, "covariances must be positive def"),
        (lambda: extrapolated(means="3"), TypeError, "means must be numbers, got 3"),
        (
            lambda: levelsets.torus_lengths(levelsets.Settings(), 2),
            ValueError,
            "dimension must be .* from 3 to 5, got 2",
        ),
        (lambda: levelsets.wrapping_densities(1j * np.ones((3, 3))), TypeError, "field must be numbers, got"),
        (
            lambda: levelsets.wrapping_densities(np.ma.masked_equal(np.eye(3), 0)),
            TypeError,
            "field must have no masked entries, got 6 of them",
        ),
        (lambda: levelsets.Settings(max_sites=1000), ValueError, "max_sites"),
        (lambda: levelsets.Settings(sites=1000), ValueError, "sites"),
    ],
)
def test_mistakes_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_field_that_is_no_number_somewhere_is_refused():
    field = np.arange(16.0).reshape(4, 4)
    field[1, 2] = np.nan
    with pytest.raises(ValueError, match="field must hold numbers, got nan"):
        levelsets.wrapping_densities(field)
