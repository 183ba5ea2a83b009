"""The recipes of docs/embedding.md, as they stand there: each is an application that serves an agent."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from support.client import client
from support.gemini import GeminiLive
from support.process import process
from support.server import ROOT, need_module
from support.servers import served_by

TEXT = (ROOT / "docs" / "embedding.md").read_text()
AGENT = re.search(r"```python\n# my_pkg/my_agent.py\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

RECIPES = ["Starlette", "FastAPI", "Django", "Litestar", "Quart"]


def example(heading: str) -> str:
    """The Python code under a heading."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(code)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with the README's agent, and settings for Django."""
    (tmp_path / "my_pkg").mkdir()
    assert AGENT
    (tmp_path / "my_pkg" / "my_agent.py").write_text(AGENT[1])
    django = 'SECRET_KEY = "-"\nROOT_URLCONF = "my_site.settings"\nurlpatterns = []\n'
    (tmp_path / "my_site").mkdir()
    (tmp_path / "my_site" / "settings.py").write_text(django)
    return tmp_path


def test_all_recipes_are_tested() -> None:
    others = ["A page of yours around the page", "Metrics and traces in a host", "Test your application"]
    assert re.findall(r"^## (.*)", TEXT, re.MULTILINE) == [*RECIPES, *others]


@pytest.mark.parametrize("prefix", ["/talk", "/ws"])
@pytest.mark.parametrize("framework", RECIPES)
async def test_a_recipe_runs(gemini: GeminiLive, folder: Path, framework: str, prefix: str) -> None:
    """Also below /ws, which relay's own paths begin with."""
    need_module(framework.lower())
    (folder / "main.py").write_text(example(framework).replace("/talk", prefix))
    async with served_by("uvicorn-websockets-sansio", folder, "main:app", **gemini.env) as host:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{host.port}", verify=False, follow_redirects=True
        ) as http:
            page = await http.get(prefix)
            assert (page.url.path, page.headers["content-type"]) == (f"{prefix}/", "text/html; charset=utf-8")
            assert (await http.get(f"{prefix}/static/app.js")).status_code == 200
            assert (await http.get(f"{prefix}/nothing")).json()["detail"] == "There is nothing here."
            assert (await http.get("/health")).status_code == 404
            answer = await http.post(f"{prefix}/api/v1/chat", json={"session_id": "s", "message": "hello"})
            assert answer.json()["content"] == "You said: hello."
            assert (await http.get(f"{prefix}/sessions/s")).json()["message_count"] == 2
        async with client(host.port, path=prefix) as alice:
            assert await alice.ask("hello") == "You said: hello."
        for path in ("/ws", "/api/v1/chat/stream"):
            async with connect(f"ws://127.0.0.1:{host.port}{prefix}{path}", proxy=None):
                pass
        url = f"ws://127.0.0.1:{host.port}{prefix}/nothing/there"
        async with connect(url, subprotocols=[Subprotocol("relay.v1")], proxy=None) as refused:
            with pytest.raises(ConnectionClosed) as closed:
                await refused.recv()
        assert closed.value.rcvd and closed.value.rcvd.code == 4404
        await host.stop()
    await gemini.wait_for(lambda: not gemini.open_connections)
    assert {connection.closed for connection in gemini.connections} == {1000}  # its lifespan has ended relay


async def test_the_test_of_ones_own_application(folder: Path) -> None:
    (folder / "main.py").write_text(example("Starlette"))
    (folder / "test_main.py").write_text(example("Test your application"))
    environment = {"PYTHONPATH": f"{ROOT}:{folder}", "PYTHONWARNINGS": "ignore"}
    async with process([sys.executable, "-m", "pytest", "-q", "test_main.py"], folder, environment) as tests:
        assert await tests.ended() == 0, tests.log
        assert any("2 passed" in line for line in tests.log)
