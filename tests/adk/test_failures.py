"""The model fails, in every way it can: the client is told, and each text is said exactly once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from google.adk.agents import LlmAgent
from websockets.exceptions import ConnectionClosed

from support.chat import left, received
from support.client import Client, Json, client, words
from support.gemini import Connection, GeminiLive, Plan, UserTurn
from support.server import a_relay, serving


def user_texts(gemini: GeminiLive) -> list[str]:
    """The user's words in the context of the last connection."""
    return [said for who, said in gemini.connections[-1].context if who == "user"]


def is_status(state: str) -> Callable[[Json], bool]:
    return lambda said: said.get("type") == "status" and said["state"] == state


def is_end(said: Json) -> bool:
    return bool(said.get("turn_complete"))


async def close_code(alice: Client) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await alice.next()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


pytestmark = [pytest.mark.usefixtures("quick_retries"), pytest.mark.voice]
Death = Callable[[Connection], Awaitable[None]]


async def by_1011(connection: Connection) -> None:
    await connection.die(1011, "Internal error encountered.")


async def by_abort(connection: Connection) -> None:
    connection.abort()


async def by_goodbye(connection: Connection) -> None:
    await connection.die(1000, "")


DEATHS: list[Death] = [by_1011, by_abort, by_goodbye]


@pytest.mark.parametrize("death", DEATHS)
async def test_lost_before_anything_is_said(gemini: GeminiLive, death: Death) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await death(connection)
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("hello")
        frames = await alice.until(is_end)
    assert [said["state"] for said in frames if said.get("type") == "status"] == ["reconnecting", "live"]
    assert words(frames) == "You said: hello."
    assert user_texts(gemini) == ["hello"]
    assert gemini.connects == 2


@pytest.mark.parametrize("death", DEATHS)
async def test_lost_in_a_turn(gemini: GeminiLive, death: Death) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("One two", complete=False)
            await death(connection)
        else:
            await connection.say(" three four.")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("count")
        frames = await alice.until(is_end)
    cut = next(n for n, said in enumerate(frames) if said.get("interrupted"))
    assert words(frames[:cut]) == "One two"
    assert words(frames[cut:]) == " three four."
    # The model knows what it had said, once, and is asked to go on.
    second = gemini.connections[1]
    assert [turn["role"] for turn in second.history] == ["user", "model", "user"]
    assert second.history[1]["parts"][0]["text"] == "One two"
    assert "Go on" in second.history[2]["parts"][0]["text"]
    assert user_texts(gemini).count("count") == 1


@pytest.mark.parametrize("death", [by_1011, by_abort])
async def test_lost_at_rest_resumes_by_handle(gemini: GeminiLive, death: Death) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.ask("one")
        await death(gemini.connections[0])
        await alice.until(is_status("live"))
        assert await alice.ask("two") == "You said: two."
    assert gemini.connections[1].handle in gemini.handles
    assert gemini.connections[1].history == []
    assert user_texts(gemini) == ["one", "two"]


async def test_a_normal_close_at_rest_ends_the_run_and_the_next_text_begins_another(
    gemini: GeminiLive,
) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.ask("one")
        await by_goodbye(gemini.connections[0])
        await gemini.wait_for(lambda: not gemini.open_connections)
        assert await alice.ask("two") == "You said: two."
        assert not any(said.get("type") == "status" for said in alice.frames)
    assert user_texts(gemini) == ["one", "two"]


@pytest.mark.parametrize("death", DEATHS)
async def test_lost_in_a_tool_call(gemini: GeminiLive, death: Death) -> None:
    called = 0

    async def weather(city: str) -> dict[str, str]:
        """The weather in a city."""
        nonlocal called
        called += 1
        await death(gemini.connections[0])
        return {"sky": f"clear over {city}"}

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.call_tool("weather", {"city": "Bern"})
        else:
            await connection.say("It is clear.")

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[weather])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        await alice.say("weather?")
        frames = await alice.until(is_end)
    assert words(frames) == "It is clear."
    assert [said["tool_name"] for said in frames if said.get("type") == "tool_complete"] == ["weather"]
    assert called == 1
    assert user_texts(gemini).count("weather?") == 1


async def test_texts_of_the_meantime_are_kept_in_order(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await by_1011(connection)
        else:
            await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    gemini.on_connect = {2: Plan(http_status=503), 3: Plan(http_status=503), 4: Plan(delay=0.2)}.get
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("one")
        await alice.until(is_status("reconnecting"))
        await alice.say("two")
        await alice.say("three")
        await gemini.wait_for(lambda: gemini.connections[-1].texts[-2:] == ["two", "three"])
        await alice.until(lambda said: said.get("data") == " three.")
    assert user_texts(gemini) == ["one", "two", "three"]


async def test_never_more_than_a_handful_of_connects(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    gemini.on_connect = lambda _: Plan(close_after_setup=(1011, "Internal error"))
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("hello")
        frames = await alice.until(lambda said: said.get("type") == "error")
        assert frames[-1]["code"] == "model_unavailable"
        assert await close_code(alice) == (1011, "the agent failed")
    assert gemini.connects == 5
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 5, lines  # four times that it tries again, once that it gives up
    assert all("1011" in line for line in lines)


@pytest.mark.parametrize("code", [1000, 1006, 1008])
async def test_accepted_and_closed_again_and_again(gemini: GeminiLive, code: int) -> None:
    gemini.on_connect = lambda _: Plan(close_after_setup=(code, ""))
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        assert (await close_code(alice))[0] == 1011
    assert gemini.connects == 5


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(http_status=403), "credentials"),
        (Plan(http_status=401), "credentials"),
        (Plan(http_status=404), "does not know the model 'gemini-3.8-live'"),
        (Plan(close_before_setup=(1007, "API key not valid. Please pass a valid API key.")), "credentials"),
        (Plan(close_before_setup=(1007, "Invalid argument secret-project-7")), "refused this conversation"),
        (Plan(close_before_setup=(1008, "models/x is not found")), "does not know the model"),
    ],
)
async def test_a_permanent_failure_is_reported_at_once(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture, plan: Plan, message: str
) -> None:
    caplog.set_level(logging.WARNING)
    gemini.on_connect = lambda _: plan
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("hello")
        (error,) = [said for said in [await alice.next()] if said["type"] == "error"]
        assert error["code"] == "model_refused"
        assert message in error["message"]
        assert "secret" not in error["message"]
        assert gemini.api_key not in error["message"]
        assert await close_code(alice) == (1011, "the agent failed")
    assert gemini.connects == 1
    assert len(caplog.records) == 1, [record.getMessage() for record in caplog.records]


async def test_a_bad_key_is_refused_by_the_service(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "a-bad-key")
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("hello")
        error = await alice.next()
    assert "credentials" in error["message"]
    assert "a-bad-key" not in error["message"]


async def test_going_away_in_mid_answer_passes_unnoticed(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("One", complete=False)
        if connection.number == 1:
            await connection.go_away(50)
        await connection.say(" two.")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        assert await alice.ask("count") == "One two."
        await gemini.connection(1)
        await gemini.wait_for(lambda: gemini.open_connections == 1)
        assert await alice.ask("again") == "One two."
        assert not any(said.get("type") == "status" for said in alice.frames)
    assert gemini.connections[0].closed == 1000
    assert gemini.connections[1].handle in gemini.handles
    assert user_texts(gemini) == ["count", "again"]


async def test_going_away_with_no_time_left_for_the_answer(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say("One", complete=False)
            await connection.go_away(2.1)
            await asyncio.Event().wait()
        await connection.say(" two.")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("count")
        frames = await alice.until(is_end)
    assert words(frames) == "One two."
    assert sum(bool(said.get("interrupted")) for said in frames) == 1


@pytest.mark.parametrize("words_before", ["", "One"])
async def test_a_service_that_goes_away_without_having_answered_is_asked_again(
    gemini: GeminiLive, words_before: str
) -> None:
    """It has said goAway, and says goodbye before its time, in the middle of an answer."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if connection.number == 1:
            await connection.say(words_before, complete=False)
            await connection.go_away(50)
            await connection.die(1000)
        await connection.say(" two.")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("count")
        frames = await alice.until(is_end)
        assert words(frames) == f"{words_before} two."
        assert not [said for said in frames if said.get("type") == "error"]


async def test_the_status_reconnecting_comes_to_an_end(gemini: GeminiLive) -> None:
    """It is given up when nobody is there any more, and one who comes meanwhile has nothing to wait for."""
    async with serving(a_relay()) as port:
        async with client(port) as alice:
            await alice.ask("hello")
            gemini.on_connect = lambda _: Plan(hang="setup")
            await by_abort(gemini.connections[0])
            await alice.until(is_status("reconnecting"))
            await gemini.wait_for(lambda: len(gemini.connections) == 2 and gemini.connections[1].setup)
        await left(port)
        gemini.on_connect = lambda _: None
        async with client(port) as alice:
            assert is_status("reconnecting")(await alice.next())
            await by_abort(gemini.connections[1])
            assert is_status("live")(await alice.next())
            async with client(port) as later:
                await received(later)
                assert [said["type"] for said in later.frames] == ["pong"]
            assert gemini.connects == 2
            assert await alice.ask("again") == "You said: again."


async def test_a_dead_handle_gives_way_to_the_history(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.ask("one")
        gemini.handles.clear()
        await by_1011(gemini.connections[0])
        await alice.until(is_status("live"))
        assert await alice.ask("two") == "You said: two."
    assert gemini.connections[-1].handle is None
    assert user_texts(gemini) == ["one", "two"]


async def test_a_connection_that_takes_no_text_counts_as_lost(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.pulse._STALLED_AFTER", 1.0)
    monkeypatch.setattr("adk_relay.core.inbox._SOUND_MAX_WAIT", 1.0)
    gemini.on_connect = {1: Plan(deaf=True)}.get
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await gemini.connection(0)
        said: Json = {}
        while said.get("type") != "dropped":  # more than fits into the connection
            await alice.socket.send(bytes(1_000_000))
            await alice.send(type="ping")  # the relay has taken it when the pong comes
            said = (await alice.until(lambda said: said["type"] in ("pong", "dropped")))[-1]
        assert said["direction"] == "up"
        await alice.say("hello")
        frames = await alice.until(is_end, timeout=30)
    assert words(frames) == "You said: hello."
    assert user_texts(gemini) == ["hello"]


async def test_it_hangs_in_the_setup(gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adk_relay.adk.connection._CONNECT_TIMEOUT", 0.5)
    gemini.on_connect = {1: Plan(hang="handshake")}.get
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("hello")
        frames = await alice.until(is_end, timeout=20)
    assert words(frames) == "You said: hello."
    assert user_texts(gemini) == ["hello"]


async def test_an_agent_that_raises_is_told_in_one_line(
    gemini: GeminiLive, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    def broken(callback_context: object) -> None:
        raise RuntimeError("secret of the agent")

    agent = LlmAgent(name="tester", model="gemini-3.8-live", before_agent_callback=broken)
    async with serving(a_relay(agent)) as port, client(port) as alice:
        await alice.say("hello")
        error = await alice.next()
        assert error["code"] == "agent_failed"
        assert "secret" not in error["message"]
        assert (await close_code(alice))[0] == 1011
    assert len(caplog.records) == 1, [record.getMessage() for record in caplog.records]


async def test_a_tool_that_raises_does_not_end_the_conversation(gemini: GeminiLive) -> None:
    def broken() -> str:
        """Breaks."""
        raise RuntimeError("secret of the tool")

    async def answer(connection: Connection, turn: UserTurn) -> None:
        result = await connection.call_tool("broken", {})
        await connection.say(str(result["status"]))

    gemini.answer = answer
    agent = LlmAgent(name="tester", model="gemini-3.8-live", tools=[broken])
    async with serving(a_relay(agent)) as port, client(port) as alice:
        assert await alice.ask("break it") == "error"
        complete = next(said for said in alice.frames if said.get("type") == "tool_complete")
        assert "secret" not in str(complete)
        assert gemini.connects == 1


async def test_speech_that_was_lost_is_told(gemini: GeminiLive) -> None:
    from support.gemini import speech

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("ok")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port, audio=True) as alice:
        await gemini.connection(0)
        await alice.socket.send(speech(400))
        await gemini.wait_for(lambda: len(gemini.connections[0].audio) > 0)
        await by_1011(gemini.connections[0])
        frames = await alice.until(lambda said: said.get("type") == "error")
    assert frames[-1]["code"] == "speech_lost"


async def test_a_text_during_an_interrupted_answer_survives_a_loss(gemini: GeminiLive) -> None:
    """The second text is with the model and unanswered when the connection dies."""

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "one":
            await connection.say("la la la", complete=False)
            await asyncio.Event().wait()
        elif connection.number == 1:
            await by_1011(connection)
        await connection.say(f"You said: {turn.text}.")

    gemini.answer = answer
    async with serving(a_relay()) as port, client(port) as alice:
        await alice.say("one")
        await alice.until(lambda said: said.get("data") == " la")
        await alice.say("two")
        frames = await alice.until(is_end)
    # ADK stores the second text before the answer that it interrupted: the model is told which to answer.
    assert "before you answered my last message" in words(frames)
    assert user_texts(gemini)[:2] == ["one", "two"]


async def test_texts_that_no_model_was_given_are_stored(gemini: GeminiLive) -> None:
    gemini.on_connect = lambda _: Plan(http_status=503)
    relay = a_relay()
    async with serving(relay) as port:
        async with client(port) as alice:
            await alice.say("hello")
            await gemini.wait_for(lambda: gemini.connects >= 1)
        gemini.on_connect = lambda _: None
        await gemini.wait_for(lambda: not gemini.open_connections)
        async with client(port) as alice:
            assert await alice.ask("again") == "You said: again."
    assert user_texts(gemini) == ["hello", "again"]


async def test_many_renewals_do_not_use_up_the_tries(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adk_relay.adk.runs._TRY_FOR", 0.5)

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"You said: {turn.text}.", delay=0.1)
        if connection.number == 1:
            await connection.go_away(50)

    gemini.answer = answer
    gemini.on_connect = {2: Plan(http_status=503), 3: Plan(http_status=503)}.get
    async with serving(a_relay()) as port, client(port) as alice:
        for _ in range(3):
            await alice.ask("hello")
    assert gemini.connects == 4
