"""A request and a live text that have the same id: the id belongs to the text that had it first."""

from __future__ import annotations

import asyncio

import pytest

from support.chat import chat, created, guest
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

pytestmark = pytest.mark.usefixtures("no_errors")


@pytest.mark.parametrize("text", ["two", "something else"])
async def test_a_request_that_waits_is_begun_though_its_id_is_sent_live_meanwhile(
    gemini: GeminiLive, text: str
) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("You said:", complete=False)
        await go_on.wait()
        await connection.say(turn.text)

    gemini.answer = answer
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with chat(port, session_id) as asking, guest(port, session_id) as live:
            await asking.chat("one")
            await asking.get("chunk")
            await asking.chat("two", id="the-id")
            assert (await asking.get("status"))["ahead"] == 1
            await live.send(mime_type="text/plain", data=text, id="the-id")
            if text != "two":
                refused = (await live.until(lambda frame: frame.get("type") == "error"))[-1]
                assert (refused["code"], refused["id"]) == ("bad_data", "the-id")
            go_on.set()
            for asked in ("one", "two"):
                response = await asking.get("response_complete")
                assert response["full_response"] == f"You said:{asked}"
                assert "interrupted" not in response
            assert response["id"] == "the-id"
            if text == "two":  # it was said once, and the latest that sent it gets the ack
                await live.until(lambda frame: frame == {"type": "ack", "id": "the-id"})
            else:
                assert asking.of("ack")
        assert [connection.texts for connection in gemini.connections] == [["one", "two"]]
