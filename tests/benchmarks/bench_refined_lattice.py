"""The cubes of a fine lattice that are cut off, looked for and sampled, against labelling the lattice as a whole.

    OMP_NUM_THREADS=1 pytest -s tests/benchmarks/bench_refined_lattice.py

The lattices are the largest of some 10^7 fine cubes; both are timed in CPU time, and must agree within a tenth.
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
        pairs = connected = 0
        for label in range(N_LABELS):
            found = clusters.label_clusters(((cells == label) | (cells == label + 1)).view(np.int8) - np.int8(1))
            sizes = found.sizes.astype(float)
            pairs, connected = pairs + sizes.sum() ** 2, connected + sizes @ sizes
        return connected / pairs

    def refined(network):
        rng = np.random.default_rng(0)
        sample, starts = (rng.uniform(-1, 1, size=(n, dimension)) for n in (4_000, 256))
        where = {"n_coarse": n_coarse, "refine": REFINE, "radius": radius, "delta": DELTA}
        return refined_lattice.connect(network, sample, starts, budget=10**7, **where).in_label

    with one_thread():
        whole(network_lattice.build(law, dimension, 99))  # compiles
        spent = np.zeros(2)
        for seed in range(4):
            network = network_lattice.build(law, dimension, seed).requires_grad_(False)
            (exact, first), (found, second) = (
                cpu_seconds(lambda n=network: whole(n)),
                cpu_seconds(lambda n=network: refined(n)),
            )
            assert 1 - found == pytest.approx(1 - exact, rel=0.1, abs=1e-6)
            spent += first, second
    print(
        f"\nd={dimension}, {n_fine}^{dimension} = {n_fine**dimension:,} cubes, four networks: whole {spent[0]:.1f} s,"
        f" where it matters {spent[1]:.1f} s, {spent[0] / spent[1]:.1f} x"
    )
