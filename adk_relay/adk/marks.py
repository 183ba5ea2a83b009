"""The marks that relay gives the events which ADK stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from google.adk.events import Event

from adk_relay.core.heard import Shortened
from adk_relay.core.messages import Place, UserText

GOES_ON = "relay_goes_on"
"""Marks an event, in its metadata: a lost connection has cut this answer, and the next event is its rest."""

CUT = "relay_cut"
"""Marks an event, in its metadata: the rest of this answer was not said, or a user has stopped it before."""

PLACE = "relay_place"
"""Marks an event with the place of its words among all that the listeners were told, as a list.

ADK stores a text only when the model takes it, and an answer only when it ends. The marks of a text are in
the state that ADK stores with it, those of any other event in its metadata.
"""

NAME = "relay_name"
"""Marks an event with what the user is called who wrote or said its words."""

TEXT_KEY = "relay_text"
"""Marks the event of a text that has an id with its `UserText.key`, as a list: it is not said again."""

REWIND = "relay_rewind"
"""Marks an event, in its metadata, with a place: all from there on is taken back (see `adk.rewound`)."""

HEARD = "relay_heard"
"""Marks an event, in its metadata: of the answer that it names, the rest was not heard (see `Unheard`)."""

MARKS = frozenset({PLACE, NAME, TEXT_KEY})
"""The marks that are in the state."""


class Unheard(NamedTuple):
    """How much of an answer was heard: what is beyond that does not count.

    It is stored while the answer is or after it, but also before it: ADK stores an answer that a user has
    stopped when the model completes it.
    """

    epoch: str
    after: int
    """The number of the last message that is certainly before the answer."""
    first: int
    """The number of its first text."""
    length: int
    """How many characters of its words were heard."""

    def is_about(self, place: Place | None) -> bool:
        """Whether the words at a place are of this answer: one that came as a whole has an earlier place."""
        return place is not None and place.epoch == self.epoch and self.after < place.seq <= self.first

    @property
    def place(self) -> Place:
        return Place(self.epoch, self.first)


def unheard_of(shortened: Shortened, epoch: str) -> Event:
    """The event that says how much of an answer was heard."""
    length = len(shortened.text)
    return Event(author="relay", custom_metadata={HEARD: [epoch, shortened.after, shortened.first, length]})


def unheard_in(metadata: Mapping[str, Any]) -> Unheard | None:
    """What an event says of that; None: nothing."""
    match metadata.get(HEARD):
        case [str(epoch), int(after), int(first), int(length)]:
            return Unheard(epoch, after, first, length)
    return None


def marks(place: Place | None, name: str = "") -> dict[str, Any]:
    """The marks of an event with words: their place, and the name of the user whose they are."""
    return ({PLACE: [*place]} if place else {}) | ({NAME: name} if name else {})


def marks_of(text: UserText) -> dict[str, Any]:
    """The marks of the event of a user's text."""
    return marks(text.place, text.name) | ({TEXT_KEY: [*text.key]} if text.id else {})


def mark_cut(event: Event) -> None:
    """Marks an event of an answer that a user has stopped."""
    event.custom_metadata = {**(event.custom_metadata or {}), CUT: True}


def mark(event: Event, place: Place | None, name: str = "") -> None:
    """Marks an event with words, or with what belongs to them."""
    event.custom_metadata = {**(event.custom_metadata or {}), **marks(place, name)}


def marks_in(
    *places: Mapping[str, Any] | None,
) -> tuple[Place | None, str, tuple[str, str] | None, Place | None]:
    """The marks that are in one of these; of two, the later one counts."""
    marks = PLACE, NAME, TEXT_KEY, REWIND
    found = {key: value for each in places for key, value in (each or {}).items() if key in marks}
    name = found.get(NAME)
    text_key = None
    match found.get(TEXT_KEY):
        case [str(member), str(text_id)]:
            text_key = member, text_id
    name = name if isinstance(name, str) else ""
    return _place(found.get(PLACE)), name, text_key, _place(found.get(REWIND))


def _place(mark: Any) -> Place | None:
    match mark:
        case [str(epoch), int(seq)]:
            return Place(epoch, seq)
    return None
