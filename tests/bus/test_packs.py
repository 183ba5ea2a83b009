"""What waits for a process: its order and its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adk_relay.bus.codec import CodecError
from adk_relay.bus.packs import Item, Outgoing, pack, unpack
from adk_relay.core.inbox import InboxFullError

CONTENT = 10_000
SOUND = 5_000


def outgoing(dropped: list[Item], seconds: float = 60.0) -> Outgoing:
    return Outgoing(CONTENT, SOUND, seconds, dropped.append)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400), st.booleans()), max_size=200))
def test_content_is_kept_in_order_and_only_old_sound_is_given_up(
    steps: list[tuple[bool, int, bool]],
) -> None:
    dropped: list[Item] = []
    waiting = outgoing(dropped)
    added: list[tuple[bytes, bool]] = []
    taken: list[bytes] = []
    for number, (is_sound, size, takes) in enumerate(steps):
        content = number.to_bytes(2) + bytes(size)
        try:
            waiting.add("c", 1, "", content, is_sound=is_sound)
        except InboxFullError:
            assert not is_sound
        else:
            added.append((content, is_sound))
        waiting.check()
        if takes:
            taken += [item.content for item in waiting.take(1000)]
            waiting.check()
    while items := waiting.take(1000):
        assert len(items) == 1 or sum(len(item.content) for item in items) <= 1000
        taken += [item.content for item in items]
    lost = {item.content for item in dropped}
    assert taken == [content for content, is_sound in added if not (is_sound and content in lost)]
    assert len(lost) == len(dropped) and [item.content for item in dropped] == sorted(lost)


def test_too_much_content_is_refused_and_nothing_is_lost() -> None:
    waiting = outgoing([])
    waiting.add("c", 1, "", bytes(CONTENT - 64), is_sound=False)
    with pytest.raises(InboxFullError):
        waiting.add("c", 1, "", b"", is_sound=False)
    assert len(waiting.take(1)) == 1  # one is taken, however large


def test_stale_sound_is_given_up() -> None:
    dropped: list[Item] = []
    waiting = outgoing(dropped, seconds=0.0)
    waiting.add("c", 1, "", b"sound", is_sound=True)
    waiting.add("c", 1, "", b"text", is_sound=False)
    assert [item.content for item in waiting.take(100)] == [b"text"]
    assert [item.content for item in dropped] == [b"sound"]


def test_the_same_message_for_several_connections_is_one_item() -> None:
    waiting = outgoing([])
    message = b"message"
    for name in ("a", "b", "c"):
        waiting.add("c", 1, name, message, is_sound=True)
    waiting.add("other", 1, "d", message, is_sound=True)
    equal = bytes(bytearray(message))  # but another one
    waiting.add("other", 1, "e", equal, is_sound=True)
    found = [(item.conversation, item.connections) for item in waiting.take(1000)]
    assert found == [("c", ["a", "b", "c"]), ("other", ["d"]), ("other", ["e"])]
    waiting.add("other", 1, "f", equal, is_sound=True)
    assert len(waiting.take(1000)) == 1  # what was taken is not added to


def test_a_pack_comes_back() -> None:
    items = [Item("c", 7, ["a", "b"], b"\xff\x00"), Item("\ud800", 2**60, [], b"")]
    assert unpack(pack("me", 5, 9, items)) == ("me", 5, 9, items)
    for data in (b"", b"\x01", pack("me", 5, 9, items)[:-1], b"\x94\x01\x01\x01\x01"):
        with pytest.raises(CodecError):
            unpack(data)
