"""Cubes evaluated by the search, beside the bare forward pass of the same network on as many ready points.

In CPU seconds of one core: OMP_NUM_THREADS=1 python -m pytest tests/benchmarks/bench_lattice_search.py. Nothing that
installs searches an implicit lattice with a network's labels.
"""

import functools
import time

import numpy as np
import pytest
import torch

from empirical import lattice_pairs, lattice_search, network_lattice

pytestmark = pytest.mark.benchmark(timer=time.process_time)
LATTICES = [("fixed", 16, 32), ("fixed", 256, 32), ("fixed", 3072, 16), ("growing", 4, 32), ("growing", 64, 32)]
DELTA = 0.25


@functools.cache
def case(box, dimension, n_cells):
    law = network_lattice.LatticeNetwork(activation="sin", box=box)
    network = network_lattice.build(law, dimension, 0).requires_grad_(False)
    where = {"n_cells": n_cells, "radius": network_lattice.half_side(law, dimension)}
    rng = np.random.default_rng(0)
    pairs = [lattice_pairs.draw_pair(network, dimension=dimension, delta=DELTA, rng=rng, **where) for _ in range(8)]
    return network, where, pairs


def search_all(network, where, pairs):
    return [
        lattice_search.search(
            *(network, pair.start, pair.target), label=pair.shared[0], delta=DELTA, budget=100_000, **where
        )
        for pair in pairs
    ]


def describe(lattice):
    return "-".join(map(str, lattice))


@pytest.mark.parametrize("lattice", LATTICES, ids=describe)
def test_search(benchmark, lattice):
    found = benchmark.pedantic(search_all, case(*lattice), rounds=3, warmup_rounds=1)
    n_evaluated = sum(one.n_evaluated for one in found)
    benchmark.extra_info["million_cubes_per_second"] = n_evaluated / benchmark.stats.stats.min / 1e6
    benchmark.extra_info["found"] = sum(one.status == "found" for one in found)


@pytest.mark.parametrize("batch", [256, 16384])
@pytest.mark.parametrize("lattice", LATTICES, ids=describe)
def test_bare_forward(benchmark, lattice, batch):
    network, where, _ = case(*lattice)
    n_points = max(batch, 4096)
    indices = np.random.default_rng(1).integers(where["n_cells"], size=(n_points, lattice[1]))
    points = torch.from_numpy(network_lattice.centres(indices, **where)).split(batch)

    def forward():
        with torch.no_grad():
            for part in points:
                network(part)

    benchmark.pedantic(forward, rounds=3, warmup_rounds=1)
    benchmark.extra_info["million_cubes_per_second"] = n_points / benchmark.stats.stats.min / 1e6
