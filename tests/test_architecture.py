"""The arrows between the packages, the size of the files, and what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("engine", "actors", "cluster", "guests", "jobs", "analysis")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
GUESTS = ("lime_text", "shap_partition", "shap_kernel", "captum_kernel_shap")
LONGEST = 400
"""Lines of a source file: one concept each."""

HEAVY = {"ray", "torch", "transformers", "polars", "vllm", "sklearn", "lime", "shap", "matplotlib"}


def loaded_by(module: str) -> set[str]:
    """Return the top-level modules that importing a module brings along, in a fresh process."""
    code = f"import sys, {module}; print(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_contracts_hold() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_are_short(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= LONGEST, f"{name} has {lines} lines: split it by concept"


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("engine.step", HEAVY),  # what every step task imports
        ("engine.config", HEAVY),
        ("engine.plan", HEAVY),
        ("engine.commits", HEAVY | {"numpy", "pydantic"}),
        ("actors.host", HEAVY),
        *((f"guests.{name}", HEAVY | {"captum"}) for name in GUESTS),
        ("analysis.load", HEAVY - {"polars"}),
        ("jobs.cli", HEAVY | {"numpy", "pyarrow", "pydantic"}),
    ],
)
def test_imports_are_light(module: str, unwanted: set[str]) -> None:
    assert loaded_by(module) & unwanted == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_house_style(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    only_docstring = all(isinstance(node, ast.Expr) for node in tree.body)
    assert imports or only_docstring or path.name == "__init__.py", "annotations from __future__"
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            swallowed = all(isinstance(line, ast.Pass) for line in node.body)
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            assert not (swallowed and broad), f"line {node.lineno} hides every error"


def test_packages_that_are_installed_are_those_there_are() -> None:
    """A new package must be named in pyproject.toml, or an installed rayxai lacks it."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = set(project["tool"]["setuptools"]["packages"])
    there = {path.parent.relative_to(ROOT).as_posix().replace("/", ".") for path in SOURCES}
    assert named == there
