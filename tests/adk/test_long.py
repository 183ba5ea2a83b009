"""Long conversations: read in pages, away from the event loop, and only as much of them as is needed."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from pathlib import Path

import pytest

from adk_relay.adk.conversations import Conversations
from adk_relay.core.history import KEPT
from adk_relay.core.visitor import GUEST
from support.api import rehearsal
from support.chat import guest, http
from support.gemini import GeminiLive
from support.long import longest_step, message, write
from support.server import a_relay, serving

STEP = 0.02
"""Seconds of processor time that a step of the event loop may take."""


async def test_many_reads_of_a_long_conversation_disturb_nobody(tmp_path: Path) -> None:
    path = f"{tmp_path}/s.db"
    await write(path, "long", 5000, app_name="tester")
    relay = a_relay(rehearsal(), sessions=f"sqlite:///{path}")
    async with serving(relay) as port, http(port) as web:
        (await web.get("/sessions/long")).raise_for_status()  # what is made once is made now
        with longest_step() as longest:
            for round in ("", "?before=2500"):
                read = await asyncio.gather(*(web.get(f"/sessions/long{round}") for _ in range(20)))
                assert {response.status_code for response in read} == {200}
        assert longest[0] < STEP
        body = read[0].json()
        assert body["message_count"] == 5000
        assert body["user_messages"] == body["model_messages"] == 2500
        assert body["first"] == 2300
        assert [line["text"] for line in body["history"]] == [message(n) for n in range(2300, 2500)]


async def test_a_conversation_of_50000_messages(tmp_path: Path) -> None:
    path = f"{tmp_path}/s.db"
    await write(path, "long", 50_000, app_name="tester")
    await write(path, "short", 10, app_name="tester")
    relay = a_relay(rehearsal(), sessions=f"sqlite:///{path}")
    conversations: Conversations = relay.conversations
    async with serving(relay):
        await conversations.find(GUEST, "short")
        tracemalloc.start()
        try:
            with longest_step() as longest:
                conversation = await conversations.find(GUEST, "long")
                memory = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert longest[0] < STEP * 3  # it is slower when memory is traced
        assert memory < 5_000_000
        assert conversation.room.history.message_count == 50_000
        begun = time.perf_counter()
        await conversations.find(GUEST, "long")
        assert time.perf_counter() - begun < 0.1
        with longest_step() as longest:
            number, seen = 50_001, 0
            for _ in range(5):
                _, lines, first = await conversations.read(GUEST, "long", number)
                assert [line.text for line in lines] == [message(n) for n in range(first, number)]
                number, seen = first, seen + len(lines)
            assert (number, seen) == (50_001 - 5 * KEPT, 5 * KEPT)
            _, lines, first = await conversations.read(GUEST, "long", 3)
            assert ([line.text for line in lines], first) == ([message(1), message(2)], 1)
            _, lines, first = await conversations.read(GUEST, "long", 1)
            assert (lines, first) == ([], 1)
        assert longest[0] < STEP


async def test_what_is_said_in_a_long_conversation_is_counted_and_found(tmp_path: Path) -> None:
    path = f"{tmp_path}/s.db"
    await write(path, "long", 1000, app_name="tester")
    relay = a_relay(rehearsal(), grace=60, sessions=f"sqlite:///{path}")
    async with serving(relay) as port, http(port) as web:
        for number in range(3):
            body = {"session_id": "long", "message": f"Number {number}."}
            (await web.post("/api/v1/chat", json=body)).raise_for_status()
        body = (await web.get("/sessions/long")).json()
        assert (body["message_count"], body["first"], len(body["history"])) == (1006, 807, KEPT)
        assert body["user_messages"] == 503
        assert [line["text"] for line in body["history"] if line["role"] == "user"][-3:] == [
            f"Number {number}." for number in range(3)
        ]
        body = (await web.get("/sessions/long?before=1005")).json()
        assert (body["first"], len(body["history"])) == (807, 198)
        body = (await web.get("/sessions/long?before=807")).json()
        assert body["first"] == 607
        assert [line["text"] for line in body["history"]] == [message(n) for n in range(607, 807)]
    async with serving(a_relay(rehearsal(), sessions=f"sqlite:///{path}")) as port, http(port) as web:
        body = (await web.get("/sessions/long")).json()
        assert (body["message_count"], body["first"], len(body["history"])) == (1006, 807, KEPT)


@pytest.mark.parametrize("before", ["0", "-1", "x", "", "1e3", "9999999999"])
async def test_a_bad_number_is_refused(before: str) -> None:
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        assert (await web.get(f"/sessions/any?before={before}")).status_code == 400


@pytest.mark.voice
async def test_the_model_is_given_the_end_of_a_long_conversation(gemini: GeminiLive, tmp_path: Path) -> None:
    path = f"{tmp_path}/s.db"
    await write(path, "long", 2001, app_name="tester")
    async with serving(a_relay(sessions=f"sqlite:///{path}")) as port, guest(port, "long") as live:
        await live.say("hello")
        await live.turn()
        (connection,) = gemini.connections
        texts = [turn["parts"][0]["text"] for turn in connection.history]
        assert 200 <= len(texts) <= 300
        assert message(2001) in texts
        assert connection.history[0]["role"] == "user"
