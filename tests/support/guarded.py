"""A relay that wants tokens, and upgrades that it may refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from support.api import rehearsal
from support.server import a_relay, serving
from support.tokens import SECRET


@asynccontextmanager
async def guarded(**settings: Any) -> AsyncIterator[int]:
    async with serving(a_relay(rehearsal(), **({"secret": SECRET} | settings))) as port:
        yield port


@asynccontextmanager
async def opened(port: int, path: str, **options: Any) -> AsyncIterator[ClientConnection]:
    # Frames are read at once, or closing a client that has not read all of them would take ten seconds.
    options = {"max_queue": None, "open_timeout": 60} | options
    async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, **options) as socket:
        yield socket


async def status_of(port: int, path: str = "/ws/alice", **options: Any) -> int:
    """The HTTP status of an upgrade; 101: it was accepted."""
    try:
        async with opened(port, path, **options):
            return 101
    except InvalidStatus as refusal:
        return refusal.response.status_code
