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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from adk_relay import memory, settings, shipped
from adk_relay.core.interfaces import StoreError, UnknownConversationError
from adk_relay.core.logs import one_line
from adk_relay.settings import SettingsError
from adk_relay.wire import http
from adk_relay.wire.api import Api
from adk_relay.wire.asgi import Event, Receive, Scope, Send
from adk_relay.wire.closing import NOT_FOUND, SERVER_STOPPING, STORE_FAILED
from adk_relay.wire.handshake import accept, attempt, refuse, send_close
from adk_relay.wire.limits import Limits
from adk_relay.wire.pacing import pace_for
from adk_relay.wire.targets import NoSuchTargetError, mount_point, offers_subprotocol, path_of, target_of
from adk_relay.wire.websocket import Socket

if TYPE_CHECKING:
    from google.adk.agents import BaseAgent
    from google.adk.agents.run_config import RunConfig
    from google.adk.sessions import BaseSessionService

log = logging.getLogger("relay")


class Relay:
    """An ASGI application that relays between WebSocket clients and one ADK live agent.

    Args:
        agent: any ADK agent.
        run_config: an ADK RunConfig, used as it is; None: sound, transcriptions, compressed context.
        sessions: an ADK session-service URI, or a session service; the folder of a sqlite file is created.

    The other arguments are settings: `adk_relay/settings.py` has the meaning and the range of each.

    Raises:
        TypeError: `agent` is not an ADK agent.
        ValueError: a setting is out of its range, or `sessions` names a service that is not installed.
    """

    def __init__(
        self,
        agent: BaseAgent,
        *,
        run_config: RunConfig | None = None,
        sessions: str | BaseSessionService = "sqlite:///.adk/session.db",
        queue_bytes: int = 4 * 1024 * 1024,
        slow_timeout: float = 10.0,
        ping_interval: float = 25.0,
        pong_timeout: float = 10.0,
        idle_timeout: float = 600.0,
        mic_ms: float = 40.0,
        grace: float = 30.0,
        replay_bytes: int = 4 * 1024 * 1024,
        replay_seconds: float = 60.0,
        sound: str = "short",
    ) -> None:
        # Imported here and not at the top: importing ADK is slow, and `import relay` must be fast.
        from adk_relay.adk.conversations import Conversations

        settings.check(
            queue_bytes=queue_bytes,
            slow_timeout=slow_timeout,
            ping_interval=ping_interval,
            pong_timeout=pong_timeout,
            idle_timeout=idle_timeout,
            mic_ms=mic_ms,
            grace=grace,
            replay_bytes=replay_bytes,
            replay_seconds=replay_seconds,
            sound=sound,
        )
        # adk: it handles messages and listeners, and knows nothing of sockets.
        self.conversations = Conversations(
            agent,
            config=run_config,
            sessions=sessions,
            grace=grace,
            idle_timeout=idle_timeout,
            mic_ms=mic_ms,
            replay_bytes=replay_bytes,
            replay_seconds=replay_seconds,
            sound=sound,
        )
        # wire: it uses the conversations through the Protocols of core/interfaces.py only.
        self._limits = Limits(queue_bytes, slow_timeout, ping_interval, pong_timeout, idle_timeout)
        self._files = http.static_files(shipped("static"))
        self._sockets: set[Socket] = set()
        self._api = Api(self.conversations, self._limits, lambda: len(self._sockets))

    @classmethod
    def from_env(cls) -> Relay:
        """A relay configured by the RELAY_… variables and google-genai's own, in the environment or ./.env.

        Raises:
            SettingsError: a variable is wrong, or the agent needs credentials and there are none.
        """
        from google.adk.agents import BaseAgent

        from adk_relay.adk.credentials import missing_credentials
        from adk_relay.adk.models import needs_credentials, run_config
        from adk_relay.adk.rehearse import rehearse
        from adk_relay.agents import find_agent

        settings.load_env_files(Path.cwd())
        settings.show_logs()
        values = settings.from_environment()
        agent, file, origin = find_agent(values.get("agent"), Path.cwd())
        arguments = {name: value for name, value in values.items() if settings.SETTINGS[name].is_argument}
        config = run_config(values.get("voice"), values.get("language"))
        if values.get("model") == "rehearsal" and isinstance(agent, BaseAgent):
            rehearse(agent)
        try:
            is_gemini = needs_credentials(agent)
        except ValueError as error:  # ADK does not know the model
            raise SettingsError(f"{origin}: {one_line(error)}") from error
        if is_gemini and (missing := missing_credentials()):
            raise SettingsError(f"{origin} uses Gemini. {missing}")
        try:
            relay = cls(agent, run_config=config, **arguments)
        except TypeError as error:
            raise SettingsError(f"{origin}: {error}") from error
        except (ValueError, OSError) as error:
            raise SettingsError(one_line(error)) from error
        log.info("serving the agent %s, from %s", agent.name, file)
        if relay.conversations.is_rehearsal:
            if values.get("model") == "rehearsal":
                why = "RELAY_MODEL selects it."
            else:
                why = missing_credentials() or "The agent itself has this model."
            log.warning("This is the rehearsal agent, which only repeats what it hears. %s", why)
        return relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.conversations.use_loop():
            self._sockets.clear()
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
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
        if handlers := self._api.handlers(path):
            if handler := handlers.get("GET" if method == "HEAD" else method):
                response = await self._api.respond(handler, scope, receive, send)
            else:
                response = http.not_allowed(*handlers)
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

    # ---- WebSockets ----

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            # wire: the path and the query choose the dialect.
            target = target_of(scope)
            if target.user_id and target.session_id:
                # adk: only the session service knows which user a session belongs to.
                await self.conversations.check(target.user_id, target.session_id)
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
