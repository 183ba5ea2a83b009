"""The guard beside what an operator has: metrics, statistics, logs and the drain."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from relay import Relay
from support.api import rehearsal
from support.client import client
from support.metrics import samples
from support.server import a_relay, serving
from support.tokens import SECRET, as_subprotocols, token, web, with_token

pytestmark = pytest.mark.usefixtures("no_errors")


def guarded(**settings: Any) -> Relay:
    return a_relay(rehearsal(), secret=SECRET, **settings)


async def test_metrics_need_a_token() -> None:
    async with serving(guarded()) as port:
        async with web(port, None) as nobody:
            refused = await nobody.get("/metrics")
            assert refused.status_code == 401
            assert "relay_" not in refused.text
        async with web(port, token()) as alice, client(port, "x", **with_token(token())):
            with pytest.raises(InvalidStatus):
                async with connect(f"ws://127.0.0.1:{port}/ws", proxy=None):
                    pass
            response = await alice.get("/metrics")
            assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert response.headers["cache-control"] == "no-store"
            told = samples(response.text)
            assert told['relay_sockets{dialect="text"}'] == 1
            assert told['relay_refused_total{reason="sign in first"}'] == 1
            head = await alice.head("/metrics")
            assert (head.status_code, head.content) == (200, b"")
            assert int(head.headers["content-length"]) > 1000


async def test_refusals_are_counted_by_few_reasons() -> None:
    """Whatever clients send: their words are no labels."""
    own: dict[str, Any] = {"subprotocols": [Subprotocol("relay.v1")]}
    async with serving(guarded(user_sockets=1)) as port, web(port, token()) as alice:

        async def refused(path: str = "/ws/x", **options: Any) -> None:
            with pytest.raises((InvalidStatus, ConnectionClosed)):
                async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, **options) as socket:
                    await socket.recv()

        async with client(port, "x", **with_token(token())):
            for number in range(3):
                page = {"origin": f"https://{number}.example"}
                await refused(**with_token(token()) | page, **own)
                await refused(**with_token(token()), **own)
                await refused(f"/ws/{number}%20", **with_token(token("bob")))
            told = samples((await alice.get("/metrics")).text)
    reasons = {name: value for name, value in told.items() if name.startswith("relay_refused_total")}
    assert reasons == {
        f'relay_refused_total{{reason="{reason}"}}': 3
        for reason in ("foreign page or host", "too much", "not found")
    }


async def test_an_invitation_is_not_enough_for_metrics() -> None:
    async with serving(guarded()) as port, web(port, token()) as alice:
        invitation = (await alice.post("/sessions/kitchen/invite", json={})).json()["token"]
        async with web(port, invitation) as guest:
            assert (await guest.get("/metrics")).status_code == 403


async def test_without_a_guard_there_are_no_metrics_here() -> None:
    async with serving(a_relay(rehearsal())) as port, web(port, None) as anybody:
        assert (await anybody.get("/metrics")).status_code == 404
        assert (await anybody.post("/metrics")).status_code == 405


async def test_a_server_that_drains_asks_for_no_token_and_uses_none_up() -> None:
    """A token that opens one socket only still opens one of another server's, or of the next one's."""
    relay = guarded(one_use="true", drain=60)
    once = token(jti="one")
    async with serving(relay) as port, web(port, None) as nobody, web(port, token()) as alice:
        draining = asyncio.create_task(relay._draining.wait(lambda: True))  # as if an answer were under way
        await asyncio.sleep(0)
        for options in ({}, with_token(once), {"subprotocols": as_subprotocols(once)}):
            with pytest.raises(InvalidStatus) as no:
                async with connect(f"ws://127.0.0.1:{port}/ws/x", proxy=None, **options):
                    pass
            assert no.value.response.status_code == 503
            assert "retry-after" in no.value.response.headers
        assert (await nobody.get("/sessions")).status_code == 503
        assert (await nobody.get("/ready")).status_code == 503
        assert (await nobody.get("/health")).status_code == 200
        for path in ("/stats", "/metrics"):  # an operator sees the drain
            assert (await nobody.get(path)).status_code == 401
            assert (await alice.get(path)).status_code == 200
        draining.cancel()
        relay._draining.reset()
        async with client(port, "x", **with_token(once)):
            pass
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            async with client(port, "x", **with_token(once)):
                pass


async def test_a_line_about_a_socket_has_its_ids_and_no_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "relay")
    bad = token(secret="another secret of 32 bytes or more")
    async with serving(guarded()) as port:
        with pytest.raises(InvalidStatus):
            async with connect(f"ws://127.0.0.1:{port}/ws/x?token={bad}", proxy=None):
                pass
        async with client(port, "x", **with_token(token())) as alice:
            connection, conversation = alice.hello["connection_id"], alice.hello["session_id"]
        logging.getLogger("relay").info("?token=%s\n%s", bad, "forged")
    about = [line for line in caplog.records if getattr(line, "connection", "") == connection]
    assert any("opened from" in line.getMessage() for line in about)
    assert {line.conversation for line in about if "closed" in line.getMessage()} == {conversation}  # type: ignore[attr-defined]
    [forged] = [line.getMessage() for line in caplog.records if "forged" in line.getMessage()]
    assert forged == "?token=…\\nforged"
    assert bad not in caplog.text
