"""The responses: an answer of the agent as the API tells it, in items, parts and deltas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from adk_relay.core.credits import Usage
from adk_relay.wire.openai.items import Item, Items
from adk_relay.wire.openai.server_events import ServerEvents
from adk_relay.wire.openai.settings import Settings
from adk_relay.wire.outbox import Sound

Told = tuple[str | Sound, ...]

Ending = Literal["completed", "turn_detected", "client_cancelled", "failed"]
"""How a response ends: `turn_detected` and `client_cancelled` are reasons why it is canceled."""

_PART = {"audio": "output_audio", "text": "output_text"}
"""The types of parts: in events about parts, and in items."""


class Answering:
    """The response that is under way, if there is one.

    States:
        free: there is none.
        asked: it was asked for, and nothing of it has come.
        begun: something of it has come.

    Invariants:
        Only a response that is begun has items. At most one of them is open: the last, a message.
        A part is open only in the open item; it is the item's last.
    """

    def __init__(self, events: ServerEvents, items: Items, settings: Settings) -> None:
        self._events = events
        self._items = items
        self._settings = settings
        self.id = ""
        """That of the response; "": there is none."""
        self.last_id = ""
        """That of the last response, whether it is under way or not."""
        self._output: list[Item] = []
        self._open: Item | None = None
        self._kind: Literal["audio", "text", ""] = ""
        """What the open part is; "": none is open."""
        self._words: list[str] = []
        """Those of the open part."""
        self.metadata: Mapping[str, Any] | None = None
        """What the client has asked to see in the response again."""
        self.problem: dict[str, str] | None = None
        """Why the response will have failed when it ends."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert self.id or not self._output, "there is output, and no response"
        assert self._open is None or self._output[-1] is self._open, "the open item is not the last one"
        assert self._open is None or self._open.type == "message", "the open item is no message"
        assert self._open or not self._kind, "a part is open in no item"
        assert self._kind or not self._words, "there are words of no part"

    @property
    def is_begun(self) -> bool:
        """Whether something of a response has come."""
        return bool(self._output)

    @property
    def has_words(self) -> bool:
        """Whether the response has a message: it is not about functions alone."""
        return any(item.type == "message" for item in self._output)

    @property
    def has_sound(self) -> bool:
        """Whether a part of sound is open."""
        return self._kind == "audio"

    def begin(self) -> Told:
        """A response is asked for, or begins."""
        if self.id:
            return ()
        self.id = self.last_id = self._events.new_id("resp")
        return self._events.event("response.created", response=self._object("in_progress"))

    def say(self, words: str, *, aloud: bool, seq: int = 0) -> Told:
        """The agent says something; `aloud`: it is the transcript of sound."""
        kind: Literal["audio", "text"] = "audio" if aloud and self._settings.has_sound else "text"
        told = self._part(kind, seq)
        self._words.append(words)
        name = "response.output_audio_transcript.delta" if kind == "audio" else "response.output_text.delta"
        return *told, *self._events.event(name, **self._place(), delta=words)

    def sound(self, audio: bytes, ms: float, seq: int = 0) -> Told:
        """The agent is heard."""
        told = self._part("audio", seq)
        assert self._open
        self._open.audio_ms += ms
        index = len(self._output) - 1, len(self._open.content) - 1
        sound = self._events.sound(self.id, self._open.id, index, audio, ms)
        return (*told, sound) if told else (sound,)

    def call(self, call_id: str, name: str, arguments: str) -> Told:
        """A function of the client is called."""
        told = *self.begin(), *self._close_item("completed")
        item = Item(self._events.new_id("item"), "function_call", status="in_progress")
        item.call_id, item.name = call_id, name
        told += self._add(item)
        item.arguments, item.status = arguments, "completed"
        place = {"response_id": self.id, "item_id": item.id, "output_index": len(self._output) - 1}
        place["call_id"] = call_id
        delta = self._events.event("response.function_call_arguments.delta", **place, delta=arguments)
        done = self._events.event(
            "response.function_call_arguments.done", **place, name=name, arguments=arguments
        )
        return *told, *delta, *done, *self._item_done(item)

    def end(self, how: Ending, usage: Usage | None = None) -> Told:
        """The response is over."""
        if not self.id:
            return ()
        if how == "completed" and self.problem:
            how = "failed"
        told = self._close_item("completed" if how == "completed" else "incomplete")
        status = "cancelled" if how in ("turn_detected", "client_cancelled") else how
        details: dict[str, Any] | None = None
        if status == "cancelled":
            details = {"type": status, "reason": how}
        elif status == "failed":
            details = {"type": status, "error": self.problem}
        response = self._object(status) | {"status_details": details, "usage": _usage(usage)}
        self.id, self._output, self.problem, self.metadata = "", [], None, None
        return *told, *self._events.event("response.done", response=response)

    def _part(self, kind: Literal["audio", "text"], seq: int) -> Told:
        """Opens a part of this kind for the message with this number, unless it is open; 0: it has none."""
        if self._kind == kind and self._open:
            self._open.seq = seq or self._open.seq
            return ()
        told = self.begin()
        if not self._open:
            self._open = Item(self._events.new_id("item"), role="assistant", status="in_progress")
            self._open.first_seq = seq
            told += self._add(self._open)
        else:
            told += self._close_part()
        self._open.seq = seq or self._open.seq
        self._kind = kind
        words = "transcript" if kind == "audio" else "text"
        self._open.content.append({"type": _PART[kind], words: ""})
        part = {"type": kind, words: ""}
        return *told, *self._events.event("response.content_part.added", **self._place(), part=part)

    def _close_part(self) -> Told:
        if not (self._kind and self._open):
            return ()
        text, place, kind = "".join(self._words), self._place(), self._kind
        words = "transcript" if kind == "audio" else "text"
        self._open.content[-1][words] = text
        self._kind, self._words = "", []
        event = self._events.event
        if kind == "audio":
            told = event("response.output_audio.done", **place)
            told += event("response.output_audio_transcript.done", **place, transcript=text)
        else:
            told = event("response.output_text.done", **place, text=text)
        return *told, *event("response.content_part.done", **place, part={"type": kind, words: text})

    def _close_item(self, status: Literal["completed", "incomplete"]) -> Told:
        if not self._open:
            return ()
        told = self._close_part()
        item, self._open = self._open, None
        item.status = status
        return *told, *self._item_done(item)

    def _add(self, item: Item) -> Told:
        """Adds an item to the response and to the conversation."""
        self._output.append(item)
        shown, index = item.object(is_beta=self._events.is_beta), len(self._output) - 1
        self._items.add(item)
        event = self._events.event
        told = event("response.output_item.added", response_id=self.id, output_index=index, item=shown)
        return *told, *event("conversation.item.added", previous_item_id=item.previous, item=shown)

    def _item_done(self, item: Item) -> Told:
        shown, index = item.object(is_beta=self._events.is_beta), self._output.index(item)
        event = self._events.event
        told = event("conversation.item.done", previous_item_id=item.previous, item=shown)
        return *told, *event("response.output_item.done", response_id=self.id, output_index=index, item=shown)

    def _place(self) -> dict[str, Any]:
        """Where the open part is."""
        assert self._open
        return {
            "response_id": self.id,
            "item_id": self._open.id,
            "output_index": len(self._output) - 1,
            "content_index": len(self._open.content) - 1,
        }

    def _object(self, status: str) -> dict[str, Any]:
        """The response as the API shows it."""
        is_beta = self._events.is_beta
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": None,
            "output": [item.object(is_beta=is_beta) for item in self._output],
            "conversation_id": self._settings.conversation_id,
            **self._settings.of_response(),
            "usage": None,
            "metadata": self.metadata,
        }


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if not usage:
        return None
    return {
        "total_tokens": usage.total,
        "input_tokens": usage.input,
        "output_tokens": usage.output + usage.thoughts,
        "input_token_details": {},
        "output_token_details": {},
    }
