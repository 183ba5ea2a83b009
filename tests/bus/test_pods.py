"""Conversations whose sockets and whose agent are in different processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from adk_relay.adk.conversation import Conversation
from adk_relay.bus import owned
from support.client import client, words
from support.gemini import GeminiLive
from support.pods import pods
from support.redis_server import RedisServer, until


async def test_a_text_through_a_web_process_and_a_worker(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path
) -> None:
    async with (
        pods(redis, tmp_path, "web", "web", "worker", "worker") as (web, other, one, two),
        client(web.port) as writer,
        client(other.port) as reader,
    ):
        assert [who.hello["connections"] for who in (writer, reader)] == [1, 2]
        for text in ("hello", "again"):
            await writer.say(text)
            told = [await who.turn() for who in (writer, reader)]
            assert [words(frames) for frames in told] == [f"You said: {text}."] * 2
            assert told[0][-1] == told[1][-1]
        assert sorted((one.active, two.active)) == [0, 1]
    assert gemini.connections[0].texts == ["hello", "again"]


async def test_a_conversation_that_ends_while_it_is_opened_is_not_begun_anew(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would own it, and nobody record it."""
    is_over = asyncio.Event()
    async with pods(redis, tmp_path, "web", "worker") as (web, owner), client(web.port) as alice:
        await alice.ask("hello")
        (conversation,) = owner.relay.conversations._open.values()
        monkeypatch.setattr(Conversation, "ready", lambda _: is_over.wait())
        owning = owner.relay.served._owning  # type: ignore[attr-defined]
        opening = asyncio.create_task(owning.open("alice", "live-alice", must_exist=False))
        await asyncio.sleep(0)
        await conversation.aclose()
        is_over.set()
        await asyncio.gather(opening, return_exceptions=True)
        assert owner.active == 0


async def test_who_was_expected_and_does_not_come_keeps_no_conversation_open(
    redis: RedisServer, gemini: GeminiLive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client gives up before the owner's answer has come."""
    monkeypatch.setattr(owned, "_COMES_SECONDS", 0.5)
    async with pods(redis, tmp_path, "web", "worker") as (web, owner):
        async with client(web.port) as alice:
            await alice.ask("hello")
            coming = asyncio.create_task(web.relay.served.open("alice"))
            hub = web.relay.served._hub  # type: ignore[attr-defined]
            while not hub._calls:
                await asyncio.sleep(0)
            coming.cancel()
        await until(lambda: owner.active == 0)
