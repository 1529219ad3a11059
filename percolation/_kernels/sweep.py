"""Newman-Ziff: sites or bonds occupied one by one, clusters followed by union-find."""

from __future__ import annotations

import numpy as np

from percolation._kernels.compiler import jit


@jit
def climb(nodes: np.ndarray, site: int, ways: np.ndarray, row: int) -> int:
    """Return the root of an occupied ``site``, halving the path to it; ``ways[row]`` becomes its displacement from it.

    A row of ``nodes`` is a site: its parent, or minus the size of its cluster at a root; the faces that a root's
    cluster touches, bit 2i for the low and 2i + 1 for the high face of open axis i; and the site's displacement from
    its parent, an entry an axis, of no meaning at a root. In one row because they are read together.
    """
    n_axes = ways.shape[1]
    for i in range(n_axes):
        ways[row, i] = 0
    parent = nodes[site, 0]
    while parent >= 0:
        above = nodes[parent, 0]
        if above >= 0:
            for i in range(n_axes):
                nodes[site, 2 + i] += nodes[parent, 2 + i]
            nodes[site, 0] = above
            parent = above
        for i in range(n_axes):
            ways[row, i] += nodes[site, 2 + i]
        site = parent
        parent = nodes[site, 0]
    return site


@jit
def join(
    site: int,
    other: int,
    axis: int,
    step: int,
    periodic: np.ndarray,
    nodes: np.ndarray,
    of_size: np.ndarray,
    largest_two: np.ndarray,
    crossed: np.ndarray,
    ways: np.ndarray,
) -> float:
    """Join two occupied neighbours, ``other`` one ``step`` along ``axis`` from ``site``; return the growth of sum s^2.

    ``nodes`` is as in :func:`climb`. ``of_size[s]`` counts clusters of s sites, ``largest_two`` holds the two largest
    sizes. ``crossed[i]`` is set where a cluster now joins both faces of open axis i or wraps around periodic axis i.
    ``ways``, two rows of an entry an axis, is for use within.
    """
    first = climb(nodes, site, ways, 0)
    second = climb(nodes, other, ways, 1)
    n_axes = periodic.size
    if first == second:
        # The way through this bond differs from the way through the tree by what it winds around the torus.
        for i in range(n_axes):
            wound = ways[0, i] - ways[1, i]
            if i == axis:
                wound += step
            if wound != 0 and periodic[i]:
                crossed[i] = True
        return 0.0
    size_first = -np.int64(nodes[first, 0])
    size_second = -np.int64(nodes[second, 0])
    size = size_first + size_second
    sign = 1
    root, child = first, second
    if size_first < size_second:
        sign = -1
        root, child = second, first
    for i in range(n_axes):
        apart = ways[0, i] - ways[1, i]  # position of second's root less that of first's
        if i == axis:
            apart += step
        nodes[child, 2 + i] = sign * apart
    nodes[root, 0] = -size
    nodes[child, 0] = root
    faces = nodes[root, 1] | nodes[child, 1]
    if faces != nodes[root, 1]:
        nodes[root, 1] = faces
        for i in range(n_axes):
            if (faces >> (2 * i)) & 3 == 3:
                crossed[i] = True
    of_size[size_first] -= 1
    of_size[size_second] -= 1
    of_size[size] += 1
    if size > largest_two[0]:
        if of_size[largest_two[0]] > 0:
            largest_two[1] = largest_two[0]
        largest_two[0] = size
    elif size > largest_two[1]:
        largest_two[1] = size
    # The second largest falls only when it was merged away; all falls together are no longer than all rises.
    while largest_two[1] > 0 and of_size[largest_two[1]] <= (1 if largest_two[1] == largest_two[0] else 0):
        largest_two[1] -= 1
    return 2.0 * size_first * size_second


@jit
def sweep(
    order: np.ndarray,
    by_bond: bool,
    shape: np.ndarray,
    periodic: np.ndarray,
    nodes: np.ndarray,
    largest: np.ndarray,
    second: np.ndarray,
    squares: np.ndarray,
    crossed_at: np.ndarray,
) -> None:
    """Occupy sites, or bonds between sites that are all occupied, in ``order``, and follow the clusters.

    ``order`` is a permutation of the sites, or of the bonds that exist, bond d site + i leading from the site along
    axis i. ``nodes`` has a row a site and 2 + d columns, of any content; see :func:`climb`. Entry n of ``largest``,
    ``second`` and ``squares`` becomes the largest and second largest cluster and the sum of squared sizes once n are
    occupied. ``crossed_at[axis]`` becomes the n at which a cluster first wraps around a periodic axis or joins both
    faces of an open one, or the number of steps plus one. Periodic axes have at least three sites; d is at most 15.
    """
    n_sites = nodes.shape[0]
    n_axes = shape.size
    empty = n_sites  # no site's parent
    strides = np.ones(n_axes, dtype=np.int64)
    for axis in range(n_axes - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    of_size = np.zeros(n_sites + 1, dtype=np.int32)
    largest_two = np.zeros(2, dtype=np.int64)
    crossed = np.zeros(n_axes, dtype=np.bool_)
    ways = np.zeros((2, n_axes), dtype=np.int32)
    places = np.zeros(n_axes, dtype=np.int64)
    crossed_at[:] = order.size + 1
    sum_squares = 0.0
    if by_bond:
        of_size[1] = n_sites
        largest_two[0] = 1
        largest_two[1] = 1 if n_sites > 1 else 0
        sum_squares = float(n_sites)
    for site in range(n_sites):
        faces = 0
        rest = site
        for axis in range(n_axes - 1, -1, -1):
            above = rest // shape[axis]
            place = rest - above * shape[axis]
            rest = above
            if not periodic[axis]:
                if place == 0:
                    faces |= 1 << (2 * axis)
                if place == shape[axis] - 1:
                    faces |= 2 << (2 * axis)
                if by_bond and shape[axis] == 1:
                    crossed_at[axis] = 0
        nodes[site, 0] = -1 if by_bond else empty
        nodes[site, 1] = faces
    largest[0] = largest_two[0]
    second[0] = largest_two[1]
    squares[0] = sum_squares
    for n in range(order.size):
        if by_bond:
            site = np.int64(order[n]) // n_axes
            axis = np.int64(order[n]) % n_axes
            other = site + strides[axis]
            if (site // strides[axis]) % shape[axis] == shape[axis] - 1:
                other -= shape[axis] * strides[axis]
            sum_squares += join(site, other, axis, 1, periodic, nodes, of_size, largest_two, crossed, ways)
        else:
            site = np.int64(order[n])
            nodes[site, 0] = -1
            of_size[1] += 1
            sum_squares += 1.0
            if largest_two[0] == 0:
                largest_two[0] = 1
            elif largest_two[1] == 0:
                largest_two[1] = 1
            rest = site
            for axis in range(n_axes - 1, -1, -1):
                above = rest // shape[axis]
                places[axis] = rest - above * shape[axis]
                rest = above
                if not periodic[axis] and shape[axis] == 1:
                    crossed[axis] = True
            for way in range(2 * n_axes):
                axis = way >> 1
                step = 2 * (way & 1) - 1
                place = places[axis] + step
                other = site + step * strides[axis]
                if place < 0 or place == shape[axis]:
                    if not periodic[axis]:
                        continue
                    other -= step * shape[axis] * strides[axis]
                if nodes[other, 0] != empty:
                    sum_squares += join(site, other, axis, step, periodic, nodes, of_size, largest_two, crossed, ways)
        for axis in range(n_axes):
            if crossed[axis] and crossed_at[axis] > n + 1:
                crossed_at[axis] = n + 1
        largest[n + 1] = largest_two[0]
        second[n + 1] = largest_two[1]
        squares[n + 1] = sum_squares
