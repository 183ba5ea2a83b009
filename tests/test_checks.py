"""Style and types are clean; the two rules of the house hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OUTSIDE = sorted([*ROOT.glob("*.py"), *(ROOT / "dialects").glob("*.py")])


@pytest.mark.parametrize(
    "command", [["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]], ids=" ".join
)
def test_clean(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def imports(file: Path) -> set[str]:
    """The top-level packages that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("file", OUTSIDE, ids=lambda file: file.name)
def test_the_sockets_know_no_adk(file: Path) -> None:
    assert "google" not in imports(file)


@pytest.mark.parametrize("file", sorted((ROOT / "agent").glob("*.py")), ids=lambda file: file.name)
def test_the_agent_knows_no_sockets(file: Path) -> None:
    assert not imports(file) & {outside.stem for outside in [*ROOT.glob("*.py"), ROOT / "dialects"]}
    arguments = {node.arg for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.arg)}
    assert not arguments & {"scope", "receive", "send"}
