"""Peers that read slowly or not at all: their sockets are closed, and no other client notices."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import time
from collections.abc import Iterator

import pytest

from adk_relay.wire.outbox import Outbox
from relay import Relay
from support.client import client, words
from support.gemini import Connection, GeminiLive, UserTurn
from support.raw import Peer, frame
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("small_send_buffer"), pytest.mark.voice]

MS = 48  # bytes of sound in a millisecond


@pytest.fixture(autouse=True)
def _no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO, "relay")
    yield
    errors = [r for r in caplog.get_records("call") if r.levelno >= logging.ERROR]
    assert [(r.name, r.getMessage(), r.exc_text) for r in errors] == []


async def talks_on(connection: Connection, turn: UserTurn) -> None:
    """Sends more sound than the kernel and the server buffer for a peer that does not read."""
    if turn.text == "go":
        await connection.send_audio(1_000)
        await connection.turn_complete()
    else:
        await connection.say(f"You said: {turn.text}.")


async def taken(relay: Relay, seq: int, timeout: float = 60) -> None:
    """Waits until alice's conversation has emitted message number `seq`."""
    async with asyncio.timeout(timeout):
        while (await relay.conversations.open("alice")).room.seq < seq:
            await asyncio.sleep(0.01)


def closings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The close codes and reasons of all sockets, as the log has them."""
    lines = [record.getMessage() for record in caplog.get_records("call")]
    return [line.rpartition("closed ")[2] for line in lines if ", closed " in line]


def outboxes() -> list[Outbox]:
    """The outbound queues of this process."""
    return [one for one in gc.get_objects() if isinstance(one, Outbox)]


def queued() -> int:
    """Bytes in all of them."""
    return sum(one.bytes for one in outboxes())


async def test_a_peer_that_stops_reading_is_given_up_and_delays_nobody(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    gemini.answer = talks_on
    async with (
        serving(a_relay(slow_timeout=6.0)) as port,  # long enough for the model to send a megabyte
        client(port, "bob") as bob,
        Peer.upgraded(port, audio=True) as stalled,
    ):
        await stalled.send(mime_type="text/plain", data="go")
        slowest = 0.0
        began = time.monotonic()
        peak, queues = 0, outboxes()
        # Nobody else attends its conversation, so the run ends with the socket.
        while not closings(caplog):
            assert time.monotonic() - began < 60
            asked = time.monotonic()
            await bob.send(type="ping")
            assert (await bob.next())["type"] == "pong"
            slowest = max(slowest, time.monotonic() - asked)
            peak = max(peak, sum(one.bytes for one in queues))
        assert closings(caplog) == ["1013 too slow"]
        assert peak > 1_000_000  # it did not read
        assert sum(one.bytes for one in queues) == 0
        assert slowest < 1.5
        await gemini.wait_for(lambda: gemini.open_connections == 0)
        assert await bob.ask("hello") == "You said: hello."


async def test_a_slow_peer_that_reads_again_is_told_why(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.wire.handshake._CLOSE_WAIT", 30.0)  # on a loaded machine it reads late
    gemini.answer = talks_on
    async with serving(a_relay(slow_timeout=0.5)) as port, Peer.upgraded(port, audio=True) as peer:
        await peer.send(mime_type="text/plain", data="go")
        await gemini.connection()
        # The socket leaves its conversation first; then the peer has some time to take the close frame.
        await gemini.wait_for(lambda: gemini.open_connections == 0)
        frames = await peer.rest()
        assert frames[-1] == {"type": "close", "code": 1013, "reason": "too slow"}
        async with client(port) as again:
            await again.say("hello")
            await again.until(lambda said: said.get("data") == " hello.")


async def test_words_alone_that_do_not_fit_end_the_socket(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        for _ in range(50):
            await connection.send_text_parts("word " * 4_000)
        await connection.turn_complete()

    gemini.answer = answer
    relay = a_relay(queue_bytes=100_000, slow_timeout=20)
    async with serving(relay) as port, Peer.upgraded(port) as peer:
        await peer.send(mime_type="text/plain", data="go")
        await taken(relay, 50)
        assert queued() == 0
        frames = await peer.rest()
        assert frames[-1] == {"type": "close", "code": 1013, "reason": "too slow"}
    # What was sent before is whole and in order.
    text = words(frames)
    assert text
    assert ("word " * 4_000 * 50).startswith(text)


async def test_sound_is_given_up_at_the_bound_and_told_while_words_never_are(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("".join(f" {n}" for n in range(500)))

    gemini.answer = answer
    relay = a_relay(queue_bytes=200_000, slow_timeout=30)
    async with serving(relay) as port, Peer.upgraded(port, audio=True) as peer:
        await peer.send(mime_type="text/plain", data="go")
        await taken(relay, 1_502)
        assert 0 < queued() <= 200_000
        frames = await peer.until(lambda said: said.get("turn_complete"))
    connection = gemini.connections[0]
    assert words(frames) == connection.said
    numbers = [said["seq"] for said in frames if "seq" in said]
    assert numbers == sorted(set(numbers))
    dropped = [said for said in frames if said.get("type") == "dropped"]
    assert dropped
    assert all(said["direction"] == "down" for said in dropped)
    sound = [said["pcm"] for said in frames if said.get("type") == "binary"]
    lost_ms = sum(said["audio_ms"] for said in dropped)
    assert lost_ms > 10_000
    assert sum(map(len, sound)) + lost_ms * MS == len(connection.sound)
    # The oldest sound was dropped: the end of the answer is there.
    assert connection.sound.endswith(sound[-1])


@pytest.mark.parametrize("how", ["the model", "the client"])
async def test_little_stale_sound_follows_an_interruption(gemini: GeminiLive, how: str) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "go":
            await connection.send_audio(250)  # 10 s of sound
            await asyncio.Event().wait()
        else:
            await connection.say("Yes?")

    gemini.answer = answer
    relay = a_relay(slow_timeout=30)
    async with serving(relay) as port, Peer.upgraded(port, audio=True) as peer:
        await peer.send(mime_type="text/plain", data="go")
        await taken(relay, 251)
        if how == "the client":
            await peer.send(type="interrupt")
        await peer.send(mime_type="text/plain", data="stop")
        await taken(relay, 253)  # two texts, the sound, and the interruption
        frames = await peer.until(lambda said: said.get("turn_complete"))
    sent = gemini.connections[0].sound
    cut = next(n for n, said in enumerate(frames) if said.get("interrupted"))
    stale = sum(len(said.get("pcm", b"")) for said in frames[:cut])
    # What the transport buffers (64 KiB and a frame), and what the kernel buffers.
    assert 0 < stale < 64 * 1024 + 24_000 + 64 * 1024
    assert sum(bool(said.get("interrupted")) for said in frames) == 1
    assert not any(said.get("type") == "dropped" for said in frames)  # recalled sound is not dropped sound
    fresh = b"".join(said["pcm"] for said in frames[cut:] if said.get("type") == "binary")
    assert fresh == sent[250 * 1920 :]
    assert words(frames[cut:]) == "Yes?"
    numbers = [said["seq"] for said in frames]
    assert numbers == sorted(set(numbers))


async def test_a_slow_reader_gets_fewer_and_larger_frames(gemini: GeminiLive) -> None:
    gemini.answer = talks_on
    relay = a_relay(slow_timeout=30)
    async with serving(relay) as port, Peer.upgraded(port, audio=True, subprotocol=False) as peer:
        await peer.send(mime_type="text/plain", data="go")
        await taken(relay, 1_002)
        frames = await peer.until(lambda said: said.get("turn_complete"))
    sound = [base64.b64decode(said["data"]) for said in frames[:-1]]
    assert b"".join(sound) == gemini.connections[0].sound
    assert 400 * MS < max(map(len, sound)) <= 500 * MS
    assert len(sound) < 300  # of 1000 that the model sent


async def test_half_a_frame_and_then_nothing(gemini: GeminiLive, caplog: pytest.LogCaptureFixture) -> None:
    async with (
        serving(a_relay(ping_interval=0.1, pong_timeout=0.3)) as port,
        client(port, "bob", subprotocol=False) as bob,  # who does not have to know pings
        Peer.upgraded(port, audio=True) as peer,
    ):
        await peer.send(type="pong")
        await peer.send_raw(frame(b'{"type": "audio_end"}' * 10)[:50])
        frames = await peer.rest()
        assert frames[-1] == {"type": "close", "code": 4410, "reason": "no pong"}
        await gemini.wait_for(lambda: gemini.open_connections == 0)
        assert await bob.ask("hello") == "You said: hello."
        assert closings(caplog) == ["4410 no pong"]


@pytest.mark.parametrize("how", ["reset", "end of file", "half a frame"])
async def test_a_peer_that_vanishes_frees_its_seat(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    gemini.answer = talks_on
    async with serving(a_relay()) as port, Peer.upgraded(port, audio=True) as peer:
        await peer.send(mime_type="text/plain", data="go")
        assert (await peer.next())["type"] == "binary"
        if how == "half a frame":
            await peer.send_raw(frame(b"x" * 100_000)[:50_000])
        if how == "end of file":
            peer.sock.close()
        else:
            peer.vanish()
        await gemini.wait_for(lambda: gemini.open_connections == 0)
        assert len(closings(caplog)) == 1
        assert queued() == 0


async def test_pings_by_the_thousand_from_a_peer_that_does_not_read(gemini: GeminiLive) -> None:
    gemini.answer = talks_on
    relay = a_relay(slow_timeout=30)
    async with (
        serving(relay) as port,
        client(port, "bob") as bob,
        Peer.upgraded(port, audio=True) as peer,
    ):
        await peer.send(mime_type="text/plain", data="go")
        await taken(relay, 1_002)
        before = queued()
        assert before > 1_000_000
        await peer.send_raw(frame(b'{"type":"ping"}') * 10_000)
        await peer.send(mime_type="text/plain", data="the end")
        await gemini.wait_for(lambda: "the end" in gemini.connections[0].texts)
        assert queued() < before + 1_000
        assert await bob.ask("hello") == "You said: hello."
        frames = await peer.until(lambda said: said.get("turn_complete"))
        assert {"type": "pong"} in frames[:100]
