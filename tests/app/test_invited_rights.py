"""What somebody who was invited may change: no state, and only what they have written can they take back."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.client import Client, Json, client
from support.gemini import GeminiLive
from support.server import a_relay, serving
from support.tokens import SECRET, token, with_token

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]


async def error(who: Client) -> Json:
    return (await who.until(lambda said: said.get("type") == "error"))[-1]


async def rewound(who: Client) -> Json:
    return (await who.until(lambda said: said.get("type") == "rewound"))[-1]


async def test_what_they_may(gemini: GeminiLive) -> None:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serving(a_relay(secret=SECRET)))

        async def come(bearer: str, role: str = "") -> Client:
            claims: Json = {"invitation": {"session_id": "live-alice", "role": role}} if role else {}
            given: Any = with_token(token(bearer, exp=time.time() + 600, jti=bearer + role, **claims))
            return await stack.enter_async_context(client(port, "alice", **given))

        alice = await come("alice")
        await alice.ask("hello")
        writer, manager, listener = [await come("alice", role) for role in ("write", "manage", "listen")]

        await writer.send(mime_type="text/plain", data="x", state_delta={"a": 1}, id="1")
        assert ((told := await error(writer))["code"], told["id"]) == ("not_allowed", "1")
        await manager.send(mime_type="text/plain", data="managed", state_delta={"a": 1}, id="2")
        await alice.turn()

        for who in (writer, listener):
            await who.send(type="rewind", id="2")
            assert (await error(who))["code"] == "not_allowed"
        await manager.send(type="rewind", id="2")
        assert (await rewound(alice))["id"] == "2"

        await writer.send(mime_type="text/plain", data="written", id="3")
        await alice.turn()
        await writer.send(type="rewind", id="3")  # its own
        assert (await rewound(alice))["id"] == "3"
        await writer.send(mime_type="text/plain", data="written", id="4")
        await alice.turn()
        await alice.send(type="rewind", id="4")  # in her own conversation
        while (await rewound(writer))["id"] != "4":
            pass
