"""Moderation: a host's own function is asked before the agent gets what a user has written or shown."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from adk_relay.core.inbox import InboxFullError, bytes_of
from adk_relay.core.listener import Listener
from adk_relay.core.logs import failure
from adk_relay.core.messages import Error, Input, Transcript, UserImage, UserText
from adk_relay.core.requests import BusyError
from adk_relay.core.room import Room
from adk_relay.core.writing import Writing

log = logging.getLogger("relay")

_MAX_WAITING = 16
_MAX_WAITING_BYTES = 8 * 1024 * 1024
"""How many texts and pictures may wait for the function, and their bytes."""

_FAILED = "This can't be checked now: try again later."


class InputRefusedError(Exception):
    """For the host's function to raise: the input is refused, and the user is told this text."""


@dataclass(slots=True, frozen=True)
class UserInput:
    """What a user has written, said or shown.

    Attributes:
        kind: "transcript": what was recognized of an utterance. The model has heard it already.
        user_id, session_id: the conversation.
        name: what the user is called; "": that is not known.
        text: of a text or a transcript.
        picture, mime_type: of a picture.
        state_delta: what a text changes in the session's state; None: nothing.
    """

    kind: Literal["text", "transcript", "picture"]
    user_id: str
    session_id: str
    name: str = ""
    text: str = ""
    picture: bytes = b""
    mime_type: str = ""
    state_delta: Any = None


Verdict = str | None
OnInput = Callable[[UserInput], "Verdict | Awaitable[Verdict]"]
"""The host's function. None: the input passes; a string: it takes the place of a text. A picture can't be
changed, nor a transcript, which the model has heard already. A function that is not async runs in a thread.
It raises `InputRefusedError` to refuse; any other error refuses, too."""


@dataclass(slots=True)
class _Waiting:
    user_input: UserText | UserImage
    listener: Listener
    is_request: bool
    context: Context = field(default_factory=copy_context)
    """The context of the listener's task: it has what traces and the log call the listener."""

    @property
    def size(self) -> int:
        content = self.user_input
        if isinstance(content, UserImage):
            return len(content.data)
        return bytes_of(content)


class Moderation:
    """Asks a host's function about the input of one conversation, one after the other, in order.

    Args:
        on_input: the function; None: there is none, and nothing is held.
        user_id, session_id: the conversation.
        room, writing: its own.
        say: takes a text or a picture that has passed.
        interrupt: stops the answer.

    Invariants:
        While something waits, a task asks about it. Without a function nothing waits.
    """

    def __init__(
        self,
        on_input: OnInput | None,
        user_id: str,
        session_id: str,
        room: Room,
        writing: Writing,
        say: Callable[[Input, Listener], None],
        interrupt: Callable[[], None],
    ) -> None:
        self._on_input = on_input
        self._user_id, self._session_id = user_id, session_id
        self._room = room
        self._writing = writing
        self._say = say
        self._interrupt = interrupt
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self._listening: set[asyncio.Task[None]] = set()

    def check(self) -> None:
        """Asserts the invariants."""
        assert not self._waiting or (self._on_input and self._task), "nobody asks about what waits"

    def is_under_way(self) -> bool:
        """Whether an answer is under way, or a text waits here or for its turn."""
        return bool(self._waiting) or self._writing.is_under_way()

    def holds(self, user_input: Input, listener: Listener, *, is_request: bool = False) -> bool:
        """Takes a text or a picture, to ask about it first. False: there is nothing to ask.

        Raises:
            InboxFullError: too much waits already.
        """
        if self._on_input is None or not isinstance(user_input, UserText | UserImage):
            return False
        waiting = _Waiting(user_input, listener, is_request)
        total = sum(each.size for each in self._waiting) + waiting.size
        if len(self._waiting) >= _MAX_WAITING or total > _MAX_WAITING_BYTES:
            raise InboxFullError
        self._waiting.append(waiting)
        if not self._task:
            self._task = asyncio.create_task(self._run(self._on_input), name=f"moderation {self._session_id}")
        return True

    def hear(self, transcript: Transcript, connection_id: str) -> None:
        """Asks about what a user has said, while the agent may be answering already."""
        if self._on_input is None or not transcript.final:
            return
        said = self._input("transcript", transcript.name, text=transcript.text)
        task = asyncio.create_task(self._listen(self._on_input, said, connection_id))
        self._listening.add(task)
        task.add_done_callback(self._listening.discard)

    def stop(self) -> None:
        """The user has stopped the agent: no answer is wanted to the texts that wait here."""
        for each in self._waiting:
            if isinstance(each.user_input, UserText) and not each.is_request:
                each.user_input = replace(each.user_input, stopped=True)

    def close(self) -> None:
        """The conversation is over. What waits was never acked, so its clients send it again."""
        self._waiting.clear()
        for task in [*self._listening, *([self._task] if self._task else [])]:
            task.cancel()

    async def _run(self, on_input: OnInput) -> None:
        while self._waiting:
            await self._pass_on(on_input, self._waiting[0])
            if self._waiting:  # not closed meanwhile
                self._waiting.popleft()
        self._task = None

    async def _pass_on(self, on_input: OnInput, each: _Waiting) -> None:
        content, name = each.user_input, each.listener.name
        if isinstance(content, UserText):
            asked = self._input("text", name, text=content.text, state_delta=content.state_delta)
        else:
            asked = self._input("picture", name, picture=content.data, mime_type=content.mime_type)
        text_id = content.id if isinstance(content, UserText) else ""
        try:
            verdict = await _ask(on_input, asked)
        except InputRefusedError as refused:
            each.listener.deliver(Error("refused", str(refused), text_id))
            return
        content = each.user_input  # it may have been stopped meanwhile
        if verdict is not None and isinstance(content, UserText):
            content = replace(content, text=verdict)
        try:
            if not (each.is_request and isinstance(content, UserText)):
                each.context.run(self._say, content, each.listener)
            elif each.listener in self._room.listeners:
                each.context.run(self._writing.ask, content, each.listener)
        except (BusyError, InboxFullError) as full:
            each.listener.deliver(Error("busy", str(full), text_id))

    async def _listen(self, on_input: OnInput, said: UserInput, connection_id: str) -> None:
        try:
            await _ask(on_input, said)
        except InputRefusedError as refused:
            self._interrupt()
            self._room.send_to(connection_id, Error("refused", str(refused)))

    def _input(
        self,
        kind: Literal["text", "transcript", "picture"],
        name: str,
        text: str = "",
        picture: bytes = b"",
        mime_type: str = "",
        state_delta: Any = None,
    ) -> UserInput:
        user_id, session_id = self._user_id, self._session_id
        return UserInput(kind, user_id, session_id, name, text, picture, mime_type, state_delta)


async def _ask(on_input: OnInput, asked: UserInput) -> Verdict:
    """What the host's function says.

    Raises:
        InputRefusedError: the input is refused, or the function has failed.
    """
    try:
        if inspect.iscoroutinefunction(on_input):
            verdict = await on_input(asked)
        else:
            found = await asyncio.to_thread(on_input, asked)
            verdict = await found if inspect.isawaitable(found) else found
        if not isinstance(verdict, str | None) or verdict == "":
            raise TypeError("on_input must return None or a text")
        return verdict
    except InputRefusedError:
        raise
    except Exception as error:
        log.error("on_input failed: %s", failure(error))
        raise InputRefusedError(_FAILED) from None
