"""The outbound queue of a dialect that makes several frames of a message, some of them sound."""

from __future__ import annotations

from adk_relay.core.messages import Audio, Dropped, Message, TurnEnd
from adk_relay.wire.outbox import Frames, Outbox, Sound

MS = 48
"""Bytes of sound in a millisecond."""


def several(message: Message) -> Frames:
    """As a dialect with a state encodes: each message as several frames that are never merged."""
    if isinstance(message, Audio):
        return Sound(message.pcm, len(message.pcm) / MS), f"position {message.seq}"
    return None if isinstance(message, Dropped) else (type(message).__name__,)


def waiting_in(outbox: Outbox) -> list[str | bytes]:
    """All frames that wait."""
    frames = []
    while (frame := outbox.take()) is not None:
        outbox.check()
        frames.append(frame)
    return frames


def test_sound_among_several_frames_is_dropped_at_the_bound_and_nothing_else() -> None:
    outbox = Outbox(several, limit=1000)
    for seq in range(1, 6):
        outbox.enqueue(Audio(seq, bytes([seq]) * 6 * MS))
        outbox.check()
    assert waiting_in(outbox) == [
        *("position 1", "position 2"),
        *(each for seq in (3, 4, 5) for each in (bytes([seq]) * 6 * MS, f"position {seq}")),
    ]
    assert outbox.dropped_ms == 12


def test_sound_among_several_frames_is_recalled_when_the_answer_is_interrupted() -> None:
    outbox = Outbox(several, limit=10_000)
    outbox.enqueue(Audio(1, bytes(6 * MS)))
    outbox.enqueue(TurnEnd(2, interrupted=True))
    outbox.check()
    assert waiting_in(outbox) == ["position 1", "TurnEnd"]
