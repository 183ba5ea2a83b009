"""Style and types are clean, and the layers import one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import ROOT

PACKAGE = ROOT / "adk_relay"

MAY_IMPORT = {
    "core": {"core"},
    "wire": {"core", "wire"},
    "adk": {"core", "adk"},
    "bus": {"core", "bus"},
    "client": {"client"},
}
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


def loaded(statement: str) -> set[str]:
    """The modules that a new interpreter has loaded after a statement."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules, sep='\\n')"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def below(name: str, modules: set[str]) -> set[str]:
    return {module for module in modules if f"{module}.".startswith(f"{name}.")}


EVERYTHING = """
import importlib, pkgutil, adk_relay.{layer}
for found in pkgutil.walk_packages(adk_relay.{layer}.__path__, "adk_relay.{layer}."):
    importlib.import_module(found.name)
"""


@pytest.mark.parametrize(
    ("layer", "others"),
    [
        ("core", ["google", "redis", "adk_relay.wire", "adk_relay.adk", "adk_relay.client"]),
        ("wire", ["google", "adk_relay.adk", "adk_relay.client"]),
        ("adk", ["adk_relay.wire", "adk_relay.client"]),
        ("bus", ["google", "adk_relay.wire", "adk_relay.adk", "adk_relay.client"]),
        ("client", ["google", "adk_relay.core", "adk_relay.wire", "adk_relay.adk"]),
    ],
)
def test_a_layer_loads_no_other(layer: str, others: list[str]) -> None:
    modules = loaded(EVERYTHING.format(layer=layer))
    files = {path for path in MODULES if path.relative_to(PACKAGE).parts[0] == layer}
    assert len(below(f"adk_relay.{layer}", modules)) == len(files)
    for other in ["relay", *others]:
        assert below(other, modules) == set()


def test_importing_relay_loads_no_adk() -> None:
    """ADK takes seconds to import, on some machines. Who asks for --help does not wait for it."""
    modules = loaded("import relay")
    assert "adk_relay.wire.websocket" in modules
    assert below("google", modules) == below("adk_relay.adk", modules) == set()
    assert below("dotenv", modules) == below("uvicorn", modules) == set()


def test_help_of_the_command_loads_no_adk_and_no_server() -> None:
    modules = loaded(
        "import contextlib, io, adk_relay.__main__\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    adk_relay.__main__.main(['serve', '--help'])"
    )
    assert "adk_relay.settings" in modules
    assert below("google", modules) == below("uvicorn", modules) == below("adk_relay.adk", modules) == set()


def test_relay_py_is_short_enough_to_be_read_first() -> None:
    assert len((ROOT / "relay.py").read_text().splitlines()) <= 300


def test_the_adk_side_takes_no_scope() -> None:
    for file in (PACKAGE / "adk").glob("*.py"):
        arguments = {node.arg for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.arg)}
        assert not arguments & {"scope", "receive", "send"}, file
