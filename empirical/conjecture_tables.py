"""What a person would quote of P(connected) against dimension: rows of means and errors, from the dataset."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from percolation.growth import Z_95, wilson_interval

_PLACE = ("activation", "depth", "box", "dimension")
SLACK = 0.1  # of 1 - P, by which finer cubes may move it


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return what a person would quote of each activation, depth, box and dimension: means over networks.

    Models are taken on their finest rung. ``moved`` is by how much halving the cubes moved the networks' mean, and
    ``moved_error`` its standard error over networks, each on both rungs; ``is_resolved`` if it is, with two of these
    errors, at most a tenth of the mean's distance from 1.
    ``network_at_field`` is the networks' mean on the fields' finest rung. ``network_pooled`` and ``independent_pooled``
    are ratios of means, with the networks' pairs all alike; None in runs that did not keep ``n_shared``.
    """
    shared = int(json.loads(dataset.attrs["settings"])["shared_fields"])
    found = []
    for place in itertools.product(*(dataset[name].to_numpy().tolist() for name in _PLACE)):
        row: dict[str, Any] = dict(zip(_PLACE, place, strict=True))
        here = dataset.sel(row)
        side = here["side"].to_numpy()
        by_network = here["in_label"].sel(model="network").to_numpy()
        network = by_network.mean(axis=0)
        for model in dataset["model"].to_numpy().tolist():
            values = here["in_label"].sel(model=model).to_numpy()
            there = np.flatnonzero(np.isfinite(values).all(axis=0))
            last = values[:, there[-1]] if there.size else None
            row[model] = None if last is None else float(last.mean())
            row[f"{model}_error"] = None if last is None else standard_error(last, shared if model == "field" else 1)
            row[f"{model}_side"] = None if last is None else int(side[there[-1]])
        for model in ("network", "independent"):
            row |= _pooled(here, "in_label", "n_shared", model)
        row["network_at_field"] = None if row["field"] is None else float(network[side == row["field_side"]][0])
        row |= {"moved": None, "moved_error": None, "is_resolved": False}
        if side[-2]:
            moved = by_network[:, -1] - by_network[:, -2]
            row["moved"], row["moved_error"] = float(moved.mean()), standard_error(moved)
            most = abs(row["moved"]) + 2 * row["moved_error"]
            row["is_resolved"] = most <= SLACK * (1 - row["network"])
        row["in_any"] = float(here["in_any"].sel(model="network").isel(rung=-1).mean())
        row["mean_field"] = float(here["mean_field"].isel(rung=-1).mean())
        row |= {name: float(here[name].mean()) for name in ("certain", "certain_side", "covariance_error")}
        found.append(row)
    return found


def size_rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return the networks' and the independent labels' means over growing boxes of several sizes, by dimension."""
    found = []
    names = ("activation", "depth", "size_dimension", "size_radius")
    for place in itertools.product(*(dataset[name].to_numpy().tolist() for name in names)):
        row: dict[str, Any] = dict(zip(names, place, strict=True))
        here = dataset.sel(row)
        by_network = here["in_label_by_size"]
        for model in ("network", "independent"):
            last = by_network.sel(model=model).isel(rung=-1).to_numpy()
            row[model], row[f"{model}_error"] = float(last.mean()), standard_error(last)
            row |= _pooled(here, "in_label_by_size", "n_shared_by_size", model)
        moved = float((by_network.isel(rung=-1) - by_network.isel(rung=-2)).sel(model="network").mean())
        row["moved"] = moved if np.isfinite(moved) else None
        found.append(row)
    return found


def search_rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Return how many pairs are joined by search, with Wilson's 95 % interval; one given up counts as not joined."""
    found = []
    names = ("activation", "depth", "search_dimension")
    for place in itertools.product(*(dataset[name].to_numpy().tolist() for name in names)):
        row: dict[str, Any] = dict(zip(names, place, strict=True))
        is_joined = dataset["is_joined"].sel(row).to_numpy()
        n_joined, n_pairs = int(np.nansum(is_joined)), is_joined.size
        low, high = wilson_interval(n_joined, n_pairs, z=Z_95)
        counts = {"n_pairs": n_pairs, "n_joined": n_joined, "n_given_up": int(np.isnan(is_joined).sum())}
        found.append(row | counts | {"low": low, "high": high})
    return found


def ratio_of_means(ratios: NDArray[np.float64], weights: NDArray[np.float64], *, axis: int = -1) -> NDArray[np.float64]:
    """Return sum of weights times ratios over sum of weights: the ratio of the means that the ratios are made of.

    Parameters
    ----------
    ratios, weights : array, of one shape
        Each network's ratio, and the denominator of that ratio in any one unit, along ``axis``.

    Examples
    --------
    >>> ratio_of_means(np.array([1 / 2, 6 / 8]), np.array([2.0, 8.0])).item()
    0.7
    """
    found: NDArray[np.float64] = (ratios * weights).sum(axis=axis) / weights.sum(axis=axis)
    return found


def _pooled(dataset: xr.Dataset, ratio: str, weight: str, model: str) -> dict[str, float | None]:
    """Return the ratio of means of one model on the finest rung, and its standard error to first order."""
    names = (f"{model}_pooled", f"{model}_pooled_error")
    if weight not in dataset:
        return dict.fromkeys(names)
    ratios, weights = (dataset[name].sel(model=model).isel(rung=-1).to_numpy() for name in (ratio, weight))
    pooled = float(ratio_of_means(ratios, weights))
    return dict(zip(names, (pooled, standard_error(weights * (ratios - pooled) / weights.mean())), strict=True))


def standard_error(values: NDArray[np.float64], shared: int = 1) -> float:
    """Return the standard error of the mean of values of which ``shared`` at a time are one sample."""
    samples = values.reshape(-1, shared).mean(axis=1)
    return float(samples.std(ddof=1) / np.sqrt(samples.size))
