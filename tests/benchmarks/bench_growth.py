"""Speed of growth on Z^d: python -m pytest -s tests/benchmarks/bench_growth.py (one core; idle machine)."""

import numpy as np
import pytest

from percolation import growth, rare


@pytest.mark.parametrize("p, dimension, max_sites", [(0.0576, 10, 5_000), (0.2, 3, 200), (0.03, 20, 5_000)])
def test_tested_sites_per_second(benchmark, p, dimension, max_sites):
    def run():
        return growth.grow(p, dimension, n_samples=2_000, max_sites=max_sites, rng=np.random.default_rng(0))

    grown = benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    rate = grown.n_tested / benchmark.stats.stats.median
    benchmark.extra_info["tested_sites_per_second"] = rate
    print(f"\nd = {dimension}, p = {p}: {rate / 1e6:.0f} million tested sites/s")


@pytest.mark.parametrize("p, dimension", [(0.1, 10), (0.1, 64), (0.01, 3072)])
def test_importance_sampling(benchmark, p, dimension):
    def run():
        return rare.finite_probability(p, dimension, n_samples=2_000, max_sites=1_000, rng=np.random.default_rng(0))

    found = benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    print(f"\nd = {dimension}, p = {p}: {found.value:.4g} +- {found.standard_error:.1g} from 2,000 clusters")
