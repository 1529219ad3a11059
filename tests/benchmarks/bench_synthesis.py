"""An optimisation step beside the bare passes: python -m pytest -s tests/benchmarks/bench_synthesis.py.

The bare forward and backward pass to the input, with frozen parameters, is what any optimiser of inputs has to pay. It
is timed twice: through the network as it is ("plain", autocast where the step uses it), and through the same faster
form that the step uses ("bare"). One thread; on a GPU too, where there is one, all three as captured graphs.
"""

import time

import pytest
import torch
from torch.nn import functional

from empirical import captured, models, synthesis
from lipschitz import threads

STEPS = 12 if not torch.cuda.is_available() else 320  # a GPU's steps come in chunks of 32
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True)
def _one_thread():
    with threads.one_thread():
        yield


def timed(work, device):
    """Return the shortest of five times of ``work``, in seconds."""
    seconds = []
    for _ in range(5):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def passes(logits, inputs, targets):
    """Return a function that does the bare passes as often as the step is timed."""
    found = torch.empty_like(inputs)

    def once():
        x = inputs.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(functional.cross_entropy(logits(x), targets, reduction="sum"), x)
        found.copy_(gradient)

    again = captured.repeated(once, inputs.device)

    def work():
        for _ in range(STEPS):
            again()

    return work


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("network, n", [("resnet18", 100), ("resnet18", 20), ("resnet18_cifar", 20)])
def test_step(device, precision, network, n):
    where = models.check_device(device)  # float32 is float32 on a GPU too
    module = models.build(network, generator=torch.Generator().manual_seed(0), device=where).requires_grad_(False)
    inputs = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(device)
    targets = (torch.arange(n) % 10).to(device)
    weights = torch.tensor([2.5e-7, 0.0]).repeat(n // 2).to(device)

    def plain(x):
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            return module(x).float()

    fast = models.for_gradients(module.eval(), inputs, precision=precision)
    options = {"threshold": 0.0, "weight_decay": 1e-7, "high_frequency": weights, "precision": precision}

    def steps(n_steps):
        synthesis.optimise_inputs(module, inputs, targets, max_iterations=n_steps, **options)

    with captured.own_stream(inputs.device), torch.no_grad():
        bare_passes, plain_passes = (passes(logits, inputs, targets) for logits in (fast, plain))
        for work in (bare_passes, plain_passes):
            work()
        steps(2)
        # The difference of a long and a short call leaves out what is done once: the faster form, a GPU's capture.
        ours = (timed(lambda: steps(STEPS + 2), device) - timed(lambda: steps(2), device)) / STEPS
        bare, own = (timed(work, device) / STEPS for work in (bare_passes, plain_passes))
    print(
        f"\n{device} {network} {precision} batch {n}: step {1e3 * ours:.2f} ms, bare {1e3 * bare:.2f} ms "
        f"({ours / bare:.2f} x), plain network {1e3 * own:.2f} ms ({ours / own:.2f} x)"
    )
    assert ours < 1.25 * own
