"""Tensors of a running network, followed as numbers of the outputs of steps.

A tensor that depends on the input is known by the step that made its numbers and, where something has moved them since,
by their places in that step's output. So reshaping, slicing and the like cost nothing until a step needs the tensor as
it stands; then one ``reshape`` or one ``gather`` is written down.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from lipschitz import graph

PRODUCT = "a product or quotient of two outputs (attention, gates, squares) has no global Lipschitz constant"
"""Why these cannot be read."""

N_TRACED = 2
"""Inputs that are run together, so that it shows if they are mixed."""

# What only moves numbers, leaves some out, repeats some, or puts zeros or constants between them.
MOVES = frozenset(
    """
    view _unsafe_view reshape unsqueeze squeeze permute transpose t expand slice select flip roll stack cat
    split split_with_sizes unbind index index_select constant_pad_nd reflection_pad1d reflection_pad2d
    replication_pad1d replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    upsample_nearest1d upsample_nearest2d repeat as_strided diagonal tril triu unfold slice_scatter
    select_scatter copy clone detach alias lift_fresh _to_copy where masked_fill fill index_put im2col movedim
    """.split()  # noqa: SIM905 as a list it has sixty lines
)
_KEEPS_ORDER = frozenset(
    """
    view _unsafe_view reshape unsqueeze squeeze clone detach alias lift_fresh _to_copy
    """.split()  # noqa: SIM905 as a list it has sixty lines
)
_FILLS = {"constant_pad_nd": 2, "masked_fill": 2, "fill": 1}  # which argument is a number that it puts somewhere


class NotKnownError(Exception):
    """Something that a network does and that has no step; the message is for the user."""


@dataclasses.dataclass(slots=True)
class Value:
    """A tensor that depends on the input: numbers of a step's output, by their places.

    ``places`` has the tensor's shape and holds 1 + the place in the step's output for the whole batch, flattened, or 0
    for a zero; None where the order is that of the output. ``problem`` says why the tensor cannot be read.
    """

    step: int
    places: torch.Tensor | None = None
    name: str = ""
    problem: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operation that the network asks for: what it is called, its arguments, the shape of its first result."""

    name: str
    label: str  # for messages
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument by its place or its name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def refuse(self, what: str) -> NotKnownError:
        """Return the error that says what the operation must do."""
        return NotKnownError(f"{self.label} {what}")


class Recording:
    """The steps so far, and the tensors that are known."""

    def __init__(self, inputs: torch.Tensor) -> None:
        self.steps = [graph.Step(name="input", kind="input", inputs=(), shape=tuple(inputs.shape[1:]))]
        self._values: dict[int, Value] = {}
        self._kept: list[torch.Tensor] = []  # so that no other tensor gets the id of one that is known
        self._modules: dict[tuple[Any, ...], nn.Module] = {}
        self.know(inputs, Value(0))

    def know(self, tensor: torch.Tensor, value: Value) -> None:
        """Remember what a tensor is."""
        self._kept.append(tensor)
        self._values[id(tensor)] = value

    def value(self, tensor: Any) -> Value | None:
        """Return what a tensor is, or None if it does not depend on the input."""
        return self._values.get(id(tensor))

    def known(self, tensor: torch.Tensor) -> Value:
        """Return what a tensor is that depends on the input."""
        return self._values[id(tensor)]

    def add(
        self,
        call: Call,
        kind: graph.Kind,
        inputs: tuple[int, ...],
        shape: Sequence[int],
        *,
        name: str = "",
        **fields: Any,
    ) -> Value:
        """Write a step down and return its output."""
        self.steps.append(graph.Step(name=name or call.name, kind=kind, inputs=inputs, shape=tuple(shape), **fields))
        return Value(len(self.steps) - 1)

    def module(self, settings: tuple[Any, ...], tensors: Sequence[Any], make: Callable[[], nn.Module]) -> nn.Module:
        """Return the module of these settings and weights: the same one for the same, as norms are found once a module.

        A tensor is the same if it is the same numbers in memory; all are kept alive.
        """
        self._kept.extend(tensor for tensor in tensors if tensor is not None)
        key = (*settings, *(None if t is None else (t.data_ptr(), t.dtype, t.shape, t.stride()) for t in tensors))
        if key not in self._modules:
            self._modules[key] = make()
        return self._modules[key]

    def batched(self, shape: Sequence[int], call: Call) -> tuple[int, ...]:
        """Return a tensor's shape with the batch axis first, also where it is merged with the one after it.

        One number an input counts as an axis of one.
        """
        if len(shape) == 0 or shape[0] == 0 or shape[0] % N_TRACED:
            raise call.refuse(f"must keep the batch axis first, got shape {tuple(shape)} for {N_TRACED} inputs")
        if shape[0] != N_TRACED:
            return (N_TRACED, shape[0] // N_TRACED, *shape[1:])
        return tuple(shape) if len(shape) > 1 else (N_TRACED, 1)

    def place(self, value: Value, shape: Sequence[int], call: Call) -> int:
        """Return the step whose output is the value, in a shape with the batch axis first; written down if need be."""
        step, inner = self.steps[value.step], tuple(shape[1:])
        name = value.name or f"{call.name}, its input"
        if value.places is None:
            if step.shape != inner:
                value.step = self.add(call, "reshape", (value.step,), inner, name=name).step
            return value.step
        n_numbers = math.prod(step.shape)
        places = value.places.reshape(N_TRACED, -1)
        offsets = n_numbers * torch.arange(N_TRACED).reshape(-1, 1)
        index = places[0]
        if bool((index > n_numbers).any()) or not torch.equal(places, torch.where(index > 0, index + offsets, 0)):
            raise call.refuse("must treat each input of a batch alone, got one that mixes them")
        value.places = None  # known from now on
        if torch.equal(index, torch.arange(1, n_numbers + 1)):
            return self.place(value, shape, call)
        value.step = self.add(call, "gather", (value.step,), inner, name=name, index=(index - 1).reshape(inner)).step
        return value.step

    def places(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return 1 + the places of a known tensor's numbers, 0 for zeros, in its shape."""
        places = self.known(tensor).places
        return torch.arange(1, tensor.numel() + 1).reshape(tensor.shape) if places is None else places

    def expanded(self, tensor: torch.Tensor, shape: tuple[int, ...], call: Call) -> Value:
        """Return a known tensor broadcast to a shape."""
        value = self.known(tensor)
        if tuple(tensor.shape) == shape:
            return value
        return Value(value.step, self.places(tensor).expand(shape), name=call.name)

    def constant(self, numbers: Any, shape: tuple[int, ...], call: Call) -> torch.Tensor:
        """Return numbers that broadcast to a tensor's shape as those for one input, in float64, as few as will do."""
        if not isinstance(numbers, torch.Tensor):
            return torch.tensor(float(numbers), dtype=torch.float64)
        if numbers.is_complex():
            raise call.refuse(f"must have real numbers, got {numbers.dtype}")
        wide = numbers.detach().cpu().to(torch.float64)
        if wide.numel() == 1:
            return wide.reshape(())
        rows = wide.expand(shape).reshape(self.batched(shape, call))
        if not torch.equal(rows.nan_to_num(), rows[:1].expand(rows.shape).nan_to_num()):
            raise call.refuse("must treat every input of a batch alike, got numbers that differ from one to the next")
        row = rows[0]
        for axis in range(row.ndim):
            first = row.narrow(axis, 0, 1)
            row = first if bool((row == first).all()) else row
        return row.clone()

    def shifted(self, value: Value, numbers: Any, shape: tuple[int, ...], call: Call) -> Value:
        """Return a value of a shape plus constants."""
        return self._with_constant("shift", value, self.constant(numbers, shape, call), shape, call)

    def scaled(self, value: Value, numbers: Any, shape: tuple[int, ...], call: Call) -> Value:
        """Return a value of a shape times constants."""
        return self._with_constant("scale", value, self.constant(numbers, shape, call), shape, call)

    def _with_constant(
        self, kind: graph.Kind, value: Value, constant: torch.Tensor, shape: tuple[int, ...], call: Call
    ) -> Value:
        if not bool(constant.isfinite().all()):
            raise call.refuse("must have finite numbers, got one that is not")
        if bool((constant == (0.0 if kind == "shift" else 1.0)).all()):
            return value
        place = self.place(value, self.batched(shape, call), call)
        return self.add(call, kind, (place,), self.steps[place].shape, constant=constant)

    def moved(self, operation: str, call: Call, results: Sequence[torch.Tensor]) -> list[Value]:
        """Return the results of one of :data:`MOVES`."""
        tensors = [leaf for leaf in pytree.tree_leaves((call.args, call.kwargs)) if isinstance(leaf, torch.Tensor)]
        known = list({id(tensor): tensor for tensor in tensors if self.value(tensor) is not None}.values())
        for before, after in itertools.product(known, results):
            if not before.is_floating_point() or not after.is_floating_point():
                raise call.refuse(f"must keep floating-point numbers, got {after.dtype} of {before.dtype}")
            if after.dtype.itemsize < before.dtype.itemsize or (after.dtype != before.dtype and operation == "view"):
                raise call.refuse(f"must not narrow numbers, got {after.dtype} of {before.dtype}")
        if operation in _KEEPS_ORDER and self.known(known[0]).places is None:
            return [Value(self.known(known[0]).step, name=call.name)]
        step, places = self.known(known[0]).step, {id(tensor): self.places(tensor) for tensor in known}
        if any(self.known(tensor).step != step for tensor in known):
            step, places = self._side_by_side(known, call)

        def run(of_known: Callable[[torch.Tensor], torch.Tensor], is_empty: bool) -> list[torch.Tensor]:
            """Run the operation on other numbers; ``is_empty``: with zeros for its constants."""

            def substitute(leaf: Any) -> Any:
                if not isinstance(leaf, torch.Tensor):
                    return leaf
                if id(leaf) in places:
                    return of_known(leaf)
                own = leaf.detach().cpu()
                if not own.is_floating_point():
                    return own
                return torch.zeros_like(own, dtype=torch.float64) if is_empty else own.to(torch.float64)

            args, kwargs = pytree.tree_map(substitute, (call.args, call.kwargs))
            if operation == "_to_copy":
                return [args[0]]
            if is_empty and operation in _FILLS:
                args = (*args[: _FILLS[operation]], 0.0)
            result = call.function(*args, **kwargs)
            return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]

        found = [
            Value(step, result.to(torch.int64), name=call.name)
            for result in run(lambda tensor: places[id(tensor)].to(torch.float64), is_empty=True)
        ]
        if len(tensors) > len(known) or operation in _FILLS:
            constants = run(lambda tensor: torch.zeros(tensor.shape, dtype=torch.float64), is_empty=False)
            found = [
                self.shifted(value, added, tuple(added.shape), call) if bool(added.any()) else value
                for value, added in zip(found, constants, strict=True)
            ]
        return found

    def _side_by_side(self, known: Sequence[torch.Tensor], call: Call) -> tuple[int, dict[int, torch.Tensor]]:
        """Return a step that holds several tensors one after the other, and their places in it."""
        lengths = [tensor.numel() // N_TRACED for tensor in known]
        steps = []
        for tensor, length in zip(known, lengths, strict=True):
            self.batched(tensor.shape, call)
            steps.append(self.place(dataclasses.replace(self.known(tensor)), (N_TRACED, length), call))
        total, start = sum(lengths), 1
        rows = total * torch.arange(N_TRACED).reshape(-1, 1)
        places = {}
        for tensor, length in zip(known, lengths, strict=True):
            places[id(tensor)] = (rows + start + torch.arange(length)).reshape(tensor.shape)
            start += length
        return self.add(call, "concatenate", tuple(steps), (total,)).step, places

    def side_by_side(self, tensors: Sequence[torch.Tensor], axis: int, call: Call) -> Value:
        """Return known tensors concatenated along an axis other than the first."""
        steps = tuple(
            self.place(dataclasses.replace(self.known(tensor)), self.batched(tensor.shape, call), call)
            for tensor in tensors
        )
        shape = self.batched(call.shape, call)
        return self.add(call, "concatenate", steps, shape[1:], axis=axis + len(shape) - len(call.shape) - 1)
