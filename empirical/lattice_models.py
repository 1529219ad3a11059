"""Which cubes of a labelled box are connected, and the boxes of labels that a real network's is put beside.

Two cubes carry a label k of Eq. 4 when their cells are k or k + 1, and are connected in it when a way of cubes with a
common face leads from one to the other on which every cube carries k: the network's value then stays within one
interval. A way on which each pair of neighbours shares some label, another one further on, keeps no value: between
cubes small enough it always exists.

Both cubes of a pair are drawn independently, so that they are the same with a chance of one in N.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from empirical import network_lattice
from empirical.network_lattice import LatticeNetwork
from percolation import arguments, clusters, meanfield, wide

Floats = NDArray[np.float64]
Cells = NDArray[np.int8]

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How well the cubes of each label hang together.

    Parameters
    ----------
    in_label : float
        P(connected | same label): of two cubes and a label that both carry, all such triples alike. That is
        sum over labels and their clusters of s^2, over sum over labels of N_k^2.
    in_any : float
        P(connected in some label | the cubes share one).
    shares : array, shape (n_labels,)
        N_k / N.
    connected : array, shape (n_labels,)
        sum over the clusters of label k of (s / N_k)^2; nan where no cube carries it, as below.
    largest : array, shape (n_labels,)
        Share of the N_k cubes that the largest cluster holds.
    n_clusters : array of int64, shape (n_labels,)
    """

    in_label: float
    in_any: float
    shares: Floats
    connected: Floats
    largest: Floats
    n_clusters: NDArray[np.int64]


def connect_cubes(cells: Cells, n_cells: int) -> Connection:
    """Return the connection of a box of cubes with open faces.

    Parameters
    ----------
    cells : array of int, any shape with 1 to 32 axes
        The cell of every cube, in 0 .. n_cells - 1.
    n_cells : int
        2 / delta, at least 2: there are n_cells - 1 labels.

    Raises
    ------
    TypeError
        If the cells are no integers, or some are masked.
    ValueError
        If a cell or ``n_cells`` is out of range.

    Notes
    -----
    Exact. Time is that of one labelling by :func:`percolation.clusters.label_clusters` for each label, and of sorting
    the cubes; memory about 12 bytes a cube.

    Examples
    --------
    >>> found = connect_cubes(np.array([0, 1, 3, 1], dtype=np.int8), 4)
    >>> found.shares.tolist(), found.n_clusters.tolist(), round(found.in_label, 3)
    ([0.75, 0.5, 0.25], [2, 2, 1], 0.571)
    """
    n_cells = arguments.check_whole("n_cells", n_cells, least=2, most=2**31)
    arguments.check_memory("n_cells", n_cells, 80 * n_cells)
    cells = arguments.check_numbers("cells", cells)
    if cells.dtype.kind not in "iu":
        raise TypeError(f"cells must be integers, got {cells.dtype}")
    if cells.size == 0 or cells.min() < 0 or cells.max() >= n_cells:
        least, most = (cells.min(), cells.max()) if cells.size else ("none", "none")
        raise ValueError(f"cells must be one or more in 0 to {n_cells - 1}, got {least} to {most}")
    counts = np.bincount(cells.ravel(), minlength=n_cells).astype(np.float64)
    carrying = counts[:-1] + counts[1:]
    squares, largest, n_clusters = (np.zeros(n_cells - 1) for _ in range(3))
    twice = 0.0  # pairs in one cell that are connected in both of its labels
    before = None
    for k in range(n_cells - 1):
        mask = (cells == k) | (cells == k + 1)
        found = clusters.label_clusters(mask)
        sizes = found.sizes.astype(np.float64)
        squares[k], largest[k], n_clusters[k] = sizes @ sizes, sizes.max(initial=0.0), sizes.size
        if before is not None:
            both = cells == k
            pairs = before.numbers[both].astype(np.int64) * max(sizes.size, 1) + found.numbers[both]
            twice += float((np.unique(pairs, return_counts=True)[1].astype(np.float64) ** 2).sum())
        before = found
    sharing = float(counts @ counts + 2 * counts[:-1] @ counts[1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        return Connection(
            in_label=float(squares.sum() / (carrying**2).sum()),
            in_any=float((squares.sum() - twice) / sharing),
            shares=carrying / cells.size,
            connected=squares / carrying**2,
            largest=largest / carrying,
            n_clusters=n_clusters.astype(np.int64),
        )


def independent(shape: tuple[int, ...], counts: NDArray[np.int64], rng: np.random.Generator) -> Cells:
    """Return cells drawn independently for every cube, cell h with probability counts[h] / sum of counts.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If a length is below 1, a count is negative, all are 0, they are more than an int8 counts, or the box takes more
        than all of the memory.
    """
    shape = arguments.check_shape("shape", shape)
    counts = arguments.check_integers("counts", counts, least=0, most=2**62, ndim=1)
    if counts.size > 128 or not 0 < sum(counts.tolist()) < 2**63:
        raise ValueError(
            f"counts must be up to 128 with a sum from 1 to 2^63 - 1, got {counts.size} of sum {sum(counts.tolist())}"
        )
    arguments.check_generator("rng", rng)
    arguments.check_memory("shape", shape, math.prod(shape))
    edges = np.cumsum(counts)
    found = np.empty(shape, dtype=np.int8)
    flat = found.reshape(-1)
    for first in range(0, flat.size, _CHUNK):
        part = flat[first : first + _CHUNK]
        part[:] = np.searchsorted(edges, rng.integers(edges[-1], size=part.size), side="right")
    return found


def shuffled(cells: Cells, rng: np.random.Generator) -> Cells:
    """Return the same cells in random places.

    Raises
    ------
    TypeError
        If the cells are no numbers, or ``rng`` draws none.
    """
    cells = arguments.check_numbers("cells", cells)
    arguments.check_generator("rng", rng)
    return rng.permutation(cells.reshape(-1)).reshape(cells.shape)


def covariance_error(
    network: nn.Sequential, settings: LatticeNetwork, dimension: int, rng: np.random.Generator
) -> float:
    """Return by how much the covariance of a wide network's outputs, given its hidden layers, misses the wide limit.

    Given the hidden layers, the outputs before the last map are independent Gaussian fields, with a covariance that
    tends to the wide limit's as the root of the width. The error is the root mean square, over pairs of 200 points of
    the box, of the difference over the wide limit's standard deviations.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the dimension is below 1.
    """
    arguments.check_kind("network", network, nn.Sequential)
    arguments.check_kind("settings", settings, LatticeNetwork)
    dimension = arguments.check_whole("dimension", dimension, least=1)
    arguments.check_memory("dimension", dimension, 8 * 200 * dimension)
    arguments.check_generator("rng", rng)
    side = network_lattice.half_side(settings, dimension)
    points = rng.uniform(-side, side, size=(200, dimension))
    law = network_lattice.wide_law(settings)
    exact = wide.wide_covariance(points, **law)
    with torch.no_grad():
        hidden = network[:-2](torch.from_numpy(points)).numpy()
    found = law["weight_variance"] * hidden @ hidden.T / hidden.shape[1] + law["bias_variance"]
    spread = np.sqrt(exact.diagonal())
    return float(np.sqrt((((found - exact) / np.multiply.outer(spread, spread)) ** 2).mean()))


def mean_field(shares: Floats, dimension: int, n_cells: int) -> float:
    """Return P(connected | same label) of independent labels on the Bethe lattice.

    Parameters
    ----------
    shares : array, shape (n_labels,)
        Chance that a cube carries label k.
    dimension, n_cells : int
        Of the box, whose cubes have 2 d (1 - 1/n) neighbours on average: so many has the Bethe lattice.

    Returns
    -------
    float
        Two cubes are connected if both are in the infinite cluster of their label: 0 where no label percolates, and on
        a line, whatever the clusters of a finite box do.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If a share lies outside [0, 1], all are 0, or a number is below 1.
    """
    shares = arguments.check_probabilities("shares", shares)
    if shares.ndim != 1 or not shares.any():
        raise ValueError(f"shares must be one a label, some above 0, got {arguments.shown(shares)}")
    dimension = arguments.check_whole("dimension", dimension, least=1)
    n_cells = arguments.check_whole("n_cells", n_cells, least=1)
    neighbours = max(2.0, 2 * dimension * (1 - 1 / n_cells))
    survival = meanfield.bethe(shares, neighbours).connected
    return float((shares * survival) ** 2 @ np.ones_like(shares) / (shares @ shares))
