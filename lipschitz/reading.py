"""From a torch module to a list of steps: the one place that reads a network.

The network is run once, on two inputs, and what torch's dispatcher is asked for is written down: primitive operations,
below Python and below autograd, after :func:`torch.func.functionalize` has replaced views and in-place operations by
operations that only return something. (:func:`torch.export.export` builds on the same transformation; this takes a
tenth to a hundredth of its time, and other threads see nothing of it.) So a network is read as it runs: patched layers,
hooks, layers made on the way, aliases. What does not depend on the input counts as weights, in the precision in which
the network computes it.

What is not known, or mixes the inputs of a batch, is refused by name if the output depends on it. Every reading is
checked (:func:`verify`): the steps, computed in float64, must give the network's own outputs.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from lipschitz import graph, pointwise
from lipschitz.operations import REASONS, recognise
from lipschitz.recording import N_TRACED, PRODUCT, Call, NotKnownError, Recording, Value

_TORCH = str(Path(torch.__file__).parent) + os.sep
_SPREADS = (1.0, 0.1, 3.0, 0.0, 30.0, 1000.0)  # of the inputs on which a reading is checked
_SEED = 20240905
_FACTORIES = frozenset(
    """
    empty_like zeros_like ones_like full_like new_empty new_zeros new_ones new_full new_empty_strided
    """.split()  # noqa: SIM905 as a list it has sixty lines
)


def read(model: nn.Module, input_shape: Sequence[int]) -> tuple[graph.Step, ...]:
    """Return the steps of ``model`` in order, the input first and the output last.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode, on any device, with floating-point weights of at most 64 bits. What it does may be made of:
        products with constant matrices, convolutions of one or two axes; sums, differences, products and quotients
        with constants; concatenations, slices, flips, padding and whatever else moves numbers; BatchNorm with running
        statistics, LayerNorm, GroupNorm; max and average pooling, means and maxima over axes; ReLU, leaky ReLU, PReLU,
        ReLU6, hard tanh and sigmoid, clamping, absolute values, the functions of :mod:`lipschitz.pointwise`; softmax
        and its logarithm.
    input_shape : sequence of int
        Of one input, without the batch axis.

    Returns
    -------
    tuple of Step
        What they compute has been compared with what the network computes (:func:`verify`).

    Raises
    ------
    ValueError
        If the network does something else, does not treat each input of a batch alone, or is in training mode where
        that matters: the message names the layer or the line of code, the reason, and what would do. If it does not
        take such inputs, returns anything but one tensor, or does not compute what was read.
    TypeError
        If weights are complex.

    Notes
    -----
    Cost: some passes through the network on a few inputs. Nothing is drawn from a global generator; the weights and
    buffers stay as they are.

    Examples
    --------
    >>> [step.kind for step in read(nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval(), (3,))]
    ['input', 'linear', 'relu']
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    try:
        shape = tuple(operator.index(length) for length in input_shape)
    except TypeError:
        raise TypeError(f"input_shape must hold whole numbers, got {input_shape}") from None
    if min(shape, default=1) < 1:
        raise ValueError(f"input_shape must hold positive lengths, got {shape}")
    probes = _probes(shape, _like(model))
    try:
        steps, is_changed = _read(model, probes[:N_TRACED])
        if is_changed:  # a network may keep what its first run made; the second then keeps nothing
            _run(model, probes[:N_TRACED])
            steps, is_changed = _read(model, probes[:N_TRACED])
    except NotKnownError as error:
        raise ValueError(str(error)) from None
    if is_changed:
        raise ValueError("model must be a function of its input alone, got one that keeps other tensors as it runs")
    verify(model, steps, probes)
    return steps


def verify(model: nn.Module, steps: Sequence[graph.Step], inputs: torch.Tensor) -> None:
    """Raise ValueError unless the steps give the network's own outputs for inputs (n, ...), n at least 1.

    The network runs in its own precision, with unit roundoff u, on all inputs together without gradients and on each
    alone with gradients; it gets copies. Let v be the largest number on the way, and d the difference that evaluating
    the steps in float32 makes, for an input. Its outputs must agree with those of the steps in float64 within
    64 u v + 32 d u / 2^-24: so much may rounding do.
    """
    with torch.inference_mode(False), torch.no_grad():
        given = inputs.detach().to(_like(model))
        wide = given.cpu().to(torch.float64)
        values = graph.outputs(steps, wide)
        exact = values[-1].flatten(1) if values[-1].ndim > 1 else values[-1][:, None]
        rough = graph.evaluate(steps, wide.to(torch.float32)).to(torch.float64).reshape(exact.shape)
        limits = torch.finfo(given.dtype)
        unit = limits.eps / 2.0
        sizes = [value.abs().nan_to_num(nan=0.0, posinf=0.0).reshape(len(given), -1).amax(dim=1) for value in values]
        largest = torch.stack(sizes).amax(dim=0)[:, None]
        moved = (rough - exact).abs().amax(dim=1, keepdim=True)
        tolerance = 64.0 * unit * largest + limits.tiny
        tolerance = tolerance + torch.where(moved.isfinite(), 32.0 * moved * unit * 2.0**24, 0.0)
        together = _run(model, given)
        alone = [_run(model, one, with_gradients=True) for one in given.chunk(len(given))]
        for own in (together, *alone):
            if not isinstance(own, torch.Tensor) or own.numel() % exact.shape[1]:
                got = tuple(own.shape) if isinstance(own, torch.Tensor) else type(own).__name__
                raise ValueError(f"model must return {exact.shape[1]} numbers for each input, got {got}")
        # it may squeeze a batch of one
        found = [own.detach().cpu().to(torch.float64).reshape(-1, exact.shape[1]) for own in (together, *alone)]
        for own in (found[0], torch.cat(found[1:])):
            if len(own) != len(exact):
                raise ValueError(f"model must return {len(exact)} outputs for {len(exact)} inputs, got {len(own)}")
            # beyond the range of its own precision the network has no number to compare with
            is_beyond = ~own.isfinite() & (~exact.isfinite() | (largest > 0.1 * limits.max))
            gap = (own - exact).abs()
            is_wrong = ~((gap <= tolerance) | is_beyond)
            if bool(is_wrong.any()):
                worst = int(gap.nan_to_num(nan=math.inf).amax(dim=1).argmax())
                raise ValueError(
                    "model must compute what was read of it, as a function of its input alone, got outputs that "
                    f"differ by {float(gap[worst].nan_to_num(nan=math.inf).max()):.3g} where rounding explains "
                    f"{float(tolerance[worst]):.3g}"
                )


def _run(model: nn.Module, inputs: torch.Tensor, *, with_gradients: bool = False) -> Any:
    """Return what a network makes of a copy of inputs (n, ...)."""
    try:
        with torch.set_grad_enabled(with_gradients):
            return model(inputs.clone())
    except (Exception, SystemExit) as error:
        raise _unfit(inputs, error) from error


def _unfit(inputs: torch.Tensor, error: BaseException) -> ValueError:
    """Return the one line for whatever a network raises."""
    lines = str(error).strip().splitlines() or [""]
    kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "  # torch's own
    return ValueError(
        f"model must take inputs of shape {tuple(inputs.shape[1:])}, {len(inputs)} at once: {kind}{lines[0]}"
    )


def _kept_tensors(model: nn.Module) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the dictionaries in which a network's layers hold things, and what they hold."""
    found = []
    for layer in model.modules():
        found += [(held, dict(held)) for held in (layer.__dict__, layer._parameters, layer._buffers)]
    return found


def _restore(kept: list[tuple[dict[str, Any], dict[str, Any]]]) -> bool:
    """Put back the tensors that a network's layers held, and return whether any was another one."""
    is_changed = False
    for held, before in kept:
        for name in {*held, *before}:
            now, then = held.get(name), before.get(name)
            if now is not then and (isinstance(now, torch.Tensor) or isinstance(then, torch.Tensor)):
                is_changed = True
                if name in before:
                    held[name] = then
                else:
                    del held[name]
    return is_changed


def _read(model: nn.Module, inputs: torch.Tensor) -> tuple[tuple[graph.Step, ...], bool]:
    """Return the steps, and whether the network kept other tensors than before; what it held is put back."""
    kept = _kept_tensors(model)
    with torch.inference_mode(False), torch.no_grad():
        reader = _Reader(inputs.clone(), model)
        try:
            with _NoWayOut(), reader:
                output = torch.func.functionalize(lambda x: model(x))(reader.inputs)
        except NotKnownError:
            raise
        except (Exception, SystemExit) as error:
            raise _unfit(inputs, error) from error
        finally:
            is_changed = _restore(kept)
        return reader.finish(output), is_changed


def _like(model: nn.Module) -> torch.Tensor:
    """Return a number of the precision and on the device of a network's inputs."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    for name, tensor in tensors:
        if tensor.is_complex():
            raise TypeError(f"weights must be real floating-point numbers, got {name!r} of {tensor.dtype}")
        if tensor.is_meta:
            raise ValueError(f"weights must hold numbers, got {name!r} on the device meta")
    found = (tensor.detach() for _, tensor in tensors if tensor.is_floating_point())
    return next(found, torch.zeros((), device="cpu"))


def _probes(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(_SEED)
    try:
        noise = torch.randn(len(_SPREADS), *shape, generator=generator, dtype=torch.float64, device="cpu")
    except RuntimeError:
        raise ValueError(f"input_shape must fit into memory, got {shape}") from None
    spreads = torch.tensor(_SPREADS, dtype=torch.float64).reshape(-1, *(1,) * len(shape))
    probes = noise * spreads
    return torch.cat([probes, -probes[-2:]]).to(dtype=like.dtype, device=like.device)


class _Reader(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down the steps of what runs under it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler for this, which takes seconds."""
        return False

    def __init__(self, inputs: torch.Tensor, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.inputs = inputs
        self.layers = {id(layer): name for name, layer in model.named_modules()}
        self.recording = Recording(inputs)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        operation = func._schema.name.split("::")[-1]
        operation = operation if operation == "_to_copy" else operation.removesuffix("_copy")
        if func.namespace != "aten":  # somebody's own, whatever it is called
            operation = f"{func.namespace}::{operation}"
        if func._schema.is_mutable and args and args[0] is self.inputs:
            return args[0]  # functionalize's last act: what the network did to its input in place
        if operation == "as_strided_" and _keeps_values(func, args):
            return args[0]
        is_random = torch.Tag.nondeterministic_seeded in func.tags and operation not in REASONS
        if func._schema.is_mutable or is_random:
            raise self._impure(operation, func._schema.is_mutable)
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        known = [value for tensor in tensors if (value := self.recording.value(tensor)) is not None]
        result = func(*args, **kwargs)
        if not known or operation in _FACTORIES:
            return result
        results = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        name, label, _ = self._where(operation)
        if not results or (_DYNAMIC.intersection(func.tags) and _chooses(operation, args, self.recording)):
            raise NotKnownError(
                f"{label} must not become a number or a shape, got {operation}: which operations run may not depend on "
                "the input"
            )
        shape = tuple(results[0].shape) if results else ()
        call = Call(name=name, label=label, function=func, args=args, kwargs=kwargs, shape=shape)
        unread = Value(0, problem=f"{label} must be read by its values alone, got other results of it read, too")
        try:
            if problem := next((value.problem for value in known if value.problem), ""):
                raise NotKnownError(problem)
            found = recognise(operation, self.recording, call, results)
        except NotKnownError as error:
            found, unread = [], Value(0, problem=str(error))
        for place, tensor in enumerate(results):
            self.recording.know(tensor, found[place] if place < len(found) else unread)
        return result

    def finish(self, output: Any) -> tuple[graph.Step, ...]:
        """Return the steps that lead to the output, which is the last."""
        if not isinstance(output, torch.Tensor):
            raise NotKnownError(f"model must return one tensor, got {type(output).__name__}")
        value = self.recording.value(output)
        if value is None:
            raise NotKnownError("model must compute its output from its input by operations of torch that can be seen")
        if value.problem:
            raise NotKnownError(value.problem)
        shape = tuple(output.shape)
        call = Call(name="output", label="model", function=None, args=(output,), kwargs={}, shape=shape)
        if shape[:1] != (N_TRACED,):
            raise call.refuse(f"must keep the batch axis first, got outputs of shape {shape} for {N_TRACED} inputs")
        if 0 in shape:
            raise call.refuse(f"must return at least one number, got shape {shape}")
        last = self.recording.place(value, shape, call)
        if last == 0:  # the network is the identity
            last = self.recording.add(call, "reshape", (0,), shape[1:]).step
        steps = _with_distribution_function(self.recording.steps)
        needed = {0, last}
        for place in range(last, -1, -1):
            needed.update(steps[place].inputs if place in needed else ())
        numbers = {place: number for number, place in enumerate(sorted(needed))}
        uses: dict[str, int] = {}
        found = []
        for place in numbers:
            name = steps[place].name
            uses[name] = uses.get(name, 0) + 1
            found.append(
                dataclasses.replace(
                    steps[place],
                    name=name if uses[name] == 1 else f"{name}#{uses[name]}",
                    inputs=tuple(numbers[source] for source in steps[place].inputs),
                )
            )
        return tuple(found)

    def _impure(self, operation: str, is_mutable: bool) -> NotKnownError:
        _, label, layer = self._where(operation)
        rule = "be a function of its input alone"
        if layer is not None and layer.training:
            rule = "be in evaluation mode (call .eval())"
        what = "changes numbers that it did not make" if is_mutable else "draws random numbers"
        return NotKnownError(f"{label} must {rule}, got {operation}, which {what}")

    def _where(self, operation: str) -> tuple[str, str, nn.Module | None]:
        """Return a name for what runs, the same for a message, and the innermost layer that runs."""
        layer, line = None, ""
        for frame in _frames():
            inside = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
            if layer is None and isinstance(inside, nn.Module) and id(inside) in self.layers:
                layer = inside
            file = frame.f_code.co_filename
            if not line and not file.startswith(_TORCH):
                line = f"{Path(file).name}:{frame.f_lineno}"
            if layer is not None and line:
                break
        path = "" if layer is None else self.layers[id(layer)]
        if layer is not None and type(layer).__module__.startswith("torch."):
            name = path or type(layer).__name__
            return name, f"layer {name!r} ({type(layer).__name__})", layer
        name = f"{path}.{operation} ({line})" if path else f"{operation} ({line})"
        return name, f"operation {name!r}", layer


_DYNAMIC = frozenset((torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output))
_WAYS_OUT = frozenset(
    """
    numpy __array__ tolist __dlpack__ to_dlpack _to_dlpack from_dlpack data_ptr storage _storage untyped_storage
    __repr__ __format__
    """.split()  # noqa: SIM905 as a list it has a line each
)


def _chooses(operation: str, args: tuple[Any, ...], recording: Recording) -> bool:
    """Whether the shape of a result depends on what depends on the input: of an index, on the index alone."""
    if operation != "index":
        return True
    return any(recording.value(tensor) is not None for tensor in pytree.tree_leaves(args[1]))


class _NoWayOut(TorchFunctionMode):
    """Refuses what takes numbers out of torch, where they cannot be followed, and attention by its own name."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        name = getattr(func, "__name__", "")
        if name in ("multi_head_attention_forward", "scaled_dot_product_attention"):
            raise NotKnownError(f"model must not have attention, got {name}: {PRODUCT}")
        leaves = pytree.tree_leaves((args, kwargs))
        if name in _WAYS_OUT and any(isinstance(leaf, torch.Tensor) and _is_made(leaf) for leaf in leaves):
            raise NotKnownError(f"model must compute by operations of torch alone, got {name} of a tensor on the way")
        return func(*args, **(kwargs or {}))


def _is_made(tensor: torch.Tensor) -> bool:
    return bool(torch._is_functional_tensor(tensor) or torch._C._functorch.is_functionaltensor(tensor))


def _with_distribution_function(steps: Sequence[graph.Step]) -> list[graph.Step]:
    """Put the Gaussian distribution function where torch has (1 + erf(x / sqrt(2))) / 2, which is how it runs it."""
    found = list(steps)
    for place in range(4, len(steps)):
        four = steps[place - 3 : place + 1]
        is_in_line = [step.inputs for step in four[1:]] == [(place - 3,), (place - 2,), (place - 1,)]
        is_erf = [step.kind for step in four] == ["scale", "smooth", "shift", "scale"]
        if not (is_in_line and is_erf and four[1].function is pointwise.ERF):
            continue
        constants = [step.constant for step in four if step.constant is not None]
        if [float(constant) if constant.ndim == 0 else None for constant in constants] == [math.sqrt(0.5), 1.0, 0.5]:
            found[place] = dataclasses.replace(
                four[3],
                name=four[3].name.replace("mul (", "ndtr ("),
                kind="smooth",
                inputs=four[0].inputs,
                constant=None,
                function=pointwise.GAUSSIAN_CDF,
            )
    return found


def _keeps_values(restride: Any, args: tuple[Any, ...]) -> bool:
    """Lay a tensor out in memory as asked, as pooling does where channels come last; return whether it is as before."""
    before = args[0].clone()
    restride(*args)
    return torch.equal(before, args[0])


def _frames() -> Iterator[FrameType]:
    """Yield the frames of what the network runs, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _read.__code__:
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back
