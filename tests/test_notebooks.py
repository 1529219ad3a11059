"""Every notebook runs from top to bottom, in order, with public names only."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_holds_no_output(path, capsys):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for cell in cells:
        assert not cell["outputs"], "notebooks are kept without outputs"
        code = "".join(cell["source"])
        assert not re.search(r"(?<![\w.])_\w|\._[a-z]", code), "public names only"
        exec(compile(code, path.name, "exec"), names)
    assert capsys.readouterr().out
