"""What it costs to be fit for a public address: everything that is off by default, and refusals."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any
from uuid import uuid4

from websockets.exceptions import ConnectionClosed, InvalidStatus

from benchmarks.load import RELAY, measure, open_client
from benchmarks.processes import Lab, Server
from benchmarks.report import Row
from benchmarks.sessions import CPU, talk
from benchmarks.sound import CHUNKS_PER_S
from support.ports import free_port
from support.tokens import SECRET, bearer, token

SESSIONS = 10

UPGRADES = 40
"""In each round, of each kind."""

SOCKETS = 2000


async def exposed(lab: Lab) -> list[Row]:
    """Tokens, limits, metrics, traces, the log in JSON and the bounds on what is read; against nothing on."""
    metrics_port = free_port()
    with lab.new_server("relay") as off, lab.new_server("relay", **_everything(metrics_port)) as on:
        return [
            await _sessions(lab, on, off),
            *await _refusals(lab, on),
            await _scrape(lab, on, metrics_port),
        ]


def _everything(metrics_port: int) -> dict[str, Any]:
    return {
        "bounded": True,
        "watched": True,
        "secret": SECRET,
        "one_use": "true",
        "user_sound_day": 86_400,
        "metrics_port": metrics_port,
        "user_sockets": 2 * SOCKETS,
        "max_sockets": 2 * SOCKETS,
    }


def _token(user: str, **claims: Any) -> dict[str, str]:
    return bearer(token(user, exp=time.time() + 600, jti=uuid4().hex, **claims))


async def _sessions(lab: Lab, on: Server, off: Server) -> Row:
    seconds, rounds = (1.5, 5) if lab.quick else (3.0, 13)
    used: dict[int, list[float]] = {on.pid: [], off.pid: []}
    async with AsyncExitStack() as stack:
        crowds = {
            server.pid: [
                await stack.enter_async_context(
                    open_client(server, "relay", f"voice-{number}", headers=_token(f"voice-{number}"))
                )
                for number in range(SESSIONS)
            ]
            for server in (on, off)
        }
        for number in range(1 + rounds):
            # The first of a pair in turns: what one leaves in the caches is not always the same one's.
            for server in (on, off) if number % 2 else (off, on):
                window = await measure(
                    lab, server, crowds[server.pid], seconds if number else 0.3, partial(talk, kind=RELAY)
                )
                if number:
                    arrived = window.arrived() / (window.end - window.begin)
                    used[server.pid].append(window.cpu / arrived * CHUNKS_PER_S)
                await asyncio.sleep(0.1)
    what = f"exposed: {SESSIONS} voice sessions, CPU"
    return Row(what, used[on.pid], "nothing on", used[off.pid], CPU, 1.05)


async def _refusals(lab: Lab, server: Server) -> list[Row]:
    """By the server's CPU time for each upgrade, the close included."""
    forged = {"secret": "another secret, which has 32 bytes and more"}
    kinds: dict[str, dict[str, Any]] = {
        "accepted": {},
        "forged token, 401": {"claims": forged, "base64": True},
        "forged token, closed with 4401": {"claims": forged},
        "no token, 401": {"claims": None, "base64": True},
        "another site, 403": {"origin": "https://elsewhere.example", "base64": True},
    }
    used: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(1 + (6 if lab.quick else 15)):
        for kind, how in kinds.items():
            before = server.cpu()
            await asyncio.gather(*(_upgrade(server, f"{number}-{each}", **how) for each in range(UPGRADES)))
            await asyncio.sleep(0.1)  # until the last one has ended
            if number:
                used[kind].append((server.cpu() - before) / UPGRADES * 1000)
    accepted = used.pop("accepted")
    return [
        Row(f"exposed: an upgrade refused: {kind}", values, "accepted", accepted, "{:.2f} ms", 0.3)
        for kind, values in used.items()
    ]


async def _upgrade(
    server: Server,
    user: str,
    *,
    claims: dict[str, Any] | None = {},  # noqa: B006
    origin: str = "",
    base64: bool = False,
) -> None:
    headers = {} if claims is None else _token(user, **claims)
    if origin:
        headers["Origin"] = origin
    with suppress(InvalidStatus, ConnectionClosed):
        async with open_client(server, "relay", user, audio=False, base64=base64, headers=headers) as client:
            await client.recv()


async def _scrape(lab: Lab, server: Server, metrics_port: int) -> Row:
    """Not CPU time, but what the others wait: a scrape is one piece of work of the event loop."""
    took: list[float] = []
    async with AsyncExitStack() as stack:
        for start in range(0, SOCKETS, 50):
            users = [f"many-{number % 200}" for number in range(start, start + 50)]
            opening = [
                open_client(server, "relay", user, audio=False, headers=_token(user)) for user in users
            ]
            clients = await asyncio.gather(*map(stack.enter_async_context, opening))
            for client in clients:
                stack.callback(client.transport.abort)  # quicker than 2000 closes
        for _ in range(5 if lab.quick else 15):
            before = server.cpu()
            await asyncio.to_thread(_get, metrics_port)
            took.append((server.cpu() - before) * 1000)
            await asyncio.sleep(0.1)
    what = f"exposed: a scrape with {SOCKETS} sockets, CPU"
    return Row(what, took, "limit", [50.0] * len(took), "{:.1f} ms", 1.0)


def _get(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
        assert f'relay_sockets{{dialect="text",relay="bench"}} {SOCKETS}.0' in response.read().decode()
