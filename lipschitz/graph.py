"""What a network computes, as a list of known steps: the one place that reads a torch module.

A module is traced by :mod:`torch.fx`, and every operation in it becomes one :class:`Step` of a known kind. What is not
known is refused by name, never skipped: bounds and certificates may therefore trust the list. :func:`evaluate` runs it
in any precision from the stored weights.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import fx, nn
from torch.nn import functional

from lipschitz.fully_connected import POINTWISE

Kind = Literal[
    "input",
    "linear",
    "convolution",
    "batch_norm",
    "relu",
    "leaky_relu",
    "smooth",
    "max_pool",
    "average_pool",
    "add",
    "concatenate",
    "reshape",
    "pick",
    "scale",
    "shift",
    "identity",
]
# What stands for a kind when called as a function of tensors.
_FUNCTIONS: dict[Any, Kind] = {
    operator.add: "add",
    operator.iadd: "add",
    torch.add: "add",
    operator.mul: "scale",
    torch.mul: "scale",
    torch.cat: "concatenate",
    functional.relu: "relu",
    torch.relu: "relu",
    torch.flatten: "reshape",
    torch.unsqueeze: "reshape",
    operator.getitem: "pick",
}
_METHODS: dict[str, Kind] = {
    "relu": "relu",
    "relu_": "relu",
    "flatten": "reshape",
    "unsqueeze": "reshape",
    "add": "add",
}
_LAYERS: dict[type[nn.Module], Kind] = {
    nn.Linear: "linear",
    nn.Conv1d: "convolution",
    nn.Conv2d: "convolution",
    nn.BatchNorm1d: "batch_norm",
    nn.BatchNorm2d: "batch_norm",
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky_relu",
    nn.MaxPool2d: "max_pool",
    nn.AvgPool2d: "average_pool",
    nn.AdaptiveAvgPool2d: "average_pool",
    nn.Flatten: "reshape",
    nn.Identity: "identity",
    nn.Dropout: "identity",
    nn.Dropout2d: "identity",
    **{pointwise.module: "smooth" for name, pointwise in POINTWISE.items() if name != "relu"},
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One operation of a network.

    Parameters
    ----------
    name : str
        As the network names it; the k-th use of a layer, k > 1, ends in ``#k``.
    kind : str
        What it does: ``smooth`` is a pointwise function of :data:`lipschitz.fully_connected.POINTWISE`,
        ``average_pool`` also an adaptive one, ``pick`` takes one channel, ``scale`` and ``shift`` multiply by and add a
        constant number, ``reshape`` flattens or inserts an axis.
    inputs : tuple of int
        The steps whose outputs it reads, by their place in the list.
    shape : tuple of int
        Of its output for one input, without the batch axis.
    layer : torch.nn.Module or None
        The layer, for the kinds that have weights or settings.
    constant : float
        The slope of ``leaky_relu``, the number of ``scale`` and ``shift``, the place that ``pick`` takes.
    """

    name: str
    kind: Kind
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    layer: nn.Module | None = None
    constant: float = 0.0


def read(model: nn.Module, input_shape: Sequence[int]) -> tuple[Step, ...]:
    """Return the steps of ``model`` in order, the input first and the output last.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode, on any device. Of Linear, Conv1d and Conv2d padded with zeros, BatchNorm1d and 2d, ReLU,
        LeakyReLU, Tanh, Sigmoid, Erf, Sin, GaussianCdf, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Flatten, Dropout and
        Identity; sums and concatenations of what came before; multiplication by and addition of numbers; one channel.
    input_shape : sequence of int
        Of one input, without the batch axis.

    Raises
    ------
    ValueError
        If the model does something else, which the message names; if a layer has hooks or parametrizations or is in
        training mode where that matters; if the model cannot be traced, or does not take such an input.

    Examples
    --------
    >>> [step.kind for step in read(nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval(), (3,))]
    ['input', 'linear', 'relu']
    """
    for name, layer in model.named_modules():
        if layer._forward_hooks or layer._forward_pre_hooks or hasattr(layer, "parametrizations"):
            raise ValueError(
                f"layer {name or 'model'!r} must have no hooks or parametrizations, got {type(layer).__name__}"
            )
    traced = _trace(model, tuple(input_shape))
    steps: list[Step] = []
    places: dict[fx.Node, int] = {}
    uses: dict[str, int] = {}
    for node in traced.graph.nodes:
        if node.op == "output":
            return tuple(steps[: places[node.args[0]] + 1])
        name = str(node.target) if node.op == "call_module" else node.name
        uses[name] = uses.get(name, 0) + 1
        kind, constant = _recognise(node, traced)
        layer = traced.get_submodule(node.target) if node.op == "call_module" else None
        if node.meta["shape"][:1] != (1,):
            raise ValueError(
                f"operation {name!r} must keep the batch axis, got shape {node.meta['shape']} for one input"
            )
        steps.append(
            Step(
                name=name if uses[name] == 1 else f"{name}#{uses[name]}",
                kind=kind,
                inputs=tuple(places[source] for source in node.all_input_nodes),
                shape=node.meta["shape"][1:],
                layer=layer,
                constant=constant,
            )
        )
        places[node] = len(steps) - 1
    raise AssertionError("a traced graph ends in its output")


def evaluate(steps: Sequence[Step], inputs: torch.Tensor) -> torch.Tensor:
    """Return the network's outputs, computed in the precision and on the device of ``inputs``, shape (n, ...)."""
    values: list[torch.Tensor] = []
    for step in steps:
        values.append(inputs if step.kind == "input" else apply(step, [values[i] for i in step.inputs]))
    return values[-1]


def apply(step: Step, values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return what a step makes of the outputs of those it reads, shape (n, ...) each, in their precision."""
    first = values[0]

    def like_first(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.detach().to(first)

    layer: Any = step.layer
    match step.kind:
        case "linear":
            return functional.linear(first, layer.weight.detach().to(first), like_first(layer.bias))
        case "convolution":
            convolve: Callable[..., torch.Tensor] = (
                functional.conv2d if isinstance(layer, nn.Conv2d) else functional.conv1d
            )
            weight, bias = layer.weight.detach().to(first), like_first(layer.bias)
            return convolve(first, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        case "batch_norm":
            scale, shift = batch_norm(layer, first)
            axes = (1, -1, *(1,) * (first.ndim - 2))
            return first * scale.reshape(axes) + shift.reshape(axes)
        case "relu":
            return functional.relu(first)
        case "leaky_relu":
            return functional.leaky_relu(first, step.constant)
        case "max_pool":
            return functional.max_pool2d(
                first, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode
            )
        case "smooth" | "average_pool":
            result: torch.Tensor = layer(first)
            return result
        case "add":
            return values[0] + values[-1]  # of itself, where it is read once
        case "concatenate":
            return torch.cat(list(values), dim=1)
        case "reshape":
            return first.reshape(len(first), *step.shape)
        case "pick":
            return first[:, int(step.constant)]
        case "scale":
            return first * step.constant
        case "shift":
            return first + step.constant
    return first


def batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a BatchNorm's scale and shift in evaluation mode, one number a channel, in the precision of ``like``."""
    mean, variance = (
        buffer.detach().to(like) for buffer in (layer.running_mean, layer.running_var) if buffer is not None
    )
    scale = torch.rsqrt(variance + layer.eps)
    if layer.weight is not None:
        scale = scale * layer.weight.detach().to(like)
    shift = -mean * scale
    return scale, shift if layer.bias is None else shift + layer.bias.detach().to(like)


_tracing = threading.Lock()  # two traces would undo each other's replacement of Module.__call__ in the wrong order


class _Tracer(fx.Tracer):
    """Traces into everything but layers that are known, or torch's own, and nothing that another thread does meanwhile.

    For the time of a trace, torch.fx replaces ``torch.nn.Module.__call__`` in every thread of the process.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a module: as it is in another thread."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return an attribute of a module: as it is in another thread."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in _LAYERS or super().is_leaf_module(m, module_qualified_name)


def _trace_alone(root: nn.Module) -> fx.Graph:
    with _tracing:
        return _Tracer().trace(root)


class _Shapes(fx.Interpreter):
    """Runs a traced model and notes the shape of every node's output."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = tuple(getattr(result, "shape", ()))
        return result


def _trace(model: nn.Module, input_shape: tuple[int, ...]) -> fx.GraphModule:
    """Return the traced model, every node with the shape of its output for one input of zeros."""
    root = nn.Sequential(model) if type(model) in _LAYERS else model
    try:
        traced = fx.GraphModule(root, _chain(root) or _trace_alone(root))
    except Exception as error:
        raise ValueError(f"model must be traceable by torch.fx, got {type(error).__name__}: {error}") from error
    nodes = list(traced.graph.nodes)
    if sum(node.op == "placeholder" for node in nodes) != 1:
        raise ValueError("model must have one input")
    if not isinstance(nodes[-1].args[0], fx.Node):
        raise ValueError(f"model must return one tensor, got {type(nodes[-1].args[0]).__name__}")
    for node in nodes:
        _recognise(node, traced)
    like = next(model.parameters(), torch.zeros(()))
    try:
        with torch.no_grad():
            _Shapes(traced).run(like.new_zeros((1, *input_shape)))
    except (RuntimeError, ValueError, IndexError) as error:
        raise ValueError(f"model must take inputs of shape {input_shape}: {str(error).splitlines()[0]}") from error
    return traced


def _chain(root: nn.Module) -> fx.Graph | None:
    """Return the graph of nested Sequentials of known layers, or None for anything else.

    These need no tracing, which takes four times as long and its turn among threads.
    """
    names: dict[int, str] = {}
    chain: list[str] = []

    def walk(module: nn.Module, name: str) -> bool:
        if type(module) is nn.Sequential:  # not named_children(), which drops repetitions
            children = module._modules.items()
            return all(child is None or walk(child, f"{name}.{key}" if name else key) for key, child in children)
        chain.append(names.setdefault(id(module), name))
        return type(module) in _LAYERS

    if not walk(root, ""):
        return None
    graph = fx.Graph()
    node = graph.placeholder("input")
    for name in chain:
        node = graph.call_module(name, (node,))
    graph.output(node)
    return graph


def _recognise(node: fx.Node, traced: fx.GraphModule) -> tuple[Kind, float]:
    """Return a node's kind and its constant, or raise ValueError that names it."""
    known = f"known are {', '.join(layer.__name__ for layer in _LAYERS)}, sums, concatenations, and relu and flatten"
    name = str(node.target) if node.op == "call_module" else node.name
    if node.op in ("placeholder", "output"):
        return "input", 0.0
    if node.op == "call_module":
        return _recognise_layer(traced.get_submodule(str(node.target)), name, known)
    table: dict[Any, Kind] = {"call_function": _FUNCTIONS, "call_method": _METHODS}.get(node.op, {})
    kind = table.get(node.target)
    if kind is None:
        what = getattr(node.target, "__name__", node.target)
        raise ValueError(f"operation {name!r} must be one that is known, got {what} ({known})")
    numbers = [argument for argument in node.args if isinstance(argument, (int, float))]
    if kind in ("add", "scale") and len(node.all_input_nodes) == 1 and len(numbers) == 1:
        return ("shift" if kind == "add" else "scale"), float(numbers[0])
    if kind == "scale" or (kind == "add" and node.kwargs):
        raise ValueError(f"operation {name!r} must multiply by or add a number, or add two tensors, got something else")
    if kind == "add" and len({source.meta.get("shape") for source in node.all_input_nodes}) > 1:
        raise ValueError(f"operation {name!r} must add tensors of one shape")
    if kind == "concatenate" and (node.args[1:] or [node.kwargs.get("dim", 0)])[0] != 1:
        raise ValueError(f"operation {name!r} must concatenate along axis 1")
    if kind == "concatenate" and len(node.all_input_nodes) != len(cast("list[fx.Node]", node.args[0])):
        raise ValueError(f"operation {name!r} must concatenate different tensors")
    if kind == "pick":
        place = node.args[1]
        if not (isinstance(place, tuple) and len(place) == 2 and place[0] == slice(None) and isinstance(place[1], int)):
            raise ValueError(f"operation {name!r} must take one channel, x[:, k], got {place}")
        return kind, float(place[1])
    return kind, 0.0


def _recognise_layer(layer: nn.Module, name: str, known: str) -> tuple[Kind, float]:
    kind = _LAYERS.get(type(layer))
    if kind is None:
        raise ValueError(f"layer {name!r} must be one that is known, got {type(layer).__name__} ({known})")
    if isinstance(layer, (nn.Dropout, nn.Dropout2d, nn.BatchNorm1d, nn.BatchNorm2d)) and layer.training:
        raise ValueError(f"layer {name!r} must be in evaluation mode, got a {type(layer).__name__} in training mode")
    if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) and layer.running_mean is None:
        raise ValueError(f"layer {name!r} must have running statistics, got a {type(layer).__name__} without")
    if isinstance(layer, (nn.Conv1d, nn.Conv2d)) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        raise ValueError(
            f"layer {name!r} must be padded with a number of zeros, got {layer.padding_mode} {layer.padding}"
        )
    if isinstance(layer, nn.MaxPool2d) and layer.return_indices:
        raise ValueError(f"layer {name!r} must return values alone, got a MaxPool2d that returns indices")
    return kind, float(layer.negative_slope) if isinstance(layer, nn.LeakyReLU) else 0.0
