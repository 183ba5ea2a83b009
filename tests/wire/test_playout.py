"""The agent's sound on its way to a caller."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from adk_relay.core.messages import Audio, Gap
from adk_relay.wire.twilio.call import Call
from adk_relay.wire.twilio.frames import Mark, Start
from adk_relay.wire.twilio.playout import LEAD_MS, Piece, Playout, State, encoded

MS = 8
"""Bytes of µ-law in a millisecond."""


def all_due(playout: Playout, now: float = 0.0) -> list[Piece]:
    """All pieces that are to be sent now."""
    pieces = []
    while piece := playout.take(now):
        pieces.append(piece)
    return pieces


def state_of(playout: Playout) -> State:
    return playout.state


def ms_of(pieces: list[Piece]) -> float:
    return sum(len(piece.ulaw) for piece in pieces) / MS


def test_the_first_sound_is_sent_at_once_and_no_more_than_a_second_ahead_of_what_was_played() -> None:
    playout = Playout(1_000_000)
    playout.add(bytes(40 * MS))
    first = all_due(playout)
    assert ms_of(first) == 40
    playout.add(bytes(5000 * MS))
    ahead = all_due(playout)
    assert 900 < 40 + ms_of(ahead) <= LEAD_MS
    assert all_due(playout) == []
    playout.played(first[0].mark)
    playout.played(ahead[0].mark)
    assert ms_of(all_due(playout)) >= len(ahead[0].ulaw) / MS - 100


def test_an_answer_is_played_in_order_to_its_last_byte_and_then_there_is_silence() -> None:
    playout = Playout(1_000_000)
    sent = bytearray()
    for number in range(60):
        playout.add(bytes([number]) * 40 * MS)
    playout.end(b"\xff" * 3)
    assert state_of(playout) is State.ENDING
    while pieces := all_due(playout):
        for piece in pieces:
            sent += piece.ulaw
            playout.played(piece.mark)
    assert sent == b"".join(bytes([number]) * 40 * MS for number in range(60)) + b"\xff" * 3
    assert state_of(playout) is State.SILENT
    assert playout.heard_ms == 60 * 40 + 3 / MS


def test_only_what_was_played_before_it_is_cut_was_heard() -> None:
    playout = Playout(1_000_000)
    playout.add(bytes(3000 * MS))
    pieces = all_due(playout)
    playout.played(pieces[1].mark)
    heard = ms_of(pieces[:2])
    assert playout.heard_ms == heard
    assert playout.cut()  # Twilio has some of it
    assert state_of(playout) is State.SILENT
    for piece in pieces[2:]:  # they come back because the sound was taken back
        playout.played(piece.mark)
    assert playout.heard_ms == heard
    assert not playout.cut()
    playout.add(bytes(40 * MS))
    assert ms_of(all_due(playout)) == 40  # the lead is free again
    assert playout.heard_ms == 0


def test_what_was_heard_is_that_of_the_newest_answer() -> None:
    playout = Playout(1_000_000)
    playout.add(bytes(500 * MS))
    playout.end(b"")
    first = all_due(playout)
    playout.add(bytes(400 * MS))
    second = all_due(playout)
    for piece in first:
        playout.played(piece.mark)
        assert playout.heard_ms == 0
    playout.played(second[0].mark)
    assert playout.heard_ms == len(second[0].ulaw) / MS


def test_at_the_bound_the_oldest_sound_that_waits_is_dropped_and_counted() -> None:
    playout = Playout(4000)  # 3000 bytes of sound
    assert playout.add(b"a" * LEAD_MS * MS) == (LEAD_MS * MS - 3000) / MS
    assert ms_of(all_due(playout)) == 3000 / MS
    playout.add(b"b" * (LEAD_MS * MS - 3000))
    all_due(playout)
    assert playout.add(b"c" * 3000) == 0
    assert playout.add(b"d" * 80) == 10
    assert len(encoded(b"d" * 3000)) == 4000


def test_a_peer_that_returns_no_marks_is_found_out_and_one_that_has_nothing_to_return_is_not() -> None:
    playout = Playout(1_000_000)
    assert not playout.is_stuck(1e9)
    playout.add(bytes(3000 * MS))
    pieces = all_due(playout, now=100.0)
    assert not playout.is_stuck(105.0)
    assert playout.is_stuck(112.0)
    playout.played(pieces[-1].mark)
    assert not playout.is_stuck(112.0)
    all_due(playout, now=112.0)
    playout.cut()
    assert not playout.is_stuck(1e9)


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "end", "played", "old", "cut"]), st.integers(0, 9000)), max_size=60
)


@given(STEPS, st.integers(2000, 40_000))
@settings(max_examples=150)
def test_whatever_happens_the_sound_is_sent_in_order_and_the_invariants_hold(
    steps: list[Step], limit: int
) -> None:
    playout = Playout(limit)
    pieces: list[Piece] = []
    returned = 0
    come = 0

    def the(size: int) -> bytes:
        nonlocal come
        sound = b"".join((come + each).to_bytes(3, "big") for each in range(size))
        come += size
        return sound

    for step, number in steps:
        calls: dict[str, Any] = {
            "add": lambda number=number: playout.add(the(number // 3)),
            "end": lambda: playout.end(the(7) if playout.state is State.SPEAKING else b""),
            "cut": playout.cut,
        }
        if step == "played" and returned < len(pieces):
            returned = min(returned + 1 + number % 3, len(pieces))
            playout.played(pieces[returned - 1].mark)
        elif step == "old" and pieces:
            playout.played(pieces[number % (returned or 1)].mark)
        elif step in calls:
            calls[step]()
            if step == "cut":
                returned = len(pieces)
        playout.check()
        pieces += all_due(playout)
        playout.check()
    sent = b"".join(piece.ulaw for piece in pieces)
    assert len({piece.mark for piece in pieces}) == len(pieces)
    # What is dropped or cut is missing, but nothing comes twice or too early.
    if all(step != "cut" for step, _ in steps) and come * 3 <= limit * 3 // 4:
        numbers = [int.from_bytes(sent[at : at + 3], "big") for at in range(0, len(sent) - 2, 3)]
        assert numbers == [*range(len(numbers))]


def test_an_answer_whose_end_was_not_told_ends_with_the_gap() -> None:
    call = Call(1_000_000)
    assert len([*call.act(Start("MZ", "CA", {}))]) == 1
    frames = call.encode(Audio(1, bytes(48 * 400)))
    assert isinstance(frames, tuple)
    call.encode(Gap(2, 3, 0))
    for number in range(len(frames)):
        [*call.act(Mark(str(number)))]
    call.check()
    assert not call.is_playing()
