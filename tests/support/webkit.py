"""Debian's WebKitGTK, in its MiniBrowser: the engine of Safari and of GNOME's browser.

Its WebKitWebDriver speaks WebDriver over HTTP. It shows windows, and so needs an X server.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx

from support.browser import until
from support.client import Json
from support.ports import free_port
from support.process import process
from support.server import need
from support.window import Window

OPEN = """
const url = arguments[0];
document.onclick = () => {
  const page = window.open(url);
  const told = (page.told = []);
  for (const level of ["warn", "error"]) {
    page.console[level] = (...what) => told.push(`${level}: ${what.join(" ")}`);
  }
  page.addEventListener("error", ({ message }) => told.push(`error: ${message}`));
  page.addEventListener("unhandledrejection", ({ reason }) => told.push(`error: ${reason}`));
  page.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
    told.push(`error: ${violatedDirective} forbids ${blockedURI}`));
};
"""
"""Opens a page, and listens to it before it is there: the driver does not tell what is in the console."""


class WebKit:
    """A WebKitWebDriver, which starts a browser for each window."""

    def __init__(self, driver: httpx.AsyncClient, program: str) -> None:
        self._driver = driver
        self._program = program

    @asynccontextmanager
    async def window(self) -> AsyncIterator[Window]:
        """A window of a browser of its own."""
        options = {"binary": self._program, "args": ["--automation"]}
        wanted = {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}}
        session = (await command(self._driver, "POST", "/session", wanted))["sessionId"]
        try:
            yield _Session(self._driver, session)
        finally:
            await command(self._driver, "DELETE", f"/session/{session}")


class _Session(Window):
    def __init__(self, driver: httpx.AsyncClient, session: str) -> None:
        self._driver = driver
        self._path = f"/session/{session}"

    async def open(self, url: str) -> None:
        await self.go(urljoin(url, "/health"))
        first = await self._handles()
        await self._do("execute/sync", script=OPEN, args=[url])
        press = [{"type": f"pointer{what}", "button": 0} for what in ("Down", "Up")]
        await self._perform([{"type": "pointer", "id": "mouse", "actions": press}])
        now = await until(self._handles, lambda handles: handles - first)
        await self._do("window", handle=(now - first).pop())

    async def go(self, url: str) -> None:
        await self._do("url", url=url)

    async def back(self) -> None:
        await self._do("back")

    async def _handles(self) -> set[str]:
        return set(await command(self._driver, "GET", f"{self._path}/window/handles"))

    async def told(self) -> list[str]:
        told: list[str] = await self.evaluate("window.told")
        return told

    async def _value(self, script: str) -> str:
        told = "(value) => done({ value }), (error) => done({ error: String(error) })"
        called = f"const done = arguments[0]; (async () => {{ {script} }})().then({told})"
        answer = await self._do("execute/async", script=called, args=[])
        assert "error" not in answer, answer["error"]
        value: str = answer["value"]
        return value

    async def _perform(self, actions: list[Json]) -> None:
        await self._do("actions", actions=actions)

    async def _do(self, what: str, **parameters: Any) -> Any:
        return await command(self._driver, "POST", f"{self._path}/{what}", parameters)


async def command(driver: httpx.AsyncClient, method: str, path: str, parameters: Json | None = None) -> Any:
    answer = await driver.request(method, path, json=parameters)
    value = answer.json()["value"]
    if answer.is_error:
        raise RuntimeError(f"{path}: {value['error']}: {value['message']}")
    return value


@asynccontextmanager
async def webkit(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[WebKit]:
    """Starts the driver, and a screen that nobody sees."""
    screen_program = need("Xvfb", "xvfb")
    driver_program = need("WebKitWebDriver", "webkit2gtk-driver")
    found = next(Path("/usr/lib").glob("*/webkit2gtk-4.1/MiniBrowser"), "MiniBrowser")
    browser_program = need(str(found), "libwebkit2gtk-4.1-0")
    own = {"PATH": os.environ["PATH"], "HOME": str(folder), **environment}
    port = free_port()
    screen = [screen_program, "-displayfd", "1", "-screen", "0", "1280x800x24", "-nolisten", "tcp"]
    async with process(screen, folder, own) as shown:
        own["DISPLAY"] = ":" + (await shown.says(r"^(\d+)$"))[1]
        async with (
            process([driver_program, f"--port={port}"], folder, own),
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}", verify=False, timeout=60, trust_env=False
            ) as driver,
        ):

            async def answers() -> bool:
                try:
                    return (await driver.get("/status")).is_success
                except httpx.HTTPError:
                    return False

            await until(answers, bool, timeout=60)
            yield WebKit(driver, browser_program)
