"""Debian's Firefox, which is asked over WebDriver BiDi: it serves that by itself, without a driver."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from support.client import Json
from support.process import process
from support.server import need
from support.window import Window

PREFERENCES: dict[str, bool | int] = {
    "media.navigator.permission.disabled": True,  # every page may have the microphone
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


class Firefox:
    """A Firefox that runs, and its answers."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Json]] = {}
        self._windows: dict[str, _Tab] = {}
        self._reading = asyncio.create_task(self._read())

    async def command(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        async with asyncio.timeout(60):
            answer = await self._answers[number]
        if answer["type"] == "error":
            raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
        return answer["result"]

    async def _read(self) -> None:
        async for frame in self._socket:
            message = json.loads(frame)
            if "id" in message:
                self._answers.pop(message["id"]).set_result(message)
            elif message["method"] == "log.entryAdded":
                entry = message["params"]
                window = self._windows.get(entry["source"].get("context"))
                if window and entry["level"] in ("warn", "error"):
                    window.console.append(f"{entry['level']}: {entry['text']}")

    @asynccontextmanager
    async def window(self) -> AsyncIterator[Window]:
        """A window that shares nothing with the others."""
        container = (await self.command("browser.createUserContext"))["userContext"]
        tab = await self.command("browsingContext.create", type="tab", userContext=container)
        self._windows[tab["context"]] = window = _Tab(self, tab["context"])
        try:
            yield window
        finally:
            del self._windows[tab["context"]]
            await self.command("browser.removeUserContext", userContext=container)  # with its windows


class _Tab(Window):
    def __init__(self, firefox: Firefox, context: str) -> None:
        self.console: list[str] = []
        self._firefox = firefox
        self._context = context

    async def open(self, url: str) -> None:
        await self.go(url)

    async def go(self, url: str) -> None:
        await self._firefox.command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    async def back(self) -> None:
        await self._firefox.command("browsingContext.traverseHistory", context=self._context, delta=-1)

    async def told(self) -> list[str]:
        await self.evaluate("0")  # what is in the console already has been told by then
        return self.console

    async def _value(self, script: str) -> str:
        answer = await self._firefox.command(
            "script.evaluate",
            expression=f"(async () => {{ {script} }})()",
            target={"context": self._context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        value: str = answer["result"]["value"]
        return value

    async def _perform(self, actions: list[Json]) -> None:
        await self._firefox.command("input.performActions", context=self._context, actions=actions)


@asynccontextmanager
async def firefox(
    folder: Path, environment: Mapping[str, str], preferences: Mapping[str, bool | int] | None = None
) -> AsyncIterator[Firefox]:
    """Starts it with a profile in this folder."""
    path = need("firefox-esr", "firefox-esr")
    profile = folder / "profile"
    profile.mkdir()
    chosen = PREFERENCES | dict(preferences or {})
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in chosen.items()]
    (profile / "user.js").write_text("\n".join(lines))
    options = ["--headless", "--no-remote", "--remote-debugging-port", "0"]
    own = {"PATH": os.environ["PATH"], "HOME": str(folder), **environment}
    async with process([path, *options, "--profile", profile], folder, own) as browser:
        address = (await browser.says(r"WebDriver BiDi listening on (\S+)"))[1]
        async with connect(f"{address}/session", proxy=None, max_size=None) as socket:
            running = Firefox(socket)
            await running.command("session.new", capabilities={})
            await running.command("session.subscribe", events=["log.entryAdded"])
            yield running
