"""Slow and obviously right: the independent witnesses. Imports nothing of ours and uses other methods."""

import itertools
from collections.abc import Sequence

import networkx as nx
import numpy as np


def components_by_graph(labels: np.ndarray, periodic: Sequence[bool], reach: int) -> list[frozenset[tuple[int, ...]]]:
    """Clusters of a labelled lattice as sets of coordinates, by networkx on the explicit graph."""
    graph: nx.Graph = nx.Graph()
    for site in np.ndindex(labels.shape):
        if labels[site] < 0:
            continue
        graph.add_node(site)
        for axis, length in enumerate(labels.shape):
            other = list(site)
            other[axis] += 1
            if other[axis] == length:
                if not periodic[axis]:
                    continue
                other[axis] = 0
            neighbour = tuple(other)
            if labels[neighbour] >= 0 and abs(int(labels[neighbour]) - int(labels[site])) <= reach:
                graph.add_edge(site, neighbour)
    return [frozenset(component) for component in nx.connected_components(graph)]


def animals(dimension: int, n_sites: int) -> set[frozenset[tuple[int, ...]]]:
    """All connected sets of n sites of Z^d that hold the origin, by adding a neighbour at a time."""
    found = {frozenset([(0,) * dimension])}
    for _ in range(n_sites - 1):
        found = {animal | {site} for animal in found for site in neighbours(animal)}
    return found


def neighbours(animal: frozenset[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """The sites beside a set of sites."""
    beside = set()
    for site in animal:
        for axis, step in itertools.product(range(len(site)), (-1, 1)):
            other = list(site)
            other[axis] += step
            beside.add(tuple(other))
    return beside - animal


def cluster_size_probability(p: float, dimension: int, n_sites: int) -> float:
    """P(the cluster of an occupied site of Z^d has n sites), by summing over all animals."""
    return sum(p ** (n_sites - 1) * (1 - p) ** len(neighbours(animal)) for animal in animals(dimension, n_sites))
