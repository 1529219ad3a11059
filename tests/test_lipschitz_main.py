"""The command ``python -m lipschitz``."""

import json
import subprocess
import sys

import pytest
import torch

from lipschitz.__main__ import COMMANDS
from percolation import commandline

SMALL = ["--depths", "1", "3", "--widths", "4", "--input-dimension", "5", "--n-networks", "2", "--n-steps", "4"]


def run(*words):
    commandline.main("lipschitz", COMMANDS, words)


def test_table_is_printed_with_the_folder_it_was_written_to(tmp_path, capsys):
    run("bounds", *SMALL, "--out", str(tmp_path))
    printed = capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    assert "product bound" in printed
    assert "means over 2 random tanh networks, 5 inputs; epsilon for delta = 0.1, delta' = 0.05" in printed
    assert printed.splitlines()[-1] == f"written to {folder}"
    assert {path.name for path in folder.iterdir()} == {
        "settings.json", "result.nc", "summary.json", "provenance.json"
    }  # fmt: skip


def test_json_is_all_that_stands_on_standard_output(tmp_path):
    command = [sys.executable, "-m", "lipschitz", "bounds", *SMALL, "--seed", "3", "--json", "--out", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(finished.stdout)["rows"]
    assert [(row["depth"], row["width"]) for row in rows] == [(1, 4), (3, 4)]
    assert all(0 < row["lower"] <= row["upper"] for row in rows)
    assert finished.stderr == ""
    (folder,) = tmp_path.iterdir()
    assert json.loads((folder / "summary.json").read_text()) == {"rows": rows}
    assert json.loads((folder / "settings.json").read_text())["settings"]["seed"] == 3


@pytest.mark.parametrize(
    "words, message",
    [
        (["--depths", "0"], "lipschitz: depths[0] must be greater than or equal to 1, got 0"),
        (["--delta", "0.3"], "lipschitz: delta must be 1 over a whole number, got 0.3"),
        (["--n-networks", "1"], "lipschitz: n_networks must be greater than or equal to 2, got 1"),
        (["--nonsense"], "lipschitz: Unrecognized options: --nonsense"),
        (["--preset", "huge"], "lipschitz: --preset must be one of quick, paper, got huge"),
    ],
)
def test_bad_flags_give_one_line_and_status_two(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        run("bounds", *words, "--out", str(tmp_path / "out"))
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.err == f"{message}\n"
    assert printed.out == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("bounds", *SMALL, "--device", "cuda", "--out", str(tmp_path))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "lipschitz: device must be one that torch finds here, got cuda\n"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_bounds_run_on_a_gpu(tmp_path, capsys):
    run("bounds", *SMALL, "--device", "cuda", "--json", "--out", str(tmp_path))
    assert all(0 < row["lower"] <= row["upper"] for row in json.loads(capsys.readouterr().out)["rows"])


def test_help_shows_the_example(capsys):
    with pytest.raises(SystemExit):
        run("bounds", "--help")
    assert "python -m lipschitz bounds --depths" in " ".join(capsys.readouterr().out.split())
