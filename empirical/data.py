"""Image data sets as tensors: the digits that need no download, CIFAR-10, or any file of the same form.

Images are kept as they come, uint8 in 0..255, n x 3 x 32 x 32. A network sees them normalised: divided by 255, less the
training images' mean of each channel, over their standard deviation of each channel (for CIFAR-10: .4914 .4822 .4465
and .2470 .2435 .2616).
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import sys
import tokenize
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from empirical.models import IMAGE_SHAPE, N_CLASSES
from percolation import runs

CACHE = Path("~/.cache/input-connectivity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """A labelled data set: images uint8 (n, 3, 32, 32), labels int64 (n,) in 0..9.

    ``digest`` stands for the content of all four arrays; ``mean`` and ``std``, float32 (3,), are the channels' over the
    training images scaled to [0, 1].
    """

    name: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    digest: str
    mean: torch.Tensor
    std: torch.Tensor


def load(name: str) -> Images:
    """Return the data set ``name``.

    Parameters
    ----------
    name : str
        ``"digits"``; ``"cifar10"``, which is ``cifar10.npz`` below ``~/.cache/input-connectivity`` if somebody put it
        there, otherwise downloaded to that folder once, 170 MB; or the path of an .npz file with x_train, y_train,
        x_test, y_test: images uint8 (n, 3, 32, 32), labels integers in 0..9.

    Returns
    -------
    Images
        On the CPU.

    Raises
    ------
    ValueError
        If the file is not such a file; the line says which array, what was asked and what was found.
    OSError
        If CIFAR-10 cannot be downloaded.
    """
    if name == "digits":
        arrays = _digits()
    elif name == "cifar10":
        arrays = _cifar10()
    else:
        arrays = _read(Path(name).expanduser())
    return _images(name, arrays)


def normalise(images: torch.Tensor, data: Images) -> torch.Tensor:
    """Return uint8 ``images`` (n, 3, 32, 32) as a network sees them, float32, on their own device."""
    mean, std = (values.to(images.device)[:, None, None] for values in (data.mean, data.std))
    return (images.to(torch.float32) / 255 - mean) / std


def _images(name: str, arrays: dict[str, np.ndarray]) -> Images:
    content = hashlib.blake2b(digest_size=8)
    for key, array in arrays.items():
        content.update(f"{key} {array.shape}".encode())
        content.update(np.ascontiguousarray(array).data)
    # From counts of the 256 values, block by block: exact, and small beside the images.
    blocks = np.array_split(arrays["x_train"], -(-len(arrays["x_train"]) // 1000))
    counts = np.zeros((3, 256))
    for block in blocks:
        counts += [np.bincount(block[:, channel].ravel(), minlength=256) for channel in range(3)]
    share = counts / counts.sum(axis=1, keepdims=True)
    values = np.arange(256) / 255
    mean = share @ values
    std = np.sqrt(share @ values**2 - mean**2)
    if (np.count_nonzero(counts, axis=1) == 1).any():
        raise ValueError(f"{name}: x_train must vary in every channel, got a constant channel")
    return Images(
        name=name,
        **{key: torch.from_numpy(array) for key, array in arrays.items()},
        digest=content.hexdigest(),
        mean=torch.from_numpy(mean.astype(np.float32)),
        std=torch.from_numpy(std.astype(np.float32)),
    )


def _digits() -> dict[str, np.ndarray]:
    """Return the 1797 digits of 8x8 pixels in 0..16, bilinear to 32x32, times 255/16, rounded, in three equal channels.

    Every fifth image of a class, in the order of the data set, is for testing. The weights of the interpolation are
    eighths, so that no rounding hides in it.
    """
    digits = load_digits()
    small = torch.from_numpy(digits.images.astype(np.float32))[:, None]
    large = functional.interpolate(small, size=IMAGE_SHAPE[1:], mode="bilinear", align_corners=False)
    images = (large * (255 / 16)).round().to(torch.uint8).expand(-1, *IMAGE_SHAPE).numpy()
    labels = digits.target.astype(np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(N_CLASSES):
        is_test[np.flatnonzero(labels == label)[4::5]] = True
    return {
        "x_train": images[~is_test],
        "y_train": labels[~is_test],
        "x_test": images[is_test],
        "y_test": labels[is_test],
    }


def _cifar10() -> dict[str, np.ndarray]:
    from torchvision.datasets import CIFAR10  # which empirical.models has made importable

    folder = CACHE.expanduser()
    if (folder / "cifar10.npz").is_file():
        return _read(folder / "cifar10.npz")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            parts = {part: CIFAR10(folder, train=part == "train", download=True) for part in ("train", "test")}
    except (OSError, RuntimeError) as error:
        message = f"cifar10 cannot be downloaded to {folder} ({error}); give a file by --data FILE.npz"
        raise OSError(message) from error
    arrays = {}
    for part, images in parts.items():
        arrays[f"x_{part}"] = np.ascontiguousarray(images.data.transpose(0, 3, 1, 2))
        arrays[f"y_{part}"] = np.asarray(images.targets, dtype=np.int64)
    return arrays


# The header of an array is parsed as Python's own syntax, and its numbers may be any.
_DAMAGE = (
    *(ValueError, TypeError, EOFError, OSError, OverflowError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError, SyntaxError),
)


def _read(path: Path) -> dict[str, np.ndarray]:
    names = ("x_train", "y_train", "x_test", "y_test")
    if not path.is_file():
        raise ValueError(f"data must be digits, cifar10 or an .npz file that is there, got {path}")
    try:
        with runs.open_file(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a damaged header: the arrays are checked
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array")
            missing = [name for name in names if name not in archive.files]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            arrays = {name: archive[name] for name in names}
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} must be an .npz file with {', '.join(names)}: {reason}") from error
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != IMAGE_SHAPE or not len(images):
            found = f"{images.dtype} {images.shape}"
            raise ValueError(f"{path}: x_{part} must be uint8 (n, 3, 32, 32) with n at least 1, got {found}")
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            found = f"{labels.dtype} {labels.shape}"
            raise ValueError(f"{path}: y_{part} must be integers ({len(images)},), one for each image, got {found}")
        if labels.min() < 0 or labels.max() >= N_CLASSES:
            raise ValueError(
                f"{path}: y_{part} must lie in 0..{N_CLASSES - 1}, got labels from {labels.min()} to {labels.max()}"
            )
        arrays[f"y_{part}"] = labels.astype(np.int64)
    return arrays
