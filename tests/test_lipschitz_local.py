"""Intervals on a region, and the bounds that follow from them."""

import itertools
import math
from fractions import Fraction

import numpy as np
import oracles
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_lipschitz_rescaling import relu_network
from test_lipschitz_upper import NORMS, linear
from torch import nn

from lipschitz import graph, intervals, reading
from lipschitz.fully_connected import POINTWISE, Erf, GaussianCdf, Sin
from lipschitz.intervals import Region, box, propagate
from lipschitz.local import upper_local
from lipschitz.upper import upper_product

SMOOTH = (nn.Tanh, nn.Sigmoid, Erf, Sin, GaussianCdf)
EVERY = (
    nn.ReLU,
    nn.LeakyReLU,
    lambda: nn.LeakyReLU(-0.5),
    *SMOOTH,
    *strategies.PIECEWISE_LINEAR,
    *strategies.CURVED,
    *strategies.GROUPED,
)
RADII = st.sampled_from([0.0, 1e-6, 0.01, 0.1, 1.0, 10.0])


def draw(region, seed, n=64):
    """Inputs of a region, many of them at its border."""
    generator = torch.Generator().manual_seed(seed)
    moves = 2 * torch.rand(n, *region.centre.shape, generator=generator, dtype=torch.float64) - 1
    if region.norm == 2:
        lengths = moves.flatten(1).norm(dim=1).clamp(min=1e-9)
        moves = moves / lengths.reshape(-1, *[1] * region.centre.ndim)
    else:
        moves[::2] = moves[::2].sign()
    return region.centre + (1 - 1e-12) * torch.as_tensor(region.radius, dtype=torch.float64) * moves


@st.composite
def networks_and_regions(draw):
    network, shape = draw(strategies.graph_networks(pointwise=EVERY))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    centre = torch.randn(*shape, generator=generator, dtype=torch.float64)
    radius, norm = draw(RADII), draw(st.sampled_from([2, math.inf]))
    if norm == math.inf and draw(st.booleans()):
        radius = radius * (torch.rand(*shape, generator=generator, dtype=torch.float64) - 0.5).clamp(min=0)
    return network, Region(centre=centre, radius=radius, norm=norm)


@given(networks_and_regions(), st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_every_step_stays_in_its_interval(network_and_region, seed):
    network, region = network_and_region
    steps = reading.read(network, tuple(region.centre.shape))
    ends = propagate(steps, region)
    values = []
    with torch.no_grad():
        for step in steps:
            read = [values[source] for source in step.inputs]
            values.append(draw(region, seed) if step.kind == "input" else graph.apply(step, read))
    for (low, high), value in zip(ends, values, strict=True):
        slack = 1e-12 * (1 + value.abs())
        assert bool((low - slack <= value).all())
        assert bool((value <= high + slack).all())


@given(networks_and_regions(), st.sampled_from(NORMS), st.integers(0, 2**32 - 1))
@settings(max_examples=250)
def test_no_slope_in_the_region_exceeds_the_bound_nor_it_the_global_one(network_and_region, norm, seed):
    network, region = network_and_region
    bound = upper_local(network, region, norm=norm)
    x, y = draw(region, seed), draw(region, seed + 1)
    with torch.no_grad():
        rise = torch.linalg.vector_norm((network(x) - network(y)).flatten(1), ord=norm, dim=1)
    run = torch.linalg.vector_norm((x - y).flatten(1), ord=norm, dim=1)
    assert bool((rise <= bound.value * run * (1 + 1e-9) + 1e-11).all())
    assert bound.value <= upper_product(network, tuple(region.centre.shape), norm=norm).value


@pytest.mark.parametrize("name", list(POINTWISE))
def test_slopes_of_smooth_functions_are_the_largest_on_the_interval(name):
    function = POINTWISE[name].module()
    step = reading.read(nn.Sequential(function), (1,))[1]
    rng = np.random.default_rng(0)
    for _ in range(200):
        low = float(rng.normal(scale=4))
        high = low + float(10 ** rng.uniform(-4, 1))
        at = torch.linspace(low, high, 2001, dtype=torch.float64, requires_grad=True)
        (derivative,) = torch.autograd.grad(function(at).sum(), at)
        truth = float(derivative.abs().max())
        ends = torch.tensor([[low]], dtype=torch.float64), torch.tensor([[high]], dtype=torch.float64)
        slope = float(intervals.upper_slopes(step, ends))
        assert truth * (1 - 1e-15) <= slope <= truth * (1 + 1e-4) + 1e-5


@pytest.mark.parametrize("norm", NORMS)
def test_dead_neurons_are_dropped(norm):
    # The second neuron is off for x in [1, 3]; the rest is 2 x.
    model = nn.Sequential(linear([[2.0], [-9.0]], [0.0, 0.0]), nn.ReLU(), linear([[1.0, 5.0]]))
    near = upper_local(model, Region(centre=torch.tensor([2.0]), radius=1.0), norm=norm)
    assert 2 <= near.value <= 2 * (1 + 1e-7)
    wide = upper_local(model, Region(centre=torch.tensor([2.0]), radius=2.1), norm=norm)
    assert wide.value >= 45


def test_dead_columns_and_slopes_enter_the_product():
    model = nn.Sequential(linear([[1.0, 0.0], [0.0, 1.0]], [0.0, -5.0]), nn.ReLU(), linear([[1.0, 50.0], [-1.0, 20.0]]))
    bound = upper_local(model, Region(centre=torch.zeros(2), radius=1.0, norm=2))
    assert math.sqrt(2) <= bound.value <= math.sqrt(2) * (1 + 1e-6)
    saturated = nn.Sequential(linear(np.eye(2), [10.0, 10.0]), nn.Tanh())
    bound = upper_local(saturated, Region(centre=torch.zeros(2), radius=1.0))
    truth = 1 / math.cosh(9) ** 2
    assert truth <= bound.value <= truth * (1 + 1e-5)


def test_rows_are_not_scaled_where_another_step_reads_them():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.relu = linear([[2.0]], [-9.0]), nn.ReLU()

        def forward(self, x):
            y = self.layer(x)
            return self.relu(y) + y

    for norm in NORMS:  # the ReLU is off, the sum is not
        bound = upper_local(Fork(), Region(centre=torch.zeros(1), radius=1.0), norm=norm)
        assert 2 <= bound.value <= 2 * (1 + 1e-6)


def test_a_ball_of_the_2_norm_is_less_than_its_box():
    model = relu_network(np.ones((1, 4)))
    region = Region(centre=torch.zeros(4), radius=1.0, norm=2)
    low, high = propagate(reading.read(model, (4,)), region)[-1]
    assert 2 <= float(high) <= 2 + 1e-12
    assert -2 - 1e-12 <= float(low) <= -2


def test_inputs_that_a_box_fixes_do_not_count():
    region = box(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 1.0]))
    assert region.centre.tolist() == [1.0, 1.0]
    assert float(region.radius[0]) >= 1.0
    assert float(region.radius[1]) == 0.0
    bound = upper_local(linear([[3.0, 40.0]]), region)
    assert 3 <= bound.value <= 3 * (1 + 1e-7)


def test_a_constant_region_has_the_bound_zero():
    model = nn.Sequential(linear(np.eye(2), [-3.0, -3.0]), nn.ReLU(), linear(np.ones((1, 2))))
    assert upper_local(model, Region(centre=torch.zeros(2), radius=1.0)).value < 1e-200


@pytest.mark.parametrize("norm", [2, math.inf])
@pytest.mark.parametrize("radius", [0.7, 0.1, 1 / 3, 1e-300, 5e-324, 1e200])
@pytest.mark.parametrize("centre", [0.0, 1.0, 1e-200, -1e200])
def test_a_radius_is_the_number_that_was_given(radius, centre, norm):
    # Not the float32 that torch makes of a Python number, which may be smaller, or 0.
    region = Region(centre=torch.tensor([centre], dtype=torch.float64), radius=radius, norm=norm)
    model = nn.Sequential(linear([[1.0], [-1.0]]), nn.ReLU(), linear([[1.0, 1.0]]))  # |x|
    steps = reading.read(model, (1,))
    low, high = propagate(steps, region)[0]
    assert Fraction(float(low)) <= Fraction(centre) - Fraction(radius)
    assert Fraction(float(high)) >= Fraction(centre) + Fraction(radius)
    assert upper_local(model, region).value >= 1.0


def test_what_a_region_is_made_of_is_taken_exactly():
    centre = torch.tensor([0.1], dtype=torch.float32)
    region = Region(centre=centre, radius=np.float32(0.1))
    low, high = propagate(reading.read(nn.ReLU(), (1,)), region)[0]
    number = Fraction(float(np.float32(0.1)))
    assert Fraction(float(low)) <= 0 < 2 * number <= Fraction(float(high))
    assert float(high) < 2.0 * float(number) * (1.0 + 1e-14)
    for dtype in (torch.float16, torch.bfloat16):
        low, high = propagate(reading.read(nn.ReLU(), (1,)), Region(centre=torch.ones(1, dtype=dtype), radius=0.0))[0]
        assert float(low) <= 1.0 <= float(high) <= 1.0 + 1e-15


@given(strategies.networks_of_any_scale(), st.data())
@settings(max_examples=25, deadline=None)
def test_intervals_and_local_bounds_hold_in_rational_arithmetic_at_any_scale(network, data):
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    weights, biases = ([getattr(layer, name).detach().numpy() for layer in layers] for name in ("weight", "bias"))
    n_inputs, norm = layers[0].in_features, data.draw(st.sampled_from([2, math.inf]))
    numbers = strategies.numbers_of_any_scale()
    centre = data.draw(st.lists(numbers, min_size=n_inputs, max_size=n_inputs))
    radius = data.draw(numbers.map(abs).filter(bool) | st.sampled_from([0.7, 0.1]))
    region = Region(centre=torch.tensor(centre, dtype=torch.float64), radius=radius, norm=norm)
    points = []
    for signs in itertools.product((-1, 0, 1), repeat=n_inputs):
        if norm == math.inf or sum(map(abs, signs)) <= 1:
            points.append([Fraction(c) + sign * Fraction(radius) for c, sign in zip(centre, signs, strict=True)])
    outputs = [oracles.relu_outputs(weights, biases, point) for point in points]
    lows, highs = (end[0].tolist() for end in propagate(reading.read(network, (n_inputs,)), region)[-1])
    for values in outputs:
        for value, low, high in zip(values, lows, highs, strict=True):
            assert low == -math.inf or Fraction(low) <= value
            assert high == math.inf or value <= Fraction(high)
    for p in NORMS:
        bound = upper_local(network, region, norm=p).value
        for (x, fx), (y, fy) in itertools.combinations(zip(points, outputs, strict=True), 2):
            dx, dy = ([b - a for a, b in zip(*ends, strict=True)] for ends in ((x, y), (fx, fy)))
            assert oracles.is_at_least_secant(bound, dx, dy, p)


def test_intervals_that_pass_the_range_of_float64_say_nothing():
    # 1e300 * 1e300 on both signs: inf - inf would be no number, and a ReLU of none would seem to be off.
    model = nn.Sequential(linear([[1e300], [-1e300]]), linear([[1e300, -1e300]]), nn.ReLU(), linear([[1e-300]]))
    region = Region(centre=torch.zeros(1, dtype=torch.float64), radius=1.0)
    for low, high in propagate(reading.read(model, (1,)), region):
        assert not bool((low.isnan() | high.isnan()).any())
    assert upper_local(model, region, norm=1).value >= 2e300


@pytest.mark.parametrize("function", [Erf(), GaussianCdf(), nn.Tanh(), nn.Sigmoid(), Sin()])
def test_slopes_far_out_are_numbers(function):
    steps = reading.read(nn.Sequential(function), (1,))
    for ends in ((1e200, 1e300), (-math.inf, -1e200), (-math.inf, math.inf)):
        slope = intervals.upper_slopes(steps[1], tuple(torch.tensor([[end]], dtype=torch.float64) for end in ends))
        assert 0.0 <= float(slope) <= 1.2


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Region(centre=torch.zeros(1, dtype=torch.int64), radius=1.0), r"^centre must be .*, got torch.int64$"),
        (lambda: Region(centre=torch.zeros(1, dtype=torch.complex64), radius=1.0), r"^centre must .* torch.complex64$"),
        (lambda: Region(centre=[0.0], radius=1.0), r"^centre must be a tensor of floating-point numbers, got list$"),
        (lambda: Region(centre=torch.zeros(1), radius=torch.ones(1) * 1j), r"^radius must be .*, got torch.complex64$"),
        (lambda: box(torch.zeros(1).int(), torch.ones(1)), r"^lower must be .*, got torch.int32$"),
        (lambda: box(torch.zeros(1), [1.0]), r"^upper must be a tensor of floating-point numbers, got list$"),
    ],
)
def test_regions_of_other_kinds_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_corners_must_be_finite():
    with pytest.raises(ValueError, match=r"^lower and upper must hold finite numbers$"):
        box(torch.zeros(1), torch.tensor([math.inf]))


@pytest.mark.parametrize(
    "values, message",
    [
        ({"norm": 1}, r"^norm of a region must be 2 or inf, got 1$"),
        ({"centre": torch.tensor([math.nan])}, r"^centre must hold finite numbers$"),
        ({"radius": -1.0}, r"^radius must be finite and at least 0$"),
        (
            {"radius": torch.ones(2)},
            r"^radius must be one number, or of the centre's shape for a box, got shape \(2,\)$",
        ),
        ({"radius": torch.ones(1), "norm": 2}, r"^radius must be one number, .*, got shape \(1,\)$"),
    ],
)
def test_bad_regions_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Region(**{"centre": torch.zeros(1), "radius": 1.0, **values})


@pytest.mark.parametrize("upper", [torch.zeros(2), torch.tensor([-1.0])])
def test_corners_that_make_no_box_are_refused(upper):
    with pytest.raises(ValueError, match=r"^lower must be at most upper, entry by entry, and of its shape$"):
        box(torch.zeros(1), upper)
