"""What each of torch's primitive operations becomes: one step, or a few."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from lipschitz import graph, layer_operations, pointwise
from lipschitz.layer_operations import place_of
from lipschitz.recording import MOVES, PRODUCT, Call, Recording, Value

_STEEP = "it has no global Lipschitz constant"
_JUMPS = "it jumps"
# Why an operation cannot be read, by its name.
REASONS = {
    **dict.fromkeys(("mul", "div", "bmm", "mm", "addmm", "baddbmm", "mv", "dot", "addcmul", "addcdiv"), PRODUCT),
    **dict.fromkeys(
        (
            "_scaled_dot_product_flash_attention_for_cpu",
            "_native_multi_head_attention",
            "mkldnn_rnn_layer",
            "lstm",
            "gru",
        ),
        PRODUCT,
    ),
    "_transformer_encoder_layer_fwd": PRODUCT,
    **dict.fromkeys(("exp", "pow", "sqrt", "rsqrt", "reciprocal", "log", "prod", "tan", "sinh", "cosh"), _STEEP),
    **dict.fromkeys(("log1p", "expm1", "exp2", "log2", "log10", "norm", "linalg_vector_norm", "var"), _STEEP),
    **dict.fromkeys(("sign", "round", "floor", "ceil", "trunc", "threshold", "hardshrink", "argmax", "sort"), _JUMPS),
    **dict.fromkeys(("gt", "lt", "ge", "le", "eq", "ne", "topk", "heaviside", "frac", "remainder"), _JUMPS),
}


def recognise(operation: str, recording: Recording, call: Call, results: Sequence[torch.Tensor]) -> list[Value]:
    """Return the values of an operation's results, of its first one at least, or raise NotKnownError."""
    if operation == "cat":
        return [_concatenate(recording, call, results)]
    if operation in MOVES:
        return recording.moved(operation, call, results)
    handler = _HANDLERS.get(operation)
    if handler is None:
        reason = REASONS.get(operation, "lipschitz.reading.read lists what is")
        raise call.refuse(f"must be one that is known, got {operation}: {reason}")
    if not results or not results[0].is_floating_point():
        raise call.refuse(f"must return floating-point numbers, got {operation}")
    return [handler(recording, call)]


def _pointwise(recording: Recording, call: Call, kind: graph.Kind, **fields: Any) -> Value:
    place = place_of(recording, call)
    return recording.add(call, kind, (place,), recording.steps[place].shape, **fields)


def _smooth(make: Callable[..., pointwise.Function]) -> Callable[[Recording, Call], Value]:
    """Return what reads a function that is made of an operation's further arguments."""

    def handle(recording: Recording, call: Call) -> Value:
        try:
            function = make(*call.args[1:], **call.kwargs)
        except ValueError as error:
            raise call.refuse(str(error)) from None
        return _pointwise(recording, call, "smooth", function=function)

    return handle


def _gelu(approximate: str = "none") -> pointwise.Function:
    return pointwise.GELU if approximate == "none" else pointwise.GELU_TANH


def _elu(alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> pointwise.Function:
    return pointwise.elu(float(alpha), float(scale), float(input_scale))


def _leaky(recording: Recording, call: Call) -> Value:
    slopes = call.argument(1, "negative_slope", 0.01)
    if recording.value(slopes) is not None:
        raise call.refuse(f"must have constant slopes: {PRODUCT}")
    constant = recording.constant(slopes, call.shape, call)
    if not bool(constant.isfinite().all()):
        raise call.refuse("must have finite slopes, got one that is not")
    return _pointwise(recording, call, "leaky_relu", constant=constant)


def _absolute(recording: Recording, call: Call) -> Value:
    return _pointwise(recording, call, "leaky_relu", constant=torch.tensor(-1.0, dtype=torch.float64))


def _clamp(recording: Recording, call: Call) -> Value:
    """Return min(max(x, low), high) = high - relu(high - low - relu(x - low)): nothing in it is rounded twice."""
    low, high = call.argument(1, "min"), call.argument(2, "max")
    return _clamped(recording, call, recording.expanded(call.args[0], call.shape, call), low, high)


def _clamped(recording: Recording, call: Call, value: Value, low: Any, high: Any) -> Value:
    for bound in (low, high):
        if isinstance(bound, torch.Tensor):
            raise call.refuse("must clamp to numbers, got a tensor")
        if bound is not None and not math.isfinite(bound):
            raise call.refuse(f"must clamp to finite numbers, got {bound}")
    if low is not None and high is not None and low > high:
        raise call.refuse(f"must clamp to an interval, got [{low}, {high}]")

    def relu(of: Value) -> Value:
        place = recording.place(of, recording.batched(call.shape, call), call)
        return recording.add(call, "relu", (place,), recording.steps[place].shape)

    if low is not None:
        value = recording.shifted(relu(recording.shifted(value, -low, call.shape, call)), low, call.shape, call)
    if high is not None:
        turned = recording.shifted(recording.scaled(value, -1.0, call.shape, call), high, call.shape, call)
        value = recording.shifted(recording.scaled(relu(turned), -1.0, call.shape, call), high, call.shape, call)
    return value


def _hardtanh(recording: Recording, call: Call) -> Value:
    value = recording.expanded(call.args[0], call.shape, call)
    return _clamped(recording, call, value, call.argument(1, "min_val", -1.0), call.argument(2, "max_val", 1.0))


def _hardsigmoid(recording: Recording, call: Call) -> Value:
    shifted = recording.shifted(recording.expanded(call.args[0], call.shape, call), 3.0, call.shape, call)
    clamped = _clamped(recording, call, shifted, 0.0, 6.0)
    return _divided(recording, call, clamped, 6.0)


def _sum(recording: Recording, call: Call, sign: float = 1.0) -> Value:
    """Return first + sign * alpha * second."""
    first, second = call.args[:2]
    factor = sign * float(call.argument(2, "alpha", 1.0))
    if recording.value(second) is None:
        added = (
            second.detach().cpu().to(torch.float64) * factor if isinstance(second, torch.Tensor) else second * factor
        )
        return recording.shifted(recording.expanded(first, call.shape, call), added, call.shape, call)
    other = recording.scaled(recording.expanded(second, call.shape, call), factor, call.shape, call)
    if recording.value(first) is None:
        return recording.shifted(other, first, call.shape, call)
    shape = recording.batched(call.shape, call)
    value = recording.expanded(first, call.shape, call)
    places = (recording.place(value, shape, call), recording.place(other, shape, call))
    return recording.add(call, "add", places, shape[1:])


def _difference(recording: Recording, call: Call) -> Value:
    return _sum(recording, call, -1.0)


def _reversed_difference(recording: Recording, call: Call) -> Value:
    """Return second - alpha * first."""
    first, second = call.args[:2]
    factor = -float(call.argument(2, "alpha", 1.0))
    scaled = recording.scaled(recording.expanded(first, call.shape, call), factor, call.shape, call)
    if recording.value(second) is not None:
        raise call.refuse("must subtract from a constant")
    return recording.shifted(scaled, second, call.shape, call)


def _product(recording: Recording, call: Call) -> Value:
    first, second = call.args[:2]
    if recording.value(first) is not None and recording.value(second) is not None:
        raise call.refuse(f"must multiply by constants: {PRODUCT}")
    known, other = (first, second) if recording.value(first) is not None else (second, first)
    return recording.scaled(recording.expanded(known, call.shape, call), other, call.shape, call)


def _negative(recording: Recording, call: Call) -> Value:
    return recording.scaled(recording.known(call.args[0]), -1.0, call.shape, call)


def _quotient(recording: Recording, call: Call) -> Value:
    first, second = call.args[:2]
    if recording.value(second) is not None or call.kwargs.get("rounding_mode") is not None:
        raise call.refuse(f"must divide by constants: {PRODUCT}")
    return _divided(recording, call, recording.expanded(first, call.shape, call), second)


def _divided(recording: Recording, call: Call, value: Value, divisor: Any) -> Value:
    """Return a value over constants; an inexact inverse is rounded away from zero, so that it stays a bound."""
    numbers = recording.constant(divisor, call.shape, call)
    inverse = 1.0 / numbers
    infinity = torch.full_like(inverse, math.inf)
    outward = torch.nextafter(inverse, torch.copysign(infinity, inverse))
    is_exact = torch.frexp(numbers).mantissa.abs() == 0.5
    return recording.scaled(value, torch.where(is_exact, inverse, outward), call.shape, call)


def _concatenate(recording: Recording, call: Call, results: Sequence[torch.Tensor]) -> Value:
    tensors = [tensor for tensor in call.args[0] if tensor.numel() > 0]
    axis = int(call.argument(1, "dim", 0)) % max(len(call.shape), 1)
    if axis == 0 or any(recording.value(tensor) is None for tensor in tensors):
        return recording.moved("cat", call, results)[0]
    return recording.side_by_side(tensors, axis, call)


def _relu(recording: Recording, call: Call) -> Value:
    return _pointwise(recording, call, "relu")


_HANDLERS: dict[str, Callable[[Recording, Call], Value]] = {
    "relu": _relu,
    "leaky_relu": _leaky,
    "_prelu_kernel": _leaky,
    "abs": _absolute,
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda recording, call: _clamped(
        recording, call, recording.expanded(call.args[0], call.shape, call), None, call.argument(1, "max")
    ),
    "hardtanh": _hardtanh,
    "hardsigmoid": _hardsigmoid,
    "elu": _smooth(_elu),
    "celu": _smooth(lambda alpha=1.0: _elu(alpha, 1.0, 1.0 / alpha)),
    "gelu": _smooth(_gelu),
    "softplus": _smooth(lambda beta=1.0, threshold=20.0: pointwise.softplus(float(beta), float(threshold))),
    "softshrink": _smooth(lambda lambd=0.5: pointwise.softshrink(float(lambd))),
    **{
        name: _smooth(lambda function=function: function)
        for name, function in {
            "tanh": pointwise.TANH,
            "sigmoid": pointwise.SIGMOID,
            "erf": pointwise.ERF,
            "special_ndtr": pointwise.GAUSSIAN_CDF,
            "sin": pointwise.SIN,
            "cos": pointwise.COS,
            "atan": pointwise.ATAN,
            "silu": pointwise.SILU,
            "mish": pointwise.MISH,
            "hardswish": pointwise.HARDSWISH,
            "log_sigmoid_forward": pointwise.LOG_SIGMOID,
        }.items()
    },
    "add": _sum,
    "sub": _difference,
    "rsub": _reversed_difference,
    "mul": _product,
    "neg": _negative,
    "div": _quotient,
    "mm": layer_operations.matrix_product,
    "addmm": layer_operations.matrix_product_and_sum,
    "bmm": layer_operations.batched_matrix_product,
    "mv": layer_operations.matrix_by_vector,
    "convolution": layer_operations.convolution,
    "native_batch_norm": layer_operations.batch_norm,
    "cudnn_batch_norm": layer_operations.batch_norm,
    "max_pool2d_with_indices": layer_operations.max_pool,
    "avg_pool2d": layer_operations.average_pool,
    "_adaptive_avg_pool2d": layer_operations.adaptive_average_pool,
    "adaptive_max_pool2d": layer_operations.adaptive_max_pool,
    "mean": layer_operations.mean,
    "sum": layer_operations.sum_over_axes,
    "amax": layer_operations.maximum_over_axes,
    "max": layer_operations.maximum_over_axes,
    "maximum": layer_operations.maximum,
    "minimum": layer_operations.minimum,
    "_softmax": layer_operations.softmax,
    "_log_softmax": layer_operations.log_softmax,
    "native_layer_norm": layer_operations.layer_norm,
    "native_group_norm": layer_operations.group_norm,
}
