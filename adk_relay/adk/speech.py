"""What the model is told of a user's speech besides its sound: where it begins and ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from google.adk.agents.live_request_queue import LiveRequest
from google.adk.agents.run_config import RunConfig
from google.genai import types

from adk_relay.core.messages import ActivityStart, AudioEnd, UserAudio

_FORGOTTEN = 10.0
"""Seconds after which speech without a transcript counts as noise."""

_SILENCE_MS = 500
"""Silence before the end of sound. Some models ignore that end, and answer only after a pause."""


class Speech:
    """Adds the signals that the model needs to the sound of one connection.

    By default the service finds out by itself when somebody speaks. It is told when the sound ends, because
    otherwise it would wait for more. If its detection is switched off (push to talk), it needs the beginning
    and the end of each activity instead, and takes sound in between only.

    Invariants:
        With push to talk, all sound is between a beginning and an end. Without it, there are none of these.
    """

    def __init__(self, *, push_to_talk: bool) -> None:
        self._push_to_talk = push_to_talk
        self._is_active = False
        self._rate = 16_000
        self._spoke_at: float | None = None  # when the user spoke last, if no final transcript has come

    def restart(self, left: Iterable[UserAudio | LiveRequest]) -> Iterator[UserAudio | LiveRequest]:
        """There is a new connection, which knows of no activity.

        Args:
            left: what the connection before was not given any more.

        Returns:
            What the new one gets of it.
        """
        self._is_active = False
        for each in left:
            if isinstance(each, UserAudio):
                if self._push_to_talk:
                    yield from self._activity(goes_on=True)
                yield each
            elif each.audio_stream_end:
                yield each

    def told(self, speech: UserAudio | AudioEnd | ActivityStart) -> Iterator[UserAudio | LiveRequest]:
        """All that the model gets for an input, in order."""
        if isinstance(speech, UserAudio):
            self._rate = speech.rate
            if speech.is_speech:
                self._spoke_at = time.monotonic()
        if self._push_to_talk:
            yield from self._activity(goes_on=not isinstance(speech, AudioEnd))
        elif isinstance(speech, AudioEnd):
            yield UserAudio(bytes(2 * (self._rate * _SILENCE_MS // 1000)), self._rate)
            yield LiveRequest(audio_stream_end=True)
        if isinstance(speech, UserAudio):
            yield speech

    @property
    def is_pending(self) -> bool:
        """The user has just spoken, and the final transcript has not come yet."""
        return self._spoke_at is not None and time.monotonic() - self._spoke_at < _FORGOTTEN

    def settled(self) -> None:
        """The final transcript, or the end of the answer, has come."""
        self._spoke_at = None

    def _activity(self, *, goes_on: bool) -> Iterator[LiveRequest]:
        """The signal for a change: sound without a beginning begins an activity, too."""
        if goes_on and not self._is_active:
            yield LiveRequest(activity_start=types.ActivityStart())
        elif self._is_active and not goes_on:
            yield LiveRequest(activity_end=types.ActivityEnd())
        self._is_active = goes_on


def with_push_to_talk(config: RunConfig, push_to_talk: bool) -> RunConfig:
    """A run configuration with push to talk, or without."""
    if push_to_talk == is_push_to_talk(config):
        return config
    realtime = config.realtime_input_config or types.RealtimeInputConfig()
    detection = realtime.automatic_activity_detection or types.AutomaticActivityDetection()
    detection = detection.model_copy(update={"disabled": push_to_talk})
    realtime = realtime.model_copy(update={"automatic_activity_detection": detection})
    return config.model_copy(update={"realtime_input_config": realtime})


def is_push_to_talk(config: RunConfig) -> bool:
    """Whether the clients have to tell when their users begin and stop to speak."""
    realtime = config.realtime_input_config
    detection = realtime.automatic_activity_detection if realtime else None
    return bool(detection and detection.disabled)
