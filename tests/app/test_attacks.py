"""`relay serve` under attack: a quiet client is served all the time, and afterwards nothing is left behind.

The amounts are harmless: what holds is known after a few thousand.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from adk_relay.bounds import MAX_FRAME, MAX_REQUEST
from support.client import Client, client
from support.guarded import opened
from support.process import SERVE, Process, serving_process
from support.raw import CLOSE, PING, Peer, frame, upgrade
from support.tokens import SECRET, token, web, with_token

WATCHED = """
import asyncio, gc, resource, signal
from google.adk.agents import LlmAgent

root_agent = LlmAgent(name="tester", model="gemini-3.8-live")

def tell(*_):
    gc.collect()
    objects = gc.get_objects()
    tasks = sum(isinstance(each, asyncio.Task) and not each.done() for each in objects)
    print(f"INFO:     there are {tasks} tasks and {len(objects)} objects", flush=True)

signal.signal(signal.SIGUSR1, tell)
"""
"""An agent whose process tells what it holds."""

SETTINGS = {"RELAY_AGENT": "watched:root_agent", "RELAY_MODEL": "rehearsal", "RELAY_SECRET": SECRET}
SETTINGS |= {"RELAY_GRACE": "0", "RELAY_MESSAGE_RATE": "0", "RELAY_USER_MESSAGE_RATE": "0"}

FORGED = token(secret="another secret of 32 bytes or more")
SLOW = 10.0  # seconds that the quiet client waits at most, on a loaded machine


class Watched:
    """A relay, and what its process holds."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.port = process.port
        self._pid = process._process.pid
        self._asked = 0
        self.before: dict[str, int] = {}

    async def held(self) -> dict[str, int]:
        """Descriptors, tasks, objects, sockets and conversations."""
        async with web(self.port, None) as anybody:
            health = (await anybody.get("/health", headers={"Connection": "close"})).json()
        os.kill(self._pid, signal.SIGUSR1)
        self._asked += 1
        async with asyncio.timeout(60):
            while len(found := re.findall(r"(\d+) tasks and (\d+) objects", "\n".join(self.process.log))) < (
                self._asked
            ):
                await asyncio.sleep(0.01)
        return {
            "files": len([*Path(f"/proc/{self._pid}/fd").iterdir()]),
            "tasks": int(found[-1][0]),
            "objects": int(found[-1][1]),
            "sockets": health["websocket_connections"],
            "conversations": health["active_sessions"],
        }

    @property
    def memory(self) -> float:
        """Megabytes that are resident."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    async def comes_to(self, most: dict[str, int]) -> dict[str, int]:
        """What it holds, as soon as it is no more than that."""
        async with asyncio.timeout(60):
            while True:
                now = await self.held()
                if all(now[name] <= number for name, number in most.items()):
                    return now
                await asyncio.sleep(0.1)


@asynccontextmanager
async def attacked(folder: Path) -> AsyncIterator[Watched]:
    """A relay with a quiet client. In the end all is as it was before."""
    (folder / "watched.py").write_text(WATCHED)
    async with serving_process(SERVE, folder, **SETTINGS) as process:
        relay = Watched(process)
        async with client(relay.port, **with_token(token("quiet"))) as quiet:
            assert "hello" in await quiet.ask("hello")
            await a_round(relay.port)  # what is made once is made now
            relay.before = await relay.comes_to({"sockets": 1, "conversations": 1})
            relay.before["objects"] += 3000  # caches of libraries
            memory = relay.memory
            pinging = asyncio.create_task(keep_pinging(quiet))
            try:
                yield relay
                assert not pinging.done()
            finally:
                pinging.cancel()
                await asyncio.gather(pinging, return_exceptions=True)
            await quiet.send(type="ping")
            await quiet.until(lambda said: said.get("type") == "pong")
            assert "again" in await quiet.ask("again")
            await relay.comes_to(relay.before)
            assert relay.memory < memory + 50
        assert await process.stop() == 0
        odd = {line for line in process.problems() if "rehearsal agent" not in line}
        assert odd <= {"WARNING: Invalid HTTP request received."}  # uvicorn's own
        log = "\n".join(process.log)
        for secret in (SECRET, FORGED.rpartition(".")[2], token("quiet").split(".")[1]):
            assert secret not in log


async def keep_pinging(quiet: Client) -> None:
    while True:
        await quiet.send(type="ping")
        await quiet.until(lambda said: said.get("type") == "pong", SLOW)
        await asyncio.sleep(0.05)


async def a_round(port: int) -> None:
    """One of each kind of request."""
    async with web(port, token("mallory")) as mallory:
        await mallory.get("/sessions")
        await mallory.post("/api/v1/chat", json={"session_id": "mine", "message": "hello"})
    for path in ("/ws/x", "/ws", "/api/v1/chat/stream"):
        for of in (token("mallory"), FORGED):
            with suppress(InvalidHandshake, ConnectionClosed):
                async with opened(port, path, **with_token(of)) as socket:
                    await socket.send('{"type": "ping"}')


async def answers(port: int, request: bytes) -> bytes:
    """All that comes back until the server closes the connection or the WebSocket."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        writer.write(request)
        while b"\r\n\r\n\x88" not in got and (more := await reader.read(65536)):
            got += more
        return got
    except ConnectionError:
        return got
    finally:
        writer.close()


async def at_once(many: int, what: Callable[[int], Awaitable[Any]], of: int) -> None:
    """Does something `of` times, `many` at once."""
    numbers = iter(range(of))

    async def work() -> None:
        for number in numbers:
            await what(number)

    await asyncio.gather(*(work() for _ in range(many)))


def with_headers(request: bytes, *lines: str) -> bytes:
    return request[:-2] + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


async def refused_upgrades(port: int) -> None:
    ways = [
        (upgrade("/ws/alice", subprotocol=False), 401),
        (with_headers(upgrade("/ws", subprotocol=False), f"Authorization: Bearer {FORGED}"), 401),
        (upgrade(f"/ws/alice?token={FORGED}", subprotocol=False), 401),
        (upgrade("/ws/alice"), 101),  # accepted, to be closed with a reason
        (with_headers(upgrade("/ws/alice"), "Origin: https://evil.example"), 403),
        (upgrade("/ws/alice").replace(b"127.0.0.1", b"evil.example"), 403),
        (upgrade(f"/ws/a%2Fb?token={token()}", subprotocol=False), 404),
        (upgrade("/ws/alice").replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
    ]

    async def refused(number: int) -> None:
        request, status = ways[number % len(ways)]
        head = await answers(port, request)
        assert head.startswith(b"HTTP/1.1 %d " % status), (request, head)

    await at_once(16, refused, of=2000)


NO_END = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
ODD_FRAMES = {
    "pings": frame(b"x" * 125, PING) * 3000,
    "no fragment ends": bytes([1, 0x81]) + bytes(5) + (bytes([0, 0x81]) + bytes(5)) * 3000,
    "a giant frame": b"\x81\xff" + (2**62).to_bytes(8, "big") + bytes(4) + bytes(100_000),
    "just too large": b"\x82\xff" + (MAX_FRAME + 1).to_bytes(8, "big") + bytes(4) + bytes(100_000),
    "compressed": b"\xc1\x81" + bytes(5),
    "an unknown opcode": frame(b"", 3) + frame(b"", 11),
    "no mask": b"\x81\x02{}",
    "a long ping": b"\x89\xfe\xff\xff" + bytes(4) + bytes(65535),
    "a close without a code": frame(b"\x03", CLOSE),
    "a close with a bad code": frame((1005).to_bytes(2, "big"), CLOSE) * 100,
    "deep": frame(b"[" * 200_000),
    "many values": frame(b"[" + b"1," * 100_000 + b"1]"),
    "half a frame": frame(b"x" * 100_000)[:5000],
    "no JSON": frame(b"{") * 50,
    "no UTF-8": frame(b"\xff" * 1000),
    "pongs": frame(b"", 10) * 3000,
}


async def odd_heads_and_frames(port: int) -> None:
    """What no client sends."""
    async with asyncio.TaskGroup() as tasks:

        async def never_ends(number: int) -> None:
            """A head in small pieces, without an end."""
            async with Peer.connected(port) as peer:
                with suppress(ConnectionError):
                    await peer.send_raw(NO_END if number % 2 else upgrade("/ws/alice")[:-2])
                    for line in range(100):
                        await peer.send_raw(b"x-%d: %d\r\n" % (line, number))
                        await asyncio.sleep(0.02)

        async def floods(number: int) -> None:
            lines = [f"x-{line}: {'y' * number}" for line in range(200 if number % 2 else 20)]
            head = await answers(port, with_headers(upgrade("/ws/alice"), *lines, *["z: " + "z" * 20_000]))
            assert not head or head.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))

        async def odd(name: str, path: str) -> None:
            """A peer that has a token, and behaves badly until it goes or is sent away."""
            async with Peer.connected(port) as peer:
                await peer.send_raw(with_headers(upgrade(path), f"Authorization: Bearer {token('mallory')}"))
                assert (await peer.head()).startswith(b"HTTP/1.1 101 "), name
                with suppress(ConnectionError):
                    await peer.send_raw(ODD_FRAMES[name])
                    await peer.send_raw(frame(b"", CLOSE))
                with suppress(TimeoutError):
                    await peer.ended(1)

        for number in range(50):
            tasks.create_task(never_ends(number))
        await at_once(8, floods, of=100)
        for name in ODD_FRAMES:
            for path in ("/ws/mallory", "/ws", "/api/v1/chat/stream"):
                tasks.create_task(odd(name, path))


IDS = [
    *(
        "../../etc/passwd",
        "..",
        ".",
        "new",
        "/",
        "a/b",
        "%2e%2e%2f",
        "\\\\server\\share",
        "C:\\nul",
        "~/.ssh",
    ),
    *("' OR '1'='1", "'; DROP TABLE sessions; --", '" UNION SELECT * FROM sessions --', "%' ESCAPE '"),
    *(
        "a\nb",
        "a\r\nSet-Cookie: x=y",
        "\x00",
        "a\x00",
        "\x1b[2J",
        "\u202e",
        "\u00e9",
        "\ud800",
        "{{7*7}}",
        "$(id)",
    ),
    *("", " ", "__proto__", "null", "live-quiet", "LIVE-QUIET", "live-quiet ", "live-quiet\n"),
    *("x" * 129, "x" * 10**6),
]
"""None is the id of a conversation of mallory's. Some are valid ids."""


async def odd_ids(port: int) -> None:
    """Ids of conversations that are none, and that reach nobody else's."""
    as_mallory = with_token(token("mallory"))
    async with web(port, token("mallory")) as mallory:
        for each in IDS:
            text = json.dumps(each)
            path = quote(each.encode("utf-8", "surrogatepass")[:8000], safe="")
            told = []
            for query in (
                f"/ws/{path}",
                f"/ws/x?session_id={path}",
                f"/ws/x?after={path}",
                f"/ws/x?name={path}",
            ):
                with suppress(InvalidHandshake, ConnectionClosed):
                    async with opened(port, f"/ws/{query}", **as_mallory) as socket:
                        told.append(str(await socket.recv()))
            async with opened(port, "/ws", **as_mallory) as socket:
                for kind in ("join_session", "chat"):
                    await socket.send(f'{{"type": "{kind}", "session_id": {text}, "message": " "}}')
                await socket.send(f'{{"type": "tool_result", "tool_id": {text}, "result": {text}}}')
                await socket.send('{"type": "ping"}')
                while '"pong"' not in (said := str(await socket.recv())):
                    told.append(said)
            async with opened(port, "/api/v1/chat/stream", **as_mallory) as socket:
                await socket.send(f'{{"session_id": {text}, "message": " "}}')
                with suppress(ConnectionClosed):
                    while True:
                        told.append(str(await socket.recv()))
            for method, end in (
                *(("GET", ""), ("DELETE", ""), ("GET", f"?before={path}"), ("POST", "/clear")),
                *(("POST", "/invite"), ("POST", "/tool_result")),
            ):
                body = f'{{"tool_id": {text}, "result": 1}}' if method == "POST" else None
                try:
                    answer = await mallory.request(method, f"/sessions/{path}{end}", content=body)
                except (httpx.ReadError, httpx.WriteError):  # it is closed while the client still sends
                    assert len(body or "") > MAX_REQUEST
                    continue
                assert answer.status_code in (200, 400, 404, 405, 413), (each[:50], method, end, answer.text)
                if answer.status_code == 200:  # anybody may invite to a new one; and dots lead to other paths
                    assert end == "/invite" or each in ("", ".", ".."), (each, method, end)
                assert "set-cookie" not in answer.headers
                told.append(answer.text)
            assert not any("You said: hello" in said or 'live-quiet"' in said for said in told), (
                each[:50],
                told,
            )
        async with web(port, token("quiet")) as quiet:
            assert (await quiet.get("/sessions/live-quiet")).json()["message_count"] == 2


async def test_what_attacks_leave_behind(tmp_path: Path) -> None:
    async with attacked(tmp_path) as relay:
        for attack in (refused_upgrades, odd_heads_and_frames, odd_ids):
            await attack(relay.port)
            await relay.comes_to(relay.before)
