"""The queue that ADK reads in one run."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from google.adk.agents.live_request_queue import LiveRequest, LiveRequestQueue
from google.genai import types

from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import AudioEnd, ForModel, UserAudio, UserImage, UserText


class RequestQueue(LiveRequestQueue):
    """Gives ADK its own tool answers, then what is in the inbox.

    ADK's queue is unbounded, and its `close()` goes to the end. Here closing overtakes everything,
    and what ADK itself puts in (the answers of tools) ends with the run, as the connection that
    asked for it does.

    Args:
        inbox: where the user's input comes from.
        on_taken: called with each input as ADK takes it.
        on_stored: called with each text once it shows that ADK has stored it.

    Invariants:
        Of the texts that ADK has taken, only the last can be unsettled: ADK is done with the others.
    """

    def __init__(
        self,
        inbox: Inbox,
        on_taken: Callable[[ForModel], None],
        on_stored: Callable[[UserText], None],
    ) -> None:
        super().__init__()
        self._inbox = inbox
        self._on_taken = on_taken
        self._on_stored = on_stored
        self._own: deque[LiveRequest] = deque()
        self.unsettled: tuple[UserText, float] | None = None
        """The text ADK took last, and the `time.time()` it did, until it shows that it is stored."""

    def send(self, req: LiveRequest) -> None:
        if req.close:
            self._closed = True
        else:
            self._own.append(req)
        self._inbox.ready.set()

    def close(self) -> None:
        self.send(LiveRequest(close=True))

    def send_content(self, content: types.Content, partial: bool = False) -> None:
        self.send(LiveRequest(content=content, partial=partial))

    def settle(self) -> None:
        """The text that ADK took last is stored."""
        if self.unsettled:
            text, _ = self.unsettled
            self.unsettled = None
            self._on_stored(text)

    async def get(self) -> LiveRequest:
        self.settle()  # ADK comes back only when it is done with the item before
        while True:
            if self._closed:
                return LiveRequest(close=True)
            if self._own:
                return self._own.popleft()
            if (user_input := self._inbox.take()) is not None:
                self._on_taken(user_input)
                if isinstance(user_input, UserText):
                    self.unsettled = (user_input, time.time())
                return _request(user_input)
            self._inbox.ready.clear()
            await self._inbox.ready.wait()


def _request(user_input: ForModel) -> LiveRequest:
    match user_input:
        case UserAudio(pcm, rate):
            return LiveRequest(blob=types.Blob(data=pcm, mime_type=f"audio/pcm;rate={rate}"))
        case UserText(text):
            return LiveRequest(content=types.Content(role="user", parts=[types.Part(text=text)]))
        case UserImage(data, mime_type):
            return LiveRequest(blob=types.Blob(data=data, mime_type=mime_type))
        case AudioEnd():
            return LiveRequest(audio_stream_end=True)
