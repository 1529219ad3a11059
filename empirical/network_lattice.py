"""Real networks on real cubes: a random network of Eqs. 8-10, the box it is asked on, and the cell of every cube.

The box [-R, R]^d is cut into n^d cubes, and each is labelled by the network's value at its centre: the cell of
:mod:`percolation.labels`, an int8 a cube, which says what intervals of Eq. 4 the value lies in.

Units. The first matrix has entries of variance 1/d, so that the network feels x / sqrt(d): where every coordinate
changes by t it feels a change by t, in every d. The *correlation length* is the t over which the field of the wide
limit changes by its own standard deviation, to first order, at coordinates of order one. A half side is a number of
correlation lengths, R = radius * length, and one of two limits is taken as d grows:

- box "fixed": R does not depend on d, coordinates stay of order one, as pixels do. Across the diagonal the box is as
  many correlation lengths in every d; along a side ever fewer, 2 radius / sqrt(d).
- box "growing": R grows as sqrt(d), and the side is 2 radius correlation lengths in every d: the continuum percolation
  of a field, in boxes of (2 radius)^d correlation volumes. Norms grow beyond order one, so that only the sine, whose
  field is then stationary, is the same field in every d; tanh and erf saturate, relu is homogeneous.

References
----------
Vrabel, Shem-Ur, Oz, Krueger, arXiv:2409.05800, Eqs. 4, 8-10.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from empirical import batches
from lipschitz import fully_connected
from lipschitz import upper as lipschitz_upper
from percolation import arguments, labels, wide

Box = Literal["fixed", "growing"]

_STEP = 0.05  # of a coordinate, over which the field's change is taken
_BATCH = 1 << 13  # cubes: their activations stay in the second cache
_MOST_CELLS = 127  # of an int8
_MOST_AXES = 64  # of an array
_N_CHECKED = 10_000


class WideLaw(TypedDict):
    """What :mod:`percolation.wide` asks of a law of networks."""

    depth: int
    activation: fully_connected.Activation
    weight_variance: float
    bias_variance: float


class LatticeNetwork(BaseModel):
    """A law of random networks of Eqs. 8-10 and the size of the box that they are asked on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    activation: fully_connected.Activation = Field("tanh", description="pointwise function between the matrices")
    depth: int = Field(3, ge=2, le=6, description="weight matrices L")
    width: int = Field(64, ge=1, le=4096, description="units of a hidden layer")
    gain: float | None = Field(
        None, ge=1e-3, le=1e3, description="standard deviation of a later matrix's entries times the root of the width"
    )
    bias_std: float = Field(0.3, ge=0, le=1e3, description="standard deviation of the biases")
    final_activation: fully_connected.FinalActivation = Field(
        "gaussian_cdf", description="of the output over its standard deviation in the wide limit; makes labels uniform"
    )
    radius: float = Field(3.0, ge=1e-3, le=1e3, description="half side of the box, in correlation lengths")
    box: Box = Field("fixed", description="whether the half side is the same in every dimension or grows as its root")


def wide_law(settings: LatticeNetwork) -> WideLaw:
    """Return the wide limit of the networks, before the scale of :func:`build` and the final activation."""
    gain = settings.gain or fully_connected.POINTWISE[settings.activation].unit_gain or 1.0
    return {
        "depth": settings.depth,
        "activation": settings.activation,
        "weight_variance": gain**2,
        "bias_variance": settings.bias_std**2,
    }


def correlation_length(settings: LatticeNetwork) -> float:
    """Return the change of every coordinate over which the wide field changes by its standard deviation.

    That is sqrt(Var f / E (df/dt)^2) for x moved at unit speed a coordinate, at |x|^2 = d, in units of a coordinate and
    the same in every d. The derivative is a difference over 0.05: good to a thousandth for smooth activations, to three
    hundredths for six layers of relu (1 is exact below).

    Examples
    --------
    >>> round(correlation_length(LatticeNetwork(activation="relu", depth=2, bias_std=0)), 3)
    1.005
    """
    # Two points at the same distance from 0; what matters of d is x y / d alone.
    angle = _STEP / 2
    points = math.sqrt(2) * np.array([[math.cos(angle), math.sin(angle)], [math.cos(angle), -math.sin(angle)]])
    covariance = wide.wide_covariance(points, **wide_law(settings))
    change = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return float(2 * math.sin(angle) * math.sqrt(covariance[0, 0] / change))


def half_side(settings: LatticeNetwork, dimension: int) -> float:
    """Return R, the half side of the box, in units of a coordinate.

    Raises
    ------
    TypeError
        If the dimension is no whole number.
    ValueError
        If it is below 1.
    """
    arguments.check_kind("settings", settings, LatticeNetwork)
    dimension = arguments.check_whole("dimension", dimension, least=1)
    growth = math.sqrt(dimension) if settings.box == "growing" else 1.0
    return settings.radius * correlation_length(settings) * growth


def output_std(settings: LatticeNetwork, dimension: int) -> float:
    """Return the wide limit's standard deviation of f^L at the box's typical point, |x|^2 = d R^2 / 3."""
    typical = np.array([[half_side(settings, dimension) / math.sqrt(3)]])
    covariance = wide.wide_covariance(typical, **wide_law(settings))
    return math.sqrt(covariance[0, 0])


def build(settings: LatticeNetwork, dimension: int, seed: int, *, n_outputs: int = 1) -> nn.Sequential:
    """Return a network of the law on ``dimension`` inputs, with outputs in [0, 1], in float64 on the CPU.

    The last matrix and bias are divided by :func:`output_std`, so that the Gaussian distribution function at the end
    makes the output nearly uniform, over networks and over the box; that of one network on a small box is not.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If the dimension or the number of outputs is below 1, the seed negative, or the weights take more than all of
        the memory.
    """
    arguments.check_kind("settings", settings, LatticeNetwork)
    dimension = arguments.check_whole("dimension", dimension, least=1)
    n_outputs = arguments.check_whole("n_outputs", n_outputs, least=1)
    seed = arguments.check_whole("seed", seed, least=0)
    hidden = settings.width * (dimension + (settings.depth - 2) * settings.width + n_outputs)
    arguments.check_memory("dimension, width and outputs", (dimension, settings.width, n_outputs), 8 * hidden)
    network = fully_connected.random_network(
        dimension,
        depth=settings.depth,
        width=settings.width,
        activation=settings.activation,
        final_activation=settings.final_activation,
        gain=settings.gain,
        bias_std=settings.bias_std,
        n_outputs=n_outputs,
        generator=torch.Generator().manual_seed(seed),
    )
    scale = output_std(settings, dimension)
    with torch.no_grad():
        for parameter in network[-2].parameters():
            parameter.div_(scale)
    return network


def axis_centres(n_cells: int, *, radius: float) -> NDArray[np.float64]:
    """Return the centres of ``n_cells`` equal parts of [-radius, radius], symmetric to the bit.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If ``n_cells`` is below 1, or so large that the centres take more than all of the memory, or ``radius`` is not
        positive and finite.

    Examples
    --------
    >>> axis_centres(3, radius=1.5).tolist()
    [-1.0, 0.0, 1.0]
    """
    n_cells = arguments.check_whole("n_cells", n_cells, least=1)
    radius = arguments.check_real("radius", radius, above=0)
    arguments.check_memory("n_cells", n_cells, 16 * n_cells)
    return np.asarray((2 * np.arange(n_cells) - (n_cells - 1)) * (radius / n_cells), dtype=np.float64)


def centres(indices: NDArray[np.int64], *, n_cells: int, radius: float) -> NDArray[np.float64]:
    """Return the centres of cubes of the box [-radius, radius]^d cut into ``n_cells`` along each axis.

    Parameters
    ----------
    indices : array of int64, shape (n, d)
        A cube's number along each axis, in 0 .. n_cells - 1.
    n_cells : int
        At least 1.
    radius : float
        R, positive, in units of a coordinate.

    Returns
    -------
    array, shape (n, d)

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If a number is out of range.

    Examples
    --------
    >>> centres(np.array([[0, 3]]), n_cells=4, radius=1.0).tolist()
    [[-0.75, 0.75]]
    """
    along = axis_centres(n_cells, radius=radius)
    return along[arguments.check_integers("indices", indices, least=0, most=n_cells - 1)]


def label(values: NDArray[np.floating], delta: float) -> NDArray[np.int8]:
    """Return the cell of every value: cell h carries the labels h - 1 and h of Eq. 4 (:mod:`percolation.labels`).

    Raises
    ------
    ValueError
        If a value lies outside [0, 1], 1/delta is not a whole number, or the cells are more than an int8 counts.
    """
    if labels.n_cells(delta) > _MOST_CELLS:
        raise ValueError(f"delta must be at least {2 / (_MOST_CELLS - 1):.4g}, got {delta}")
    return labels.cells(values, delta).astype(np.int8)


def label_box(
    network: nn.Module, dimension: int, *, n_cells: int, radius: float, delta: float, batch: int = _BATCH
) -> NDArray[np.int8]:
    """Return the cell of every cube of the box, by the network's values at the cube's centre.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (n, d) to (n, n_outputs), values in [0, 1]. It is run in float32, whatever its own type.
    dimension : int
        d, at least 1.
    n_cells : int
        Cubes along each axis.
    radius : float
        R, in units of a coordinate.
    delta : float
        Interval length of Eq. 4.
    batch : int
        Cubes at hand together, at most.

    Returns
    -------
    array of int8, shape (n_outputs, n_cells, ..., n_cells)

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If a number is out of range, the box takes more than all of the memory, the network does not take such points,
        or a value lies outside [0, 1].

    Notes
    -----
    Memory is a byte a cube and what the network needs for a batch. A value within float32's rounding of a cell's end
    may fall on the other side of it, and do so or not as the batch is large or small.
    """
    dimension = arguments.check_whole("dimension", dimension, least=1)
    n_cells = arguments.check_whole("n_cells", n_cells, least=1)
    if n_cells > 1:  # else one cube, in any dimension
        most = min(dimension, 64)  # more axes than an array has
        arguments.check_memory("n_cells and dimension", (n_cells, dimension), n_cells**most)
    return label_grid(network, [axis_centres(n_cells, radius=radius)] * dimension, delta=delta, batch=batch)


def label_grid(
    network: nn.Module, axes: Sequence[NDArray[np.float64]], *, delta: float, batch: int = _BATCH
) -> NDArray[np.int8]:
    """Return the cell of every point of a grid, as :func:`label_box` does of a box.

    Parameters
    ----------
    axes : sequence of arrays
        The coordinates along each axis, one or more of each.

    Returns
    -------
    array of int8, shape (n_outputs, len(axes[0]), ..., len(axes[-1]))

    Raises
    ------
    TypeError, ValueError
        As for :func:`label_box`.
    """
    arguments.check_kind("network", network, nn.Module)
    batch = arguments.check_whole("batch", batch, least=1)
    if not 1 <= len(axes) < _MOST_AXES:
        raise ValueError(f"axes must be 1 to {_MOST_AXES - 1}, got {len(axes)}")
    axes = [arguments.check_reals("axes", axis, ndim=1) for axis in axes]
    if min(axis.size for axis in axes) == 0:
        raise ValueError(f"axes must have one coordinate each or more, got {[axis.size for axis in axes]}")
    arguments.check_memory("axes", [axis.size for axis in axes], math.prod(axis.size for axis in axes))
    single = copy.deepcopy(network).float()
    batches.check_points(single, len(axes), dtype=torch.float32)
    along = [torch.from_numpy(axis).float() for axis in axes]
    lengths, dimension = [len(axis) for axis in along], len(along)
    # A batch is some rows of one axis, with all of the axes after it; only what changes is written.
    split = min(k for k in range(dimension) if k == dimension - 1 or math.prod(lengths[k + 1 :]) <= batch)
    inner = math.prod(lengths[split + 1 :])
    n_rows = min(lengths[split], max(1, batch // inner))
    points = torch.empty((n_rows * inner, dimension))
    if split < dimension - 1:
        whole = torch.cartesian_prod(*along[split + 1 :]).reshape(inner, -1)
        points[:, split + 1 :] = whole.repeat(n_rows, 1)
    with torch.no_grad():
        found = np.empty((single(points[:1]).shape[1], math.prod(lengths)), dtype=np.int8)
        end = 0
        for outer in np.ndindex(*lengths[:split]):
            for k, i in enumerate(outer):
                points[:, k] = along[k][i]
            for first in range(0, lengths[split], n_rows):
                rows = along[split][first : first + n_rows]
                part = points[: len(rows) * inner]
                part[:, split] = rows.repeat_interleave(inner)
                end += len(part)
                found[:, end - len(part) : end] = label(single(part).numpy(), delta).T
    return found.reshape(-1, *lengths)


def upper_reach(network: nn.Module, dimension: int, *, side: float) -> float:
    """Return a certified bound of |f(x) - f(c)| over the points x of a cube with centre c and sides ``side``.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If ``side`` is negative or not finite, or the dimension is below 1.
    """
    arguments.check_kind("network", network, nn.Module)
    dimension = arguments.check_whole("dimension", dimension, least=1)
    side = arguments.check_real("side", side, least=0)
    # The cube is a ball of radius side / 2 in the maximum norm, and lies in one of side sqrt(d) / 2 in the Euclidean.
    maximum, euclidean = (lipschitz_upper.upper_product(network, (dimension,), norm=p).value for p in (math.inf, 2))
    return math.nextafter(side / 2 * min(maximum, euclidean * math.nextafter(math.sqrt(dimension), math.inf)), math.inf)


def certain_share(
    network: nn.Module,
    dimension: int,
    *,
    reach: float,
    n_cells: int,
    radius: float,
    delta: float,
    rng: np.random.Generator,
) -> float:
    """Return the share of cubes that certainly carry a label of Eq. 4, of 10,000 drawn.

    Parameters
    ----------
    network : torch.nn.Module
        Maps (n, d) to (n, 1), values in [0, 1], in float64.
    reach : float
        By how much a value in a cube differs from that at its centre, at most: :func:`upper_reach`.
    dimension, n_cells, radius, delta
        As for :func:`label_box`.
    rng : numpy.random.Generator
        Draws the cubes, with replacement: the standard error is at most 0.005.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If a number is out of range, or a value lies outside [0, 1].
    """
    dimension = arguments.check_whole("dimension", dimension, least=1)
    n_cells = arguments.check_whole("n_cells", n_cells, least=1)
    reach = arguments.check_real("reach", reach, least=0)
    arguments.check_generator("rng", rng)
    arguments.check_memory("dimension", dimension, 16 * _N_CHECKED * dimension)
    batches.check_points(network, dimension, dtype=torch.float64)
    drawn = rng.integers(n_cells, size=(_N_CHECKED, dimension))
    with torch.no_grad():
        values = network(torch.from_numpy(centres(drawn, n_cells=n_cells, radius=radius)))[:, 0].numpy()
    # The values lie in [0, 1] whatever the bound says.
    first, last = labels.carried(np.maximum(values - reach, 0), np.minimum(values + reach, 1), delta)
    return float((first <= last).mean())
