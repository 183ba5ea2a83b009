"""The ADK session of a conversation: made, read, and told as lines."""

from __future__ import annotations

import time
from collections.abc import Iterator

from google.adk.events import Event
from google.adk.sessions import BaseSessionService, Session

from adk_relay.core.messages import Line

APP_NAME = "relay"
"""The name under which ADK keeps all sessions of relay."""

_CREATED_AT = "relay_created_at"
"""Where a session's state has the time it was made at; ADK keeps only that of the last event."""

GOES_ON = "relay_goes_on"
"""Marks an event, in its metadata, whose answer was cut by a lost connection: the next is its rest."""


def lines_of(session: Session) -> list[Line]:
    """The messages of an ADK session, in the order in which they were told."""
    lines: list[Line] = []
    goes_on = False
    cut = 0  # lines when something was last interrupted: those are in order
    for event in session.events:
        if event.partial:
            continue
        for line in _lines_of(event):
            if goes_on and line.role == "agent":
                line = Line("agent", lines.pop().text + line.text)
            lines.append(line)
            goes_on = GOES_ON in (event.custom_metadata or ())
        if event.interrupted:
            if cut < len(lines) - 1 and [line.role for line in lines[-3:]] == ["user", "user", "agent"]:
                # ADK stores a text at once, and the answer that it cuts at its end.
                lines[-2:] = [lines[-1], lines[-2]]
            cut = len(lines)
    return lines


def _lines_of(event: Event) -> Iterator[Line]:
    if event.content:
        text = "".join(part.text or "" for part in event.content.parts or () if not part.thought)
        if text:
            yield Line("user" if event.author == "user" else "agent", text)
    if (heard := event.input_transcription) and heard.text:
        yield Line("user", heard.text)
    if (spoken := event.output_transcription) and spoken.text:
        yield Line("agent", spoken.text)


def default_id(user_id: str) -> str:
    """The id of the conversation that a live user has without having asked for another."""
    return f"live-{user_id}"


async def get_session(service: BaseSessionService, user_id: str, session_id: str) -> Session | None:
    """A stored session, with all its events; None: there is none."""
    return await service.get_session(app_name=APP_NAME, user_id=user_id, session_id=session_id)


async def create_session(service: BaseSessionService, user_id: str, session_id: str) -> Session:
    """Makes an ADK session that remembers when it was made."""
    return await service.create_session(
        app_name=APP_NAME, user_id=user_id, session_id=session_id, state={_CREATED_AT: time.time()}
    )


def created_at(session: Session) -> float:
    """When a session was made, as `time.time()`."""
    made = session.state.get(_CREATED_AT)
    return float(made) if isinstance(made, int | float) else session.last_update_time
