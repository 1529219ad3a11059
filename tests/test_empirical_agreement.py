"""Lattice, search and bypass agree on the same pairs of the same networks wherever they are conclusive.

Every cube of a fine lattice is labelled, and a bound of the network's slopes (LipSDP) makes of it what is certain:
values in a cube are within ``reach`` of its centre's. Cubes that are inside the interval for certain, joined by faces,
prove a path. Cubes that may have a value in the interval are all that a path within the box could pass: a point of the
path on a common edge or corner belongs to every cube there, so that these are joined by faces, too. Where they fall
apart there is no path. The bypass is conclusive if its path is in the box and certified; finding none says nothing.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from empirical import lattice_search, network_lattice, value_intervals
from lipschitz import sdp, threads
from percolation import clusters, labels

DELTA = 0.5
LAW = network_lattice.LatticeNetwork(activation="sin", depth=2, width=8, bias_std=1.0, radius=3.0)
N_CELLS = {1: 500, 2: 120, 3: 48, 4: 24}
SEEDS = range(3)
N_PAIRS = 2  # of each kind, for each network and label
PIECES = 20_000
BUDGET = 20_000  # cubes: more than the whole lattice has in one and two dimensions


@dataclass(frozen=True)
class Proof:
    """One label's cubes on one network's lattice."""

    network: torch.nn.Sequential
    label: int
    radius: float
    inside: clusters.Clusters  # of cubes whose values are in the interval for certain
    possible: clusters.Clusters  # of cubes that may have a value in it

    def pairs(self, rng):
        """Pairs of cubes inside: some that are proved connected, some that are proved disconnected."""
        cubes = np.argwhere(self.inside.numbers >= 0)
        connected, disconnected = [], []
        for _ in range(100 if len(cubes) else 0):
            start, target = cubes[rng.integers(len(cubes), size=2)]
            ends = tuple(start), tuple(target)
            if clusters.are_connected(self.inside, *ends):
                connected.append((start, target))
            elif not clusters.are_connected(self.possible, *ends):
                disconnected.append((start, target))
        return connected[:N_PAIRS], disconnected[:N_PAIRS]


def proofs(dimension, seed):
    network = network_lattice.build(LAW, dimension, seed).requires_grad_(False)
    n_cells, radius = N_CELLS[dimension], network_lattice.half_side(LAW, dimension)
    bound = sdp.upper_lipsdp(network, (dimension,), tolerance=1e-3).value
    reach = bound * radius / n_cells * math.sqrt(dimension) * (1 + 1e-9)
    axis = torch.from_numpy(network_lattice.axis_centres(n_cells, radius=radius))
    points = torch.cartesian_prod(*[axis] * dimension).reshape(-1, dimension)
    values = torch.cat([network(part) for part in points.split(1 << 14)]).numpy().reshape((n_cells,) * dimension)
    least, most = np.maximum(values - reach, 0), np.minimum(values + reach, 1)
    for label, (low, high) in enumerate(labels.intervals(DELTA)):
        masks = ((least >= low) & (most <= high), (most >= low) & (least <= high))
        inside, possible = (clusters.label_clusters(np.where(mask, 0, -1).astype(np.int8)) for mask in masks)
        yield Proof(network, label, radius, inside, possible)


def bypass(proof, dimension, pair):
    """Whether the bypass connects a pair, by a certified path in the box."""
    low, high = labels.intervals(DELTA)[proof.label]
    centres = network_lattice.centres(np.stack(pair), n_cells=N_CELLS[dimension], radius=proof.radius)
    ends = torch.from_numpy(centres)
    (found,) = value_intervals.bypass(
        *(proof.network, ends[:1], ends[1:]), low=low, high=high, max_rounds=4, max_iterations=200
    )
    stops = found.paths[-1].flatten(1)
    if not found.is_connected or float(stops.abs().max()) > proof.radius:
        return False
    prepared = value_intervals.prepare(proof.network, low, high)
    return value_intervals.certify_polygon(prepared, stops, piece_budget=PIECES).status == "certified"


def search(proof, dimension, pair):
    return lattice_search.search(
        *(proof.network, *pair),
        label=proof.label,
        delta=DELTA,
        n_cells=N_CELLS[dimension],
        radius=proof.radius,
        budget=BUDGET,
    ).status


@pytest.mark.parametrize("dimension", N_CELLS)
def test_lattice_search_and_bypass_agree(dimension):
    found_connected, found_disconnected, searched = [], [], []
    with threads.one_thread(), torch.no_grad():
        for seed in SEEDS:
            for proof in proofs(dimension, seed):
                connected, disconnected = proof.pairs(np.random.default_rng(seed))
                for pair in connected:
                    with torch.enable_grad():
                        found_connected.append(bypass(proof, dimension, pair))
                    searched.append(search(proof, dimension, pair))
                    assert searched[-1] != "exhausted"
                for pair in disconnected:
                    with torch.enable_grad():
                        found_disconnected.append(bypass(proof, dimension, pair))
                    searched.append(search(proof, dimension, pair))
                    assert searched[-1] != "found"
    # Not one that the lattice proves disconnected is connected.
    assert not any(found_disconnected)
    # Those that it proves connected are found, all but a few that the bypass leaves open; in one dimension, all.
    assert sum(found_connected) >= (1.0 if dimension == 1 else 0.8) * len(found_connected)
    assert len(found_connected) >= 10
    assert len(found_disconnected) >= {1: 10, 2: 5, 3: 2, 4: 0}[dimension]
    # The search, which sees the centres only, ends within its budget for a good part of them.
    assert sum(status != "budget" for status in searched) >= (1.0 if dimension <= 2 else 0.4) * len(searched)
