"""The sound of a listener's microphone, on its way to the process that owns the conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import ActivityStart, AudioEnd, ForModel, UserAudio
from adk_relay.core.microphone import Merger


class Microphone:
    """Merges the sound of one listener, and keeps it while the conversation has no owner.

    What is kept is bounded, and the oldest is given up (see `core.inbox.Inbox`).

    The parts have the invariants.

    Args:
        mic_ms: shorter chunks are merged up to so many milliseconds.
        on_dropped: called with the milliseconds of sound that were given up.
    """

    def __init__(self, mic_ms: float, on_dropped: Callable[[float], None]) -> None:
        self._merger = Merger(mic_ms)
        self._waiting = Inbox(on_dropped=on_dropped)

    def add(self, sound: UserAudio | ActivityStart | AudioEnd) -> None:
        """Takes the next chunk, or where speech begins or ends."""
        if isinstance(sound, UserAudio):
            for chunk in self._merger.add(sound):
                self._waiting.add(chunk)
        else:
            self.flush()
            self._waiting.add(sound)

    def flush(self) -> None:
        """No more sound comes: what waits to be merged is complete."""
        for chunk in self._merger.flush():
            self._waiting.add(chunk)

    def take(self) -> Iterator[ForModel]:
        """Removes what waits for the owner, in order."""
        while (sound := self._waiting.take()) is not None:
            yield sound
