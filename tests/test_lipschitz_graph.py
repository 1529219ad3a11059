"""Networks read as lists of known steps: the same function, and nothing unknown passes."""

import threading
from concurrent import futures

import pytest
import torch
from torch import nn
from torch.nn import functional

from empirical import torchvision  # importable there also beside a CPU-only torch
from lipschitz import fully_connected, graph


class Branches(nn.Module):
    """Every operation that is not a layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x):
        one = torch.unsqueeze(x[:, 1], 1) * 0.5 + 2.0
        y = self.act(self.conv(x)) + x
        y = self.act(y) + y.relu()
        return torch.flatten(torch.cat([functional.relu(y), one, y + y], 1), 1)


def shaken(model):
    """The model in evaluation mode, its running statistics as if it had been trained."""
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2.0)
    return model.eval()


NETWORKS = {
    "resnet18": lambda: (torchvision.models.resnet18(num_classes=10), (3, 32, 32)),
    "googlenet": lambda: (
        torchvision.models.googlenet(aux_logits=True, init_weights=False, transform_input=True),
        (3, 64, 64),
    ),
    "branches": lambda: (Branches(), (3, 5, 4)),
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
    steps = graph.read(model, shape)
    inputs = torch.randn(3, *shape, dtype=torch.float64)
    outputs = model(inputs)
    torch.testing.assert_close(graph.evaluate(steps, inputs), outputs, rtol=1e-10, atol=1e-10)
    assert steps[0].kind == "input"
    assert steps[-1].shape == outputs.shape[1:]
    for place, step in enumerate(steps):
        assert all(source < place for source in step.inputs)


def test_weights_of_low_precision_are_widened_not_rounded_again():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    steps = graph.read(model, (4,))
    inputs = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(graph.evaluate(steps, inputs), model.double()(inputs), rtol=1e-14, atol=1e-14)


def test_a_layer_that_stands_twice_is_two_steps():
    layer = nn.Linear(2, 2)
    names = [step.name for step in graph.read(nn.Sequential(layer, nn.ReLU(), layer), (2,))]
    assert len(set(names)) == 4


def function(call):
    class Called(nn.Module):
        def forward(self, x):
            return call(x)

    return Called()


@pytest.mark.parametrize(
    "model, message",
    [
        (nn.Sequential(nn.Softmax(1)), "layer '0' must be one that is known, got Softmax"),
        (nn.Sequential(nn.Sequential(nn.GELU())), "layer '0.0' must be one that is known, got GELU"),
        (nn.Sequential(nn.Linear(4, 3)), r"model must take inputs of shape \(3,\): mat1 and mat2"),
        (nn.Sequential(nn.BatchNorm1d(3)).train(), "layer '0' must be in evaluation mode, got a BatchNorm1d"),
        (nn.Sequential(nn.Dropout()).train(), "layer '0' must be in evaluation mode, got a Dropout"),
        (nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)), "layer '0' must have running statistics"),
        (nn.Sequential(nn.Conv1d(3, 3, 1, padding_mode="circular")), "layer '0' must be padded with a number of zeros"),
        (nn.Sequential(nn.Conv1d(3, 3, 1, padding="same")), "layer '0' must be padded with a number of zeros"),
        (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "layer '0' must return values alone"),
        (nn.Softmax(1), "operation 'softmax' must be one that is known, got softmax"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), "layer 'model' must have no hooks or param"),
        (function(torch.exp), "operation 'exp' must be one that is known, got exp"),
        (function(lambda x: x * x), "operation 'mul' must multiply by or add a number"),
        (function(lambda x: torch.add(x, x, alpha=2)), "operation 'add' must multiply by or add a number"),
        (function(lambda x: torch.cat([x, x], 1)), "operation 'cat' must concatenate different tensors"),
        (function(lambda x: torch.cat([x, x + 1], 0)), "operation 'cat' must concatenate along axis 1"),
        (function(lambda x: x[:, :2]), r"operation 'getitem' must take one channel, x\[:, k\]"),
        (function(lambda x: torch.flatten(x)), "operation 'flatten' must keep the batch axis"),
        (function(lambda x: x if x.sum() > 0 else -x), "model must be traceable by torch.fx, got TraceError"),
        (function(lambda x: (x, x)), "model must return one tensor, got tuple"),
        (function(lambda x: x.relu() + x[:, 0]), "operation 'add' must add tensors of one shape"),
    ],
)
def test_what_is_not_known_is_refused_by_name(model, message):
    with pytest.raises(ValueError, match=message):
        graph.read(model if model.training and "evaluation" in message else model.eval(), (3,))


def test_hooks_are_refused():
    model = nn.Sequential(nn.Linear(3, 3))
    model[0].register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="layer '0' must have no hooks or parametrizations, got Linear"):
        graph.read(model, (3,))


def test_tracing_leaves_other_threads_alone():
    """torch.fx replaces Module.__call__ in the whole process while it traces."""
    traced, running = (shaken(torchvision.models.resnet18(num_classes=10)) for _ in range(2))
    image, before = torch.ones(1, 3, 32, 32), nn.Module.__call__
    expected = [step.kind for step in graph.read(traced, (3, 32, 32))]
    with torch.no_grad():
        logits = running(image)
    is_done = threading.Event()

    def run():
        n_right = 0
        while not is_done.is_set():
            with torch.no_grad():
                assert torch.equal(running(image), logits)
            n_right += 1
        return n_right

    with futures.ThreadPoolExecutor() as pool:
        runs = pool.submit(run)
        reads = [pool.submit(graph.read, traced, (3, 32, 32)) for _ in range(20)]
        try:
            assert all([step.kind for step in read.result()] == expected for read in reads)
        finally:
            is_done.set()
        assert runs.result() > 0
    assert nn.Module.__call__ is before
