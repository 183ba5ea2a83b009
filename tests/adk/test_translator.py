"""What ADK's events become: which of the service's ends of a turn ends it for the users."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
from google.adk.events import Event
from google.genai import types

from adk_relay.adk.translator import Translator
from adk_relay.adk.waiting import CONFIRMATION
from adk_relay.core.messages import Message, Place, ToolStart, TurnEnd, UserText
from support.gemini import NATIVE_AUDIO_2

GEMINI_3 = "gemini-3.8-live"
END = Event(author="tester", turn_complete=True)


def an_event(part: types.Part, **more: Any) -> Event:
    return Event(author="tester", content=types.Content(role="model", parts=[part]), **more)


def call(name: str = "clock", **more: Any) -> Event:
    return an_event(types.Part(function_call=types.FunctionCall(id=name, name=name, args={})), **more)


def result(name: str = "clock") -> Event:
    returned = types.FunctionResponse(id=name, name=name, response={"result": "noon"})
    return an_event(types.Part(function_response=returned))


def words(text: str, *, partial: bool = True) -> Event:
    return an_event(types.Part(text=text), partial=partial)


def asked(model: str) -> Translator:
    """A translator whose model was asked something."""
    translator = Translator(count(1).__next__, lambda of_answer: Place("epoch", 1))
    translator.connected(model)
    translator.turn.take(UserText("one"))
    return translator


def translate(translator: Translator, *events: Event) -> list[Message]:
    return [message for event in events for message in translator.messages(event)]


def ends(messages: list[Message]) -> int:
    return sum(isinstance(message, TurnEnd) for message in messages)


@pytest.mark.parametrize("model", [GEMINI_3, NATIVE_AUDIO_2])
def test_up_to_the_second_generation_the_end_before_a_tools_result_is_early(model: str) -> None:
    translator = asked(model)
    assert ends(translate(translator, call(), result(), END)) == (model == GEMINI_3)
    translate(translator, words("noon"))
    assert ends(translate(translator, END)) == 1


@pytest.mark.parametrize("sound", [False, True])
def test_an_end_after_words_is_not_early(sound: bool) -> None:
    translator = asked(NATIVE_AUDIO_2)
    translate(translator, call(), result())
    assert translator.sound(bytes(4)) if sound else translate(translator, words("noon"))
    assert ends(translate(translator, END)) == 1


def test_an_end_on_a_new_connection_is_not_early() -> None:
    translator = asked(NATIVE_AUDIO_2)
    translate(translator, call(), result())
    translator.connected(NATIVE_AUDIO_2)
    assert ends(translate(translator, END)) == 1


def test_a_tool_whose_turn_was_interrupted_keeps_nobody_waiting() -> None:
    translator = asked(GEMINI_3)
    translate(translator, call())
    assert translator.is_agent_busy
    assert ends(translate(translator, Event(author="tester", interrupted=True))) == 1
    assert not translator.is_agent_busy


def test_nothing_is_left_to_be_stored_after_the_end() -> None:
    translator = asked(GEMINI_3)
    translate(translator, words("You "), words("said"))
    assert translator.unstored == "You said"
    translate(translator, END)
    assert translator.unstored == ""


def test_a_request_for_a_confirmation_after_the_end_opens_no_turn() -> None:
    translator = asked(GEMINI_3)
    translate(translator, words("Please confirm."), END)
    (start,) = translate(translator, call(CONFIRMATION, long_running_tool_ids={CONFIRMATION}))
    assert isinstance(start, ToolStart)
    assert (start.late, start.is_pending, translator.turn.is_open) == (True, True, False)


def test_what_a_waiting_tool_returns_meanwhile_is_answered_after_an_early_end() -> None:
    translator = asked(NATIVE_AUDIO_2)
    translate(translator, call(long_running_tool_ids={"clock"}))
    assert ends(translate(translator, result(), END)) == 0
    assert ends(translate(translator, words("It is pending."), END)) == 1


@pytest.mark.parametrize("model", [GEMINI_3, NATIVE_AUDIO_2])
def test_a_turn_pauses_only_when_no_other_tool_runs(model: str) -> None:
    translator = asked(model)
    translate(translator, call("ask", long_running_tool_ids={"ask"}), call())
    assert translator.pause() == []
    translate(translator, result())
    if model == NATIVE_AUDIO_2:
        assert translator.pause() == [], "an end is still to come"
        assert ends(translate(translator, END)) == 0
    assert ends([*translator.pause()]) == 1
    assert translator.pause() == []
    assert ends(translate(translator, END)) == 0, "the service's own end of this turn"
