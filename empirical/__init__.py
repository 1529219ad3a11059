"""Experiments with real networks: class-optimal inputs, the paths between them, and how training changes both.

Import the module that you mean: ``from empirical import synthesis``.

Importing anything from here makes torchvision importable first. Its Linux wheel is built against CUDA; beside a
CPU-only torch its compiled operators cannot be loaded, and its import stops where it describes two of them. Nothing
here uses those operators, so declaring that they exist is enough; it is done only where the real ones are missing.
"""

import torch

try:
    import torchvision
except RuntimeError as error:
    if "operator torchvision::" not in str(error):
        raise
    # The declarations live as long as this object.
    _OPERATORS = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    _OPERATORS.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _OPERATORS.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    import torchvision  # noqa: F401
