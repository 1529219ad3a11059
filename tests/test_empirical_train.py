"""Training: reproducible, the same wherever snapshots are taken, and the augmentation pixel by pixel."""

import pytest
import torch

from empirical import data, models, train


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def _run(digits, stages, *, seed=0, batch_size=128, augment=False):
    network = models.build("convnet", generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    stops = train.snapshots(
        network,
        digits,
        stages=stages,
        batch_size=batch_size,
        learning_rate=1e-3,
        augment=augment,
        generator=generator,
    )
    return network, {done: {k: v.clone() for k, v in network.state_dict().items()} for done in stops}


def _equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


@pytest.mark.parametrize("augment", [False, True])
def test_snapshots_are_those_of_a_straight_run(digits, augment):
    before = torch.get_rng_state().clone()
    _, often = _run(digits, [0, 1, 3, 13], augment=augment)  # 12 batches an epoch: into the second
    _, once = _run(digits, [13], augment=augment)
    assert list(often) == [0, 1, 3, 13]
    assert _equal(often[13], once[13])
    assert not _equal(often[3], often[13])
    assert torch.equal(torch.get_rng_state(), before)


def test_stage_zero_is_the_network_as_it_was(digits):
    untrained = models.build("convnet", generator=torch.Generator().manual_seed(0)).state_dict()
    _, found = _run(digits, [0])
    assert _equal(found[0], untrained)


def test_training_is_lazy_and_stops_in_evaluation_mode(digits):
    network = models.build("convnet", generator=torch.Generator().manual_seed(0))
    stops = train.snapshots(
        network,
        digits,
        stages=[1, 10**9],
        batch_size=64,
        learning_rate=1e-3,
        augment=False,
        generator=torch.Generator().manual_seed(0),
    )
    assert next(stops) == 1
    assert not network.training
    assert network[1].num_batches_tracked == 1  # batch norm has seen the batch


def test_two_epochs_teach_the_digits(digits):
    network, _ = _run(digits, [2 * train.batches_per_epoch(digits, 64)], batch_size=64)
    assert train.accuracy(network, digits) > 0.9


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
    batches = train._batches(10, 4, torch.Generator().manual_seed(0))
    first = [next(batches) for _ in range(3)]
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(torch.cat(first).tolist()) == list(range(10))


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


def test_stages_must_rise(digits):
    for stages in ([1, 1], [2, 1], [-1, 2]):
        with pytest.raises(ValueError, match="stages must rise, from 0 or more, got"):
            _run(digits, stages)
