"""What the users say: where their speech begins and ends for the API, and the items that it becomes.

A model tells nothing of speech but its transcript, and that it was interrupted. So speech begins, for the
API, with the first word that was recognized or with the interruption, and ends with the whole transcript or
with the answer. With manual turns the client itself says what is committed.
"""

from __future__ import annotations

from collections import deque

from adk_relay.wire.openai.items import Item, Items
from adk_relay.wire.openai.server_events import ServerEvents
from adk_relay.wire.openai.settings import Settings

Told = tuple[str, ...]


class Hearing:
    """The speech that one socket is told of.

    Invariants:
        What is being said (`_open`) is no item of the conversation yet.
        All of `_untold` were committed, and have no transcript.
    """

    def __init__(self, events: ServerEvents, items: Items, settings: Settings) -> None:
        self._events = events
        self._items = items
        self._settings = settings
        self._open: Item | None = None
        self._heard = ""
        """The transcript of what is being said, so far."""
        self._untold: deque[Item] = deque(maxlen=16)
        self.ms = 0.0
        """How much sound the client has sent."""
        self._begun_ms = 0.0
        """The same when what is being said was begun."""
        self.is_fresh = False
        """Whether sound has come since something was committed, or an answer began."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._open is None or self._open.id not in self._items, "speech is an item before its end"
        assert self._open or not self._heard, "there is a transcript of no speech"
        untold = (item.content[_audio_in(item)] for item in self._untold)
        assert all(part["transcript"] is None for part in untold), "a transcript is known"

    @property
    def is_open(self) -> bool:
        """Whether something is being said."""
        return self._open is not None

    def sound(self, ms: float) -> None:
        """The client has sent sound."""
        self.ms += ms
        self.is_fresh = True

    def begin(self) -> Told:
        """A user speaks."""
        if self._open:
            return ()
        self._open = Item(self._events.new_id("item"), role="user", status="in_progress")
        self._begun_ms = self.ms
        if self._settings.is_manual:
            return ()
        return self._events.event(
            "input_audio_buffer.speech_started", audio_start_ms=round(self.ms), item_id=self._open.id
        )

    def hear(self, transcript: str) -> Told:
        """More of what is being said was recognized; `transcript` is the whole of it so far."""
        if not self._open and self._untold:  # it is about what was committed already: the whole will come
            return ()
        told = self.begin()
        assert self._open
        new, self._heard = transcript.removeprefix(self._heard), transcript
        if not self._settings.local.transcription or not new:
            return told
        name = "conversation.item.input_audio_transcription.delta"
        return *told, *self._events.event(name, item_id=self._open.id, content_index=0, delta=new)

    def commit(self) -> Told:
        """What was being said is an item now."""
        told = self.begin()
        assert self._open
        item, self._open, self._heard, self.is_fresh = self._open, None, "", False
        event = self._events.event
        if not self._settings.is_manual:
            told += event("input_audio_buffer.speech_stopped", audio_end_ms=round(self.ms), item_id=item.id)
        item.status, item.content = "completed", [{"type": "input_audio", "transcript": None}]
        item.audio_ms = self.ms - self._begun_ms
        self._items.add(item)
        self._untold.append(item)
        told += event("input_audio_buffer.committed", previous_item_id=item.previous, item_id=item.id)
        return *told, *added(self._events, item)

    def expect(self, item: Item) -> None:
        """The sound of an item is said to the model: the transcript that comes is its."""
        self._untold.append(item)

    def settle(self) -> None:
        """An answer is over: what was said before it, and was not understood yet, will not be."""
        self._untold.clear()

    def understand(self, transcript: str) -> Told:
        """What was said is known."""
        told = () if self._untold else self.commit()
        # With manual turns several items may have been committed as one activity: the last one has its words.
        item = self._untold.pop() if self._settings.is_manual else self._untold.popleft()
        if self._settings.is_manual:
            self._untold.clear()
        index = _audio_in(item)
        item.content[index] = {"type": "input_audio", "transcript": transcript}
        if not self._settings.local.transcription:
            return told
        name = "conversation.item.input_audio_transcription.completed"
        usage = {"type": "duration", "seconds": round(item.audio_ms / 1000, 2)}
        about = {"item_id": item.id, "content_index": index}
        return *told, *self._events.event(name, **about, transcript=transcript, usage=usage)


def _audio_in(item: Item) -> int:
    """Which part of an item is the last one of sound."""
    return max(index for index, part in enumerate(item.content) if part["type"] == "input_audio")


def added(events: ServerEvents, item: Item) -> Told:
    """An item that is complete is added to the conversation."""
    shown, previous = item.object(is_beta=events.is_beta), item.previous
    told = events.event("conversation.item.added", previous_item_id=previous, item=shown)
    return *told, *events.event("conversation.item.done", previous_item_id=previous, item=shown)
