"""The last text of a user is taken back, with all that came after it: to answer it again, or to edit it.

What is stored stays stored. An event that is added says from where on the events before it do not count any
more, and sets the state to what it was. `rewound` leaves them out, for the model, and `Lines` for everybody
else. ADK's own rewinding takes back whole invocations, and in live mode one of these has any number of turns.

In the same way an event says how much of an answer was heard: the rest of its words is left out, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.adk.events import Event

from adk_relay.adk.calls import WAITING
from adk_relay.adk.lines import Said, is_from, said_by
from adk_relay.adk.marks import MARKS, REWIND, Unheard
from adk_relay.core.messages import Place

_OTHERS = ("app:", "user:", "temp:")
"""With these, keys of the state are those of other conversations, too, or not stored."""


def rewound(events: list[Event]) -> list[Event]:
    """The events that count: those that were taken back are left out, and words that nobody has heard."""
    kept: list[Event] = []
    for event in events:
        said = said_by(event)
        if said.rewinds is None:
            kept.append(event)
        else:
            kept, _ = _split(kept, said.rewinds)
    for unheard in [said.unheard for said in map(said_by, kept) if said.unheard]:
        kept = _heard(kept, unheard)
    return kept


def _heard(events: list[Event], unheard: Unheard) -> list[Event]:
    """The same events, but of one answer only the words that were heard."""
    places = [
        said.place for event in events if event.author != "user" and any((said := said_by(event)).lines())
    ]
    about = [place for place in places if unheard.is_about(place)]
    left, kept = unheard.length, []
    for event in events:
        said = said_by(event)
        words = said.text + said.spoken
        if not (about and words and said.place == about[-1] and event.author != "user"):
            kept.append(event)
            continue
        if left < len(words):
            event = _shortened(event, left)
        left -= min(left, len(words))
        if any(said_by(event).lines()) or event.get_function_calls() or event.get_function_responses():
            kept.append(event)
    return kept


def _shortened(event: Event, length: int) -> Event:
    """The same event with the beginning of its words. It is another object: a store may keep the first."""
    event = event.model_copy(deep=True)
    for part in (event.content and event.content.parts) or ():
        if part.text and not part.thought:
            part.text, length = part.text[:length], length - min(length, len(part.text))
    if event.content and event.content.parts:
        event.content.parts = [part for part in event.content.parts if part.text != ""]
    if spoken := event.output_transcription:
        spoken.text = (spoken.text or "")[:length]
    return event


def rewinding(place: Place, events: list[Event], state: Mapping[str, Any], keep: frozenset[str]) -> Event:
    """The event that takes back what is at a place, and all after it.

    Args:
        events: all of the session that count.
        keep: keys of the state that stay.
    """
    left, removed = _split(events, place)
    event = Event(author="relay", custom_metadata={REWIND: [*place]})
    changed = {key for each in removed for key in each.actions.state_delta}
    changed -= {*MARKS, WAITING, *keep}
    for key in changed:
        if not key.startswith(_OTHERS):
            before = (each.actions.state_delta for each in reversed(left))
            event.actions.state_delta[key] = next((delta[key] for delta in before if key in delta), None)
    calls: dict[str, Any] = state.get(WAITING) or {}
    ids = {each.id for each in removed}
    waiting = {tool_id: kept for tool_id, kept in calls.items() if kept[-1].get("id") not in ids}
    if waiting != calls:
        event.actions.state_delta[WAITING] = waiting
    return event


def changes_state(place: Place, events: list[Event]) -> bool:
    """Whether something is taken back that has set more in the state than relay's own marks."""
    _, removed = _split(events, place)
    return any({*event.actions.state_delta} - MARKS for event in removed)


def counts_from(place: Place, events: list[Event]) -> bool:
    """Whether any of these events would be taken back."""
    return bool(_split(events, place)[1])


def _split(events: list[Event], place: Place) -> tuple[list[Event], list[Event]]:
    """The events that count when all from this place on is taken back, and the others."""
    left: list[Event] = []
    removed: list[Event] = []
    for event in events:
        at = _place(said_by(event))
        # An answer that was cut may be stored after the text that has cut it.
        is_before = at is not None and at.epoch == place.epoch and at.seq < place.seq
        is_taken_back = is_from(at, place) or (bool(removed) and not is_before)
        (removed if is_taken_back else left).append(event)
    return left, removed


def _place(said: Said) -> Place | None:
    if said.unheard:
        return said.unheard.place
    return said.place if any(said.lines()) else None
