"""Requests of many sockets: they are answered one after the other."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from google.adk.agents import LlmAgent
from websockets.asyncio.client import connect

from support.api import all_ended
from support.chat import asking, chat, created, end, fence, guest, http
from support.client import Client, Json, words
from support.gemini import Connection, GeminiLive, UserTurn, speech
from support.script import Script
from support.server import a_relay, serving

pytestmark = pytest.mark.bus


@pytest.mark.usefixtures("no_errors")
async def test_requests_of_all_kinds_are_answered_one_after_the_other(gemini: GeminiLive) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port, chat(port) as asker, http(port) as web:
        await asker.chat("one")
        session_id = (await asker.get("session_created"))["session_id"]
        await script.until("one")
        async with asking(port, session_id, "two") as two:
            body = {"session_id": session_id, "message": "three"}
            posted = asyncio.create_task(web.post("/api/v1/chat", json=body))
            while (await web.get("/stats")).json()["total_requests"] < 3:
                pass
            await asker.chat("four")
            status = await asker.until(lambda said: said["type"] == "status" and "2" in said["message"])
            assert status[-1]["session_id"] == session_id
            connection = gemini.connections[0]
            # Whoever writes and whoever makes single requests take turns: "four" is not behind both of those.
            order = ("one", "two", "four", "three")
            for number, name in enumerate(order, 1):
                await script.until(name)
                assert connection.texts == [*order[:number]]
                script.go_on(name)
            frames, code = await end(two)
            assert [said["type"] for said in frames] == ["response", "done"]
            assert frames[0]["content"] == "two: a b."
            assert "interrupted" not in frames[0]
            assert code == 1000
            answer = (await posted).json()
            assert answer.pop("timestamp")
            assert answer == {"content": "three: a b.", "tool_calls": [], "session_id": session_id}
            said = [await asker.get("response_complete") for _ in range(4)]
            assert [one["full_response"][:-5] for one in said] == [f"{name}:" for name in order]
            assert [one["message_count"] for one in said] == [2, 4, 6, 8]
            assert not any("interrupted" in one for one in said)
        assert await all_ended(web, 4) == (4, 0)


@pytest.mark.usefixtures("no_errors")
async def test_a_request_waits_for_what_a_live_socket_asked(gemini: GeminiLive) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live:
            await live.say("one")
            async with asking(port, session_id, "two") as two:
                await script.until("one")
                await fence(live)
                assert gemini.connections[0].texts == ["one"]
                script.go_on("one", "two")
                assert words(await live.turn()) == "one: a b."
                frames, _ = await end(two)
                assert frames[0]["content"] == "two: a b."
                frames = await live.turn()
                assert [said["text"] for said in frames if said.get("type") == "message"] == ["two"]
                assert words(frames) == "two: a b."


@pytest.mark.usefixtures("no_errors")
async def test_the_seventeenth_that_would_wait_is_told_to_come_again(gemini: GeminiLive) -> None:
    script = Script(gemini)
    names = [f"n{number}" for number in range(17)]
    async with serving(a_relay()) as port, http(port) as web, chat(port) as asker:
        await asker.chat(names[0])
        session_id = (await asker.get("session_created"))["session_id"]
        for name in names[1:]:
            await asker.chat(name)
        for _ in names:
            await asker.get("status")
        # All requests of the turn dialect and of HTTP are one member's together, where nobody signs in.
        async with AsyncExitStack() as stack:
            for number in range(16):
                await stack.enter_async_context(asking(port, session_id, f"t{number}"))
            raw = await stack.enter_async_context(
                connect(f"ws://127.0.0.1:{port}/api/v1/chat/stream", proxy=None)
            )
            late = Client(raw, {})
            await late.send(session_id=session_id, message="late")
            frames, code = await end(late)
            assert [said["type"] for said in frames] == ["error"]
            assert code == 1013
            response = await web.post("/api/v1/chat", json={"session_id": session_id, "message": "late"})
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) > 0
        assert response.json()["detail"]
        await asker.chat("late")
        error = await asker.get("error")
        assert error["session_id"] == session_id
        assert "16" in error["message"]
        while (await web.get("/stats")).json()["failed_requests"] < 19:  # who has left waits no more
            pass
        script.go_on(*names)
        said = [(await asker.get("response_complete"))["full_response"] for _ in names]
        assert said == [f"{name}: a b." for name in names]
        assert await all_ended(web, 36) == (17, 19)
        # There is room again.
        script.go_on("more")
        assert await asker.ask("more") == "more: a b."
    assert gemini.connections[0].texts == [*names, "more"]


@pytest.mark.usefixtures("no_errors")
@pytest.mark.parametrize("how", ["text", "speech", "interrupt"])
async def test_an_interrupted_request_ends_with_what_was_said_and_the_next_one_runs(
    gemini: GeminiLive, how: str
) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port, http(port) as web, chat(port) as watcher:
        await watcher.send(type="create_session")
        session_id = (await watcher.get("session_created"))["session_id"]
        async with (
            guest(port, session_id, audio=True) as live,
            asking(port, session_id, "one") as one,
        ):
            await script.until("one")
            await live.until(lambda said: said.get("data") == " a")
            async with asking(port, session_id, "two") as two:
                posted = asyncio.create_task(
                    web.post("/api/v1/chat", json={"session_id": session_id, "message": "three"})
                )
                while (await web.get("/stats")).json()["total_requests"] < 3:
                    pass
                script.go_on("cut in", "speech")
                if how == "text":
                    await live.say("cut in")
                elif how == "speech":
                    await live.socket.send(speech(400))
                    await live.send(type="audio_end")
                else:
                    await live.send(type="interrupt")
                frames, code = await end(one)
                assert code == 1000
                assert [said["type"] for said in frames] == ["response", "done"]
                assert frames[0]["content"] == "one: a"
                assert frames[0]["interrupted"] is True
                script.go_on("two", "three")
                frames, code = await end(two)
                assert code == 1000
                assert [said["type"] for said in frames] == ["response", "done"]
                assert frames[0]["content"] == "two: a b."
                assert "interrupted" not in frames[0]
                assert (await posted).json()["content"] == "three: a b."
                complete = await watcher.get("response_complete")
                assert complete["full_response"] == "one: a"
                assert complete["interrupted"] is True
                between = {"text": ["cut in"], "speech": ["speech"], "interrupt": []}[how]
                told = [await watcher.get("response_complete") for _ in (*between, "two", "three")]
                answers = [said["full_response"] for said in told]
                assert answers == [f"{name}: a b." for name in (*between, "two", "three")]
                assert not any("interrupted" in said for said in told)


@pytest.mark.usefixtures("no_errors")
async def test_a_tool_of_a_stopped_answer_is_shown_and_is_not_of_the_answer_to_the_next_request(
    gemini: GeminiLive,
) -> None:
    stopped = asyncio.Event()

    def look() -> Json:
        """Looks."""
        return {"seen": "a cat"}

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await connection.say("One is", complete=False)
            await stopped.wait()
            await connection.call_tool("look", {})
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    relay = a_relay(LlmAgent(name="tester", model="gemini-3.8-live", tools=[look]))
    async with serving(relay) as port:
        session_id = await created(port)
        async with guest(port, session_id) as live, asking(port, session_id, "one") as one:
            await live.until(lambda said: said.get("data") == " is")
            async with asking(port, session_id, "two") as two:
                # The next request and the tool call cross on the wire.
                transport = gemini.connections[0]._ws.transport
                transport.pause_reading()
                await live.send(type="interrupt")
                frames, _ = await end(one)
                assert (frames[0]["content"], frames[0]["interrupted"]) == ("One is", True)
                stopped.set()
                shown = await live.until(lambda said: said.get("type") == "tool_complete")
                assert [said["tool_name"] for said in shown if "tool_name" in said] == ["look", "look"]
                assert [said["text"] for said in shown if said.get("type") == "message"] == ["two"]
                transport.resume_reading()
                frames, _ = await end(two)
                assert [said["type"] for said in frames] == ["response", "done"]
                assert (frames[0]["content"], frames[0]["tool_calls"]) == ("You said: two.", [])


@pytest.mark.usefixtures("no_errors")
async def test_the_first_words_of_an_answer_that_was_stopped_before_them_are_not_the_next_requests(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.core.writing._LOOK_EVERY", 0.05)
    stopped = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await stopped.wait()
            await connection.say("Well, one", complete=False)
            gemini.changed()
            await asyncio.Event().wait()
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay()) as port, http(port) as web:
        session_id = await created(port)
        async with guest(port, session_id) as live, asking(port, session_id, "one") as one:
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts == ["one"])
            async with asking(port, session_id, "two") as two:
                # What is sent to the model now crosses with its words on the wire.
                connection = gemini.connections[0]
                connection._ws.transport.pause_reading()
                await live.send(type="interrupt")
                frames, _ = await end(one)
                assert (frames[0]["content"], frames[0]["interrupted"]) == ("", True)
                stopped.set()
                await gemini.wait_for(lambda: connection.said == "Well, one")
                connection._ws.transport.resume_reading()
                frames, _ = await end(two)
                assert [said["type"] for said in frames] == ["response", "done"]
                assert frames[0]["content"] == "You said: two."
                assert "interrupted" not in frames[0]
                history = (await web.get(f"/sessions/{session_id}")).json()["history"]
                assert [line["text"] for line in history] == ["one", "two", "You said: two."]


@pytest.mark.usefixtures("no_errors")
async def test_a_request_is_not_told_the_model_while_somebody_speaks(gemini: GeminiLive) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with guest(port, session_id, audio=True) as live, asking(port, session_id, "one") as one:
            await script.until("one")
            async with asking(port, session_id, "two") as two:
                await live.socket.send(speech(400))
                frames, _ = await end(one)
                assert frames[0]["interrupted"] is True
                await fence(live)
                script.go_on("speech", "two")
                await live.send(type="audio_end")
                frames, _ = await end(two)
                assert frames[0]["content"] == "two: a b."
                await live.until(lambda said: said.get("type") == "transcript")
                frames = await live.turn()
                assert words(frames) == "speech: a b."
    assert gemini.connections[0].context[-2:] == [("user", "two"), ("model", "two: a b.")]
