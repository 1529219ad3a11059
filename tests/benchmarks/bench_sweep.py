"""Speed of Newman-Ziff sweeps, and of the same curve by labelling a lattice at every p with scipy.ndimage.label, in CPU
seconds of one core: python -m pytest -s tests/benchmarks/bench_sweep.py
"""

import time

import numpy as np
import pytest
import scipy.ndimage

from percolation import sweep

SHAPES = [(1000,) * 2, (100,) * 3, (10,) * 6]
TORI = [(64,) * 3, (24,) * 4, (14,) * 5, (10,) * 6]
CHANCES = np.linspace(0.05, 0.95, 21)
N_RUNS = 4


def rate(benchmark, run, n_elements):
    """Million elements a second, the best of seven rounds."""
    benchmark.pedantic(run, rounds=7, warmup_rounds=1)
    benchmark.extra_info["million_per_second"] = n_elements / benchmark.stats.stats.min / 1e6
    return benchmark.extra_info["million_per_second"]


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("kind", ["site", "bond"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"d{len(shape)}")
def test_sweeps(benchmark, shape, kind):
    """Everything: random order, sweep, wrapping, second largest, averages at 21 p."""

    def run():
        sweep.sweep(shape, CHANCES, kind=kind, n_runs=N_RUNS, seeds=np.random.SeedSequence(0), n_workers=1)

    n_elements = np.prod(shape) * N_RUNS * (len(shape) if kind == "bond" else 1)
    print(f"\nsweep, {kind}, {shape}: {rate(benchmark, run, n_elements):.1f} million {kind}s/s")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("shape", SHAPES[:2], ids=lambda shape: f"d{len(shape)}")
def test_scipy_labels_a_lattice_for_every_p(benchmark, shape):
    """The largest cluster alone, open boundaries; counted as one sweep for all 21 p."""

    def run():
        uniforms = np.random.default_rng(0).random(shape)
        for p in CHANCES:
            numbers, _ = scipy.ndimage.label(uniforms < p)
            np.bincount(numbers.ravel())[1:].max()

    print(f"\nscipy, site, {shape}: {rate(benchmark, run, np.prod(shape)):.1f} million sites/s")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("kind", ["site", "bond"])
@pytest.mark.parametrize("shape", TORI, ids=lambda shape: f"d{len(shape)}")
def test_wrapping(benchmark, shape, kind):
    def run():
        sweep.wrapping(shape, kind=kind, n_runs=N_RUNS, seeds=np.random.SeedSequence(0), n_workers=1)

    rate(benchmark, run, np.prod(shape) * N_RUNS)
    milliseconds = 1e3 * benchmark.stats.stats.min / N_RUNS
    print(f"\nwrapping, {kind}, {shape}: {milliseconds:.1f} ms a run")
