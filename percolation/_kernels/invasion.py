"""Invasion percolation on the infinite lattice Z^d: sites or bonds, a hash of what was met and a heap of what is next.

Sites are keys as in :mod:`percolation._kernels.growth`. The value of a site, or of a bond, is a 64-bit word; at each
step the smallest value that was seen and not yet invaded is invaded. Most values lie far above the threshold and are
never invaded: the heap holds those below a ceiling alone. When it runs empty the ceiling is raised, and what lies
between is found again by a scan; so the order of invasion is exact.
"""

from __future__ import annotations

import numpy as np

from percolation._kernels.compiler import jit
from percolation._kernels.growth import mix

_EMPTY = np.uint64(0)
_ORIGIN = np.uint64(1)
_HALF = np.uint64(32)
_SIXTEENTH = np.uint64(4)
_HIGHEST = np.uint64(0xFFFFFFFFFFFFFFFF)


@jit
def home(word: np.uint64, size: int) -> np.int64:
    """Return the slot of a table of ``size`` slots, below 2^32, at which the search for ``word`` begins.

    It rises with the word.
    """
    return np.int64(((word >> _HALF) * np.uint64(size)) >> _HALF)


@jit
def push(heap: np.ndarray, n: int, word: np.uint64, key: np.uint64) -> np.ndarray:
    """Add (word, key) to the binary heap of ``n`` rows, smallest word first; return the heap, moved if it grew."""
    if n == heap.shape[0]:
        heap = np.concatenate((heap, np.empty_like(heap)))
    place = n
    while place > 0:
        above = (place - 1) >> 1
        if heap[above, 0] <= word:
            break
        heap[place, 0] = heap[above, 0]
        heap[place, 1] = heap[above, 1]
        place = above
    heap[place, 0] = word
    heap[place, 1] = key
    return heap


@jit
def pop(heap: np.ndarray, n: int) -> np.uint64:
    """Take the row of the smallest word off the heap of ``n`` rows, at least one, and return its key."""
    key = heap[0, 1]
    last = heap[n - 1, 0]
    n -= 1
    place = 0
    child = 1
    while child < n:
        if child + 1 < n and heap[child + 1, 0] < heap[child, 0]:
            child += 1
        if heap[child, 0] >= last:
            break
        heap[place, 0] = heap[child, 0]
        heap[place, 1] = heap[child, 1]
        place = child
        child = 2 * place + 1
    heap[place, 1] = heap[n, 1]
    heap[place, 0] = last
    return key


@jit
def raised(ceiling: np.uint64) -> np.uint64:
    """Return a ceiling one sixteenth higher, at most the highest word."""
    higher = ceiling + (ceiling >> _SIXTEENTH)
    return higher if higher > ceiling else _HIGHEST


@jit
def invade_sites(
    salt: np.uint64, steps: np.ndarray, checkpoints: np.ndarray, table: np.ndarray, seen_at: np.ndarray
) -> None:
    """Invade sites from the origin; entry i of ``seen_at`` becomes the sites seen once ``checkpoints[i]`` are invaded.

    A site is seen when it or a neighbour is invaded; its value is the word of its key. ``checkpoints`` rises from 1 or
    more. ``table``, of any content, has more slots than sites will be seen, and fewer than 2^32.
    """
    n_steps = steps.size
    size = table.size
    words = np.empty(n_steps, dtype=np.uint64)
    slots = np.empty(n_steps, dtype=np.int64)
    entries = np.empty(n_steps, dtype=np.uint64)
    heap = np.empty((1 << 12, 2), dtype=np.uint64)
    n_heap = 0
    ceiling = _HIGHEST // np.uint64(n_steps)
    table[:] = _EMPTY
    key = _ORIGIN
    table[home(mix(key ^ salt), size)] = key
    n_seen = 1
    n_invaded = 1
    check = 0
    while True:
        # Asked for together, all slots are on their way from memory before the first is needed.
        for i in range(n_steps):
            words[i] = mix((key + steps[i]) ^ salt)
            slots[i] = home(words[i], size)
            entries[i] = table[slots[i]]
        for i in range(n_steps):
            neighbour = key + steps[i]
            if entries[i] == neighbour:
                continue
            slot = slots[i]
            while table[slot] != _EMPTY and table[slot] != neighbour:
                slot += 1
                if slot == size:
                    slot = 0
            if table[slot] == _EMPTY:
                table[slot] = neighbour
                n_seen += 1
                if words[i] < ceiling:
                    heap = push(heap, n_heap, words[i], neighbour)
                    n_heap += 1
        if n_invaded == checkpoints[check]:
            seen_at[check] = n_seen
            check += 1
            if check == checkpoints.size:
                return
        while n_heap == 0:
            # What was seen between the two ceilings stands in its home slots or behind, up to the first free one.
            higher = raised(ceiling)
            slot = home(ceiling, size)
            while slot <= home(higher, size) or table[slot % size] != _EMPTY:
                key = table[slot % size]
                word = mix(key ^ salt)
                if key != _EMPTY and key != _ORIGIN and ceiling <= word < higher:
                    heap = push(heap, n_heap, word, key)
                    n_heap += 1
                slot += 1
            ceiling = higher
        key = pop(heap, n_heap)
        n_heap -= 1
        n_invaded += 1


@jit
def bond_word(key: np.uint64, steps: np.ndarray, step: int, salts: np.ndarray) -> np.uint64:
    """Return the value of the bond from site ``key`` along ``steps[step]``, the same from either end.

    Step i + d is the opposite of step i, and ``salts`` has one for each of the d axes.
    """
    if step < salts.size:
        return mix(key ^ salts[step])
    return mix((key + steps[step]) ^ salts[step - salts.size])


@jit
def invade_bonds(
    salts: np.ndarray, steps: np.ndarray, checkpoints: np.ndarray, table: np.ndarray, seen_at: np.ndarray
) -> None:
    """Invade bonds from the origin; entry i of ``seen_at`` becomes the bonds seen once ``checkpoints[i]`` are invaded.

    A bond is seen when one of its ends is in the cluster, and invaded also when both are. ``salts`` has one for each
    axis, and step i + d is the opposite of step i. ``checkpoints`` rises from 1 or more. ``table``, of any content, has
    more slots than the last checkpoint, and fewer than 2^32.
    """
    n_steps = steps.size
    size = table.size
    words = np.empty(n_steps, dtype=np.uint64)
    slots = np.empty(n_steps, dtype=np.int64)
    entries = np.empty(n_steps, dtype=np.uint64)
    heap = np.empty((1 << 12, 2), dtype=np.uint64)
    n_heap = 0
    ceiling = _HIGHEST // np.uint64(n_steps)
    table[:] = _EMPTY
    key = _ORIGIN
    n_seen = 0
    n_invaded = 0
    check = 0
    while True:
        slot = home(mix(key), size)
        while table[slot] != _EMPTY and table[slot] != key:
            slot = (slot + 1) % size
        if table[slot] == _EMPTY:  # the far end of the bond is new to the cluster
            table[slot] = key
            for i in range(n_steps):
                words[i] = bond_word(key, steps, i, salts)
                slots[i] = home(mix(key + steps[i]), size)
                entries[i] = table[slots[i]]
            for i in range(n_steps):
                neighbour = key + steps[i]
                slot = slots[i]
                while table[slot] != _EMPTY and table[slot] != neighbour:
                    slot = (slot + 1) % size
                if table[slot] == _EMPTY:  # otherwise the bond was seen from there
                    n_seen += 1
                    if words[i] < ceiling:
                        heap = push(heap, n_heap, words[i], neighbour)
                        n_heap += 1
        if n_invaded == checkpoints[check]:
            seen_at[check] = n_seen
            check += 1
            if check == checkpoints.size:
                return
        while n_heap == 0:
            higher = raised(ceiling)
            for slot in range(size):
                key = table[slot]
                if key != _EMPTY:
                    for i in range(n_steps):
                        word = bond_word(key, steps, i, salts)
                        if ceiling <= word < higher:
                            neighbour = key + steps[i]
                            place = home(mix(neighbour), size)
                            while table[place] != _EMPTY and table[place] != neighbour:
                                place = (place + 1) % size
                            # A bond with both ends in the cluster is met twice.
                            if table[place] == _EMPTY or i < salts.size:
                                heap = push(heap, n_heap, word, neighbour)
                                n_heap += 1
            ceiling = higher
        key = pop(heap, n_heap)
        n_heap -= 1
        n_invaded += 1
