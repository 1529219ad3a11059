"""Percolation of labelled cubes in any dimension: simulators, mean field, and campaigns that run them.

Import the module that you mean: ``from percolation import growth``. Clusters: :mod:`~percolation.growth` (of Z^d,
never stored), :mod:`~percolation.clusters` (lattices in memory), :mod:`~percolation.sweep` (all p at once),
:mod:`~percolation.rare` (tiny probabilities), :mod:`~percolation.finite_clusters` (exact). Theory:
:mod:`~percolation.meanfield`, :mod:`~percolation.labels` (Eq. 4), :mod:`~percolation.audit` (every claim). Fields:
:mod:`~percolation.fields`, :mod:`~percolation.levelsets`, :mod:`~percolation.wide`. Thresholds:
:mod:`~percolation.threshold`. Runs: :mod:`~percolation.campaign`. Many tests at once: :mod:`~percolation.statistics`.
"""
