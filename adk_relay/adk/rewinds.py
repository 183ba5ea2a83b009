"""Takes back what a user has written or said last, in one conversation: see `adk.rewound`."""

from __future__ import annotations

from collections.abc import Callable

from google.adk.events import Event
from google.adk.sessions import Session

from adk_relay.adk.lines import said_by
from adk_relay.adk.reading import TITLE
from adk_relay.adk.rewound import changes_state, rewinding, rewound
from adk_relay.adk.session import StoredSession
from adk_relay.adk.shaping import SHAPE, VOICE
from adk_relay.adk.waiting import Waiting
from adk_relay.core.inbox import Inbox
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Error, Line, Place
from adk_relay.core.recorded import Rewinding
from adk_relay.core.rewind import Rewind, Rewound
from adk_relay.core.room import Room
from adk_relay.core.writing import Writing


class Rewinds:
    """What is taken back of one conversation.

    Args:
        session, room, inbox, writing, waiting: those of the conversation.
    """

    def __init__(
        self, session: StoredSession, room: Room, inbox: Inbox, writing: Writing, waiting: Waiting
    ) -> None:
        self._session = session
        self._room = room
        self._inbox = inbox
        self._writing = writing
        self._waiting = waiting

    def allows(self, rewind: Rewind, listener: Listener) -> bool:
        """Whether a listener may take this back; it is told if not."""
        line = self._room.history.last_of_user
        error = self._error(rewind, listener, line)
        if error:
            listener.deliver(error)
        return not error

    def _error(self, rewind: Rewind, listener: Listener, line: Line | None) -> Error | None:
        if line is None:
            return Error("bad_data", "There is nothing to take back.", rewind.id)
        is_own = self._writing.knows(line.text, line.id or rewind.id, listener)
        is_last = not rewind.id or rewind.id == line.id or (is_own and not line.id)
        if not is_last:
            return Error(
                "bad_data", "Only what a user has written or said last can be taken back.", rewind.id
            )
        if not (is_own or rewind.may_all):
            why = "Only who has written this can take it back, or the user whose conversation it is."
            return Error("not_allowed", why, rewind.id)
        return None

    async def perform(self) -> None:
        """Takes it back, now that no run writes into the session, and tells all.

        Raises:
            Exception: the session service failed.
        """
        history = self._room.history
        line = history.last_of_user
        if line is None:
            return
        before, question = history.questions
        text = self._inbox.last_text
        is_waiting = text is not None and text.place is not None and text.place.seq == question
        if text and is_waiting:
            self._writing.give_up(text)
        if not (text and is_waiting and not text.is_stored):
            try:
                await self._store(before, question, line.id)
            except Exception:
                self._room.recording.stays()
                raise
        self._room.publish(Rewound(self._room.number(), line.id))
        for listener in self._room.listeners:
            self._waiting.tell(listener)

    async def _store(self, before: int, question: int, text_id: str) -> None:
        """Stores that it does not count any more, if it is stored.

        Args:
            before, question: the numbers of the last two questions in this epoch; 0: it was before that.
        """
        if not self._session.is_kept:
            return

        def where(events: list[Event]) -> Place | None:
            if place := self._place(events, before, question):
                messages = self._room.history.messages_to_take_back
                self._room.recording.add(Rewinding(place, text_id, messages))
            return place

        await take_back(self._session, where)
        self._waiting.keep({call.tool_id for call in self._session.waiting})

    def _place(self, events: list[Event], before: int, question: int) -> Place | None:
        """Where the question is stored; None: it is not."""
        asked = (said_by(event) for event in reversed(events) if event.author == "user")
        said = next((each for each in asked if each.text or each.heard), None)
        if said is None or said.place is None:  # relay has marked places since 0.2
            return None
        is_of_epoch = said.place.epoch == self._room.epoch
        if not question:  # it was loaded
            return said.place
        # Speech is stored a moment before it is told, and gets its place then.
        return said.place if is_of_epoch and before < said.place.seq <= question else None


async def take_back(stored: StoredSession, where: Callable[[list[Event]], Place | None]) -> None:
    """Stores that all from a place on is taken back. There may be no run.

    Args:
        where: returns the place, from the events that count; None: there is nothing to take back.

    Raises:
        Exception: the session service failed.
    """

    async def make(session: Session) -> Event | None:
        events = rewound(session.events)
        place = where(events)
        if place is None:
            return None
        if changes_state(place, events):
            events = rewound(await stored.all_events())
        return rewinding(place, events, session.state, frozenset({VOICE, SHAPE, TITLE}))

    stored.rewound(await stored.write(make))
