"""Labelling the cubes of a box against the bare forward pass on as many ready points; the task asks for 80 %.

    OMP_NUM_THREADS=1 pytest -s tests/benchmarks/bench_network_lattice.py

Bare: the same float32 network on ready points, in the batches of the labelling. Both are timed in turn, in CPU time,
and the best of three rounds counts, since a busy machine slows one and not the other.
"""

import copy
import time

import pytest
import torch

from empirical import lattice_models, network_lattice
from empirical.network_lattice import LatticeNetwork
from lipschitz.threads import one_thread

N_CUBES = {3: 100, 5: 16, 8: 6}


def cpu_seconds(work):
    start = time.process_time()
    work()
    return time.process_time() - start


@pytest.mark.parametrize("dimension", N_CUBES)
@pytest.mark.parametrize("activation", ["tanh", "relu", "erf", "sin"])
def test_labelling_runs_at_the_speed_of_the_network(activation, dimension):
    n_cells = N_CUBES[dimension]
    n_cubes = n_cells**dimension
    law = LatticeNetwork(activation=activation)
    network, radius = network_lattice.build(law, dimension, 0), network_lattice.half_side(law, dimension)
    single = copy.deepcopy(network).float()
    n_points = 1 << 13
    points = torch.rand(n_points, dimension)

    def bare():
        for _ in range(n_cubes // n_points):
            single(points)
        single(points[: n_cubes % n_points])

    def label():
        network_lattice.label_box(network, dimension, n_cells=n_cells, radius=radius, delta=0.25)

    with one_thread(), torch.no_grad():
        bare(), label()
        seconds = [(cpu_seconds(bare), cpu_seconds(label)) for _ in range(3)]
    forward, labelling = (min(column) for column in zip(*seconds, strict=True))
    print(
        f"\n{activation} d={dimension} n={n_cells}: {n_cubes / labelling / 1e6:.2f} M cubes/s,"
        f" bare {n_cubes / forward / 1e6:.2f}, ratio {forward / labelling:.2f}"
    )


@pytest.mark.parametrize("dimension", N_CUBES)
def test_connecting_cubes_is_no_dearer_than_labelling_them(dimension):
    n_cells = N_CUBES[dimension]
    law = LatticeNetwork()
    network, radius = network_lattice.build(law, dimension, 0), network_lattice.half_side(law, dimension)
    with one_thread():
        cells = network_lattice.label_box(network, dimension, n_cells=n_cells, radius=radius, delta=0.25)[0]
    seconds = min(cpu_seconds(lambda: lattice_models.connect_cubes(cells, 8)) for _ in range(3))
    print(f"\nd={dimension} n={n_cells}: {cells.size / seconds / 1e6:.2f} M cubes/s, seven labels")
