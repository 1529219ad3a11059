"""A lattice of cubes whose labels are made where they are asked for, and ways on it from cube to cube."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from empirical import network_lattice

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Cells = NDArray[np.int8]

_LAYER = 1 << 13  # cubes evaluated together
_RISE = 1e-6  # of a value, by which a step leads up


class Lattice(NamedTuple):
    """The fine lattice of a network, and how it holds the coarse one."""

    network: nn.Sequential
    single: nn.Sequential  # in float32
    dimension: int
    n_coarse: int
    refine: int
    radius: float
    delta: float

    @property
    def n_cells(self) -> int:
        """Fine cubes along an axis."""
        return self.n_coarse * self.refine

    @property
    def strides(self) -> Integers:
        """What a step along each axis adds to a fine cube's number."""
        return self.n_cells ** np.arange(self.dimension - 1, -1, -1, dtype=np.int64)

    def indices(self, numbers: Integers) -> Integers:
        """Return the indices of fine cubes by their numbers, shape (n, d)."""
        return numbers[:, None] // self.strides % self.n_cells

    def fine(self, coarse: Integers) -> Integers:
        """Return the fine indices of coarse cubes' centres."""
        return coarse * self.refine + self.refine // 2

    def holding(self, points: Floats) -> Integers:
        """Return the indices of the fine cubes that hold points, given as multiples of the half side."""
        return np.floor((points + 1) * (self.n_cells / 2)).astype(np.int64).clip(0, self.n_cells - 1)

    def cells(self, indices: Integers) -> Cells:
        """Return the cells of fine cubes, by the network in float64."""
        centres = torch.from_numpy(network_lattice.centres(indices, n_cells=self.n_cells, radius=self.radius))
        values = np.concatenate([self.network(part).numpy()[:, 0] for part in torch.split(centres, _LAYER)])
        return network_lattice.label(values, self.delta)

    def values(self, indices: Integers) -> NDArray[np.float32]:
        """Return the network's values in fine cubes, in float32."""
        along = torch.from_numpy(network_lattice.axis_centres(self.n_cells, radius=self.radius)).float()
        parts = torch.split(torch.from_numpy(indices), _LAYER)
        return np.concatenate([self.single(along[part]).numpy()[:, 0] for part in parts])

    def carries(self, indices: Integers, label: int) -> Booleans:
        """Return which fine cubes carry a label, by the network in float32."""
        return carries(network_lattice.label(self.values(indices), self.delta), label)

    def is_at_wall(self, indices: Integers) -> bool:
        """Return whether one of some fine cubes is at the box's wall."""
        return bool(((indices == 0) | (indices == self.n_cells - 1)).any())


def extrema(lattice: Lattice, cubes: Integers) -> Integers:
    """Return the cubes on the steepest ways from cubes, up from every other one and down from the rest.

    Steps are along one axis, first of an eighth of the box, in the end of a cube: then no neighbour lies higher by a
    millionth, which is more than rounding, that might lead in circles.
    """
    cubes, ways = cubes.copy(), [cubes]
    sign = np.where(np.arange(len(cubes)) % 2 == 0, 1, -1)
    length = np.full(len(cubes), 1 << max(0, (lattice.n_cells // 8).bit_length() - 1))
    moving = np.arange(len(cubes))
    while moving.size:
        around = _around(lattice, cubes[moving], length[moving])
        values = lattice.values(around.reshape(-1, lattice.dimension)).reshape(around.shape[:2])
        higher = sign[moving, None] * (values - values[:, :1])
        best = np.where(higher > _RISE, higher, 0).argmax(axis=1)  # 0, to stay, where none is higher
        cubes[moving] = around[np.arange(len(moving)), best]
        ways.append(cubes[moving])
        length[moving[best == 0]] //= 2
        moving = moving[length[moving] > 0]
    return np.concatenate(ways)


def _around(lattice: Lattice, cubes: Integers, length: Integers) -> Integers:
    """Return each cube and those a number of steps from it along one axis, no further than the wall: (n, 2d + 1, d)."""
    unit = np.eye(lattice.dimension, dtype=np.int64)
    steps = np.concatenate([0 * unit[:1], unit, -unit])
    found: Integers = (cubes[:, None] + length[:, None, None] * steps).clip(0, lattice.n_cells - 1)
    return found


def stray(lattice: Lattice, cubes: Integers, label: int, n_steps: int) -> Integers:
    """Return where fine cubes come to by random steps within the label; the same ones in every call."""
    cubes, rng = cubes.copy(), np.random.default_rng(0)
    for _ in range(n_steps if len(cubes) else 0):
        steps = cubes.copy()
        axis = rng.integers(lattice.dimension, size=len(cubes))
        steps[np.arange(len(cubes)), axis] += rng.choice([-1, 1], size=len(cubes))
        steps = steps.clip(0, lattice.n_cells - 1)
        is_open = lattice.carries(steps, label)
        cubes[is_open] = steps[is_open]
    return cubes


def go_towards(lattice: Lattice, cubes: Integers, targets: Integers, label: int) -> tuple[Integers, Booleans]:
    """Return where fine cubes come to on the way to their targets, the value kept near the middle, and which arrive."""
    cubes = cubes.copy()
    moving = np.arange(len(cubes))
    while moving.size:
        towards = np.sign(targets[moving] - cubes[moving])
        moving, towards = moving[towards.any(axis=1)], towards[towards.any(axis=1)]
        who, axis = np.nonzero(towards)
        steps = cubes[moving[who]]
        steps[np.arange(who.size), axis] += towards[who, axis]
        off = np.full(towards.shape, np.inf)
        if who.size:
            values = lattice.values(steps)
            is_label = carries(network_lattice.label(values, lattice.delta), label)
            off[who, axis] = np.where(is_label, np.abs(2 * values / lattice.delta - label - 1), np.inf)
        best = off.argmin(axis=1)
        is_open = np.isfinite(off[np.arange(moving.size), best])
        moving, best, towards = moving[is_open], best[is_open], towards[is_open]
        cubes[moving, best] += towards[np.arange(moving.size), best]
    return cubes, (cubes == targets).all(axis=1)


def carries(cells: Cells, label: int) -> Booleans:
    """Return which cells carry a label: both of its halves."""
    found: Booleans = (cells == label) | (cells == label + 1)
    return found
