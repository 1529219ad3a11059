"""The wide limit against integrals over the plane, against wide networks, and its samples against it, exactly."""

import numpy as np
import oracles
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from percolation import wide

PHI = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0.0), "erf": scipy.special.erf, "sin": np.sin}
# E[phi(Z)^2]^-1: variance 1 stays 1
KEEPING = {"tanh": 1.59253741972283**2, "relu": 2.0, "erf": np.pi / (2 * np.arcsin(2 / 3)), "sin": 2 / (1 - np.exp(-2))}
activations = pytest.mark.parametrize("activation", PHI)


class UnitNoise:
    """Stands for a generator whose normal numbers are unit vectors; it chooses as a real one does."""

    def normal(self, size):
        return np.eye(*size)

    def choice(self, *arguments, **options):
        return np.random.default_rng(0).choice(*arguments, **options)


def two_points(a, b, correlation):
    """Two inputs of the plane whose first layer has these variances and correlation."""
    angle = np.arccos(correlation)
    return np.sqrt(2) * np.array([[np.sqrt(a), 0.0], [np.sqrt(b) * correlation, np.sqrt(b) * np.sin(angle)]])


@activations
@settings(max_examples=20)
@given(a=st.floats(0.01, 4), b=st.floats(0.01, 4), correlation=st.floats(-1, 1))
def test_one_layer_is_the_expectation_over_the_plane(activation, a, b, correlation):
    found = wide.wide_covariance(
        two_points(a, b, correlation), depth=2, activation=activation, weight_variance=3.0, bias_variance=0.0
    )
    # The oracle's rule misses a kink by the square of its step; tanh's series leaves out a millionth.
    relative = {"relu": 2e-4, "tanh": 1e-6}.get(activation, 1e-12)
    variances = (a, b)
    for i, j, rho in ((0, 1, correlation), (0, 0, 1.0), (1, 1, 1.0)):
        expected = oracles.gaussian_expectation(PHI[activation], variances[i], variances[j], rho)
        assert found[i, j] / 3 == pytest.approx(expected, abs=relative * np.sqrt(variances[i] * variances[j]))


@pytest.mark.parametrize("variance", [50.0, 190.0])
@pytest.mark.parametrize("correlation", [0.3, 0.9])
def test_the_series_of_tanh_reaches_large_variances(variance, correlation):
    """Growing boxes of 16 dimensions have some 100; the oracle is the trapezoidal rule, exact to rounding there."""
    nodes = np.linspace(-9, 9, 2001)
    weights = np.exp(-(nodes**2) / 2) * (nodes[1] - nodes[0]) / np.sqrt(2 * np.pi)
    other = correlation * nodes[:, None] + np.sqrt(1 - correlation**2) * nodes
    expected = (np.tanh(np.sqrt(variance) * nodes) * weights) @ (np.tanh(np.sqrt(variance) * other) @ weights)
    points = two_points(variance, variance, correlation)
    found = wide.wide_covariance(points, depth=2, activation="tanh", weight_variance=1.0)
    assert found[0, 1] == pytest.approx(expected, rel=1e-9)


def test_exact_values_of_relu():
    """E[relu(u) relu(v)]: a/2 at correlation 1, 0 at -1, sqrt(ab)/(2 pi) at 0; homogeneous."""
    found = wide.wide_covariance(
        np.array([[1.0, 0.0], [3.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]),
        depth=2,
        activation="relu",
        weight_variance=2.0,
    )
    np.testing.assert_allclose(found[0], [0.5, 1.5, 0.0, 1 / np.pi, 0.0], atol=1e-15)
    np.testing.assert_allclose(found.diagonal(), [0.5, 4.5, 0.5, 2.0, 0.0])


@activations
def test_the_limit_is_that_of_wide_networks(activation):
    """Width 300: the limit is off by about depth/width = 1 %, 60 networks by 1/sqrt(60 * 300) = 0.8 %; 6 % is asked."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(6, 5)) * np.array([0.3, 0.6, 0.9, 1.2, 1.0, 1.0])[:, None]
    points[5] = -0.9 * points[4]
    chosen = {"depth": 4, "weight_variance": 1.7, "bias_variance": 0.2}
    found = wide.wide_covariance(points, activation=activation, **chosen)
    drawn = oracles.wide_network_covariance(
        points, PHI[activation], width=300, n_networks=60, rng=np.random.default_rng(1), **chosen
    )
    scale = np.sqrt(np.multiply.outer(found.diagonal(), found.diagonal()))
    assert np.abs((drawn - found) / scale).max() < 0.06


@activations
def test_the_gain_that_keeps_the_variance_keeps_it_at_any_depth(activation):
    point = np.array([[1.0, -1.0, 1.0]])
    for depth in (1, 2, 7):
        found = wide.wide_covariance(point, depth=depth, activation=activation, weight_variance=KEEPING[activation])
        assert found[0, 0] == pytest.approx(1.0, abs=1e-5)


@activations
def test_blocks_symmetry_and_sign(activation):
    rng = np.random.default_rng(2)
    points = rng.normal(size=(40, 3))
    chosen = {"depth": 3, "activation": activation, "weight_variance": 1.5, "bias_variance": 0.1}
    whole = wide.wide_covariance(points, **chosen)
    np.testing.assert_allclose(whole, whole.T, atol=1e-14)
    np.testing.assert_allclose(wide.wide_covariance(points[:7], points[30:], **chosen), whole[:7, 30:], atol=1e-5)
    assert np.linalg.eigvalsh(whole).min() > -1e-12 * np.linalg.eigvalsh(whole).max()
    linear = wide.wide_covariance(points, **(chosen | {"depth": 1}))
    np.testing.assert_allclose(linear, points @ points.T / 3 + 0.1, atol=1e-14)


@activations
def test_fields_at_few_points_have_exactly_the_covariance(activation):
    points = np.random.default_rng(3).normal(size=(12, 4))
    chosen = {"depth": 3, "activation": activation, "weight_variance": 2.0, "bias_variance": 0.1}
    found = wide.sample_wide(points, n_samples=12, rng=UnitNoise(), **chosen)
    assert found.values.shape == (12, 12)
    np.testing.assert_allclose(found.values.T @ found.values, wide.wide_covariance(points, **chosen), atol=1e-8)
    assert found.missing < 1e-8


def test_fields_at_many_points_are_exact_at_the_landmarks_and_lack_what_they_say():
    points = np.random.default_rng(4).uniform(-1, 1, size=(300, 2))
    chosen = {"depth": 3, "activation": "relu", "weight_variance": 2.0, "bias_variance": 0.3}
    found = wide.sample_wide(points, n_samples=40, n_landmarks=40, rng=UnitNoise(), **chosen)
    exact = wide.wide_covariance(points, **chosen)
    lacking = exact - found.values.T @ found.values
    assert np.linalg.eigvalsh(lacking).min() > -1e-8  # a conditional mean has the smaller covariance
    landmarks = UnitNoise().choice(300, 40, replace=False)
    np.testing.assert_allclose(lacking[landmarks], 0, atol=1e-8)
    shares = lacking.diagonal() / exact.diagonal()
    assert found.missing == pytest.approx(shares.max(), rel=1e-6)
    assert 1e-4 < found.missing < 0.1
    more = wide.sample_wide(points, n_samples=1, n_landmarks=150, rng=UnitNoise(), **chosen)
    assert more.missing < found.missing / 3


def test_fields_drawn_have_the_covariance():
    """20,000 fields, 10 tests at 5 standard errors: false alarm 6e-6. The zero input has no variance but the bias's."""
    points = np.array([[1.0, 0.0], [0.5, 0.5], [-1.0, 0.2], [0.0, 0.0]])
    chosen = {"depth": 2, "activation": "erf", "weight_variance": 2.0, "bias_variance": 0.0}
    values = wide.sample_wide(points, n_samples=20_000, rng=np.random.default_rng(5), **chosen).values
    exact = wide.wide_covariance(points, **chosen)
    assert np.array_equal(values[:, 3], np.zeros(20_000))
    for i in range(4):
        for j in range(i + 1):
            products = values[:, i] * values[:, j]
            assert abs(products.mean() - exact[i, j]) <= 5 * products.std() / np.sqrt(20_000)


def call(points=None, others=None, **changed):
    points = np.ones((3, 2)) if points is None else points
    chosen = {"depth": 2, "activation": "tanh", "weight_variance": 1.0} | changed
    return wide.wide_covariance(points, others, **chosen)


def sample(points=None, **changed):
    chosen = {"n_samples": 1, "depth": 2, "activation": "erf", "weight_variance": 1.0, "rng": UnitNoise()} | changed
    return wide.sample_wide(np.ones((3, 2)) if points is None else points, **chosen)


@pytest.mark.parametrize(
    "mistake, message",
    [
        (lambda: call(np.ones(3)), r"rows of equal length, got shapes \(3,\) and \(3,\)"),
        (lambda: call(others=np.ones((3, 5))), r"rows of equal length, got shapes \(3, 2\) and \(3, 5\)"),
        (lambda: call(np.ones((3, 0))), r"rows of equal length, got shapes \(3, 0\)"),
        (lambda: call(depth=0), "depth must be a whole number from 1 to 10000, got 0"),
        (lambda: call(activation="gelu"), "activation must be one of tanh, relu, erf, sin, got gelu"),
        (lambda: call(weight_variance=0.0), "weight_variance must be positive and finite, got 0.0"),
        (lambda: call(bias_variance=-1.0), "bias_variance must be at least 0 and finite, got -1.0"),
        (lambda: call(20 * np.ones((3, 2))), "variances before tanh must be small enough .* 1600 terms, got 400"),
        (
            lambda: sample(n_samples=0),
            "n_samples must be a whole number of at least 1, got 0",
        ),
        (lambda: call(depth=2**63), f"depth must be a whole number from 1 to 10000, got {2**63}"),
        (lambda: call(weight_variance=np.inf), "weight_variance must be positive and finite, got inf"),
        (lambda: call(np.full((3, 2), np.nan)), "points must be finite, got nan"),
        (lambda: call(np.full((3, 2), 1e200)), "must keep variances below 1e.150, got inf"),
        (
            lambda: call(activation="relu", weight_variance=1e100, depth=5),
            r"must keep variances below 1e.150, got 2.5e.199",
        ),
        (lambda: sample(np.ones((0, 2))), r"points must be rows, at least one, got shape \(0, 2\)"),
        (lambda: sample(n_landmarks=0), "n_landmarks must be a whole number of at least 1, got 0"),
        (lambda: sample(n_samples=10**14), "n_samples must fit .*, got 100000000000000, which takes"),
    ],
)
def test_mistakes_are_refused(mistake, message):
    with pytest.raises(ValueError, match=message):
        mistake()


def test_other_kinds_are_refused():
    with pytest.raises(TypeError, match="points must be numbers, got"):
        call([["1", "2"]])
    with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator, got 0"):
        sample(rng=0)
