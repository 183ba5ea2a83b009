"""Messages, inputs and commands as bytes, and back.

An object becomes a msgpack list: its tag and its fields. JSON values (`Any`) travel as JSON, because it
holds what msgpack does not, such as large numbers. The tag has the name of the type and a checksum of its
fields, so that what another version of relay has written is not misread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints
from zlib import crc32

import msgpack  # type: ignore[import-untyped]

from adk_relay.bus import commands
from adk_relay.core import messages, recorded

_SCALARS = (str, int, float, bool, bytes)

_Convert = Callable[[Any], Any]


class CodecError(Exception):
    """Something can't be written as bytes, or be read from them; the text says what."""


class _Way(NamedTuple):
    """How values of one type are written and read; None: as they are."""

    dump: _Convert | None = None
    load: _Convert | None = None


class _Shape:
    """The fields of one class."""

    __slots__ = ("kind", "names", "special", "tag")

    def __init__(self, kind: type) -> None:
        hints = get_type_hints(kind)
        self.kind = kind
        self.names = _names(kind)
        self.tag = f"{kind.__name__}-{crc32(_signature(kind).encode()) & 0xFFFF:04x}"
        ways = [(number, _way(hints[name])) for number, name in enumerate(self.names)]
        self.special = [(number, way.dump, way.load) for number, way in ways if way.dump and way.load]
        """The fields that are not written as they are."""

    def dump(self, value: Any) -> list[Any]:
        found = [getattr(value, name) for name in self.names]
        for number, dump, _ in self.special:
            found[number] = dump(found[number])
        return found

    def load(self, found: list[Any]) -> Any:
        for number, _, load in self.special:
            found[number] = load(found[number])
        return self.kind(*found)

    def dump_tagged(self, value: Any) -> list[Any]:
        return [self.tag, *self.dump(value)]


def _names(kind: Any) -> tuple[str, ...]:
    if is_dataclass(kind):
        return tuple(field.name for field in fields(kind))
    names: tuple[str, ...] = kind._fields  # of a NamedTuple
    return names


def _is_shaped(hint: Any) -> bool:
    return isinstance(hint, type) and (is_dataclass(hint) or hasattr(hint, "_fields"))


def _signature(hint: Any) -> str:
    """Tells two versions of a type apart: its fields in order, with their types, down to the scalars."""
    if _is_shaped(hint):
        hints = get_type_hints(hint)
        return f"{hint.__name__}({','.join(f'{name}:{_signature(hints[name])}' for name in _names(hint))})"
    if get_origin(hint) is Literal:
        return "str"
    if arguments := get_args(hint):
        return f"{get_origin(hint)}[{','.join(map(_signature, arguments))}]"
    return str(hint)


_shapes: dict[type, _Shape] = {}


def _shape(kind: type) -> _Shape:
    if kind not in _shapes:
        _shapes[kind] = _Shape(kind)
    return _shapes[kind]


def _way(hint: Any) -> _Way:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return _Way(json.dumps, json.loads)
    if hint in _SCALARS or origin is Literal:
        return _Way()
    if origin in (Union, UnionType):
        kinds = [kind for kind in arguments if kind is not NoneType]
        return _optional(_way(kinds[0]) if len(kinds) == 1 else _Way(_dump, _load))
    if origin is tuple:
        if all(kind in _SCALARS for kind in arguments if kind is not Ellipsis):
            return _Way(list, tuple)
        assert len(arguments) == 2 and arguments[1] is Ellipsis, f"no way is known for {hint}"
        return _of_each(_way(arguments[0]))
    assert _is_shaped(hint), f"no way is known for {hint}"
    shape = _shape(hint)
    return _Way(shape.dump, shape.load)


def _optional(way: _Way) -> _Way:
    dump, load = way
    if not dump or not load:
        return way

    def dump_optional(value: Any) -> Any:
        return None if value is None else dump(value)

    def load_optional(found: Any) -> Any:
        return None if found is None else load(found)

    return _Way(dump_optional, load_optional)


def _of_each(way: _Way) -> _Way:
    dump, load = way
    assert dump and load
    return _Way(lambda values: [*map(dump, values)], lambda found: tuple(map(load, found)))


def _dump(value: Any) -> list[Any]:
    shape = _known.get(type(value))
    if shape is None:
        raise CodecError(f"{type(value).__name__} is not carried between processes")
    return shape.dump_tagged(value)


def _load(found: Any) -> Any:
    tag = found[0]
    if (shape := _by_tag.get(tag)) is None:
        name = str(tag).partition("-")[0]
        why = "its fields are others there" if name in _by_name else "it is not known here"
        raise CodecError(f"{name} came from a process that runs another version of relay: {why}")
    return shape.load(found[1:])


def _kinds(*hints: Any) -> Iterable[type]:
    for hint in hints:
        yield from get_args(hint) or (hint,)


_SENT: tuple[type, ...] = (
    *_kinds(messages.Message, messages.Input, messages.ReadOlder),
    *(commands.Attend, commands.Leave, commands.Ask, commands.Replay, commands.Moved),
    *(commands.Claim, commands.Call, commands.Reply),
)
"""What processes send each other."""

KINDS = (*_SENT, *_kinds(recorded.Recorded))
"""The types that can be carried: those, and what is written into logs."""

_known = {kind: _shape(kind) for kind in KINDS}
_by_tag = {shape.tag: shape for shape in _known.values()}
_by_name = {kind.__name__ for kind in KINDS}
assert len(_by_tag) == len(KINDS)

PROTOCOL = f"{crc32(' '.join(_known[kind].tag for kind in _SENT).encode()) & 0xFFFF:04x}"
"""A checksum of what processes send each other: with the same one they understand each other, whatever their
versions are."""

# A packer is kept because a new one costs as much as the packing. Half of a surrogate pair may be in the text
# of a user: JSON can hold it.
_packer = msgpack.Packer(unicode_errors="surrogatepass")


def to_bytes(plain: list[Any] | tuple[Any, ...]) -> bytes:
    """A list of scalars, and of such lists, as bytes.

    Raises:
        CodecError: it holds something else, or too large a number.
    """
    try:
        data: bytes = _packer.pack(plain)
        return data
    except (TypeError, ValueError, OverflowError) as error:
        raise CodecError(f"this can't be written: {error}") from None


def from_bytes(data: bytes) -> Any:
    """What `to_bytes` was given, with lists for its tuples.

    Raises:
        CodecError: these are no such bytes.
    """
    try:
        return msgpack.unpackb(data, unicode_errors="surrogatepass")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise CodecError(f"these bytes can't be read: {error}") from None


def encode(value: object) -> bytes:
    """An object of one of `KINDS` as bytes.

    Raises:
        CodecError: it is of no such type, or has a value that can't be written.
    """
    try:
        return to_bytes(_dump(value))
    except (TypeError, ValueError, RecursionError) as error:  # of a JSON value
        raise CodecError(f"{type(value).__name__} can't be written: {error}") from None


def decode(data: bytes) -> Any:
    """The object that `encode` has written.

    Raises:
        CodecError: these are not such bytes, or a process with another version of relay has written them.
    """
    try:
        return _load(from_bytes(data))
    except (TypeError, ValueError, LookupError, RecursionError) as error:
        raise CodecError(f"these bytes can't be read: {error}") from None
