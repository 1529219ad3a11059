"""LipSDP: value and time beside cvxpy with Clarabel (a general interior-point solver) and eclipse-nn:
python -m pytest -s tests/benchmarks/bench_lipsdp.py

Networks are of Gaussian weights of variance 2 / fan-in. Peers' values are as they print them: none is certified.
"""

import itertools
import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from lipschitz.lower import lower_gradient_ascent
from lipschitz.rescaling import upper_rescaled
from lipschitz.sdp import upper_lipsdp

SIZES = [(64, 64, 10), (64, 64, 64, 10), (784, 256, 256, 10), (64, *[64] * 8, 10), (3072, *[1024] * 4, 10)]
MOST_NEURONS_FOR_CLARABEL = 130  # 128 take half a minute on an idle machine, more take long


def network(sizes):
    generator = torch.Generator().manual_seed(0)
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layer = nn.Linear(fan_in, fan_out, bias=False, dtype=torch.float64)
        layer.weight.data = torch.randn(fan_out, fan_in, generator=generator, dtype=torch.float64) * math.sqrt(
            2 / fan_in
        )
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers[:-1]).eval()
    return model, [layer.weight.detach() for layer in layers[::2]]


def by_clarabel(weights):
    """The same program: value and seconds."""
    cvxpy = pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    rho = cvxpy.Variable()
    multipliers = [cvxpy.Variable(len(weight), nonneg=True) for weight in weights[:-1]]
    sizes = [weights[0].shape[1], *(len(weight) for weight in weights[:-1])]
    blocks = [[np.zeros((m, n)) for n in sizes] for m in sizes]
    blocks[0][0] = rho * np.eye(sizes[0])
    for place, (multiplier, weight) in enumerate(zip(multipliers, weights[:-1], strict=True)):
        blocks[place + 1][place + 1] = 2 * cvxpy.diag(multiplier)
        blocks[place + 1][place] = -cvxpy.diag(multiplier) @ weight
        blocks[place][place + 1] = blocks[place + 1][place].T
    blocks[-1][-1] -= weights[-1].T @ weights[-1]
    before = time.perf_counter()
    cvxpy.Problem(cvxpy.Minimize(rho), [cvxpy.bmat(blocks) >> 0]).solve(solver="CLARABEL")
    return math.sqrt(rho.value), time.perf_counter() - before


def by_eclipse(weights, method):
    """What eclipse-nn gives: value and seconds."""
    eclipse = pytest.importorskip("eclipse_nn.LipConstEstimator")
    before = time.perf_counter()
    value = float(eclipse.LipConstEstimator(weights=list(weights)).estimate(method))
    return value, time.perf_counter() - before


@pytest.mark.parametrize("sizes", SIZES, ids=lambda sizes: "-".join(map(str, sizes)))
@pytest.mark.filterwarnings("ignore")
def test_value_and_time(benchmark, sizes):
    model, weights = network(sizes)
    bound = benchmark.pedantic(upper_lipsdp, args=(model, sizes[:1]), rounds=1 if max(sizes) > 1000 else 3)
    product = math.prod(float(torch.linalg.matrix_norm(weight, ord=2)) for weight in weights)
    print(f"\n{'-'.join(map(str, sizes))}: product {product:.6g}")
    print(
        f"  ours      {bound.value:.8g}, certified, gap {bound.relative_gap:.1e}, {bound.n_sweeps} sweeps, "
        f"{benchmark.stats.stats.min:.4f} s"
    )
    rows = {"eclipse-nn Fast": lambda: by_eclipse(weights, "ECLipsE_Fast")}
    if sum(sizes[1:-1]) <= MOST_NEURONS_FOR_CLARABEL:
        rows["Clarabel"] = lambda: by_clarabel([weight.numpy() for weight in weights])
    for name, run in rows.items():
        try:
            value, seconds = run()
        except pytest.skip.Exception:
            continue
        print(f"  {name}  {value:.8g}, {seconds:.3f} s")
        benchmark.extra_info[name] = (value, seconds)


class Skip(nn.Module):
    """A convolution with a skip around it."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        return 6.0 * x + torch.relu(self.convolution(x))


@pytest.mark.filterwarnings("ignore")
def test_what_others_get_wrong(benchmark):
    """eclipse-nn reads the Linear layers of a model and drops what stands between them without a word."""
    eclipse = pytest.importorskip("eclipse_nn.LipConstEstimator")
    torch.manual_seed(0)
    model = nn.Sequential(Skip(), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    peer = float(eclipse.LipConstEstimator(model=model).estimate("ECLipsE_Fast"))
    bound = benchmark.pedantic(upper_rescaled, args=(model, (1, 6, 6)), rounds=1)
    generator = torch.Generator().manual_seed(0)
    attained = lower_gradient_ascent(model, torch.randn(16, 1, 6, 6), generator=generator)
    print(f"\nwith a skip: ours at most {bound.value:.4f}, attained {attained.value:.4f}, eclipse-nn {peer:.4f}")
    assert peer < attained.value <= bound.value
