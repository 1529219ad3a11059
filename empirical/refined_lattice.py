"""Which cubes of a coarse lattice are connected on one too fine to store: its labels are made where they are asked for.

The coarse box has n cubes along an axis, the fine one ``refine`` times as many, an odd number, so that every coarse
centre is a fine one. The coarse centres are the sample, and what is wanted is how they are connected by ways of fine
cubes of one label:

1. *Edges.* Two coarse neighbours are connected where the fine cubes on the line between them all carry the label. Their
   clusters are parts of the fine lattice's clusters, and nearly all of the cubes are in the largest.
2. *Search.* From each other cluster a path of fine cubes is looked for (:mod:`empirical.lattice_search`), to the
   largest one's nearest centres in turn: what one hides another may not (of 100 clusters that are hard in eight
   dimensions, 99 are joined to one of eight centres with 500 evaluations each, 92 to one centre with 4,000).
3. *Filling.* Where none is found soon, all fine cubes that can be reached are gone through, a layer at a time. Either a
   centre of the largest cluster is among them; or there are no more, and the cluster lies in a pocket that is closed
   on the fine lattice. The two go on in turn, with ever larger budgets, as a way out may be narrow and a pocket large;
   what is undecided in the end is counted both ways.

So the fine lattice's P(connected) is exact on the sample, but for what was given up, at the cost of the coarse
lattice's edges and of the pockets.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, Eqs. 4, 8-10, Conjecture 4.1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import KDTree
from torch import nn

from empirical import lattice_search, network_lattice
from percolation import arguments, labels

Integers = NDArray[np.int64]
Cells = NDArray[np.int8]

_LAYER = 1 << 13  # cubes of a layer evaluated together
_FIRST_TURN = 200_000  # cubes evaluated by the first filling
_N_TARGETS = 8  # centres that are searched for
_FILLED_PER_SEARCHED = 400  # cubes, for each centre: filling evaluates some fifty times as many a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """How the coarse lattice's cubes are connected on the fine one.

    Parameters
    ----------
    in_label, in_label_most : float
        P(connected | same label) of two coarse cubes and a label that both carry, all such triples alike; with what was
        given up taken as not connected, and as connected, to the largest cluster.
    n_joined, n_pockets, n_given_up : int
        Clusters of the coarse lattice, over all labels, that are not its largest: joined to it by fine cubes, in closed
        pockets, and given up.
    n_evaluated : int
        Evaluations of fine cubes beyond the coarse lattice's edges.
    """

    in_label: float
    in_label_most: float
    n_joined: int
    n_pockets: int
    n_given_up: int
    n_evaluated: int


class _Lattice(NamedTuple):
    """The fine lattice of a network, and how it holds the coarse one."""

    network: nn.Sequential
    single: nn.Sequential  # in float32
    dimension: int
    n_coarse: int
    refine: int
    radius: float
    delta: float

    @property
    def n_cells(self) -> int:
        """Fine cubes along an axis."""
        return self.n_coarse * self.refine

    @property
    def strides(self) -> Integers:
        """What a step along each axis adds to a fine cube's number."""
        return self.n_cells ** np.arange(self.dimension - 1, -1, -1, dtype=np.int64)

    def indices(self, numbers: Integers) -> Integers:
        """Return the indices of fine cubes by their numbers, shape (n, d)."""
        return numbers[:, None] // self.strides % self.n_cells

    def fine(self, coarse: Integers) -> Integers:
        """Return the fine indices of coarse cubes' centres."""
        return coarse * self.refine + self.refine // 2

    def carrying(self, numbers: Integers, label: int) -> Integers:
        """Return those fine cubes that carry a label, by the network in float32."""
        along = torch.from_numpy(network_lattice.axis_centres(self.n_cells, radius=self.radius)).float()
        is_carrying = np.empty(numbers.size, dtype=np.bool_)
        for first in range(0, numbers.size, _LAYER):
            part = slice(first, first + _LAYER)
            values = self.single(along[torch.from_numpy(self.indices(numbers[part]))]).numpy()[:, 0]
            is_carrying[part] = _carries(network_lattice.label(values, self.delta), label)
        return numbers[is_carrying]


@torch.no_grad()
def connect(
    network: nn.Sequential,
    dimension: int,
    *,
    n_coarse: int,
    refine: int,
    radius: float,
    delta: float,
    budget: int,
) -> Refined:
    """Return how the cubes of a coarse lattice are connected on one ``refine`` times as fine along each axis.

    Parameters
    ----------
    network : nn.Sequential
        Linear first, one output in [0, 1] last; float64, on the CPU.
    dimension : int
        d, at least 1.
    n_coarse : int
        Cubes along an axis of the coarse lattice.
    refine : int
        Odd. 1 is the coarse lattice itself.
    radius : float
        The box is [-radius, radius]^d.
    delta : float
        Length of the intervals of Eq. 4; 1 / delta is a whole number.
    budget : int
        Fine cubes that are evaluated, about, to fill one pocket, before it is given up.

    Raises
    ------
    TypeError
        If the network is no Sequential that begins with a Linear, of float64, or another argument is of another kind.
    ValueError
        If a number lies outside its range, the fine lattice has 2^62 cubes or more, or the coarse one takes more than
        all of the memory.

    Notes
    -----
    Deterministic. The coarse edges cost d (refine - 1) n^d evaluations in float32; memory is some ten bytes a coarse
    cube and axis, and what the widest layer of a pocket needs.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, dtype=torch.float64)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[0.0, 1.0]]), "bias": torch.zeros(1)})
    >>> network = nn.Sequential(layer, nn.Sigmoid())
    >>> connect(network, 2, n_coarse=4, refine=3, radius=4.0, delta=0.5, budget=1000).in_label
    1.0
    """
    lattice_search.first_layer(network)
    dimension = arguments.check_whole("dimension", dimension, least=1, most=62)
    n_coarse = arguments.check_whole("n_coarse", n_coarse, least=1)
    refine = arguments.check_whole("refine", refine, least=1)
    radius = arguments.check_real("radius", radius, above=0)
    budget = arguments.check_whole("budget", budget, least=1)
    if refine % 2 == 0:
        raise ValueError(f"refine must be odd and at least 1, got {refine}")
    lattice = _Lattice(network, copy.deepcopy(network).float(), dimension, n_coarse, refine, radius, delta)
    if lattice.n_cells**dimension >= lattice_search.MOST_NUMBERED:
        raise ValueError(f"the fine lattice must have less than 2^62 cubes, got {lattice.n_cells}^{dimension}")
    arguments.check_memory("n_coarse and dimension", (n_coarse, dimension), 10 * dimension * n_coarse**dimension)
    along = network_lattice.axis_centres(n_coarse, radius=radius)
    every = torch.cartesian_prod(*[torch.from_numpy(along)] * dimension).reshape(-1, dimension)
    values = np.concatenate([network(part).numpy()[:, 0] for part in torch.split(every, _LAYER)])
    cells = network_lattice.label(values, delta).reshape([n_coarse] * dimension)
    edges = [_edge(lattice, cells, axis) for axis in range(dimension)]
    parts = [_connect_label(lattice, cells, edges, k, budget) for k in range(labels.n_cells(delta) - 1)]
    pairs, apart, most, *counts = (sum(column) for column in zip(*parts, strict=True))
    n_joined, n_pockets, n_given_up, n_evaluated = (int(count) for count in counts)
    return Refined(
        in_label=apart / pairs,
        in_label_most=most / pairs,
        n_joined=n_joined,
        n_pockets=n_pockets,
        n_given_up=n_given_up,
        n_evaluated=n_evaluated,
    )


def _edge(lattice: _Lattice, cells: Cells, axis: int) -> tuple[Cells, Cells]:
    """Return the least and the largest cell on the line from each coarse cube to the next along an axis."""
    before, after = (np.moveaxis(np.moveaxis(cells, axis, 0)[part], 0, axis) for part in (np.s_[:-1], np.s_[1:]))
    low, high = np.minimum(before, after), np.maximum(before, after)
    axes = [network_lattice.axis_centres(lattice.n_coarse, radius=lattice.radius)] * lattice.dimension
    fine = network_lattice.axis_centres(lattice.n_cells, radius=lattice.radius)[lattice.refine // 2 :]
    for step in range(1, lattice.refine if lattice.n_coarse > 1 else 1):
        axes[axis] = fine[step :: lattice.refine][: lattice.n_coarse - 1]
        between = network_lattice.label_grid(lattice.network, axes, delta=lattice.delta)[0]
        np.minimum(low, between, out=low)
        np.maximum(high, between, out=high)
    return low, high


class _OfLabel(NamedTuple):
    """Sums of one label, as :class:`Refined` has them of all: pairs, those connected at least and at most, counts."""

    pairs: float
    apart: float
    most: float
    n_joined: int
    n_pockets: int
    n_given_up: int
    n_evaluated: int


def _connect_label(
    lattice: _Lattice,
    cells: Cells,
    edges: Sequence[tuple[Cells, Cells]],
    label: int,
    budget: int,
) -> _OfLabel:
    """Connect the coarse cubes of one label: by edges, by search, by filling."""
    numbers, sizes = _clusters(cells, edges, label)
    if sizes.size == 0:
        return _OfLabel(0.0, 0.0, 0.0, 0, 0, 0, 0)
    largest = int(sizes.argmax())
    fates = _join(lattice, numbers, largest, label, budget)
    joined = _components(sizes.size, fates.joins)
    is_largest = joined == joined[largest]
    is_given_up = np.isin(joined, joined[fates.given_up]) & ~is_largest
    apart = np.bincount(joined, weights=sizes)
    most = np.bincount(np.where(is_given_up, joined[largest], joined), weights=sizes)
    return _OfLabel(
        pairs=float(sizes.sum()) ** 2,
        apart=float(apart @ apart),
        most=float(most @ most),
        n_joined=int(is_largest.sum()) - 1,
        n_pockets=int((~is_largest & ~is_given_up).sum()),
        n_given_up=int(is_given_up.sum()),
        n_evaluated=fates.n_evaluated,
    )


def _clusters(cells: Cells, edges: Sequence[tuple[Cells, Cells]], label: int) -> tuple[Integers, Integers]:
    """Return the number of each coarse cube's cluster, -1 where it does not carry the label, and their sizes."""
    numbered = np.arange(cells.size, dtype=np.int32).reshape(cells.shape)
    tails, heads = [], []
    for axis, (low, high) in enumerate(edges):
        is_open = (low >= label) & (high <= label + 1)
        first, second = (np.moveaxis(numbered, axis, 0)[part] for part in (np.s_[:-1], np.s_[1:]))
        is_open = np.moveaxis(is_open, axis, 0)
        tails.append(first[is_open])
        heads.append(second[is_open])
    tail, head = np.concatenate(tails), np.concatenate(heads)
    graph = sparse.coo_array((np.ones(tail.size, dtype=np.int8), (tail, head)), shape=(cells.size, cells.size))
    found = csgraph.connected_components(graph, directed=False)[1]
    carrying = _carries(cells, label).reshape(-1)
    numbers = np.full(cells.size, -1, dtype=np.int64)
    numbers[carrying], sizes = np.unique(found[carrying], return_inverse=True, return_counts=True)[1:]
    return numbers.reshape(cells.shape), sizes


def _carries(cells: Cells, label: int) -> NDArray[np.bool_]:
    """Return which cells carry a label: both of its halves."""
    found: NDArray[np.bool_] = (cells == label) | (cells == label + 1)
    return found


def _components(n_clusters: int, joins: Sequence[tuple[int, int]]) -> Integers:
    """Return the number of each cluster's component after some pairs are joined."""
    first, second = np.array(joins, dtype=np.int64).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(len(joins), dtype=np.int8), (first, second)), shape=(n_clusters, n_clusters))
    found: Integers = csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
    return found


class _Fates(NamedTuple):
    """What became of the clusters that are not the largest: those that are connected, and those given up."""

    joins: list[tuple[int, int]]
    given_up: list[int]
    n_evaluated: int


def _join(lattice: _Lattice, numbers: Integers, largest: int, label: int, budget: int) -> _Fates:
    """Connect clusters to the largest where fine cubes do, and to each other where a pocket holds several."""
    fates = _Fates([], [], 0)
    _, firsts = np.unique(numbers, return_index=True)
    firsts = firsts[numbers.reshape(-1)[firsts] >= 0]  # a cube of each cluster
    if lattice.refine == 1 or firsts.size == 1:  # the clusters are the fine lattice's
        return fates
    starts = np.stack(np.unravel_index(firsts, numbers.shape), axis=1)
    goals = np.argwhere(numbers == largest)
    nearest = KDTree(goals).query(starts, k=range(1, 1 + min(_N_TARGETS, len(goals))), p=1)[1]
    decided, n_evaluated = {largest}, 0
    for cluster, (start, targets) in enumerate(zip(lattice.fine(starts), lattice.fine(goals[nearest]), strict=True)):
        if cluster in decided:
            continue
        for turn in _turns(budget):
            is_found, n_searched = _search(lattice, start, targets, label, turn // _FILLED_PER_SEARCHED)
            n_evaluated += n_searched
            if is_found:
                fates.joins.append((cluster, largest))
                break
            filled = _fill(lattice, start, numbers, largest, label, turn)
            n_evaluated += filled.n_evaluated
            if filled.status != "budget" or turn == budget:
                fates.joins.extend((cluster, one) for one in filled.met)
                decided |= filled.met
                if filled.status == "budget":
                    fates.given_up.append(cluster)
                break
    return fates._replace(n_evaluated=n_evaluated)


def _search(lattice: _Lattice, start: Integers, targets: Integers, label: int, budget: int) -> tuple[bool, int]:
    """Return whether a path to one of the targets is found, with so many evaluations for each, and how many it took."""
    n_evaluated = 0
    for target in targets:
        found = lattice_search.search(
            lattice.network,
            start,
            target,
            label=label,
            delta=lattice.delta,
            n_cells=lattice.n_cells,
            radius=lattice.radius,
            budget=budget,
        )
        n_evaluated += found.n_evaluated
        if found.status != "budget":
            return found.status == "found", n_evaluated
    return False, n_evaluated


def _turns(budget: int) -> Iterator[int]:
    """Yield the budgets of one filling after the other, up to ``budget``."""
    turn = _FIRST_TURN
    while turn < budget:
        yield turn
        turn *= 4
    yield budget


class _Filled(NamedTuple):
    """What filling came to, and the clusters whose centres were met."""

    status: Literal["joined", "closed", "budget"]
    met: set[int]
    n_evaluated: int


def _fill(lattice: _Lattice, start: Integers, numbers: Integers, largest: int, label: int, budget: int) -> _Filled:
    """Go through the fine cubes of a label that can be reached, until one is a centre of the largest coarse cluster."""
    strides, half = lattice.strides, lattice.refine // 2
    layer, before = np.array([start @ strides]), np.empty(0, dtype=np.int64)
    met: set[int] = set()
    n_evaluated = 1
    while layer.size:
        indices = lattice.indices(layer)
        central = indices[(indices % lattice.refine == half).all(axis=1)] // lattice.refine
        met |= set(numbers[tuple(central.T)].tolist()) - {-1}  # rounding may tell a centre's label otherwise
        if largest in met:
            return _Filled("joined", met, n_evaluated)
        if n_evaluated >= budget:
            return _Filled("budget", met, n_evaluated)
        # A step changes the parity of the indices' sum: what can be new is not in this layer, and in no earlier one but
        # the last before it. Cubes without the label are met again by later layers, and asked again.
        steps = [layer[indices[:, k] > 0] - stride for k, stride in enumerate(strides)]
        steps += [layer[indices[:, k] < lattice.n_cells - 1] + stride for k, stride in enumerate(strides)]
        new = _without(np.concatenate(steps), before)
        n_evaluated += new.size
        before, layer = layer, lattice.carrying(new, label)
    return _Filled("closed", met, n_evaluated)


def _without(numbers: Integers, others: Integers) -> Integers:
    """Return the numbers that are not among others, which ascend, each once and ascending.

    As numpy's ``setdiff1d`` does, which hashes: sorting takes a fifth of its time or less (numpy 2.4, 10,000 to a
    million numbers).
    """
    ordered = np.sort(numbers)
    is_first = np.ones(ordered.size, dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    found: Integers = ordered[is_first]
    if others.size:
        places = np.searchsorted(others, found)
        found = found[others[np.minimum(places, others.size - 1)] != found]
    return found
