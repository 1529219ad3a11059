"""Data sets: the digits, files of the same form, and every way in which a file can be wrong."""

import os
import struct
import urllib.error
import warnings
import zipfile

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from empirical import data


def _arrays(n=20):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * n, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(2 * n) % 10
    return {"x_train": images[:n], "y_train": labels[:n], "x_test": images[n:], "y_test": labels[n:]}


def test_digits_are_split_by_class_and_lose_nothing():
    digits = data.load("digits")
    assert len(digits.x_train) + len(digits.x_test) == 1797
    train, test = (torch.bincount(labels, minlength=10) for labels in (digits.y_train, digits.y_test))
    assert torch.equal(test, (train + test) // 5)
    together = torch.cat([digits.y_train, digits.y_test])
    assert torch.equal(torch.bincount(together), torch.from_numpy(np.bincount(load_digits().target)))


def test_digits_are_the_small_images_enlarged():
    digits = data.load("digits")
    first = load_digits().images[0]  # the first image of its class: for training
    # Mean of the middle two by two pixels of each 4x4 block: weights (7, 1) / 8 on either side cancel in the mean.
    large = digits.x_train[0, 0].double()
    middle = large.reshape(8, 4, 8, 4)[:, 1:3, :, 1:3].mean(dim=(1, 3)).numpy()
    neighbours = np.pad(first, 1, mode="edge")
    blurred = np.zeros((8, 8))
    for row, down in enumerate((1, 14, 1)):
        for column, right in enumerate((1, 14, 1)):
            blurred += down * right / 256 * neighbours[row : 8 + row, column : 8 + column]
    np.testing.assert_allclose(middle, blurred * 255 / 16, atol=0.5)
    assert torch.equal(digits.x_train[:, 0], digits.x_train[:, 1])
    assert torch.equal(digits.x_train[:, 0], digits.x_train[:, 2])


def test_normalised_training_images_have_mean_zero_and_variance_one():
    digits = data.load("digits")
    seen = data.normalise(digits.x_train, digits)
    assert seen.dtype == torch.float32
    np.testing.assert_allclose(seen.double().mean(dim=(0, 2, 3)).numpy(), 0, atol=1e-5)
    np.testing.assert_allclose(seen.double().std(dim=(0, 2, 3)).numpy(), 1, atol=1e-5)


def test_a_file_comes_back_as_it_was_and_its_digest_stands_for_its_content(tmp_path):
    arrays = _arrays()
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    first, same = data.load(str(tmp_path / "a.npz")), data.load(str(tmp_path / "b.npz"))
    assert np.array_equal(first.x_train.numpy(), arrays["x_train"])
    assert np.array_equal(first.y_test.numpy(), arrays["y_test"])
    assert first.digest == same.digest
    arrays["y_test"][0] = 3
    np.savez(tmp_path / "c.npz", **arrays)
    assert data.load(str(tmp_path / "c.npz")).digest != first.digest


@pytest.mark.parametrize(
    "change, message",
    [
        ({"y_test": None}, "it lacks y_test"),
        ({"x_train": np.zeros((20, 3, 32, 32))}, r"x_train must be uint8 .* got float64 \(20, 3, 32, 32\)"),
        ({"x_test": np.zeros((20, 32, 32, 3), np.uint8)}, r"x_test must be uint8 .* got uint8 \(20, 32, 32, 3\)"),
        ({"x_test": np.zeros((0, 3, 32, 32), np.uint8), "y_test": np.zeros(0, int)}, "with n at least 1"),
        ({"y_train": np.zeros(19, int)}, r"y_train must be integers \(20,\), one for each image, got int64 \(19,\)"),
        ({"y_train": np.zeros(20)}, r"y_train must be integers \(20,\).* got float64"),
        ({"y_train": np.arange(20)}, r"y_train must lie in 0\.\.9, got labels from 0 to 19"),
        ({"y_test": -np.ones(20, int)}, r"y_test must lie in 0\.\.9, got labels from -1 to -1"),
        ({"x_train": np.zeros((20, 3, 32, 32), np.uint8)}, "x_train must vary in every channel"),
        ({"y_test": np.array([None] * 20)}, r"must be an .npz file with .*allow_pickle=False"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path, change, message):
    arrays = {name: array for name, array in (_arrays() | change).items() if array is not None}
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message) as caught:
        data.load(str(tmp_path / "bad.npz"))
    assert "bad.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_such_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data must be digits, cifar10 or an \.npz file that is there, got .*none"):
        data.load(str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("not numbers")
    with pytest.raises(ValueError, match=r"text\.npz must be an \.npz file with x_train, y_train, x_test, y_test"):
        data.load(str(tmp_path / "text.npz"))
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match="it holds one array"):
        data.load(str(tmp_path / "one.npy"))
    whole = (tmp_path / "whole.npz").open("wb")
    with whole:
        np.savez(whole, **_arrays())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut\.npz must be an \.npz file"):
        data.load(str(tmp_path / "cut.npz"))


def test_cifar10_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(data, "CACHE", tmp_path)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", refuse)
    with pytest.raises(OSError, match=r"cifar10 cannot be downloaded to .*no network.*give a file by --data FILE\.npz"):
        data.load("cifar10")


def test_any_damage_of_a_file_is_one_line(tmp_path):
    """A compressed file with one byte after another changed: it reads, or is refused with its name."""
    path = tmp_path / "images.npz"
    images = np.zeros((3, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(3)
    np.savez_compressed(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    whole, complaints = path.read_bytes(), []
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            data.load(str(path))
        except ValueError as error:
            complaints.append(str(error))
    assert len(complaints) > 10
    assert all(complaint.startswith(str(path)) for complaint in complaints)


@pytest.mark.parametrize(
    "header",
    [
        *(
            "(" * 200,
            "(" * 5000,
            "-" * 9000 + "1",
            "1+" * 4000 + "1",
            "{1: 2, 'a': 3}",
            "{[]: 1}",
            "if:",
            "x",
            "\0",
            "9" * 5000,
        ),
        *(
            f"{{'descr': {kind}, 'fortran_order': False, 'shape': (3, 3, 32, 32)}}"
            for kind in ("'<f8,('", "None", "'O'", "[1]")
        ),
        *(
            f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"
            for shape in ("(-2,)", "(2.0,)", "2", "(2L,)", f"({10**30},)", f"({2**62},)", f"(0, {2**63})", "(1,) * 99")
        ),
    ],
)
def test_any_header_of_an_array_is_one_line(header, tmp_path):
    """Headers are read as Python's own syntax: as many kinds of errors as that has, and warnings."""
    path = tmp_path / "images.npz"
    with path.open("wb") as file:
        np.savez(file, **_arrays())
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two members of one name: the last one counts
        content = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + bytes(100)
        archive.writestr("x_train.npy", content)
    with pytest.raises(ValueError, match=r"images\.npz(: x_train| must be an \.npz file)") as caught:
        data.load(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "zero.npz").symlink_to("/dev/zero")
    for name in ("pipe.npz", "zero.npz", "."):
        with pytest.raises(ValueError, match=r"data must be digits, cifar10 or an \.npz file that is there, got "):
            data.load(str(tmp_path / name))
