"""Experiments with real networks: class-optimal inputs, the paths between them, and how training changes both.

Import the module that you mean: ``from empirical import synthesis``. Importing anything from here makes torchvision
importable first (:mod:`lipschitz.torchvision_operators`).
"""

from lipschitz import torchvision_operators

torchvision_operators.declare()

import torchvision  # noqa: E402, F401
