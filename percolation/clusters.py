"""Clusters of a labelled lattice held in memory: any dimension, open or periodic axis by axis.

A site is an entry of an array; its neighbours are the entries one step away along an axis. A site's label is a small
integer, negative for an empty site. Two neighbours belong to one cluster when their labels agree, or, with ``reach``
one, when they differ by at most one: on the cells of :mod:`percolation.labels` that is sharing an interval of Eq. 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from percolation._kernels import labelling

Integers = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """The clusters of one labelled lattice.

    Parameters
    ----------
    numbers : array of int32 or int64, the lattice's shape
        The cluster of every site, numbered from 0 in the order of first sites; -1 for empty sites.
    sizes : array of int64, shape (n_clusters,)
        Sites in each cluster.
    labels : array of int64, shape (n_clusters,)
        The label of each cluster's first site (of all its sites, when ``reach`` is 0).
    spans : array of bool, shape (n_clusters, n_axes)
        Whether the cluster touches both faces of the axis; on a periodic axis too, where it is not wrapping.
    """

    numbers: Integers
    sizes: NDArray[np.int64]
    labels: NDArray[np.int64]
    spans: NDArray[np.bool_]

    @property
    def largest(self) -> int:
        """The number of the largest cluster (the first of equals); -1 if there is none."""
        return int(np.argmax(self.sizes)) if self.sizes.size else -1


def label_clusters(labels: ArrayLike, *, periodic: bool | Sequence[bool] = False, reach: int = 0) -> Clusters:
    """Return the clusters of a lattice of labels by raster union-find.

    Parameters
    ----------
    labels : array_like of integers, any shape with at least one axis
        Negative marks an empty site.
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
        If the labels are not integers.
    ValueError
        If the lattice has no site, ``periodic`` has another number of axes, or ``reach`` is negative.

    Notes
    -----
    Time is linear in sites times axes; memory is four bytes a site beyond the labels below 2^31 sites, eight above.
    An axis of length 1 or 2 has no extra neighbours across its faces.

    Examples
    --------
    >>> label_clusters([[0, 0, 1], [1, 0, 1]]).sizes.tolist()
    [3, 2, 1]
    """
    array = np.asarray(labels)
    if array.dtype == np.bool_ or not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"labels must be integers (negative: empty), got {array.dtype}")
    if array.size == 0 or array.ndim == 0:
        raise ValueError(f"labels must have at least one site and one axis, got shape {array.shape}")
    axes = [periodic] * array.ndim if isinstance(periodic, bool) else list(periodic)
    if len(axes) != array.ndim:
        raise ValueError(f"periodic must be one bool or {array.ndim}, got {len(axes)}")
    if reach < 0:
        raise ValueError(f"reach must be at least 0, got {reach}")
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind == "u":
        flat = flat.astype(np.int64)
    numbers: Integers = np.empty(flat.size, dtype=np.int32 if flat.size < 2**31 else np.int64)
    shape = np.array(array.shape, dtype=np.int64)
    n_clusters = labelling.label_components(flat, shape, np.array(axes, dtype=np.bool_), reach, numbers)
    sizes, firsts = np.zeros((2, n_clusters), dtype=np.int64)
    low_faces, high_faces = np.zeros((2, n_clusters), dtype=np.uint64)
    labelling.measure_components(flat, numbers, shape, sizes, firsts, low_faces, high_faces)
    axes_bits = np.uint64(1) << np.arange(array.ndim, dtype=np.uint64)
    spans = ((low_faces & high_faces)[:, None] & axes_bits) != 0
    return Clusters(numbers=numbers.reshape(array.shape), sizes=sizes, labels=firsts, spans=spans)
