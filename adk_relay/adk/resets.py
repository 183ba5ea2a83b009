"""Resets: how a conversation is cleared, deleted or rewound, and what happens to input meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from adk_relay.adk.fence import NotOwnerError
from adk_relay.adk.rewinds import Rewinds
from adk_relay.adk.runs import Runs
from adk_relay.adk.session import StoredSession
from adk_relay.core.inbox import InboxFullError
from adk_relay.core.listener import Listener
from adk_relay.core.logs import failure
from adk_relay.core.messages import Error, Input, UserImage, UserText
from adk_relay.core.rewind import Rewind
from adk_relay.core.room import Room
from adk_relay.core.writing import Writing

log = logging.getLogger("relay.agent")

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
        rewinds: takes back what was said last.
        handle: handles the input of a listener.

    Invariants:
        Input is held only while a reset is pending, at most 64 texts and pictures.
        Nothing is to be taken back of a conversation that is to be emptied.
    """

    def __init__(
        self,
        session: StoredSession,
        room: Room,
        writing: Writing,
        runs: Runs,
        rewinds: Rewinds,
        handle: Callable[[Input, Listener], None],
    ) -> None:
        self._session = session
        self._room = room
        self._writing = writing
        self._runs = runs
        self._rewinds = rewinds
        self._handle = handle
        self._rewinder: Listener | None = None  # takes back what was said last
        self._pending: list[_Reset] = []
        self._held: list[tuple[Input, Listener]] = []

    def __bool__(self) -> bool:
        """Whether a reset is pending."""
        return bool(self._pending) or self._rewinder is not None

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
        self._rewinder = None
        return done

    def add_rewind(self, rewind: Rewind, listener: Listener) -> bool:
        """Asks for what was said last to be taken back; returns whether the listener may do so."""
        if not self._rewinds.allows(rewind, listener):
            return False
        self._rewinder = listener
        return True

    def hold(self, user_input: Input, listener: Listener) -> None:
        """Keeps an input for later. Sound and interruptions are dropped: later they are stale.

        Raises:
            InboxFullError: too much is held already.
        """
        if isinstance(user_input, UserText | UserImage | Rewind):
            if len(self._held) >= _MAX_HELD:
                raise InboxFullError
            self._held.append((user_input, listener))

    async def perform(self) -> None:
        """Deletes the session, now that no run writes into it, and begins a new epoch; or rewinds it.

        After the last reset, the input is handled that was held.
        """
        if self._rewinder:
            await self._rewind(self._rewinder)
            return
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
        for reset in pending:
            if not reset.done.done():
                reset.done.set_exception(error) if error else reset.done.set_result(None)
        self._handle_held()

    async def _rewind(self, rewinder: Listener) -> None:
        """Takes back what was said last."""
        try:
            await self._rewinds.perform()
        except NotOwnerError:
            pass  # the owner does it
        except Exception as error:
            log.error("the session service failed: %s", failure(error))
            rewinder.deliver(Error("history_failed", "This can't be taken back just now: try again later."))
        if not self._pending:
            self._runs.begin_with("")
            self._runs.end_reconnecting()
            if any(listener.is_audio for listener in self._room.listeners):
                self._runs.want()
        self._rewinder = None
        self._handle_held()

    def _handle_held(self) -> None:
        """Handles the input that was held, unless another reset was added meanwhile."""
        if self:
            return
        held, self._held = self._held, []
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
        assert not (self._pending and self._rewinder), "something is to be taken back, and all to be emptied"
        assert self or not self._held, "input is held though no reset is pending"
        assert len(self._held) <= _MAX_HELD, "too much is held"
