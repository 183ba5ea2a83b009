"""The server of `relay serve`: uvicorn, with a stop that lets answers under way come to their end.

uvicorn closes every WebSocket before it tells the application of the stop. This server calls `Relay.drain()`
first, which finds the relay by the state that the lifespan has (see `Relay._lifespan`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from adk_relay.advice import RELAY_SERVE
from adk_relay.bounds import MAX_FRAME, MAX_HEAD
from adk_relay.core.logs import failure, one_line
from adk_relay.show_logs import log_config

log = logging.getLogger("relay")

STATE = "adk_relay"
"""The key of the running `Relay` in the lifespan's state."""

STARTUP_FAILURE = 3
"""The exit code if the server can't start: uvicorn's own."""

_LOOK_EVERY = 0.1
"""Seconds between two looks whether a second signal has come."""

_MOST_DESCRIPTORS = 65_536

_RESERVE = 64
"""File descriptors that are for the store, the log, and what tools open. Of the others, one half is for
clients, so that the other is left for the connections to the model."""

_GRACEFUL = 3
"""Seconds that connections have to end when the server stops. Without a limit, one client that has stopped
reading would keep the process from ending."""

_DROP_AFTER = 2.0
"""Seconds after which those that are left are dropped, as if their clients had gone. After `_GRACEFUL`,
uvicorn would cancel their tasks, and log a traceback for each."""


def config(app: str, host: str, port: int, log_level: str, proxies: str | None = None) -> uvicorn.Config:
    """uvicorn's configuration for relay.

    Args:
        proxies: what their `X-Forwarded-For` is believed; None: FORWARDED_ALLOW_IPS, or this machine's.
    """
    bounded = bounded_protocols((_descriptors() - _RESERVE) // 2)
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level=log_level,
        forwarded_allow_ips=proxies,
        log_config=log_config(LOGGING_CONFIG),
        http=bounded[0] if bounded else "h11",
        ws=bounded[1] if bounded else "auto",
        h11_max_incomplete_event_size=MAX_HEAD,
        ws_max_size=MAX_FRAME,
        # Sound does not compress, and trying costs 13 % of a voice session's CPU. A compressed frame is small
        # on the wire and takes any amount of memory.
        ws_per_message_deflate=False,
        # Each turn of the event loop takes so many new connections at most.
        backlog=256,
        timeout_graceful_shutdown=_GRACEFUL,
    )


def bounded_protocols(most: int) -> tuple[type[asyncio.Protocol], type[asyncio.Protocol]] | None:
    """The bounded protocols for HTTP and for WebSockets; None: this uvicorn lacks something they lean on.

    Args:
        most: connections that are served at the same time.
    """
    try:
        from adk_relay.bounded_http import BoundedHttp
        from adk_relay.bounded_websocket import BoundedWebSocket

        for protocol in (BoundedHttp, BoundedWebSocket):
            uvicorns = protocol.__mro__[1]
            there = {*dir(uvicorns), *uvicorns.__init__.__code__.co_names}  # type: ignore[misc]
            if missing := {*protocol.leans_on} - there:
                raise ImportError(f"{uvicorns.__name__} has no {', '.join(sorted(missing))}")
    except (ImportError, AttributeError) as error:
        log.warning("with this uvicorn, what a connection may send is not bounded: %s", one_line(error))
        return None
    return type("Http", (BoundedHttp,), {"most": most}), BoundedWebSocket


def _descriptors() -> int:
    """How many files and sockets the process may have open: as many as the system lets it have."""
    try:
        import resource
    except ImportError:  # Windows
        return 1024
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


class Server(uvicorn.Server):
    """A uvicorn server that drains before it stops.

    States: serving; draining (after the first signal); stopping. A second signal ends the process at once.

    All names of `uvicorn.Server` that it uses are public, though uvicorn documents few of them:
    `handle_exit`, `startup`, `on_tick`, `shutdown`, `should_exit`, `force_exit`, `server_state` and
    `lifespan`. If the lifespan has no `state`, the relay is not found, and the server stops as uvicorn does.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal asks for the stop. uvicorn's own method would raise it again at the end: exit code -15."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tells the application which server this is, then starts."""
        self._state()[RELAY_SERVE] = True
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Whether the server is to shut down now: not before it has drained."""
        if not await super().on_tick(counter):
            return False
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(), name="drain")
        return self._draining.done() or self.force_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shuts down, until a second signal comes."""
        ending = asyncio.create_task(super().shutdown(sockets), name="shutdown")
        drop_at = time.monotonic() + _DROP_AFTER
        while not self.force_exit and not ending.done():
            await asyncio.wait({ending}, timeout=_LOOK_EVERY)
            if time.monotonic() >= drop_at:
                for connection in [*self.server_state.connections]:
                    connection.transport.abort()
        if self.force_exit:
            for connection in [*self.server_state.connections]:
                connection.shutdown()  # sends the close frames
            await asyncio.sleep(0)
            end_process()
        ending.result()

    async def _drain(self) -> None:
        drain = getattr(self._state().get(STATE), "drain", None)
        if drain:
            try:
                await drain()
            except Exception as error:
                log.error("the relay could not be drained: %s", failure(error))

    def _state(self) -> dict[str, Any]:
        """What the application has put into the lifespan's state."""
        state: dict[str, Any] = getattr(self.lifespan, "state", {})
        return state


def end_process() -> NoReturn:
    """Ends the process. A tool that blocks a thread may still run, and Python would wait for it."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
