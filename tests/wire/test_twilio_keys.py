"""The keys that a caller presses, and what counts as speech while the agent is heard."""

from __future__ import annotations

from array import array

from adk_relay.wire.twilio.barge_in import BargeIn
from adk_relay.wire.twilio.keys import Keys
from support.gemini import silence, speech

RATE = 8000


def test_keys_are_told_after_a_pause_or_at_a_hash_and_never_more_than_fit() -> None:
    keys = Keys()
    assert keys.look(0.0) == ""
    assert [keys.press(key, at) for key, at in (("1", 1.0), ("2", 2.0), ("*", 3.4))] == ["", "", ""]
    assert keys.look(4.8) == ""
    assert keys.look(4.9) == "The caller pressed 1 2 * on the telephone."
    assert keys.look(9.0) == ""
    assert keys.press("7", 10.0) == ""
    assert keys.press("#", 10.1) == "The caller pressed 7 # on the telephone."
    assert keys.press("#", 10.2) == "The caller pressed # on the telephone."
    told = [keys.press("5", 11.0) for _ in range(64)]
    assert told[:-1] == [""] * 63
    assert told[-1].count("5") == 64


def test_a_word_interrupts_and_a_knock_or_steady_noise_below_speech_does_not() -> None:
    barge_in = BargeIn()

    def hears(pcm: bytes) -> bool:
        step = 2 * RATE // 50
        return any(barge_in.hear(pcm[at : at + step], 20) for at in range(0, len(pcm), step))

    assert not any(hears(speech(100, RATE) + silence(200, RATE)) for _ in range(20))
    quiet = array("h", [400, -400] * RATE).tobytes()
    assert not hears(quiet)
    assert not hears(speech(220, RATE))
    barge_in.forget()
    assert not hears(speech(220, RATE))
    assert hears(speech(20, RATE))
    assert hears(speech(150, RATE) + silence(40, RATE) + speech(150, RATE))  # a word with a stop in it
