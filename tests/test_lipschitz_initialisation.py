"""The experiment on networks at initialisation."""

import json
import math

import numpy as np
import pytest
import torch
import xarray as xr
from pydantic import ValidationError

from lipschitz import cubes, initialisation
from lipschitz.initialisation import Case, Settings, collect, line, run_task, summarise, tasks
from percolation import campaign

SMALL = Settings(depths=(1, 3), widths=(5, 8), dimensions=(4,), input_dimension=6, n_networks=3, n_starts=4, n_steps=6)


def seed_of(key):
    return campaign.seed_sequence(SMALL.seed, key)


@pytest.fixture(scope="module")
def dataset():
    return collect(SMALL, {key: run_task(SMALL, task, seed_of(key)) for key, task in tasks(SMALL).items()})


def experiment():
    return campaign.Experiment(
        name="bounds", version=1, tasks=tasks, run_task=run_task, collect=collect, summarise=summarise
    )


def test_three_lines_cross_in_the_deepest_and_widest_network():
    assert len(tasks(SMALL)) == 4 * 3
    assert {(case.depth, case.width, case.input_dimension) for case in tasks(SMALL).values()} == {
        (1, 8, 6), (3, 8, 6), (3, 5, 6), (3, 8, 4)
    }  # fmt: skip
    assert tasks(SMALL)["depth=3 width=8 dimension=4 network=2"] == Case(depth=3, width=8, input_dimension=4)


def test_dataset_is_labelled_and_every_variable_says_what_it_is(dataset):
    assert dict(dataset.sizes) == {"case": 4, "network": 3}
    assert set(dataset.data_vars) == {
        *("upper", "upper_inf", "upper_closed", "upper_sdp", "lower", "lower_inf"),
        *("ratio", "epsilon", "cube_side", "cube_side_inf"),
    }
    for variable in [*dataset.data_vars.values(), *dataset.coords.values()]:
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]
    for values in dataset.data_vars.values():
        assert values.dims == ("case", "network")
        assert values.dtype == np.float64
        assert bool((values > 0).all())


def test_values_stand_at_their_own_place(dataset):
    key = "depth=3 width=5 dimension=6 network=1"
    numbers = run_task(SMALL, tasks(SMALL)[key], seed_of(key))
    is_here = (dataset.depth == 3) & (dataset.width == 5) & (dataset.input_dimension == 6)
    here = dataset.isel(case=int(is_here.to_numpy().argmax()), network=1)
    assert {name: float(here[name]) for name in dataset.data_vars} == {name: float(n) for name, n in numbers.items()}


def test_lines_hold_what_varies_in_order(dataset):
    dataset = dataset.assign_attrs(settings=SMALL.model_dump_json())
    assert line(dataset, "depth")["depth"].values.tolist() == [1, 3]
    assert line(dataset, "width")["width"].values.tolist() == [5, 8]
    found = line(dataset, "input_dimension")
    assert found["input_dimension"].values.tolist() == [4, 6]
    assert found["depth"].values.tolist() == [3, 3]
    with pytest.raises(ValueError, match="along must be one of depth, width, input_dimension, got height"):
        line(dataset, "height")


def test_bounds_and_cubes_follow_their_equations(dataset):
    for name in ("upper", "upper_closed", "upper_sdp"):
        assert bool((dataset.lower <= dataset[name]).all())
    assert bool((dataset.upper_sdp <= dataset.upper * 1.01).all())
    assert bool((dataset.lower_inf <= dataset.upper_inf).all())
    xr.testing.assert_allclose(dataset.ratio, dataset.upper / dataset.lower)
    # Eq. 14 with delta' = delta / 2, the default.
    xr.testing.assert_allclose(dataset.epsilon * dataset.upper, xr.full_like(dataset.upper, 0.05), rtol=1e-12)
    xr.testing.assert_allclose(dataset.cube_side * dataset.input_dimension**0.5, dataset.epsilon, rtol=1e-12)
    xr.testing.assert_allclose(dataset.cube_side_inf * dataset.upper_inf, xr.full_like(dataset.upper, 0.05), rtol=1e-12)
    # One layer with one output is steepest where the final activation is, and nowhere steeper than the product.
    shallow = dataset.ratio[dataset.depth.to_numpy() == 1]
    assert bool(((shallow >= 1) & (shallow < 1.01)).all())


def test_a_network_depends_on_its_own_key_and_the_seed_only():
    more = SMALL.model_copy(update={"depths": (1, 2, 3), "n_networks": 9})
    key = "depth=3 width=8 dimension=6 network=2"
    one, two = (run_task(settings, tasks(settings)[key], seed_of(key)) for settings in (SMALL, more))
    other = run_task(SMALL, tasks(SMALL)[key], campaign.seed_sequence(1, key))
    assert one == two
    assert one["upper"] != other["upper"]


def test_global_random_states_are_untouched():
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    run_task(SMALL, Case(depth=2, width=5, input_dimension=6), seed_of("x"))
    assert torch.equal(state, torch.get_rng_state())
    assert (np.random.get_state()[1] == legacy).all()  # noqa: NPY002


def test_summary_holds_means_and_standard_errors(dataset):
    rows = summarise(SMALL, dataset)["rows"]
    sizes = [(row["depth"], row["width"], row["input_dimension"]) for row in rows]
    assert sizes == [(1, 8, 6), (3, 5, 6), (3, 8, 4), (3, 8, 6)]
    values = dataset.upper[1].to_numpy()
    assert rows[1]["upper"] == pytest.approx(values.sum() / 3)
    deviations = values - values.sum() / 3
    assert rows[1]["upper_standard_error"] == pytest.approx(math.sqrt((deviations**2).sum() / 2 / 3))
    assert (rows[0]["input_dimension"], rows[0]["activation"], rows[0]["n_networks"]) == (6, "tanh", 3)
    assert (rows[0]["delta"], rows[0]["delta_prime"]) == (0.1, 0.05)
    json.dumps(rows, allow_nan=False)


def test_same_bits_for_any_number_of_workers(tmp_path):
    one, three = (campaign.run(experiment(), SMALL, out=tmp_path / str(n), n_workers=n) for n in (1, 3))
    xr.testing.assert_identical(one.dataset, three.dataset)
    assert one.summary == three.summary


def test_the_default_delta_prime_labels_every_cube():
    settings = Settings(delta=0.02)
    assert settings.effective_delta_prime == 0.01
    assert Settings(delta=0.02, delta_prime=0.015).effective_delta_prime == 0.015
    cut = cubes.cut_cubes(1.0, dimension=2, delta=0.02, delta_prime=settings.effective_delta_prime)
    assert cut.is_labelled


@pytest.mark.parametrize("preset", initialisation.PRESETS)
def test_presets_are_settings_that_survive_json(preset):
    settings = initialisation.PRESETS[preset]
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"delta": 0.3}, r"delta must be 1 over a whole number, got 0.3"),
        ({"delta_prime": 0.2}, r"delta_prime must lie in \(0, delta\) = \(0, 0.1\), got 0.2"),
        ({"depths": (2, 2)}, r"depths must not repeat a value, got \(2, 2\)"),
        ({"widths": (4, 8, 4)}, r"widths must not repeat a value, got \(4, 8, 4\)"),
        ({"dimensions": (4, 64)}, r"dimensions must not hold input_dimension 64, got \(4, 64\)"),
        ({"widths": ()}, r"at least 1 item"),
        ({"n_networks": 1}, r"greater than or equal to 2"),
        ({"activation": "gelu"}, r"'tanh', 'relu', 'erf' or 'sin'"),
        ({"colour": "red"}, r"Extra inputs are not permitted"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        Settings(**changes)


def test_settings_are_frozen_and_every_field_is_described():
    with pytest.raises(ValidationError, match="frozen"):
        SMALL.seed = 3
    assert all(field.description for field in Settings.model_fields.values())
