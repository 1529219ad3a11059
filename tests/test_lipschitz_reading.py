"""Networks read as lists of known steps: what runs is what is read, and nothing unknown passes."""

import contextlib
import math
import sys
import threading
from concurrent import futures

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from lipschitz import absolute, fully_connected, graph, liplt, reading, rescaling, segment, upper


class Called(nn.Module):
    """A function as a network, with layers to call."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            if isinstance(layer, nn.Module):
                setattr(self, name, layer)
            else:
                self.register_buffer(name, layer)

    def forward(self, x):
        return self.function(self, x)


def shaken(model):
    """The model in evaluation mode, its running statistics as if it had been trained."""
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
    return model.eval()


def branches(net, x):
    one = torch.unsqueeze(x[:, 1], 1) * 0.5 + 2.0
    y = net.act(net.conv(x)) + x
    y = net.act(y) + y.relu()
    return torch.flatten(torch.cat([functional.relu(y), one, y + y], 1), 1)


def mnist(net, x):
    x = functional.relu(net.conv1(x))
    x = functional.max_pool2d(functional.relu(net.conv2(x)), 2)
    x = functional.dropout(torch.flatten(functional.dropout(x, 0.25, net.training), 1), 0.5, net.training)
    return functional.log_softmax(net.fc(x), dim=1)


NETWORKS = {
    "resnet18": lambda: (torchvision.models.resnet18(num_classes=10), (3, 32, 32)),
    "googlenet": lambda: (
        torchvision.models.googlenet(aux_logits=True, init_weights=False, transform_input=True),
        (3, 64, 64),
    ),
    "mobilenet_v2": lambda: (torchvision.models.mobilenet_v2(), (3, 32, 32)),
    "shufflenet": lambda: (torchvision.models.shufflenet_v2_x0_5(), (3, 64, 64)),
    "densenet121": lambda: (torchvision.models.densenet121(), (3, 32, 32)),
    "convnext": lambda: (
        torchvision.models.ConvNeXt(
            [
                torchvision.models.convnext.CNBlockConfig(8, 16, 1),
                torchvision.models.convnext.CNBlockConfig(16, None, 1),
            ],
            num_classes=4,
        ),
        (3, 16, 16),
    ),
    "branches": lambda: (Called(branches, conv=nn.Conv2d(3, 3, 3, padding=1), act=nn.LeakyReLU(0.2)), (3, 5, 4)),
    "mnist": lambda: (
        Called(mnist, conv1=nn.Conv2d(1, 4, 3), conv2=nn.Conv2d(4, 5, 3), fc=nn.Linear(80, 10)),
        (1, 12, 12),
    ),
    "pools": lambda: (
        nn.Sequential(
            *(
                nn.MaxPool2d(3, 2, 1, ceil_mode=True),
                nn.AvgPool2d(2, 1),
                nn.BatchNorm2d(2),
                nn.AdaptiveAvgPool2d((2, 3)),
            ),
            *(nn.Flatten(), nn.BatchNorm1d(12, affine=False), nn.Linear(12, 3, bias=False), nn.Sigmoid()),
        ),
        (2, 9, 8),
    ),
    "line": lambda: (nn.Sequential(nn.Conv1d(4, 6, 3, 2, 1, 2, 2), nn.Tanh(), nn.Dropout(), nn.Identity()), (4, 11)),
    "fully connected": lambda: (
        fully_connected.random_network(5, depth=3, width=4, generator=torch.Generator().manual_seed(0)),
        (5,),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_steps_compute_what_the_network_computes(name):
    torch.manual_seed(0)
    model, shape = NETWORKS[name]()
    model = shaken(model).double()
    steps = reading.read(model, shape)
    inputs = torch.randn(3, *shape, dtype=torch.float64)
    outputs = model(inputs)
    torch.testing.assert_close(graph.evaluate(steps, inputs), outputs, rtol=1e-10, atol=1e-10)
    assert steps[0].kind == "input"
    assert steps[-1].shape == outputs.shape[1:]
    for place, step in enumerate(steps):
        assert all(source < place for source in step.inputs)


# Programs of one layer, or a few lines, on inputs (4, 4, 6); a, b are matrices of the last axis.
PROGRAMS = {
    # in-place operations and their aliases
    "y = relu_(h); h + y": lambda net, x: (h := net.a(x)) + functional.relu(h, inplace=True),
    "y = h; y += c": lambda net, x: in_place(net, net.a(x), lambda h: h.add_(net.b(x))),
    "skip = x; x += b": lambda net, x: in_place(net, net.a(x), lambda h: h.add_(net.b(h.clone()))) * 2,
    "x -= 1 of the input": lambda net, x: net.a(x.sub_(1.0)),
    "torch.add(x, 3, b)": lambda net, x: torch.add(net.a(x), net.b(x), alpha=3),
    "x.add(1, alpha=3)": lambda net, x: net.a(x).add(1, alpha=3),
    "x.sub(y, alpha=0.5)": lambda net, x: net.a(x).sub(net.b(x), alpha=0.5),
    "x[:, 0] *= 2": lambda net, x: assigned(net.a(x), lambda h: h[:, 0].mul_(2.0)),
    "x[:, :2] = relu": lambda net, x: assigned(net.a(x), lambda h: h[:, :2].copy_(h[:, 2:].relu())),
    "x[:, 1] = 3": lambda net, x: assigned(net.a(x), lambda h: h[:, 1].fill_(3.0)),
    "clamp_": lambda net, x: net.a(x).clamp_(-0.3, 0.4),
    "leaky_relu_": lambda net, x: functional.leaky_relu_(net.a(x), 0.2) + net.b(x),
    "mul_ of a view": lambda net, x: assigned(net.a(x), lambda h: h.view(len(x), -1).mul_(0.5)),
    "transposed in place": lambda net, x: assigned(net.a(x), lambda h: h.transpose(1, 2).relu_()),
    # idioms
    "view(size(0), -1)": lambda net, x: x.view(x.size(0), -1),
    "reshape(shape[0], -1)": lambda net, x: x.reshape(x.shape[0], -1),
    "max_pool2d": lambda net, x: functional.max_pool2d(x, 2, [2, 1]),
    "avg_pool2d": lambda net, x: functional.avg_pool2d(x, (2, 3)),
    "adaptive_avg_pool2d": lambda net, x: functional.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive_max_pool2d": lambda net, x: functional.adaptive_max_pool2d(x, (2, 3)),
    "mean((2, 3))": lambda net, x: x.mean((2, 3)),
    "mean(1)": lambda net, x: x.mean(1, keepdim=True),
    "sum(-1)": lambda net, x: x.sum(-1),
    "amax((1, 3))": lambda net, x: x.amax((1, 3)),
    "max(2).values": lambda net, x: x.max(2).values,
    "(x - mean) / std": lambda net, x: (x - net.mean) / net.std,
    "a module made inside": lambda net, x: nn.ReLU()(x),
    "relu6": lambda net, x: functional.relu6(20 * x),
    "hardtanh": lambda net, x: functional.hardtanh(x, -0.1, 0.7),
    "hardsigmoid": lambda net, x: functional.hardsigmoid(3 * x),
    "clamp(max)": lambda net, x: x.clamp(max=0.1) + x.clamp(min=-0.2),
    "prelu": lambda net, x: net.prelu(x),
    "abs": lambda net, x: x.abs(),
    "pad": lambda net, x: functional.pad(x, (1, 2, 0, 1)),
    "pad with twos": lambda net, x: functional.pad(x, (1, 2), value=2.0),
    "pad channels": lambda net, x: functional.pad(x, (0, 0, 0, 0, 1, 1)),
    "reflection": lambda net, x: functional.pad(x, (2, 1, 1, 0), mode="reflect"),
    "unflatten": lambda net, x: x.unflatten(1, (2, 2)),
    "flip": lambda net, x: x.flip(1),
    "chunk and cat": lambda net, x: torch.cat([part.relu() for part in x.chunk(2, 1)][::-1], 1),
    "cat of itself": lambda net, x: torch.cat([x, x], 1),
    "cat along the last axis": lambda net, x: torch.cat([x, net.a(x)], -1),
    "cat with constants": lambda net, x: torch.cat([x, net.mean.expand(len(x), 4, 4, 6)], 1),
    "stack": lambda net, x: torch.stack([x, net.b(x)], 2),
    "strided": lambda net, x: x[:, :, ::2, ::2],
    "roll": lambda net, x: x.roll(1, 3),
    "index": lambda net, x: x[:, [2, 0, 0]],
    "pixel_shuffle": lambda net, x: functional.pixel_shuffle(x, 2),
    "upsample": lambda net, x: functional.interpolate(x, scale_factor=2),
    "x - y": lambda net, x: net.a(x) - net.b(x),
    "-x": lambda net, x: -x,
    "1 - x": lambda net, x: 1 - x,
    "x / 3": lambda net, x: x / 3,
    "sum broadcast": lambda net, x: x + net.a(x).mean(3, keepdim=True),
    "x @ W": lambda net, x: x @ net.a.weight.T,
    "W @ x": lambda net, x: (net.a.weight @ x.flatten(1).view(-1, 6).T).T.reshape(len(x), -1),
    "rows before the batch": lambda net, x: (x.flatten(1, 2).transpose(0, 1) @ net.a.weight).transpose(0, 1),
    "einsum": lambda net, x: torch.einsum("bi,oi->bo", x[:, 0, 0], net.a.weight),
    "x @ w": lambda net, x: x.flatten(1) @ net.vector,
    "tanh": lambda net, x: torch.tanh(x).sigmoid(),
    "elu": lambda net, x: functional.elu(x, 0.7) + functional.selu(x) + functional.celu(x, 2.0),
    "gelu": lambda net, x: functional.gelu(x) + functional.gelu(x, approximate="tanh"),
    "silu": lambda net, x: functional.silu(x) + functional.mish(x) + functional.hardswish(4 * x),
    "softplus": lambda net, x: functional.softplus(x, 2.0) + functional.logsigmoid(x) + functional.softshrink(x, 0.2),
    "sin": lambda net, x: torch.sin(x) + torch.cos(x) + torch.atan(x) + torch.erf(x),
    "maximum": lambda net, x: torch.maximum(net.a(x), net.b(x)) + torch.minimum(x, net.b(x)),
    "softmax": lambda net, x: torch.softmax(x, 1),
    "log_softmax": lambda net, x: torch.log_softmax(x, -1),
    "layer norm": lambda net, x: net.layer_norm(x),
    "layer norm of channels": lambda net, x: functional.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    "group norm": lambda net, x: net.group_norm(x),
    "weights of other weights": lambda net, x: functional.linear(x, net.a.weight / net.a.weight.norm() + 1),
    "same padding": lambda net, x: functional.conv2d(x, net.kernel, padding="same"),
    "one-dimensional pools": lambda net, x: functional.max_pool1d(functional.avg_pool1d(x.flatten(1, 2), 2), 2, 1),
    "linear after permute": lambda net, x: net.c(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "masked": lambda net, x: x * net.mask + torch.where(net.mask > 0, x, net.mean),
    "the input itself": lambda net, x: x,
    "dead code": lambda net, x: (x.exp(), net.a(x))[1],
}


def in_place(net, h, change):
    change(h)
    return net.a(h) + h


def assigned(h, change):
    change(h)
    return h


def program(name):
    generator = torch.Generator().manual_seed(0)
    net = Called(
        PROGRAMS[name],
        a=nn.Linear(6, 6),
        b=nn.Linear(6, 6),
        c=nn.Linear(4, 3),
        prelu=nn.PReLU(4),
        layer_norm=nn.LayerNorm((4, 6)),
        group_norm=nn.GroupNorm(2, 4),
        mean=torch.randn(4, 1, 1, generator=generator),
        std=torch.rand(4, 1, 1, generator=generator) + 0.5,
        mask=(torch.rand(4, 6, generator=generator) > 0.5).float(),
        kernel=torch.randn(2, 4, 2, 3, generator=generator),
        vector=torch.randn(96, generator=generator),
    ).double()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return net.eval()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_read_as_they_run_and_bounded_from_above(name):
    net = program(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    steps = reading.read(net, (4, 4, 6))
    inputs = torch.randn(5, 4, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(graph.evaluate(steps, inputs.clone()), net(inputs.clone()), rtol=1e-11, atol=1e-11)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    jacobians = [
        torch.autograd.functional.jacobian(lambda x: net(x[None].clone())[0].flatten(), x).flatten(1) for x in inputs
    ]
    for norm in (1, 2, math.inf):
        attained = max(float(torch.linalg.matrix_norm(jacobian, norm)) for jacobian in jacobians)
        for bound in (upper.upper_product, rescaling.upper_rescaled, absolute.upper_absolute, liplt.upper_liplt):
            assert attained <= bound(net, (4, 4, 6), norm=norm).value * (1 + 1e-7), bound.__name__  # torch rounds 1 / 6


def test_a_skip_that_is_added_to_in_place_is_four_times_the_identity():
    def four(net, x):
        x = net.a(x)
        skip = x
        x += net.b(x)
        return x + skip

    net = Called(four, a=nn.Linear(3, 3, bias=False), b=nn.Linear(3, 3, bias=False)).eval()
    for layer in (net.a, net.b):
        nn.init.eye_(layer.weight)
    for bound in (upper.upper_product, rescaling.upper_rescaled, liplt.upper_liplt):
        assert bound(net, (3,)).value == pytest.approx(4.0, rel=1e-6)


def test_a_loss_behind_an_alias_is_not_certified():
    def aliased(net, x):
        h = net.a(x)
        y = functional.relu(h, inplace=True)
        return net.head(h + y)

    net = Called(aliased, a=nn.Linear(1, 1), head=nn.Linear(1, 2)).eval()
    net.load_state_dict({
        "a.weight": torch.zeros(1, 1), "a.bias": torch.tensor([-5.0]),
        "head.weight": torch.tensor([[-1.0], [0.0]]), "head.bias": torch.zeros(2),
    })  # fmt: skip
    found = segment.certify_segment(net, [-1.0], [1.0], 0, 0.01)
    assert found.status == "violated"
    assert found.maximum.lower_loss <= math.log(2.0) <= found.maximum.upper_loss


@contextlib.contextmanager
def global_hook(layer):
    handle = nn.modules.module.register_module_forward_hook(lambda m, _, out: 1000 * out if m is layer else None)
    try:
        yield
    finally:
        handle.remove()


def local_hook(layer):
    layer.register_forward_hook(lambda *arguments: 1000 * arguments[2])
    return contextlib.nullcontext()


def local_pre_hook(layer):
    layer.register_forward_pre_hook(lambda _, arguments: (1000 * arguments[0],))
    return contextlib.nullcontext()


def patched(layer):
    original = layer.forward
    layer.forward = lambda x: 1000 * original(x)
    return contextlib.nullcontext()


@pytest.mark.parametrize("change", [global_hook, local_hook, local_pre_hook, patched])
def test_what_runs_is_what_is_read(change):
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2, bias=False)).eval()
    for layer in (net[0], net[2]):
        nn.init.constant_(layer.weight, 1.0)
    plain = upper.upper_product(net, (2,)).value
    with change(net[2]):
        assert upper.upper_product(net, (2,)).value == pytest.approx(1000 * plain, rel=1e-6)


def test_parametrized_weights_are_those_that_the_network_computes():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    found = upper.upper_product(layer.eval(), (3,)).value
    assert found == pytest.approx(float(torch.linalg.matrix_norm(layer.weight.detach(), 2)), rel=1e-6)


def test_weights_of_low_precision_are_widened_not_rounded_again():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    steps = reading.read(model, (4,))
    inputs = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(graph.evaluate(steps, inputs), model.double()(inputs), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision_is_read(dtype):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d([2, 2]), nn.Flatten(), nn.Linear(12, 2)).to(dtype)
    value = upper.upper_product(model.eval(), (2, 6, 6)).value
    assert value == pytest.approx(upper.upper_product(model.double(), (2, 6, 6)).value, rel=1e-12)


def test_networks_are_read_whatever_the_default_precision_is():
    before = torch.get_default_dtype()
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval()
    value = upper.upper_product(model, (3,)).value
    try:
        torch.set_default_dtype(torch.float64)
        assert upper.upper_product(model, (3,)).value == value
        assert upper.upper_product(nn.ReLU(), (3,)).value == pytest.approx(1.0)
    finally:
        torch.set_default_dtype(before)


def test_a_layer_that_stands_twice_is_two_steps_with_one_module():
    layer = nn.Linear(2, 2)
    steps = reading.read(nn.Sequential(layer, nn.ReLU(), layer), (2,))
    assert [step.name for step in steps] == ["input", "0", "1", "0#2"]
    assert steps[1].layer is steps[3].layer


def test_operations_are_named_by_the_line_that_asked_for_them():
    steps = reading.read(program("x - y"), (4, 4, 6))
    line = PROGRAMS["x - y"].__code__.co_firstlineno
    assert steps[-1].name.startswith(f"sub (test_lipschitz_reading.py:{line})")


def function(call):
    return Called(lambda _, x: call(x)).eval()


def statistics(model):
    """Batch statistics are taken."""
    return model.train()


@pytest.mark.parametrize(
    "model, message",
    [
        (nn.Sequential(nn.Linear(4, 3)), r"model must take inputs of shape \(3,\), 2 at once: mat1 and mat2"),
        (statistics(nn.Sequential(nn.BatchNorm1d(3))), r"layer '0' \(BatchNorm1d\) must be in evaluation mode"),
        (nn.Sequential(nn.Dropout()).train(), r"layer '0' \(Dropout\) must be in evaluation mode"),
        (nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)), r"layer '0' \(BatchNorm1d\) must .*statistics"),
        (function(torch.exp), r"operation 'exp \(test.*py:\d+\)' must be one that is known, got exp: it has no global"),
        (function(lambda x: x * x), r"operation 'mul \(.*' must multiply by constants: a product"),
        (function(lambda x: x / (1 + x.abs())), r"operation 'div \(.*' must divide by constants: a product"),
        (function(lambda x: (x @ x.T) @ x), "must have constant weights: a product"),
        (function(lambda x: x[:, :0]), "model must return at least one number"),
        (function(lambda x: 1 / 0), "model must take inputs of shape .*: ZeroDivisionError: division by zero"),
        (function(lambda x: sys.exit(3)), "model must take inputs of shape .*: SystemExit: 3"),
        (function(lambda x: torch.cat([x, x + 1], 0)), "model must keep the batch axis first, got outputs of shape"),
        (function(lambda x: torch.flatten(x)), "model must keep the batch axis first"),
        (function(lambda x: x - x.mean(0)), "must treat each input of a batch alone"),
        (function(lambda x: x.flip(0)), "must treat each input of a batch alone"),
        (function(lambda x: torch.softmax(x, 0)), "must treat each input of a batch alone"),
        (function(lambda x: x if x.sum() > 0 else -x), "which operations run may not depend on the input"),
        (function(lambda x: x * float(x.abs().max())), "which operations run may not depend on the input"),
        (function(lambda x: (x, x)), "model must return one tensor, got tuple"),
        (function(lambda x: torch.zeros(len(x), 2)), "model must compute its output from its input by operations"),
        (function(lambda x: x + torch.rand(3)), "must be a function of its input alone, got rand"),
        (function(lambda x: x.sign()), "got sign: it jumps"),
        (function(lambda x: x.round()), "got round: it jumps"),
        (function(lambda x: x.topk(2).values), "got topk: it jumps"),
        (function(lambda x: functional.conv_transpose1d(x[:, None], torch.ones(1, 1, 2))), "not transposed"),
        (function(lambda x: functional.max_pool1d(x[:, None], 2, return_indices=True)[1]), "other results of it"),
        (function(lambda x: x.clamp(torch.zeros(3))), "must"),
        (function(lambda x: x + torch.tensor([1.0, math.inf, 0.0])), "must have finite numbers"),
        (nn.Sequential(nn.Hardshrink()), r"layer '0' \(Hardshrink\) must be one that is known"),
        (Called(lambda net, x: x + net.count.add_(1), count=torch.zeros(1)).eval(), "changes numbers that it did not"),
        (Called(lambda net, x: x * len(x)).eval(), "model must compute what was read of it, as a function of its in"),
        (Called(lambda net, x: x.to(torch.int32).to(x.dtype)).eval(), "must keep floating-point numbers"),
        (nn.Linear(3, 2, dtype=torch.complex64), "weights must be real floating-point numbers"),
        (nn.MultiheadAttention(4, 2), "model must take inputs of shape"),
    ],
)
def test_what_is_not_known_is_refused_by_name(model, message):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        reading.read(model, (3,))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_window_without_inputs_is_refused():
    with pytest.raises(ValueError, match=r"MaxPool2d.*must have no window in its padding alone"):
        reading.read(nn.MaxPool2d((2, 1), padding=(1, 0), dilation=(3, 1)), (1, 2, 2))


def test_a_network_that_squeezes_its_batch_is_read():
    net = Called(lambda net, x: net.a(x).squeeze(), a=nn.Linear(3, 1)).eval()
    assert upper.upper_product(net, (3,)).value == pytest.approx(float(net.a.weight.detach().norm()), rel=1e-6)


def test_attention_is_refused_with_the_reason():
    block = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0).eval()
    with pytest.raises(ValueError, match="a product or quotient of two outputs \\(attention"):
        reading.read(block, (3, 4))


def branches_on(condition):
    """Adds fifty where a condition on values holds, which the inputs that are traced do not meet."""
    return function(lambda x: x + 50.0 if condition(x) else x)


@pytest.mark.parametrize(
    "model",
    [
        branches_on(lambda x: torch.allclose(x, torch.zeros(3), atol=0.1)),
        branches_on(lambda x: torch.equal(x, torch.zeros(3))),
        branches_on(lambda x: x[x.abs() < 0.02].numel() > 2),
        branches_on(lambda x: len((x > 30).nonzero()) > 0),
        branches_on(lambda x: torch.masked_select(x, x > 30).numel() > 0),
        branches_on(lambda x: torch.where(x > 30)[0].numel() > 0),
        branches_on(lambda x: x.round().unique().numel() > 99),
        branches_on(lambda x: (x.detach().numpy() > 100).any()),
        branches_on(lambda x: "e+" in repr(x)),
        function(lambda x: x + torch.from_numpy(np.maximum(x.numpy() - 10, 0))),
        function(lambda x: x + torch.zeros(x.shape, dtype=torch.long).copy_((x - 10).relu())),
        function(lambda x: x + 1000 * (x - 100).relu().to(torch.float8_e4m3fn).to(x.dtype)),
        function(lambda x: x.half().float()),
        function(lambda x: x.view(torch.int32).view(torch.float32)),
        function(lambda x: functional.softplus(x, 1.0, 1.0)),
        function(lambda x: x + ((x - 100).relu() * 1000 if len(x) == 1 else 0)),
        function(lambda x: x.clamp(max=len(x) * 100.0)),
        function(lambda x: 5 * x if torch.is_grad_enabled() else x),
        function(lambda x: in_a_thread(lambda: 100 * (x - 10).relu()) + x),
        function(lambda x: torch.ops.reading_test.tanh(x)),
        function(lambda x: x[:, :2] if len(x) == 8 else x),
        function(lambda x: {2: x}[len(x)]),
    ],
)
def test_what_hides_from_the_trace_is_refused(model):
    with pytest.raises(ValueError, match=r"^(model|operation) ") as caught:
        reading.read(model, (3,))
    assert "\n" not in str(caught.value)


def in_a_thread(call):
    with futures.ThreadPoolExecutor() as pool:
        return pool.submit(call).result()


@torch.library.custom_op("reading_test::tanh", mutates_args=())
def not_quite_tanh(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < 1e6, x.tanh(), x)


def test_what_a_network_keeps_from_its_first_run_is_whole_afterwards():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("positions", None)

        def forward(self, x):
            if self.positions is None:
                self.positions = torch.arange(3.0)
            return x + self.positions

    net = Positions().eval()
    assert [step.kind for step in reading.read(net, (3,))] == ["input", "shift"]
    assert net.positions.numpy().tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "model, shape, error, message",
    [
        (lambda x: x, (3,), TypeError, "model must be a torch.nn.Module, got function"),
        (nn.ReLU(), (3.5,), TypeError, "input_shape must hold whole numbers"),
        (nn.ReLU(), (math.inf,), TypeError, "input_shape must hold whole numbers"),
        (nn.ReLU(), (10**15,), ValueError, "input_shape must fit into memory"),
        (
            nn.Linear(3, 3, device="meta"),
            (3,),
            ValueError,
            "weights must hold numbers, got 'weight' on the device meta",
        ),
    ],
)
def test_other_mistakes_are_one_line(model, shape, error, message):
    with pytest.raises(error, match=message):
        reading.read(model, shape)


def test_one_number_an_input_on_the_way_is_followed_along_segments():
    net = function(lambda x: torch.stack([x[:, 0].relu(), x.sum(1)], 1)).double()
    found = segment.maximise_segment(net, np.array([-1.0, 0.0]), np.array([1.0, 0.5]), 0)
    shares = torch.linspace(0, 1, 999, dtype=torch.float64)[:, None]
    points = torch.cat([2 * shares - 1, 0.5 * shares], 1)
    truth = float(functional.cross_entropy(net(points), torch.zeros(999, dtype=torch.long), reduction="none").max())
    assert truth - 1e-9 <= found.upper_loss <= truth + 1e-3


def test_a_network_that_differs_where_it_is_used_is_refused_there():
    calls = []

    def counted(_, x):
        calls.append(x)
        return x * len(calls)

    with pytest.raises(ValueError, match="model must compute what was read of it"):
        reading.read(Called(counted), (3,))


@pytest.mark.parametrize("shape", [(0,), (2, -1)])
def test_shapes_must_be_positive(shape):
    with pytest.raises(ValueError, match="input_shape must hold positive lengths"):
        reading.read(nn.ReLU(), shape)


def test_reading_leaves_other_threads_and_the_global_generator_alone():
    read, running = (shaken(torchvision.models.resnet18(num_classes=10)) for _ in range(2))
    image, before = torch.ones(1, 3, 32, 32), nn.Module.__call__
    expected = [step.kind for step in reading.read(read, (3, 32, 32))]
    with torch.no_grad():
        logits = running(image)
    is_done = threading.Event()
    state = torch.random.get_rng_state()

    def run():
        n_right = 0
        while not is_done.is_set():
            with torch.no_grad():
                assert torch.equal(running(image), logits)
            n_right += 1
        return n_right

    with futures.ThreadPoolExecutor() as pool:
        runs = pool.submit(run)
        reads = [pool.submit(reading.read, read, (3, 32, 32)) for _ in range(8)]
        try:
            assert all([step.kind for step in one.result()] == expected for one in reads)
        finally:
            is_done.set()
        assert runs.result() > 0
    assert nn.Module.__call__ is before
    assert torch.equal(torch.random.get_rng_state(), state)
