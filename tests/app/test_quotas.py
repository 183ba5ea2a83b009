"""How much may be open at once, and how much one client may send."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from adk_relay.core.visitor import Visitor
from adk_relay.wire.quotas import Quotas, address_of
from support.api import rehearsal
from support.chat import chat, http
from support.client import Client, Json, client
from support.gemini import GeminiLive
from support.server import a_relay, serving
from support.tokens import SECRET, token, web, with_token

pytestmark = pytest.mark.usefixtures("no_errors")


@asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[int]:
    async with serving(a_relay(rehearsal(), **settings)) as port:
        yield port


@asynccontextmanager
async def opened(port: int, path: str = "/ws/alice", **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None, open_timeout=60, **options) as socket:
        yield socket


async def is_let_in(port: int, status: int = 429, **options: Any) -> bool:
    """Whether a socket is accepted. If not, it is refused with the status and a time to come back."""
    try:
        async with opened(port, **options):
            return True
    except InvalidStatus as refusal:
        assert refusal.response.status_code == status
        assert int(refusal.response.headers["retry-after"]) > 0
    # A browser, which can't read that, gets a code that says: come back after a pause.
    async with opened(port, subprotocols=[Subprotocol("relay.v1")], **options) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 4429
    return False


async def let_in_when_free(port: int, **options: Any) -> None:
    """Waits until a place is free."""
    async with asyncio.timeout(60):
        while not await is_let_in(port, **options):
            await asyncio.sleep(0.01)


def via(address: str) -> dict[str, Any]:
    """What a proxy on this machine, which uvicorn trusts, says of its client."""
    return {"additional_headers": {"X-Forwarded-For": address}}


# ---- what is open -----------------------------------------------------------------------------


async def test_sockets_of_all() -> None:
    async with served(max_sockets=2) as port:
        async with opened(port), opened(port, "/ws"):
            assert not await is_let_in(port, status=503)
            async with http(port) as web:  # other things go on
                assert (await web.get("/sessions")).status_code == 200
        await let_in_when_free(port, status=503)


async def test_sockets_of_a_user() -> None:
    alice, bob = with_token(token("alice")), with_token(token("bob"))
    async with served(secret=SECRET, user_sockets=2) as port:
        async with opened(port, **alice), opened(port, "/ws/bob", **alice):
            assert not await is_let_in(port, **alice)
            assert await is_let_in(port, **bob)
        await let_in_when_free(port, **alice)


@pytest.mark.parametrize(
    ("address", "same", "other"),
    [
        ("203.0.113.1", "203.0.113.1", "203.0.113.2"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", "2001:db8:0:2::1"),
        ("203.0.113.1", "::ffff:203.0.113.1", "2001:db8::1"),
    ],
)
async def test_sockets_of_an_address(address: str, same: str, other: str) -> None:
    async with served(address_sockets=1) as port:
        async with opened(port, **via(address)):
            assert not await is_let_in(port, **via(same))
            assert await is_let_in(port, **via(other))
            async with opened(port), opened(port):  # this machine's own are not counted
                pass
        await let_in_when_free(port, **via(same))


async def test_a_client_can_not_choose_its_address() -> None:
    """Where the server trusts no proxy, X-Forwarded-For is only a text."""
    relay = a_relay(rehearsal(), address_sockets=1)
    forged = via("203.0.113.1")
    async with (
        serving(relay, proxy_headers=False) as port,
        opened(port, **forged),
        opened(port, **forged),
    ):
        pass


def test_addresses() -> None:
    for host in ("testclient", "", "127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert address_of({"client": (host, 1)}) == ""
    assert address_of({"client": None}) == ""
    assert address_of({"client": ("2001:db8::5", 1)}) == "2001:db8::/64"
    assert address_of({"client": ["198.51.100.7", 1]}) == "198.51.100.7"


async def test_conversations(gemini: GeminiLive) -> None:
    async with serving(a_relay(max_conversations=1)) as port:
        async with client(port, "alice") as alice:
            assert await alice.ask("hello") == "You said: hello."
            assert not await is_let_in(port, status=503, path="/ws/bob")
            async with http(port) as web:
                body = {"session_id": "other", "message": "hello"}
                answer = await web.post("/api/v1/chat", json=body)
                assert answer.status_code == 429
                assert int(answer.headers["retry-after"]) > 0
            async with chat(port) as room:
                await room.send(type="create_session")
                assert (await room.next())["code"] == "busy"
            async with client(port, "alice"):  # to the conversation that is open
                assert await alice.ask("still") == "You said: still."
        await let_in_when_free(port, status=503, path="/ws/bob")


async def test_requests_under_way(gemini: GeminiLive) -> None:
    go_on = asyncio.Event()

    async def answer(connection: Any, turn: Any) -> None:
        await go_on.wait()
        await connection.say("Yes.")

    gemini.answer = answer
    relay = a_relay(max_requests=2)
    async with serving(relay) as port, http(port) as one:
        body = {"session_id": "kitchen", "message": "Hello"}
        asking = [asyncio.create_task(one.post("/api/v1/chat", json=body)) for _ in range(2)]
        async with asyncio.timeout(60):
            while relay._guard.quotas._requests < 2:
                await asyncio.sleep(0.01)
        refused = await one.get("/sessions")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        for path in ("/health", "/"):
            assert (await one.get(path)).status_code == 200
        go_on.set()
        for request in asking:
            assert (await request).status_code == 200
        assert (await one.get("/sessions")).status_code == 200


async def test_requests_of_a_user() -> None:
    async with (
        served(secret=SECRET, user_message_rate=0.1) as port,
        web(port, token("alice")) as alice,
        web(port, token("bob")) as bob,
    ):
        answers = [await alice.get("/sessions") for _ in range(5)]
        assert answers[0].status_code == 200
        assert answers[-1].status_code == 429
        assert 0 < int(answers[-1].headers["retry-after"]) <= 11
        assert (await bob.get("/sessions")).status_code == 200


async def test_what_is_refused_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    relay = a_relay(rehearsal(), secret=SECRET, user_sockets=1)
    quotas = relay._guard.quotas
    async with serving(relay) as port:
        async with opened(port, **with_token(token())):
            for _ in range(20):
                assert not await is_let_in(port, **with_token(token()))
                with pytest.raises(InvalidStatus):
                    async with opened(port):
                        pass
            assert len(quotas._held) == 1
        async with asyncio.timeout(60):
            while quotas._held:
                await asyncio.sleep(0.01)
    assert (quotas._sockets, quotas._requests, quotas.addresses) == (0, 0, {})


def test_users_who_have_nothing_open_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adk_relay.wire.quotas._MAX_USERS", 10)
    quotas = Quotas(message_rate=1)
    scopes: list[dict[str, Any]] = [{"type": "websocket", "client": None} for _ in range(100)]
    for number, scope in enumerate(scopes):
        quotas.enter(scope, Visitor(str(number)), "")
        if number:
            quotas.leave(scope)
    assert len(quotas.users) <= 10
    assert quotas.users["0"].sockets == 1


# ---- messages ---------------------------------------------------------------------------------


async def test_texts_that_come_too_fast_are_refused(gemini: GeminiLive) -> None:
    async with serving(a_relay(message_rate=0.5)) as port, client(port) as alice:
        for number in range(12):  # five may come at once
            await alice.send(mime_type="text/plain", data="hello", id=str(number))
        got = await alice.until(lambda said: said.get("id") == "11")
        errors = [said for said in got if said.get("type") == "error"]
        assert {said["code"] for said in errors} == {"rate_limited"}
        assert 0 < len(errors) <= 7
        assert errors[-1]["id"] == "11"
        assert 0 < errors[-1]["retry_after"] <= 3
        await asyncio.sleep(errors[-1]["retry_after"])
        await alice.send(mime_type="text/plain", data="later", id="12")
        await alice.until(lambda said: said.get("type") == "ack" and said["id"] == "12")
        acks = {said["id"] for said in alice.frames if said.get("type") == "ack"}
        assert acks == {str(number) for number in range(13)} - {said["id"] for said in errors}


@pytest.mark.parametrize("what", ["text", "typing"])
async def test_who_goes_on_is_closed(what: str, gemini: GeminiLive) -> None:
    frames: dict[str, Json] = {
        "text": {"type": "chat", "message": "hello"},
        "typing": {"type": "typing_start"},
    }
    told: list[Json] = []
    async with serving(a_relay(message_rate=1)) as port, chat(port) as alice:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(100):
                await alice.send(**frames[what])
            while True:
                told.append(json.loads(await alice.socket.recv()))
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 4429
        errors = [said for said in told if said["type"] == "error"]
        assert len(errors) >= 20
        assert {said["code"] for said in errors if said["code"] != "busy"} == {"rate_limited"}
        assert errors[-1]["retry_after"] > 0
        async with client(port, "bob") as bob:
            assert await bob.ask("hello") == "You said: hello."


async def test_all_sockets_of_a_user_count_together() -> None:
    async with served(secret=SECRET, user_message_rate=0.5) as port, AsyncExitStack() as stack:
        join = '{"type": "join_session", "session_id": "none"}'
        codes = []
        for user in [*["alice"] * 12, "bob"]:
            socket = await stack.enter_async_context(opened(port, "/ws", **with_token(token(user))))
            await socket.recv()
            await socket.send(join)
            codes.append(json.loads(await socket.recv())["code"])
        assert codes[0] == codes[-1] == "unknown_session"
        assert "rate_limited" in codes


async def test_too_many_pings_are_read_later() -> None:
    async with served(message_rate=2) as port, chat(port) as alice:
        began = time.monotonic()
        for _ in range(120):  # a hundred may come at once
            await alice.send(type="ping")
            assert (await alice.next())["type"] == "pong"
        assert time.monotonic() - began > 1
        await alice.send(type="typing_start")
        await alice.send(type="join_session", session_id="none")
        assert (await alice.next())["code"] == "unknown_session"


async def test_a_client_is_told_its_limits() -> None:
    sizes = {"text_bytes": 32768, "sound_bytes": 1048576, "picture_bytes": 4194304}
    settings = {"message_rate": 20, "user_message_rate": 7, "user_sound_day": 10}
    async with served(secret=SECRET, **settings) as port:
        alice = with_token(token("alice"))
        async with client(port, **alice) as one:
            assert one.hello["limits"] == sizes | {"messages_per_second": 7, "sound_seconds_today": 10}
            for length in (sizes["text_bytes"], sizes["text_bytes"] + 1):
                await one.send(mime_type="text/plain", data="x" * length)
            await say_sound(one, 4)
            assert await errors_after_sound(one) == ["too_large"]
        async with client(port, **alice) as one, chat(port, **alice) as other:
            assert one.hello["limits"]["sound_seconds_today"] == pytest.approx(6, abs=0.2)
            told = one.hello["limits"]
            assert other.hello["limits"] == {name: told[name] for name in told if name not in (*sizes,)[1:]}
    async with served(message_rate=0) as port, client(port) as one, chat(port) as other:
        assert one.hello["limits"] == sizes  # nothing else is limited
        assert other.hello["limits"] == {"text_bytes": sizes["text_bytes"]}


# ---- sound ------------------------------------------------------------------------------------


SECOND = bytes(2 * 16_000)


async def say_sound(who: Any, seconds: float) -> None:
    """Sends sound in frames of a tenth of a second, all at once, and then a ping."""
    for _ in range(int(10 * seconds)):
        await who.socket.send(SECOND[: len(SECOND) // 10])
    await who.send(type="ping")


async def test_sound_beyond_real_time_is_read_later(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.wire.quotas._SOUND_AT_ONCE", 1.0)
    # A socket that is not read for a while is not taken for a dead one.
    relay = a_relay(sound_rate=1, ping_interval=0.2, pong_timeout=0.2)
    async with serving(relay) as port, client(port, audio=True) as alice, client(port, "bob") as bob:
        await alice.send(type="ping")
        await alice.until(lambda said: said.get("type") == "pong")
        began = time.monotonic()
        await say_sound(alice, 1)
        await alice.until(lambda said: said.get("type") == "pong")
        assert time.monotonic() - began < 1
        began = time.monotonic()
        await say_sound(alice, 3)
        assert await bob.ask("hello") == "You said: hello."
        await alice.until(lambda said: said.get("type") == "pong")
        assert time.monotonic() - began > 1.5
        assert not [said for said in alice.frames if said["type"] == "error"]
    async with asyncio.timeout(60):
        while len(gemini.connections[0].audio) < 3 * len(SECOND):
            await asyncio.sleep(0.01)


async def test_the_sound_of_all_sockets_of_a_user_counts_together(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.wire.quotas._SOUND_AT_ONCE", 1.0)
    relay = a_relay(secret=SECRET, user_sound_rate=1)
    own, bobs = with_token(token()), with_token(token("bob"))
    async with (
        serving(relay) as port,
        client(port, **own) as one,
        client(port, **own) as two,
        client(port, **bobs) as bob,
    ):
        began = time.monotonic()
        await say_sound(one, 2)
        await one.until(lambda said: said.get("type") == "pong")
        await say_sound(two, 2)
        await two.until(lambda said: said.get("type") == "pong")
        took = time.monotonic() - began
        began = time.monotonic()
        await say_sound(bob, 1)
        await bob.until(lambda said: said.get("type") == "pong")
        assert took > 2.5
        assert time.monotonic() - began < 1


async def test_the_sound_of_a_day(gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch) -> None:
    relay = a_relay(secret=SECRET, user_sound_day=10)
    own = with_token(token())
    async with serving(relay) as port:
        async with client(port, **own) as alice:
            await say_sound(alice, 7)
            assert await errors_after_sound(alice) == []
            await say_sound(alice, 2.5)
            assert await errors_after_sound(alice) == ["limit_near"]
        async with client(port, **own) as alice:  # another socket of hers
            await say_sound(alice, 3)
            assert await errors_after_sound(alice) == ["limit_near", "rate_limited"]
            [limited] = [said for said in alice.frames if said.get("code") == "rate_limited"]
            assert 0 < limited["retry_after"] <= 24 * 3600
            await say_sound(alice, 3)  # she is told once
            assert await errors_after_sound(alice) == []
            assert await alice.ask("hello") == "You said: hello."
            async with client(port, **with_token(token("bob"))) as bob:
                await say_sound(bob, 1)
                assert await errors_after_sound(bob) == []
            now = time.time
            monkeypatch.setattr("adk_relay.wire.quotas.time.time", lambda: now() + 24 * 3600)
            await say_sound(alice, 1)
            assert await errors_after_sound(alice) == []
        sound = sum(len(each.audio) for each in gemini.connections)
        assert sound < 13 * len(SECOND)  # of more than 17 that were sent


async def errors_after_sound(who: Client) -> list[str]:
    """The errors since `say_sound`. A pong overtakes what waits to be sent; an error does not."""
    frames = await who.until(lambda said: said.get("type") == "pong")
    await who.send(type="?")
    frames += await who.until(lambda said: said.get("code") == "bad_message")
    return [said["code"] for said in frames[:-1] if said.get("type") == "error"]
