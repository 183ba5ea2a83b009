"""The queue that ADK reads in one run."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from google.adk.agents.live_request_queue import LiveRequest, LiveRequestQueue
from google.adk.events import Event
from google.genai import types

from adk_relay.adk.sound import blob_of
from adk_relay.adk.speech import Speech
from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import ActivityStart, AudioEnd, ForModel, UserAudio, UserImage, UserText

_SHOWN = 8
"""Images that the next connection gets, if the text after them needs one."""


class RequestQueue(LiveRequestQueue):
    """Gives ADK first the tool results that ADK itself has queued, then the input of the inbox.

    ADK's own queue is unbounded, and its `close()` waits behind everything in the queue. Here `close()`
    takes effect at once. Tool results that wait are lost with the run: the connection that asked for
    them is gone, too.

    Args:
        inbox: where the user's input comes from.
        on_taken: called with each input as ADK takes it.
        on_stored: called with each text when it is known that ADK has stored it.
        on_failed: called with the error if ADK's sending task fails: ADK itself does not look at it.
        speech: adds the beginnings and the ends of speech.
        on_result: stores the result of an open tool call, and makes a request of it.
        must_wait: returns whether a text is for the next run. If so, it has closed this queue.
        marks: returns what is stored in the state with a text.

    Invariants:
        Of the texts that ADK has taken, only the last can be unsettled: ADK is done with the others.
        During a handover, nothing is taken from the inbox.
    """

    def __init__(
        self,
        inbox: Inbox,
        on_taken: Callable[[ForModel], None],
        on_stored: Callable[[UserText], None],
        on_failed: Callable[[BaseException], None],
        speech: Speech,
        on_result: Callable[[types.Part], Awaitable[LiveRequest]],
        must_wait: Callable[[UserText], Awaitable[bool]],
        marks: Callable[[UserText], dict[str, Any]],
    ) -> None:
        super().__init__()
        self._inbox = inbox
        self._on_taken = on_taken
        self._on_stored = on_stored
        self._speech = speech
        self._on_result = on_result
        self._on_failed = on_failed
        self._must_wait = must_wait
        self._marks = marks
        self._shown = deque[UserImage](maxlen=_SHOWN)  # the last ones since the last text
        self._reader: asyncio.Task[None] | None = None  # ADK's sending task
        self._own: deque[LiveRequest] = deque()
        self._next: deque[UserAudio | LiveRequest] = deque()  # what the model gets for the input taken last
        self.is_handover = False
        """ADK changes from one connection to another: the user's input waits for the new one."""
        self._news = asyncio.Event()  # during a handover: `get` is to look again
        self.unsettled: tuple[UserText, float] | None = None
        """The last text that ADK took and may not have stored, and the `time.time()` when it took it."""
        self.send_sound: Callable[[UserAudio], Awaitable[None]] | None = None
        """Sends sound to the model past ADK; None: sound goes through ADK."""
        self.results: deque[types.Part] = deque()
        """The results of open tool calls, as users have given them."""
        self.undecided: UserText | None = None
        """The last text that ADK took, and has neither sent nor refused: callbacks may take their time."""

    def send(self, req: LiveRequest) -> None:
        if req.close:
            self._closed = True
        else:
            self._own.append(req)
        self._wake()

    def close(self) -> None:
        self.send(LiveRequest(close=True))

    def send_content(self, content: types.Content, partial: bool = False) -> None:
        self.send(LiveRequest(content=content, partial=partial))

    def begin_handover(self) -> None:
        """To be called when the connection is given up. ADK uses it for another second."""
        self.is_handover = True

    def end_handover(self) -> None:
        """To be called when an agent begins: ADK has left the old connection."""
        self.is_handover = False
        self._wake()

    def connected(self) -> None:
        """To be called when there is a new connection."""
        self._next = deque(self._speech.restart(self._next))
        self.end_handover()

    def _wake(self) -> None:
        self._inbox.ready.set()
        self._news.set()

    def decided(self) -> None:
        """To be called when ADK is done with the last text: it sends it, or the callbacks have refused it."""
        self.settle()
        self.undecided = None

    def settle(self) -> None:
        """To be called when the text that ADK took last is known to be stored."""
        if self.unsettled:
            text, _ = self.unsettled
            self.unsettled = None
            self._on_stored(text)

    async def get(self) -> LiveRequest:
        self._watch_reader()
        self.decided()  # ADK asks for the next item only when it is done with the one before
        while True:
            if self._closed:
                return LiveRequest(close=True)
            if self._own:
                return self._own.popleft()
            if self.is_handover:
                self._news.clear()
                await self._news.wait()
                continue
            if self.results:
                return await self._on_result(self.results.popleft())
            if self._next:
                request = self._next.popleft()
                if not isinstance(request, UserAudio):
                    return request
                if self.send_sound:
                    # Sent here, in ADK's own sending task: so it keeps its place among all that ADK sends.
                    await self.send_sound(request)
                    if self._inbox:
                        await asyncio.sleep(0)  # much waits, and nothing else here lets other tasks run
                    continue
                return LiveRequest(blob=blob_of(request))
            if next_text := self._inbox.next_text:
                if await self._must_wait(next_text):
                    while self._shown:  # the next connection has not seen them
                        self._inbox.give_back(self._shown.pop())
                    continue
                if next_text is not self._inbox.next_text:
                    continue
            if (user_input := self._inbox.take()) is not None:
                self._on_taken(user_input)
                match user_input:
                    case UserAudio() | AudioEnd() | ActivityStart():
                        self._next.extend(self._speech.told(user_input))
                        continue
                    case UserText(text):
                        self.undecided = user_input
                        self._shown.clear()
                        if not user_input.is_stored:
                            self.unsettled = (user_input, time.time())
                        content = types.Content(role="user", parts=[types.Part(text=text)])
                        if user_input.is_stored:
                            # ADK does not store a partial text. The connection sends it as a whole one.
                            return LiveRequest(content=content, partial=True)
                        return LiveRequest(content=content, state_delta=self._marks(user_input) or None)
                    case UserImage(data, mime_type):
                        self._shown.append(user_input)
                        return LiveRequest(blob=types.Blob(data=data, mime_type=mime_type))
            self._inbox.ready.clear()
            await self._inbox.ready.wait()

    def _watch_reader(self) -> None:
        reader = asyncio.current_task()
        if reader is not self._reader and reader:
            self._reader = reader
            reader.add_done_callback(self._reader_done)

    def _reader_done(self, reader: asyncio.Task[None]) -> None:
        if not reader.cancelled() and (error := reader.exception()):
            self._on_failed(error)


def hands_over(event: Event) -> bool:
    """Whether ADK ends an agent's connection after this event, and goes on with another agent."""
    if event.actions.transfer_to_agent:
        return True
    return any(answer.name == "task_completed" for answer in event.get_function_responses())
