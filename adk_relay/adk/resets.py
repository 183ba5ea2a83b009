"""Emptying a conversation: clear and delete, and what is said while that is being done."""

from __future__ import annotations

import asyncio
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
    delete: bool  # no session is made until something is said again
    done: asyncio.Future[None]


class Resets:
    """The pending resets of one conversation, and the input that is held until they are done.

    Invariants:
        Input is held only while a reset is pending, at most 64 texts and pictures.
    """

    def __init__(self, session: StoredSession, room: Room, writing: Writing, runs: Runs) -> None:
        self._session = session
        self._room = room
        self._writing = writing
        self._runs = runs
        self._pending: list[_Reset] = []
        self._held: list[tuple[Input, Listener]] = []

    def __bool__(self) -> bool:
        """Whether one is pending."""
        return bool(self._pending)

    def add(self, *, delete: bool, why: str) -> asyncio.Future[None]:
        """Asks for a reset; the result is set when it is done, or an exception if it failed.

        Args:
            why: tells those whose input is held since an earlier reset that it is emptied, too.
        """
        done = asyncio.get_running_loop().create_future()
        held, self._held = self._held, []
        for user_input, listener in held:
            if isinstance(user_input, UserText) and listener in self._room.listeners:
                listener.deliver(Error("busy", why, user_input.id))
        self._pending.append(_Reset(delete, done))
        return done

    def hold(self, user_input: Input, listener: Listener) -> None:
        """Keeps a text or a picture for later. Sound and interruptions are of the moment, and are given up.

        Raises:
            InboxFullError: too much is held already.
        """
        if isinstance(user_input, UserText | UserImage):
            if len(self._held) >= _MAX_HELD:
                raise InboxFullError
            self._held.append((user_input, listener))

    async def perform(self) -> list[tuple[Input, Listener]]:
        """Deletes the session, now that no run writes into it, and begins a new epoch.

        Returns:
            The input that was held, and is to be dealt with now.
        """
        pending = [*self._pending]  # they stay, and input is held, until the session is gone
        error: Exception | None = None
        try:
            await self._session.delete()
        except Exception as failure:
            error = failure  # for who asked; it is logged there
        else:
            error = await self._begin_anew(delete=pending[-1].delete)
        del self._pending[: len(pending)]
        held: list[tuple[Input, Listener]] = []
        if not self._pending:  # no other was asked for meanwhile
            held, self._held = self._held, []
        for reset in pending:
            if not reset.done.done():
                reset.done.set_exception(error) if error else reset.done.set_result(None)
        return held

    async def _begin_anew(self, *, delete: bool) -> Exception | None:
        """Begins a new epoch; returns why there is no session, if there should be one."""
        error: Exception | None = None
        if delete:
            self._writing.drop("The conversation was deleted.")
        else:
            try:
                await self._session.create()
            except Exception as failure:  # it is empty all the same, and made when something is said
                error = failure
        self._runs.begin_with("")
        self._writing.clear()
        self._room.restart(deleted=delete)
        self._runs.end_reconnecting()  # what a connection was remade for is gone
        self._runs.unwant()
        if not delete and any(listener.is_audio for listener in self._room.listeners):
            self._runs.want()
        return error

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._pending or not self._held, "input is held though no reset is pending"
        assert len(self._held) <= _MAX_HELD, "too much is held"
