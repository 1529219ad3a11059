"""Every compiled loop of the package: arrays and scalars in, arrays out.

Kernels check nothing: the caller guarantees kinds, sizes and ranges, and each docstring says which. They are
deterministic: randomness comes in as salts of a mixing function or as an order of sites, so that JIT mode, thread count
and compiler change no number.

Numba's cache looks at a kernel's own file only: after a change to one file, kernels of other files that call it are
compiled anew only once ``__pycache__`` is emptied.
"""
