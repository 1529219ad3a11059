"""A coarse box's cubes connected on a fine lattice, against labelling the fine lattice as a whole.

    OMP_NUM_THREADS=1 pytest -s tests/benchmarks/bench_refined_lattice.py

The lattices are the largest of some 10^7 fine cubes; both are timed in CPU time and must agree on the sample.
"""

import time

import numpy as np
import pytest

from empirical import network_lattice, refined_lattice
from empirical.network_lattice import LatticeNetwork
from lipschitz.threads import one_thread
from percolation import clusters

N_COARSE = {3: 43, 4: 11, 5: 5}
REFINE, DELTA, N_LABELS = 5, 0.25, 7


def cpu_seconds(work):
    start = time.process_time()
    return work(), time.process_time() - start


@pytest.mark.parametrize("dimension", N_COARSE)
def test_what_a_fine_lattice_costs_by_asking_where_it_matters(dimension):
    n_coarse = N_COARSE[dimension]
    n_fine = REFINE * n_coarse
    law = LatticeNetwork(activation="sin", box="growing", radius=1.5)
    radius = network_lattice.half_side(law, dimension)

    def whole(network):
        cells = network_lattice.label_box(network, dimension, n_cells=n_fine, radius=radius, delta=DELTA)[0]
        sample = (slice(REFINE // 2, None, REFINE),) * dimension
        pairs = connected = 0
        for label in range(N_LABELS):
            found = clusters.label_clusters(((cells == label) | (cells == label + 1)).view(np.int8) - np.int8(1))
            numbers = found.numbers[sample]
            sizes = np.bincount(numbers[numbers >= 0]) if (numbers >= 0).any() else np.zeros(0, dtype=np.int64)
            pairs, connected = pairs + int(sizes.sum()) ** 2, connected + int((sizes.astype(np.int64) ** 2).sum())
        return connected / pairs

    def refined(network):
        where = {"n_coarse": n_coarse, "refine": REFINE, "radius": radius, "delta": DELTA}
        return refined_lattice.connect(network, dimension, budget=10**7, **where).in_label

    with one_thread():
        whole(network_lattice.build(law, dimension, 99))  # compiles
        spent = np.zeros(2)
        for seed in range(4):
            network = network_lattice.build(law, dimension, seed).requires_grad_(False)
            (exact, first), (found, second) = (
                cpu_seconds(lambda n=network: whole(n)),
                cpu_seconds(lambda n=network: refined(n)),
            )
            assert found == pytest.approx(exact, abs=1e-6)  # float32 may tell a cube at an interval's end otherwise
            spent += first, second
    print(
        f"\nd={dimension}, {n_fine}^{dimension} = {n_fine**dimension:,} cubes, four networks: whole {spent[0]:.1f} s,"
        f" where it matters {spent[1]:.1f} s, {spent[0] / spent[1]:.1f} x"
    )
