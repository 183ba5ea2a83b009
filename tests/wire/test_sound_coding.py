"""Sound of other rates and codings, compared with soxr in one piece, and with the values in G.711."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy
import pytest
import soxr

from adk_relay.wire.sound import Resampler, alaw_of, pcm_of_alaw, pcm_of_ulaw, ulaw_of

RATES = [(24_000, 16_000), (24_000, 8_000), (16_000, 8_000), (8_000, 16_000), (8_000, 24_000)]

ROUNDING = 2
"""soxr adds noise of a bit when it rounds to 16 bits, so that two runs can differ by so much."""

LOUD = 20_000


def sweep(rate: int, highest: float) -> bytes:
    """A tone that rises from 20 Hz to `highest` in two seconds and a bit."""
    time = numpy.arange(2 * rate + 7) / rate
    return _samples(numpy.sin(2 * numpy.pi * (20 * time + (highest - 20) * time**2 / 4)))


def tone(rate: int, hertz: float) -> bytes:
    """A second of it."""
    return _samples(numpy.sin(2 * numpy.pi * hertz * numpy.arange(rate) / rate))


def _samples(wave: Any) -> bytes:
    pcm: bytes = (LOUD * wave).astype("<i2").tobytes()
    return pcm


def values(pcm: bytes) -> Any:
    return numpy.frombuffer(pcm, "<i2").astype(int)


def stream(resampler: Resampler, pcm: bytes, sizes: list[int]) -> bytes:
    """The sound in chunks of these sizes, in turns, to its end."""
    out, start, number = b"", 0, 0
    while start < len(pcm):
        end = start + sizes[number % len(sizes)]
        out += resampler.push(pcm[start:end])
        resampler.check()
        start, number = end, number + 1
    return out + resampler.flush()


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_chunks_become_what_the_whole_would(from_rate: int, to_rate: int) -> None:
    sound = sweep(from_rate, 0.34 * min(from_rate, to_rate))  # up to where the filter begins to fall
    best = values(soxr.resample(numpy.frombuffer(sound, "<i2"), from_rate, to_rate, "VHQ").tobytes())
    same = values(soxr.resample(numpy.frombuffer(sound, "<i2"), from_rate, to_rate, "LQ").tobytes())
    middle = slice(to_rate // 50, -to_rate // 50)  # without the ends, where each filter rounds off the edge
    in_20_ms = from_rate // 50 * 2
    any_sizes = Random(7)
    resampler = Resampler(from_rate, to_rate)  # one for all: `flush` ends a stream
    for sizes in (
        [in_20_ms],
        [2 * in_20_ms],
        [len(sound)],
        [in_20_ms, 0, 1, 2, 333, 5 * in_20_ms],
        [any_sizes.randrange(1, 3000) for _ in range(50)],
    ):
        out = values(stream(resampler, sound, sizes))
        assert len(out) == len(best), sizes
        assert abs(out - same).max() <= ROUNDING, sizes
        assert abs(out - best)[middle].max() <= LOUD * 0.003, sizes


@pytest.mark.parametrize("to_rate", [16_000, 8_000])
def test_what_the_lower_rate_cannot_hold_is_not_heard_as_another_tone(to_rate: int) -> None:
    out = values(stream(Resampler(24_000, to_rate), tone(24_000, 0.55 * to_rate), [1920]))
    assert abs(out[200:-200]).max() <= ROUNDING


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_little_is_kept_back_and_the_end_of_an_answer_is_not(from_rate: int, to_rate: int) -> None:
    resampler = Resampler(from_rate, to_rate)
    chunk, ms = _samples(numpy.ones(from_rate // 50)), 0.0
    for number in range(1, 51):
        out = resampler.push(chunk)
        assert out, "a chunk of 20 ms gives sound at once"
        ms += len(out) / 2 / to_rate * 1000
        assert 20 * number - ms <= (3.2 if min(from_rate, to_rate) == 8_000 else 1.7)
    tail = resampler.flush()
    assert round(ms + len(tail) / 2 / to_rate * 1000, 3) == 1000
    assert abs(values(tail)[0] - LOUD) <= ROUNDING
    assert resampler.flush() == b""


def test_after_an_interruption_nothing_of_the_sound_before_is_heard() -> None:
    resampler = Resampler(24_000, 8_000)
    loud = _samples(numpy.ones(2400))
    first = resampler.push(loud)
    resampler.reset()
    resampler.check()
    assert abs(values(resampler.push(bytes(4800)))).max() <= ROUNDING
    resampler.reset()
    assert resampler.push(loud) == first
    resampler.reset()
    assert resampler.push(b"") == resampler.push(b"\x01") == resampler.flush() == b""  # half a sample is none


# ---- G.711 -----------------------------------------------------------------------------------


@dataclass
class Law:
    """What G.711 says. The highest bit of a code is 1 if the value is positive; three are the segment."""

    pcm_of: Callable[[bytes], bytes]
    code_of: Callable[[bytes], bytes]
    values: list[int]
    """By code, before its bits are inverted: tables 1 and 2 of the Recommendation, in 16 bits."""
    half_steps: list[int]
    """By code: how far a sample may be from the value that it becomes."""
    inverted: int
    """These bits of each code are."""
    milliwatt: str
    """A sine of 1 kHz and 0 dBm0: tables 5 and 6."""
    amplitude: float
    """Of that sine, in 16 bits, by the level of the loudest one: 3.14 and 3.17 dBm0."""


CODES = bytes(range(256))
PLACES = [(segment, step) for segment in range(8) for step in range(16)]
ULAW = [4 * (((2 * step + 33) << segment) - 33) for segment, step in PLACES]
ALAW = [8 * ((2 * step + (33 if segment else 1)) << max(segment - 1, 0)) for segment, step in PLACES]
LAWS = {
    "ulaw": Law(
        pcm_of_ulaw,
        ulaw_of,
        [-value for value in ULAW] + ULAW,
        [4 << segment for segment, _ in PLACES] * 2,
        0x7F,
        "1e0b0b1e9e8b8b9e",
        8_159 * 4 / 10 ** (3.17 / 20),
    ),
    "alaw": Law(
        pcm_of_alaw,
        alaw_of,
        [-value for value in ALAW] + ALAW,
        [8 << max(segment - 1, 0) for segment, _ in PLACES] * 2,
        0x55,
        "34212134b4a1a1b4",
        4_096 * 8 / 10 ** (3.14 / 20),
    ),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_g711_has_the_values_of_the_recommendation(law: Law) -> None:
    assert values(law.pcm_of(CODES)).tolist() == [law.values[code ^ law.inverted] for code in CODES]
    for code, again in zip(CODES, law.code_of(law.pcm_of(CODES)), strict=True):
        assert code == again or law.values[code ^ law.inverted] == 0  # µ-law has two zeros
    loudest = max(law.values)
    samples = numpy.arange(-loudest, loudest + 1)
    codes = law.code_of(samples.astype("<i2").tobytes())
    allowed = numpy.array(law.half_steps)[numpy.frombuffer(codes, "u1") ^ law.inverted]
    dropped = 3  # the lowest bits of a sample: µ-law is of 14 bits, and A-law of 13
    assert (abs(values(law.pcm_of(codes)) - samples) <= allowed + dropped).all()
    assert values(law.pcm_of(law.code_of(b"\xff\x7f\x00\x80"))).tolist() == [loudest, -loudest]
    assert law.code_of(b"") == law.pcm_of(b"") == b""


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_telephones_tone_is_the_same_tone_at_24_khz_and_back(law: Law) -> None:
    period = bytes.fromhex(law.milliwatt)
    wide = stream(Resampler(8_000, 24_000), law.pcm_of(period * 1000), [320])
    middle = values(wide)[2400:-2400]
    assert abs(middle).max() == pytest.approx(law.amplitude, rel=0.02)
    assert numpy.argmax(abs(numpy.fft.rfft(middle))) == round(1000 * len(middle) / 24_000)
    back = law.code_of(stream(Resampler(24_000, 8_000), wide, [1920]))
    assert back[400:-400] == period * 900


_PROGRAM = """
import asyncio, sys, threading
from adk_relay.wire import sound

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "soxr", "audioop"):
            assert threading.current_thread() is not threading.main_thread(), name

assert sound.is_installed()
sys.meta_path.insert(0, Watch())
asyncio.run(sound.prepare())
assert {"numpy", "soxr", "audioop"} <= set(sys.modules)
sound.ulaw_of(sound.Resampler(24_000, 8_000).push(bytes(1920)))
sound.is_installed.cache_clear()
sys.modules["soxr"] = None
assert not sound.is_installed()
asyncio.run(sound.prepare())
"""


def test_the_libraries_are_imported_in_a_thread_when_they_are_needed_and_warn_of_nothing() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", _PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
