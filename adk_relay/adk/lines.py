"""Messages of a conversation, made of the events that ADK stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from google.adk.events import Event
from google.genai import types

from adk_relay.core.messages import Line, Place, UserText
from adk_relay.core.titles import beginning

GOES_ON = "relay_goes_on"
"""Marks an event, in its metadata: a lost connection has cut this answer, and the next event is its rest."""


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

MARKS = frozenset({PLACE, NAME, TEXT_KEY})
"""The marks that are in the state."""


class Said(NamedTuple):
    """What an event holds of the messages."""

    by_user: bool
    text: str
    heard: str
    """The transcript of a user's speech."""
    spoken: str
    """The transcript of an agent's speech."""
    goes_on: bool
    interrupted: bool
    place: Place | None = None
    """None: it is not known."""
    name: str = ""
    """What the user is called; "": that is not known."""
    key: tuple[str, str] | None = None
    """The `UserText.key` of a text; None: it is not known."""
    rewinds: Place | None = None
    """All from this place on is taken back."""

    @property
    def user_text(self) -> UserText | None:
        """A text that is known by its id; None: it is none, or has none."""
        if not (self.by_user and self.key):
            return None
        member, text_id = self.key
        return UserText(self.text, text_id, member=member)

    def lines(self) -> Iterator[Line]:
        if self.text:
            yield Line("user", self.text, name=self.name) if self.by_user else Line("agent", self.text)
        if self.heard:
            yield Line("user", self.heard, name=self.name)
        if self.spoken:
            yield Line("agent", self.spoken)


_NOTHING = Said(False, "", "", "", False, False)


def said_by(event: Event) -> Said:
    """What an event holds of the messages."""
    if event.partial:
        return _NOTHING
    parts = (event.content and event.content.parts) or ()
    heard, spoken = event.input_transcription, event.output_transcription
    return Said(
        event.author == "user",
        "".join(part.text or "" for part in parts if not part.thought),
        (heard and heard.text) or "",
        (spoken and spoken.text) or "",
        bool((event.custom_metadata or {}).get(GOES_ON)),
        bool(event.interrupted),
        *_marks(event.actions.state_delta, event.custom_metadata),
    )


def said_in(stored: Mapping[str, Any]) -> Said:
    """The same, from an event as ADK stores it in JSON: making an `Event` of it takes ten times as long."""
    if stored.get("partial"):
        return _NOTHING
    parts = (stored.get("content") or {}).get("parts") or ()
    return Said(
        stored.get("author") == "user",
        "".join(part.get("text") or "" for part in parts if not part.get("thought")),
        (stored.get("input_transcription") or {}).get("text") or "",
        (stored.get("output_transcription") or {}).get("text") or "",
        bool((stored.get("custom_metadata") or {}).get(GOES_ON)),
        bool(stored.get("interrupted")),
        *_marks((stored.get("actions") or {}).get("state_delta"), stored.get("custom_metadata")),
    )


def has_words(event: Event) -> bool:
    """Whether an event that is to be stored holds anything of the messages."""
    return any(said_by(event).lines())


def marks(place: Place | None, name: str = "") -> dict[str, Any]:
    """The marks of an event with words: their place, and the name of the user whose they are."""
    return ({PLACE: [*place]} if place else {}) | ({NAME: name} if name else {})


def marks_of(text: UserText) -> dict[str, Any]:
    """The marks of the event of a user's text."""
    return marks(text.place, text.name) | ({TEXT_KEY: [*text.key]} if text.id else {})


def cut_answer(author: str, text: str, place: Place | None, *, goes_on: bool) -> Event:
    """The event of an answer that ADK has not stored, because its connection was lost.

    Args:
        goes_on: another run says the rest.
    """
    content = types.Content(role="model", parts=[types.Part(text=text)])
    event = Event(author=author, content=content, custom_metadata={GOES_ON: goes_on})
    if place:
        mark(event, place)
    return event


def mark(event: Event, place: Place | None, name: str = "") -> None:
    """Marks an event with words."""
    event.custom_metadata = {**(event.custom_metadata or {}), **marks(place, name)}


def _marks(
    *places: Mapping[str, Any] | None,
) -> tuple[Place | None, str, tuple[str, str] | None, Place | None]:
    """The marks of an event, which are in one of these; of two, the later one counts."""
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


class Lines:
    """Makes messages of events, one event after the other.

    Messages whose places are known stand in the order in which they were told. Those of one place are one
    message: an answer that a tool or a lost connection has cut into several events.

    Invariants:
        `first` is the number of the first message in `kept`; the numbers begin with 1.
        `kept` and `places` have the same length.
    """

    def __init__(self) -> None:
        self.kept: list[Line] = []
        self.places: list[Place | None] = []
        self.first = 1
        self.by_user = 0
        """How many messages are a user's, also of those that are not kept any more."""
        self.first_text = ""
        """The beginning of the first of these."""
        self._goes_on = False
        self._cut = 0  # the number of messages at the last interruption: those are in order

    @property
    def count(self) -> int:
        """How many messages there are, also of those that are not kept any more."""
        return self.first - 1 + len(self.kept)

    def add(self, said: Said) -> None:
        """Adds what an event holds."""
        if said.rewinds:
            self._take_back(said.rewinds)
        for line in said.lines():
            self._add(line, said.place)
            if line.role == "user":
                self.by_user += 1
                self.first_text = self.first_text or beginning(line.text)
            self._goes_on = said.goes_on
        if said.interrupted:
            kept = self.kept
            is_unplaced = kept and not self.places[-1]  # stored before places were marked
            roles = [line.role for line in kept[-3:]]
            if is_unplaced and self._cut < self.count - 1 and roles == ["user", "user", "agent"]:
                # ADK stores a text at once, but the answer that the text interrupts only when it ends.
                kept[-2:] = [kept[-1], kept[-2]]
            self._cut = self.count

    def _take_back(self, rewinds: Place) -> None:
        first = next((at for at, place in enumerate(self.places) if _is_at(place, rewinds)), len(self.kept))
        self.by_user -= sum(line.role == "user" for line in self.kept[first:])
        del self.kept[first:], self.places[first:]
        self.first_text = self.first_text if self.by_user else ""
        self._goes_on, self._cut = False, min(self._cut, self.count)

    def _add(self, line: Line, place: Place | None) -> None:
        kept, places, at = self.kept, self.places, len(self.kept)
        while at and place and _is_later(places[at - 1], place):
            at -= 1
        is_rest = self._goes_on or (at and place and places[at - 1] == place)
        if is_rest and at and line.role == kept[at - 1].role == "agent":
            kept[at - 1] = replace(line, text=kept[at - 1].text + line.text)
            return
        kept.insert(at, line)
        places.insert(at, place)

    def forget(self, keep: int) -> None:
        """Keeps only the last messages."""
        if (too_many := len(self.kept) - keep) > 0:
            del self.kept[:too_many]
            del self.places[:too_many]
            self.first += too_many

    def copy(self) -> Lines:
        """A copy that goes on from here."""
        copy = Lines()
        copy.__dict__.update(self.__dict__, kept=[*self.kept], places=[*self.places])
        return copy


def _is_later(place: Place | None, than: Place) -> bool:
    return place is not None and place.epoch == than.epoch and place.seq > than.seq


def _is_at(place: Place | None, begin: Place) -> bool:
    return place is not None and place.epoch == begin.epoch and place.seq >= begin.seq


def lines_of(events: Iterable[Event]) -> list[Line]:
    """The messages of a session's events, in the order in which the listeners got them."""
    lines = Lines()
    for event in events:
        lines.add(said_by(event))
    return lines.kept
