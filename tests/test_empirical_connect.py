"""Bypasses: where they go, when they stop, what they cost."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from empirical import connect, models


class _Ridge(nn.Module):
    """Class 0 is lost on a ball around a centre: loss ln(1 + e^h), h = 4 - |x - centre|^2 weighed by axis."""

    def __init__(self, centre=0.0):
        super().__init__()
        self.centre = centre
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, 48).reshape(3, 4, 4))

    def forward(self, x):
        hill = 4 - (self.weight * (x - self.centre).square()).sum(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(hill), hill], dim=1)


def _ends(n=2):
    generator = torch.Generator().manual_seed(0)
    starts = torch.randn(n, 3, 4, 4, generator=generator)
    # Almost opposite, so that the segment goes over the ball but not through its centre, where the gradient is nil.
    return starts, -starts + 0.1 * torch.randn(n, 3, 4, 4, generator=generator)


OPTIONS = {"delta": 1e-2, "threshold": 1e-4, "max_iterations": 300, "n_points": 64, "mse": 0.0}


def test_a_ball_is_bypassed_within_the_hyperplane():
    starts, ends = _ends()
    found = connect.connect(_Ridge(), starts, ends, torch.tensor([0, 0]), max_rounds=4, **OPTIONS)
    for one, a, c in zip(found, starts, ends, strict=True):
        assert one.curves[0].barrier > 1
        assert one.is_connected
        assert one.curves[-1].barrier <= OPTIONS["delta"]
        b = a + one.curves[0].barrier_alpha * (c - a)
        move, straight = (one.paths[1][1] - b).flatten().double(), (c - a).flatten().double()
        assert move.norm() > 0.1
        assert abs(functional.cosine_similarity(move, straight, dim=0).item()) < 1e-5


def test_every_round_keeps_the_stops_of_the_last_and_splits_only_what_is_too_high():
    starts, ends = _ends(3)
    found = connect.connect(_Ridge(), starts, ends, torch.zeros(3, dtype=torch.long), max_rounds=4, **OPTIONS)
    for one in found:
        assert len(one.paths) == len(one.curves)
        assert one.n_bypasses == len(one.paths[-1]) - 2
        assert 0 < one.n_gradients <= one.n_bypasses * OPTIONS["max_iterations"]
        for before, curve, after in zip(one.paths[:-1], one.curves[:-1], one.paths[1:], strict=True):
            n_high = int((curve.peak_loss > OPTIONS["delta"]).sum())
            assert len(after) == len(before) + n_high
            assert 1 <= n_high <= len(before) - 1
            kept = [i for i, stop in enumerate(after) if any(torch.equal(stop, old) for old in before)]
            assert torch.equal(after[kept], before)
            assert torch.equal(after[[0, -1]], before[[0, -1]])


def test_a_pair_does_not_depend_on_the_pairs_beside_it():
    starts, ends = _ends(3)
    targets = torch.zeros(3, dtype=torch.long)
    together = connect.connect(_Ridge(), starts, ends, targets, max_rounds=3, **OPTIONS)
    for i in range(3):
        one = slice(i, i + 1)
        (alone,) = connect.connect(_Ridge(), starts[one], ends[one], targets[one], max_rounds=3, **OPTIONS)
        assert alone.n_gradients == together[i].n_gradients
        np.testing.assert_allclose(alone.curves[-1].loss, together[i].curves[-1].loss, atol=1e-5)


def test_without_rounds_or_without_a_barrier_nothing_is_bypassed():
    starts, ends = _ends()
    (first, _) = connect.connect(_Ridge(), starts, ends, torch.tensor([0, 0]), max_rounds=0, **OPTIONS)
    assert (first.n_bypasses, first.n_gradients, first.is_connected, len(first.paths)) == (0, 0, False, 1)
    (first, _) = connect.connect(_Ridge(), starts, starts + 0.01, torch.tensor([0, 0]), max_rounds=4, **OPTIONS)
    assert (first.n_bypasses, first.is_connected, len(first.paths)) == (0, True, 1)


def test_an_end_that_is_too_high_itself_is_not_bypassed_and_the_pair_says_so():
    starts, _ = _ends(1)
    (one,) = connect.connect(_Ridge(), 0.1 * starts, starts, torch.tensor([0]), max_rounds=4, **OPTIONS)
    assert not one.is_connected
    assert one.n_bypasses == 0


def test_the_tree_says_where_every_segment_comes_from():
    starts, ends = _ends(3)
    found = connect.connect(_Ridge(), starts, ends, torch.zeros(3, dtype=torch.long), max_rounds=4, **OPTIONS)
    for one in found:
        assert one.parents[0] == (-1,)
        assert [len(parents) for parents in one.parents] == [len(path) - 1 for path in one.paths]
        for before, after, parents in zip(one.paths[:-1], one.paths[1:], one.parents[1:], strict=True):
            for parent in range(len(before) - 1):
                children = [i for i, owner in enumerate(parents) if owner == parent]
                # The children of a segment are neighbours, and lead from its start to its end.
                assert children == list(range(children[0], children[-1] + 1))
                assert len(children) in (1, 2)
                assert torch.equal(after[children[0]], before[parent])
                assert torch.equal(after[children[-1] + 1], before[parent + 1])
        assert one.n_evaluations == sum(curve.n_evaluations for curve in one.curves)
        assert one.n_evaluations >= len(one.paths) * OPTIONS["n_points"]


@pytest.mark.parametrize("projection, cosine", [("step", 1e-5), ("gradient", None), (None, None)])
def test_only_the_projected_step_holds_the_hyperplane(projection, cosine):
    starts, ends = _ends(1)
    (one,) = connect.connect(_Ridge(), starts, ends, torch.tensor([0]), max_rounds=1, projection=projection, **OPTIONS)
    b = starts[0] + one.curves[0].barrier_alpha * (ends[0] - starts[0])
    move, straight = (one.paths[1][1] - b).flatten().double(), (ends[0] - starts[0]).flatten().double()
    found = abs(functional.cosine_similarity(move, straight, dim=0).item())
    assert found < cosine if cosine else found > 1e-3
    assert one.n_converged == 1


def test_bypass_points_that_did_not_arrive_are_counted():
    starts, ends = _ends(1)
    options = OPTIONS | {"max_iterations": 2}
    (one,) = connect.connect(_Ridge(), starts, ends, torch.tensor([0]), max_rounds=1, **options)
    assert (one.n_bypasses, one.n_converged, one.n_gradients, one.is_connected) == (1, 0, 2, False)


def test_the_penalty_on_distance_keeps_the_bypass_nearer():
    starts, ends = (5 + inputs for inputs in _ends(1))  # far from the black image
    moves = []
    for mse in (0.0, 10.0):
        options = OPTIONS | {"mse": mse}
        (one,) = connect.connect(_Ridge(5.0), starts, ends, torch.tensor([0]), max_rounds=1, **options)
        b = starts[0] + one.curves[0].barrier_alpha * (ends[0] - starts[0])
        moves.append((one.paths[1][1] - b).norm().item())
    assert moves[1] < moves[0]


def test_the_threshold_must_be_below_delta():
    starts, ends = _ends(1)
    with pytest.raises(ValueError, match=r"threshold must be below delta = 0\.001, got 0\.001"):
        connect.connect(
            _Ridge(), starts, ends, torch.tensor([0]), delta=1e-3, threshold=1e-3, max_rounds=1, max_iterations=1
        )


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"targets": torch.tensor([-100])}, ValueError, "targets must be classes from 0 on, got -100"),
        ({"targets": torch.tensor([2])}, ValueError, "targets must be classes from 0 to 1, got 2"),
        ({"targets": 0}, TypeError, r"targets must be a tensor of int64, shape \(1,\), got 0 \(int\)"),
        ({"delta": float("nan")}, ValueError, "delta must be at least 0 and finite, got nan"),
        ({"delta": float("inf")}, ValueError, "delta must be at least 0 and finite, got inf"),
        ({"threshold": -1.0}, ValueError, "threshold must be at least 0 and finite, got -1.0"),
        ({"learning_rate": float("nan")}, ValueError, "learning_rate must be at least 0 and finite, got nan"),
        ({"mse": -1.0}, ValueError, "mse must be at least 0 and finite, got -1.0"),
        ({"high_frequency": float("nan")}, ValueError, "high_frequency must be at least 0 and finite, got nan"),
        ({"max_rounds": -1}, ValueError, "max_rounds must be a whole number from 0 to 30, got -1"),
        ({"max_rounds": 10**9}, ValueError, "max_rounds must be a whole number from 0 to 30, got 1000000000"),
        ({"max_iterations": -1}, ValueError, "max_iterations must be a whole number of at least 0, got -1"),
        ({"projection": "stpe"}, ValueError, "projection must be step or gradient, got stpe"),
        ({"precision": "float16"}, ValueError, "precision must be float32 or bfloat16, got float16"),
        (
            {"starts": torch.zeros(1, 48)},
            ValueError,
            r"starts must be images \(n, c, h, w\), one or more, got shape \(1, 48",
        ),
        (
            {"starts": torch.zeros(1, 3, 4, 4).long()},
            TypeError,
            "starts must be floating-point numbers, got torch.int64: e",
        ),
        (
            {"ends": torch.zeros(1, 3, 4, 5)},
            ValueError,
            r"ends must be \(1, 3, 4, 4\) of torch.float32 on cpu as the other",
        ),
        ({"n_points": 64.0}, TypeError, r"n_points must be a whole number of at least 2, got 64.0 \(float\)"),
    ],
)
def test_what_would_end_in_garbage_or_within_torch_is_refused(change, error, message):
    """Whether or not there is a barrier, for which alone some of it is used."""
    starts = _ends(1)[0]
    given = {"starts": starts, "ends": starts + 0.01, "targets": torch.tensor([0]), "max_rounds": 1} | OPTIONS
    with pytest.raises(error, match=message):
        connect.connect(_Ridge(), **(given | change))


def test_the_network_and_the_ends_stay_as_they_were():
    network = models.build("convnet", generator=torch.Generator().manual_seed(0)).train()
    starts, ends = torch.randn(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    kept, state = (starts.clone(), ends.clone()), torch.get_rng_state().clone()
    options = {"delta": 0.5, "threshold": 0.1, "max_iterations": 3, "n_points": 8}
    connect.connect(network, starts, ends, torch.tensor([0]), max_rounds=1, **options)
    assert network.training
    assert torch.equal(starts, kept[0])
    assert torch.equal(ends, kept[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_too_few_points_are_refused_before_the_work():
    starts, ends = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    with pytest.raises(ValueError, match="n_points must be at least 2 for each of 16 segments, got 20"):
        connect.connect(_Ridge(), starts, ends, torch.tensor([0]), max_rounds=4, **OPTIONS | {"n_points": 20})
