"""The sound that is sent, and the time stamps in it."""

from __future__ import annotations

import time

CHUNK = 1920
"""Bytes in 40 ms of 24 kHz 16-bit sound, which is what the model sends at a time."""

CHUNKS_PER_S = 25

MIC_BYTES_PER_MS = 32
"""Of 16 kHz 16-bit sound, which is what a client sends."""

MIC_FRAME = 40 * MIC_BYTES_PER_MS
"""Bytes of a frame of speech with a time stamp."""

REAL_TIME = 1 / CHUNKS_PER_S
"""Seconds between two chunks."""

SHORTEST_MS = 100
"""Speech that the model answers with one chunk; what is longer, with TIMES as much sound."""

TIMES = 10

STAMP_BYTES = 9
"""How much of a chunk the time stamp takes: eight bytes are used, and nine are twelve characters of
base64, so that the rest need not be encoded again."""


def stamp() -> bytes:
    """The beginning of a chunk that is sent now."""
    return time.monotonic_ns().to_bytes(8, "big").ljust(STAMP_BYTES, b"\0")


def stamped_at(chunk: bytes) -> int:
    """When the chunk was sent, in nanoseconds of the monotonic clock, which all processes share."""
    return int.from_bytes(chunk[:8], "big")


def milliseconds(size: int) -> float:
    """How long so many bytes of the model's sound last."""
    return size / CHUNK * 1000 / CHUNKS_PER_S
