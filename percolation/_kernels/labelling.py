"""Raster union-find on a labelled lattice held in memory, and what there is to measure of its clusters."""

from __future__ import annotations

import numpy as np

from percolation._kernels.compiler import jit


@jit
def find_root(parents: np.ndarray, site: int) -> int:
    """Return the root of ``site``, halving the path to it."""
    while parents[site] != site:
        parents[site] = parents[parents[site]]
        site = parents[site]
    return site


@jit
def merge(parents: np.ndarray, first: int, second: int) -> int:
    """Merge the trees of two sites; the smaller index stays root and is returned."""
    first = find_root(parents, first)
    second = find_root(parents, second)
    if first < second:
        parents[second] = first
        return first
    parents[first] = second
    return second


@jit
def label_components(
    labels: np.ndarray, shape: np.ndarray, periodic: np.ndarray, reach: int, parents: np.ndarray
) -> int:
    """Write into ``parents`` the component number of every site, -1 for empty sites; return how many there are.

    ``labels`` and ``parents`` are flat, C order, of ``prod(shape)`` entries; a negative label marks an empty site.
    Neighbours along an axis join when their labels differ by at most ``reach``. Components are numbered from 0 in the
    order of their first sites. ``shape`` has at least one axis; the last one runs fastest.
    """
    n_axes = shape.size
    length = shape[n_axes - 1]
    n_rows = labels.size // length
    strides = np.ones(n_axes, dtype=np.int64)
    for axis in range(n_axes - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    position = np.zeros(n_axes, dtype=np.int64)
    offsets = np.empty(2 * n_axes, dtype=np.int64)
    for row in range(n_rows):
        n_offsets = -1  # not known yet: many rows have no occupied site
        start = row * length
        for site in range(start, start + length):
            label = labels[site]
            if label < 0:
                parents[site] = -1
                continue
            if site > start and labels[site - 1] >= 0 and abs(labels[site - 1] - label) <= reach:
                parents[site] = parents[site - 1]
            else:
                parents[site] = site
            if n_offsets < 0:
                n_offsets = 0
                for axis in range(n_axes - 1):
                    if position[axis] > 0:
                        offsets[n_offsets] = strides[axis]
                        n_offsets += 1
                    if periodic[axis] and position[axis] == shape[axis] - 1 and position[axis] > 1:
                        offsets[n_offsets] = strides[axis] * (shape[axis] - 1)
                        n_offsets += 1
            for i in range(n_offsets):
                other = site - offsets[i]
                if labels[other] >= 0 and abs(labels[other] - label) <= reach:
                    merge(parents, other, site)
        if periodic[n_axes - 1] and length > 2:
            last = start + length - 1
            if labels[start] >= 0 and labels[last] >= 0 and abs(labels[start] - labels[last]) <= reach:
                merge(parents, start, last)
        for axis in range(n_axes - 2, -1, -1):
            position[axis] += 1
            if position[axis] < shape[axis]:
                break
            position[axis] = 0
    n_components = 0
    for site in range(labels.size):
        # A parent never stands behind its child, so it already holds its component's number.
        if parents[site] == site:
            parents[site] = n_components
            n_components += 1
        elif parents[site] >= 0:
            parents[site] = parents[parents[site]]
    return n_components


@jit
def measure_components(
    labels: np.ndarray,
    numbers: np.ndarray,
    shape: np.ndarray,
    sizes: np.ndarray,
    firsts: np.ndarray,
    low_faces: np.ndarray,
    high_faces: np.ndarray,
) -> None:
    """Write each component's size, the label of its first site, and which faces it touches, bit i for axis i.

    ``labels`` and ``numbers`` are flat as in :func:`label_components`; the other arrays have an entry a component and
    are zero. ``shape`` has at most 64 axes.
    """
    n_axes = shape.size
    length = shape[n_axes - 1]
    position = np.zeros(n_axes, dtype=np.int64)
    last_axis = np.uint64(1) << np.uint64(n_axes - 1)
    for start in range(0, labels.size, length):
        low = np.uint64(0)
        high = np.uint64(0)
        is_known = False
        for site in range(start, start + length):
            number = numbers[site]
            if number < 0:
                continue
            if not is_known:
                is_known = True
                for axis in range(n_axes - 1):
                    bit = np.uint64(1) << np.uint64(axis)
                    if position[axis] == 0:
                        low |= bit
                    if position[axis] == shape[axis] - 1:
                        high |= bit
            if sizes[number] == 0:
                firsts[number] = labels[site]
            sizes[number] += 1
            low_faces[number] |= low
            high_faces[number] |= high
            if site == start:
                low_faces[number] |= last_axis
            if site == start + length - 1:
                high_faces[number] |= last_axis
        for axis in range(n_axes - 2, -1, -1):
            position[axis] += 1
            if position[axis] < shape[axis]:
                break
            position[axis] = 0
