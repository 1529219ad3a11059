"""The README is true: its commands run, its code runs, its links lead somewhere."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from empirical import __main__ as empirical_command
from lipschitz import __main__ as lipschitz_command
from paper_figs import __main__ as figures_command
from percolation import __main__ as percolation_command
from percolation import commandline

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = {
    "percolation": percolation_command.COMMANDS,
    "lipschitz": lipschitz_command.COMMANDS,
    "empirical": empirical_command.COMMANDS,
}


def test_the_first_two_blocks_are_the_two_commands():
    shell = [text.strip() for language, text in BLOCKS if language == "bash"]
    assert shell[0] == "python -m pip install -e . && python -m paper_figs report"
    assert shell[1] == 'python -m pip install -e ".[test]" && python -m pytest'


def test_the_hint_for_a_cpu_build_names_both_libraries_in_the_ranges_of_the_package():
    (hint,) = [text for language, text in BLOCKS if "whl/cpu" in text]
    asked = {word for word in shlex.split(hint) if word.startswith("torch")}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert asked == {package for package in packages if package.startswith("torch")}
    assert len(asked) == 2


def mentioned():
    return sorted(set(re.findall(r"python -m (?:percolation|lipschitz|empirical|paper_figs) [^`\n]+", README)))


@pytest.mark.parametrize("line", mentioned())
def test_every_command_is_understood(line, capsys):
    """Each command of the README parses; what it computes is tested, smaller, with its package."""
    package, *words = shlex.split(line)[2:]
    if package == "paper_figs":
        assert words[0] == "report" or words[0] in figures_command.PLOTS
        return
    command = COMMANDS[package][words[0]]
    words = ["digits" if word == "FILE" else word for word in words]
    options = commandline._parse(package, command, words[1:])
    assert options.out == Path("runs")


def test_every_command_of_the_code_is_in_the_readme():
    for package, commands in COMMANDS.items():
        for name in commands:
            assert f"python -m {package} {name}" in README
    for name in figures_command.PLOTS:
        assert f"python -m paper_figs {name}" in README


def test_the_python_example_runs_and_prints_what_it_says(capsys):
    (code,) = [text for language, text in BLOCKS if language == "python"]
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.split()
    assert float(printed[0]) == pytest.approx(1.39e-06, rel=0.01)
    assert float(printed[2]) == pytest.approx(2.76e-06, rel=0.01)
    # 1000 clusters: standard error 0.016, five of them
    assert float(printed[3]) == pytest.approx(0.416, abs=0.08)


def test_files_it_points_to_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
