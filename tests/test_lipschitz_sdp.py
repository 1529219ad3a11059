"""LipSDP: the value is a proof, and as low as the program allows."""

import itertools
import math
from fractions import Fraction

import numpy as np
import oracles
import pytest
import references
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lipschitz import sdp
from lipschitz.fully_connected import Erf, GaussianCdf, Sin
from lipschitz.sdp import upper_lipsdp


def stack(weights, activation=nn.ReLU):
    """The network of these matrices, without biases, an activation between two."""
    layers = []
    for weight in weights:
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta", dtype=torch.float64)
        layer.weight = nn.Parameter(torch.from_numpy(np.array(weight)))
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1]).eval()


def gaussian(sizes, seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, m)) * math.sqrt(2 / m) for m, n in itertools.pairwise(sizes)]


def product(weights):
    return math.prod(np.linalg.norm(weight, 2) for weight in weights)


def matrix_of(weights, multipliers, rho, low=0, high=1):
    """M(rho, T) in rational arithmetic."""
    exact = [[[Fraction(float(entry)) for entry in row] for row in weight] for weight in weights]
    t = [[Fraction(float(entry)) for entry in multiplier] for multiplier in multipliers]
    sizes = [weights[0].shape[1], *(len(multiplier) for multiplier in multipliers)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    matrix = [[Fraction(0)] * sum(sizes) for _ in range(sum(sizes))]
    for block, start in enumerate(starts[:-1]):
        weight = exact[block]
        for i in range(sizes[block]):
            matrix[start + i][start + i] += rho if block == 0 else 2 * t[block - 1][i]
            for j in range(sizes[block]):
                for k, row in enumerate(weight):
                    inner = 1 if block == len(t) else -2 * low * high * t[block][k]
                    matrix[start + i][start + j] -= inner * row[i] * row[j]
        if block < len(t):
            for k, row in enumerate(weight):
                for i in range(sizes[block]):
                    entry = -(low + high) * t[block][k] * row[i]
                    matrix[starts[block + 1] + k][start + i] = matrix[start + i][starts[block + 1] + k] = entry
    return matrix


def program(weights, low, high):
    """The least rho by cvxpy and Clarabel, straight from the inequality."""
    cvxpy = pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    rho = cvxpy.Variable()
    multipliers = [cvxpy.Variable(len(weight), nonneg=True) for weight in weights[:-1]]
    sizes = [weights[0].shape[1], *(len(weight) for weight in weights[:-1])]
    blocks = [[np.zeros((m, n)) for n in sizes] for m in sizes]
    for place, weight in enumerate(weights):
        blocks[place][place] = rho * np.eye(sizes[0]) if place == 0 else 2 * cvxpy.diag(multipliers[place - 1])
        if place < len(multipliers):
            t = cvxpy.diag(multipliers[place])
            blocks[place][place] += 2 * low * high * weight.T @ t @ weight
            blocks[place + 1][place] = -(low + high) * t @ weight
            blocks[place][place + 1] = -(low + high) * weight.T @ t
        else:
            blocks[place][place] += -weight.T @ weight
    matrix = cvxpy.bmat(blocks)
    problem = cvxpy.Problem(cvxpy.Minimize(rho), [(matrix + matrix.T) / 2 >> 0])
    problem.solve(solver="CLARABEL")
    return math.sqrt(rho.value)


@pytest.mark.parametrize(
    "sizes, activation, low, high",
    [
        ((4, 7, 3), nn.ReLU, 0, 1),
        ((9, 5, 1), nn.Tanh, 0, 1),
        ((3, 6, 6, 2), nn.ReLU, 0, 1),
        ((5, 4, 4, 4, 4, 2), nn.ReLU, 0, 1),
        ((3, 6, 5, 2), lambda: nn.LeakyReLU(0.25), 0.25, 1),
        ((3, 6, 5, 2), lambda: nn.LeakyReLU(-0.5), -0.5, 1),
        ((3, 6, 2), lambda: nn.LeakyReLU(3.0), 1, 3),
        ((3, 5, 4, 2), Sin, -1, 1),
        ((3, 5, 4, 2), nn.Sigmoid, 0, 0.25),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_value_is_that_of_an_interior_point_solver(sizes, activation, low, high):
    weights = gaussian(sizes, 3)
    bound = upper_lipsdp(stack(weights, activation), sizes[:1])
    assert bound.relative_gap <= 1e-6
    assert bound.value == pytest.approx(program(weights, low, high), rel=3e-6)


@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(0, 2**32 - 1), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_multipliers_prove_the_value_in_rational_arithmetic(sizes, seed, max_sweeps):
    weights = gaussian(sizes, seed)
    bound = upper_lipsdp(stack(weights), sizes[:1], max_sweeps=max_sweeps)
    assert oracles.is_positive_semidefinite(matrix_of(weights, bound.multipliers, Fraction(bound.value) ** 2))


@pytest.mark.parametrize("slope", [0.125, -0.5, 2.0])
def test_multipliers_prove_the_value_for_other_slopes(slope):
    weights = gaussian((3, 4, 4, 2), 1)
    bound = upper_lipsdp(stack(weights, lambda: nn.LeakyReLU(slope)), (3,))
    ends = sorted([Fraction(slope), Fraction(1)])
    assert oracles.is_positive_semidefinite(matrix_of(weights, bound.multipliers, Fraction(bound.value) ** 2, *ends))


def test_semidefiniteness_oracle_on_matrices_worked_out_by_hand():
    for matrix, expected in [([[1, 1], [1, 1]], True), ([[1, 2], [2, 3]], False), ([[0, 1], [1, 5]], False)]:
        assert oracles.is_positive_semidefinite([[Fraction(entry) for entry in row] for row in matrix]) is expected


@given(st.lists(st.integers(1, 6), min_size=3, max_size=5), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_any_multipliers_are_repaired_to_a_bound_above_the_best(sizes, seed):
    weights = gaussian(sizes, seed)
    rng = np.random.default_rng(seed)
    slopes = [(np.zeros(n), np.ones(n)) for n in sizes[1:-1]]
    rho, _ = sdp._repair(weights, slopes, [10.0 ** rng.uniform(-9, 9, n) for n in sizes[1:-1]])
    assert rho >= (upper_lipsdp(stack(weights), sizes[:1]).value * (1 - 1e-5)) ** 2


def test_check_refuses_what_is_not_a_proof():
    weights = gaussian((6, 8, 8, 3), 0)
    slopes = [(np.zeros(8), np.ones(8))] * 2
    multipliers, primal, _ = sdp._solve(weights, slopes, 1e-8, 8192)
    rho, multipliers = sdp._repair(weights, slopes, multipliers)
    assert sdp._is_proof(weights, slopes, multipliers, rho)
    assert rho <= primal**2 * (1 + 1e-7)
    assert not sdp._is_proof(weights, slopes, multipliers, primal**2 * (1 - 1e-7))
    assert not sdp._is_proof(weights, slopes, [multipliers[0], 0.3 * multipliers[1]], 4 * rho)
    assert not sdp._is_proof(weights, slopes, multipliers, -rho)


@pytest.mark.parametrize("sizes, seed", [((2, 5, 1), 0), ((3, 4, 3, 1), 1), ((2, 6, 2), 2), ((1, 3, 3, 2), 3)])
def test_bound_lies_between_the_exact_constant_and_the_product(sizes, seed):
    weights = gaussian(sizes, seed)
    biases = [np.random.default_rng(seed).standard_normal(n) for n in sizes[1:]]
    value = upper_lipsdp(stack(weights), sizes[:1]).value
    assert oracles.relu_lipschitz_constant(weights, biases, 2) <= value * (1 + 1e-12)
    assert value <= product(weights) * (1 + 1e-6)


@given(strategies.small_networks())
@settings(max_examples=80, deadline=None)
def test_bound_is_at_most_the_product_for_every_kind_of_network(network):
    bound = upper_lipsdp(network.eval(), (network[0].in_features,), max_sweeps=64)
    steepest = {nn.Tanh: 1, nn.ReLU: 1, Sin: 1, Erf: 2 / math.sqrt(math.pi), nn.Sigmoid: 0.25}
    steepest[GaussianCdf] = 1 / math.sqrt(2 * math.pi)
    factors = [
        np.linalg.norm(layer.weight.detach().double().numpy(), 2)
        if isinstance(layer, nn.Linear)
        else steepest[type(layer)]
        for layer in network
    ]
    assert bound.is_certified
    assert bound.norm == 2
    # 64 sweeps may not reach the optimum; the gap says by how much it may be missed.
    assert bound.value * (1 - bound.relative_gap) <= math.prod(factors) * (1 + 1e-12)


def eclipse_network(layers, n=80, rd=0):
    """The random networks of the ECLipsE experiments: positive entries, 4 inputs, 1 output."""
    state = np.random.RandomState(rd * 77 + n * 7 + layers * 13)
    weights = []
    for n_in, n_out in zip([4] + [n] * (layers - 1), [n] * (layers - 1) + [1], strict=True):
        scale, weight = state.uniform(0.4, 1.8), state.rand(n_out, n_in)
        weights.append(scale * weight / np.linalg.norm(weight, 2))
        state.rand(n_out)
    return weights


@pytest.mark.parametrize("layers, ratio", list(zip(*references.ECLIPSE_EXACT_OVER_PRODUCT[:2], strict=True)))
def test_bound_of_a_positive_network_is_its_constant(layers, ratio):
    weights = eclipse_network(layers)
    exact = np.linalg.norm(np.linalg.multi_dot(weights[::-1]), 2)  # all neurons on
    assert exact / product(weights) == pytest.approx(ratio, abs=6e-6)
    if layers > 30:  # 50 take one second, 100 ten
        return
    bound = upper_lipsdp(stack(weights), (4,))
    assert exact * (1 - 1e-12) <= bound.value <= exact * (1 + 2e-6)


def test_a_published_value_is_below_the_constant():
    value, _, _ = references.CPLIP_OF_THE_FIRST_ECLIPSE_NETWORK
    weights = eclipse_network(2)
    exact = np.linalg.norm(weights[1] @ weights[0], 2)
    assert value < 0.56 * exact / product(weights)  # if it was meant relative to the product
    assert value < 0.63 * exact
    assert upper_lipsdp(stack(weights), (4,)).value >= exact * (1 - 1e-12)


@pytest.mark.parametrize("exponent", [-100, 60, 100])
def test_rescaling_neurons_changes_nothing(exponent):
    weights = gaussian((5, 8, 6, 2), 4)
    scales = 2.0 ** np.random.default_rng(0).integers(-abs(exponent), abs(exponent), 8)
    rescaled = [scales[:, None] * weights[0] * 2.0**exponent, weights[1] / scales, weights[2]]
    before, after = upper_lipsdp(stack(weights), (5,)), upper_lipsdp(stack(rescaled), (5,))
    assert after.value == pytest.approx(before.value * 2.0**exponent, rel=3e-6)


def test_many_inputs_are_reduced_to_the_width():
    first, second = gaussian((400, 6, 3), 5)
    first[2] *= 1e-9
    rotation = np.linalg.qr(first.T)[1].T  # first = rotation q^T with orthonormal q: same bound with six inputs
    wide, narrow = upper_lipsdp(stack([first, second]), (400,)), upper_lipsdp(stack([rotation, second]), (6,))
    assert wide.value == pytest.approx(narrow.value, rel=2e-6)
    triangle = sdp._triangle_above(first[:, :20])
    exact = [[Fraction(float(entry)) for entry in row] for row in np.hstack([triangle, first[:, :20]])]
    signs = [1] * 6 + [-1] * 20
    rows = [[sum(s * a * b for s, a, b in zip(signs, p, q, strict=True)) for q in exact] for p in exact]
    assert oracles.is_positive_semidefinite(rows)


def test_linear_networks():
    weights = gaussian((4, 6, 5, 3), 6)
    alone = upper_lipsdp(stack(weights[:1]), (4,))
    assert not oracles.is_at_least_spectral_norm(math.nextafter(alone.value * (1 - 1e-12), 0), weights[0])
    assert oracles.is_at_least_spectral_norm(alone.value, weights[0])
    assert alone.multipliers == ()
    together = upper_lipsdp(stack(weights, nn.Identity), (4,))
    exact = np.linalg.norm(weights[2] @ weights[1] @ weights[0], 2)
    assert exact * (1 - 1e-12) <= together.value <= exact * (1 + 2e-4)


class Scaled(nn.Module):
    """3 W_2 relu(-2 (W_1 x)) + 5 of flattened inputs."""

    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.second(torch.relu(self.first(torch.flatten(x, 1)) * -2)) * 3 + 5


def test_scales_flattening_and_batch_norm_are_slopes():
    weights = gaussian((6, 8, 3), 7)
    plain = stack(weights)
    value = upper_lipsdp(plain, (6,)).value
    assert upper_lipsdp(Scaled(plain[0], plain[2]).eval(), (2, 3)).value == pytest.approx(6 * value, rel=3e-6)
    norm = nn.BatchNorm1d(8).double().eval()
    generator = torch.Generator().manual_seed(0)
    norm.running_var.copy_(torch.rand(8, generator=generator) + 0.1)
    norm.weight.data.copy_(torch.randn(8, generator=generator))
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach().numpy()
    folded = upper_lipsdp(stack([scale[:, None] * weights[0], weights[1]]), (6,)).value
    assert upper_lipsdp(nn.Sequential(plain[0], norm, *plain[1:]).eval(), (6,)).value == pytest.approx(folded, rel=3e-6)
    before = nn.Sequential(nn.Sigmoid(), *plain, nn.Tanh(), nn.Sigmoid())
    assert upper_lipsdp(before, (6,)).value == pytest.approx(value / 16, rel=1e-12)


def test_networks_without_slope():
    weights = gaussian((4, 6, 5, 3), 8)
    for place in range(3):
        changed = [weight * (k != place) for k, weight in enumerate(weights)]
        assert upper_lipsdp(stack(changed), (4,)).value == 0.0
    # The second layer sees nothing of the first's working half: constant, though no matrix is zero.
    first, second = weights[0].copy(), weights[1].copy()
    first[:3], second[:, 3:] = 0.0, 0.0
    assert upper_lipsdp(stack([first, second]), (4,)).value <= 1e-5
    # Dead neurons beside working ones count for nothing.
    wider = [np.vstack([weights[0], np.zeros((2, 4))]), np.hstack([weights[1], np.ones((5, 2))]), weights[2]]
    assert upper_lipsdp(stack(wider), (4,)).value == pytest.approx(upper_lipsdp(stack(weights), (4,)).value, rel=3e-6)


def test_a_bound_beyond_float64_is_infinite():
    assert upper_lipsdp(stack([np.full((2, 2), 1e200), np.full((2, 2), 1e200)]), (2,)).value == math.inf


def test_same_network_same_bits_and_the_model_is_left_alone():
    model = stack(gaussian((4, 6, 2), 9))
    copies = [parameter.detach().clone() for parameter in model.parameters()]
    one, two = (upper_lipsdp(model, (4,)) for _ in range(2))
    assert (one.value, one.n_sweeps) == (two.value, two.n_sweeps)
    assert all(torch.equal(a, b) for a, b in zip(copies, model.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in model.parameters())


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return x + self.layer(x)


def infinite():
    layer = nn.Linear(3, 3)
    layer.weight.data[0, 0] = math.inf
    return layer


@pytest.mark.parametrize(
    "model, shape, keywords, message",
    [
        (nn.Linear(3, 3), (3,), {"tolerance": 0.0}, r"^tolerance must lie in \(0, 1\), got 0.0$"),
        (nn.Linear(3, 3), (3,), {"max_sweeps": 0}, r"^max_sweeps must be at least 1, got 0$"),
        (nn.ReLU(), (3,), {}, r"^model must have a Linear layer, got none$"),
        (nn.Linear(3, 3), (2, 3), {}, r"^layer 'Linear' must map vectors, got outputs of shape \(2, 3\)$"),
        (infinite(), (3,), {}, r"^layer '.*' must have finite weights$"),
        (nn.Conv2d(1, 1, 1), (1, 2, 2), {}, r"^step 'Conv2d' must be Linear or pointwise for LipSDP, got convolution$"),
        (
            nn.BatchNorm2d(1).eval(),
            (1, 2, 2),
            {},
            r"^step 'BatchNorm2d' must be Linear or pointwise for LipSDP, got batch_norm$",
        ),
        (Residual(), (3,), {}, r"^step 'add \(.*\)' must read the one before it, as LipSDP is for chains, got add$"),
    ],
)
def test_bad_input_is_refused(model, shape, keywords, message):
    with pytest.raises(ValueError, match=message):
        upper_lipsdp(model, shape, **keywords)


def test_complex_weights_are_refused():
    with pytest.raises(TypeError, match=r"^weights must be real floating-point numbers, got 'weight' of"):
        upper_lipsdp(nn.Linear(2, 2, dtype=torch.complex64), (2,))


def test_a_repair_that_never_verifies_is_an_error(monkeypatch):
    monkeypatch.setattr(sdp, "_is_proof", lambda *_: False)
    with pytest.raises(RuntimeError, match=r"^multipliers must verify with a slack of at most 1 a layer, got none"):
        upper_lipsdp(nn.Linear(2, 2), (2,))
