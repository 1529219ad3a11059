"""Experiments with real networks: class-optimal inputs, the paths between them, and how training changes both.

Import the module that you mean: ``from empirical import synthesis``. Inputs and paths: :mod:`~empirical.synthesis`,
:mod:`~empirical.paths`, :mod:`~empirical.connect`. Experiments: :mod:`~empirical.untrained`,
:mod:`~empirical.scaling`, :mod:`~empirical.evolution`, :mod:`~empirical.certificates`. Networks cut into cubes:
:mod:`~empirical.network_lattice`, :mod:`~empirical.conjecture`, :mod:`~empirical.refinement`,
:mod:`~empirical.lattice_search`, :mod:`~empirical.lattice_pairs`.
"""
