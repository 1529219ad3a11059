"""Intervals on a region, and the bounds that follow from them."""

import math

import numpy as np
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
