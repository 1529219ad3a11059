"""Clusters of a labelled lattice held in memory: any dimension, open or periodic axis by axis.

A site is an entry of an array; its neighbours are the entries one step away along an axis. A site's label is a small
integer, negative for an empty site. A mask is taken for what it says: of bools, True is occupied (label 0) and False
empty; of a masked array, what is masked is empty, whatever stands there. Where equal labels join, an array that may as
well be a mask is refused: of unsigned integers with a zero among them, or of nothing but zeros and ones, both of them;
as a masked array with nothing masked it is taken for labels.

Two neighbours belong to one cluster when their labels agree, or, with ``reach`` one, when they differ by at most one:
on the cells of :mod:`percolation.labels` that is sharing one of the two overlapping intervals of Eq. 4 that a site
carries.

Across the two faces of a periodic axis sites are neighbours too. An axis of length 1 or 2 has no such bond, periodic or
not: it would lead to the site itself, or to a neighbour that it has already; nothing wraps around such an axis. So the
hypercube {0, 1}^d is the lattice of shape (2,) * d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from percolation import arguments
from percolation._kernels import distances as distance_kernels
from percolation._kernels import labelling, seams

Integers = NDArray[np.signedinteger[Any]]

_WIDTHS: tuple[type[np.signedinteger[Any]], ...] = (np.int32, np.int64)  # of numbers of clusters, as they are needed
_BLOCK = 1 << 10  # sites of a block, about: its lists stay in the first cache
_CHUNK = 1 << 15  # sites between two clearances of merged nodes, about: they stay in the second
_MAX_AXES = 32  # two bits an axis in a word


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """The clusters of one labelled lattice.

    Parameters
    ----------
    numbers : array of int32 (int64 from about 10^9 clusters on), the lattice's shape
        The cluster of every site, numbered from 0 in the order of first sites; -1 for empty sites.
    sizes : array of int64, shape (n_clusters,)
        Sites in each cluster.
    labels : array of the lattice's dtype (int8 for bools), shape (n_clusters,)
        The label of each cluster's first site (of all its sites, when ``reach`` is 0).
    spans : array of bool, shape (n_clusters, n_axes)
        Whether the cluster touches both faces of the axis; on a periodic axis too, where it is not wrapping.
    wraps : array of bool, shape (n_clusters, n_axes)
        Whether a closed way within the cluster winds around the periodic axis, other axes as it may; never around an
        open one, and never around one of length 1 or 2.
    """

    numbers: Integers
    sizes: NDArray[np.int64]
    labels: NDArray[np.integer[Any]]
    spans: NDArray[np.bool_]
    wraps: NDArray[np.bool_]

    @property
    def largest(self) -> int:
        """The number of the largest cluster (the first of equals); -1 if there is none."""
        return int(np.argmax(self.sizes)) if self.sizes.size else -1

    @property
    def second_largest(self) -> int:
        """The number of the second largest cluster (the first of equals but one); -1 if there is none."""
        if self.sizes.size < 2:
            return -1
        first = self.largest
        ahead, behind = self.sizes[:first], self.sizes[first + 1 :]
        if ahead.size == 0 or (behind.size and behind.max() > ahead.max()):
            return first + 1 + int(np.argmax(behind))
        return int(np.argmax(ahead))


def label_clusters(labels: ArrayLike, *, periodic: bool | Sequence[bool] = False, reach: int = 0) -> Clusters:
    """Return the clusters of a lattice of labels by raster union-find.

    Parameters
    ----------
    labels : array_like of integers or bools, or a masked array of them, any shape with 1 to 32 axes
        Negative, False and masked mark an empty site.
    periodic : bool or one bool an axis
        Whether the two faces of the axis are neighbours.
    reach : int
        Neighbours join when their labels differ by at most this; 0 joins equal labels, 1 joins cells that share an
        interval of Eq. 4.

    Returns
    -------
    Clusters

    Raises
    ------
    TypeError
        If the labels are neither integers nor bools, ``reach`` is no integer, or ``periodic`` holds no bools.
    ValueError
        If the lattice has no site or more than 32 axes, a label is above the int64, the labels may be a mask,
        ``periodic`` has another number of axes, or ``reach`` is negative.

    Notes
    -----
    Time is linear in sites, and in occupied sites times axes. Memory beyond the labels is four bytes a site (eight from
    about 10^9 clusters on) and some 17 + 2 d bytes a cluster: below five bytes a site in all near the threshold of one
    label, where clusters are few, but 12 to 13 for seven labels on every site in d = 3. Labels that are not contiguous
    in C order are copied.

    Examples
    --------
    >>> found = label_clusters([[1, 1, 2], [2, 1, 2]])
    >>> found.sizes.tolist(), found.spans[0].tolist()
    ([3, 2, 1], [True, False])
    >>> label_clusters(np.array([[True, True, False], [False, True, False]])).sizes.tolist()
    [3]
    """
    flat, shape, seamed, reach = _lattice(labels, periodic, reach)
    blocks = _blocks(shape)
    numbers, parents, firsts = _open_clusters(flat, blocks, reach)
    roots, wrapping = _join_seams(flat, blocks, seamed, reach, numbers, parents)
    sizes = np.empty(np.count_nonzero(parents[1:] < 0), dtype=np.int64)
    labelling.number_clusters(parents, firsts, sizes)
    labelling.write_numbers(numbers, parents)
    wraps = np.broadcast_to(np.False_, (sizes.size, shape.size))
    if seamed.any():
        wraps = np.zeros((sizes.size, shape.size), dtype=np.bool_)
        np.logical_or.at(wraps, parents[roots], wrapping)
    del parents, roots, wrapping
    firsts.resize(sizes.size, refcheck=False)
    spans = np.zeros((sizes.size, shape.size), dtype=np.bool_)
    faces = np.zeros(sizes.size, dtype=np.min_scalar_type(4**shape.size - 1))
    labelling.touch_faces(numbers, shape, blocks.strides, blocks.split, faces, spans)
    return Clusters(numbers=numbers.reshape(shape), sizes=sizes, labels=firsts, spans=spans, wraps=wraps)


def mean_size(found: Clusters, *, with_largest: bool) -> float:
    """Return the mean size of the cluster of an occupied site, S = sum_k s_k^2 / sum_k s_k over the clusters k.

    Parameters
    ----------
    found : Clusters
        With sizes s_k.
    with_largest : bool
        Whether the largest cluster belongs to both sums. Above the threshold it is taken for the infinite one, and S
        without it is what diverges there on both sides.

    Returns
    -------
    float
        In sites; 0 if there is no cluster to average over.

    References
    ----------
    Stauffer, Aharony, Introduction to Percolation Theory, 2nd ed., 1994, Sec. 2.5.

    Examples
    --------
    >>> found = label_clusters([0, 0, 0, -1, 0])
    >>> mean_size(found, with_largest=True), mean_size(found, with_largest=False)
    (2.5, 1.0)
    """
    arguments.check_kind("found", found, Clusters)
    arguments.check_kind("with_largest", with_largest, bool)
    sizes = found.sizes.astype(np.float64)
    largest = sizes.max(initial=0.0) if not with_largest else 0.0
    total = sizes.sum() - largest
    return float((sizes @ sizes - largest**2) / total) if total > 0 else 0.0


def are_connected(found: Clusters, first: Sequence[int], second: Sequence[int]) -> bool:
    """Return whether two sites belong to one cluster; an empty site is connected to none, not to itself either.

    Parameters
    ----------
    found : Clusters
        Of a lattice with these sites.
    first, second : sequences of int, one an axis
        Coordinates, from 0.

    Raises
    ------
    TypeError
        If a coordinate is no integer.
    ValueError
        If a site is not one of the lattice's.

    Examples
    --------
    >>> are_connected(label_clusters([[0, -1], [0, 0]]), (0, 0), (1, 1))
    True
    """
    arguments.check_kind("found", found, Clusters)
    shape = found.numbers.shape
    number = found.numbers[_site("first", first, shape)]
    return bool(number >= 0 and number == found.numbers[_site("second", second, shape)])


def chemical_distances(
    labels: ArrayLike, source: Sequence[int], *, periodic: bool | Sequence[bool] = False, reach: int = 0
) -> Integers:
    """Return how many bonds the shortest way from a site to every site of its cluster has.

    Parameters
    ----------
    labels, periodic, reach
        The lattice, as in :func:`label_clusters`.
    source : sequence of int, one an axis
        Coordinates of the site, from 0.

    Returns
    -------
    array of int32 (int64 from 2^31 sites on), the lattice's shape
        -1 for sites of other clusters and for empty ones; so everywhere, if the source is empty.

    Raises
    ------
    TypeError, ValueError
        As :func:`label_clusters`; and if the source is not a site of the lattice.

    Notes
    -----
    Breadth-first search: time is linear in the cluster's sites times axes.

    Examples
    --------
    >>> chemical_distances([[0, -1, 0], [0, 0, 0]], (0, 0)).tolist()
    [[0, -1, 4], [1, 2, 3]]
    """
    flat, shape, seamed, reach = _lattice(labels, periodic, reach)
    lengths = tuple(shape.tolist())
    start = int(np.ravel_multi_index(_site("source", source, lengths), lengths))
    distances: Integers = np.full(flat.size, -1, dtype=_narrowest(flat.size))
    if flat[start] >= 0:
        distance_kernels.measure_distances(flat, shape, seamed, reach, start, distances)
    return distances.reshape(lengths)


def _lattice(
    labels: ArrayLike, periodic: bool | Sequence[bool], reach: int
) -> tuple[NDArray[np.integer[Any]], NDArray[np.int64], NDArray[np.bool_], int]:
    """Return labels as the kernels take them, the shape, which axes have bonds across their faces, and the reach."""
    array = np.ma.getdata(labels) if isinstance(labels, np.ma.MaskedArray) else np.asarray(labels)
    if array.dtype.kind not in "iub":
        raise TypeError(
            f"labels must be integers (negative: empty), bools (False: empty) or a masked array, got {array.dtype}"
        )
    if array.size == 0 or array.ndim == 0:
        raise ValueError(f"labels must have at least one site and one axis, got shape {array.shape}")
    if array.ndim > _MAX_AXES:
        raise ValueError(f"labels must have at most {_MAX_AXES} axes, got {array.ndim}")
    axes = arguments.check_axes("periodic", periodic, array.ndim)
    reach = arguments.check_whole("reach", reach, least=0, most=2**63 - 1)
    arguments.check_memory("labels", f"shape {array.shape}", array.size * (array.dtype.itemsize + 4))
    if isinstance(labels, np.ma.MaskedArray):
        array = _without_masked(labels)
    elif array.dtype.kind != "b" and reach == 0 and array.min() == 0:
        _check_no_mask(array)
    if array.dtype.kind == "b":
        array = array.astype(np.int8) - np.int8(1)
    if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"labels must be below 2^63, got {array.max()}")
    flat = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(-1)
    shape = np.array(array.shape, dtype=np.int64)
    return flat, shape, axes & (shape > 2), reach


def _without_masked(labels: Any) -> NDArray[Any]:
    """Return the labels of a masked array, -1 or False at masked sites."""
    if labels.dtype.kind == "b":
        return np.asarray(labels.filled(False))
    known = labels.astype(np.result_type(labels.dtype, np.int8)) if labels.dtype != np.uint64 else labels
    if known.dtype.kind == "u":
        most = known.compressed().max(initial=0)
        if most > np.iinfo(np.int64).max:
            raise ValueError(f"labels must be below 2^63, got {most}")
        known = np.ma.array(known.data.astype(np.int64), mask=known.mask)
    return np.asarray(known.filled(-1))


def _check_no_mask(array: NDArray[np.integer[Any]]) -> None:
    """Raise ValueError if labels from 0 on may be a mask, whose zeros would be empty where ours are not."""
    most = array.max()
    if array.dtype.kind == "u" or most == 1:
        raise ValueError(
            f"labels must say which sites are empty, got {array.dtype} from 0 to {most}, which may be a mask: give "
            "bools (False: empty), a masked array (masked: empty), negative numbers at empty sites, or labels from 1 on"
        )


def _site(name: str, site: Sequence[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    known = tuple(arguments.check_integers(name, site, least=-(2**63), ndim=1).tolist())
    if len(known) != len(shape) or not all(0 <= x < length for x, length in zip(known, shape, strict=True)):
        raise ValueError(f"{name} must be a site of the lattice {shape}, got {known}")
    return known


def _narrowest(largest: int) -> type[np.signedinteger[Any]]:
    return next(width for width in _WIDTHS if largest <= np.iinfo(width).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocks:
    """How the kernels read a lattice: whole rows of the axes after ``split``, and at most ``n_rows`` of that axis.

    ``places`` are the coordinates of a block's sites along the axes from ``split`` on, from its own beginning.
    """

    shape: NDArray[np.int64]
    strides: NDArray[np.int64]
    split: int
    n_rows: int
    n_blocks: int
    places: NDArray[np.int64]


def _blocks(shape: NDArray[np.int64]) -> _Blocks:
    strides = np.cumprod(np.concatenate(([1], shape[:0:-1])))[::-1].copy()
    split = int(np.argmax(strides <= _BLOCK))
    inner = int(strides[split])
    n_rows = min(int(shape[split]), max(_BLOCK // inner, 1))
    n_blocks = math.prod(shape[:split].tolist()) * -(-int(shape[split]) // n_rows)
    places = np.array(np.unravel_index(np.arange(n_rows * inner), (n_rows, *shape[split + 1 :])))
    return _Blocks(shape=shape, strides=strides, split=split, n_rows=n_rows, n_blocks=n_blocks, places=places)


def _open_clusters(
    flat: NDArray[np.integer[Any]], blocks: _Blocks, reach: int
) -> tuple[Integers, Integers, NDArray[np.integer[Any]]]:
    """Return the node of every site, the union-find of the nodes and their labels, without periodic bonds."""
    ones = np.ones((1, blocks.places.shape[1]), dtype=np.uint8)
    has_earlier = np.concatenate((blocks.places > 0, ones)).astype(np.uint8)
    chunk = max(_CHUNK, ones.size)
    numbers: Integers = np.empty(flat.size, dtype=_WIDTHS[0])
    parents: Integers = np.zeros(1, dtype=_narrowest(flat.size))
    firsts = np.zeros(1, dtype=flat.dtype)
    n_nodes, block = 1, 0
    while block < blocks.n_blocks:
        # The table grows in place, to what the rest would need if it were like what has been read, or to twice.
        room = chunk + 1 + min(2 * n_nodes, n_nodes * blocks.n_blocks // max(block, 1))
        parents.resize(room, refcheck=False)
        firsts.resize(room, refcheck=False)
        if room > np.iinfo(numbers.dtype).max:
            numbers = numbers.astype(_narrowest(room))
        n_nodes, block = labelling.label_blocks(
            flat,
            blocks.shape,
            blocks.strides,
            blocks.split,
            has_earlier,
            reach,
            numbers,
            parents,
            firsts,
            n_nodes,
            block,
            chunk,
        )
    parents.resize(n_nodes, refcheck=False)
    firsts.resize(n_nodes, refcheck=False)
    return numbers, parents, firsts


def _join_seams(
    flat: NDArray[np.integer[Any]],
    blocks: _Blocks,
    seamed: NDArray[np.bool_],
    reach: int,
    numbers: Integers,
    parents: Integers,
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Join nodes across periodic faces; return the nodes whose trees wrap, and around which axes."""
    n_axes = blocks.shape.size
    lasts = blocks.shape[blocks.split :, None] - 1
    lasts[0] %= blocks.n_rows
    ones = np.ones((1, blocks.places.shape[1]), dtype=np.uint8)
    is_last = np.concatenate((blocks.places == lasts, ones)).astype(np.uint8)
    bonds = np.zeros(0, dtype=np.int64)
    n_bonds, block = 0, 0
    while block < blocks.n_blocks and seamed.any():
        room = 8 * n_axes * ones.size + min(2 * n_bonds, n_bonds * blocks.n_blocks // max(block, 1))
        bonds.resize(room, refcheck=False)
        n_bonds, block = seams.list_bonds(
            flat, blocks.shape, blocks.strides, seamed, blocks.split, is_last, reach, bonds, n_bonds, block
        )
    bonds.resize(n_bonds, refcheck=False)
    slots = np.zeros(parents.size if n_bonds else 0, dtype=parents.dtype)
    if n_bonds:
        seams.touch_seams(bonds, blocks.shape, blocks.strides, numbers, parents, slots)
    roots = np.flatnonzero(slots)
    slots[roots] = np.arange(1, roots.size + 1)
    windings = np.empty((roots.size, n_axes), dtype=np.min_scalar_type(-1 - n_bonds))  # none is longer
    wraps = np.zeros((roots.size, n_axes), dtype=np.bool_)
    seams.join_seams(bonds, blocks.shape, blocks.strides, numbers, parents, slots, windings, wraps)
    wrapping = wraps.any(axis=1)
    return roots[wrapping], wraps[wrapping]
