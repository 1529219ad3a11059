"""How kernels are compiled, in one place."""

from __future__ import annotations

import numba

# cache: compiled once per machine; nogil: threads run kernels side by side; numpy error model: division by zero gives
# infinity in both JIT modes. No fastmath: the order of sums is part of the result.
jit = numba.njit(cache=True, nogil=True, error_model="numpy")
