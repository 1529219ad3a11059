"""P(connected) on lattices that are fine enough: the run, its rows, and what its figure makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from empirical import __main__ as command
from empirical import refinement
from paper_figs import fig_refinement
from percolation import campaign

CHOSEN = refinement.Settings(
    activations=("sin", "tanh"),
    boxes=("growing", "fixed"),
    dimensions=(1, 3),
    refinements=(1, 3),
    width=8,
    n_networks=3,
    max_coarse=100,
    n_sample=200,
    n_starts=16,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    return campaign.run(refinement.EXPERIMENT, CHOSEN, out=tmp_path_factory.mktemp("runs")).dataset


def test_every_network_is_where_it_belongs(dataset: xr.Dataset) -> None:
    tasks = refinement.tasks(CHOSEN)
    assert len(tasks) == 2 * 2 * 2 * 3
    for key in ("sin growing d=1 network=0", "tanh fixed d=3 network=2", "sin fixed d=3 network=1"):
        task = tasks[key]
        one = refinement.run_task(CHOSEN, task, campaign.seed_sequence(CHOSEN.seed, key))
        place = {"activation": task.law.activation, "box": task.law.box, "dimension": task.dimension}
        here = dataset.sel(place).isel(network=task.network)
        for name, values in one.items():
            assert np.array_equal(here[name], values)
    assert dataset["side"].sel(dimension=3).to_numpy().tolist() == [4, 12]


def test_the_coarse_box_is_the_largest_that_is_allowed() -> None:
    sides = [refinement.coarse_side(CHOSEN.model_copy(update={"max_coarse": 1000}), d) for d in (1, 2, 3, 5, 9, 12)]
    assert sides == [128, 31, 10, 3, 2, 2]


def with_complements(dataset: xr.Dataset, values: dict[int, tuple[float, float]], *, given_up: float = 0) -> xr.Dataset:
    """The dataset with 1 - P on the coarse and the fine lattice by dimension, nearly alike over networks."""
    changed = dataset.copy(deep=True)
    for d, by_refinement in values.items():
        for network in range(CHOSEN.n_networks):
            apart = np.array(by_refinement) * (1 + 0.001 * (network - 1))
            place: dict[str, Any] = {"dimension": d}
            changed["in_label"].loc[place][..., network, :] = 1 - apart
            changed["in_label_most"].loc[place][..., network, :] = 1 - apart * (1 - given_up)
            changed["cut_off"].loc[place][..., network, :] = apart / 2
            changed["at_wall"].loc[place][..., network, :] = apart / 4
    return changed


@pytest.mark.parametrize(
    ("fine", "given_up", "is_resolved"),
    [(0.1, 0.0, True), (0.095, 0.0, True), (0.09, 0.0, False), (0.1, 0.05, True), (0.1, 0.2, False)],
)
def test_resolved_is_what_neither_refining_nor_what_was_given_up_can_change_much(
    dataset: xr.Dataset, fine: float, given_up: float, is_resolved: bool
) -> None:
    changed = with_complements(dataset, {1: (0.1, fine)}, given_up=given_up)
    row = refinement.rows(changed)[0]
    assert row["dimension"] == 1
    assert row["is_resolved"] is is_resolved
    assert (row["coarse"], row["apart"]) == pytest.approx((0.1, fine))
    assert row["apart_least"] == pytest.approx(fine * (1 - given_up))
    assert row["moved"] == pytest.approx(fine - 0.1)
    assert row["n_cut_off"] == 3
    assert row["at_wall"] == pytest.approx(0.5)
    assert row["largest"] == pytest.approx(1.001 / 3)


@pytest.mark.parametrize(
    ("values", "outcome", "words"),
    [
        ({1: (0.2, 0.2), 3: (0.01, 0.01)}, "holds", "a factor of 0.22 a dimension"),
        (
            {1: (0.2, 0.2), 3: (0.2, 0.01)},
            "holds",
            "change 4 of 8 points by less than a tenth, and raise none of the others",
        ),
        ({1: (0.2, 0.2), 3: (0.005, 0.01)}, "open", "change 4 of 8 points by less than a tenth"),
        ({1: (0.2, 0.2), 3: (0.1, 0.1)}, "open", "change 8 of 8 points by less than a tenth"),
        ({1: (0.2, 0.2), 3: (0.0, 0.0)}, "holds", "none cut off at d = 3"),
        ({1: (0.0, 0.0), 3: (0.0, 0.0)}, "open", "none cut off in 3 networks"),
    ],
)
def test_the_verdict_follows_the_rows(
    dataset: xr.Dataset, values: dict[int, tuple[float, float]], outcome: str, words: str
) -> None:
    (verdict,) = fig_refinement.judge(with_complements(dataset, values))
    assert verdict.outcome == outcome
    assert words in verdict.measured


@pytest.mark.parametrize(
    ("values", "outcome", "words"),
    [
        ({1: (0.2, 0.2), 3: (0.01, 0.0099)}, "holds", "in 8 of 8 points"),
        (
            {1: (0.2, 0.2), 3: (0.01, 0.005)},
            "open",
            "in 4 of 8 points; otherwise: sin, growing box, from 0.01 to",
        ),
    ],
)
def test_smaller_cubes_have_to_leave_every_point(
    dataset: xr.Dataset, values: dict[int, tuple[float, float]], outcome: str, words: str
) -> None:
    (verdict,) = fig_refinement.FINER.judge(with_complements(dataset, values))
    assert verdict.outcome == outcome
    assert words in verdict.measured


def test_a_rise_counts_only_beyond_what_was_given_up(dataset: xr.Dataset) -> None:
    values = {1: (0.2, 0.2), 3: (0.005, 0.01)}
    for given_up, outcome in ((0.3, "open"), (0.6, "holds")):
        (verdict,) = fig_refinement.judge(with_complements(dataset, values, given_up=given_up))
        assert verdict.outcome == outcome


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"refinements": (1, 2)}, "be two or more odd numbers up to 999 in ascending order"),
        ({"refinements": (3,)}, "be two or more odd numbers up to 999 in ascending order"),
        ({"refinements": (3, 1)}, "be two or more odd numbers up to 999 in ascending order"),
        ({"dimensions": (0,)}, "be in 1 to 12 each"),
        ({"dimensions": (2, 2)}, "name at least one, each once"),
        ({"activations": ()}, "name at least one, each once"),
        ({"delta": 0.3}, "delta"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        refinement.Settings(**change)


def test_the_command_prints_a_table(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--dimensions 1 2 --n-networks 2 --max-coarse 50 --refinements 1 3 --width 8"
    line = ["refine", *words.split(), "--out", str(tmp_path), "--workers", "1"]
    command.main("empirical", command.COMMANDS, line)
    printed = capsys.readouterr().out
    assert "sin  growing  2             21" in printed
    assert "at wall" in printed
