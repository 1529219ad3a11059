"""Shared pytest settings: one thread of linear algebra, the hypothesis profile, a matplotlib that needs no screen."""

import os

# Before torch and numpy are imported. Several threads on arrays as small as the tests' mostly wait for one another:
# some files take ten times as long with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import matplotlib
from hypothesis import HealthCheck, settings

from lipschitz import torchvision_operators

matplotlib.use("Agg")
torchvision_operators.declare()  # so that tests can import torchvision beside a CPU-only torch
# Compiled kernels make the first example slow: deadlines would flag compilation, not our code.
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
