"""Probabilities too small to count: finite clusters of a supercritical lattice by importance sampling.

On the Bethe lattice, clusters at p conditioned on being finite are clusters at the conjugate p' < 1/(z-1), and the
likelihood ratio of the two measures is the same for every cluster. On Z^d loops make it vary, a little. So clusters are
grown at p', where they are small, and a finite cluster of n sites and perimeter b counts with the weight

    w = (p/p')^(n-1) ((1-p)/(1-p'))^b,

whose mean is the probability, at p, that an occupied site's cluster is finite: exactly, in any dimension, up to the
clusters that are stopped. Clusters of one to three sites have closed forms; only the rest is sampled. A probability of
1e-30 is as easy as one of 1e-2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from percolation import arguments, finite_clusters, growth, meanfield
from percolation._kernels import growth as kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class FiniteProbability:
    """The probability Q that an occupied site's cluster is finite, by importance sampling.

    Parameters
    ----------
    value, standard_error : float
        Q and its standard error from the variance of the weights of sampled clusters, those of four sites or more.
    effective_samples : float
        (sum w)^2 / sum w^2; near ``n_samples`` the weights are nearly equal, near 1 one of them rules.
    truncation_bound : float
        Upper bound of what the stopped clusters would add to Q.
    p_sampling : float
        The conjugate probability p' at which clusters were grown.
    n_samples : int
        Clusters grown.
    """

    value: float
    standard_error: float
    effective_samples: float
    truncation_bound: float
    p_sampling: float
    n_samples: int


def finite_probability(
    p: float, dimension: int, *, n_samples: int, max_sites: int, rng: np.random.Generator
) -> FiniteProbability:
    """Return the probability that the cluster of an occupied site of Z^d is finite, however small it is.

    Parameters
    ----------
    p : float
        Occupation probability, in [0, 1). Up to p = 1/(2d-1) the answer is 1, exactly.
    dimension : int
        d, at least 2.
    n_samples : int
        Clusters grown at the conjugate probability, at least 2.
    max_sites : int
        A cluster of that many sites is stopped; at least 2.
    rng : numpy.random.Generator
        Chooses the lattices.

    Raises
    ------
    TypeError
        If an argument is of another kind.
    ValueError
        If an argument lies outside its range.
    RuntimeError
        If the effective sample size is below half of the samples: p is then so near the threshold that the weights
        have a heavy tail, of which few runs show the whole, and an error bar from the sample means nothing.

    Notes
    -----
    Stopped clusters count zero. As in :func:`percolation.growth.truncation_bound`, their true share is at most the
    weight found in the window of sizes below ``max_sites``, plus what one unseen cluster there could weigh.
    """
    p, dimension, n_samples, max_sites = growth.check(p, dimension, n_samples=n_samples, max_sites=max_sites)
    arguments.check_generator("rng", rng)
    if p == 1:
        raise ValueError("p must lie below 1: at p = 1 there are no finite clusters")
    for name, number in (("dimension", dimension), ("n_samples", n_samples)):
        arguments.check_whole(name, number, least=2)
    arguments.check_memory("n_samples", n_samples, 80 * n_samples)
    if (2 * dimension - 1) * p <= 1:  # a site's later neighbours are at most 2d - 1: no infinite cluster
        return FiniteProbability(
            value=1.0,
            standard_error=0.0,
            effective_samples=float(n_samples),
            truncation_bound=0.0,
            p_sampling=p,
            n_samples=n_samples,
        )
    sampling = float(meanfield.conjugate_probability(p, 2 * dimension))
    salts, steps = growth.lattice(dimension, n_samples, rng)
    sizes = np.empty(n_samples, dtype=np.int64)
    perimeters = np.empty(n_samples, dtype=np.int64)
    with np.errstate(over="ignore"):
        kernels.grow_with_perimeter(salts, growth.threshold(sampling), steps, max_sites, sizes, perimeters)
    log_site = np.log(p / sampling) if sampling > 0 else 0.0  # at p' = 0 every cluster is one site
    log_perimeter = np.log1p(-p) - np.log1p(-sampling)
    logs = np.where(sizes < max_sites, (sizes - 1) * log_site + perimeters * log_perimeter, -np.inf)
    largest = logs.max()
    weights = np.exp(logs - largest)  # scaled, so that nothing underflows
    scale = float(np.exp(largest))
    effective = float(weights.sum() ** 2 / np.sum(weights**2)) if np.isfinite(largest) else 0.0
    if effective < n_samples / 2:
        raise RuntimeError(
            f"n_samples must give an effective sample size of at least {n_samples // 2}, got {effective:.1f} "
            f"(p = {p} is too near the threshold in dimension {dimension}; count instead)"
        )
    # Post-stratified by size: one to three sites exactly, the rest by the mean weight of those that were sampled.
    small = [float(finite_clusters.finite_cluster(p, dimension, n)) for n in (1, 2, 3)]
    rest = 1 - sum(float(finite_clusters.finite_cluster(sampling, dimension, n)) for n in (1, 2, 3))
    # Rounding aside, at most (2 d e p')^3: such a cluster holds a connected set of three more sites at the origin.
    rest = min(max(rest, 0.0) + 1e-15, (2 * dimension * np.e * sampling) ** 3)
    sampled = weights[sizes >= 4]
    window = weights[(sizes >= max_sites / growth.window_ratio(dimension)) & (sizes < max_sites)]
    # The last term: Wilson's upper end, two standard errors, of a count of zero.
    bound = (window.sum() + 2 * np.sqrt(np.sum(window**2)) + 4 * weights.max()) / n_samples
    if sampled.size >= 10:
        mean, error = sampled.mean(), sampled.std(ddof=1) / np.sqrt(sampled.size)
    else:  # too few to tell: weights differ little where such clusters are so rare
        mean = error = weights.max()
    return FiniteProbability(
        value=sum(small) + rest * scale * float(mean),
        standard_error=rest * scale * float(error),
        effective_samples=effective,
        truncation_bound=scale * float(bound),
        p_sampling=sampling,
        n_samples=n_samples,
    )
