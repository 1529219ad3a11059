"""Speed of random features beside plain numpy, of fields on a torus, and of the wide limit on many points, in CPU
seconds of one core: OMP_NUM_THREADS=1 python -m pytest -s tests/benchmarks/bench_fields.py
"""

import time

import numpy as np
import pytest

from percolation import fields, levelsets, wide

DIMENSION, N_MODES, N_POINTS = 20, 1000, 65_536


def best(benchmark, run, rounds=5):
    benchmark.pedantic(run, rounds=rounds, warmup_rounds=1)
    return benchmark.stats.stats.min


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    radii = fields.squared_exponential(2.0)
    modes = fields.draw_modes(DIMENSION, n_modes=N_MODES, radii=radii, rng=rng)
    return modes, rng.uniform(-5, 5, size=(N_POINTS, DIMENSION))


@pytest.mark.benchmark(timer=time.process_time)
def test_random_features(benchmark, drawn):
    seconds = best(benchmark, lambda: fields.evaluate(*drawn))
    print(f"\nours: {N_POINTS / seconds / 1e3:.0f} thousand points/s")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_plain_numpy(benchmark, drawn, dtype):
    """The same sum in blocks that fit the cache; float32 phases are wrong by 1e-6 or so."""
    modes, points = drawn
    frequencies, phases, points = (x.astype(dtype) for x in (modes.frequencies, modes.phases, points))

    def run():
        for first in range(0, N_POINTS, 256):
            np.sqrt(2 / N_MODES) * np.cos(points[first : first + 256] @ frequencies.T + phases).sum(axis=1)

    print(f"\nnumpy, {dtype.__name__}: {N_POINTS / best(benchmark, run) / 1e3:.0f} thousand points/s")


@pytest.mark.benchmark(timer=time.process_time)
def test_gstools(benchmark, drawn):
    gstools = pytest.importorskip("gstools", reason="a peer in no extra: install gstools by hand")
    _, points = drawn
    few = points[:4096].T
    field = gstools.SRF(gstools.Gaussian(dim=DIMENSION, var=1, len_scale=2.0), mode_no=N_MODES, seed=0)
    print(f"\ngstools: {few.shape[1] / best(benchmark, lambda: field(few), 3) / 1e3:.0f} thousand points/s")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("shape", [(128,) * 3, (32,) * 4, (16,) * 5], ids=lambda shape: f"d{len(shape)}")
@pytest.mark.parametrize("what", ["field", "field and both level sets"])
def test_torus(benchmark, shape, what):
    spectrum, rng = fields.free_field_spectrum(shape), np.random.default_rng(0)

    def run():
        field = fields.on_torus(spectrum, rng=rng)
        if what != "field":
            levelsets.wrapping_densities(field)

    print(f"\n{what}, {shape}: {np.prod(shape) / best(benchmark, run, 3) / 1e6:.1f} million sites/s")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("activation", ["relu", "tanh", "erf", "sin"])
def test_wide_limit(benchmark, activation):
    """Fifty fields of depth 3 at 100,000 inputs of 6 dimensions, 1000 landmarks."""
    points = np.random.default_rng(0).uniform(-1, 1, size=(100_000, 6))
    found = []

    def run():
        rng = np.random.default_rng(1)
        limit = {"depth": 3, "activation": activation, "weight_variance": 2.0}
        found.append(wide.sample_wide(points, n_samples=50, rng=rng, **limit).missing)

    seconds = best(benchmark, run, 1)
    print(f"\nwide limit, {activation}: {len(points) / seconds / 1e3:.0f} thousand points/s, missing {found[0]:.1e}")
