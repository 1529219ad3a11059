"""Speed of cluster labelling beside scipy.ndimage.label, near the threshold, in one run on one core:
python -m pytest -s tests/benchmarks/bench_clusters.py
"""

import numpy as np
import pytest
import scipy.ndimage

from percolation import clusters

LATTICES = [((4000, 4000), 0.5927), ((256,) * 3, 0.3116), ((16,) * 6, 0.109), ((8,) * 8, 0.0752)]


@pytest.mark.parametrize("who", ["ours", "scipy"])
@pytest.mark.parametrize("shape, p", LATTICES, ids=lambda value: f"d{len(value)}" if isinstance(value, tuple) else "")
def test_sites_per_second(benchmark, who, shape, p):
    occupied = np.random.default_rng(0).random(shape) < p
    labels = np.where(occupied, 0, -1).astype(np.int8)
    run = {"ours": lambda: clusters.label_clusters(labels), "scipy": lambda: scipy.ndimage.label(occupied)}[who]
    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    print(f"\nd = {len(shape)}, {who}: {occupied.size / benchmark.stats.stats.median / 1e6:.1f} million sites/s")
