"""A relay on a real socket, and the stand-in for the service it speaks to."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import uvicorn
from google.adk.agents import LlmAgent

from relay import Relay
from support.gemini import GeminiLive

ROOT = Path(__file__).parent.parent.parent
"""The project's folder."""


def need(program: str, package: str, install: str = "apt-get install") -> str:
    """The path of a program from outside; its test is skipped without it, and fails in CI."""
    if path := shutil.which(program) or shutil.which(program, path=Path(sys.executable).parent):
        return path
    _missing(f"{program} is missing: {install} {package}")


def need_module(module: str) -> None:
    """Its test is skipped without a module from outside, and fails in CI."""
    if not find_spec(module):
        _missing(f"{module} is missing: pip install '.[test]'")


def _missing(message: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[int]:
    """Serves an ASGI application with uvicorn on a free port of the loopback, in this event loop."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, timeout_graceful_shutdown=3, **({"lifespan": "on"} | options)
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    running = asyncio.create_task(server._serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
        if running.done():
            running.result()
            raise AssertionError("uvicorn did not start")
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def stand_in(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiLive]:
    """The stand-in for the Gemini Live service, which google-genai takes for the real one."""
    async with GeminiLive() as service:
        for name, value in service.env.items():
            monkeypatch.setenv(name, value)
        yield service
        assert service.violations == []


def over_bus() -> bool:
    """Whether `a_relay` starts several relays that share a Redis: see the mark `bus`."""
    return "RELAY_TEST_BUS" in os.environ


def a_relay(agent: Any = None, **settings: Any) -> Relay:
    """A relay of its own, with everything in memory, that ends its runs at once."""
    agent = agent or LlmAgent(name="tester", model="gemini-3.8-live")
    sound = os.environ["RELAY_SOUND"]
    options: dict[str, Any] = {"sessions": "memory://", "grace": 0, "sound": sound} | settings
    if url := os.environ.get("RELAY_TEST_BUS"):
        from support.pods import Spread

        return cast(Relay, Spread(url, agent, **options))
    return Relay(agent, **options)
