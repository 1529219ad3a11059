"""Norms of convolutions and of poolings, from above and from below."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import oracles
import pytest
import scipy.stats
import strategies
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from lipschitz import absolute, cholesky, convolutions, krylov, lower, norms, pooling, upper

NORMS = (1, 2, math.inf)
LAPACK = 1e-13  # relative error of numpy's norms, at most


def keywords(case):
    return {name: getattr(case, name) for name in ("input_shape", "stride", "padding", "dilation", "groups")}


def dense(case):
    return oracles.convolution_matrix(case.weight, **keywords(case))


def parts(case, *, is_reduced=False):
    """The private forms of a convolution that is not zero: itself, its products, what brings the scale back."""
    convolution, exponent = convolutions._read(case.weight, *(keywords(case).values()))
    convolution = convolutions._one_window(convolution) if is_reduced else convolution
    absolute = math.sqrt(math.prod(convolutions._bound_sums(convolution, norm)[1] for norm in (1, math.inf)))
    return convolution, convolutions._products(convolution, absolute), 2.0**exponent


def test_oracle_knows_a_matrix_drawn_by_hand():
    # One padded place on each side, every second window of two taps, two apart: (x_-1, x_1), (x_1, x_3).
    case = strategies.Convolution(
        weight=np.array([[[[2.0, 3.0]]]]), input_shape=(1, 3), stride=(1, 2), padding=(0, 1), dilation=(1, 2), groups=1
    )
    np.testing.assert_array_equal(dense(case), [[0, 3, 0], [0, 2, 0]])


@given(strategies.convolutions())
@settings(max_examples=50, deadline=None)
def test_oracle_is_torchs_map(case):
    n_inputs = case.weight.shape[1] * case.groups
    units = torch.eye(n_inputs * math.prod(case.input_shape), dtype=torch.float64)
    settings_ = (case.stride, case.padding, case.dilation, case.groups)
    images = functional.conv2d(
        units.reshape(-1, n_inputs, *case.input_shape), torch.from_numpy(case.weight), None, *settings_
    )
    np.testing.assert_array_equal(dense(case), images.flatten(1).T.numpy())


@given(strategies.convolutions(), st.sampled_from(NORMS))
@settings(max_examples=300, deadline=None)
def test_bounds_enclose_the_norm_of_the_dense_matrix(case, norm):
    truth = np.linalg.norm(dense(case), norm)
    bound = convolutions.bound_norm(case.weight, **keywords(case), norm=norm)
    assert bound.lower * (1 - LAPACK) <= truth <= bound.upper * (1 + LAPACK)
    assert bound.upper <= 1.001 * truth * (1 + LAPACK)
    assert bound.upper <= 1.001 * bound.lower
    assert (bound.norm, bound.is_certified, bound.failure_probability) == (norm, True, 0.0)


@given(strategies.convolutions(max_channels=1, max_side=3))
@settings(max_examples=60, deadline=None)
def test_spectral_bounds_hold_in_rational_arithmetic(case):
    matrix = dense(case)
    assume(min(matrix.shape) <= 6)
    matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    bound = convolutions.bound_norm(case.weight, **keywords(case), tolerance=1e-9)
    assert oracles.is_at_least_spectral_norm(bound.upper, matrix)
    assert bound.lower == 0 or not oracles.is_at_least_spectral_norm(math.nextafter(bound.lower, 0), matrix)
    assert bound.relative_gap <= 1e-9


@given(strategies.convolutions())
@settings(max_examples=150, deadline=None)
def test_every_method_bounds_every_form(case):
    truth = np.linalg.norm(dense(case), 2)
    assume(truth > 0)
    convolution, products, scale = parts(case)
    truth = truth / scale

    lower = krylov.lower_norm(products, tolerance=1e-4)
    assert 0.9995 * truth <= lower <= truth * (1 + LAPACK)

    below, above = convolutions._bound_cholesky(products, case.groups, lower, 1e-3)
    assert below <= truth * (1 + LAPACK)
    assert truth * (1 - LAPACK) <= above <= 1.001 * truth

    below, above = krylov.bound_norm(products, lower=0.99 * truth, tolerance=1e-3)
    assert below <= truth * (1 + LAPACK)
    assert truth * (1 - LAPACK) <= above <= 1.001 * truth

    # No torus has less than the norm. Some large enough value is found to be enough.
    assert convolutions._upper_torus(convolution, truth * (1 - 1e-9)) is None
    value = truth
    while (above := convolutions._upper_torus(convolution, value)) is None:
        value *= 1.1
    assert truth <= above <= 1.0001 * value


@given(strategies.convolutions(max_channels=1), st.sampled_from((0, 1)), st.sampled_from((0, 1)))
@settings(max_examples=300, deadline=None)
def test_a_torus_holds_the_image(case, axis, twist):
    # Along one axis, the map of a wave summed over all waves is the convolution, wherever outputs and inputs lie.
    weight = case.weight[:1, :1].sum(axis=3 - axis, keepdims=True)
    line = dataclasses.replace(
        case,
        weight=weight if axis == 1 else weight.swapaxes(2, 3),
        groups=1,
        **{
            name: (1 - (name == "padding"), getattr(case, name)[axis])
            for name in ("input_shape", "stride", "padding", "dilation")
        },
    )
    matrix = dense(line)
    assume(np.abs(matrix).max() > 0)
    convolution, _, scale = parts(line)
    waves, stride = convolutions._waves(convolution, 1, twist).numpy(), line.stride[1]
    n, (n_outputs, n_inputs) = len(waves), matrix.shape
    phases = np.exp(1j * np.pi * (2 * np.arange(n) + twist) / n * np.arange(max(n_outputs, n_inputs))[:, None])
    symbols = np.einsum("wkr,k->wr", waves, convolution.weight[0, 0, 0].numpy() * scale)
    torus = np.einsum("ow,wr,aw->oar", phases[:n_outputs], symbols, phases[: -(-n_inputs // stride)].conj()) / n
    np.testing.assert_allclose(torus.reshape(n_outputs, -1)[:, :n_inputs], matrix, rtol=0, atol=1e-12 * scale * n)


@given(strategies.convolutions())
@settings(max_examples=150, deadline=None)
def test_one_window_is_enough_where_none_overlap(case):
    _, _, scale = parts(case)
    convolution, products, _ = parts(case, is_reduced=True)
    assume(convolution.input_shape != case.input_shape)
    units = torch.eye(products.n_inputs, dtype=torch.float64)
    found = np.linalg.norm(products.forward(units).numpy(), 2) * scale
    assert found == pytest.approx(np.linalg.norm(dense(case), 2), rel=1e-12)


@given(strategies.convolutions(), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_the_adjoint_is_one(case, seed):
    assume(np.abs(dense(case)).max() > 0)
    convolution, _, _ = parts(case)
    rng = np.random.default_rng(seed)
    x, y = (torch.from_numpy(rng.standard_normal((2, n))) for n in (convolution.n_inputs, convolution.n_outputs))
    torch.testing.assert_close((convolution.forward(x) * y).sum(1), (x * convolution.adjoint(y)).sum(1))


@pytest.mark.parametrize("n", [2, 5, 56])
def test_moving_sum_is_a_tridiagonal_matrix(n):
    truth = 1 + 2 * math.cos(math.pi / (n + 1))
    for shape, input_shape, expected in [((1, 1, 3), [n], truth), ((1, 1, 3, 3), [n, n], truth**2)]:
        bound = convolutions.bound_norm(torch.ones(shape), input_shape=input_shape, padding=1, tolerance=1e-6)
        assert bound.lower <= expected * (1 + 1e-15)
        assert bound.upper >= expected * (1 - 1e-15)
        assert bound.upper <= (1 + 1e-6) * bound.lower


@pytest.mark.parametrize("n", [100, 101])
def test_a_twisted_torus_is_exact_for_a_moving_sum(n):
    case = strategies.Convolution(np.ones((1, 1, 3, 3)), (n, n), (1, 1), (1, 1), (1, 1), 1)
    convolution, _, scale = parts(case)
    truth = (1 + 2 * math.cos(math.pi / (n + 1))) ** 2 / scale
    assert convolutions._upper_torus(convolution, truth * (1 + 1e-10)) <= truth * (1 + 1e-9)
    assert convolutions._upper_torus(convolution, truth * (1 - 1e-10)) is None


def test_methods_are_as_the_sizes_ask_for():
    rng = np.random.default_rng(0)
    for shape, side, stride, padding, method in [
        ((64, 32, 1, 1), 224, 2, 0, "cholesky"),  # one window
        ((16, 3, 16, 16), 224, 16, 0, "cholesky"),
        ((8, 8, 3, 3), 20, 1, 1, "cholesky"),
        ((16, 16, 3, 3), 56, 1, 1, "torus"),
        ((48, 48, 3, 3), 12, 1, 1, "chebyshev"),
    ]:
        weight = rng.standard_normal(shape)
        bound = convolutions.bound_norm(weight, input_shape=(side, side), stride=stride, padding=padding)
        assert bound.method == method
        assert bound.failure_probability == (1e-15 if method == "chebyshev" else 0.0)
        assert bound.upper <= 1.001 * bound.lower


def test_groups_are_one_block_each():
    # Orthogonium multiplies the groups' norms; the map is block diagonal, and its norm the largest.
    weight = np.random.default_rng(0).standard_normal((6, 2, 3, 3))
    groups = [
        convolutions.bound_norm(part, input_shape=(7, 7), padding=1, tolerance=1e-6) for part in np.split(weight, 3)
    ]
    bound = convolutions.bound_norm(weight, input_shape=(7, 7), padding=1, groups=3, tolerance=1e-6)
    assert bound.upper == pytest.approx(max(group.upper for group in groups), rel=2e-6)


def test_the_chance_of_a_small_start_is_as_stated():
    assert 0.98e-15 <= scipy.stats.chi.cdf(krylov._SMALLEST, krylov._N_STARTS) <= krylov.FAILURE_PROBABILITY


def diagonal_products(values, n_terms=1):
    """The map of a diagonal matrix, and starts that see no more than stated of its first entry, the largest."""
    starts = torch.from_numpy(np.random.default_rng(0).standard_normal((krylov._N_STARTS, len(values))))
    starts[:, 0] *= (1.0 + 1e-6) * krylov._SMALLEST / starts[:, 0].norm()

    def multiply(vectors):
        return vectors * values

    norm = float(values.max())
    products = krylov.Products(
        forward=multiply,
        adjoint=multiply,
        n_inputs=len(values),
        n_terms=n_terms,
        n_adjoint_terms=n_terms,
        absolute_norm=norm,
    )
    return starts, products


VALUES = torch.cat([torch.tensor([1.0]), torch.linspace(0, 0.95, 199)]).to(torch.float64)


@pytest.mark.parametrize("lower", [0.5, 0.95, 0.999])
def test_the_chebyshev_bound_needs_no_more_of_a_start_than_stated(monkeypatch, lower):
    starts, products = diagonal_products(VALUES)
    monkeypatch.setattr(krylov, "_normal_vectors", lambda *_, seed: starts)
    for max_steps in (1, 5, 20, 40, 300):
        below, above = krylov.bound_norm(products, lower=lower, tolerance=1e-3, max_steps=max_steps)
        assert below <= 1.0 <= above
    assert above <= 1.001 * below
    starts[:, 0] *= 1e-8  # this should not happen: it has a probability of 1e-63
    below, above = krylov.bound_norm(products, lower=0.95, tolerance=1e-3)
    assert above < 1.0


@pytest.mark.parametrize("n_terms", [2**10, 2**20, 2**30, 2**40])
def test_the_chebyshev_bound_survives_rounding_that_hides_the_leading_vector(monkeypatch, n_terms):
    starts, honest = diagonal_products(VALUES, n_terms)
    monkeypatch.setattr(krylov, "_normal_vectors", lambda *_, seed: starts)

    def hide(vectors):
        images = honest.forward(vectors)
        if len(vectors) == krylov._N_STARTS:  # all that is allowed is taken from the part that matters
            leading = images[:, 0]
            images[:, 0] *= 1.0 - min(1.0, norms.gamma(n_terms) * float(vectors.norm() / leading.norm()))
        return images

    products = dataclasses.replace(honest, forward=hide, adjoint=hide)
    for max_steps in (10, 40, 120):
        assert krylov._recurrence(products, 0.951, 1e-3, max_steps)[1] >= 1.0
    if n_terms == 2**40:  # rounding that is not owned up to does hide it
        products = dataclasses.replace(products, n_terms=1, n_adjoint_terms=1)
        assert krylov._recurrence(products, 0.951, 1e-3, 120)[1] < 1.0


def test_the_recurrence_is_chebyshevs(monkeypatch):
    starts, products = diagonal_products(VALUES)
    monkeypatch.setattr(krylov, "_normal_vectors", lambda *_, seed: starts)
    lower = 0.97
    x = 2 * (VALUES.numpy() / lower) ** 2 - 1
    for k in (1, 2, 3, 9):
        polynomials = np.polynomial.Chebyshev.basis(k)(x)
        theta = np.arccosh(np.linalg.norm(starts.numpy() * polynomials) / krylov._SMALLEST) / k
        _, above = krylov._recurrence(products, lower, 1e-3, k)
        assert above == pytest.approx(lower * np.cosh(theta / 2), rel=3e-4 * theta)


def test_the_error_of_a_step_enters_as_the_second_kind():
    # One step's error of size e, k steps before the end, of the leading vector grows to U_k(x) e.
    k, theta = 12, 0.3
    errors = np.zeros(k)
    errors[4] = 1e-3
    left = krylov._SMALLEST * math.cosh(k * theta) - 1e-3 * math.sinh((k - 4) * theta) / math.sinh(theta)
    assert krylov._largest_angle(left, errors) == pytest.approx(theta, rel=2e-4)
    assert krylov._largest_angle(left, errors) >= theta


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=100, deadline=None)
def test_cholesky_tells_where_eigenvalues_end(n, seed, is_complex):
    rng = np.random.default_rng(seed)
    halves = rng.standard_normal((3, n, n)) + (1j * rng.standard_normal((3, n, n)) if is_complex else 0)
    matrices = torch.from_numpy(halves @ halves.conj().swapaxes(1, 2))
    largest = float(torch.linalg.eigvalsh(matrices).max())
    assert cholesky.upper_eigenvalue(matrices, largest * (1 - 1e-12)) is None
    above = cholesky.upper_eigenvalue(matrices, largest * (1 + 1e-12))
    assert largest * (1 + 1e-12) <= above <= largest * (1 + 1e-10)


@pytest.mark.parametrize("n", [20, 50, 100, 200])
def test_cholesky_counts_its_rounding(n):
    # Of k s s^T, s of signs, the largest eigenvalue is n k exactly; factors are found for numbers just below it, too.
    for seed in range(20):
        rng = np.random.default_rng(seed)
        k, signs = rng.random(), rng.choice([-1.0, 1.0], n)
        matrices = torch.from_numpy(k * np.outer(signs, signs))[None]
        for n_units in range(-4, 1):
            value = n * k * (1 + n_units * 2.0**-53)
            above = cholesky.upper_eigenvalue(matrices, value)
            assert above is None or Fraction(above) >= n * Fraction(k)


def test_rounding_of_the_gram_matrix_is_counted():
    _, honest = diagonal_products(VALUES)
    n_terms = 2**40
    products = dataclasses.replace(
        honest, adjoint=lambda x: x * VALUES * (1.0 - norms.gamma(n_terms)), n_terms=n_terms, n_adjoint_terms=n_terms
    )
    assert 1.0 <= convolutions._bound_cholesky(products, 1, 0.999, 1e-3)[1] <= 1.002
    products = dataclasses.replace(products, n_adjoint_terms=1)
    assert convolutions._bound_cholesky(products, 1, 1.0 - norms.gamma(n_terms), 1e-9)[1] < 1.0


@pytest.mark.parametrize("norm", [1, math.inf])
def test_small_entries_that_rounding_swallows_are_counted(norm):
    # 1 + 2^-54 rounds to 1: sums come out too small wherever they start from the one.
    row = np.full(4097, 2.0**-54)
    row[0] = 1.0
    shape = (1, 4097, 1, 1) if norm == math.inf else (4097, 1, 1, 1)
    bound = convolutions.bound_norm(row.reshape(shape), input_shape=(2, 2), norm=norm)
    assert Fraction(bound.lower) <= 1 + 4096 * Fraction(2) ** -54 <= Fraction(bound.upper)
    assert bound.relative_gap <= 1e-11


def test_subnormal_weights_are_bounded():
    for norm, truth in [(1, 3), (math.inf, 4), (2, math.sqrt(12))]:
        bound = convolutions.bound_norm(np.full((3, 4, 1, 1), 5e-324), input_shape=(1, 1), norm=norm)
        assert bound.lower <= round(truth, 9) * 5e-324
        assert bound.upper / 5e-324 >= truth


def test_the_search_from_below_may_end_too_early(monkeypatch):
    weight = np.random.default_rng(0).standard_normal((5, 5, 3, 3))
    found = convolutions.bound_norm(weight, input_shape=(5, 5), padding=1)
    search = krylov.lower_norm
    monkeypatch.setattr(
        krylov,
        "lower_norm",
        lambda products, *, tolerance: search(products, tolerance=tolerance) * (0.9 if tolerance > 1e-5 else 1.0),
    )
    assert convolutions.bound_norm(weight, input_shape=(5, 5), padding=1).upper == pytest.approx(found.upper, rel=1e-3)
    monkeypatch.setattr(convolutions, "_N_GRAM_NUMBERS", 0)
    monkeypatch.setattr(krylov, "lower_norm", lambda products, *, tolerance: 0.9 * search(products, tolerance=1e-6))
    bound = convolutions.bound_norm(weight, input_shape=(5, 5), padding=1)
    assert bound.upper == pytest.approx(found.upper, rel=2e-3)
    assert bound.upper <= 1.001 * bound.lower


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_narrow_weights_are_widened_exactly_and_left_alone(dtype):
    weight = nn.Parameter(torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype))
    before = weight.detach().clone()
    bound = convolutions.bound_norm(weight, input_shape=(5, 4))
    assert bound == convolutions.bound_norm(before.to(torch.float64).numpy(), input_shape=(5, 4))
    assert torch.equal(weight, before)


@given(strategies.convolutions(max_channels=2, max_side=4), st.integers(-1000, 900), st.sampled_from(NORMS))
@settings(max_examples=100, deadline=None)
def test_a_power_of_two_comes_out_as_it_went_in(case, exponent, norm):
    weight = np.round(case.weight * 2**20) / 2**20  # no number becomes subnormal on the way
    plain, scaled = (
        convolutions.bound_norm(factor * weight, **keywords(case), norm=norm) for factor in (1.0, 2.0**exponent)
    )
    assert scaled.upper == pytest.approx(2.0**exponent * plain.upper, rel=1e-15, abs=0)
    assert scaled.lower == pytest.approx(2.0**exponent * plain.lower, rel=1e-15, abs=0)


def test_taps_that_read_padding_alone_count_for_nothing():
    weight = np.full((2, 2, 3, 3), 1e300)
    weight[:, :, 1, 1] = [[3e-300, 0.0], [0.0, -4e-300]]
    for norm in NORMS:
        bound = convolutions.bound_norm(weight, input_shape=(1, 1), padding=1, norm=norm)
        assert bound.lower <= 4e-300 <= bound.upper <= 1.001 * bound.lower


@pytest.mark.parametrize("norm", NORMS)
def test_a_map_of_zeros_has_norm_zero(norm):
    nothing = convolutions.bound_norm(np.zeros((2, 1, 2, 2)), input_shape=(2, 2), norm=norm)
    padding_alone = convolutions.bound_norm(np.ones((1, 1, 2, 2)), input_shape=(1, 1), padding=2, dilation=3, norm=norm)
    for bound in (nothing, padding_alone):
        assert (bound.lower, bound.upper, bound.relative_gap) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "weight, changes, kind, message",
    [
        (np.ones((1, 1, 3)), {"norm": 3}, ValueError, r"^norm must be 1, 2 or inf, got 3$"),
        (np.ones((1, 1, 3)), {"tolerance": 1.0}, ValueError, r"^tolerance must lie in \(0, 1\), got 1.0$"),
        (np.ones((1, 1, 3), dtype=int), {}, TypeError, r"^weight must hold floating-point numbers .* got torch.int64$"),
        (np.ones((1, 1, 3), dtype=complex), {}, TypeError, r"got torch.complex128$"),
        (np.ones((1, 1)), {}, ValueError, r"^weight must have three or four axes, none .* got shape \(1, 1\)$"),
        (np.ones((1, 0, 3)), {}, ValueError, r"none of them empty, got shape \(1, 0, 3\)$"),
        (np.full((1, 1, 3), np.nan), {}, ValueError, r"^weight must hold finite numbers, got nan$"),
        (np.ones((3, 1, 3)), {"groups": 2}, ValueError, r"^groups must divide the number of outputs, 3, got 2$"),
        (np.ones((3, 1, 3)), {"groups": 0}, ValueError, r"^groups must divide the number of outputs, 3, got 0$"),
        (np.ones((1, 1, 3)), {"input_shape": [0]}, ValueError, r"^input_shape must be 1 whole numbers of at least 1"),
        (np.ones((1, 1, 3)), {"stride": (1, 1)}, ValueError, r"^stride must be 1 whole numbers .* got \(1, 1\)$"),
        (np.ones((1, 1, 3)), {"stride": 0}, ValueError, r"^stride must be 1 whole numbers of at least 1, got 0$"),
        (np.ones((1, 1, 3)), {"padding": -1}, ValueError, r"^padding must be 1 whole numbers of at least 0, got -1$"),
        (np.ones((1, 1, 3)), {"dilation": 0}, ValueError, r"^dilation must be 1 whole numbers of at least 1, got 0$"),
        (np.ones((1, 1, 3)), {"dilation": 3}, ValueError, r"^input_shape must, with its padding, hold the kernel, got"),
    ],
)
def test_bad_input_is_refused_in_one_line(weight, changes, kind, message):
    with pytest.raises(kind, match=message):
        convolutions.bound_norm(weight, **{"input_shape": [4], **changes})


def pool_matrix(layer, input_shape):
    units = torch.eye(math.prod(input_shape), dtype=torch.float64).reshape(-1, 1, *input_shape)
    return layer(units).flatten(1).T.numpy()


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_poolings_have_the_constants_of_what_torch_computes(data):
    def pair(least, most):
        return data.draw(st.integers(least, most)), data.draw(st.integers(least, most))

    kernel, stride, input_shape, norm = pair(1, 4), pair(1, 5), pair(1, 7), data.draw(st.sampled_from(NORMS))
    padding = tuple(data.draw(st.integers(0, size // 2)) for size in kernel)
    ceil_mode = data.draw(st.booleans())
    average = data.draw(
        st.sampled_from(
            [
                nn.AdaptiveAvgPool2d((3, None)),
                nn.AdaptiveAvgPool2d(2),
                *(
                    nn.AvgPool2d(kernel, stride, padding, ceil_mode, count, d)
                    for count in (False, True)
                    for d in (None, -3)
                ),
            ]
        )
    )
    try:
        matrix = pool_matrix(average, input_shape)
    except RuntimeError:
        with pytest.raises(ValueError, match=r"^input_shape must hold a window of \d"):
            pooling.bound_average_pool(average, input_shape, norm=norm)
    else:
        truth = np.linalg.norm(matrix, norm)
        bound = pooling.bound_average_pool(average, (5, *input_shape), norm=norm)
        assert bound.lower * (1 - LAPACK) <= truth <= bound.upper * (1 + LAPACK)
        assert bound.relative_gap <= 1e-7
        assert bound.is_certified

    largest = nn.MaxPool2d(kernel, stride, padding, pair(1, 3), ceil_mode=ceil_mode)
    try:
        # the windows in which a spike is the largest are those that it lies in
        pooled = pool_matrix(largest, input_shape)
    except RuntimeError:
        with pytest.raises(ValueError, match=r"^input_shape must hold a window of \d"):
            pooling.bound_max_pool(largest, input_shape, norm=norm)
        return
    if np.isneginf(pooled).any():
        with pytest.raises(ValueError, match=r"must have no window in its padding alone, got kernel_size"):
            pooling.bound_max_pool(largest, input_shape, norm=norm)
    else:
        n_windows = (pooled == 1).sum(axis=0).max()
        bound = pooling.bound_max_pool(largest, (5, *input_shape), norm=norm)
        truth = {1: n_windows, 2: math.sqrt(n_windows), math.inf: min(n_windows, 1)}[norm]
        assert bound.lower <= truth <= bound.upper <= math.nextafter(truth, math.inf)
        assert bound.upper**2 >= n_windows or norm == math.inf


@pytest.mark.parametrize(
    "layer, input_shape, truth",
    [
        (nn.MaxPool2d(3, stride=2, padding=1), (112, 112), {1: 4, 2: 2, math.inf: 1}),
        (nn.MaxPool2d(3, stride=1, padding=1), (28, 28), {1: 9, 2: 3, math.inf: 1}),
        (nn.MaxPool2d(2), (28, 28), {1: 1, 2: 1, math.inf: 1}),
        (nn.MaxPool2d(3, stride=2, padding=1), (2, 2), {1: 1, 2: 1, math.inf: 1}),  # one window alone
        (nn.MaxPool2d(1, stride=5), (28, 28), {1: 1, 2: 1, math.inf: 1}),
        (nn.MaxPool2d([3], stride=[2, 2], padding=[1, 1]), (112, 112), {1: 4, 2: 2, math.inf: 1}),
    ],
)
def test_max_pooling_has_its_true_constant(layer, input_shape, truth):
    for norm in NORMS:
        bound = pooling.bound_max_pool(layer, input_shape, norm=norm)
        assert bound.lower == bound.upper == truth[norm]


@pytest.mark.parametrize(
    "layer, channels",
    [
        (nn.MaxPool2d((2, 1), stride=1, padding=(1, 0), dilation=(3, 1)), 1),
        (nn.MaxPool2d((1, 2), stride=1, padding=(0, 1), dilation=(1, 3)), 2),
        (nn.MaxPool2d(2, padding=1, dilation=3), 1),
    ],
)
def test_a_window_in_the_padding_alone_is_refused_by_all_that_would_run_it(layer, channels):
    # torch makes -inf of it, and its gradient writes outside of memory: the first of these ended the process.
    shape, message = (channels, 2, 2), r"max pooling must have no window in its padding alone, got kernel_size"
    model = nn.Sequential(layer, nn.ReLU(), nn.Flatten()).eval()
    calls = [
        lambda: pooling.bound_max_pool(layer, shape),
        lambda: pooling.check_windows(model, torch.zeros(1, *shape)),
        lambda: lower.lower_gradient_ascent(model, torch.zeros(1, *shape), generator=torch.Generator(), n_steps=1),
        lambda: absolute.upper_absolute(model, shape),
        lambda: upper.upper_product(model, shape),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_beyond_float64_is_infinite(norm):
    weight = np.full((2, 2, 3), 1.7e308)
    bound = convolutions.bound_norm(weight, input_shape=[4], padding=1, norm=norm)
    assert bound.upper == math.inf
    assert bound.lower == np.finfo(float).max
    assert bound.relative_gap == 1.0


@given(strategies.convolutions(max_channels=2, max_side=3), st.sampled_from([-1074, -1060, -540, 500, 1000, 1015]))
@settings(max_examples=25, deadline=None)
def test_spectral_bounds_hold_in_rational_arithmetic_at_any_scale(case, exponent):
    whole = np.rint(3 * case.weight)
    case = dataclasses.replace(case, weight=np.ldexp(whole, exponent))
    bound = convolutions.bound_norm(case.weight, **keywords(case), tolerance=0.1)
    assert bound.upper == math.inf or oracles.is_at_least_spectral_norm(bound.upper, dense(case))
    assert (bound.upper == 0.0) == (not dense(case).any())


@pytest.mark.parametrize("exponent", [-1000, -600, 600, 1000])
def test_cholesky_scales_before_it_squares(exponent):
    matrix = torch.tensor([[[2.0, 1.0], [1.0, 2.0]]], dtype=torch.float64) * 2.0**exponent
    assert cholesky.upper_eigenvalue(matrix, 2.999 * 2.0**exponent) is None
    bound = cholesky.upper_eigenvalue(matrix, 3.001 * 2.0**exponent)
    assert 3.001 < bound / 2.0**exponent < 3.0010000001


def test_a_pair_of_images_attains_the_constant_of_max_pooling():
    layer, image = nn.MaxPool2d(3, stride=1, padding=1), torch.zeros(1, 1, 6, 6, dtype=torch.float64)
    spike = image.clone()
    spike[0, 0, 3, 3] = 1.0
    assert float((layer(spike) - layer(image)).norm()) == pooling.bound_max_pool(layer, (6, 6)).upper == 3.0


@pytest.mark.parametrize("bound", [pooling.bound_max_pool, pooling.bound_average_pool])
def test_poolings_refuse_other_norms(bound):
    layer = nn.MaxPool2d(2) if bound is pooling.bound_max_pool else nn.AvgPool2d(2)
    with pytest.raises(ValueError, match=r"^norm must be 1, 2 or inf, got 3$"):
        bound(layer, (4, 4), norm=3)
