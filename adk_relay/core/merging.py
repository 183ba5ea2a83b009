"""When two neighboring messages become one: a queue that falls behind holds fewer and larger messages."""

from __future__ import annotations

from dataclasses import replace

from adk_relay.core.messages import Audio, Dropped, Message, Text, Transcript, Typing

_AUDIO_BYTES = 24_000
"""500 ms of 24 kHz 16-bit sound. More in one message could not be recalled in parts."""

_TEXT_CHARS = 16 * 1024


def merge(waiting: Message | None, message: Message) -> Message | None:
    """One message that says what `waiting` and then `message` say; None: they must stay apart.

    It has the number of the later message, so that a client which has got it has got both.
    """
    match waiting, message:
        case Audio(), Audio() if len(waiting.pcm) + len(message.pcm) <= _AUDIO_BYTES:
            return Audio(message.seq, waiting.pcm + message.pcm)
        case Typing(), Typing() if waiting.connection_id == message.connection_id:
            return message
        case Text(), Text() if waiting.is_transcript == message.is_transcript:
            if len(waiting.text) + len(message.text) <= _TEXT_CHARS:
                return replace(message, text=waiting.text + message.text)
        case Transcript(final=False), Transcript():
            return message  # it holds all that was heard so far
        case _:
            return merge_dropped(waiting, message)
    return None


def merge_dropped(waiting: Message | None, message: Message | None) -> Dropped | None:
    """The sum of two notes of dropped sound; None: one of the two is something else."""
    match waiting, message:
        case Dropped(), Dropped() if waiting.direction == message.direction:
            return Dropped(message.direction, waiting.audio_ms + message.audio_ms)
    return None
