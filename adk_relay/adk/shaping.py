"""How the agent answers in one conversation, as its clients have chosen it: voice, language and shape.

It is the same for all who attend. A change needs a new connection to the model. It is made at once if the
agent is at rest, else when the answer is complete. The choice is in the session's state, which is written
between two runs only: ADK's services want one writer at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from google.adk.agents.run_config import RunConfig
from google.adk.events import Event, EventActions
from google.adk.sessions import Session

from adk_relay.adk.failures import is_about_setup, what_failed
from adk_relay.adk.fence import NotOwnerError
from adk_relay.adk.home import Home
from adk_relay.adk.models import voice_of, with_voice
from adk_relay.adk.session import StoredSession
from adk_relay.adk.speech import is_push_to_talk, with_push_to_talk
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Error, Message
from adk_relay.core.recorded import Shaped
from adk_relay.core.room import Room
from adk_relay.core.shape import PLAIN, ClientTool, Shape, ShapeError
from adk_relay.core.voice import MODELS_OWN, ChoiceError, Configure, Configured, Voice

log = logging.getLogger("relay.agent")

VOICE = "relay_voice"
"""The key in the session's state: the chosen voice and language, as a list."""

SHAPE = "relay_shape"
"""The same for what clients have set of the shape, as an object."""


class Shaping:
    """How the agent answers in one conversation.

    Invariants:
        The shape is one that a conversation with this agent can have.
        Where no client may have instructions and tools, there are none.

    Args:
        home: has the operator's choice, and what clients may choose.
        session, room: those of the conversation.
        label: names the conversation in the log.
        changed: to be called when the next connection is to be another one.
    """

    def __init__(
        self, home: Home, session: StoredSession, room: Room, label: str, changed: Callable[[], None]
    ) -> None:
        self._plain = home.config
        self._choices = home.choices
        self._taken = home.runner.tool_names
        self._has_client_tools = home.client_tools
        self._session = session
        self._room = room
        self._label = label
        self._changed = changed
        self.voice = MODELS_OWN
        """What clients have chosen. Everything that they have not is ""."""
        self.shape = PLAIN
        """The same for the shape."""
        self._stored = MODELS_OWN, PLAIN
        self._working = PLAIN  # the last one with which the model was connected

    def check(self) -> None:
        """Asserts the invariants."""
        try:
            self.shape.check(self._taken)
        except ShapeError as error:
            raise AssertionError(f"the shape: {error}") from None
        is_plain = not (self.shape.instructions or self.shape.tools)
        assert self._has_client_tools or is_plain, "clients have instructions or tools, and may not"

    @property
    def present_voice(self) -> Voice:
        """How the agent speaks from its next turn on."""
        default = voice_of(self._plain)
        return Voice(self.voice.name or default.name, self.voice.language or default.language)

    @property
    def present_shape(self) -> Shape:
        """The shape from the next turn on, with push to talk as it is."""
        return replace(self.shape, push_to_talk=self.push_to_talk)

    @property
    def push_to_talk(self) -> bool:
        """Whether the clients have to tell when their users begin and stop to speak."""
        chosen = self.shape.push_to_talk
        return is_push_to_talk(self._plain) if chosen is None else chosen

    @property
    def config(self) -> RunConfig:
        """The run configuration with this voice, and with push to talk or without."""
        config = with_voice(self._plain, self.present_voice) if any(self.voice) else self._plain
        return with_push_to_talk(config, self.push_to_talk)

    def take(self, configure: Configure, listener: Listener) -> None:
        """Takes the choice of a listener. All are told of a change, and the listener if it may not choose."""
        if configure.shapes_agent and not self._has_client_tools:
            # The process of the socket has another setting.
            listener.deliver(Error("not_allowed", "Instructions and tools can't be set here.", configure.id))
            return
        try:
            self._choices.check(configure)
            shape = self.shape.changed(
                configure.instructions, configure.tools, configure.push_to_talk, configure.temperature
            )
            shape.check(self._taken)
        except (ChoiceError, ShapeError) as error:
            listener.deliver(Error("bad_data", str(error), configure.id))
            return
        name, language = self.voice
        name = name if configure.voice is None else configure.voice
        language = language if configure.language is None else configure.language
        before = self.present_voice, self.present_shape
        self.voice = Voice(name, language)
        self._set_shape(shape)
        now = self.present_voice, self.present_shape
        self._tell(Configured(*now, listener.connection_id, configure.id))
        if now != before:
            self._changed()

    def works(self, shape: Shape) -> None:
        """The model was connected with this shape."""
        self._working = shape

    def takes_back(self, shape: Shape, error: Exception) -> bool:
        """The model has refused a connection with this shape: the last one that has worked holds again.

        Returns:
            Whether to try again; False: the shape is not the reason.
        """
        if shape == self._working or not is_about_setup(error):
            return False
        if shape == self.shape:
            log.warning("%s: what clients have set is taken back: %s", self._label, what_failed(error))
            self._set_shape(self._working)
            told = Error("shape_refused", "The model refused what was set here last, so it is taken back.")
            for each in self._room.listeners:
                if each.attends != "own":  # a request would take it for the end of its answer, which follows
                    each.deliver(told)
            self._tell(Configured(self.present_voice, self.present_shape))
        return True

    def _set_shape(self, shape: Shape) -> None:
        if shape != self.shape:
            self.shape = shape
            self._room.recording.add(Shaped(shape))

    def _tell(self, message: Message) -> None:
        for each in self._room.listeners:
            each.deliver(message)

    def load(self, state: Mapping[str, Any]) -> None:
        """Begins with the choice in a session's state, as far as it is still allowed."""
        voice, shape = MODELS_OWN, _shape_of(state.get(SHAPE))
        match state.get(VOICE):
            case [str(name), str(language)]:
                voice = Voice(name, language)
        self._stored = voice, shape
        self.restore(voice, shape)

    def restore(self, voice: Voice, shape: Shape) -> None:
        """Goes on with what clients have chosen before, as far as it is still allowed."""
        name = voice.name if voice.name in self._choices.voices else ""
        self.voice = Voice(name, voice.language if voice.language in self._choices.languages else "")
        if not self._has_client_tools:
            shape = replace(shape, instructions="", tools=())
        tools = tuple(tool for tool in shape.tools if tool.name not in self._taken)
        self.shape = replace(shape, tools=tools)

    def recorded(self) -> None:
        """The recording has begun: it knows of no shape yet."""
        if self.shape != PLAIN:
            self._room.recording.add(Shaped(self.shape))

    async def keep(self) -> None:
        """Stores the choice at the end of a conversation: if that fails, it is lost, and logged."""
        try:
            if self._session.is_kept:
                await self.store()
        except NotOwnerError:
            pass  # the owner has it
        except Exception as error:
            log.error("%s: what clients have chosen could not be stored: %s", self._label, what_failed(error))

    def emptied(self) -> None:
        """The session is a new one. The choice stays."""
        self._stored = MODELS_OWN, PLAIN

    async def store(self) -> bool:
        """Stores the choice, if it is another one than the stored; returns whether it was.

        Raises:
            Exception: the session service failed.
        """
        chosen = voice, shape = self.voice, self.shape
        if chosen == self._stored:
            return False
        delta: dict[str, Any] = {} if voice == self._stored[0] else {VOICE: [*voice]}
        delta |= {} if shape == self._stored[1] else {SHAPE: asdict(shape)}

        async def make(_: Session) -> Event:
            return Event(author="relay", actions=EventActions(state_delta=delta))

        await self._session.write(make)
        self._stored = chosen
        return True


def _shape_of(stored: Any) -> Shape:
    """The shape in a session's state; PLAIN: there is none, or another version has written it."""
    try:
        shape = Shape(**{**stored, "tools": tuple(ClientTool(**tool) for tool in stored["tools"])})
        shape.check()
        return shape
    except (TypeError, LookupError, ValueError, AttributeError):
        return PLAIN
