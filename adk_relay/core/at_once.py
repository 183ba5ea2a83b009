"""How much of a conversation a client gets at once."""

from __future__ import annotations

from dataclasses import replace

from adk_relay.core.messages import Line
from adk_relay.core.used_tools import size_of

LINES_BYTES = 1024 * 1024
"""Bytes of text and tools that a client gets at once: of a longer conversation, its end."""

_LINE_BYTES = 512 * 1024
"""Bytes of one message that a client gets: of a longer message, its end.

Many clients accept frames of 1 MiB. This leaves room for the characters that JSON escapes.
"""


def size_of_line(line: Line) -> int:
    """Characters of a message and its tools."""
    return len(line.text) + size_of(line.tools)


def limited(lines: list[Line]) -> list[Line]:
    """The last of these messages, at most 1 MiB of text and tools."""
    limited: list[Line] = []
    left = LINES_BYTES
    for line in map(short, reversed(lines)):
        left -= len(line.text.encode(errors="replace")) + size_of(line.tools)
        if left < 0:
            break
        limited.append(line)
    return limited[::-1]


def short(line: Line) -> Line:
    """The same, or the end of it that a client can get."""
    if len(line.text) <= _LINE_BYTES // 4:  # a character has four bytes at most
        return line
    text = line.text.encode(errors="replace")[-_LINE_BYTES:]
    return replace(line, text=text.decode(errors="ignore"))
