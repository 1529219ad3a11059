"""Every figure, the page, and the command that makes them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from paper_figs import __main__ as command
from paper_figs import style
from paper_figs.plot import uncertain
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
