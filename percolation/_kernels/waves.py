"""Sums of cosines, without a call of a library for each."""

from __future__ import annotations

import math

import numpy as np

from percolation._kernels.compiler import jit

# sin(2 pi v) = v (c_0 + c_1 v^2 + ...): on |v| <= 1/4 the term after the last one is below 2e-18.
_SINE = np.array([(-1) ** k * (2 * math.pi) ** (2 * k + 1) / math.factorial(2 * k + 1) for k in range(11)])


@jit
def add_cosines(turns: np.ndarray, phases: np.ndarray, sums: np.ndarray) -> None:
    """Add cos(2 pi (turns[j, i] + phases[j])) over all j to ``sums[i]``; float64, right to 2e-15 a cosine and turn."""
    c0, c1, c2, c3, c4, c5 = _SINE[0], _SINE[1], _SINE[2], _SINE[3], _SINE[4], _SINE[5]
    c6, c7, c8, c9, c10 = _SINE[6], _SINE[7], _SINE[8], _SINE[9], _SINE[10]
    for j in range(phases.size):
        for i in range(sums.size):  # the same steps for every i, so that the compiler does several at once
            t = turns[j, i] + phases[j]
            v = 0.25 - abs(t - np.floor(t + 0.5))
            x = v * v
            high = c6 + x * (c7 + x * (c8 + x * (c9 + x * c10)))
            sums[i] += v * (c0 + x * (c1 + x * (c2 + x * (c3 + x * (c4 + x * (c5 + x * high))))))
