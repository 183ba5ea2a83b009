"""The dialects side by side: what a voice session costs in each, and how soon it gives the first sound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from math import ceil
from statistics import median
from typing import NamedTuple

from benchmarks.callers import Caller, LiveCaller, OpenAICaller, TwilioCaller
from benchmarks.load import SETTLE
from benchmarks.processes import Lab, Server
from benchmarks.report import Row
from benchmarks.sessions import CPU
from benchmarks.sound import SHORTEST_MS, TIMES

SESSIONS = 10

ADDED = 30.0
"""Milliseconds that a dialect may take longer than the live dialect until the first sound."""


class Kind(NamedTuple):
    """What is compared. `ms`: of sound in each frame of the client."""

    name: str
    caller: type[Caller]
    ms: int


LIVE = Kind("live, binary", LiveCaller, 40)
LIVE_20 = Kind("live, binary, 20 ms frames", LiveCaller, 20)
OPENAI = Kind("OpenAI Realtime", OpenAICaller, 40)
OPENAI_20 = Kind("OpenAI Realtime, 20 ms frames", OpenAICaller, 20)
TWILIO = Kind("Twilio, 20 ms frames", TwilioCaller, 20)
KINDS = (LIVE, OPENAI, LIVE_20, TWILIO, OPENAI_20)


async def dialects(lab: Lab) -> list[Row]:
    """Ten sessions of each in real time; and short questions, of which each waits for its first sound."""
    seconds, rounds = (1.0, 3) if lab.quick else (2.0, 7)
    used: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    with lab.new_server("relay") as server:
        async with AsyncExitStack() as stack:
            crowds = {kind: await _crowd(stack, server, kind) for kind in KINDS}
            for number in range(1 + rounds):
                for kind, callers in crowds.items():
                    cpu = await _converse(lab, server, callers, seconds if number else 0.3)
                    if number:  # the first round warms it up
                        used[kind].append(cpu)
            waited: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
            for _ in range(2 + rounds):
                for kind, callers in crowds.items():
                    waited[kind].append(await _first_sounds(callers))

    def cpu_row(kind: Kind, against: Kind, aim: float | None = None) -> Row:
        return Row(f"dialects: a session, {kind.name}", used[kind], against.name, used[against], CPU, aim)

    def wait_row(kind: Kind) -> Row:
        limit = [value + ADDED for value in waited[LIVE_20]]
        what = f"dialects: end of speech to first sound, {kind.name}"
        return Row(what, waited[kind], "live, and 30 ms", limit, "{:.1f} ms", 1.0)

    return [
        cpu_row(OPENAI, LIVE, 1.6),
        cpu_row(OPENAI_20, LIVE_20),
        cpu_row(TWILIO, LIVE, 2.0),
        cpu_row(TWILIO, LIVE_20),
        cpu_row(LIVE_20, LIVE),
        wait_row(OPENAI_20),
        wait_row(TWILIO),
    ]


async def _crowd(stack: AsyncExitStack, server: Server, kind: Kind) -> Sequence[Caller]:
    name = kind.name.split(",")[0].split()[0].lower()
    return [
        await stack.enter_async_context(kind.caller(server, f"{name}-{kind.ms}-{number}", kind.ms))
        for number in range(SESSIONS)
    ]


async def _converse(lab: Lab, server: Server, callers: Sequence[Caller], seconds: float) -> float:
    """The CPU time of one session: of one core, while both sides speak in real time.

    Raises:
        AssertionError: a core was not fast enough.
    """
    answer_ms = (seconds + 3 * SETTLE) * 1000
    speech_ms = SHORTEST_MS + ceil(answer_ms / TIMES / 40) * 40  # whole frames of all callers

    async def later(number: int, caller: Caller) -> None:
        await asyncio.sleep(number / len(callers) * 0.04)
        await caller.say(speech_ms, 0.95 * answer_ms)

    talks = [asyncio.create_task(later(*numbered)) for numbered in enumerate(callers)]
    await asyncio.gather(*(caller.answered() for caller in callers))
    await asyncio.sleep(SETTLE)
    lab.profile(server)
    begin, before, others = time.monotonic(), server.cpu(), time.process_time() + lab.model.cpu()
    heard = sum(caller.heard_ms for caller in callers)
    await asyncio.sleep(seconds)
    end, cpu = time.monotonic(), server.cpu() - before
    heard = sum(caller.heard_ms for caller in callers) - heard
    others = (time.process_time() + lab.model.cpu() - others) / (end - begin)
    await asyncio.gather(*talks)
    await asyncio.sleep(SETTLE)
    if cpu / (end - begin) > 0.95 or others > 0.95:
        raise AssertionError(
            f"a core was full: the server's was used to {cpu:.0%}, the other to {others:.0%}"
        )
    return cpu / heard * 1000  # by the sound that came: a server that is behind has not handled all


async def _first_sounds(callers: Sequence[Caller]) -> float:
    """Milliseconds from the end of a short question to the first sound: the median of all callers."""

    async def later(number: int, caller: Caller) -> None:
        await asyncio.sleep(number * 0.053)
        await caller.say(SHORTEST_MS, 30)

    await asyncio.gather(*(later(*numbered) for numbered in enumerate(callers)))
    await asyncio.sleep(SETTLE)
    return median(caller.after for caller in callers) * 1000
