"""Newman-Ziff: sites or bonds occupied one by one, clusters followed by union-find.

A *turn* says how often a way winds around the torus: the sum over the followed axes of w_i t_i, where t_i counts, with
its sign, how often the way passes from the last to the first place of axis i. The *weights* w_i are 1, 2^bits,
4^bits ..., and 0 for an axis that is not followed: a field of so many bits an axis. Turns are added without regard to
the fields; this is right as long as each t_i stays within an eighth of its field's range on either side of 0, which
:func:`climb` watches: turn + *offset* has none of the bits of *guard* then.
"""

from __future__ import annotations

import numpy as np

from percolation._kernels.compiler import jit

_AHEAD = 32  # steps whose reads are asked for together
_LINE = 16  # sites whose parents are usually read at once
BITS = 9  # 2^9 cluster sizes are counted together


@jit
def shuffle(order: np.ndarray, first: int, uniforms: np.ndarray) -> None:
    """Draw entries ``first``, ``first`` + 1, ... of a random permutation of ``order``, one for each of ``uniforms``.

    A step of Fisher and Yates each, so that the entries before ``first`` stay, and any number of entries may be drawn
    before the rest. ``uniforms`` lie in [0, 1).
    """
    for k in range(uniforms.size):
        here = first + k
        there = here + np.int64(uniforms[k] * (order.size - here))
        order[here], order[there] = order[there], order[here]


@jit
def climb(
    parents: np.ndarray, turns: np.ndarray, site: np.int64, follows: bool, offset: np.int64, guard: np.int64
) -> tuple[np.int64, np.int64, bool]:
    """Return the root of an occupied ``site``, the turn of the way from it to the site, whether a turn is too large.

    ``parents[site]`` is the site's parent, or minus the size of its cluster at a root. ``turns[site]`` is the turn of
    the way from its parent, of no meaning at a root; neither read nor kept unless ``follows``. The path is halved.
    """
    turn = np.int64(0)
    bits = np.int64(0)
    parent = np.int64(parents[site])
    while parent >= 0:
        above = np.int64(parents[parent])
        if follows:
            turn += turns[site]
            bits |= turn + offset
        if above < 0:
            site = parent
            break
        if follows:
            turns[site] += turns[parent]
            turn += turns[parent]
            bits |= turn + offset
        parents[site] = above
        site = above
        parent = np.int64(parents[site])
    return site, turn, bits & guard != 0


@jit
def note(turn: np.int64, weights: np.ndarray, n: int, crossed_at: np.ndarray) -> bool:
    """Lower ``crossed_at`` to ``n`` along the axes that a closed way of this ``turn`` winds around.

    Returns whether some followed axis was not wound around by then.
    """
    is_left = False
    for axis in range(weights.size - 1, -1, -1):
        weight = weights[axis]
        if weight > 0:
            times = (turn + weight // 2) // weight
            turn -= times * weight
            if times != 0:
                crossed_at[axis] = min(crossed_at[axis], n)
            is_left = is_left or crossed_at[axis] > n
    return is_left


@jit
def next_size(size: int, of_size: np.ndarray, of_block: np.ndarray) -> int:
    """Return the size of the largest cluster of at most ``size`` sites, or 0.

    ``of_size[s]`` counts clusters of s sites; ``of_block`` counts those of each 512 sizes together.
    """
    while size > 0 and of_size[size] == 0:
        block = size >> BITS
        size = (block << BITS) - 1 if block > 0 and of_block[block] == 0 else size - 1
    return size


@jit
def look_ahead(
    order: np.ndarray,
    first: int,
    last: int,
    by_bond: bool,
    strides: np.ndarray,
    parents: np.ndarray,
    turns: np.ndarray,
    follows: bool,
) -> np.int64:
    """Read what the steps from ``first`` to ``last`` are going to read; return its sum, which has no meaning.

    None of these reads waits for another, so that they overlap; the steps then find it all in the cache. Neighbours
    across the seam of the first axis are left out. It pays most where the lattice does not fit the cache.
    """
    total = np.int64(0)
    top = parents.size - 1
    for n in range(first, last):
        if by_bond:
            site = np.int64((order[n] + 0.5) / strides.size)
            other = np.int64(min(site + strides[order[n] - site * strides.size], top))
            for end in (site, other):
                above = np.int64(parents[end])
                total += parents[above if above >= 0 else end]
                if follows:
                    total += turns[end]
        else:
            site = np.int64(order[n])
            total += parents[site]
            for axis in range(strides.size):
                if strides[axis] >= _LINE:
                    total += parents[max(site - strides[axis], 0)]
                    total += parents[min(site + strides[axis], top)]
    return total


@jit
def sweep(
    order: np.ndarray,
    first: int,
    last: int,
    by_bond: bool,
    shape: np.ndarray,
    periodic: np.ndarray,
    weights: np.ndarray,
    bits: int,
    parents: np.ndarray,
    turns: np.ndarray,
    faces: np.ndarray,
    of_size: np.ndarray,
    of_block: np.ndarray,
    tallies: np.ndarray,
    largest: np.ndarray,
    second: np.ndarray,
    others: np.ndarray,
    crossed_at: np.ndarray,
) -> bool:
    """Occupy ``order[first:last]``, sites, or bonds between sites that are all occupied, and follow the clusters.

    ``order`` is a permutation of the sites, or of the bonds that exist, bond d site + i leading from the site along
    axis i; what stands before ``first`` has been occupied by earlier calls. Entry n of ``largest``, ``second`` and
    ``others`` becomes the largest and second largest cluster, and the sum of squared sizes of all but the largest,
    once n are occupied. ``crossed_at[axis]``, more than the number of steps at first, becomes the n at which a cluster
    first wraps around an axis of positive weight, or joins both faces of an open one if ``faces`` has entries.

    Kept from call to call: ``parents`` and ``turns`` of :func:`climb`, with as many as there are sites for a parent
    of an empty site; ``faces``, empty or an entry a site, the faces that a root's cluster touches, bit 2i for the low
    and 2i + 1 for the high face of open axis i; ``of_size`` and ``of_block`` of :func:`next_size`; and ``tallies``, the
    largest and second largest cluster, the sum of all squared sizes, and a number of no meaning. Periodic axes have at
    least three sites.

    Returns False, and all is void, when a turn is too large for its field of ``bits``, at least 7. There is room for
    any if one axis alone has 63.
    """
    n_sites = parents.size
    n_axes = shape.size
    strides = np.ones(n_axes, dtype=np.int64)
    for axis in range(n_axes - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    # A quotient of whole numbers below 2^50 is (numerator + 1/2) times the inverse, rounded down: faster than division.
    inverses = 1.0 / strides
    near = np.empty(2 * n_axes, dtype=np.int64)  # occupied neighbours
    hops = np.empty(2 * n_axes, dtype=np.int64)  # ... and the turns of the steps to them
    n_largest, n_second, squares = tallies[0], tallies[1], tallies[2]
    offset = np.int64(weights.sum()) << (bits - 3)
    guard = np.int64(weights.sum() * 3) << (bits - 2)
    follows = note(np.int64(0), weights, first, crossed_at)
    open_left = 0
    for axis in range(n_axes):
        if not periodic[axis] and faces.size > 0 and crossed_at[axis] > first:
            open_left |= 1 << (2 * axis)
    for n in range(first, last):
        if (n - first) % _AHEAD == 0:
            ahead = min(n + _AHEAD, last)
            tallies[3] = look_ahead(order, n, ahead, by_bond, strides, parents, turns, follows)
        n_near = 0
        if by_bond:
            site = np.int64((order[n] + 0.5) / n_axes)
            axis = order[n] - site * n_axes
            row = np.int64((site + 0.5) * inverses[axis])
            is_last = row % shape[axis] == shape[axis] - 1
            near[0] = site + strides[axis] * (1 - shape[axis] if is_last else 1)
            hops[0] = weights[axis] if is_last else 0
            n_near = 1
            root, here, is_lost = climb(parents, turns, site, follows, offset, guard)
            if is_lost:
                return False
            alone = -np.int64(parents[root])
        else:
            site = np.int64(order[n])
            row_before = np.int64(0)
            for axis in range(n_axes):
                length = shape[axis]
                stride = strides[axis]
                row = np.int64((site + 0.5) * inverses[axis])
                place = row - row_before * length
                row_before = row
                other = site - stride
                hop = np.int64(0)
                if place == 0:
                    # Beyond an open face stands the site itself, which is still empty.
                    other = site + (length - 1) * stride if periodic[axis] else site
                    hop = -weights[axis]
                near[n_near] = other
                hops[n_near] = hop
                n_near += np.int64(parents[other] != n_sites)  # rather than a branch that cannot be foretold
                other = site + stride
                hop = np.int64(0)
                if place == length - 1:
                    other = site - (length - 1) * stride if periodic[axis] else site
                    hop = weights[axis]
                near[n_near] = other
                hops[n_near] = hop
                n_near += np.int64(parents[other] != n_sites)
            root = site
            here = np.int64(0)
            alone = np.int64(0)
            parents[site] = -1
        size = max(alone, np.int64(1))
        squares -= alone * alone
        for k in range(n_near):
            if not follows and not by_bond and parents[near[k]] == root:
                continue  # most often so above the threshold
            top, there, is_lost = climb(parents, turns, near[k], follows, offset, guard)
            if is_lost:
                return False
            there -= hops[k]  # the turn from the neighbour's root to the site, through the neighbour
            if top == root:
                if follows and here != there:
                    follows = note(here - there, weights, n + 1, crossed_at)
                continue
            joined = -np.int64(parents[top])
            squares -= joined * joined
            of_size[joined] -= 1
            of_block[joined >> BITS] -= 1
            if joined < size:
                parents[top] = root
                if follows:
                    turns[top] = here - there
            else:
                parents[root] = top
                if follows:
                    turns[root] = there - here
                here = there
                root, top = top, root
            if open_left != 0:
                faces[root] |= faces[top]
            size += joined
        squares += size * size
        if size > alone:
            parents[root] = -size
            if alone > 0:
                of_size[alone] -= 1
                of_block[alone >> BITS] -= 1
            of_size[size] += 1
            of_block[size >> BITS] += 1
            if size > n_largest:
                if of_size[n_largest] > 0:
                    n_second = n_largest
                n_largest = size
                n_second = next_size(n_second, of_size, of_block)
            elif size > n_second:
                n_second = size
        if open_left != 0:
            both = np.int64(faces[root]) & (np.int64(faces[root]) >> 1) & open_left
            if both != 0:
                open_left &= ~both
                for axis in range(n_axes):
                    if (both >> (2 * axis)) & 1:
                        crossed_at[axis] = n + 1
        largest[n + 1] = n_largest
        second[n + 1] = n_second
        others[n + 1] = np.float64(squares - n_largest * n_largest)
    tallies[0] = n_largest
    tallies[1] = n_second
    tallies[2] = squares
    return True
