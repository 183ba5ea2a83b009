"""The room of a conversation: its listeners, and the messages that they get, now or replayed later."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Literal, NamedTuple

from adk_relay.core.answer import Asked
from adk_relay.core.history import History
from adk_relay.core.journal import Journal
from adk_relay.core.listener import Listener, Member, member_of
from adk_relay.core.messages import (
    Audio,
    Ended,
    Gap,
    Message,
    Numbered,
    Place,
    Presence,
    Reset,
    Status,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    TurnStart,
    Typing,
)
from adk_relay.core.past import Past
from adk_relay.core.recorded import Came, Left
from adk_relay.core.recording import Recording
from adk_relay.core.requests import Requests
from adk_relay.core.shape import PLAIN, Shape
from adk_relay.core.voice import MODELS_OWN, Voice

_MAX_NAMES = 100
"""Of how many others a listener that comes is told the names."""

SEQ_STEP = 1000
"""A new owner goes on with a number that is higher by this: more may have been told than was recorded."""

_PRESENCE_EVERY = 0.1
"""Seconds in which arrivals and departures are collected: a thousand at once then cause few frames."""


class After(NamedTuple):
    """The last message that a client has got: number `seq` of `epoch`; None: of the present epoch."""

    epoch: str | None
    seq: int

    @property
    def is_first(self) -> bool:
        """The client has got no message yet: it names epoch 0, which never exists, and gets all."""
        return self.epoch == "0"


@dataclass(slots=True, frozen=True)
class Standing:
    """How a conversation stands when a listener comes. `seq`: the number of the last message."""

    epoch: str
    seq: int
    message_count: int
    others: int
    """How many others attend."""
    names: tuple[tuple[str, str], ...]
    """The connection ids and the names of those that have one, of at most `_MAX_NAMES`."""
    title: str = ""
    voice: Voice = MODELS_OWN
    shape: Shape = PLAIN


class Room:
    """The listeners of one conversation, and the numbered stream of messages that they get.

    Invariants:
        A listener attends once, and only listeners that attend are typing.
        `_audience` has the listeners that get what is published now.
        No listener that attends is expected.
        While there are changes of presence to tell, a timer is set to tell them.
        No message of the journal has a higher number than `seq`.

    Args:
        requests: say whose request is being answered. When that changes, call `update_audience()`.
        recording: that of the conversation; None: there is none.
        replay_bytes: bytes of messages that are kept, to be replayed.
        replay_seconds: seconds that they are kept.
    """

    def __init__(
        self,
        requests: Requests,
        recording: Recording | None = None,
        *,
        replay_bytes: int,
        replay_seconds: float,
    ) -> None:
        self.epoch = _new_epoch()
        """Identifies this life of the conversation in memory. The numbers of another epoch mean nothing."""
        self.seq = 0
        """The number of the last message."""
        self.emptied: Literal["", "cleared", "deleted"] = ""
        """What the epoch has begun with; "": the conversation was not in memory before."""
        self.history = History()
        self.listeners: list[Listener] = []
        """All that attend, in the order they came."""
        self.recording = recording or Recording()
        self._came_at: dict[Listener, float] = {}
        """When they came, as `time.time()`. Those of other processes tell it: their way here takes time."""
        self._requests = requests
        self.journal = Journal(limit=replay_bytes, max_age=replay_seconds)
        self._audience: tuple[Listener, ...] = ()
        self._typing: set[Listener] = set()
        self._changed: dict[str, bool] = {}
        """The connections that came or left since presence was last told: whether each was present then."""
        self._names: dict[str, str] = {}
        """What the users of these connections are called."""
        self._expected: dict[str, str] = {}
        """The names of those that attended with an owner before, and did not come yet, by connection id."""
        self._presence_timer: asyncio.TimerHandle | None = None

    def check(self) -> None:
        """Asserts the invariants."""
        assert len({*map(id, self.listeners)}) == len(self.listeners), "a listener attends twice"
        assert all(each in self.listeners for each in self._typing), "a listener that has left is typing"
        here = {each.connection_id for each in self.listeners}
        assert not self._expected.keys() & here, "a listener is expected that attends"
        assert self._audience == self._find_audience(), "the audience is not up to date"
        assert not self._changed or self._presence_timer, "no timer is set to tell of changes"
        assert self.journal.last <= self.seq, f"number {self.journal.last} is beyond {self.seq}"

    def restore(self, past: Past) -> None:
        """Goes on with the epoch of an owner before."""
        self.epoch = past.epoch
        self.seq = past.seq + SEQ_STEP
        self.history.restored(past.seq)
        self.journal.load(past.messages, past.forgotten)

    # ---- who attends ----

    def expect(self, present: Mapping[str, str]) -> None:
        """These listeners, by connection id, with their names, are expected to come: the others know them."""
        self._expected = dict(present)

    def expect_no_more(self) -> None:
        """Those that were expected, and have not come, have left."""
        expected, self._expected = self._expected, {}
        for connection_id, name in expected.items():
            self.recording.add(Left(connection_id))
            self._note_change(connection_id, name, was_there=True)

    def abandon(self) -> None:
        """The conversation goes on in another process: all listeners are removed, and have to come back."""
        for listener in self.listeners:
            listener.deliver(Ended("moved"))
        self.listeners.clear()
        self._came_at.clear()
        self._typing.clear()
        self._audience = ()
        self.close()

    def enter(self, listener: Listener, after: After | None) -> None:
        """Adds a listener. With `after`, it first gets the messages that it missed."""
        if after:
            self.replay(listener, after)
        newest, came_at = self._newest(), getattr(listener, "came_at", time.time())
        place = len(self.listeners)
        while place and self._came_at[self.listeners[place - 1]] > came_at:
            place -= 1  # that one was quicker, but came later
        self.listeners.insert(place, listener)
        self._came_at[listener] = came_at
        if listener.attends == "newest" and newest:
            (newest if self._newest() is listener else listener).deliver(Status("elsewhere"))
        self._audience = self._find_audience()
        if self._expected.pop(listener.connection_id, None) is None:
            self._note_presence(listener, was_there=False)

    def leave(self, listener: Listener, *, is_live: bool) -> None:
        """Removes a listener. If it was the "newest" one, the "newest" listener before it takes its place.

        Args:
            is_live: the model's connection is not being restored.
        """
        was_newest = listener is self._newest()
        self.set_typing(listener, False)
        self.listeners.remove(listener)
        del self._came_at[listener]
        self._audience = self._find_audience()
        if was_newest and (before := self._newest()):
            before.deliver(Status("live" if is_live else "reconnecting"))
        self._note_presence(listener, was_there=True)

    def update_audience(self) -> None:
        """To be called when another request is answered, or none: "own" listeners get only their answers."""
        self._audience = self._find_audience()

    def set_typing(self, listener: Listener, typing: bool) -> None:
        """A listener begins or stops typing; the others are told if this is a change."""
        if typing != (listener in self._typing):
            (self._typing.add if typing else self._typing.discard)(listener)
            self.broadcast(Typing(listener.connection_id, typing, listener.name), but=listener)

    def signed(self, transcript: Transcript, connection_id: str) -> Transcript:
        """A transcript with its speaker, and the speaker's name if that still attends."""
        return replace(transcript, connection_id=connection_id, name=self.name_of(connection_id))

    def standing(self, but: Listener | None) -> Standing:
        """How the conversation stands, for a listener: it is none of the others."""
        expected = {id: name for id, name in self._expected.items() if not but or id != but.connection_id}
        others = sum(each is not but for each in self.listeners) + len(expected)
        present = (each for each in self.listeners if each is not but and _is_present(each))
        known = chain(((each.connection_id, each.name) for each in present), expected.items())
        names = tuple(islice((each for each in known if each[1]), _MAX_NAMES))
        return Standing(self.epoch, self.seq, self.history.message_count, others, names)

    def replay(self, listener: Listener, after: After) -> None:
        """Gives a listener the messages that it has missed."""
        listener.replay(self._since(after))

    def name_of(self, connection_id: str) -> str:
        """What the user of a connection is called; "": that is not known, or it does not attend any more."""
        return next((each.name for each in self.listeners if each.connection_id == connection_id), "")

    def has_others(self, member: Member) -> bool:
        """Whether anybody but this member attends."""
        return any(member_of(listener) != member for listener in self.listeners)

    def _newest(self) -> Listener | None:
        """Of the listeners that attend as "newest", the one that gets the messages."""
        return next((each for each in reversed(self.listeners) if each.attends == "newest"), None)

    def _asked(self) -> Asked | None:
        """The request that is being answered."""
        current = None if self._requests.is_aside else self._requests.current
        return Asked(current.listener.connection_id, current.text.id) if current else None

    def _asking(self) -> Listener | None:
        """The listener whose request is answered. It may have left."""
        current = None if self._requests.is_aside else self._requests.current
        return current.listener if current else None

    def _find_audience(self) -> tuple[Listener, ...]:
        """The listeners that get what is published now. The result is kept: a lookup per message is slow."""
        newest, asking = self._newest(), self._asking()
        return tuple(
            listener
            for listener in self.listeners
            if listener.attends == "all"
            or listener is newest
            or (listener.attends == "own" and listener is asking)
        )

    def _note_presence(self, listener: Listener, *, was_there: bool) -> None:
        if not _is_present(listener):
            return
        self.recording.add(
            Left(listener.connection_id) if was_there else Came(listener.connection_id, listener.name)
        )
        self._note_change(listener.connection_id, listener.name, was_there=was_there)

    def _note_change(self, connection_id: str, name: str, *, was_there: bool) -> None:
        self._changed.setdefault(connection_id, was_there)
        self._names[connection_id] = name
        if not self._presence_timer:
            loop = asyncio.get_running_loop()
            self._presence_timer = loop.call_later(_PRESENCE_EVERY, self._tell_presence)

    def _tell_presence(self) -> None:
        """Tells which connections came and which left since presence was last told.

        A listener that came in this time has counted the connections itself, at a moment that is not known
        here. So it is told of all changes, also of a connection that came and left, or left and came back.
        """
        self._presence_timer = None
        changed, self._changed = self._changed, {}
        here = {listener.connection_id for listener in self.listeners}
        count = len(self.listeners) + len(self._expected)
        joined = tuple(id for id, was_there in changed.items() if not was_there and id in here)
        left = tuple(id for id, was_there in changed.items() if was_there and id not in here)
        all_joined = [id for id in changed if id in here]
        all_left = tuple(id for id in changed if id not in here)
        names, self._names = self._names, {}
        for_listeners_who_stayed = _presence(joined, left, count, names)
        for listener in self._audience:
            own_id = listener.connection_id
            if own_id in changed:
                others = tuple(id for id in all_joined if id != own_id)
                presence = _presence(others, all_left, count, names)
            else:
                presence = for_listeners_who_stayed
            if presence.joined or presence.left:
                listener.deliver(presence)

    # ---- the messages ----

    def number(self) -> int:
        """The next message's `seq`."""
        self.seq += 1
        return self.seq

    def place(self, of_answer: bool = False) -> Place:
        """The place of the next message; with `of_answer`, that of the open answer if it has text."""
        seq = self.history.answer_seq if of_answer else None
        return Place(self.epoch, seq or self.seq + 1)

    def publish(self, message: Numbered, but: Listener | None = None) -> None:
        """Sends a numbered message to the audience, now without `but`, and keeps it for who comes back."""
        if isinstance(message, Audio):
            self.history.aloud.sound(message.pcm)
            self.journal.add(message)
            self.recording.told(message)
            self.broadcast(message)
            return
        if isinstance(message, TurnEnd) and message.interrupted:
            self.journal.recall_audio()
        if isinstance(message, ToolStart | ToolComplete) and message.late:
            but = self._asking()  # the tool is not part of the answer to that request
        # An open answer has its request already; chunks come too often to look again for each.
        asked = None if self.history.is_answering else self._asked()
        for recorded in self.history.record(message, asked):
            if not isinstance(recorded, TurnStart):
                self.journal.add(recorded)
            self.recording.told(recorded)
            self.broadcast(recorded, but)

    def broadcast(self, message: Message, but: Listener | None = None) -> None:
        """Sends a message to the audience. It is not kept.

        Args:
            but: this listener does not get it.
        """
        for listener in self._audience:
            if listener is not but:
                listener.deliver(message)

    def send_to(self, connection_id: str, message: Message) -> None:
        """Sends a message to one listener, if it still attends."""
        for listener in self.listeners:
            if listener.connection_id == connection_id:
                listener.deliver(message)

    def recall_audio(self) -> None:
        """Removes the sound that is kept: the answer was interrupted, so the sound is stale."""
        self.journal.recall_audio()

    def restart(self, *, deleted: bool) -> None:
        """Empties the conversation: a new epoch begins, and all listeners are told."""
        self.epoch = _new_epoch()
        self.seq = 0
        self.emptied = "deleted" if deleted else "cleared"
        self.history = History()
        self.journal.clear()
        self.recording.begin(self.epoch, 0)
        for listener in [*self.listeners]:
            listener.deliver(Reset(self.epoch, deleted))

    def close(self) -> None:
        """The conversation has ended: nothing is replayed, and changes of presence are not told any more."""
        # Its objects refer to each other, so they wait for the garbage collector, which does not count bytes.
        self.journal.clear()
        if self._presence_timer:
            self._presence_timer.cancel()

    def _since(self, after: After) -> Sequence[Message]:
        """The messages after `after`; if they are not all kept, a `Gap` and the whole conversation."""
        is_known = after.epoch in (None, self.epoch) and after.seq <= self.seq
        if is_known and (kept := self.journal.since(after.seq)) is not None:
            return self.history.with_starts(kept)
        lines, place = self.history.end()
        older = "" if place is None else older_than(self.epoch, place)
        return [Gap(after.seq + 1 if is_known else 1, self.seq, len(lines), older), *lines]


def older_than(epoch: str, place: int) -> str:
    """How a client names a place of the history in `ReadOlder`."""
    return f"{epoch}.{place}"


def _is_present(listener: Listener) -> bool:
    """Whether the others are told of it: one that attends as "own" makes one request, and leaves."""
    return listener.attends != "own"


def _presence(
    joined: tuple[str, ...], left: tuple[str, ...], connections: int, names: dict[str, str]
) -> Presence:
    named = tuple((id, names[id]) for id in (*joined, *left) if names[id])
    return Presence(joined, left, connections, named)


def _new_epoch() -> str:
    return secrets.token_urlsafe(6)
