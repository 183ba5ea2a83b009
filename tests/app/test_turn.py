"""The turn dialect, on a real socket."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from websockets.asyncio.client import connect

from support.chat import asking, chat, created, end, guest, http, stored, turn
from support.client import Client, Json, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving
from support.values import RESULTS

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]


async def test_a_request_has_its_events_in_order_and_then_an_end(gemini: GeminiLive) -> None:
    def look(where: str) -> Json:
        """Looks."""
        return {"seen": f"a cat in the {where}"}

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("Well", complete=False)
        await connection.call_tools(
            ("look", {"where": "garden"}, "call-a"), ("look", {"where": "house"}, "call-b")
        )
        await connection.say(", two cats.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[look])
    async with serving(a_relay(agent)) as port, asking(port, "made-up.by~me", "cats?") as who:
        frames, code = await end(who)
    assert code == 1000
    assert [said["type"] for said in who.frames] == [
        "user_message",
        *["tool_start"] * 2,
        *["tool_complete"] * 2,
        "response",
        "done",
    ]
    fields = {
        "user_message": "type content session_id timestamp",
        "tool_start": "type tool_id tool_name arguments timestamp",
        "tool_complete": "type tool_id tool_name result timestamp",
        "response": "type content tool_calls timestamp",
        "done": "type",
    }
    for said in who.frames:
        assert said.keys() == {*fields[said["type"]].split()}
        if "timestamp" in said:
            assert datetime.fromisoformat(said["timestamp"]).tzinfo
    response = frames[-2]
    assert response["content"] == "Well, two cats."
    wheres = {"call-a": "garden", "call-b": "house"}
    assert response["tool_calls"] == [
        {
            "tool_id": name,
            "tool_name": "look",
            "arguments": {"where": where},
            "result": {"seen": f"a cat in the {where}"},
        }
        for name, where in wheres.items()
    ]
    for said in frames[:-2]:
        where = wheres[said["tool_id"]]
        expected: Json = {"where": where}
        if said["type"] == "tool_complete":
            expected = {"seen": f"a cat in the {where}"}
        assert said.get("arguments", said.get("result")) == expected
    assert frames[-1] == {"type": "done"}


async def test_a_tool_may_answer_anything(gemini: GeminiLive) -> None:
    def anything(kind: str, more: Any = None) -> Any:
        """Anything at all."""
        return RESULTS[kind]

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.call_tool("anything", {"kind": turn.text, "more": [1.5, None, {"ß": "👋"}]})
        await connection.say("Done.", audio=False)

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[anything])
    async with serving(a_relay(agent)) as port, chat(port) as other:
        await other.send(type="create_session")
        session_id = (await other.get("session_created"))["session_id"]
        for kind in RESULTS:
            async with asking(port, session_id, kind) as who:
                (start, complete, response, done), code = await end(who)
            assert code == 1000
            assert (start["type"], complete["type"], done["type"]) == ("tool_start", "tool_complete", "done")
            assert start["arguments"] == {"kind": kind, "more": [1.5, None, {"ß": "👋"}]}
            (call,) = response["tool_calls"]
            assert call["result"] == complete["result"]
            assert call["arguments"] == start["arguments"]
            assert response["content"] == "Done."
    assert gemini.connects == 1


async def test_an_id_that_nobody_knows_is_made(gemini: GeminiLive) -> None:
    relay = a_relay()
    async with serving(relay) as port, http(port) as web:
        assert (await web.get("/sessions/mine")).status_code == 404
        assert (await turn(port, "mine", "hello"))["content"] == "You said: hello."
        assert (await turn(port, "mine", "again"))["content"] == "You said: again."
        told = (await web.get("/sessions/mine")).json()
        assert [line["text"] for line in told["history"]] == [
            "hello",
            "You said: hello.",
            "again",
            "You said: again.",
        ]
        async with chat(port) as other:
            assert (await other.join("mine"))["message_count"] == 4
    assert gemini.connections[-1].context[0] == ("user", "hello")


BAD_REQUESTS: dict[str, Any] = {
    "not JSON": "hello",
    "a list": "[]",
    "binary": b"{}",
    "nothing": {},
    "no session": {"message": "hello"},
    "no message": {"session_id": "s"},
    "an empty session": {"session_id": "", "message": "hello"},
    "a session that is no name": {"session_id": "a/b", "message": "hello"},
    "a session that is no string": {"session_id": 1, "message": "hello"},
    "an empty message": {"session_id": "s", "message": ""},
    "a message that is no string": {"session_id": "s", "message": ["hello"]},
    "somebody's own": {"session_id": "live-alice", "message": "hello"},
}


async def test_a_bad_request_is_told_and_the_socket_is_closed(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port:
        for name, bad in BAD_REQUESTS.items():
            async with connect(f"ws://127.0.0.1:{port}/api/v1/chat/stream", proxy=None) as raw:
                await raw.send(json.dumps(bad) if isinstance(bad, dict) else bad)
                frames, code = await end(Client(raw, {}))
            assert [said.keys() for said in frames] == [{"type", "message"}], name
            assert frames[0]["type"] == "error"
            assert len(frames[0]["message"]) > 10
            assert code == 1008
    assert gemini.connects == 0


@pytest.mark.parametrize("when", ["before the answer", "in mid answer"])
@pytest.mark.parametrize("same", [True, False])
async def test_a_turn_socket_makes_one_request(gemini: GeminiLive, when: str, same: bool) -> None:
    """A second request reaches no model, and the answer to the first one is not lost."""
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One", complete=False)
        gemini.changed()
        await go_on.wait()
        await connection.say(" two.")

    gemini.answer = answer
    async with serving(a_relay()) as port, asking(port, "s", "first") as who:
        if when == "in mid answer":
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].said == "One")
        await who.send(session_id="s" if same else "t", message="second")
        go_on.set()
        frames, code = await end(who)
        kinds = [said["type"] for said in frames]
        # The second request is either refused as a bad one, or ignored.
        assert (kinds, code) in ((["error"], 1008), (["response", "done"], 1000))
        if code == 1000:
            assert frames[0]["content"] == "One two."
    assert not any("second" in one.texts for one in gemini.connections)


async def test_closing_the_socket_ends_the_answer_and_keeps_what_was_said(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "count":
            await connection.say("One two", complete=False)
            gemini.changed()
            await asyncio.Event().wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    relay = a_relay(grace=100)
    async with serving(relay) as port, http(port) as web:
        async with asking(port, "s", "count"):
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].said == "One two")
            # When the transcript is there, the relay has got it; the sound may still be on its way.
            connection = gemini.connections[0]
            while (await web.get("/sessions/s")).json()["history"][-1]["text"] != "One two":
                pass
        await gemini.wait_for(lambda: not connection.open)
        assert (await turn(port, "s", "go on"))["content"] == "You said: go on."
        assert gemini.connections[1].context == [
            ("user", "count"),
            ("model", "One two"),
            ("user", "go on"),
            ("model", "You said: go on."),
        ]
        assert await stored(relay, "s") == [
            ("user", "count"),
            ("tester", "One two"),
            ("user", "go on"),
            ("tester", "You said: go on."),
        ]


@pytest.mark.parametrize("kind", ["chat", "live"])
async def test_with_somebody_else_there_the_answer_goes_on_for_them(gemini: GeminiLive, kind: str) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One two", complete=False)
        gemini.changed()
        await go_on.wait()
        await connection.say(" three.")

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        session_id = await created(port)
        async with chat(port, session_id) as other, guest(port, session_id) as live:
            await (other if kind == "live" else live).socket.close()
            async with asking(port, session_id, "count"):
                await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].said == "One two")
            while (await web.get("/health")).json()["websocket_connections"] > 1:
                pass
            go_on.set()
            if kind == "chat":
                complete = await other.get("response_complete")
                assert complete["full_response"] == "One two three."
                assert "interrupted" not in complete
                assert await other.ask("count") == "One two three."
            else:
                assert words(await live.turn()) == "One two three."
                assert await live.ask("count") == "One two three."
    assert gemini.connects == 1
