"""A relay between WebSocket clients and a Google ADK live agent: one ASGI callable.

    relay serve                serves the page and an agent; `uvicorn relay:app` does, too
    Relay(agent=my_agent)      the same as an ASGI application, alone or mounted in another

Read this file first. The server calls `Relay` once for each HTTP request, once for each WebSocket, and once
for the lifespan, which reports the server's start and stop (see `adk_relay/wire/asgi.py`). Three layers meet
here:

    adk_relay/wire    sockets, no ADK: a `Socket` serves an accepted WebSocket through a dialect, and the
                      `Api` serves HTTP requests
    adk_relay/adk     ADK, no sockets: `Conversations` run the agent and emit messages
    adk_relay/core    shared by both: messages, rooms, and the interfaces between the two

With `RELAY_BUS`, `adk_relay/bus` is between several processes: it has those conversations that run elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from functools import cache, partial
from typing import TYPE_CHECKING, Unpack

from adk_relay import settings, shipped, workers
from adk_relay.core.interfaces import StoreInUseError
from adk_relay.core.moderation import OnInput
from adk_relay.from_environment import relay_from_environment, with_process
from adk_relay.roles import WATCHED, conversations_of
from adk_relay.settings import Options, SettingsError
from adk_relay.wire import http
from adk_relay.wire.admission import Admission
from adk_relay.wire.api import Api
from adk_relay.wire.asgi import Receive, Scope, Send
from adk_relay.wire.closing import NOT_FOUND, SERVER_RESTARTS, SERVER_STOPPING, CloseFrame
from adk_relay.wire.draining import Draining
from adk_relay.wire.files import Files
from adk_relay.wire.guard import Authenticate, Refused, guard_of
from adk_relay.wire.handshake import accept, refuse, send_close
from adk_relay.wire.limits import Limits
from adk_relay.wire.local import refusal_of_shape
from adk_relay.wire.pacing import pace_for
from adk_relay.wire.responding import send_response
from adk_relay.wire.targets import offers_subprotocol, path_of
from adk_relay.wire.tracing import traced
from adk_relay.wire.upgrade import admit
from adk_relay.wire.websocket import Socket

if TYPE_CHECKING:
    from google.adk.agents.run_config import RunConfig
    from google.adk.apps import App
    from google.adk.auth.credential_service.base_credential_service import BaseCredentialService
    from google.adk.workflow import BaseNode

    from adk_relay.adk.conversations import Conversations as OwnConversations
    from adk_relay.metrics import Collector


class Relay:
    """An ASGI application that relays between WebSocket clients and one ADK live agent.

    Args:
        agent: any ADK agent, Workflow or App; None: other processes run it (`role="web"`).
        run_config: an ADK RunConfig, used as it is; None: sound, transcriptions, compressed context.
        credentials: an ADK credential service; None: in memory.
        authenticate: from an ASGI scope to a user's id, a `Visitor`, or None, which refuses; sync or async.
        on_input: asked about each text, final transcript and picture; see `adk_relay/core/moderation.py`.
        options: settings. `adk_relay/settings.py` has the meaning, the range and the default of each.

    Raises:
        TypeError: `agent` is not an ADK agent or App, or one that ADK cannot run live.
        ValueError: a setting is out of its range, or a URI names a service that is not installed.
    """

    def __init__(
        self,
        agent: BaseNode | App | None,
        *,
        run_config: RunConfig | None = None,
        credentials: BaseCredentialService | None = None,
        authenticate: Authenticate | None = None,
        on_input: OnInput | None = None,
        **options: Unpack[Options],
    ) -> None:
        from adk_relay.metrics import MetricsServer  # here: `import relay` must be fast

        values = settings.complete(options)
        self._sockets: set[Socket] = set()
        # adk: it handles messages and listeners, and knows nothing of sockets.
        parts = conversations_of(agent, values, run_config, credentials, on_input, lambda: len(self._sockets))
        self.served, self._own, self.together = parts
        """The conversations that the sockets attend: those that run here, and with a bus those of others."""
        self._is_worker = values["role"] == "worker"
        # The guard decides who may come in, and as whom.
        self._guard = guard_of(values, authenticate, self.together)
        # wire: it uses the conversations through the Protocols of core/interfaces.py only.
        self._limits = Limits.of(values)
        self._files = Files({name: shipped(name) for name in ("static", "clients/js/src")})
        self._draining = Draining(values["drain"], self._sockets)
        lag = self.served.stats.loop_lag
        self._metrics = MetricsServer(self.metrics(), lag, values["metrics_host"], values["metrics_port"])
        self._api = Api(
            self.served,
            self._limits,
            self._guard,
            lambda: len(self._sockets),
            self._draining.retry_after,
            self._metrics.response,
            WATCHED if self._is_worker else None,
            self.together,
        )

    @classmethod
    def from_env(cls) -> Relay:
        """A relay configured by the RELAY_… variables and google-genai's own, in the environment or ./.env.

        Raises:
            SettingsError: a variable is wrong, or the agent needs credentials and there are none.
        """
        return relay_from_environment(cls)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.served.use_loop():
            self._sockets.clear()
        match scope["type"]:
            case "http" | "websocket" as kind:
                try:
                    await (self._http if kind == "http" else self._websocket)(scope, receive, send)
                finally:
                    self._guard.leave(scope)
            case "lifespan":
                # `relay serve` finds the relay there, to drain it; each request gets a copy of this state.
                scope.get("state", {})["adk_relay"] = self
                await self._lifespan(receive, send)
            case other:
                raise ValueError(f"relay serves http, websocket and lifespan, not {other!r}")

    async def __aenter__(self) -> Relay:
        """Starts, also again after an end: for a host that passes no lifespan on, `async with relay:`.

        Raises:
            StoreInUseError: another process serves the same sessions.
        """
        await self.served.prepare()
        self._draining.reset()
        await self._metrics.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends every conversation. `lifespan.shutdown` calls it; a host without lifespan has to call it."""
        await self._close(SERVER_STOPPING)

    async def drain(self) -> None:
        """Ends every conversation, but first lets answers under way come to their end.

        `relay serve` calls it when it is told to stop. At once `/ready` is false, new sockets and requests
        are refused, and the clients are told. After `RELAY_DRAIN` seconds at most, all sockets are closed.
        """
        self.served.drain()
        await self._draining.wait(self.served.is_answering)
        await self._close(SERVER_RESTARTS)
        await self._draining.wait_for_sockets()

    async def _close(self, frame: CloseFrame) -> None:
        for socket in [*self._sockets]:
            socket.stop(frame)
        await self._guard.aclose()
        await self.served.aclose()
        self._metrics.close()

    @property
    def conversations(self) -> OwnConversations:
        """The conversations that run here.

        Raises:
            AttributeError: this is a web process, which runs none.
        """
        if self._own is None:
            raise AttributeError("a web process runs no conversations")
        return self._own

    @property
    def sockets(self) -> Collection[Socket]:
        """The WebSockets that are open."""
        return self._sockets

    def metrics(self) -> Collector:
        """Its metrics, for a host's own Prometheus registry: `REGISTRY.register(relay.metrics())`."""
        from adk_relay.metrics import Collector

        return Collector({self.served.app_name: self})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                try:
                    await self.__aenter__()
                except (OSError, StoreInUseError) as error:  # OSError: the port of the metrics is not free
                    await send({"type": "lifespan.startup.failed", "message": f"relay: {error}"})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    # ---- HTTP ----

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = path_of(scope), scope["method"]
        response: http.Response | None
        send = self._guard.origins.sender(scope, send)
        if handlers := self._api.handlers(path):
            if handler := handlers.get("GET" if method == "HEAD" else method):
                response = await self._api.respond(handler, path, scope, receive, send)
            else:
                response = self._guard.origins.preflight(scope, handlers) or http.not_allowed(*handlers)
        elif self._is_worker:
            response = http.HttpError(404, f"A worker has {', '.join(WATCHED)}.").response()
        else:
            response = self._files.response(scope, path, method)
        if response:
            self.served.stats.responses.count(str(response[0]["status"]))
            await send_response(send, response, method, self._limits.slow_timeout)

    # ---- WebSockets ----

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._is_worker:
                raise Refused(404, NOT_FOUND, "A worker has no WebSockets.")
            # Who is this, and which conversation is it to attend? The path and the query choose the dialect.
            visitor, target = await admit(scope, self._guard, self._draining, self.served, self._limits)
        except Refused as no:
            await refuse(scope, receive, send, no, self.served.stats.refused)
            return
        if not await accept(scope, receive, send):
            return
        if self.served.is_closing():  # since the check above
            await send_close(send, SERVER_STOPPING)
            return
        # wire and adk meet: the socket opens conversations, and listens to their rooms (core/room.py).
        socket = Socket(
            self.served,
            self._limits,
            target.dialect,
            Admission(
                visitor,
                partial(self._guard.renew, scope),
                self._guard.quotas.rates(visitor),
                refusal_of_shape(scope, self._limits.client_tools),
                partial(self._guard.sign_in, scope),
            ),
            receive,
            send,
            knows_pings=offers_subprotocol(scope),
            pace=pace_for(scope, send, self._limits.queue_bytes),
        )
        self._sockets.add(socket)
        try:
            with traced(scope, socket):
                place = target.user_id, target.session_id, target.after
                await socket.serve(scope.get("client"), *place, is_new=target.is_new)
        finally:
            self._sockets.discard(socket)


@cache
def _default() -> Relay:
    return Relay.from_env()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The relay of `Relay.from_env()`, made when the server starts: an import reads no environment."""
    is_lifespan = scope["type"] == "lifespan"
    try:
        if is_lifespan:
            send = with_process(scope, receive, send)
            await workers.check(receive)
        relay = _default()
    except SettingsError as error:
        if not is_lifespan:
            raise
        await receive()
        await send({"type": "lifespan.startup.failed", "message": f"relay: {error}"})
        return

    await relay(scope, receive, send)


if __name__ == "__main__":
    from adk_relay.__main__ import serve

    serve(sys.argv[1:], prog="python relay.py")
