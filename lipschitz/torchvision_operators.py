"""Makes torchvision importable beside a CPU-only torch.

Its Linux wheel is built against CUDA; beside a CPU-only torch its compiled operators cannot be loaded, and its import
stops where it describes two of them. Nothing here uses those operators, so declaring that they exist is enough; it is
done only where the real ones are missing.
"""

from __future__ import annotations

import torch

_DECLARED: list[torch.library.Library] = []  # declarations live as long as these objects


def declare() -> None:
    """Declare the operators if torchvision is installed and cannot find its own."""
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _DECLARED.append(library)
