"""Random features against plain cosines and their law; fields on a torus against their covariance, exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from percolation import fields


class UnitNoise:
    """Stands for a generator: its numbers are the unit vectors, one a draw, so that a linear map shows its matrix."""

    def __init__(self):
        self.n_drawn = 0

    def normal(self, size):
        noise = np.zeros(size)
        noise.flat[self.n_drawn] = 1
        self.n_drawn += 1
        return noise


def draw(dimension, n_modes, radii, seed=0):
    return fields.draw_modes(dimension, n_modes=n_modes, radii=radii, rng=np.random.default_rng(seed))


@given(dimension=st.integers(1, 30), n_modes=st.integers(1, 40), n=st.integers(0, 700), exponent=st.integers(-6, 6))
def test_the_field_is_the_sum_of_its_cosines(dimension, n_modes, n, exponent):
    modes = draw(dimension, n_modes, fields.squared_exponential(1.0), seed=n)
    points = 10.0**exponent * np.random.default_rng(n).normal(size=(n, dimension))
    phases = points @ modes.frequencies.T + modes.phases
    plain = np.sqrt(2 / n_modes) * np.cos(phases).sum(axis=1)
    # the phases themselves are rounded, differently on both sides
    tolerance = 1e-13 * n_modes + 1e-15 * n_modes * np.abs(phases).max(initial=0) * dimension
    np.testing.assert_allclose(fields.evaluate(modes, points), plain, rtol=0, atol=tolerance)


def test_the_kernel_is_right_at_every_turn():
    turns = np.concatenate([np.arange(-8, 9) / 4, np.random.default_rng(0).uniform(-3, 3, 5000)])
    modes = fields.Modes(frequencies=np.array([[2 * np.pi]]), phases=np.zeros(1))
    np.testing.assert_allclose(
        fields.evaluate(modes, turns[:, None]), np.sqrt(2) * np.cos(2 * np.pi * turns), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize("dimension, length", [(1, 0.5), (3, 2.0), (20, 4.0)])
def test_frequencies_make_the_squared_exponential(dimension, length):
    """The covariance at a shift is E cos(w r); 9 tests at 5 standard errors, false alarm 5e-6."""
    n = 100_000
    modes = draw(dimension, n, fields.squared_exponential(length), seed=1)
    for r in np.random.default_rng(2).normal(size=(3, dimension)) * length / np.sqrt(dimension):
        cosines = np.cos(modes.frequencies @ r)
        expected = np.exp(-(r @ r) / (2 * length**2))
        assert abs(cosines.mean() - expected) < 5 * cosines.std() / np.sqrt(n)
        assert abs(np.cos(modes.phases).mean()) < 5 / np.sqrt(2 * n)


def test_any_radial_law_may_be_given():
    """All frequencies of length 2 in three dimensions: covariance sin(2r)/(2r); 5 standard errors, false alarm 6e-7."""
    n = 100_000
    modes = draw(3, n, lambda n_modes, dimension, rng: np.full(n_modes, 2.0))
    cosines = np.cos(modes.frequencies @ np.array([0.3, -0.4, 1.2]))
    assert abs(cosines.mean() - np.sin(2.6) / 2.6) < 5 * cosines.std() / np.sqrt(n)


@pytest.mark.parametrize("n_modes", [1, 3, 10])
def test_the_marginal_has_unit_variance_and_the_stated_kurtosis(n_modes):
    """Far apart points see the phases as good as new: three sets of three tests at 5 standard errors, 5e-6."""
    n = 200_000
    modes = draw(2, n_modes, fields.squared_exponential(1.0), seed=3)
    values = fields.evaluate(modes, np.random.default_rng(4).uniform(-1e7, 1e7, size=(n, 2)))
    for moment, expected in ((1, 0.0), (2, 1.0), (4, 3 - 1.5 / n_modes)):
        sample = values**moment
        assert abs(sample.mean() - expected) < 5 * sample.std() / np.sqrt(n)


def neighbours_minus(field):
    """Minus the Laplacian of a periodic array, by shifting it."""
    return sum(2 * field - np.roll(field, 1, axis) - np.roll(field, -1, axis) for axis in range(field.ndim))


shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


@given(shape=shapes)
def test_the_free_field_inverts_the_laplacian_on_what_has_no_average(shape):
    spectrum = fields.free_field_spectrum(shape)
    covariance = np.fft.ifftn(spectrum).real
    point = np.full(shape, -1 / np.prod(shape))
    point.flat[0] += 1
    np.testing.assert_allclose(neighbours_minus(covariance), point, atol=1e-12)
    assert abs(covariance.sum()) < 1e-10


def test_the_free_field_on_a_large_torus_tends_to_that_of_the_lattice():
    """Green's function of Z^3 at 0 is 0.2527310 (Watson 1939); the torus lacks 0.2257/L of it."""
    variances = {length: fields.free_field_spectrum((length,) * 3).mean() for length in (32, 64)}
    lacking = {length: length * (0.2527310 - variance) for length, variance in variances.items()}
    assert lacking[32] == pytest.approx(0.2257, abs=1e-3)
    assert lacking[64] == pytest.approx(lacking[32], rel=1e-3)


@given(shape=shapes, length=st.floats(0.05, 5))
def test_the_periodic_squared_exponential_is_the_sum_over_images(shape, length):
    covariance = np.fft.ifftn(fields.squared_exponential_spectrum(shape, length)).real
    expected = np.ones(())
    for sites in shape:
        images = np.arange(sites)[:, None] + sites * np.arange(-100, 101)
        along = np.exp(-(images**2) / (2 * length**2)).sum(axis=1)
        expected = np.multiply.outer(expected, along / along[0])
    np.testing.assert_allclose(covariance, expected, atol=1e-12)


@pytest.mark.parametrize("shape", [(4, 3), (5,), (2, 3, 4), (1, 6), (3, 1)])
@pytest.mark.parametrize("law", ["free", "squared exponential", "white"])
def test_a_field_on_a_torus_has_exactly_the_covariance_of_its_spectrum(shape, law):
    """The field is a linear map of independent numbers: its matrix A, shown by unit vectors, has A A^T = C."""
    spectrum = {
        "free": fields.free_field_spectrum(shape),
        "squared exponential": fields.squared_exponential_spectrum(shape, 1.3),
        "white": np.ones(shape),
    }[law]
    noise = UnitNoise()
    matrix = np.stack([fields.on_torus(spectrum, rng=noise).ravel() for _ in range(np.prod(shape))], axis=1)
    covariance = np.fft.ifftn(spectrum).real
    sites = np.array(list(np.ndindex(shape)))
    shifts = (sites[:, None] - sites[None]) % np.array(shape)
    expected = covariance[tuple(np.moveaxis(shifts, -1, 0))]
    np.testing.assert_allclose(matrix @ matrix.T, expected, atol=1e-13)


def test_fields_drawn_have_the_covariance_of_their_spectrum():
    """8000 fields, 4 tests at 5 standard errors: false alarm 2e-6."""
    spectrum, rng, n = fields.free_field_spectrum((8, 8, 6)), np.random.default_rng(5), 8000
    drawn = np.stack([fields.on_torus(spectrum, rng=rng) for _ in range(n)])
    covariance = np.fft.ifftn(spectrum).real
    for there in ((0, 0, 0), (1, 0, 0), (4, 4, 3), (0, 2, 5)):
        products = drawn[:, 0, 0, 0] * drawn[(slice(None), *there)]
        assert abs(products.mean() - covariance[there]) < 5 * products.std() / np.sqrt(n)


def test_the_same_seed_draws_the_same_field():
    spectrum = fields.squared_exponential_spectrum((9, 7), 2.0)
    one, two = (fields.on_torus(spectrum, rng=np.random.default_rng(6)) for _ in range(2))
    assert np.array_equal(one, two)
    other = fields.on_torus(spectrum, rng=np.random.default_rng(7))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fields.squared_exponential(0.0), "length must be positive and finite, got 0.0"),
        (lambda: draw(0, 1, fields.squared_exponential(1.0)), "dimension must be a whole number of at least 1, got 0"),
        (lambda: draw(1, 0, fields.squared_exponential(1.0)), "n_modes must be a whole number of at least 1, got 0"),
        (lambda: draw(2, 3, lambda m, d, rng: np.ones((m, d))), r"radii must return 3 finite .* got shape \(3, 2\)"),
        (lambda: draw(2, 3, lambda m, d, rng: -np.ones(m)), "radii must return 3 finite frequencies of at least 0"),
        (lambda: draw(2, 3, lambda m, d, rng: np.full(m, np.inf)), "radii must return 3 finite frequencies"),
        (
            lambda: fields.evaluate(draw(2, 3, fields.squared_exponential(1.0)), np.zeros((4, 3))),
            r"points must have shape \(n, 2\), got \(4, 3\)",
        ),
        (lambda: fields.squared_exponential(np.inf), "length must be positive and finite, got inf"),
        (
            lambda: draw(10**6, 10**9, fields.squared_exponential(1.0)),
            "n_modes must fit .*, got 1000000000, which takes",
        ),
        (
            lambda: fields.evaluate(fields.Modes(frequencies=np.ones((2, 3)), phases=np.zeros(9)), np.zeros((4, 3))),
            "modes must have a phase for each frequency, got 9 for 2",
        ),
        (
            lambda: fields.evaluate(draw(2, 3, fields.squared_exponential(1.0)), np.full((4, 2), np.nan)),
            "points must be finite, got nan",
        ),
        (
            lambda: fields.free_field_spectrum((10**9, 10**9)),
            r"shape must fit .*, got \(1000000000, 1000000000\), which",
        ),
        (lambda: fields.free_field_spectrum((1,) * 65), "shape must have at most 64 axes, got 65"),
        (lambda: fields.squared_exponential_spectrum((3,), 1e-300), "length must fit .*, got 1e-300, which takes"),
        (
            lambda: fields.on_torus(np.zeros((0, 3)), rng=None),
            "spectrum must be finite and at least 0 everywhere, at one",
        ),
        (lambda: fields.free_field_spectrum(()), "shape must have at least one axis"),
        (lambda: fields.free_field_spectrum((3, 0)), r"one site along each, got \(3, 0\)"),
        (lambda: fields.squared_exponential_spectrum((0,), 1.0), r"one site along each, got \(0,\)"),
        (lambda: fields.squared_exponential_spectrum((3,), -1.0), "length must be positive and finite, got -1.0"),
        (lambda: fields.on_torus(np.array([1.0, -1.0]), rng=None), "spectrum must be finite and at least 0 everywhere"),
        (lambda: fields.on_torus(np.array([1.0, np.nan]), rng=None), "spectrum must be finite and at least 0"),
        (lambda: fields.on_torus(np.float64(1.0), rng=None), "spectrum must be finite and at least 0"),
        (lambda: fields.on_torus(np.array([1.0, 2.0, 3.0]), rng=None), "spectrum must be even"),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: fields.free_field_spectrum(4), "shape must be integers, one an axis, got 4"),
        (lambda: fields.free_field_spectrum((4.5,)), r"shape must be integers, got \(4.5,\)"),
        (lambda: fields.squared_exponential("2"), r"length must be positive and finite, got 2 \(str\)"),
        (lambda: fields.draw_modes(2, n_modes=3, radii=1.0, rng=np.random.default_rng(0)), "radii must be a function"),
        (lambda: fields.on_torus(np.ones(3), rng=0), r"rng must be a numpy.random.Generator, got 0 \(int\)"),
        (lambda: fields.on_torus(np.ones(3, dtype=complex), rng=0), r"spectrum must be numbers, got .* \(complex128\)"),
        (lambda: fields.on_torus(np.ma.array([1.0, 2.0], mask=[0, 1]), rng=0), "spectrum must have no masked entries"),
        (lambda: fields.evaluate(3, np.ones((3, 2))), "modes must be percolation's Modes, got 3"),
    ],
)
def test_other_kinds_are_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_int8_lengths_and_very_long_correlations():
    assert fields.free_field_spectrum(np.array([100, 100], dtype=np.int8)).shape == (100, 100)
    np.testing.assert_array_equal(fields.squared_exponential_spectrum((4,), 1e200), [4, 0, 0, 0])
