"""The turn: its table is whole, and it knows whose answer a simulated service gives."""

from __future__ import annotations

import time
from collections import deque
from itertools import count
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adk_relay.adk import turn as module
from adk_relay.adk.turn import TRANSITIONS, Event, State, TransitionError, Turn
from adk_relay.core.messages import UserAudio, UserText

SPEECH = UserAudio(b"\0\0", is_speech=True)


def test_the_table_is_whole() -> None:
    for state in State:
        assert TRANSITIONS[state].keys() == (set() if state is State.LOST else {*Event})


@pytest.mark.parametrize("event", ["speak", "hear", "complete", "interrupt", "lose"])
def test_a_lost_turn_goes_no_further(event: str) -> None:
    turn = Turn()
    turn.lose()
    with pytest.raises(TransitionError, match=r"LOST|lost"):
        getattr(turn, event)()


def test_the_rest_of_a_lost_welcome_is_owed_though_the_text_after_it_was_not_given() -> None:
    turn = Turn()
    turn.speak()
    turn.take(UserText("one"))
    turn.lose()
    turn.take_back(UserText("one"))
    assert turn.owed == "rest"


def test_an_answer_is_not_gone_on_with_if_the_model_had_got_another_question() -> None:
    one, two = UserText("one", "1"), UserText("two", "2")
    turn = Turn()
    turn.take(one)
    turn.speak()
    turn.take(two)
    assert turn.has_next
    turn.lose()
    assert (turn.owed, turn.owed_text) == ("answer", two)


def test_the_rest_that_is_owed_is_of_the_text_that_was_asked() -> None:
    one = UserText("one", "id")
    turn = Turn()
    turn.take(one)
    turn.speak()
    turn.lose()
    assert (turn.owed, turn.owed_text) == ("rest", one)
    after = Turn(owed=turn.owed, text=turn.owed_text)
    after.speak()
    assert after.is_about(one)


def test_a_transcript_that_comes_after_the_answer_is_no_question() -> None:
    turn = Turn()
    turn.take(SPEECH)
    turn.speak()
    turn.complete()
    turn.hear()
    assert not turn.owed
    turn.take(SPEECH)
    turn.hear()
    assert turn.owed


def test_a_transcript_that_a_text_brings_forth_is_no_second_question() -> None:
    """Gemini 2.x tells the transcript of what it answers when a text interrupts the answer."""
    turn = Turn()
    turn.take(SPEECH)
    turn.speak()
    turn.take(UserText("wait"))
    turn.hear()
    turn.interrupt()
    turn.complete()
    turn.speak()
    turn.complete()
    assert turn.owed == ""


def test_speech_that_the_model_does_not_answer_is_not_owed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn()
    turn.take(SPEECH)
    turn.hear()
    turn.forget_unanswered()
    assert [turn.owed] == ["answer"]
    monkeypatch.setattr(module, "_UNDERSTOOD", 0.0)
    turn.forget_unanswered()
    assert [turn.owed] == [""]
    assert turn.is_uncertain


def test_a_text_waits_for_the_first_word_of_the_answer_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn()
    assert not turn.holds()
    turn.take(UserText("one"))
    assert turn.holds()
    turn.speak()
    assert not turn.holds()
    turn.take(UserText("two"))
    assert turn.holds(), "a third text waits until the second is answered"
    turn.interrupt()
    assert turn.holds()
    monkeypatch.setattr(module, "_HOLD", 0.0)
    assert not turn.holds()


def test_two_texts_that_cross_make_a_turn_uncertain() -> None:
    turn = Turn()
    turn.take(UserText("one"))
    assert not turn.crosses()
    turn.take(UserText("two"))
    assert turn.crosses()
    assert not turn.crosses(), "it is told once"
    assert turn.is_uncertain


def test_an_interruption_is_told_once() -> None:
    turn = Turn()
    turn.take(UserText("one"))
    turn.speak()
    turn.take(UserText("two"))
    assert turn.interrupt()
    assert not turn.interrupt()
    assert turn.waits_for(UserText("two"))


@pytest.mark.parametrize("interrupts", [False, True])
def test_speech_that_is_understood_during_an_answer_is_a_question_if_it_interrupts(interrupts: bool) -> None:
    turn = Turn()
    turn.take(UserText("one"))
    turn.speak()
    turn.take(SPEECH)
    turn.hear()
    assert turn.interrupt() if interrupts else turn.complete()
    assert turn.owed == ("answer" if interrupts else "")


def test_a_stopped_question_is_given_up_when_its_answer_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn()
    turn.take(UserText("one"))
    turn.stop()
    monkeypatch.setattr(module, "_HOLD", 0.0)
    turn.take(UserText("two"))
    assert turn.speak()
    assert turn.is_about(UserText("two"))


def test_the_answer_to_a_stopped_question_may_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn()
    turn.take(UserText("one"))
    turn.stop()
    assert (turn.is_stopped_early, turn.is_uncertain) == (True, False)
    monkeypatch.setattr(module, "_FIRST_WORD", 0.0)
    assert (turn.is_stopped_early, turn.is_uncertain) == (False, True)


def test_a_text_waits_from_when_the_text_before_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    turn = Turn()
    turn.take(UserText("one"))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now + 3))
    assert turn.holds() == 0.0
    turn.sent()
    assert turn.holds() == 2.0


@pytest.mark.parametrize("is_open", [False, True])
def test_the_result_of_a_call_that_waited_is_a_question_unless_an_answer_is_open(is_open: bool) -> None:
    turn = Turn()
    if is_open:
        turn.speak()
    turn.take_result()
    assert [turn.owed] == ["answer"]
    turn.speak()
    turn.complete()
    assert [turn.owed] == [""]


class ServiceMachine(RuleBasedStateMachine):
    """A service that is some way off: what each side says is on its way for a while.

    The service answers what it gets, in order. A question interrupts the answer before it.
    Texts are given only when the turn does not hold them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turn = Turn()
        self.names = count(1)
        self.to_service: deque[UserText] = deque()
        self.to_relay: deque[tuple[str, UserText]] = deque()
        self.answering: UserText | None = None  # what the service answers
        self.open: list[UserText] = []  # given, and the end of the answer has not come
        self.stopped: set[str] = set()
        self.told: list[str] = []

    @precondition(lambda self: not self.turn.holds())
    @rule(stopped=st.booleans())
    def give(self, stopped: bool) -> None:
        text = UserText(f"text {next(self.names)}", stopped=stopped)
        self.turn.take(text)
        self.to_service.append(text)
        self.open.append(text)
        if stopped:
            self.stopped.add(text.text)

    @precondition(lambda self: self.to_service)
    @rule()
    def arrive(self) -> None:
        if self.answering:
            self.to_relay += [("interrupt", self.answering), ("trail", self.answering)]
        self.answering = self.to_service.popleft()

    @precondition(lambda self: self.answering)
    @rule()
    def say(self) -> None:
        assert self.answering
        self.to_relay.append(("speak", self.answering))

    @precondition(lambda self: self.answering)
    @rule()
    def finish(self) -> None:
        assert self.answering
        self.to_relay.append(("complete", self.answering))
        self.answering = None

    @precondition(lambda self: self.to_relay)
    @rule()
    def hear(self) -> None:
        kind, text = self.to_relay.popleft()
        is_wanted = text.text not in self.stopped
        if kind == "trail":
            assert not self.turn.complete()
        elif kind == "speak":
            assert self.turn.speak() is is_wanted
            assert self.turn.is_about(text)
        else:
            self.open.remove(text)
            is_told = self.turn.interrupt() if kind == "interrupt" else self.turn.complete()
            assert is_told is is_wanted
            assert self.turn.is_about(text)
            self.told += [text.text] if is_told else []

    @rule()
    def stop(self) -> None:
        wanted = [text.text for text in self.open if text.text not in self.stopped]
        assert self.turn.stop() is bool(wanted)
        self.stopped.update(wanted)

    @rule()
    def lose(self) -> None:
        """The next run owes what this one did; of several questions it gives one answer, to the last."""
        wanted = [text for text in self.open if text.text not in self.stopped]
        self.turn.lose()
        assert bool(self.turn.owed) == bool(wanted)
        assert self.turn.owed_text == (wanted[-1] if wanted else None)
        self.turn = Turn(owed=self.turn.owed, text=self.turn.owed_text)
        self.to_service.clear()
        self.to_relay.clear()
        self.open = wanted[-1:]
        self.answering = wanted[-1] if wanted else None

    @invariant()
    def agrees(self) -> None:
        assert bool(self.turn.owed) == any(text.text not in self.stopped for text in self.open)
        assert len(self.told) == len({*self.told}), "an end was told twice"
        assert not self.turn.is_uncertain


TestTurn = ServiceMachine.TestCase
