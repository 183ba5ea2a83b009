"""Style and types are clean, and the layers import one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import ROOT

PACKAGE = ROOT / "adk_relay"

MAY_IMPORT = {"core": {"core"}, "wire": {"core", "wire"}, "adk": {"core", "adk"}, "client": {"client"}}
"""Which layers of the package the files of a layer may import."""

MODULES = sorted(path for layer in MAY_IMPORT for path in (PACKAGE / layer).rglob("*.py"))


@pytest.mark.parametrize(
    "command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join
)
def test_clean(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def imports(file: Path) -> list[str]:
    """The modules that a file imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_layers_import_one_way(file: Path) -> None:
    layer = file.relative_to(PACKAGE).parts[0]
    for name in imports(file):
        first, *rest = name.split(".")
        assert first not in ("relay", "agent"), name
        assert layer == "adk" or first != "google", name
        if first == "adk_relay":
            assert rest, name
            assert rest[0] in MAY_IMPORT[layer], name


def test_the_adk_side_takes_no_scope() -> None:
    for file in (PACKAGE / "adk").glob("*.py"):
        arguments = {node.arg for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.arg)}
        assert not arguments & {"scope", "receive", "send"}, file
