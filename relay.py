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
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from adk_relay import memory, settings, shipped
from adk_relay.core.interfaces import FullError, StoreError, UnknownConversationError
from adk_relay.core.logs import one_line
from adk_relay.core.moderation import OnInput
from adk_relay.core.visitor import Visitor
from adk_relay.settings import Options, SettingsError
from adk_relay.wire import http
from adk_relay.wire.admission import Admission
from adk_relay.wire.api import OPEN, Api, Handler
from adk_relay.wire.asgi import Event, Receive, Scope, Send
from adk_relay.wire.closing import NOT_FOUND, SERVER_STOPPING, STORE_FAILED
from adk_relay.wire.guard import Authenticate, Refused, guard_of, too_many
from adk_relay.wire.handshake import accept, attempt, refuse, send_close
from adk_relay.wire.limits import Limits
from adk_relay.wire.pacing import pace_for
from adk_relay.wire.targets import (
    NoSuchTargetError,
    for_visitor,
    mount_point,
    offers_subprotocol,
    path_of,
    target_of,
    with_name,
)
from adk_relay.wire.websocket import Socket

if TYPE_CHECKING:
    from google.adk.agents.run_config import RunConfig
    from google.adk.apps import App
    from google.adk.auth.credential_service.base_credential_service import BaseCredentialService
    from google.adk.workflow import BaseNode

log = logging.getLogger("relay")


class Relay:
    """An ASGI application that relays between WebSocket clients and one ADK live agent.

    Args:
        agent: any ADK agent, Workflow or App.
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
        agent: BaseNode | App,
        *,
        run_config: RunConfig | None = None,
        credentials: BaseCredentialService | None = None,
        authenticate: Authenticate | None = None,
        on_input: OnInput | None = None,
        **options: Unpack[Options],
    ) -> None:
        # Imported here and not at the top: importing ADK is slow, and `import relay` must be fast.
        from adk_relay.adk.conversations import Conversations

        values = settings.complete(options)
        # adk: it handles messages and listeners, and knows nothing of sockets.
        self.conversations = Conversations(
            agent,
            config=run_config,
            credentials=credentials,
            sessions=values["sessions"],
            app_name=values["app_name"],
            artifacts=values["artifacts"],
            memory=values["memory"],
            grace=values["grace"],
            idle_timeout=values["idle_timeout"],
            mic_ms=values["mic_ms"],
            replay_bytes=values["replay_bytes"],
            replay_seconds=values["replay_seconds"],
            sound=values["sound"],
            most=values["max_conversations"],
            on_input=on_input,
        )
        self._guard = guard_of(values, authenticate)  # who may come in, and as whom
        # wire: it uses the conversations through the Protocols of core/interfaces.py only.
        self._limits = Limits.of(values)
        self._files = http.static_files(shipped("static"))
        self._sockets: set[Socket] = set()
        self._api = Api(self.conversations, self._limits, self._guard, lambda: len(self._sockets))

    @classmethod
    def from_env(cls) -> Relay:
        """A relay configured by the RELAY_… variables and google-genai's own, in the environment or ./.env.

        Raises:
            SettingsError: a variable is wrong, or the agent needs credentials and there are none.
        """
        from adk_relay.adk.credentials import missing_credentials
        from adk_relay.adk.models import run_config
        from adk_relay.agents import agent_to_serve

        settings.load_env_files(Path.cwd())
        settings.show_logs()
        values = settings.from_environment()
        is_chosen = values.get("model") == "rehearsal"
        agent, file, origin = agent_to_serve(values.get("agent"), Path.cwd(), with_rehearsal=is_chosen)
        arguments = {name: value for name, value in values.items() if settings.SETTINGS[name].is_argument}
        config = run_config(values.get("voice"), values.get("language"))
        try:
            relay = cls(agent, run_config=config, **arguments)
        except (TypeError, ValueError, OSError) as error:
            where = f"{origin}: " if isinstance(error, TypeError) else ""
            raise SettingsError(where + one_line(error)) from error
        log.info("serving the agent %s, from %s", agent.name, file)
        if relay.conversations.is_rehearsal:
            why = "RELAY_MODEL selects it." if is_chosen else missing_credentials()
            why = why or "The agent itself has this model."
            log.warning("This is the rehearsal agent, which only repeats what it hears. %s", why)
        return relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.conversations.use_loop():
            self._sockets.clear()
        match scope["type"]:
            case "http" | "websocket" as kind:
                try:
                    await (self._http if kind == "http" else self._websocket)(scope, receive, send)
                finally:
                    self._guard.leave(scope)
            case "lifespan":
                await self._lifespan(receive, send)
            case other:
                raise ValueError(f"relay serves http, websocket and lifespan, not {other!r}")

    async def __aenter__(self) -> Relay:
        """Starts, also again after an end: for a host that passes no lifespan on, `async with relay:`."""
        await self.conversations.prepare()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends every conversation. `lifespan.shutdown` calls it; a host without lifespan has to call it."""
        for socket in [*self._sockets]:
            socket.stop()
        await self.conversations.aclose()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await self.__aenter__()
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
            response = await self._call(handlers, path, scope, receive, send)
        elif not (path == "" or path in self._files):
            response = http.HttpError(404, "There is nothing here.").response()
        elif method not in ("GET", "HEAD"):
            response = http.not_allowed("GET")
        elif path == "":
            # The mount point itself, without the slash that the page's relative URLs need. The target begins
            # with "./", because otherwise a prefix that contains a colon would be read as a URL scheme.
            target = f"./{mount_point(scope)}/"
            response = http.text(307, f"See {target}", (b"location", target.encode()))
        else:
            etags = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
            response = self._files[path].response(etags)
        if response:
            start, body = response
            # The response to HEAD has no body, but the same Content-Length (RFC 9110 section 9.3.2).
            sent = b"" if method == "HEAD" else body
            with suppress(TimeoutError):  # a peer that does not read
                async with asyncio.timeout(self._limits.slow_timeout):
                    if await attempt(send, start):
                        await attempt(send, {"type": "http.response.body", "body": sent})

    async def _call(
        self, handlers: dict[str, Handler], path: str, scope: Scope, receive: Receive, send: Send
    ) -> http.Response | None:
        if not (handler := handlers.get("GET" if scope["method"] == "HEAD" else scope["method"])):
            return self._guard.origins.preflight(scope, handlers) or http.not_allowed(*handlers)
        try:
            visitor = Visitor() if path in OPEN else await self._guard.admit(scope)
        except Refused as refused:
            return refused.response()
        return await self._api.respond(handler, visitor, scope, receive, send)

    # ---- WebSockets ----

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            visitor = with_name(await self._guard.admit(scope), scope)
            # wire: the path and the query choose the dialect.
            target = for_visitor(target_of(scope), visitor)
            if target.user_id and target.session_id:
                # adk: only the session service knows which user a session belongs to.
                await self.conversations.check(target.user_id, target.session_id)
            if target.user_id and not self.conversations.has_place(target.user_id, target.session_id):
                raise too_many(FullError.TEXT)
        except Refused as no:
            await refuse(scope, receive, send, no.frame, no.status, no.reason, *no.headers, told=no.is_told)
            return
        except (NoSuchTargetError, UnknownConversationError) as refusal:
            await refuse(scope, receive, send, NOT_FOUND, 404, str(refusal))
            return
        except StoreError:
            await refuse(scope, receive, send, STORE_FAILED, 500, STORE_FAILED.reason)
            return
        if self.conversations.is_closing():
            await refuse(scope, receive, send, SERVER_STOPPING, 503, SERVER_STOPPING.reason)
            return
        if not await accept(scope, receive, send):
            return
        if self.conversations.is_closing():  # since the check above
            await send_close(send, SERVER_STOPPING)
            return
        # wire and adk meet: the socket opens conversations, and listens to their rooms (core/room.py).
        socket = Socket(
            self.conversations,
            self._limits,
            target.dialect,
            Admission(visitor, partial(self._guard.renew, scope), self._guard.quotas.rates(visitor)),
            receive,
            send,
            knows_pings=offers_subprotocol(scope),
            pace=pace_for(scope, send, self._limits.queue_bytes),
        )
        self._sockets.add(socket)
        try:
            await socket.serve(scope.get("client"), target.user_id, target.session_id, target.after)
        finally:
            self._sockets.discard(socket)


@cache
def _default() -> Relay:
    return Relay.from_env()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The relay of `Relay.from_env()`, made when the server starts: an import reads no environment."""
    try:
        relay = _default()
    except SettingsError as error:
        if scope["type"] != "lifespan":
            raise
        await receive()
        await send({"type": "lifespan.startup.failed", "message": f"relay: {error}"})
        return

    async def started(event: Event) -> None:
        if event["type"] == "lifespan.startup.complete":
            memory.settle()  # not in `Relay`: in a host's process, this is for the host to decide
        await send(event)

    await relay(scope, receive, started if scope["type"] == "lifespan" else send)


if __name__ == "__main__":
    from adk_relay.__main__ import serve

    serve(sys.argv[1:], prog="python relay.py")
