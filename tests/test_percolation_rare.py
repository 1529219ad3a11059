"""Importance sampling against counting, and against what is known exactly."""

import numpy as np
import pytest

from percolation import finite_clusters, growth, meanfield, rare


@pytest.mark.parametrize("p, dimension", [(0.25, 5), (0.2, 8), (0.1, 10), (0.1, 14), (0.05, 16)])
def test_agrees_with_counting_where_both_can_be_done(p, dimension):
    sampled = rare.finite_probability(p, dimension, n_samples=20_000, max_sites=2_000, rng=np.random.default_rng(1))
    grown = growth.grow(p, dimension, n_samples=20_000, max_sites=2_000, rng=np.random.default_rng(2))
    counted = np.mean(grown.sizes < 2_000)
    error = np.hypot(np.sqrt(counted * (1 - counted) / 20_000), sampled.standard_error)
    # five tests at 4.5 standard errors: false alarm 3e-5
    assert abs(sampled.value - counted) < 4.5 * error + sampled.truncation_bound


@pytest.mark.parametrize("p, dimension", [(0.1, 64), (0.2, 48), (0.01, 3072)])
def test_far_above_the_threshold_only_the_smallest_clusters_are_left(p, dimension):
    found = rare.finite_probability(p, dimension, n_samples=1_000, max_sites=100, rng=np.random.default_rng(3))
    exact = sum(float(finite_clusters.finite_cluster(p, dimension, n)) for n in (1, 2, 3))
    assert found.value == pytest.approx(exact, rel=1e-9)
    assert 0 <= found.standard_error < 1e-6 * found.value
    assert found.effective_samples > 990


def test_error_bar_covers_the_scatter_of_repeated_runs():
    runs = [
        rare.finite_probability(0.1, 10, n_samples=2_000, max_sites=1_000, rng=np.random.default_rng(seed))
        for seed in range(60)
    ]
    values = np.array([run.value for run in runs])
    stated = np.mean([run.standard_error for run in runs])
    # the standard deviation of 60 values is known to 9 %: five of these
    assert 0.55 < values.std(ddof=1) / stated < 1.45


def test_at_and_below_the_branching_threshold_every_cluster_is_finite():
    found = rare.finite_probability(1 / 9, 5, n_samples=100, max_sites=100, rng=np.random.default_rng(0))
    assert found.value == 1
    assert found.standard_error == 0


def test_refuses_when_a_few_clusters_rule_the_weights():
    with pytest.raises(RuntimeError, match="effective sample size of at least 2500, got"):
        rare.finite_probability(0.2, 4, n_samples=5_000, max_sites=2_000, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"p": 1}, "p must lie below 1"),
        ({"p": -0.1}, r"p must lie in \[0, 1\], got -0.1"),
        ({"dimension": 1}, "dimension must be a whole number of at least 2, got 1"),
        ({"n_samples": 1}, "n_samples must be a whole number of at least 2, got 1"),
        ({"n_samples": 10**13}, "n_samples must fit into the .* GB of memory, got 10000000000000, which takes"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"p": 0.2, "dimension": 5, "n_samples": 100, "max_sites": 10}
    with pytest.raises(ValueError, match=message):
        rare.finite_probability(**(good | change), rng=np.random.default_rng(0))


def test_imagenet_dimension_keeps_its_digits():
    """2 (1-p)^(2d) at d = 150,528, p = 5e-4 is 8e-66; the next clusters are smaller by more than 60 orders."""
    found = rare.finite_probability(5e-4, 150_528, n_samples=20, max_sites=100, rng=np.random.default_rng(4))
    assert found.value == pytest.approx(float(meanfield.isolated(5e-4, 2 * 150_528)), rel=1e-9)
    assert found.standard_error < 1e-9 * found.value
