"""A telephone call as a dialect: what its frames mean, and which frames messages lead to."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from adk_relay.core.heard import Heard
from adk_relay.core.messages import Audio, Dropped, Gap, Message, Reset, Text, TurnEnd, UserAudio, UserText
from adk_relay.core.rewind import Rewound
from adk_relay.wire.closing import Close
from adk_relay.wire.dialects import Attend, BadFrameError, Event, Reply
from adk_relay.wire.outbox import Sound
from adk_relay.wire.twilio.call import Call, Stage
from adk_relay.wire.twilio.frames import Key, Mark, Media, Start, Stop
from support.gemini import silence, speech
from support.server import need_module

need_module("soxr")

MS = 48
"""Bytes of the agent's sound in a millisecond."""


def events(call: Call, messages: Iterable[Message]) -> list[str]:
    """The kinds of the frames that messages lead to; marks by their names."""
    told = []
    for message in messages:
        frames = call.encode(message)
        for frame in frames if isinstance(frames, tuple) else (frames,):
            if isinstance(frame, Dropped):
                told.append("dropped")
            elif frame is not None:
                fields = json.loads(frame.frame if isinstance(frame, Sound) else frame)
                assert fields["streamSid"] == "MZ1"
                told.append(fields["mark"]["name"] if "mark" in fields else fields["event"])
    return told


def begun(limit: int = 1_000_000) -> Call:
    """A call that has begun."""
    call = Call(limit)
    (attend,) = call.act(Start("MZ1", "CA1", {"token": "a token", "more": "x"}))
    assert attend == Attend("call-CA1", "", "", "a token")
    assert "a token" not in repr(attend)
    return call


def heard(call: Call) -> Heard | None:
    """What is to be told, besides what the next frame of sound yields."""
    assert [type(each) for each in call.act(Media(silence(20, 8000)))] == [UserAudio]
    return call.heard(False)


def test_nothing_is_taken_before_a_call_begins_or_after_its_end_and_it_begins_once() -> None:
    call = Call(1000)
    for early in (Media(b"\0\0"), Key("1"), Mark("1")):
        with pytest.raises(BadFrameError, match="start must come first"):
            list(call.act(early))
    assert list(call.act(Event())) == []
    call = begun()
    with pytest.raises(BadFrameError, match="has started already"):
        list(call.act(Start("MZ2", "CA2", {})))
    assert list(call.act(Media(b"\0\0"))) == [UserAudio(b"\0\0", 8000)]
    with pytest.raises(Close):
        list(call.act(Stop()))
    assert call.stage is Stage.OVER
    with pytest.raises(BadFrameError):
        list(call.act(Key("1")))


def test_an_interrupted_answer_is_cleared_at_once_and_what_was_heard_is_told_once() -> None:
    call = begun()
    assert events(call, [Audio(1, bytes(400 * MS)), Text(2, "Hello")]) == ["media", "1", "media", "2"]
    list(call.act(Mark("1")))
    assert events(call, [TurnEnd(3, interrupted=True)]) == ["clear"]
    assert heard(call) == Heard(200.0, 3)
    assert heard(call) is None
    list(call.act(Mark("2")))  # comes back because it was cleared
    assert events(call, [TurnEnd(4, interrupted=True)]) == []  # nothing is left to be cleared
    assert heard(call) == Heard(200.0, 4)


def test_an_answer_that_goes_on_after_a_lost_connection_is_played_and_then_its_rest() -> None:
    call = begun()
    events(call, [Audio(1, bytes(300 * MS))])
    assert "clear" not in events(call, [TurnEnd(2, interrupted=True, goes_on=True)])
    assert heard(call) is None
    media, mark = events(call, [Audio(3, bytes(200 * MS))])
    assert media == "media"
    assert list(call.act(Mark(mark))) == []
    assert events(call, [TurnEnd(4, interrupted=True)]) == []
    assert (told := heard(call))
    assert 190 < told.ms <= 200  # of the rest alone
    assert told.seq == 4


def test_only_speech_after_the_end_of_an_answer_that_is_still_heard_interrupts_it() -> None:
    call = begun()
    loud = Media(speech(400, 8000))
    events(call, [Audio(1, bytes(900 * MS))])
    assert list(call.act(loud)) == [UserAudio(loud.pcm, 8000)]  # the model decides
    events(call, [TurnEnd(2)])
    list(call.act(Mark("1")))
    reply, told, sound = call.act(loud)
    assert isinstance(reply, Reply)
    assert json.loads(str(reply.frames)) == {"event": "clear", "streamSid": "MZ1"}
    assert told == Heard(200.0, 1)
    assert sound == UserAudio(loud.pcm, 8000)
    assert list(call.act(loud)) == [UserAudio(loud.pcm, 8000)]  # there is nothing more to interrupt
    events(call, [Audio(5, bytes(900 * MS)), TurnEnd(6)])
    cleared, about, text = call.act(Key("#"))
    assert (about, text) == (Heard(0.0, 5), UserText("The caller pressed # on the telephone."))
    assert isinstance(cleared, Reply)


@pytest.mark.parametrize("message", [Reset("b", False), Rewound(9, "", 0)])
def test_what_was_taken_back_is_heard_no_more(message: Message) -> None:
    call = begun()
    events(call, [Audio(1, bytes(900 * MS)), TurnEnd(2)])
    assert events(call, [message]) == ["clear"]
    assert heard(call) is None
    assert events(call, [Audio(3, bytes(100 * MS))])[0] == "media"


def test_who_leaves_hears_no_more() -> None:
    call = begun()
    assert call.heard(True) is None
    events(call, [Audio(1, bytes(900 * MS))])
    list(call.act(Mark("1")))
    assert call.is_playing()
    assert call.heard(True) == Heard(200.0, 1, leaves=True)
    assert not call.is_playing()
    assert call.heard(True) is None


def test_an_answer_whose_end_was_not_told_ends_with_the_gap() -> None:
    call = begun()
    marks = events(call, [Audio(1, bytes(400 * MS)), Gap(2, 3, 0)])[1::2]
    for mark in marks:
        list(call.act(Mark(mark)))
    assert not call.is_playing()


def test_sound_that_does_not_fit_is_noted() -> None:
    call = begun(limit=400)
    assert "dropped" in events(call, [Audio(1, bytes(5000 * MS))])
