"""What the model's process runs: a stand-in for the Gemini Live service that does as the client says.

The client's text is an order, a JSON object; what it leaves out is not done:

    count             say how many bytes of sound have come
    chunks            send so many chunks of sound
    every             seconds between two of them; 0: in a burst
    interrupt_after   seconds after the last chunk, when the user interrupts the answer; what they say is
                      "interrupted at" and the time in nanoseconds
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from multiprocessing.connection import Connection as Pipe

from benchmarks.sound import CHUNK, STAMP_BYTES, stamp
from support.gemini import Connection, GeminiLive, UserTurn

_HEAD = (
    '{"serverContent":{"modelTurn":{"role":"model","parts":[{"inlineData":'
    '{"mimeType":"audio/pcm;rate=24000","data":"'
)
_TAIL = base64.b64encode(bytes(CHUNK - STAMP_BYTES)).decode() + '"}}]}}}'


def serve(pipe: Pipe) -> None:
    """Sends over the pipe the environment that leads google-genai here; serves until something comes back."""

    async def serving() -> None:
        async with GeminiLive(_answer) as service:
            pipe.send(service.env)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(serving())


async def _answer(connection: Connection, turn: UserTurn) -> None:
    order = json.loads(turn.text)
    if order.get("count"):
        text = str(len(connection.audio))
        await connection.send({"serverContent": {"outputTranscription": {"text": text}}})
    begin, every = time.monotonic(), order.get("every", 0)
    for number in range(order.get("chunks", 0)):
        if every:
            await asyncio.sleep(begin + number * every - time.monotonic())
        # Not `connection.send`: encoding all of it would take this process longer than the pace allows.
        await connection._ws.send(_HEAD + base64.b64encode(stamp()).decode() + _TAIL)
    if "interrupt_after" in order:
        await asyncio.sleep(order["interrupt_after"])
        await connection.heard(f"interrupted at {time.monotonic_ns()}")
        await connection.interrupted()
    await connection.turn_complete()
