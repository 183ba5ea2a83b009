"""The turn's state machine: its table is whole, and it tells and owes what a simple model of it does."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from adk_relay.adk.turn import OPEN, STILL_ASKED, TRANSITIONS, Event, State, TransitionError, Turn
from adk_relay.core.messages import UserAudio, UserText


def test_the_table_has_every_state_and_nothing_that_leads_nowhere() -> None:
    assert TRANSITIONS.keys() == {*State}
    reached, pending = {State.IDLE, State.ASKED}, [State.IDLE, State.ASKED]
    while pending:
        for state in TRANSITIONS[pending.pop()].values():
            for after in {state, STILL_ASKED.get(state, state)} - reached:
                reached.add(after)
                pending.append(after)
    assert reached == {*State}


def test_only_a_stop_can_come_at_the_wrong_time() -> None:
    """`Turn.stop()` asks first whether anything is owed; the model may send anything at any time."""
    for state, transitions in TRANSITIONS.items():
        if state is not State.LOST:
            assert {*Event} - transitions.keys() <= {Event.STOP}, state


@pytest.mark.parametrize("event", ["speak", "hear", "complete", "interrupt", "lose"])
def test_a_lost_turn_goes_no_further(event: str) -> None:
    turn = Turn()
    turn.lose()
    with pytest.raises(TransitionError, match="cannot happen in LOST"):
        getattr(turn, event)()


def test_the_rest_of_a_lost_welcome_is_owed_though_the_text_after_it_was_not_given() -> None:
    turn = Turn()
    turn.speak()
    turn.take(UserText("one"))
    turn.lose()
    turn.take_back()
    assert turn.owed == "rest"


class TurnMachine(RuleBasedStateMachine):
    """The model knows questions and answers, and no states.

    It has one answer at a time: whether it has begun, and whether the user has stopped it. `questions` are
    open ones, `meanwhile` those of them that came after the answer had begun.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turn = Turn()
        self.questions = self.meanwhile = 0
        self.stopped = 0  # questions that the user stopped, and the agent has not begun to answer
        self.has_begun = self.is_stopped = self.heard = False
        self.trailing = False  # a turn_complete of what was interrupted is to come
        self.is_rest = False  # the answer to the first question was begun, and lost
        self.is_lost = False

    def ask(self) -> None:
        self.questions += 1
        self.meanwhile += 1
        if self.is_stopped and not self.has_begun:  # the new question is not stopped, and the old one is gone
            self.is_stopped, self.trailing = False, True

    def stop_all(self) -> None:
        self.stopped += self.meanwhile if self.has_begun else self.questions
        self.questions = self.meanwhile = 0
        self.is_stopped, self.is_rest = True, False

    def end(self, questions: int) -> None:
        self.questions, self.meanwhile = questions, 0
        self.has_begun = self.heard = self.is_rest = False
        if questions:
            self.stopped = 0
        self.is_stopped = bool(self.stopped)

    @precondition(lambda self: not self.is_lost)
    @rule(stopped=st.booleans())
    def text(self, stopped: bool) -> None:
        self.turn.take(UserText("one", stopped=stopped))
        self.ask()
        if stopped:
            self.stop_all()
        else:
            self.stopped = 0
        assert self.turn.given

    @precondition(lambda self: not self.is_lost)
    @rule()
    def sound(self) -> None:
        """Sound is no question before it is understood."""
        self.turn.take(UserAudio(b"\0\0"))
        assert self.turn.given

    @precondition(lambda self: not self.is_lost)
    @rule()
    def hear(self) -> None:
        self.turn.hear()
        if self.has_begun:
            self.heard = True
        else:
            self.ask()
            self.stopped = 0

    @precondition(lambda self: not self.is_lost)
    @rule()
    def speak(self) -> None:
        is_first = not self.has_begun
        assert self.turn.speak() is not self.is_stopped
        if is_first:
            self.stopped = max(self.stopped - 1, 0)
            self.meanwhile, self.has_begun = 0, True
            self.heard = self.trailing = self.is_rest = False
            assert not self.turn.given

    @precondition(lambda self: not self.is_lost)
    @rule()
    def stop(self) -> None:
        is_owed = bool(self.questions or (self.has_begun and not self.is_stopped))
        assert self.turn.stop() is is_owed
        if is_owed:
            self.stop_all()

    @precondition(lambda self: not self.is_lost)
    @rule()
    def interrupt(self) -> None:
        is_told = not (self.is_stopped or self.trailing)
        assert self.turn.interrupt() is is_told
        if self.has_begun:
            self.end(self.meanwhile + self.heard)
        else:
            self.stopped -= self.is_stopped
            self.end(max(self.questions - is_told, 0))
        self.trailing = True

    @precondition(lambda self: not self.is_lost)
    @rule()
    def complete(self) -> None:
        is_told = not (self.is_stopped or self.trailing)
        assert self.turn.complete() is is_told
        if self.trailing:
            self.trailing = False
        elif self.has_begun:
            self.end(self.meanwhile)
        else:
            self.stopped -= self.is_stopped
            self.end(max(self.questions - 1, 0))

    @precondition(lambda self: not self.is_lost)
    @rule()
    def lose(self) -> None:
        is_cut_short = self.has_begun and not self.is_stopped
        assert self.turn.lose() is is_cut_short
        if is_cut_short:
            self.is_rest = True
            self.questions = max(self.questions, self.meanwhile + 1)
        self.is_lost, self.has_begun = True, False

    @precondition(lambda self: self.is_lost and self.meanwhile)
    @rule()
    def take_back(self) -> None:
        self.turn.take_back()
        self.questions -= 1
        self.meanwhile -= 1
        assert self.turn.owed or not self.is_rest, "the rest of what was cut is forgotten"

    @precondition(lambda self: self.is_lost)
    @rule()
    def begin_again(self) -> None:
        """The next run owes what this one did; of several questions it gives one answer."""
        owed = self.turn.owed
        self.turn = Turn(owed=owed)
        self.stopped = 0
        self.end(1 if owed else 0)
        self.is_lost, self.trailing, self.is_rest = False, False, owed == "rest"

    @invariant()
    def agrees(self) -> None:
        is_speaking = self.has_begun and not self.is_stopped
        assert bool(self.turn.owed) == bool(self.questions or is_speaking)
        assert (self.turn.owed == "rest") == (self.is_rest and not self.meanwhile)
        assert self.turn.is_open == self.has_begun == (self.turn.state in OPEN)
        assert self.turn.is_stopped_early == (
            self.is_stopped and not self.has_begun and self.turn.state is not State.LOST
        )


TestTurn = TurnMachine.TestCase
