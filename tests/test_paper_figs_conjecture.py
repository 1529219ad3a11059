"""The verdicts on the conjecture follow what is in the dataset."""

import pytest
import xarray as xr

from empirical import conjecture, conjecture_tables
from paper_figs import fig_conjecture, fig_depth, fig_resolution
from percolation import campaign

CHOSEN = conjecture.Settings(
    activations=("tanh",),
    boxes=("fixed",),
    dimensions=(1, 2, 3),
    width=4,
    n_networks=4,
    max_cubes=500,
    max_side=16,
    field_width=8,
    search_dimensions=(16, 40),
    n_pairs=3,
    search_budget=3000,
    size_radii=(1.0, 2.0, 4.0),
    size_dimensions=(2, 3),
)
UP = {
    "network": (0.5, 0.9, 0.99),
    "independent": (0.1, 0.2, 0.5),
    "shuffled": (0.1, 0.2, 0.5),
    "field": (0.5, 0.9, 1.0),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return campaign.run(conjecture.EXPERIMENT, CHOSEN, out=tmp_path_factory.mktemp("runs")).dataset


def with_values(dataset: xr.Dataset, values: dict[str, tuple[float, ...]], *, moved: float = 0.0) -> xr.Dataset:
    """The dataset with P(connected) of each model by dimension, nearly alike over networks, and coarser rungs."""
    changed = dataset.copy(deep=True)
    for model, by_dimension in values.items():
        for d, value in zip(CHOSEN.dimensions, by_dimension, strict=True):
            for network in range(CHOSEN.n_networks):
                for rung, below in ((2, 0.0), (1, moved), (0, 2 * moved)):
                    place = {"model": model, "dimension": d}
                    changed["in_label"].loc[place][..., network, rung] = value - below + 0.002 * (network - 1.5)
    return with_sizes(changed, {2: (0.9, 0.7, 0.5), 3: (0.9, 0.8, 0.7)})


def with_sizes(dataset: xr.Dataset, values: dict[int, tuple[float, ...]]) -> xr.Dataset:
    """The dataset with P(connected) of the networks by dimension and size of the box, nearly alike."""
    changed = dataset.copy(deep=True)
    for d, by_radius in values.items():
        for radius, value in zip(CHOSEN.size_radii, by_radius, strict=True):
            for network in range(CHOSEN.n_networks):
                place = {"model": "network", "size_dimension": d, "size_radius": radius}
                changed["in_label_by_size"].loc[place][..., network, :] = value + 0.002 * (network - 1.5)
    return changed


def outcomes(dataset: xr.Dataset) -> list[str]:
    return [verdict.outcome for verdict in fig_conjecture.judge(dataset)]


def test_networks_that_rise_above_independent_labels(dataset):
    assert outcomes(with_values(dataset, UP)) == ["holds", "fails", "fails", "holds"]


def test_networks_that_do_as_independent_labels_leave_the_reason_open(dataset):
    same = UP | {"network": UP["independent"]}
    assert outcomes(with_values(dataset, same)) == ["open", "open", "fails", "open"]


def test_networks_below_independent_labels_refute_the_underestimate(dataset):
    assert outcomes(with_values(dataset, UP | {"network": (0.05, 0.1, 0.3)}))[3] == "fails"


def test_cubes_that_are_too_large_are_told_and_no_reason(dataset):
    coarse = with_values(dataset, UP, moved=0.1)
    first, second, *_ = fig_conjecture.judge(coarse)
    assert "3 of 3 points have cubes that may be too large, and all of them rose" in first.measured
    assert second.outcome == "open"
    falling = with_values(dataset, UP, moved=-0.1)
    assert outcomes(falling)[0] == "open"


@pytest.mark.parametrize("moved, n_coarse", [(0.0009, 0), (0.004, 1), (0.012, 2)])
def test_cubes_are_small_enough_within_a_tenth_of_the_complement(dataset, moved, n_coarse):
    # The complements are 0.5, 0.1 and 0.01.
    measured = fig_conjecture.judge(with_values(dataset, UP, moved=moved))[0].measured
    assert (f"{n_coarse} of 3 points have cubes that may be too large" in measured) == (n_coarse > 0)


def test_few_networks_that_move_apart_do_not_show_that_cubes_are_small_enough(dataset):
    values = with_values(dataset, UP)
    values["in_label"].loc[{"model": "network", "dimension": 3}][..., :2, 1] += 0.05  # the second rung, the mean kept
    values["in_label"].loc[{"model": "network", "dimension": 3}][..., 2:, 1] -= 0.05
    row = conjecture_tables.rows(values)[-1]
    assert (row["dimension"], row["is_resolved"]) == (3, False)
    assert row["moved"] == pytest.approx(0, abs=1e-12)


def test_the_sine_decides_whether_sets_percolate(dataset):
    falls, lasts = ((0.9, 0.7, 0.5), (0.95, 0.93, 0.8)), ((0.9, 0.9, 0.9), (0.95, 0.93, 0.93))
    for sine, outcome in ((lasts, "holds"), (falls, "fails")):
        parts = [
            with_sizes(with_values(dataset, UP), {2: two, 3: three}).assign_coords(activation=[name])
            for name, (two, three) in (("tanh", falls), ("sin", sine))
        ]
        both = xr.concat(parts, dim="activation", data_vars="minimal")
        chosen = CHOSEN.model_copy(update={"activations": ("tanh", "sin")})
        assert fig_conjecture.judge(both.assign_attrs(settings=chosen.model_dump_json()))[2].outcome == outcome


def test_the_rate_is_that_of_the_complement(dataset):
    measured = fig_conjecture.judge(with_values(dataset, UP))[0].measured
    # from 0.5 to 0.01 in two dimensions: the root of 1/50
    assert "falls by a factor of 0.14 to 0.14 a dimension (infinite independent lattice: 0.56)" in measured


@pytest.mark.parametrize(
    "two, three, outcome",
    [
        ((0.9, 0.7, 0.5), (0.95, 0.93, 0.93), "holds with a correction"),
        ((0.9, 0.8, 0.8), (0.95, 0.93, 0.93), "holds"),
        ((0.9, 0.7, 0.5), (0.95, 0.93, 0.8), "fails"),
    ],
)
def test_sets_percolate_where_larger_boxes_change_nothing(dataset, two, three, outcome):
    changed = with_sizes(with_values(dataset, UP), {2: two, 3: three})
    verdict = fig_conjecture.judge(changed)[2]
    assert verdict.outcome == outcome
    assert "half side 1, 2, 4 correlation lengths: d = 2, tanh: 0.900(1), " in verdict.measured


SMALL = UP | {"network": (0.8, 0.95, 0.995), "independent": (0.1, 0.2, 0.5)}


@pytest.mark.parametrize(
    "values, moved, outcome",
    [
        (SMALL, 0.0, ["holds", "fails"]),
        (SMALL | {"network": (0.8, 0.85, 0.9)}, 0.0, ["open", "fails"]),
        (SMALL | {"independent": SMALL["network"]}, 0.0, ["holds", "open"]),
        (SMALL, 0.1, ["open", "open"]),
    ],
)
def test_small_boxes_count_where_their_cubes_are_small_enough(dataset, values, moved, outcome):
    assert [verdict.outcome for verdict in fig_resolution.judge(with_values(dataset, values, moved=moved))] == outcome


def test_small_boxes_tell_the_rate_from_the_first_to_the_last_sound_dimension(dataset):
    measured = fig_resolution.judge(with_values(dataset, SMALL))[0].measured
    # from 0.2 to 0.005 in two dimensions: the root of 1/40
    assert "tanh: 0.2 ± 0.001 at d = 1, 0.005 ± 0.001 at d = 3, a factor of 0.16 a dimension (" in measured
    coarse = fig_resolution.judge(with_values(dataset, SMALL, moved=0.004))[0].measured
    assert "a factor of 0.25 a dimension" in coarse  # from 0.2 to 0.05 in one
    assert coarse.endswith(
        "1 of 3 points have cubes that may be too large, and all of them fell when the cubes were halved: "
        "bounds from above, down to 0.005 ± 0.001 (tanh, d = 3)"
    )


@pytest.mark.parametrize(
    "deep, moved, outcome, n_above",
    [
        (UP, 0.0, "holds", 6),
        (UP | {"network": (0.5, 0.6, 0.7)}, 0.0, "open", 6),
        (UP | {"network": (0.1, 0.9, 0.99)}, 0.0, "holds", 5),
        (UP, -0.01, "open", 6),
    ],
)
def test_every_depth_has_to_rise(dataset, deep, moved, outcome, n_above):
    parts = [
        with_values(dataset, values, moved=moved).assign_coords(depth=[depth]) for depth, values in ((3, UP), (4, deep))
    ]
    both = xr.concat(parts, dim="depth", data_vars="minimal")
    chosen = CHOSEN.model_copy(update={"depths": (3, 4)})
    (verdict,) = fig_depth.judge(both.assign_attrs(settings=chosen.model_dump_json()))
    assert verdict.outcome == outcome
    assert "3 matrices 0.500(1) – 0.500(1) to 0.990(1) – 0.990(1); 4 matrices " in verdict.measured
    assert f"above independent labels in {n_above} of 6 points" in verdict.measured
