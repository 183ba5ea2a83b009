"""The short way trusts no inside of a library: if one has changed, all sound takes the long way.

Here the insides change: names are gone, or are something else. Each time every byte arrives, and the log has
exactly one warning.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from google.adk.agents import BaseAgent, LlmAgent
from google.adk.models import google_llm
from google.adk.models.gemini_llm_connection import GeminiLlmConnection
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.plugins.plugin_manager import PluginManager
from google.genai import live
from google.genai.live import AsyncSession
from websockets.asyncio.client import ClientConnection, connect

from adk_relay.adk import sound
from adk_relay.adk.models import run_config
from relay import Relay
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import ROOT
from support.sound import Attendee, Seen, attending, reasons, relay_of

SPOKEN = bytes(number % 251 if number % 2 else 0 for number in range(1, 12_801))
"""What the user says: ten chunks, too quiet to be speech."""


async def answer(connection: Connection, turn: UserTurn) -> None:
    await connection.send_audio(5)
    await connection.turn_complete()


async def talk(gemini: GeminiLive, relay: Relay) -> None:
    """Two users say ten chunks each and hear five."""
    gemini.answer = answer
    async with attending(relay) as alice:
        bob = Attendee(await relay.conversations.open("bob"), "bob")
        await gemini.connection()
        bob.conversation.attach(bob)
        await gemini.connection(1)
        for connection, who in zip(gemini.connections, (alice, bob), strict=True):
            who.speak(SPOKEN)
            who.ask("hello")
            await who.turn()
            await gemini.wait_for(lambda: len(connection.audio) >= len(SPOKEN))  # noqa: B023
            assert connection.audio == SPOKEN
            assert who.sound == connection.sound
            assert len(who.sound) == 9600


async def all_goes_the_long_way(
    gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture, relay: Relay
) -> None:
    caplog.set_level(logging.INFO, "relay.agent")
    await talk(gemini, relay)
    assert (len(seen.down), len(seen.up)) == (10, 20)
    warned_of(caplog)


def warned_of(caplog: pytest.LogCaptureFixture) -> None:
    assert len(reasons(caplog)) == 1
    assert reasons(caplog)[0].startswith("WARNING: sound takes the long way: google-genai or ADK has changed")


async def test_nothing_has_changed(gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    """Without this the tests below would say nothing."""
    await talk(gemini, relay_of("short"))
    assert (len(seen.down), len(seen.up)) == (0, 2)
    assert reasons(caplog) == []


# ---- the objects of a connection ----


def hide(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, *, from_reading: bool) -> None:
    """Hides an attribute from `sound.py`; the library itself goes on using it."""

    def is_ours() -> bool:
        return bool(sys._getframe(2).f_globals["__name__"] == sound.__name__)

    def get(self: Any) -> Any:
        if from_reading and is_ours():
            raise AttributeError(name)
        return vars(self)[f"hidden {name}"]

    def put(self: Any, value: Any) -> None:
        if is_ours():
            raise AttributeError(f"{name} cannot be set")
        vars(self)[f"hidden {name}"] = value

    monkeypatch.setattr(kind, name, property(get, put), raising=False)


@pytest.mark.parametrize(
    ("kind", "name", "from_reading"),
    [
        (GeminiLlmConnection, "_gemini_session", True),
        (AsyncSession, "_ws", True),
        (AsyncSession, "_ws", False),
    ],
)
async def test_an_attribute_is_gone(
    gemini: GeminiLive,
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    caplog: pytest.LogCaptureFixture,
    kind: type,
    name: str,
    from_reading: bool,
) -> None:
    relay = relay_of("short")
    hide(monkeypatch, kind, name, from_reading=from_reading)
    await all_goes_the_long_way(gemini, seen, caplog, relay)


class NewerConnection(GeminiLlmConnection):
    pass


class NewerSession(AsyncSession):
    pass


class NewerSocket(ClientConnection):
    pass


@pytest.mark.parametrize(
    ("module", "name", "newer"),
    [
        (google_llm, "GeminiLlmConnection", NewerConnection),
        (live, "AsyncSession", NewerSession),
        (live, "ws_connect", functools.partial(connect, create_connection=NewerSocket)),
    ],
)
async def test_a_class_is_another(
    gemini: GeminiLive,
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    caplog: pytest.LogCaptureFixture,
    module: Any,
    name: str,
    newer: Any,
) -> None:
    relay = relay_of("short")
    monkeypatch.setattr(module, name, newer)
    await all_goes_the_long_way(gemini, seen, caplog, relay)


# ---- the names that are looked for when relay starts ----


@pytest.mark.parametrize(
    ("kind", "name"),
    [(LlmAgent, "_llm_flow"), (LlmAgent, "canonical_live_model_async"), (BaseAgent, "run_live")],
)
async def test_a_method_is_gone(
    gemini: GeminiLive,
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    caplog: pytest.LogCaptureFixture,
    kind: type,
    name: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(kind, name)
        relay = relay_of("short")
    await all_goes_the_long_way(gemini, seen, caplog, relay)


async def test_save_live_blob_is_gone(
    gemini: GeminiLive, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    config = run_config()
    value = vars(config).pop("save_live_blob")
    relay = relay_of("short", run_config=config)
    vars(config)["save_live_blob"] = value
    await all_goes_the_long_way(gemini, seen, caplog, relay)


async def test_plugins_see_no_events_any_more(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """Without these, nobody knows whether an event is under way."""

    async def nothing(self: PluginManager, **_: Any) -> None:
        pass

    monkeypatch.delattr(BasePlugin, "on_event_callback")
    monkeypatch.setattr(PluginManager, "run_on_event_callback", nothing)
    await all_goes_the_long_way(gemini, seen, caplog, relay_of("short"))


MOVABLE = [
    ("google.adk.models.gemini_llm_connection", "GeminiLlmConnection"),
    ("google.genai.live", "AsyncSession"),
    ("websockets.asyncio.client", "ClientConnection"),
    ("google.adk.agents", "SequentialAgent"),
    ("google.adk.planners", "BuiltInPlanner"),
]


@pytest.mark.parametrize(("module", "name"), MOVABLE)
async def test_a_class_has_moved(
    gemini: GeminiLive,
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    caplog: pytest.LogCaptureFixture,
    module: str,
    name: str,
) -> None:
    caplog.set_level(logging.INFO, "relay.agent")
    getattr(import_module(module), name)  # it may be imported only now
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, module, without(import_module(module), name))
        relay = relay_of("short")
    await all_goes_the_long_way(gemini, seen, caplog, relay)


def without(module: ModuleType, name: str) -> ModuleType:
    """A module that has everything that another one has, except one name."""

    def get(other: str) -> Any:
        if other == name:
            raise AttributeError(name)
        return getattr(module, other)

    copy = ModuleType(module.__name__)
    copy.__getattr__ = get  # type: ignore[method-assign]
    return copy


def test_relay_starts_if_all_of_them_have_moved() -> None:
    """In a process of its own: `sound.py` is imported when they are gone already."""
    code = f"""
import logging, sys
from importlib import import_module
from types import ModuleType
from typing import Any
from google.adk.agents import LlmAgent
from google.adk.models import Gemini

{inspect.getsource(without)}
for module, name in {MOVABLE}:
    getattr(import_module(module), name)
    sys.modules[module] = without(import_module(module), name)
logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
from relay import Relay
Relay(LlmAgent(name="tester", model="gemini-3.8-live"), sessions="memory://")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    assert line.startswith("relay.agent WARNING sound takes the long way: google-genai or ADK has changed")


# ---- how google-genai reads and writes ----


class Escaping:
    """A json module that writes the letter A in another way."""

    JSONDecodeError = json.JSONDecodeError
    decoder = json.decoder
    loads = staticmethod(json.loads)

    @staticmethod
    def dumps(value: Any) -> str:
        return json.dumps(value).replace("A", "\\u0041")


def in_bytes(send: Callable[..., Any]) -> Callable[..., Any]:
    async def send_bytes(self: AsyncSession, **what: Any) -> None:
        socket = self._ws

        class Bytes:
            async def send(self, text: str) -> None:
                await socket.send(text.encode())

        self._ws = Bytes()  # type: ignore[assignment]
        try:
            await send(self, **what)
        finally:
            self._ws = socket

    return send_bytes


@pytest.mark.parametrize("change", ["letters", "bytes"])
async def test_google_genai_writes_sound_in_another_form(
    gemini: GeminiLive,
    monkeypatch: pytest.MonkeyPatch,
    seen: Seen,
    caplog: pytest.LogCaptureFixture,
    change: str,
) -> None:
    """It is known when the first chunk was sent, so the model's sound has taken the short way until then."""
    if change == "letters":
        monkeypatch.setattr(live, "json", Escaping)
    else:
        monkeypatch.setattr(AsyncSession, "send_realtime_input", in_bytes(AsyncSession.send_realtime_input))
    await talk(gemini, relay_of("short"))
    assert len(seen.up) == 20
    warned_of(caplog)


async def test_google_genai_reads_frames_as_text(
    gemini: GeminiLive, monkeypatch: pytest.MonkeyPatch, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    """That changes nothing."""
    receive = ClientConnection.recv

    async def recv(self: ClientConnection, decode: bool | None = None) -> str | bytes:
        return await receive(self)

    monkeypatch.setattr(ClientConnection, "recv", recv)
    await talk(gemini, relay_of("short"))
    assert (len(seen.down), len(seen.up)) == (0, 2)
    assert reasons(caplog) == []
