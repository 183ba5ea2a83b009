"""A model whose live connections can be watched, so that relay, not ADK, handles a lost connection.

With a resumption handle ADK reconnects by itself: at once, without a limit or an event, and input that was on
its way is lost. So when an agent begins, its model is replaced for this run by a copy, whose class is a
subclass of the model's own class (ADK checks `isinstance(model, Gemini)`). The copy's `connect()` reports
events to an observer, and turns every loss into a `LostConnection`, which ADK does not retry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import google.auth
import google.auth.credentials
import google.auth.exceptions
from google.adk.events import Event
from google.adk.models import BaseLlm, Gemini
from google.adk.models.base_llm_connection import BaseLlmConnection, RealtimeInput
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types
from google.genai.errors import APIError
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from adk_relay.adk.client_tools import instructed
from adk_relay.adk.screening import Screened
from adk_relay.adk.sound import Hearer, SoundSocket
from adk_relay.core.messages import UserAudio
from adk_relay.core.shape import Shape

if TYPE_CHECKING:  # it is made of translated events, and those of a run
    from adk_relay.adk.answers import Answers
    from adk_relay.adk.instruction import Instruction
    from adk_relay.adk.leaving import Leaving
from adk_relay.adk.meter import Meter

_CONNECT_TIMEOUT = 15.0
"""Seconds for the handshake and the setup of a connection."""

_CLOSE_TIMEOUT = 2.0
"""Seconds for the closing handshake. google-genai would wait ten for a peer that no longer reads."""

_PERMANENT = frozenset({400, 401, 403, 404, 1007, 1008})
"""HTTP statuses and close codes after which a second try would fail, too (RFC 9110, RFC 6455 section 7.4)."""

_CLOUD_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class LostConnection(Exception):
    """The connection to the model failed or ended too early.

    Attributes:
        code: the close code or the HTTP status, if there was one.
        reason: the service's own text. For the log only: it may name projects and models.
        permanent: trying again would not help.
        model: the name of the model, if it is known.
    """

    def __init__(self, code: int | None, reason: str, *, permanent: bool = False) -> None:
        self.code = code
        self.reason = reason
        self.permanent = permanent
        self.model = ""
        super().__init__(f"{code} {reason}".strip() if code else reason)


class Observer(Hearer, Screened, Protocol):
    """Gets the events of a run, and of its connections. No method may wait but `caught_up`."""

    answers: Answers
    """The run's tool calls that wait for a user."""

    instruction: Instruction
    """The instruction of the agent that speaks."""

    leaving: Leaving
    """Why the run is to end, and what its next connection needs."""

    meter: Meter
    """Measures the conversation."""

    shape: Shape
    """What clients have set."""

    def connected(self, connection: WatchedConnection) -> None:
        """The connection is set up."""

    def history(self, turns: list[types.Content]) -> list[types.Content]:
        """Returns the history that is sent to the model, made from the session's history."""

    def sending(self, content: types.Content | None) -> None:
        """A text or a tool's answer is stored in the session, and is being sent; None: something else is."""

    def sent(self) -> None:
        """It was sent."""

    def resumable(self, handle: str) -> None:
        """The service can resume the conversation from here, by this handle."""

    def going_away(self, time_left: float) -> None:
        """The service will end the connection in `time_left` seconds."""

    def ended(self) -> None:
        """The service has ended the connection normally."""

    def begins(self, agent: str) -> bool:
        """An agent begins, by its name. Returns whether it may continue the service's own session."""

    def entered(self, event: Event) -> None:
        """An event is on its last steps through ADK."""


observer: ContextVar[Observer] = ContextVar("observer")
"""The observer of the connections that are opened in this context."""


def watched(model: BaseLlm) -> BaseLlm:
    """A copy of a model whose connections are watched; `model` is left as it is."""
    model_class = type(model)
    copy = model.model_copy()
    copy.__class__ = type(model_class.__name__, (_Watched, model_class), {"__module__": __name__})
    return copy


class _Watched(BaseLlm):
    """A mixin. It is before the model's own class in the method resolution order."""

    @asynccontextmanager
    async def connect(self, llm_request: LlmRequest) -> AsyncIterator[BaseLlmConnection]:
        watcher, began = observer.get(), time.monotonic()
        opening: AbstractAsyncContextManager[BaseLlmConnection] = super().connect(
            instructed(llm_request, watcher.shape)
        )
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                if isinstance(self, Gemini):
                    await _fetch_credentials(self)
                inner = await opening.__aenter__()
        except Exception as error:
            raise _lost(error, self.model) from error
        connection = WatchedConnection(inner, watcher, self.model)
        watcher.connected(connection)
        watcher.meter.connected(time.monotonic() - began, is_short=connection.short_way is not None)
        try:
            yield connection
        finally:
            await _end(opening.__aexit__(None, None, None), inner)


class WatchedConnection(BaseLlmConnection):
    """A connection that reports to an observer.

    Attributes:
        inner: the model's own connection.
        model: the model's name.
        short_way: sends sound past ADK; None: sound goes through ADK.
    """

    def __init__(self, inner: BaseLlmConnection, watcher: Observer, model: str) -> None:
        self.inner = inner
        self.model = model
        self.short_way: SoundSocket | None = None
        self._watcher = watcher
        self._failure: LostConnection | None = None
        self._is_closed = False
        self._renewal = ""  # the handle with which ADK is to connect again
        self._closing: asyncio.Task[None] | None = None

    async def send_history(self, history: list[types.Content]) -> None:
        try:
            await self.inner.send_history(self._watcher.history(history))
        except Exception as error:
            raise _lost(error, self.model) from error

    async def send_content(self, content: types.Content) -> None:
        await self._send_content(content)

    async def _send_content(self, content: types.Content, *, partial: bool = False) -> None:
        self._watcher.sending(content)
        if content.parts and content.parts[0].text:  # only the results of tools come in parts
            partial = False
        try:
            await self.inner._send_content(content, partial=partial)
        except Exception as error:
            await self._fail(error)
        self._watcher.sent()

    async def send_realtime(self, blob: RealtimeInput) -> None:
        self._watcher.sending(None)
        try:
            await self.inner.send_realtime(blob)  # type: ignore[arg-type]  # annotated too narrowly
            self._watcher.meter.gave(blob)
        except Exception as error:
            await self._fail(error)
        self._watcher.sent()

    async def send_sound(self, sound: UserAudio) -> None:
        """Sends sound by the short way."""
        assert self.short_way
        self._watcher.sending(None)
        try:
            await self.short_way.send_sound(sound)
            self._watcher.meter.gave(sound)
        except Exception as error:
            await self._fail(error)
        self._watcher.sent()

    async def receive(self) -> AsyncGenerator[LlmResponse, None]:
        try:
            async with aclosing(self.inner.receive()) as responses:
                async for response in responses:
                    # These two are not passed on to ADK: with the handle it would reconnect by itself, and
                    # on goAway it would reconnect at once, in the middle of an answer.
                    if update := response.live_session_resumption_update:
                        if update.resumable and update.new_handle:
                            self._watcher.resumable(update.new_handle)
                    elif response.go_away:
                        self._watcher.going_away(_seconds(response.go_away.time_left))
                    else:
                        yield response
        except Exception as error:
            if self._failure:
                raise self._failure from error
            lost = _lost(error, self.model)
            if lost.code != 1000 and not self._renewal:
                raise lost from error
            # The service or relay has closed it: returning here ends the run without an error.
            if self._renewal:
                yield LlmResponse(
                    live_session_resumption_update=types.LiveServerSessionResumptionUpdate(
                        new_handle=self._renewal
                    ),
                    go_away=types.LiveServerGoAway(),
                )
            elif not self._is_closed:
                self._watcher.ended()

    def renew(self, handle: str) -> None:
        """Lets ADK make a new connection within this run. Nobody may be speaking, or waiting for an answer.

        Args:
            handle: resumes the service's own session.
        """
        if not self._renewal:
            self._renewal = handle
            self._closing = asyncio.create_task(_end(self.inner.close(), self.inner))

    async def close(self) -> None:
        self._is_closed = True
        await self.inner.close()

    async def _fail(self, error: Exception) -> None:
        """Makes `receive` fail, too: ADK does not await its sending task, so this error would not be seen."""
        self._failure = _lost(error, self.model)
        await self.inner.close()
        raise self._failure from error


async def _fetch_credentials(model: Gemini) -> None:
    """Fetches Google Cloud credentials in a thread: google-genai would do it on the event loop."""
    client = model._live_api_client._api_client
    if not client.vertexai or client.api_key or (client.custom_base_url and not client.project):
        return
    if client._credentials is None:
        client._credentials, _ = await asyncio.to_thread(google.auth.default, scopes=[_CLOUD_SCOPE])
    if (credentials := client._credentials) and not credentials.valid:
        await asyncio.to_thread(_refresh, credentials)


def _refresh(credentials: google.auth.credentials.Credentials) -> None:
    # Imported here: it takes a tenth of a second, and only Vertex AI needs it.
    from google.auth.transport.requests import Request

    credentials.refresh(Request())  # type: ignore[no-untyped-call]


def _lost(error: Exception, model: str = "") -> LostConnection:
    lost = _as_lost(error)
    lost.model = lost.model or model
    return lost


def _as_lost(error: Exception) -> LostConnection:
    match error:
        case LostConnection():
            return error
        case InvalidStatus():
            code = error.response.status_code
            return LostConnection(code, "the handshake was refused", permanent=code in _PERMANENT)
        case InvalidHandshake():  # it was cut off, or the peer is not a WebSocket server
            return LostConnection(None, f"the handshake failed: {error}")
        case APIError():
            return LostConnection(
                error.code, str(error.message or error.details or ""), permanent=error.code in _PERMANENT
            )
        case ConnectionClosed():
            code = error.rcvd.code if error.rcvd else 1006
            reason = error.rcvd.reason if error.rcvd else "no close frame"
            return LostConnection(code, reason, permanent=code in _PERMANENT)
        case google.auth.exceptions.GoogleAuthError():
            return LostConnection(401, str(error), permanent=True)
        case TimeoutError():
            return LostConnection(None, "no answer in time")
        case OSError():
            return LostConnection(None, f"not reachable: {error}")
        case _:
            # google-genai's own errors about the configuration (a missing key, a bad option).
            return LostConnection(None, f"{type(error).__name__}: {error}", permanent=True)


def _seconds(duration: str | None) -> float:
    """A protobuf duration in its JSON form ("9.5s"), in seconds."""
    try:
        return float((duration or "0s").removesuffix("s"))
    except ValueError:
        return 0.0


async def _end(closing: Coroutine[Any, Any, object], connection: BaseLlmConnection) -> None:
    """Closes a connection in time. The socket of a peer that does not finish the handshake is freed."""
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT):
            await closing
    except TimeoutError:
        _abort(connection)


def _abort(connection: Any) -> None:
    socket = getattr(getattr(connection, "_gemini_session", None), "_ws", None)
    if transport := getattr(socket, "transport", None):
        transport.abort()
