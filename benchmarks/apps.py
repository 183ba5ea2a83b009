"""The applications that are compared: relay, and the least that one can do instead."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from google.adk.agents import LlmAgent
from google.adk.agents.live_request_queue import LiveRequestQueue
from google.adk.runners import InMemoryRunner
from google.genai import types

from benchmarks.sample import sample
from benchmarks.sound import CHUNK, MIC_BYTES_PER_MS
from relay import Relay

if TYPE_CHECKING:  # the build `today` has no such module
    from adk_relay.wire.asgi import Receive, Scope, Send

Order = dict[str, Any]  # see model.py

APP_NAME = "bench"
TURN_COMPLETE = {"type": "websocket.send", "text": '{"turn_complete":true}'}


class Apps:
    """All of them in one ASGI application; the first part of the path chooses one.

    /floor/USER, /direct/USER, /sample/USER   see bench.py. An order that says "feed" is not for the model: so
                  many frames of speech are fed to `run_live` as if they had come from a client
    /loop/USER    what one client asks for, all clients of this user get: a loop over their `send`
    /sent         GET: when how much sound was handed to `send`, for users whose names begin with "logged";
                  a list of [nanoseconds, bytes] from the last such request on
    /stretch      GET: the longest stretch of work of the event loop since the last such request, in seconds
    else          relay
    """

    def __init__(self, **settings: Any) -> None:
        self._relay = Relay(_agent(), **settings)
        self._runner = InMemoryRunner(_agent(), app_name=APP_NAME)
        self._sample = sample(_agent())
        self._sent: list[tuple[int, int]] = []
        self._loops: dict[str, list[Send]] = defaultdict(list)  # by user
        self._stretch = Stretch()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._relay(scope, receive, send)
            return
        kind, _, user = scope["path"][1:].partition("/")
        if user.startswith("logged"):
            send = self._logging(send)
        match kind:
            case "sent":
                await _respond(send, self._sent)
                self._sent.clear()
            case "stretch":
                await _respond(send, self._stretch.take())
            case "loop":
                await _accept(receive, send)
                await _looping(receive, send, self._loops[user])
            case "floor" | "direct":
                await _accept(receive, send)
                await self._run_live(receive, send, user, passes_on=kind == "direct")
            case "sample":
                await self._sample(scope, receive, send)
            case _:
                await self._relay(scope, receive, send)

    def _logging(self, send: Send) -> Send:
        async def logging(event: Any) -> None:
            if event.get("bytes"):
                self._sent.append((time.monotonic_ns(), len(event["bytes"]) - 4))
            await send(event)

        return logging

    async def _run_live(self, receive: Receive, send: Send, user: str, *, passes_on: bool) -> None:
        """With `passes_on` it is "direct", else "floor"."""
        from adk_relay.adk.models import run_config

        key: dict[str, Any] = {"user_id": user, "session_id": user}
        await self._runner.session_service.create_session(app_name=APP_NAME, **key)
        queue = LiveRequestQueue()
        reading = asyncio.create_task(_read_into(queue, receive, send))
        seq = 0
        try:
            events = self._runner.run_live(live_request_queue=queue, run_config=run_config(), **key)
            async for event in events:
                if passes_on and event.content:
                    for part in event.content.parts or ():
                        if part.inline_data and part.inline_data.data:
                            seq += 1
                            frame = seq.to_bytes(4, "big") + part.inline_data.data
                            await send({"type": "websocket.send", "bytes": frame})
                for transcription in (event.input_transcription, event.output_transcription):
                    if transcription and transcription.finished:
                        transcript = {"type": "transcript", "text": transcription.text}
                        await send({"type": "websocket.send", "text": json.dumps(transcript)})
                if event.turn_complete:
                    await send(TURN_COMPLETE)
        except OSError:
            pass  # the client has gone during an answer
        finally:
            queue.close()
            await reading
            await self._runner.session_service.delete_session(app_name=APP_NAME, **key)


class Stretch:
    """How long the event loop was busy without a pause: so long waits what comes for another conversation."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._watching: asyncio.Task[None] | None = None

    def take(self) -> float:
        """The longest since the last call; the first call begins to watch."""
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        longest, self._longest = self._longest, 0.0
        return longest

    async def _watch(self) -> None:
        pause = 0.001
        wall, cpu = time.monotonic(), time.process_time()
        while True:
            await asyncio.sleep(pause)
            wall, wall_before = time.monotonic(), wall
            cpu, cpu_before = time.process_time(), cpu
            # Not what the process waited for the core because another process had it.
            self._longest = max(self._longest, min(wall - wall_before - pause, cpu - cpu_before))


def _agent() -> LlmAgent:
    return LlmAgent(name="bench", model="gemini-3.8-live")


async def _respond(send: Send, content: object) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


async def _accept(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def _orders(receive: Receive) -> AsyncIterator[Order]:
    """The texts that come, until the client goes; its sound is ignored."""
    while (event := await receive())["type"] == "websocket.receive":
        if not event.get("bytes"):
            yield json.loads(json.loads(event["text"])["data"])


async def _looping(receive: Receive, send: Send, loop: list[Send]) -> None:
    loop.append(send)
    async for order in _orders(receive):
        begin = time.monotonic()
        for number in range(order["chunks"]):
            await asyncio.sleep(begin + number * order.get("every", 0) - time.monotonic())
            # Encoded once for all.
            frame = {"type": "websocket.send", "bytes": number.to_bytes(4, "big") + bytes(CHUNK)}
            for send_to_client in loop:
                await send_to_client(frame)
        for send_to_client in loop:
            await send_to_client(TURN_COMPLETE)
    loop.remove(send)


async def _read_into(queue: LiveRequestQueue, receive: Receive, send: Send) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        if pcm := event.get("bytes"):
            queue.send_realtime(types.Blob(data=pcm, mime_type="audio/pcm;rate=16000"))
        else:
            text = json.loads(event["text"])["data"]
            order = json.loads(text)
            if "feed" in order:
                await _feed(queue, order)
                await send(TURN_COMPLETE)
            else:
                queue.send_content(types.Content(role="user", parts=[types.Part(text=text)]))
    queue.close()


async def _feed(queue: LiveRequestQueue, order: Order) -> None:
    pcm = b"\x20\x00" * (order["ms"] * MIC_BYTES_PER_MS // 2)
    begin = time.monotonic()
    for number in range(order["feed"]):
        await asyncio.sleep(begin + number * order["ms"] / 1000 - time.monotonic())
        queue.send_realtime(types.Blob(data=pcm, mime_type="audio/pcm;rate=16000"))
