"""Experiments with real networks: class-optimal inputs, the paths between them, and how training changes both.

Import the module that you mean: ``from empirical import synthesis``.
"""
