"""P(connected) on a fine lattice from parts and a sample: against every cube of lattices that are small enough."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
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


def every_cube(dimension: int, n_cells: int) -> NDArray[np.float64]:
    """Return the centres of all cubes, as multiples of the half side, shape (n, d)."""
    axis = network_lattice.axis_centres(n_cells, radius=1.0)
    return np.stack(np.meshgrid(*[axis] * dimension, indexing="ij"), axis=-1).reshape(-1, dimension)


def drawn(dimension: int, n_points: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(-1, 1, size=(n_points, dimension))


def by_whole_lattice(network: nn.Module, dimension: int, *, n_cells: int, radius: float) -> dict[str, float]:
    """Return P(connected | same label) over all cubes, the share of triples cut off, and that in parts at the wall."""
    with torch.no_grad():
        values = network(torch.from_numpy(radius * every_cube(dimension, n_cells))).numpy()[:, 0]
    cells = labels.cells(values, DELTA).reshape([n_cells] * dimension)
    pairs = connected = cut_off = at_wall = 0
    for label in range(labels.n_cells(DELTA) - 1):
        numbers = ndimage.label((cells == label) | (cells == label + 1))[0]
        sizes = np.bincount(numbers.ravel())[1:]
        if not sizes.size:
            continue
        inner = numbers[(slice(1, -1),) * dimension] if n_cells > 2 else np.zeros(0, dtype=np.int64)
        touches = np.bincount(inner.ravel(), minlength=sizes.size + 1)[1:] < sizes
        is_small = sizes < sizes.max()
        total = int(sizes.sum())
        pairs, connected = pairs + total**2, connected + int((sizes**2).sum())
        cut_off += total * int(sizes[is_small].sum())
        at_wall += total * int(sizes[is_small & touches].sum())
    return {"in_label": connected / pairs, "cut_off": cut_off / pairs, "at_wall": at_wall / pairs}


@settings(max_examples=15, deadline=None)
@given(
    shape=st.sampled_from([(1, 7, 3), (1, 1, 5), (2, 6, 3), (2, 5, 5), (2, 7, 1), (3, 4, 3), (3, 3, 5), (4, 3, 3)]),
    seed=st.integers(0, 10**6),
    radius=st.sampled_from([1.5, 4.0]),
    n_starts=st.sampled_from([0, 8]),
)
def test_a_sample_of_every_cube_is_exact(shape: tuple[int, int, int], seed: int, radius: float, n_starts: int) -> None:
    dimension, n_coarse, refine = shape
    network, half_side = made(dimension, seed, radius)
    where: dict[str, Any] = {"n_coarse": n_coarse, "refine": refine, "radius": half_side}
    found = refined_lattice.connect(
        *(network, every_cube(dimension, n_coarse * refine), drawn(dimension, n_starts, seed)),
        delta=DELTA,
        budget=BUDGET,
        **where,
    )
    exact = by_whole_lattice(network, dimension, n_cells=n_coarse * refine, radius=half_side)
    for name, value in exact.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert (found.in_label_most, found.n_given_up) == (found.in_label, 0)
    assert found.missed <= found.cut_off


@pytest.mark.parametrize("n_starts", [0, 16])
def test_a_sample_is_right_on_average(n_starts: int) -> None:
    """Over many samples, with parts that are found by starts and without any."""
    network, half_side = made(3, 1, 3.0)
    where: dict[str, Any] = {"n_coarse": 4, "refine": 3, "radius": half_side, "delta": DELTA, "budget": BUDGET}
    exact = by_whole_lattice(network, 3, n_cells=12, radius=half_side)
    found = [
        refined_lattice.connect(network, drawn(3, 200, seed), drawn(3, n_starts, 10**6 + seed), **where)
        for seed in range(12)
    ]
    for name, value in exact.items():
        values = np.array([getattr(one, name) for one in found])
        error = values.std(ddof=1) / np.sqrt(len(values))
        assert abs(values.mean() - value) < 4 * error
        assert error < 0.3 * value


class Corner(nn.Module):
    """Outputs that are the same everywhere but in one corner of the box, cut off from it by a thin wall."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return 0.9 on the wall and 0.1 elsewhere; x has a half side of 2."""
        far = x.sum(dim=1, keepdim=True)
        return torch.where((far > 3.0) & (far < 3.5), 0.9, 0.1) + 0 * far


def test_parts_that_only_touch_the_wall_are_seen() -> None:
    """No centre of the coarse lattice lies in the corner: of those alone, all would be connected."""
    first = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    first.weight.data = torch.eye(2, dtype=torch.float64)
    network = nn.Sequential(first, Corner()).requires_grad_(False)
    where: dict[str, Any] = {"n_coarse": 4, "refine": 5, "radius": 2.0, "delta": DELTA, "budget": BUDGET}
    exact = by_whole_lattice(network, 2, n_cells=20, radius=2.0)
    found = refined_lattice.connect(network, every_cube(2, 20), drawn(2, 0, 0), **where)
    assert found.in_label == pytest.approx(exact["in_label"], rel=1e-12)
    assert found.in_label < 1
    assert found.at_wall == found.cut_off > 0
    centres = refined_lattice.connect(network, every_cube(2, 4), drawn(2, 0, 0), **where)
    assert centres.in_label == 1


@pytest.mark.parametrize("budget", [1, 30])
def test_what_is_given_up_is_counted_both_ways(budget: int) -> None:
    n_given_up = 0
    for seed in range(4):
        network, half_side = made(3, seed, 3.0)
        where: dict[str, Any] = {"n_coarse": 4, "refine": 3, "radius": half_side}
        found = refined_lattice.connect(network, every_cube(3, 12), drawn(3, 0, 0), delta=DELTA, budget=budget, **where)
        exact = by_whole_lattice(network, 3, n_cells=12, radius=half_side)["in_label"]
        assert found.in_label <= exact + 1e-12
        assert found.in_label <= found.in_label_most
        n_given_up += found.n_given_up
    assert n_given_up > 0


def test_mistakes_are_one_line() -> None:
    network, half_side = made(2, 0)
    right: dict[str, Any] = {"sample": drawn(2, 5, 0), "starts": drawn(2, 4, 1), "n_coarse": 4, "refine": 3}
    right |= {"radius": half_side, "delta": DELTA, "budget": BUDGET}
    for change, words in (
        ({"refine": 2}, "refine must be odd and at least 1, got 2"),
        ({"n_coarse": 0}, "n_coarse must be a whole number of at least 1, got 0"),
        ({"n_coarse": 10**8, "refine": 1}, r"n_coarse and dimension must fit .*, got \(100000000, 2\), which takes"),
        ({"budget": 0}, "budget must be a whole number of at least 1, got 0"),
        ({"radius": float("nan")}, "radius must be positive and finite, got nan"),
        ({"n_coarse": 10**10}, r"the fine lattice must have less than 2\^62 cubes, got 30000000000\^2"),
        ({"sample": drawn(3, 5, 0)}, r"sample must have shape \(n, 2\), got \(5, 3\)"),
        ({"sample": drawn(2, 0, 0)}, "sample must have one point or more, got 0"),
        ({"starts": 2 + drawn(2, 4, 1)}, "starts must lie in -1 to 1 along every axis, got "),
        ({"sample": np.full((1, 2), np.nan)}, "sample must be finite, got nan"),
    ):
        with pytest.raises(ValueError, match=words):
            refined_lattice.connect(network, **(right | change))
    with pytest.raises(TypeError, match="Linear"):
        refined_lattice.connect(nn.Sequential(nn.Sigmoid()), **right)


def test_it_is_deterministic() -> None:
    network, half_side = made(4, 3)
    where: dict[str, Any] = {"n_coarse": 4, "refine": 3, "radius": half_side, "delta": DELTA, "budget": BUDGET}
    first, second = (refined_lattice.connect(network, drawn(4, 99, 0), drawn(4, 9, 1), **where) for _ in range(2))
    assert first == second


def test_labels_without_cubes_are_left_out() -> None:
    """A nearly constant network has one label or two, and all pairs connected."""
    layer = nn.Linear(3, 1, dtype=torch.float64)
    for parameter in layer.parameters():
        parameter.data.fill_(0.01)
    network = nn.Sequential(layer, nn.Sigmoid()).requires_grad_(False)
    where: dict[str, Any] = {"n_coarse": 3, "refine": 3, "radius": 1.0, "delta": DELTA, "budget": BUDGET}
    assert refined_lattice.connect(network, drawn(3, 20, 0), drawn(3, 4, 1), **where).in_label == 1
