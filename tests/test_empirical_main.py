"""The commands: what they print, what they write, how they refuse."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from empirical import data
from empirical.__main__ import COMMANDS
from percolation import commandline
from percolation.commandline import main

UNTRAINED = [
    "untrained",
    "--network",
    "convnet",
    "--threshold",
    "0.2",
    "--delta",
    "0.4",
    "--n-points",
    "32",
    "--classes",
    "3",
]
EVOLUTION = ["evolution", "--network", "convnet", "--threshold", "0.5", "--delta", "1", "--n-points", "11"]
EVOLUTION += ["--max-rounds", "1", "--batch-stages", "0", "1"]


def _call(arguments, capsys, *, status=None):
    if status is None:
        main("empirical", COMMANDS, arguments)
    else:
        with pytest.raises(SystemExit) as stopped:
            main("empirical", COMMANDS, arguments)
        assert stopped.value.code == status
    return capsys.readouterr()


def test_untrained_prints_a_table_and_where_it_wrote(tmp_path, capsys):
    printed = _call([*UNTRAINED, "--out", str(tmp_path)], capsys).out
    (folder,) = tmp_path.iterdir()
    assert printed.endswith(f"written to {folder}\n")
    assert "primary" in printed
    assert "1 pairs, 1 network(s)" in printed
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        "provenance.json",
        "result.nc",
        "settings.json",
        "summary.json",
    ]
    assert "found again in" in _call([*UNTRAINED, "--out", str(tmp_path)], capsys).out


def test_evolution_on_a_file_prints_only_json_when_asked(tmp_path, capsys):
    images = data.load("digits")
    arrays = {key: getattr(images, key).numpy()[:100] for key in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "images.npz", **arrays)
    words = [*EVOLUTION, "--data", str(tmp_path / "images.npz"), "--out", str(tmp_path), "--json"]
    printed = _call(words, capsys)
    summary = json.loads(printed.out)
    assert [row["stage"] for row in summary["stages"]] == [0, 1]
    (folder,) = tmp_path.glob("evolution-*")
    assert json.loads((folder / "settings.json").read_text())["settings"]["data_digest"]
    assert "stage" not in printed.err


def test_a_table_of_the_evolution_can_be_read(tmp_path, capsys):
    words = [*EVOLUTION, "--unit", "epoch", "--epoch-stages", "0", "--out", str(tmp_path)]
    printed = _call(words, capsys).out
    assert "epoch test accuracy barrier mean std median quartiles pairs of low ends connected by round" in " ".join(
        printed.split()
    )
    assert "6 of 6" in printed


def test_the_module_runs_as_a_command(tmp_path):
    command = [sys.executable, "-W", "error", "-m", "empirical", *UNTRAINED, "--out", str(tmp_path), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_pairs"] == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["untrained", "--network", "vgg"], "vgg"),
        (["untrained", "--delta", "-1"], "delta must be greater than 0, got -1"),
        (["untrained", "--threshold", "0.5", "--delta", "0.5"], "threshold must be below delta = 0.5, got 0.5"),
        (["untrained", "--device", "abacus"], "abacus"),
        (["untrained", "--gain", "inf"], "gain must be a finite number, got inf"),
        (["lattice", "--activations", "sin", "sin"], "activations must differ from one another"),
        (["lattice", "--size-radii", "1.5", "1.5000001"], "size_radii must differ from one another"),
        (["search", "--lattices"], "empirical: lattices must "),
        (
            ["search", "--lattices", "fixed", "2", "8", "--delta", "0.3"],
            "delta must be 1/n for a whole number n, got 0.3",
        ),
        (["evolution", "--data", "nowhere.npz"], "data must be digits, cifar10 or an .npz file that is there"),
        (["evolution", "--classes", "3", "3"], "empirical: classes must rise, from 0 or more, got (3, 3)\n"),
        (["evolution", "--classes", "3", "11"], "empirical: classes must be at most 9 each, got (3, 11)\n"),
        (["untrained", "--classes", "12"], "empirical: classes must rise, from 0 to 9, got (12,)\n"),
        (["scaling", "--widths", "8", "0"], "empirical: widths must be greater than or equal to 1, got 0\n"),
        (["scaling", "--image-sizes", "3"], "empirical: image_sizes must be greater than or equal to 8, got 3\n"),
        (["scaling", "--scaled-sizes", "3"], "empirical: scaled_sizes must be greater than or equal to 8, got 3\n"),
        (["scaling", "--classes", "12"], "empirical: classes must rise, from 0 to 9, got (12,)\n"),
        (["scaling", "--networks", "convnet", "--delta", "0.01"], "threshold must be below delta = 0.01, got 0.05\n"),
        (["lattice", "--dimensions", "0"], "empirical: dimensions must be in 1 to 16 each, got (0,)\n"),
        (["lattice", "--delta", "0.001"], "empirical: delta must be at least 0.01587, got 0.001\n"),
        (["untrained", "--image-size", "4096"], "image_size must be less than or equal to 512, got 4096\n"),
        (
            ["search", "--lattices", "fixed", "2000000", "8"],
            "lattices must have a dimension of 1 to 1000000 and at least",
        ),
        (
            ["untrained", "--n-networks", "1000000000"],
            "empirical: n_networks must be less than or equal to 10000, got 1000000000",
        ),
        (
            ["untrained", "--n-pairs", "1000000000"],
            "empirical: n_pairs must be less than or equal to 10000, got 1000000000",
        ),
        (["untrained", "--width", "1000000000"], "empirical: width must be less than or equal to 512, got 1000000000"),
        (
            ["untrained", "--n-points", "1000000000"],
            "empirical: n_points must be less than or equal to 100000, got 1000000000",
        ),
        (
            ["untrained", "--image-size", "512", "--n-points", "100000"],
            "empirical: n_points must make paths of at most 1000000000 pixels, got 78643200000",
        ),
        (["untrained", "--gain", "1e-300"], "empirical: gain must be greater than or equal to 0.001, got 1e-300"),
        (
            ["untrained", "--learning-rate", "1e308"],
            "empirical: learning_rate must be less than or equal to 1000, got 1e+308",
        ),
        (
            ["scaling", "--n-networks", "1000000000"],
            "empirical: n_networks must be less than or equal to 10000, got 1000000000",
        ),
        (["scaling", "--widths", "1000000000"], "empirical: widths must be less than or equal to 512, got 1000000000"),
        (["scaling", "--gains", "1e308"], "empirical: gains must be less than or equal to 1000, got 1e+308"),
        (
            ["evolution", "--n-trainings", "1000000000"],
            "empirical: n_trainings must be less than or equal to 10000, got 1000000000",
        ),
        (
            ["evolution", "--batch-size", "1000000000"],
            "empirical: batch_size must be less than or equal to 65536, got 1000000000",
        ),
        (
            ["evolution", "--batch-stages", "0", "1000000000000"],
            "empirical: batch_stages must be at most 10000000 each, got (0, 1000000000000)",
        ),
        (
            ["lattice", "--n-networks", "1000000000"],
            "empirical: n_networks must be less than or equal to 1000, got 1000000000",
        ),
        (["lattice", "--bias-std", "1e308"], "empirical: bias_std must be less than or equal to 1000, got 1e+308"),
        (["lattice", "--radius", "1e-300"], "empirical: radius must be greater than or equal to 0.001, got 1e-300"),
        (
            ["lattice", "--size-radii", "1e-300"],
            "empirical: size_radii must be one or more numbers from 0.001 to 1000, got (1e-300,)",
        ),
        (["lattice", "--gain", "1e308"], "empirical: gain must be less than or equal to 1000, got 1e+308"),
        (
            ["lattice", "--search-dimensions", "1000000000"],
            "empirical: search_dimensions must be in 1 to 100000 each, got (1000000000,)",
        ),
        (
            ["lattice", "--search-dimensions", "100000", "--width", "4096"],
            "empirical: width must make networks of at most 100000000 weights, got 426377216",
        ),
        (
            ["refine", "--n-networks", "1000000000"],
            "empirical: n_networks must be less than or equal to 10000, got 1000000000",
        ),
        (["refine", "--bias-std", "1e308"], "empirical: bias_std must be less than or equal to 1000, got 1e+308"),
        (["refine", "--radius", "1e300"], "empirical: radius must be less than or equal to 1000, got 1e+300"),
        (
            ["refine", "--refinements", "1", "1000000001"],
            "empirical: refinements must be two or more odd numbers up to 999 in ascending order, got (1, 1000000001)",
        ),
        (
            ["search", "--n-networks", "1000000000"],
            "empirical: n_networks must be less than or equal to 10000, got 1000000000",
        ),
        (["search", "--radius", "1e-300"], "empirical: radius must be greater than or equal to 0.001, got 1e-300"),
        (
            ["search", "--lattices", "fixed", "2", "1000000000000"],
            "empirical: lattices must have a dimension of 1 to 1000000 and at least 2 cubes an axis, 1000000 at most",
        ),
        (
            ["search", "--lattices", "fixed", "1000000", "16", "--width", "4096"],
            "empirical: width must make networks of at most 100000000 weights, got 4112777216",
        ),
        (["lattice", "--delta", "0.3"], "empirical: delta must be 1/n for a whole number n, got 0.3\n"),
        (["evolution", "--preset", "grand"], "--preset must be one of quick, cpu, paper, got grand"),
        (["evolve"], "there is no command 'evolve'; known: untrained, scaling, evolution"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, message, tmp_path, capsys):
    out = [] if arguments == ["evolve"] else ["--out", str(tmp_path)]
    printed = _call([*arguments, *out], capsys, status=2)
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert message in printed.err
    assert not list(tmp_path.iterdir())


def test_help_shows_an_example(capsys):
    for name, command in COMMANDS.items():
        assert command.example in " ".join(_call([name, "--help"], capsys, status=0).out.split())


@pytest.mark.parametrize(
    "device, asked, n", [("cpu", 3, 3), ("cpu", 64, 64), ("cuda", 3, 3), ("cuda", 64, 16), ("mps", 3, 1)]
)
def test_a_gpu_is_given_no_more_workers_than_it_has_streams_for(device, asked, n):
    assert commandline.workers(device, asked) == n
    assert commandline.workers(device) <= (os.cpu_count() or 1)
