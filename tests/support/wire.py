"""What goes over the wire, as the code has it: for tests that hold the documents against the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from adk_relay.core.answer import Answer, Asked, ToolCall
from adk_relay.core.credits import Grounding, Source, Usage
from adk_relay.core.going_away import GoingAway
from adk_relay.core.heard import Shortened
from adk_relay.core.messages import (
    Ack,
    Audio,
    Dropped,
    Ended,
    Error,
    Gap,
    Line,
    Message,
    Older,
    Presence,
    Reset,
    Status,
    Taken,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    TurnStart,
    Typing,
    UserText,
    Written,
)
from adk_relay.core.rewind import Rewound
from adk_relay.core.shape import ClientTool, Shape
from adk_relay.core.titles import Renamed
from adk_relay.core.voice import Choices, Configured, Voice
from adk_relay.wire import closing
from adk_relay.wire.closing import CloseFrame
from adk_relay.wire.dialects import BadFrameError, Dialect, Welcome
from adk_relay.wire.dialects.chat import CHAT
from adk_relay.wire.dialects.live import live
from adk_relay.wire.dialects.turn import TURN
from support.client import Json
from support.server import ROOT

_ASKED = Asked("b", "c0ffee")
_USAGE = Usage(1, 2, 3, 6)
_GROUNDING = Grounding((Source("A title", "https://example.com/"),), ("what",), "<p>")
_ANSWER = Answer(
    "Hello",
    1,
    (ToolCall("call-1", "clock", {}, {}, is_pending=True),),
    0.1,
    2,
    True,
    _ASKED,
    _USAGE,
    _GROUNDING,
)
SHAPE = Shape("Be brief.", (ClientTool("paint", "Paints.", {}),), True, 0.5)
SAMPLES: list[Message] = [
    Written(1, "Hello", "b", "c0ffee", 1, "Ann"),
    Text(2, "Hel", number=1),
    Text(3, "lo", is_transcript=True, number=2),
    Audio(4, b"\0\0"),
    Transcript(5, "Hello", True, "b", 1, "Ann"),
    ToolStart(6, "call-1", "clock", {}, "2030-01-02T03:04:05+00:00", is_pending=True, interim={}),
    ToolComplete(7, "call-1", "clock", {}, "2030-01-02T03:04:05+00:00", was_pending=True),
    TurnEnd(8, True, False, _USAGE, _GROUNDING, _ANSWER),
    TurnEnd(9),
    TurnStart(_ASKED),
    Line(
        "agent",
        "Hello",
        open=True,
        timestamp="2030-01-02T03:04:05+00:00",
        interrupted=True,
        tools=(ToolCall("call-1", "clock", {}, {}, is_pending=True, is_truncated=True),),
    ),
    Line("user", "Hello", unanswered=True),
    Gap(1, 9, 1, "e.0", "e"),
    Older(1, "e.-1"),
    Ack("c0ffee"),
    Taken(UserText("Hello", "c0ffee"), 1, 2),
    Presence(("b",), ("c",), 2, (("b", "Ann"), ("c", "Bob"))),
    Typing("b", True, "Ann"),
    Reset("e", deleted=False),
    Reset("e", deleted=True),
    Renamed("Trip to Kyoto"),
    Rewound(10, "c0ffee", 2, 10),
    Shortened(11, "Hel", 2, 1),
    Configured(Voice("Puck", "de-DE"), SHAPE, "b"),
    Dropped("down", 480.0),
    Status("live"),
    Error("busy", "Too much.", "c0ffee", "call-2"),
    Ended("idle"),
    GoingAway(5.0),
]
"""Each message that a conversation can emit, with all that it can carry."""

_WELCOMES = [
    Welcome(
        *(
            "s",
            "alice",
            "b",
            1,
            "m",
            False,
            True,
            25.0,
            "e",
            9,
            2,
            is_new,
            "Ann",
            "listen",
            {"c": "Bob"},
        ),
        choices=Choices(("Puck",), ("de-DE",)),
        title="Trip to Kyoto",
        shape=SHAPE,
    )
    for is_new in (True, False)
]

DIALECTS: dict[str, Dialect] = {
    "live": live(is_audio=True, binary=False, newest=False),
    "chat": CHAT,
    "turn": TURN,
}


def kind(frame: Json) -> str:
    """What tells the frames of a dialect apart."""
    return str(frame.get("update_type") or frame.get("type") or frame.get("mime_type") or "turn")


def by_kind(frames: Iterable[Json]) -> dict[str, set[str]]:
    """The fields of each kind of frame."""
    found: dict[str, set[str]] = {}
    for frame in frames:
        found.setdefault(kind(frame), set()).update(frame)
    return found


def taken(name: str) -> set[str]:
    """The kinds of frames that a dialect takes: it lists them when it refuses one."""
    if name == "turn":
        return {"turn"}
    refusals = []
    for field in ("type", "mime_type")[: 2 if name == "live" else 1]:
        try:
            DIALECTS[name].decode(json.dumps({field: "?"}))
        except BadFrameError as refusal:
            refusals.append(str(refusal).partition(":")[2])
    return set(re.findall(r"[a-z_/]{2,}", " ".join(refusals)))


def emitted(name: str) -> dict[str, set[str]]:
    """The fields of each kind of frame that a dialect makes; without `timestamp` where each frame has one."""
    dialect = DIALECTS[name]
    made: list[Any] = [
        dialect.connected("b", "m", {}),
        dialect.ping and dialect.ping(),
        dialect.pong("b"),
        dialect.expiring(30),
    ]
    made += [dialect.welcome(welcome) for welcome in _WELCOMES]
    encode = dialect.encoder("s")
    for sample in SAMPLES:
        encoded = encode(sample)
        made += encoded if isinstance(encoded, tuple) else [encoded]
    frames: list[Json] = [json.loads(frame) for frame in made if frame]
    if name == "chat":
        for frame in frames:
            del frame["timestamp"]
    return by_kind(frames)


def error_codes() -> set[str]:
    """The codes of all errors that are sent with one."""
    folder = ROOT / "adk_relay"
    sources = [
        path.read_text() for layer in ("core", "wire", "adk") for path in (folder / layer).rglob("*.py")
    ]
    found = re.findall(r'\b(?:(?:BadFrame)?Error|_refuse)\(\s*"([a-z_]+)"', "\n".join(sources))
    return {*found} - {"too_slow"}  # of a request over HTTP: there errors have no code


def close_codes() -> dict[str, set[str]]:
    """What a client is to do after each close code that relay sends (`CloseFrame.come_back`)."""
    codes: dict[str, set[str]] = {}
    for frame in vars(closing).values():
        if isinstance(frame, CloseFrame):
            for number in (frame.code, frame.private().code):
                codes.setdefault(str(number), set()).add(frame.come_back)
    return codes


OTHERS_CLOSE_CODES = {"1007", "1009"}
"""Those that the ASGI server sends: documented, and nowhere in the code."""
