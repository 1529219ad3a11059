"""Paths of cubes on lattices far too large to store, by best-first search with a real network's labels.

The box [-R, R]^d is cut into n cubes an axis. A cube carries the labels of Eq. 4 that the network's value at its centre
does, and a path goes from face to face through cubes that all carry one label. Cubes are made when they are reached and
evaluated in batches; nothing of size n^d is held.

*One column a step.* A step along axis j changes what the first layer hands on, W x + b, by +-s times column j of W
(s the side), so a cube costs the layers after the first, and the width. The error is some 1e-16 a step; what a path
says is certified afterwards (:mod:`empirical.value_intervals`).

*Runs.* In high dimension nearly every step leaves the value nearly as it was, and there are d of them. So a cube is
first left by a run: steps towards the target along different axes, those with most cubes left first, ordered by the
gradient at the cube such that the value is expected to stay near the middle of the interval; all of a run is one
forward pass, and what it reaches up to the first cube without the label is kept. The next run is twice as long as this
one went well. Only when a cube comes up a second time are its 2d neighbours looked at, the most promising first, a
batch at a time.

*Order.* Cubes are taken by 2 h + g + p, least first: h and g are the cubes left to the target and gone from the start,
p is a penalty near the interval's ends. So paths are short, not shortest.

*When it ends.* A path is found; or all cubes that can be reached from one end have been, and the other end is not among
them: on this lattice the two are not connected; or the budget is spent, which says nothing. If a path is not found at
once, a second search goes from the target to the start, and the two go on in turn: of two ends that are not connected
one often lies in a pocket that is soon explored, the other in nearly all of the box; and a way out of a pocket is
found sooner than the way into it.

*Which cube is which.* Cubes have their number in the lattice where n^d < 2^62, elsewhere a hash of 64 bits: two of N
cubes are taken for one with probability N^2 / 2^64, 5e-8 at a million, which might hide a path but make none up.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, Eqs. 4, 8-10, Section 4. Hart, Nilsson, Raphael, IEEE Trans. Syst. Sci.
Cybern. 4, 100 (1968). Yoshizumi, Miura, Ishida, AAAI 2000 (neighbours a part at a time).
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from empirical import batches, network_lattice
from percolation import arguments, labels

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Status = Literal["found", "exhausted", "budget"]

_BATCH = 256  # cubes in a forward pass, about
_SHORTEST, _LONGEST = 8, 4096  # cubes of a run that is tried
_PENALTY = 2.0  # steps that a value at an end of the interval is worth
_OUTSIDE = 8.0  # steps, a neighbour expected to lie outside
_PATIENCE = 1000  # cubes, and two more for each of the distance, before the other end has its turn
_HASH_SEED = 20240905
MOST_NUMBERED = 2**62  # cubes of a lattice whose numbers are told apart in an int64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What a search found.

    Parameters
    ----------
    status : {"found", "exhausted", "budget"}
        A path; no path on this lattice; or nothing yet when the budget was spent.
    axes, signs : arrays of int64 and int8, shape (n_steps,)
        The path's steps from the start; empty without a path.
    distance : int
        Cubes between start and target, L1: no path is shorter.
    n_evaluated : int
        Evaluations of cubes.
    n_enclosed : int
        Cubes that can be reached from one of the ends, if all of them were and the other is not among them; else 0.
    is_exact : bool
        Whether cubes were told apart for certain; if not, see the module's docstring.
    """

    status: Status
    axes: Integers
    signs: NDArray[np.int8]
    distance: int
    n_evaluated: int
    n_enclosed: int
    is_exact: bool


@torch.no_grad()
def search(
    network: nn.Sequential,
    start: Integers,
    target: Integers,
    *,
    label: int,
    delta: float,
    n_cells: int,
    radius: float,
    budget: int,
) -> Found:
    """Look for a path of face-neighbouring cubes from ``start`` to ``target`` that all carry ``label``.

    Parameters
    ----------
    network : nn.Sequential
        Linear first, one output in [0, 1] last; float64, on the CPU.
    start, target : arrays of int64, shape (d,)
        Cubes by their index along each axis, from 0 to ``n_cells`` - 1.
    label : int
        An interval of Eq. 4, from 0 to 2 / delta - 2.
    delta : float
        Length of the intervals; 1 / delta is a whole number.
    n_cells : int
        Cubes along each axis.
    radius : float
        The box is [-radius, radius]^d.
    budget : int
        Cubes to evaluate, about: the batch in hand is done.

    Returns
    -------
    Found

    Raises
    ------
    TypeError
        If the network is no Sequential that begins with a Linear, of float64, or another argument is of another kind.
    ValueError
        If a number or an index lies outside its range, the network has more outputs or is not on the CPU, or an end
        does not carry the label.

    Notes
    -----
    Deterministic. A run costs its cubes times (d_hidden^2 and what else stands behind the first layer), and d times the
    width for the gradient. Memory: an index (d numbers) a batch, some 100 bytes a cube.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, dtype=torch.float64)
    >>> _ = layer.load_state_dict({"weight": torch.tensor([[0.0, 1.0]]), "bias": torch.zeros(1)})
    >>> network = nn.Sequential(layer, nn.Sigmoid())
    >>> lattice = {"delta": 0.5, "n_cells": 8, "radius": 4.0, "budget": 1000}
    >>> found = search(network, np.array([0, 4]), np.array([7, 4]), label=1, **lattice)
    >>> found.status, len(found.axes), found.distance
    ('found', 7, 7)
    """
    batches.check_points(network, first_layer(network).in_features, dtype=torch.float64)
    label = arguments.check_whole("label", label, least=0, most=labels.n_cells(delta) - 2)
    n_cells = arguments.check_whole("n_cells", n_cells, least=1)
    radius = arguments.check_real("radius", radius, above=0)
    budget = arguments.check_whole("budget", budget, least=0)
    start, target = (
        arguments.check_integers(name, cube, least=-(2**63)) for name, cube in (("start", start), ("target", target))
    )
    ends = (
        _Search(network, start, target, label, delta, n_cells, radius),
        _Search(network, target, start, label, delta, n_cells, radius),
    )
    turn = _PATIENCE + 2 * ends[0].distance
    decided = next((one for one in ends if one.is_decided), None)
    while decided is None and sum(one.n_evaluated for one in ends) < budget:
        for one, other in (ends, ends[::-1]):
            one.run(min(turn, budget - other.n_evaluated))
            if one.is_decided:
                decided = one
                break
        turn *= 2
    axes, signs = (decided or ends[0]).path()
    if decided is ends[1]:
        axes, signs = axes[::-1], -signs[::-1]
    is_found = decided is not None and decided.end is not None
    return Found(
        status="budget" if decided is None else "found" if is_found else "exhausted",
        axes=axes,
        signs=signs.astype(np.int8),
        distance=ends[0].distance,
        n_evaluated=sum(one.n_evaluated for one in ends),
        n_enclosed=0 if decided is None or is_found else decided.n_reached,
        is_exact=ends[0].is_exact,
    )


def cube_after(start: Integers, found: Found, n_steps: int) -> Integers:
    """Return the cube in which the path is after ``n_steps`` steps.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the path has fewer steps, or the cube another number of axes.
    """
    arguments.check_kind("found", found, Found)
    n_steps = arguments.check_whole("n_steps", n_steps, least=0, most=len(found.axes))
    cube = arguments.check_integers("start", start, least=0, ndim=1).copy()
    if found.axes.size and found.axes.max() >= cube.size:
        raise ValueError(f"start must have an index for each of the path's axes, got {cube.size}")
    np.add.at(cube, found.axes[:n_steps], found.signs[:n_steps])
    return cube


@dataclass(frozen=True, slots=True, eq=False)
class _Cube:
    """A cube that was reached: its index, what the first layer makes of it, its key, the steps from the start."""

    index: Integers
    hidden: Floats
    key: Integers  # one number; an array's sums pass over the ends of int64 without a word
    n_steps: int


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    """Cubes one step from ``origin`` each, or, as a run, each one step from the one before it."""

    origin: _Cube
    parent: tuple[int, int]  # place of the origin: family, position in it
    axes: Integers
    signs: Integers
    is_run: bool

    def steps(self, position: int) -> slice:
        """Return the steps from the origin to a cube."""
        return slice(0 if self.is_run else position, position + 1)


class _Search:
    """The state of the search from one end; ``end`` is the target's place, once it is known."""

    end: tuple[int, int] | None

    def __init__(
        self,
        network: nn.Sequential,
        start: Integers,
        target: Integers,
        label: int,
        delta: float,
        n_cells: int,
        radius: float,
    ) -> None:
        first = first_layer(network)
        dimension = first.in_features
        for name, cube in (("start", start), ("target", target)):
            if cube.shape != (dimension,):
                raise ValueError(f"{name} must have an index for each of {dimension} axes, got shape {cube.shape}")
            if cube.min() < 0 or cube.max() >= n_cells:
                raise ValueError(f"{name} must be a cube with indices 0 to {n_cells - 1}, got {cube.tolist()[:8]}")
        side = 2 * radius / n_cells
        weight = first.weight.detach().numpy()
        self.rest = network[1:]
        self.columns = np.ascontiguousarray(side * weight.T)
        self.n_cells, self.label, self.delta = n_cells, label, delta
        self.target = target
        self.is_exact = n_cells**dimension < MOST_NUMBERED
        if self.is_exact:
            self.weights = n_cells ** np.arange(dimension, dtype=np.int64)
        else:
            self.weights = np.random.default_rng(_HASH_SEED).integers(-(2**63), 2**63 - 1, dimension) | 1
        (centre,) = network_lattice.centres(start[None], n_cells=n_cells, radius=radius)
        hidden = weight @ centre + (0 if first.bias is None else first.bias.detach().numpy())
        self.start = _Cube(start.copy(), hidden, (start * self.weights).sum(keepdims=True), 0)
        self.distance = int(np.abs(target - start).sum())
        self.families: list[_Family] = []
        self.heap: list[tuple[float, int, int, int, int]] = []  # priority, tie, family, position, visits
        self.ties = itertools.count()
        self.n_ahead = _BATCH  # steps of the next run
        self.seen = {int(self.start.key[0])}
        self.n_evaluated, self.n_reached = 2, 1
        self.end = (0, -1) if self.distance == 0 else None
        goal = self.start.hidden + (target - start) @ self.columns
        values = self.values(np.stack([hidden, goal]))
        for name, value, has in zip(("start", "target"), values, self.carry(values), strict=True):
            if not has:
                raise ValueError(f"{name} must carry label {label}, got the value {value:.6g}")
        nobody = np.empty(0, dtype=np.int64)
        self.families.append(_Family(self.start, (-1, -1), nobody, nobody, True))
        self.push(2.0 * self.distance, 0, -1, 0)

    def values(self, hidden: Floats) -> Floats:
        """Return the network's values, from what its first layer makes."""
        found: Floats = self.rest(torch.from_numpy(hidden)).numpy()[:, 0]
        return found

    def carry(self, values: Floats) -> NDArray[np.bool_]:
        """Return whether values carry the label."""
        cells = labels.cells(values, self.delta)
        is_carried: NDArray[np.bool_] = (cells == self.label) | (cells == self.label + 1)
        return is_carried

    def penalty(self, values: Floats) -> Floats:
        """Return what nearness to the interval's ends costs: nothing in its inner half."""
        place = np.abs(2 * values / self.delta - self.label - 1)  # 1 at the ends
        return np.where(place <= 1, _PENALTY * np.maximum(2 * place - 1, 0), _OUTSIDE)

    def run(self, limit: int) -> None:
        """Take cubes from the heap, some at a time, until it is decided or so many cubes have been evaluated."""
        n_together = max(1, _BATCH // (2 * len(self.target)))
        while self.heap and self.end is None and self.n_evaluated < limit:
            self.end = self.expand([heapq.heappop(self.heap) for _ in range(min(n_together, len(self.heap)))])

    @property
    def is_decided(self) -> bool:
        """Whether the target was reached, or all that can be without it."""
        return self.end is not None or not self.heap

    def push(self, priority: float, family: int, position: int, visits: int) -> None:
        """Put a cube on the heap; of equals the last comes first."""
        heapq.heappush(self.heap, (priority, -next(self.ties), family, position, visits))

    def cube(self, family: int, position: int) -> _Cube:
        """Return a cube by its place."""
        made = self.families[family]
        steps = made.steps(position)
        axes, signs = made.axes[steps], made.signs[steps]
        index = made.origin.index.copy()
        index[axes] += signs  # the axes of a run differ
        return _Cube(
            index,
            made.origin.hidden + signs @ self.columns[axes],
            made.origin.key + (signs * self.weights[axes]).sum(keepdims=True),
            made.origin.n_steps + len(axes),
        )

    def expand(self, entries: list[tuple[float, int, int, int, int]]) -> tuple[int, int] | None:
        """Evaluate what follows cubes of the heap; return the place of the target if it is among it."""
        cubes = [self.cube(family, position) for _, _, family, position, _ in entries]
        values, slopes = self.slopes(np.stack([cube.hidden for cube in cubes]))
        made: list[tuple[int, Floats, Integers, Integers]] = []
        for (priority, _, family, position, visits), cube, value, slope in zip(
            entries, cubes, values, slopes, strict=True
        ):
            if visits == 0:
                axes, signs = self.towards(cube, value, slope)
            else:
                axes, signs, is_more = self.around(cube, value, slope, visits - 1)
            if visits == 0 or is_more:
                self.push(priority, family, position, visits + 1)
            steps = signs[:, None] * self.columns[axes]
            keys = signs * self.weights[axes]
            left = np.where(signs * (self.target - cube.index)[axes] > 0, -1, 1)
            if visits == 0:
                steps, keys, left = (changes.cumsum(axis=0) for changes in (steps, keys, left))
            keys = keys + cube.key
            fresh = np.array([key not in self.seen for key in keys.tolist()], dtype=np.bool_)
            if visits == 0:
                fresh = np.logical_and.accumulate(fresh)
            if not fresh.any():
                continue
            self.families.append(_Family(cube, (family, position), axes[fresh], signs[fresh], visits == 0))
            left = left[fresh] + int(np.abs(self.target - cube.index).sum())
            made.append((len(self.families) - 1, cube.hidden + steps[fresh], keys[fresh], left))
        if not made:
            return None
        found = self.values(np.concatenate([hidden for _, hidden, _, _ in made]))
        self.n_evaluated += len(found)
        good, penalties = self.carry(found), self.penalty(found)
        first = 0
        for place, _, keys, left in made:
            part = slice(first, first + len(keys))
            first += len(keys)
            end = self.keep(place, keys, left, good[part], penalties[part])
            if end is not None:
                return end
        return None

    def slopes(self, hidden: Floats) -> tuple[Floats, Floats]:
        """Return values, and by how much they change a step along each axis, to first order."""
        with torch.enable_grad():
            before = torch.from_numpy(hidden).requires_grad_()
            values = self.rest(before)[:, 0]
            (gradient,) = torch.autograd.grad(values.sum(), before)
        return values.detach().numpy(), gradient.numpy() @ self.columns.T

    def towards(self, cube: _Cube, value: float, slope: Floats) -> tuple[Integers, Integers]:
        """Return a run: steps towards the target along different axes that hold the value in the middle."""
        left = self.target - cube.index
        axes = np.argsort(-np.abs(left), kind="stable")[: np.count_nonzero(left)]
        signs = np.sign(left[axes])
        changes = (signs * slope[axes]).tolist()
        up = iter([i for i, change in enumerate(changes) if change > 0])
        down = iter([i for i, change in enumerate(changes) if change <= 0])
        middle = (self.label + 1) * self.delta / 2
        order: list[int] = []
        for _ in range(min(self.n_ahead, len(axes))):
            wanted, other = (down, up) if value > middle else (up, down)
            step = next(wanted, None)
            if step is None:
                step = next(other)
            order.append(step)
            value += changes[step]
        return axes[order], signs[order]

    def around(self, cube: _Cube, value: float, slope: Floats, part: int) -> tuple[Integers, Integers, bool]:
        """Return the neighbours inside the box, that part of them whose turn it is, and whether there are more."""
        dimension = len(self.target)
        axes = np.concatenate([np.arange(dimension)] * 2)
        signs = np.repeat(np.array([1, -1]), dimension)
        moved = cube.index[axes] + signs
        is_inside = (moved >= 0) & (moved < self.n_cells)
        axes, signs = axes[is_inside], signs[is_inside]
        away = signs * (self.target - cube.index)[axes] <= 0
        order = np.argsort(3.0 * away + self.penalty(value + signs * slope[axes]), kind="stable")
        chosen = order[part * _BATCH : (part + 1) * _BATCH]
        return axes[chosen], signs[chosen], len(order) > (part + 1) * _BATCH

    def keep(
        self, place: int, keys: Integers, left: Integers, good: NDArray[np.bool_], penalties: Floats
    ) -> tuple[int, int] | None:
        """Put the cubes of a family that carry the label on the heap; return the place of the target if it is there."""
        family = self.families[place]
        for position, key in enumerate(keys.tolist()):
            is_new = key not in self.seen  # it may have been reached from another cube of this batch
            self.seen.add(key)
            if not (is_new and good[position]):
                if family.is_run:
                    self.n_ahead = min(_LONGEST, max(_SHORTEST, 2 * position))
                    break
                continue
            self.n_reached += 1
            if left[position] == 0:
                return place, position
            n_steps = family.origin.n_steps + (position + 1 if family.is_run else 1)
            self.push(2.0 * float(left[position]) + n_steps + float(penalties[position]), place, position, 0)
        else:
            if family.is_run:
                self.n_ahead = min(_LONGEST, 2 * self.n_ahead)
        return None

    def path(self) -> tuple[Integers, Integers]:
        """Return the axes and signs of the path that was found."""
        place = self.end or (0, -1)
        nothing = np.empty(0, dtype=np.int64)
        parts = [(nothing, nothing)]
        while place[0] > 0:
            family = self.families[place[0]]
            steps = family.steps(place[1])
            parts.append((family.axes[steps], family.signs[steps]))
            place = family.parent
        axes, signs = (np.concatenate(part[::-1]) for part in zip(*parts, strict=True))
        return axes, signs


def first_layer(network: nn.Sequential) -> nn.Linear:
    """Return the first layer, or raise TypeError if the network is no Sequential that begins with one of float64."""
    if not isinstance(network, nn.Sequential) or len(network) < 2 or not isinstance(network[0], nn.Linear):
        raise TypeError("network must be a Sequential that begins with a Linear and goes on")
    first = network[0]
    if first.weight.dtype != torch.float64:
        raise TypeError(f"network must have weights of float64, got {first.weight.dtype}")
    if first.weight.device.type != "cpu":
        raise ValueError(f"network must be on the CPU, got one on {first.weight.device}")
    return first
