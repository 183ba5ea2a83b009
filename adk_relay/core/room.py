"""Who attends a conversation, and what they are told: live, or again after they were away."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from adk_relay.core.history import History
from adk_relay.core.journal import Journal
from adk_relay.core.messages import (
    Asked,
    Audio,
    Gap,
    Message,
    Presence,
    Reset,
    Said,
    Status,
    ToolComplete,
    ToolStart,
    TurnEnd,
    TurnStart,
    Typing,
)

_PRESENCE_EVERY = 0.1
"""Seconds in which comings and goings are told together: a thousand that come at once are few frames."""


class After(NamedTuple):
    """The last message that a socket has got: number `seq` of `epoch`; None: of the present one."""

    epoch: str | None
    seq: int


class Listener(Protocol):
    """Who attends a conversation. Nothing here may wait."""

    @property
    def connection_id(self) -> str:
        """Names it to the others."""

    @property
    def is_audio(self) -> bool:
        """Whether it wants to hear and to speak, and so needs the model's connection at once."""

    @property
    def attends(self) -> Literal["all", "newest", "own"]:
        """What it is told: all; all, while it is the newest of its kind; the answers to its requests."""

    def put(self, message: Message) -> None:
        """Takes a message."""

    def replay(self, messages: Sequence[Message]) -> None:
        """Takes what was said before it came."""


class Room:
    """The listeners of one conversation, and the one stream that all of them are told.

    Args:
        replay_bytes: bytes of messages that are kept, to be told again.
        replay_seconds: seconds that they are kept.
    """

    def __init__(self, *, replay_bytes: int, replay_seconds: float) -> None:
        self.epoch = _new_epoch()
        """Names this life of the conversation in memory: its numbers mean nothing in another."""
        self.seq = 0
        """The number of the last message."""
        self.history = History()
        self.listeners: list[Listener] = []
        self._journal = Journal(limit=replay_bytes, max_age=replay_seconds)
        self._asking: Listener | None = None
        self._audience: tuple[Listener, ...] = ()
        self._typing: set[Listener] = set()
        self._changed: dict[str, bool] = {}  # connections, and whether they were there when it was told last
        self._presence: asyncio.TimerHandle | None = None

    # ---- who is there ----

    def enter(self, listener: Listener, after: After | None) -> None:
        """Lets a listener attend, from now on or from the message that it has got last."""
        if after:
            listener.replay(self._since(after))
        if listener.attends == "newest" and (before := self._newest()):
            before.put(Status("elsewhere"))
        self.listeners.append(listener)
        self._seat()
        self._tell_presence(listener, was_there=False)

    def leave(self, listener: Listener, *, is_live: bool) -> None:
        """Lets a listener go; one that it had taken the conversation from has it again.

        Args:
            is_live: the model's connection is not just being remade.
        """
        was_newest = listener is self._newest()
        self.typing(listener, False)
        self.listeners.remove(listener)
        self._seat()
        if was_newest and (before := self._newest()):
            before.put(Status("live" if is_live else "reconnecting"))
        self._tell_presence(listener, was_there=True)

    def answer(self, asking: Listener | None, name: str = "") -> None:
        """The answer under way is to this listener's request, a text of that id; None: to nobody's."""
        self._asking = asking
        self.history.asked = Asked(asking.connection_id, name) if asking else None
        self._seat()

    def typing(self, listener: Listener, typing: bool) -> None:
        """A listener begins to write, or stops."""
        if typing != (listener in self._typing):
            (self._typing.add if typing else self._typing.discard)(listener)
            self.tell(Typing(listener.connection_id, typing), but=listener)

    def _newest(self) -> Listener | None:
        return next((one for one in reversed(self.listeners) if one.attends == "newest"), None)

    def _seat(self) -> None:
        """Finds out who is told what is said now, once for all messages."""
        newest = self._newest()
        self._audience = tuple(
            one
            for one in self.listeners
            if one.attends == "all" or one is newest or (one.attends == "own" and one is self._asking)
        )

    def _tell_presence(self, listener: Listener, *, was_there: bool) -> None:
        if listener.attends == "own":
            return  # it asks one thing, and goes
        self._changed.setdefault(listener.connection_id, was_there)
        if not self._presence:
            self._presence = asyncio.get_running_loop().call_later(_PRESENCE_EVERY, self._announce)

    def _announce(self) -> None:
        """Tells who has come and who has left: the difference to when it was told last.

        Those who came meanwhile may have counted one that has come and gone, and not one that has gone
        and come: they are told of all.
        """
        self._presence = None
        changed, self._changed = self._changed, {}
        here = {listener.connection_id for listener in self.listeners}
        count = len(self.listeners)
        joined = tuple(one for one, was_there in changed.items() if not was_there and one in here)
        left = tuple(one for one, was_there in changed.items() if was_there and one not in here)
        all_joined = [one for one in changed if one in here]
        all_left = tuple(one for one in changed if one not in here)
        presence = Presence(joined, left, count)
        for listener in self._audience:
            name = listener.connection_id
            if name not in changed:
                told = presence
            else:
                told = Presence(tuple(one for one in all_joined if one != name), all_left, count)
            if told.joined or told.left:
                listener.put(told)

    # ---- what they are told ----

    def number(self) -> int:
        """The next message's `seq`."""
        self.seq += 1
        return self.seq

    def say(self, message: Said, but: Listener | None = None) -> None:
        """Tells a numbered message to all that attend, and keeps it for those who come back."""
        if isinstance(message, Audio):
            self._journal.add(message)
            self.tell(message)
            return
        if isinstance(message, TurnEnd) and message.interrupted:
            self._journal.recall_audio()
        if isinstance(message, ToolStart | ToolComplete) and message.late:
            but = self._asking  # it is not of the answer to that request
        for told in self.history.note(message):
            if not isinstance(told, TurnStart):
                self._journal.add(told)
            self.tell(told, but)

    def tell(self, message: Message, but: Listener | None = None) -> None:
        """Tells a message to all that attend now."""
        for listener in self._audience:
            if listener is not but:
                listener.put(message)

    def whisper(self, connection_id: str, message: Message) -> None:
        """Tells a message to one listener, if it is still there."""
        for listener in self.listeners:
            if listener.connection_id == connection_id:
                listener.put(message)

    def recall_audio(self) -> None:
        """What was said aloud so far is not wanted any more."""
        self._journal.recall_audio()

    def restart(self, *, deleted: bool) -> None:
        """Empties the conversation: a new epoch begins, and all are told."""
        self.epoch = _new_epoch()
        self.seq = 0
        self.history = History()
        self._journal.clear()
        for listener in [*self.listeners]:
            listener.put(Reset(self.epoch, deleted))

    def close(self) -> None:
        """Nothing more is told."""
        if self._presence:
            self._presence.cancel()

    def _since(self, after: After) -> Sequence[Message]:
        same = after.epoch in (None, self.epoch) and after.seq <= self.seq
        if same and (kept := self._journal.since(after.seq)) is not None:
            return kept
        lines = self.history.lines()
        return [Gap(after.seq + 1 if same else 1, self.seq, len(lines)), *lines]


def _new_epoch() -> str:
    return secrets.token_urlsafe(6)
