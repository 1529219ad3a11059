"""Shared pytest settings: the hypothesis profile, and a matplotlib that needs no screen."""

import os

import matplotlib
from hypothesis import HealthCheck, settings

matplotlib.use("Agg")
# Compiled kernels make the first example slow: deadlines would flag compilation, not our code.
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
