"""The HTTP interface: one text and its answer, whole or as a stream of events."""

from __future__ import annotations

import asyncio

import pytest

from support.api import events, get, is_now, rehearsal, say, stats_when, untimed
from support.chat import chat, created, guest, http
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

pytestmark = pytest.mark.bus


@pytest.mark.usefixtures("no_errors")
async def test_the_tools_of_an_answer_are_told(sessions: str) -> None:
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        answer = await say(web, "clock", "What time is it in Tokyo?")
        (call,) = answer["tool_calls"]
        assert call.keys() == {"tool_id", "tool_name", "arguments", "result"}
        assert call["tool_name"] == "get_current_time"
        assert call["arguments"] == {"timezone": "Asia/Tokyo"}
        assert call["result"]["timezone"] == "Asia/Tokyo"
        assert "Asia/Tokyo" in answer["content"]


@pytest.mark.usefixtures("no_errors")
async def test_the_events_of_a_turn_come_as_they_happen(sessions: str) -> None:
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        async with events(web, "clock", "What time is it in Tokyo?") as stream:
            said, start, complete, response, done = [event async for event in stream]
        assert said.keys() == {"type", "content", "session_id", "timestamp"}
        assert (said["type"], said["content"]) == ("user_message", "What time is it in Tokyo?")
        assert said["session_id"] == "clock"
        assert start.keys() == {"type", "tool_id", "tool_name", "arguments", "timestamp"}
        assert start["type"] == "tool_start"
        assert complete.keys() == {"type", "tool_id", "tool_name", "result", "timestamp"}
        assert complete["type"] == "tool_complete"
        assert response.keys() == {"type", "content", "tool_calls", "timestamp"}
        assert response["type"] == "response"
        assert response["tool_calls"] == [
            {key: (start | complete)[key] for key in ("tool_id", "tool_name", "arguments", "result")}
        ]
        assert done == {"type": "done"}
        assert all(is_now(event["timestamp"]) for event in (said, start, complete, response))


async def test_the_first_event_does_not_wait_for_the_answer(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await go_on.wait()
        await connection.say("At last.")

    gemini.answer = answer
    async with (
        serving(a_relay(ping_interval=0.05)) as port,
        http(port) as web,
        events(web, "slow", "Hello") as stream,
    ):
        assert (await anext(stream))["type"] == "user_message"
        await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
        go_on.set()
        assert [event.get("content") async for event in stream] == ["At last.", None]


async def test_a_quiet_stream_gives_signs_of_life(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await go_on.wait()
        await connection.say("At last.")

    gemini.answer = answer
    body = {"session_id": "slow", "message": "Hello"}
    async with (
        serving(a_relay(ping_interval=0.05)) as port,
        http(port) as web,
        web.stream("POST", "/api/v1/chat", json=body, headers={"accept": "text/event-stream"}) as response,
    ):
        signs = 0
        async for line in response.aiter_lines():
            signs += line.startswith(":")  # a comment, in the format of the HTML standard
            if signs == 3:
                go_on.set()
        assert signs >= 3


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("streams", [False, True])
async def test_who_goes_away_in_mid_answer_ends_it_and_what_was_said_is_kept(
    gemini: GeminiLive, streams: bool, sessions: str
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One two", complete=False)
            await asyncio.Event().wait()
        await connection.say("Here I am.")

    gemini.answer = answer
    async with serving(a_relay(sessions=sessions)) as port, http(port) as web:
        headers = {"accept": "text/event-stream" if streams else "application/json"}
        body = {"session_id": "mine", "message": "count"}
        asking = asyncio.create_task(web.post("/api/v1/chat", json=body, headers=headers))
        async with asyncio.timeout(60):
            while '"One two"' not in (await web.get("/sessions/mine")).text:
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await stats_when(web, failed_requests=1, active_sessions=0)
        await gemini.wait_for(lambda: gemini.open_connections == 0)
        expected = [
            {"role": "user", "text": "count"},
            {"role": "agent", "text": "One two", "interrupted": True},
        ]
        assert untimed((await get(web, "/sessions/mine"))["history"]) == expected
        assert (await say(web, "mine", "Are you there?"))["content"] == "Here I am."


@pytest.mark.usefixtures("no_errors")
async def test_who_goes_away_leaves_the_answer_to_the_others(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One two", complete=False)
        await go_on.wait()
        await connection.say(" three.")

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        name = await created(port)
        async with chat(port, name) as other:
            body = {"session_id": name, "message": "count"}
            asking = asyncio.create_task(web.post("/api/v1/chat", json=body))
            await other.until(lambda said: said.get("text") == " two")
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await stats_when(web, failed_requests=1)
            go_on.set()
            assert (await other.get("response_complete"))["full_response"] == "One two three."


async def test_an_answer_that_somebody_speaks_into_says_so(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One two", complete=False)
            await asyncio.Event().wait()
        await connection.say("Yes.")

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        name = await created(port)
        async with guest(port, name) as live:
            asking = asyncio.create_task(say(web, name, "count"))
            await live.until(lambda said: said.get("data") == " two")
            await live.say("stop")
            answered = await asking
            assert (answered["content"], answered["interrupted"]) == ("One two", True)
            await live.turn()  # the end of the interrupted turn
            await live.turn()
        history = (await get(web, f"/sessions/{name}"))["history"]
        assert [line["text"] for line in history] == ["count", "One two", "stop", "Yes."]
