"""P(connected | same label) on a lattice too fine to store: its labels are made where they are asked for.

Every cube of the lattice counts alike, those at the box's walls too. Nearly all cubes of a label are in its largest
cluster, and what is wanted is how many are not: the cubes in parts that are cut off. They are counted in two ways that
are added up:

- *Parts that are looked for* are counted whole, cube by cube. From random starts in the box and on its faces the
  network's values are climbed and descended, cube by cube, to the lattice's extrema on the box; where a cube on
  the way is cut off from the largest cluster of a label, its part is counted.
- *What was missed* is estimated by a sample: fine cubes drawn from the whole box, each with the same chance. One that
  is cut off, and in none of the parts that were counted, stands for as many cubes as its share of the sample.

The sum is right in expectation however few extrema are found, as the sample is drawn apart from the starts; if all are
found, only the labels' frequencies are left to the sample. If the sample is every cube, it is exact.

Whether a cube is cut off is asked with the help of a skeleton, the centres of a coarse lattice of n cubes an axis. The
fine one has ``refine`` times as many, an odd number, so that every coarse centre is a fine one.

1. *Edges.* Two coarse neighbours are connected where the fine cubes on the line between them all carry the label. The
   goal is the largest of their clusters.
2. *Walks.* Cubes go towards centres of the goal, one step after the other, each time to where the value is nearest the
   middle of the label's interval; all of them together.
3. *Filling.* Of each that does not arrive all fine cubes that can be reached are gone through, a layer at a time, and
   again and again some of the last layer walk. Either one arrives, or something that did is reached; or there is no
   more, and it is a part that is cut off, of which it is then known whether it touches the box's wall; or there is too
   much of it: it is given up, and counted both ways.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, Eqs. 4, 8-10, Conjecture 4.1.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import KDTree
from torch import nn

from empirical import implicit_lattice, lattice_search, network_lattice
from empirical.implicit_lattice import Booleans, Cells, Floats, Integers, Lattice
from percolation import arguments, labels

_N_WALKS = 2  # towards as many centres
_FIRST_WALKS = 200  # cubes filled, before the first of them walk; then twice as many
_N_WALKERS = 16  # cubes that walk for one; of a layer, at most
_STRAYS = (8, 32)  # random steps before that


@dataclass(frozen=True, slots=True, kw_only=True)
class Refined:
    """How the fine lattice's cubes are connected.

    Parameters
    ----------
    in_label, in_label_most : float
        P(connected | same label) of two cubes of the lattice and a label that both carry, all such triples alike; with
        what was given up taken as not connected, and as connected, to the largest cluster.
    cut_off : float
        Share of those triples whose first cube is not in the label's largest cluster, given up or not.
    at_wall : float
        Share whose first cube, besides, is in a part that holds a cube at the box's wall. Of what was given up only the
        cubes that were gone through are known.
    missed : float
        Share whose first cube, besides, is in a part that was not counted whole but met by the sample.
    n_joined, n_cut_off, n_given_up : int
        Extrema and cubes of the sample, over all labels, that did not arrive by walking: joined to the largest cluster,
        in parts that are cut off, and given up.
    n_evaluated : int
        Evaluations of fine cubes by filling.
    """

    in_label: float
    in_label_most: float
    cut_off: float
    at_wall: float
    missed: float
    n_joined: int
    n_cut_off: int
    n_given_up: int
    n_evaluated: int


@torch.no_grad()
def connect(
    network: nn.Sequential,
    sample: Floats,
    starts: Floats,
    *,
    n_coarse: int,
    refine: int,
    radius: float,
    delta: float,
    budget: int,
) -> Refined:
    """Return how the cubes of a lattice are connected that is ``refine`` times as fine as a coarse one along each axis.

    Parameters
    ----------
    network : nn.Sequential
        Linear first, one output in [0, 1] last; float64, on the CPU.
    sample : array of float64, shape (n, d)
        Points in [-1, 1]^d, multiples of the half side, drawn uniformly; one or more. A point stands for the fine cube
        that holds it.
    starts : array of float64, shape (m, d)
        Points in [-1, 1]^d from which extrema are looked for, drawn apart from the sample. Half of them are climbed
        from, half descended.
    n_coarse : int
        Cubes along an axis of the coarse lattice.
    refine : int
        Odd. 1 is the coarse lattice itself.
    radius : float
        The box is [-radius, radius]^d.
    delta : float
        Length of the intervals of Eq. 4; 1 / delta is a whole number.
    budget : int
        Fine cubes that are evaluated, about, to fill one part, before it is given up.

    Raises
    ------
    TypeError
        If the network is no Sequential that begins with a Linear, of float64, or another argument is of another kind.
    ValueError
        If a number or a point lies outside its range, the fine lattice has 2^62 cubes or more, or the coarse one takes
        more than all of the memory.

    Notes
    -----
    Deterministic. The coarse edges cost d (refine - 1) n^d evaluations in float32, the walks some d^2 refine / 2 for
    each point and label; memory is some ten bytes a coarse cube and axis, and what the widest layer of a part needs.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, dtype=torch.float64)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[0.0, 1.0]]), "bias": torch.zeros(1)})
    >>> network = nn.Sequential(layer, nn.Sigmoid())
    >>> rng = np.random.default_rng(0)
    >>> sample, starts = (rng.uniform(-1, 1, size=(n, 2)) for n in (100, 10))
    >>> connect(network, sample, starts, n_coarse=4, refine=3, radius=4.0, delta=0.5, budget=1000).in_label
    1.0
    """
    dimension = lattice_search.first_layer(network).in_features
    n_coarse = arguments.check_whole("n_coarse", n_coarse, least=1)
    refine = arguments.check_whole("refine", refine, least=1)
    radius = arguments.check_real("radius", radius, above=0)
    budget = arguments.check_whole("budget", budget, least=1)
    if refine % 2 == 0:
        raise ValueError(f"refine must be odd and at least 1, got {refine}")
    sample, starts = arguments.check_reals("sample", sample, ndim=2), arguments.check_reals("starts", starts, ndim=2)
    for name, points in (("sample", sample), ("starts", starts)):
        if points.shape[1] != dimension:
            raise ValueError(f"{name} must have shape (n, {dimension}), got {points.shape}")
        if not (np.abs(points) <= 1).all():
            raise ValueError(f"{name} must lie in -1 to 1 along every axis, got {np.abs(points).max()}")
    if not len(sample):
        raise ValueError("sample must have one point or more, got 0")
    lattice = Lattice(network, copy.deepcopy(network).float(), dimension, n_coarse, refine, radius, delta)
    if lattice.n_cells**dimension >= lattice_search.MOST_NUMBERED:
        raise ValueError(f"the fine lattice must have less than 2^62 cubes, got {lattice.n_cells}^{dimension}")
    arguments.check_memory("n_coarse and dimension", (n_coarse, dimension), 10 * dimension * n_coarse**dimension)
    every = np.stack(np.unravel_index(np.arange(n_coarse**dimension), [n_coarse] * dimension), axis=1)
    coarse = lattice.cells(lattice.fine(every)).reshape([n_coarse] * dimension)
    edges = [_edge(lattice, coarse, axis) for axis in range(dimension)]
    asked = _asked(lattice, sample, starts)
    parts = [_connect_label(lattice, coarse, edges, asked, k, budget) for k in range(labels.n_cells(delta) - 1)]
    pairs, apart, least, cut_off, at_wall, missed, *counts = (sum(column) for column in zip(*parts, strict=True))
    n_joined, n_cut_off, n_given_up, n_evaluated = (int(count) for count in counts)
    return Refined(
        in_label=1 - apart / pairs,
        in_label_most=1 - least / pairs,
        cut_off=cut_off / pairs,
        at_wall=at_wall / pairs,
        missed=missed / pairs,
        n_joined=n_joined,
        n_cut_off=n_cut_off,
        n_given_up=n_given_up,
        n_evaluated=n_evaluated,
    )


class _Asked(NamedTuple):
    """Fine cubes of which is asked whether they are cut off, ascending by number.

    ``weights`` is the number of cubes that each stands for in the sample, 0 of one on a way to an extremum alone.
    """

    numbers: Integers
    indices: Integers
    cells: Cells
    weights: Floats
    is_extremum: Booleans

    def of(self, label: int) -> _Asked:
        """Return those that carry a label."""
        chosen = implicit_lattice.carries(self.cells, label)
        return _Asked(
            self.numbers[chosen],
            self.indices[chosen],
            self.cells[chosen],
            self.weights[chosen],
            self.is_extremum[chosen],
        )


def _asked(lattice: Lattice, sample: Floats, starts: Floats) -> _Asked:
    extrema = implicit_lattice.extrema(lattice, lattice.holding(starts)) @ lattice.strides
    drawn = lattice.holding(sample) @ lattice.strides
    numbers, which = np.unique(np.concatenate([extrema, drawn]), return_inverse=True)
    indices = lattice.indices(numbers)
    share = lattice.n_cells**lattice.dimension / len(sample)
    weights = share * np.bincount(which[len(extrema) :], minlength=numbers.size)
    is_extremum = np.zeros(numbers.size, dtype=np.bool_)
    is_extremum[which[: len(extrema)]] = True
    return _Asked(numbers, indices, lattice.cells(indices), weights, is_extremum)


def _edge(lattice: Lattice, cells: Cells, axis: int) -> tuple[Cells, Cells]:
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
    """Sums over one label, of pairs of cubes or of counts: what :class:`Refined` has as shares of the pairs."""

    pairs: float
    apart: float
    least: float
    cut_off: float
    at_wall: float
    missed: float
    n_joined: int
    n_cut_off: int
    n_given_up: int
    n_evaluated: int


def _connect_label(
    lattice: Lattice,
    coarse: Cells,
    edges: Sequence[tuple[Cells, Cells]],
    asked: _Asked,
    label: int,
    budget: int,
) -> _OfLabel:
    """Count the cubes of one label that are cut off."""
    mine = asked.of(label)
    total = float(mine.weights.sum())
    if total == 0:
        return _OfLabel(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0)
    clusters, n_centres = _clusters(coarse, edges, label)
    goal = (
        np.argwhere(clusters == n_centres.argmax())
        if n_centres.size
        else np.empty((0, lattice.dimension), dtype=np.int64)
    )
    parts, is_goal_at_wall, *counts = _parts(lattice, goal, mine, label, budget)
    of_parts = sum(part.size for part in parts)
    total = max(float(mine.weights.sum()) if len(goal) else 0.0, of_parts)
    rest = _Part(total - of_parts, is_goal_at_wall, True, True)  # what is given up may belong to it
    parts.append(rest)
    sizes = np.array([part.size for part in parts], dtype=np.float64)
    at_wall, is_counted, may_be_rest = (
        np.array(column, dtype=np.bool_) for column in list(zip(*parts, strict=True))[1:]
    )
    is_small = sizes < sizes.max()
    n_joined, n_cut_off, n_given_up, n_evaluated = counts
    return _OfLabel(
        pairs=total**2,
        apart=_apart(sizes),
        least=_apart(np.append(sizes[~may_be_rest], sizes[may_be_rest].sum())),
        cut_off=total * float(sizes[is_small].sum()),
        at_wall=total * float(sizes[is_small & at_wall].sum()),
        missed=total * float(sizes[is_small & ~is_counted].sum()),
        n_joined=n_joined,
        n_cut_off=n_cut_off,
        n_given_up=n_given_up,
        n_evaluated=n_evaluated,
    )


def _apart(sizes: Floats) -> float:
    """Return the pairs of cubes of different clusters: small ones keep their digits beside a large one."""
    largest = sizes.argmax()
    small = np.delete(sizes, largest)
    return float(2 * sizes[largest] * small.sum() + small.sum() ** 2 - small @ small)


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
    carrying = implicit_lattice.carries(cells, label).reshape(-1)
    numbers = np.full(cells.size, -1, dtype=np.int64)
    numbers[carrying], sizes = np.unique(found[carrying], return_inverse=True, return_counts=True)[1:]
    return numbers.reshape(cells.shape), sizes


class _Part(NamedTuple):
    """Cubes of a label that are not connected to the goal, as far as known; ``size`` may be the sample's estimate."""

    size: float
    is_at_wall: bool
    is_counted: bool
    is_given_up: bool


def _parts(
    lattice: Lattice, goal: Integers, asked: _Asked, label: int, budget: int
) -> tuple[list[_Part], bool, int, int, int, int]:
    """Return the parts that cubes lie in which are not connected to the goal, what is known of it, and counts.

    The former is whether a cube that is connected to the goal is at the wall, the counts are those of :class:`Refined`.
    """
    tree = KDTree(goal) if len(goal) else None
    is_joined = _walk(lattice, goal, tree, asked.indices, label)
    for n_steps in _STRAYS:
        left = np.flatnonzero(~is_joined)
        strayed = implicit_lattice.stray(lattice, np.repeat(asked.indices[left], _N_WALKERS, axis=0), label, n_steps)
        is_joined[left] = _walk(lattice, goal, tree, strayed, label).reshape(left.size, _N_WALKERS).any(axis=1)
    left = np.flatnonzero(~is_joined)
    decided = is_joined.copy()
    parts: list[_Part] = []
    n_cut_off = n_given_up = n_evaluated = 0
    for node in left.tolist():
        if decided[node]:
            continue
        filled = _fill(lattice, goal, tree, asked, node, is_joined, label, budget)
        n_evaluated += filled.n_evaluated
        decided[filled.met] = True
        if filled.status == "joined":
            is_joined[filled.met] = True
            continue
        is_counted = filled.status == "closed" and bool(asked.is_extremum[filled.met].any())
        size = filled.n_filled if is_counted else float(asked.weights[filled.met].sum())
        parts.append(_Part(size, filled.is_at_wall, is_counted, filled.status == "budget"))
        n_cut_off += len(filled.met) if filled.status == "closed" else 0
        n_given_up += len(filled.met) if filled.status == "budget" else 0
    is_goal_at_wall = lattice.is_at_wall(asked.indices[is_joined])
    return parts, is_goal_at_wall, left.size - n_cut_off - n_given_up, n_cut_off, n_given_up, n_evaluated


def _walk(lattice: Lattice, goal: Integers, tree: KDTree | None, cubes: Integers, label: int) -> Booleans:
    """Return which fine cubes arrive at a centre of the goal by a way that carries the label."""
    cubes = cubes.copy()
    is_there = np.zeros(len(cubes), dtype=np.bool_)
    if tree is None:
        return is_there
    for turn in range(min(_N_WALKS, len(goal))):
        left = np.flatnonzero(~is_there)
        if left.size == 0:
            break
        nearest = np.asarray(tree.query(cubes[left] // lattice.refine, k=[turn + 1], p=1)[1])[:, 0]
        targets = goal[nearest]
        cubes[left], is_there[left] = implicit_lattice.go_towards(lattice, cubes[left], lattice.fine(targets), label)
    return is_there


class _Filled(NamedTuple):
    """What filling came to, which of the cubes asked for were met, whether one at the wall was, and how many filled."""

    status: Literal["joined", "closed", "budget"]
    met: list[int]
    is_at_wall: bool
    n_filled: int
    n_evaluated: int


def _fill(
    lattice: Lattice,
    goal: Integers,
    tree: KDTree | None,
    asked: _Asked,
    node: int,
    is_joined: Booleans,
    label: int,
    budget: int,
) -> _Filled:
    """Go through the fine cubes of a label that can be reached, until one is known to be connected to the goal."""
    strides, n_cells = lattice.strides, lattice.n_cells
    layer, before = asked.numbers[[node]], np.empty(0, dtype=np.int64)
    met: list[int] = []
    is_at_wall, n_filled, n_evaluated, n_until_walks = False, 0, 1, _FIRST_WALKS
    status: Literal["joined", "closed", "budget"] = "closed"
    while layer.size:
        indices = lattice.indices(layer)
        n_filled += layer.size
        is_at_wall |= lattice.is_at_wall(indices)
        places = np.minimum(np.searchsorted(asked.numbers, layer), asked.numbers.size - 1)
        places = places[asked.numbers[places] == layer]
        met.extend(places.tolist())
        if is_joined[places].any():
            status = "joined"
            break
        if n_filled >= n_until_walks:
            n_until_walks *= 2
            if _walk(lattice, goal, tree, indices[:: 1 + len(indices) // _N_WALKERS], label).any():
                status = "joined"
                break
        if n_evaluated >= budget:
            status = "budget"
            break
        # A step changes the parity of the indices' sum: what can be new is not in this layer, and in no earlier one but
        # the last before it. Cubes without the label are met again by later layers, and asked again.
        steps = [layer[indices[:, k] > 0] - stride for k, stride in enumerate(strides)]
        steps += [layer[indices[:, k] < n_cells - 1] + stride for k, stride in enumerate(strides)]
        new = _without(np.concatenate(steps), before)
        n_evaluated += new.size
        before, layer = layer, new[lattice.carries(lattice.indices(new), label)]
    return _Filled(status, met, is_at_wall, n_filled, n_evaluated)


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
