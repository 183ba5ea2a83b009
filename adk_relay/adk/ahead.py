"""What is stored before a run begins, so that the run's first connection knows it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from google.adk.events import Event
from google.adk.sessions import Session

from adk_relay.adk.lines import Said, said_by
from adk_relay.adk.session import StoredSession, event_of
from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import UserText


class Ahead:
    """Stores the next text of one conversation before the run that gives it to the model, if it sets state.

    Args:
        session, inbox: those of the conversation.
        changed: to be called when what the agent owes has changed.
        stored: to be called with a text that is in the session.
    """

    def __init__(
        self,
        session: StoredSession,
        inbox: Inbox,
        changed: Callable[[], None],
        stored: Callable[[UserText], None],
    ) -> None:
        self._session = session
        self._inbox = inbox
        self._changed = changed
        self._stored = stored
        self.storing: UserText | None = None
        """The text that is being stored: its answer is owed from now on."""

    async def store(self) -> bool:
        """Stores the text; returns whether there was one.

        Raises:
            Exception: the session service failed. The text still waits.
        """
        text = self._inbox.first_text
        if not text or not text.state_delta or text.is_stored:
            return False
        self.storing = text
        self._changed()
        try:
            await self._session.write(partial(_event_of, text))
        finally:
            self.storing = None
        self._inbox.mark_stored(text)
        self._changed()
        self._stored(text)
        return True


async def _event_of(text: UserText, session: Session) -> Event | None:
    """The event of a text; None: it was stored, though the service has reported a failure."""
    is_stored = text.place and any(_is_of(said_by(event), text) for event in session.events)
    return None if is_stored else event_of(text, session)


def _is_of(said: Said, text: UserText) -> bool:
    # Not only the place: an answer that was stopped before its first word has that of what is told next.
    return said.by_user and (said.text, said.place) == (text.text, text.place)
