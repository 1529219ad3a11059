"""Training: the same wherever it stops and goes on, lean convolutions against torch's, augmentation pixel by pixel."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from empirical import data, models, train


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def _start(name="convnet", seed=0):
    return train.start(models.build(name, generator=torch.Generator().manual_seed(seed)), learning_rate=1e-3)


def _advance(training, images, until, *, batch_size=128, augment=False, precision="float32", seed=1):
    seed = np.random.SeedSequence(seed)
    options = {"batch_size": batch_size, "augment": augment, "precision": precision, "seed": seed}
    train.advance(training, images, until=until, **options)
    return training


def _state(training):
    moments = training.optimiser.state_dict()["state"].values()
    tensors = [tensor for one in moments for tensor in one.values()]
    return [*training.network.state_dict().values(), *tensors]


def _equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("augment, precision", [(False, "float32"), (True, "float32"), (True, "bfloat16")])
def test_a_training_that_is_saved_and_goes_on_elsewhere_is_the_same(digits, tmp_path, augment, precision):
    before = torch.get_rng_state().clone()
    whole = _advance(_start(), digits, 14, augment=augment, precision=precision)  # 12 batches an epoch: into the second
    parts = _start()
    for until in (0, 1, 3, 14):
        _advance(parts, digits, until, augment=augment, precision=precision)
        train.save(parts, tmp_path / "saved.pt")
        parts = _start(seed=until + 7)  # whatever it was
        train.load(parts, tmp_path / "saved.pt")
        assert parts.done == until
    assert _equal(_state(parts), _state(whole))
    assert not _equal(_state(_advance(_start(), digits, 13, augment=augment, precision=precision)), _state(whole))
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_done_is_the_network_as_it_was(digits):
    untrained = models.build("convnet", generator=torch.Generator().manual_seed(0)).state_dict().values()
    assert _equal(_advance(_start(), digits, 0).network.state_dict().values(), untrained)


def test_a_stop_is_in_evaluation_mode_and_has_seen_its_batches(digits):
    training = _advance(_start(), digits, 3, batch_size=64)
    assert not any(module.training for module in training.network.modules())
    assert training.network[1].num_batches_tracked == 3
    assert training.done == 3


def test_more_than_asked_for_is_refused(digits):
    training = _advance(_start(), digits, 2)
    with pytest.raises(ValueError, match="until must be at least the 2 batches done, got 1"):
        _advance(training, digits, 1)


def test_numbers_that_would_train_to_nothing_are_refused(digits):
    network = models.build("convnet", generator=torch.Generator().manual_seed(0))
    for rate in (-1.0, 0.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"learning_rate must be positive and finite, got {rate}"):
            train.start(network, learning_rate=rate)
    seed = np.random.SeedSequence(0)
    for call, error, message in (
        (
            lambda: train.batches_per_epoch(digits, 0),
            ValueError,
            "batch_size must be a whole number of at least 1, got 0",
        ),
        (lambda: train.batches_per_epoch(3, 1), TypeError, "data must be empirical's Images, got 3"),
        (lambda: train.recalibrate(network, digits, batch_size=0, seed=seed), ValueError, "batch_size must be a whole"),
        (
            lambda: train.recalibrate(network, digits, batch_size=2, seed=0),
            TypeError,
            "seed must be numpy's SeedSequence",
        ),
        (lambda: train.start(3, learning_rate=1.0), TypeError, "network must be torch's Module, got 3"),
        (lambda: train.accuracy(network, 3), TypeError, "data must be empirical's Images, got 3"),
        (
            lambda: train.augmented(torch.zeros(3), torch.Generator()),
            ValueError,
            r"images must be \(n, c, h, w\), one or",
        ),
        (
            lambda: train.accuracy(network, dataclasses.replace(digits, x_test=digits.x_test[:0])),
            ValueError,
            "data must have test images, got none",
        ),
    ):
        with pytest.raises(error, match=message):
            call()
    how = {"until": 1, "batch_size": 2, "augment": False, "precision": "float32", "seed": seed}
    for change, error, message in (
        ({"batch_size": -1}, ValueError, "batch_size must be a whole number of at least 1, got -1"),
        ({"until": 1.5}, TypeError, "until must be a whole number of at least 0, got 1.5"),
        ({"precision": "float16"}, ValueError, "precision must be float32 or bfloat16, got float16"),
        ({"augment": "no"}, TypeError, "augment must be a bool, got no"),
    ):
        with pytest.raises(error, match=message):
            train.advance(_start(), digits, **(how | change))


def test_what_is_no_training_is_refused(tmp_path):
    path = tmp_path / "half.pt"
    train.save(_start(), path)
    path.write_bytes(path.read_bytes()[:1000])
    (tmp_path / "zeros.pt").write_bytes(bytes(1000))
    (tmp_path / "empty.pt").touch()
    for name in ("half.pt", "zeros.pt", "empty.pt", "missing.pt"):
        with pytest.raises(ValueError, match=f"{name} must be a training that was saved, got "):
            train.load(_start(), tmp_path / name)


def test_training_is_torchs_own_step_by_step(digits):
    """Two steps of Adam on the network's own convolutions, in the order of the batches."""
    ours = _advance(_start("resnet18"), digits, 2, batch_size=16)
    network = models.build("resnet18", generator=torch.Generator().manual_seed(0)).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for batch in range(2):
        rows = train._rows(len(digits.x_train), 16, batch, np.random.SeedSequence(1))
        optimiser.zero_grad()
        logits = network(data.normalise(digits.x_train[rows], digits))
        torch.nn.functional.cross_entropy(logits, digits.y_train[rows]).backward()
        optimiser.step()
        if batch == 0:  # Adam's first step is the gradient's sign: rounding may turn the smallest, by 2e-3
            pairs = zip(ours.network.named_parameters(), network.parameters(), strict=True)
            n_apart = sum(int(((a - b).abs() > 4.1e-3).sum()) for (_, a), b in pairs)
            assert n_apart == 0
    for (name, found), expected in zip(ours.network.named_buffers(), network.buffers(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0.02, atol=2e-3, msg=lambda text, name=name: f"{name}: {text}")


@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    bias=st.booleans(),
)
def test_a_lean_convolution_is_the_convolution(size, kernel, stride, padding, bias):
    assume(all(n + 2 * p >= k for n, k, p in zip(size, kernel, padding, strict=True)))
    torch.manual_seed(0)
    plain = torch.nn.Conv2d(3, 5, kernel, stride=stride, padding=padding, bias=bias).double()
    lean = train._Lean(plain)
    images = torch.randn(4, 3, *size, dtype=torch.float64, requires_grad=True)
    results = []
    for module in (plain, lean):
        output = module(images)
        weights = torch.arange(output.numel()).reshape(output.shape).cos()
        results.append([output, *torch.autograd.grad((output * weights).sum(), [images, *plain.parameters()])])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_the_lean_twin_shares_what_is_learnt():
    network = models.build("resnet18", generator=torch.Generator().manual_seed(0))
    twin = train._lean(network)
    own = {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    assert {tensor.data_ptr() for tensor in (*twin.parameters(), *twin.buffers())} == own
    n_lean = sum(isinstance(module, train._Lean) for module in twin.modules())
    assert n_lean == 20
    twin.train()(torch.randn(2, 3, 32, 32))
    assert network.bn1.num_batches_tracked == 1
    assert not network.training


def test_bfloat16_steps_stay_near_those_of_float32(digits):
    """Weights are float32, and after two epochs both have learnt about as much."""
    trainings = [_advance(_start(), digits, 24, precision=precision) for precision in ("float32", "bfloat16")]
    assert not _equal(_state(trainings[0]), _state(trainings[1]))
    for training in trainings:
        assert {parameter.dtype for parameter in training.network.parameters()} == {torch.float32}
        assert train.accuracy(training.network, digits) > 0.9


def test_two_epochs_teach_the_digits(digits):
    training = _advance(_start(), digits, 2 * train.batches_per_epoch(digits, 64), batch_size=64)
    assert train.accuracy(training.network, digits) > 0.9


def test_recalibrated_statistics_are_those_of_the_training_images(digits):
    training = _advance(_start(), digits, 1)
    network = training.network
    learnt = [parameter.clone() for parameter in network.parameters()]
    train.recalibrate(network, digits, batch_size=300, seed=np.random.SeedSequence(0))
    first = network[0](data.normalise(digits.x_train, digits)).detach()
    # 3,000 of 1,442 images, drawn with replacement: means within 5 standard errors, 16 channels: false alarm 1e-5
    n = 3000 * 16  # pixels of one image are not independent; a sixteenth of them counted
    error = first.std(dim=(0, 2, 3)) / n**0.5
    assert ((network[1].running_mean - first.mean(dim=(0, 2, 3))).abs() < 5 * error).all()
    torch.testing.assert_close(network[1].running_var, first.var(dim=(0, 2, 3)), rtol=0.05, atol=0)
    assert network[1].momentum == 0.1
    assert not network.training
    assert _equal(network.parameters(), learnt)


def test_accuracy_counts_the_right_answers(digits):
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(10))

        def forward(self, x):
            return (self.weight + torch.eye(10)[4]).expand(len(x), -1)

    share = (digits.y_test == 4).double().mean().item()
    assert abs(train.accuracy(Constant(), digits) - share) < 1e-12


def test_an_epoch_shows_every_image_once():
    batches = [train._rows(10, 4, batch, np.random.SeedSequence(0)) for batch in range(6)]
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    first, second = torch.cat(batches[:3]).tolist(), torch.cat(batches[3:]).tolist()
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_augmented_images_are_the_images_mirrored_and_shifted():
    images = torch.arange(1, 41 * 3 * 64 + 1).reshape(41, 3, 8, 8)
    found = train.augmented(images, torch.Generator().manual_seed(0))
    kinds = set()
    for image, other in zip(images, found, strict=True):
        options = {
            (flip, down, right): torch.nn.functional.pad(turned, (4, 4, 4, 4))[:, down : down + 8, right : right + 8]
            for flip, turned in ((False, image), (True, image.flip(2)))
            for down in range(9)
            for right in range(9)
        }
        (match,) = [key for key, option in options.items() if torch.equal(option, other)]
        kinds.add(match)
    assert {flip for flip, _, _ in kinds} == {False, True}
    assert len(kinds) > 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_trains_as_a_cpu_does(digits):
    here = _advance(_start("resnet18"), digits, 2, batch_size=32).network
    network = models.build("resnet18", generator=torch.Generator().manual_seed(0), device=models.check_device("cuda"))
    there = _advance(train.start(network, learning_rate=1e-3), digits, 2, batch_size=32).network
    for ours, theirs in zip(here.buffers(), there.buffers(), strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-2, atol=1e-3)
