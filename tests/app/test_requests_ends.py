"""Requests whose run fails, is lost or is ended: each is answered or gets an error."""

from __future__ import annotations

import asyncio
import logging

import pytest

from support.api import all_ended, stats_when, untimed
from support.chat import asking, chat, created, end, http, left, turn
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.script import Script
from support.server import a_relay, serving

pytestmark = pytest.mark.bus


@pytest.mark.usefixtures("no_errors", "quick_retries")
async def test_a_request_goes_on_to_its_real_end_over_a_lost_connection(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("One two", complete=False, audio=False)
            await gemini.wait_for(lambda: ready)
            connection.abort()
        elif connection.number == 2:
            await connection.say(" three", complete=False, audio=False)
            connection.abort()
        elif turn.text == "next":
            await connection.say("Next.", audio=False)
        else:
            await connection.say(" four.", audio=False)

    ready = False
    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web, chat(port) as asker:
        await asker.send(type="create_session")
        session_id = (await asker.get("session_created"))["session_id"]
        async with chat(port, session_id) as watcher, asking(port, session_id, "count") as counting:
            await asker.until(lambda said: said.get("text") == " two")
            await asker.chat("next")
            await asker.get("status")
            ready = True
            gemini.changed()
            frames, code = await end(counting)
            assert code == 1000
            assert [said["type"] for said in frames] == ["response", "done"]
            assert frames[0]["content"] == "One two three four."
            assert "interrupted" not in frames[0]
            for who in (asker, watcher):
                complete = await who.get("response_complete")
                assert complete["full_response"] == "One two three four."
                assert "interrupted" not in complete
                assert len(who.of("response_start")) == 1
                chunks = who.of("chunk")
                assert "".join(said["text"] for said in chunks) == "One two three four."
                numbers = [said["chunk_number"] for said in chunks]
                assert numbers == [*range(1, complete["total_chunks"] + 1)]
                assert [said["is_final"] for said in chunks] == [False] * (len(chunks) - 1) + [True]
                assert (await who.get("response_complete"))["full_response"] == "Next."
        history = (await web.get(f"/sessions/{session_id}")).json()["history"]
        assert untimed(history) == [
            {"role": "user", "text": "count"},
            {"role": "agent", "text": "One two three four."},
            {"role": "user", "text": "next"},
            {"role": "agent", "text": "Next."},
        ]
    assert gemini.connects == 3
    assert [text for one in gemini.connections for text in one.texts] == ["count", "next"]


@pytest.mark.parametrize("when", ["at once", "in mid answer"])
@pytest.mark.usefixtures("quick_retries")
async def test_requests_are_told_when_the_agent_fails_for_good(
    gemini: GeminiLive, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    all_wait = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One two", complete=False)
        await all_wait.wait()
        gemini.on_connect = lambda number: Plan(http_status=403)
        connection.abort()

    def refuse(number: int) -> Plan:
        return Plan(http_status=403)

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web, chat(port) as asker:
        await asker.send(type="create_session")
        session_id = (await asker.get("session_created"))["session_id"]
        if when == "at once":
            gemini.on_connect = lambda number: Plan(hang="handshake")
        await asker.chat("one")
        await asker.get("status")
        async with asking(port, session_id, "two") as two:
            posted = asyncio.create_task(
                web.post("/api/v1/chat", json={"session_id": session_id, "message": "three"})
            )
            while (await web.get("/stats")).json()["total_requests"] < 3:
                pass
            if when == "at once":
                await gemini.wait_for(lambda: gemini.open_connections)
                gemini.on_connect = refuse
                for ws in list(gemini._sockets):
                    ws.transport.abort()
            else:
                all_wait.set()
            frames, code = await end(asker)
            assert frames[-1]["type"] == "error"
            assert code == 1011
            frames, code = await end(two)
            assert [said["type"] for said in frames] == ["error"]
            assert code == 1011
            response = await posted
            assert response.status_code == 502
            assert response.json()["detail"]
        assert await all_ended(web, 3) == (0, 3)
        errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
        assert len(errors) == 1
        assert errors[0].exc_text is None
        # The conversation can be used again.
        gemini.answer, gemini.on_connect = say_hello, lambda number: None
        assert (await turn(port, session_id, "four"))["content"] == "Hello."


@pytest.mark.parametrize("when", ["before the model has it", "in mid answer"])
@pytest.mark.usefixtures("quick_retries")
async def test_after_a_failure_for_good_the_next_request_gets_its_own_answer(
    gemini: GeminiLive, when: str
) -> None:
    """The conversation goes on, and the text of a request that failed is not asked later."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await connection.say("One is", complete=False)
            if connection.number == 1:
                gemini.on_connect = lambda number: Plan(http_status=403)
                connection.abort()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    if when == "before the model has it":
        gemini.on_connect = lambda number: Plan(http_status=503)
    async with serving(a_relay(grace=30)) as port, http(port) as web:
        session_id = await created(port)
        path = f"/sessions/{session_id}"
        failed = await web.post("/api/v1/chat", json={"session_id": session_id, "message": "one"})
        assert failed.status_code == 502
        await stats_when(web, active_sessions=1)
        gemini.on_connect = lambda number: None
        answered = await web.post("/api/v1/chat", json={"session_id": session_id, "message": "two"})
        assert answered.status_code == 200
        assert answered.json()["content"] == "You said: two."
        assert "interrupted" not in answered.json()
        history = (await web.get(path)).json()["history"]
        assert [line["text"] for line in history if line["role"] == "user"] == ["one", "two"]
        assert untimed(history[-2:]) == [
            {"role": "user", "text": "two"},
            {"role": "agent", "text": "You said: two."},
        ]
        assert await all_ended(web, 2) == (1, 1)
    told = ["two"] if when == "before the model has it" else ["one", "two"]
    assert [text for one in gemini.connections for text in one.texts] == told


@pytest.mark.parametrize("when", ["before the answer", "in mid answer", "while it is remade"])
@pytest.mark.usefixtures("no_errors", "quick_retries")
async def test_one_who_comes_while_the_run_is_ended_for_one_who_left_is_answered(
    gemini: GeminiLive, when: str
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text != "one":
            await connection.say(f"You said: {turn.text}.")
            return
        if when != "before the answer":
            await connection.say("First half", complete=False)
        if when == "while it is remade":
            gemini.on_connect = lambda number: Plan(hang="setup")
            connection.abort()
        await asyncio.Event().wait()

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        session_id = await created(port)
        async with chat(port, session_id) as first:
            await first.chat("one")
            if when == "before the answer":
                await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts == ["one"])
            else:
                await first.until(lambda said: said.get("text") == " half")
            if when == "while it is remade":
                await gemini.wait_for(lambda: len(gemini.connections) == 2 and gemini.connections[1].setup)
            else:
                gemini.connections[0].deafen()
        await left(port)
        gemini.on_connect = lambda number: None
        async with chat(port, session_id) as second:
            await second.chat("two")
            await second.get("status")
            gemini.connections[-1].abort()
            complete = await second.get("response_complete")
            assert complete["connection_id"] == first.hello["connection_id"]
            assert complete["full_response"] == ("" if when == "before the answer" else "First half")
            assert complete["interrupted"] is True
            complete = await second.get("response_complete")
            assert complete["connection_id"] == second.hello["connection_id"]
            assert complete["full_response"] == "You said: two."
            assert "interrupted" not in complete
        await all_ended(web, 2)
    assert [text for one in gemini.connections for text in one.texts] == ["one", "two"]


@pytest.mark.usefixtures("no_errors")
async def test_a_request_that_nobody_waits_for_any_more_is_counted_when_its_run_is_ended(
    gemini: GeminiLive,
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await asyncio.Event().wait()

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        async with chat(port) as asker:
            await asker.chat("one")
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts == ["one"])
        while (await web.get("/stats")).json()["active_sessions"]:
            pass
        assert await all_ended(web, 1) == (0, 1)


async def say_hello(connection: Connection, turn: UserTurn) -> None:
    await connection.say("Hello.")


@pytest.mark.usefixtures("no_errors")
async def test_of_those_who_wait_and_leave_what_is_said_in_a_room_is_asked(gemini: GeminiLive) -> None:
    """Others in the room read these answers; nobody would read the answer to a turn request."""
    script = Script(gemini)
    async with serving(a_relay()) as port, chat(port) as asker:
        await asker.chat("one")
        session_id = (await asker.get("session_created"))["session_id"]
        await script.until("one")
        async with asking(port, session_id, "two"), chat(port, session_id) as other:
            await other.chat("three")
            await other.get("status")
        async with chat(port, session_id) as other:
            await other.chat("four")
            status = await other.get("status")
            while "2" not in status["message"]:  # until the server knows that they have left
                await other.chat("four")
                status = await other.get("status")
            script.go_on("one", "three", "four")
            for text in ("one", "three", "four"):
                assert (await asker.get("response_complete"))["full_response"] == f"{text}: a b."
    assert "two" not in gemini.connections[0].texts
