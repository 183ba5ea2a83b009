"""`/ready`: false while the agent keeps failing. Drain and store have their own tests."""

from __future__ import annotations

import pytest

from adk_relay.adk import failing
from support.api import refused
from support.chat import http
from support.client import client
from support.gemini import GeminiLive, Plan
from support.server import a_relay, serving


async def test_ready_is_false_while_the_agent_keeps_failing(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    gemini.on_connect = lambda number: Plan(http_status=403) if number <= 4 else None
    async with serving(a_relay()) as port, http(port) as web:

        async def fails(user: str) -> None:
            async with client(port, user) as who:
                await who.say("hello")
                await who.until(lambda said: said.get("code") == "model_refused")

        for user in ("alice", "alice", "bob"):
            await fails(user)
            assert (await web.get("/ready")).status_code == 200
        await fails("carol")
        refused(await web.get("/ready"), 503)
        async with client(port, "dan") as dan:
            assert await dan.ask("hello") == "You said: hello."
        assert (await web.get("/ready")).status_code == 200

        gemini.on_connect = lambda number: Plan(http_status=403)
        for user in ("alice", "bob", "carol"):
            await fails(user)
        refused(await web.get("/ready"), 503)
        monkeypatch.setattr(failing, "_FOR", 0.0)  # it is not false for ever: nobody would come and show
        assert (await web.get("/ready")).status_code == 200
