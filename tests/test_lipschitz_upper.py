"""The product bound of Lemma D.1."""

import collections
import math

import numpy as np
import pytest
import strategies
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lipschitz import fully_connected, norms
from lipschitz.upper import upper_product

NORMS = (1, 2, math.inf)


def linear(matrix, bias=None, dtype=torch.float64):
    matrix = torch.as_tensor(matrix, dtype=dtype)
    layer = nn.Linear(matrix.shape[1], matrix.shape[0], bias=bias is not None, dtype=dtype)
    layer.weight.data = matrix
    if bias is not None:
        layer.bias.data = torch.as_tensor(bias, dtype=dtype)
    return layer


@pytest.mark.parametrize("norm", NORMS)
def test_one_linear_layer_has_the_norm_of_its_matrix(norm):
    matrix = np.random.default_rng(0).standard_normal((4, 6))
    bound = upper_product(nn.Sequential(linear(matrix)), norm=norm)
    assert bound.value == pytest.approx(norms.bound_norm(matrix, norm=norm).upper, rel=1e-15)
    assert upper_product(linear(matrix), norm=norm).factors[0][0] == "model"
    assert (bound.norm, bound.method, bound.is_certified) == (norm, "product", True)
    assert bound.relative_gap <= 1e-8


@pytest.mark.parametrize("norm", NORMS)
def test_product_of_diagonal_layers_is_the_norm_of_the_product(norm):
    model = nn.Sequential(linear(np.diag([2.0, 1.0])), nn.ReLU(), linear(np.diag([3.0, 5.0])), linear([[4.0, 0.0]]))
    # The first coordinate is stretched by 2, 3, 4; the bound takes the larger 5 of the second layer.
    bound = upper_product(model, norm=norm)
    assert [value for _, value in bound.factors] == pytest.approx([2, 1, 5, 4], rel=1e-8)
    assert 40 <= bound.value <= 40 * (1 + 1e-7)


def test_row_sums_of_positive_networks_multiply_exactly():
    # With equal row sums r_i, W_2 W_1 has row sums r_2 r_1: the inf-norm product is the norm of the product.
    rng = np.random.default_rng(1)
    first, second = rng.random((5, 4)), rng.random((3, 5))
    first, second = 2 * first / first.sum(1, keepdims=True), 3 * second / second.sum(1, keepdims=True)
    bound = upper_product(nn.Sequential(linear(first), nn.ReLU(), linear(second)), norm=math.inf)
    assert bound.value == pytest.approx(np.linalg.norm(second @ first, math.inf), rel=1e-14)
    assert bound.value >= np.linalg.norm(second @ first, math.inf) * (1 - 1e-15)


@given(strategies.small_networks(), st.sampled_from(NORMS))
def test_the_factors_make_the_value_and_follow_lemma_d1(network, norm):
    bound = upper_product(network, norm=norm)
    assert [name for name, _ in bound.factors] == [str(index) for index in range(len(network))]
    assert bound.value == pytest.approx(math.prod(value for _, value in bound.factors), rel=1e-14)
    assert bound.value >= math.prod(value for _, value in bound.factors) * (1 - 1e-15)
    for layer, (_, value) in zip(network, bound.factors, strict=True):
        if isinstance(layer, nn.Linear):
            truth = np.linalg.norm(layer.weight.detach().double().numpy(), norm)
            assert truth * (1 - 1e-14) <= value <= truth * (1 + 1e-7)


@given(strategies.small_networks(), st.sampled_from(NORMS), st.integers(0, 2**32 - 1))
def test_no_sampled_slope_exceeds_the_bound(network, norm, seed):
    network = network.double()
    generator = torch.Generator().manual_seed(seed)
    d = network[0].in_features
    x = 3 * torch.randn(64, d, generator=generator, dtype=torch.float64)
    y = x + 10 ** (-3 * torch.rand(64, 1, generator=generator, dtype=torch.float64)) * torch.randn(
        64, d, generator=generator, dtype=torch.float64
    )
    with torch.no_grad():
        rise = torch.linalg.vector_norm(network(x) - network(y), ord=norm, dim=1)
    slopes = rise / torch.linalg.vector_norm(x - y, ord=norm, dim=1)
    assert float(slopes.max()) <= upper_product(network, norm=norm).value * (1 + 1e-9) + 1e-11


@given(strategies.small_networks(), st.sampled_from(NORMS), st.floats(0.01, 100))
def test_scaling_a_layer_scales_the_bound(network, norm, factor):
    network = network.double()
    before = upper_product(network, norm=norm).value
    network[0].weight.data *= factor
    assert upper_product(network, norm=norm).value == pytest.approx(factor * before, rel=1e-7)


def test_a_layer_that_stands_twice_counts_twice_and_keeps_both_names():
    layer, relu = linear([[3.0]]), nn.ReLU()
    model = nn.Sequential(layer, relu, nn.Sequential(layer, relu), nn.Flatten(), nn.Identity(), nn.Dropout().eval())
    bound = upper_product(model)
    assert [name for name, _ in bound.factors] == ["0", "1", "2.0", "2.1", "3", "4", "5"]
    assert 9 <= bound.value <= 9 * (1 + 1e-7)


def test_names_of_layers_are_kept():
    model = nn.Sequential(collections.OrderedDict(first=linear([[2.0]]), second=nn.Sigmoid()))
    assert [name for name, _ in upper_product(model).factors] == ["first", "second"]
    assert upper_product(model).factors[1] == ("second", 0.25)


def test_an_empty_network_is_the_identity():
    assert upper_product(nn.Sequential()).value == 1.0


def test_a_zero_layer_makes_zero_and_a_huge_product_infinity():
    zero, huge = linear([[0.0]]), linear([[1e200]])
    assert upper_product(nn.Sequential(huge, huge, zero)).value == 0.0
    assert upper_product(nn.Sequential(huge, huge)).value == math.inf


def test_a_product_below_the_smallest_number_is_rounded_up():
    small = linear([[1e-200]])
    assert upper_product(nn.Sequential(small, small)).value > 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_weights_are_widened_exactly(dtype):
    matrix = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    narrow, wide = linear(matrix, dtype=dtype), linear(matrix.double())
    assert upper_product(narrow).value == upper_product(wide).value


def test_the_input_is_not_changed():
    network = fully_connected.random_network(3, depth=3, width=4, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    upper_product(network)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())


class Steeper(nn.ReLU):
    def forward(self, x):
        return 10 * x


def with_hook(layer):
    layer.register_forward_hook(lambda module, inputs, output: 10 * output)
    return layer


@pytest.mark.parametrize(
    "layer, message",
    [
        (nn.Conv2d(1, 1, 3), r"^layer '1' must be one of Linear, Tanh, ReLU, .*, Dropout, got Conv2d$"),
        (nn.Softmax(dim=1), r"^layer '1' must be one of .*, got Softmax$"),
        (Steeper(), r"^layer '1' must be one of .*, got Steeper$"),
        (nn.Sequential(nn.ReLU(), nn.BatchNorm1d(2)), r"^layer '1.1' must be one of .*, got BatchNorm1d$"),
        (with_hook(nn.ReLU()), r"^layer '1' must have no hooks, got a ReLU with hooks$"),
        (with_hook(nn.Sequential(nn.ReLU())), r"^layer '1' must be one of .*, got Sequential$"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), r"^layer '1' must be .*, got ParametrizedLinear$"),
        (nn.Dropout(), r"^layer '1' must be in evaluation mode, got a Dropout in training mode$"),
        (linear([[1.0, math.nan]]), r"^layer '1': matrix must hold finite numbers, got nan$"),
    ],
)
def test_what_is_not_known_is_refused_by_name(layer, message):
    with pytest.raises(ValueError, match=message):
        upper_product(nn.Sequential(linear(np.eye(2)), layer))


def test_complex_weights_are_refused():
    with pytest.raises(TypeError, match=r"^layer '0' must have real floating-point weights, got torch.complex64$"):
        upper_product(nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)))


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"^norm must be 1, 2 or inf, got 0$"):
        upper_product(nn.Sequential(), norm=0)
