"""Sound of other rates and codings: what the telephone and the OpenAI Realtime API use.

It needs the extra `telephony`. Its libraries are imported only where they are used.
"""

from __future__ import annotations

import asyncio
import threading
import warnings
from functools import cache
from importlib.util import find_spec
from math import gcd
from types import ModuleType
from typing import Any

HOW_TO_INSTALL = "pip install 'adk-relay[telephony]'"

_QUALITY = "LQ"
"""It keeps three quarters of what the lower rate can hold, 3 kHz of a telephone's 4, and nothing of what is
above. `MQ` keeps nine tenths, and its filter reaches four times as far."""

_REACH = 24
"""How far the filter reaches to either side, in samples of the lower rate."""


@cache
def is_installed() -> bool:
    """Whether the libraries of the extra `telephony` are there."""
    return all(find_spec(name) for name in ("audioop", "numpy", "soxr"))


async def prepare() -> None:
    """Imports the libraries, if they are there: in a thread, because it takes a tenth of a second."""
    if is_installed():
        await asyncio.to_thread(_load)


def _load() -> None:
    import soxr  # noqa: F401

    _audioop()


class Resampler:
    """Changes the sample rate of a stream of 16-bit mono PCM, without clicks where its chunks meet.

    soxr's own stream keeps up to 60 ms back until more sound comes: the end of a word would be heard after
    the pause. So each chunk is resampled by itself, together with the sound before and after it that the
    filter reaches. That keeps 3 ms back if the lower rate is 8 kHz, and 1.5 ms if it is 16 kHz; and a
    resampler takes no more memory than the few bytes that it keeps.

    Invariants:
        Of the sound that has been resampled, as much is kept as the filter reaches.
        The sound after it is kept too, and is no longer than the filter reaches.

    Args:
        from_rate: samples a second of what is pushed.
        to_rate: samples a second of what is returned.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self.from_rate = from_rate
        self.to_rate = to_rate
        divisor = gcd(from_rate, to_rate)
        # A block of the input is the shortest one that is a whole number of samples in the output.
        self._in_block = 2 * from_rate // divisor  # bytes
        self._out_block = 2 * to_rate // divisor
        samples = -(-_REACH * from_rate // min(from_rate, to_rate))
        self._reach = -(-2 * samples // self._in_block)  # blocks
        self._kept = b""
        self.reset()

    def check(self) -> None:
        """Asserts the invariants."""
        blocks = len(self._kept) // self._in_block
        assert self._reach <= blocks <= 2 * self._reach, f"{blocks} blocks are kept"

    def push(self, pcm: bytes) -> bytes:
        """Takes more of the stream, and returns what it decides. Half a sample waits for its other half."""
        self._kept += pcm
        blocks = len(self._kept) // self._in_block
        ready = blocks - 2 * self._reach
        if ready <= 0:
            return b""
        resampled = _resample(self._kept[: blocks * self._in_block], self.from_rate, self.to_rate)
        self._kept = self._kept[ready * self._in_block :]
        start = self._reach * self._out_block
        return resampled[start : start + ready * self._out_block]

    def flush(self) -> bytes:
        """Ends the stream and returns the rest of it. What is pushed next begins another stream."""
        kept = self._kept[: len(self._kept) // 2 * 2]
        self.reset()
        if len(kept) <= len(self._kept):
            return b""
        return _resample(kept, self.from_rate, self.to_rate)[self._reach * self._out_block :]

    def reset(self) -> None:
        """Forgets the stream, such as an answer that was interrupted."""
        self._kept = bytes(self._reach * self._in_block)


def _resample(pcm: bytes, from_rate: int, to_rate: int) -> bytes:
    import numpy

    stream = _stream(from_rate, to_rate, threading.get_ident())
    stream.clear()
    resampled: bytes = stream.resample_chunk(numpy.frombuffer(pcm, "<i2"), last=True).tobytes()
    return resampled


@cache
def _stream(from_rate: int, to_rate: int, thread: int) -> Any:
    """A stream of soxr, for one thread. To clear it is cheaper than to make one."""
    import soxr

    return soxr.ResampleStream(from_rate, to_rate, 1, dtype="int16", quality=_QUALITY)


# ---- G.711: a byte for a sample, at 8 kHz ----------------------------------------------------


def ulaw_of(pcm: bytes) -> bytes:
    """16-bit PCM in µ-law. Raises an `audioop.error` if the number of bytes is odd."""
    coded: bytes = _audioop().lin2ulaw(pcm, 2)
    return coded


def pcm_of_ulaw(coded: bytes) -> bytes:
    """16-bit PCM of µ-law."""
    pcm: bytes = _audioop().ulaw2lin(coded, 2)
    return pcm


def alaw_of(pcm: bytes) -> bytes:
    """16-bit PCM in A-law. Raises an `audioop.error` if the number of bytes is odd."""
    coded: bytes = _audioop().lin2alaw(pcm, 2)
    return coded


def pcm_of_alaw(coded: bytes) -> bytes:
    """16-bit PCM of A-law."""
    pcm: bytes = _audioop().alaw2lin(coded, 2)
    return pcm


@cache
def _audioop() -> ModuleType:
    """Of the standard library, which warns of it; from Python 3.13 on of the package audioop-lts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import audioop
    return audioop
