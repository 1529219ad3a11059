"""A coarse lattice's cubes on a fine one: against the fine lattice as a whole, which is small enough here."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import nn

from empirical import network_lattice, refined_lattice
from empirical.network_lattice import LatticeNetwork
from percolation import labels

DELTA = 0.25
BUDGET = 10**6


def made(dimension: int, seed: int, radius: float = 1.5) -> tuple[nn.Sequential, float]:
    """Return a random network with sines and the half side of its growing box."""
    law = LatticeNetwork(activation="sin", width=8, box="growing", radius=radius)
    return network_lattice.build(law, dimension, seed).requires_grad_(False), network_lattice.half_side(law, dimension)


def by_whole_lattice(network: nn.Module, dimension: int, *, n_coarse: int, refine: int, radius: float) -> float:
    """Return P(connected | same label) of the coarse centres from the labels of every fine cube."""
    axis = torch.from_numpy(network_lattice.axis_centres(n_coarse * refine, radius=radius))
    points = torch.cartesian_prod(*[axis] * dimension).reshape(-1, dimension)
    with torch.no_grad():
        values = network(points).numpy()[:, 0]
    cells = labels.cells(values, DELTA).reshape([n_coarse * refine] * dimension)
    sample = (slice(refine // 2, None, refine),) * dimension
    pairs = connected = 0
    for label in range(labels.n_cells(DELTA) - 1):
        sizes = np.bincount(ndimage.label((cells == label) | (cells == label + 1))[0][sample].ravel())[1:]
        pairs, connected = pairs + int(sizes.sum()) ** 2, connected + int((sizes**2).sum())
    return connected / pairs


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(1, 7, 3), (1, 1, 5), (2, 6, 3), (2, 5, 5), (2, 7, 1), (3, 4, 3), (3, 3, 5), (4, 3, 3)]),
    seed=st.integers(0, 10**6),
    radius=st.sampled_from([1.5, 4.0]),
)
def test_it_is_the_fine_lattices_connection(shape: tuple[int, int, int], seed: int, radius: float) -> None:
    dimension, n_coarse, refine = shape
    network, half_side = made(dimension, seed, radius)
    where: dict[str, Any] = {"n_coarse": n_coarse, "refine": refine, "radius": half_side}
    found = refined_lattice.connect(network, dimension, delta=DELTA, **where, budget=BUDGET)
    exact = by_whole_lattice(network, dimension, **where)
    assert found.in_label == pytest.approx(exact, rel=1e-12)
    assert (found.in_label_most, found.n_given_up) == (found.in_label, 0)


def test_every_way_of_connecting_is_taken() -> None:
    """Over some networks some clusters are joined, some lie in pockets, and the coarse lattice is wrong."""
    where: dict[str, Any] = {"n_coarse": 5, "delta": DELTA, "budget": BUDGET}
    n_joined = n_pockets = 0
    for seed in range(8):
        network, half_side = made(3, seed, 4.0)
        coarse, fine = (refined_lattice.connect(network, 3, refine=r, radius=half_side, **where) for r in (1, 3))
        assert coarse.n_joined == coarse.n_evaluated == 0
        assert coarse.in_label != fine.in_label
        n_joined, n_pockets = n_joined + fine.n_joined, n_pockets + fine.n_pockets
    assert n_joined > 50
    assert n_pockets > 50


@pytest.mark.parametrize("budget", [1, 30, 300])
def test_what_is_given_up_is_counted_both_ways(budget: int) -> None:
    n_given_up = 0
    for seed in range(6):
        network, half_side = made(3, seed, 3.0)
        where: dict[str, Any] = {"n_coarse": 4, "refine": 3, "radius": half_side}
        found = refined_lattice.connect(network, 3, delta=DELTA, budget=budget, **where)
        assert found.in_label <= by_whole_lattice(network, 3, **where) + 1e-12
        # To the largest, and not to each other: the other end is a bound of it where one pocket is left at most.
        assert found.in_label <= found.in_label_most
        assert (found.in_label < found.in_label_most) == (found.n_given_up > 0)
        n_given_up += found.n_given_up
    assert n_given_up > 0


class Fold(nn.Module):
    """Outputs that are the same everywhere but on a wall, thinner than a coarse cube, with or without a hole."""

    def __init__(self, hole: float) -> None:
        super().__init__()
        self.hole = hole

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return 0.9 on the wall and 0.1 elsewhere."""
        is_wall = (x[:, :1].abs() < 0.2) & (x[:, 1:2].abs() > self.hole)
        return torch.where(is_wall, 0.9, 0.1) + 0 * x[:, :1]


@pytest.mark.parametrize(("hole", "connected"), [(0.0, 0.5), (0.4, 1.0)])
def test_a_wall_between_coarse_centres_is_seen_and_so_is_its_hole(hole: float, connected: float) -> None:
    first = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    first.weight.data = torch.eye(2, dtype=torch.float64)
    network = nn.Sequential(first, Fold(hole)).requires_grad_(False)
    where: dict[str, Any] = {"n_coarse": 4, "radius": 2.0, "delta": DELTA, "budget": BUDGET}
    assert refined_lattice.connect(network, 2, refine=1, **where).in_label == 1  # centres at 0.5 and 1.5
    assert refined_lattice.connect(network, 2, refine=5, **where).in_label == connected


def test_mistakes_are_one_line() -> None:
    network, half_side = made(2, 0)
    where: dict[str, Any] = {"n_coarse": 4, "refine": 3, "radius": half_side, "delta": DELTA, "budget": BUDGET}
    for change, words in (
        ({"refine": 2}, "refine must be odd and at least 1, got 2"),
        ({"n_coarse": 0}, "n_coarse must be a whole number of at least 1, got 0"),
        ({"n_coarse": 10**8, "refine": 1}, r"n_coarse and dimension must fit .*, got \(100000000, 2\), which takes"),
        ({"budget": 0}, "budget must be a whole number of at least 1, got 0"),
        ({"radius": float("nan")}, "radius must be positive and finite, got nan"),
        ({"n_coarse": 10**10}, r"the fine lattice must have less than 2\^62 cubes, got 30000000000\^2"),
    ):
        with pytest.raises(ValueError, match=words):
            refined_lattice.connect(network, 2, **(where | change))
    with pytest.raises(TypeError, match="Linear"):
        refined_lattice.connect(nn.Sequential(nn.Sigmoid()), 2, **where)


def test_it_is_deterministic() -> None:
    network, half_side = made(4, 3)
    where: dict[str, Any] = {"n_coarse": 4, "refine": 3, "radius": half_side, "delta": DELTA, "budget": BUDGET}
    first, second = (refined_lattice.connect(network, 4, **where) for _ in range(2))
    assert first == second


def test_labels_without_cubes_are_left_out() -> None:
    """A nearly constant network has one label or two, and all pairs connected."""
    layer = nn.Linear(3, 1, dtype=torch.float64)
    for parameter in itertools.chain(layer.parameters()):
        parameter.data.fill_(0.01)
    network = nn.Sequential(layer, nn.Sigmoid()).requires_grad_(False)
    found = refined_lattice.connect(network, 3, n_coarse=3, refine=3, radius=1.0, delta=DELTA, budget=BUDGET)
    assert found.in_label == 1
