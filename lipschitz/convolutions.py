"""The norm of a convolution, from above and from below, rounding included.

The map is the one that torch computes on an image of a given size: zero-padded, with its stride, dilation and groups,
the border as it is. For the norms 1 and inf that is a largest absolute sum. For the norm 2, the first that applies:

- *Windows that do not overlap* (1x1 kernels among them) map disjoint parts of the image: one window is enough.
- *Cholesky*. The Gram matrix of the smaller side of the map, if it is small; where the tolerance is coarse, the torus
  is tried before.
- *Torus*. The map is a compression of a convolution on every torus that is large enough for no tap to reach round it,
  also of one twisted by a phase, on which Fourier waves make it block diagonal, a stride being a convolution of
  s_h s_w channels for each one. One factorisation a frequency shows that the tolerance is met, or that it is not.
- *Chebyshev*: :mod:`lipschitz.krylov`, with a stated probability of failure, against chance and not against an
  adversary, as its seed is fixed.

From below, the stretch of one vector.

References
----------
Sedghi, Gupta, Long, The Singular Values of Convolutional Layers, ICLR 2019, arXiv:1805.10408 (on the torus).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch.nn import functional

from lipschitz import krylov
from lipschitz.cholesky import upper_eigenvalue
from lipschitz.norms import NormBound, check_norm, gamma, restore

_N_GRAM_NUMBERS = 2**25  # of the Gram matrices, at most: 256 MB
_COARSE = 0.05  # tolerance from which a torus is likely to do, in a hundredth of the time
_N_TOGETHER = 32  # symbols that are looked at together


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Convolution:
    """A convolution of two spatial axes.

    Once it is read, ``weight`` is float64, 0 at taps that read padding alone, and its largest entry lies in [1/2, 1).
    """

    weight: torch.Tensor
    input_shape: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    @property
    def output_shape(self) -> tuple[int, int]:
        height, width = (
            (self.input_shape[axis] + 2 * self.padding[axis] - self.reach(axis)) // self.stride[axis] + 1
            for axis in (0, 1)
        )
        return height, width

    @property
    def n_inputs(self) -> int:
        return self.weight.shape[1] * self.groups * math.prod(self.input_shape)

    @property
    def n_outputs(self) -> int:
        return self.weight.shape[0] * math.prod(self.output_shape)

    def reach(self, axis: int) -> int:
        """Return how many inputs a window spans."""
        return self.dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        images = vectors.reshape(len(vectors), -1, *self.input_shape)
        outputs = functional.conv2d(images, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        return outputs.flatten(1)

    def adjoint(self, vectors: torch.Tensor) -> torch.Tensor:
        images = vectors.reshape(len(vectors), -1, *self.output_shape)
        left_over = [
            (self.input_shape[axis] + 2 * self.padding[axis] - self.reach(axis)) % self.stride[axis] for axis in (0, 1)
        ]
        outputs = functional.conv_transpose2d(
            images, self.weight, None, self.stride, self.padding, left_over, self.groups, self.dilation
        )
        return outputs.flatten(1)


def bound_norm(
    weight: torch.Tensor | ArrayLike,
    *,
    input_shape: Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    norm: float = 2,
    tolerance: float = 1e-3,
) -> NormBound:
    """Return certified bounds, from above and from below, of the norm of a convolution.

    The norm of the linear map that torch.nn.functional.conv1d or conv2d computes without bias on images of
    ``input_shape``: max ||A x||_p / ||x||_p.

    Parameters
    ----------
    weight : torch.Tensor or array_like of float16, bfloat16, float32 or float64, shape (c_out, c_in / groups, k_h, k_w)
        Or (c_out, c_in / groups, k) for one spatial axis. Widened to float64, which is exact.
    input_shape : sequence of int
        Height and width, or length, of the image, without channels.
    stride, padding, dilation : int or sequence of int
        As torch has them: one number, or one an axis. The padding is with zeros.
    groups : int
        How many groups of channels do not see each other.
    norm : {1, 2, inf}
        The exponent p.
    tolerance : float
        For p = 2: the gap (upper - lower) / lower that is good enough; in (0, 1).

    Returns
    -------
    NormBound
        In the unit of the weights. ``method`` is ``"absolute sums"``, ``"cholesky"``, ``"torus"`` or ``"chebyshev"``;
        the last one draws random vectors, and its ``failure_probability`` is 1e-15, against chance, not against an
        adversary who knows their fixed seed. ``upper`` is infinite if it passes the range of float64.

    Raises
    ------
    TypeError
        If the weights are not floating-point numbers of at most 64 bits.
    ValueError
        If the weights are empty, have neither three nor four axes or hold a number that is not finite; if the image,
        with its padding, is smaller than the kernel; if an argument is out of range.

    Notes
    -----
    The tolerance is met unless the map is large and the tolerance is below about 1e-5: the bounds hold all the same,
    and the record says how far apart they are. At 1e-3 all of ResNet18's layers take 2 GB and at most some tens of
    seconds each. Computed on the CPU in float64, where torch convolves by products and sums alone, as the rounding
    assumes: no Fourier transform, no Winograd.

    Examples
    --------
    A moving sum of three numbers is a tridiagonal matrix of ones, of norm 1 + 2 cos(pi / (n + 1)).

    >>> bound = bound_norm(torch.ones(1, 1, 3), input_shape=[5], padding=1)
    >>> bound.lower <= 1 + 3**0.5 <= bound.upper <= 1.001 * bound.lower
    True
    """
    check_norm(norm)
    if not 0.0 < tolerance < 1.0:
        raise ValueError(f"tolerance must lie in (0, 1), got {tolerance}")
    convolution, exponent = _read(weight, input_shape, stride, padding, dilation, groups)
    failure_probability = 0.0
    if norm == 2:
        lower, upper, method = _bound_spectral(convolution, tolerance)
        failure_probability = krylov.FAILURE_PROBABILITY if method == "chebyshev" else 0.0
    else:
        (lower, upper), method = _bound_sums(convolution, norm), "absolute sums"
    lower, upper = restore(lower, upper, exponent)
    return NormBound(
        upper=upper,
        lower=lower,
        norm=norm,
        method=method,
        is_certified=True,
        failure_probability=failure_probability,
    )


def _read(
    weight: torch.Tensor | ArrayLike,
    input_shape: Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
) -> tuple[_Convolution, int]:
    """Return the convolution, its weights scaled by a power of two, and the exponent that restores them."""
    tensor = weight.detach().cpu() if isinstance(weight, torch.Tensor) else torch.from_numpy(np.array(weight))
    if not tensor.is_floating_point():
        raise TypeError(f"weight must hold floating-point numbers of at most 64 bits, got {tensor.dtype}")
    if tensor.ndim not in (3, 4) or tensor.numel() == 0:
        raise ValueError(f"weight must have three or four axes, none of them empty, got shape {tuple(tensor.shape)}")
    tensor = tensor.to(torch.float64)
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"weight must hold finite numbers, got {float(tensor[~tensor.isfinite()][0])}")
    if groups < 1 or len(tensor) % groups:
        raise ValueError(f"groups must divide the number of outputs, {len(tensor)}, got {groups}")
    n_axes = tensor.ndim - 2
    convolution = _Convolution(
        weight=tensor.reshape(*tensor.shape[:2], -1, tensor.shape[-1]),
        input_shape=_pair(input_shape, n_axes, "input_shape", 1, 1),
        stride=_pair(stride, n_axes, "stride", 1, 1),
        padding=_pair(padding, n_axes, "padding", 0, 0),
        dilation=_pair(dilation, n_axes, "dilation", 1, 1),
        groups=groups,
    )
    if min(convolution.output_shape) < 1:
        raise ValueError(f"input_shape must, with its padding, hold the kernel, got {tuple(input_shape)}")
    unused = [_unused_taps(convolution, axis) for axis in (0, 1)]
    array = convolution.weight.numpy().copy()
    array[:, :, unused[0]] = 0.0
    array[:, :, :, unused[1]] = 0.0
    exponent = int(np.frexp(np.abs(array).max())[1])
    return replace(convolution, weight=torch.from_numpy(np.ldexp(array, -exponent))), exponent


def _unused_taps(convolution: _Convolution, axis: int) -> list[int]:
    """Return the taps that read padding alone, whatever the output."""
    used = {tap for tap, _, _ in _reads(convolution, axis)}
    return [tap for tap in range(convolution.weight.shape[2 + axis]) if tap not in used]


def _pair(value: int | Sequence[int], n_axes: int, name: str, least: int, missing: int) -> tuple[int, int]:
    """Return the numbers of both axes; ``missing`` stands for the first of them where there is only one."""
    values = (value,) * n_axes if isinstance(value, int) else tuple(value)
    if len(values) != n_axes or min(values) < least:
        raise ValueError(f"{name} must be {n_axes} whole numbers of at least {least}, got {value}")
    first, second = (missing, *values)[-2:]
    return first, second


def _bound_sums(convolution: _Convolution, norm: float) -> tuple[float, float]:
    """Return (lower, upper) of the largest absolute sum of a column, norm 1, or of a row, norm inf."""
    absolute = replace(convolution, weight=convolution.weight.abs())
    if norm == 1:
        sums = absolute.adjoint(torch.ones(1, convolution.n_outputs, dtype=torch.float64))
    else:
        sums = absolute.forward(torch.ones(1, convolution.n_inputs, dtype=torch.float64))
    largest = float(sums.max())
    margin = gamma(_n_terms(convolution)[0 if norm == math.inf else 1] + 2)
    return largest * (1.0 - margin), largest * (1.0 + margin)


def _n_terms(convolution: _Convolution) -> tuple[int, int]:
    """Return how many products the sums of the map have, and those of its adjoint."""
    n_out, n_in, *kernel = convolution.weight.shape
    return n_in * math.prod(kernel), n_out // convolution.groups * math.prod(kernel)


def _bound_spectral(convolution: _Convolution, tolerance: float) -> tuple[float, float, str]:
    """Return (lower, upper) of the 2-norm and the method."""
    convolution = _one_window(convolution)
    entry = float(convolution.weight.abs().max())
    if entry == 0.0:
        return 0.0, 0.0, "absolute sums"
    absolute_norm = math.sqrt(_bound_sums(convolution, 1)[1] * _bound_sums(convolution, math.inf)[1]) * (1.0 + 1e-15)
    products = _products(convolution, absolute_norm)
    lower = max(entry, krylov.lower_norm(products, tolerance=0.1 * tolerance))
    n_side = products.n_inputs // convolution.groups
    is_small = n_side**2 * convolution.groups <= _N_GRAM_NUMBERS
    if not is_small or tolerance >= _COARSE:
        upper = _upper_torus(convolution, lower * (1.0 + 0.99 * tolerance))
        if upper is not None:
            return lower, upper, "torus"
    if is_small:
        return *_bound_cholesky(products, convolution.groups, lower, tolerance), "cholesky"
    return *krylov.bound_norm(products, lower=lower, tolerance=tolerance), "chebyshev"


def _products(convolution: _Convolution, absolute_norm: float) -> krylov.Products:
    """Return the map or its adjoint, whichever takes the shorter vectors."""
    forward, adjoint = convolution.forward, convolution.adjoint
    n_terms, n_adjoint_terms = _n_terms(convolution)
    if convolution.n_outputs < convolution.n_inputs:
        forward, adjoint, n_terms, n_adjoint_terms = adjoint, forward, n_adjoint_terms, n_terms
    return krylov.Products(
        forward=forward,
        adjoint=adjoint,
        n_inputs=min(convolution.n_inputs, convolution.n_outputs),
        n_terms=n_terms,
        n_adjoint_terms=n_adjoint_terms,
        absolute_norm=absolute_norm,
    )


def _one_window(convolution: _Convolution) -> _Convolution:
    """Return the convolution on a single window if that has the same norm, else the convolution itself."""
    taps: list[list[int]] = []
    for axis in (0, 1):
        reads = _reads(convolution, axis)
        used = sorted({tap for tap, _, _ in reads})
        windows: dict[int, set[int]] = {}
        for tap, output, _ in reads:
            windows.setdefault(output, set()).add(tap)
        overlap = len({position for _, _, position in reads}) < len(reads)
        if not used or overlap or max(len(window) for window in windows.values()) < len(used):
            return convolution
        taps.append(used)
    weight = convolution.weight[:, :, taps[0]][:, :, :, taps[1]]
    ones = (1, 1)
    height, width = weight.shape[2:]
    return replace(convolution, weight=weight, input_shape=(height, width), stride=ones, padding=(0, 0), dilation=ones)


def _reads(convolution: _Convolution, axis: int) -> list[tuple[int, int, int]]:
    """Return (tap, output, input) along an axis wherever a tap of an output's window reads an input, not padding."""
    stride, padding, dilation = convolution.stride[axis], convolution.padding[axis], convolution.dilation[axis]
    return [
        (tap, output, position)
        for tap in range(convolution.weight.shape[2 + axis])
        for output in range(convolution.output_shape[axis])
        if 0 <= (position := stride * output + dilation * tap - padding) < convolution.input_shape[axis]
    ]


def _bound_cholesky(products: krylov.Products, groups: int, lower: float, tolerance: float) -> tuple[float, float]:
    """Return (lower, upper) of the norm by the Gram matrix of each group."""
    n_side = products.n_inputs // groups
    grams = torch.empty((groups, n_side, n_side), dtype=torch.float64)
    n_rows = max(1, 2**22 // products.n_inputs)
    for start in range(0, n_side, n_rows):
        stop = min(start + n_rows, n_side)
        units = torch.zeros((stop - start, groups, n_side), dtype=torch.float64)
        units[torch.arange(stop - start), :, torch.arange(start, stop)] = 1.0
        # A e is exact: its sums have one term that is not zero
        images = products.adjoint(products.forward(units.flatten(1)))
        grams[:, start:stop] = images.reshape(stop - start, groups, n_side).transpose(0, 1)
    rounding = gamma(products.n_adjoint_terms) * products.absolute_norm**2
    excess, is_new = 0.99 * tolerance, True
    while (bound := upper_eigenvalue(grams, (lower * (1.0 + excess)) ** 2)) is None:
        if is_new:  # the search from below may have ended too early
            lower, is_new = max(lower, krylov.lower_norm(products, tolerance=1e-3 * tolerance)), False
        else:
            excess *= 2.0
    return lower, math.sqrt(bound + rounding) * (1.0 + 1e-15)


def _upper_torus(convolution: _Convolution, value: float) -> float | None:
    """Return a bound of the norm, barely above ``value``, if a twisted torus shows one, else None."""
    n_out, n_in, *kernel = convolution.weight.shape
    sizes = convolution.weight.abs().reshape(convolution.groups, -1, n_in, *kernel)
    # At least the norm of the sum over the taps of |W|, which bounds every |symbol|.
    absolute = 1.01 * math.sqrt(float(sizes.sum((2, 3, 4)).max()) * float(sizes.sum((1, 3, 4)).max()))
    symbol_rounding = 4.0 * gamma(4 * sum(kernel) + 64) * absolute
    gram_rounding = 2.0 * gamma(4 * max(n_out, n_in * math.prod(convolution.stride)) + 16) * absolute**2
    weight = convolution.weight.reshape(sizes.shape).to(torch.complex128)
    for twists in itertools.product((1, 0), repeat=2):
        rows, columns = (_waves(convolution, axis, twist) for axis, twist in zip((0, 1), twists, strict=True))
        largest = 0.0
        # frequencies w and -w have complex conjugate symbols: half of them is enough
        for row, some in itertools.product(rows, torch.split(columns[: len(columns) // 2 + 1], _N_TOGETHER)):
            partial = torch.einsum("goikK,kr->goirK", weight, row)
            symbols = torch.einsum("goirK,lKR->lgoirR", partial, some).flatten(0, 1).flatten(2)
            if symbols.shape[1] > symbols.shape[2]:
                symbols = symbols.mT
            bound = upper_eigenvalue(symbols @ symbols.mH, value**2)
            if bound is None:
                break
            largest = max(largest, bound)
        else:
            return (math.sqrt(largest + gram_rounding) + symbol_rounding) * (1.0 + 1e-15)
    return None


def _waves(convolution: _Convolution, axis: int, twist: int) -> torch.Tensor:
    """Return what every wave of the torus has at every tap, shape (n_frequencies, n_taps, stride).

    Of a tap that reads the input s q + r of its output 0, s the stride and 0 <= r < s, it is exp(i w q) in place r, for
    the frequencies w = pi (2 j + twist) / n on a torus of n outputs. There is no way round this torus: whatever outputs
    and inputs the image has, a tap q joins two of them only where it does so on the plane.
    """
    stride = convolution.stride[axis]
    reads = _reads(convolution, axis)
    taps = {tap: divmod(convolution.dilation[axis] * tap - convolution.padding[axis], stride) for tap, _, _ in reads}
    n_outputs, n_inputs = convolution.output_shape[axis], -(-convolution.input_shape[axis] // stride)
    reach = [q for q, _ in taps.values()]
    n = max(n_outputs, n_inputs, n_outputs + max(reach), n_inputs - min(reach))
    waves = np.zeros((n, convolution.weight.shape[2 + axis], stride), dtype=np.complex128)
    for tap, (q, r) in taps.items():
        turns = (2 * np.arange(n) + twist) * q % (2 * n)
        waves[:, tap, r] = np.exp(1j * math.pi * turns / n)
    return torch.from_numpy(waves)
