"""The stand-in for the Gemini Live service, met by unmodified google-genai through unmodified ADK.

What these tests pin is also what ADK does: where an assertion here looks odd, ADK is odd.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from google.adk.agents import LlmAgent
from google.adk.agents.live_request_queue import LiveRequestQueue
from google.adk.agents.run_config import RunConfig
from google.adk.events import Event
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import Client, types
from google.genai.errors import APIError
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.gemini import (
    HALF_CASCADE_2,
    NATIVE_AUDIO_2,
    Connection,
    GeminiLive,
    Plan,
    UserTurn,
    silence,
    speech,
    tone,
)

# ADK's own use of google-genai: texts to 2.x models, and the name of the Vertex switch.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `session.send` method is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:GOOGLE_GENAI_USE_VERTEXAI is deprecated:DeprecationWarning"),
]

GEMINI_3 = "gemini-3.8-live"
both_generations = pytest.mark.parametrize("model", [GEMINI_3, NATIVE_AUDIO_2])


def get_weather(city: str) -> dict[str, str]:
    """The weather in a city."""
    return {"weather": f"sunny in {city}"}


class Run:
    """One run of ADK: its events, and its end."""

    def __init__(self, runner: Runner, config: RunConfig) -> None:
        self.queue = LiveRequestQueue()
        self.events: list[Event] = []
        self._change = asyncio.Event()
        self._generator = runner.run_live(
            user_id="user", session_id="session", live_request_queue=self.queue, run_config=config
        )
        self.task = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        try:
            async with contextlib.aclosing(self._generator) as events:
                async for event in events:
                    self.events.append(event)
                    self._change.set()
        finally:
            self._change.set()

    async def wait_for(self, predicate: Callable[[Event], Any], count: int = 1) -> Event:
        """The `count`-th event of this kind."""
        async with asyncio.timeout(5):
            while len(found := [event for event in self.events if predicate(event)]) < count:
                assert not self.task.done(), f"ended with {len(found)} of {count}: {self.task}"
                self._change.clear()
                await self._change.wait()
        return found[count - 1]

    async def turn_complete(self, count: int = 1) -> Event:
        return await self.wait_for(lambda event: event.turn_complete, count)

    def text(self, text: str) -> None:
        self.queue.send_content(types.Content(role="user", parts=[types.Part(text=text)]))

    def sound(self, pcm: bytes) -> None:
        for start in range(0, len(pcm), 1280):
            data = pcm[start : start + 1280]
            self.queue.send_realtime(types.Blob(data=data, mime_type="audio/pcm;rate=16000"))

    def said(self) -> str:
        """The partial transcriptions, put together."""
        pieces = [e.output_transcription for e in self.events if e.output_transcription]
        return "".join(piece.text or "" for piece in pieces if not piece.finished)

    def heard(self) -> list[str | None]:
        pieces = [e.input_transcription for e in self.events if e.input_transcription]
        return [piece.text for piece in pieces if piece.finished]

    def played(self) -> bytes:
        parts = [part for e in self.events if e.content for part in e.content.parts or []]
        return b"".join(part.inline_data.data or b"" for part in parts if part.inline_data)

    async def end(self) -> None:
        """Close the queue, then see the run to its end; one whose sending task failed has none."""
        self.queue.close()
        await asyncio.wait([self.task], timeout=2)
        self.task.cancel()
        with contextlib.suppress(APIError, ConnectionClosed, InvalidStatus, asyncio.CancelledError):
            await self.task


class Adk:
    """A runner whose session lasts over several runs."""

    def __init__(self, model: str, tools: list[Any] | None = None) -> None:
        tools = tools or [get_weather]
        agent = LlmAgent(name="agent", model=model, instruction="Be kind.", tools=tools)
        self.sessions = InMemorySessionService()
        self.runner = Runner(app_name="test", agent=agent, session_service=self.sessions)
        self.config: dict[str, Any] = {
            "response_modalities": ["AUDIO"],
            "input_audio_transcription": types.AudioTranscriptionConfig(),
            "output_audio_transcription": types.AudioTranscriptionConfig(),
        }

    @contextlib.asynccontextmanager
    async def run(self, **config: Any) -> AsyncIterator[Run]:
        session: Any = {"app_name": "test", "user_id": "user", "session_id": "session"}
        if await self.sessions.get_session(**session) is None:
            await self.sessions.create_session(**session)
        run = Run(self.runner, RunConfig(**(self.config | config)))
        try:
            yield run
        finally:
            await run.end()


@pytest.fixture
async def gemini(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GeminiLive]:
    for name in ("GEMINI_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"):
        monkeypatch.delenv(name, raising=False)
    async with GeminiLive() as gemini:
        for name, value in gemini.env.items():
            monkeypatch.setenv(name, value)
        before = asyncio.all_tasks()
        yield gemini
        await gemini.wait_for(lambda: gemini.open_connections == 0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert {task for task in left if not task.done()} == set()


@both_generations
async def test_text_turn(gemini: GeminiLive, model: str) -> None:
    async with Adk(model).run() as run:
        run.text("hello")
        await run.turn_complete()
    (connection,) = gemini.connections
    assert connection.setup["model"] == f"models/{model}"
    assert connection.setup["generationConfig"]["responseModalities"] == ["AUDIO"]
    assert connection.texts == ["hello"]
    assert connection.context == [("user", "hello"), ("model", "You said: hello.")]
    assert run.said() == connection.said == "You said: hello."
    assert run.played() == connection.sound == b"".join(tone(n) for n in range(6))
    assert connection.closed == 1000
    assert gemini.violations == []


@both_generations
async def test_voice_turn(gemini: GeminiLive, model: str) -> None:
    sound = speech(400) + silence(400)
    async with Adk(model).run() as run:
        run.sound(sound)
        await run.turn_complete()
    (connection,) = gemini.connections
    assert connection.audio == sound
    assert connection.rates == {16_000}
    assert run.heard() == ["Hello there."]
    assert run.said() == "I heard you."
    assert connection.context == [("user", "Hello there."), ("model", "I heard you.")]
    assert gemini.violations == []


async def test_muting_ends_the_turn(gemini: GeminiLive) -> None:
    async with Adk(GEMINI_3).run() as run:
        run.sound(speech(200))
        run.queue.send_audio_stream_end()
        await run.turn_complete()
    assert gemini.connections[0].audio_stream_ends == 1
    assert gemini.violations == []


async def test_a_picture(gemini: GeminiLive) -> None:
    async with Adk(GEMINI_3).run() as run:
        run.queue.send_realtime(types.Blob(data=b"\xff\xd8\xff", mime_type="image/jpeg"))
        connection = await gemini.connection()
        await gemini.wait_for(lambda: connection.images == [b"\xff\xd8\xff"])
    assert gemini.violations == []


@pytest.mark.parametrize("barge_in", ["text", "speech"])
async def test_the_user_interrupts(gemini: GeminiLive, barge_in: str) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "tell me a story":
            await connection.say("Once upon a time", complete=False)
            await asyncio.Event().wait()
        await connection.say("All right.")

    gemini.answer = answer
    async with Adk(GEMINI_3).run() as run:
        run.text("tell me a story")
        await run.wait_for(lambda event: event.content, 8)
        if barge_in == "text":
            run.text("stop")
        else:
            run.sound(speech(200) + silence(400))
        await run.turn_complete(2)
    marks = [
        "interrupted" if event.interrupted else "complete"
        for event in run.events
        if event.interrupted or event.turn_complete
    ]
    assert marks == ["interrupted", "complete", "complete"]
    assert run.said() == "Once upon a timeAll right."
    assert gemini.violations == []


@both_generations
async def test_tool_call(gemini: GeminiLive, model: str) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        weather = await connection.call_tool("get_weather", {"city": "Rome"}, id="my-call")
        await connection.say(f"It is {weather['weather']}.")

    gemini.answer = answer
    async with Adk(model).run() as run:
        run.text("how is the weather")
        await run.wait_for(lambda event: event.get_function_responses())
        await run.turn_complete(1 if model == GEMINI_3 else 2)
    kinds = [
        "call" if event.get_function_calls() else "answer" if event.get_function_responses() else ""
        for event in run.events
        if event.get_function_calls() or event.get_function_responses() or event.turn_complete
    ]
    # On 2.x the turn is completed before the tool answers, but ADK tells it after the answer.
    assert kinds == ["call", "answer", ""] + ([] if model == GEMINI_3 else [""])
    (connection,) = gemini.connections
    (response,) = connection.tool_responses
    assert (response["id"], response["name"]) == ("my-call", "get_weather")
    assert run.said() == "It is sunny in Rome."
    assert gemini.violations == []


async def test_adk_reads_nothing_while_a_tool_runs(gemini: GeminiLive) -> None:
    released = asyncio.Event()

    async def wait() -> dict[str, str]:
        """Waits."""
        await released.wait()
        return {"status": "done"}

    async def answer(connection: Connection, turn: UserTurn) -> None:
        if turn.text == "wait":
            await connection.call_tool("wait", {})
        await connection.say(f"After {turn.text}.")

    gemini.answer = answer
    async with Adk(GEMINI_3, tools=[wait]).run() as run:
        run.text("wait")
        await run.wait_for(lambda event: event.get_function_calls())
        run.text("stop")
        (connection,) = gemini.connections
        await gemini.wait_for(lambda: connection.said == "After stop." and not connection.turn_open)
        assert len(run.events) == 1
        released.set()
        await run.turn_complete(2)
    assert connection.tool_responses == []  # the call was canceled, and the late answer ignored
    assert gemini.violations == []


@both_generations
async def test_the_next_run_replays_the_history(gemini: GeminiLive, model: str) -> None:
    adk = Adk(model)
    for number, text in enumerate(["one", "two"]):
        async with adk.run() as run:
            await gemini.connection(number)
            run.text(text)
            await run.turn_complete()
    first, second = gemini.connections
    assert first.history == []
    assert [turn["role"] for turn in second.history] == ["user", "model"]
    assert second.texts == ["two"]
    assert second.handle is None and not second.triggered
    assert second.context == [*first.context, ("user", "two"), ("model", "You said: two.")]
    assert gemini.violations == []


@both_generations
async def test_a_history_that_ends_with_the_user_is_answered(gemini: GeminiLive, model: str) -> None:
    async def die(connection: Connection, turn: UserTurn) -> None:
        await connection.die(1011, "Internal error encountered.")

    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"So, {turn.text}?")

    adk = Adk(model)
    gemini.answer = die
    async with adk.run() as run:
        run.text("well")
        with pytest.raises(APIError):
            await run.task
    gemini.answer = answer
    async with adk.run() as run:
        await run.turn_complete()
    second = gemini.connections[1]
    assert second.texts == []
    assert second.triggered is (model == GEMINI_3)
    assert second.context == [("user", "well"), ("model", "So, well?")]
    assert gemini.violations == []


async def test_a_handle_resumes_the_session(gemini: GeminiLive) -> None:
    adk = Adk(GEMINI_3)
    asking = types.SessionResumptionConfig()
    async with adk.run(session_resumption=asking) as run:
        run.text("one")
        event = await run.wait_for(
            lambda e: e.live_session_resumption_update and e.live_session_resumption_update.resumable
        )
    update = event.live_session_resumption_update
    assert update is not None and update.new_handle in gemini.handles
    asking = types.SessionResumptionConfig(handle=update.new_handle)
    async with adk.run(session_resumption=asking) as run:
        run.text("two")
        await run.turn_complete()
    first, second = gemini.connections
    assert second.handle == update.new_handle
    assert second.history == []
    assert second.context == [*first.context, ("user", "two"), ("model", "You said: two.")]
    assert gemini.violations == []


async def test_adk_resumes_by_itself_after_a_loss_at_rest(gemini: GeminiLive) -> None:
    async with Adk(GEMINI_3).run(session_resumption=types.SessionResumptionConfig()) as run:
        run.text("one")
        await run.wait_for(lambda event: event.live_session_resumption_update, 2)
        gemini.connections[0].abort()
        second = await gemini.connection(1)
        run.text("two")
        await run.turn_complete(2)
    assert second.handle is not None
    assert [words for role, words in second.context if role == "user"] == ["one", "two"]
    assert gemini.violations == []


async def test_a_dead_handle_is_refused(gemini: GeminiLive) -> None:
    asking = types.SessionResumptionConfig(handle="of-yesterday")
    async with Adk(GEMINI_3).run(session_resumption=asking) as run:
        with pytest.raises(APIError, match="session not found"):
            await run.task
    assert gemini.connections[0].closed == 1008


async def test_go_away_makes_adk_reconnect(gemini: GeminiLive) -> None:
    async with Adk(GEMINI_3).run(session_resumption=types.SessionResumptionConfig()) as run:
        run.text("one")
        await run.wait_for(lambda event: event.live_session_resumption_update, 2)
        await gemini.connections[0].go_away(50)
        second = await gemini.connection(1)
        run.text("two")
        await run.turn_complete(2)
    assert gemini.connections[0].closed == 1000
    assert second.handle in gemini.handles
    assert [words for role, words in second.context if role == "user"] == ["one", "two"]
    assert gemini.violations == []


@pytest.mark.parametrize(("code", "seen"), [(1011, 1011), (1008, 1008), (1006, 1006)])
async def test_death_in_mid_answer(gemini: GeminiLive, code: int, seen: int) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say("I was about to", complete=False)
        await connection.die(code, "Internal error encountered.")

    gemini.answer = answer
    async with Adk(GEMINI_3).run() as run:
        run.text("hello")
        with pytest.raises(APIError) as caught:
            await run.task
    assert caught.value.code == seen
    assert gemini.connections[0].closed == seen
    assert gemini.violations == []


async def test_an_end_with_1000_is_no_error(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.die(1000)

    gemini.answer = answer
    async with Adk(GEMINI_3).run() as run:
        run.text("bye")
        await run.task


async def test_a_bad_key(gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "a-bad-key")
    async with Adk(GEMINI_3).run() as run:
        with pytest.raises(InvalidStatus) as caught:
            await run.task
    assert caught.value.response.status_code == 403
    assert (gemini.connects, gemini.connections) == (1, [])


async def test_an_unknown_model(gemini: GeminiLive) -> None:
    async with Adk("gemini-9.9-live").run() as run:
        with pytest.raises(APIError, match="is not found") as caught:
            await run.task
    assert caught.value.code == 1008


async def test_text_from_a_native_audio_model(gemini: GeminiLive) -> None:
    async with Adk(NATIVE_AUDIO_2).run(response_modalities=["TEXT"]) as run:
        with pytest.raises(APIError) as caught:
            await run.task
    assert caught.value.code == 1007


async def test_text_from_a_half_cascade_model(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.send_text_parts("Two ", "parts.")
        await connection.usage()
        await connection.turn_complete()

    gemini.answer = answer
    async with Adk(HALF_CASCADE_2).run(response_modalities=["TEXT"]) as run:
        run.text("hello")
        await run.turn_complete()
    contents = [event.content for event in run.events if event.content]
    texts = [[part.text for part in content.parts or []] for content in contents]
    assert texts == [["Two ", "parts."], ["Two parts."]]  # partial, then whole
    assert [e for e in run.events if e.usage_metadata]


async def test_vertex(gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    async with Adk(GEMINI_3).run(session_resumption=types.SessionResumptionConfig()) as run:
        run.text("hello")
        await run.turn_complete()
    (connection,) = gemini.connections
    assert connection.vertex
    assert connection.setup["model"] == f"publishers/google/models/{GEMINI_3}"
    assert connection.texts == ["hello"]
    assert gemini.violations == []


async def test_planned_failures(gemini: GeminiLive) -> None:
    plans = {
        1: Plan(http_status=503),
        2: Plan(close_before_setup=(1011, "busy")),
        3: Plan(close_after_setup=(1011, "busy")),
        4: Plan(close_before_setup=(1006, "")),
    }
    gemini.on_connect = plans.get
    adk = Adk(GEMINI_3)
    for expected in [InvalidStatus, APIError, APIError, APIError]:
        async with adk.run() as run:
            with pytest.raises(expected):
                await run.task
    async with adk.run() as run:
        run.text("at last")
        await run.turn_complete()
    assert gemini.connects == 5
    assert [connection.closed for connection in gemini.connections] == [1011, 1011, 1006, 1000]


@pytest.mark.parametrize("hang", ["handshake", "setup"])
async def test_a_service_that_hangs(gemini: GeminiLive, hang: Any) -> None:
    gemini.on_connect = {1: Plan(hang=hang)}.get
    async with Adk(GEMINI_3).run() as run:
        await gemini.wait_for(lambda: gemini.open_connections == 1)
        assert not run.task.done()
        run.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run.task


async def test_a_deaf_service_blocks_its_client(gemini: GeminiLive) -> None:
    gemini.on_connect = {1: Plan(deaf=True)}.get
    second = types.Blob(data=speech(1000), mime_type="audio/pcm;rate=16000")
    async with Client().aio.live.connect(model=GEMINI_3) as session:
        connection = await gemini.connection()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await session.send_realtime_input(audio=second)
        assert connection.open and connection.audio == b""
        connection.abort()


async def test_violations_are_kept(gemini: GeminiLive) -> None:
    bad = [
        {"audio": types.Blob(data=b"odd", mime_type="audio/pcm;rate=16000")},
        {"audio": types.Blob(data=b"even", mime_type="audio/wav")},
        {"media": types.Blob(data=b"even", mime_type="audio/pcm;rate=16000")},
    ]
    for number, keywords in enumerate(bad, 1):
        async with Client().aio.live.connect(model=GEMINI_3) as session:
            await session.send_realtime_input(**keywords)  # type: ignore[arg-type]
            with pytest.raises(APIError):
                await anext(session.receive())
        await gemini.wait_for(lambda: gemini.connections[-1].closed == 1007)
        assert len(gemini.violations) == number
    async with Client().aio.live.connect(model=GEMINI_3) as session:
        answer = types.FunctionResponse(id="nobody-asked", name="f", response={})
        await session.send_tool_response(function_responses=answer)
        with pytest.raises(APIError):
            await anext(session.receive())
    assert "nobody-asked" in gemini.violations[-1]


async def test_a_script_that_fails_fails_the_test(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        raise KeyError("script")

    gemini.answer = answer
    async with Adk(GEMINI_3).run() as run:
        run.text("hello")
        with pytest.raises(APIError):
            await run.task
    assert gemini.violations == ["the answer failed: KeyError('script')"]
