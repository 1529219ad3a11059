"""Layers among torch's primitive operations: products with weights, convolutions, poolings, normalisations, softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lipschitz import graph, pooling
from lipschitz.recording import N_TRACED, PRODUCT, Call, NotKnownError, Recording, Value


def place_of(recording: Recording, call: Call, tensor: Any = None) -> int:
    """Return the step of a known tensor, by default the first argument, with the batch axis first."""
    tensor = call.args[0] if tensor is None else tensor
    if recording.value(tensor) is None:
        raise call.refuse(f"must read what depends on the input first: {PRODUCT}")
    return recording.place(recording.known(tensor), recording.batched(tensor.shape, call), call)


def _weights(call: Call, *tensors: torch.Tensor | None) -> None:
    """Refuse weights that are not real floating-point numbers of at most 64 bits."""
    for tensor in tensors:
        if tensor is not None and not tensor.is_floating_point():
            raise call.refuse(f"must have real floating-point weights, got {tensor.dtype}")


def _with(module: nn.Module, **tensors: torch.Tensor | None) -> nn.Module:
    """Put tensors into a module as its parameters or buffers, without copying them, and return it."""
    for name, tensor in tensors.items():
        if name in module._buffers:
            module._buffers[name] = tensor
        else:
            module._parameters[name] = None if tensor is None else nn.Parameter(tensor.detach(), requires_grad=False)
    return module.eval()


def _linear(
    recording: Recording, call: Call, value: Value, shape: Sequence[int], matrix: Any, bias: Any = None
) -> Value:
    """Return value @ matrix + bias, the value of shape (rows, n), the others constant."""
    if recording.value(matrix) is not None or recording.value(bias) is not None:
        raise call.refuse(f"must have constant weights: {PRODUCT}")
    _weights(call, matrix, bias)
    own, n_inputs = recording.steps[value.step].shape, shape[1]
    if value.places is not None:  # rows may stand in any order, as where sequences come before the batch
        rows = value.places.reshape(tuple(shape))
        order = torch.argsort((rows.amax(dim=1) - 1) // math.prod(own), stable=True)
        if not torch.equal(order, torch.arange(len(order))):
            found = _linear(recording, call, Value(value.step, rows[order], name=value.name), shape, matrix, bias)
            places = torch.empty(shape[0], matrix.shape[1], dtype=torch.int64)
            places[order] = torch.arange(1, places.numel() + 1).reshape(places.shape)
            return Value(found.step, places, name=call.name)
    is_merged = value.places is None and own[-1:] == (n_inputs,) and shape[0] > N_TRACED
    batched = (N_TRACED, *own) if is_merged else recording.batched(shape, call)
    place = recording.place(value, batched, call)
    weight = matrix.T
    vector = bias.reshape(-1) if bias is not None and bias.numel() == len(weight) else None
    layer = recording.module(
        ("linear",),
        (matrix, vector),
        lambda: _with(
            nn.Linear(n_inputs, len(weight), bias=vector is not None, device="meta"), weight=weight, bias=vector
        ),
    )
    found = recording.add(call, "linear", (place,), (*batched[1:-1], len(weight)), layer=layer)
    return found if bias is None or vector is not None else recording.shifted(found, bias, call.shape, call)


def matrix_product(recording: Recording, call: Call) -> Value:
    """Return x @ W, or W @ x as the transpose of x^T @ W^T."""
    first, second = call.args[:2]
    if recording.value(first) is not None:
        return _linear(recording, call, recording.known(first), first.shape, second)
    turned = Value(recording.known(second).step, recording.places(second).T, name=call.name)
    found = _linear(recording, call, turned, second.T.shape, first.T)
    places = torch.arange(1, math.prod(call.shape) + 1).reshape(call.shape[::-1]).T
    return Value(found.step, places, name=call.name)


def batched_matrix_product(recording: Recording, call: Call) -> Value:
    """Return x @ W of matrices, of which there is only one, as in an einsum."""
    first, second = call.args[:2]
    if recording.value(first) is None or call.shape[0] != 1:
        raise call.refuse(f"must have constant weights: {PRODUCT}")
    value = recording.known(first)
    value = Value(value.step, None if value.places is None else value.places[0], name=value.name)
    return _linear(recording, call, value, first.shape[1:], second[0])


def matrix_product_and_sum(recording: Recording, call: Call) -> Value:
    """Return b + x @ W."""
    bias, tensor, matrix = call.args[:3]
    if call.kwargs.get("alpha", 1) != 1 or call.kwargs.get("beta", 1) != 1 or recording.value(tensor) is None:
        raise call.refuse(f"must be x @ W + b with constant W and b: {PRODUCT}")
    return _linear(recording, call, recording.known(tensor), tensor.shape, matrix, bias)


def matrix_by_vector(recording: Recording, call: Call) -> Value:
    """Return x @ w, w a vector."""
    tensor, vector = call.args[:2]
    if recording.value(vector) is not None:
        raise call.refuse(f"must multiply by a constant vector: {PRODUCT}")
    return _linear(recording, call, recording.known(tensor), tensor.shape, vector[:, None])


def convolution(recording: Recording, call: Call) -> Value:
    """Return a convolution of one or two axes."""
    tensor, weight, bias, stride, padding, dilation, is_transposed, _, groups = call.args
    if recording.value(tensor) is None or recording.value(weight) is not None or recording.value(bias) is not None:
        raise call.refuse(f"must have constant weights: {PRODUCT}")
    if is_transposed or weight.ndim not in (3, 4):
        raise call.refuse("must be a convolution of one or two axes, not transposed")
    _weights(call, weight, bias)
    place = place_of(recording, call)
    settings = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation), "groups": int(groups)}

    def make() -> nn.Module:
        kind: Any = nn.Conv2d if weight.ndim == 4 else nn.Conv1d
        n_inputs, n_outputs = weight.shape[1] * groups, len(weight)
        made = kind(n_inputs, n_outputs, tuple(weight.shape[2:]), bias=bias is not None, device="meta", **settings)
        return _with(made, weight=weight, bias=bias)

    layer = recording.module(("convolution", *settings.values()), (weight, bias), make)
    return recording.add(call, "convolution", (place,), call.shape[1:], layer=layer)


def batch_norm(recording: Recording, call: Call) -> Value:
    """Return a BatchNorm with running statistics."""
    tensor, weight, bias, mean, variance = call.args[:5]
    if call.argument(5, "training") or mean is None or variance is None:
        raise call.refuse(
            "must be in evaluation mode with running statistics, got a normalisation by the inputs' own statistics"
        )
    _weights(call, weight, bias, mean, variance)
    place = place_of(recording, call)
    epsilon = float(call.argument(7, "eps"))

    def make() -> nn.Module:
        made = nn.BatchNorm2d(tensor.shape[1], eps=epsilon, affine=True, device="meta")
        return _with(made, weight=weight, bias=bias, running_mean=mean, running_var=variance)

    layer = recording.module(("batch_norm", epsilon), (weight, bias, mean, variance), make)
    return recording.add(call, "batch_norm", (place,), call.shape[1:], layer=layer)


def _per_axis(values: Sequence[int] | int) -> tuple[int, int]:
    found = (values, values) if isinstance(values, int) else tuple(values)
    return (found[0], found[0]) if len(found) == 1 else (found[0], found[1])


def max_pool(recording: Recording, call: Call) -> Value:
    """Return a max pooling of windows."""
    kernel = _per_axis(call.args[1])
    settings: dict[str, Any] = {
        "stride": _per_axis(call.argument(2, "stride", ()) or kernel),
        "padding": _per_axis(call.argument(3, "padding", 0)),
        "dilation": _per_axis(call.argument(4, "dilation", 1)),
        "ceil_mode": bool(call.argument(5, "ceil_mode", False)),
    }
    layer = nn.MaxPool2d(kernel, **settings)
    try:
        pooling.bound_max_pool(layer, call.args[0].shape[1:])
    except ValueError as error:  # a window in the padding alone
        raise NotKnownError(f"{call.label}: {error}") from None
    return recording.add(call, "max_pool", (place_of(recording, call),), call.shape[1:], layer=layer)


def average_pool(recording: Recording, call: Call) -> Value:
    """Return an average pooling of windows."""
    kernel = _per_axis(call.args[1])
    layer = nn.AvgPool2d(
        kernel,
        _per_axis(call.argument(2, "stride", ()) or kernel),
        _per_axis(call.argument(3, "padding", 0)),
        bool(call.argument(4, "ceil_mode", False)),
        bool(call.argument(5, "count_include_pad", True)),
        call.argument(6, "divisor_override"),
    )
    return recording.add(call, "average_pool", (place_of(recording, call),), call.shape[1:], layer=layer)


def adaptive_average_pool(recording: Recording, call: Call) -> Value:
    """Return an average pooling to a given size."""
    layer = nn.AdaptiveAvgPool2d(_per_axis(call.args[1]))
    return recording.add(call, "average_pool", (place_of(recording, call),), call.shape[1:], layer=layer)


def adaptive_max_pool(recording: Recording, call: Call) -> Value:
    """Return a max pooling to a given size, where windows are of one size."""
    sides, sizes = call.args[0].shape[-2:], _per_axis(call.args[1])
    if sides[0] % sizes[0] or sides[1] % sizes[1]:
        raise call.refuse(f"must have windows of one size, got {tuple(sides)} divided into {sizes}")
    layer = nn.MaxPool2d((sides[0] // sizes[0], sides[1] // sizes[1]))
    return recording.add(call, "max_pool", (place_of(recording, call),), call.shape[1:], layer=layer)


def _over_axes(recording: Recording, call: Call, kind: graph.Kind) -> tuple[Value, int]:
    """Return the mean or the maximum over axes, as a pooling of planes (1, n), and how many numbers each is of."""
    tensor = call.args[0]
    given = call.argument(1, "dim")
    axes = [given] if isinstance(given, int) else list(given or range(tensor.ndim))
    axes = [axis % tensor.ndim for axis in axes]
    if 0 in axes:
        raise call.refuse("must treat each input of a batch alone, got a sum or maximum over the batch axis")
    kept = [axis for axis in range(tensor.ndim) if axis not in axes]
    n_taken = math.prod(tensor.shape[axis] for axis in axes)
    shape = recording.batched(tensor.shape, call)
    n_kept = math.prod(shape[1:]) // n_taken
    value = recording.known(tensor)
    if kept + sorted(axes) != list(range(tensor.ndim)):
        value = Value(value.step, recording.places(tensor).permute(*kept, *sorted(axes)), name=call.name)
    place = recording.place(value, (N_TRACED, n_kept, 1, n_taken), call)
    layer = nn.AdaptiveAvgPool2d(1) if kind == "average_pool" else nn.MaxPool2d((1, n_taken))
    return recording.add(call, kind, (place,), (n_kept, 1, 1), layer=layer), n_taken


def mean(recording: Recording, call: Call) -> Value:
    """Return the mean over axes."""
    return _over_axes(recording, call, "average_pool")[0]


def sum_over_axes(recording: Recording, call: Call) -> Value:
    """Return the sum over axes."""
    value, n_taken = _over_axes(recording, call, "average_pool")
    return recording.scaled(value, float(n_taken), call.shape, call)


def maximum_over_axes(recording: Recording, call: Call) -> Value:
    """Return the maximum over axes."""
    return _over_axes(recording, call, "max_pool")[0]


def maximum(recording: Recording, call: Call, sign: float = 1.0) -> Value:
    """Return the larger (for sign -1 the smaller) of two, as a max pooling over windows of two."""
    if any(recording.value(tensor) is None for tensor in call.args[:2]):
        raise call.refuse("must compare two outputs; to compare with a number, use clamp")
    shape = recording.batched(call.shape, call)
    n_numbers = math.prod(shape[1:])
    steps = []
    for tensor in call.args[:2]:
        value = recording.scaled(recording.expanded(tensor, call.shape, call), sign, call.shape, call)
        steps.append(recording.place(value, (N_TRACED, 1, n_numbers), call))
    both = recording.add(call, "concatenate", tuple(steps), (2, n_numbers))
    plane = recording.place(both, (N_TRACED, 1, 2, n_numbers), call)
    largest = recording.add(call, "max_pool", (plane,), (1, 1, n_numbers), layer=nn.MaxPool2d((2, 1)))
    return recording.scaled(largest, sign, call.shape, call)


def minimum(recording: Recording, call: Call) -> Value:
    """Return the smaller of two."""
    return maximum(recording, call, -1.0)


def softmax(recording: Recording, call: Call, kind: graph.Kind = "softmax") -> Value:
    """Return the softmax over one axis, or its logarithm."""
    tensor = call.args[0]
    axis = int(call.args[1]) % tensor.ndim
    if axis == 0:
        raise call.refuse("must treat each input of a batch alone, got a softmax over the batch axis")
    value = recording.known(tensor)
    order = [k for k in range(tensor.ndim) if k != axis] + [axis]
    if axis != tensor.ndim - 1:
        value = Value(value.step, recording.places(tensor).permute(order), name=call.name)
    shape = recording.batched([tensor.shape[k] for k in order], call)
    found = recording.add(call, kind, (recording.place(value, shape, call),), shape[1:])
    if axis == tensor.ndim - 1:
        return found
    places = torch.arange(1, tensor.numel() + 1).reshape([tensor.shape[k] for k in order])
    return Value(found.step, places.permute([order.index(k) for k in range(tensor.ndim)]), name=call.name)


def log_softmax(recording: Recording, call: Call) -> Value:
    """Return the softmax's logarithm over one axis."""
    return softmax(recording, call, "log_softmax")


def _normalised(recording: Recording, call: Call, shape: tuple[int, ...], epsilon: float) -> Value:
    """Return the first argument, in a shape whose last axis is normalised."""
    place = recording.place(recording.known(call.args[0]), shape, call)
    constant = torch.tensor(epsilon, dtype=torch.float64)
    return recording.add(call, "layer_norm", (place,), shape[1:], constant=constant)


def layer_norm(recording: Recording, call: Call) -> Value:
    """Return a LayerNorm."""
    tensor, sizes, weight, bias, epsilon = call.args[:5]
    _weights(call, weight, bias)
    n_numbers = math.prod(sizes)
    n_rows = tensor.numel() // n_numbers
    if n_rows % N_TRACED:
        raise call.refuse("must treat each input of a batch alone, got a normalisation over the batch axis")
    value = _normalised(recording, call, (N_TRACED, n_rows // N_TRACED, n_numbers), float(epsilon))
    for weights, act in ((weight, recording.scaled), (bias, recording.shifted)):
        value = value if weights is None else act(value, weights, call.shape, call)
    return value


def group_norm(recording: Recording, call: Call) -> Value:
    """Return a GroupNorm."""
    tensor, weight, bias, n_inputs, n_channels, n_pixels, n_groups, epsilon = call.args[:8]
    _weights(call, weight, bias)
    if n_inputs != N_TRACED:
        raise call.refuse("must treat each input of a batch alone, got one that mixes them")
    value = _normalised(recording, call, (N_TRACED, n_groups, n_channels // n_groups * n_pixels), float(epsilon))
    for weights, act in ((weight, recording.scaled), (bias, recording.shifted)):
        if weights is not None:
            value = act(value, weights.reshape(1, -1, *(1,) * (tensor.ndim - 2)), call.shape, call)
    return value
