"""relay over HTTP/2. Of the tested servers, only hypercorn has WebSockets there (RFC 8441)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from support.client import client, words
from support.gemini import CHUNK_MS, Connection, GeminiLive, UserTurn, silence, speech, tone
from support.http2 import Http2Peer
from support.process import Process
from support.raw import BINARY, frame
from support.servers import served_by

QUICK = {"RELAY_SLOW_TIMEOUT": "1", "RELAY_PING_INTERVAL": "1", "RELAY_PONG_TIMEOUT": "1", "RELAY_GRACE": "0"}
QUEUE = {"RELAY_QUEUE_BYTES": "100000"}


@pytest.fixture
async def relay(gemini: GeminiLive, tmp_path: Path) -> AsyncIterator[Process]:
    settings = {"RELAY_SESSIONS": "memory://", **QUICK, **QUEUE}
    async with served_by("hypercorn", tmp_path, **settings, **gemini.env) as relay:
        yield relay


async def test_text(relay: Process) -> None:
    async with Http2Peer.opened(relay.port, "/ws/alice") as alice:
        assert alice.response[":status"] == "200"
        assert alice.response["sec-websocket-protocol"] == "relay.v1"
        assert (await alice.next())["type"] == "hello"
        await alice.send(mime_type="text/plain", data="hello")
        assert words(await alice.until(lambda said: said.get("turn_complete"))) == "You said: hello."


async def test_sound_both_ways(relay: Process, gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_audio(10)
        await connection.turn_complete()

    gemini.answer = answer
    async with Http2Peer.opened(relay.port, "/ws/alice?is_audio=true") as alice:
        said = speech(400)
        for start in range(0, len(said), 1280):
            await alice.send_raw(frame(said[start : start + 1280], BINARY))
        await alice.send_raw(frame(silence(600), BINARY))
        frames = await alice.until(lambda said: said.get("turn_complete"))
        sound = b"".join(frame["pcm"] for frame in frames if frame.get("type") == "binary")
        assert sound == b"".join(tone(number) for number in range(10))
    assert said in bytes(gemini.connections[0].audio)


async def test_refusal(relay: Process) -> None:
    why = "the paths are /ws/{user_id}, /ws, /api/v1/chat/stream, /v1/realtime and /twilio"
    async with Http2Peer.opened(relay.port, "/nothing") as refused:
        assert await refused.rest() == [{"type": "close", "code": 4404, "reason": why}]
    async with Http2Peer.opened(relay.port, "/nothing", subprotocol=False) as refused:
        assert refused.response[":status"] == "404"
        assert why.encode() in await refused.ended()


async def test_a_stalled_reader_costs_no_more_than_the_sound_it_could_have_played(
    relay: Process, gemini: GeminiLive
) -> None:
    """hypercorn takes all it is given, so relay gives it no more. The other clients are answered."""
    flooded = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "flood":
            await connection.send_audio(60_000 // CHUNK_MS, delay=0.001)
            flooded.set()
        await connection.say("Yes.")

    gemini.answer = answer
    async with Http2Peer.opened(relay.port, "/ws/mallory?is_audio=true") as mallory:
        assert (await mallory.next())["type"] == "hello"
        await mallory.send(mime_type="text/plain", data="flood")
        await asyncio.wait_for(flooded.wait(), 30)
        async with client(relay.port) as bob:
            assert await bob.ask("hello") == "Yes."
        closed = await relay.says(r" mallory audio .* (\d+) ms of sound dropped, closed 4410 no pong")
    assert int(closed[1]) > 30_000
    await gemini.wait_for(lambda: not gemini.open_connections)


async def test_a_stop_in_mid_answer(relay: Process, gemini: GeminiLive) -> None:
    """hypercorn sends nothing more over HTTP/2, and logs a traceback. The rest ends as it does elsewhere."""

    async def endless(connection: Connection, turn: UserTurn) -> None:
        await connection.say("word " * 10_000, delay=0.01)

    gemini.answer = endless
    async with (
        Http2Peer.opened(relay.port, "/ws/alice") as alice,
        client(relay.port, "bob") as bob,
    ):
        await alice.send(mime_type="text/plain", data="hello")
        await alice.until(lambda said: said.get("mime_type"))
        await bob.say("hello")
        stopping = asyncio.create_task(relay.stop())
        assert (await alice.rest())[-1].get("type") != "close"
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await bob.next()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1001
        assert await stopping == 0
    await gemini.wait_for(lambda: not gemini.open_connections)
    assert [connection.closed for connection in gemini.connections] == [1000, 1000]
    assert sum(" alice text " in line and ", closed " in line for line in relay.log) == 1
