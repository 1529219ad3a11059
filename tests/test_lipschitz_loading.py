"""Networks named by MODULE:FUNCTION, and their weights from files."""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from lipschitz import loading


@pytest.fixture
def module(monkeypatch):
    """An importable module with functions that make networks, and some that do not."""
    found = types.ModuleType("made_for_a_test")
    found.dense = lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout())
    found.text = lambda: "no network"
    found.needy = lambda size: nn.Linear(size, 1)
    found.sevens = lambda: nn.Sequential(nn.Linear(7, 7), nn.Linear(7, 7), nn.Linear(7, 7))
    found.lazy = lambda: nn.LazyLinear(2)
    found.dividing = lambda: 1 / 0
    found.exiting = lambda: sys.exit(0)
    found.drifting = lambda: nn.Linear(len(calls.append(0) or calls), 1)
    calls = []
    monkeypatch.setitem(sys.modules, "made_for_a_test", found)
    return "made_for_a_test"


def test_the_seed_makes_the_weights_and_the_global_generator_is_left_alone(module):
    before = torch.get_rng_state()
    one, two, other = (loading.load_network(f"{module}:dense", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert not one.training


def test_torchvision_is_found_beside_a_cpu_only_torch():
    assert type(loading.load_network("torchvision.models:resnet18")).__name__ == "ResNet"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_come_from_either_kind_of_file(module, tmp_path, suffix):
    kept = loading.load_network(f"{module}:dense", seed=5)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(kept.state_dict(), path)
    else:
        safetensors.torch.save_file(kept.state_dict(), path)
    found = loading.load_network(f"{module}:dense", weights=path)
    assert torch.equal(found[0].weight, kept[0].weight)


@pytest.mark.parametrize(
    "name, message",
    [
        ("dense", r"network must be MODULE:FUNCTION or FILE.py:FUNCTION, got dense"),
        ("made_for_a_test:", r"network must be MODULE:FUNCTION or FILE.py:FUNCTION, got made_for_a_test:"),
        ("..:f", r"network must be MODULE:FUNCTION or FILE.py:FUNCTION, got \.\.:f"),
        (
            "nowhere.at.all:f",
            r"MODULE:FUNCTION that can be imported, got nowhere.at.all:f: ModuleNotFoundError: No module",
        ),
        ("./nowhere.py:f", r"FILE.py:FUNCTION that can be imported, got ./nowhere.py:f: FileNotFoundError: "),
        ("made_for_a_test:f", r"that can be imported, got made_for_a_test:f: .* has no attribute 'f'"),
        ("made_for_a_test:text", r"network must be a torch.nn.Module, got str from made_for_a_test:text"),
        ("made_for_a_test:needy", r"network must be a function without arguments, got made_for_a_test:needy: "),
        ("made_for_a_test:__name__", r"network must be a function without arguments, got made_for_a_test:__name__: "),
        (
            "made_for_a_test:dividing",
            r"network must be made without failing, got made_for_a_test:dividing: ZeroDivisionError: division by zero "
            r"\(.*test_lipschitz_loading.py, line \d+\)$",
        ),
        ("made_for_a_test:exiting", r"without failing, got made_for_a_test:exiting: SystemExit: 0 \("),
    ],
)
def test_a_name_that_makes_no_network_is_refused(module, name, message):
    with pytest.raises(ValueError, match=message):
        loading.load_network(name)


def test_a_file_is_imported_as_it_is_now_with_what_lies_beside_it(tmp_path):
    (tmp_path / "beside_it.py").write_text("SIZE = 3\n")
    path = tmp_path / "my net.py"
    before = list(sys.path)
    digests = set()
    for bias in ("True ", "False"):  # of one length, within one second: a compiled form would be taken for current
        path.write_text(
            f"from torch import nn\nfrom beside_it import SIZE\nnet = lambda: nn.Linear(SIZE, 1, bias={bias})\n"
        )
        network = loading.load_network(f"{path}:net")
        assert (network.bias is not None) == (bias == "True ")
        digests.add(loading.digest_of(f"{path}:net", network))
    assert len(digests) == 2
    assert sys.path == before
    path.write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(
        ValueError, match=r"FILE.py:FUNCTION that can be imported, got .*: SystemExit: 0 \(.*my net.py, line 2"
    ):
        loading.load_network(f"{path}:net")
    path.write_text("def (\n")
    with pytest.raises(
        ValueError, match=r"that can be imported, got .*: SyntaxError: invalid syntax \(my net.py, line 1\)"
    ):
        loading.load_network(f"{path}:net")


def test_the_digest_is_that_of_the_weights_and_of_the_file(module):
    one, other = (loading.load_network(f"{module}:dense", seed=seed) for seed in (1, 2))
    digest = loading.digest_of(f"{module}:dense", one)
    assert digest != loading.digest_of(f"{module}:dense", other)
    assert loading.load_network(f"{module}:dense", seed=1, digest=digest)[0].weight.equal(one[0].weight)
    with pytest.raises(
        ValueError, match=r"network must be the same whenever it is made, got others from .*:dense: seed"
    ):
        loading.load_network(f"{module}:dense", seed=2, digest=digest)
    digest = loading.digest_of(f"{module}:drifting", loading.load_network(f"{module}:drifting"))
    with pytest.raises(ValueError, match=r"network must be the same whenever it is made, got others from .*:drifting"):
        loading.load_network(f"{module}:drifting", digest=digest)
    with pytest.raises(ValueError, match=r"weights of .*:lazy must be dense numbers, got weight: "):
        loading.digest_of(f"{module}:lazy", loading.load_network(f"{module}:lazy"))


def test_an_input_that_the_network_does_not_take_is_refused(module):
    network = loading.load_network(f"{module}:dense")
    loading.check_input(f"{module}:dense", network, (3,))
    with pytest.raises(ValueError, match=r"network must take inputs of shape \(4,\), got .*:dense: RuntimeError: mat1"):
        loading.check_input(f"{module}:dense", network, (4,))


def test_weights_that_do_not_fit_are_listed_by_key(module, tmp_path):
    path = tmp_path / "weights.pt"

    def complaint(state, name="sevens"):
        torch.save(state, path)
        with pytest.raises(ValueError, match=rf"weights must be .*, got .*{path.name}") as raised:
            loading.load_network(f"{module}:{name}", weights=path)
        assert "\n" not in str(raised.value)
        return str(raised.value).partition("weights.pt")[2]

    whole = loading.load_network(f"{module}:sevens").state_dict()
    assert complaint({}) == ": it lacks 0.weight, 0.bias, 1.weight, 1.bias, 2.weight and 1 more"
    assert complaint({"state_dict": whole, "epoch": 3}).endswith("; it has state_dict, epoch")
    assert complaint(whole | {"1.bias": torch.zeros(3)}) == ": of another shape is 1.bias, (3,) for (7,)"
    assert complaint(whole | {"1.bias": 3}) == ": no tensor is 1.bias"
    assert complaint(whole | {"1.bias": torch.zeros(7) * 1j}) == ": complex is 1.bias"
    assert complaint([whole]) == " with a list"


def test_a_damaged_file_of_weights_is_one_line_or_the_same_weights(module, tmp_path):
    """Every part of a zip file has a check sum. The older form has none: there it is one line, or other numbers."""
    kept = loading.load_network(f"{module}:dense", seed=5).state_dict()
    rng = np.random.default_rng(0)
    path = tmp_path / "weights.pt"
    for is_zip in (True, False):
        torch.save(kept, path, _use_new_zipfile_serialization=is_zip)
        whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        n_refused = 0
        for place in rng.integers(whole.size, size=150):
            changed = whole.copy()
            changed[place] ^= rng.integers(1, 256, dtype=np.uint8)
            path.write_bytes(changed.tobytes()[: None if place % 3 else place])
            try:
                found = loading.load_network(f"{module}:dense", weights=path).state_dict()
            except ValueError:
                n_refused += 1
            else:
                assert not is_zip or all(torch.equal(found[key], kept[key]) for key in kept)
        assert n_refused > 50


def test_a_changed_bit_among_the_numbers_is_found_where_there_are_check_sums(module, tmp_path):
    network = loading.load_network(f"{module}:dense", seed=5)
    path = tmp_path / "weights.pt"
    for has_sums in (True, False):
        torch.serialization.set_crc32_options(has_sums)
        try:
            torch.save(network.state_dict(), path)
        finally:
            torch.serialization.set_crc32_options(True)
        assert loading.load_network(f"{module}:dense", weights=path)[0].weight.equal(network[0].weight)
        content = bytearray(path.read_bytes())
        content[content.index(network[0].weight.detach().numpy().tobytes())] ^= 1
        path.write_bytes(content)
        if has_sums:
            with pytest.raises(
                ValueError, match=r"weights must be as their check sums say, got .*, whose part .*data/0 is"
            ):
                loading.load_network(f"{module}:dense", weights=path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_pipe_or_a_device_in_place_of_a_file_does_not_hang(module, tmp_path, suffix):
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    for read in (lambda: loading.load_network(f"{module}:dense", weights=pipe), lambda: loading.file_digest(pipe)):
        with pytest.raises(ValueError, match=r"pipe.* must be a file, got a folder, a pipe or a device"):
            read()
    with pytest.raises(ValueError, match=r"/dev/zero must be a file, got a folder, a pipe or a device"):
        loading.load_network(f"{module}:dense", weights=Path("/dev/zero"))


def test_files_that_are_no_weights_are_refused(module, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(nn.Linear(4, 4), path)  # a whole module, pickled
    with pytest.raises(ValueError, match=r"weights must be a state dict of tensors alone, got .*weights.pt"):
        loading.load_network(f"{module}:dense", weights=path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights must be a state dict, got .*weights.pt"):
        loading.load_network(f"{module}:dense", weights=path)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"weights must be a safetensors file, got .*weights.safetensors"):
        loading.load_network(f"{module}:dense", weights=path)
