"""The floors of the house, read from the syntax trees, and what an import loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"percolation", "lipschitz", "empirical", "paper_figs"}
SETTINGS = {"pydantic", "xarray"}
# floor by floor, what a package may import beside the standard library
MAY_IMPORT = {
    "percolation": {"numpy", "scipy", "numba", "joblib", "threadpoolctl", "tqdm", "tyro"} | SETTINGS,
    "lipschitz": {"numpy", "scipy", "torch", "safetensors"} | SETTINGS,
    "empirical": {"numpy", "scipy", "torch", "torchvision", "sklearn", "percolation", "lipschitz"} | SETTINGS,
    "paper_figs": {"numpy", "scipy", "matplotlib", "seaborn", "jinja2", "tqdm", "tyro", *OURS} | SETTINGS,
}
# Only the outermost layer of lipschitz knows the frame that runs experiments, which lives in percolation.
EXCEPTIONS = {("lipschitz/__main__.py", "percolation"), ("lipschitz/torchvision_operators.py", "torchvision")}
# Which modules may use a library that loads slowly or draws; everything else stays free of it.
ONLY_IN = {
    "numba": {"percolation/_kernels/compiler.py"},
    "tyro": {"percolation/commandline.py", "paper_figs/__main__.py"},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def modules():
    return [path for package in sorted(OURS) for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_stay_on_their_floor(path):
    name = path.relative_to(ROOT).as_posix()
    package = name.split("/")[0]
    for imported in imports(path):
        top = imported.split(".")[0]
        if top in sys.stdlib_module_names or top == package or (name, top) in EXCEPTIONS:
            continue
        assert top in MAY_IMPORT[package], f"{name} imports {imported}"
        assert name in ONLY_IN.get(top, {name}), f"{name} imports {imported}"


def test_the_oracles_import_nothing_of_ours():
    assert not {name.split(".")[0] for name in imports(ROOT / "tests" / "oracles.py")} & OURS


def test_no_file_is_named_after_nothing():
    forbidden = {"utils", "util", "common", "helpers", "helper", "base", "types", "misc"}
    assert not [path for path in modules() if path.stem in forbidden]


def test_every_file_stays_readable():
    assert not [(str(path), n) for path in modules() if (n := len(path.read_text().splitlines())) > 500]


@pytest.mark.parametrize(
    "module, heavy",
    [
        ("percolation", "torch matplotlib numba xarray"),
        ("percolation.scaling", "torch matplotlib"),
        ("percolation.__main__", "torch matplotlib"),
        ("lipschitz.upper", "percolation numba matplotlib"),
        ("empirical.connect", "matplotlib"),
    ],
)
def test_an_import_loads_no_more_than_its_floor(module, heavy):
    script = f"import sys, {module}; print(sorted(set(sys.modules) & set('{heavy}'.split())))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", [p for p in modules() if p.name not in ("__main__.py", "commandline.py")], ids=str)
def test_only_the_outermost_layer_prints_or_reads_the_environment(path):
    tree = ast.parse(path.read_text())
    names = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "print" not in names
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & {"environ", "getenv"}
