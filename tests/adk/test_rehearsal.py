"""The rehearsal model through ADK's real `run_live`, and how the default agent is chosen."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from google.adk.agents import LiveRequestQueue, LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.events import Event
from google.adk.models import BaseLlm, Gemini
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types

from adk_relay.adk.credentials import missing_credentials
from adk_relay.adk.models import model_from_env
from adk_relay.adk.rehearsal import Rehearsal
from agent.agent import get_current_time, tools_for

PROJECT = Path(__file__).parent.parent.parent


@dataclass
class Talk:
    """A conversation with the rehearsal model, and all the events that came of it."""

    queue: LiveRequestQueue
    task: asyncio.Task[None]
    events: list[Event] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def say(self, text: str) -> None:
        self.queue.send_content(types.Content(role="user", parts=[types.Part(text=text)]))

    def speak(self, pcm: bytes, rate: int = 16_000) -> None:
        """Sends sound in frames of 40 ms, all at once: the model counts time by samples."""
        size = 2 * rate * 40 // 1000
        for start in range(0, len(pcm), size):
            blob = types.Blob(data=pcm[start : start + size], mime_type=f"audio/pcm;rate={rate}")
            self.queue.send_realtime(blob)

    async def until(self, done: Callable[[Event], Any]) -> list[Event]:
        """Takes the events away up to the first that is `done`."""
        async with asyncio.timeout(10):
            while True:
                for i, event in enumerate(self.events):
                    if done(event):
                        got, self.events[: i + 1] = self.events[: i + 1], []
                        return got
                self.news.clear()
                await self.news.wait()

    async def turn(self) -> list[Event]:
        return await self.until(lambda event: event.turn_complete)


@asynccontextmanager
async def talking(history: list[tuple[str, str]] | None = None, **fields: Any) -> AsyncIterator[Talk]:
    """A run of the default tools on the rehearsal model; ended, and seen to its end, on the way out."""
    options: dict[str, Any] = {"words_per_second": 500, "pace": 100} | fields
    agent = LlmAgent(name="tester", model=Rehearsal(**options), tools=[get_current_time])
    sessions = InMemorySessionService()
    session = await sessions.create_session(app_name="test", user_id="alice")
    for author, text in history or []:
        content = types.Content(role="user" if author == "user" else "model", parts=[types.Part(text=text)])
        await sessions.append_event(session, Event(author=author, content=content))
    runner = Runner(app_name="test", agent=agent, session_service=sessions)
    queue = LiveRequestQueue()

    async def listen() -> None:
        run = runner.run_live(
            user_id="alice",
            session_id=session.id,
            live_request_queue=queue,
            run_config=RunConfig(response_modalities=[types.Modality.AUDIO]),
        )
        async with aclosing(run) as events:
            async for event in events:
                talk.events.append(event)
                talk.news.set()

    talk = Talk(queue, asyncio.create_task(listen()))
    try:
        yield talk
    finally:
        queue.close()
        async with asyncio.timeout(2):
            await asyncio.gather(talk.task, return_exceptions=True)
    if not talk.task.cancelled():
        talk.task.result()


def spoken(events: list[Event]) -> str:
    """The words of an answer, from their pieces; the whole that ends them must be the same."""
    said = [event.output_transcription for event in events if event.output_transcription]
    pieces = "".join(one.text or "" for one in said if not one.finished)
    assert [one.text for one in said if one.finished] == ([pieces] if pieces else [])
    return pieces


def sound(events: list[Event]) -> bytes:
    blobs = [p.inline_data for e in events if e.content for p in e.content.parts or () if p.inline_data]
    assert all(blob.mime_type == "audio/pcm;rate=24000" for blob in blobs)
    return b"".join(blob.data or b"" for blob in blobs)


def heard(events: list[Event]) -> list[str | None]:
    return [event.input_transcription.text for event in events if event.input_transcription]


def speech(seconds: float, rate: int = 16_000, level: int = 6000) -> bytes:
    """A voice of 200 Hz that says four syllables a second, each a little softer than the last."""

    def sample(i: int) -> int:
        t = i / rate
        fade = 1 - 0.5 * t / seconds
        return int(level * fade * (0.3 + 0.7 * abs(math.sin(math.pi * 4 * t))) * math.sin(math.tau * 200 * t))

    return array("h", map(sample, range(int(seconds * rate)))).tobytes()


def silence(seconds: float, rate: int = 16_000) -> bytes:
    return bytes(2 * int(seconds * rate))


def envelope(pcm: bytes, rate: int) -> list[float]:
    """The mean level of each 20 ms."""
    samples, size = array("h", pcm), rate // 50
    return [sum(map(abs, samples[at : at + size])) / size for at in range(0, len(samples) - size + 1, size)]


def likeness(one: list[float], other: list[float]) -> float:
    """The correlation of two envelopes, the best within 300 ms of shift."""

    def correlation(a: list[float], b: list[float]) -> float:
        n = min(len(a), len(b))
        a, b = a[:n], b[:n]
        mean_a, mean_b = sum(a) / n, sum(b) / n
        above = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
        return above / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))

    return max(correlation(one, other[shift:]) for shift in range(16))


# ---- text ------------------------------------------------------------------------------------


async def test_a_text_is_told_back_in_words_and_sound() -> None:
    async with talking() as talk:
        talk.say("hello there, äöü 🙂")
        events = await talk.turn()
        assert spoken(events) == ("This is a rehearsal: no model is connected. You said: hello there, äöü 🙂")
        assert sum(1 for event in events if event.output_transcription and event.partial) == 14
        assert max(envelope(sound(events), 24_000)) > 100, "a loudspeaker has something to play"
        talk.say("and again")
        assert spoken(await talk.turn()).endswith("You said: and again")


async def test_words_come_at_a_human_pace() -> None:
    async with talking(words_per_second=20, pace=1) as talk:
        loop = asyncio.get_running_loop()
        talk.say("one two")
        await talk.until(lambda event: event.output_transcription)
        began = loop.time()
        events = await talk.turn()
        # Twelve words of 50 ms; the turn ends when the last has been heard.
        assert 0.5 < loop.time() - began < 2
        assert len(sound(events)) // 2 == 11 * 1200


@pytest.mark.parametrize(
    ("question", "zone"),
    [
        ("What time is it in Tokyo?", "Asia/Tokyo"),
        ("what's the time in new york right now?", "America/New_York"),
        ("Tell me what time is it in Europe/Berlin", "Europe/Berlin"),
        ("what time is it", "UTC"),
    ],
)
async def test_the_time_goes_through_the_real_tool(question: str, zone: str) -> None:
    async with talking() as talk:
        talk.say(question)
        events = await talk.turn()
        calls = [call for event in events for call in event.get_function_calls()]
        answers = [answer for event in events for answer in event.get_function_responses()]
        assert [call.args for call in calls] == [{"timezone": zone}]
        assert calls[0].id and calls[0].id == answers[0].id
        assert answers[0].response and answers[0].response["timezone"] == zone
        time = answers[0].response["local_time"][11:16]
        weekday = answers[0].response["weekday"]
        assert spoken(events).endswith(f"The tool says: it is {time} on {weekday} in {zone}.")


async def test_an_unknown_zone_is_explained() -> None:
    async with talking() as talk:
        talk.say("What time is it in Atlantis?")
        said = spoken(await talk.turn())
        assert "no time zone 'Atlantis'" in said and "Europe/Berlin" in said


async def test_a_picture_is_mentioned_with_the_next_answer() -> None:
    async with talking() as talk:
        for size in (10_000, 34_000):
            talk.queue.send_realtime(types.Blob(data=bytes(size), mime_type="image/jpeg"))
        talk.say("look")
        assert spoken(await talk.turn()).endswith("You said: look I got a picture of 34 KB.")
        talk.say("and now")
        assert "picture" not in spoken(await talk.turn())


# ---- voice -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 48_000])
async def test_speech_is_played_back(rate: int) -> None:
    async with talking() as talk:
        said = speech(1.5, rate)
        talk.speak(silence(0.5, rate) + said + silence(0.7, rate), rate)
        events = await talk.turn()
        assert heard(events) == ["(1.5 seconds of speech)"]
        assert spoken(events) == "You said this, for 1.5 seconds:"
        echo = sound(events)
        assert len(echo) / 2 / 24_000 == pytest.approx(1.5 + 2 * 0.2, abs=0.1)
        assert likeness(envelope(said, rate), envelope(echo, 24_000)) > 0.95


async def test_a_muted_microphone_ends_the_utterance() -> None:
    async with talking() as talk:
        talk.speak(speech(0.6))
        talk.queue.send_audio_stream_end()
        assert heard(await talk.turn()) == ["(0.6 seconds of speech)"]


async def test_the_last_half_minute_of_a_long_utterance_is_kept() -> None:
    async with talking(pace=1000) as talk:
        second = speech(1)
        for _ in range(32):
            talk.speak(second)
        talk.queue.send_audio_stream_end()
        assert len(sound(await talk.turn())) == 2 * 24_000 * 30


async def test_clicks_are_no_speech() -> None:
    async with talking() as talk:
        for _ in range(10):
            talk.speak(speech(0.1) + silence(0.3))
        talk.queue.send_audio_stream_end()
        talk.say("hello")
        events = await talk.turn()
        assert heard(events) == []
        assert spoken(events).endswith("You said: hello")


async def test_sound_is_sent_a_little_ahead_of_being_heard() -> None:
    async with talking(pace=1) as talk:
        loop = asyncio.get_running_loop()
        talk.speak(speech(0.6) + silence(0.7))
        await talk.until(lambda event: sound([event]))
        began = loop.time()
        sent = 0.04
        while sent < 0.75:
            sent += len(sound(await talk.until(lambda event: sound([event])))) / 2 / 24_000
            assert sent < loop.time() - began + 0.04 + 0.2 + 0.05


# ---- interruptions ---------------------------------------------------------------------------


async def test_speaking_interrupts_and_is_then_answered() -> None:
    async with talking(words_per_second=3, pace=1) as talk:
        talk.say("tell me a long story")
        first = await talk.until(lambda event: event.output_transcription)
        talk.speak(speech(0.5))
        cut = await talk.turn()
        assert [bool(event.interrupted) for event in cut[-2:]] == [True, False]
        assert "story" not in spoken(first + cut)
        talk.queue.send_audio_stream_end()
        assert heard(await talk.turn()) == ["(0.5 seconds of speech)"]


async def test_a_playback_is_interrupted_too() -> None:
    async with talking(pace=1) as talk:
        talk.speak(speech(2) + silence(0.7))
        first = await talk.until(lambda event: sound([event]))
        talk.speak(speech(0.4))
        cut = await talk.turn()
        assert any(event.interrupted for event in cut)
        assert len(sound(first + cut)) / 2 / 24_000 < 0.5
        talk.queue.send_audio_stream_end()
        assert heard(await talk.turn()) == ["(0.4 seconds of speech)"]


async def test_its_own_voice_from_the_loudspeaker_does_not_interrupt() -> None:
    async with talking(words_per_second=20, pace=1) as talk:
        talk.say("hello")
        await talk.until(lambda event: event.output_transcription)
        talk.speak(speech(2, level=1200) + speech(0.1))
        events = await talk.turn()
        assert not any(event.interrupted for event in events)
        talk.queue.send_audio_stream_end()
        talk.say("bye")
        assert heard(await talk.turn()) == [], "nor is it an utterance afterwards"


async def test_a_text_interrupts_and_is_then_answered() -> None:
    async with talking(words_per_second=3, pace=1) as talk:
        talk.say("first")
        await talk.until(lambda event: event.output_transcription)
        talk.say("what time is it")
        cut = await talk.turn()
        assert any(event.interrupted for event in cut)
        events = await talk.until(lambda event: event.get_function_responses())
        assert not any(event.interrupted for event in events)


# ---- history and ends ------------------------------------------------------------------------


async def test_a_history_that_ends_with_the_user_is_answered() -> None:
    async with talking([("user", "one"), ("tester", "two"), ("user", "three")]) as talk:
        assert spoken(await talk.turn()).endswith("You said: three I remember 2 turns before this.")


async def test_a_history_that_ends_with_the_model_is_remembered() -> None:
    async with talking([("user", "one"), ("tester", "two")]) as talk:
        talk.say("three")
        events = await talk.turn()
        assert spoken(events).endswith("You said: three I remember 2 turns before this.")


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("while_answering", [False, True])
async def test_an_end_is_prompt_and_leaves_nothing(cancel: bool, while_answering: bool) -> None:
    before = asyncio.all_tasks()
    loop = asyncio.get_running_loop()
    async with talking(words_per_second=1, pace=1) as talk:
        if while_answering:
            talk.say("hello")
            await talk.until(lambda event: event.output_transcription)
        else:
            talk.speak(speech(0.4))
        began = loop.time()
        if cancel:
            talk.task.cancel()
        else:
            talk.queue.close()
        await asyncio.wait([talk.task], timeout=2)
        assert loop.time() - began < 0.5
    assert asyncio.all_tasks() == before


# ---- the default agent -----------------------------------------------------------------------

VARIABLES = (
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_GENAI_USE_VERTEXAI",
    "GOOGLE_GENAI_USE_ENTERPRISE",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_LOCATION",
    "RELAY_MODEL",
)
KEY = "AIzaSyD-a_real_key-0123456789abcdefghijk"
VERTEX = {
    "GOOGLE_GENAI_USE_VERTEXAI": "TRUE",
    "GOOGLE_CLOUD_PROJECT": "my-project-123",
    "GOOGLE_CLOUD_LOCATION": "us-central1",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Sets what google-genai and the agent read to exactly this."""

    def set_to(variables: dict[str, str]) -> None:
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_to


def client_of(model: BaseLlm) -> Any:
    assert isinstance(model, Gemini)
    return model.api_client._api_client


@pytest.mark.parametrize(
    "placeholder",
    [
        "",
        " ",
        "PASTE_YOUR_ACTUAL_API_KEY_HERE",
        "your-api-key",
        "YOUR_API_KEY",
        "<key>",
        "<your key>",
        "${GOOGLE_API_KEY}",
        "...",
        "…",
        "xxx",
        "XXXX-XXXX",
        "api-key",
        "changeme",
        '""',
    ],
)
def test_a_placeholder_is_no_key(environment: Callable[[dict[str, str]], None], placeholder: str) -> None:
    environment({"GOOGLE_API_KEY": placeholder})
    assert "GOOGLE_API_KEY" in (missing_credentials() or "")
    assert isinstance(model_from_env(), Rehearsal)
    environment({"GOOGLE_API_KEY": placeholder, "GEMINI_API_KEY": KEY})
    assert missing_credentials() is None
    assert client_of(model_from_env()).api_key == KEY


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({}, "GOOGLE_API_KEY"),
        ({"GOOGLE_CLOUD_PROJECT": "p", "GOOGLE_CLOUD_LOCATION": "l"}, "GOOGLE_GENAI_USE_VERTEXAI"),
        (VERTEX | {"GOOGLE_GENAI_USE_VERTEXAI": "yes"}, "GOOGLE_API_KEY"),
        (VERTEX | {"GOOGLE_GENAI_USE_ENTERPRISE": "false"}, "GOOGLE_API_KEY"),
        ({"GOOGLE_GENAI_USE_VERTEXAI": "1"}, "GOOGLE_CLOUD_PROJECT and GOOGLE_CLOUD_LOCATION"),
        (VERTEX | {"GOOGLE_CLOUD_PROJECT": "your-project-id"}, "GOOGLE_CLOUD_PROJECT"),
        (VERTEX | {"GOOGLE_CLOUD_LOCATION": ""}, "GOOGLE_CLOUD_LOCATION"),
    ],
)
def test_missing_credentials_are_named(
    environment: Callable[[dict[str, str]], None], variables: dict[str, str], missing: str
) -> None:
    environment(variables)
    assert missing in (missing_credentials() or "")
    assert isinstance(model_from_env(), Rehearsal)


@pytest.mark.parametrize("flag", ["GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"])
def test_vertex_with_a_key_is_express_mode(environment: Callable[[dict[str, str]], None], flag: str) -> None:
    # A project that was left a placeholder would otherwise be preferred to the key.
    environment({flag: "true", "GEMINI_API_KEY": KEY, "GOOGLE_CLOUD_PROJECT": "your-project-id"})
    assert missing_credentials() is None
    client = client_of(model_from_env())
    assert (client.vertexai, client.api_key, client.project) == (True, KEY, None)


def test_vertex_with_a_project_takes_no_key(environment: Callable[[dict[str, str]], None]) -> None:
    environment(VERTEX | {"GOOGLE_API_KEY": "your-api-key"})
    assert missing_credentials() is None
    client = client_of(model_from_env())
    assert (client.vertexai, client.api_key, client.project) == (True, None, "my-project-123")


@pytest.mark.parametrize(
    ("name", "tools"),
    [
        ("", ["google_search", "get_current_time"]),
        ("gemini-3.8-live", ["google_search", "get_current_time"]),
        ("gemini-10-live", ["google_search", "get_current_time"]),
        ("models/gemini-2.5-flash-native-audio-preview", ["google_search"]),
        ("projects/p/locations/l/publishers/google/models/gemini-live-2.5-flash", ["google_search"]),
        ("gemini-live-latest", ["google_search"]),
        ("rehearsal", ["get_current_time"]),
    ],
)
def test_the_tools_depend_on_the_model(
    environment: Callable[[dict[str, str]], None], name: str, tools: list[str]
) -> None:
    environment({"GOOGLE_API_KEY": KEY, "RELAY_MODEL": name})
    model = model_from_env()
    assert model.model == (name or "gemini-3.8-live")
    assert isinstance(model, Rehearsal) == (name == "rehearsal")
    assert KEY not in repr(model) + repr(model.model_dump())
    assert [
        getattr(tool, "name", None) or getattr(tool, "__name__", None) for tool in tools_for(model)
    ] == tools


@pytest.mark.parametrize(
    "zone", ["Atlantis", "Europe", "../../etc/passwd", "/etc/localtime", "\0", "x" * 5000]
)
def test_an_invalid_zone_is_a_result_of_the_tool(zone: str) -> None:
    assert get_current_time(zone)["status"] == "error"


def test_no_zone_is_utc() -> None:
    assert get_current_time("  ")["timezone"] == "UTC"
    assert get_current_time("")["local_time"].endswith("+00:00")


# ---- ADK's own tools -------------------------------------------------------------------------


def clean_environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": str(PROJECT)}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with nothing but the agent in it: `adk run` writes its sessions into the agent's folder."""
    shutil.copytree(
        PROJECT / "agent", tmp_path / "agent", ignore=shutil.ignore_patterns("__pycache__", ".adk")
    )
    return tmp_path


def test_adk_run_works_without_a_key(copy: Path) -> None:
    adk = Path(sys.executable).with_name("adk")
    done = subprocess.run(
        [adk, "run", "agent"],
        input="hi\nwhat time is it in Tokyo?\nexit\n",
        cwd=copy,
        env=clean_environment(copy),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "[assistant]: This is a rehearsal: no model is connected. You said: hi" in done.stdout
    assert "in Asia/Tokyo." in done.stdout


def test_adk_finds_the_agent_and_relay_does_not_need_it(copy: Path) -> None:
    program = (
        "import os, sys\n"
        "import relay, adk_relay.adk.run, adk_relay.adk.runner\n"
        "assert 'agent' not in sys.modules\n"
        "from google.adk.cli.utils.agent_loader import AgentLoader\n"
        "loader = AgentLoader('.')\n"
        "assert loader.list_agents() == ['agent'], loader.list_agents()\n"
        "print(loader.load_agent('agent').model.model)\n"
        "import agent\n"
        "assert loader.load_agent('agent') is agent.root_agent\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=copy,
        env=clean_environment(copy),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("rehearsal\n", 0), done.stderr


async def test_without_streaming_the_answer_comes_in_one_piece_and_with_it_in_words() -> None:
    agent = LlmAgent(name="tester", model=Rehearsal(words_per_second=500), tools=[get_current_time])
    sessions = InMemorySessionService()
    session = await sessions.create_session(app_name="test", user_id="alice")
    runner = Runner(app_name="test", agent=agent, session_service=sessions)
    for mode, pieces in ((None, 1), ("sse", 12)):
        run = runner.run_async(
            user_id="alice",
            session_id=session.id,
            new_message=types.Content(role="user", parts=[types.Part(text="hi")]),
            run_config=RunConfig.model_validate({"streaming_mode": mode}),
        )
        async with aclosing(run) as events:
            texts = [e.content.parts[0].text async for e in events if e.content and e.content.parts]
        assert len(texts) == pieces
        assert "".join(map(str, texts[:-1])) in ("", texts[-1])
        assert str(texts[-1]).endswith("You said: hi")
