"""What gathers for a process until it is sent: a queue with bounds, and the packs that are made of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from adk_relay.bus.codec import CodecError, from_bytes, to_bytes
from adk_relay.core.inbox import InboxFullError

_ENVELOPE = 64
"""Bytes that are counted for each item, in addition to its content."""


@dataclass(slots=True)
class Item:
    """Something that one process tells another about a conversation."""

    conversation: str
    token: int
    """Of the owner that the sender knows of, or is."""
    connections: list[str]
    """Whom it is for, or who does it, by connection id; empty: that depends on the content."""
    content: bytes
    """What `codec.encode` has made."""
    added_at: float = field(default_factory=time.monotonic, compare=False)


class Pack(NamedTuple):
    """What one process has sent another at once."""

    sender: str
    since: int
    """When the sender began to count, in ns by a clock of its own that is never set back."""
    number: int
    """1, 2, 3 …"""
    items: list[Item]


def pack(sender: str, since: int, number: int, items: Sequence[Item]) -> bytes:
    """A pack as bytes."""
    listed = [(item.conversation, item.token, item.connections, item.content) for item in items]
    return to_bytes((sender, since, number, listed))


def unpack(data: bytes) -> Pack:
    """The pack that these bytes are.

    Raises:
        CodecError: they are none.
    """
    try:
        sender, since, number, listed = from_bytes(data)
        return Pack(sender, since, number, [Item(*each) for each in listed])
    except (ValueError, TypeError) as error:
        raise CodecError(f"these bytes are no pack: {error}") from None


class Outgoing:
    """What waits for a process, in order.

    Content is never given up: where it would exceed its bound, `add` refuses more. Sound is given up, the
    oldest first, when it has waited for `sound_seconds` or exceeds its bound.

    Invariants:
        `_content_bytes` and `_sound_bytes` are the sums over their lanes, and within their bounds.
        The serials in each lane rise.

    Args:
        content_bytes, sound_bytes: the bounds.
        on_dropped: called with each item of sound that was given up.
    """

    def __init__(
        self, content_bytes: int, sound_bytes: int, sound_seconds: float, on_dropped: Callable[[Item], None]
    ) -> None:
        self._limits = content_bytes, sound_bytes
        self._sound_seconds = sound_seconds
        self._on_dropped = on_dropped
        self._content: deque[tuple[int, Item]] = deque()
        self._sound: deque[tuple[int, Item]] = deque()
        self._content_bytes = self._sound_bytes = 0
        self._serial = 0
        self._last: Item | None = None
        """The item that was added last, while it waits."""

    def check(self) -> None:
        """Asserts the invariants."""
        for lane, counted in ((self._content, self._content_bytes), (self._sound, self._sound_bytes)):
            total = sum(_size(item) for _, item in lane)
            assert total == counted, f"{total} bytes wait, and {counted} are counted"
            assert all(a < b for (a, _), (b, _) in pairwise(lane)), "items are not in order"
        assert self._content_bytes <= self._limits[0], f"{self._content_bytes} bytes of content wait"
        assert self._sound_bytes <= self._limits[1], f"{self._sound_bytes} bytes of sound wait"

    def __len__(self) -> int:
        return len(self._content) + len(self._sound)

    def add(self, conversation: str, token: int, connection: str, content: bytes, *, is_sound: bool) -> Item:
        """Adds something for a connection, or for none (""). The same content for another one is sent once.

        Returns:
            The item that will be sent. Until then its `connections` may be changed.

        Raises:
            InboxFullError: too much content waits already.
        """
        last = self._last if connection else None
        if last and last.connections and last.content is content and last.conversation == conversation:
            last.connections.append(connection)
            return last
        item = Item(conversation, token, [connection] if connection else [], content)
        size = _size(item)
        if not is_sound and self._content_bytes + size > self._limits[0]:
            raise InboxFullError
        self._serial += 1
        if is_sound:
            self._sound.append((self._serial, item))
            self._sound_bytes += size
            self._give_up(item.added_at)
        else:
            self._content.append((self._serial, item))
            self._content_bytes += size
        self._last = item
        return item

    def take(self, limit: int) -> list[Item]:
        """Takes the first items, of at most `limit` bytes, but at least one if one waits."""
        self._give_up(time.monotonic())
        taken: list[Item] = []
        while self._content or self._sound:
            is_sound = not self._content or bool(self._sound and self._sound[0] < self._content[0])
            lane = self._sound if is_sound else self._content
            size = _size(lane[0][1])
            if taken and size > limit:
                break
            limit -= size
            taken.append(lane.popleft()[1])
            if is_sound:
                self._sound_bytes -= size
            else:
                self._content_bytes -= size
        self._last = None
        return taken

    def drop(self, conversation: str, token: int) -> None:
        """Gives up all of a conversation that has this token."""
        for lane in (self._content, self._sound):
            kept = [each for each in lane if (each[1].conversation, each[1].token) != (conversation, token)]
            lane.clear()
            lane.extend(kept)
        self._content_bytes = sum(_size(item) for _, item in self._content)
        self._sound_bytes = sum(_size(item) for _, item in self._sound)
        self._last = None

    def _give_up(self, now: float) -> None:
        while self._sound:
            item = self._sound[0][1]
            if self._sound_bytes <= self._limits[1] and now - item.added_at <= self._sound_seconds:
                return
            self._sound.popleft()
            self._sound_bytes -= _size(item)
            self._last = None
            self._on_dropped(item)


def _size(item: Item) -> int:
    return _ENVELOPE + len(item.content)
