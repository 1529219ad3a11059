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
