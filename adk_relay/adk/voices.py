"""The voice and the language of one conversation.

All who attend it hear the same voice. A change needs a new connection to the model. It is made at once if the
agent is at rest, else when the answer is complete. The choice is in the session's state, which is written
between two runs only: ADK's services want one writer at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from google.adk.agents.run_config import RunConfig
from google.adk.events import Event, EventActions
from google.adk.sessions import Session

from adk_relay.adk.failures import what_failed
from adk_relay.adk.fence import NotOwnerError
from adk_relay.adk.models import voice_of, with_voice
from adk_relay.adk.session import StoredSession
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Error
from adk_relay.core.room import Room
from adk_relay.core.voice import ChoiceError, Choices, Configure, Configured, Voice

log = logging.getLogger("relay.agent")

VOICE = "relay_voice"
"""The key in the session's state: the chosen voice and language, as a list."""


class Voices:
    """How the agent speaks in one conversation.

    Args:
        config: the run configuration, with the operator's choice.
        choices: what users may choose.
        session, room: those of the conversation.
        changed: to be called when the next connection is to be another one.
    """

    def __init__(
        self,
        config: RunConfig,
        choices: Choices,
        session: StoredSession,
        room: Room,
        changed: Callable[[], None],
    ) -> None:
        self._plain = config
        self._choices = choices
        self._session = session
        self._room = room
        self._changed = changed
        self.chosen = Voice()
        """What users have chosen. Everything that they have not is ""."""
        self._stored = Voice()

    @property
    def present(self) -> Voice:
        """How the agent speaks from its next turn on."""
        default = voice_of(self._plain)
        return Voice(self.chosen.name or default.name, self.chosen.language or default.language)

    @property
    def config(self) -> RunConfig:
        """The run configuration with this voice."""
        return with_voice(self._plain, self.present) if any(self.chosen) else self._plain

    def take(self, configure: Configure, listener: Listener) -> None:
        """Takes the choice of a listener. All are told of a change, and the listener if it may not choose."""
        try:
            self._choices.check(configure)
        except ChoiceError as error:
            listener.deliver(Error("bad_data", str(error)))
            return
        name, language = self.chosen
        name = name if configure.voice is None else configure.voice
        language = language if configure.language is None else configure.language
        before, self.chosen = self.present, Voice(name, language)
        for each in self._room.listeners:
            each.deliver(Configured(self.present))
        if self.present != before:
            self._changed()

    def load(self, state: Mapping[str, Any]) -> None:
        """Begins with the choice in a session's state, as far as it is still allowed."""
        match state.get(VOICE):
            case [str(name), str(language)]:
                self._stored = Voice(name, language)
                self.restore(self._stored)

    def restore(self, chosen: Voice) -> None:
        """Goes on with what users have chosen before."""
        name = chosen.name if chosen.name in self._choices.voices else ""
        self.chosen = Voice(name, chosen.language if chosen.language in self._choices.languages else "")

    async def keep(self, label: str) -> None:
        """Stores the choice at the end of a conversation: if that fails, it is lost, and logged."""
        try:
            if self._session.is_kept:
                await self.store()
        except NotOwnerError:
            pass  # the owner has it
        except Exception as error:
            log.error("%s: the choice of a voice could not be stored: %s", label, what_failed(error))

    def emptied(self) -> None:
        """The session is a new one. The choice stays."""
        self._stored = Voice()

    async def store(self) -> bool:
        """Stores the choice, if it is another one than the stored; returns whether it was.

        Raises:
            Exception: the session service failed.
        """
        if (chosen := self.chosen) == self._stored:
            return False

        async def make(_: Session) -> Event:
            return Event(author="relay", actions=EventActions(state_delta={VOICE: [*chosen]}))

        await self._session.write(make)
        self._stored = chosen
        return True
