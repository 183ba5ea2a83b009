"""Resets: how a conversation is cleared or deleted, and what happens to input that comes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from adk_relay.adk.runs import Runs
from adk_relay.adk.session import StoredSession
from adk_relay.core.inbox import InboxFullError
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Error, Input, UserImage, UserText
from adk_relay.core.room import Room
from adk_relay.core.writing import Writing

_MAX_HELD = 64
"""Texts and pictures that may be held."""


@dataclass(slots=True, frozen=True)
class _Reset:
    delete: bool  # no new session is made until something is said
    done: asyncio.Future[None]


class Resets:
    """The pending resets of one conversation, and the input that is held until they are done.

    Args:
        session, room, writing, runs: what is emptied.
        handle: handles the input of a listener.

    Invariants:
        Input is held only while a reset is pending, at most 64 texts and pictures.
    """

    def __init__(
        self,
        session: StoredSession,
        room: Room,
        writing: Writing,
        runs: Runs,
        handle: Callable[[Input, Listener], None],
    ) -> None:
        self._session = session
        self._room = room
        self._writing = writing
        self._runs = runs
        self._handle = handle
        self._pending: list[_Reset] = []
        self._held: list[tuple[Input, Listener]] = []

    def __bool__(self) -> bool:
        """Whether a reset is pending."""
        return bool(self._pending)

    def add(self, *, delete: bool, why: str) -> asyncio.Future[None]:
        """Asks for a reset; the future gets a result when it is done, or an exception if it failed.

        Texts that are held since an earlier reset are dropped.

        Args:
            why: the error message for the senders of these texts.
        """
        done = asyncio.get_running_loop().create_future()
        held, self._held = self._held, []
        for user_input, listener in held:
            if isinstance(user_input, UserText) and listener in self._room.listeners:
                listener.deliver(Error("busy", why, user_input.id))
        self._pending.append(_Reset(delete, done))
        return done

    def hold(self, user_input: Input, listener: Listener) -> None:
        """Keeps a text or a picture for later. Sound and interruptions are dropped: later they are stale.

        Raises:
            InboxFullError: too much is held already.
        """
        if isinstance(user_input, UserText | UserImage):
            if len(self._held) >= _MAX_HELD:
                raise InboxFullError
            self._held.append((user_input, listener))

    async def perform(self) -> None:
        """Deletes the session, now that no run writes into it, and begins a new epoch.

        After the last reset, the input is handled that was held.
        """
        pending = [*self._pending]  # they stay, and input is held, until the session is gone
        error: Exception | None = None
        self._room.recording.empties(delete=pending[-1].delete)
        try:
            await self._session.delete()
        except Exception as failure:
            error = failure  # raised by the futures of `add`, and logged there
            self._room.recording.stays()
        else:
            error = await self._begin_anew(delete=pending[-1].delete)
        del self._pending[: len(pending)]
        held: list[tuple[Input, Listener]] = []
        if not self._pending:  # no other reset was added meanwhile
            held, self._held = self._held, []
        for reset in pending:
            if not reset.done.done():
                reset.done.set_exception(error) if error else reset.done.set_result(None)
        for user_input, listener in held:
            if listener in self._room.listeners:
                try:
                    self._handle(user_input, listener)
                except InboxFullError as full:
                    text_id = user_input.id if isinstance(user_input, UserText) else ""
                    listener.deliver(Error("busy", str(full), text_id))

    async def _begin_anew(self, *, delete: bool) -> Exception | None:
        """Begins a new epoch; returns the error if the new session could not be made."""
        error: Exception | None = None
        if delete:
            self._session.title = ""
            self._writing.drop("The conversation was deleted.")
        else:
            try:
                await self._session.create()
            except Exception as failure:  # the conversation is empty all the same; the next run tries again
                error = failure
        self._runs.begin_with("")
        self._runs.emptied()
        self._writing.clear()
        self._room.restart(deleted=delete)
        self._runs.end_reconnecting()  # there is nothing left to connect for
        if not delete and any(listener.is_audio for listener in self._room.listeners):
            self._runs.want()
        return error

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._pending or not self._held, "input is held though no reset is pending"
        assert len(self._held) <= _MAX_HELD, "too much is held"
