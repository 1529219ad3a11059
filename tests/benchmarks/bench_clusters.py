"""Speed and memory of cluster labelling beside scipy.ndimage.label and cc3d, near the threshold, one core, CPU time:
python -m pytest -s tests/benchmarks/bench_clusters.py

Ours gives numbers, sizes, labels, spans and wraps; the peers give numbers. cc3d starts no thread of its own.
"""

import time
import tracemalloc

import numpy as np
import pytest
import scipy.ndimage

from percolation import clusters

LATTICES = {
    "d2": ((4000, 4000), 0.5927, 1),
    "d3": ((256,) * 3, 0.3116, 1),
    "d3, 7 labels": ((256,) * 3, 1.0, 7),
    "d6": ((16,) * 6, 0.1090, 1),
    "d8": ((8,) * 8, 0.0752, 1),
    "d10": ((5,) * 10, 0.0576, 1),
    "d13": ((3,) * 13, 0.0427, 1),
    "hypercube 22": ((2,) * 22, 1 / 21, 1),
}


def lattice(name):
    shape, p, n_labels = LATTICES[name]
    rng = np.random.default_rng(0)
    return np.where(rng.random(shape) < p, rng.integers(0, n_labels, shape), -1).astype(np.int8)


def measure(benchmark, what, n_sites, run, *, memory=False):
    benchmark.pedantic(run, rounds=5, warmup_rounds=1)
    line = f"{what}: {n_sites / benchmark.stats.stats.min / 1e6:.1f} million sites/s"
    if memory:
        tracemalloc.start()
        run()
        line += f", {tracemalloc.get_traced_memory()[1] / n_sites:.2f} bytes a site"
        tracemalloc.stop()
    print(f"\n{line}")


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("periodic", [False, True], ids=["open", "periodic"])
@pytest.mark.parametrize("name", LATTICES)
def test_ours(benchmark, name, periodic):
    labels = lattice(name)
    what = f"{name}, {'periodic' if periodic else 'open'}, ours"
    measure(benchmark, what, labels.size, lambda: clusters.label_clusters(labels, periodic=periodic), memory=True)


@pytest.mark.benchmark(timer=time.process_time)
def test_ours_with_the_overlapping_labels(benchmark):
    # 18 cells, delta = 1/9: a site joins a neighbour with probability 0.16, that of 7 labels being 0.14.
    cells = np.random.default_rng(0).integers(0, 18, (256,) * 3).astype(np.int8)
    what = "d3, two overlapping labels of 17, open, ours"
    measure(benchmark, what, cells.size, lambda: clusters.label_clusters(cells, reach=1), memory=True)


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("name", ["d2", "d3", "d6", "d8"])  # d = 10 takes a minute a round
def test_scipy(benchmark, name):
    occupied = lattice(name) >= 0
    measure(benchmark, f"{name}, open, scipy", occupied.size, lambda: scipy.ndimage.label(occupied))


@pytest.mark.benchmark(timer=time.process_time)
@pytest.mark.parametrize("periodic", [False, True], ids=["open", "periodic"])
@pytest.mark.parametrize("name", ["d2", "d3", "d3, 7 labels"])
def test_cc3d(benchmark, name, periodic):
    cc3d = pytest.importorskip("cc3d", reason="the extra `bench` is not installed")
    labels = (lattice(name) + 1).astype(np.uint8)
    connectivity = 2 * labels.ndim  # sharing a face

    def run():
        return cc3d.connected_components(labels, connectivity=connectivity, periodic_boundary=periodic)

    measure(benchmark, f"{name}, {'periodic' if periodic else 'open'}, cc3d", labels.size, run)
