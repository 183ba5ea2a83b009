"""OpenAI's Realtime API as a dialect: `WS /v1/realtime`."""

from __future__ import annotations

from collections.abc import Iterator

from adk_relay.wire.asgi import Scope, header_values
from adk_relay.wire.dialects import Command, Dialect, Reply, Welcome
from adk_relay.wire.openai.acting import Acting
from adk_relay.wire.openai.answering import Answering
from adk_relay.wire.openai.asking import Asking
from adk_relay.wire.openai.events import ClientEvent, decode
from adk_relay.wire.openai.hearing import Hearing
from adk_relay.wire.openai.items import Items
from adk_relay.wire.openai.server_events import ServerEvents
from adk_relay.wire.openai.settings import Settings
from adk_relay.wire.openai.telling import State, Telling
from adk_relay.wire.outbox import Frames

SUBPROTOCOL = "realtime"
"""Browsers offer it, beside those with the key and the version."""

_BETA_SUBPROTOCOL = "openai-beta.realtime-v1"


class Realtime:
    """The state of one socket.

    Invariants: those of its parts. All that comes and goes passes through it in one order, on the event loop;
    only `decode` may run in a thread, and has no state.
    """

    def __init__(self, *, is_beta: bool) -> None:
        events, items, settings = ServerEvents(is_beta=is_beta), Items(), Settings(is_beta=is_beta)
        self._state = State(
            events,
            settings,
            items,
            Answering(events, items, settings),
            Hearing(events, items, settings),
            Asking(),
        )
        self._telling = Telling(self._state)
        self._acting = Acting(self._state, self._telling)

    def check(self) -> None:
        """Asserts the invariants."""
        self._state.check()

    def welcome(self, welcome: Welcome) -> Frames:
        """The events that a client gets first."""
        events, settings = self._state.events, self._state.settings
        settings.enter(welcome)
        told = events.event("session.created", session=settings.object())
        if events.is_beta:
            conversation = {"id": settings.conversation_id, "object": "realtime.conversation"}
            told += events.event("conversation.created", conversation=conversation)
        return told

    def act(self, event: ClientEvent) -> Iterator[Command | Reply]:
        """Does what an event asks for: see `Dialect.act`."""
        yield from self._acting.act(event)

    def dialect(self) -> Dialect:
        """The dialect of this socket."""
        return Dialect(
            name="openai",
            decode=decode,
            encoder=lambda session_id: self._telling.encode,
            connected=lambda connection_id, model, limits: None,
            welcome=self.welcome,
            ping=None,
            pong=lambda connection_id: "",
            expiring=lambda seconds: None,
            is_audio=True,
            attends="all",
            act=self.act,
            configures_first=True,
        )


def realtime(scope: Scope) -> Dialect:
    """The dialect of a WebSocket, in the names that its client speaks."""
    return Realtime(is_beta=asks_for_beta(scope)).dialect()


def asks_for_beta(scope: Scope) -> bool:
    """Whether a client asks for the names of the beta."""
    if _BETA_SUBPROTOCOL in scope.get("subprotocols", ()):
        return True
    return any("realtime=v1" in value for value in header_values(scope, b"openai-beta"))
