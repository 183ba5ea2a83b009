"""The garbage collector: a server of its own sets it up, and a host is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.server import ROOT

START = """
import asyncio, gc
import relay

async def main(app):
    events = asyncio.Queue()
    sent = asyncio.Queue()
    serving = asyncio.create_task(app({"type": "lifespan"}, events.get, sent.put))
    await events.put({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    young, middle, old = gc.get_threshold()
    print(gc.get_freeze_count() > 100_000, young != 700, young * (middle + 1) * (old + 1))
    await events.put({"type": "lifespan.shutdown"})
    await serving

asyncio.run(main(%s))
"""


@pytest.mark.parametrize(
    ("app", "expected"), [("relay.app", ["True", "True"]), ("relay.Relay.from_env()", ["False", "False"])]
)
def test_what_is_loaded_is_out_of_its_sight(tmp_path: Path, app: str, expected: list[str]) -> None:
    environment = {"PYTHONPATH": str(ROOT), "RELAY_SESSIONS": "memory://", "RELAY_MODEL": "rehearsal"}
    done = subprocess.run(
        [sys.executable, "-c", START % app],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    *found, objects = done.stdout.split()
    assert found == expected, done.stderr
    assert int(objects) < 100_000, "what conversations leave behind stays for too long"
