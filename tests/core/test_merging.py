"""Which neighboring messages become one."""

from __future__ import annotations

import pytest

from adk_relay.core.merging import merge, merge_dropped
from adk_relay.core.messages import Audio, Dropped, Error, Message, Text, Transcript, TurnEnd, Typing

LONG_TEXT = "x" * 16 * 1024
LONG_SOUND = bytes(24_000)


@pytest.mark.parametrize(
    ("waiting", "message", "merged"),
    [
        (Audio(1, b"ab"), Audio(2, b"cd"), Audio(2, b"abcd")),
        (Audio(1, LONG_SOUND[:-2]), Audio(2, b"cd"), Audio(2, LONG_SOUND[:-2] + b"cd")),
        (Text(1, "a", number=1), Text(2, "b", number=2), Text(2, "ab", number=2)),
        (Text(1, LONG_TEXT[1:]), Text(2, "b"), Text(2, LONG_TEXT[1:] + "b")),
        (Transcript(1, "he", final=False), Transcript(2, "hello", final=True), Transcript(2, "hello", True)),
        (Typing("alice", True), Typing("alice", False), Typing("alice", False)),
        (Dropped("down", 1.5), Dropped("down", 2.0), Dropped("down", 3.5)),
    ],
)
def test_neighbors_of_a_type_become_one_message_with_the_later_number(
    waiting: Message, message: Message, merged: Message
) -> None:
    assert merge(waiting, message) == merged


@pytest.mark.parametrize(
    ("waiting", "message"),
    [
        (None, Text(1, "a")),
        (Audio(1, LONG_SOUND), Audio(2, b"cd")),
        (Text(1, LONG_TEXT), Text(2, "b")),
        (Text(1, "a"), Text(2, "b", is_transcript=True)),
        (Transcript(1, "hello", final=True), Transcript(2, "you", final=False)),
        (Typing("alice", True), Typing("bob", True)),
        (Dropped("down", 1.0), Dropped("up", 1.0)),
        (Text(1, "a"), Audio(2, b"ab")),
        (TurnEnd(1), TurnEnd(2)),
        (Error("busy", "Wait."), Error("busy", "Wait.")),
    ],
)
def test_messages_that_differ_are_not_merged(waiting: Message | None, message: Message) -> None:
    assert merge(waiting, message) is None


def test_only_notes_of_dropped_sound_add_up() -> None:
    assert merge_dropped(Dropped("up", 1.0), Dropped("up", 2.0)) == Dropped("up", 3.0)
    assert merge_dropped(Text(1, "a"), Text(2, "b")) is None
    assert merge_dropped(Dropped("up", 1.0), None) is None
