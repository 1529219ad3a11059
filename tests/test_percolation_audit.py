"""The audit: its table is whole, each verdict has a number that tells it, and each correction is true."""

import ast
import itertools
import json
import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special, stats

from percolation import audit, campaign, finite_clusters, labels, meanfield, rare, threshold
from percolation._audit import lattice_checks, network_checks
from percolation._audit.entry import VERDICTS, agrees

ROOT = Path(__file__).parent.parent
KEYS = [entry.key for entry in audit.ENTRIES]
ENTRY = dict(zip(KEYS, audit.ENTRIES, strict=True))
NODES = np.polynomial.legendre.leggauss(80)


def over(low, high):
    """Gauss-Legendre nodes and weights on [low, high]."""
    nodes, weights = NODES
    return (low + high) / 2 + (high - low) / 2 * nodes, (high - low) / 2 * weights


# The table


def test_every_equation_of_the_theory_has_an_entry():
    assert {number for entry in audit.ENTRIES for number in entry.equations} == {3, 4, *range(8, 25)}


def test_every_entry_is_whole():
    assert len(set(KEYS)) == len(KEYS)
    assert set(audit.MEASURES) == set(KEYS)
    for entry in audit.ENTRIES:
        assert (entry.verdict == "holds") == (entry.correction == ""), entry.key
        assert entry.argument
        assert entry.evidence
        assert len(entry.statement) <= 130, entry.key


@pytest.mark.parametrize("name", sorted({name for entry in audit.ENTRIES for name in entry.evidence}))
def test_the_evidence_exists(name):
    path, function = name.split("::")
    defined = {node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)}
    assert function in defined


@pytest.mark.parametrize("key", KEYS)
def test_the_number_beside_each_entry_tells_its_verdict(key):
    """False alarms: below 1e-4 an entry, as the checks' tolerances are four standard errors or more."""
    check = audit.MEASURES[key](np.random.default_rng(campaign.seed_sequence(20, key)))
    assert agrees(check, check.corrected), check
    assert agrees(check, check.claimed) == (ENTRY[key].verdict == "holds"), check


def test_the_readme_has_the_table():
    readme = (ROOT / "README.md").read_text()
    marks = {"holds": "✓", "holds with a correction": "≈", "fails": "✗"}
    counts = [sum(entry.verdict == verdict for entry in audit.ENTRIES) for verdict in marks]
    section = readme.split("## The audit")[1].split("\n## ")[0]
    assert re.findall(r"(\d+) (?:hold|fail)", section) == [str(count) for count in counts]
    rows = [line for line in section.splitlines() if line.startswith(tuple(f"| {mark}" for mark in marks.values()))]
    for row, entry in zip(rows, audit.ENTRIES, strict=True):
        equations = ", ".join(map(str, entry.equations))
        expected = f"| {marks[entry.verdict]} | {equations} | {entry.statement} | {entry.correction} |"
        assert row.replace("\\|", "|") == expected


def test_every_verdict_is_given_by_the_one_rule_that_readers_see():
    assert {entry.needs for entry in audit.ENTRIES} == set(VERDICTS)
    assert all(entry.verdict == VERDICTS[entry.needs] for entry in audit.ENTRIES)
    holds, corrected, fails = audit.RULE.split(". ")[:3]
    for text, needs in ((corrected, ("constants", "readings")), (fails, ("formula", "assumption", "nothing helps"))):
        assert all(word in text for word in needs)
    assert "true as printed" in holds
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert audit.RULE in readme
    # both are false as printed, and true under a further assumption
    assert {ENTRY[key].verdict for key in ("loss", "labels in one network", "cross-entropy")} == {"fails"}


def test_a_number_agrees_as_its_relation_asks():
    check = network_checks.Check(quantity="", claimed=1.0, corrected=2.0, found=2.01)
    assert agrees(check, 2.0)
    assert not agrees(check, 1.0)
    assert not agrees(check, 0.0)
    below = network_checks.Check(quantity="", claimed=1.0, corrected=2.0, found=2.0, relation="<=")
    assert (agrees(below, 1.0), agrees(below, 2.0), agrees(below, 3.0)) == (False, True, True)
    above = network_checks.Check(quantity="", claimed=1.0, corrected=2.0, found=2.0, relation=">=")
    assert (agrees(above, 1.0), agrees(above, 2.0), agrees(above, 3.0)) == (True, True, False)


def test_the_experiment_writes_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "MEASURES", dict.fromkeys(KEYS, network_checks.loss))
    run = campaign.run(audit.EXPERIMENT, audit.Settings(), out=tmp_path)
    assert list(run.dataset["entry"].to_numpy()) == KEYS
    assert list(run.dataset["verdict"].to_numpy()) == [entry.verdict for entry in audit.ENTRIES]
    assert sum(run.summary["counts"].values()) == len(KEYS)
    assert json.loads((run.folder / "summary.json").read_text())["rows"][0]["key"] == KEYS[0]
    assert bool(np.all(np.isfinite(run.dataset["found"])))


# Section 4: the cover and the labels


@given(st.integers(2, 30), st.integers(1, 40), st.data())
def test_values_share_an_interval_always_exactly_up_to_length_less_step(n, n_steps, data):
    """Exact: intervals of length 1/n, the first at 0, one every s, the last at 1 - 1/n."""
    length = Fraction(1, n)
    step = (1 - length) / n_steps
    assume(step < length)
    starts = [k * step for k in range(n_steps + 1)]

    def share(low, high):
        return any(start <= low and high <= start + length for start in starts)

    most = length - step
    part = data.draw(st.fractions(0, 1, max_denominator=1000))
    low = part * (1 - most)
    assert share(low, low + most)
    width = data.draw(st.fractions(0, 1, max_denominator=1000)) * most / 2
    apart = most - 2 * width
    assert share(low, low + apart + 2 * width)  # the cubes of two values, a range of `width` to either side
    if n_steps > 1:
        k = data.draw(st.integers(0, n_steps - 2))
        beyond = data.draw(st.fractions(0, 1, max_denominator=1000).filter(bool)) * step / 2
        assert not share((k + 1) * step - beyond, k * step + length + beyond)  # 2 * beyond above `most`


@given(st.fractions(0, Fraction(9, 10), max_denominator=1000), st.integers(2, 20), st.fractions(0, 1))
def test_a_finer_cover_mends_the_shared_interval(part, n, place):
    """Exact: with a start every s = (delta - delta') / 2 or less, ranges of w = (delta - delta') / 4 on either side."""
    delta = Fraction(1, n)
    delta_prime = part * delta
    n_steps = math.ceil((1 - delta) / ((delta - delta_prime) / 2))
    starts = [k * (1 - delta) / n_steps for k in range(n_steps + 1)]
    range_ = (delta - delta_prime) / 4
    low = place * (1 - delta_prime)
    ends = max(low - range_, Fraction(0)), min(low + delta_prime + range_, Fraction(1))
    assert any(start <= ends[0] and ends[1] <= start + delta for start in starts)


def test_a_row_of_overlapping_intervals_leads_from_0_to_1():
    cells = labels.cells(np.arange(9) / 8, 0.25)
    assert np.abs(np.diff(cells)).max() == 1
    first, last = labels.carried(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 0.25)
    assert last[0] < first[1]
    connection = lattice_checks.connected_cubes(np.random.default_rng(0))
    assert connection.found > 0.99


@given(st.integers(2, 20), st.floats(0.5, 1, exclude_min=True, exclude_max=True))
def test_a_wide_cube_carries_a_label_as_often_as_the_formula_says(n, part):
    delta = 1 / n
    width = part * delta
    low = (np.arange(20_000) + 0.5) / 20_000 * (1 - width)
    first, last = labels.carried(low, low + width, delta)
    # each of the 2n - 1 intervals contributes a stretch, counted to one grid point at either end
    assert (first <= last).mean() == pytest.approx(
        (2 * n - 1) * (delta - width) / (1 - width), abs=2 * (2 * n - 1) / 20_000
    )


@given(st.integers(2, 20), st.floats(0, 1), st.data())
def test_a_cube_is_certain_of_a_label_with_probability_delta_less_its_range(n, part, data):
    delta = 1 / n
    width = part * delta
    label = data.draw(st.integers(0, 2 * n - 2))
    low = (np.arange(20_000) + 0.5) / 20_000
    first, last = labels.carried(low, np.minimum(low + width, 1), delta)
    share = ((first <= label) & (label <= last)).mean()
    # the last interval also takes the cubes that the end of [0, 1] cuts
    expected = delta if label == 2 * n - 2 else delta - width
    assert share == pytest.approx(expected, abs=3 / 20_000)
    assert delta - width - 3 / 20_000 <= share <= delta + 3 / 20_000


@given(st.integers(2, 50), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_cubes_that_share_a_face_share_a_label(n, common, left, right):
    """Two ranges of delta/4 with a common value, wherever they lie."""
    delta = 1 / n
    width = delta / 4 * (1 - 1e-12)
    ranges = [(max(common - part * width, 0), min(common + (1 - part) * width, 1)) for part in (left, right)]
    first, last = labels.carried(*np.array(ranges).T, delta)
    assert max(first) <= min(last)


@given(st.integers(2, 20), st.fractions(0, 1, max_denominator=100), st.fractions(0, 1, max_denominator=1000))
def test_cubes_of_near_inputs_share_a_label_up_to_what_their_own_ranges_take(n, part, place):
    """Exact: outputs (delta/2 - 2w) apart at most, w to either side of each; any farther and some do not."""
    delta = Fraction(1, n)
    width = part * delta / 4
    starts = [k * delta / 2 for k in range(2 * n - 1)]

    def share(low, high):
        return any(start <= low and high <= start + delta for start in starts)

    apart = delta / 2 - 2 * width
    low = place * (1 - apart)
    assert share(max(low - width, Fraction(0)), min(low + apart + width, Fraction(1)))
    beyond = delta / 100
    first = starts[1] - beyond / 2 + width  # its cube begins just below a start
    assert not share(first - width, first + apart + beyond + width)


def test_half_of_the_probability_is_more_than_half_of_the_rate():
    for delta in (0.5, 0.1, 0.001):
        assert meanfield.rate_per_dimension(delta / 2) < meanfield.rate_per_dimension(delta) / 2


@given(st.integers(1, 60))
def test_independent_cells_share_a_label_as_rarely_as_the_formula_says(n):
    count = labels.n_cells(1 / n)
    cells = np.arange(count)
    share = (np.abs(cells[:, None] - cells) <= 1).mean()
    assert share == pytest.approx(3 / (2 * n) - 1 / (2 * n**2))


def test_the_first_dimension_of_a_label_is_half_the_number_of_labels_and_two():
    sites = threshold.PUBLISHED["site"]
    values = {d: sites[d][0] if d in sites else threshold.series(d) for d in range(2, 1003)}
    for n_labels in range(2, 2001):
        d = n_labels // 2 + 2
        assert values[d] < 1 / n_labels, n_labels
        assert d == 3 or values[d - 1] > 1 / n_labels, n_labels
    assert values[2] > 1 / 2
    # outputs in the disc, labels of diameter 1/n: p = 1/(2n)^2, and d > (1/p + 1)/2 is needed, and nearly enough
    for n in range(1, 20):
        first = next(d for d in range(2, 1003) if values[d] < 1 / (2 * n) ** 2)
        assert ((2 * n) ** 2 + 1) / 2 < first < ((2 * n) ** 2 + 1) / 2 + 3
    assert ((2 / 0.001) ** 10 + 1) / 2 > 5e32


@pytest.mark.parametrize("n_outputs, delta", [(1, 0.4), (2, 0.5), (3, 1.0)])
def test_a_ball_of_outputs_is_the_likeliest_set_of_its_diameter(n_outputs, delta):
    """Uniform in the unit ball: (delta/2)^k, more than other bodies have. Four standard errors: below 1e-4."""
    k, n = n_outputs, 200_000
    rng = np.random.default_rng(3)
    outputs = rng.standard_normal((n, k))
    outputs *= rng.random((n, 1)) ** (1 / k) / np.linalg.norm(outputs, axis=1, keepdims=True)
    centre = np.eye(k)[0] * (1 - delta / 2)
    for diameter, middle in ((delta, 0 * centre), (delta, centre), (2 * delta, 0 * centre)):
        expected = (diameter / 2) ** k
        share = (np.linalg.norm(outputs - middle, axis=1) <= diameter / 2).mean()
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected / n))
    # within delta of a y at the sphere less than delta^k
    assert (np.linalg.norm(outputs - np.eye(k)[0], axis=1) <= delta).mean() < delta**k
    ball = math.pi ** (k / 2) / math.gamma(k / 2 + 1)
    others = {
        "cube": (delta / math.sqrt(k)) ** k,
        "cross": delta**k / math.factorial(k),
        "simplex": delta**k * math.sqrt(k + 1) / (math.factorial(k) * 2 ** (k / 2)),
        "Reuleaux triangle": (math.pi - math.sqrt(3)) / 2 * delta**2 if k == 2 else 0.0,
    }
    for volume in others.values():
        assert volume / ball <= (delta / 2) ** k * (1 + 1e-12)


# Correlation: Section 4, App. C, G.1


def two_in(low, high, correlation):
    x, weights = over(low, high)
    spread = math.sqrt(1 - correlation**2)
    inside = special.ndtr((high - correlation * x) / spread) - special.ndtr((low - correlation * x) / spread)
    return float(np.sum(weights * stats.norm.pdf(x) * inside))


@given(st.floats(0, 0.95), st.floats(-3, 3), st.floats(0.01, 3))
def test_two_gaussian_cubes_share_any_label_at_least_as_often_as_independent_ones(correlation, low, width):
    p = special.ndtr(low + width) - special.ndtr(low)
    assert two_in(low, low + width, correlation) >= p**2 - 1e-10


@given(st.floats(-0.95, -0.05), st.floats(-2, 2))
def test_negative_correlation_separates_end_labels(correlation, low):
    p = special.ndtr(-low)
    assert two_in(low, 8.0, correlation) < p**2 - 1e-6 * p


def middle_given_ends(low, high, to_left, to_right, across):
    """P(X1 in I | X0, X2 in I) for standard Gaussians with these correlations."""
    x, weights = over(low, high)
    left, right = np.meshgrid(x, x)
    inverse = np.linalg.inv(np.array([[1, across], [across, 1]]))
    pull = inverse @ np.array([to_left, to_right])
    mean, spread = pull[0] * left + pull[1] * right, math.sqrt(1 - np.array([to_left, to_right]) @ pull)
    density = np.exp(-(left**2 - 2 * across * left * right + right**2) / (2 * (1 - across**2)))
    density *= weights[:, None] * weights
    inside = special.ndtr((high - mean) / spread) - special.ndtr((low - mean) / spread)
    return float(np.sum(density * inside) / np.sum(density))


@given(st.lists(st.floats(0, 0.9), min_size=3, max_size=3), st.booleans(), st.floats(0.2, 2), st.integers(0, 2**32 - 1))
def test_a_path_at_an_end_or_in_the_middle_is_favoured_by_positive_correlation(correlations, at_end, edge, signs):
    """Pitt's inequality at an end, correlations not negative; Royen's in the middle, whatever their signs."""
    if not at_end:
        correlations = [r if signs >> i & 1 else -r for i, r in enumerate(correlations)]
    to_left, to_right, across = correlations
    matrix = np.array([[1, to_left, across], [to_left, 1, to_right], [across, to_right, 1]])
    assume(np.linalg.eigvalsh(matrix)[0] > 0.05)
    low, high = (edge - 1, 8.0) if at_end else (-edge, edge)
    p = special.ndtr(high) - special.ndtr(low)
    assert middle_given_ends(low, high, to_left, to_right, across) >= p - 1e-8


@given(st.floats(0.1, 0.9), st.floats(0.05, 0.95))
def test_a_path_off_the_middle_can_be_blocked_by_positive_correlation(low, part):
    """x1 = (x0 + x2) / sqrt 2 lies beyond b whenever x0 and x2 lie in [a, b], b < sqrt(2) a."""
    high = low * (1 + part * (math.sqrt(2) - 1))
    x = np.linspace(low, high, 50)
    assert np.min((x[:, None] + x) / math.sqrt(2)) > high


def test_a_path_off_the_middle_is_disfavoured_by_correlations_short_of_that():
    p = special.ndtr(1.6) - special.ndtr(1.5)
    assert middle_given_ends(1.5, 1.6, 0.7, 0.7, 0.0) < 0.01 * p


def test_a_linear_network_s_middle_cube_has_the_label_s_probability_when_the_ends_are_not_asked():
    """Four standard errors of 0.05: false alarms below 1e-4."""
    given_ends, alone = lattice_checks.line_between((0.85, 0.9), 200_000, np.random.default_rng(0))
    assert given_ends == 0
    assert alone == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 200_000))


@pytest.mark.parametrize("low, high", [(0.05, 0.35), (0.1, 0.2)])
def test_a_common_level_connects_less_than_independence(low, high):
    """Half of the networks with density ``low``, half with ``high``; against all with the mean, where loops are few."""
    mean = (low + high) / 2
    for d in (40, 64, 100):
        lost = [float(finite_clusters.lower_disconnected(p, d, 2)) for p in (low, high)]
        mixed = sum(p**2 * q for p, q in zip((low, high), lost, strict=True)) / (low**2 + high**2)
        independent = rare.finite_probability(mean, d, n_samples=500, max_sites=500, rng=np.random.default_rng(d))
        assert mixed > 1.5 * (2 * independent.value)  # even one end alone, for the lower bound of Q in the mixture
    rates = [math.log(float(meanfield.isolated(low, 2 * d))) for d in (200, 400)]
    assert (rates[0] - rates[1]) / 200 == pytest.approx(meanfield.rate_per_dimension(low))
    assert meanfield.rate_per_dimension(low) < meanfield.rate_per_dimension(mean)


def test_a_level_that_some_networks_lack_connects_more_than_independence():
    """Density 0 in half of the networks, 2 delta in the others: inputs that carry the label are in the others."""
    delta, d = 0.1, 24
    found = [
        rare.finite_probability(p, d, n_samples=1000, max_sites=500, rng=np.random.default_rng(1)).value
        for p in (delta, 2 * delta)
    ]
    assert found[1] < 0.1 * found[0]
    assert meanfield.rate_per_dimension(2 * delta) > 2 * meanfield.rate_per_dimension(delta)


def common_level(n, correlation, p=0.1):
    """P(n neighbours empty | the origin occupied), all correlated alike, by quadrature over the common level."""
    level, weights = over(-9.0, 9.0)
    weights = weights * np.exp(-(level**2) / 2)
    density = special.ndtr((math.sqrt(correlation) * level + special.ndtri(p)) / math.sqrt(1 - correlation))
    return float(weights @ (density * (1 - density) ** n) / (weights @ density))


@pytest.mark.parametrize("n, rarer", [(16, True), (32, False)])
def test_a_common_level_isolates_more_rarely_among_few_neighbours_than_among_many(n, rarer):
    """Four standard errors: false alarms below 1e-4."""
    found = common_level(n, 0.5)
    assert (found < 0.9**n) == rarer
    assert found == pytest.approx({16: 0.098, 32: 0.046}[n], abs=5e-4)
    assert 0.9**n == pytest.approx({16: 0.185, 32: 0.034}[n], abs=5e-4)
    rng = np.random.default_rng(2)
    fields = math.sqrt(0.5) * (rng.standard_normal((200_000, 1)) + rng.standard_normal((200_000, n + 1)))
    is_occupied = fields > special.ndtri(0.9)
    isolated = ~is_occupied[is_occupied[:, 0], 1:].any(axis=1)
    assert isolated.mean() == pytest.approx(found, abs=4 * math.sqrt(found / isolated.size))
    # correlated with the origin alone: rarer still
    near = 0.4 * fields[:, :1] + math.sqrt(1 - 0.4**2) * rng.standard_normal((200_000, n))
    assert (~(near[is_occupied[:, 0]] > special.ndtri(0.9)).any(axis=1)).mean() < 0.3 * 0.9**n


def test_a_level_without_a_least_density_falls_more_slowly_than_any_exponential():
    """1 - P of labels whose density goes down to 0 over networks, to leading order: its rate falls with d."""
    level, weights = over(-9.0, 9.0)
    density = special.ndtr((math.sqrt(0.5) * level + special.ndtri(0.1)) / math.sqrt(0.5))
    weights = weights * np.exp(-(level**2) / 2) * density**2
    lost = [float(weights @ (2 * (1 - density) ** (2 * d)) / weights.sum()) for d in (100, 200, 400, 800)]
    rates = [math.log(lost[i] / lost[i + 1]) / (100 * 2**i) for i in range(3)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05 * meanfield.rate_per_dimension(0.1)


@given(st.data())
def test_association_opens_a_path_and_closes_the_choice_between_paths(data):
    """Cells are increasing functions (or, and) of independent bits, so associated (Harris); two or three routes."""
    n_bits = data.draw(st.integers(1, 5))
    chances = data.draw(st.lists(st.floats(0.05, 0.95), min_size=n_bits, max_size=n_bits))
    bits = np.array(list(itertools.product((False, True), repeat=n_bits)))
    weights = np.prod(np.where(bits, chances, 1 - np.array(chances)), axis=1)
    routes = data.draw(st.lists(st.integers(1, 2), min_size=2, max_size=3))

    def cell():
        chosen = sorted(data.draw(st.sets(st.integers(0, n_bits - 1), min_size=1)))
        return (bits[:, chosen].any if data.draw(st.booleans()) else bits[:, chosen].all)(axis=1)

    open_routes = []
    for n_cells in routes:
        cells = [cell() for _ in range(n_cells)]
        is_open = np.all(cells, axis=0)
        assert weights @ is_open >= np.prod([weights @ one for one in cells]) - 1e-12
        open_routes.append(is_open)
    independent = 1 - np.prod([1 - weights @ one for one in open_routes])
    assert weights @ np.any(open_routes, axis=0) <= independent + 1e-12


# Appendix D


def test_attention_has_no_lipschitz_constant_and_one_on_every_ball():
    for y in (1.0, 10.0, 100.0):
        slope = (network_checks.attention(1e-5, y) - network_checks.attention(-1e-5, y)) / 2e-5
        assert slope == pytest.approx(0.5 + y**2 / 4, rel=1e-3)
    rng = np.random.default_rng(2)
    for radius in (0.5, 2.0, 8.0):
        for start, step in zip(rng.uniform(-1, 1, (200, 2)), 1e-3 * rng.standard_normal((200, 2)), strict=True):
            first, second = radius * start, radius * np.clip(start + step, -1, 1)
            change = abs(network_checks.attention(*first) - network_checks.attention(*second))
            upper = math.hypot(1 + 4 * radius**2, 1 + 2 * radius**2)  # |logit'| <= 2R and R, values at most R
            assert change <= upper * np.linalg.norm(first - second) + 1e-12


@given(st.floats(0.2, 3), st.floats(0.5, 0.99), st.integers(5, 200))
def test_central_labels_have_at_least_the_least_density_times_delta(spread, mass, n):
    """Sigmoid of N(0, spread^2)."""

    def density(y):
        return stats.norm.pdf(special.logit(y), scale=spread) / (y * (1 - y))

    edge = special.ndtri((1 + mass) / 2) * spread
    central = np.linspace(special.expit(-edge), special.expit(edge), 2001)
    least = density(central).min()
    for low, high in labels.intervals(1 / n):
        if central[0] <= low and high <= central[-1]:
            p = special.ndtr(special.logit(high) / spread) - special.ndtr(special.logit(low) / spread)
            assert p >= least / n * (1 - 1e-4)  # the minimum is taken on a grid


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_end_labels_of_a_sigmoid_starve_faster_than_any_power(spread):
    """ln P / ln delta, the power at which the end label's probability falls, has no bound."""
    powers = [stats.norm.logcdf(special.logit(10.0**-k) / spread) / math.log(10.0**-k) for k in (1, 3, 10, 30, 100)]
    assert powers == sorted(powers)
    assert powers[-1] > 25


def test_the_gaussian_distribution_function_gives_every_label_delta():
    for low, high in labels.intervals(0.1):
        assert special.ndtr(special.ndtri(high)) - special.ndtr(special.ndtri(low)) == pytest.approx(0.1)


def test_erf_gives_every_label_delta_at_variance_one_half_and_not_at_one():
    """Simulated and exact. Four standard errors: false alarms below 1e-4."""
    ends, middle = (0.0, 0.1), (0.45, 0.55)
    normal = np.random.default_rng(5).standard_normal(200_000)
    for variance, expected in ((0.5, {ends: 0.1, middle: 0.1}), (1.0, {ends: 0.182, middle: 0.071})):
        outputs = (1 + special.erf(math.sqrt(variance) * normal)) / 2
        for (low, high), p in expected.items():
            x = special.erfinv(2 * np.array([low, high]) - 1) / math.sqrt(variance)
            assert special.ndtr(x[1]) - special.ndtr(x[0]) == pytest.approx(p, abs=6e-4)
            share = ((outputs >= low) & (outputs <= high)).mean()
            assert share == pytest.approx(p, abs=6e-4 + 4 * math.sqrt(p / 200_000))


def test_uneven_labels_end_at_the_rate_of_the_rarest():
    """Sigmoid of N(0, 1), three labels of delta = 1/2: simulated 1 - P against the sum, which ends with the ends'."""
    edges = special.logit(labels.intervals(0.5))
    p = special.ndtr(edges[:, 1]) - special.ndtr(edges[:, 0])
    for d in (8, 12):
        found = [rare.finite_probability(q, d, n_samples=2000, max_sites=500, rng=np.random.default_rng(d)) for q in p]
        lost = sum(q**2 * (1 - (1 - one.value) ** 2) for q, one in zip(p, found, strict=True)) / (p @ p)
        assert lost == pytest.approx(2 * (p**2) @ (1 - p) ** (2 * d) / (p @ p), rel=0.02)
    terms = p**2 * (1 - p) ** 400
    assert terms.sum() == pytest.approx(2 * terms[0])  # the two ends alone
    assert p.min() == pytest.approx(0.5)


def periodic_loss(y, target):
    """Distance of y - target from the multiples of 1/2."""
    return np.abs((y - target) - np.round(2 * (y - target)) / 2)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_lipschitz_loss_can_part_equal_predictions(y, other, around):
    assert periodic_loss(y, y) == 0
    assert abs(periodic_loss(y, around) - periodic_loss(other, around)) <= abs(y - other) + 1e-12
    assert abs(periodic_loss(around, y) - periodic_loss(around, other)) <= abs(y - other) + 1e-12
    assert periodic_loss(0.2, 0.7) < 1e-15
    path = np.linspace(0.2, 0.7, 1001)  # every continuous path has these values
    assert periodic_loss(path, around).max() >= 0.25 - 1e-3


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.1, 3), st.floats(0.01, 0.3), st.floats(0.05, 2))
def test_a_loss_with_intervals_serves(y0, y1, slope, more, flat):
    """min(slope |y - y'|, flat): sublevel sets are intervals; what lies between or a little beside is allowed."""

    def loss(y):
        return np.minimum(slope * np.abs(y - y1), flat)

    delta_prime = loss(y0)
    beside = more / slope
    allowed = np.linspace(min(y0, y1) - beside, max(y0, y1) + beside, 101)
    assert np.all(loss(allowed) <= delta_prime + more + 1e-12)


@given(st.data(), st.sampled_from([1, 2, 3, np.inf]), st.sampled_from(["tanh", "relu", "sin", "erf"]))
def test_a_pointwise_function_keeps_its_constant_in_every_norm(data, order, name):
    function = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "sin": np.sin, "erf": special.erf}[name]
    constant = 2 / math.sqrt(math.pi) if name == "erf" else 1.0
    numbers = st.lists(st.floats(-5, 5), min_size=4, max_size=4)
    x, step = np.array(data.draw(numbers)), np.array(data.draw(numbers))
    change = np.linalg.norm(function(x + step) - function(x), order)
    assert change <= constant * np.linalg.norm(step, order) * (1 + 1e-12) + 1e-14


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (4, 9), (12, 12)])
def test_gaussian_norms_exceed_the_bound_more_rarely_than_asked(shape):
    """The true shares lie far below what is asked: no false alarm to speak of."""
    norms = np.linalg.norm(np.random.default_rng(7).standard_normal((4000, *shape)), 2, axis=(1, 2))
    for failure in (0.5, 0.1, 0.01):
        assert (norms > network_checks.upper_norm(*shape, failure)).mean() <= failure
    assert norms.max() > math.sqrt(shape[0]) + math.sqrt(shape[1]) - 1.2  # the bound is not idle


def test_a_tanh_layer_steepens_typical_slopes_by_a_tenth_and_the_bound_threefold():
    x, weights = over(-9.0, 9.0)
    weights = weights * stats.norm.pdf(x)
    gain = (weights @ np.tanh(x) ** 2) ** -0.5
    assert gain == pytest.approx(network_checks._TANH_GAIN)
    assert gain * (weights @ np.cosh(x) ** -4.0) ** 0.5 == pytest.approx(1.09, abs=0.005)
    assert 2 * gain == pytest.approx(3.2, abs=0.05)
    assert math.sqrt(2) * (0.5) ** 0.5 == pytest.approx(1)  # ReLU: half of the units, gain sqrt 2


def test_one_row_has_the_norm_of_chi():
    """Four standard errors of a proportion of 10,000: false alarms below 1e-4 each."""
    norms = np.linalg.norm(np.random.default_rng(8).standard_normal((10_000, 7)), axis=1)
    for p in (0.5, 0.9, 0.99):
        share = (norms <= stats.chi(7).ppf(p)).mean()
        assert share == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 10_000))
