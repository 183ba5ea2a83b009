"""Whether a connection still works, by what was heard and sent, and when."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from adk_relay.adk.pulse import Pulse


def is_silent(pulse: Pulse) -> bool:  # of a property, mypy would think that it stays what it was
    return pulse.is_silent


def is_over(pulse: Pulse) -> bool:
    return pulse.is_over


class Clock:
    """The time, which a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("adk_relay.adk.pulse.time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    return Pulse()


def test_a_model_is_silent_after_a_minute(clock: Clock, pulse: Pulse) -> None:
    clock.now += 59
    assert not is_silent(pulse)
    pulse.heard(0.0)
    clock.now += 59
    assert not is_silent(pulse)
    clock.now += 2
    assert is_silent(pulse)
    pulse.connected()
    assert not is_silent(pulse)


def test_sound_is_heard_until_it_was_played(clock: Clock, pulse: Pulse) -> None:
    for _ in range(2):
        pulse.heard(100.0)
    clock.now += 259
    assert not is_silent(pulse)
    clock.now += 2
    assert is_silent(pulse)
    pulse.heard(1.0)
    clock.now += 60
    assert not is_silent(pulse), "the time counts from now, not from the end of the sound before"


def test_a_text_that_was_sent_begins_a_new_wait_and_sound_does_not(clock: Clock, pulse: Pulse) -> None:
    clock.now += 59
    pulse.sending(is_text=False)
    assert not pulse.sent()
    clock.now += 2
    assert is_silent(pulse)
    pulse.sending(is_text=True)
    assert pulse.sent()
    assert not is_silent(pulse)


def test_words_that_nobody_asked_for_are_over_soon_and_talk_is_not(clock: Clock, pulse: Pulse) -> None:
    pulse.heard(0.0, is_first=True)
    clock.now += 4
    assert not is_over(pulse)
    clock.now += 2
    assert is_over(pulse)
    pulse.heard(1.0, is_first=True)
    pulse.heard(0.0)
    clock.now += 59
    assert not is_over(pulse)
    clock.now += 3
    assert is_over(pulse)
    pulse.heard(0.0, is_first=True)
    clock.now += 6
    assert is_over(pulse), "the next answer has no sound"


@pytest.mark.parametrize("text_waits", [False, True])
@pytest.mark.parametrize("is_text", [False, True])
def test_only_texts_find_a_connection_stalled(
    clock: Clock, pulse: Pulse, is_text: bool, text_waits: bool
) -> None:
    assert not pulse.is_stalled(text_waits=text_waits)
    pulse.sending(is_text=is_text)
    clock.now += 4
    assert not pulse.is_stalled(text_waits=text_waits)
    clock.now += 2
    assert pulse.is_stalled(text_waits=text_waits) == (is_text or text_waits)
    pulse.sent()
    assert not pulse.is_stalled(text_waits=text_waits)
    pulse.sending(is_text=is_text)
    clock.now += 6
    pulse.connected()
    assert not pulse.is_stalled(text_waits=text_waits)
