"""The turn: which question the agent answers, and which answers are still owed.

The model and the users can speak at the same time, and what they say is on its way for a while. So it must
be said which question an answer is for. What is known:

- The model answers questions in the order in which it was given them. A question interrupts the answer that
  is open.
- An answer opens with its first word, sound or tool call. It ends with `turn_complete`, or with
  `interrupted` and then a `turn_complete` that tells nothing new.
- A question that the model was given after an answer had opened is not the one that is being answered.

So the open questions are a queue. The first word of an answer takes the first question out of the queue,
and so does an end that comes without a word. Speech becomes a question when its transcript comes. That may
be late: if an answer opened although nothing was asked, and somebody had spoken, the next transcript
belongs to that answer.

What is not known: while two questions are on their way, a service may answer both one after the other, both
in one answer, or only the second. Therefore

- a text waits until the text before it is being answered, for `_HOLD` seconds at most (`Turn.holds`);
- a text that is given after that time, or speech that is understood meanwhile, makes the turn *uncertain*.
  If somebody waits for the answer to one of these questions alone, the conversation tells them that it was
  interrupted. The next such request gets a new connection, whose history has everything in order.

The state machine, without the queue ("-": the state stays as it is):

    state     speak     interrupt  complete  lose
    SILENT    SPEAKING  CUT        -         LOST
    SPEAKING  -         CUT        SILENT    LOST
    CUT       SPEAKING  -          SILENT    LOST
    LOST

A question can be asked, and an answer be stopped, in each state but LOST; neither changes the state. It is
a user who stops an answer: its end is told at once, and the words that still come are not passed on.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from typing import Literal

from adk_relay.core.messages import ForModel, UserAudio, UserText
from adk_relay.core.recorded import Owing

Owed = Literal["", "answer", "rest"]
"""What the user waits for: nothing, the answer to a question, or the rest of an answer that was cut."""

_HOLD = 2.0
"""Seconds that a text waits for the first word of the answer before it. Models need less than one."""

_FIRST_WORD = 5.0
"""Seconds within which the first word of an answer comes that was stopped before it, if it comes at all."""

_UNDERSTOOD = 10.0
"""Seconds within which a model answers speech. It may also decide that it was not spoken to."""


class State(Enum):
    """The states of a turn."""

    SILENT = auto()
    """No answer is open."""
    SPEAKING = auto()
    """An answer is open. If a user has stopped it, it is not passed on."""
    CUT = auto()
    """The last answer was interrupted, and the model's `turn_complete` for it is still to come."""
    LOST = auto()
    """The connection is gone: nothing more can happen in this turn."""


class Event(Enum):
    """What can happen in a turn, and changes its state."""

    SPEAK = auto()
    """The agent says something, or calls a tool."""
    INTERRUPT = auto()
    """The model says that the user interrupted it."""
    COMPLETE = auto()
    """The model says that its turn is complete."""
    LOSE = auto()
    """The connection is lost, or ends."""


class TransitionError(Exception):
    """An event came after the connection was lost."""


_S, _E = State, Event

TRANSITIONS: dict[State, dict[Event, State]] = {
    _S.SILENT: {_E.SPEAK: _S.SPEAKING, _E.INTERRUPT: _S.CUT, _E.COMPLETE: _S.SILENT, _E.LOSE: _S.LOST},
    _S.SPEAKING: {_E.SPEAK: _S.SPEAKING, _E.INTERRUPT: _S.CUT, _E.COMPLETE: _S.SILENT, _E.LOSE: _S.LOST},
    _S.CUT: {_E.SPEAK: _S.SPEAKING, _E.INTERRUPT: _S.CUT, _E.COMPLETE: _S.SILENT, _E.LOSE: _S.LOST},
    _S.LOST: {},
}


@dataclass(slots=True, eq=False)
class Question:
    """Something that the model is to answer."""

    text: UserText | None = None
    """None: speech, or what a run before was asked."""
    heard: bool = False
    """It is speech: the model may decide that it was not spoken to."""
    stopped: bool = False
    """The user does not want the answer any more."""
    rest: bool = False
    """Its answer was begun on a connection that was lost: the rest is to come."""
    since: float = field(default_factory=time.monotonic)
    """When it was asked, or its answer stopped."""

    def recorded(self) -> Owing:
        """The same as it is recorded."""
        place = self.text and self.text.place
        return Owing(place.seq if place else 0, self.rest)


class Turn:
    """The present turn of a run.

    Args:
        owed: what the user still waits for from the run before.
        text: the question that this is the answer to, if it was a text.

    Invariants:
        `answered` is set only while an answer is open. A question is either open or being answered.
        Only the first open question can be one whose answer was begun before.
    """

    def __init__(self, *, owed: Owed = "", text: UserText | None = None) -> None:
        self.state = State.SILENT
        self.given = False
        """The model was given user input that no answer has been begun to."""
        self.answered: Question | None = None
        """The question that the open answer is for; None: nothing was asked, or no answer is open."""
        self._has_crossed = False  # two questions were on their way, or one was given up
        self._crosses = False  # the same, until `crosses()` has told it
        self._ended: Question | None = None  # the question of the turn that ended last
        self._questions: deque[Question] = deque()  # the open ones: no word of their answers has come
        self._is_muted = False  # a user has stopped the open answer
        self._has_spoken = False  # somebody spoke since the last answer opened
        self._is_unexplained = False  # the last answer was to speech whose transcript has not come yet
        self._heard_meanwhile = False  # speech was understood meanwhile: a question only if it interrupts
        if owed:
            self._questions.append(Question(text, rest=owed == "rest"))

    @property
    def owed(self) -> Owed:
        """What the user waits for."""
        if self.is_open and not self._is_muted:
            return "answer"
        wanted = [question for question in self._questions if not question.stopped]
        if not wanted:
            return ""
        return "rest" if wanted[-1].rest else "answer"

    @property
    def owed_text(self) -> UserText | None:
        """The text whose answer is owed: of several, the last. None: nothing is owed, or speech was asked."""
        open_questions = (*self._questions, *([self.answered] if self.answered else ()))
        wanted = [question for question in open_questions if not question.stopped]
        return wanted[-1].text if wanted and self.owed else None

    @property
    def owing(self) -> list[Question]:
        """The questions that would be owed if the connection were lost now, the oldest first."""
        wanted = [question for question in self._questions if not question.stopped]
        if self.is_open and not self._is_muted:
            wanted.insert(0, replace(self.answered or Question(), rest=True))
        return wanted

    @property
    def has_next(self) -> bool:
        """Whether the model was given another question, after the one that is being answered."""
        return any(not question.stopped for question in self._questions)

    @property
    def is_open(self) -> bool:
        """The agent has begun to speak, and has not finished."""
        return self.state is State.SPEAKING

    @property
    def is_muted(self) -> bool:
        """A user has stopped the open answer."""
        return self._is_muted

    @property
    def is_cut(self) -> bool:
        """The model has said that an answer was interrupted, and its `turn_complete` is still to come."""
        return self.state is State.CUT

    @property
    def is_stopped_early(self) -> bool:
        """The user stopped an answer, and its first word may still come."""
        return any(each.stopped and not _is_over(each, _FIRST_WORD) for each in self._questions)

    @property
    def is_uncertain(self) -> bool:
        """An answer may come that does not belong to the first open question."""
        return self._has_crossed or any(
            each.stopped and _is_over(each, _FIRST_WORD) for each in self._questions
        )

    def holds(self) -> float:
        """Seconds that the next text has to wait for the first word of an answer; 0: it can be given."""
        if not self._questions:
            return 0.0
        return max(0.0, self._questions[-1].since + _HOLD - time.monotonic())

    def waits_for(self, text: UserText) -> bool:
        """Whether the model was given this text, and no word of an answer has come."""
        return any(_is_same(each, text) for each in self._questions)

    def is_about(self, text: UserText) -> bool:
        """Whether the open answer, or else the turn that ended last, is for this text."""
        question = self.answered if self.is_open else self._ended
        return question is not None and _is_same(question, text)

    def crosses(self) -> bool:
        """Whether a question was asked, since the last call, while another one had no answer yet."""
        crosses, self._crosses = self._crosses, False
        return crosses

    def take(self, user_input: ForModel) -> None:
        """The model is given an input of the user."""
        self.given = True
        if isinstance(user_input, UserText):
            self._ask(Question(user_input, stopped=user_input.stopped))
        elif isinstance(user_input, UserAudio) and user_input.is_speech:
            self._has_spoken = True

    def take_result(self) -> None:
        """The model is given the result of a call that waited for a user: it may say something to it."""
        if not self.is_open:
            self._ask(Question(heard=True))

    def take_back(self, text: UserText) -> None:
        """The model was not given this text after all."""
        for question in [*self._questions]:
            if _is_same(question, text) and not question.rest:
                self._questions.remove(question)

    def sent(self) -> None:
        """The last question was sent: the time in which the model begins to answer runs from now."""
        if self._questions and not self._questions[-1].stopped:
            self._questions[-1].since = time.monotonic()

    def hear(self) -> None:
        """The user's speech was understood: a question, unless the transcript is late."""
        if self._is_unexplained and not self._has_spoken:
            self._is_unexplained = False
        elif self.is_open:
            self._heard_meanwhile = True
        elif self.state is State.LOST:
            raise TransitionError("a transcript cannot come after the connection was lost")
        else:
            self._ask(Question(heard=True))
        self._has_spoken = False

    def speak(self) -> bool:
        """The agent says something; returns whether the user is to be told."""
        if not self.is_open:
            self._go(Event.SPEAK)
            self.answered = self._questions.popleft() if self._questions else None
            self._is_muted = bool(self.answered and self.answered.stopped)
            self._is_unexplained = self._has_spoken and not self.answered
            self._has_spoken = self._heard_meanwhile = False
            self.given = bool(self._questions)
        return not self._is_muted

    def stop(self) -> bool:
        """The user stops the answer; returns whether there was anything to stop."""
        if not self.owed:
            return False
        self._is_muted = self.is_open
        for question in self._questions:
            if not question.stopped:
                question.stopped, question.rest, question.since = True, False, time.monotonic()
        return True

    def interrupt(self) -> bool:
        """The model was interrupted; returns whether the user is to be told.

        The user is told of an interruption once, and not of the end of an answer that was stopped.
        """
        if self.is_cut:
            return False
        was_open, heard = self.is_open, self._heard_meanwhile
        is_told = self._end(Event.INTERRUPT)
        if was_open and heard:  # the speech that interrupted the answer is the question now
            self._questions.append(Question(heard=True))
        return is_told

    def complete(self) -> bool:
        """The model's turn is complete; returns whether the user is to be told."""
        if self.is_cut:  # it belongs to the turn that was interrupted
            self._go(Event.COMPLETE)
            return False
        return self._end(Event.COMPLETE)

    def lose(self) -> bool:
        """The connection is gone; returns whether it cut an answer that the user was hearing."""
        is_cut = self.is_open and not self._is_muted
        if is_cut:
            rest = self.answered or Question()
            rest.rest = True
            self._questions.appendleft(rest)
        self._go(Event.LOSE)
        self.answered, self._is_muted = None, False
        return is_cut

    def forget_unanswered(self) -> None:
        """Gives up speech that the model seems to have decided not to answer."""
        for question in [*self._questions]:
            if question.heard and not self.is_open and _is_over(question, _UNDERSTOOD):
                self._questions.remove(question)
                self._has_crossed = True  # if the answer comes after all, it is nobody's

    def check(self) -> None:
        """Asserts the invariants."""
        assert self.is_open or not self.answered, f"{self.state} answers a question"
        assert self.is_open or not self._is_muted, f"{self.state} is muted"
        assert self.answered not in self._questions, "the question that is being answered is open"
        assert not any(each.rest for each in [*self._questions][1:]), "the rest of an answer is not the first"

    def _ask(self, question: Question) -> None:
        if self.state is State.LOST:
            raise TransitionError("nothing can be asked after the connection was lost")
        if self._questions:
            self._has_crossed = self._crosses = True
            if not (self.is_open or question.stopped):
                self._give_up_stopped(at_once=question.heard)
        self._questions.append(question)

    def _give_up_stopped(self, *, at_once: bool) -> None:
        """No word has come of the answers that were stopped: the next one is taken for the new question's."""
        while (
            self._questions and (first := self._questions[0]).stopped and (at_once or _is_over(first, _HOLD))
        ):
            self._questions.popleft()

    def _end(self, event: Event) -> bool:
        """Ends the open answer; if there is none, the first open question ends without an answer."""
        is_muted, self._ended = self._is_muted, self.answered
        if not self.is_open and self._questions:
            self._ended = self._questions.popleft()
            is_muted = self._ended.stopped
        self._go(event)
        self.answered, self._is_muted, self._heard_meanwhile = None, False, False
        return not is_muted

    def _go(self, event: Event) -> None:
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise TransitionError(f"{event.name} cannot happen in {self.state.name}") from None


def _is_over(question: Question, seconds: float) -> bool:
    return time.monotonic() - question.since >= seconds


def _is_same(question: Question, text: UserText) -> bool:
    return question.text is not None and question.text.is_same(text)
