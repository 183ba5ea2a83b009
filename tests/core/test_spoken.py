"""How much of an answer was heard: which words are left, and which answer a client tells of."""

from __future__ import annotations

import pytest

from adk_relay.core import spoken
from adk_relay.core.heard import Heard, words_within
from adk_relay.core.spoken import BYTES_PER_MS, Aloud
from support.clock import Clock

SECOND = bytes(BYTES_PER_MS * 1000)
TEXT = "One two three four."


@pytest.mark.parametrize(
    ("text", "length", "left"),
    [
        ("One two.", 0, ""),
        ("One two.", 2.9, ""),
        ("One two.", 3, "One"),
        ("One two.", 7.9, "One"),
        ("One two.", 8, "One two."),
        (" One  two", 5.5, " One"),
        ("你好世界 and more", 3.5, "你好世"),
        ("你好世界 and more", 7, "你好世界"),
        ("สวัสดีครับ", 2, "ส"),  # not without its vowel sign
        ("", 5, ""),
    ],
)
def test_the_words_that_are_whole(text: str, length: float, left: str) -> None:
    assert words_within(text, length) == left


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(spoken, "time", clock)
    return clock


def answered(aloud: Aloud, seq: int, seconds: int = 2, *, is_interrupted: bool = True) -> None:
    """An answer, with the number of its end."""
    for _ in range(seconds):
        aloud.sound(SECOND)
    aloud.ended(seq, seq - 5, 0, TEXT, is_interrupted=is_interrupted)
    aloud.check()


def left(aloud: Aloud, ms: float, seq: int = 0) -> str | None:
    """What is left of the last answer when a client has told this; None: nothing has changed."""
    answer = aloud.about(Heard(ms, seq))
    if answer is None:
        return None
    answer.hear(ms)
    return answer.text if answer is aloud.last and answer.shorten() else None


def test_what_was_said_before_can_only_become_less(clock: Clock) -> None:
    aloud = Aloud()
    answered(aloud, 10)
    assert left(aloud, 2000) is None  # all of it
    assert left(aloud, 1500, 10) == "One two three"
    assert left(aloud, 1600, 10) is None
    assert left(aloud, 1000, 10) == "One two"
    assert left(aloud, 0, 10) == ""
    assert left(aloud, 0, 10) is None


def test_the_answer_that_is_meant(clock: Clock) -> None:
    aloud = Aloud()
    answered(aloud, 10)
    clock.now += 1
    aloud.sound(SECOND)  # of the next answer
    assert left(aloud, 1000) == "One two"  # it was interrupted just now
    assert left(aloud, 500) is None and aloud.open.heard == 500
    assert left(aloud, 500, 10) == "One"
    assert left(aloud, 400, 12) is None and aloud.open.heard == 400
    assert left(aloud, 1500) is None and aloud.open.heard == 400  # more than the open answer has
    answered(aloud, 20, 3)
    assert aloud.last and aloud.last.shorten() and aloud.last.text == ""  # as was told before its end
    assert left(aloud, 0, 10) is None  # of the one before that
    aloud.ended(25, 0, None, "", is_interrupted=True)  # while the last one was played
    answered(aloud, 30)
    aloud.ended(35, 0, None, "", is_interrupted=True)
    assert left(aloud, 1000, 35) == "One two"


def test_it_may_be_late_but_not_too_late(clock: Clock) -> None:
    aloud = Aloud()
    answered(aloud, 10)
    clock.now += 14
    assert left(aloud, 1500, 10) == "One two three"
    clock.now += 2
    assert left(aloud, 1000, 10) is None
    answered(aloud, 20, 60, is_interrupted=False)
    clock.now += 74  # a minute of sound, which was made at once
    assert left(aloud, 45_000, 20) == "One two three"
    clock.now += 2
    assert left(aloud, 1000, 20) is None


def test_what_was_said_before_a_connection_was_lost_stays(clock: Clock) -> None:
    aloud = Aloud()
    aloud.sound(SECOND)
    aloud.lost(5, len("One two"))
    assert left(aloud, 0) is None and left(aloud, 0, 5) is None  # of the sound before that
    assert left(aloud, 0, 4) is None
    aloud.sound(SECOND)
    aloud.sound(SECOND)
    assert left(aloud, 0, 5) is None and aloud.open.heard is None
    aloud.ended(10, 1, 0, TEXT, is_interrupted=True)
    assert left(aloud, 1000, 10) == "One two three"
    assert left(aloud, 0, 10) == "One two"
