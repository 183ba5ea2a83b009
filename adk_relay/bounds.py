"""How much one connection may send, and how fast, before the application hears of it.

The event loop is shared, so a turn of it that one connection takes is latency for all others. The protocols
of `bounded_http.py` and `bounded_websocket.py` therefore parse what was received in small pieces, and stop
reading meanwhile; the kernel then slows the peer down. Nobody is closed for being fast, only for what no
client of relay does.
"""

from __future__ import annotations

MAX_FRAME = 6 * 1024 * 1024
"""Bytes of the largest WebSocket frame: a picture of 4 MiB in base64 takes 5.6 MB."""

MAX_HEAD = 16 * 1024
"""Bytes of the head of an HTTP request."""

MAX_HEADERS = 128
"""Lines of such a head. websockets, which parses it again for an upgrade, has the same bound."""

MAX_REQUEST = 512 * 1024
"""Bytes of a whole HTTP request: a body of 64 KiB in chunks of a few bytes each fits."""

HEAD_SECONDS = 10.0
"""Seconds that the head of a request may take, counted from the connection or from its first byte."""

FRAMES, FRAMES_AT_ONCE = 500.0, 1000
"""WebSocket frames that are read from a connection each second, and at once after a pause. Sound in pieces
of 8 ms is 125 a second."""

BYTES, BYTES_AT_ONCE = 640.0 * 1024, MAX_FRAME
"""Bytes, in the same way. The highest rate of sound that relay takes is half a megabyte a second in base64.
A picture of the largest size costs the event loop 40 ms in google-genai, which encodes it for the model: at
this pace that is less than a hundredth of the time. A thread would not help: base64 and JSON, which take most
of it, keep the interpreter to themselves."""

MAX_FRAGMENTS = 1024
"""Frames of one fragmented message."""

UNFINISHED = 128 * 1024 * 1024
"""Bytes of all messages together that have begun and not ended."""


def response(status: bytes, *headers: tuple[bytes, bytes]) -> bytes:
    """A whole HTTP response without a body."""
    lines = [b"HTTP/1.1 " + status, b"content-length: 0", b"connection: close"]
    lines += [name + b": " + value for name, value in headers]
    return b"\r\n".join([*lines, b"", b""])
