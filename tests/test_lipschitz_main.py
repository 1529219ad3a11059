"""The command ``python -m lipschitz``."""

import json
import math
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lipschitz import bounding, certifying
from lipschitz.__main__ import COMMANDS
from percolation import commandline

SMALL = [
    *("--depths", "1", "3", "--widths", "4", "--dimensions", "3", "--input-dimension", "5"),
    *("--n-networks", "2", "--n-steps", "4"),
]


def run(*words):
    commandline.main("lipschitz", COMMANDS, words)


def test_table_is_printed_with_the_folder_it_was_written_to(tmp_path, capsys):
    run("bounds", *SMALL, "--out", str(tmp_path))
    printed = capsys.readouterr().out
    (folder,) = tmp_path.iterdir()
    assert "LipSDP" in printed
    assert "means over 2 random tanh networks; epsilon for delta = 0.1, delta' = 0.05" in printed
    assert printed.splitlines()[-1] == f"written to {folder}"
    assert {path.name for path in folder.iterdir()} == {
        "settings.json", "result.nc", "summary.json", "provenance.json", "SHA256SUMS"
    }  # fmt: skip


def test_json_is_all_that_stands_on_standard_output(tmp_path):
    command = [sys.executable, "-m", "lipschitz", "bounds", *SMALL, "--seed", "3", "--json", "--out", str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(finished.stdout)["rows"]
    assert [(row["depth"], row["input_dimension"]) for row in rows] == [(1, 5), (3, 3), (3, 5)]
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
        (
            ["--n-networks", "1000000000"],
            "lipschitz: n_networks must be less than or equal to 10000, got 1000000000",
        ),
        (["--depths", "100000"], "lipschitz: depths[0] must be less than or equal to 1000, got 100000"),
        (["--widths", "1000000000"], "lipschitz: widths[0] must be less than or equal to 100000, got 1000000000"),
        (
            ["--widths", "100000", "--depths", "3"],
            "lipschitz: widths must make networks of at most 100000000 weights, got 10102400000",
        ),
        (
            ["--n-starts", "100000", "--widths", "2000", "--depths", "2"],
            "lipschitz: n_starts must have at most 100000000 coordinates in a layer, got 200000000",
        ),
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


@pytest.fixture
def networks(monkeypatch):
    """An importable module whose functions make small networks."""

    def hinge():
        """Two logits whose difference is |x|: the cross-entropy of class 0 is ln(1 + e^|x|)."""
        model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
        with torch.no_grad():
            model[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
            model[2].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
        return model

    found = types.ModuleType("made_for_the_command")
    found.hinge = hinge
    found.dense = lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    found.image = lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2))
    found.strange = lambda: nn.Sequential(nn.Linear(4, 4), nn.Hardshrink())

    class Ending(nn.Module):
        def forward(self, _):
            sys.exit()

    found.ending = Ending

    def slow():
        """A network whose making takes longer than a thread's turn."""
        layers = [nn.Linear(4, 4)]
        for _ in range(3):
            sys.stdout.write("a layer is made")
            time.sleep(0.01)
            layers += [nn.ReLU(), nn.Linear(4, 4)]
        return nn.Sequential(*layers)

    found.slow = slow
    monkeypatch.setitem(sys.modules, "made_for_the_command", found)
    return "made_for_the_command"


@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_bound_has_a_row_a_method_and_its_bounds_are_in_order(networks, tmp_path, capsys, norm):
    line = ["bound", f"{networks}:dense", "--input-shape", "4", "--norm", norm, "--out", str(tmp_path)]
    run(*line, "--json")
    summary = json.loads(capsys.readouterr().out)
    uppers = {row["method"]: row["upper"] for row in summary["rows"] if "upper" in row}
    assert {"product", "product, rescaled", "absolute values"} <= set(uppers)
    assert ("LipSDP" in uppers) == (norm == "2")
    assert 0 < summary["lower"] <= summary["upper"] == min(uppers.values())
    assert all(row["is_certified"] and row["seconds"] > 0 for row in summary["rows"])
    run(*line)
    printed = capsys.readouterr().out
    assert f"Lipschitz constant of {networks}:dense, {norm}-norm" in printed
    assert "found again in" in printed


def test_a_method_that_does_not_go_with_the_network_says_why(networks, tmp_path, capsys):
    run("bound", f"{networks}:image", "--input-shape", "2", "5", "5", "--json", "--out", str(tmp_path))
    rows = {row["method"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert rows["LipSDP"]["upper"] is None
    assert "got convolution" in rows["LipSDP"]["note"]
    assert rows["product"]["upper"] > 0


def test_a_certificate_says_what_it_does_and_how_far_it_is(networks, tmp_path):
    for name, end in (("a", -1.0), ("b", 0.5)):
        np.save(tmp_path / f"{name}.npy", np.array([end]))
    ends = {name: str(tmp_path / f"{name}.npy") for name in ("a", "b")}
    chosen = certifying.Settings(network=f"{networks}:hinge", **ends, target=0, threshold=2.0)
    said = []
    (network,) = certifying.tasks(chosen).values()
    certifying.run_task(chosen, network, np.random.SeedSequence(0), progress=said.append)
    assert said[:3] == ["reading the network", "norms of layers, 0 of 4 steps", "norms of layers, 1 of 4 steps"]
    assert said[-1] == "tracing pieces, 100.0% of the segment"


def test_all_methods_bound_one_network_on_any_number_of_workers(networks, tmp_path, capsys):
    """Each task loaded the network on its own, under a seed of torch's global generator that all threads share."""
    found = []
    for i, n_workers in enumerate((1, 2, 2)):
        before = torch.get_rng_state()
        line = ["bound", f"{networks}:slow", "--input-shape", "4", "--norm", "inf", "--json"]
        run(*line, "--workers", str(n_workers), "--out", str(tmp_path / str(i)))
        assert torch.equal(torch.get_rng_state(), before)
        rows = json.loads(capsys.readouterr().out)["rows"]
        found.append([(row["method"], row.get("upper"), row.get("lower"), row["note"]) for row in rows])
    assert found[0] == found[1] == found[2]
    assert all(upper is not None or lower is not None for _, upper, lower, _ in found[0])


def test_what_a_network_prints_is_not_on_standard_output(networks, tmp_path, capsys):
    run("bound", f"{networks}:slow", "--input-shape", "4", "--json", "--out", str(tmp_path))
    printed = capsys.readouterr()
    json.loads(printed.out)
    assert "made" in printed.err


@pytest.mark.parametrize("method", ["product", "LipLT", "attained slope"])
def test_one_method_that_fails_leaves_the_others_standing(networks, tmp_path, capsys, monkeypatch, method):
    def fail(*_, **__):
        raise AttributeError("'Linear' object has no attribute\n 'dilation'")

    if method == "attained slope":
        monkeypatch.setattr(bounding, "_search", fail)
    else:
        monkeypatch.setitem(bounding._UPPER, method, fail)
    line = ["bound", f"{networks}:dense", "--input-shape", "4", "--out", str(tmp_path)]
    run(*line, "--json")
    summary = json.loads(capsys.readouterr().out)
    rows = {row["method"]: row for row in summary["rows"]}
    assert rows.pop(method)["note"] == "it failed: AttributeError: 'Linear' object has no attribute 'dilation'"
    assert all(row.get("upper") or row.get("lower") for row in rows.values())
    assert (summary["lower"] is None) == (method == "attained slope")
    assert summary["upper"] > 0
    run(*line)
    assert "has no attribute 'dilation'" in capsys.readouterr().out


def test_a_lack_of_memory_is_not_kept_as_a_method_s_failure(networks, tmp_path, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("can't allocate memory")

    line = ["bound", f"{networks}:dense", "--input-shape", "4", "--json", "--out", str(tmp_path)]
    with monkeypatch.context() as patched:
        patched.setitem(bounding._UPPER, "LipLT", fail)
        with pytest.raises(SystemExit):
            run(*line)
    assert "lipschitz: there is not enough memory (can't allocate memory)" in capsys.readouterr().err
    run(*line)
    assert all(row["note"] == "" for row in json.loads(capsys.readouterr().out)["rows"])


def test_a_network_in_a_file_is_certified_and_its_change_is_another_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.array([1.0, 0.0], dtype=">f4"))
    for threshold in (1.0, 2.0):
        text = "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Linear(2, 2), nn.Flatten())\n"
        Path("mynet.py").write_text(text + f"\n\nUNUSED = {threshold}\n")
        run("certify", "./mynet.py:net", "a.npy", "a.npy", "--target", "0", "--threshold", "9", "--json")
        assert json.loads(capsys.readouterr().out)["status"] == "certified"
    assert len(list(Path("runs").iterdir())) == 2


def test_other_weights_are_another_run(networks, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.save(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).state_dict(), path)
        line = ["bound", f"{networks}:dense", "--input-shape", "4", "--weights", str(path)]
        run(*line, "--json", "--out", str(tmp_path / "runs"))
        values.append(json.loads(capsys.readouterr().out)["upper"])
    assert values[0] != values[1]
    assert len(list((tmp_path / "runs").iterdir())) == 2


@pytest.mark.parametrize("threshold, status", [(math.log(1 + math.e) + 1e-9, "certified"), (1.0, "violated")])
def test_certify_decides(networks, tmp_path, capsys, threshold, status):
    np.save(tmp_path / "a.npy", np.array([-1.0]))
    np.save(tmp_path / "b.npy", np.array([0.5]))
    ends = [str(tmp_path / name) for name in ("a.npy", "b.npy")]
    line = ["certify", f"{networks}:hinge", *ends, "--target", "0", "--threshold", repr(threshold)]
    line += ["--out", str(tmp_path / "runs")]
    run(*line, "--json")
    printed = capsys.readouterr()
    summary = json.loads(printed.out)
    assert printed.err == ""
    assert summary["status"] == status
    assert summary["lower_loss"] <= math.log(1 + math.e) + 1e-12
    if status == "certified":
        assert summary["t"] == 0.0
        assert summary["lower_loss"] <= math.log(1 + math.e) <= summary["upper_loss"]
        assert summary["n_pieces"] == 2
    run(*line)
    printed = capsys.readouterr().out
    assert printed.startswith(f"status                     {status}: the cross-entropy of class 0 is ")
    # a violation among the first few points needs no tracing
    assert ("pieces                     2\n" in printed) == (status == "certified")


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["bound", "made_for_the_command:dense", "--seed", str(2**64)],
            "lipschitz: seed must be less than 18446744073709551616, got 18446744073709551616",
        ),
        (["bound"], "lipschitz: lipschitz bound must be followed by NETWORK, got nothing"),
        (["bound", "a:b", "c"], "lipschitz: lipschitz bound must be followed by NETWORK, got a:b c"),
        (["bound", "dense"], "lipschitz: network must be MODULE:FUNCTION or FILE.py:FUNCTION, got dense"),
        (
            ["bound", "made_for_the_command:strange", "--input-shape", "4"],
            "lipschitz: layer '1' (Hardshrink) must be one that is known, got hardshrink: it jumps",
        ),
        (
            ["bound", "made_for_the_command:dense", "--input-shape", "5"],
            "lipschitz: network must take inputs of shape (5,), got made_for_the_command:dense: RuntimeError: ",
        ),
        (
            ["bound", "made_for_the_command:ending", "--input-shape", "4"],
            "network must take inputs of shape (4,), got made_for_the_command:ending: SystemExit: no reason given (",
        ),
        (
            ["certify", "made_for_the_command:ending", "good.npy", "good.npy", "--target", "0"],
            "network must take inputs of shape (1,), got made_for_the_command:ending: SystemExit: no reason given (",
        ),
        (["bound", "made_for_the_command:dense", "--weights", "nowhere.pt"], "No such file or directory: 'nowhere.pt'"),
        (
            ["certify", "made_for_the_command:hinge"],
            "lipschitz: lipschitz certify must be followed by NETWORK A B, got",
        ),
        (
            ["certify", "made_for_the_command:hinge", "text.npy", "text.npy"],
            "lipschitz: target must be given: the class whose cross-entropy is the loss",
        ),
        (
            ["certify", "made_for_the_command:hinge", "text.npy", "text.npy", "--target", "0"],
            "text.npy must be a file that numpy.save wrote: ",
        ),
        (
            ["certify", "made_for_the_command:hinge", "whole.npy", "whole.npy", "--target", "0"],
            "whole.npy must hold one array of floating-point numbers, got int64",
        ),
        (
            ["certify", "made_for_the_command:hinge", "long.npy", "long.npy", "--target", "0"],
            "long.npy must hold one array of floating-point numbers, got float128",
        ),
        (
            ["certify", "made_for_the_command:hinge", "huge.npy", "huge.npy", "--target", "0"],
            "huge.npy must be a file that numpy.save wrote: mmap length is greater than file size",
        ),
        (
            ["certify", "made_for_the_command:hinge", "deep.npy", "deep.npy", "--target", "0"],
            "deep.npy must be a file that numpy.save wrote: ",
        ),
        (
            ["certify", "made_for_the_command:hinge", "pipe.npy", "good.npy", "--target", "0"],
            "pipe.npy must be a file, got a folder, a pipe or a device",
        ),
        (
            ["certify", "made_for_the_command:hinge", "good.npy", "/dev/zero", "--target", "0"],
            "/dev/zero must be a file, got a folder, a pipe or a device",
        ),
        (
            ["certify", "made_for_the_command:hinge", "good.npy", "good.npy", "--target", "2"],
            "target must",
        ),
    ],
)
def test_mistakes_in_networks_and_files_are_one_line(networks, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.npy").write_text("no array")
    np.save("whole.npy", np.array([1]))
    np.save("good.npy", np.array([1.0]))
    np.save("long.npy", np.array([1.0], dtype=np.longdouble))
    header = Path("good.npy").read_bytes()[:128]
    with Path("huge.npy").open("wb") as huge:
        np.lib.format.write_array_header_1_0(huge, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    Path("deep.npy").write_bytes(header[:10] + 118 * b"(")
    os.mkfifo("pipe.npy")
    with pytest.raises(SystemExit) as stopped:
        run(*words, "--out", "out", "--json")
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
