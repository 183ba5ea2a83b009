"""What is stored before a run begins, so that the run's first connection knows it."""

from __future__ import annotations

from collections.abc import Callable

from adk_relay.adk.lines import said_by
from adk_relay.adk.session import StoredSession
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
            session = await self._session.find()
            # It may have been stored though the service has reported a failure.
            if not any(text.place and said_by(event).place == text.place for event in session.events):
                await self._session.append_text(session, text)
        finally:
            self.storing = None
        self._inbox.mark_stored(text)
        self._changed()
        self._stored(text)
        return True
