"""Every compiled loop of the package: arrays and scalars in, arrays out.

Kernels check nothing: the caller guarantees kinds, sizes and ranges, and each docstring says which. They are
deterministic: randomness comes in as salts of a mixing function, so that JIT mode, thread count and compiler change no
number.

On the infinite lattice Z^d a site is one 64-bit key, sum_i x_i g_i mod 2^64 with random odd g_i, and a neighbour is
key + g_i or key - g_i; whether a site is occupied is a pure function of (salt, key). Two of n sites share a key with
probability about n^2 / 2^65, which is the only approximation. Sums of 64-bit unsigned integers wrap on purpose; a
caller in JIT-off mode silences NumPy's overflow warning.
"""

from __future__ import annotations

import numba
import numpy as np

# cache: compiled once per machine; nogil: threads run kernels side by side; numpy error model: division by zero gives
# infinity in both JIT modes. No fastmath: the order of sums is part of the result.
jit = numba.njit(cache=True, nogil=True, error_model="numpy")

_MULTIPLIER_1 = np.uint64(0xFF51AFD7ED558CCD)
_MULTIPLIER_2 = np.uint64(0xC4CEB9FE1A85EC53)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = np.uint64(0)
_ORIGIN = np.uint64(1)
_FIRST_SHIFT = np.uint64(33)
_SECOND_SHIFT = np.uint64(29)


@jit
def mix(word: np.uint64) -> np.uint64:
    """Return a 64-bit word whose high bits depend on all bits of ``word``; a bijection."""
    word = (word ^ (word >> _FIRST_SHIFT)) * _MULTIPLIER_1
    return (word ^ (word >> _SECOND_SHIFT)) * _MULTIPLIER_2


@jit
def slot_of(table: np.ndarray, key: np.uint64, word: np.uint64) -> np.int64:
    """Return where ``key`` stands in the open-addressing ``table``, or the free slot where it belongs.

    ``table`` has a power of two entries, at least one of them free (zero); ``word`` is the key's mixed word.
    """
    mask = np.int64(table.size - 1)
    slot = np.int64((word * _GOLDEN) >> np.uint64(32)) & mask
    while table[slot] != _EMPTY and table[slot] != key:
        slot = (slot + 1) & mask
    return slot


@jit
def grow(
    salts: np.ndarray, threshold: np.uint64, steps: np.ndarray, max_sites: int, table: np.ndarray, sizes: np.ndarray
) -> int:
    """Grow one cluster of occupied sites from an occupied origin for each salt; return the number of tested sites.

    ``sizes[i]`` becomes the number of sites of cluster i, or ``max_sites`` if it has that many or more. ``steps`` are
    the 2d (or any number of) key differences to a site's neighbours. ``table`` is zero, a power of two in size and at
    least ``2 * max_sites``; it is zero again at the end.
    """
    sites = np.empty(max_sites, dtype=np.uint64)
    slots = np.empty(max_sites, dtype=np.int64)
    tested = 0
    for run in range(salts.size):
        salt = salts[run]
        slot = slot_of(table, _ORIGIN, mix(_ORIGIN ^ salt))
        table[slot] = _ORIGIN
        sites[0] = _ORIGIN
        slots[0] = slot
        n_sites = 1
        visited = 0
        while visited < n_sites and n_sites < max_sites:
            key = sites[visited]
            visited += 1
            for i in range(steps.size):
                neighbour = key + steps[i]
                word = mix(neighbour ^ salt)
                if word < threshold:
                    slot = slot_of(table, neighbour, word)
                    if table[slot] == _EMPTY:
                        if n_sites == max_sites:
                            break
                        table[slot] = neighbour
                        sites[n_sites] = neighbour
                        slots[n_sites] = slot
                        n_sites += 1
        tested += visited * steps.size
        sizes[run] = n_sites
        for i in range(n_sites):
            table[slots[i]] = _EMPTY
    return tested


@jit
def grow_with_perimeter(
    salts: np.ndarray,
    threshold: np.uint64,
    steps: np.ndarray,
    max_sites: int,
    sizes: np.ndarray,
    perimeters: np.ndarray,
) -> None:
    """Grow one cluster for each salt as :func:`grow` does, and count its perimeter: the distinct empty neighbours.

    Where a cluster reaches ``max_sites`` sites, ``sizes`` holds ``max_sites`` and ``perimeters`` is of no meaning.
    Memory grows with the largest cluster met, not with ``max_sites``.
    """
    small = np.zeros(1 << 12, dtype=np.uint64)
    queue = np.empty(64, dtype=np.uint64)
    seen = np.empty(small.size // 2, dtype=np.uint64)
    for run in range(salts.size):
        salt = salts[run]
        table = small
        table[slot_of(table, _ORIGIN, mix(_ORIGIN ^ salt))] = _ORIGIN
        queue[0] = _ORIGIN
        seen[0] = _ORIGIN
        n_sites = 1
        n_seen = 1
        visited = 0
        while visited < n_sites and n_sites < max_sites:
            key = queue[visited]
            visited += 1
            for i in range(steps.size):
                neighbour = key + steps[i]
                word = mix(neighbour ^ salt)
                slot = slot_of(table, neighbour, word)
                if table[slot] != _EMPTY:
                    continue
                if n_seen == seen.size:  # the table is half full: double it
                    seen = np.concatenate((seen, np.empty(seen.size, dtype=np.uint64)))
                if 2 * (n_seen + 1) > table.size:
                    table = np.zeros(2 * table.size, dtype=np.uint64)
                    for j in range(n_seen):
                        table[slot_of(table, seen[j], mix(seen[j] ^ salt))] = seen[j]
                    slot = slot_of(table, neighbour, word)
                table[slot] = neighbour
                seen[n_seen] = neighbour
                n_seen += 1
                if word < threshold:
                    if n_sites == queue.size:
                        queue = np.concatenate((queue, np.empty(queue.size, dtype=np.uint64)))
                    queue[n_sites] = neighbour
                    n_sites += 1
                    if n_sites == max_sites:
                        break
        sizes[run] = n_sites
        perimeters[run] = n_seen - n_sites
        # The small table is emptied for the next run: whole if a larger one took over, entry by entry otherwise.
        if table.size > small.size:
            small[:] = _EMPTY
        else:
            for j in range(n_seen):
                slot = slot_of(small, seen[j], mix(seen[j] ^ salt))
                seen[j] = np.uint64(slot)
            for j in range(n_seen):
                small[np.int64(seen[j])] = _EMPTY


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
