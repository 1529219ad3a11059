"""Every public function, found by looking, with one hostile argument: a result, or one line of ours; never more."""

import importlib
import itertools
import subprocess
import sys
from pathlib import Path

import hostile_arguments
import pytest

# Modules whose functions take what a user passes; runs, command lines and experiments have tests of their own.
MODULES = {
    "percolation": "animals clusters fields finite_clusters growth labels levelsets meanfield rare regimes scaling "
    "survey sweep threshold wide",
    "empirical": "connect lattice_models lattice_search models network_lattice paths refined_lattice synthesis train "
    "value_intervals",
}
# Not called: contexts and callables of a network that is being worked on, files, and functions of functions.
LEFT_OUT = {
    *("models.frozen", "models.for_gradients", "models.folded", "models.with_matrices", "train.save", "train.load"),
    *("value_intervals.certify_path", "regimes.miss"),
}


@pytest.mark.parametrize("package", MODULES)
def test_no_public_function_is_forgotten(package):
    names = {
        f"{name}.{function}"
        for name in MODULES[package].split()
        for function in hostile_arguments.public(importlib.import_module(f"{package}.{name}"))
    }
    calls = getattr(hostile_arguments, f"{package}_calls")()
    assert names - LEFT_OUT - calls.keys() == set()


@pytest.mark.parametrize("package", MODULES)
def test_no_argument_ends_the_interpreter_hangs_or_passes_to_a_library(package):
    program = Path(hostile_arguments.__file__)
    command = [sys.executable, "-W", "error", str(program), package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"ended with {done.returncode} in {lines[-1:]} {done.stderr[-500:]}"
    assert [pair for pair in itertools.pairwise(lines) if pair[1].startswith("!")] == []
