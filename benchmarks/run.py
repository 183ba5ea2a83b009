"""The command: which measurements to make, and their table."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version

from benchmarks import peers
from benchmarks.barge_in import barge_in
from benchmarks.builds import EARLIER, HAS_LONG, check_out_earlier
from benchmarks.bus import bus
from benchmarks.dialects import dialects
from benchmarks.down import down
from benchmarks.exposed import exposed
from benchmarks.fair import fair
from benchmarks.idle import growth, idle
from benchmarks.imports import imports
from benchmarks.processes import CORES, Lab, run_model
from benchmarks.profiles import PY_SPY
from benchmarks.replay import replay
from benchmarks.report import HEADER, Row
from benchmarks.rooms import rooms
from benchmarks.sessions import memory, sessions
from benchmarks.stalled import stalled
from benchmarks.start import start
from benchmarks.takeovers import takeovers, web_start
from benchmarks.up import up

Measurement = Callable[[Lab], Awaitable[list[Row]]]
"""It raises AssertionError if what it measures does not work."""

MEASUREMENTS: dict[str, Measurement] = {
    "down": down,
    "up": up,
    "sessions": sessions,
    "dialects": dialects,
    "memory": memory,
    "start": start,
    "rooms": rooms,
    "import": imports,
    "stalled": stalled,
    "fair": fair,
    "exposed": exposed,
    "barge-in": barge_in,
    "replay": replay,
    "bus": bus,
    "idle": idle,
    "growth": growth,
    "takeovers": takeovers,
    "web-start": web_start,
}

PROFILED = ("down", "up", "sessions", "dialects", "memory", "start", "rooms", "exposed", "bus")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints the table and returns the exit code: 1 if a measurement failed."""
    parser = argparse.ArgumentParser(prog="bench.py", description="How much relay costs, in ratios.")
    parser.add_argument("rows", nargs="*", metavar="row", help=f"of {', '.join(MEASUREMENTS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="in eight minutes instead of 28, and rougher")
    parser.add_argument(
        "--profile",
        choices=PROFILED,
        metavar="ROW",
        help=f"measure one of {', '.join(PROFILED)}, and write where its servers spend their time",
    )
    arguments = parser.parse_args(argv)
    rows = [arguments.profile] if arguments.profile else arguments.rows or [*MEASUREMENTS]
    if unknown := set(rows) - MEASUREMENTS.keys():
        parser.error(f"{', '.join(sorted(unknown))}: there is only {', '.join(MEASUREMENTS)}")
    if arguments.profile and not PY_SPY:
        parser.error("--profile needs py-spy: pip install py-spy")
    print(_versions())
    if CORES:
        os.sched_setaffinity(0, {CORES[-1]})
    began, load = time.monotonic(), _load()
    with check_out_earlier() as earlier, run_model() as model:
        if earlier is None:
            print(f"\nWithout the rows against `today`: the commit {EARLIER[:7]} is not in this repository.")
        with Lab(model, arguments.quick, earlier, arguments.profile) as lab:
            worked = peers.run(_measure(rows, lab))
            for doubt in sorted(lab.doubts):
                print(f"\nDo not trust: {doubt}.")
    print(f"\n{time.monotonic() - began:.0f} s on {len(CORES) or os.cpu_count()} cores")
    if load:
        print(f"load average of the minute before: {load}, of the last minute: {_load()}")
    return 0 if worked else 1


async def _measure(names: Sequence[str], lab: Lab) -> bool:
    print(f"\n{HEADER}")
    worked = True
    for name in names:
        try:
            print(*await MEASUREMENTS[name](lab), sep="\n", flush=True)
        except AssertionError as error:  # the others are still worth measuring
            print(f"| {name} | failed: {error} | | | | |", flush=True)
            worked = False
    return worked


def _versions() -> str:
    packages = ("google-adk", "google-genai", "uvicorn", "websockets")
    found = ", ".join(f"{package} {version(package)}" for package in packages)
    without = "" if HAS_LONG else "; this build has no RELAY_SOUND"
    return f"Python {platform.python_version()}, {found}{without}"


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
