"""The applications that are compared: relay, and the least that one can do instead."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.agents.live_request_queue import LiveRequestQueue
from google.adk.runners import InMemoryRunner
from google.genai import types

from adk_relay.adk.models import run_config
from adk_relay.wire.asgi import Receive, Scope, Send
from benchmarks.sound import CHUNK
from relay import Relay

Order = dict[str, Any]  # see model.py

APP_NAME = "bench"
TURN_COMPLETE = {"type": "websocket.send", "text": '{"turn_complete":true}'}


def _agent() -> LlmAgent:
    return LlmAgent(name="bench", model="gemini-3.8-live")


class Apps:
    """All of them in one ASGI application; the first part of the path chooses one.

    /floor/USER, /direct/USER, /bare/USER   see bench.py
    /loop/USER    what one client asks for, all get: a loop over their `send`
    /sent         GET: when how much sound was handed to `send`, for users whose names begin with "logged";
                  a list of [nanoseconds, bytes] from the last such request on
    else          relay
    """

    def __init__(self, **settings: Any) -> None:
        self._relay = Relay(_agent(), **settings)
        self._runner = InMemoryRunner(_agent(), app_name=APP_NAME)
        self._sent: list[tuple[int, int]] = []
        self._loop: list[Send] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._relay(scope, receive, send)
            return
        kind, _, user = scope["path"][1:].partition("/")
        if user.startswith("logged"):
            send = self._logging(send)
        match kind:
            case "sent":
                body = json.dumps(self._sent).encode()
                self._sent.clear()
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": body})
            case "bare":
                await _accept(receive, send)
                await _bare(receive, send)
            case "loop":
                await _accept(receive, send)
                await self._looping(receive, send)
            case "floor" | "direct":
                await _accept(receive, send)
                await self._run_live(receive, send, user, passes_on=kind == "direct")
            case _:
                await self._relay(scope, receive, send)

    def _logging(self, send: Send) -> Send:
        async def logging(event: Any) -> None:
            if event.get("bytes"):
                self._sent.append((time.monotonic_ns(), len(event["bytes"]) - 4))
            await send(event)

        return logging

    async def _looping(self, receive: Receive, send: Send) -> None:
        self._loop.append(send)
        async for order in _orders(receive):
            begin = time.monotonic()
            for number in range(order["chunks"]):
                await asyncio.sleep(begin + number * order["every"] - time.monotonic())
                # Encoded once for all.
                frame = {"type": "websocket.send", "bytes": number.to_bytes(4, "big") + bytes(CHUNK)}
                for send_to_client in self._loop:
                    await send_to_client(frame)
            for send_to_client in self._loop:
                await send_to_client(TURN_COMPLETE)
        self._loop.remove(send)

    async def _run_live(self, receive: Receive, send: Send, user: str, *, passes_on: bool) -> None:
        """With `passes_on` it is "direct", else "floor"."""
        key: dict[str, Any] = {"user_id": user, "session_id": user}
        await self._runner.session_service.create_session(app_name=APP_NAME, **key)
        queue = LiveRequestQueue()
        reading = asyncio.create_task(_read_into(queue, receive))
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
                if event.input_transcription and event.input_transcription.finished:
                    transcript = {"type": "transcript", "text": event.input_transcription.text}
                    await send({"type": "websocket.send", "text": json.dumps(transcript)})
                if event.turn_complete:
                    await send(TURN_COMPLETE)
        except OSError:
            pass  # the client has gone during an answer
        finally:
            queue.close()
            await reading
            await self._runner.session_service.delete_session(app_name=APP_NAME, **key)


async def _accept(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def _bare(receive: Receive, send: Send) -> None:
    chunk = bytes(CHUNK)
    async for order in _orders(receive):
        begin, every = time.monotonic(), order.get("every", 0)
        for number in range(order["chunks"]):
            if every:
                await asyncio.sleep(begin + number * every - time.monotonic())
            if order.get("base64"):
                data = base64.b64encode(chunk).decode("ascii")
                text = f'{{"mime_type":"audio/pcm","data":"{data}","seq":{number}}}'
                await send({"type": "websocket.send", "text": text})
            else:
                await send({"type": "websocket.send", "bytes": number.to_bytes(4, "big") + chunk})
        await send(TURN_COMPLETE)


async def _orders(receive: Receive) -> AsyncIterator[Order]:
    """The texts that come, until the client goes; its sound is ignored."""
    while (event := await receive())["type"] == "websocket.receive":
        if not event.get("bytes"):
            yield json.loads(json.loads(event["text"])["data"])


async def _read_into(queue: LiveRequestQueue, receive: Receive) -> None:
    while (event := await receive())["type"] == "websocket.receive":
        if pcm := event.get("bytes"):
            queue.send_realtime(types.Blob(data=pcm, mime_type="audio/pcm;rate=16000"))
        else:
            part = types.Part(text=json.loads(event["text"])["data"])
            queue.send_content(types.Content(role="user", parts=[part]))
    queue.close()
