"""Chemical distances: the number of bonds of the shortest way within a cluster, by breadth-first search."""

from __future__ import annotations

import numpy as np

from percolation._kernels.compiler import jit


@jit
def measure_distances(
    labels: np.ndarray, shape: np.ndarray, periodic: np.ndarray, reach: int, source: int, distances: np.ndarray
) -> None:
    """Write into ``distances``, -1 everywhere, the distance of every site of the cluster of ``source``.

    ``labels`` and ``distances`` are flat, C order; a negative label marks an empty site, and ``source`` is none.
    Periodic axes have at least three sites. Memory beyond that grows with the largest shell of equal distance.
    """
    strides = np.ones(shape.size, dtype=np.int64)
    for axis in range(shape.size - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    shell = np.empty(64, dtype=np.int64)
    beyond = np.empty(64, dtype=np.int64)
    shell[0] = source
    n_shell = 1
    distances[source] = 0
    distance = 0
    while n_shell > 0:
        distance += 1
        n_beyond = 0
        for i in range(n_shell):
            site = shell[i]
            label = np.int64(labels[site])
            if n_beyond + 2 * shape.size > beyond.size:
                beyond = np.concatenate((beyond, np.empty(beyond.size + 2 * shape.size, dtype=np.int64)))
            rest = site
            for axis in range(shape.size - 1, -1, -1):
                above = rest // shape[axis]
                place = rest - above * shape[axis]
                rest = above
                for step in (-1, 1):
                    other = site + step * strides[axis]
                    if place + step < 0 or place + step == shape[axis]:
                        if not periodic[axis]:
                            continue
                        other -= step * shape[axis] * strides[axis]
                    other_label = np.int64(labels[other])
                    if distances[other] < 0 and other_label >= 0 and abs(label - other_label) <= reach:
                        distances[other] = distance
                        beyond[n_beyond] = other
                        n_beyond += 1
        shell, beyond = beyond, shell
        n_shell = n_beyond
