"""Periodic bonds of a lattice whose open clusters are known, and the clusters that wrap around the torus.

A *seam bond* leads from the last site along a periodic axis to the first. Without them no cluster can wind around the
torus, so that the lattice of open clusters, joined by the seam bonds, says it all: each open cluster has a vector of
whole numbers, how often one winds around each axis on the way to it from the root of its tree. A bond between two of
one tree that closes a way with a winding that is not zero makes the cluster wrap.

Machta, Choi, Lucke, Schweizer, Chayes, Phys. Rev. E 54, 1332 (1996), DOI 10.1103/PhysRevE.54.1332, follow displacements
from site to site in this manner; here there is a vector only where a seam is touched.
"""

from __future__ import annotations

import numpy as np

from percolation._kernels.compiler import jit
from percolation._kernels.labelling import list_joined, list_occupied


@jit
def list_bonds(
    labels: np.ndarray,
    shape: np.ndarray,
    strides: np.ndarray,
    periodic: np.ndarray,
    split: int,
    is_last: np.ndarray,
    reach: int,
    bonds: np.ndarray,
    n_bonds: int,
    block: int,
) -> tuple[int, int]:
    """Write the seam bonds from ``block`` on, until room runs short; return bonds and block.

    Bond ``n_axes * site + axis`` leads on from ``site``, the last along the periodic ``axis``, to the first; such an
    axis has at least three sites. Blocks are those of :func:`percolation._kernels.labelling.label_blocks`; row i of
    ``is_last`` says which sites of one are the last along axis ``split + i``, for axis ``split`` of one that ends it,
    and its last row is ones. The loop ends where ``bonds`` may not have room for those of another block.
    """
    n_axes = shape.size
    size = is_last.shape[1]
    line = shape[split] * strides[split]
    n_parts = -(-line // size)
    n_blocks = labels.size // line * n_parts
    occupied = np.empty(size + 1, dtype=np.uint64)
    joined = np.empty(size + 1, dtype=np.uint64)
    while block < n_blocks and n_bonds + n_axes * size <= bonds.size:
        rest = block // n_parts
        part = block - rest * n_parts
        start = rest * line + part * size
        n_occupied = list_occupied(labels[start : min(start + size, (rest + 1) * line)], occupied)
        block += 1
        for axis in range(n_axes - 1, -1, -1):
            valid = is_last[n_axes - split]
            if axis < split:
                above = rest // shape[axis]
                place = rest - above * shape[axis]
                rest = above
                if place < shape[axis] - 1:
                    continue
            else:
                if axis == split and part < n_parts - 1:
                    continue
                valid = is_last[axis - split]
            if periodic[axis]:
                offset = (shape[axis] - 1) * strides[axis]
                n_joined = list_joined(labels, start, offset, valid, reach, occupied, n_occupied, joined)
                for i in range(n_joined):
                    bonds[n_bonds] = n_axes * (start + np.int64(joined[i])) + axis
                    n_bonds += 1
    return n_bonds, block


@jit
def touch_seams(
    bonds: np.ndarray,
    shape: np.ndarray,
    strides: np.ndarray,
    numbers: np.ndarray,
    parents: np.ndarray,
    slots: np.ndarray,
) -> None:
    """Set the entry of ``slots`` to one at the root of each open cluster with a bond; let every node point at its root.

    ``numbers`` and ``parents`` are as :mod:`percolation._kernels.labelling` left them, for all sites.
    """
    for node in range(1, parents.size):
        if parents[node] >= 0 and parents[parents[node]] >= 0:
            parents[node] = parents[parents[node]]
    for bond in bonds:
        site = bond // shape.size
        axis = bond - site * shape.size
        for node in (numbers[site], numbers[site - (shape[axis] - 1) * strides[axis]]):
            slots[node if parents[node] < 0 else parents[node]] = 1


@jit
def climb(parents: np.ndarray, slots: np.ndarray, windings: np.ndarray, node: np.int64, way: np.ndarray) -> np.int64:
    """Return the root of ``node``, halving the path to it; ``way`` becomes the winding on the way from the root.

    A node without a slot is in the open cluster of its parent.
    """
    way[:] = 0
    if slots[node] == 0:
        node = np.int64(parents[node])
    parent = np.int64(parents[node])
    while parent >= 0:
        slot = slots[node] - 1
        above = np.int64(parents[parent])
        if above >= 0:
            for i in range(way.size):
                windings[slot, i] += windings[slots[parent] - 1, i]
            parents[node] = above
            parent = above
        for i in range(way.size):
            way[i] += windings[slot, i]
        node = parent
        parent = np.int64(parents[node])
    return node


@jit
def join_seams(
    bonds: np.ndarray,
    shape: np.ndarray,
    strides: np.ndarray,
    numbers: np.ndarray,
    parents: np.ndarray,
    slots: np.ndarray,
    windings: np.ndarray,
    wraps: np.ndarray,
) -> None:
    """Join open clusters by their bonds, the smaller node staying root; set ``wraps[slot - 1, axis]`` where one wraps.

    ``slots`` numbers from 1 the nodes that :func:`touch_seams` marked, and is zero elsewhere; slot s has row s - 1 of
    ``windings``, whole numbers of any content, and of ``wraps``, all false, with a column an axis each.
    """
    n_axes = shape.size
    way = np.zeros(n_axes, dtype=np.int64)
    other_way = np.zeros(n_axes, dtype=np.int64)
    for bond in bonds:
        site = bond // n_axes
        axis = bond - site * n_axes
        node = np.int64(numbers[site])
        other = np.int64(numbers[site - (shape[axis] - 1) * strides[axis]])
        root = climb(parents, slots, windings, node, way)
        other_root = climb(parents, slots, windings, other, other_way)
        way[axis] += 1
        if root == other_root:
            for i in range(n_axes):
                if way[i] != other_way[i]:
                    wraps[slots[root] - 1, i] = True
        elif root < other_root:
            parents[root] += parents[other_root]
            parents[other_root] = root
            for i in range(n_axes):
                windings[slots[other_root] - 1, i] = way[i] - other_way[i]
        else:
            parents[other_root] += parents[root]
            parents[root] = other_root
            for i in range(n_axes):
                windings[slots[root] - 1, i] = other_way[i] - way[i]
