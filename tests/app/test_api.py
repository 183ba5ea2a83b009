"""The HTTP interface: what each path takes and gives, and that its description is true."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.adk.agents import LlmAgent
from starlette.applications import Starlette
from starlette.routing import Mount

from adk_relay.adk.rehearsal import Rehearsal
from agent.agent import get_current_time
from support.chat import chat, created, guest, http
from support.client import Json
from support.gemini import Connection, GeminiLive, Plan, UserTurn, silence, speech
from support.server import a_relay, serving

STATIC = Path(__file__).parent.parent.parent / "static"
API: Json = json.loads((STATIC / "openapi.json").read_text())

SUMMARY = {
    *("session_id", "model", "message_count", "duration_minutes", "connected_clients"),
    *("created_at", "last_activity"),
}
SESSION = {
    *("session_id", "model", "message_count", "session_duration_seconds", "user_messages", "model_messages"),
    *("created_at", "history"),
}
COUNTS = {
    *("model", "uptime_seconds", "total_requests", "successful_requests", "failed_requests"),
    *("active_sessions", "websocket_connections"),
}
STATS = COUNTS | {"average_response_time", "start_time", "total_sessions_created"}


@pytest.fixture(params=["memory", "sqlite"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where sessions are kept: both ways."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"


def rehearsal() -> LlmAgent:
    """The offline agent, in a great hurry."""
    model = Rehearsal(pace=50, words_per_second=40)
    return LlmAgent(name="tester", model=model, tools=[get_current_time])


def is_now(timestamp: str) -> bool:
    """Whether a timestamp is ISO 8601, in UTC, and of this test."""
    when = datetime.fromisoformat(timestamp)
    return when.utcoffset() == timedelta(0) and abs(datetime.now(UTC) - when) < timedelta(minutes=2)


def refused(response: httpx.Response, status: int) -> str:
    """The detail of an error."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    said = response.json()
    assert said.keys() == {"detail"}
    detail: str = said["detail"]
    assert detail
    return detail


async def say(web: httpx.AsyncClient, session_id: str, message: str) -> Json:
    response = await web.post("/api/v1/chat", json={"session_id": session_id, "message": message})
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    return answer


async def get(web: httpx.AsyncClient, path: str) -> Json:
    response = await web.get(path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    said: Json = response.json()
    return said


async def stats_when(web: httpx.AsyncClient, **counts: int) -> Json:
    """The numbers, when these are so."""
    async with asyncio.timeout(10):
        while True:
            stats = await get(web, "/stats")
            if counts.items() <= stats.items():
                return stats
            await asyncio.sleep(0.01)


@asynccontextmanager
async def events(web: httpx.AsyncClient, session_id: str, message: str) -> AsyncIterator[AsyncIterator[Json]]:
    """The answer as it is streamed."""
    body = {"session_id": session_id, "message": message}
    headers = {"accept": "text/event-stream"}
    async with web.stream("POST", "/api/v1/chat", json=body, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-accel-buffering"] == "no"

        async def read() -> AsyncIterator[Json]:
            name = data = ""
            async for line in response.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    data = value
                elif line == "" and data:
                    event = json.loads(data)
                    assert event["type"] == name
                    yield event
                    name = data = ""
            assert data == ""  # a stream that is cut in the middle of an event has failed

        yield read()


def test_the_description_holds_together() -> None:
    """References lead somewhere, operations have names, answers are described to the last field."""
    text = json.dumps(API)
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', text):
        at = API
        for key in reference.split("/"):
            at = at[key]
    operations = [
        operation
        for path in API["paths"].values()
        for method, operation in path.items()
        if method != "parameters"
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    for operation in operations:
        assert operation["summary"]
        assert {"200", "405"} <= operation["responses"].keys()
    for name, schema in API["components"]["schemas"].items():
        if schema["type"] == "object" and name != "ChatRequest":
            assert schema["additionalProperties"] is False, name
            assert schema["required"], name


@pytest.mark.timeout(120)
async def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """The server does what the description says, with what it asks for and with all kinds of things."""
    async with serving(a_relay(rehearsal(), grace=1)) as port:
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            *(f"http://127.0.0.1:{port}/openapi.json", "--checks", "all", "--no-color"),
            *("--seed", "20", "--max-examples", "10", "--request-timeout", "10"),
            *("--generation-database", "none"),
            cwd=tmp_path,
            env=os.environ | {"NO_PROXY": "*"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(40):
                told, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    output = told.decode()
    assert process.returncode == 0, output
    operations = sum(method != "parameters" for path in API["paths"].values() for method in path)
    assert f"Tested: {operations}" in output, output
    cases = re.search(r"(\d+) generated, \1 passed", output)
    assert cases and int(cases[1]) > 100, output


# ---- sessions --------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_errors")
async def test_a_session_from_its_beginning_to_its_end(sessions: str) -> None:
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        made = (await web.post("/sessions/new")).json()
        assert made.keys() == {"session_id", "model", "timestamp"}
        assert made["model"] == "rehearsal"
        assert is_now(made["timestamp"])
        path = f"/sessions/{made['session_id']}"

        empty = await get(web, path)
        assert empty.keys() == SESSION
        assert (empty["message_count"], empty["history"]) == (0, [])
        answer = await say(web, made["session_id"], "Hello")
        assert answer.keys() == {"content", "tool_calls", "session_id", "timestamp"}
        assert answer["session_id"] == made["session_id"]
        assert answer["content"].endswith("You said: Hello")
        assert answer["tool_calls"] == []
        assert is_now(answer["timestamp"])

        expected = [{"role": "user", "text": "Hello"}, {"role": "agent", "text": answer["content"]}]
        read = await get(web, path)
        assert read["history"] == expected
        assert read["session_id"] == made["session_id"]
        assert (read["message_count"], read["user_messages"], read["model_messages"]) == (2, 1, 1)
        assert 0 <= read["session_duration_seconds"] < 60
        assert is_now(read["created_at"])
        assert datetime.fromisoformat(read["created_at"]) <= datetime.fromisoformat(answer["timestamp"])

        listed = await get(web, "/sessions")
        assert listed.keys() == {"active_sessions", "sessions"}
        (one,) = listed["sessions"]
        assert one.keys() == SUMMARY
        assert (one["session_id"], one["model"]) == (made["session_id"], "rehearsal")
        assert (one["message_count"], one["connected_clients"]) == (2, 0)
        assert 0 <= one["duration_minutes"] < 1
        assert is_now(one["last_activity"])
        assert one["created_at"] == read["created_at"]

        cleared = await web.post(f"{path}/clear")
        assert (cleared.status_code, cleared.json().keys()) == (200, {"message"})
        assert (await get(web, path))["history"] == []
        assert "remember" not in (await say(web, made["session_id"], "Again"))["content"]

        deleted = await web.delete(path)
        assert (deleted.status_code, deleted.json().keys()) == (200, {"message"})
        refused(await web.get(path), 404)
        refused(await web.delete(path), 404)
        refused(await web.post(f"{path}/clear"), 404)
        assert (await get(web, "/sessions"))["sessions"] == []


async def test_what_was_said_outlives_the_server(tmp_path: Path) -> None:
    sessions = f"sqlite:///{tmp_path}/sessions.db"
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        answer = await say(web, "mine", "Hello")
        before = await get(web, "/sessions/mine")
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        after = await get(web, "/sessions/mine")
        assert after["history"] == before["history"]
        assert after["created_at"] == before["created_at"]
        (one,) = (await get(web, "/sessions"))["sessions"]
        assert (one["session_id"], one["message_count"]) == ("mine", 2)
        again = await say(web, "mine", "And again")
        assert "I remember 2 turns before this." in again["content"]
        assert again["content"] != answer["content"]


async def test_the_session_last_used_is_listed_first(sessions: str) -> None:
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        names = [await created(port) for _ in range(3)]
        for name in [*names, names[1]]:
            await say(web, name, "Hello")
        listed = (await get(web, "/sessions"))["sessions"]
        assert [one["session_id"] for one in listed] == [names[1], names[2], names[0]]
        used = [datetime.fromisoformat(one["last_activity"]) for one in listed]
        assert used == sorted(used, reverse=True)
        assert [one["session_id"] for one in (await get(web, "/sessions?limit=1"))["sessions"]] == [names[1]]


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many", "", "1.5"])
async def test_a_limit_that_is_none(limit: str) -> None:
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        assert "limit" in refused(await web.get("/sessions", params={"limit": limit}), 400)


@pytest.mark.usefixtures("no_errors")
async def test_emptying_a_session_reaches_all_who_are_in_it(gemini: GeminiLive, sessions: str) -> None:
    async with serving(a_relay(sessions=sessions)) as port, http(port) as web:
        name = await created(port)
        async with chat(port, name) as room, guest(port, name) as live:
            assert await room.ask("one") == "You said: one."
            await live.turn()
            assert (await get(web, "/sessions"))["sessions"][0]["connected_clients"] == 2

            assert (await web.post(f"/sessions/{name}/clear")).status_code == 200
            assert (await room.get("session_cleared"))["session_id"] == name
            cleared = (await live.until(lambda said: said.get("type") == "cleared"))[-1]
            assert cleared["epoch"] != live.hello["epoch"]
            assert (await get(web, f"/sessions/{name}"))["history"] == []
            assert await room.ask("two") == "You said: two."
            assert [words for _, words in gemini.connections[-1].context] == ["two", "You said: two."]
            await live.turn()

            assert (await web.delete(f"/sessions/{name}")).status_code == 200
            assert (await room.get("session_deleted"))["session_id"] == name
            await live.until(lambda said: said.get("type") == "deleted")
            refused(await web.get(f"/sessions/{name}"), 404)
            assert (await get(web, "/sessions"))["sessions"] == []
            # The live client is where it was, and can begin it anew; the other is in none.
            assert await live.ask("three") == "You said: three."
            assert (await get(web, f"/sessions/{name}"))["message_count"] == 2
            assert await room.ask("four") == "You said: four."
            assert room.of("session_created")[-1]["session_id"] != name


async def test_an_answer_that_is_being_given_is_read_as_far_as_it_is(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One two", complete=False)
        await go_on.wait()
        await connection.say(" three.")

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web, chat(port) as room:
        await room.chat("count", id="q")
        name = (await room.get("session_created"))["session_id"]
        await room.until(lambda said: said.get("text") == " two")
        read = await get(web, f"/sessions/{name}")
        expected = [
            {"role": "user", "text": "count", "id": "q"},
            {"role": "agent", "text": "One two", "open": True, "chunks": 2},
        ]
        assert read["history"] == expected
        go_on.set()
        assert (await room.get("response_complete"))["full_response"] == "One two three."
        read = await get(web, f"/sessions/{name}")
        assert read["history"] == [expected[0], {"role": "agent", "text": "One two three."}]


@pytest.mark.usefixtures("no_errors", "quick_retries")
@pytest.mark.parametrize(
    "what", ["a text that interrupts", "speech does, later", "a cut answer that goes on"]
)
async def test_what_was_told_is_read_the_same_when_it_is_no_longer_in_memory(
    gemini: GeminiLive, sessions: str, what: str
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        match turn.text:
            case "one":
                await connection.say("One is", complete=False)
                await asyncio.Event().wait()
            case "never answered":
                await asyncio.Event().wait()
            case "":
                await connection.heard("wait")
                await connection.say("Yes?")
            case "count" if connection.number == 1:
                await connection.say("One two", complete=False)
                await heard.wait()
                connection.abort()
            case "two":
                await connection.say("Yes, two.")
            case _:
                await connection.say(" three four.")

    gemini.answer = answer
    heard = asyncio.Event()
    async with serving(a_relay(sessions=sessions)) as port, http(port) as web:
        name = await created(port)
        path = f"/sessions/{name}"
        async with guest(port, name) as live:
            if what == "a text that interrupts":
                expected = ["one", "One is", "two", "Yes, two."]
                await live.say("one")
                await live.until(lambda said: said.get("data") == " is")
                await live.say("two")
                await live.turn()
            elif what == "speech does, later":
                expected = ["never answered", "one", "One is", "wait", "Yes?"]
                await live.say("never answered")
                await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
                await live.say("one")
                await live.until(lambda said: said.get("data") == " is")
                await live.socket.send(speech(400) + silence(600))
                await live.until(lambda said: said.get("data") == "Yes?")
            else:
                expected = ["count", "One two three four."]
                await live.say("count")
                await live.until(lambda said: said.get("data") == " two")
                heard.set()
            await live.until(lambda said: said.get("turn_complete"))
            in_memory = await get(web, path)
            (listed,) = (await get(web, "/sessions"))["sessions"]
        assert [line["text"] for line in in_memory["history"]] == expected
        await stats_when(web, active_sessions=0)
        kept = await get(web, path)
        assert kept["history"] == in_memory["history"]
        for count in ("message_count", "user_messages", "model_messages"):
            assert kept[count] == in_memory[count], count
        assert kept["message_count"] == len(expected)
        (listed_later,) = (await get(web, "/sessions"))["sessions"]
        assert listed_later["message_count"] == listed["message_count"] == len(expected)


# ---- a turn ----------------------------------------------------------------------------------


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
        async with asyncio.timeout(10):
            while '"One two"' not in (await web.get("/sessions/mine")).text:
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await stats_when(web, failed_requests=1, active_sessions=0)
        await gemini.wait_for(lambda: gemini.open_connections == 0)
        expected = [{"role": "user", "text": "count"}, {"role": "agent", "text": "One two"}]
        assert (await get(web, "/sessions/mine"))["history"] == expected
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
            await live.turn()  # of the one that was interrupted
            await live.turn()
        history = (await get(web, f"/sessions/{name}"))["history"]
        assert [line["text"] for line in history] == ["count", "One two", "stop", "Yes."]


# ---- what goes wrong -------------------------------------------------------------------------

CHAT = "/api/v1/chat"
LONG = "ä" * (16 * 1024)  # 32 KiB

BAD_BODIES: dict[str, tuple[str, bytes]] = {
    "no JSON": (CHAT, b"hello"),
    "nothing": (CHAT, b""),
    "no UTF-8": (CHAT, b'{"session_id": "a", "message": "\xff"}'),
    "a list": (CHAT, b"[]"),
    "a string": (CHAT, b'"hello"'),
    "deep": (CHAT, b"[" * 60_000),
    "no message": (CHAT, b'{"session_id": "a"}'),
    "no session": (CHAT, b'{"message": "hello"}'),
    "a number for a message": (CHAT, b'{"session_id": "a", "message": 1}'),
    "a blank message": (CHAT, b'{"session_id": "a", "message": " \\n\\u3000"}'),
    "half a character": (CHAT, b'{"session_id": "a", "message": "\\ud800"}'),
    "a long message": (
        CHAT,
        json.dumps({"session_id": "a", "message": LONG + "x"}, ensure_ascii=False).encode(),
    ),
    "a number for an id": (CHAT, b'{"session_id": 1, "message": "hello"}'),
    "a bad id": (CHAT, b'{"session_id": "a/b", "message": "hello"}'),
    "no id": (CHAT, b'{"session_id": "", "message": "hello"}'),
    "a long id": (CHAT, b'{"session_id": "' + b"a" * 129 + b'", "message": "hello"}'),
    "new: no JSON": ("/sessions/new", b"{"),
    "new: a list": ("/sessions/new", b"[]"),
    "new: a number for a model": ("/sessions/new", b'{"model_id": 1}'),
}


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("what", BAD_BODIES)
async def test_a_bad_body_is_told(what: str) -> None:
    path, body = BAD_BODIES[what]
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        refused(await web.post(path, content=body), 400)
        assert (await get(web, "/sessions"))["sessions"] == []


async def test_bodies_that_are_just_right() -> None:
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        for body in (b"", b" ", b"{}", b'{"model_id": "another"}', b'{"model_id": null}', b'{"more": 1}'):
            assert (await web.post("/sessions/new", content=body)).json()["model"] == "rehearsal"
        body = json.dumps({"session_id": "a" * 128, "message": LONG, "more": {}}, ensure_ascii=False).encode()
        assert (await web.post(CHAT, content=body)).status_code == 200
        assert (await get(web, f"/sessions/{'a' * 128}"))["history"][0]["text"] == LONG


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("path", [CHAT, "/sessions/new"])
async def test_a_body_over_64_kib_is_not_read(path: str) -> None:
    fitting = b'{"session_id": "a", "message": "hello"}'.ljust(64 * 1024)

    async def piecemeal() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 1024
        yield b"{}"

    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        assert (await web.post(path, content=fitting)).status_code == 200
        refused(await web.post(path, content=fitting + b" "), 413)
        refused(await web.post(path, content=piecemeal()), 413)  # without a Content-Length
        assert (await web.get("/health")).status_code == 200


UNKNOWN = ["nosuch", "live-alice", "live-", "a b", "%C3%A4", "x" * 129, "x" * 4000]


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("name", UNKNOWN)
async def test_a_session_that_there_is_not(name: str, sessions: str) -> None:
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        refused(await web.get(f"/sessions/{name}"), 404)
        refused(await web.delete(f"/sessions/{name}"), 404)
        refused(await web.post(f"/sessions/{name}/clear"), 404)
        if name.startswith("live-"):
            refused(await web.post(CHAT, json={"session_id": name, "message": "hello"}), 404)
        assert await get(web, "/sessions") == {"active_sessions": 0, "sessions": []}


METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


@pytest.mark.parametrize("path", API["paths"])
async def test_a_method_that_a_path_has_not(path: str) -> None:
    allowed = {method.upper() for method in API["paths"][path] if method != "parameters"}
    allowed |= {"HEAD"} if "GET" in allowed else set()
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        for method in METHODS:
            if method not in allowed:
                response = await web.request(method, path.replace("{session_id}", "a"))
                if method == "HEAD":
                    assert (response.status_code, response.content) == (405, b"")
                else:
                    refused(response, 405)
                assert {one.strip() for one in response.headers["allow"].split(",")} == allowed, method


async def test_head_is_get_without_the_body() -> None:
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        name = await created(port)
        for path in API["paths"]:
            if "get" in API["paths"][path]:
                path = path.replace("{session_id}", name)
                got, head = await web.get(path), await web.head(path)
                assert (head.status_code, head.content) == (200, b""), path
                assert head.headers.keys() == got.headers.keys(), path
                assert head.headers["content-type"] == got.headers["content-type"], path
        assert (await web.head("/sessions/nosuch")).status_code == 404


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_of_another_site_can_change_nothing(site: str) -> None:
    foreign = {"sec-fetch-site": site}
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        name = await created(port)
        await say(web, name, "Hello")
        before = await get(web, f"/sessions/{name}")
        body = {"session_id": name, "message": "Hello"}
        refused(await web.post("/sessions/new", headers=foreign), 403)
        refused(await web.post(CHAT, json=body, headers=foreign), 403)
        refused(await web.post(f"/sessions/{name}/clear", headers=foreign), 403)
        refused(await web.delete(f"/sessions/{name}", headers=foreign), 403)
        assert await get(web, f"/sessions/{name}") == before
        assert len((await get(web, "/sessions"))["sessions"]) == 1
        for own in ("same-origin", "none"):
            assert (await web.post("/sessions/new", headers={"sec-fetch-site": own})).status_code == 200


async def test_too_many_that_wait_are_told_to_come_again(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await go_on.wait()
        await connection.say("Yes.")

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        asking = [asyncio.create_task(say(web, "full", str(number))) for number in range(17)]
        await stats_when(web, total_requests=17)
        late = await web.post(CHAT, json={"session_id": "full", "message": "late"})
        assert "16" in refused(late, 429)
        assert int(late.headers["retry-after"]) > 0
        body = {"session_id": "full", "message": "late"}
        # Before a stream has begun, the status can still tell.
        refused(await web.post(CHAT, json=body, headers={"accept": "text/event-stream"}), 429)
        go_on.set()
        assert {answer["content"] for answer in await asyncio.gather(*asking)} == {"Yes."}
        await stats_when(web, total_requests=19, successful_requests=17, failed_requests=2)


@pytest.mark.usefixtures("quick_retries")
async def test_an_agent_that_fails_is_told(gemini: GeminiLive) -> None:
    gemini.on_connect = lambda number: Plan(http_status=403)
    async with serving(a_relay()) as port, http(port) as web:
        refused(await web.post(CHAT, json={"session_id": "a", "message": "hello"}), 502)
        async with events(web, "b", "hello") as stream:
            first, last = [event async for event in stream]
        assert (first["type"], last["type"]) == ("user_message", "error")
        assert last.keys() == {"type", "message"}
        assert last["message"]
        gemini.on_connect = lambda number: None
        assert (await say(web, "a", "hello again"))["content"] == "You said: hello again."


async def test_an_agent_that_says_nothing_for_too_long_is_told(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await asyncio.Event().wait()

    gemini.answer = answer
    async with serving(a_relay(idle_timeout=0.3)) as port, http(port) as web:
        refused(await web.post(CHAT, json={"session_id": "a", "message": "hello"}), 504)


async def test_a_server_that_is_going_says_so(gemini: GeminiLive) -> None:
    begun = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        begun.set()
        await asyncio.Event().wait()

    gemini.answer = answer
    relay = a_relay()
    async with serving(relay) as port, http(port) as web:
        name = await created(port)
        asking = asyncio.create_task(web.post(CHAT, json={"session_id": name, "message": "hello"}))
        await begun.wait()
        await relay.aclose()
        refused(await asking, 503)
        refused(await web.post(CHAT, json={"session_id": name, "message": "hello"}), 503)
        refused(await web.post(f"/sessions/{name}/clear"), 503)
        refused(await web.delete(f"/sessions/{name}"), 503)


# ---- how things stand ------------------------------------------------------------------------


async def test_the_counts_move(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, http(port) as web:
        first = await get(web, "/stats")
        assert first.keys() == STATS
        assert first["model"] == "gemini-3.8-live"
        assert is_now(first["start_time"])
        moving = STATS - {"model", "start_time", "uptime_seconds"}
        assert {first[name] for name in moving} == {0}
        health = await get(web, "/health")
        assert health.keys() == COUNTS | {"status"}
        assert health["status"] == "ok"

        name = await created(port)
        await stats_when(web, total_sessions_created=1, active_sessions=0)
        await say(web, name, "one")
        after = await stats_when(web, total_requests=1, successful_requests=1, failed_requests=0)
        assert 0 < after["average_response_time"] < 5
        assert after["uptime_seconds"] >= first["uptime_seconds"]
        assert after["start_time"] == first["start_time"]

        async with chat(port, name) as room, guest(port, name):
            await stats_when(web, active_sessions=1, websocket_connections=2)
            await room.ask("two")
            await stats_when(web, total_requests=2, successful_requests=2)
            assert (await get(web, "/health"))["total_requests"] == 2
        await stats_when(web, active_sessions=0, websocket_connections=0)
        await say(web, "invented", "three")
        await stats_when(web, total_sessions_created=2, total_requests=3)


# ---- elsewhere -------------------------------------------------------------------------------


async def test_it_works_under_a_prefix() -> None:
    app = Starlette(routes=[Mount("/talk", a_relay(rehearsal()))])
    async with serving(app, lifespan="off") as port, http(port) as web:
        made = (await web.post("/talk/sessions/new")).json()["session_id"]
        body = {"session_id": made, "message": "Hello"}
        assert (await web.post(f"/talk{CHAT}", json=body)).status_code == 200
        assert (await web.get(f"/talk/sessions/{made}")).json()["message_count"] == 2
        assert (await web.delete(f"/talk/sessions/{made}")).status_code == 200
        document = await web.get("/talk/openapi.json")
        base = httpx.URL(str(document.url)).join(document.json()["servers"][0]["url"])
        assert base.path == "/talk/"
        refused(await web.get("/talk/nothing"), 404)


async def test_the_description_is_served_as_it_is() -> None:
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        got = await web.get("/openapi.json")
        assert got.content == (STATIC / "openapi.json").read_bytes()
        assert got.headers["content-type"] == "application/json"
        again = await web.get("/openapi.json", headers={"if-none-match": got.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_history_is_read_by_everybody_at_once(sessions: str) -> None:
    """Many who ask at the same time get what each has asked for."""
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        names = [f"room-{number}" for number in range(8)]
        answers: list[Any] = await asyncio.gather(*(say(web, name, f"I am {name}") for name in names))
        assert all(answer["content"].endswith(f"I am {answer['session_id']}") for answer in answers)
        read = await asyncio.gather(*(get(web, f"/sessions/{name}") for name in names))
        assert [one["history"][0]["text"] for one in read] == [f"I am {name}" for name in names]
