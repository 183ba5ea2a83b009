"""Lesson 5: a client that is dead, or has nothing to say, is found out.

A dead client is silent, and so is one that listens. So the server asks: a client that was silent for a while
is sent a ping, which the page itself has to answer. One that answers and says nothing for long is closed.

    uvicorn lessons.l5_heartbeat:app
    python -m websockets ws://127.0.0.1:8000/ws/ann     (wait for a ping; answer {"type": "pong"}, or do not)

What still breaks: the conversation ends with its socket. A client that comes back after two seconds in a
tunnel has lost the rest of the answer. In full: adk_relay/wire/heartbeat.py, adk_relay/wire/closing.py.
"""

import asyncio
import json
import time
from contextlib import aclosing, suppress
from typing import Any

from google.adk.agents import LiveRequestQueue, LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai.types import Content, Part

from adk_relay.adk.rehearsal import Rehearsal

QUEUE_BYTES = 1_000_000  # of encoded frames that may wait for one socket
PING_INTERVAL = 25.0  # seconds of silence after which a client is pinged
PONG_TIMEOUT = 10.0  # seconds that it has to answer
IDLE_TIMEOUT = 600.0  # seconds without a text after which a client is closed

runner = InMemoryRunner(LlmAgent(name="agent", model=Rehearsal()), app_name="lessons")
runner.auto_create_session = True


class Close(Exception):
    """The socket is to be closed, with this code and reason."""


class Outbox(asyncio.Queue[str]):
    """The frames that wait for one socket: a queue that is bounded in bytes."""

    bytes = 0

    def enqueue(self, message: dict[str, Any]) -> None:
        """Takes a message. Never waits."""
        frame = json.dumps(message)
        self.bytes += len(frame)
        if self.bytes > QUEUE_BYTES:
            raise Close(1013, "too slow")
        self.put_nowait(frame)

    async def dequeue(self) -> str:
        frame = await self.get()
        self.bytes -= len(frame)
        return frame


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serves one socket, /ws/{user_id}, until one of its tasks raises Close."""
    if scope["type"] != "websocket":
        return
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    queue, outbox = LiveRequestQueue(), Outbox()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(speak(scope["path"].rpartition("/")[2], queue, outbox))
            group.create_task(read(lambda: receive_or_ping(receive, send), queue))
            group.create_task(write(send, outbox))
    except* Close as closes:
        code, reason = closes.exceptions[0].args
        with suppress(OSError):  # the client has left, or still does not read
            async with asyncio.timeout(1):
                await send({"type": "websocket.close", "code": code, "reason": reason})


async def read(receive: Any, queue: LiveRequestQueue) -> None:
    """Gives the agent what the client writes, until the socket is closed."""
    last_text = time.monotonic()
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            raise Close(1000, "")
        frame = json.loads(event["text"])
        if "data" in frame:
            queue.send_content(Content(role="user", parts=[Part(text=frame["data"])]))
            last_text = time.monotonic()
        elif time.monotonic() - last_text >= IDLE_TIMEOUT:
            raise Close(4408, "idle")


async def receive_or_ping(receive: Any, send: Any) -> Any:
    """The next event; a client that sends none for a while is pinged, and has to answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PING_INTERVAL):
            return await receive()
    try:
        async with asyncio.timeout(PONG_TIMEOUT):
            await send({"type": "websocket.send", "text": '{"type": "ping"}'})
            return await receive()
    except TimeoutError:  # it has not answered, or does not even take the ping
        raise Close(4410, "no pong") from None


async def speak(user_id: str, queue: LiveRequestQueue, outbox: Outbox) -> None:
    """Passes on what the agent says."""
    events = runner.run_live(user_id=user_id, session_id=user_id, live_request_queue=queue)
    async with aclosing(events):  # to leave the loop does not close the generator
        async for event in events:
            words = event.output_transcription
            if words and event.partial:  # at the end, all of them come once more
                outbox.enqueue({"mime_type": "text/plain", "data": words.text})
            if event.turn_complete or event.interrupted:
                outbox.enqueue({"turn_complete": event.turn_complete, "interrupted": event.interrupted})


async def write(send: Any, outbox: Outbox) -> None:
    """Sends what waits. Of all tasks, only this one waits for the client."""
    with suppress(OSError):  # the client has left, and read() will be told
        while True:
            await send({"type": "websocket.send", "text": await outbox.dequeue()})
