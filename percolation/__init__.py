"""Percolation of labelled cubes in any dimension: simulators, mean field, and campaigns that run them.

Import the module that you mean: ``from percolation import growth``.
"""
