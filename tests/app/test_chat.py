"""The chat dialect, on a real socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from support.chat import chat, created, end, http
from support.client import Client, Json, client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]


def texts(chunks: list[Json]) -> str:
    return "".join(said["text"] for said in chunks)


def answer_in(frames: list[Json]) -> Json:
    """The `response_complete` that ends some frames; checks that they are one whole answer.

    It has no time: that of each process is its own.
    """
    starts = [said for said in frames if said["type"] == "response_start"]
    chunks = [said for said in frames if said["type"] == "chunk"]
    complete = frames[-1]
    assert complete["type"] == "response_complete"
    assert [said["total_length"] for said in starts] == [None]
    assert complete["total_chunks"] == len(chunks)
    assert [said["chunk_number"] for said in chunks] == [*range(1, len(chunks) + 1)]
    assert [said["is_final"] for said in chunks] == [False] * (len(chunks) - 1) + [True]
    assert texts(chunks) == complete["full_response"]
    assert frames.index(starts[0]) < frames.index(chunks[0])
    assert {said["session_id"] for said in (*starts, *chunks, complete)} == {complete["session_id"]}
    assert complete["processing_time"] >= 0
    return {field: value for field, value in complete.items() if field != "timestamp"}


# ---- chat: a frame at a time -------------------------------------------------------------------


async def test_the_frames_of_a_chat_are_those_of_the_contract(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, chat(port) as asker, chat(port) as other:
        assert asker.hello["server_info"].keys() == {"model", "framework", "features"}
        assert asker.hello["server_info"]["model"] == "gemini-3.8-live"
        assert asker.hello["connection_id"] != other.hello["connection_id"]
        await asker.send(type="create_session", model_id="any/model:at-all")
        created_ = await asker.next()
        session_id = created_["session_id"]
        assert created_ | {"timestamp": ""} == {
            "type": "session_created",
            "session_id": session_id,
            "model": "gemini-3.8-live",
            "connection_id": asker.hello["connection_id"],
            "timestamp": "",
        }
        joined = await other.join(session_id)
        assert joined["message_count"] == 0
        assert joined["connection_id"] == other.hello["connection_id"]
        assert (await asker.get("user_joined"))["connection_id"] == other.hello["connection_id"]
        await asker.send(type="typing_start")
        await other.get("user_typing")
        await asker.chat("hello " * 20)
        frames = await asker.until(lambda said: said["type"] == "response_complete")
        assert [said["type"] for said in frames[:2]] == ["status", "response_start"]
        assert frames[0]["context_messages"] == 0
        complete = answer_in(frames)
        assert complete["message_count"] == 2
        assert complete["full_response"] == f"You said: {'hello ' * 20}."
        assert "interrupted" not in complete
        typing = await other.get("user_typing")
        assert (typing["connection_id"], typing["typing"]) == (asker.hello["connection_id"], False)
        added = await other.get("message_added")
        assert added["message"] == "hello " * 20
        assert added["message"].startswith(added["last_message_preview"])
        assert 0 < len(added["last_message_preview"]) < 100
        assert (added["role"], added["message_count"]) == ("user", 1)
        assert added["connection_id"] == asker.hello["connection_id"]
        told = await other.until(lambda said: said["type"] == "response_complete")
        assert answer_in(told) == complete
        assert not other.of("status")
        assert not asker.of("message_added", "user_typing")
        await asker.send(type="ping")
        pong = await asker.get("pong")
        assert pong["connection_id"] == asker.hello["connection_id"]
        await asker.chat("again")
        assert (await asker.get("status"))["context_messages"] == 2
        await asker.get("response_complete")
        await asker.socket.close()
        left = await other.get("user_disconnected")
        assert left["connection_id"] == asker.hello["connection_id"]


async def test_a_chat_without_a_session_makes_one(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, http(port) as web, chat(port) as asker:
        await asker.send(type="typing_start")  # outside a room it has no effect and is no error
        await asker.chat("hello", session_id="")
        frames = await asker.until(lambda said: said["type"] == "response_complete")
        assert [said["type"] for said in frames[:3]] == ["session_created", "status", "response_start"]
        assert {said["session_id"] for said in frames} == {frames[0]["session_id"]}
        await asker.chat("again")
        assert (await asker.get("response_complete"))["message_count"] == 4
        assert len(asker.of("session_created")) == 1
        (listed,) = (await web.get("/sessions")).json()["sessions"]
        assert listed["session_id"] == frames[0]["session_id"]
        assert (listed["message_count"], listed["connected_clients"]) == (4, 1)
        async with chat(port) as other:
            await other.chat("third", session_id=frames[0]["session_id"])
            assert (await other.get("session_joined"))["message_count"] == 4
            assert (await other.get("response_complete"))["message_count"] == 6


async def test_what_is_not_there_is_an_error_and_one_stays_where_one_is(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, http(port) as web, chat(port) as asker:
        await asker.send(type="join_session", session_id="nowhere")
        error = await asker.next()
        assert error["type"] == "error"
        assert "nowhere" in error["message"]
        assert "session_id" not in error
        await asker.chat("hello", session_id="nowhere")
        assert (await asker.next())["type"] == "error"
        assert await asker.ask("hello") == "You said: hello."
        session_id = asker.of("session_created")[0]["session_id"]
        await asker.chat("hello", session_id="nowhere")
        error = await asker.next()
        assert error["type"] == "error"
        assert error["session_id"] == session_id
        await asker.send(type="join_session", session_id="nowhere")
        assert (await asker.next())["type"] == "error"
        await asker.chat("still here")
        assert (await asker.get("response_complete"))["message_count"] == 4
        assert [one["session_id"] for one in (await web.get("/sessions")).json()["sessions"]] == [session_id]
    assert gemini.connections[0].texts == ["hello", "still here"]


async def test_one_that_joins_the_room_it_is_in_is_still_there_for_the_others(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port:
        session_id = await created(port)
        async with chat(port, session_id) as other, chat(port, session_id) as mover:
            name = mover.hello["connection_id"]
            await other.get("user_joined")
            await mover.join(session_id)
            async with chat(port, session_id) as third:  # told with or after the other
                await other.until(lambda said: said.get("connection_id") == third.hello["connection_id"])
                assert await mover.ask("hello") == "You said: hello."
                await other.get("response_complete")
                told = other.of("user_joined", "user_disconnected")
                assert [said["update_type"] for said in told if said["connection_id"] == name] == [
                    "user_joined"
                ]


async def test_one_that_leaves_and_comes_back_at_once_is_there_for_the_others(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port:
        here, there = await created(port), await created(port)
        async with chat(port, here) as other, chat(port, here) as mover:
            name = mover.hello["connection_id"]
            await other.get("user_joined")
            await mover.join(there)
            await mover.join(here)
            async with chat(port, here) as third:  # told with or after the other
                await other.until(lambda said: said.get("connection_id") == third.hello["connection_id"])
                told = other.of("user_joined", "user_disconnected")
                news = [said["update_type"] for said in told if said["connection_id"] == name]
                assert news[-1] == "user_joined"  # or it was back before it was told
                assert news in (["user_joined"], ["user_joined", "user_disconnected", "user_joined"])


BAD: dict[str, Any] = {
    "not JSON": "hello",
    "a list": "[]",
    "no type": "{}",
    "binary": b"{}",
    "unknown": {"type": "dance"},
    "a type that is no string": {"type": ["chat"]},
    "no message": {"type": "chat"},
    "a message that is no string": {"type": "chat", "message": 1},
    "an empty message": {"type": "chat", "message": " "},
    "too long": {"type": "chat", "message": "x" * (32 * 1024 + 1)},
    "half a surrogate pair": '{"type": "chat", "message": "\\ud800"}',
    "no session": {"type": "join_session"},
    "a session that is no name": {"type": "join_session", "session_id": "a b"},
    "a chat to no name": {"type": "chat", "message": "hello", "session_id": "../x"},
    "a chat to a number": {"type": "chat", "message": "hello", "session_id": 1},
    "an id that is no string": {"type": "chat", "message": "hello", "id": 1},
    "an id that is too long": {"type": "chat", "message": "hello", "id": "x" * 65},
}


async def test_a_bad_chat_frame_gets_an_error_and_the_socket_goes_on(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, chat(port) as asker:
        for name, bad in BAD.items():
            await asker.socket.send(json.dumps(bad) if isinstance(bad, dict) else bad)
            error = await asker.next()
            assert error["type"] == "error", name
            assert 10 < len(error["message"]) < 200
        assert await asker.ask("hello") == "You said: hello."
    assert gemini.connections[0].texts == ["hello"]


async def test_twenty_bad_chat_frames_in_a_row_are_too_many(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, chat(port) as asker:
        for _ in range(19):
            await asker.socket.send("nonsense")
        await asker.send(type="ping")
        for _ in range(20):
            await asker.socket.send("nonsense")
        frames, code = await end(asker)
        assert code == 1008
        assert sorted(said["type"] for said in frames) == ["error"] * 39 + ["pong"]


async def test_an_idle_chat_or_turn_socket_that_asks_for_nothing_is_closed(gemini: GeminiLive) -> None:
    async with serving(a_relay(idle_timeout=0.3)) as port, chat(port) as idle:
        assert await end(idle) == ([], 4408)
        async with connect(f"ws://127.0.0.1:{port}/api/v1/chat/stream", proxy=None) as raw:
            assert await end(Client(raw, {})) == ([], 4408)
        async with chat(port) as inside:
            await inside.send(type="create_session")
            frames, code = await end(inside)
            assert [said["type"] for said in frames] == ["session_created"]
            assert code == 4408


async def test_a_refused_text_is_told_by_its_id(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await go_on.wait()
        await connection.say(f"You said: {turn.text}.", audio=False)

    gemini.answer = answer
    bad_texts: list[Any] = ["x" * (32 * 1024 + 1), " ", 1, None, "\ud800"]
    async with serving(a_relay()) as port, chat(port) as asker, client(port) as live:
        for number, bad in enumerate(bad_texts):
            await asker.chat(bad, id=f"n{number}")
            assert (await asker.get("error"))["id"] == f"n{number}"
            await live.send(mime_type="text/plain", data=bad, id=f"n{number}")
            error = await live.next()
            assert (error["type"], error["id"]) == ("error", f"n{number}")
        assert [said["code"] for said in asker.frames] == [said["code"] for said in live.frames]
        assert asker.frames[0]["code"] == "too_large"
        await asker.chat("hello", session_id="nowhere", id="lost")
        error = await asker.get("error")
        assert (error["code"], error["id"]) == ("unknown_session", "lost")
        await asker.chat("no id", session_id="nowhere")
        assert "id" not in await asker.get("error")
        names = [f"q{number}" for number in range(17)]
        for name in names:
            await asker.chat(name, id=name)
            assert (await asker.get("status"))["id"] == name
        await asker.chat("late", id="late")
        error = await asker.get("error")
        assert (error["code"], error["id"]) == ("busy", "late")
        go_on.set()
        assert [(await asker.get("response_complete"))["id"] for _ in names] == names
        # There is room again, and the refused text was never said.
        await asker.chat("late", id="late")
        complete = await asker.get("response_complete")
        assert (complete["id"], complete["full_response"]) == ("late", "You said: late.")


# ---- chat: an answer in pieces -------------------------------------------------------------------


async def test_the_chunks_are_the_models_own_and_counted_also_in_a_burst(gemini: GeminiLive) -> None:
    pieces = [f"{number} " for number in range(300)]

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_text_parts(*pieces)
        await connection.send_text_parts("x" * 40_000)  # more than one merged chunk may hold
        await connection.turn_complete()

    gemini.answer = answer
    async with serving(a_relay()) as port, chat(port) as asker:
        await asker.chat("go")
        complete = answer_in(await asker.until(lambda said: said["type"] == "response_complete"))
        assert complete["full_response"] == "".join(pieces) + "x" * 40_000
        assert [said["text"] for said in asker.of("chunk")][:300] == pieces
        assert asker.of("chunk")[-1]["text"] == ""
        await asker.chat("go")  # chunks are counted from 1 again
        assert answer_in(await asker.until(lambda said: said["type"] == "response_complete"))


async def test_one_that_reads_slowly_gets_as_many_chunks(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        for number in range(1_000):
            await connection.send_text_parts(f"{number:04} " * 40)  # 200 kB
        await connection.turn_complete()

    gemini.answer = answer
    relay = a_relay()
    async with serving(relay) as port, chat(port, max_queue=1) as slow:
        await slow.send(type="create_session")
        session_id = (await slow.get("session_created"))["session_id"]
        async with chat(port, session_id) as quick:
            await slow.chat("go")
            complete = answer_in(
                (await quick.until(lambda said: said["type"] == "response_complete"))[
                    len(quick.of("message_added")) :
                ]
            )
            # The answer is over before the slow client reads on.
            frames = await slow.until(lambda said: said["type"] == "response_complete")
            assert answer_in(frames) == complete
            assert complete["total_chunks"] == 1_001


@pytest.mark.parametrize("queued", [False, True])
async def test_who_goes_to_another_room_hears_nothing_more_of_the_old_one(
    gemini: GeminiLive, queued: bool
) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text != "go":
            await connection.say(f"You said: {turn.text}.")
            return
        for number in range(1_000 if queued else 3):
            await connection.send_text_parts(f"{number:04} " * 40)
        await go_on.wait()
        await connection.say("The end.")

    gemini.answer = answer
    async with serving(a_relay()) as port, chat(port, max_queue=1 if queued else None) as mover:
        await mover.send(type="create_session")
        old = (await mover.get("session_created"))["session_id"]
        new = await created(port)
        async with chat(port, old) as stayer, chat(port, new) as neighbor:
            await mover.chat("go")
            last = 999 if queued else 2
            await stayer.until(lambda said: f"{last:04} " in said.get("text", ""))
            await mover.send(type="typing_start")
            await mover.send(type="join_session", session_id=new)
            assert (await stayer.get("user_typing"))["typing"] is True
            assert (await stayer.get("user_typing"))["typing"] is False  # because the writer has left
            go_on.set()
            assert (await stayer.get("response_complete"))["full_response"].endswith("The end.")
            before = await mover.until(lambda said: said["type"] == "session_joined")
            assert {said.get("session_id") for said in before[:-1]} == {old}
            assert before[-1]["session_id"] == new
            assert await mover.ask("hello") == "You said: hello."
            frames = mover.frames[mover.frames.index(before[-1]) :]
            assert {said["session_id"] for said in frames} == {new}
            added = await neighbor.get("message_added")
            assert (added["message"], added["message_count"]) == ("hello", 1)
            # What was asked in the old room was answered there.
            assert (await mover.join(old))["message_count"] == 2
    assert [one.texts for one in gemini.connections] == [["go"], ["hello"]]
