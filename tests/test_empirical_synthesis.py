"""Optimised inputs: the step, the penalties, retirement, independence of rows."""

import numpy as np
import oracles
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from empirical import descent, models, synthesis


@pytest.fixture(scope="module")
def network():
    return models.build("convnet", generator=torch.Generator().manual_seed(0))


def _starts(n, seed=0, scale=0.01):
    seeds = [np.random.SeedSequence(seed, spawn_key=(row,)) for row in range(n)]
    return synthesis.noise([models.generator_from(child) for child in seeds], scale=scale)


def _total_variation(images):
    rows, columns = images[:, :, 1:] - images[:, :, :-1], images[..., 1:] - images[..., :-1]
    return rows.abs().sum(dim=(1, 2, 3)) + columns.abs().sum(dim=(1, 2, 3))


@given(strategies.images(), st.floats(0, 2**-10, width=32))
def test_the_gradient_of_total_variation_is_autograds(images, weight):
    weights = torch.full((len(images),), weight)
    x = images.clone().requires_grad_(True)
    (weights * _total_variation(x)).sum().backward()
    assert torch.equal(descent.variation_gradient(images, weights), x.grad)


@given(strategies.images())
def test_the_total_variation_of_the_tests_is_the_sum_over_pixels(images):
    expected = [oracles.total_variation_by_pixels(image) for image in images.numpy()]
    assert _total_variation(images).tolist() == expected


def test_the_gradient_of_total_variation_of_images_drawn_by_hand():
    edge = torch.zeros(1, 1, 4, 4)
    edge[..., 2:] = 1  # four rows, one step each
    assert descent.variation_gradient(edge, torch.ones(1))[0, 0].tolist() == [[0, -1, 1, 0]] * 4
    dot = torch.zeros(1, 1, 3, 3)
    dot[..., 1, 1] = 2  # four neighbours
    assert descent.variation_gradient(dot, torch.ones(1))[0, 0].tolist() == [[0, -1, 0], [-1, 4, -1], [0, -1, 0]]
    assert not descent.variation_gradient(torch.full((1, 3, 4, 4), 7.0), torch.ones(1)).any()


def test_a_row_takes_the_steps_of_torchs_adam(network):
    start, anchor, target = _starts(1), _starts(1, seed=1, scale=0.5), torch.tensor([3])
    x = start.clone().requires_grad_(True)
    optimiser = torch.optim.Adam([x], lr=0.05, weight_decay=1e-3)
    best = torch.inf
    for _ in range(25):
        loss = functional.cross_entropy(network(x), target)
        best = min(best, loss.item())
        moved = x - anchor
        penalty = 1e-4 * (moved.diff(dim=2).abs().sum() + moved.diff(dim=3).abs().sum())
        optimiser.zero_grad()
        (loss + penalty + 0.1 * moved.square().mean()).backward()
        optimiser.step()
    best = min(best, functional.cross_entropy(network(x), target).item())
    network.zero_grad()
    found = synthesis.optimise_inputs(
        network,
        start,
        target,
        threshold=0.0,
        max_iterations=25,
        weight_decay=1e-3,
        high_frequency=torch.tensor([1e-4]),
        mse=0.1,
        anchors=anchor,
    )
    assert abs(found.losses.item() - best) < 1e-5
    np.testing.assert_allclose(found.inputs, x.detach(), atol=1e-5)
    assert found.iterations.item() == 25
    assert not found.is_converged.item()


def test_rows_do_not_depend_on_their_batch_and_retire_each_in_its_time(network):
    starts, targets = _starts(6), torch.tensor([0, 1, 2, 3, 4, 5])
    weights = torch.tensor([1e-5, 0.0] * 3)
    options = {"threshold": 0.15, "max_iterations": 60, "weight_decay": 1e-7}
    together = synthesis.optimise_inputs(network, starts, targets, high_frequency=weights, **options)
    assert len(set(together.iterations.tolist())) > 1
    assert together.is_converged[together.iterations < 60].all()
    for row in range(6):
        one = slice(row, row + 1)
        alone = synthesis.optimise_inputs(network, starts[one], targets[one], high_frequency=weights[one], **options)
        assert alone.iterations.item() == together.iterations[row].item()
        # Losses near the threshold after some fifty steps; one step differs by rounding only.
        assert abs(alone.losses.item() - together.losses[row].item()) < 1e-4
        np.testing.assert_allclose(alone.inputs[0], together.inputs[row], atol=1e-2)


def test_what_is_reported_is_the_loss_of_what_is_returned(network):
    targets = torch.tensor([1, 2])
    found = synthesis.optimise_inputs(network, _starts(2), targets, threshold=0.2, max_iterations=100)
    with torch.no_grad():
        logits = network(found.inputs).numpy()
    expected = [oracles.cross_entropy_by_logits(row, int(target)) for row, target in zip(logits, targets, strict=True)]
    np.testing.assert_allclose(found.losses, expected, atol=1e-5)
    assert found.losses.dtype == torch.float32
    assert found.is_converged.all()
    assert (found.losses <= 0.2).all()


def test_the_best_input_on_the_way_is_kept(network):
    # A step far too large: the loss jumps about, and the best is not the last.
    starts, target = _starts(1), torch.tensor([0])
    losses = []
    for steps in range(8):
        found = synthesis.optimise_inputs(
            network, starts, target, threshold=0, max_iterations=steps, learning_rate=5.0, mse=1.0, anchors=starts
        )
        losses.append(found.losses.item())
    assert losses == sorted(losses, reverse=True)


def test_a_start_below_the_threshold_is_returned_as_it_is(network):
    starts = _starts(2)
    found = synthesis.optimise_inputs(network, starts, torch.tensor([0, 1]), threshold=100.0, max_iterations=5)
    assert torch.equal(found.inputs, starts)
    assert found.iterations.tolist() == [0, 0]


@settings(max_examples=10)
@given(strategies.linear_classifiers())
def test_a_row_with_a_normal_stays_in_its_hyperplane(classifier):
    starts, normals = torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = synthesis.optimise_inputs(
        classifier, starts, torch.tensor([0, 1, 2]), threshold=1e-3, max_iterations=40, normals=normals
    )
    moves = (found.inputs - starts).flatten(1).double()
    assert (moves.norm(dim=1) > 1e-3).all()
    cosines = functional.cosine_similarity(moves, normals.flatten(1).double())
    assert cosines.abs().max() < 1e-5


def test_a_projected_gradient_does_not_hold_the_hyperplane(network):
    starts, normals = torch.randn(2, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2])
    options = {"threshold": 0.1, "max_iterations": 40, "normals": normals}
    cosines = []
    for projection in ("step", "gradient"):
        found = synthesis.optimise_inputs(network, starts, targets, projection=projection, **options)
        moves = (found.inputs - starts).flatten(1).double()
        cosines.append(functional.cosine_similarity(moves, normals.flatten(1).double()).abs().max().item())
    assert cosines[0] < 1e-5
    assert cosines[1] > 1e-3
    # The gradient is projected all the same: a free row goes elsewhere.
    free = synthesis.optimise_inputs(network, starts, targets, threshold=0.1, max_iterations=40)
    assert (free.inputs - found.inputs).abs().max() > 1e-3


def test_an_input_at_rest_is_at_rest_along_itself(network):
    # The penalties pull towards nought as hard as the loss pushes outwards: what bounds the loss of A from below.
    target, weight, decay = torch.tensor([3]), torch.tensor([1e-4]), 1e-4
    x = _starts(1)
    for rate in (0.05, 0.005, 0.0005):
        x = synthesis.optimise_inputs(
            network,
            x,
            target,
            threshold=0,
            max_iterations=1500,
            learning_rate=rate,
            weight_decay=decay,
            high_frequency=weight,
        ).inputs
    x.requires_grad_(True)
    loss = functional.cross_entropy(network(x), target)
    (gradient,) = torch.autograd.grad(loss, x)
    x = x.detach()
    push = -(x * gradient).sum().item()
    pull = (weight * _total_variation(x)).item() + decay * x.square().sum().item()
    assert pull == pytest.approx(push, rel=0.02)
    # Homogeneous, but for the last bias: probability times margin.
    with torch.no_grad():
        logits = (network(x) - network[-1].bias)[0]
        shares = torch.softmax(network(x)[0], dim=0)
    assert push == pytest.approx((shares * (logits[3] - logits)).sum().item(), rel=1e-3)


def test_bfloat16_drives_but_float32_decides_and_reports():
    network = models.build("resnet18", generator=torch.Generator().manual_seed(0), width=16)
    starts, targets = _starts(4), torch.tensor([0, 1, 2, 3])
    options = {"threshold": 0.1, "max_iterations": 400}
    rough = synthesis.optimise_inputs(network, starts, targets, precision="bfloat16", **options)
    exact = synthesis.optimise_inputs(network, starts, targets, **options)
    with torch.no_grad():
        losses = functional.cross_entropy(network(rough.inputs), targets, reduction="none")
    assert torch.equal(rough.losses, losses)
    assert rough.is_converged.all()
    assert (losses <= 0.1).all()
    assert (losses > 0.05).all()  # none went on for long after it had arrived
    assert not torch.equal(rough.inputs, exact.inputs)
    np.testing.assert_allclose(rough.iterations, exact.iterations, rtol=0.5)
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_nothing_of_the_callers_is_changed(network):
    starts = _starts(2)
    kept, parameters = starts.clone(), [parameter.clone() for parameter in network.parameters()]
    network.train()
    buffers = [buffer.clone() for buffer in network.buffers()]
    state = torch.get_rng_state().clone()
    synthesis.optimise_inputs(network, starts, torch.tensor([0, 1]), threshold=0.01, max_iterations=5)
    assert network.training
    network.eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(starts, kept)
    assert not starts.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(parameters, network.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(buffers, network.buffers(), strict=True))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())


def test_a_start_is_named_by_its_generator_alone():
    assert torch.equal(_starts(5)[:2], _starts(2))
    # 15,360 draws: the standard deviation has relative standard error 0.0057; five of them, false alarm 6e-7
    assert abs(_starts(5).std().item() / 0.01 - 1) < 5 * 0.0057


def test_a_real_resnet_is_driven_towards_its_target():
    network = models.build("resnet18", generator=torch.Generator().manual_seed(0))
    found = synthesis.optimise_inputs(network, _starts(2), torch.tensor([0, 7]), threshold=0.5, max_iterations=60)
    assert (found.losses < 1.5).all()  # ln 10 = 2.30 at the start


@pytest.mark.parametrize(
    "options, message",
    [
        ({"threshold": -0.1}, "threshold must be at least 0 and finite, got -0.1"),
        ({"mse": -1.0}, "mse must be at least 0 and finite, got -1.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be at least 0 and finite, got nan"),
        ({"weight_decay": float("inf")}, "weight_decay must be at least 0 and finite, got inf"),
        (
            {"high_frequency": torch.tensor([0.0, -2.0])},
            r"high_frequency must be one number of at least 0 for each row, finite, got \[0.0, -2.0\]",
        ),
        ({"projection": "stpe"}, "projection must be step or gradient, got stpe"),
        ({"anchors": torch.zeros(3, 3, 32, 32)}, "anchors must have a row for each of the 2 starts, got 3"),
        ({"threshold": float("nan")}, "threshold must be at least 0 and finite, got nan"),
        ({"max_iterations": -1}, "max_iterations must be a whole number of at least 0, got -1"),
        ({"precision": "float16"}, "precision must be float32 or bfloat16, got float16"),
        ({"high_frequency": torch.tensor([0.0, float("nan")])}, "high_frequency must be one number of at least 0"),
        ({"normals": torch.zeros(2, 3, 32, 31)}, r"normals must be \(2, 3, 32, 32\) of torch.float32 .* as the others"),
        ({"targets": torch.tensor([0, -100])}, "targets must be classes from 0 on, got -100"),
        ({"targets": torch.tensor([0, 10])}, "targets must be classes from 0 to 9, got 10"),
        ({"targets": torch.zeros(1, dtype=torch.long)}, "targets must have a row for each of the 2 starts, got 1"),
    ],
)
def test_what_cannot_be_optimised_is_refused(network, options, message):
    chosen = {"targets": torch.zeros(2, dtype=torch.long), "threshold": 0.1, "max_iterations": 1} | options
    with pytest.raises(ValueError, match=message):
        synthesis.optimise_inputs(network, torch.zeros(2, 3, 32, 32), **chosen)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"targets": 3}, r"targets must be a tensor of int64, shape \(2,\), got 3 \(int\)"),
        ({"targets": [3, 4]}, r"targets must be a tensor of int64, shape \(2,\), got \[3, 4\] \(list\)"),
        ({"max_iterations": 1.5}, r"max_iterations must be a whole number of at least 0, got 1.5 \(float\)"),
        ({"mse": "0"}, r"mse must be at least 0 and finite, got 0 \(str\)"),
        ({"anchors": 0.0}, "anchors must be torch's Tensor, got 0.0"),
        (
            {"starts": torch.zeros(2, 3, 32, 32, dtype=torch.int64)},
            "starts must be floating-point numbers, got torch.int64",
        ),
    ],
)
def test_another_kind_is_refused(network, options, message):
    chosen = {"starts": torch.zeros(2, 3, 32, 32), "targets": torch.zeros(2, dtype=torch.long)} | options
    with pytest.raises(TypeError, match=message):
        synthesis.optimise_inputs(network, **({"threshold": 0.1, "max_iterations": 1} | chosen))


def test_noise_of_no_size_is_refused():
    generator = torch.Generator()
    for call, error, message in (
        (lambda: synthesis.noise([]), ValueError, "generators must be one for each row, got none"),
        (
            lambda: synthesis.noise(np.zeros(3)),
            TypeError,
            "generators must be a sequence, one for each row, got ndarray",
        ),
        (lambda: synthesis.noise([0]), TypeError, "generators must be torch's Generator, got 0"),
        (
            lambda: synthesis.noise([generator], scale=float("nan")),
            ValueError,
            "scale must be at least 0 and finite, got",
        ),
        (
            lambda: synthesis.noise([generator], shape=(3, 0)),
            ValueError,
            "shape must have at least one axis and one site",
        ),
        (lambda: synthesis.noise([generator], shape=(10**7, 10**7)), ValueError, "shape must fit .*, which takes 8e"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_no_class_has_a_loss_that_counts_as_nothing():
    with pytest.raises(IndexError, match="-100"):
        descent.cross_entropies(torch.zeros(1, 3), torch.tensor([-100]))


def test_gradients_are_taken_wherever_it_is_called_and_none_are_left(network):
    starts = _starts(2).requires_grad_(True)
    options = {"threshold": 0.1, "max_iterations": 3}
    with torch.no_grad():
        inside = synthesis.optimise_inputs(network, starts, torch.tensor([0, 1]), **options)
    outside = synthesis.optimise_inputs(network, starts.detach(), torch.tensor([0, 1]), **options)
    assert torch.equal(inside.inputs, outside.inputs)
    assert not inside.inputs.requires_grad
    assert starts.grad is None
