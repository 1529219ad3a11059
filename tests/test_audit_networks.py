"""The audit's entries on networks, on those of Eqs. 8-10 themselves: cubes, labels at initialisation, Lemma D.1."""

import math

import numpy as np
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from torch import nn

from lipschitz import cubes, fully_connected, sdp, upper
from percolation import clusters, labels, wide
from percolation._audit import network_checks

DELTA = 0.25


def network(seed, dimension=2, **options):
    chosen = {"depth": 3, "width": 8} | options
    return fully_connected.random_network(dimension, generator=torch.Generator().manual_seed(seed), **chosen)


def values_of(model, points):
    with torch.no_grad():
        return model(torch.as_tensor(points, dtype=torch.float64))[..., 0].numpy()


def labelled_plane(model, delta_prime):
    """Centres of 60 x 60 cubes cut by Eq. 14 about the origin, their side, and their first and last certain labels."""
    bound = upper.upper_product(model, (2,)).value
    cut = cubes.cut_cubes(bound, dimension=2, delta=DELTA, delta_prime=delta_prime)
    axis = (np.arange(60) - 29.5) * cut.side
    centres = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    middle, reach = values_of(model, centres), cut.upper_range / 2  # a point is at most epsilon / 2 from the centre
    return centres, cut.side, labels.carried(np.clip(middle - reach, 0, 1), np.clip(middle + reach, 0, 1), DELTA)


@pytest.mark.parametrize("seed", range(3))
def test_a_network_stays_in_the_interval_along_a_path_of_its_cubes(seed):
    model = network(seed, activation="sin", gain=4.0)
    centres, _, (first, last) = labelled_plane(model, DELTA / 2)
    assert np.all(first <= last)
    label = int(np.bincount(first.ravel()).argmax())
    occupied = np.where((first <= label) & (label <= last), 0, -1)
    found = clusters.label_clusters(occupied)
    start = np.argwhere(found.numbers == found.sizes.argmax())[0]
    distances = clusters.chemical_distances(occupied, tuple(start))
    place = np.array(np.unravel_index(distances.argmax(), distances.shape))
    path = [place]
    while distances[tuple(place)] > 0:  # downhill to the start
        for step in np.array([[1, 0], [-1, 0], [0, 1], [0, -1]]):
            beside = place + step
            if np.all((beside >= 0) & (beside < 60)) and distances[tuple(beside)] == distances[tuple(place)] - 1:
                place = beside
                break
        path.append(place)
    assert len(path) > 5
    corners = np.array([centres[tuple(place)] for place in path])
    along = np.linspace(0, 1, 21)[:, None, None]
    outputs = values_of(model, (1 - along) * corners[:-1] + along * corners[1:])
    low, high = labels.intervals(DELTA)[label]
    assert low <= outputs.min()
    assert outputs.max() <= high
    assert np.abs(outputs - (low + high) / 2).max() <= DELTA / 2


@pytest.mark.parametrize("seed", range(3))
def test_neighbouring_cubes_of_a_network_always_share_a_label(seed):
    model = network(seed, activation="sin", gain=4.0)
    _, _, (first, last) = labelled_plane(model, 0.75 * DELTA)
    for axis in (0, 1):
        other_first, other_last = np.roll(first, 1, axis), np.roll(last, 1, axis)
        share = np.maximum(first, other_first) <= np.minimum(last, other_last)
        assert np.all(share[1:, 1:])


@given(st.floats(0.85, 0.9), st.floats(0.85, 0.9))
def test_a_linear_network_blocks_its_middle_cube(first, second):
    """One matrix, f = cdf(theta x): the ends carry the interval [0.85, 0.9], the middle one does not."""
    model = network(0, depth=1)
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[special.ndtri(first), special.ndtri(second)]]))
    ends = values_of(model, [[1.0, 0.0], [0.0, 1.0]])
    assert ends == pytest.approx([first, second])
    assert values_of(model, [[math.sqrt(0.5), math.sqrt(0.5)]])[0] > 0.92


@pytest.mark.parametrize("seed", range(4))
def test_a_sine_network_never_connects_inputs_a_period_apart(seed):
    """One dimension: equal values at the ends, and all values of the sine between; independent cubes do connect."""
    model = network(seed, dimension=1, depth=2, width=1, activation="sin")
    with torch.no_grad():
        model[2].weight.fill_(1.0)
    frequency = abs(float(model[0].weight.detach().item()))
    x = np.linspace(0.5 * math.pi, 2.5 * math.pi, 401)[:, None] / frequency
    outputs = values_of(model, x)
    assert outputs[0] == pytest.approx(outputs[-1])
    assert np.ptp(outputs) == pytest.approx(special.ndtr(1) - special.ndtr(-1), abs=1e-3)
    cells = labels.cells(outputs, DELTA)
    for label in (cells[0] - 1, cells[0]):  # the labels of the ends
        assert not np.all((cells == label) | (cells == label + 1))


def test_on_a_small_ball_all_labels_but_three_starve():
    """R = 1, d = 1024, one layer of variance 1/d: 1000 outputs cdf(N(0, 1/d)), all within 8 deviations of 1/2.

    The cells on either side of 1/2 carry three labels.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 1024))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    small = np.array([values_of(network(seed, 1024, depth=1), x) for seed in range(20)])
    large = np.array([values_of(network(seed, 1024, depth=1), 32 * x) for seed in range(20)])
    assert set(labels.cells(small, 0.2).ravel()) <= {4, 5}
    assert set(labels.cells(large, 0.2).ravel()) == set(range(10))


def test_recurrent_gates_and_batch_statistics_have_a_lipschitz_constant_on_all_inputs():
    """Inputs of scales 1e-4 to 1e4: secants below the constants of the entry; the variance is raised by 1e-5."""
    rng = np.random.default_rng(4)
    n_steps = 6
    recurrent = nn.LSTM(1, 1, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        for weight in recurrent.parameters():
            weight.copy_(torch.as_tensor(rng.choice([-1.0, 1.0], weight.shape)))
    moved, state = 0.0, 0.0  # by how much h and c change where no input changes by more than 1
    for t in range(n_steps):
        change = 1 + moved
        state += (t + 5) / 4 * change
        moved = change / 4 + state
    steepest = {"recurrent": 0.0, "statistics": 0.0}
    for scale in 10.0 ** np.arange(-4, 5):
        x = torch.as_tensor(scale * rng.standard_normal((2000, n_steps)))
        step = torch.as_tensor(1e-3 * min(scale, 1.0) * rng.uniform(-1, 1, (2000, n_steps)))
        with torch.no_grad():
            change = (recurrent((x + step)[..., None])[0] - recurrent(x[..., None])[0])[:, -1, 0].abs()
            ratio = (change / step.abs().amax(dim=1)).max().item()
            steepest["recurrent"] = max(steepest["recurrent"], ratio)
            centred = [nn.functional.layer_norm(v, (n_steps,), eps=1e-5) for v in (x, x + step)]
            ratio = ((centred[1] - centred[0]).norm(dim=1) / step.norm(dim=1)).max().item()
            steepest["statistics"] = max(steepest["statistics"], ratio)
    assert 0.1 < steepest["recurrent"] <= moved
    assert 100 < steepest["statistics"] <= 1e-5**-0.5 * (1 + 1e-6)


def test_odd_networks_anticorrelate_opposite_inputs_and_relu_networks_none():
    points = np.random.default_rng(3).standard_normal((30, 5))
    for name in ("tanh", "erf", "sin", "relu"):
        law = {"depth": 4, "activation": name, "weight_variance": fully_connected.POINTWISE[name].unit_gain ** 2}
        covariance = wide.wide_covariance(points, **law)
        if name == "relu":
            assert covariance.min() > 0
            opposite = wide.wide_covariance(np.array([[1.0, 1.0], [-1.0, -1.0]]), **law | {"depth": 2})
            assert opposite[0, 1] == pytest.approx(0, abs=1e-7)  # never negative, and no more than that
            continue
        assert np.all((covariance > 0) == (points @ points.T > 0))
        model = network(0, 5, depth=4, activation=name)[:-1]
        assert values_of(model, -points) == pytest.approx(-values_of(model, points))
        near = points + 1e-4 * np.roll(points, 1, axis=1)
        both = wide.wide_covariance(np.concatenate([points, near]), **law)
        spread = np.sqrt(np.diag(both))
        assert np.diag(both[:30, 30:]) == pytest.approx(spread[:30] * spread[30:], rel=1e-5)
        small = wide.wide_covariance(1e-2 * np.array([[1.0], [-1.0]]), **law)  # near, but not against their length
        assert small[0, 1] == pytest.approx(-small[0, 0])


def test_a_deep_relu_network_has_one_level_and_a_tanh_network_has_not():
    """The share of the outputs' variance that lies between networks; theory 0.74 and 0 for far inputs.

    Over 60 networks a share of r has a standard error of 0.2 (1 - r) or less here; the bounds are four of them apart.
    """
    x = np.random.default_rng(1).standard_normal((40, 64))
    x *= 8 / np.linalg.norm(x, axis=1, keepdims=True)
    between = {}
    for activation in ("relu", "tanh"):
        outputs = np.array(
            [values_of(network(seed, 64, depth=6, width=64, activation=activation)[:-1], x) for seed in range(60)]
        )
        within = outputs.var(axis=1, ddof=1).mean()
        between[activation] = 1 - within / (within + outputs.mean(axis=1).var(ddof=1))
    assert between["relu"] > 0.5
    assert between["tanh"] < 0.25
    r = 0.0
    for depth, printed in enumerate((0.32, 0.49, 0.60, 0.68, 0.74), start=2):
        r = (math.sqrt(1 - r * r) + r * (math.pi - math.acos(r))) / math.pi
        covariance = wide.wide_covariance(8.0 * np.eye(2), depth=depth, activation="relu", weight_variance=2.0)
        assert r == pytest.approx(covariance[0, 1] / covariance[0, 0], abs=1e-6)
        assert r == pytest.approx(printed, abs=0.005)


@given(st.floats(0.01, 0.5), st.integers(2, 10), st.integers(0, 2**32 - 1))
def test_cross_entropy_is_a_loss_of_the_conjecture_around_one_class_alone(delta, n_classes, seed):
    """Torch's own loss: its value at equal arguments, its slope, and what it is where it is small."""
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(3 * rng.standard_normal((200, n_classes)))
    outputs = logits.softmax(dim=1)
    itself = nn.functional.cross_entropy(logits, outputs, reduction="none").numpy()
    assert itself == pytest.approx(stats.entropy(outputs.numpy(), axis=1))
    assert itself.min() > 0
    even = torch.zeros(1, n_classes, dtype=torch.float64)
    assert float(nn.functional.cross_entropy(even, even.softmax(dim=1))) == pytest.approx(math.log(n_classes))
    chosen = torch.zeros(200, dtype=torch.int64)
    around = nn.functional.cross_entropy(logits, chosen, reduction="none").numpy()
    first = outputs[:, 0].numpy()
    near = np.abs(around - delta) > 1e-12
    assert np.all((around <= delta)[near] == (first >= math.exp(-delta))[near])  # an interval of one output
    inside = np.linspace(math.exp(-delta), 1, 500)
    slopes = np.abs(np.diff(np.log(inside)) / np.diff(inside))
    assert slopes.max() <= math.exp(delta) * (1 + 1e-9)
    tiny = np.array([1e-9, 2e-9])
    assert abs(np.diff(np.log(tiny))[0] / np.diff(tiny)[0]) > 1e8  # not Lipschitz on the simplex


@settings(max_examples=40)
@given(strategies.small_networks(), st.integers(0, 2**32 - 1))
def test_no_secant_is_steeper_than_the_product_of_the_lemma(model, seed):
    inputs = model[0].in_features
    model = model.double()
    bound = upper.upper_product(model, (inputs,)).value
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((50, inputs))
    step = rng.standard_normal((50, inputs)) * 10 ** rng.uniform(-3, 1, (50, 1))
    with torch.no_grad():
        change = (model(torch.as_tensor(x + step)) - model(torch.as_tensor(x))).norm(dim=1).numpy()
    assert np.all(change <= bound * np.linalg.norm(step, axis=1) * (1 + 1e-9) + 1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
def test_the_first_layer_meets_no_activation(seed, dimension, width):
    """Eq. 8: f1(x + dx) - f1(x) = theta dx, up to the norm of theta; an activation of slope 1/2 does not halve it."""
    model = network(seed, dimension, depth=2, width=width, bias_std=1.0)
    generator = torch.Generator().manual_seed(seed)
    x, step = torch.randn(2, dimension, generator=generator, dtype=torch.float64)
    change = model[0](x + step) - model[0](x)
    torch.testing.assert_close(change, model[0].weight @ step)
    _, values, directions = torch.linalg.svd(model[0].weight.detach())
    steepest = model[0](x + directions[0]) - model[0](x)
    assert float(steepest.detach().norm()) == pytest.approx(float(values[0]))
    assert float(steepest.detach().norm()) > 0.5 * float(values[0])


def test_whole_networks_keep_the_bound_of_the_union():
    """The explicit M of the entry on the induction, p = 0.5: kept by at least half of 400 networks, by far here."""
    p, depth, width, dimension = 0.5, 3, 6, 4
    sizes = [dimension, width, width, 1]
    gains = [1.0, *[fully_connected.POINTWISE["tanh"].unit_gain] * 2]
    bound = 1 / math.sqrt(2 * math.pi)
    for columns, rows, gain in zip(sizes[:-1], sizes[1:], gains, strict=True):
        bound *= gain / math.sqrt(columns) * network_checks.upper_norm(rows, columns, (1 - p) / depth)
    products, single = [], []
    for seed in range(400):
        model = network(seed, dimension, depth=depth, width=width)
        norms = [
            float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) for layer in model if isinstance(layer, nn.Linear)
        ]
        products.append(math.prod(norms) / math.sqrt(2 * math.pi))
        single.append(norms[-1] * math.sqrt(width) / gains[-1] <= stats.chi(width).ppf(0.9))
    assert np.mean(np.array(products) <= bound) >= p
    # one layer's exact quantile is kept by p of the networks, no more: four standard errors of 400
    assert np.mean(single) == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 400))


def test_the_product_is_far_from_optimal_and_worse_with_depth():
    """LipSDP is an upper bound itself: the ratio is at least this."""
    ratios = []
    for depth in (2, 4, 8):
        model = network(0, 16, depth=depth, width=32)
        ratios.append(upper.upper_product(model, (16,)).value / sdp.upper_lipsdp(model, (16,), tolerance=1e-3).value)
    assert ratios == sorted(ratios)
    assert ratios[0] > 1.1
    assert ratios[-1] > 5
