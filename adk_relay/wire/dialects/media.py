"""Sound and pictures in the frames of a client."""

from __future__ import annotations

import binascii
import re

from adk_relay.wire.dialects import BadFrameError

MAX_AUDIO_BYTES = 1024 * 1024
MAX_IMAGE_BYTES = 4 * 1024 * 1024

_BASE64_PIECE = 64 * 1024
"""Characters of base64 that are decoded at once, a multiple of 4. Long frames are decoded in a thread, and
the other threads wait for the interpreter during each call."""


def decode_base64(data: str, limit: int) -> bytes:
    """The bytes in a base64 string, of which there may be `limit`.

    Raises:
        BadFrameError: it is not valid.
    """
    try:
        decoded = a2b(data)
    except ValueError:
        raise BadFrameError("bad_data", "data must be base64 (RFC 4648 section 4).") from None
    return bounded(decoded, limit)


def a2b(data: str) -> bytes:
    """Decodes base64.

    Raises:
        ValueError: it is none (RFC 4648 section 4).
    """
    if len(data) <= _BASE64_PIECE:
        return binascii.a2b_base64(data, strict_mode=True)
    if 0 <= data.find("=") < len(data) - 2:
        raise ValueError("padding before the end")
    pieces = (data[start : start + _BASE64_PIECE] for start in range(0, len(data), _BASE64_PIECE))
    return b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)


def bounded(decoded: bytes, limit: int) -> bytes:
    """The same bytes, of which there may be `limit`.

    Raises:
        BadFrameError: it is not valid.
    """
    if len(decoded) > limit:
        raise BadFrameError("too_large", f"data has {len(decoded)} bytes; at most {limit} are allowed.")
    if not decoded:
        raise BadFrameError("bad_data", "data is empty.")
    return decoded


def pcm_of(pcm: bytes) -> bytes:
    """The same bytes, which must be 16-bit sound.

    Raises:
        BadFrameError: it is not valid.
    """
    if len(pcm) % 2:
        raise BadFrameError("bad_data", "16-bit sound must have an even number of bytes.")
    if not pcm:
        raise BadFrameError("bad_data", "The sound is empty.")
    if len(pcm) > MAX_AUDIO_BYTES:
        message = f"The sound has {len(pcm)} bytes; at most {MAX_AUDIO_BYTES} are allowed."
        raise BadFrameError("too_large", message)
    return pcm


def rate_of(parameter: str) -> int:
    """The samples a second in the parameter of `audio/pcm`.

    Raises:
        BadFrameError: it is not valid.
    """
    if not parameter:
        return 16_000
    found = re.fullmatch(r"\s*rate=(\d{4,6})\s*", parameter)
    if found and 8_000 <= (rate := int(found[1])) <= 192_000:
        return rate
    raise BadFrameError("unsupported_mime_type", "Sound must be audio/pcm;rate=N with N from 8000 to 192000.")
