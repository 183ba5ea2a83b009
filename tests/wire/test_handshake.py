"""Accept, refuse and close, with servers whose `send` fails in ways of their own.

Real servers do all of this (see tests/app/test_servers.py), but not when a test wants it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from adk_relay.wire.asgi import Event, Scope
from adk_relay.wire.pacing import Pace
from adk_relay.wire.targets import NoSuchTargetError, target_of
from relay import Relay
from support.browser import rehearsal
from support.server import a_relay

pytestmark = pytest.mark.usefixtures("no_errors")


class Server:
    """Calls the application as an ASGI server does; what it sends is kept in `events`."""

    def __init__(self, app: Relay, path: str, *, subprotocol: bool = True, **scope: Any) -> None:
        self.scope: Scope = {
            "type": "websocket",
            "path": path,
            "subprotocols": ["relay.v1"] if subprotocol else [],
            "extensions": {"websocket.http.response": {}},
            **scope,
        }
        self.app = app
        self.events: list[Event] = []
        self.inbox: asyncio.Queue[Event] = asyncio.Queue()
        self.inbox.put_nowait({"type": "websocket.connect"})
        self.fails: Callable[[Event], Exception | None] = lambda event: None
        self.news = asyncio.Event()

    async def send(self, event: Event) -> None:
        if error := self.fails(event):
            raise error
        self.events.append(event)
        self.news.set()

    def start(self) -> asyncio.Task[None]:
        async def run() -> None:
            await self.app(self.scope, self.inbox.get, self.send)

        return asyncio.create_task(run())

    async def sent(self, kind: str) -> Event:
        async with asyncio.timeout(60):
            while not (found := [event for event in self.events if event["type"] == kind]):
                self.news.clear()
                await self.news.wait()
        return found[0]


ERRORS = [OSError(), RuntimeError("gone"), Exception("of its own")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("path", ["/ws/alice", "/nothing"], ids=["accept", "refuse"])
@pytest.mark.parametrize("subprotocol", [True, False])
async def test_a_peer_that_goes_in_the_handshake_is_no_error(
    path: str, error: Exception, subprotocol: bool
) -> None:
    relay = a_relay(rehearsal())
    server = Server(relay, path, subprotocol=subprotocol)
    server.fails = lambda event: error
    await server.start()
    assert relay.conversations.active == 0


@pytest.mark.parametrize("path", ["/ws/alice", "/nothing"])
async def test_a_peer_that_is_gone_before_the_handshake_is_no_error(path: str) -> None:
    server = Server(a_relay(rehearsal()), path)
    server.inbox.get_nowait()
    server.inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await server.start()
    assert server.events == []


@pytest.mark.parametrize("error", ERRORS, ids=repr)
async def test_a_peer_that_goes_before_the_close_is_no_error(error: Exception) -> None:
    server = Server(relay := a_relay(rehearsal()), "/ws/alice")
    running = server.start()
    await server.sent("websocket.send")
    server.fails = lambda event: error if event["type"] == "websocket.close" else None
    await relay.aclose()
    await running


async def test_a_server_that_refuses_standard_codes_gets_private_ones() -> None:
    def refuses(event: Event) -> Exception | None:
        is_standard = event["type"] == "websocket.close" and event["code"] < 3000
        return Exception(f"invalid close code {event['code']}") if is_standard else None

    server = Server(relay := a_relay(rehearsal()), "/ws/alice")
    server.fails = refuses
    running = server.start()
    await server.sent("websocket.send")
    await relay.aclose()
    await running
    assert server.events[-1] == {
        "type": "websocket.close",
        "code": 4412,
        "reason": "the server is stopping",
    }


async def test_a_socket_whose_task_is_canceled_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    """hypercorn cancels what still runs when its time to stop is over."""
    caplog.set_level(logging.INFO, "relay")
    server = Server(a_relay(rehearsal()), "/ws/alice")
    running = server.start()
    await server.sent("websocket.send")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (server.events[-1]["type"], server.events[-1]["code"]) == ("websocket.close", 1001)
    assert "closed 1001 the server is stopping" in caplog.text


async def test_an_error_of_the_servers_own_in_mid_answer_ends_with_the_disconnect() -> None:
    server = Server(a_relay(rehearsal()), "/ws/alice", http_version="1.1")
    running = server.start()
    await server.sent("websocket.send")
    server.fails = lambda event: Exception("not connected")
    server.inbox.put_nowait({"type": "websocket.receive", "text": '{"type": "ping"}'})
    await asyncio.sleep(0)
    server.inbox.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await running


def test_the_pace_is_that_of_sound() -> None:
    """At most the burst at once, and then what is played meanwhile."""
    pace, now, sent = Pace(100_000, 0.0), 0.0, 0
    while now < 10:
        now += pace.wait(now)
        assert pace.wait(now) < 1e-9
        pace.sent(2000)
        pace.check()
        sent += 2000
        assert sent <= 100_000 + 72_000 * now + 2001
    assert sent >= 72_000 * now


async def test_what_a_send_that_never_waits_is_given_is_bounded() -> None:
    """hypercorn takes all that it is given over HTTP/2, for a client that reads nothing."""
    from adk_relay.core.messages import Audio

    relay = a_relay(rehearsal(), queue_bytes=100_000, slow_timeout=60)
    given = {}
    for version in ("1.1", "2"):
        server = Server(relay, f"/ws/{version}?", http_version=version, query_string=b"is_audio=true")
        server.scope["path"] = "/ws/alice"
        running = server.start()
        await server.sent("websocket.send")
        room = (await relay.conversations.open("alice")).room
        for _ in range(100):
            room.publish(Audio(room.number(), bytes(48 * 100)))
            await asyncio.sleep(0)
        given[version] = sum(len(event.get("bytes") or b"") for event in server.events)
        server.inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
        await running
    assert given["1.1"] >= 480_000
    assert 90_000 < given["2"] < 250_000
    await relay.aclose()


@pytest.mark.parametrize(
    ("path", "root_path", "raw_path", "name"),
    [
        ("/ws/alice", "", b"/ws/alice", "text"),
        ("/talk/ws/alice", "/talk", b"/talk/ws/alice", "text"),  # uvicorn, Starlette
        ("/ws/alice", "/talk", b"/ws/alice", "text"),  # hypercorn, daphne, granian
        ("/ws/alice/", "", b"/talk/ws/alice", "text"),  # Litestar
        ("/ws/ws/alice", "/ws", b"/ws/ws/alice", "text"),
        ("/ws/alice", "/ws", b"/ws/alice", "text"),
        ("/ws/ws", "/ws", b"/ws/ws", "chat"),
        ("/ws", "/ws", None, "chat"),
        ("/ws/", "", b"/talk/ws", "chat"),
    ],
)
def test_the_target_of_a_mounted_relay(path: str, root_path: str, raw_path: bytes | None, name: str) -> None:
    target = target_of({"path": path, "root_path": root_path, "raw_path": raw_path})
    assert (target.dialect.name, target.user_id) == (name, "alice" if name == "text" else None)


def test_a_slash_that_a_client_has_sent_stays() -> None:
    with pytest.raises(NoSuchTargetError):
        target_of({"path": "/ws/alice/", "root_path": "", "raw_path": b"/ws/alice/"})
