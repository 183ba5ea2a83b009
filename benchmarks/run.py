"""The command: which measurements to make, and their table."""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence

from benchmarks.barge_in import barge_in
from benchmarks.down import down
from benchmarks.processes import CORES, run_model
from benchmarks.replay import replay
from benchmarks.report import HEADER, Row
from benchmarks.rooms import rooms
from benchmarks.sessions import sessions
from benchmarks.stalled import stalled
from benchmarks.start import start
from benchmarks.up import up

Measurement = Callable[[dict[str, str], bool], Awaitable[list[Row]]]
"""Takes the environment that leads google-genai to the model's process, and whether to be quick.

It raises AssertionError if what it measures does not work.
"""

MEASUREMENTS: dict[str, Measurement] = {
    "down": down,
    "up": up,
    "sessions": sessions,
    "stalled": stalled,
    "barge-in": barge_in,
    "rooms": rooms,
    "replay": replay,
    "start": start,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints the table and returns the exit code: 1 if a measurement failed."""
    parser = argparse.ArgumentParser(prog="bench.py", description="How much relay costs, in ratios.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(MEASUREMENTS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="in about a minute, and rougher")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.names) - MEASUREMENTS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: there is only {', '.join(MEASUREMENTS)}")
    if CORES:
        os.sched_setaffinity(0, {CORES[-1]})
    began, load = time.monotonic(), _load()
    with run_model() as env:
        worked = asyncio.run(_measure(arguments.names or list(MEASUREMENTS), env, arguments.quick))
    print(f"\n{time.monotonic() - began:.0f} s on {len(CORES) or os.cpu_count()} cores")
    if load:
        print(f"load average of the minute before: {load}, of the last minute: {_load()}")
    return 0 if worked else 1


async def _measure(names: Sequence[str], env: dict[str, str], quick: bool) -> bool:
    print(HEADER)
    worked = True
    for name in names:
        try:
            print(*await MEASUREMENTS[name](env, quick), sep="\n", flush=True)
        except AssertionError as error:  # the others are still worth measuring
            print(f"| {name} | failed: {error} | | | |", flush=True)
            worked = False
    return worked


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
