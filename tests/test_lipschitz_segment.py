"""Networks along a segment: breakpoints, error bounds, the largest loss and its certificate."""

import contextlib
import copy
import itertools
import math
from fractions import Fraction

import mpmath
import numpy as np
import oracles
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from lipschitz import segment, stages, tracing
from lipschitz.fully_connected import Erf, GaussianCdf, Sin

CPU = torch.device("cpu")
PIECEWISE = (nn.ReLU, nn.LeakyReLU, *strategies.PIECEWISE_LINEAR)
SMOOTH = (nn.Tanh, nn.Sigmoid, Erf, Sin, GaussianCdf, *strategies.CURVED)
SEEDS = st.integers(0, 2**32 - 1)


def hat(height=1.0):
    """Logits 0 and height - |x|: against class 0 the loss is largest at x = 0."""
    model = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model[0].bias.zero_()
        model[2].weight.copy_(torch.tensor([[0.0, 0.0], [-1.0, -1.0]]))
        model[2].bias.copy_(torch.tensor([0.0, height]))
    return model.eval()


def dense_network(generator, *widths, dtype=torch.float64):
    layers = []
    for n_inputs, n_outputs in itertools.pairwise(widths):
        layers += [nn.Linear(n_inputs, n_outputs, dtype=dtype), nn.ReLU()]
        for parameter in layers[-2].parameters():
            nn.init.normal_(parameter, std=1.5 / math.sqrt(n_inputs), generator=generator)
    return nn.Sequential(*layers[:-1]).eval()


def classifier(network, input_shape, generator):
    """The network with a Linear to three logits behind it."""
    n_features = network(torch.zeros(1, *input_shape, dtype=torch.float64)).numel()
    head = nn.Linear(n_features, 3, dtype=torch.float64)
    nn.init.normal_(head.weight, generator=generator)
    return nn.Sequential(network, nn.Flatten(), head).eval()


def traced(model, a, b, **settings):
    return list(tracing.trace(stages.prepare(model, a.shape, device=CPU), a, b, **settings))


def losses(model, a, b, t, target):
    """Cross-entropies at points t, by plain evaluation."""
    return functional.cross_entropy(plain_outputs(model, a, b, t), torch.full((len(t),), target), reduction="none")


def gaps(stretch, t, outputs):
    """Distances, in the 2-norm, of outputs at points t within the stretch from the lines of the stretch."""
    place = torch.searchsorted(stretch.t, t, right=True).clamp(1, len(stretch.t) - 1)
    left, right = stretch.t[place - 1], stretch.t[place]
    share = ((t - left) / (right - left)).reshape(-1, *(1,) * (outputs.ndim - 1))
    lines = torch.lerp(stretch.outputs[place - 1], stretch.outputs[place], share)
    return (lines - outputs).flatten(1).norm(dim=1)


@contextlib.contextmanager
def in_parts_of_two_points():
    """A budget ends between parts: with the smallest of them, small networks have something to leave out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "trace", lambda *args, **kwargs: tracing.trace(*args, **kwargs, max_numbers=1))
        yield


def plain_outputs(model, a, b, t):
    with torch.no_grad():
        return copy.deepcopy(model).double()(a + t.reshape(-1, *(1,) * a.ndim) * (b - a))


def test_oracle_walks_a_network_worked_out_by_hand():
    model = hat()
    weights = [layer.weight.detach().numpy() for layer in (model[0], model[2])]
    biases = [layer.bias.detach().numpy() for layer in (model[0], model[2])]
    found = oracles.walk_segment(weights, biases, [-1.0], [2.0])
    assert found == [(0, [0, 0]), (Fraction(1, 3), [0, 1]), (1, [0, -1])]


def test_maximum_of_a_network_worked_out_by_hand():
    found = segment.maximise_segment(hat(), [-1.0], [2.0], 0)
    assert found.t == pytest.approx(1 / 3, abs=1e-15)
    assert found.point.tolist() == pytest.approx([0.0], abs=1e-15)
    assert found.lower_loss <= math.log1p(math.e) <= found.upper_loss
    assert found.upper_loss - found.lower_loss < 1e-13
    assert (found.n_pieces, found.covered, found.upper_loss_everywhere) == (2, 1.0, found.upper_loss)


@given(SEEDS, st.integers(1, 3), st.integers(1, 5), st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_breakpoints_and_error_bound_hold_in_rational_arithmetic(seed, n_inputs, width, n_hidden):
    generator = torch.Generator().manual_seed(seed)
    model = dense_network(generator, n_inputs, *[width] * n_hidden, 2)
    a, b = torch.randn(2, n_inputs, generator=generator, dtype=torch.float64)
    (stretch,) = traced(model, a, b)
    linear = [layer for layer in model if isinstance(layer, nn.Linear)]
    exact = oracles.walk_segment(
        [layer.weight.detach().numpy() for layer in linear],
        [layer.bias.detach().numpy() for layer in linear],
        a.tolist(),
        b.tolist(),
    )
    grid = [Fraction(t) for t in stretch.t.tolist()]
    assert len(grid) == len(exact)
    # Both are piecewise affine: their distance is largest at a breakpoint of one of them.
    computed = dict(zip(grid, stretch.outputs.tolist(), strict=True))
    true = dict(exact)
    for t in {*grid, *true}:
        gap = [y - x for x, y in zip(line_at(computed, t), line_at(true, t), strict=True)]
        assert sum(d * d for d in gap) <= Fraction(stretch.upper_error) ** 2
    assert stretch.upper_error < 1e-11


def line_at(values, t):
    """A piecewise affine function given at its breakpoints, in rational arithmetic."""
    right = min(s for s in values if s >= t)
    left = max((s for s in values if s < right), default=right)
    share = (t - left) / (right - left) if right > left else Fraction(0)
    ends = zip(values[left], values[right], strict=True)
    return [Fraction(x) + share * (Fraction(y) - Fraction(x)) for x, y in ends]


@given(strategies.graph_networks(pointwise=PIECEWISE), SEEDS)
@settings(max_examples=60, deadline=None)
def test_outputs_between_breakpoints_are_those_of_any_piecewise_affine_network(network, seed):
    generator = torch.Generator().manual_seed(seed)
    model, shape = network
    a, b = torch.randn(2, *shape, generator=generator, dtype=torch.float64) * 3
    (stretch,) = traced(model, a, b)
    scale = max(1.0, float(stretch.outputs.abs().max()))
    assert stretch.upper_error < 1e-7 * scale  # 4e-10 was the largest of a thousand
    t = torch.rand(200, generator=generator, dtype=torch.float64)
    assert float(gaps(stretch, t, plain_outputs(model, a, b, t)).max()) <= 2 * stretch.upper_error + 1e-14 * scale


@given(strategies.graph_networks(pointwise=PIECEWISE), SEEDS)
@settings(max_examples=25, deadline=None)
def test_maximum_is_the_largest_loss_and_is_attained(network, seed):
    generator = torch.Generator().manual_seed(seed)
    model = classifier(*network, generator)
    a, b = torch.randn(2, *network[1], generator=generator, dtype=torch.float64) * 3
    found = segment.maximise_segment(model, a, b, 1)
    t = torch.linspace(0, 1, 301, dtype=torch.float64)
    # a plain cross-entropy is a difference of numbers as large as the logits
    rounding = 1e-14 * (1 + float(plain_outputs(model, a, b, t).abs().max()))
    assert float(losses(model, a, b, t, 1).max()) <= found.upper_loss + rounding
    attained = float(losses(model, a, b, torch.tensor([found.t], dtype=torch.float64), 1))
    assert found.lower_loss - rounding <= attained <= found.upper_loss + rounding
    assert found.upper_loss - found.lower_loss <= 1e-7 * (1 + found.loss)


@given(strategies.graph_networks(pointwise=PIECEWISE), SEEDS)
@settings(max_examples=25, deadline=None)
def test_a_segment_in_parts_is_the_segment_in_one(network, seed):
    generator = torch.Generator().manual_seed(seed)
    model, shape = network
    a, b = torch.randn(2, *shape, generator=generator, dtype=torch.float64) * 3
    (whole,) = traced(model, a, b)
    parts = traced(model, a, b, max_numbers=1)  # two points a part
    assert all(len(part.t) <= 2 for part in parts)
    assert all(left.t[-1] == right.t[0] for left, right in itertools.pairwise(parts))
    assert (parts[0].t[0], parts[-1].t[-1]) == (0.0, 1.0)
    for part in parts:
        assert float(gaps(whole, part.t, part.outputs).max()) <= whole.upper_error + part.upper_error
    # A breakpoint may come out twice, a few units of rounding apart.
    distinct = [sorted(set(torch.round(ts, decimals=9).tolist())) for ts in (whole.t, torch.cat([p.t for p in parts]))]
    assert distinct[0] == pytest.approx(distinct[1], abs=2e-9)


@given(strategies.graph_networks(pointwise=SMOOTH), SEEDS)
@settings(max_examples=30, deadline=None)
def test_chords_of_smooth_functions_stay_within_the_error_bound(network, seed):
    generator = torch.Generator().manual_seed(seed)
    model, shape = network
    a, b = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    stretches = traced(model, a, b, tolerance=0.5)
    for stretch in stretches:
        assert stretch.upper_error <= 0.5001
        t = torch.lerp(stretch.t[0], stretch.t[-1], torch.rand(200, generator=generator, dtype=torch.float64))
        assert float(gaps(stretch, t, plain_outputs(model, a, b, t)).max()) <= stretch.upper_error + 1e-12


@given(strategies.graph_networks(pointwise=strategies.GROUPED), SEEDS)
@settings(max_examples=15, deadline=None)
def test_chords_of_softmax_and_layer_norm_stay_within_the_error_bound(network, seed):
    generator = torch.Generator().manual_seed(seed)
    model, shape = network
    a, b = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    # where their norms are large, a short piece of the segment will do
    gain = stages.upper_gains(stages.prepare(model, shape, device=CPU))[0]
    b = a + min(1.0, 10.0 / max(gain, 1e-9)) * (b - a)
    for stretch in traced(model, a, b, tolerance=0.05):
        assert stretch.upper_error <= 0.0501
        t = torch.lerp(stretch.t[0], stretch.t[-1], torch.rand(200, generator=generator, dtype=torch.float64))
        assert float(gaps(stretch, t, plain_outputs(model, a, b, t)).max()) <= stretch.upper_error + 1e-12


def test_a_log_softmax_at_the_end_changes_no_certificate():
    plain = hat()
    with_end = nn.Sequential(*hat(), nn.LogSoftmax(1)).eval()
    found, other = (segment.maximise_segment(model, [-1.0], [2.0], 0) for model in (plain, with_end))
    assert (found.loss, found.n_pieces, found.upper_loss) == (other.loss, other.n_pieces, other.upper_loss)


@given(SEEDS, st.sampled_from([nn.ReLU(), nn.LeakyReLU(0.2), nn.MaxPool2d((1, 3), 1, (0, 1))]))
@settings(max_examples=40, deadline=None)
def test_what_a_bend_leaves_between_two_points_is_bounded(seed, layer):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 1, 1, 5, generator=generator, dtype=torch.float64)
    (stage,) = stages.prepare(layer.eval(), values.shape[1:], device=CPU)[1:]
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    _, residue = tracing._bends(stage, t, values, 1.0)
    share = torch.linspace(0, 1, 201, dtype=torch.float64).reshape(-1, 1, 1, 1)
    outputs = layer(values)
    gap = torch.lerp(outputs[:1], outputs[1:], share) - layer(torch.lerp(values[:1], values[1:], share))
    assert float(gap.flatten(1).norm(dim=1).max()) <= residue + 1e-15


def test_what_a_bend_leaves_is_no_more_than_the_distance_at_the_bend():
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for layer, factor in [(nn.ReLU(), 1.0), (nn.LeakyReLU(0.2), 0.8)]:
        (stage,) = stages.prepare(layer.eval(), (1,), device=CPU)[1:]
        times, residue = tracing._bends(stage, t, torch.tensor([[1.0], [-3.0]], dtype=torch.float64), 1.0)
        assert times.tolist() == [0.25]
        assert residue == pytest.approx(0.75 * factor, rel=1e-7)


def test_a_relu_before_a_max_pooling_bends_only_where_the_pooled_value_does():
    # Four entries 4t-1, 4t-2, ..: all are positive at t = 1, the first of them leads everywhere: one bend, at 1/4.
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)).eval()
    a = torch.tensor([[[-1.0, -2.0], [-3.0, -3.5]]], dtype=torch.float64)
    (stretch,) = traced(model, a, a + 4.0)
    assert stretch.t.tolist() == [0.0, 0.25, 1.0]
    assert stretch.outputs.flatten().tolist() == [0.0, 0.0, 3.0]


def test_leaders_in_between_are_found():
    # max(-4t, -1, 4t - 4): the middle one leads on [1/4, 3/4] only, and at neither end.
    model = nn.MaxPool2d((1, 3)).eval()
    a, b = torch.tensor([[[[0.0, -1.0, -4.0]]], [[[-4.0, -1.0, 0.0]]]], dtype=torch.float64)
    (stretch,) = traced(model, a, b)
    kept = {round(t, 12): y for t, y in zip(stretch.t.tolist(), stretch.outputs.flatten().tolist(), strict=True)}
    assert kept == pytest.approx({0.0: 0.0, 0.25: -1.0, 0.5: -1.0, 0.75: -1.0, 1.0: 0.0})
    assert stretch.upper_error < 1e-13


@pytest.mark.parametrize("seed", range(5))
def test_the_maximum_of_all_parts_is_kept(seed):
    generator = torch.Generator().manual_seed(seed)
    model = dense_network(generator, 3, 20, 20, 3)
    a, b = torch.randn(2, 3, generator=generator, dtype=torch.float64) * 3
    whole = segment.maximise_segment(model, a, b, 0)
    with in_parts_of_two_points():
        parts = segment.maximise_segment(model, a, b, 0)
    assert parts.t == pytest.approx(whole.t, abs=1e-12)
    for name in ("loss", "lower_loss", "upper_loss"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-9)
    assert parts.n_pieces == whole.n_pieces


@pytest.mark.parametrize(
    "threshold, status", [(math.log1p(math.e) + 1e-12, "certified"), (math.log1p(math.e) - 1e-12, "violated")]
)
def test_certificate_of_a_network_worked_out_by_hand(threshold, status):
    found = segment.certify_segment(hat(), [-1.0], [2.0], 0, threshold)
    assert (found.status, found.reason, found.loss_threshold) == (status, "", threshold)
    assert found.maximum.point.tolist() == pytest.approx([0.0], abs=1e-15)


def test_a_violation_is_one_by_plain_evaluation():
    generator = torch.Generator().manual_seed(3)
    model = dense_network(generator, 20, 30, 30, 5)
    a, b = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    largest = segment.maximise_segment(model, a, b, 0)
    for threshold in (0.999999 * largest.loss, 0.5 * largest.loss):
        found = segment.certify_segment(model, a, b, 0, threshold)
        assert found.status == "violated"
        loss = functional.cross_entropy(model(found.maximum.point[None]), torch.tensor([0]))
        assert float(loss.detach()) > threshold
        assert found.maximum.upper_loss_everywhere >= largest.loss


def test_the_bound_beside_a_violation_starts_from_the_end_of_what_was_covered():
    # A ramp: loss 100 at t = 0 and about 0 at t = 1. Nothing was traced; the bound holds from t = 0 on.
    model = nn.Linear(1, 2).eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))
        model.bias.zero_()
    for ends in ([100.0], [-100.0]), ([-100.0], [100.0]):
        found = segment.certify_segment(model, *ends, 0, 1.0).maximum
        assert (found.covered, found.n_pieces) == (0.0, 0)
        assert 100.0 <= found.upper_loss_everywhere < 150.0


def test_a_threshold_within_rounding_of_the_maximum_is_left_open():
    generator = torch.Generator().manual_seed(3)
    model = dense_network(generator, 20, 30, 30, 5)
    a, b = torch.randn(2, 20, generator=generator, dtype=torch.float64)
    found = segment.certify_segment(model, a, b, 0, segment.maximise_segment(model, a, b, 0).loss)
    assert found.status == "undecided"
    assert "error bound of the logits" in found.reason


@given(SEEDS, st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_a_spent_budget_leaves_it_open_with_a_bound_that_holds(seed, piece_budget):
    generator = torch.Generator().manual_seed(seed)
    model = dense_network(generator, 4, 30, 30, 3)
    a, b = torch.randn(2, 4, generator=generator, dtype=torch.float64) * 3
    with in_parts_of_two_points():
        found = segment.certify_segment(model, a, b, 0, 1e6, piece_budget=piece_budget)
    sampled = losses(model, a, b, torch.linspace(0, 1, 301, dtype=torch.float64), 0)
    assert float(sampled.max()) <= found.maximum.upper_loss_everywhere
    assert found.maximum.n_pieces <= piece_budget
    if found.status == "undecided":
        assert found.maximum.covered < 1.0
        assert found.reason == f"the piece budget was spent at t = {found.maximum.covered:.6g}"
        n_covered = int(found.maximum.covered * 300)
        assert float(sampled[: n_covered + 1].max()) <= found.maximum.upper_loss + 1e-12
    else:
        assert (found.status, found.maximum.covered) == ("certified", 1.0)


def test_smooth_networks_are_certified_by_finer_chords():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    a, b = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    largest = float(losses(model, a, b, torch.linspace(0, 1, 10001, dtype=torch.float64), 0).max())
    n_pieces = []
    for factor in (1.5, 1.01, 1.00001):
        found = segment.certify_segment(model, a, b, 0, factor * largest)
        assert found.status == "certified"
        n_pieces.append(found.maximum.n_pieces)
    assert n_pieces == sorted(n_pieces)
    assert segment.certify_segment(model, a, b, 0, 0.99999 * largest).status == "violated"
    with in_parts_of_two_points():
        found = segment.certify_segment(model, a, b, 0, 1.00001 * largest, piece_budget=10)
    assert (found.status, found.maximum.n_pieces) == ("undecided", 9)


def test_float32_execution_stays_below_a_certified_threshold():
    generator = torch.Generator().manual_seed(1)
    model = dense_network(generator, 10, 40, 40, 4, dtype=torch.float32)
    a, b = torch.randn(2, 10, generator=generator)
    threshold = 1.0001 * segment.maximise_segment(model, a, b, 2).loss
    assert segment.certify_segment(model, a, b, 2, threshold).status == "certified"
    points = torch.lerp(a, b, torch.linspace(0, 1, 20001)[:, None])
    found = functional.cross_entropy(model(points).detach(), torch.full((20001,), 2), reduction="none")
    assert float(found.max()) <= threshold + 1e-5  # some units of float32's rounding of logits of up to 10


@pytest.mark.parametrize("logits", [[0.0, -7.0], [5.0, -3.0, 2.0], [-40.0, 1.0], [700.0, -40.0]])
def test_log_odds_and_loss_are_the_cross_entropy(logits):
    # One linear layer that puts out its bias: what is left is the loss alone.
    model = nn.Linear(1, len(logits)).eval()
    with torch.no_grad():
        model.weight.zero_()
        model.bias.copy_(torch.tensor(logits))
    found = segment.maximise_segment(model, [0.0], [1.0], 0)
    exact = oracles.cross_entropy_by_logits(np.array(logits), 0)
    assert found.loss == pytest.approx(exact, rel=1e-12, abs=1e-300)
    assert found.lower_loss <= exact <= found.upper_loss
    assert segment.certify_segment(model, [0.0], [1.0], 0, exact * (1 + 1e-9) + 1e-290).status == "certified"


@given(SEEDS)
@settings(max_examples=50)
def test_an_error_of_the_logits_changes_the_loss_by_a_factor(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, change = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    before, after = (
        math.expm1(float(functional.cross_entropy(z, torch.tensor(2)))) for z in (3 * logits, 3 * logits + change)
    )
    assert abs(math.log(after / before)) <= math.sqrt(2) * float(change.norm()) * (1 + 1e-12)


def test_equal_ends_are_one_point():
    found = segment.maximise_segment(hat(), [0.5], [0.5], 0)
    assert (found.n_pieces, found.covered, found.point.tolist()) == (0, 1.0, [0.5])
    assert found.lower_loss <= math.log1p(math.exp(0.5)) <= found.upper_loss
    assert segment.certify_segment(hat(), [0.5], [0.5], 0, 1.0).status == "certified"


def test_stages_serve_many_segments_and_say_what_they_take():
    model = dense_network(torch.Generator().manual_seed(3), 2, 8, 3)
    prepared = stages.prepare(model, (2,), device=CPU)
    for ends in (([0.0, 1.0], [1.0, -1.0]), ([2.0, 2.0], [-1.0, 0.5])):
        once, again = (segment.maximise_segment(known, *ends, 1) for known in (model, prepared))
        assert (once.loss, once.t, once.upper_loss) == (again.loss, again.t, again.upper_loss)
    with pytest.raises(ValueError, match=r"a and b must have the network's shape \(2,\), got \(3,\)"):
        segment.maximise_segment(prepared, [0.0] * 3, [1.0] * 3, 1)


def test_another_convex_loss():
    # The largest distance of the logits from zero, 2-norm: on [-1, 2] the logits are (0, 1 - |x|).
    loss = segment.ConvexLoss(function=lambda z: torch.linalg.vector_norm(z, dim=1), upper_slope=1.0)
    found = segment.maximise_segment(hat(), [-1.0], [3.0], loss)
    assert (found.t, found.loss) == (1.0, 2.0)
    assert found.lower_loss <= 2.0 <= found.upper_loss
    assert segment.certify_segment(hat(), [-1.0], [3.0], loss, 2.1).status == "certified"
    assert segment.certify_segment(hat(), [-1.0], [3.0], loss, 1.9).status == "violated"


def test_progress_runs_to_the_end():
    seen = []
    segment.maximise_segment(hat(), [-1.0], [2.0], 0, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_the_model_is_left_as_found():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).eval()
    before = copy.deepcopy(model.state_dict())
    a, b = torch.zeros(1, 4, 4), torch.ones(1, 4, 4)
    segment.certify_segment(model, a, b, 0, 1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())
    assert not model.training
    assert (a.dtype, float(a.sum()), float(b.sum())) == (torch.float32, 0.0, 16.0)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"a": [1]}, TypeError, "a must hold floating-point numbers, got torch.int64"),
        ({"b": [math.nan]}, ValueError, "b must hold finite numbers, got nan"),
        ({"b": [[1.0]]}, ValueError, r"a and b must have one shape, got \(1,\) and \(1, 1\)"),
        ({"target": 2}, ValueError, "target must be a class from 0 to 1, got 2"),
        ({"piece_budget": 0}, ValueError, "piece_budget must be at least 1, got 0"),
        ({"loss_threshold": 0.0}, ValueError, "loss_threshold must be finite, for the cross-entropy positive, got 0"),
        ({"loss_threshold": math.inf}, ValueError, "loss_threshold must be finite"),
        ({"model": nn.Linear(1, 1).eval()}, ValueError, r"vector of at least two logits an input, got shape \(1,\)"),
        ({"model": nn.Sequential(nn.Linear(1, 2), nn.Hardshrink()).eval()}, ValueError, "got hardshrink: it jumps"),
    ],
)
def test_refusals(change, error, message):
    arguments = {"model": hat(), "a": [0.0], "b": [1.0], "target": 0, "loss_threshold": 1.0} | change
    with pytest.raises(error, match=message):
        segment.certify_segment(**arguments)


def test_more_refusals():
    with pytest.raises(ValueError, match="tolerance must be positive, got 0"):
        segment.maximise_segment(hat(), [0.0], [1.0], 0, tolerance=0.0)
    model = hat()
    with torch.no_grad():
        model[2].bias[0] = math.inf
    with pytest.raises(ValueError, match=r"weights must be finite, got '2.bias' with a number that is not"):
        segment.maximise_segment(model, [0.0], [1.0], 0)
    loss = segment.ConvexLoss(function=lambda z: z[:, 0] / 0.0, upper_slope=1.0)
    with pytest.raises(ValueError, match="the loss must be finite on the segment, got a number that is not"):
        segment.maximise_segment(hat(), [0.0], [1.0], loss)


def test_interpolation_is_within_its_error():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    times = torch.rand(40, generator=generator, dtype=torch.float64)
    (part,) = tracing._refined(tracing._Part(1, t, {0: tracing._Value(values, 0.0)}), times, 1000)
    grid, live = part.t, part.live
    assert sorted([*t.tolist(), *times.tolist()]) == grid.tolist()
    old = dict(zip(map(Fraction, t.tolist()), values.tolist(), strict=True))
    for point, row in zip(grid.tolist(), live[0].at.tolist(), strict=True):
        gap = [x - Fraction(y) for x, y in zip(line_at(old, Fraction(point)), row, strict=True)]
        assert sum(d * d for d in gap) <= Fraction(live[0].error) ** 2
    assert live[0].error < 1e-13


def test_a_rounded_point_is_within_the_error_of_a_look():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    search = segment._prepared(nn.Identity().eval(), a, b, 0, 1, "cpu")
    for t in torch.rand(20, generator=generator, dtype=torch.float64).tolist():
        exact = line_at({Fraction(0): a.tolist(), Fraction(1): b.tolist()}, Fraction(t))
        gap = [x - Fraction(y) for x, y in zip(exact, search.at(t).tolist(), strict=True)]
        assert sum(d * d for d in gap) <= Fraction(search.look_at(t).upper_error) ** 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_finds_what_a_cpu_finds():
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Tanh())
    model = classifier(network.double().eval(), (2, 6, 6), generator)
    a, b = torch.randn(2, 2, 6, 6, generator=generator, dtype=torch.float64)
    here, there = (segment.maximise_segment(model, a, b, 0, device=device) for device in ("cpu", "cuda"))
    assert there.point.device.type == "cuda"
    assert there.loss == pytest.approx(here.loss, rel=1e-9)
    assert there.upper_error == pytest.approx(here.upper_error, rel=1e-3)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_rounding_of_the_cross_entropy_is_within_its_bounds(seed):
    # The logits are the input itself: there is no other error.
    logits = 200 * torch.randn(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = segment.maximise_segment(nn.Identity().eval(), logits, logits, 0)
    with mpmath.workdps(400):
        z = [mpmath.mpf(number) for number in logits.tolist()]
        exact = mpmath.log1p(mpmath.fsum(mpmath.exp(other - z[0]) for other in z[1:]))
        assert found.lower_loss <= exact <= found.upper_loss
    assert found.upper_error == 0.0
    assert found.upper_loss - found.lower_loss <= 1e-9 * found.loss + 1e-299


@pytest.mark.parametrize("target", [True, 1.0, torch.tensor(1.0), 2, -1])
def test_a_target_is_a_class(target):
    a, b = torch.zeros(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="target must be a class from 0 to 1"):
        segment.maximise_segment(nn.Identity().eval(), a, b, target)


@pytest.mark.parametrize("slope, rounding", [(-1.0, 0.0), (1.0, -1.0), (math.nan, 0.0)])
def test_a_loss_has_no_negative_slope(slope, rounding):
    with pytest.raises(ValueError, match="must be at least 0"):
        segment.ConvexLoss(function=lambda logits: logits[:, 0], upper_slope=slope, upper_rounding=rounding)


def wide_loss(outputs, target):
    """The cross-entropy of exact logits, with sixty digits."""
    with mpmath.workdps(60):
        logits = [mpmath.mpf(z.numerator) / z.denominator for z in outputs]
        largest = max(logits)
        return largest + mpmath.log(sum(mpmath.exp(z - largest) for z in logits)) - logits[target]


def test_rounding_of_weights_whose_squares_underflow_is_counted():
    # 2^54 + 1 - 2^54 is computed as 0 and is 1. By weights of 2^-565, 2^283 and 2^285 that makes logits 0 and 8.
    first, second, third = (nn.Linear(n, m, bias=False, dtype=torch.float64) for n, m in ((3, 1), (1, 1), (1, 2)))
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third).eval()
    with torch.no_grad():
        first.weight.fill_(2.0**-565)
        second.weight.fill_(2.0**283)
        third.weight.copy_(torch.tensor([[0.0], [2.0**285]], dtype=torch.float64))
    a, b = [2.0**54, 1.0, -(2.0**54)], [2.0**54, 0.75, -(2.0**54)]
    assert segment.maximise_segment(model, a, b, 0).upper_loss >= wide_loss([Fraction(0), Fraction(8)], 0)
    for threshold in (0.69315, 5.0, 8.0):
        assert segment.certify_segment(model, a, b, 0, threshold).status != "certified"


@given(strategies.networks_of_any_scale(n_outputs=2), st.data())
@settings(max_examples=30, deadline=None)
def test_certificates_hold_in_rational_arithmetic_at_any_scale(network, data):
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    weights, biases = ([getattr(layer, name).detach().numpy() for layer in layers] for name in ("weight", "bias"))
    n_inputs = layers[0].in_features
    numbers = st.lists(strategies.numbers_of_any_scale(), min_size=n_inputs, max_size=n_inputs)
    a, b = data.draw(numbers), data.draw(numbers)
    breakpoints = oracles.walk_segment(weights, biases, a, b)
    truth = max(wide_loss(outputs, 0) for _, outputs in breakpoints)
    found = segment.maximise_segment(network, a, b, 0)
    known = (found.lower_loss, found.upper_loss, found.upper_loss_everywhere, found.upper_error)
    assert not any(math.isnan(number) for number in known)
    assert found.lower_loss <= truth <= found.upper_loss <= found.upper_loss_everywhere
    threshold = data.draw(st.sampled_from([1e-3, 0.69315, 5.0]) | st.just(float(truth) * (1 - 1e-9)).filter(bool))
    certificate = segment.certify_segment(network, a, b, 0, threshold)
    assert certificate.status != "certified" or truth <= threshold
    if certificate.status == "violated":
        point = [Fraction(number) for number in certificate.maximum.point.tolist()]
        assert wide_loss(oracles.relu_outputs(weights, biases, point), 0) > threshold


def test_what_passes_the_range_of_float64_is_undecided():
    # 1e308 + 1e308 - 1e308 - 1e308 is -inf or no number on the way, and a ReLU of -inf would be 0.
    model = nn.Sequential(nn.Linear(1, 4, dtype=torch.float64), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.0)
        model[0].weight.fill_(1.5e308)
        model[1].weight.copy_(torch.tensor([[-1.0, -1.0, 1.0, 1.0]]))
        model[1].bias.fill_(3.0)
        model[3].weight.copy_(torch.tensor([[0.0], [1.0]]))
    certificate = segment.certify_segment(model.eval(), [0.5], [1.0], 0, 2.0)  # the loss is log(1 + e^3) everywhere
    assert certificate.status == "undecided"
    assert certificate.maximum.upper_loss >= math.log(1.0 + math.exp(3.0))


def test_logits_too_far_apart_for_float64_are_undecided():
    model = nn.Linear(1, 2, dtype=torch.float64).eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.7e308], [1.7e308]], dtype=torch.float64))
        model.bias.zero_()
    found = segment.maximise_segment(model, [0.9], [1.0], 0)
    assert (found.loss, found.lower_loss, found.upper_loss, found.covered) == (math.inf, 0.0, math.inf, 1.0)
    assert segment.certify_segment(model, [0.9], [1.0], 0, 5.0).status == "undecided"


def test_a_smooth_function_before_a_huge_gain_is_left_undecided_in_time():
    model = nn.Sequential(nn.Tanh(), nn.Linear(1, 2, dtype=torch.float64)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [1e300]], dtype=torch.float64))
        model[1].bias.zero_()
    for b in (1.0, 1e200):
        certificate = segment.certify_segment(model, [-b], [0.0], 0, 0.7, piece_budget=1000)
        assert certificate.status == "undecided"


def test_ends_too_far_apart_for_float64_are_refused():
    with pytest.raises(
        ValueError, match=r"^a and b must differ by numbers below 1.8e308, the largest float64, got larg"
    ):
        segment.maximise_segment(hat().double(), [-1.5e308], [1.5e308], 0)


def test_a_threshold_of_float32_is_compared_exactly():
    # As float32, 0.1 is 0.1 + 1.5e-9: a loss in between is below it, and not rounded to it.
    for threshold in (np.float32(0.1), torch.tensor(0.1)):
        loss = segment.ConvexLoss(function=lambda logits: logits[:, 0], upper_slope=np.float32(1.0))
        model = nn.Linear(1, 2, dtype=torch.float64).eval()
        with torch.no_grad():
            model.weight.zero_()
            model.bias.fill_(float(threshold) + 1e-10)
        certificate = segment.certify_segment(model, [0.0], [1.0], loss, threshold)
        assert certificate.status == "violated"
        assert certificate.loss_threshold == float(threshold)


@pytest.mark.parametrize("size", [1.6e308, 1e-200, 1e-320])
def test_bends_are_found_where_sums_and_squares_leave_the_range_of_float64(size):
    stage = stages.prepare(nn.ReLU(), (1,), device=CPU)[1]
    values = torch.tensor([[size], [-size]], dtype=torch.float64)
    times, residue = tracing._bends(stage, torch.tensor([0.0, 1.0], dtype=torch.float64), values, 1.0)
    assert times.tolist() == [0.5]
    assert residue >= size / 2.0


@pytest.mark.parametrize(
    "dtype, message",
    [
        (torch.complex64, "weights must be real floating-point numbers, got 'weight' of torch.complex64"),
        (torch.int64, r"model must take inputs of shape \(2,\), 2 at once: .* same dtype"),
    ],
)
def test_weights_that_are_no_real_numbers_are_refused(dtype, message):
    model = nn.Linear(2, 2, bias=False).eval()
    model.weight = nn.Parameter(torch.ones(2, 2, dtype=dtype), requires_grad=False)
    with pytest.raises((TypeError, ValueError), match=message):
        segment.maximise_segment(model, np.zeros(2), np.ones(2), 0)


def test_a_batch_norm_that_overflows_with_its_layer_is_refused():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1e200)
    with pytest.raises(
        ValueError, match=r"^layer '1' must have scales, and weights times them, below 1.8e308, got lar"
    ):
        segment.maximise_segment(model, np.zeros(2), np.ones(2), 0)
