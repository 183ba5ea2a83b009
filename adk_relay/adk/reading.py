"""What relay reads of a session store: few events at once, and away from the event loop where it can."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, NamedTuple, Protocol

from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig

from adk_relay.adk.lines import Said, said_by

CREATED_AT = "relay_created_at"
"""The key of the time when a session was made, in its state; ADK itself keeps only that of the last event."""

TITLE = "relay_title"
"""The key of the title that a user has given a session, in its state."""

PAGE = 250
"""How many events are read at once."""


class Key(NamedTuple):
    """What identifies a session."""

    app_name: str
    user_id: str
    session_id: str


class Brief(NamedTuple):
    """A session in a list. Times are those of `time.time()`."""

    session_id: str
    created_at: float
    last_used: float
    title: str = ""


class Stored(NamedTuple):
    """A stored event."""

    position: Any
    """Where it is in its session: for `Reader.following`."""
    timestamp: float
    said: Said


class Reader(Protocol):
    """Reads a session store. All methods raise what the store raises."""

    finds_owners: bool
    """Whether `owner` takes a moment only, however many sessions there are."""

    async def owner(self, app_name: str, session_id: str, probably: str) -> str | None:
        """The user whose session has this id; None: there is none.

        Args:
            probably: the user who is checked first.
        """

    async def newest(self, app_name: str, user_id: str, limit: int) -> list[Brief]:
        """The sessions of a user that were used last."""

    async def session(self, key: Key, limit: int) -> Session | None:
        """A session with its last events; None: there is none."""

    def following(self, key: Key, position: Any) -> AsyncGenerator[list[Stored], None]:
        """The events after a position (None: all), in order, in pages."""

    async def outdate(self, key: Key, session: Session) -> bool:
        """Lets the store refuse what others write who have read a session before, if it can.

        What is being written now is waited for.

        Returns:
            False: it was written into since it was read, or deleted, and nothing was done.
        """

    def change_loop(self) -> None:
        """The event loop is another one: what belongs to the former one is of no use any more."""

    async def close(self) -> None:
        """Gives up what it needs for reading."""


def created_at(session: Session) -> float:
    """When a session was made, as `time.time()`."""
    stored = session.state.get(CREATED_AT)
    return float(stored) if isinstance(stored, int | float) else session.last_update_time


def brief(session: Session) -> Brief:
    """What a list has of a session."""
    return Brief(session.id, created_at(session), session.last_update_time, title_in(session))


def title_in(session: Session) -> str:
    """The title that a user has given a session; "": it has none."""
    return str(session.state.get(TITLE) or "")


class AnyReader:
    """Reads any session service, with what all of them have.

    They find a session only by its user and its id, and give its last events or all: a list of all sessions
    has to be read to find an owner, and the whole session to read what is not at its end.
    """

    finds_owners = False

    def __init__(self, service: BaseSessionService) -> None:
        self._service = service

    async def owner(self, app_name: str, session_id: str, probably: str) -> str | None:
        if await self.session(Key(app_name, probably, session_id), 1):
            return probably
        listed = await self._service.list_sessions(app_name=app_name)
        return next((session.user_id for session in listed.sessions if session.id == session_id), None)

    async def newest(self, app_name: str, user_id: str, limit: int) -> list[Brief]:
        listed = await self._service.list_sessions(app_name=app_name, user_id=user_id)
        sessions = sorted(listed.sessions, key=lambda session: session.last_update_time, reverse=True)
        return [brief(each) for each in sessions[:limit]]

    async def session(self, key: Key, limit: int) -> Session | None:
        config = GetSessionConfig(num_recent_events=limit)
        return await self._service.get_session(**key._asdict(), config=config)

    async def following(self, key: Key, position: Any) -> AsyncGenerator[list[Stored], None]:
        session = await self._service.get_session(**key._asdict())
        events = session.events if session else []
        for start in range(0 if position is None else position + 1, len(events), PAGE):
            yield [
                Stored(start + index, event.timestamp, said_by(event))
                for index, event in enumerate(events[start : start + PAGE])
            ]

    async def outdate(self, key: Key, session: Session) -> bool:
        return True  # it is not known how

    def change_loop(self) -> None:
        """Nothing belongs to an event loop."""

    async def close(self) -> None:
        """There is nothing to give up."""
