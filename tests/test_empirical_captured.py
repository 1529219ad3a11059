"""The loop of a GPU: it does what the loop of a CPU does. Without a GPU its step is done uncaptured."""

import contextlib

import pytest
import torch

from empirical import captured, models, synthesis
from empirical.descent import Descent, Rows, Rule

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")],
    ),
]


def _starts(n, seed=0):
    return synthesis.noise([torch.Generator().manual_seed(100 * seed + row) for row in range(n)])


def _both(monkeypatch, device, starts, *, network="convnet", **options):
    """Return what the two loops find."""
    device = models.check_device(device)
    module = models.build(network, generator=torch.Generator().manual_seed(0), device=device)
    options = {name: value.to(device) if torch.is_tensor(value) else value for name, value in options.items()}
    targets = torch.arange(len(starts), device=device) % 10
    found = []
    plain = synthesis._descend
    for descend in (plain, captured.descend):
        monkeypatch.setattr(synthesis, "_descend", descend)
        monkeypatch.setattr(synthesis.captured, "descend", descend)
        found.append(synthesis.optimise_inputs(module, starts.to(device), targets, **options))
    return found


def _same(plain, other, device, *, pixels=1e-5):
    """On a GPU sums depend on the batch, and Adam turns a gradient's last bits into whole steps."""
    assert torch.equal(plain.is_converged, other.is_converged)
    if device == "cpu":
        assert torch.equal(plain.iterations, other.iterations)
        torch.testing.assert_close(other.inputs, plain.inputs, rtol=0, atol=pixels)
    else:
        assert ((plain.iterations - other.iterations).abs() <= 0.05 * plain.iterations + 1).all()
        assert (plain.inputs - other.inputs).abs().mean() < 2e-3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [1, 5, 40])
def test_rows_stop_where_they_stop_in_the_loop_of_a_cpu(monkeypatch, device, n):
    plain, other = _both(monkeypatch, device, _starts(n), threshold=0.05, max_iterations=300)
    assert plain.is_converged.all()
    assert n == 1 or len(plain.iterations.unique()) > 3
    _same(plain, other, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("most", [0, 1, 31, 32, 33, 67])
def test_rows_are_given_up_after_the_same_steps(monkeypatch, device, most):
    plain, other = _both(monkeypatch, device, _starts(12), threshold=0.05, max_iterations=most)
    assert most != 67 or 0 < int(plain.is_converged.sum()) < 12
    _same(plain, other, device)
    torch.testing.assert_close(other.losses, plain.losses, rtol=1e-5 if device == "cpu" else 1e-2, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("projection", ["step", "gradient"])
def test_penalties_anchors_and_hyperplanes_are_kept(monkeypatch, device, projection):
    starts = _starts(6)
    plain, other = _both(
        monkeypatch,
        device,
        starts,
        threshold=0.0,
        max_iterations=40,
        weight_decay=1e-3,
        high_frequency=torch.tensor([1e-3, 0.0]).repeat(3),
        mse=0.1,
        anchors=_starts(6, seed=1),
        normals=_starts(6, seed=2),
        projection=projection,
    )
    _same(plain, other, device, pixels=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_in_bfloat16_a_row_is_done_by_its_float32_loss(monkeypatch, device):
    plain, other = _both(
        monkeypatch, device, _starts(12), network="resnet18", threshold=0.05, max_iterations=400, precision="bfloat16"
    )
    for found in (plain, other):
        assert found.is_converged.all()
        assert (found.losses > 0.03).all()  # none went on for long
    # A refused row waits for a lower reading, where the loop of a CPU asks again after every step.
    assert ((plain.iterations - other.iterations).abs() <= 0.1 * plain.iterations + 2).all()


def test_a_refused_row_goes_on_until_its_float32_loss_is_low():
    """The bfloat16 reading is made 20 % too low: each refusal lowers the limit by what the reading was off."""
    network = models.build("convnet", generator=torch.Generator().manual_seed(0))
    starts, targets = _starts(4), torch.arange(4)

    def flattering(x):
        logits = network(x)
        return logits + 0.25 * torch.nn.functional.one_hot(targets[: len(x)], 10)

    rows = Rows(
        index=torch.arange(4),
        targets=targets,
        weights=torch.zeros(4),
        starts=starts,
        origins=torch.zeros_like(starts),
        units=None,
        x=starts.clone(),
        mean=torch.zeros_like(starts),
        square=torch.zeros_like(starts),
    )
    rule = Rule(learning_rate=0.05, weight_decay=0.0, mse=0.0, has_variation=False, projection="step")
    with models.frozen(network):
        descent = Descent(
            network=network, logits=flattering, rule=rule, target=0.05, max_iterations=500, precision="bfloat16"
        )
        best, iterations = captured.descend(descent, rows)
        losses = torch.nn.functional.cross_entropy(network(best), targets, reduction="none")
    assert (losses <= 0.05).all()
    assert (losses > 0.03).all()
    assert (iterations < 500).all()
    assert torch.equal(rows.x, starts)  # what the caller gave is not changed


@pytest.mark.parametrize("descend", [synthesis._descend, captured.descend])
@pytest.mark.parametrize("is_exact", [True, False])
def test_inputs_in_float64_stay_so_whatever_the_losses_are(monkeypatch, descend, is_exact):
    monkeypatch.setattr(synthesis, "_descend", descend)
    network = models.build("convnet", generator=torch.Generator().manual_seed(0))
    exact = synthesis.optimise_inputs(network, _starts(3), torch.arange(3), threshold=0.05, max_iterations=200)
    network = network.double() if is_exact else torch.nn.Sequential(_Single(), network)
    weights = torch.zeros(3, dtype=torch.float64)
    found = synthesis.optimise_inputs(
        network, _starts(3).double(), torch.arange(3), threshold=0.05, max_iterations=200, high_frequency=weights
    )
    assert found.inputs.dtype == torch.float64
    assert found.is_converged.all()
    assert (found.iterations - exact.iterations).abs().max() <= 1


class _Single(torch.nn.Module):
    def forward(self, images):
        return images.float()


def test_a_row_without_a_number_is_given_up(monkeypatch):
    starts = _starts(3)
    starts[1] = torch.nan
    plain, other = _both(monkeypatch, "cpu", starts, threshold=0.05, max_iterations=200)
    assert other.iterations.tolist() == plain.iterations.tolist()
    assert other.is_converged.tolist() == [True, False, True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_threads_optimise_side_by_side_as_alone():
    import joblib

    device = models.check_device("cuda")

    def found(seed):
        with captured.own_stream(device):
            network = models.build("resnet18", generator=torch.Generator().manual_seed(seed), device=device)
            targets = torch.arange(20, device=device) % 10
            ends = synthesis.optimise_inputs(
                network, _starts(20, seed).to(device), targets, threshold=0.05, max_iterations=300
            )
            return ends.inputs.cpu(), ends.iterations.cpu()

    alone = [found(seed) for seed in range(6)]
    together = joblib.Parallel(n_jobs=6, backend="threading")(joblib.delayed(found)(seed) for seed in range(6))
    for (inputs, iterations), (others, counts) in zip(alone, together, strict=True):
        assert ((iterations - counts).abs() <= 0.1 * iterations + 2).all()
        assert (others - inputs).abs().mean() < 0.02


class _Stream:
    def __init__(self):
        self.waited_for = []

    def wait_stream(self, other):
        self.waited_for.append(other)


class _Graph:
    def __init__(self):
        self.calls = []

    def capture_begin(self, **options):
        self.calls.append(options)

    def capture_end(self):
        self.calls.append("end")

    def replay(self):
        self.calls.append("replay")

    def pool(self):
        return ("pool", id(self))


def test_a_thread_has_one_stream_and_its_graphs_take_over_each_others_memory(monkeypatch):
    """With a pretended GPU: what is asked of CUDA, in which order."""
    device, streams, graphs, steps = torch.device("cuda"), [], [], []
    outer = _Stream()
    monkeypatch.setattr(captured, "_of_thread", captured._OfThread())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: streams[-1] if streams else outer)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _device: _Stream())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graphs.append(_Graph()) or graphs[-1])

    @contextlib.contextmanager
    def entered(stream):
        streams.append(stream)
        yield
        streams.pop()

    monkeypatch.setattr(torch.cuda, "stream", entered)
    with captured.own_stream(device):
        (own,) = streams
        with captured.own_stream(torch.device("cuda", 0)):
            assert streams == [own, own]
        for _ in range(2):
            captured.repeated(lambda: steps.append(streams[-1]), device)()
    assert not streams
    assert outer.waited_for == [own]
    assert own.waited_for[0] is outer
    assert steps == [own] * 4  # each once as it is and once while it is captured
    first, second = graphs
    assert first.calls == [{"pool": None, "capture_error_mode": "thread_local"}, "end", "replay"]
    assert second.calls == [{"pool": first.pool(), "capture_error_mode": "thread_local"}, "end", "replay"]
    with pytest.raises(ZeroDivisionError), captured.own_stream(device):
        raise ZeroDivisionError
    assert outer.waited_for == [own, own]  # also when it fails
