"""Messages of a conversation, made of the events that ADK stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from google.adk.events import Event
from google.genai import types

from adk_relay.adk.marks import CUT, GOES_ON, Unheard, mark, marks_in, unheard_in
from adk_relay.core.answer import ToolCall
from adk_relay.core.messages import Line, Place, UserText
from adk_relay.core.times import iso
from adk_relay.core.titles import beginning
from adk_relay.core.used_tools import shortened, with_result


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
    timestamp: float = 0.0
    """As `time.time()`; 0: it is not known."""
    is_cut: bool = False
    """The rest of the answer was not said."""
    completes: bool = False
    """It ends a turn, or a part of one."""
    calls: tuple[ToolCall, ...] = ()
    """Tools that are called."""
    results: tuple[tuple[str, Any], ...] = ()
    """The ids of the calls that have returned, and their results."""
    is_stopped: bool = False
    """A user had stopped the answer before: nobody was to hear this."""
    unheard: Unheard | None = None
    """An answer was heard only in part."""

    @property
    def user_text(self) -> UserText | None:
        """A text that is known by its id; None: it is none, or has none."""
        if not (self.by_user and self.key):
            return None
        member, text_id = self.key
        return UserText(self.text, text_id, member=member)

    def lines(self) -> Iterator[Line]:
        when = iso(self.timestamp) if self.timestamp else ""
        if self.text and not self.by_user:
            yield Line("agent", self.text, timestamp=when, interrupted=self.is_cut)
        elif self.text:
            yield Line("user", self.text, name=self.name, timestamp=when)
        if self.heard:
            yield Line("user", self.heard, name=self.name, timestamp=when)
        if self.spoken:
            yield Line("agent", self.spoken, timestamp=when, interrupted=self.is_cut)


_NOTHING = Said(False, "", "", "", False, False)


def said_by(event: Event) -> Said:
    """What an event holds of the messages."""
    if event.partial:
        return _NOTHING
    parts = (event.content and event.content.parts) or ()
    heard, spoken = event.input_transcription, event.output_transcription
    metadata, by_user = event.custom_metadata or {}, event.author == "user"
    waiting = {*(event.long_running_tool_ids or ())}
    asked = {*event.actions.requested_tool_confirmations, *event.actions.requested_auth_configs}
    return Said(
        by_user,
        "".join(part.text or "" for part in parts if not part.thought),
        (heard and heard.text) or "",
        (spoken and spoken.text) or "",
        bool(metadata.get(GOES_ON)),
        bool(event.interrupted),
        *marks_in(event.actions.state_delta, event.custom_metadata),
        event.timestamp,
        bool(metadata.get(CUT)),
        bool(event.turn_complete),
        tuple(
            ToolCall(call.id or "", call.name or "", call.args, None, call.id in waiting)
            for part in parts
            if (call := part.function_call)
        ),
        tuple(
            (answer.id or "", answer.response)
            for part in parts
            if (answer := part.function_response) and answer.id not in asked
        ),
        bool(metadata.get(CUT)) and GOES_ON not in metadata,
        unheard_in(metadata),
    )


def said_in(stored: Mapping[str, Any]) -> Said:
    """The same, from an event as ADK stores it in JSON: making an `Event` of it takes ten times as long."""
    if stored.get("partial"):
        return _NOTHING
    parts = (stored.get("content") or {}).get("parts") or ()
    metadata, actions = stored.get("custom_metadata") or {}, stored.get("actions") or {}
    waiting = {*(stored.get("long_running_tool_ids") or ())}
    asked = {
        *(actions.get("requested_tool_confirmations") or ()),
        *(actions.get("requested_auth_configs") or ()),
    }
    return Said(
        stored.get("author") == "user",
        "".join(part.get("text") or "" for part in parts if not part.get("thought")),
        (stored.get("input_transcription") or {}).get("text") or "",
        (stored.get("output_transcription") or {}).get("text") or "",
        bool(metadata.get(GOES_ON)),
        bool(stored.get("interrupted")),
        *marks_in(actions.get("state_delta"), stored.get("custom_metadata")),
        float(stored.get("timestamp") or 0),
        bool(metadata.get(CUT)),
        bool(stored.get("turn_complete")),
        tuple(
            ToolCall(tool_id, call.get("name") or "", call.get("args"), None, tool_id in waiting)
            for part in parts
            if (call := part.get("function_call"))
            for tool_id in [call.get("id") or ""]
        ),
        tuple(
            (answer.get("id") or "", answer.get("response"))
            for part in parts
            if (answer := part.get("function_response")) and answer.get("id") not in asked
        ),
        bool(metadata.get(CUT)) and GOES_ON not in metadata,
        unheard_in(metadata),
    )


def has_words(event: Event) -> bool:
    """Whether an event that is to be stored holds anything of the messages."""
    return any(said_by(event).lines())


def cut_answer(author: str, text: str, place: Place | None, *, goes_on: bool, is_cut: bool) -> Event:
    """The event of an answer that ADK has not stored, because its connection was lost.

    Args:
        goes_on: another run says the rest.
        is_cut: nobody says it.
    """
    content = types.Content(role="model", parts=[types.Part(text=text)])
    metadata = {GOES_ON: goes_on} | ({CUT: True} if is_cut else {})
    event = Event(author=author, content=content, custom_metadata=metadata)
    if place:
        mark(event, place)
    return event


_UNHEARD = 8
"""Of how many answers it is remembered how much was heard."""


class Lines:
    """Makes messages of events, one event after the other.

    Messages whose places are known stand in the order in which they were told. Those of one place are one
    message: an answer that a tool or a lost connection has cut into several events.

    Invariants:
        `first` is the number of the first message in `kept`; the numbers begin with 1.
        `kept` and `places` have the same length.
        `loose` is empty after a message of the agent.
    """

    def __init__(self) -> None:
        self.kept: list[Line] = []
        self.places: list[Place | None] = []
        self.first = 1
        self.loose: tuple[ToolCall, ...] = ()
        """Tools that were called, until there are words of the agent: these, or those of its next answer."""
        self._is_over = False  # the turn of those has ended
        self.by_user = 0
        """How many messages are a user's, also of those that are not kept any more."""
        self.first_text = ""
        """The beginning of the first of these."""
        self._goes_on = False
        self._cut = 0  # the number of messages at the last interruption: those are in order
        self._unheard: tuple[Unheard, ...] = ()  # the last ones: more of their answers may be stored later

    @property
    def count(self) -> int:
        """How many messages there are, also of those that are not kept any more."""
        return self.first - 1 + len(self.kept)

    def add(self, said: Said) -> None:
        """Adds what an event holds."""
        if said.rewinds:
            self._take_back(said.rewinds)
        if said.unheard:
            self._unheard = (*self._unheard[1 - _UNHEARD :], said.unheard)
            self._shorten(len(self.kept), said.unheard)
        for line in said.lines():
            if line.role == "user" and self._is_over:
                self.loose = ()
            self._add(line, said.place)
            if line.role == "user":
                self.by_user += 1
                self.first_text = self.first_text or beginning(line.text)
            self._goes_on = said.goes_on
        if said.calls:
            self._call(said.calls, said.place)
        for tool_id, result in said.results:
            self._return(tool_id, result, by_user=said.by_user)
        self._is_over = said.completes or (self._is_over and not said.calls)
        if said.interrupted:
            self._interrupt(said.place)
            kept = self.kept
            is_unplaced = kept and not self.places[-1]  # stored before places were marked
            roles = [line.role for line in kept[-3:]]
            if is_unplaced and self._cut < self.count - 1 and roles == ["user", "user", "agent"]:
                # ADK stores a text at once, but the answer that the text interrupts only when it ends.
                kept[-2:] = [kept[-1], kept[-2]]
            self._cut = self.count

    def _take_back(self, rewinds: Place) -> None:
        first = next((at for at, place in enumerate(self.places) if is_from(place, rewinds)), len(self.kept))
        self.by_user -= sum(line.role == "user" for line in self.kept[first:])
        del self.kept[first:], self.places[first:]
        self.first_text = self.first_text if self.by_user else ""
        self._goes_on, self._cut = False, min(self._cut, self.count)
        self.loose, self._is_over = (), False

    def _add(self, line: Line, place: Place | None) -> None:
        kept, places, at = self.kept, self.places, len(self.kept)
        while at and place and _is_later(places[at - 1], place):
            at -= 1
        is_rest = self._goes_on or (at and place and places[at - 1] == place)
        if is_rest and at and line.role == kept[at - 1].role == "agent":
            before = kept[at - 1]
            is_cut = before.interrupted or line.interrupted
            kept[at - 1] = replace(before, text=before.text + line.text, interrupted=is_cut)
        else:
            kept.insert(at, line)
            places.insert(at, place)
            at += 1
        for unheard in self._unheard if line.role == "agent" else ():
            self._shorten(at, unheard)
        if line.role == "agent" and self.loose:
            kept[at - 1] = replace(kept[at - 1], tools=shortened([*kept[at - 1].tools, *self.loose]))
            self.loose = ()

    def _shorten(self, end: int, unheard: Unheard) -> None:
        """Leaves what was heard of an answer, if it is the last of the agent before this index."""
        for at in range(end)[::-1]:
            line = self.kept[at]
            if line.role == "agent" and unheard.is_about(self.places[at]):
                if len(line.text) > unheard.length:
                    text = line.text[: unheard.length]
                    self.kept[at] = replace(line, text=text, interrupted=True)
                return

    def _at(self, place: Place | None) -> int | None:
        """The index of the agent's message at a place; None: it is not known, or not there."""
        for index in range(len(self.kept))[::-1] if place else ():
            if self.places[index] == place and self.kept[index].role == "agent":
                return index
        return None

    def _call(self, calls: tuple[ToolCall, ...], place: Place | None) -> None:
        """Tools are called. Their event has the place of their answer's words, if there are any yet."""
        index = self._at(place)
        if index is None:
            self.loose = shortened([*self.loose, *calls])
        else:
            line = self.kept[index]
            self.kept[index] = replace(line, tools=shortened([*line.tools, *calls]))

    def _return(self, tool_id: str, result: Any, *, by_user: bool) -> None:
        """A tool has returned. One that waits for a user has not until the user has answered."""
        if found := self._returned(self.loose, tool_id, result, by_user):
            self.loose = found
            return
        for index in range(len(self.kept))[::-1]:
            if found := self._returned(self.kept[index].tools, tool_id, result, by_user):
                self.kept[index] = replace(self.kept[index], tools=found)
                return

    def _returned(
        self, calls: tuple[ToolCall, ...], tool_id: str, result: Any, by_user: bool
    ) -> tuple[ToolCall, ...] | None:
        if not by_user and any(call.tool_id == tool_id and call.is_pending for call in calls):
            return calls
        return with_result(calls, tool_id, result)

    def _interrupt(self, place: Place | None) -> None:
        """An answer was interrupted; its event has the place of its words, if there were any."""
        self.loose = ()
        index = self._at(place)
        if index is not None:
            self.kept[index] = replace(self.kept[index], interrupted=True)

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


def with_unanswered(lines: list[Line]) -> list[Line]:
    """The messages of a stored session to which no answer will come any more: the last one is marked."""
    if not lines or lines[-1].role == "agent":
        return lines
    return [*lines[:-1], replace(lines[-1], unanswered=True)]


def _is_later(place: Place | None, than: Place) -> bool:
    return place is not None and place.epoch == than.epoch and place.seq > than.seq


def is_from(place: Place | None, begin: Place) -> bool:
    """Whether a place is this one, or a later one of its epoch."""
    return place is not None and place.epoch == begin.epoch and place.seq >= begin.seq


def lines_of(events: Iterable[Event]) -> list[Line]:
    """The messages of a session's events, in the order in which the listeners got them."""
    lines = Lines()
    for event in events:
        lines.add(said_by(event))
    return lines.kept
