"""Lesson 3: a live agent, the way every sample of the Agent Development Kit (ADK) serves one.

`Runner.run_live` is one connection to a model. What the user says goes into a LiveRequestQueue; what the
agent says comes out as events, whenever it wants. So a socket needs two loops that run side by side.
The files of lesson 1 and the lifespan of lesson 2 are left out from here on.

    uvicorn lessons.l3_adk_live:app
    python -m websockets ws://127.0.0.1:8000/ws/ann     (type {"mime_type": "text/plain", "data": "Hello"})

What still breaks: when a client stops reading, `send` waits for ever. Nobody takes what the agent says,
and the connection to the model, which costs money, stays open. And a frame that is not JSON ends its socket
with a traceback in the log.
In full: adk_relay/adk/run.py, adk_relay/adk/queue.py, adk_relay/wire/dialects/live.py.
"""

import asyncio
import json
from contextlib import aclosing, suppress
from typing import Any

from google.adk.agents import LiveRequestQueue, LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai.types import Content, Part

from adk_relay.adk.rehearsal import Rehearsal

# The rehearsal needs no key and no network. model="gemini-…" would be a real one.
runner = InMemoryRunner(LlmAgent(name="agent", model=Rehearsal()), app_name="lessons")
runner.auto_create_session = True


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serves one socket, /ws/{user_id}: reads here, and speaks in a task beside it."""
    if scope["type"] != "websocket":
        return
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    queue = LiveRequestQueue()
    # A group ends when all of its tasks have ended, so that none is left behind.
    async with asyncio.TaskGroup() as group:
        speaking = group.create_task(speak(scope["path"].rpartition("/")[2], queue, send))
        await read(receive, queue)
        speaking.cancel()


async def read(receive: Any, queue: LiveRequestQueue) -> None:
    """Gives the agent what the client writes, until the socket is closed."""
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        frame = json.loads(event["text"])
        if "data" in frame:
            queue.send_content(Content(role="user", parts=[Part(text=frame["data"])]))


async def speak(user_id: str, queue: LiveRequestQueue, send: Any) -> None:
    """Passes on what the agent says."""
    events = runner.run_live(user_id=user_id, session_id=user_id, live_request_queue=queue)
    async with aclosing(events):  # to leave the loop does not close the generator
        async for event in events:
            words = event.output_transcription
            if words and event.partial:  # at the end, all of them come once more
                await write(send, {"mime_type": "text/plain", "data": words.text})
            if event.turn_complete or event.interrupted:
                await write(send, {"turn_complete": event.turn_complete, "interrupted": event.interrupted})


async def write(send: Any, message: dict[str, Any]) -> None:
    with suppress(OSError):  # the client has left, and read() will be told
        await send({"type": "websocket.send", "text": json.dumps(message)})
