"""Bounds, refusals and lines of the log that hold in every dialect."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.sessions import InMemorySessionService
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from adk_relay.core.messages import Typing
from adk_relay.wire.dialects import chat as chat_dialect
from adk_relay.wire.outbox import Outbox
from support.chat import asking, chat, created, end, guest, http, turn
from support.client import client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

# ---- what costs ------------------------------------------------------------------------------


async def test_who_only_listens_costs_nothing_however_long(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    sleep = asyncio.sleep

    async def counted(seconds: float) -> None:
        naps.append(seconds)
        await sleep(seconds)

    async with serving(a_relay(idle_timeout=5)) as port:
        session_id = await created(port)
        async with chat(port, session_id), chat(port, session_id) as talker:
            monkeypatch.setattr("adk_relay.wire.websocket.asyncio.sleep", counted)
            async with asyncio.timeout(60):
                while sum(naps) < 6:  # of two sockets
                    assert await talker.ask("on") == "You said: on."
            monkeypatch.undo()
    assert len(naps) < 40


async def test_what_was_said_in_a_room_is_not_kept_by_the_dialect(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port:
        async with chat(port) as asker:
            assert await asker.ask("hello") == "You said: hello."
        await turn(port, "mine", "hello")
    gc.collect()
    assert not [name for name in chat_dialect._encoders if name]


async def test_a_room_in_which_nothing_was_said_ends_with_its_last_socket(gemini: GeminiLive) -> None:
    relay = a_relay(grace=30)
    async with serving(relay) as port:
        async with chat(port) as maker:
            for _ in range(20):
                await maker.send(type="create_session")
                await maker.get("session_created")
            assert await maker.ask("hello") == "You said: hello."
        async with asyncio.timeout(60):
            while relay.conversations.active != 1:
                await asyncio.sleep(0.01)


async def test_pings_are_no_content_in_no_room_either() -> None:
    async with serving(a_relay(idle_timeout=0.5)) as port, chat(port) as who:
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(60):
                while True:
                    await who.send(type="ping")
                    await who.get("pong")
                    await asyncio.sleep(0.05)
    assert closed.value.rcvd and closed.value.rcvd.code == 4408


async def test_a_turn_in_which_nothing_comes_ends_with_an_error(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await asyncio.Event().wait()

    gemini.answer = answer
    async with serving(a_relay(idle_timeout=1)) as port, asking(port, "mine", "hello") as asker:
        frames, code = await end(asker)
    assert ([frame["type"] for frame in frames], code) == (["error"], 4408)


# ---- what is too much ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["ws", "ws/alice", "api/v1/chat/stream"])
async def test_a_huge_frame_of_little_values_is_refused_unread(path: str) -> None:
    frame = json.dumps({"type": "ping", "session_id": "mine", "message": "hello", "more": [0] * 500_000})
    async with (
        serving(a_relay()) as port,
        connect(f"ws://127.0.0.1:{port}/{path}", proxy=None) as socket,
    ):
        await socket.send(frame)
        said = json.loads(await socket.recv())
        while said["type"] != "error":
            said = json.loads(await socket.recv())
        assert "may only hold one base64 string" in said["message"]


def read(number: int) -> str:
    """Reads a part of the book."""
    return str(number) * 60_000


async def test_an_answer_with_many_results_fits_into_a_frame(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        for number in range(20):
            await connection.call_tool("read", {"number": number % 10})
        await connection.say("Done.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[read])
    async with serving(a_relay(agent)) as port:
        response = await turn(port, "mine", "read it")  # the client accepts frames of at most 1 MiB
    assert response["content"] == "Done."
    assert [call["tool_name"] for call in response["tool_calls"]] == ["read"] * 20
    results = [call["result"] for call in response["tool_calls"]]
    assert results[0] == {"result": "0" * 60_000}
    assert response["tool_calls"][-1]["truncated"] is True
    assert len(json.dumps(response)) < 600_000


async def test_a_stream_that_is_beyond_its_bound_says_so(gemini: GeminiLive) -> None:
    async with serving(a_relay(queue_bytes=1_000)) as port, http(port) as web:
        body = {"session_id": "mine", "message": "hello " * 300}
        streamed = await web.post("/api/v1/chat", json=body, headers={"accept": "text/event-stream"})
    assert streamed.status_code == 200
    assert "event: error" in streamed.text
    assert "too slowly" in streamed.text


async def test_a_reason_that_is_too_long_for_a_close_frame_is_cut(
    gemini: GeminiLive, no_errors: None
) -> None:
    name = "x" * 128
    async with serving(a_relay()) as port:
        await turn(port, name, "mine")
        url = f"ws://127.0.0.1:{port}/ws/alice?session_id={name}"
        async with connect(url, subprotocols=[Subprotocol("relay.v1")], proxy=None) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd and closed.value.rcvd.code == 4404
        assert closed.value.rcvd.reason.startswith("There is no conversation 'xxx")


async def test_of_typing_that_nobody_reads_the_last_counts(gemini: GeminiLive) -> None:
    queue = Outbox(chat_dialect.encoder("room"), 10_000)
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with guest(port, session_id) as writer, chat(port, session_id) as reader:
            for _ in range(50):
                await writer.send(type="typing_start")
                await writer.send(type="typing_stop")
            await writer.say("done")
            await reader.get("message_added")
            assert reader.of("user_typing")[-1]["typing"] is False
    for number in range(1_000):
        queue.enqueue(Typing("someone", number % 2 == 0))
    assert json.loads(await queue.dequeue())["typing"] is False
    assert not queue.bytes


# ---- who is told what ------------------------------------------------------------------------


async def test_who_asks_again_for_the_room_it_is_in_keeps_its_place(gemini: GeminiLive) -> None:
    may_go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "first":
            await connection.say("Wait", complete=False)
            await may_go_on.wait()
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay()) as port, chat(port) as other:
        await other.chat("first")
        session_id = (await other.get("session_created"))["session_id"]
        await other.get("chunk")
        async with chat(port, session_id) as asker:
            await asker.chat("second")
            status = await asker.get("status")
            assert "waits for 1 before it" in status["message"]
            assert status["ahead"] == 1
            await asker.join(session_id)
            may_go_on.set()
            await asker.get("response_complete")
            assert (await asker.get("response_complete"))["full_response"] == "You said: second."


async def test_out_of_a_deleted_room_nothing_names_it(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, http(port) as web, chat(port) as who:
        await who.ask("hello")
        session_id = who.of("session_created")[0]["session_id"]
        await web.delete(f"/sessions/{session_id}")
        await who.get("session_deleted")
        await who.socket.send("no JSON")
        assert "session_id" not in await who.get("error")


async def test_what_waits_in_a_room_that_all_have_left_is_kept(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One", complete=False)
        await asyncio.Event().wait()

    gemini.answer = answer
    relay = a_relay()
    async with serving(relay) as port, http(port) as web:
        async with chat(port) as asker:
            for text in ("first", "second", "third"):
                await asker.chat(text)
                await asker.get("status")
            session_id = asker.of("session_created")[0]["session_id"]
            await gemini.wait_for(lambda: gemini.connections and gemini.connections[0].texts)
        async with asyncio.timeout(60):
            while relay.conversations.active:
                await asyncio.sleep(0.01)
        history = (await web.get(f"/sessions/{session_id}")).json()["history"]
        assert [line["text"] for line in history if line["role"] == "user"] == ["first", "second", "third"]
        counted = (await web.get("/stats")).json()
        assert counted["total_requests"] == counted["successful_requests"] + counted["failed_requests"] == 3


class Slow(InMemorySessionService):
    """A store that deletes only when `may_delete` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()
        self.may_delete = asyncio.Event()

    async def delete_session(self, **named: Any) -> None:
        self.is_asked.set()
        await self.may_delete.wait()
        await super().delete_session(**named)


async def test_who_stops_typing_while_a_room_is_cleared_has_stopped(gemini: GeminiLive) -> None:
    service = Slow()
    async with serving(a_relay(sessions=service)) as port, http(port) as web:
        session_id = await created(port)
        async with chat(port, session_id) as writer, chat(port, session_id) as reader:
            await writer.send(type="typing_start")
            assert (await reader.get("user_typing"))["typing"] is True
            clearing = asyncio.create_task(web.post(f"/sessions/{session_id}/clear"))
            await service.is_asked.wait()
            await writer.send(type="typing_stop")
            assert (await reader.get("user_typing"))["typing"] is False
            service.may_delete.set()
            assert (await clearing).status_code == 200
            await writer.send(type="typing_start")
            assert (await reader.get("user_typing"))["typing"] is True


async def test_a_turn_that_is_given_up_takes_nobody_else_s_grace(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One", complete=False)
        if turn.text == "stay":
            await asyncio.Event().wait()
        await connection.say(" two.")

    gemini.answer = answer
    relay = a_relay(grace=30)
    async with serving(relay) as port:
        async with guest(port, "shared") as who:
            await who.ask("hello")
            epoch, last = who.hello["epoch"], who.frames[-1]["seq"]
        async with asking(port, "shared", "stay"):
            await gemini.wait_for(lambda: gemini.connections[0].texts == ["hello", "stay"])
        async with asyncio.timeout(60):
            while relay.conversations.stats.failed != 1:
                await asyncio.sleep(0.01)
        async with guest(port, "shared", query=f"&after={epoch}.{last}") as who:
            assert who.hello["epoch"] == epoch
            assert (await who.next())["text"] == "stay"


# ---- the log ---------------------------------------------------------------------------------


def look(name: str) -> str:
    """Looks for something."""
    raise ValueError(f"nothing like {name}")


async def test_nobody_s_words_make_a_line_of_their_own(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.call_tool("look", {"name": "x\nERROR:    relay: forged\x1b[2J"})
        await connection.say("No.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[look])
    async with serving(a_relay(agent)) as port, client(port) as who:
        await who.ask("look")
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert lines == ["tool look failed: ValueError: nothing like x ERROR: relay: forged\\x1b[2J"]


# ---- plain HTTP ------------------------------------------------------------------------------


async def test_http_refuses_what_it_can_not_serve(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, http(port) as web:
        assert (await web.post("/nowhere")).status_code == 404
        assert (await web.post("/docs")).status_code == 405
        for name in ("new", ".", ".."):
            refused = await web.post("/api/v1/chat", json={"session_id": name, "message": "hello"})
            assert refused.status_code == 400, name
            assert "but not new" in refused.json()["detail"]
        session_id = await created(port)
        long = await web.post(f"/sessions/{session_id}/clear", content=b" " * 70_000)
        assert long.status_code == 413
        for accept, streams in {
            "Text/Event-Stream": True,
            "application/json, text/event-stream;q=0.5": True,
            "text/event-stream;q=0": False,
            "text/event-stream; q=0.0, application/json": False,
        }.items():
            body = {"session_id": "mine", "message": "hello"}
            answered = await web.post("/api/v1/chat", json=body, headers={"accept": accept})
            assert answered.headers["content-type"].startswith("text/event-stream") is streams, accept
    async with serving(a_relay()) as port, chat(port) as who:
        await who.chat("hello", session_id=0)
        assert (await who.get("error"))["code"] == "bad_data"


async def test_a_body_that_does_not_come_is_not_waited_for(no_errors: None) -> None:
    async with serving(a_relay(slow_timeout=0.3)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /api/v1/chat HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert b" 408 " in head.partition(b"\r\n")[0]
        writer.close()
