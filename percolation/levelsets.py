"""Percolation of level sets: the density at which the sites where a random field is large wrap around a torus.

The sites of one field, from its largest value down, are its level sets {phi >= h} for every h: one union-find sweep
gives the density n/N at which a cluster first wraps around each axis. On average over fields, and as L grows,

    density = p_c + A L^(-1/nu) + B L^(-2/nu) + ...

with A and B of their own for the axis that is wrapped first, second, ..., and one p_c. For independent sites nu is that
of percolation. The Gaussian free field's covariance falls as r^(2-d): by Weinrib and Halperin, correlations that fall
as r^-a, with a nu < 2 for the nu of independent sites, change the exponent to 2/a = 2/(d-2); so it is for d = 3, 4, 5.
On a torus the free field has no zero mode: its variance is smaller by a term of L^(2-d) = L^(-2/nu), which goes with B.

The law of a Gaussian field is that of its negative, so that each field is swept from both ends.

References
----------
Newman, Ziff, Phys. Rev. E 64, 016706 (2001), DOI 10.1103/PhysRevE.64.016706. Weinrib, Halperin, Phys. Rev. B 27, 413
(1983), DOI 10.1103/PhysRevB.27.413. Drewitz, Prevost, Rodriguez, Commun. Math. Phys. 362, 513 (2018), DOI
10.1007/s00220-018-3209-6: h* > 0, so p_c < 1/2, in every dimension from 3 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.linalg
import scipy.stats
import xarray as xr
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from percolation import arguments, fields, sweep, threshold
from percolation.campaign import Arrays, Experiment

Floats = NDArray[np.float64]
Law = Literal["free", "white"]

LAWS: dict[Law, str] = {"free": "Gaussian free field", "white": "independent sites"}
LENGTHS = {
    3: (16, 24, 32, 48, 64, 96, 128, 192),
    4: (8, 10, 12, 16, 20, 24, 32, 40),
    5: (6, 7, 8, 10, 12, 14, 16, 20),
}
# Independent sites: Koza, Pola, J. Stat. Mech. (2016) 103206, DOI 10.1088/1742-5468/2016/10/103206.
EXPONENTS: dict[Law, dict[int, float]] = {
    "free": {d: 2 / (d - 2) for d in LENGTHS},
    "white": {3: 0.8774, 4: 0.6852, 5: 0.5723},
}
EXPONENT_ERRORS = {3: 0.0013, 4: 0.0028, 5: 0.0018}  # of independent sites, the same source
PUBLISHED: dict[Law, dict[int, tuple[float, float, str]]] = {
    "free": {
        3: (
            0.16,
            0.005,  # of the printed digits
            "Marinov, Lebowitz, Phys. Rev. E 74, 031120 (2006), DOI 10.1103/PhysRevE.74.031120",
        )
    },
    "white": {d: threshold.PUBLISHED["site"][d] for d in LENGTHS},
}
SHARES = np.arange(1, 20) / 20  # of the fields that have wrapped: where the distribution is kept
_LEAST_LENGTHS = 4
_LEAST_FIELDS = 16
_TASK_SITES = 2**22  # swept in one task, or one field


class Settings(BaseModel):
    """How large the tori, and how many fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    max_sites: int = Field(350_000, ge=111_000, le=8_000_000, description="sites of the largest torus")
    sites: int = Field(
        2**22, ge=2**16, le=2**34, description="sites of all fields of one length together; 16 fields at least"
    )
    seed: int = Field(0, ge=0, description="seed of the run")


PRESETS = {"quick": Settings(), "paper": Settings(max_sites=8_000_000, sites=2**30)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some fields of one law on one torus."""

    law: Law
    dimension: int
    length: int
    n_fields: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extrapolation:
    """A critical density.

    Parameters
    ----------
    value : float
        p_c.
    standard_error : float
        The scatter of the fields, and in quadrature by how much another extrapolation differs beyond that scatter.
    statistical_error : float
        The first of the two alone.
    slopes : array, shape (n_axes,)
        A of each place, in units of density: the leading shift is A L^(-1/nu).
    bends : array, shape (n_axes,)
        B.
    """

    value: float
    standard_error: float
    statistical_error: float
    slopes: Floats
    bends: Floats


def wrapping_densities(field: Floats) -> Floats:
    """Return the share of sites above the level at which the level set of a periodic field first wraps each axis.

    Parameters
    ----------
    field : array, shape (L_1, ..., L_d)
        Any field; equal values are taken in any order. Every axis is periodic, of at least 3 sites.

    Returns
    -------
    array, shape (2, d)
        Of {field >= h}, and of {field <= h}.

    Raises
    ------
    TypeError
        If the values are no numbers, or some are masked.
    ValueError
        If a value is nan, or the lattice is too small or too large for :func:`percolation.sweep.wrapping_in_order`.

    Examples
    --------
    >>> field = np.array([[9.0, 1.0, 2.0], [8.0, 3.0, 4.0], [7.0, 5.0, 6.0]])
    >>> (9 * wrapping_densities(field)).round().tolist()
    [[3.0, 5.0], [5.0, 7.0]]
    """
    field = arguments.check_numbers("field", field)
    if np.isnan(field).any():
        raise ValueError("field must hold numbers, got nan")
    order = np.argsort(field, axis=None)
    wrapped = [sweep.wrapping_in_order(way, field.shape) for way in (order[::-1], order)]
    return np.stack(wrapped) / field.size


def extrapolate(
    lengths: NDArray[np.int64], means: Floats, covariances: Floats, n_fields: NDArray[np.int64], *, nu: float
) -> Extrapolation:
    """Return the critical density from mean wrapping densities on tori, L to infinity.

    Parameters
    ----------
    lengths : array of int64, shape (n,)
        L, rising, at least four.
    means : array, shape (n, d)
        Mean densities at the first, second, ..., last wrapped axis.
    covariances : array, shape (n, d, d)
        Of one field's densities.
    n_fields : array of int64, shape (n,)
        Independent fields.
    nu : float
        Exponent of the correlation length.

    Raises
    ------
    TypeError
        If an argument holds no numbers.
    ValueError
        If there are fewer than four lengths, they do not rise, numbers of them do not match, or one is out of range.

    Notes
    -----
    One linear least squares for all places and lengths, weighted by the covariance of all lengths pooled in units of
    L^(-2/nu); wrong weights cost precision, not validity, since the error is that of the fields at each length. The
    other extrapolation leaves out the smaller half of the lengths and B; by as much as the squared difference exceeds
    its own variance, it adds to the squared error. A wrong nu is not in the error: :func:`exponent_part`.
    """
    sides = arguments.check_reals("lengths", lengths, least=1, ndim=1)
    means = arguments.check_reals("means", means, ndim=2)
    covariances = arguments.check_reals("covariances", covariances, ndim=3)
    counts = arguments.check_reals("n_fields", n_fields, least=1, ndim=1)
    nu = arguments.check_real("nu", nu, above=0)
    if sides.size < _LEAST_LENGTHS:
        raise ValueError(f"lengths must be at least {_LEAST_LENGTHS}, got {sides.size}")
    if np.any(np.diff(sides) <= 0):
        raise ValueError(f"lengths must rise, got {arguments.shown(sides)}")
    n, d = sides.size, means.shape[1]
    if d == 0 or (len(means), counts.size, covariances.shape) != (n, n, (n, d, d)):
        raise ValueError(
            f"means, n_fields and covariances must be ({n}, d), ({n},) and ({n}, d, d), got shapes {means.shape}, "
            f"{counts.shape} and {covariances.shape}"
        )
    least = float(np.linalg.eigvalsh(covariances).min())
    if not least > 0:
        raise ValueError(f"covariances must be positive definite, got one with the eigenvalue {least:.3g}")
    x = np.asarray(sides ** (-1 / nu), dtype=np.float64)
    if not (x[-1] > 1e-30 and x[-1] < (1 - 1e-6) * x[0]):
        raise ValueError(f"nu must tell the lengths apart by their powers -1/nu, got {nu:g}")
    shape = (counts[:, None, None] * covariances / x[:, None, None] ** 2).sum(axis=0) / counts.sum()
    inverse = scipy.linalg.block_diag(*(n * np.linalg.inv(shape * u**2) for n, u in zip(counts, x, strict=True)))
    scatter = scipy.linalg.block_diag(*(cov / n for n, cov in zip(counts, covariances, strict=True)))
    is_used = np.ones(x.size, dtype=np.bool_)
    weights = _weights(x, d, inverse, (1, 2), is_used)
    is_used[: x.size // 2] = False
    others = _weights(x, d, inverse, (1,), is_used)[0]
    found = weights @ means.ravel()
    difference = others - weights[0]
    variance = float(weights[0] @ scatter @ weights[0])
    excess = max(0.0, float((difference @ means.ravel()) ** 2 - difference @ scatter @ difference))
    return Extrapolation(
        value=float(found[0]),
        standard_error=float(np.sqrt(variance + excess)),
        statistical_error=float(np.sqrt(variance)),
        slopes=found[1 : 1 + d],
        bends=found[1 + d :],
    )


def _weights(x: Floats, d: int, inverse: Floats, powers: tuple[int, ...], is_used: NDArray[np.bool_]) -> Floats:
    """Return the weights with which the means, (length, place) in C order, add up to p_c, then A, then B of each."""
    columns = [np.ones((x.size * d, 1))] + [np.kron(x[:, None] ** power, np.eye(d)) for power in powers]
    design = np.concatenate(columns, axis=1) * np.repeat(is_used, d)[:, None]
    found: Floats = np.linalg.solve(design.T @ inverse @ design, design.T @ inverse)
    return found


def tasks(settings: Settings) -> dict[str, Batch]:
    """Return batches of fields for each law, dimension and length, the largest tori first."""
    found: dict[str, Batch] = {}
    for law in LAWS:
        for dimension in LENGTHS:
            for length in reversed(torus_lengths(settings, dimension)):
                sites = length**dimension
                n_fields = max(_LEAST_FIELDS, settings.sites // sites)
                n_batches = -(-n_fields // max(1, _TASK_SITES // sites))
                for i in range(n_batches):
                    part = (i + 1) * n_fields // n_batches - i * n_fields // n_batches
                    found[f"{law} d={dimension} L={length} {i}"] = Batch(
                        law=law, dimension=dimension, length=length, n_fields=part
                    )
    return found


def torus_lengths(settings: Settings, dimension: int) -> tuple[int, ...]:
    """Return the lengths of the tori of one dimension.

    Raises
    ------
    TypeError
        If the dimension is no whole number.
    ValueError
        If there is none in this dimension.
    """
    dimension = arguments.check_whole("dimension", dimension, least=min(LENGTHS), most=max(LENGTHS))
    return tuple(length for length in LENGTHS[dimension] if length**dimension <= settings.max_sites)


def run_task(_: Settings, task: Batch, seeds: np.random.SeedSequence) -> Arrays:
    """Return the wrapping densities of some fields, shape (field, sign, place), places in the order of wrapping."""
    rng = np.random.default_rng(seeds)
    shape = (task.length,) * task.dimension
    spectrum = fields.free_field_spectrum(shape) if task.law == "free" else None
    found = []
    for _field in range(task.n_fields):
        field = rng.random(shape) if spectrum is None else fields.on_torus(spectrum, rng=rng)
        found.append(np.sort(wrapping_densities(field), axis=1))
    return {"densities": np.stack(found)}


_MEANINGS = {
    "p_c": "critical density, extrapolated",
    "standard_error": "standard error, extrapolation included, nu taken for granted",
    "statistical_error": "scatter of the fields alone",
    "published": "published critical density",
    "published_error": "its standard error",
    "nu": "exponent of the correlation length used in extrapolating",
    "nu_measured": "exponent by which the spread of the densities falls with the length",
    "nu_error": "its standard error, from the scatter alone",
}
_VARIABLES = _MEANINGS | {
    "length": "length L of the torus",
    "n_fields": "fields swept, each from both ends",
    "spread": "standard deviation of the density at which an axis is wrapped",
    "spread_error": "its standard error",
    "mean": "mean density at which the first, second, ... axis is wrapped",
    "mean_error": "its standard error",
    "slope": "fitted factor A of L^(-1/nu) in the mean density of each place",
    "bend": "fitted factor B of L^(-2/nu)",
    "quantile": "density at which so large a share of the axes is wrapped",
}


def collect(settings: Settings, arrays: Mapping[str, Arrays]) -> xr.Dataset:
    """Return densities over (law, dimension, size, place), and what they tend to over (law, dimension).

    Entries of sizes or places that a dimension lacks are nan.
    """
    how: Any = {"join": "outer", "data_vars": "all", "coords": "minimal", "compat": "equals"}
    laws = [xr.concat([_series(settings, arrays, law, d) for d in LENGTHS], dim="dimension", **how) for law in LAWS]
    dataset = xr.concat(laws, dim="law", **how).assign_coords(
        law=("law", list(LAWS), {"long_name": "law of the field"}),
        dimension=("dimension", list(LENGTHS), {"long_name": "dimension d", "units": "1"}),
        share=("share", SHARES, {"long_name": "share of axes and fields", "units": "1"}),
    )
    dataset["place"].attrs = {"long_name": "place of an axis in the order of wrapping", "units": "1"}
    dataset["size"].attrs = {"long_name": "number of the torus, from the smallest", "units": "1"}
    for name, meaning in _VARIABLES.items():
        dataset[name].attrs = {"long_name": meaning, "units": "sites" if name == "length" else "1"}
    return dataset


def _series(settings: Settings, arrays: Mapping[str, Arrays], law: Law, dimension: int) -> xr.Dataset:
    """Return everything about one law in one dimension, over (size, place)."""
    samples = [_densities(settings, arrays, law, dimension, length) for length in torus_lengths(settings, dimension)]
    folded = [sample.mean(axis=1) for sample in samples]  # the two ends of a field are one sample
    ladder, n_fields = np.array(torus_lengths(settings, dimension)), np.array([len(sample) for sample in samples])
    means = np.stack([part.mean(axis=0) for part in folded])
    covariances = np.stack([np.cov(part.T) for part in folded])
    found = extrapolate(ladder, means, covariances, n_fields, nu=EXPONENTS[law][dimension])
    spread, spread_error = np.array([_spread(sample) for sample in samples]).T
    nu_measured, nu_error = _exponent(ladder, spread, spread_error, n_fields)
    published, published_error, _ = PUBLISHED[law].get(dimension, (np.nan, np.nan, ""))
    limits = {
        "p_c": found.value,
        "standard_error": found.standard_error,
        "statistical_error": found.statistical_error,
        "published": published,
        "published_error": published_error,
        "nu": EXPONENTS[law][dimension],
        "nu_measured": nu_measured,
        "nu_error": nu_error,
    }
    by_length = {"length": ladder, "n_fields": n_fields, "spread": spread, "spread_error": spread_error}
    errors = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2) / n_fields[:, None])
    quantiles = np.stack([np.quantile(sample, SHARES) for sample in samples])
    return xr.Dataset(
        {name: ((), value) for name, value in limits.items()}
        | {name: (("size",), value.astype(np.float64)) for name, value in by_length.items()}
        | {name: (("size", "place"), value) for name, value in (("mean", means), ("mean_error", errors))}
        | {name: (("place",), value) for name, value in (("slope", found.slopes), ("bend", found.bends))}
        | {"quantile": (("size", "share"), quantiles)},
        coords={"size": np.arange(ladder.size), "place": np.arange(1, dimension + 1)},
    )


def _densities(settings: Settings, arrays: Mapping[str, Arrays], law: Law, dimension: int, length: int) -> Floats:
    """Return the densities of all fields of one law and torus, shape (field, sign, place)."""
    wanted = (law, dimension, length)
    return np.concatenate(
        [
            arrays[key]["densities"]
            for key, task in tasks(settings).items()
            if (task.law, task.dimension, task.length) == wanted
        ]
    )


def _spread(sample: Floats) -> tuple[float, float]:
    """Return the standard deviation of all densities and its standard error, from the scatter over fields."""
    squares = ((sample - sample.mean()) ** 2).mean(axis=(1, 2))
    spread = float(np.sqrt(squares.mean()))
    return spread, float(squares.std(ddof=1) / np.sqrt(squares.size) / (2 * spread))


def _exponent(
    lengths: NDArray[np.int64], spread: Floats, error: Floats, n_fields: NDArray[np.int64]
) -> tuple[float, float]:
    """Return nu and its error from spread ~ L^(-1/nu), a line through the logarithms of the larger half."""
    # One field's part of the relative error is the same at every length: few fields tell it badly.
    relative = np.sqrt(np.mean((error / spread) ** 2 * n_fields) / n_fields)[lengths.size // 2 :]
    logs = np.log(np.stack([lengths, spread])[:, lengths.size // 2 :])
    design = np.stack([np.ones(relative.size), logs[0]], axis=1) / relative[:, None]
    covariance = np.linalg.inv(design.T @ design)
    slope = float((covariance @ design.T @ (logs[1] / relative))[1])
    return -1 / slope, float(np.sqrt(covariance[1, 1])) / slope**2


def exponent_part(dataset: xr.Dataset, law: Law, dimension: int) -> float:
    """Return by how much a critical density moves with the exponent of the correlation length, within its uncertainty.

    The exponent of independent sites is known to ``EXPONENT_ERRORS``. The free field's is an argument of Weinrib and
    Halperin about infinite tori: what it may be off by on these is taken from their own fields, as the distance of 1/nu
    from that with which the densities' spread falls, and its standard error, in quadrature.

    Parameters
    ----------
    dataset : xarray.Dataset
        Of :func:`collect`.
    law : {"free", "white"}
    dimension : {3, 4, 5}

    Returns
    -------
    float
        The move of p_c, in units of density, when 1/nu is one uncertainty larger; the other way it moves less. The fits
        leave out the correlations between places, which changes the move by less than a tenth.
    """
    point = dataset.sel(law=law, dimension=dimension)
    point = point.isel(size=slice(int(point["n_fields"].count()))).sel(place=range(1, dimension + 1))
    n_fields = point["n_fields"].to_numpy().astype(np.int64)
    variances = point["mean_error"].to_numpy() ** 2 * n_fields[:, None]
    nu, measured, error = (float(point[name]) for name in ("nu", "nu_measured", "nu_error"))
    if law == "white":
        measured, error = nu, EXPONENT_ERRORS[dimension]
    uncertainty = float(np.hypot(1 / measured - 1 / nu, error / measured**2))
    found = [
        extrapolate(
            point["length"].to_numpy().astype(np.int64),
            point["mean"].to_numpy(),
            variances[:, None] * np.eye(dimension),
            n_fields,
            nu=one,
        ).value
        for one in (nu, 1 / (1 / nu + uncertainty))
    ]
    return abs(found[1] - found[0])


def summarise(settings: Settings, dataset: xr.Dataset) -> dict[str, Any]:
    """Return ``rows``, one for each law and dimension; ``level`` is h in standard deviations of the infinite field.

    ``total_error`` has ``standard_error`` and ``exponent_part``, in quadrature.
    """
    rows = []
    for law in LAWS:
        for d in LENGTHS:
            point = dataset.sel(law=law, dimension=d)
            row: dict[str, Any] = {"field": LAWS[law], "dimension": d}
            row |= {name: float(point[name]) for name in _MEANINGS}
            row = {name: None if value != value else value for name, value in row.items()}
            row["exponent_part"] = exponent_part(dataset, law, d)
            row["total_error"] = float(np.hypot(row["standard_error"], row["exponent_part"]))
            row["source"] = PUBLISHED[law][d][2] if d in PUBLISHED[law] else None
            row["level"] = float(scipy.stats.norm.isf(row["p_c"])) if law == "free" else None
            row["largest"] = torus_lengths(settings, d)[-1]
            row["n_fields"] = int(point["n_fields"].sum())
            rows.append(row)
    return {"rows": rows}


EXPERIMENT: Experiment[Settings, Batch] = Experiment(
    name="levelsets", version=2, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
)
