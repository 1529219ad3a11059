"""Every figure, the page, and the command that makes them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from paper_figs import __main__ as command
from paper_figs import style
from paper_figs.plot import decide, uncertain
from percolation import campaign, picture, runs

OUTCOMES = {"holds", "holds with a correction", "fails", "open"}


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


def finished(name, out):
    plot = command.PLOTS[name]
    settings = plot.settings["ci"]
    if plot.with_data is not None:
        settings = plot.with_data(settings, "digits")
    return campaign.run(plot.experiment("cpu"), settings, out=out).dataset


@pytest.mark.parametrize("name", command.PLOTS)
def test_every_figure_draws_from_its_dataset_alone(name, runs_folder):
    plot = command.PLOTS[name]
    assert set(plot.settings) == set(command.PRESETS)
    dataset = finished(name, runs_folder)
    before = dataset.copy(deep=True)
    first, second = plot.draw(dataset), plot.draw(dataset)
    assert isinstance(first, Figure)
    assert style.png(first) == style.png(second)
    assert dataset.identical(before)
    for axis in first.axes:
        if axis.lines and axis.get_xticks().size and axis.axison:
            labelled = axis.get_xlabel() or axis.get_title(loc="left") or axis.get_ylabel()
            assert labelled, "an axis without a label or a panel name"
    caption = plot.caption(dataset)
    assert "nan" not in caption
    assert len(caption) > 100
    for verdict in plot.judge(dataset):
        assert verdict.outcome in OUTCOMES
        assert re.search(r"\d", verdict.measured), "a verdict without a number"
        assert "nan" not in verdict.measured


def test_report_is_one_page_with_every_section_and_nothing_from_elsewhere(runs_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command.main(["report", "--preset", "ci", "--out", str(runs_folder), "--json"])
    summary = json.loads(capsys.readouterr().out)
    page = (tmp_path / "report" / "index.html").read_text()
    assert summary["page"] == "report/index.html"
    for name in (*command.PLOTS, "claims", "provenance"):
        assert f'id="{name}"' in page
    assert page.count("data:image/png;base64,") == len(command.PLOTS)
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    for claim in summary["claims"]:
        assert claim["outcome"] in OUTCOMES
    assert set(summary["figures"]) == set(command.PLOTS)
    for name in command.PLOTS:
        assert (tmp_path / "report" / f"{name}.png").exists()
        assert (tmp_path / "report" / f"{name}.pdf").exists()


def test_single_figures_by_name_are_the_same_files_again(runs_folder, tmp_path, capsys):
    line = ["fig08", "cover", "--preset", "ci", "--out", str(runs_folder), "--to", str(tmp_path)]
    command.main(line)
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(first) == ["cover.pdf", "cover.png", "fig08.pdf", "fig08.png"]
    assert "fig08.png" in capsys.readouterr().out
    command.main(line)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first


def test_a_kept_run_is_drawn_unless_it_is_asked_for_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "KEPT", tmp_path / "kept")
    chosen = picture.Settings(shape=(32, 32), p=0.5, seed=9)
    folder = campaign.run(picture.EXPERIMENT, chosen, out=tmp_path / "full").folder
    shutil.copytree(folder, tmp_path / "kept" / "fig08")
    command.main(["fig08"])
    kept = (tmp_path / "report" / "fig08.png").read_bytes()
    assert not (tmp_path / "runs").exists()  # nothing was computed
    command.main(["fig08", "--recompute"])
    assert (tmp_path / "report" / "fig08.png").read_bytes() == kept
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [folder.name]
    for others in (["--preset", "ci"], ["--preset", "ci", "--seed", "1"], ["--seed", "1", "--preset", "quick"]):
        command.main(["fig08", *others])
        assert (tmp_path / "report" / "fig08.png").read_bytes() != kept
    command.main(["fig08"])
    assert (tmp_path / "report" / "fig08.png").read_bytes() == kept
    capsys.readouterr()


@pytest.mark.parametrize("name", [path.name for path in sorted(command.KEPT.iterdir())])
def test_kept_runs_are_whole_and_of_a_figure(name):
    dataset, folder = command._kept(name)
    assert name in command.PLOTS
    record = runs.read_json(folder / "settings.json")
    assert record["experiment"] == command.PLOTS[name].experiment("cpu").name
    settings = command._settings(name, command.Options(names=(name,))).model_dump(mode="json")
    assert {field: settings[field] for field in record["settings"]} == record["settings"]
    assert dataset.sizes


@pytest.mark.parametrize("file", ["SHA256SUMS", "provenance.json", "result.nc", "settings.json", "summary.json"])
def test_a_kept_run_with_another_runs_file_is_not_drawn(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "KEPT", tmp_path)
    shutil.copytree(Path(command.__file__).parent / "data" / "fig09", tmp_path / "fig09")
    shutil.copy(Path(command.__file__).parent / "data" / "fig10" / file, tmp_path / "fig09")
    for more in ([], ["--recompute"]):
        with pytest.raises(SystemExit) as stopped:
            command.main(["fig09", "--out", str(tmp_path / "runs"), "--to", str(tmp_path / "report"), "--json", *more])
        assert stopped.value.code == 2
        assert re.fullmatch(r"paper_figs: \S+ is damaged \(.*SHA256SUMS\); .*\n", capsys.readouterr().err)
    assert not list((tmp_path / "report").iterdir())


def test_what_a_killed_command_left_of_a_figure_is_removed(tmp_path, runs_folder, capsys):
    for name in ("fig08.png.123.part", "index.html.9.part", "mine.png.123.part", "fig08.png"):
        (tmp_path / name).write_text("half")
    command.main(["fig08", "--preset", "ci", "--out", str(runs_folder), "--to", str(tmp_path), "--json"])
    assert {path.name for path in tmp_path.iterdir()} == {"fig08.png", "fig08.pdf", "mine.png.123.part"}
    capsys.readouterr()


def test_seed_and_preset_reach_the_settings():
    options = command.Options(names=("fig08",), preset="ci", seed=7)
    settings = command._settings("fig08", options)
    assert settings == picture.Settings(shape=(64, 64), seed=7)


@pytest.mark.parametrize(
    "line, message",
    [
        ("fig99", "name must be report or one of bounds, cover, fig08, thresholds,"),
        ("report fig08", "got report"),
        ("", "got nothing"),
        ("fig08 --preset huge", "--preset"),
        ("fig08 --seed -1", "paper_figs: seed must be greater than or equal to 0, got -1"),
        ("fig09 --data /nowhere.npz", "/nowhere.npz"),
        ("fig08 --to /proc/nowhere", "cannot use /proc/nowhere"),
        ("fig08 --device tpu", "--device"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_two(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        command.main(line.split())
    assert stopped.value.code == 2
    complaint = [text for text in capsys.readouterr().err.strip().splitlines() if text.startswith("paper_figs:")]
    assert len(complaint) == 1
    assert message in complaint[0]


def test_the_module_runs_as_a_program(tmp_path):
    line = [sys.executable, "-m", "paper_figs", "fig08", "--preset", "ci", "--json"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert list(json.loads(done.stdout)["figures"]) == ["fig08"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    "value, error, text",
    [
        (0.44628, 0.00021, "0.4463(2)"),
        (1.5, 0.0, "1.5"),
        (12.3, 0.97, "12(1)"),
        (0.1026, 0.0022, "0.103(2)"),
        (0.5, 1e-16, "0.500000000000"),
    ],
)
def test_uncertain_writes_the_error_in_brackets(value, error, text):
    assert uncertain(value, error) == text


def test_a_family_of_claims_is_decided_by_two_sided_tests_corrected_by_holm():
    # Two degrees of freedom: p = 1 - t / sqrt(2 + t^2), t = sqrt(3) mean / sd.
    clear, weak = np.array([9.0, 10, 11]), np.array([-1.0, -2, -3])  # t = sqrt(300) and -sqrt(12)
    p_clear, p_weak = 1 - np.sqrt(300 / 302), 1 - np.sqrt(12 / 14)  # 0.0033 and 0.074
    assert decide([weak, clear]) == [("open", pytest.approx(p_weak)), ("holds", pytest.approx(2 * p_clear))]
    assert decide([-clear]) == [("fails", pytest.approx(p_clear))]
    many = decide([clear] + 15 * [weak])  # 16 tests: 0.053
    assert many[0] == ("open", pytest.approx(16 * p_clear))
    assert decide([clear], n_families=15)[0] == ("holds", pytest.approx(15 * p_clear))
    assert decide([clear], n_families=16)[0] == ("open", pytest.approx(16 * p_clear))
    assert decide([weak], n_families=20)[0] == ("open", 1)


def test_what_cannot_be_tested_is_open_and_counts_in_no_family():
    clear = np.array([9.0, 10, 11])
    alone = decide([clear])[0]
    for untested in (clear[:1], clear[:0], np.full(3, 2.0), np.array([1, np.nan, np.nan])):
        (outcome, p), tested = decide([untested, clear])
        assert outcome == "open"
        assert np.isnan(p)
        assert tested == alone
    assert decide([np.array([9, np.nan, 10, 11])]) == [alone]


@pytest.mark.parametrize(
    "name",
    [
        "fig06",
        "network_scaling",
        "certificates",
        "fig09",
        "recalibrated",
        "fig10",
        "certificates_trained",
        "search",
    ],
)
def test_a_kept_summary_is_that_of_the_kept_arrays(name):
    folder = command.KEPT / name
    record = runs.read_json(folder / "settings.json")
    experiment = command.PLOTS[name].experiment("cpu")
    assert (record["experiment"], record["version"]) == (experiment.name, experiment.version)
    settings = type(command.PLOTS[name].settings["paper"]).model_validate(record["settings"])
    summary = experiment.summarise(settings, runs.read_finished(folder)[0])
    assert json.loads(runs.as_json(summary)) == runs.read_json(folder / "summary.json")


def test_what_is_published_of_the_kept_runs():
    """Counted here from the arrays, apart from the code that draws: both ends at most delta, then the last path."""

    def counted(name, delta):
        dataset = runs.read_finished(command.KEPT / name)[0]
        losses, barriers = dataset["end_loss"].values, dataset["barrier"].values
        is_low = (losses[..., 0] <= delta) & (losses[..., 1] <= delta)
        return is_low, np.nanmin(barriers, axis=-1) <= delta, dataset

    is_low, is_connected, _ = counted("fig06", 0.001)
    assert (is_low.sum(), is_connected.sum(), (is_connected & ~is_low).sum()) == (980, 980, 0)
    is_low, is_connected, dataset = counted("fig09", 0.01)
    for batches, n_connected, n_low in (
        (0, 150, 150),
        (1, 124, 150),
        (2, 118, 140),
        (3, 123, 126),
        (5, 90, 101),
        (8, 80, 102),
        (12, 111, 124),
        (20, 150, 150),
        (30, 149, 150),
    ):
        stage = dataset["stage"].values.tolist().index(batches)
        assert (is_low[:, stage].sum(), (is_connected & is_low)[:, stage].sum()) == (n_low, n_connected), batches


def verdicts(name, **part):
    return command.PLOTS[name].judge(runs.read_finished(command.KEPT / name)[0].isel(part))


def test_the_verdicts_on_the_kept_runs_over_training():
    assert [verdict.outcome for verdict in verdicts("fig09")] == ["open", "open", "open"]
    assert [verdict.outcome for verdict in verdicts("fig10")] == ["holds", "open", "open"]
    assert verdicts("recalibrated") == []  # the paper does not take statistics anew


def test_the_verdict_on_fig06_is_of_pairs_with_both_ends_at_most_delta():
    (verdict,) = verdicts("fig06")
    assert verdict.outcome == "holds with a correction"
    # Wilson, 20 networks of 20: 20 / (20 + 3.8415) = 0.839
    assert verdict.measured.startswith("Of 980 pairs whose two ends are at most 0.001, 980 are connected in the end ")
    assert "(95 % over 20 networks: 0.839 to 1.000)" in verdict.measured
    (verdict,) = verdicts("fig06", network=[0])
    assert verdict.outcome == "open"  # one network is no sample, however many pairs it has


def test_a_verdict_on_low_paths_rests_on_low_paths():
    (verdict,) = verdicts("certificates")
    assert "1 of 30 paths are below by samples, 1 of these by certificate" in verdict.measured
    assert verdict.outcome == "open"  # one path
    (verdict,) = verdicts("certificates_trained")
    assert "15 of 52 paths are below by samples, 15 of these by certificate" in verdict.measured
    assert verdict.outcome == "holds"
    (verdict,) = verdicts("certificates_trained", pair=[0])
    assert "0 of 3 paths" in verdict.measured
    assert verdict.outcome == "open"


def test_an_interval_over_lattices_says_that_of_one():
    assert "(95 %: at least 0.993; of the 40 of any one lattice at least 0.91)" in verdicts("search")[0].measured
