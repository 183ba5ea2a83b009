"""What is known of a conversation that another process has owned."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from adk_relay.core.answer import Asked
from adk_relay.core.messages import (
    Audio,
    Numbered,
    Text,
    ToolStart,
    Transcript,
    TurnEnd,
    TurnStart,
    Written,
)
from adk_relay.core.recorded import (
    AgentState,
    Came,
    Checkpoint,
    Emptying,
    Left,
    OpenAnswer,
    Over,
    Recorded,
    RequestBegan,
    Requested,
    RequestEnded,
    Rewinding,
    Shaped,
    Stopped,
    TextDone,
    TextSaid,
    Told,
)
from adk_relay.core.rewind import Rewound
from adk_relay.core.shape import PLAIN

_ENDED = 2
"""How many of the answers that have ended are known: an interrupted one may not be in the session yet."""


@dataclass(slots=True)
class _Open:
    """The answer that is open."""

    asked: Asked | None = None
    seq: int = 0
    chunks: list[str] = field(default_factory=list)

    def frozen(self) -> OpenAnswer:
        return OpenAnswer(self.seq, "".join(self.chunks), len(self.chunks), self.asked)


class Past:
    """What was recorded of a conversation, all together.

    Invariants:
        The texts that wait, and those whose answers are owed, are among `texts`, and no others.
        The current request does not wait.
        The numbers of the messages that are kept rise, and none is above `seq`.

    Args:
        keeps_messages: whether messages are kept, to be replayed.
    """

    def __init__(self, *, keeps_messages: bool = True) -> None:
        self._keeps_messages = keeps_messages
        self.epoch = ""
        """"": nothing is known, or the conversation was over."""
        self.seq = 0
        """The number of the last message that is known of."""
        self._clear()

    def _clear(self) -> None:
        self.is_given = False
        """The owner before gave the conversation away, between two turns."""
        self.emptying: Emptying | None = None
        """The owner before was about to delete the session, or has done so: the rest of it is to be done."""
        self.rewinding: Rewinding | None = None
        """The same for what was said last, which it was about to take back."""
        self.lines = 0
        """The place in the history after the last message: see `core.history`."""
        self.messages: list[Numbered] = []
        """Those that can be replayed."""
        self.forgotten = 0
        """The number of the last message before those; 0: there was none."""
        self.texts: dict[int, TextSaid] = {}
        """By the numbers in their places."""
        self.waiting: dict[int, None] = {}
        """The numbers of those texts that wait for the model, in order."""
        self.requests: list[Requested] = []
        """Those that wait, in order."""
        self.current: Requested | None = None
        """The request that is being answered."""
        self.state = AgentState()
        self.shape = PLAIN
        """What clients have set."""
        self.is_cut = False
        """The listeners know that the connection was lost in the middle of an answer."""
        self.ended: deque[OpenAnswer] = deque(maxlen=_ENDED)
        """The last answers that have ended, if they had text."""
        self.present: dict[str, str] = {}
        """The names of the listeners, by connection id."""
        self._open: _Open | None = None

    def check(self) -> None:
        """Asserts the invariants."""
        owed = {each.seq for each in self.state.owed}
        assert {*self.waiting} <= self.texts.keys(), "a text waits that is not kept"
        assert self.texts.keys() <= {*self.waiting} | owed, "a text is kept that nobody needs"
        assert self.current not in self.requests, "the current request waits"
        numbers = [self.forgotten, *(message.seq for message in self.messages), self.seq + 1]
        assert all(a < b for a, b in pairwise(numbers)), f"the numbers do not rise: {numbers}"

    @property
    def answer(self) -> OpenAnswer | None:
        """The answer that is open."""
        return self._open.frozen() if self._open else None

    def apply(self, entry: Recorded) -> None:
        """Takes the next entry."""
        match entry:
            case Told(message):
                self._told(message)
            case Came(connection_id, name):
                self.present[connection_id] = name
            case Left(connection_id):
                self.present.pop(connection_id, None)
            case TextSaid(text):
                if text.place:
                    self.texts[text.place.seq] = entry
                    self.waiting[text.place.seq] = None
            case TextDone(seq):
                self.waiting.pop(seq, None)
                self._forget_texts()
            case AgentState():
                self.state = entry
                self._forget_texts()
            case Shaped(shape):
                self.shape = shape
            case Stopped():
                self._recall_audio()
                for seq in self.waiting:
                    said = self.texts[seq]
                    self.texts[seq] = replace(said, text=replace(said.text, stopped=True))
            case Requested() | RequestBegan() | RequestEnded():
                self._request(entry)
            case Checkpoint():
                self._set(entry)
            case Emptying():
                self.emptying = entry
            case Rewinding():
                self.rewinding = entry
            case Over():
                self.epoch, self.seq = "", 0
                self._clear()

    def checkpoint(self, *, is_new: bool = False, is_given: bool = False) -> Checkpoint:
        """All that is known, but the messages."""
        return Checkpoint(
            self.epoch,
            self.seq,
            is_new,
            is_given,
            self.emptying,
            self.lines,
            (*self.texts.values(),),
            (*self.waiting,),
            (*((self.current,) if self.current else ()), *self.requests),
            self.current.number if self.current else 0,
            self.state,
            self.answer,
            self.is_cut,
            (*self.present.items(),),
            rewinding=self.rewinding,
            shape=self.shape,
        )

    def _set(self, found: Checkpoint) -> None:
        if found.is_new or found.has_gap or found.epoch != self.epoch:
            is_first = not (found.is_new or found.has_gap or self.epoch)
            messages = self.messages if is_first else []  # from before the first checkpoint
            self._clear()
            self.messages = [message for message in messages if message.seq <= found.seq]
            self.forgotten = self.messages[0].seq - 1 if self.messages else 0 if found.is_new else found.seq
        self.epoch, self.seq = found.epoch, found.seq
        self.is_given, self.emptying, self.rewinding = found.is_given, found.emptying, found.rewinding
        self.lines = found.lines
        self.texts = {said.text.place.seq: said for said in found.texts if said.text.place}
        self.waiting = dict.fromkeys(found.waiting)
        self.current = next((each for each in found.requests if each.number == found.current), None)
        self.requests = [each for each in found.requests if each.number != found.current]
        self.state, self.shape = found.state, found.shape
        answer, self.is_cut = found.answer, found.is_cut
        self._open = None
        if answer:
            # What is known of the text already is as long, and says how many messages it came in.
            self._open = _Open(answer.asked, answer.seq, [answer.text, *[""] * (answer.chunks - 1)])
            if not answer.chunks:
                self._open.chunks.clear()
        self.present = dict(found.present)

    def forget_answers(self) -> None:
        """They are stored, or taken back."""
        self.ended.clear()
        self._open = None

    def _told(self, message: Numbered | TurnStart) -> None:
        if isinstance(message, TurnStart):
            self._open = _Open(message.asked)
            return
        self.seq = max(self.seq, message.seq)
        match message:
            case Text():
                self._open = answer = self._open or _Open()
                if not answer.seq:
                    answer.seq = message.seq
                    self.lines += 1
                answer.chunks.append(message.text)
                self.is_cut = False
            case Audio() | ToolStart(late=False):
                self.is_cut = False
            case Written() | Transcript(final=True):
                self.lines += 1
            case Rewound(messages=messages):
                self.lines -= messages
                self.forget_answers()
                self.rewinding = None
            case TurnEnd():
                self.is_cut = message.goes_on
                if message.interrupted:
                    self._recall_audio()
                if not message.goes_on:
                    if self._open and self._open.seq:
                        ended = replace(self._open.frozen(), interrupted=message.interrupted)
                        self.ended.append(ended)
                    self._open = None
        if self._keeps_messages:
            if not self.messages and not self.epoch:
                self.forgotten = message.seq - 1
            self.messages.append(message)

    def _recall_audio(self) -> None:
        self.messages = [message for message in self.messages if not isinstance(message, Audio)]

    def _request(self, entry: Requested | RequestBegan | RequestEnded) -> None:
        if isinstance(entry, Requested):
            self.requests.insert(entry.before, entry)
            return
        found = next((each for each in self.requests if each.number == entry.number), None)
        if found:
            self.requests.remove(found)
        if isinstance(entry, RequestBegan):
            self.current = found
        elif self.current and self.current.number == entry.number:
            self.current = None

    def _forget_texts(self) -> None:
        needed = self.waiting.keys() | {each.seq for each in self.state.owed}
        for seq in self.texts.keys() - needed:
            del self.texts[seq]


def past_of(entries: Iterable[Recorded]) -> Past:
    """What was recorded of a conversation, from its entries in order. The first ones may be missing."""
    past = Past()
    for entry in entries:
        past.apply(entry)
    return past
