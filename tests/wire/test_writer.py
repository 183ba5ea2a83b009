"""The way from a room to the server's `send`: at once, or over the outbox and the socket's task."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from adk_relay.core.messages import Audio, Text
from adk_relay.core.room import Room
from adk_relay.wire.asgi import Event, Receive, Scope, Send
from relay import Relay
from support.client import words
from support.gemini import GeminiLive
from support.raw import Peer
from support.server import a_relay, serving

pytestmark = pytest.mark.usefixtures("small_send_buffer", "no_errors")

MS = 48  # bytes of sound in a millisecond


class Wrapped:
    """A relay behind a middleware that replaces `send`, or `receive`."""

    def __init__(
        self,
        relay: Relay,
        send: Callable[[Send, Event], Awaitable[None]] | None = None,
        receive: Callable[[Receive], Awaitable[Event]] | None = None,
    ) -> None:
        self._relay = relay
        self._sending = send
        self._receiving = receive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sends(event: Event) -> None:
            assert self._sending
            await self._sending(send, event)

        async def receives() -> Event:
            assert self._receiving
            return await self._receiving(receive)

        await self._relay(scope, receives if self._receiving else receive, sends if self._sending else send)


async def room_of(relay: Relay) -> Room:
    room: Room = (await relay.conversations.open("alice")).room
    return room


def say(room: Room, text: str) -> None:
    room.publish(Text(room.number(), text))


async def pause() -> None:
    """Until a frame is no part of a burst any more."""
    await asyncio.sleep(0.005)


def is_number(seq: int, frame: dict[str, Any]) -> bool:
    return bool(frame.get("seq") == seq)


def queued(relay: Relay) -> int:
    """Bytes that wait to be sent."""
    return sum(waiting for _, waiting in (socket.gauges for socket in relay.sockets))


def is_there_now(peer: Peer, text: str) -> bool:
    """Whether the peer's kernel has got `text`; the event loop had no turn in which to send it."""
    return text.encode() in peer.sock.recv(100_000)


def closings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The close codes and reasons of all sockets, as the log has them."""
    lines = [record.getMessage() for record in caplog.get_records("call")]
    return [line.rpartition("closed ")[2] for line in lines if ", closed " in line]


async def passes_on(send: Send, event: Event) -> None:
    async with asyncio.timeout(5):  # raises RuntimeError outside of a task
        await send(event)


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto"])
async def test_a_frame_is_sent_in_the_turn_that_makes_it(gemini: GeminiLive, implementation: str) -> None:
    relay = a_relay()
    async with serving(relay, ws=implementation) as port, Peer.upgraded(port) as peer:
        room = await room_of(relay)
        for text in ("one", "two", "three"):
            await pause()
            say(room, text)
            assert is_there_now(peer, text)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs eager tasks")
async def test_a_frame_is_sent_at_once_through_a_middleware(gemini: GeminiLive) -> None:
    relay = a_relay()
    async with serving(Wrapped(relay, passes_on)) as port, Peer.upgraded(port) as peer:
        room = await room_of(relay)
        await pause()
        say(room, "one")
        assert is_there_now(peer, "one")


@pytest.mark.parametrize("is_wrapped", [False, True])
async def test_what_comes_in_one_turn_is_sent_in_two_frames(gemini: GeminiLive, is_wrapped: bool) -> None:
    """The first is sent at once where that is possible, the others are merged."""
    relay = a_relay()
    app = Wrapped(relay, passes_on) if is_wrapped else relay
    async with serving(app) as port, Peer.upgraded(port) as peer:
        room = await room_of(relay)
        await pause()
        for number in range(100):
            say(room, f" {number}")
        frames = await peer.until(lambda frame: frame.get("seq") == 100)
    assert words(frames) == "".join(f" {number}" for number in range(100))
    assert len(frames) < 10


@pytest.mark.parametrize("implementation", ["websockets-sansio", "wsproto", "middleware"])
async def test_the_order_stays_when_a_peer_stops_reading_and_reads_again(
    gemini: GeminiLive, implementation: str
) -> None:
    relay = a_relay(slow_timeout=60, ping_interval=600)
    app: Any = Wrapped(relay, passes_on) if implementation == "middleware" else relay
    options = {} if implementation == "middleware" else {"ws": implementation}
    async with serving(app, **options) as port, Peer.upgraded(port) as peer:
        room = await room_of(relay)
        expected = ""
        for _ in range(3):
            while not queued(relay):
                await pause()
                expected += (text := f" {room.seq}." + "x" * 5_000)
                say(room, text)
            for _ in range(50):
                await pause()
                expected += (text := f" {room.seq}!")
                say(room, text)
            last = room.seq
            frames = await peer.until(partial(is_number, last))
            numbers = [frame["seq"] for frame in frames]
            assert numbers == sorted(set(numbers))
            assert words(frames) == expected
            expected = ""
            for _ in range(5):  # until the writer has seen that the peer reads again
                await pause()
            say(room, "again")
            if implementation in ("websockets-sansio", "wsproto"):
                assert is_there_now(peer, "again")
            else:
                assert words([await peer.next()]) == "again"


async def test_a_peer_that_stops_reading_is_closed_after_the_timeout(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay")
    relay = a_relay(slow_timeout=0.5, grace=60)
    tasks: set[asyncio.Task[Any]] = set()
    async with serving(relay) as port:
        tasks = asyncio.all_tasks()
        async with Peer.upgraded(port, audio=True):
            room = await room_of(relay)
            (socket,) = relay.sockets
            async with asyncio.timeout(30):
                while not closings(caplog):
                    room.publish(Audio(room.number(), bytes(100 * MS)))
                    await pause()
            assert closings(caplog) == ["1013 too slow"]
            assert not room.listeners
            assert socket.gauges == (None, 0)
        async with asyncio.timeout(30):  # the rest of its `send` is given up, too
            while [task for task in asyncio.all_tasks() - tasks if "Protocol.send" in repr(task.get_coro())]:
                await asyncio.sleep(0.01)


async def test_a_slow_peer_loses_the_oldest_sound_that_waits(gemini: GeminiLive) -> None:
    relay = a_relay(queue_bytes=100_000, slow_timeout=60)
    async with serving(relay) as port, Peer.upgraded(port, audio=True) as peer:
        room = await room_of(relay)
        sent = []
        for number in range(100):
            await pause()
            sent.append(number.to_bytes(2, "big") * 24 * 100)  # 100 ms
            room.publish(Audio(room.number(), sent[-1]))
        say(room, "the end")
        frames = await peer.until(lambda frame: frame.get("data") == "the end")
    came = b"".join(frame["pcm"] for frame in frames if frame.get("type") == "binary")
    lost = sum(frame["audio_ms"] for frame in frames if frame.get("type") == "dropped")
    assert lost > 1_000
    assert len(came) + lost * MS == 100 * 100 * MS
    assert came.startswith(sent[0])  # it was sent at once
    assert came.endswith(b"".join(sent[-10:]))
    numbers = [frame["seq"] for frame in frames if "seq" in frame]
    assert numbers == sorted(set(numbers))


async def test_a_send_that_raises_ends_the_socket_once(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    """`send` may find that a peer is gone before the disconnect event is read."""
    caplog.set_level(logging.INFO, "relay")
    lost = asyncio.Event()

    async def never_lost(receive: Receive) -> Event:
        if (event := await receive())["type"] == "websocket.disconnect":
            lost.set()
            await asyncio.Event().wait()
        return event

    relay = a_relay(grace=60, ping_interval=3600)  # a ping would be another `send`
    async with serving(Wrapped(relay, receive=never_lost)) as port, Peer.upgraded(port) as peer:
        room = await room_of(relay)
        await pause()
        peer.vanish()
        await lost.wait()
        say(room, "one")
        async with asyncio.timeout(30):
            while not closings(caplog):
                await asyncio.sleep(0.01)
        assert closings(caplog) == ["1006"]
        assert not room.listeners


async def test_a_send_that_fails_with_another_error_is_logged(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(send: Send, event: Event) -> None:
        if "one" in event.get("text", ""):
            raise ValueError("the middleware has a bug")
        await send(event)

    relay = a_relay(grace=60)
    async with serving(Wrapped(relay, fails)) as port, Peer.upgraded(port) as peer:
        room = await room_of(relay)
        await pause()
        say(room, "one")
        frames = await peer.rest()
        assert frames[-1] == {"type": "close", "code": 1011, "reason": "an internal error"}
        assert "the middleware has a bug" in caplog.text
        caplog.clear()
