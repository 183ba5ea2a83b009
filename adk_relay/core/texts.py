"""The ids of the latest texts, so that a text which is sent again is not said again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum, auto

from adk_relay.core.listener import Listener
from adk_relay.core.messages import UserText

_MAX_IDS = 4096
"""How many ids are remembered: those of the latest texts."""


class Known(Enum):
    """What is known of a text's id."""

    NEW = auto()
    """Nothing: the text has no id, or the id was not used lately."""
    WAITING = auto()
    """It belongs to this text, which is not stored yet."""
    STORED = auto()
    """It belongs to this text, which is stored."""
    TAKEN = auto()
    """It belongs to another text."""


@dataclass(slots=True)
class _Entry:
    hash: int  # of the text; the text itself would take memory
    listener: Listener | None  # the one to be told when the text is stored; None: it is stored


class Texts:
    """The ids of a conversation's latest texts, and which listener waits for the ack of each.

    A client that lost its socket before the ack came sends the text again through another socket. The id
    shows that the text was said already. The latest sender gets the ack. An id is one of its member: another
    member's text with the same id is another text.

    Invariants:
        At most 4,096 ids are known, those of the latest texts.
        A text without an id is not among them.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()  # by `UserText.key`, oldest first

    def look_up(self, text: UserText) -> Known:
        """What is known of the text's id."""
        entry = self._entries.get(text.key)
        if entry is None:
            return Known.NEW
        if entry.hash != hash(text.text):
            return Known.TAKEN
        return Known.STORED if entry.listener is None else Known.WAITING

    def add(self, text: UserText, listener: Listener) -> None:
        """Remembers a text that is going to be said. From now on only `listener` waits for its ack."""
        if text.id:
            self._entries[text.key] = _Entry(hash(text.text), listener)
            if len(self._entries) > _MAX_IDS:
                self._entries.popitem(last=False)

    def load(self, texts: Iterable[UserText]) -> None:
        """Begins with texts that are stored, the oldest first."""
        for text in texts:
            if text.id:
                self._entries[text.key] = _Entry(hash(text.text), None)

    def stored(self, text: UserText) -> Listener | None:
        """Marks a text as stored; returns the listener that waits for its ack."""
        if not (entry := self._entries.get(text.key)):
            return None
        listener, entry.listener = entry.listener, None
        return listener

    def forget(self, text: UserText) -> Listener | None:
        """Forgets a text that is not said after all, so that it can be sent again.

        Returns:
            The listener that waits for its ack.
        """
        entry = self._entries.pop(text.key, None)
        return entry.listener if entry else None

    def clear(self, *, but: Collection[tuple[str, str]] = ()) -> list[tuple[str, Listener]]:
        """Forgets all ids; returns those that were not stored yet, each with the listener that waits.

        Args:
            but: keys that stay, because their texts are still to be said.
        """
        gone = {key: entry for key, entry in self._entries.items() if key not in but}
        for key in gone:
            del self._entries[key]
        return [(text_id, entry.listener) for (_, text_id), entry in gone.items() if entry.listener]

    def check(self) -> None:
        """Asserts the invariants."""
        assert len(self._entries) <= _MAX_IDS, "too many ids are kept"
        assert all(text_id for _, text_id in self._entries), "a text without an id is kept"
