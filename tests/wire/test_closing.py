"""How sockets are closed: the codes and what they tell a client to do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adk_relay.wire import closing
from adk_relay.wire.closing import CloseFrame

FRAMES = {name: value for name, value in vars(closing).items() if isinstance(value, CloseFrame)}


def test_the_range_of_a_private_code_says_whether_to_come_back() -> None:
    private = {name: frame for name, frame in FRAMES.items() if frame.code >= 4000}
    assert private
    for name, frame in private.items():
        assert 4400 <= frame.code <= 4499, name
        assert (frame.come_back == "after a pause") == (frame.code >= 4410), name


def test_a_private_code_says_the_same_as_the_standard_one() -> None:
    for frame in FRAMES.values():
        private = frame.private()
        assert private.code == 1000 or 4400 <= private.code <= 4499  # what autobahn, and so daphne, can send
        assert (private.reason, private.come_back) == (frame.reason, frame.come_back)
        if private.code >= 4400 and private.code != 4408:
            assert (private.come_back == "after a pause") == (private.code >= 4410)


def test_each_code_has_one_instruction_for_clients() -> None:
    for frame in FRAMES.values():
        assert {other.come_back for other in FRAMES.values() if other.code == frame.code} == {frame.come_back}


@given(st.text(st.characters(exclude_categories=[])))
def test_any_reason_fits_into_a_close_frame(reason: str) -> None:
    frame = closing.NOT_FOUND.because(reason)
    assert (frame.code, frame.come_back) == (4404, "never")
    assert len(frame.reason.encode()) <= 123  # RFC 6455 section 5.5
    if len(reason.encode(errors="replace")) <= 123 and reason.isascii():
        assert frame.reason == reason
