"""The state of a turn: a state machine as a table.

A turn goes from a question to its `turn_complete` or `interrupted`. The model and the user can speak at the
same time: a question can be asked, an answer stopped, or a connection lost at any moment. The meaning of such
an event depends on the state only, and the table below has every case.
"""

from __future__ import annotations

import time
from enum import Enum, auto
from typing import Literal

from adk_relay.core.messages import ForModel, UserText

Owed = Literal["", "answer", "rest"]
"""What the user waits for: nothing, the answer to a question, or the rest of an answer that was cut."""

_FIRST_WORD = 5.0
"""Seconds within which a model begins to answer, if it answers at all."""


class State(Enum):
    """The states of a turn."""

    IDLE = auto()
    """The agent is silent, and nothing was asked."""
    ASKED = auto()
    """The model was given a question, and the agent has not begun to answer."""
    STOPPED = auto()
    """The user stopped the answer before its first word: if it comes, it is muted."""
    SPEAKING = auto()
    """The agent has begun to speak, and has not finished."""
    MUTED = auto()
    """The agent speaks, but the user has stopped this answer: it is not passed on."""
    CUT = auto()
    """The users were told of an interruption. The service's `turn_complete` for it is still to come."""
    CUT_ASKED = auto()
    """The same, and a question waits for its answer."""
    CUT_STOPPED = auto()
    """The same, and the user stopped the answer to that question before its first word."""
    LOST = auto()
    """The connection is gone: nothing more can happen in this turn."""


class Event(Enum):
    """What can happen in a turn."""

    ASK = auto()
    """A question: a text that the model was given, or speech that it has understood."""
    STOP = auto()
    """The user stops the answer that is owed."""
    SPEAK = auto()
    """The agent says something, or calls a tool."""
    INTERRUPT = auto()
    """The model says that the user interrupted it."""
    COMPLETE = auto()
    """The model says that its turn is complete."""
    LOSE = auto()
    """The connection is lost, or ends."""


class TransitionError(Exception):
    """An event came in a state in which it cannot happen."""


_S, _E = State, Event

TRANSITIONS: dict[State, dict[Event, State]] = {
    _S.IDLE: {
        _E.ASK: _S.ASKED,
        _E.SPEAK: _S.SPEAKING,
        _E.INTERRUPT: _S.CUT,
        _E.COMPLETE: _S.IDLE,
        _E.LOSE: _S.LOST,
    },
    _S.ASKED: {
        _E.ASK: _S.ASKED,
        _E.STOP: _S.STOPPED,
        _E.SPEAK: _S.SPEAKING,
        _E.INTERRUPT: _S.CUT,
        _E.COMPLETE: _S.IDLE,
        _E.LOSE: _S.LOST,
    },
    _S.STOPPED: {
        # The service may take the new question and the stopped one as one turn, or complete the first alone.
        _E.ASK: _S.CUT_ASKED,
        _E.SPEAK: _S.MUTED,
        _E.INTERRUPT: _S.CUT,
        _E.COMPLETE: _S.IDLE,
        _E.LOSE: _S.LOST,
    },
    _S.SPEAKING: {
        _E.ASK: _S.SPEAKING,
        _E.STOP: _S.MUTED,
        _E.SPEAK: _S.SPEAKING,
        _E.INTERRUPT: _S.CUT,
        _E.COMPLETE: _S.IDLE,
        _E.LOSE: _S.LOST,
    },
    _S.MUTED: {
        _E.ASK: _S.MUTED,
        _E.STOP: _S.MUTED,
        _E.SPEAK: _S.MUTED,
        _E.INTERRUPT: _S.CUT,
        _E.COMPLETE: _S.IDLE,
        _E.LOSE: _S.LOST,
    },
    _S.CUT: {
        _E.ASK: _S.CUT_ASKED,
        _E.SPEAK: _S.SPEAKING,
        _E.INTERRUPT: _S.CUT,
        _E.COMPLETE: _S.IDLE,
        _E.LOSE: _S.LOST,
    },
    _S.CUT_ASKED: {
        _E.ASK: _S.CUT_ASKED,
        _E.STOP: _S.CUT_STOPPED,
        _E.SPEAK: _S.SPEAKING,
        _E.INTERRUPT: _S.CUT,
        _E.COMPLETE: _S.IDLE,
        _E.LOSE: _S.LOST,
    },
    _S.CUT_STOPPED: {
        _E.ASK: _S.CUT_ASKED,
        _E.SPEAK: _S.MUTED,
        _E.INTERRUPT: _S.CUT,
        _E.COMPLETE: _S.STOPPED,
        _E.LOSE: _S.LOST,
    },
    _S.LOST: {},
}
"""The next state, if no question is left open, and none was stopped."""

STILL_ASKED = {_S.IDLE: _S.ASKED, _S.CUT: _S.CUT_ASKED}
"""The states that replace those of the table if a question is left open."""

STILL_STOPPED = {_S.IDLE: _S.STOPPED, _S.CUT: _S.CUT_STOPPED}
"""The states that replace those of the table if all questions that are left were stopped by the user."""

OPEN = frozenset({_S.SPEAKING, _S.MUTED})
"""The agent has begun to speak, and has not finished."""

CUT = frozenset({_S.CUT, _S.CUT_ASKED, _S.CUT_STOPPED})
"""The users were told of an interruption, and its `turn_complete` is still to come."""

STOPPED = frozenset({_S.STOPPED, _S.MUTED, _S.CUT_STOPPED})
"""The user has stopped the answer: neither its words nor its end are passed on."""


class Turn:
    """The present turn of a run.

    Args:
        owed: what the user still waits for from the run before.

    Invariants:
        A question is open in ASKED and CUT_ASKED, none in IDLE, STOPPED, CUT and CUT_STOPPED.
        `_asked_meanwhile` is at most `_questions`: it counts some of the open questions.
        Questions that were stopped are kept only while the answer is stopped, and nothing else was asked.
        The rest of an answer is owed only if an answer was begun and lost, until the agent speaks again.
    """

    def __init__(self, *, owed: Owed = "") -> None:
        self.state = State.ASKED if owed else State.IDLE
        self.given = False
        """The model was given user input since the agent last began to speak."""
        self._questions = 1 if owed else 0  # open questions; the one that is being answered is open, too
        self._asked_meanwhile = 0  # of these, the questions asked since the agent last began to speak
        self._stopped_questions = 0  # questions whose answers the user has stopped: these will be muted
        self._rest = owed == "rest"  # the answer to the first open question was begun, and lost
        self._heard_meanwhile = False  # speech was understood meanwhile: a question only if it interrupts
        self._stopped_at = 0.0

    @property
    def owed(self) -> Owed:
        """What the user waits for."""
        if self.state is State.SPEAKING:
            return "answer"
        if not self._questions:
            return ""
        return "rest" if self._rest and not self._asked_meanwhile else "answer"

    @property
    def is_open(self) -> bool:
        """The agent has begun to speak, and has not finished."""
        return self.state in OPEN

    @property
    def is_cut(self) -> bool:
        """The users were told of an interruption, and its `turn_complete` is still to come."""
        return self.state in CUT

    @property
    def is_stopped(self) -> bool:
        """The user has stopped the answer: its words are not passed on."""
        return self.state in STOPPED

    @property
    def is_stopped_early(self) -> bool:
        """The user stopped an answer, and its first word may still come."""
        is_silent = self.is_stopped and not self.is_open
        return is_silent and time.monotonic() - self._stopped_at < _FIRST_WORD

    def take(self, user_input: ForModel) -> None:
        """The model was given an input of the user."""
        self.given = True
        if isinstance(user_input, UserText):
            self._ask(stopped=user_input.stopped)

    def take_back(self) -> None:
        """The model was not given the last text after all. The turn is lost already."""
        assert self.state is State.LOST
        self._questions = max(self._questions - 1, 0)
        self._asked_meanwhile = max(self._asked_meanwhile - 1, 0)

    def hear(self) -> None:
        """The user's speech was understood.

        If this happens while the agent speaks, the transcript is usually late: the agent is answering it.
        """
        if self.is_open:
            self._heard_meanwhile = True
        else:
            self._ask()

    def speak(self) -> bool:
        """The agent says something; returns whether the user is to be told."""
        if not self.is_open:
            self.given = self._rest = self._heard_meanwhile = False
            self._asked_meanwhile = 0
            self._stopped_questions = max(self._stopped_questions - 1, 0) if self.is_stopped else 0
        self._go(Event.SPEAK)
        return not self.is_stopped

    def stop(self) -> bool:
        """The user stops the answer; returns whether there was anything to stop."""
        if not self.owed:
            return False
        self._stop()
        return True

    def interrupt(self) -> bool:
        """The model was interrupted; returns whether the user is to be told.

        The user is told of an interruption once, and not of the end of an answer that was stopped.
        """
        is_told = not (self.is_stopped or self.is_cut)
        if self.is_open:  # the question that interrupted the answer is still open
            self._questions = self._asked_meanwhile + self._heard_meanwhile
        elif is_told:
            self._questions = max(self._questions - 1, 0)
        elif self.is_stopped:
            self._stopped_questions -= 1
        self._end(Event.INTERRUPT)
        return is_told

    def complete(self) -> bool:
        """The model's turn is complete; returns whether the user is to be told."""
        if self.is_cut:  # it belongs to the turn that was interrupted
            self._go(Event.COMPLETE)
            return False
        is_told = not self.is_stopped
        if self.is_open:
            self._questions = self._asked_meanwhile
        elif is_told:
            self._questions = max(self._questions - 1, 0)
        else:
            self._stopped_questions -= 1
        self._end(Event.COMPLETE)
        return is_told

    def lose(self) -> bool:
        """The connection is gone; returns whether it cut an answer that the user was hearing."""
        is_cut = self.state is State.SPEAKING
        if is_cut:
            self._rest = True
            self._questions = max(self._questions, self._asked_meanwhile + 1)
        self._go(Event.LOSE)
        return is_cut

    def check(self) -> None:
        """Asserts the invariants."""
        assert 0 <= self._asked_meanwhile <= self._questions, "more questions were asked than are open"
        if self.state in (State.ASKED, State.CUT_ASKED):
            assert self._questions, f"{self.state} without a question"
        elif not self.is_open and self.state is not State.LOST:
            assert not self._questions, f"{self.state} with a question"
        if self.state in (State.STOPPED, State.CUT_STOPPED):
            assert self._stopped_questions > 0, f"{self.state} without a question that was stopped"
        elif self.state not in (State.MUTED, State.LOST):
            assert not self._stopped_questions, f"{self.state} with a question that was stopped"
        if self._rest:
            assert self.state in (State.ASKED, State.LOST), f"{self.state} owes the rest of an answer"

    def _ask(self, *, stopped: bool = False) -> None:
        self._questions += 1
        self._asked_meanwhile += 1
        self._go(Event.ASK)
        if stopped:
            self._stop()
        else:
            self._stopped_questions = 0  # the service may take them and this one as one turn

    def _stop(self) -> None:
        # The question that is being answered is stopped with its answer.
        self._stopped_questions += self._asked_meanwhile if self.is_open else self._questions
        self._questions = self._asked_meanwhile = 0
        self._rest = False
        self._stopped_at = time.monotonic()
        self._go(Event.STOP)

    def _end(self, event: Event) -> None:
        self._asked_meanwhile = 0
        self._rest = self._heard_meanwhile = False
        if self._questions:
            self._stopped_questions = 0
        self._go(event)

    def _go(self, event: Event) -> None:
        try:
            state = TRANSITIONS[self.state][event]
        except KeyError:
            raise TransitionError(f"{event.name} cannot happen in {self.state.name}") from None
        if self._questions:
            state = STILL_ASKED.get(state, state)
        elif self._stopped_questions:
            state = STILL_STOPPED.get(state, state)
        self.state = state
