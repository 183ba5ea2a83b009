"""The stored events of tool calls that wait for a user.

A user may answer after a long time, and only the last events of a session are read. So the events that such a
call needs are in the session's state, too. The state is read as a whole, and changes with the event that
changes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from google.adk.events import Event
from google.adk.flows.llm_flows.functions import find_event_by_function_call_id
from google.adk.sessions import Session
from google.genai import types
from pydantic import ValidationError

from adk_relay.adk.tools import jsonable
from adk_relay.core.messages import ToolStart
from adk_relay.core.times import iso

MOST = 64
"""Calls of one conversation that wait at most: the oldest is forgotten."""

WAITING = "relay_waiting"
"""The key in the state: the events of each call, in order, by the id of the call."""


def keep(event: Event, session: Session) -> None:
    """Adds to an event, before it is stored, what it changes of the calls that wait."""
    if event.partial:
        return
    before: dict[str, Any] = session.state.get(WAITING) or {}
    calls = dict(before)
    if event.author == "user":
        # ADK deals with an answer until the user has said something else.
        calls = {tool_id: kept for tool_id, kept in calls.items() if kept[-1]["author"] != "user"}
    for call in event.get_function_calls():
        if call.id and call.id in (event.long_running_tool_ids or ()):
            calls.pop(call.id, None)  # some models use an id again
            calls[call.id] = [_stored(each) for each in (*_asks_for(call, session.events), event)]
    for response in event.get_function_responses():
        if response.id in calls:
            kept = calls[response.id]
            if event.author == "user":
                # Without the answer, which may be a secret: while it is needed, it is among the last events.
                calls[response.id] = [*kept, {"author": "user", "id": event.id}]
            else:  # of what the tool itself has returned so far, only the last counts
                calls[response.id] = [kept[0], _stored(event)]
    while len(calls) > MOST:
        del calls[next(iter(calls))]
    if calls != before:
        event.actions.state_delta[WAITING] = calls


def keep_change(changed: Event, event: Event) -> None:
    """Lets what `keep` has added to an event be in the one that a plugin returns in its place."""
    if WAITING in event.actions.state_delta and "actions" in changed.model_fields_set:
        changed.actions.state_delta[WAITING] = event.actions.state_delta[WAITING]


def with_waiting(session: Session) -> list[Event]:
    """A session's events, and before them those of the calls that wait, if they are not among them.

    Also those of a call that was just answered: ADK needs them to deal with the answer.
    """
    known = {event.id for event in session.events}
    last_of_user = next((event.id for event in reversed(session.events) if event.author == "user"), None)
    missing: dict[str, Event] = {}
    for stored in (session.state.get(WAITING) or {}).values():
        with suppress(ValidationError):  # of another version of ADK: the call can't be answered any more
            events = [Event.model_validate(each) for each in stored]
            if events[-1].author != "user" or events[-1].id == last_of_user:
                missing |= {event.id: event for event in events if event.id not in known}
    return [*sorted(missing.values(), key=lambda event: event.timestamp), *session.events]


def waiting_in(events: Iterable[Event]) -> list[ToolStart]:
    """The calls that wait in a session."""
    calls: dict[str, ToolStart] = {}
    for event in events:
        for call in event.get_function_calls():
            if call.id and call.id in (event.long_running_tool_ids or ()):
                name, arguments = call.name or "", jsonable(call.args)
                calls[call.id] = ToolStart(0, call.id, name, arguments, when(event), is_pending=True)
        for response in event.get_function_responses():
            if event.author == "user":
                calls.pop(response.id or "", None)
            elif waiting := calls.get(response.id or ""):
                calls[waiting.tool_id] = replace(waiting, interim=jsonable(response.response))
    return [*calls.values()][-MOST:]


def when(event: Event) -> str:
    """When an event happened, as messages tell it (ISO 8601)."""
    return iso(event.timestamp)


def _asks_for(call: types.FunctionCall, events: list[Event]) -> Iterator[Event]:
    """The events of the call that a request of ADK's own is about: the call, and what it has returned."""
    arguments = call.args or {}
    original = arguments.get("originalFunctionCall")
    tool_id = original.get("id") if isinstance(original, dict) else arguments.get("functionCallId")
    if tool_id and (called := find_event_by_function_call_id(events, tool_id)):
        yield called
        for event in events[events.index(called) :]:
            if any(response.id == tool_id for response in event.get_function_responses()):
                yield event
                return


def _stored(event: Event) -> dict[str, Any]:
    # Without what it changed in the state, where it would be in itself.
    return event.model_dump(mode="json", exclude_none=True, exclude={"actions": {"state_delta"}})
