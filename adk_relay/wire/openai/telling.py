"""What a client is told: the messages of the conversation, as events."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from adk_relay.core.heard import Shortened
from adk_relay.core.messages import (
    Audio,
    Error,
    Gap,
    Line,
    Message,
    Reset,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    TurnStart,
    Written,
)
from adk_relay.core.rewind import Rewound
from adk_relay.core.voice import Configured
from adk_relay.wire.dialects.fields import cut, to_json
from adk_relay.wire.openai.answering import Answering, Ending, Told
from adk_relay.wire.openai.asking import Asking
from adk_relay.wire.openai.formats import Incoming, Outgoing
from adk_relay.wire.openai.hearing import Hearing, added
from adk_relay.wire.openai.items import Item, Items
from adk_relay.wire.openai.refused import RefusedError, param_of
from adk_relay.wire.openai.server_events import ServerEvents
from adk_relay.wire.openai.settings import Settings

_LAST = frozenset({"agent_failed", "model_refused", "model_unavailable"})
"""Codes of errors after which the socket is closed."""

_PASSING = {"busy", "history_failed", "idle", "model_error", "moved", "speech_lost", "stopping"}

_SERVERS = _LAST | _PASSING | {"unknown_session"}
"""Codes of errors that are not the client's fault."""


@dataclass(slots=True, eq=False)
class Update:
    """A `session.update` that the conversation has not confirmed in full.

    `waiting`: the ids of its `Configure` commands that were not answered; `refused`: what can't be done.
    """

    waiting: set[str]
    refused: list[RefusedError]


@dataclass(slots=True, eq=False)
class State:
    """The state of one socket, by subject. Each part has its own invariants."""

    events: ServerEvents
    settings: Settings
    items: Items
    answering: Answering
    hearing: Hearing
    asking: Asking
    incoming: Incoming = field(default_factory=Incoming)
    outgoing: Outgoing = field(default_factory=Outgoing)
    updates: dict[str, Update] = field(default_factory=dict)
    """By the ids that they wait for."""

    def check(self) -> None:
        """Asserts the invariants of all parts."""
        assert all(key in update.waiting for key, update in self.updates.items()), "an update waits in vain"
        for part in (self.items, self.answering, self.hearing, self.asking):
            part.check()


class Telling:
    """Turns the messages of the conversation into events.

    Invariants: those of the state's parts.
    """

    def __init__(self, state: State) -> None:
        self._events = state.events
        self._state = state
        self._items = state.items
        self._answering = state.answering
        self._hearing = state.hearing
        self._asking = state.asking
        self._settings = state.settings
        self._was_written = False
        """Whether somebody else has written a text since the last answer began."""

    def check(self) -> None:
        """Asserts the invariants."""
        self._state.check()

    def encode(self, message: Message) -> Told | None:
        """The events that a message becomes. Frames in a tuple are never merged: each message comes once."""
        if isinstance(message, Audio):
            return self._audio(message.pcm, message.seq)
        tell = _TELL.get(type(message))
        return tell(self, message) if tell else None

    # ---- the agent ----

    def _audio(self, pcm: bytes, seq: int) -> Told:
        if not self._settings.has_sound:
            return ()
        told = () if self._answering.is_begun else self._open()
        outgoing = self._state.outgoing
        audio = outgoing.encode(pcm)
        return *told, *self._answering.sound(audio, outgoing.ms(audio), seq)

    def _text(self, message: Text) -> Told:
        told = () if self._answering.is_begun else self._open()
        return *told, *self._answering.say(message.text, aloud=message.is_transcript, seq=message.seq)

    def _start(self, message: TurnStart) -> Told:
        return *self._open(), *self._answering.begin()

    def _open(self) -> Told:
        """An answer begins: what was said before it is complete."""
        hearing, asking = self._hearing, self._asking
        is_of_speech = not (
            self._answering.id or self._settings.is_manual or self._was_written or asking.goes_on == "waiting"
        )
        told = hearing.commit() if hearing.is_open or (hearing.is_fresh and is_of_speech) else ()
        asking.is_committed = hearing.is_fresh = self._was_written = False
        return told

    def _call(self, message: ToolStart) -> Told:
        """Functions that the client has are its affair; the agent's own have no word in the API."""
        if not message.is_pending or message.tool_name not in self._settings.tools:
            return ()
        if self._items.call(message.tool_id):  # it was told before
            return ()
        arguments = message.arguments if isinstance(message.arguments, dict) else {}
        told = () if self._answering.is_begun else self._open()
        told += self._answering.call(message.tool_id, message.tool_name, to_json(arguments))
        if message.late or not message.seq:  # no end of a turn will follow
            told += self._answering.end("completed")
        return told

    def _returned(self, message: ToolComplete) -> Told:
        """Somebody else has answered a call of a function."""
        call = self._items.call(message.tool_id)
        if not (call and message.was_pending) or self._items.output(message.tool_id):
            return ()
        item = Item(self._events.new_id("item"), "function_call_output", call_id=message.tool_id)
        result = cut("result", message.result)["result"]
        item.output = result if isinstance(result, str) else to_json(result)
        return self._added(item)

    def _end(self, message: TurnEnd) -> Told:
        answering, asking, outgoing = self._answering, self._asking, self._state.outgoing
        if message.goes_on:  # the rest will come, in the same response
            outgoing.cut()
            return ()
        told: Told = ()
        if message.interrupted:
            outgoing.cut()
            if answering.id and not asking.is_canceled and self._is_heard():
                told = self._hearing.begin()
            how: Ending = "client_cancelled" if asking.is_canceled else "turn_detected"
        else:
            if answering.has_sound and (rest := outgoing.end()):
                told = answering.sound(rest, outgoing.ms(rest))
            how = "completed"
        if answering.is_begun:
            self._hearing.settle()
        if asking.goes_on == "waiting" and answering.has_words:
            asking.goes_on = "answered"
        asking.is_canceled = False
        usage = message.answer.usage if message.answer else message.usage
        return *told, *answering.end(how, usage)

    def _shortened(self, message: Shortened) -> Told:
        """The users have heard only the beginning of an answer: the API has no word for what is left."""
        if item := self._items.answer_at(message.first):
            item.status = "incomplete"
            for part in item.content:
                part.update({name: message.text for name in ("transcript", "text") if name in part})
        return ()

    def _is_heard(self) -> bool:
        """Whether what happens now may be because the user speaks."""
        return self._hearing.is_fresh and not (self._settings.is_manual or self._was_written)

    # ---- the users ----

    def _transcript(self, message: Transcript) -> Told:
        hearing = self._hearing
        return hearing.understand(message.text) if message.final else hearing.hear(message.text)

    def _written(self, message: Written) -> Told:
        self._was_written = True
        item = Item(self._events.new_id("item"), role="user", text_id=message.id)
        item.content = [{"type": "input_text", "text": message.text}]
        return self._added(item)

    def _gap(self, message: Gap) -> Told:
        """The whole conversation follows. Calls of functions stay: a client would run them once more."""
        self._answering.problem = {"type": "server_error", "code": "connection_lost"}
        told = self._answering.end("completed")
        self._answering.problem = None
        messages = [each for each in self._items if each.type == "message" and not self._asking.holds(each)]
        return *told, *self._removed(messages)

    def _line(self, message: Line) -> Told:
        """A message of the conversation that the client does not know."""
        if message.open:
            return *self._answering.begin(), *self._answering.say(message.text, aloud=True)
        is_user = message.role == "user"
        item = Item(self._events.new_id("item"), role="user" if is_user else "assistant", text_id=message.id)
        item.status = "incomplete" if message.interrupted else "completed"
        item.content = [{"type": "input_text" if is_user else "output_text", "text": message.text}]
        return self._added(item)

    def _added(self, item: Item) -> Told:
        self._items.add(item)
        return added(self._events, item)

    # ---- the conversation ----

    def _rewound(self, message: Rewound) -> Told:
        first = next((each for each in self._items if message.id and each.text_id == message.id), None)
        first = first or self._items.last_of_user()
        told = self._answering.end("client_cancelled")
        return (*told, *self._removed(self._items.since(first))) if first else told

    def _reset(self, message: Reset) -> Told:
        self._asking.drop_all()
        return *self._answering.end("client_cancelled"), *self._removed([*self._items])

    def _removed(self, items: Iterable[Item]) -> Told:
        gone = [*items]
        self._items.remove(gone)
        told: Told = ()
        for item in gone:
            told += self._events.event("conversation.item.deleted", item_id=item.id)
        return told

    def _configured(self, message: Configured) -> Told:
        self._settings.voice, self._settings.shape = message.voice, message.shape
        return self._confirmed(message.id) if message.id in self._state.updates else self.updated()

    def _confirmed(self, key: str) -> Told:
        """A part of a `session.update` was answered."""
        update = self._state.updates.pop(key)
        update.waiting.discard(key)
        if update.waiting:
            return ()
        if not self._state.updates:
            self._settings.wanted = None
        return self.updated(update.refused)

    def updated(self, refused: Iterable[RefusedError] = ()) -> Told:
        """The session as it is now, and what could not be had of a `session.update`."""
        told: Told = self._events.event("session.updated", session=self._settings.object())
        for each in refused:
            told += self._events.error(each.code, str(each), each.param, each.id)
        return told

    def _error(self, message: Error) -> Told:
        code, kind = message.code, "server_error" if message.code in _SERVERS else ""
        if (param := param_of(message.tool_id)) is not None:
            return self._events.error(code, message.message, param, message.id)
        event_id = self._asking.event_of(message.id) or self._asking.event_of(message.tool_id) or ""
        if message.tool_id:  # the model does not get this output
            self._asking.goes_on = ""
        told: Told = self._events.error(code, message.message, None, event_id, kind)
        answering, is_last = self._answering, code in _LAST
        if message.id in self._state.updates:
            told += self._confirmed(message.id)
        elif answering.id and (
            is_last or code == "model_error" or self._asking.event_of(message.id) is not None
        ):
            answering.problem = {"type": kind or "invalid_request_error", "code": code}
            if is_last or not (answering.is_begun or code == "model_error"):  # no answer will come
                told += answering.end("failed")
        return told


_TELL: dict[type, Callable[[Any, Any], Told]] = {
    Text: Telling._text,
    TurnStart: Telling._start,
    ToolStart: Telling._call,
    ToolComplete: Telling._returned,
    TurnEnd: Telling._end,
    Shortened: Telling._shortened,
    Transcript: Telling._transcript,
    Written: Telling._written,
    Gap: Telling._gap,
    Line: Telling._line,
    Rewound: Telling._rewound,
    Reset: Telling._reset,
    Configured: Telling._configured,
    Error: Telling._error,
}
"""The API has no word for all other messages."""
