"""A relay in a process of its own, which can be killed without a word."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.browser import until
from support.server import ROOT

OWN_AGENT = """
from google.adk.agents import LlmAgent
from adk_relay.adk.rehearsal import Rehearsal

root_agent = LlmAgent(name="parrot", model=Rehearsal(words_per_second={speed}))
"""


@asynccontextmanager
async def a_process(port: int, folder: Path, speed: int = 40) -> AsyncIterator[asyncio.subprocess.Process]:
    """A relay that can be killed without a word."""
    (folder / "parrot.py").write_text(OWN_AGENT.format(speed=speed))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "relay.py"), "--port", str(port)),
        cwd=folder,
        env=os.environ | {"RELAY_AGENT": "parrot:root_agent"},
        stderr=asyncio.subprocess.DEVNULL,
    )

    async def answers() -> bool:
        assert process.returncode is None
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    try:
        await until(answers, bool, timeout=30)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
