"""Lesson 6: a dropped socket loses nothing.

A conversation belongs to a user now, not to a socket. Its messages have numbers (`seq`), and a journal keeps
the last ones; it takes the place of the Outbox: each socket reads on from its own place in it. A client that
comes back in time says what it has got, and is sent what followed. (Lesson 5's heartbeat is left out.)

    uvicorn lessons.l6_resume:app
    python -m websockets "ws://127.0.0.1:8000/ws/ann?after=EPOCH.N"     (the hello names the EPOCH)

What still breaks: a text is lost that is on its way when the socket drops; so is all when the server stops.
In full: adk_relay/core/room.py, adk_relay/core/journal.py, adk_relay/adk/conversation.py.
"""

import asyncio
import json
import secrets
from collections import deque
from contextlib import aclosing, suppress
from typing import Any

from google.adk.agents import LiveRequestQueue, LlmAgent
from google.adk.runners import InMemoryRunner
from google.genai.types import Content, Part

from adk_relay.adk.rehearsal import Rehearsal

GRACE = 30.0  # seconds that it goes on after its last socket has left

runner = InMemoryRunner(LlmAgent(name="agent", model=Rehearsal()), app_name="lessons")
runner.auto_create_session = True
conversations: dict[str, "Conversation"] = {}


class Conversation:
    """What one user and the agent say, whichever sockets attend."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        conversations[user_id] = self
        self.epoch = secrets.token_urlsafe(6)  # in another epoch, the numbers begin with 1 again
        self.seq = 0
        self.journal: deque[str] = deque(maxlen=1000)  # the last messages
        self.news = asyncio.Event()
        self.queue = LiveRequestQueue()
        self.speaking = asyncio.create_task(speak(user_id, self.queue, self))
        self.grace = asyncio.get_running_loop().call_later(GRACE, self.end)
        self.sockets = 0

    def enqueue(self, message: dict[str, Any]) -> None:
        """Takes a message. Never waits."""
        self.seq += 1
        self.journal.append(json.dumps({**message, "seq": self.seq}))
        self.news.set()

    async def dequeue(self, seq: int) -> tuple[int, str]:
        """The next message after `seq` that is kept, with its number; waits until there is one."""
        while seq >= self.seq:
            self.news.clear()
            await self.news.wait()
        seq = max(seq, self.seq - len(self.journal)) + 1
        return seq, self.journal[seq - self.seq - 1]

    def end(self) -> None:
        conversations.pop(self.user_id).speaking.cancel()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serves one socket, /ws/{user_id}: reads here, and writes in a task beside it."""
    if scope["type"] != "websocket":
        return
    await receive()  # websocket.connect
    await send({"type": "websocket.accept"})
    user_id = scope["path"].rpartition("/")[2]
    conversation = conversations.get(user_id) or Conversation(user_id)
    conversation.sockets += 1
    conversation.grace.cancel()
    try:
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write(send, conversation, scope["query_string"].decode()))
            await read(receive, conversation.queue)
            writing.cancel()
    finally:
        conversation.sockets -= 1
        if not conversation.sockets:
            conversation.grace = asyncio.get_running_loop().call_later(GRACE, conversation.end)


async def read(receive: Any, queue: LiveRequestQueue) -> None:
    """Gives the agent what the client writes, until the socket is closed."""
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        frame = json.loads(event["text"])
        if "data" in frame:
            queue.send_content(Content(role="user", parts=[Part(text=frame["data"])]))


async def speak(user_id: str, queue: LiveRequestQueue, outbox: Conversation) -> None:
    """Passes on what the agent says."""
    events = runner.run_live(user_id=user_id, session_id=user_id, live_request_queue=queue)
    async with aclosing(events):  # to leave the loop does not close the generator
        async for event in events:
            words = event.output_transcription
            if words and event.partial:  # at the end, all of them come once more
                outbox.enqueue({"mime_type": "text/plain", "data": words.text})
            if event.turn_complete or event.interrupted:
                outbox.enqueue({"turn_complete": event.turn_complete, "interrupted": event.interrupted})


async def write(send: Any, conversation: Conversation, query: str) -> None:
    """Sends what came after message `after`, if it is of this epoch, and then what comes."""
    epoch, _, number = query.removeprefix("after=").rpartition(".")
    seq = int(number) if epoch == conversation.epoch else conversation.seq
    frame = json.dumps({"type": "hello", "epoch": conversation.epoch, "seq": conversation.seq})
    with suppress(OSError):  # the client has left, and read() will be told
        while True:
            await send({"type": "websocket.send", "text": frame})
            seq, frame = await conversation.dequeue(seq)
