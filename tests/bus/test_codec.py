"""Each type that is carried comes out as it went in."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adk_relay.bus import codec
from adk_relay.bus.codec import KINDS, CodecError, decode, encode
from adk_relay.core.messages import Audio, Place, Text, ToolResult, TurnEnd, UserText

TEXTS = st.text(st.characters(exclude_categories=()))  # also halves of surrogate pairs
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    Any: JSON,
    NoneType: st.none(),
    bool: st.booleans(),
    bytes: st.binary(),
    float: st.floats(allow_nan=False),
    int: st.integers(-(2**63), 2**64 - 1),
    str: TEXTS,
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type, whatever it is made of."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in SCALARS:
        return SCALARS[hint]
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of(*map(values, arguments))
    if origin is tuple and Ellipsis in arguments:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    hints = get_type_hints(hint)
    names = [field.name for field in fields(hint)] if is_dataclass(hint) else hint._fields
    return st.builds(hint, **{name: values(hints[name]) for name in names})


def same(one: object, other: object) -> bool:
    """Whether two values are equal, and their parts have the same types."""
    if type(one) is not type(other):
        return False
    if is_dataclass(one):
        return all(same(getattr(one, each.name), getattr(other, each.name)) for each in fields(one))
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=25)
@given(data=st.data())
def test_each_type_comes_back(kind: type, data: st.DataObject) -> None:
    value = data.draw(values(kind))
    assert same(decode(encode(value)), value)


def test_what_is_not_compared_comes_back_too() -> None:
    text = UserText("hello", "1", place=Place("epoch", 7))
    assert decode(encode(text)).place == Place("epoch", 7)


def test_sound_takes_no_more_place_than_it_has() -> None:
    pcm = bytes(range(256)) * 8
    data = encode(Audio(1, pcm))
    assert pcm in data and len(data) < len(pcm) + 32


def test_values_that_cant_be_written() -> None:
    with pytest.raises(CodecError, match="object is not carried between processes"):
        encode(object())
    with pytest.raises(CodecError, match=r"ToolResult can't be written: .*set"):
        encode(ToolResult("1", {1}))
    with pytest.raises(CodecError, match="this can't be written"):
        encode(Audio(2**64, b""))
    assert decode(encode(Audio(1, b"still works"))) == Audio(1, b"still works")


def test_a_type_or_a_field_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(slots=True, frozen=True)
    class Text2:
        seq: int

    @dataclass(slots=True, frozen=True)
    class NewText:
        seq: int
        text: str
        color: str

    NewText.__name__ = "Text"
    for kind in (Text2, NewText):
        monkeypatch.setitem(codec._known, kind, codec._Shape(kind))
    with pytest.raises(CodecError, match=r"Text2 came .* another version of relay: it is not known here"):
        decode(encode(Text2(1)))
    with pytest.raises(
        CodecError, match=r"Text came .* another version of relay: its fields are others there"
    ):
        decode(encode(NewText(1, "a", "red")))
    assert decode(encode(Text(1, "a"))) == Text(1, "a")


@given(st.binary() | JSON.map(lambda value: repr(value).encode(errors="replace")))
def test_bytes_that_are_nothing(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data)


@pytest.mark.parametrize(
    "damage", [lambda found: found[:-1], lambda found: [*found, 1], lambda _: [], lambda _: 7]
)
def test_a_damaged_object(damage: Any) -> None:
    found = msgpack.unpackb(encode(TurnEnd(1)))
    with pytest.raises(CodecError):
        decode(msgpack.packb(damage(found)))
