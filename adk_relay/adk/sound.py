"""The short way of sound: past google-genai and ADK, between the model's socket and the run.

A chunk of sound from the model is a line of JSON with one base64 string in it. On the long way, google-genai
makes a dict of it, another dict, and a tree of pydantic objects. ADK makes a response and an event of these,
and hands the event through a dozen generators, two queues and the plugins. Nobody looks at it on the way, and
nobody stores it. That is two thirds of the CPU time that a chunk costs.

So an object is put in the place of the live session's WebSocket. Its `recv` hands each frame that holds
nothing but a chunk of sound to the run, and returns every other frame to google-genai. On the way up, sound
is written to the socket in the form in which google-genai has written the first chunk.

Only sound takes the short way, and only if nobody in ADK wants to see it: `_who_sees_sound` has the list. The
insides of google-genai and ADK that are used here are looked for first. If they are not as expected, sound
takes the long way, and the log says so once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from google.adk.agents import BaseAgent, LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.models import Gemini
from google.adk.models.base_llm_connection import BaseLlmConnection
from google.adk.plugins.base_plugin import BasePlugin
from google.genai import types

from adk_relay.adk.rehearsal import Rehearsal
from adk_relay.core.messages import UserAudio

if TYPE_CHECKING:
    from google.adk.tools.base_tool import BaseTool
    from google.adk.workflow import BaseNode
    from websockets.asyncio.client import ClientConnection

log = logging.getLogger("relay.agent")

_MIME_TYPES = ("audio/pcm;rate=24000", "audio/pcm")
"""The only kinds of sound that go by: what clients are told they get."""

_MIN_BASE64 = 64
"""Characters of base64 that are not found by chance in the rest of a frame."""

_LATEST, _LOOKS = 1.0, 20
"""Seconds within which an event that ADK has let go must come out of `run_live`, in so many pauses. The event
takes some turns of the event loop. If the process stood still for a second, one long pause would end before
the event had any of them; so each pause is a turn at least."""


class Hearer(Protocol):
    """What the short way needs from a run."""

    under_way: int
    """Events that have entered, and did not come out of ADK yet."""

    def hear(self, pcm: bytes) -> None:
        """The model has sent a chunk of sound. Must not wait."""

    def is_listened_to(self) -> None:
        """A tool of the run reads the user's sound from now on."""

    async def caught_up(self) -> None:
        """Waits until no event is under way."""


class Form(NamedTuple):
    """A frame of sound without its base64: all frames of one connection and rate are equal in this."""

    before: bytes
    after: bytes

    @classmethod
    def of(cls, frame: bytes, sound: bytes) -> Form | None:
        """The form of a frame that has this base64 in it, once; None: it has not, or too little."""
        before, found, after = frame.partition(b'"%b"' % sound)
        if len(sound) < _MIN_BASE64 or not found or sound in after:
            return None
        return cls(before + b'"', b'"' + after)

    def sound_in(self, frame: bytes) -> bytes | None:
        """The sound of a frame of this form; None: it is of another form."""
        if frame.startswith(self.before) and frame.endswith(self.after):
            return _decoded(frame[len(self.before) : -len(self.after)])
        return None


class ShortWay:
    """Decides whether sound takes the short way. One for each `Conversations`.

    Args:
        root: the root agent, as the host has made it.
        config: the run configuration.
        observer: returns the run of the present context.
        is_wanted: False: all sound takes the long way.
    """

    def __init__(
        self, root: BaseNode, config: RunConfig, observer: Callable[[], Hearer], *, is_wanted: bool
    ) -> None:
        self._observer = observer
        self._is_open = is_wanted
        self._told: set[str] = set()
        if is_wanted:
            try:
                self._kinds = _kinds()
                inspect.getattr_static(BasePlugin, "on_event_callback")  # how it is known what is under way
                who = _who_sees_sound(root, config)
            except Exception as error:  # a name of ADK's is missing, or means something else now
                self._distrust(f"{type(error).__name__}: {error}")
            else:
                if who is not None:
                    self._close(who)

    def shorten(
        self, connection: BaseLlmConnection, run: Hearer, plugins: Sequence[BasePlugin]
    ) -> SoundSocket | None:
        """Puts a `SoundSocket` into a connection that was just set up; None: its sound takes the long way."""
        if not self._is_open:
            return None
        try:
            for plugin in plugins:
                # Compared by class, and looked up on the object: a plugin may also be given a function.
                if is_overridden(plugin, BasePlugin, "on_event_callback"):
                    self._close(f"the plugin {plugin.name} sees each event")
                    return None
            session = connection._gemini_session  # type: ignore[attr-defined]
            socket = session._ws
            for found, kind in zip((connection, session, socket), self._kinds, strict=True):
                if type(found) is not kind:
                    raise TypeError(f"{type(found).__name__} instead of {kind.__name__}")
            stand_in = SoundSocket(socket, connection.send_realtime, run, self._distrust)
            session._ws = stand_in
        except Exception as error:
            self._distrust(f"{type(error).__name__}: {error}")
            return None
        return stand_in

    def tool_begins(self, tool: BaseTool) -> None:
        """A tool of the present run begins. It may be one that reads the user's sound."""
        function: Any = getattr(tool, "func", None)
        is_stream = inspect.isasyncgenfunction(function)
        if is_stream and "input_stream" in inspect.signature(function).parameters:
            self._observer().is_listened_to()
            self._tell(f"the tool {tool.name} reads the user's sound")

    def _close(self, why: str) -> None:
        self._is_open = False
        self._tell(why)

    def _tell(self, why: str) -> None:
        if why and why not in self._told:
            log.info("sound takes the long way through ADK: %s", why)
        self._told.add(why)

    def _distrust(self, what: str) -> None:
        """The insides of a library are not what they should be: the long way is taken from now on."""
        if self._is_open:
            log.warning("sound takes the long way: google-genai or ADK has changed (%s)", what)
        self._is_open = False


class SoundSocket:
    """Stands in the place of a live session's WebSocket, and takes the sound out of it.

    Args:
        socket: the session's own.
        send_realtime: sends a blob by the long way.
        run: gets the sound.
        distrust: called with the reason if the short way turns out to be closed.
    """

    def __init__(
        self,
        socket: ClientConnection,
        send_realtime: Callable[[Any], Awaitable[None]],
        run: Hearer,
        distrust: Callable[[str], None],
    ) -> None:
        self._socket = socket
        self._send_realtime = send_realtime
        self._run = run
        self._distrust = distrust
        self._down: Form | None = None
        self._up: dict[int, Form] = {}  # by samples per second
        self._is_open_up = self._is_open_down = True
        self._sent: Any = None  # what was sent last by the long way

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    async def recv(self, *args: Any, **options: Any) -> Any:
        """Returns the next frame that is more, or less, than a chunk of sound."""
        while True:
            frame = await self._socket.recv(*args, **options)
            if not self._is_open_down:
                return frame
            data = frame.encode() if isinstance(frame, str) else frame
            pcm = (self._down and self._down.sound_in(data)) or self._sound_in(data)
            if not pcm:
                return frame
            if self._run.under_way and not await self._has_caught_up():
                return frame
            self._run.hear(pcm)

    async def send(self, message: Any, *args: Any, **options: Any) -> None:
        self._sent = message
        await self._socket.send(message, *args, **options)

    async def send_sound(self, sound: UserAudio) -> None:
        """Sends a chunk of the user's sound.

        google-genai sends the first of each rate: whether the model takes `audio` or `media_chunks`, and how
        these are written, is then known from the frame itself.
        """
        if form := self._up.get(sound.rate):
            data = base64.urlsafe_b64encode(sound.pcm)
            await self._socket.send(form.before + data + form.after, text=True)
            return
        self._sent = None
        await self._send_realtime(blob_of(sound))
        if self._is_open_up and len(sound.pcm) >= _MIN_BASE64:
            frame = self._sent.encode() if isinstance(self._sent, str) else b""
            form = Form.of(frame, base64.urlsafe_b64encode(sound.pcm))
            if form:
                self._up[sound.rate] = form
            else:
                self._is_open_up = False
                self._distrust("it sends sound in another form")

    async def _has_caught_up(self) -> bool:
        """Waits until the run has got all that came before; returns whether it has.

        ADK asks for a frame when it has dealt with the one before. But the last event may still be in the
        queue from which `run_live` takes what it yields.
        """
        for _ in range(_LOOKS):
            with suppress(TimeoutError):
                async with asyncio.timeout(_LATEST / _LOOKS):
                    await self._run.caught_up()
                    return True
        self._is_open_down = False
        self._distrust("an event of ADK's did not come out of run_live")
        return False

    def _sound_in(self, frame: bytes) -> bytes | None:
        data = _only_sound(frame)
        pcm = data and _decoded(data)
        if data and pcm:
            self._down = Form.of(frame, data)
        return pcm


def blob_of(sound: UserAudio) -> types.Blob:
    """A chunk of the user's sound as ADK takes it."""
    return types.Blob(data=sound.pcm, mime_type=f"audio/pcm;rate={sound.rate}")


def _only_sound(frame: bytes) -> bytes | None:
    """The base64 of a frame that holds one part of sound and nothing else; None: it holds something else."""
    try:
        whole = json.loads(frame)
        blob = whole["serverContent"]["modelTurn"]["parts"][0]["inlineData"]
        data, mime_type = blob["data"].encode(), blob["mimeType"]
    except (ValueError, LookupError, TypeError, AttributeError):  # google-genai decides what it means
        return None
    for role in ({}, {"role": "model"}):
        only_sound = {"serverContent": {"modelTurn": {"parts": [{"inlineData": blob}], **role}}}
        if mime_type in _MIME_TYPES and len(blob) == 2 and whole == only_sound:
            return bytes(data)
    return None


def _decoded(data: bytes) -> bytes | None:
    """The bytes of a base64 text; None: it is none, or empty. Strict: no character is passed over."""
    try:
        pcm = binascii.a2b_base64(data, strict_mode=True)
    except binascii.Error:
        return None
    # Strict mode takes too much padding, and a last character with bits that belong to no byte.
    if data.endswith(b"=") and binascii.b2a_base64(pcm, newline=False) != data:
        return None
    return pcm or None


def _kinds() -> tuple[type, type, type]:
    """The classes whose insides are used here: of ADK's connection, google-genai's session, its socket.

    They are imported when they are looked for, because another version may have them in another place.
    """
    from google.adk.models.gemini_llm_connection import GeminiLlmConnection
    from google.genai.live import AsyncSession
    from websockets.asyncio.client import ClientConnection

    return GeminiLlmConnection, AsyncSession, ClientConnection


def _who_sees_sound(root: BaseNode, config: RunConfig) -> str | None:
    """Who gets to see sound inside ADK; "": nobody needs to, and nobody needs to know; None: nobody.

    Model callbacks do not: ADK calls them for texts and transcripts only.
    """
    from google.adk.agents import SequentialAgent
    from google.adk.planners import BuiltInPlanner

    if config.save_live_blob:
        return "the run configuration stores it (save_live_blob)"
    if not isinstance(root, BaseAgent):
        return f"{root.name} is a {type(root).__name__}"
    pending = [root]
    while pending:
        each = pending.pop()
        pending += each.sub_agents
        kind = type(each).__name__
        base = LlmAgent if isinstance(each, LlmAgent) else SequentialAgent
        if not isinstance(each, base) or is_overridden(each, base, "_run_live_impl", "run_live"):
            return f"the agent {each.name} is a {kind}, which has a live loop of its own"
        if not isinstance(each, LlmAgent):
            continue
        if is_overridden(each, LlmAgent, "_llm_flow", "canonical_live_model", "canonical_live_model_async"):
            return f"the agent {each.name} is a {kind}, which has a flow or a model of its own"
        if each.code_executor or not isinstance(each.planner, BuiltInPlanner | None):
            return f"the agent {each.name} has a planner or a code executor, which sees each answer"
        model = each.canonical_live_model
        if isinstance(model, Rehearsal):
            return ""
        if not isinstance(model, Gemini) or is_overridden(model, Gemini, "connect"):
            return f"the model {type(model).__name__} has a connection of its own"
    return None


def is_overridden(each: object, base: type, *names: str) -> bool:
    """Whether the class of an object, or the object itself, has a method of its own instead of `base`'s.

    Raises:
        AttributeError: `base` has no such method.
    """
    return any(inspect.getattr_static(each, name) is not inspect.getattr_static(base, name) for name in names)
