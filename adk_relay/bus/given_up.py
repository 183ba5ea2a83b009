"""Sound that was given up on its way to another process: the listeners that it is missing to are told."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from adk_relay.bus.codec import decode, encode
from adk_relay.bus.packs import Item
from adk_relay.core.messages import Audio, Dropped, UserAudio

_EVERY = 1.0
"""Seconds between two times that the listeners elsewhere are told: what tells them has to go the same way."""

_BYTES_PER_MS = 48
"""Of sound from the model."""


class _To(NamedTuple):
    """Listeners of another process."""

    process: str
    conversation: str
    token: int
    connections: tuple[str, ...]
    """None of them: all that it has in the conversation."""


class GivenUp:
    """Tells who speaks at once, and who listens once a second, how much sound was given up.

    Args:
        send: as `Hub.send_quietly`.
        speakers: called with a conversation, connections of this process in it, and milliseconds.

    Invariants:
        While there is something to tell, `_some` is set.
    """

    def __init__(
        self,
        send: Callable[[str, str, int, str, bytes], None],
        speakers: Callable[[str, Sequence[str], float], None],
    ) -> None:
        self._send = send
        self._speakers = speakers
        self._ms = defaultdict[_To, float](float)
        self._some = asyncio.Event()

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._some.is_set() or not self._ms, "there is something to tell, and the task does not know"

    def add(self, process: str, item: Item) -> None:
        """Takes what was given up on its way to a process."""
        sound = decode(item.content)
        if isinstance(sound, UserAudio):
            self._speakers(item.conversation, item.connections, len(sound.pcm) / 2 / sound.rate * 1000)
        elif isinstance(sound, Audio):
            listeners = _To(process, item.conversation, item.token, (*item.connections,))
            self._ms[listeners] += len(sound.pcm) / _BYTES_PER_MS
            self._some.set()

    def forget(self, process: str) -> None:
        """A process has died."""
        self._ms = defaultdict(float, {to: ms for to, ms in self._ms.items() if to.process != process})

    async def run(self) -> None:
        """Tells the listeners of other processes, until it is cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(_EVERY)
            self._some.clear()
            told, self._ms = self._ms, defaultdict(float)
            for to, ms in told.items():
                for connection in to.connections or ("",):
                    content = encode(Dropped("down", ms))
                    self._send(to.process, to.conversation, to.token, connection, content)
