"""What the model's process runs: a stand-in for the Gemini Live service that does as the client says.

The client's text is an order, a JSON object; what it leaves out is not done:

    count             say how many bytes of sound have come
    sent              say how long this order was on its way, if it was sent at this time
    arrivals          say in the end how long each frame of speech that came meanwhile was on its way, as a
                      list of microseconds: each begins with a time stamp
    chunks            send so many chunks of sound
    every             seconds between two of them; 0: all at once, as a model sends what it has made faster
                      than real time
    interrupt_after   seconds after the last chunk, when the user interrupts the answer; what they say is
                      "interrupted at" and the time in nanoseconds

Speech is answered with sound in real time: ten times as long as what was said after its first 100 ms.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from multiprocessing.connection import Connection as Pipe
from multiprocessing.sharedctypes import Synchronized
from typing import Any, Self

from benchmarks import peers
from benchmarks.sound import (
    CHUNK,
    MIC_FRAME,
    REAL_TIME,
    SHORTEST_MS,
    STAMP_BYTES,
    TIMES,
    stamp,
    stamped_at,
)
from support.gemini import CHUNK_MS, PAUSE_MS, Connection, GeminiLive, UserTurn

_HEAD = b'{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"mimeType":"audio/pcm;rate=24000","data":"'
_TAIL = base64.b64encode(bytes(CHUNK - STAMP_BYTES)) + b'"}}]}}}'


class _Service(GeminiLive):
    """Shows other processes how many setups have come."""

    def __init__(self, setups: Synchronized[int]) -> None:
        super().__init__(_answer)
        self._setups = setups

    def changed(self) -> None:
        super().changed()
        # In the order of the connections, so that a message costs nothing if there are many.
        while self._setups.value < len(self.connections):
            connection = self.connections[self._setups.value]
            if connection.open and not connection.setup:
                break
            self._setups.value += 1


def serve(pipe: Pipe, setups: Synchronized[int]) -> None:
    """Sends over the pipe the environment that leads google-genai here; serves until something comes back."""

    async def serving() -> None:
        async with _Service(setups) as service:
            pipe.send(service.env)
            await asyncio.to_thread(pipe.recv)

    peers.run(serving())


async def _answer(connection: Connection, turn: UserTurn) -> None:
    arrived_at = time.monotonic_ns()
    order = json.loads(turn.text) if turn.text else _order_of(turn.audio, max(connection.rates))
    if order.get("count"):
        text = str(len(connection.audio))
        await connection.send({"serverContent": {"outputTranscription": {"text": text}}})
    if sent := order.get("sent"):
        await connection.send({"serverContent": {"outputTranscription": {"text": str(arrived_at - sent)}}})
    if order.get("arrivals"):
        connection.audio = ear = _Ear()
    chunks, every = order.get("chunks", 0), order.get("every", 0)
    if every:
        begin = time.monotonic()
        for number in range(chunks):
            await asyncio.sleep(begin + number * every - time.monotonic())
            await _write(connection, _chunk())
    elif chunks:
        await _write(connection, _chunk() * chunks)
    if "interrupt_after" in order:
        await asyncio.sleep(order["interrupt_after"])
        await connection.heard(f"interrupted at {time.monotonic_ns()}")
        await connection.interrupted()
    if order.get("arrivals"):
        await connection.send({"serverContent": {"outputTranscription": {"text": json.dumps(ear.delays)}}})
    await connection.turn_complete()


def _order_of(speech: bytes, rate: int) -> dict[str, Any]:
    """What speech means that ends with a pause."""
    ms = len(speech) / 2 / rate * 1000 - PAUSE_MS
    return {"chunks": 1 + round(max(0.0, ms - SHORTEST_MS) * TIMES / CHUNK_MS), "every": REAL_TIME}


class _Ear(bytearray):
    """Notes how long what is added was on its way, and does not keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[int] = []

    def __iadd__(self, frames: Any) -> Self:  # type: ignore[misc]
        now = time.monotonic_ns()
        for start in range(0, len(frames), MIC_FRAME):
            self.delays.append((now - stamped_at(frames[start : start + 8])) // 1000)
        return self


def _chunk() -> bytes:
    """A WebSocket frame with a chunk of sound that is sent now: a binary one, as the service's own.

    It is made here and not by the library, because the model must be faster than all that is measured.
    """
    payload = _HEAD + base64.b64encode(stamp()) + _TAIL
    return b"\x82\x7e" + len(payload).to_bytes(2, "big") + payload  # RFC 6455 section 5.2


async def _write(connection: Connection, frames: bytes) -> None:
    connection._ws.transport.write(frames)
    await connection._ws.drain()
