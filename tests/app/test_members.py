"""Several people in a conversation: nobody keeps the others from talking with the agent."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from support.chat import Chat, chat
from support.client import client
from support.gemini import GeminiLive, speech
from support.live import answered
from support.script import Script, busy
from support.server import a_relay, serving
from support.tokens import SECRET, token, web, with_token

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]


async def invited(port: int, session_id: str, name: str) -> str:
    """A token of one whom alice has invited."""
    async with web(port, token()) as alice:
        answer = await alice.post(f"/sessions/{session_id}/invite", json={"name": name})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])


@asynccontextmanager
async def in_a_room() -> AsyncIterator[tuple[int, str, Chat]]:
    """A relay, and a conversation of alice's, in which she is."""
    async with (
        serving(a_relay(secret=SECRET)) as port,
        chat(port, **with_token(token())) as alice,
    ):
        await alice.send(type="create_session")
        yield port, (await alice.get("session_created"))["session_id"], alice


async def test_members_take_turns(gemini: GeminiLive) -> None:
    script = Script(gemini)
    async with in_a_room() as (port, session_id, alice):
        bobs = await invited(port, session_id, "Bob")
        async with chat(port, session_id, **with_token(bobs)) as bob:
            names = [f"a{number}" for number in range(17)]
            for name in names:
                await alice.chat(name, id=name)
            for _ in names:
                await alice.get("status")
            await alice.chat("late")
            assert "16" in (await alice.get("error"))["message"]
            # All that alice may let wait, waits. Bob's place is after her next one all the same.
            await bob.chat("b0")
            assert (await bob.get("status"))["ahead"] == 2
            await bob.chat("b1")
            assert (await bob.get("status"))["ahead"] == 4
            script.go_on(*names, "b0", "b1")
            said = [(await bob.get("response_complete"))["full_response"] for _ in range(19)]
            assert [text.partition(":")[0] for text in said[:6]] == ["a0", "a1", "b0", "a2", "b1", "a3"]
            assert [text.partition(":")[0] for text in said[6:]] == names[4:]


async def test_all_connections_of_a_member_count_together(gemini: GeminiLive) -> None:
    script = Script(gemini)
    async with in_a_room() as (port, session_id, alice):
        async with chat(port, session_id, **with_token(token())) as again:
            for number in range(17):
                await alice.chat(f"a{number}")
                await alice.get("status")
            await again.chat("late")
            assert "16" in (await again.get("error"))["message"]
        script.go_on(*(f"a{number}" for number in range(17)))


async def test_an_id_is_of_the_member_who_gave_it(gemini: GeminiLive) -> None:
    """Another's text with the same id is another text: its answer and its ack are its own."""
    script = Script(gemini)
    async with in_a_room() as (port, session_id, alice):
        bobs = await invited(port, session_id, "Bob")
        async with chat(port, session_id, **with_token(bobs)) as bob:
            await alice.chat("same", id="q")
            assert (await alice.get("ack"))["id"] == "q"
            await alice.chat("second", id="w")
            assert (await alice.get("status"))["ahead"] == 1
            for text_id, text in (("q", "same"), ("w", "second")):
                await bob.chat(text, id=text_id)
                assert (await bob.get("status"))["id"] == text_id
            script.go_on("same", "second")
            await alice.until(lambda said: len(alice.of("response_complete")) == 4)
            asked = [(start["connection_id"], start["id"]) for start in alice.of("response_start")]
            mine, his = alice.hello["connection_id"], bob.hello["connection_id"]
            assert asked == [(mine, "q"), (mine, "w"), (his, "q"), (his, "w")]
            # A client that has lost its socket is the same member, and its text is the same.
            async with chat(port, session_id, **with_token(token(name="Alice"))) as again:
                await again.chat("second", id="w")
                assert (await again.get("ack"))["id"] == "w"
            assert [said["id"] for said in alice.of("ack")] == ["q", "w"]
            await bob.until(lambda said: len(bob.of("response_complete")) == 4)
            assert [said["id"] for said in bob.of("ack")] == ["q", "w"]


def via(address: str) -> dict[str, Any]:
    """What a proxy on this machine, which uvicorn trusts, says of its client."""
    return {"additional_headers": {"X-Forwarded-For": address}}


async def fill(port: int, session_id: str, **options: Any) -> int:
    """Sends texts through new sockets until one gets no place; returns how many got one."""
    taken = 0
    async with AsyncExitStack() as stack:
        while True:
            who = await stack.enter_async_context(chat(port, session_id, **options))
            for number in range(17):
                await who.chat(f"{taken} {number}")
                answer = await who.until(lambda said: said["type"] in ("status", "error"))
                if answer[-1]["type"] == "error":
                    if not number:
                        return taken
                    break
                taken += 1


async def test_where_nobody_signs_in_each_connection_is_a_member(gemini: GeminiLive) -> None:
    script = Script(gemini)
    async with serving(a_relay()) as port, chat(port) as alice:
        names = [f"a{number}" for number in range(17)]
        for name in names:
            await alice.chat(name)
        for _ in names:
            await alice.get("status")
        await alice.chat("late")
        assert "16" in (await alice.get("error"))["message"]
        session_id = alice.of("session_created")[0]["session_id"]
        async with chat(port, session_id) as bob:
            await bob.chat("b0")
            assert (await bob.get("status"))["ahead"] == 2
            script.go_on(*names, "b0")
            said = [(await bob.get("response_complete"))["full_response"] for _ in range(18)]
            assert [text.partition(":")[0] for text in said[:4]] == ["a0", "a1", "b0", "a2"]


async def test_one_address_does_not_take_all_places(gemini: GeminiLive) -> None:
    Script(gemini)
    async with serving(a_relay()) as port, chat(port) as alice:
        await alice.chat("a0")
        session_id = (await alice.get("session_created"))["session_id"]
        assert await fill(port, session_id, **via("203.0.113.1")) == 32
        assert await fill(port, session_id, **via("2001:db8::1")) == 16
        async with chat(port, session_id, **via("198.51.100.7")) as other:
            await other.chat("b0")
            await other.get("status")


async def test_steady_noise_does_not_keep_the_floor(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.core.floor._QUIET", 100.0)
    monkeypatch.setattr("adk_relay.core.floor._REFUSE_EVERY", 0.0)
    monkeypatch.setattr("adk_relay.core.floor._SHARE", 2.0)
    noises, all_heard = speech(1000), speech(1000) + speech(2000) + speech(100)
    async with (
        serving(a_relay()) as port,
        client(port, audio=True) as noise,
        client(port, audio=True) as other,
    ):
        await noise.socket.send(noises)
        await answered(noise)
        await other.socket.send(speech(100))
        await answered(other)
        assert busy(other.frames) == 1  # a second is not too long
        await noise.socket.send(noises + noises)
        await answered(noise)
        await other.socket.send(speech(100))
        await answered(other)
        assert busy(other.frames) == 1
        await noise.socket.send(speech(100))
        await answered(noise)
        assert busy(noise.frames) == 1
        connection = await gemini.connection()
        await gemini.wait_for(lambda: len(connection.audio) == len(all_heard))


async def test_who_stops_the_agent_again_and_again_is_refused(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as one, client(port) as other:
        await answered(other)  # the conversation knows of both
        for _ in range(30):
            await one.send(type="interrupt")
        errors = [said for said in await answered(one) if said.get("type") == "error"]
        assert {said["code"] for said in errors} == {"rate_limited"}
        assert errors[-1]["retry_after"] > 0
        await other.send(type="interrupt")
        assert not [said for said in await answered(other) if said.get("type") == "error"]
        assert await one.ask("hello") == "You said: hello."


async def test_who_is_alone_stops_the_agent_as_often_as_it_likes(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alone:
        for _ in range(30):
            await alone.send(type="interrupt")
        assert not [said for said in await answered(alone) if said.get("type") == "error"]


async def test_who_types_again_and_again_is_told_to_nobody(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as one, client(port) as other:
        told: list[bool] = []
        began = time.monotonic()
        for _ in range(60):
            await one.send(type="typing_start")
            await answered(one)
            told += [said["typing"] for said in await answered(other) if said.get("type") == "typing"]
            await one.send(type="typing_stop")
            await answered(one)
            told += [said["typing"] for said in await answered(other) if said.get("type") == "typing"]
        assert 20 <= told.count(True) <= 21 + 2 * (time.monotonic() - began)
        assert told.count(True) < 60
        assert not told[-1]  # at the end, nobody types
