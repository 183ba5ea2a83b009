"""What a client's events do: the commands for the conversation, and what the client is told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from adk_relay.core.heard import Heard
from adk_relay.core.messages import (
    AudioEnd,
    Interrupt,
    ToolResult,
    UserAudio,
    UserImage,
    UserText,
)
from adk_relay.core.rewind import Rewind
from adk_relay.core.voice import Configure
from adk_relay.wire.dialects import Command, Reply
from adk_relay.wire.dialects.fields import MAX_TOOL_BYTES
from adk_relay.wire.openai.asking import check_response
from adk_relay.wire.openai.events import (
    Append,
    CancelResponse,
    Clear,
    ClearOutput,
    ClientEvent,
    Commit,
    CreateMessage,
    CreateOutput,
    CreateResponse,
    DeleteItem,
    RetrieveItem,
    TruncateItem,
    UpdateSession,
)
from adk_relay.wire.openai.formats import Incoming, Outgoing
from adk_relay.wire.openai.hearing import added
from adk_relay.wire.openai.items import Item
from adk_relay.wire.openai.refused import RefusedError
from adk_relay.wire.openai.telling import State, Telling, Update
from adk_relay.wire.strict_json import read_json

Done = Iterator[Command | Reply]


class Acting:
    """Does what a client's events ask for. Each method is a generator: see `Dialect.act`."""

    def __init__(self, state: State, telling: Telling) -> None:
        self._state = state
        self._telling = telling
        self._events = state.events
        self._settings = state.settings
        self._items = state.items
        self._answering = state.answering
        self._hearing = state.hearing
        self._asking = state.asking

    def act(self, event: ClientEvent) -> Done:
        """Does what an event asks for.

        Raises:
            RefusedError: it can't be done.
        """
        try:
            yield from _ACT[type(event)](self, event)
        except RefusedError as bad:
            raise bad.about(event.event_id) from None

    # ---- the session ----

    def _update(self, event: UpdateSession) -> Done:
        state, before, was_manual = self._state, self._settings.local, self._settings.is_manual
        configure, refused = self._settings.update(
            event.session, event.event_id, is_settled=not state.updates
        )
        refused = [each.about(event.event_id) for each in refused]
        local = self._settings.local
        if self._settings.is_manual != was_manual:
            self._hearing.is_fresh = False
        if local.incoming != before.incoming:
            state.incoming = Incoming(local.incoming)
        if local.outgoing != before.outgoing:
            state.outgoing = Outgoing(local.outgoing)
        if configure is None:
            yield Reply(self._telling.updated(refused))
            return
        # What not everybody may change comes apart, so that its refusal does not concern the rest.
        plain = replace(configure, instructions=None, tools=None)
        shaping = Configure(instructions=configure.instructions, tools=configure.tools)
        parts = [part for part in (plain, shaping) if replace(part, id="") != Configure()]
        keys = [self._asking.note(event.event_id) for _ in parts]
        update = Update({*keys}, refused)
        state.updates |= dict.fromkeys(keys, update)
        try:
            for part in parts:
                key = keys.pop(0)
                yield replace(part, id=key)
        finally:
            for key in keys:  # the first part was refused here, and the second is not asked for
                update.waiting.discard(key)
                del state.updates[key]
                self._settings.wanted = None

    # ---- sound ----

    def _append(self, event: Append) -> Done:
        incoming = self._state.incoming
        sound = incoming.decode(event.audio)
        self._hearing.sound(incoming.ms(event.audio))
        if sound:  # with manual turns, it also tells the model that the user has begun to speak
            yield sound

    def _commit(self, event: Commit) -> Done:
        if not (self._hearing.is_fresh or self._hearing.is_open):
            message = "There is no sound to commit: none has come since the last commit or answer."
            raise RefusedError("input_audio_buffer_commit_empty", message)
        if rest := self._state.incoming.end():
            yield rest
        yield Reply(self._hearing.commit())
        self._asking.is_committed = True
        if not self._settings.is_manual:
            yield AudioEnd()

    def _clear(self, event: Clear) -> Done:
        if self._settings.is_manual and self._hearing.is_fresh:
            message = "The model has heard the sound already: it can't be taken back. Commit it."
            raise RefusedError("input_audio_buffer_clear_failed", message)
        yield Reply(self._events.event("input_audio_buffer.cleared"))

    def _clear_output(self, event: ClearOutput) -> Done:
        yield from self._stop()
        response_id = self._answering.last_id
        yield Reply(self._events.event("output_audio_buffer.cleared", response_id=response_id))

    # ---- items ----

    def _message(self, event: CreateMessage) -> Done:
        self._check_new(event.id, event.previous)
        for index, part in enumerate(event.parts):
            if part.type == "input_audio":
                self._state.incoming.check(part.data, f"item.content[{index}].audio")
        item = Item(event.id or self._events.new_id("item"), role="user")
        item.content = [
            {"type": "input_text", "text": part.text}
            if part.text
            else {"type": part.type, **({"transcript": None} if part.type == "input_audio" else {})}
            for part in event.parts
        ]
        item.audio_ms = sum(
            self._state.incoming.ms(part.data) for part in event.parts if part.type == "input_audio"
        )
        self._asking.hold(item, event.parts)
        self._items.add(item)
        yield Reply(added(self._events, item))
        for part in event.parts:
            if part.type == "input_image":
                yield UserImage(part.data, part.mime_type)

    def _output(self, event: CreateOutput) -> Done:
        self._check_new(event.id, None)
        if not self._items.call(event.call_id):
            message = f"No function call with the id {event.call_id[:64]!r} is known here."
            raise RefusedError("invalid_value", message, "item.call_id")
        if self._items.output(event.call_id):
            raise RefusedError("invalid_value", "This function call has its output already.", "item.call_id")
        length = len(event.output.encode(errors="replace"))
        if length > MAX_TOOL_BYTES:
            message = f"The output has {length} bytes; at most {MAX_TOOL_BYTES} are allowed."
            raise RefusedError("too_large", message, "item.output")
        self._asking.note(event.event_id, event.call_id)
        item = Item(event.id or self._events.new_id("item"), "function_call_output", call_id=event.call_id)
        item.output = event.output
        self._items.add(item)
        self._asking.goes_on = "waiting"
        yield Reply(added(self._events, item))
        yield ToolResult(event.call_id, _result(event.output))

    def _check_new(self, item_id: str, previous: str | None) -> None:
        if item_id and item_id in self._items:
            raise RefusedError("invalid_value", "There is an item with this id already.", "item.id")
        last = self._items.last
        if previous is not None and previous != (last or "root"):
            message = f"Items can only be added at the end: previous_item_id may be {last or 'root'!r}."
            raise RefusedError("unsupported", message, "previous_item_id")

    def _delete(self, event: DeleteItem) -> Done:
        item = self._item(event.item_id)
        if self._asking.holds(item):
            self._asking.drop(item)
            self._items.remove([item])
            yield Reply(self._events.event("conversation.item.deleted", item_id=item.id))
            return
        last = self._items.last_of_user()
        if item.content and all(part["type"] == "input_image" for part in item.content):
            message = "The model has seen the image already: it can't be taken back."
            raise RefusedError("unsupported", message, "item_id")
        if item is not last and not (last and item.text_id and item.text_id == last.text_id):
            message = (
                "Only the last message of the user can be deleted, which takes back all that came after it:"
                " the session of an agent can't be changed anywhere else."
            )
            raise RefusedError("unsupported", message, "item_id")
        yield Rewind(item.text_id)

    def _retrieve(self, event: RetrieveItem) -> Done:
        shown = self._item(event.item_id).object(is_beta=self._events.is_beta)
        yield Reply(self._events.event("conversation.item.retrieved", item=shown))

    def _truncate(self, event: TruncateItem) -> Done:
        item, end = self._item(event.item_id), event.audio_end_ms
        parts = item.content if item.role == "assistant" else []
        if event.content_index >= len(parts) or parts[event.content_index]["type"] != "output_audio":
            message = "Only the sound of a message of the agent can be truncated."
            raise RefusedError("invalid_value", message, "content_index")
        if end > item.audio_ms + 1:
            message = f"Audio content of {item.audio_ms:.0f}ms is already shorter than {end}ms."
            raise RefusedError("invalid_value", message, "audio_end_ms")
        if item not in self._items.last_of_agent(2):  # the next answer may have begun meanwhile
            message = "Only the last answer can be truncated."
            raise RefusedError("unsupported", message, "item_id")
        yield Heard(end, item.seq)
        truncated = {"item_id": item.id, "content_index": event.content_index, "audio_end_ms": end}
        yield Reply(self._events.event("conversation.item.truncated", **truncated))

    def _item(self, item_id: str) -> Item:
        if item := self._items.get(item_id):
            return item
        raise RefusedError("item_not_found", f"There is no item with the id {item_id[:64]!r}.", "item_id")

    # ---- responses ----

    def _create(self, event: CreateResponse) -> Done:
        asking, answering, hearing = self._asking, self._answering, self._hearing
        check_response(event.response, self._settings)
        if asking.has_held and answering.id and not (answering.is_begun or asking.is_sure):
            yield Reply(answering.end("client_cancelled"))  # the model may not answer that sound at all
        if answering.id:
            if asking.goes_on:  # this is the answer that is asked for
                asking.goes_on = ""
                return
            message = (
                f"Conversation already has an active response: {answering.id}. Wait for its response.done, or"
                " send response.cancel."
            )
            raise RefusedError("conversation_already_has_active_response", message)
        goes_on, asking.goes_on = asking.goes_on, ""
        is_over = False
        asking.is_sure = asking.has_held
        if asking.has_held:
            yield from self._say(event.event_id)
        elif self._settings.is_manual and (hearing.is_fresh or asking.is_committed):
            if hearing.is_fresh:
                yield Reply(hearing.commit())
            yield AudioEnd()
        elif goes_on or asking.is_committed:
            is_over = goes_on == "answered"
        else:
            raise RefusedError("response_create_nothing_to_answer", _NOTHING)
        answering.metadata = event.response.get("metadata")
        yield Reply(answering.begin())
        if is_over:
            yield Reply(answering.end("completed"))

    def _say(self, event_id: str) -> Done:
        """Says what is held."""
        text, audio, spoken = self._asking.held
        key = self._asking.note(event_id)
        if text:
            yield UserText(text, key)
        self._asking.said(key if text else "")  # if it is refused, it is still held
        if audio and spoken:
            self._hearing.expect(spoken)
            yield from self._say_aloud(audio)
        elif self._settings.is_manual and self._asking.is_committed:
            yield AudioEnd()

    def _say_aloud(self, audio: bytes) -> Done:
        """Gives sound to the model that is an utterance by itself."""
        ear = Incoming(self._settings.local.incoming)
        for sound in (ear.decode(audio), ear.end()):
            if isinstance(sound, UserAudio):
                yield sound
        yield AudioEnd()

    def _cancel(self, event: CancelResponse) -> Done:
        if not self._answering.id or event.response_id not in ("", self._answering.id):
            message = "Cancellation failed: no active response found."
            raise RefusedError("response_cancel_not_active", message)
        yield from self._stop()

    def _stop(self) -> Done:
        """Stops the answer. Its end comes as a message, unless nothing of it has come."""
        asking, answering = self._asking, self._answering
        asking.is_canceled = bool(answering.id)
        yield Interrupt()
        if not answering.is_begun:
            asking.is_canceled = False
            yield Reply(answering.end("client_cancelled"))


_NOTHING = (
    "There is nothing to answer: create an item with a text, or commit sound. What is heard with turn"
    " detection is answered without response.create."
)

_ACT: dict[type[ClientEvent], Callable[[Any, Any], Done]] = {
    UpdateSession: Acting._update,
    Append: Acting._append,
    Commit: Acting._commit,
    Clear: Acting._clear,
    ClearOutput: Acting._clear_output,
    CreateMessage: Acting._message,
    CreateOutput: Acting._output,
    DeleteItem: Acting._delete,
    RetrieveItem: Acting._retrieve,
    TruncateItem: Acting._truncate,
    CreateResponse: Acting._create,
    CancelResponse: Acting._cancel,
}


def _result(output: str) -> Any:
    """What a function has returned: most clients write it as JSON."""
    try:
        return read_json(output)
    except ValueError:
        return output
