"""Messages of a conversation, made of the events that ADK stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from google.adk.events import Event

from adk_relay.core.messages import Line

GOES_ON = "relay_goes_on"
"""Marks an event, in its metadata: a lost connection has cut this answer, and the next event is its rest."""


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

    def lines(self) -> Iterator[Line]:
        if self.text:
            yield Line("user" if self.by_user else "agent", self.text)
        if self.heard:
            yield Line("user", self.heard)
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
        GOES_ON in (event.custom_metadata or ()),
        bool(event.interrupted),
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
        GOES_ON in (stored.get("custom_metadata") or ()),
        bool(stored.get("interrupted")),
    )


class Lines:
    """Makes messages of events, one event after the other.

    Invariants:
        `first` is the number of the first message in `kept`; the numbers begin with 1.
    """

    def __init__(self) -> None:
        self.kept: list[Line] = []
        self.first = 1
        self.by_user = 0
        """How many messages are a user's, also of those that are not kept any more."""
        self._goes_on = False
        self._cut = 0  # the number of messages at the last interruption: those are in order

    @property
    def count(self) -> int:
        """How many messages there are, also of those that are not kept any more."""
        return self.first - 1 + len(self.kept)

    def add(self, said: Said) -> None:
        """Adds what an event holds."""
        kept = self.kept
        for line in said.lines():
            if self._goes_on and line.role == "agent" and kept and kept[-1].role == "agent":
                line = replace(line, text=kept.pop().text + line.text)
            kept.append(line)
            self.by_user += line.role == "user"
            self._goes_on = said.goes_on
        if said.interrupted:
            if self._cut < self.count - 1 and [line.role for line in kept[-3:]] == ["user", "user", "agent"]:
                # ADK stores a text at once, but the answer that the text interrupts only when it ends.
                kept[-2:] = [kept[-1], kept[-2]]
            self._cut = self.count

    def forget(self, keep: int) -> None:
        """Keeps only the last messages."""
        if (too_many := len(self.kept) - keep) > 0:
            del self.kept[:too_many]
            self.first += too_many

    def copy(self) -> Lines:
        """A copy that goes on from here."""
        copy = Lines()
        copy.__dict__.update(self.__dict__, kept=[*self.kept])
        return copy


def lines_of(events: Iterable[Event]) -> list[Line]:
    """The messages of a session's events, in the order in which the listeners got them."""
    lines = Lines()
    for event in events:
        lines.add(said_by(event))
    return lines.kept
