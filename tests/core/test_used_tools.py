"""The tools that a history keeps: short, few, and with the answers that have used them."""

from __future__ import annotations

import json
from typing import Any

from adk_relay.core.history import History
from adk_relay.core.messages import Text, ToolComplete, ToolStart, TurnEnd, Written
from adk_relay.core.used_tools import LONGEST, MOST, size_of


class Teller:
    """Records messages."""

    def __init__(self) -> None:
        self.history = History()
        self.seq = 0

    def ask(self, text: str) -> None:
        self.history.record(Written(self._next(), text, "alice", "", 0), None)

    def call(self, tool_id: str, result: Any = None, name: str = "clock", **more: Any) -> None:
        start = ToolStart(self._next(), tool_id, name, {"of": tool_id}, "now", **more)
        self.history.record(start, None)
        if result is not None:
            self.complete(tool_id, result)

    def complete(self, tool_id: str, result: Any) -> None:
        self.history.record(ToolComplete(self._next(), tool_id, "clock", result, "now"), None)

    def say(self, text: str) -> None:
        self.history.record(Text(self._next(), text), None)

    def end(self, *, interrupted: bool = False) -> None:
        self.history.record(TurnEnd(self._next(), interrupted), None)
        self.history.check()

    def used(self) -> list[tuple[str, list[tuple[str, Any]]]]:
        """The text of each answer, and its tools with their results."""
        return [
            (line.text, [(call.tool_id, call.result) for call in line.tools])
            for line in self.history.lines()
            if line.role == "agent"
        ]

    def _next(self) -> int:
        self.seq += 1
        return self.seq


def test_what_clients_get_is_bounded() -> None:
    teller = Teller()
    for number in range(10):
        teller.ask(f"question {number}")
        for tool in range(MOST + 3):
            teller.call(f"{number}-{tool}", {"long": "ä" * 10_000})
        teller.say("answer")
        teller.end()
    lines = teller.history.lines()
    assert 2 <= len(lines) < 18
    assert len(json.dumps([str(line) for line in lines], ensure_ascii=False).encode()) < 3 * 1024 * 1024
    last = lines[-1]
    assert [call.tool_id for call in last.tools] == [f"9-{tool}" for tool in range(3, MOST + 3)]
    assert all(call.is_truncated and len(call.result) == LONGEST for call in last.tools)
    assert size_of(last.tools) > MOST * LONGEST


def test_tools_are_with_the_answer_that_has_used_them() -> None:
    teller = Teller()
    teller.ask("one")
    teller.call("a", 1)
    teller.say("First.")
    teller.call("b")
    assert teller.used() == [("First.", [("a", 1), ("b", None)])]
    teller.end()
    teller.complete("b", 2)  # when the answer is over
    assert teller.used() == [("First.", [("a", 1), ("b", 2)])]
    teller.call("late", 3, late=True)
    assert teller.used() == [("First.", [("a", 1), ("b", 2), ("late", 3)])]


def test_tools_of_an_answer_without_words_are_with_the_next_one() -> None:
    teller = Teller()
    teller.ask("one")
    teller.call("waits", is_pending=True, interim={"ticket": 7})
    teller.call("asks", name="adk_request_confirmation")
    teller.end()
    teller.complete("waits", "yes")
    teller.say("Done.")
    assert teller.used() == [("Done.", [("waits", "yes")])]
    teller.end()


def test_tools_of_an_interrupted_answer_without_words_are_with_none() -> None:
    teller = Teller()
    teller.ask("one")
    teller.call("a", 1)
    teller.end(interrupted=True)
    teller.say("Sorry.")
    teller.end()
    teller.ask("two")
    teller.call("b", 2)
    teller.say("Two.")
    teller.end()
    teller.call("c", 3)
    teller.end()
    teller.ask("three")
    teller.say("Three.")
    assert teller.used() == [("Sorry.", []), ("Two.", [("b", 2)]), ("Three.", [])]
