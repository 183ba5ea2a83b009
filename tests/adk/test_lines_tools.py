"""Which of a session's messages have which tools, and which were interrupted."""

from __future__ import annotations

from typing import Any

from google.adk.events import Event, EventActions
from google.genai import types

from adk_relay.adk.lines import Lines, said_by, said_in
from adk_relay.adk.marks import CUT, PLACE


def event(author: str, *parts: types.Part, seq: int = 0, cut: bool = False, **more: Any) -> Event:
    role = "user" if author == "user" else "model"
    content = types.Content(role=role, parts=[*parts]) if parts else None
    metadata = ({PLACE: ["e", seq]} if seq else {}) | ({CUT: True} if cut else {})
    return Event(author=author, content=content, custom_metadata=metadata or None, **more)


def said(text: str, author: str = "agent", **more: Any) -> Event:
    return event(author, types.Part(text=text), **more)


def called(tool_id: str, **more: Any) -> Event:
    call = types.FunctionCall(id=tool_id, name="clock", args={"of": tool_id})
    return event("agent", types.Part(function_call=call), **more)


def returned(tool_id: str, result: Any, author: str = "agent", **more: Any) -> Event:
    response = types.FunctionResponse(id=tool_id, name="clock", response={"result": result})
    return event(author, types.Part(function_response=response), **more)


def used(*events: Event) -> list[tuple[str, list[tuple[str, Any]]]]:
    """The messages with their tools and results: the same from events, and from what a database has."""
    found = []
    for all_said in (map(said_by, events), (said_in(each.model_dump(mode="json")) for each in events)):
        lines = Lines()
        for each in all_said:
            lines.add(each)
        found.append(lines.kept)
    assert found[0] == found[1]
    assert [line.timestamp for line in found[0]] == [line.timestamp for line in found[1]]
    return [
        (
            line.text + "!" * line.interrupted,
            [(call.tool_id, call.result and call.result["result"]) for call in line.tools],
        )
        for line in found[0]
    ]


END = {"turn_complete": True}


def test_a_tool_that_was_called_after_the_words() -> None:
    events = [said("Go", "user", seq=1), said("I do.", seq=2), called("a", seq=2), returned("a", 1)]
    assert used(*events, event("agent", **END), said("And?", "user", seq=5), said("So.", seq=6)) == [
        ("Go", []),
        ("I do.", [("a", 1)]),
        ("And?", []),
        ("So.", []),
    ]


def test_tools_of_an_interrupted_turn_are_not_with_the_next_one() -> None:
    """The question that interrupts it may be stored before the interruption."""
    events = [said("Go", "user", seq=1), called("a"), returned("a", 1), said("Stop", "user", seq=4)]
    events += [event("agent", interrupted=True), event("agent", **END), said("Stopped.", seq=5)]
    assert used(*events) == [("Go", []), ("Stop", []), ("Stopped.", [])]


def test_a_question_that_is_heard_late_takes_no_tool_away() -> None:
    events = [called("a"), returned("a", 1), said("Time?", "user", seq=3), said("Noon.", seq=4)]
    assert used(*events) == [("Time?", []), ("Noon.", [("a", 1)])]


def test_a_tool_that_waits_has_returned_when_the_user_has_answered() -> None:
    waiting = called("w", long_running_tool_ids={"w"})
    asks = EventActions(requested_tool_confirmations={"a": {}})  # type: ignore[dict-item]
    events = [waiting, returned("w", "so far"), called("a"), returned("a", "ask first", actions=asks)]
    events += [event("agent", **END), said("Well.", seq=3)]
    assert used(*events) == [("Well.", [("w", None), ("a", None)])]
    events += [returned("w", "yes", "user"), returned("a", "done")]
    assert used(*events) == [("Well.", [("w", "yes"), ("a", "done")])]


def test_an_answer_is_interrupted_if_any_part_of_it_is() -> None:
    interruption = event("agent", interrupted=True, seq=2)
    assert used(said("One", seq=2), interruption) == [("One!", [])]
    assert used(said("One", seq=2, cut=True), said(" two", seq=2)) == [("One two!", [])]
    assert used(said("One", seq=2), said("Two", seq=4), interruption) == [("One!", []), ("Two", [])]
