"""Lesson 4: a client that does not read costs a bounded amount, and costs nobody else anything.

Between the agent, which must not wait, and `send`, which may, there is a queue: the Outbox of the socket. It
is bounded, because all clients share the memory of the server. A client that falls too far behind is closed
with 1013 (try again later), and so is its connection to the model.

    uvicorn lessons.l4_bounded_queue:app
    python -m websockets ws://127.0.0.1:8000/ws/ann     (as before: it reads. See the test of this lesson)

What still breaks: a client that is dead looks like one that listens. (uvicorn sends pings of its own, and
finds a network that is gone, but a browser answers them even for a page that hangs.) And a client that has
nothing to say keeps its connection to the model for ever.
In full: adk_relay/wire/outbox.py, adk_relay/wire/websocket.py. There, sound is given up before words.
"""

import asyncio
import json
from contextlib import aclosing, suppress
from typing import Any

from google.adk.agents import LiveRequestQueue, LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai.types import Content, Part

from adk_relay.adk.rehearsal import Rehearsal

QUEUE_BYTES = 1_000_000  # of encoded frames that may wait for one socket

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
        """The next frame; waits until there is one."""
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
        # A group ends when all of its tasks have ended, so that none is left behind.
        async with asyncio.TaskGroup() as group:
            group.create_task(speak(scope["path"].rpartition("/")[2], queue, outbox))
            group.create_task(read(receive, queue))
            group.create_task(write(send, outbox))
    except* Close as closes:
        code, reason = closes.exceptions[0].args
        with suppress(OSError):  # the client has left, or still does not read
            async with asyncio.timeout(1):
                await send({"type": "websocket.close", "code": code, "reason": reason})


async def read(receive: Any, queue: LiveRequestQueue) -> None:
    """Gives the agent what the client writes, until the socket is closed."""
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            raise Close(1000, "")
        frame = json.loads(event["text"])
        if "data" in frame:
            queue.send_content(Content(role="user", parts=[Part(text=frame["data"])]))


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
