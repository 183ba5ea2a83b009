"""A request and a live text that have the same id: the id belongs to the text that had it first."""

from __future__ import annotations

import asyncio

import pytest

from support.chat import chat, created, guest, received
from support.gemini import Connection, GeminiLive, Plan, UserTurn
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


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "not yet stored"])
@pytest.mark.parametrize("text", ["one", "something else"])
async def test_a_request_whose_id_a_live_text_had_is_not_said(
    gemini: GeminiLive, text: str, is_stored: bool
) -> None:
    ready = asyncio.Event()
    if not is_stored:
        gemini.on_connect = {1: Plan(gate=ready)}.get
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live, chat(port, session_id) as asking:
            await live.send(mime_type="text/plain", data="one", id="the-id")
            if is_stored:
                await live.until(lambda frame: frame == {"type": "ack", "id": "the-id"})
            else:
                await gemini.wait_for(lambda: gemini.connects)
            await asking.chat(text, id="the-id")
            if text == "one":  # it is said already; all in the conversation are told the answer
                if not is_stored:
                    await received(asking)
                    ready.set()
                assert (await asking.get("ack"))["id"] == "the-id"
            else:
                refused = await asking.get("error")
                assert (refused["code"], refused["id"]) == ("bad_data", "the-id")
                ready.set()
            while not asking.of("response_complete"):
                await asking.next()
            (answer,) = asking.of("response_complete")
            assert (answer["full_response"], answer["connection_id"]) == ("You said: one.", None)
            assert await asking.ask("two") == "You said: two."
    assert [connection.texts for connection in gemini.connections] == [["one", "two"]]
