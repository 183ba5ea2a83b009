"""The HTTP interface: its description is true, and its paths for sessions and statistics."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from support.api import (
    API,
    CHAT,
    COUNTS,
    SESSION,
    SHARED,
    STATIC,
    STATS,
    SUMMARY,
    get,
    is_now,
    refused,
    rehearsal,
    say,
    stats_when,
    untimed,
)
from support.chat import chat, created, guest, http
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.server import a_relay, serving
from support.tokens import SECRET, token


def test_the_description_holds_together() -> None:
    """Every reference resolves, every operation has a name, every field of a response is described."""
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
        if operation.get("security") != []:  # what the guard answers
            assert {"401", "403", "429", "500", "503"} <= operation["responses"].keys(), operation["summary"]
    for name, schema in API["components"]["schemas"].items():
        if schema["type"] == "object" and name not in ("ChatRequest", "Title", "ToolResult"):
            assert schema["additionalProperties"] is False, name
            assert schema["required"], name


@pytest.mark.timeout(600)
@pytest.mark.parametrize("secret", [None, SECRET], ids=["open", "with a token"])
async def test_schemathesis_finds_nothing(tmp_path: Path, secret: str | None) -> None:
    """The server does what the description says, for valid requests and for all kinds of invalid ones."""
    # Parameters that the description does not have are ignored.
    (tmp_path / "schemathesis.toml").write_text("[generation]\nallow-extra-parameters = false\n")
    header = ("--header", f"Authorization: Bearer {token(exp=time.time() + 3600)}") if secret else ()
    # What is random is the same for one seed.
    phases = ("--phases", "examples,coverage,fuzzing,stateful" if secret else "examples,coverage,stateful")
    async with serving(a_relay(rehearsal(), grace=1, secret=secret)) as port:
        process = await asyncio.create_subprocess_exec(
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            *(f"http://127.0.0.1:{port}/openapi.json", "--checks", "all", "--no-color"),
            *("--seed", "20", "--max-examples", "6", "--request-timeout", "10"),
            *("--generation-database", "none", *header, *phases),
            cwd=tmp_path,
            env=os.environ | {"NO_PROXY": "*"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(500):
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


@pytest.mark.bus
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
        assert untimed(read["history"]) == expected
        assert read["session_id"] == made["session_id"]
        assert (read["message_count"], read["user_messages"], read["model_messages"]) == (2, 1, 1)
        assert 0 <= read["session_duration_seconds"] < 60
        assert is_now(read["created_at"])
        assert datetime.fromisoformat(read["created_at"]) <= datetime.fromisoformat(answer["timestamp"])

        listed = await get(web, "/sessions")
        assert listed.keys() == {"active_sessions", "sessions"}
        (one,) = listed["sessions"]
        assert one.keys() == SUMMARY | {"first_text"}
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
        assert untimed(after["history"]) == untimed(before["history"])
        assert after["created_at"] == before["created_at"]
        (one,) = (await get(web, "/sessions"))["sessions"]
        assert (one["session_id"], one["message_count"]) == ("mine", 2)
        again = await say(web, "mine", "And again")
        assert "I remember 2 turns before this." in again["content"]
        assert again["content"] != answer["content"]


@pytest.mark.bus
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


@pytest.mark.bus
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
            # The live client still attends the conversation and can begin it again; the other attends none.
            assert await live.ask("three") == "You said: three."
            assert (await get(web, f"/sessions/{name}"))["message_count"] == 2
            assert await room.ask("four") == "You said: four."
            assert room.of("session_created")[-1]["session_id"] != name


@pytest.mark.bus
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
        assert untimed(read["history"]) == expected
        go_on.set()
        assert (await room.get("response_complete"))["full_response"] == "One two three."
        read = await get(web, f"/sessions/{name}")
        assert untimed(read["history"]) == [expected[0], {"role": "agent", "text": "One two three."}]


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
        assert untimed(kept["history"]) == untimed(in_memory["history"])
        for count in ("message_count", "user_messages", "model_messages"):
            assert kept[count] == in_memory[count], count
        assert kept["message_count"] == len(expected)
        (listed_later,) = (await get(web, "/sessions"))["sessions"]
        assert listed_later["message_count"] == listed["message_count"] == len(expected)


# ---- how things stand ------------------------------------------------------------------------


@pytest.mark.bus
async def test_the_counts_move(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, http(port) as web:
        first = await get(web, "/stats")
        assert first.keys() - SHARED == STATS
        assert first["model"] == "gemini-3.8-live"
        assert is_now(first["start_time"])
        moving = STATS - {"model", "start_time", "uptime_seconds"}
        assert {first[name] for name in moving} == {0}
        health = await get(web, "/health")
        assert health.keys() - SHARED == COUNTS | {"status"}
        assert health["status"] == "ok"

        name = await created(port)
        await stats_when(web, total_sessions_created=1, active_sessions=0)
        await say(web, name, "one")
        after = await stats_when(web, total_requests=1, successful_requests=1, failed_requests=0)
        assert 0 < after["average_response_time"] < 5
        assert after["uptime_seconds"] >= first["uptime_seconds"]
        assert is_now(after["start_time"])

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
    """Many requests at the same time each get their own answer."""
    async with serving(a_relay(rehearsal(), sessions=sessions)) as port, http(port) as web:
        names = [f"room-{number}" for number in range(8)]
        answers: list[Any] = await asyncio.gather(*(say(web, name, f"I am {name}") for name in names))
        assert all(answer["content"].endswith(f"I am {answer['session_id']}") for answer in answers)
        read = await asyncio.gather(*(get(web, f"/sessions/{name}") for name in names))
        assert [one["history"][0]["text"] for one in read] == [f"I am {name}" for name in names]
