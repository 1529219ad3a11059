"""The bound composed of the steps' constants."""

import collections
import contextlib
import itertools
import math
from fractions import Fraction

import numpy as np
import oracles
import pytest
import strategies
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lipschitz import absolute, closed_forms, fully_connected, liplt, norms, rescaling, sdp, upper

NORMS = (1, 2, math.inf)


def upper_product(model, input_shape=None, **keywords):
    """The bound; the input is as long as the first Linear wants it, or one number."""
    if input_shape is None:
        input_shape = (next((layer.in_features for layer in model.modules() if isinstance(layer, nn.Linear)), 1),)
    return upper.upper_product(model, input_shape, **keywords)


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
    assert upper_product(linear(matrix), norm=norm).factors[0][0] == "Linear"
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
    assert [name.split(".")[0] for name, _ in bound.factors] == [str(index) for index in range(len(network))]
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
    assert [name for name, _ in bound.factors] == ["0", "1", "0#2", "1#2"]
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


@pytest.mark.parametrize(
    "layer, message",
    [
        (nn.Hardshrink(), r"^layer '1' \(Hardshrink\) must be one that is known, got hardshrink: it jumps$"),
        (nn.Dropout(), r"^layer '1' \(Dropout\) must be in evaluation mode \(call .eval\(\)\), got bernoulli"),
        (linear([[1.0, math.nan], [0.0, 1.0]]), r"^layer '1': matrix must hold finite numbers, got nan$"),
    ],
)
def test_what_is_not_known_is_refused_by_name(layer, message):
    with pytest.raises(ValueError, match=message):
        upper_product(nn.Sequential(linear(np.eye(2)), layer))


def test_a_convolution_of_numbers_that_are_not_finite_is_refused():
    layer = nn.Conv2d(1, 1, 1)
    layer.weight.data.fill_(math.inf)
    with pytest.raises(ValueError, match=r"^layer '0': weight must hold finite numbers, got inf$"):
        upper_product(nn.Sequential(layer), (1, 2, 2))


def test_a_class_made_from_a_layer_is_read_for_what_it_does():
    assert upper_product(nn.Sequential(linear(np.eye(2)), Steeper())).value == pytest.approx(10, rel=1e-7)


def test_a_batch_norm_without_a_finite_scale_is_refused():
    layer = nn.BatchNorm1d(2, eps=0.0).eval()
    layer.running_var.zero_()
    with pytest.raises(ValueError, match=r"^layer '0' must have finite scales, got inf$"):
        upper_product(nn.Sequential(layer), (2,))


@pytest.mark.parametrize("norm", NORMS)
def test_residual_blocks_add_and_branches_combine(norm):
    triple, double = linear([[3.0, 0.0], [0.0, 3.0]]), linear([[2.0, 0.0], [0.0, 2.0]])
    assert upper_product(strategies.Residual(triple), norm=norm).value == pytest.approx(4.0, rel=1e-7)
    branches = strategies.Branches(triple, double, nn.Identity(), factor=-2.0)
    truth = {1: 2 * (3 + 2 + 1), 2: 2 * math.sqrt(9 + 4 + 1), math.inf: 2 * 3}[norm]
    bound = upper_product(branches, norm=norm)
    assert truth <= bound.value <= truth * (1 + 1e-7)
    assert [name.split(" ")[0] for name, _ in bound.factors] == ["blocks.0", "blocks.1", "mul", "add"]


@pytest.mark.parametrize("slope, truth", [(0.1, 1), (-3.0, 3), (2.5, 2.5)])
def test_leaky_functions_have_their_larger_slope(slope, truth):
    assert dict(upper_product(nn.LeakyReLU(slope), (2,)).factors) == {"LeakyReLU": truth}


def test_a_tensor_added_to_itself_doubles():
    class Double(nn.Module):
        def forward(self, x):
            return x + x

    assert upper_product(Double(), (3,)).value == pytest.approx(2.0, rel=1e-15)
    assert upper_product(Double(), (3,)).value >= 2.0


@pytest.mark.parametrize("norm", NORMS)
def test_a_batch_norm_is_folded_where_it_alone_reads_the_layer(norm):
    norm_layer = nn.BatchNorm1d(2, eps=0.0, dtype=torch.float64).eval()
    norm_layer.running_var.copy_(torch.tensor([4.0, 0.25]))
    norm_layer.weight.data.copy_(torch.tensor([-1.0, 3.0]))  # scales -0.5 and 6
    matrix = linear(np.diag([8.0, 1.0]))
    folded = upper_product(nn.Sequential(matrix, norm_layer), norm=norm)
    assert 6 <= folded.value <= 6 * (1 + 1e-7)
    assert folded.factors[1] == ("1", 1.0)
    apart = upper_product(nn.Sequential(matrix, nn.ReLU(), norm_layer), norm=norm)
    assert 48 <= apart.value <= 48 * (1 + 1e-7)

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.norm_layer = matrix, norm_layer

        def forward(self, x):
            y = self.matrix(x)
            return self.norm_layer(y) + y

    assert upper_product(Both(), norm=norm).value == pytest.approx(8 * 6 + 8, rel=1e-7)


@pytest.mark.parametrize("stride, norm, truth", [(2, 2, 2), (1, 2, 3), (1, 1, 9), (1, math.inf, 1)])
def test_max_pooling_counts_the_windows(stride, norm, truth):
    bound = upper_product(nn.MaxPool2d(3, stride, 1), (1, 8, 8), norm=norm)
    assert truth <= bound.value <= truth * (1 + 1e-15)


def slopes(model, input_shape, norm, seed, n=64, radius=3.0):
    """Sampled secants, over distances from 1e-3 to 1."""
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    x = radius * torch.randn(n, *input_shape, **options)
    distances = 10 ** (-3 * torch.rand(n, *[1] * len(input_shape), **options))
    y = x + distances * torch.randn(n, *input_shape, **options)
    with torch.no_grad():
        rise = torch.linalg.vector_norm((model(x) - model(y)).flatten(1), ord=norm, dim=1)
    return rise / torch.linalg.vector_norm((x - y).flatten(1), ord=norm, dim=1)


@given(strategies.graph_networks(), st.sampled_from(NORMS), st.integers(0, 2**32 - 1))
@settings(max_examples=600)
def test_no_sampled_slope_of_any_network_exceeds_the_bound(network_and_shape, norm, seed):
    network, input_shape = network_and_shape
    bound = upper_product(network, input_shape, norm=norm)
    assert bound.is_certified
    assert float(slopes(network, input_shape, norm, seed).max()) <= bound.value * (1 + 1e-9) + 1e-9


@given(strategies.graph_networks(pointwise=(nn.Identity,)), st.sampled_from(NORMS))
@settings(max_examples=100)
def test_no_attained_slope_of_linear_networks_exceeds_the_bound(network_and_shape, norm):
    network, input_shape = network_and_shape
    if any(isinstance(layer, nn.MaxPool2d) for layer in network.modules()):
        network = nn.Sequential(*(layer for layer in network if not isinstance(layer, nn.MaxPool2d)))
    n = int(np.prod(input_shape))
    units = torch.eye(n, dtype=torch.float64).reshape(n, *input_shape)
    with torch.no_grad():
        try:
            matrix = (network(units) - network(torch.zeros_like(units))).flatten(1).T.numpy()
        except RuntimeError:  # the layers no longer fit
            return
    truth = np.linalg.norm(matrix, norm)
    assert truth <= upper_product(network, input_shape, norm=norm).value * (1 + 1e-12) + 1e-12


@pytest.mark.parametrize("norm", [1, math.inf])
def test_resnet18_has_a_certified_bound(norm):
    network = torchvision.models.resnet18(weights=None).eval()
    bound = upper.upper_product(network, (3, 32, 32), norm=norm)
    assert bound.is_certified
    assert math.isfinite(bound.value)
    assert bound.failure_probability == 0.0
    constants = dict(bound.factors)
    assert len(constants) == 61
    assert constants["layer1.0.bn1"] == 1.0  # folded
    assert constants["maxpool"] == {1: 4.0, math.inf: 1.0}[norm]
    # The last block by hand: twice a ReLU, two convolutions with their BatchNorms beside the identity, the end.
    branch = constants["layer4.1.conv1"] * constants["layer4.1.conv2"]
    assert branch > 1.0
    assert bound.value > constants["avgpool"] * constants["fc"] * (1 + branch)


def test_googlenet_has_a_certified_bound():
    network = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False).eval()
    bound = upper.upper_product(network, (3, 32, 32), tolerance=0.3)
    assert bound.is_certified
    assert math.isfinite(bound.value)
    assert dict(bound.factors)["maxpool1"] == 2.0


@pytest.mark.parametrize("seed, norm", list(itertools.product(range(3), NORMS)))
def test_the_bound_is_not_below_exact_constants(seed, norm):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(shape) for shape in ((4, 2), (3, 4), (2, 3))]
    biases = [rng.standard_normal(length) for length in (4, 3, 2)]
    layers = [linear(weight, bias) for weight, bias in zip(weights, biases, strict=True)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    assert oracles.relu_lipschitz_constant(weights, biases, norm) <= upper_product(model, norm=norm).value


METHODS = {
    "product": lambda model, shape, norm: upper.upper_product(model, shape, norm=norm),
    "rescaled": lambda model, shape, norm: rescaling.upper_rescaled(model, shape, norm=norm, n_steps=3),
    "absolute": lambda model, shape, norm: absolute.upper_absolute(model, shape, norm=norm),
    "liplt": lambda model, shape, norm: liplt.upper_liplt(model, shape, norm=norm),
    "lipsdp": lambda model, shape, norm: sdp.upper_lipsdp(model, shape, max_sweeps=8),
    "closed form": lambda model, shape, norm: closed_forms.upper_closed_form(model, shape),
}


@given(strategies.networks_of_any_scale(), st.data())
@settings(max_examples=20, deadline=None)
def test_no_bound_is_below_an_exact_secant_whatever_the_scale(network, data):
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    weights, biases = ([getattr(layer, name).detach().numpy() for layer in layers] for name in ("weight", "bias"))
    n_inputs = layers[0].in_features
    vectors = st.lists(strategies.numbers_of_any_scale(), min_size=n_inputs, max_size=n_inputs)
    secants = []
    for _ in range(4):
        x = [Fraction(number) for number in data.draw(vectors)]
        dx = [Fraction(number) for number in data.draw(vectors.filter(any))]
        ends = [oracles.relu_outputs(weights, biases, end) for end in (x, [a + b for a, b in zip(x, dx, strict=True)])]
        secants.append((dx, [b - a for a, b in zip(*ends, strict=True)]))
    for (name, bound), norm in itertools.product(METHODS.items(), NORMS):
        if norm != 2 and name in ("lipsdp", "closed form"):
            continue
        value = math.inf
        with contextlib.suppress(RuntimeError):  # documented for these two, where weights span too much of the range
            value = bound(network, (n_inputs,), norm).value
        assert all(oracles.is_at_least_secant(value, dx, dy, norm) for dx, dy in secants), (name, norm, value)


@pytest.mark.parametrize("name", ["product", "rescaled", "absolute", "liplt", "lipsdp", "closed form"])
@pytest.mark.parametrize(
    "exponents", [(-565, 283, 285), (600, 600, -1000), (-600, -600, 1000), (1020, 1020, -1000), (-1070, 30, 1000)]
)
def test_the_scales_of_layers_do_not_matter_but_their_product(name, exponents):
    model = nn.Sequential(
        *(linear(2.0**exponent * np.array([[1.0, 2.0], [0.5, 1.0]])) for exponent in exponents)
    )  # of norm 2.5, and of rank one: the product of the three is 2.5 * 2^2 times the first
    truth = 2.5 * 4.0 * 2.0 ** sum(exponents) if sum(exponents) < 1020 else math.inf
    for norm in (2,) if name in ("lipsdp", "closed form") else NORMS:
        value = METHODS[name](model, (2,), norm).value
        assert value >= truth * (1.0 if norm == 2 else 0.5)


@pytest.mark.parametrize("name", ["product", "rescaled", "absolute", "liplt"])
def test_a_scale_that_underflows_on_the_way_is_counted(name):
    # 1e-200 twice, then 1e250 twice: the slope is 1e100.
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("one", torch.ones((), dtype=torch.float64))  # float32 does not hold the numbers

        def forward(self, x):
            return x * 1e-200 * 1e-200 * 1e250 * 1e250

    assert METHODS[name](Scaled(), (2,), 2).value >= 0.999e100
    chain = nn.Sequential(linear(np.eye(2)), Scaled(), linear(np.eye(2)))
    assert sdp.upper_lipsdp(chain, (2,)).value >= 0.999e100


@pytest.mark.parametrize("name", ["product", "rescaled", "liplt", "absolute"])
@pytest.mark.parametrize("kind", [nn.MaxPool2d, nn.AvgPool2d])
def test_settings_of_poolings_may_be_lists(name, kind):
    values = [
        METHODS[name](nn.Sequential(kind(form([3, 2]), form([2, 1]), form([1, 1]))), (1, 4, 4), norm).value
        for form, norm in itertools.product((list, tuple), NORMS)
    ]
    assert values[:3] == values[3:]


@pytest.mark.parametrize("name", ["product", "rescaled", "liplt", "absolute"])
def test_a_batch_norm_that_overflows_with_its_layer_makes_infinity(name):
    model = nn.Sequential(linear(1e200 * np.eye(2)), nn.BatchNorm1d(2, dtype=torch.float64)).eval()
    model[1].weight.data.fill_(1e200)
    assert METHODS[name](model, (2,), 2).value == math.inf


def test_complex_weights_are_refused():
    with pytest.raises(TypeError, match=r"^weights must be real floating-point numbers, got '0.weight' of"):
        upper_product(nn.Sequential(nn.Linear(2, 2, dtype=torch.complex64)))


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"^norm must be 1, 2 or inf, got 0$"):
        upper_product(nn.Sequential(), norm=0)
