"""A host's own function is asked about what users write, say and show."""

from __future__ import annotations

import asyncio
import base64
import threading
import time

import pytest
from websockets.asyncio.client import connect

from adk_relay.core.moderation import InputRefusedError, OnInput, UserInput
from support.chat import chat, created, end, http, turn
from support.client import Client, client, words
from support.gemini import Connection, GeminiLive, UserTurn, silence, speech
from support.live import PNG
from support.server import a_relay, serving

pytestmark = pytest.mark.bus

WORDS = "We do not talk about that here."


class Host:
    """A host's function: it refuses what has "bad" in it, and changes "old" to "new"."""

    def __init__(self) -> None:
        self.asked: list[UserInput] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()

    async def __call__(self, user_input: UserInput) -> str | None:
        self.asked.append(user_input)
        if "slow" in user_input.text:
            await self.may_go_on.wait()
        if "bad" in user_input.text or user_input.kind == "picture":
            raise InputRefusedError(WORDS)
        if "broken" in user_input.text:
            raise ValueError("secret")
        return user_input.text.replace("old", "new") if "old" in user_input.text else None


def blocking(user_input: UserInput) -> str | None:
    """It is not async, and slow: it must not hold the event loop."""
    assert threading.current_thread() is not threading.main_thread()
    time.sleep(0.2)
    if "bad" in user_input.text:
        raise InputRefusedError(WORDS)
    return user_input.text.replace("old", "new") if "old" in user_input.text else None


@pytest.mark.parametrize("is_async", [True, False])
async def test_texts_pass_are_changed_or_refused(is_async: bool, gemini: GeminiLive) -> None:
    on_input: OnInput = Host() if is_async else blocking
    async with serving(a_relay(on_input=on_input)) as port, client(port) as alice:
        assert await alice.ask("hello") == "You said: hello."
        assert await alice.ask("the old one") == "You said: the new one."
        await alice.send(mime_type="text/plain", data="a bad one", id="q")
        refusal = (await alice.until(lambda said: said.get("type") == "error"))[-1]
        assert refusal == {"type": "error", "code": "refused", "message": WORDS, "id": "q"}
        assert await alice.ask("still here") == "You said: still here."
        assert gemini.connections[0].texts == ["hello", "the new one", "still here"]


async def test_requests_are_refused_in_each_dialect(gemini: GeminiLive) -> None:
    host = Host()
    async with serving(a_relay(on_input=host)) as port, http(port) as web, chat(port) as asker:
        session_id = await created(port)
        await asker.join(session_id)
        await asker.chat("bad")
        assert (await asker.get("error"))["message"] == WORDS
        assert await asker.ask("old") == "You said: new."
        body = {"session_id": session_id, "message": "bad"}
        answer = await web.post("/api/v1/chat", json=body)
        assert (answer.status_code, answer.json()) == (403, {"detail": WORDS})
        async with connect(f"ws://127.0.0.1:{port}/api/v1/chat/stream", proxy=None) as socket:
            who = Client(socket, {})
            await who.send(**body)
            frames, code = await end(who)
            assert [said["message"] for said in frames] == [WORDS]
            assert code == 4403
        assert (await turn(port, session_id, "hello"))["content"] == "You said: hello."
        assert {(each.user_id, each.session_id) for each in host.asked} == {("guest", session_id)}


async def test_a_picture_is_refused(gemini: GeminiLive) -> None:
    host = Host()
    async with serving(a_relay(on_input=host)) as port, client(port) as alice:
        await alice.send(mime_type="image/png", data=base64.b64encode(PNG).decode())
        assert (await alice.until(lambda said: said.get("type") == "error"))[-1]["message"] == WORDS
        assert await alice.ask("hello") == "You said: hello."
        assert [(each.kind, each.picture, each.mime_type) for each in host.asked[:1]] == [
            ("picture", PNG, "image/png")
        ]


async def test_an_utterance_that_is_refused_gets_no_answer(gemini: GeminiLive) -> None:
    host = Host()
    answered = asyncio.Event()

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.heard("something bad")
        await connection.say("Well, ", complete=False)
        await answered.wait()

    gemini.answer = answer
    async with serving(a_relay(on_input=host)) as port, client(port, audio=True) as alice:
        await alice.socket.send(speech(400) + silence(1000))
        frames = await alice.until(lambda said: said.get("type") == "error")
        assert frames[-1]["code"] == "refused"
        assert frames[-1]["message"] == WORDS
        assert [said for said in frames if said.get("interrupted")]
        assert [(each.kind, each.text) for each in host.asked] == [("transcript", "something bad")]
        answered.set()


async def test_a_slow_function_delays_its_conversation_only(gemini: GeminiLive) -> None:
    host = Host()
    host.may_go_on.clear()
    async with (
        serving(a_relay(on_input=host)) as port,
        client(port, "alice") as alice,
        client(port, "bob") as bob,
    ):
        await alice.say("slow")
        await alice.say("after it")
        async with asyncio.timeout(60):
            while not host.asked:
                await asyncio.sleep(0.01)
        assert await bob.ask("hello") == "You said: hello."
        assert [each.text for each in host.asked] == ["slow", "hello"]
        host.may_go_on.set()
        await alice.until(lambda said: "after it" in words(alice.frames))
        assert [each.text for each in host.asked] == ["slow", "hello", "after it"]


async def test_what_waits_for_it_is_bounded(gemini: GeminiLive) -> None:
    host = Host()
    host.may_go_on.clear()
    async with serving(a_relay(on_input=host)) as port, client(port) as alice:
        for number in range(17):
            await alice.send(mime_type="text/plain", data="slow", id=str(number))
        error = (await alice.until(lambda said: said.get("type") == "error"))[-1]
        assert (error["code"], error["id"]) == ("busy", "16")


async def test_a_function_that_fails_lets_nothing_through(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(a_relay(on_input=Host())) as port, client(port) as alice:
        await alice.say("broken")
        error = (await alice.until(lambda said: said.get("type") == "error"))[-1]
        assert error["code"] == "refused"
        assert "secret" not in error["message"]
        assert "on_input failed: ValueError: secret" in caplog.text
        assert await alice.ask("hello") == "You said: hello."
        assert gemini.connections[0].texts == ["hello"]


@pytest.mark.alone  # of several, another one goes on with the conversation
async def test_a_server_that_drains_waits_for_it(gemini: GeminiLive) -> None:
    """A text that it is asked about still gets its answer."""
    host = Host()
    host.may_go_on.clear()
    relay = a_relay(on_input=host, drain=60)
    async with serving(relay) as port, client(port) as alice:
        await alice.say("slow")
        async with asyncio.timeout(60):
            while not host.asked:
                await asyncio.sleep(0.01)
        draining = asyncio.create_task(relay.drain())
        await alice.until(lambda said: said.get("type") == "going_away")
        await asyncio.sleep(0.2)  # it looks every 50 ms whether it may end
        host.may_go_on.set()
        assert words(await alice.turn()) == "You said: slow."
        _, code = await end(alice)
        assert code == 1012
        await draining
