"""Speed of growth, of importance sampling and of invasion on Z^d, in CPU seconds of one core:
python -m pytest -s tests/benchmarks/bench_growth.py

No installable peer does any of these; figures of programs that were built elsewhere are in the README.
"""

import time

import numpy as np
import pytest

from percolation import growth, rare, threshold


@pytest.mark.benchmark(timer=time.process_time)
# clusters of thousands of sites, in the cache, and of millions beyond it, near the threshold
@pytest.mark.parametrize(
    "p, dimension, n_samples, max_sites",
    [
        (0.2, 3, 20_000, 200),
        (0.0576, 10, 20_000, 5_000),
        (0.03, 20, 2_000, 5_000),
        (0.01, 100, 300, 5_000),
        (0.01, 3_072, 50, 2_000),
        (0.0008, 3_072, 500, 2_000),
        (0.0005, 150_528, 20, 300),
        (0.000012, 150_528, 20, 300),
        (0.2, 4, 5, 4_000_000),
        (0.112, 6, 20, 4_000_000),
        (0.0775, 8, 10, 4_000_000),
        (0.047, 13, 20, 4_000_000),
    ],
)
def test_tested_sites_per_second(benchmark, p, dimension, n_samples, max_sites):
    def run():
        rng = np.random.default_rng(0)
        return growth.grow(p, dimension, n_samples=n_samples, max_sites=max_sites, rng=rng, n_workers=1)

    grown = benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    rate = grown.n_tested / benchmark.stats.stats.median
    benchmark.extra_info["tested_sites_per_second"] = rate
    print(f"\nd = {dimension}, p = {p}, up to {grown.sizes.max():,} sites: {rate / 1e6:.0f} million tested sites/s")


@pytest.mark.parametrize("p, dimension", [(0.1, 10), (0.1, 64), (0.01, 3_072), (0.0005, 150_528)])
def test_importance_sampling(benchmark, p, dimension):
    def run():
        return rare.finite_probability(p, dimension, n_samples=5_000, max_sites=1_000, rng=np.random.default_rng(0))

    found = benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    value, error = 2 * found.value, 2 * found.standard_error
    print(
        f"\nd = {dimension}, p = {p}: 1 - P(connected) = {value:.6g}, relative standard error {error / value:.1g}, "
        f"effective samples {found.effective_samples:.0f} of 5000, {benchmark.stats.stats.median:.2f} s"
    )


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("kind", ["site", "bond"])
@pytest.mark.parametrize("dimension", [3, 4, 6, 8, 10, 13])
def test_invaded_per_second(benchmark, kind, dimension):
    checkpoints = np.array([2**21])

    def run():
        return threshold.invade(dimension, checkpoints, kind=kind, rng=np.random.default_rng(0))

    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    print(f"\nd = {dimension}, {kind}s: {2**21 / benchmark.stats.stats.median / 1e6:.2f} million invaded {kind}s/s")
