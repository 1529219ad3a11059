"""Clusters grown on the infinite lattice Z^d, in any dimension d.

A site is one 64-bit key, sum_i x_i g_i mod 2^64 with random odd g_i, and a neighbour is key + g_i or key - g_i; whether
a site is occupied is a pure function of (salt, key). Two of n sites share a key with probability about n^2 / 2^65,
which is the only approximation. Sums of 64-bit unsigned integers wrap on purpose; a caller in JIT-off mode silences
NumPy's overflow warning.
"""

from __future__ import annotations

import numpy as np

from percolation._kernels.compiler import jit

_MULTIPLIER_1 = np.uint64(0xFF51AFD7ED558CCD)
_MULTIPLIER_2 = np.uint64(0xC4CEB9FE1A85EC53)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = np.uint64(0)
_ORIGIN = np.uint64(1)
_FIRST_SHIFT = np.uint64(33)
_SECOND_SHIFT = np.uint64(29)
_HALF = np.uint64(32)
_BLOCK = 32  # neighbours counted at a time
_BATCH = 64  # sites looked up at a time


@jit
def mix(word: np.uint64) -> np.uint64:
    """Return a 64-bit word whose high bits depend on all bits of ``word``; a bijection."""
    word = (word ^ (word >> _FIRST_SHIFT)) * _MULTIPLIER_1
    return (word ^ (word >> _SECOND_SHIFT)) * _MULTIPLIER_2


@jit
def home(table: np.ndarray, word: np.uint64) -> np.int64:
    """Return the slot of ``table``, a power of two in size, at which the search for a key with ``word`` begins."""
    return np.int64((word * _GOLDEN) >> _HALF) & np.int64(table.size - 1)


@jit
def slot_of(table: np.ndarray, key: np.uint64, word: np.uint64) -> np.int64:
    """Return where ``key`` stands in the open-addressing ``table``, or the free slot where it belongs.

    ``table`` has a power of two entries, at least one of them free (zero); ``word`` is the key's mixed word.
    """
    mask = np.int64(table.size - 1)
    slot = home(table, word)
    while table[slot] != _EMPTY and table[slot] != key:
        slot = (slot + 1) & mask
    return slot


@jit
def few_neighbours(
    key: np.uint64,
    salt: np.uint64,
    threshold: np.uint64,
    steps: np.ndarray,
    keys: np.ndarray,
    words: np.ndarray,
    n_found: int,
) -> int:
    """Append a site's occupied neighbours to ``keys`` and their words to ``words``; return the new number there.

    Without a branch on what chance decides: the next entry is always written, and kept where the site is occupied. So
    both arrays need room for one entry more than is found.
    """
    for i in range(steps.size):
        neighbour = key + steps[i]
        word = mix(neighbour ^ salt)
        keys[n_found] = neighbour
        words[n_found] = word
        n_found += np.int64(word < threshold)
    return n_found


@jit
def many_neighbours(
    key: np.uint64,
    salt: np.uint64,
    threshold: np.uint64,
    steps: np.ndarray,
    keys: np.ndarray,
    words: np.ndarray,
    n_found: int,
) -> int:
    """Do the same as :func:`few_neighbours` where there are many neighbours, few of them occupied.

    They are first counted, a block at a time: arithmetic on a constant number of words, which the compiler turns into
    vector instructions. Blocks with none, the rule in high dimension, end there.
    """
    n_blocks = steps.size // _BLOCK
    for block in range(n_blocks):
        start = block * _BLOCK
        n_occupied = 0
        for i in range(_BLOCK):
            n_occupied += mix((key + steps[start + i]) ^ salt) < threshold
        if n_occupied > 0:
            for i in range(start, start + _BLOCK):
                neighbour = key + steps[i]
                word = mix(neighbour ^ salt)
                if word < threshold:
                    keys[n_found] = neighbour
                    words[n_found] = word
                    n_found += 1
    return few_neighbours(key, salt, threshold, steps[n_blocks * _BLOCK :], keys, words, n_found)


@jit
def grow(
    salts: np.ndarray, threshold: np.uint64, steps: np.ndarray, max_sites: int, table: np.ndarray, sizes: np.ndarray
) -> int:
    """Grow one cluster of occupied sites from an occupied origin for each salt; return the number of tested sites.

    ``sizes[i]`` becomes the number of sites of cluster i, or ``max_sites`` if it has that many or more. ``steps`` are
    the key differences to a site's neighbours. ``table`` is zero, a power of two in size and at least
    ``2 * max_sites``; it is zero again at the end.
    """
    sites = np.empty(max_sites, dtype=np.uint64)
    keys = np.empty(_BATCH + steps.size + 1, dtype=np.uint64)
    words = np.empty(_BATCH + steps.size + 1, dtype=np.uint64)
    entries = np.empty(_BATCH + steps.size + 1, dtype=np.uint64)
    tested = 0
    for run in range(salts.size):
        salt = salts[run]
        table[slot_of(table, _ORIGIN, mix(_ORIGIN ^ salt))] = _ORIGIN
        sites[0] = _ORIGIN
        n_sites = 1
        visited = 0
        while visited < n_sites and n_sites < max_sites:
            # The neighbours of as many sites as make a batch; then all their slots are asked for together, so that
            # they are on their way from memory before the first is needed.
            n_found = 0
            while visited < n_sites and n_found < _BATCH:
                if steps.size < 2 * _BLOCK:
                    n_found = few_neighbours(sites[visited], salt, threshold, steps, keys, words, n_found)
                else:
                    n_found = many_neighbours(sites[visited], salt, threshold, steps, keys, words, n_found)
                visited += 1
                tested += steps.size
            for i in range(n_found):
                entries[i] = table[home(table, words[i])]
            for i in range(n_found):
                if entries[i] == keys[i]:
                    continue
                slot = slot_of(table, keys[i], words[i])
                if table[slot] == _EMPTY:
                    table[slot] = keys[i]
                    sites[n_sites] = keys[i]
                    n_sites += 1
                    if n_sites == max_sites:
                        break
        sizes[run] = n_sites
        if n_sites > table.size // 8:
            table[:] = _EMPTY
        else:  # the last first: each then stands where it stood when it was put in
            for i in range(n_sites - 1, -1, -1):
                table[slot_of(table, sites[i], mix(sites[i] ^ salt))] = _EMPTY
    return tested


@jit
def connect(
    salts: np.ndarray,
    threshold: np.uint64,
    steps: np.ndarray,
    target: np.uint64,
    max_sites: int,
    table: np.ndarray,
    marks: np.ndarray,
    distances: np.ndarray,
) -> None:
    """Grow from the origin and from ``target``, both occupied, until they meet, breadth first from either end.

    ``distances[i]`` becomes the chemical distance, -1 if the two are in different clusters, one of them known whole, or
    -2 if both clusters reached ``max_sites`` sites before they met. ``steps`` are as in :func:`grow`, ascending.
    ``table`` is zero, a power of two in size and at least ``4 * max_sites``; ``marks`` is as long. Both are for use
    within.
    """
    sites = np.empty((2, max_sites), dtype=np.uint64)
    slots = np.empty((2, max_sites), dtype=np.int64)
    keys = np.empty(steps.size + 2, dtype=np.uint64)
    words = np.empty(steps.size + 2, dtype=np.uint64)
    n_sites = np.empty(2, dtype=np.int64)
    n_visited = np.empty(2, dtype=np.int64)
    depth = np.empty(2, dtype=np.int64)
    for run in range(salts.size):
        salt = salts[run]
        for side in range(2):
            key = target if side == 1 else _ORIGIN
            slot = slot_of(table, key, mix(key ^ salt))
            table[slot] = key
            marks[slot] = 1 - 2 * side  # sign: side; size: chemical distance from its end, plus one
            sites[side, 0] = key
            slots[side, 0] = slot
            n_sites[side] = 1
            n_visited[side] = 0
            depth[side] = 0
        distance = -2
        while distance == -2:
            # The smaller frontier of those that may still grow; all of it, so that the first contact is a shortest one.
            frontier = n_sites - n_visited
            side = 0 if frontier[0] <= frontier[1] else 1
            if frontier[side] == 0:
                distance = -1
                break
            if n_sites[side] == max_sites:
                side = 1 - side
            if n_sites[side] == max_sites:
                break
            if frontier[side] == 0:
                distance = -1
                break
            depth[side] += 1
            sign = 1 - 2 * side
            last = n_sites[side]
            for visit in range(n_visited[side], last):
                if steps.size < 2 * _BLOCK:
                    n_found = few_neighbours(sites[side, visit], salt, threshold, steps, keys, words, 0)
                else:
                    n_found = many_neighbours(sites[side, visit], salt, threshold, steps, keys, words, 0)
                # The other end is occupied whatever its word says.
                end = _ORIGIN if side == 1 else target
                place = np.searchsorted(steps, end - sites[side, visit])
                if place < steps.size and sites[side, visit] + steps[place] == end:
                    keys[n_found] = end
                    words[n_found] = mix(end ^ salt)
                    n_found += 1
                for i in range(n_found):
                    slot = slot_of(table, keys[i], words[i])
                    if table[slot] == _EMPTY:
                        if n_sites[side] < max_sites:
                            table[slot] = keys[i]
                            marks[slot] = sign * (depth[side] + 1)
                            sites[side, n_sites[side]] = keys[i]
                            slots[side, n_sites[side]] = slot
                            n_sites[side] += 1
                    elif marks[slot] * sign < 0:
                        length = depth[side] - 1 + abs(marks[slot])
                        if distance == -2 or length < distance:
                            distance = length
            n_visited[side] = last
        distances[run] = distance
        for side in range(2):
            for i in range(n_sites[side]):
                table[slots[side, i]] = _EMPTY


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
    keys = np.empty(steps.size + 1, dtype=np.uint64)
    words = np.empty(steps.size + 1, dtype=np.uint64)
    for run in range(salts.size):
        salt = salts[run]
        # Far from the threshold nearly every cluster is one site, whose perimeter needs no table.
        if steps.size < 2 * _BLOCK:
            n_found = few_neighbours(_ORIGIN, salt, threshold, steps, keys, words, 0)
        else:
            n_found = many_neighbours(_ORIGIN, salt, threshold, steps, keys, words, 0)
        if n_found == 0:
            sizes[run] = 1
            perimeters[run] = steps.size
            continue
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
