"""Loss curves of paths, where they are known exactly, and what holds for every path."""

import math

import numpy as np
import oracles
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from empirical import models, paths


def _stops(n, seed):
    return torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))


class _Hill(nn.Module):
    """Two logits (0, h) with h = height - |x - centre|^2: class 0 has loss ln(1 + e^h), highest at the centre."""

    def __init__(self, centre, height):
        super().__init__()
        self.centre = nn.Parameter(centre)
        self.height = height

    def forward(self, x):
        hill = self.height - (x - self.centre).flatten(1).square().sum(dim=1)
        return torch.stack([torch.zeros_like(hill), hill], dim=1)


def test_the_barrier_of_a_hill_is_found_where_it_is():
    a, c = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.5)
    centre = a + 0.3141 * (c - a)  # between the points of the grid
    (curve,) = paths.loss_curves(_Hill(centre, 2.0), [torch.stack([a, c])], torch.tensor([0]), n_points=21)
    top = math.log1p(math.exp(2.0))
    assert abs(curve.barrier - top) < 1e-4
    assert abs(curve.barrier_alpha - 0.3141) < 0.004  # the finer grid's step is 0.1 / 16
    assert curve.loss.max() < top - 1e-3  # the first grid alone is worse
    squares = torch.tensor([float((end - centre).square().sum()) for end in (a, c)]).double()
    ends = torch.log1p(torch.exp(2.0 - squares))
    assert abs(curve.gap - (top - ends.max().item())) < 1e-4


def test_the_peak_is_refined_until_it_is_settled():
    a, c = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 20.0)
    stops = [torch.stack([a, c])]
    hill = _Hill(a + 0.3141 * (c - a), 2.0)  # some hundredth as wide as the segment
    found = [
        paths.loss_curves(hill, stops, torch.tensor([0]), n_points=50, tolerance=tolerance)[0]
        for tolerance in (1e6, 1e-6)
    ]
    errors = [math.log1p(math.exp(2.0)) - curve.barrier for curve in found]
    assert errors[0] > 1e-3
    assert abs(errors[1]) < 1e-5
    assert found[0].n_evaluations == 50 + 15
    assert 50 + 2 * 15 <= found[1].n_evaluations <= 50 + 6 * 15
    assert abs(found[1].barrier_alpha - 0.3141) < 1e-4


def test_mean_and_deviation_of_a_path_drawn_by_hand():
    # A right angle: legs of 3 and 4, so that its corner is 12 / 5 from the hypotenuse of 5.
    corner, a, c = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    a[0, 0, 0], c[1, 1, 1] = 3.0, 4.0
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    nn.init.zeros_(flat[1].weight)
    nn.init.zeros_(flat[1].bias)
    bent, straight = paths.loss_curves(
        flat, [torch.stack([a, corner, c]), torch.stack([a, c])], torch.tensor([0, 0]), n_points=20
    )
    assert abs(bent.deviation - 12 / 25) < 1e-6
    assert abs(bent.length_ratio - 7 / 5) < 1e-6
    assert straight.deviation == 0
    assert abs(bent.mean - math.log(5)) < 1e-6
    hill = _Hill(torch.full((3, 4, 4), 0.5), 2.0)
    (curve,) = paths.loss_curves(hill, [torch.stack([a, c])], torch.tensor([0]), n_points=2000)
    t = np.linspace(0, 1, 100_001)
    squares = ((1 - t) * 3 - 0.5) ** 2 + (4 * t - 0.5) ** 2 + 46 * 0.25
    assert abs(curve.mean - np.log1p(np.exp(2.0 - squares)).mean()) < 1e-5


@settings(max_examples=30)
@given(strategies.linear_classifiers(), st.integers(0, 1000), st.integers(0, 4))
def test_a_convex_loss_has_no_barrier_between_its_ends(classifier, seed, label):
    stops = _stops(2, seed)
    (curve,) = paths.loss_curves(classifier, [stops], torch.tensor([label]), n_points=33)
    assert curve.barrier == max(curve.loss[0].item(), curve.loss[-1].item())
    assert curve.gap == 0
    assert curve.barrier_alpha in (0.0, 1.0)
    second = curve.loss[2:] - 2 * curve.loss[1:-1] + curve.loss[:-2]
    assert second.min() > -1e-5


@settings(max_examples=30)
@given(strategies.linear_classifiers(), st.integers(0, 1000), st.integers(2, 6), st.integers(12, 40))
def test_every_path_goes_through_its_stops_at_the_share_of_its_length(classifier, seed, n_stops, n_points):
    stops = _stops(n_stops, seed)
    (curve,) = paths.loss_curves(classifier, [stops], torch.tensor([1]), n_points=n_points)
    assert len(curve.alpha) == len(curve.loss) == n_points
    assert curve.alpha[0] == 0
    assert curve.alpha[-1] == 1
    assert (curve.alpha.diff() >= 0).all()
    assert curve.loss.dtype == torch.float32
    logits = classifier(stops).detach().numpy()
    for logit, where in zip(logits, curve.stop_alpha, strict=True):
        at = curve.loss[curve.alpha == where]
        assert len(at) >= 1
        assert abs(at[0].item() - oracles.cross_entropy_by_logits(logit, 1)) < 1e-4
    lengths = np.linalg.norm(np.diff(stops.flatten(1).double().numpy(), axis=0), axis=1)
    np.testing.assert_allclose(curve.stop_alpha.diff(), lengths / lengths.sum(), atol=1e-6)
    distance = np.linalg.norm((stops[-1].double() - stops[0].double()).numpy())
    assert abs(curve.length_ratio - lengths.sum() / distance) < 1e-9
    assert curve.length_ratio >= 1 - 1e-12
    assert curve.barrier == curve.peak_loss.max()
    assert curve.barrier >= curve.loss.max()
    assert curve.gap >= 0


def test_a_path_does_not_depend_on_the_paths_beside_it_nor_on_its_direction():
    network = models.build("convnet", generator=torch.Generator().manual_seed(0))
    stops = [torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(n)) for n in (2, 4, 3)]
    together = paths.loss_curves(network, stops, torch.tensor([0, 1, 2]), n_points=150)
    for i in range(3):
        (alone,) = paths.loss_curves(network, stops[i : i + 1], torch.tensor([i]), n_points=150)
        np.testing.assert_allclose(alone.loss, together[i].loss, atol=1e-5)
        (back,) = paths.loss_curves(network, [stops[i].flip(0)], torch.tensor([i]), n_points=150)
        np.testing.assert_allclose(back.loss.flip(0), alone.loss, atol=1e-5)
        np.testing.assert_allclose(1 - back.alpha.flip(0), alone.alpha, atol=1e-6)


def test_two_equal_inputs_make_a_flat_curve():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    stops = _stops(1, 0).expand(2, -1, -1, -1)
    (curve,) = paths.loss_curves(classifier, [stops], torch.tensor([0]), n_points=5)
    assert (curve.loss == curve.loss[0]).all()
    assert curve.length_ratio == 1
    np.testing.assert_allclose(curve.alpha, np.linspace(0, 1, 5))


def test_what_makes_no_path_is_refused():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    with pytest.raises(ValueError, match="paths must have at least 2 stops each, got 1"):
        paths.loss_curves(classifier, [_stops(1, 0)], torch.tensor([0]))
    with pytest.raises(ValueError, match="n_points must be at least 2 for each of 3 segments, got 5"):
        paths.loss_curves(classifier, [_stops(4, 0)], torch.tensor([0]), n_points=5)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"targets": torch.tensor([-100])}, ValueError, "targets must be classes from 0 on, got -100"),
        ({"targets": torch.tensor([5])}, ValueError, "targets must be classes from 0 to 4, got 5"),
        ({"targets": 0}, TypeError, r"targets must be a tensor of int64, shape \(1,\), got 0 \(int\)"),
        ({"targets": [0]}, TypeError, r"targets must be a tensor of int64, shape \(1,\), got \[0\] \(list\)"),
        ({"targets": torch.tensor([0.0])}, TypeError, r"targets must be a tensor of int64, .* got torch.float32"),
        ({"targets": torch.tensor(0)}, ValueError, r"targets must have a row for each of the 1 paths, got shape \(\)"),
        ({"targets": torch.tensor([0, 1])}, ValueError, "targets must have a row for each of the 1 paths, got 2"),
        ({"tolerance": float("nan")}, ValueError, "tolerance must be at least 0 and finite, got nan"),
        ({"tolerance": -1e-9}, ValueError, "tolerance must be at least 0 and finite, got -1e-09"),
        ({"n_points": 2.5}, TypeError, "n_points must be a whole number of at least 2, got 2.5"),
        ({"n_points": 10**13}, ValueError, "n_points must fit .*, got 10000000000000, which takes"),
        ({"paths": torch.zeros(2, 3, 4, 4)}, TypeError, "paths must be a sequence of tensors .*, got Tensor"),
        ({"paths": []}, ValueError, "paths must be at least one, got none"),
        (
            {"paths": [torch.zeros(2, 48)]},
            ValueError,
            r"paths must be images .*, got shape \(2, 48\); vectors \(n, d\) ar",
        ),
        (
            {"paths": [torch.zeros(2, 3, 4, 4, dtype=torch.int64)]},
            TypeError,
            "paths must be floating.*, got torch.int64: e",
        ),
        ({"paths": [[0.0]]}, TypeError, "paths must be torch's Tensor, got"),
        (
            {"paths": [torch.zeros(2, 3, 5, 5)]},
            ValueError,
            r"network must take images \(1, 3, 5, 5\) of torch.float32 on c",
        ),
        (
            {"network": nn.Identity()},
            TypeError,
            r"network must make logits \(n, n_classes\) of images, got \(1, 3, 4, 4\)",
        ),
        ({"network": 3}, TypeError, "network must be torch's Module, got 3"),
    ],
)
def test_what_would_end_in_garbage_or_within_torch_is_refused(change, error, message):
    given = {
        "network": nn.Sequential(nn.Flatten(), nn.Linear(48, 5)),
        "paths": [_stops(2, 0)],
        "targets": torch.tensor([0]),
        "n_points": 4,
    }
    with pytest.raises(error, match=message) as caught:
        paths.loss_curves(**(given | change))
    assert "\n" not in str(caught.value)


def test_paths_of_other_images_are_refused():
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    with pytest.raises(ValueError, match=r"paths must be \(1, 3, 4, 4\) of torch.float32 .*, got .* of torch.float64"):
        paths.loss_curves(classifier, [_stops(2, 0), _stops(2, 0).double()], torch.tensor([0, 0]))


def test_positions_off_a_segment_are_refused():
    starts, ends = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    for positions in (torch.tensor([0.5, 1.5]), torch.tensor([0.5, float("nan")]), torch.tensor([0.5])):
        with pytest.raises(ValueError, match=r"positions must lie in \[0, 1\], one for each of 2 segments, got shape"):
            paths.on_segments(starts, ends, positions)


def test_a_loss_that_is_no_number_is_no_barrier_to_pass():
    """Wherever it is met: at a stop, or between the points of the grid, near the peak."""

    class Hole(_Hill):
        def forward(self, x):
            logits = super().forward(x)
            near = (x - self.centre).flatten(1).norm(dim=1) < 0.02
            return torch.where(near[:, None], torch.nan, logits)

    a, c = torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.5)
    hole = Hole(a + 0.3141 * (c - a), 2.0)
    for stops in ([a, c], [c, c + 1, a, c], [c + 1, c + 0.3141 * (a - c), c]):
        (curve,) = paths.loss_curves(hole, [torch.stack(stops)], torch.tensor([0]), n_points=20 * (len(stops) - 1) + 1)
        assert math.isnan(curve.barrier) == bool(curve.peak_loss.isnan().any())
    (curve,) = paths.loss_curves(hole, [torch.stack([c, c + 1, a, c])], torch.tensor([0]), n_points=61)
    assert math.isnan(curve.barrier)
