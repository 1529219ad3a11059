"""Training steps of ResNet18 beside torch's bare ones: python -m pytest -s tests/benchmarks/bench_training.py.

One thread, and two trainings side by side in two; no package that installs trains this network on a CPU. Prints images
a second.
"""

import threading
import time

import numpy as np
import pytest
import torch

from empirical import data, models, train
from lipschitz import threads

SIZE = 512
IMAGES = 5_000


@pytest.fixture(scope="module")
def images():
    """Noise in the shape of CIFAR-10: the time does not depend on the content."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (IMAGES, *models.IMAGE_SHAPE), generator=generator, dtype=torch.uint8)
    labels = torch.randint(models.N_CLASSES, (IMAGES,), generator=generator)
    return data.Images(
        name="noise",
        x_train=pixels,
        y_train=labels,
        x_test=pixels[:1],
        y_test=labels[:1],
        digest="",
        mean=torch.full((3,), 0.5),
        std=torch.full((3,), 0.3),
    )


@pytest.fixture(autouse=True)
def _one_thread():
    with threads.one_thread():
        yield


def stepper(images, precision):
    """Return a function that does one step of ours."""
    network = models.build("resnet18", generator=torch.Generator().manual_seed(0))
    training = train.start(network, learning_rate=1e-3)
    options = {"batch_size": SIZE, "augment": True, "precision": precision, "seed": np.random.SeedSequence(0)}
    return lambda: train.advance(training, images, until=training.done + 1, **options)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_step(benchmark, images, precision):
    benchmark.pedantic(stepper(images, precision), rounds=8, warmup_rounds=1)
    print(f"\n{precision}: {SIZE / benchmark.stats.stats.min:.0f} images/s")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bare_torch_step(benchmark, precision):
    """Forward, backward and Adam on a batch that lies ready, channels last, and nothing else."""
    network = models.build("resnet18", generator=torch.Generator().manual_seed(0)).train()
    network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    batch = torch.randn(SIZE, *models.IMAGE_SHAPE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(models.N_CLASSES, (SIZE,))

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = network(batch)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    benchmark.pedantic(step, rounds=8, warmup_rounds=1)
    print(f"\nbare {precision}: {SIZE / benchmark.stats.stats.min:.0f} images/s")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_trainings_side_by_side(benchmark, images, precision):
    steps = [stepper(images, precision) for _ in range(2)]

    def both():
        workers = [threading.Thread(target=step) for step in steps]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    benchmark.pedantic(both, rounds=8, warmup_rounds=1)
    print(f"\ntwo in {precision}: {2 * SIZE / benchmark.stats.stats.min:.0f} images/s")


def test_images_cost_little_beside_the_step(images):
    """The share of a bfloat16 step that is spent before the network: at most 5 %."""
    seed = np.random.SeedSequence(0)

    def prepare():
        rows = train._rows(IMAGES, SIZE, 3, seed)
        batch = train.augmented(images.x_train[rows], models.generator_from(seed, 1, 3))
        data.normalise(batch, images).contiguous(memory_format=torch.channels_last)

    share = seconds(prepare) / seconds(stepper(images, "bfloat16"))
    print(f"\nimages: {share:.1%} of a step")
    assert share < 0.05


def seconds(function, rounds=8):
    """Return the least wall time of a call, in seconds."""
    function()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)
