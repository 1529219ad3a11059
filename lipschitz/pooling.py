"""The Lipschitz constants of poolings, border included.

Max pooling. An output is the largest of a window, and |max x - max y| <= max |x - y| over it. If no input lies in more
than N windows, sum over the windows of max_i |d_i|^p <= N sum_i |d_i|^p: the constant is N^(1/p), and 1 for p = inf. A
spike on an input of N windows attains it.

Average pooling is a linear map of each channel, the Kronecker product of one matrix an axis, whatever counts as the
size of a window: the norms 1, 2 and inf of a Kronecker product are the products of those of its factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from lipschitz import norms


def bound_max_pool(layer: nn.MaxPool2d, input_shape: Sequence[int], *, norm: float = 2) -> norms.NormBound:
    """Return the Lipschitz constant of a max pooling on images of one size.

    Parameters
    ----------
    layer : torch.nn.MaxPool2d
        With any stride, padding, dilation and ``ceil_mode``.
    input_shape : sequence of int
        Of its input; the last two numbers are height and width.
    norm : {1, 2, inf}
        The exponent p, on both sides.

    Returns
    -------
    NormBound
        The number of the module's docstring between its two neighbours at most, method ``"windows"``.

    Raises
    ------
    ValueError
        If ``norm`` is something else; if the image is too small for one window; if a window lies in the padding alone,
        as a dilated one may: torch makes it -inf.

    Examples
    --------
    >>> bound_max_pool(nn.MaxPool2d(3, stride=2), (64, 112, 112)).upper
    2.0
    """
    norms.check_norm(norm)
    largest = 1
    for axis in (0, 1):
        windows = _windows(layer, input_shape, axis, per_axis(layer.dilation)[axis])
        n_inputs = input_shape[axis - 2]
        inside = [position for window in windows for position in window if 0 <= position < n_inputs]
        for window in windows:
            if not any(0 <= position < n_inputs for position in window):
                raise ValueError(
                    f"max pooling must have no window in its padding alone, got kernel_size {layer.kernel_size}, "
                    f"padding {layer.padding} and dilation {layer.dilation} on an input of shape {tuple(input_shape)}"
                )
        largest *= int(np.bincount(inside, minlength=1).max())
    if norm == 2 and math.isqrt(largest) ** 2 != largest:
        root = math.sqrt(largest)
        lower, upper = math.nextafter(root, 0.0), math.nextafter(root, math.inf)
    else:
        lower = upper = float({1: largest, 2: math.isqrt(largest), math.inf: min(largest, 1)}[norm])
    return norms.NormBound(upper=upper, lower=lower, norm=norm, method="windows", is_certified=True)


def bound_average_pool(
    layer: nn.AvgPool2d | nn.AdaptiveAvgPool2d, input_shape: Sequence[int], *, norm: float = 2
) -> norms.NormBound:
    """Return certified bounds of the norm of an average pooling on images of one size.

    Parameters
    ----------
    layer : torch.nn.AvgPool2d or torch.nn.AdaptiveAvgPool2d
        With any settings.
    input_shape : sequence of int
        Of its input; the last two numbers are height and width.
    norm : {1, 2, inf}
        The exponent p, on both sides.

    Returns
    -------
    NormBound
        Tight to 1e-7, method ``"averages"``.

    Raises
    ------
    ValueError
        If ``norm`` is something else; if the image is too small for one window.

    Examples
    --------
    The mean of n numbers has norm 1 / sqrt(n).

    >>> round(bound_average_pool(nn.AdaptiveAvgPool2d(1), (512, 7, 7)).upper * 7, 6)
    1.0
    """
    norms.check_norm(norm)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        factors = [_adaptive_average(layer, input_shape, axis) for axis in (0, 1)]
        divisor = 1
    else:
        factors = [_average(layer, input_shape, axis) for axis in (0, 1)]
        divisor = abs(layer.divisor_override or 1)
    bounds = [norms.bound_norm(factor, norm=norm) for factor in factors]
    # The entries are rounded to nearest; as they are not negative, the norms move by no more.
    lower = bounds[0].lower * bounds[1].lower / divisor * (1.0 - norms.gamma(8))
    upper = bounds[0].upper * bounds[1].upper / divisor * (1.0 + norms.gamma(8))
    return norms.NormBound(upper=upper, lower=lower, norm=norm, method="averages", is_certified=True)


def _average(layer: nn.AvgPool2d, input_shape: Sequence[int], axis: int) -> np.ndarray:
    """Return the matrix of one axis, shape (n_outputs, n_inputs); of sums, where the divisor is given."""
    n_inputs, padding = input_shape[axis - 2], per_axis(layer.padding)[axis]
    windows = _windows(layer, input_shape, axis, 1)
    matrix = np.zeros((len(windows), n_inputs))
    for row, window in zip(matrix, windows, strict=True):
        inside = range(max(window.start, 0), min(window.stop, n_inputs))
        # a window that reaches beyond the padding, as the last of ceil_mode may, ends there
        counted = min(window.stop, n_inputs + padding) - window.start if layer.count_include_pad else len(inside)
        row[inside.start : inside.stop] = 1.0 if layer.divisor_override else 1.0 / max(counted, 1)
    return matrix


def _adaptive_average(layer: nn.AdaptiveAvgPool2d, input_shape: Sequence[int], axis: int) -> np.ndarray:
    """Return the matrix of one axis, shape (n_outputs, n_inputs)."""
    n_inputs = input_shape[axis - 2]
    size = layer.output_size
    n_outputs = (size[axis] if isinstance(size, Sequence) else size) or n_inputs
    matrix = np.zeros((n_outputs, n_inputs))
    for output, row in enumerate(matrix):
        start, stop = output * n_inputs // n_outputs, -(-(output + 1) * n_inputs // n_outputs)
        row[start:stop] = 1.0 / (stop - start)
    return matrix


def _windows(layer: nn.MaxPool2d | nn.AvgPool2d, input_shape: Sequence[int], axis: int, dilation: int) -> list[range]:
    """Return the places that each window covers along an axis, padding included, as torch lays them out."""
    n_inputs = input_shape[axis - 2]
    kernel, stride, padding = (per_axis(value)[axis] for value in (layer.kernel_size, layer.stride, layer.padding))
    reach = dilation * (kernel - 1) + 1
    left = n_inputs + 2 * padding - reach
    n_windows = (-(-left // stride) if layer.ceil_mode else left // stride) + 1
    if n_windows > 1 and (n_windows - 1) * stride >= n_inputs + padding:
        n_windows -= 1  # the last one of ceil_mode, where it would begin beyond the image
    if n_windows < 1:
        raise ValueError(f"input_shape must hold a window of {reach}, got {tuple(input_shape)}")
    starts = (stride * window - padding for window in range(n_windows))
    return [range(start, start + reach, dilation) for start in starts]


def per_axis(value: int | Sequence[int]) -> tuple[int, int]:
    """Return a setting of a pooling for both axes: torch takes a number, or a tuple or list of one or two."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values[0], values[-1]


def check_windows(model: nn.Module, inputs: torch.Tensor) -> None:
    """Raise ValueError if a max pooling in the model has, for such inputs (n, ...), a window in its padding alone.

    It makes -inf of such a window, and its gradient is written outside of memory, which may end the process.
    """
    with _Watch():  # type: ignore[no-untyped-call]
        model(inputs)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Looks at what every max pooling returns, in a module or called as a function."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler for this, which takes seconds."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operation, and refuse -inf made of finite numbers."""
        result = func(*args, **(kwargs or {}))
        if "max_pool" in func.__name__ and "backward" not in func.__name__ and bool(args[0].isfinite().all()):
            largest = result[0] if isinstance(result, tuple) else result
            if bool(torch.isneginf(largest).any()):
                raise ValueError(
                    f"max pooling must have no window in its padding alone, got kernel_size, stride, padding, dilation "
                    f"{', '.join(str(setting) for setting in args[1:5])} on an input of shape {tuple(args[0].shape)}"
                )
        return result
