"""Which agent is served: the one that is named, that of the folder agent/, or the built-in one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from support.client import client
from support.process import UVICORN, relay_process, warm_relay
from support.server import ROOT
from support.warm import warm

ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
"""The checkout, whose own `agent` is a package that `import agent` would find."""

AGENT = """
from google.adk.agents import LlmAgent
from adk_relay.adk.rehearsal import Rehearsal

root_agent = LlmAgent(name="mine", model=Rehearsal(words_per_second=50))
"""

APP = f"""{AGENT}
from google.adk.apps import App
app = App(name="agent", root_agent=LlmAgent(name="of_the_app", model=Rehearsal()))
"""

YAML = """
name: mine
model: gemini-3.8-live
instruction: Be kind.
"""

LAYOUTS: dict[str, tuple[dict[str, str], str]] = {
    "in-the-package": ({"__init__.py": AGENT}, "__init__.py"),
    "taken-into-the-package": (
        {"__init__.py": "from .agent import root_agent", "agent.py": AGENT},
        "__init__.py",
    ),
    "in-agent-py": ({"__init__.py": "from . import agent", "agent.py": AGENT}, "agent.py"),
    "in-agent-py-alone": ({"__init__.py": "", "agent.py": AGENT}, "agent.py"),
    "no-package": ({"agent.py": AGENT}, "agent.py"),
    "a-package-in-the-package": ({"agent/__init__.py": AGENT}, "agent/__init__.py"),
    "yaml": ({"root_agent.yaml": YAML}, "root_agent.yaml"),
    "yaml-in-a-package": ({"__init__.py": "", "root_agent.yaml": YAML}, "root_agent.yaml"),
    "imports": (
        {
            "__init__.py": "from . import agent",
            "agent.py": f"from agent.tools import one\nfrom .tools import two\nimport beside\n{AGENT}",
            "tools.py": "one = two = 0",
            "../beside.py": "",
        },
        "agent.py",
    ),
}
"""ADK's layouts of an agent's folder: its files, and the one with the agent."""


def write(folder: Path, files: dict[str, str]) -> Path:
    """Writes files into the folder `agent` of a folder, which is returned."""
    own = folder / "agent"
    own.mkdir()
    for name, text in files.items():
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_text(text)
    return own


FIND = """
import json, sys
from pathlib import Path
from adk_relay.agents import find_agent
from adk_relay.settings import SettingsError
try:
    found = find_agent(json.loads(sys.argv[1]), Path.cwd())
    print(json.dumps([found.agent.name, found.file]))
except SettingsError as error:
    print(json.dumps(["", str(error)]))
"""


async def find(folder: Path, reference: str | None = None) -> tuple[str, str]:
    """The name of the agent that is found, and its file; or "", and the error."""
    started = await warm([sys.executable, "-c", FIND, json.dumps(reference)], folder, ENVIRONMENT)
    assert started.stdout
    told = (await started.stdout.read()).decode()
    assert await started.wait() == 0, told
    name, text = json.loads(told)  # nothing else was told, either
    return name, text


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_a_folder_of_any_layout_of_adks(tmp_path: Path, layout: str) -> None:
    files, file = LAYOUTS[layout]
    own = write(tmp_path, files)
    assert await find(tmp_path) == ("mine", str(own / file))


async def test_an_app_goes_before_a_root_agent(tmp_path: Path) -> None:
    own = write(tmp_path, {"agent.py": APP})
    assert await find(tmp_path) == ("agent", str(own / "agent.py"))  # the name of the App


@pytest.mark.parametrize(
    "reference", [None, "adk_relay.agent:root_agent", "adk_relay.agent.agent:root_agent"]
)
async def test_the_built_in_agent_in_a_checkout(tmp_path: Path, reference: str | None) -> None:
    if reference:
        write(tmp_path, {"__init__.py": AGENT})  # what is named goes before what is here
    name, file = await find(tmp_path, reference)
    assert name == "assistant"
    assert Path(file).parent == ROOT / "agent"


ERRORS: dict[str, tuple[dict[str, str], str]] = {
    "raises": (
        {"agent.py": "def start():\n    raise RuntimeError('out of\\norder')\nstart()"},
        r"RuntimeError: out of order \({own}/agent.py, line 2\)",
    ),
    "raises-elsewhere": (
        {"__init__.py": "import json\njson.loads('')"},
        r"JSONDecodeError: .* \({own}/__init__.py, line 2\)",
    ),
    "no-module": (
        {"agent.py": "\nimport no_such_module"},
        r"ModuleNotFoundError: .*no_such_module.* \({own}/agent.py, line 2\)",
    ),
    "syntax": (
        {"agent.py": "\nroot_agent ="},
        r"SyntaxError: invalid syntax \(agent.py, line 2\) \({own}/agent.py\)",
    ),
    "exits": ({"agent.py": "raise SystemExit('no')"}, r"SystemExit: no \({own}/agent.py, line 1\)"),
    "yaml": ({"root_agent.yaml": "name: [\n"}, r"\w+: .*"),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_a_folder_that_cannot_be_imported_is_one_line(tmp_path: Path, case: str) -> None:
    files, complaint = ERRORS[case]
    own = write(tmp_path, files)
    name, error = await find(tmp_path)
    assert not name
    assert "\n" not in error
    expected = f"The agent in {re.escape(str(own))} can't be imported: "
    assert re.fullmatch(expected + complaint.replace("{own}", re.escape(str(own))), error), error


async def test_a_module_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise RuntimeError('out of\\norder')")
    expected = f"RELAY_AGENT=mine:root_agent: RuntimeError: out of order ({tmp_path}/mine.py, line 1)"
    assert await find(tmp_path, "mine:root_agent") == ("", expected)


# ---- served ----------------------------------------------------------------------------------


async def test_the_own_agent_is_served_and_the_log_says_so(tmp_path: Path) -> None:
    own = write(tmp_path, {"__init__.py": "from . import agent", "agent.py": AGENT})
    async with relay_process(UVICORN, tmp_path) as relay:
        await relay.started()
        async with client(relay.port) as alice:
            assert "hello" in await alice.ask("hello")
        await relay.stop()
        assert [line for line in relay.log if "serving" in line] == [
            f"INFO:     relay: serving the agent mine, from {own}/agent.py"
        ]
        assert len(relay.problems()) == 1  # that it is a rehearsal


async def test_a_folder_without_an_agent_is_one_plain_error(tmp_path: Path) -> None:
    own = write(tmp_path, {"__init__.py": "", "notes.txt": "nothing"})
    async with warm_relay(UVICORN, tmp_path) as relay:
        assert await relay.ended() == 3
        first, last = relay.problems()
    assert first.startswith(f"ERROR: relay: The folder {own} has no root_agent. Add one")
    assert "RELAY_AGENT=adk_relay.agent:root_agent" in first
    assert last == "ERROR: Application startup failed. Exiting."


async def test_what_is_no_agent_is_one_plain_error(tmp_path: Path) -> None:
    own = write(tmp_path, {"agent.py": "root_agent = 'me'"})
    async with warm_relay(UVICORN, tmp_path) as relay:
        assert await relay.ended() == 3
        first, _ = relay.problems()
    assert first == f"ERROR: relay: The agent in {own}: agent must be an ADK agent or App, not str"


async def test_a_model_that_adk_does_not_know_is_one_plain_error(tmp_path: Path) -> None:
    own = write(tmp_path, {"agent.py": AGENT.replace("Rehearsal(words_per_second=50)", "'no-such-model'")})
    async with warm_relay(UVICORN, tmp_path) as relay:
        assert await relay.ended() == 3
        first, _ = relay.problems()
    assert first.startswith(f"ERROR: relay: The agent in {own}: ")
    assert "no-such-model" in first


async def test_an_app_is_served_with_its_plugins(tmp_path: Path) -> None:
    plugins = """
from pathlib import Path
from google.adk.plugins.base_plugin import BasePlugin

class Mine(BasePlugin):
    async def close(self):
        Path("closed").touch()

app.plugins.append(Mine("mine"))
"""
    write(tmp_path, {"agent.py": APP + plugins})
    async with warm_relay(UVICORN, tmp_path) as relay:
        await relay.started()
        await relay.stop()
    assert (tmp_path / "closed").exists()


async def test_the_folders_own_env_file_is_read_after_the_other(tmp_path: Path) -> None:
    """`adk create` writes it. A file of a folder above is none of relay's business."""
    folder = tmp_path / "project"
    folder.mkdir()
    own = write(folder, {"agent.py": AGENT.replace("Rehearsal(words_per_second=50)", "'gemini-3.8-live'")})
    (tmp_path / ".env").write_text("RELAY_GRACE=from above\n")
    (folder / ".env").write_text("RELAY_PING_INTERVAL=3\n")
    async with warm_relay(UVICORN, folder) as relay:
        assert await relay.ended() == 3
        assert re.match(
            rf"ERROR: relay: The agent in {own} uses Gemini\. .*GOOGLE_API_KEY", relay.problems()[0]
        )
    (own / ".env").write_text("GOOGLE_API_KEY=a-key-that-is-not-tried\nRELAY_PING_INTERVAL=4\n")
    async with warm_relay(UVICORN, folder) as relay:
        await relay.started()
        async with client(relay.port) as alice:
            assert alice.hello["ping_interval"] == 3
        await relay.stop()
        assert relay.problems() == []
