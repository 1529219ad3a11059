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
