"""Networks named by MODULE:FUNCTION, and their weights from files."""

import sys
import types

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
    assert loading.digest(path) != loading.digest(None) == ""


@pytest.mark.parametrize(
    "name, message",
    [
        ("dense", r"network must be MODULE:FUNCTION, got dense"),
        ("made_for_a_test:", r"network must be MODULE:FUNCTION, got made_for_a_test:"),
        ("nowhere.at.all:f", r"network must be MODULE:FUNCTION that can be imported, got nowhere.at.all:f: No module"),
        ("made_for_a_test:f", r"that can be imported, got made_for_a_test:f: .* has no attribute 'f'"),
        ("made_for_a_test:text", r"network must be a torch.nn.Module, got str from made_for_a_test:text"),
        ("made_for_a_test:needy", r"network must be made without arguments, got made_for_a_test:needy: "),
    ],
)
def test_a_name_that_makes_no_network_is_refused(module, name, message):
    with pytest.raises(ValueError, match=message):
        loading.load_network(name)


def test_weights_of_another_network_or_none_are_refused(module, tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(nn.Linear(4, 4).state_dict(), path)
    with pytest.raises(ValueError, match=r"weights must be those of made_for_a_test:dense, got .*weights.pt: "):
        loading.load_network(f"{module}:dense", weights=path)
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
