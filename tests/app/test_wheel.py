"""The wheel holds all that relay needs to run: it is built, installed, started, and talked to."""

from __future__ import annotations

import asyncio
import os
import re
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest

from support.client import client
from support.process import HANGS, process
from support.server import ROOT
from support.wheel import build_wheel

SHIPPED = {"relay.py", "adk_relay"}
"""What the wheel puts into site-packages."""

MARKER = "relay/py.typed"
"""Tells type checkers that relay.py has types. Python finds relay.py before a folder of that name."""

INSIDE = {
    "agent": "adk_relay/agent",
    "static": "adk_relay/static",
    "clients/js/src": "adk_relay/clients/js/src",
}
"""Folders of the project that lie inside of the package in the wheel."""

# What is installed in the place of its own that is looked for first, and what from the tests' environment.
WHERE = """
import adk_relay, adk_relay.adk.rehearsal, adk_relay.wire.dialects, relay, google.adk
for module in (adk_relay, adk_relay.adk.rehearsal, adk_relay.wire.dialects, relay, google.adk):
    print(module.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


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
    assert {top for top in tops if not top.endswith(".dist-info")} == SHIPPED | {"relay"}
    source = {
        INSIDE.get(top, top) + path.as_posix().removeprefix((ROOT / top).as_posix())
        for top in [*SHIPPED, *INSIDE]
        for path in [ROOT / top, *(ROOT / top).rglob("*")]
        if path.is_file() and "__pycache__" not in path.parts
    }
    source = source - {"adk_relay/relay.typed"} | {MARKER}
    assert "adk_relay/py.typed" in source
    assert {name for name in names if ".dist-info/" not in name} == source
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert re.search(r"^Requires-Python: >=3\.11$", metadata, re.MULTILINE)


async def test_runs_from_an_empty_folder(python: Path, tmp_path: Path) -> None:
    asked = subprocess.run(
        [python, "-c", WHERE], cwd=tmp_path, env={}, capture_output=True, text=True, check=True
    ).stdout.split()
    *own, lent = (Path(line).is_relative_to(python.parent.parent) for line in asked)
    assert all(own) and not lent, asked

    async with process([python, "-m", "uvicorn", "relay:app", "--port", "0"], tmp_path, {}) as relay:
        await relay.started()
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{relay.port}", verify=False, trust_env=False
        ) as http:
            page = await http.get("/")
            assert page.text == (ROOT / "static" / "index.html").read_text()
            for script in ("/static/app.js", "/clients/js/src/index.js"):
                assert (await http.get(script)).status_code == 200
        async with client(relay.port) as alice:
            assert alice.hello["rehearsal"] is True
            assert "hello" in await alice.ask("hello")
        answer = await piped([python.with_name("relay-client")], tmp_path, relay.port, "hello")
        assert answer.endswith("You said: hello\n")
        # What is said is kept where relay was started, and nothing else is put there.
        assert [path.name for path in tmp_path.iterdir()] == [".adk"]
        assert (tmp_path / ".adk" / "session.db").stat().st_size > 0
        await relay.stop()
    [line] = relay.problems()
    assert "rehearsal" in line


async def piped(command: Sequence[str | Path], folder: Path, port: int, text: str) -> str:
    """What the terminal client prints for a text in a pipe."""
    terminal = await asyncio.create_subprocess_exec(
        *(*command, "--url", f"http://127.0.0.1:{port}"),
        cwd=folder,
        env={},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    answer, _ = await asyncio.wait_for(terminal.communicate(text.encode()), HANGS)
    assert terminal.returncode == 0
    return answer.decode()


# ---- beside what others have named the same --------------------------------------------------


@pytest.fixture(scope="module")
def beside_responses(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the environment, with PyPI's `responses` in it, too.

    Another of its kind: what a wheel has at its top is in everybody's site-packages.
    """
    folder = tmp_path_factory.mktemp("responses")
    pip = [sys.executable, "-m", "pip"]
    download = ["download", "--quiet", "--no-deps", "--dest", str(folder), "responses"]
    done = subprocess.run([*pip, *download], capture_output=True, text=True)
    if done.returncode:
        message = f"PyPI's responses can't be had: {done.stderr.strip().splitlines()[-1]}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    [built] = folder.glob("*.whl")
    install = [f"--python={python}", "install", "--quiet", "--no-deps", "--no-index", str(built)]
    subprocess.run([*pip, *install], check=True)
    return python


AGENT = """
from google.adk.agents import LlmAgent
from adk_relay.adk.rehearsal import Rehearsal

root_agent = LlmAgent(name="mine", model=Rehearsal())
"""

AGENTS = {
    "own": {"__init__.py": "from . import agent", "agent.py": AGENT},
    "none": {"__init__.py": ""},
    "": {},
}
"""What the folder agent/ has in it."""


def crowd(folder: Path, agent: str) -> None:
    """Fills a folder with what has names that relay's own files have, or had."""
    for name in ("api", "client", "sockets", "responses"):
        (folder / f"{name}.py").write_text(f"raise RuntimeError('{name}.py is not relay's')")
    (folder / "static").mkdir()
    (folder / "static" / "index.html").write_text("somebody else's page")
    for name, text in AGENTS[agent].items():
        (folder / "agent").mkdir(exist_ok=True)
        (folder / "agent" / name).write_text(text)


def test_two_wheels_share_no_name(beside_responses: Path, tmp_path: Path) -> None:
    program = (
        "import importlib.metadata, relay, responses\n"
        "print(responses.RequestsMock.__name__, relay.Relay.__name__)\n"
        "def tops(name):\n"
        "    parts = (file.parts[0].removesuffix('.py') for file in importlib.metadata.files(name))\n"
        "    return {part for part in parts if part.isidentifier() and part != '__pycache__'}\n"
        "one, other = tops('adk-relay'), tops('responses')\n"
        "assert one and other and not one & other, one & other\n"
    )
    done = subprocess.run(
        [beside_responses, "-c", program], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "RequestsMock Relay\n"), done.stderr


@pytest.mark.parametrize("command", ["relay serve", "uvicorn"])
@pytest.mark.parametrize("agent", AGENTS)
async def test_runs_from_a_folder_that_has_the_same_names(
    beside_responses: Path, tmp_path: Path, agent: str, command: str
) -> None:
    crowd(tmp_path, agent)
    serve: list[str | Path] = [beside_responses, "-m", "uvicorn", "relay:app"]  # it looks here first
    if command == "relay serve":
        serve = [beside_responses.with_name("relay"), "serve"]
    async with process([*serve, "--port", "0"], tmp_path, {}) as relay:
        if agent == "none":
            assert await relay.ended() == 3
            first, last = relay.problems()
            assert first.startswith(f"ERROR: relay: The folder {tmp_path / 'agent'} has no root_agent. ")
            assert last == "ERROR: Application startup failed. Exiting."
            return
        await relay.started()
        served = await relay.says("serving the agent (.*), from (.*)")
        if agent == "own":
            assert served.groups() == ("mine", str(tmp_path / "agent" / "agent.py"))
        else:
            assert served[1] == "assistant"
            assert served[2].endswith("/site-packages/adk_relay/agent/__init__.py")
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{relay.port}", verify=False, trust_env=False
        ) as http:
            assert (await http.get("/")).text == (ROOT / "static" / "index.html").read_text()
        async with client(relay.port) as alice:
            assert "hello" in await alice.ask("hello")
        chat: list[str | Path] = [beside_responses.with_name("relay"), "chat"]
        assert "good evening" in await piped(chat, tmp_path, relay.port, "good evening")
        await relay.stop()
        assert len(relay.problems()) == 1  # that it is a rehearsal


async def test_the_built_in_agent_can_be_named(python: Path, tmp_path: Path) -> None:
    crowd(tmp_path, "none")
    serve: list[str | Path] = [python.with_name("relay"), "serve", "--port", "0"]
    async with process([*serve, "--agent", "adk_relay.agent:root_agent"], tmp_path, {}) as relay:
        await relay.started()
        served = await relay.says("serving the agent assistant, from (.*)")
        assert served[1].endswith("/site-packages/adk_relay/agent/__init__.py")


# ---- its types -------------------------------------------------------------------------------

EMBEDDING = """
from google.adk.agents import LlmAgent
from adk_relay.adk.models import run_config
from relay import Relay, app

agent: LlmAgent = LlmAgent(name="mine", model="gemini-3.8-live")
relay = Relay(agent, run_config=run_config("Puck", "de-DE"), sessions="memory://", grace=10)

async def main() -> None:
    await app({"type": "http"}, None, None)  # wrong: no receive
    await relay.aclose()
    reveal_type(relay.conversations)
    Relay("me", grase=10)  # wrong, twice
"""


@pytest.mark.timeout(600)  # mypy reads all of ADK
def test_a_program_that_embeds_it_is_checked(python: Path, tmp_path: Path) -> None:
    """With all of relay's types: what is right passes, what is wrong does not."""
    right = "\n".join(line for line in EMBEDDING.splitlines() if "wrong" not in line and "reveal" not in line)
    (tmp_path / "right.py").write_text(right)
    (tmp_path / "wrong.py").write_text(EMBEDDING)

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            *("--strict", "--warn-unreachable"),  # as in pyproject.toml: mypy has read ADK for it already
            *("--cache-dir", str(ROOT / ".mypy_cache")),
            f"--python-executable={python}",
            "--config-file=",
            *("right.py", "wrong.py"),
        ],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert {line.partition(":")[0] for line in lines} == {"wrong.py"}
    assert last.endswith("in 1 file (checked 2 source files)")
    kinds = [found[1] for line in lines if (found := re.search(r"(?:error|note): (.*)$", line))]
    assert len([kind for kind in kinds if kind.endswith("[arg-type]")]) == 3
    assert len([kind for kind in kinds if "grase" in kind]) >= 1
    assert 'Revealed type is "adk_relay.adk.conversations.Conversations"' in kinds
