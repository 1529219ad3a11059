"""Networks: their form, their distributions, and the state that they leave alone."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from empirical import models


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_resnet18_is_torchvisions_form_and_draws_its_distributions():
    network = models.build("resnet18", generator=_generator())
    assert (network.conv1.kernel_size, network.conv1.stride) == ((7, 7), (2, 2))
    assert isinstance(network.maxpool, nn.MaxPool2d)
    # torchvision's 11,689,512 parameters with 1000 outputs, less 990 outputs of 512 weights and a bias
    assert sum(parameter.numel() for parameter in network.parameters()) == 11_689_512 - 990 * 513
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            # the variance of n normal draws has relative standard error sqrt(2 / n): five of them, false alarm 1e-5
            spread = module.weight.var().item() / (2 / fan_out)
            assert abs(spread - 1) < 5 * math.sqrt(2 / module.weight.numel())
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
            assert (module.running_mean == 0).all()
            assert (module.running_var == 1).all()
            assert module.num_batches_tracked == 0
    bound = 1 / math.sqrt(512)
    assert 0.99 * bound < network.fc.weight.abs().max() <= bound
    assert not network.training
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_the_cifar_form_keeps_the_resolution_of_the_image():
    network = models.build("resnet18_cifar", generator=_generator())
    seen = []
    network.layer1.register_forward_hook(lambda module, arguments, output: seen.append(output.shape))
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert seen == [(1, 64, 32, 32)]


def test_the_generator_alone_decides_and_the_global_state_is_untouched():
    before = torch.get_rng_state().clone()
    first, again, other = (models.build("convnet", generator=_generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first[0].weight, other[0].weight)


def test_children_of_a_seed_differ_and_repeat():
    seed = np.random.SeedSequence(3, spawn_key=(1,))
    draws = [torch.rand(4, generator=models.generator_from(seed, *key)) for key in ((0,), (1,), (0, 1), (0,))]
    assert torch.equal(draws[0], draws[3])
    assert len({tuple(draw.tolist()) for draw in draws}) == 3


def test_frozen_gives_back_modes_and_gradients_even_after_an_error():
    network = models.build("convnet", generator=_generator())
    network.train()
    network[1].eval()
    network[0].weight.requires_grad_(False)
    modes = [module.training for module in network.modules()]
    gradients = [parameter.requires_grad for parameter in network.parameters()]

    def fail():
        with models.frozen(network):
            assert not any(module.training for module in network.modules())
            assert not any(parameter.requires_grad for parameter in network.parameters())
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fail()
    assert [module.training for module in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == gradients


@pytest.mark.parametrize("side", [1, 2, 3, 4])
@pytest.mark.parametrize("groups, dilation", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize(
    "kernel, padding, stride", [(3, 1, 1), (3, 1, 2), (1, 0, 2), (2, 0, 1), (5, 2, 3), (3, "same", 1)]
)
def test_a_convolution_whose_kernel_is_no_smaller_than_its_input_is_a_matrix(
    side, kernel, padding, stride, groups, dilation
):
    options = {"padding": padding, "stride": stride, "groups": groups, "dilation": dilation, "device": "meta"}
    convolution = nn.Conv2d(4, 6, kernel, **options).to_empty(device="cpu")
    for parameter in convolution.parameters():
        nn.init.normal_(parameter, generator=_generator())
    if padding != "same" and side + 2 * padding < dilation * (kernel - 1) + 1:
        return
    images = torch.randn(3, 4, side, side, generator=_generator(1))
    expected = convolution(images)
    network = nn.Sequential(convolution)
    faster = models.with_matrices(network, images)
    assert (faster is network) == (kernel == 1 or side > kernel)
    np.testing.assert_allclose(faster(images).detach(), expected.detach(), atol=1e-5)
    assert network[0] is convolution


@pytest.mark.parametrize("name, n_norms", [("resnet18", 20), ("resnet18_cifar", 20), ("convnet", 3)])
def test_folded_batch_norms_give_the_same_logits_and_leave_the_network_alone(name, n_norms):
    network = models.build(name, generator=_generator())
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert len(norms) == n_norms
    for i, norm in enumerate(norms):  # as after a training
        generator = _generator(i)
        norm.running_mean.normal_(generator=generator)
        norm.running_var.uniform_(0.5, 2, generator=generator)
        torch.nn.init.normal_(norm.weight, generator=generator)
        torch.nn.init.normal_(norm.bias, generator=generator)
    images = torch.randn(4, 3, 32, 32, generator=_generator(1))
    with torch.no_grad():
        expected = network(images)
        folded = models.folded(network, images)
        np.testing.assert_allclose(folded(images), expected, rtol=1e-4, atol=1e-5 * expected.abs().max())
        assert torch.equal(network(images), expected)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())


class _Twice(torch.nn.Module):
    """Uses what its convolution gives once more beside the batch norm, or calls the convolution twice."""

    def __init__(self, how):
        super().__init__()
        self.how, self.convolution, self.norm = how, torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.BatchNorm2d(3)
        torch.nn.init.constant_(self.norm.weight, 3.0)

    def forward(self, images):
        found = self.convolution(images)
        if self.how == "beside":
            return (self.norm(found) + found).flatten(1)[:, :10]
        return self.convolution(self.norm(found)).flatten(1)[:, :10]


@pytest.mark.parametrize("how", ["beside", "again"])
def test_a_batch_norm_is_not_folded_where_the_convolution_is_used_elsewhere(how):
    network = _Twice(how).eval()
    assert models.folded(network, torch.randn(2, 3, 32, 32, generator=_generator())) is network


def test_a_resnet_with_matrices_gives_the_same_logits_and_is_left_alone():
    network = models.build("resnet18", generator=_generator())
    images = torch.randn(4, 3, 32, 32, generator=_generator(1))
    faster = models.with_matrices(network, images)
    # the third stage after its first convolution, which sees 4x4 pixels, and the fourth
    assert sum(isinstance(module, models._Matrix) for module in faster.modules()) == 3 + 4
    assert not any(isinstance(module, models._Matrix) for module in network.modules())
    with torch.no_grad():
        np.testing.assert_allclose(faster(images), network(images), atol=1e-5)


def test_bfloat16_logits_are_the_networks_to_a_few_parts_in_a_hundred():
    network = models.build("resnet18", generator=_generator())
    images = torch.randn(4, 3, 32, 32, generator=_generator(1))
    with torch.no_grad():
        exact = network(images)
        rough = models.for_gradients(network, images, precision="bfloat16")(images)
        same = models.for_gradients(network, images, precision="float32")(images)
    assert rough.dtype == torch.float32
    error = (rough - exact).abs().max().item() / exact.abs().max().item()
    assert 1e-6 < error < 0.03  # 20 layers of relative rounding 2^-9
    np.testing.assert_allclose(same, exact, atol=1e-5)
    assert all(parameter.is_contiguous() for parameter in network.parameters())


def test_resnets_of_any_width_and_depth():
    network = models.build("resnet18", generator=_generator(), width=16, blocks=3)
    seen = [module.weight.shape[0] for module in network.modules() if isinstance(module, nn.Conv2d)]
    # stem, then 3 blocks of two in each stage, and a shortcut where the width or the resolution changes
    assert seen == [16, *[16] * 6, *[32] * 7, *[64] * 7, *[128] * 7]
    assert network(torch.zeros(1, 3, 8, 8)).shape == (1, 10)
    wide = models.build("resnet18_cifar", generator=_generator(), width=128, blocks=1)
    assert wide.conv1.weight.shape == (128, 3, 3, 3)
    assert wide.fc.in_features == 1024


def test_the_gain_scales_the_convolutions_and_nothing_else():
    one, two = (models.build("resnet18", generator=_generator(), width=8, gain=gain) for gain in (1.0, 2.0))
    for (name, plain), scaled in zip(one.named_parameters(), two.parameters(), strict=True):
        factor = 2 if plain.ndim == 4 else 1
        assert torch.equal(factor * plain, scaled), name


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"width": 0}, ValueError, "width must be a whole number from 1 to 65536, got 0"),
        ({"width": 10**9}, ValueError, "width must be a whole number from 1 to 65536, got 1000000000"),
        ({"width": 65_536}, ValueError, r"width and blocks must fit .*, got \(65536, 2\), which takes 3.9"),
        ({"blocks": 1.0}, TypeError, r"blocks must be a whole number from 1 to 1024, got 1.0 \(float\)"),
        ({"gain": float("nan")}, ValueError, "gain must be at least 0 and finite, got nan"),
        ({"generator": 0}, TypeError, "generator must be torch's Generator, got 0"),
    ],
)
def test_what_is_no_network_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        models.build("resnet18", **({"generator": _generator()} | change))


def test_small_helpers_refuse_what_they_cannot_take():
    for call, error, message in (
        (lambda: models.device_of(torch.nn.Flatten()), ValueError, "network must have parameters, got Flatten without"),
        (lambda: models.device_of(3), TypeError, "network must be torch's Module, got 3"),
        (lambda: models.check_device(0), TypeError, "device must be a str, got 0"),
        (lambda: models.generator_from(0, 1), TypeError, "seed must be numpy's SeedSequence, got 0"),
        (lambda: models.generator_from(np.random.SeedSequence(0), -1), ValueError, "key must be a whole .* got -1"),
        (
            lambda: models.logit_spread(torch.nn.Flatten(), 8, _generator()),
            TypeError,
            "network must be torchvision's Res",
        ),
    ):
        with pytest.raises(error, match=message):
            call()
    small = models.build("resnet18", generator=_generator(), width=2, blocks=1)
    with pytest.raises(ValueError, match=r"image_size must fit .*, got 10000000, which takes"):
        models.logit_spread(small, 10**7, _generator())


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="width and blocks must be left at 64 and 2 for a convnet, got 8 and 2"):
        models.build("convnet", generator=_generator(), width=8)
    with pytest.raises(ValueError, match="network must be one of resnet18, resnet18_cifar, convnet, got vgg"):
        models.build("vgg", generator=_generator())
    with pytest.raises(ValueError, match=r"device must be one that this computer has \(cpu.*\), got abacus"):
        models.check_device("abacus")


def test_float32_on_a_gpu_is_float32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert models.check_device("cuda").type == "cuda"
    assert not torch.backends.cudnn.allow_tf32
