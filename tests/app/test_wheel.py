"""The wheel holds all that relay needs to run: it is built, installed, started, and talked to."""

from __future__ import annotations

import asyncio
import re
import site
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest

from support.client import client
from support.server import ROOT

SHIPPED = {"relay.py", "adk_relay"}
"""What the wheel puts into site-packages."""

INSIDE = {"agent": "adk_relay/agent", "static": "adk_relay/static"}
"""Folders of the project that lie inside of the package in the wheel."""

# What is installed in the place of its own that is looked for first, and what from the tests' environment.
WHERE = """
import adk_relay, adk_relay.adk.rehearsal, adk_relay.wire.dialects, relay, google.adk
for module in (adk_relay, adk_relay.adk.rehearsal, adk_relay.wire.dialects, relay, google.adk):
    print(module.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel in it.

    What relay depends on is lent from the tests' own environment, by a line in a .pth: installing all of
    it again would prove nothing about the wheel. Names are looked for in the new one first, and .pth
    files of the lent folder, such as that of an editable relay, are not read.
    """
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    install = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    paths = sysconfig.get_paths(vars={"base": str(home), "platbase": str(home)})
    lent = {*site.getsitepackages(), *(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))}
    (Path(paths["purelib"]) / "lent.pth").write_text("\n".join(sorted(lent)) + "\n")
    return python


def test_holds_what_it_must_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == SHIPPED
    source = {
        INSIDE.get(top, top) + path.as_posix().removeprefix((ROOT / top).as_posix())
        for top in [*SHIPPED, *INSIDE]
        for path in [ROOT / top, *(ROOT / top).rglob("*")]
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == source
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert re.search(r"^Requires-Python: >=3\.11$", metadata, re.MULTILINE)


def test_runs_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    asyncio.run(_run(python, tmp_path))


async def _run(python: Path, folder: Path) -> None:
    asked = subprocess.run(
        [python, "-c", WHERE], cwd=folder, env={}, capture_output=True, text=True, check=True
    ).stdout.split()
    *own, lent = (Path(line).is_relative_to(python.parent.parent) for line in asked)
    assert all(own) and not lent, asked

    log = folder.with_suffix(".log")
    with log.open("w") as stream:
        server = await asyncio.create_subprocess_exec(
            *(python, "-m", "uvicorn", "relay:app", "--port", "0"),
            cwd=folder,
            env={},
            stdout=stream,
            stderr=stream,
        )
    try:
        async with asyncio.timeout(60):
            while not (found := re.search(r"running on http://127.0.0.1:(\d+)", log.read_text())):
                assert server.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        port = int(found[1])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            page = await http.get("/")
            assert page.text == (ROOT / "static" / "index.html").read_text()
            assert (await http.get("/static/app.js")).status_code == 200
        async with client(port) as alice:
            assert alice.hello["rehearsal"] is True
            assert "hello" in await alice.ask("hello")
        terminal = await asyncio.create_subprocess_exec(
            *(python.parent / "relay-client", "--url", f"http://127.0.0.1:{port}"),
            cwd=folder,
            env={},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        answer, _ = await asyncio.wait_for(terminal.communicate(b"hello"), 60)
        assert terminal.returncode == 0
        assert answer.endswith(b"You said: hello\n")
        # What is said is kept where relay was started, and nothing else is put there.
        assert [path.name for path in folder.iterdir()] == [".adk"]
        assert (folder / ".adk" / "session.db").stat().st_size > 0
    finally:
        server.terminate()
        await asyncio.wait_for(server.wait(), 10)
    assert "ERROR" not in log.read_text()
    assert log.read_text().count("WARNING") == 1  # that it is a rehearsal
