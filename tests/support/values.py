"""Values that a tool may return, also ones that JSON does not have."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from support.client import Json


class Unfriendly:
    """An object that is not JSON and has no representation."""

    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


def _cycle() -> Json:
    cycle: Json = {"name": "cycle"}
    cycle["self"] = cycle
    return cycle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    return deep


RESULTS: dict[str, Any] = {
    "a date": {"when": datetime(2024, 5, 1, tzinfo=UTC), "what": {1, 2}},
    "bytes": {"raw": b"\xff\x00", "text": b"abc"},
    "protobuf": {"at": Timestamp(seconds=1)},
    "bare protobuf": Timestamp(seconds=1),
    "no number": {"n": float("nan"), "m": float("inf")},
    "half a surrogate pair": {"s": "\ud800"},
    "cycle": _cycle(),
    "strange keys": {(1, 2): 3, None: 4, b"\xff": 5},
    "unfriendly": {"o": Unfriendly()},
    "deep": {"deep": _deep()},
    "class": {"class": object},
    "nothing": None,
}
