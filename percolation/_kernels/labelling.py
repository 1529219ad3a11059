"""Raster union-find on a labelled lattice held in memory, without its periodic bonds.

The lattice is read block by block, a block being a few hundred contiguous sites. Within it, runs of joined sites along
the last axis get a new *node* of the union-find each; then each axis joins them to the sites before. What chance
decides is not branched upon: a list's next entry is always written, and kept where the site belongs into it. After
every few blocks the nodes that were merged are dropped, so that there are hardly more nodes than clusters, and far
fewer than sites: the lattice itself holds 32-bit numbers as long as there are fewer than 2^31 clusters.

Entry n of ``parents`` is a node: its parent, which has a smaller index, or minus its number of sites at a root. Node 0
stands for the empty sites. Indices of inner loops are unsigned, which spares numba the look for a negative one.
"""

from __future__ import annotations

import numpy as np

from percolation._kernels.compiler import jit


@jit
def find_root(parents: np.ndarray, node: np.int64) -> np.int64:
    """Return the root of ``node``, halving the path to it."""
    parent = np.int64(parents[np.uint64(node)])
    while parent >= 0:
        above = np.int64(parents[np.uint64(parent)])
        if above < 0:
            return parent
        parents[np.uint64(node)] = above
        node = above
        parent = np.int64(parents[np.uint64(node)])
    return node


@jit
def merge(parents: np.ndarray, first: np.int64, second: np.int64) -> None:
    """Merge the trees of two nodes; the smaller index stays root."""
    first = find_root(parents, first)
    second = find_root(parents, second)
    if first < second:
        parents[first] += parents[second]
        parents[second] = first
    elif second < first:
        parents[second] += parents[first]
        parents[first] = second


@jit
def list_occupied(labels: np.ndarray, occupied: np.ndarray) -> int:
    """Write the indices of the sites whose label is not negative, in their order; return how many there are.

    ``occupied`` has room for an entry a site and one more.
    """
    n_occupied = 0
    for k in range(labels.size):
        occupied[n_occupied] = k
        n_occupied += np.int64(labels[k] >= 0)
    return n_occupied


@jit
def list_joined(
    labels: np.ndarray,
    start: int,
    offset: int,
    has_earlier: np.ndarray,
    reach: int,
    occupied: np.ndarray,
    n_occupied: int,
    joined: np.ndarray,
) -> int:
    """Write which occupied sites of the block at ``start`` join the site ``offset`` before; return how many.

    ``has_earlier[k]`` says whether site k of the block has that neighbour. ``joined`` has room for an entry a site and
    one more.
    """
    missing = np.uint64(max(offset - start, 0))  # the lattice begins less than the offset before these
    begin = 0
    while begin < n_occupied and occupied[begin] < missing:
        begin += 1
    here = labels[start:]
    there = labels[max(start - offset, 0) :]
    n_joined = 0
    for i in range(begin, n_occupied):
        k = occupied[i]
        label = np.int64(here[k])
        other = np.int64(there[k - missing])
        joined[n_joined] = k
        n_joined += np.int64((other >= 0) & (label - other <= reach) & (other - label <= reach) & (has_earlier[k] != 0))
    return n_joined


@jit
def find_runs(
    labels: np.ndarray,
    has_left: np.ndarray,
    reach: int,
    numbers: np.ndarray,
    parents: np.ndarray,
    firsts: np.ndarray,
    n_nodes: int,
    occupied: np.ndarray,
    n_occupied: int,
) -> int:
    """Give each run of joined sites of a block a node; return how many nodes there are.

    ``labels`` and ``numbers`` are the block's; ``has_left[k]`` says whether site k has a neighbour k - 1. ``parents``
    and ``firsts``, the label of each node's first site, have room for as many nodes as there are sites.
    """
    numbers[:] = 0
    node = n_nodes - 1
    begin = np.int64(0)
    before = np.int64(-1)
    label = np.int64(-1 - reach)
    first = label
    for i in range(n_occupied):
        k = occupied[i]
        place = np.int64(k)
        last = label
        label = np.int64(labels[k])
        is_first = not ((place == before + 1) & (label - last <= reach) & (last - label <= reach) & (has_left[k] != 0))
        node += np.int64(is_first)
        begin = place if is_first else begin
        first = label if is_first else first
        numbers[k] = node
        parents[np.uint64(node)] = begin - place - 1
        firsts[np.uint64(node)] = first
        before = place
    return node + 1


@jit
def drop_merged(
    numbers: np.ndarray, parents: np.ndarray, firsts: np.ndarray, first_node: int, n_nodes: int, kept: np.ndarray
) -> int:
    """Drop the nodes from ``first_node`` on that are no roots, number the rest anew; return how many nodes are left.

    ``numbers`` are the sites that have these nodes. ``kept`` has an entry for each of them and one more.
    """
    n_kept = first_node
    kept[0] = 0
    for node in range(first_node, n_nodes):
        parent = np.int64(parents[node])
        if parent < 0:
            parents[n_kept] = parent
            firsts[n_kept] = firsts[node]
            kept[node - first_node + 1] = n_kept
            n_kept += 1
        elif parent < first_node:
            kept[node - first_node + 1] = parent
        else:
            kept[node - first_node + 1] = kept[parent - first_node + 1]
    for k in range(numbers.size):
        numbers[k] = kept[np.uint64(max(np.int64(numbers[k] - first_node + 1), np.int64(0)))]
    return n_kept


@jit
def label_blocks(
    labels: np.ndarray,
    shape: np.ndarray,
    strides: np.ndarray,
    split: int,
    has_earlier: np.ndarray,
    reach: int,
    numbers: np.ndarray,
    parents: np.ndarray,
    firsts: np.ndarray,
    n_nodes: int,
    block: int,
    chunk: int,
) -> tuple[int, int]:
    """Write the node of every site into ``numbers``, from ``block`` on, until nodes run short; return nodes and block.

    ``labels`` and ``numbers`` are flat, C order; a negative label marks an empty site. A block is whole rows of all
    axes after ``split``, and a part of the axis ``split``: ``has_earlier`` has an entry a site of a block in each row,
    row i for axis ``split + i`` of a block that begins that axis, and a last row of ones. After every ``chunk`` sites
    at most, of at least one block, merged nodes are dropped. The loop ends where ``parents`` and ``firsts`` may not
    have room for ``chunk`` nodes more. Nodes are in the order of their first sites.
    """
    n_axes = shape.size
    size = has_earlier.shape[1]
    line = shape[split] * strides[split]
    n_parts = -(-line // size)
    n_blocks = labels.size // line * n_parts
    everywhere = has_earlier[n_axes - split]
    occupied = np.empty(size + 1, dtype=np.uint64)
    joined = np.empty(size + 1, dtype=np.uint64)
    kept = np.empty(chunk + 1, dtype=parents.dtype)
    while block < n_blocks and n_nodes + chunk < parents.size:
        first_node = n_nodes
        chunk_start = block // n_parts * line + block % n_parts * size
        stop = chunk_start
        while block < n_blocks and stop - chunk_start + size <= chunk:
            rest = block // n_parts
            part = block - rest * n_parts
            start = stop
            stop = min(start + size, (rest + 1) * line)
            block += 1
            n_occupied = list_occupied(labels[start:stop], occupied)
            has_left = has_earlier[n_axes - 1 - split]
            n_nodes = find_runs(
                labels[start:stop], has_left, reach, numbers[start:stop], parents, firsts, n_nodes, occupied, n_occupied
            )
            if n_occupied == 0:
                continue
            for axis in range(n_axes - 1, -1, -1):
                n_joining = n_occupied
                valid = everywhere
                if axis < split:
                    above = rest // shape[axis]
                    place = rest - above * shape[axis]
                    rest = above
                    if place == 0:
                        continue
                elif axis > split or part == 0:
                    if axis == n_axes - 1:
                        continue  # these are the runs
                    valid = has_earlier[axis - split]
                elif axis == n_axes - 1:
                    n_joining = 1  # the first site may go on where the block before ended
                offset = np.uint64(strides[axis])
                n_joined = list_joined(labels, start, strides[axis], valid, reach, occupied, n_joining, joined)
                for i in range(n_joined):
                    site = joined[i] + np.uint64(start)
                    merge(parents, np.int64(numbers[site - offset]), np.int64(numbers[site]))
        n_nodes = drop_merged(numbers[chunk_start:stop], parents, firsts, first_node, n_nodes, kept)
    return n_nodes, block


@jit
def number_clusters(parents: np.ndarray, firsts: np.ndarray, sizes: np.ndarray) -> None:
    """Turn each node's entry of ``parents`` into its cluster's number, in the order of nodes; -1 for node 0.

    ``sizes`` has an entry a cluster and becomes its number of sites; ``firsts``, an entry a node, becomes, as far as
    there are clusters, the label of their first sites.
    """
    n_clusters = 0
    parents[0] = -1
    for node in range(1, parents.size):
        parent = np.int64(parents[node])
        if parent < 0:
            sizes[n_clusters] = -parent
            firsts[n_clusters] = firsts[node]
            parents[node] = n_clusters
            n_clusters += 1
        else:
            parents[node] = parents[parent]


@jit
def write_numbers(numbers: np.ndarray, parents: np.ndarray) -> None:
    """Replace every site's node by its cluster's number."""
    for site in range(numbers.size):
        numbers[site] = parents[np.uint64(numbers[site])]


@jit
def touch_faces(
    numbers: np.ndarray, shape: np.ndarray, strides: np.ndarray, split: int, faces: np.ndarray, spans: np.ndarray
) -> None:
    """Set ``spans[cluster, axis]``, false before, where a cluster has sites on both faces of the axis.

    ``numbers`` are the sites' clusters, flat, -1 where there is none. ``faces`` is zero, an unsigned entry a cluster of
    at least two bits an axis. The axes after ``split`` are looked up in a table of ``strides[split]`` entries.
    """
    n_axes = shape.size
    inner = strides[split]
    one = np.uint64(1)
    table = np.zeros(inner, dtype=np.uint64)
    for k in range(inner):
        for axis in range(split + 1, n_axes):
            place = k // strides[axis] % shape[axis]
            table[k] |= (one if place == 0 else np.uint64(0)) << np.uint64(2 * axis)
            table[k] |= (one if place == shape[axis] - 1 else np.uint64(0)) << np.uint64(2 * axis + 1)
    listed = np.flatnonzero(table)
    occupied = np.empty(inner + 1, dtype=np.uint64)
    for line in range(numbers.size // (shape[split] * inner)):
        bits = np.uint64(0)
        rest = line
        for axis in range(split - 1, -1, -1):
            above = rest // shape[axis]
            place = rest - above * shape[axis]
            rest = above
            bits |= (one if place == 0 else np.uint64(0)) << np.uint64(2 * axis)
            bits |= (one if place == shape[axis] - 1 else np.uint64(0)) << np.uint64(2 * axis + 1)
        # Rows within the lattice without a site on a face are passed over.
        step = 1 if bits != 0 or listed.size > 0 else max(shape[split] - 1, 1)
        for row in range(0, shape[split], step):
            row_bits = bits
            if row == 0:
                row_bits |= one << np.uint64(2 * split)
            if row == shape[split] - 1:
                row_bits |= one << np.uint64(2 * split + 1)
            start = (line * shape[split] + row) * inner
            if row_bits == 0:
                for k in listed:
                    number = numbers[start + k]
                    if number >= 0:
                        faces[number] |= table[k]
                continue
            here = numbers[start : start + inner]
            n_occupied = list_occupied(here, occupied)
            for i in range(n_occupied):
                k = occupied[i]
                faces[np.uint64(here[k])] |= row_bits | table[k]
    lows = np.uint64(0x5555555555555555)
    for number in range(faces.size):
        both = np.uint64(faces[number])
        both &= (both >> one) & lows
        if both != 0:
            for axis in range(n_axes):
                spans[number, axis] = both & (one << np.uint64(2 * axis)) != 0
