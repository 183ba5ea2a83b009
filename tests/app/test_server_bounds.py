"""The bounds of `relay serve` on what a connection may send before the application hears of it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from adk_relay import bounded_http, bounded_websocket, bounds
from adk_relay.bounded_websocket import BoundedWebSocket
from adk_relay.server import bounded_protocols
from support.client import client
from support.gemini import GeminiLive
from support.process import SERVE, serving_process, serving_warm
from support.raw import Peer, frame, upgrade
from support.server import a_relay, serving

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


def bounded(most: int = 100) -> dict[str, Any]:
    """Options of a uvicorn server with the bounds."""
    protocols = bounded_protocols(most)
    assert protocols
    http, websocket = protocols
    return {"http": http, "ws": websocket, "ws_max_size": bounds.MAX_FRAME}


def chunked(body: bytes, size: int) -> bytes:
    """A request for an answer, with the body in chunks of `size` bytes."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return (
        b"POST /api/v1/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunks
        + b"0\r\n\r\n"
    )


def fragment(payload: bytes, opcode: int, *, last: bool) -> bytes:
    whole = frame(payload, opcode)
    return whole if last else bytes([whole[0] & 0x7F]) + whole[1:]


async def close_code(peer: Peer) -> int:
    code: int = (await peer.rest())[-1]["code"]
    return code


# ---- HTTP ------------------------------------------------------------------------------------


async def test_requests_that_do_not_wait_for_an_answer_get_one(gemini: GeminiLive, no_errors: None) -> None:
    async with serving(a_relay(), **bounded()) as port, Peer.connected(port) as peer:
        await peer.send_raw(HEALTH * 50)
        assert (await peer.ended()).count(b"HTTP/1.1 200") == 1


async def test_requests_one_after_the_other_share_a_connection(gemini: GeminiLive) -> None:
    async with serving(a_relay(), **bounded()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(3):
            writer.write(HEALTH)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            assert head.startswith(b"HTTP/1.1 200")
            await reader.readuntil(b"}")
        writer.close()


@pytest.mark.parametrize(
    ("sent", "answer"),
    [(b"", b""), (b"GET / HTTP/1.1\r\nHo", b"HTTP/1.1 408"), (HEALTH + b"G", b"HTTP/1.1 200")],
)
async def test_a_head_that_does_not_come_is_not_waited_for(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, sent: bytes, answer: bytes
) -> None:
    monkeypatch.setattr(bounded_http, "HEAD_SECONDS", 0.3)
    async with serving(a_relay(), timeout_keep_alive=60, **bounded()) as port, Peer.connected(port) as peer:
        await peer.send_raw(sent)
        assert (await peer.ended(30)).startswith(answer)


@pytest.mark.parametrize(
    "request_",
    [
        HEALTH[:-2] + b"a: b\r\n" * 2000 + b"\r\n",
        HEALTH[:-2] + b"a: " + b"b" * 20_000 + b"\r\n\r\n",
        upgrade("/ws/alice")[:-2] + b"a: " + b"b" * 10_000 + b"\r\n\r\n",
        b"POST /api/v1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
        + b" " * 9_000_000,
    ],
    ids=["headers", "header", "upgrade", "body"],
)
async def test_a_request_that_is_too_large_is_refused(
    gemini: GeminiLive, no_errors: None, request_: bytes
) -> None:
    async with serving(a_relay(), **bounded()) as port, Peer.connected(port) as peer:
        sending = asyncio.create_task(peer.send_raw(request_))
        answer = await peer.ended()
        assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 431"))
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_body_in_the_smallest_chunks_is_taken(gemini: GeminiLive) -> None:
    body = json.dumps({"session_id": "s", "message": "hello " * 1000}).encode()
    async with serving(a_relay(), **bounded()) as port, Peer.connected(port) as peer:
        await peer.send_raw(chunked(body, 1))
        assert (await peer.head()).startswith(b"HTTP/1.1 200")


async def test_a_long_head_of_an_upgrade_is_taken(gemini: GeminiLive) -> None:
    """In several pieces: the WebSocket reads on."""
    cookie = {"Cookie": "x" * 7000}
    async with serving(a_relay(), **bounded()) as port, client(port, additional_headers=cookie) as alice:
        assert await alice.ask("hello") == "You said: hello."


# ---- WebSockets ------------------------------------------------------------------------------


async def test_the_largest_frame_is_taken_however_it_comes(gemini: GeminiLive) -> None:
    picture = base64.b64encode(bytes(range(256)) * 16 * 1024).decode()
    said = json.dumps({"mime_type": "image/png", "data": picture}).encode()
    half = len(said) // 2
    async with serving(a_relay(), **bounded()) as port, Peer.upgraded(port) as peer:
        await peer.send(mime_type="text/plain", data="hello")
        await peer.until(lambda said: said.get("turn_complete"))
        for sent in (
            frame(said),
            fragment(said[:half], 1, last=False) + frame(b"", 9) + fragment(said[half:], 0, last=True),
        ):
            for start in range(0, len(sent), 1_000_003):
                await peer.send_raw(sent[start : start + 1_000_003])
        await gemini.wait_for(lambda: len(gemini.connections[0].images) == 2)
        assert [base64.b64encode(image).decode() for image in gemini.connections[0].images] == [picture] * 2


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x82\xff" + (bounds.MAX_FRAME + 1).to_bytes(8, "big") + bytes(4), 1009),
        (fragment(bytes(bounds.MAX_FRAME), 2, last=False) + fragment(b"x", 0, last=True), 1009),
        (fragment(b"x", 1, last=False) + fragment(b"", 0, last=False) * 2000, 1008),
        (b"\x81\x02{}", 1002),
        (b"\x89\xfe\xff\xff" + bytes(4), 1002),
        (frame(b"\xff\xfe"), 1007),
    ],
    ids=["frame", "message", "fragments", "no mask", "ping", "no UTF-8"],
)
async def test_what_no_client_sends_closes_the_socket(
    gemini: GeminiLive, no_errors: None, sent: bytes, code: int
) -> None:
    async with serving(a_relay(), **bounded()) as port, Peer.upgraded(port) as peer:
        sending = asyncio.create_task(peer.send_raw(sent))
        assert await close_code(peer) == code
        await asyncio.gather(sending, return_exceptions=True)
    assert BoundedWebSocket._unfinished == 0


async def test_unfinished_messages_are_bounded_together(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_websocket, "UNFINISHED", 3_000_000)
    begun = fragment(bytes(2_000_000), 2, last=False)
    async with serving(a_relay(), **bounded()) as port, Peer.upgraded(port) as first:
        await first.send_raw(begun)
        await first.send_raw(frame(b"", 9))  # its pong says that the fragment was read
        while b"\x8a" not in first._buffer:
            await first._fill()
        async with Peer.upgraded(port, "bob") as second:
            await second.send_raw(begun)
            assert await close_code(second) == 1013


async def test_fast_frames_are_slowed_down_and_none_is_lost(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_websocket, "FRAMES", 50.0)
    monkeypatch.setattr(bounded_websocket, "FRAMES_AT_ONCE", 10)
    async with (
        serving(a_relay(), **bounded()) as port,
        Peer.upgraded(port) as fast,
        client(port, "bob") as bob,
    ):
        began = time.monotonic()
        await fast.send_raw(frame(b'{"type": "typing_start"}') * 109 + frame(b'{"mime_type": "?"}'))
        refused = asyncio.create_task(fast.until(lambda said: said.get("type") == "error"))
        for _ in range(10):  # meanwhile
            await bob.send(type="ping")
            assert await bob.next() == {"type": "pong"}
        assert not refused.done()
        await refused
        assert time.monotonic() - began >= 1.9


async def test_pings_of_a_peer_that_does_not_read_do_not_pile_up(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, small_send_buffer: None
) -> None:
    monkeypatch.setattr(bounded_websocket, "FRAMES", 1e9)
    monkeypatch.setattr(bounded_websocket, "FRAMES_AT_ONCE", 1e9)
    pings = frame(bytes(120), 9) * 20_000
    handled = 0
    handle_ping = BoundedWebSocket.handle_ping

    def counted(self: BoundedWebSocket) -> None:
        nonlocal handled
        handled += 1
        handle_ping(self)

    monkeypatch.setattr(BoundedWebSocket, "handle_ping", counted)
    async with serving(a_relay(), **bounded()) as port, Peer.upgraded(port) as peer:
        await peer.send_raw(pings)
        async with asyncio.timeout(60):
            while handled < 20_000:  # the peer reads none before
                await asyncio.sleep(0.01)
        await peer.send_raw(frame(b"", 8))
        pongs = await peer.ended()
        assert 0 < pongs.count(b"\x8a\x78") < 10_000


# ---- connections -----------------------------------------------------------------------------


async def test_connections_beyond_the_bound_are_told_to_come_later(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(a_relay(), **bounded(most=2)) as port, client(port) as alice:
        async with client(port, "bob"):
            for sent in (HEALTH, upgrade("/ws/carol")):
                async with Peer.connected(port) as peer:
                    await peer.send_raw(sent)
                    answer = await peer.ended()
                    assert answer.startswith(b"HTTP/1.1 503")
                    assert b"retry-after: 1\r\n" in answer
            assert await alice.ask("hello") == "You said: hello."
        while True:
            async with Peer.connected(port) as peer:
                await peer.send_raw(HEALTH)
                if (await peer.head()).startswith(b"HTTP/1.1 200"):
                    break
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "there are 2 connections: no more are taken" in warnings


async def test_conversations_go_on_while_connections_use_up_the_descriptors(
    gemini: GeminiLive, tmp_path: Path
) -> None:
    command: Sequence[str] = ["bash", "-c", 'ulimit -n 128 && exec "$@"', "bash", *SERVE]
    async with serving_process([*command], tmp_path, **gemini.env, RELAY_GRACE="0") as relay:
        async with client(relay.port) as alice:
            silent = [await asyncio.open_connection("127.0.0.1", relay.port) for _ in range(150)]
            assert await alice.ask("hello") == "You said: hello."  # it connects to the model only now
            for _, writer in silent:
                writer.close()
        assert await relay.stop() == 0
        assert {*relay.problems()} == {"WARNING: relay: there are 32 connections: no more are taken"}


# ---- without the bounds ----------------------------------------------------------------------


def test_another_uvicorn_is_used_without_the_bounds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BoundedWebSocket, "leans_on", (*BoundedWebSocket.leans_on, "handle_teapot"))
    assert bounded_protocols(100) is None
    [line] = caplog.messages
    assert line.endswith("not bounded: WebSocketsSansIOProtocol has no handle_teapot")


@pytest.mark.parametrize("is_bare", [True, False])
async def test_plain_uvicorn_says_once_what_it_lacks(tmp_path: Path, is_bare: bool) -> None:
    flags = f"--http h11 --ws-max-size {bounds.MAX_FRAME} --ws-per-message-deflate false"
    flags += " --timeout-graceful-shutdown 3"
    command = [sys.executable, "-m", "uvicorn", "relay:app", "--port", "0"]
    async with serving_warm(command if is_bare else [*command, *flags.split()], tmp_path) as relay:
        await relay.stop()
        [line] = [line for line in relay.log if "relay serve" in line]
        assert line.startswith("INFO:     relay: ")
        assert line.endswith(flags) is is_bare


async def test_relay_serve_does_not_say_so(tmp_path: Path) -> None:
    async with serving_warm(SERVE, tmp_path) as relay:
        await relay.stop()
        assert not any("uvicorn alone" in line for line in relay.log)
