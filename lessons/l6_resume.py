"""Lesson 6: a dropped socket loses nothing.

A conversation belongs to a user now, not to a socket. Its messages have numbers (`seq`), and a journal keeps
the last ones: each socket reads on from its own place in it. A client that comes back within a grace says
what it has got last, and is sent what followed. (The heartbeat of lesson 5 is left out, to keep this short.)

    uvicorn lessons.l6_resume:app
    python -m websockets "ws://127.0.0.1:8000/ws/ann?after=EPOCH.N"     (the hello names the EPOCH)

What still breaks: a text that is on its way when the socket drops is lost; so is what the journal no longer
holds, and all of it when the server stops; and the connection to the model may drop, too.
In full: adk_relay/core/room.py, adk_relay/core/journal.py, adk_relay/adk/conversation.py.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress
from typing import Any
from urllib.parse import parse_qs

from google.adk.agents import LiveRequestQueue, LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai import types

from adk_relay.adk.rehearsal import Rehearsal

JOURNAL = 1000  # messages that a conversation keeps
GRACE = 30.0  # seconds that it goes on after its last socket has left

runner = InMemoryRunner(LlmAgent(name="agent", model=Rehearsal()), app_name="lessons")
runner.auto_create_session = True


class Close(Exception):
    """The socket is to be closed, with this code and reason."""


class Conversation:
    """What one user and the agent say, whichever sockets attend."""

    def __init__(self, user_id: str) -> None:
        self.epoch = secrets.token_urlsafe(6)  # in another epoch, the numbers begin with 1 again
        self.seq = 0
        self.journal: deque[str] = deque(maxlen=JOURNAL)
        self.news = asyncio.Event()
        self.queue = LiveRequestQueue()
        self.speaking = asyncio.create_task(speak(user_id, self.queue, self.enqueue))
        self.sockets = 0
        self.grace = asyncio.get_running_loop().call_later(GRACE, end, user_id)
        conversations[user_id] = self

    def enqueue(self, message: dict[str, Any]) -> None:
        self.seq += 1
        self.journal.append(json.dumps({**message, "seq": self.seq}))
        self.news.set()

    async def dequeue(self, seq: int) -> str:
        """The next frame; waits until there is one."""
        while seq >= self.seq:
            self.news.clear()
            await self.news.wait()
        if self.seq - seq > len(self.journal):  # it is no longer kept
            raise Close(1013, "too slow")
        return self.journal[seq - self.seq]


conversations: dict[str, Conversation] = {}  # by user


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await websocket(scope, receive, send)
    elif scope["type"] == "lifespan":
        await receive()  # lifespan.startup
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        for user_id in [*conversations]:
            await asyncio.wait({end(user_id)})
        await runner.close()
        await send({"type": "lifespan.shutdown.complete"})


async def websocket(scope: Any, receive: Any, send: Any) -> None:
    """Serves one socket, /ws/{user_id}, until one of its tasks raises Close."""
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    user_id = scope["path"].rpartition("/")[2]
    after = parse_qs(scope["query_string"].decode()).get("after", [""])[0]
    conversation = conversations.get(user_id) or Conversation(user_id)
    conversation.sockets += 1
    conversation.grace.cancel()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read(receive, conversation.queue))
            group.create_task(write(send, conversation, after))
    except* Close as closes:
        code, reason = closes.exceptions[0].args
        with suppress(OSError):  # the client has left, or still does not read
            async with asyncio.timeout(1):
                await send({"type": "websocket.close", "code": code, "reason": reason})
    finally:
        conversation.sockets -= 1
        if not conversation.sockets:
            conversation.grace = asyncio.get_running_loop().call_later(GRACE, end, user_id)


def end(user_id: str) -> "asyncio.Task[None]":
    conversation = conversations.pop(user_id)
    conversation.grace.cancel()
    conversation.speaking.cancel()
    return conversation.speaking


async def read(receive: Any, queue: LiveRequestQueue) -> None:
    """Gives the agent what the client writes, until the socket is closed."""
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            raise Close(1000, "")
        frame = json.loads(event["text"])
        if "data" in frame:
            queue.send_content(types.Content(role="user", parts=[types.Part(text=frame["data"])]))


async def speak(user_id: str, queue: LiveRequestQueue, enqueue: Callable[[dict[str, Any]], None]) -> None:
    """Passes on what the agent says."""
    events = runner.run_live(user_id=user_id, session_id=user_id, live_request_queue=queue)
    async with aclosing(events):  # to leave the loop does not close the generator
        async for event in events:
            words = event.output_transcription
            if words and event.partial:  # at the end, all of them come once more
                enqueue({"mime_type": "text/plain", "data": words.text})
            if event.turn_complete or event.interrupted:
                enqueue({"turn_complete": event.turn_complete, "interrupted": event.interrupted})


async def write(send: Any, conversation: Conversation, after: str) -> None:
    """Sends what follows message `after`, if it is of this epoch, and then what comes."""
    epoch, _, number = after.rpartition(".")
    seq = int(number) if epoch == conversation.epoch else conversation.seq
    hello = json.dumps({"type": "hello", "epoch": conversation.epoch, "seq": conversation.seq})
    with suppress(OSError):  # the client has left, of which read() is told
        await send({"type": "websocket.send", "text": hello})
        while True:
            await send({"type": "websocket.send", "text": await conversation.dequeue(seq)})
            seq += 1
