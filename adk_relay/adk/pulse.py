"""When the model was heard last, and what it is being sent: whether its connection still works."""

from __future__ import annotations

import time

from google.adk.events import Event

from adk_relay.core.stats import Sound

_STALLED_AFTER = 5.0
"""Seconds in which an open connection must take what is sent; otherwise it counts as lost."""

_SILENT_AFTER = 60.0
"""Seconds after which a model that owes an answer, and sends nothing, counts as lost."""

_LATE_WORDS = 5.0
"""Seconds after which words that came at rest count as the end of the answer before: it has no other end."""

SOUND_RATE = 2 * 24_000
"""Bytes of the model's sound in a second."""


class Pulse:
    """The signs of life of a run's connection.

    Only the connection's own time counts. What the agent's callbacks, its tools and the store take is not
    counted here: nothing is being sent then, and the run does not ask for the silence.

    Args:
        sound: counts the model's sound; None: nobody reads the counters.

    Invariants:
        A text is being sent only while something is.
    """

    def __init__(self, sound: Sound | None = None) -> None:
        self._sound = sound or Sound()
        self._heard_at = time.monotonic()  # when the last that was heard or sent is over
        self._is_talk = False  # the open answer has sound
        self._sending_since: float | None = None
        self._is_text = False  # what is being sent is a text

    def connected(self) -> None:
        """There is a new connection."""
        self._heard_at, self._sending_since, self._is_text = time.monotonic(), None, False

    def heard(self, seconds: float, *, is_first: bool = False, is_short: bool = False) -> None:
        """The model has sent something.

        Args:
            seconds: how long it takes to play. A model that assumes that its sound is played as it comes
                completes its turn only after that.
            is_first: no answer was open.
            is_short: it is sound that has gone past ADK.
        """
        if is_short:
            self._sound.short += seconds
        else:
            self._sound.long += seconds
        self._is_talk = seconds > 0 or (self._is_talk and not is_first)
        self._heard_at = max(self._heard_at, time.monotonic()) + seconds

    def sending(self, *, is_text: bool) -> None:
        """Something is being sent."""
        self._sending_since, self._is_text = time.monotonic(), is_text

    def sent(self) -> bool:
        """It was sent; returns whether it was a text."""
        was_text = self._is_text
        if was_text:
            self._heard_at = max(self._heard_at, time.monotonic())
        self._sending_since, self._is_text = None, False
        return was_text

    def is_stalled(self, *, text_waits: bool) -> bool:
        """Whether the connection takes no text any more."""
        since = self._sending_since
        is_text_late = self._is_text or text_waits
        return is_text_late and since is not None and time.monotonic() - since > _STALLED_AFTER

    @property
    def is_silent(self) -> bool:
        """The model has sent nothing for so long that no answer comes any more."""
        return time.monotonic() - self._heard_at > _SILENT_AFTER

    @property
    def is_over(self) -> bool:
        """An answer that was opened by nobody's question has no end of its own."""
        return time.monotonic() - self._heard_at > (_SILENT_AFTER if self._is_talk else _LATE_WORDS)

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._sending_since is not None or not self._is_text, "a text is being sent, and nothing is"


def seconds_of_sound(event: Event) -> float:
    """How long the sound in an event of ADK's takes to play."""
    parts = (event.content and event.content.parts) or []
    return sum(len((part.inline_data and part.inline_data.data) or b"") for part in parts) / SOUND_RATE
