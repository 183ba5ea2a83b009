"""A relay between WebSocket clients and a Google ADK live agent: one ASGI callable.

    uvicorn relay:app          serves the page and the agent of this folder
    Relay(agent=my_agent)      the same as an ASGI application, alone or mounted in another

This file routes requests. A WebSocket is served by `adk_relay/wire/websocket.py`: a frame is read there, goes
through its dialect's `decode` into the conversation, whose messages come back through the dialect's
`encoder` and the `outbox.Outbox` of each socket. All of these know sockets and no ADK; `agent/` knows ADK
and no sockets.

ASGI in a few lines (https://asgi.readthedocs.io, spec versions 2.3 to 2.5): the server calls the
application once a connection, with a `scope` that says what it is, and two coroutines to `receive` and to
`send` events, which are dicts.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote

from dotenv import load_dotenv

from adk_relay import shipped
from adk_relay.adk.conversations import Conversations
from adk_relay.adk.credentials import missing_credentials
from adk_relay.adk.models import needs_credentials, run_config
from adk_relay.core.interfaces import StoreError, UnknownConversationError
from adk_relay.core.logs import one_line
from adk_relay.core.room import After
from adk_relay.wire import http
from adk_relay.wire.api import Api
from adk_relay.wire.asgi import Receive, Scope, Send
from adk_relay.wire.closing import NOT_FOUND, SERVER_STOPPING, STORE_FAILED, CloseFrame
from adk_relay.wire.dialects import NAME, SESSION_ID, Dialect, is_name, is_session_id
from adk_relay.wire.dialects.chat import CHAT
from adk_relay.wire.dialects.live import SUBPROTOCOL, live
from adk_relay.wire.dialects.turn import TURN
from adk_relay.wire.limits import Limits
from adk_relay.wire.websocket import Socket

log = logging.getLogger("relay")

_SETTINGS: dict[str, Callable[[str], Any]] = {
    "sessions": str,
    "queue_bytes": int,
    "slow_timeout": float,
    "ping_interval": float,
    "pong_timeout": float,
    "idle_timeout": float,
    "mic_ms": float,
    "grace": float,
    "replay_bytes": int,
    "replay_seconds": float,
}
"""The settings of `Relay` and how each is read from RELAY_<NAME>."""


_DEFAULT_AGENT = (
    "adk_relay.agent:root_agent" if shipped("agent").parent.name == "adk_relay" else "agent:root_agent"
)


class SettingsError(ValueError):
    """A setting is wrong, or the agent can't be had; the text says which and what would be right."""


class Relay:
    """An ASGI application that relays between WebSocket clients and one ADK live agent.

    Args:
        agent: any ADK agent.
        run_config: an ADK RunConfig, taken whole; None: sound, transcriptions, compressed context.
        sessions: an ADK session-service URI, or a session service; the folder of a sqlite file is made.
        queue_bytes: bound of a socket's outbound queue, in encoded bytes.
        slow_timeout: seconds a `send` may take before its peer is given up.
        ping_interval: seconds without a frame from a client after which it is pinged.
        pong_timeout: seconds that a client which answers pings has to do so.
        idle_timeout: seconds without content in either direction after which a conversation's run
            ends and its sockets are closed; 0: never.
        mic_ms: shorter microphone frames are merged up to so many milliseconds.
        grace: seconds that a run outlives its conversation's last socket; 0: it ends at once.
        replay_bytes: bytes of a conversation's messages that are kept for a socket that comes back;
            0: none.
        replay_seconds: seconds that they are kept.

    Raises:
        TypeError: `agent` is no ADK agent.
        ValueError: a setting is out of its range, or `sessions` names nothing that is installed.
    """

    def __init__(
        self,
        agent: Any,
        *,
        run_config: Any = None,
        sessions: Any = "sqlite:///.adk/session.db",
        queue_bytes: int = 4 * 1024 * 1024,
        slow_timeout: float = 10.0,
        ping_interval: float = 25.0,
        pong_timeout: float = 10.0,
        idle_timeout: float = 600.0,
        mic_ms: float = 40.0,
        grace: float = 30.0,
        replay_bytes: int = 4 * 1024 * 1024,
        replay_seconds: float = 60.0,
    ) -> None:
        # Asked so that NaN, which is neither, is an error too.
        above_zero = {
            "queue_bytes": queue_bytes,
            "slow_timeout": slow_timeout,
            "ping_interval": ping_interval,
            "pong_timeout": pong_timeout,
        }
        for name, value in above_zero.items():
            if not value > 0:
                raise ValueError(f"{name} is {value}, but must be above 0")
        not_negative = {
            "idle_timeout": idle_timeout,
            "mic_ms": mic_ms,
            "grace": grace,
            "replay_bytes": replay_bytes,
            "replay_seconds": replay_seconds,
        }
        for name, value in not_negative.items():
            if not value >= 0:
                raise ValueError(f"{name} is {value}, but must not be negative")
        self.conversations = Conversations(
            agent,
            config=run_config,
            sessions=sessions,
            grace=grace,
            idle_timeout=idle_timeout,
            mic_ms=mic_ms,
            replay_bytes=replay_bytes,
            replay_seconds=replay_seconds,
        )
        self._limits = Limits(queue_bytes, slow_timeout, ping_interval, pong_timeout, idle_timeout)
        self._files = http.static_files(shipped("static"))
        self._sockets: set[Socket] = set()
        self._api = Api(self.conversations, self._limits, lambda: len(self._sockets))

    @classmethod
    def from_env(cls) -> Relay:
        """A relay as RELAY_… and google-genai's own variables ask for, in the environment or in ./.env.

        Raises:
            SettingsError: one of them is wrong, or the agent needs credentials and there are none.
        """
        load_dotenv(Path.cwd() / ".env")
        _log_somewhere()
        settings: dict[str, Any] = {}
        for name, read in _SETTINGS.items():
            variable = f"RELAY_{name.upper()}"
            if value := os.environ.get(variable):
                try:
                    settings[name] = read(value)
                except ValueError:
                    kind = "a whole number" if read is int else "a number"
                    raise SettingsError(f"{variable} is {value!r}, but must be {kind}") from None
        voice, language = os.environ.get("RELAY_VOICE"), os.environ.get("RELAY_LANGUAGE")
        agent = _agent_named(os.environ.get("RELAY_AGENT") or _DEFAULT_AGENT)
        if needs_credentials(agent) and (missing := missing_credentials()):
            raise SettingsError(f"The agent of RELAY_AGENT speaks through Gemini. {missing}")
        try:
            relay = cls(agent, run_config=run_config(voice, language), **settings)
        except (TypeError, ValueError, OSError) as error:
            raise SettingsError(str(error)) from error
        if relay.conversations.is_rehearsal:
            log.warning(
                "This is the rehearsal agent, which only repeats what it hears. %s",
                missing_credentials() or "RELAY_MODEL asks for it.",
            )
        return relay

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case "lifespan":
                await self._lifespan(receive, send)
            case other:
                raise ValueError(f"relay serves http, websocket and lifespan, not {other!r}")

    async def aclose(self) -> None:
        """Ends every conversation. For hosts that run no lifespan; `lifespan.shutdown` calls it too."""
        for socket in [*self._sockets]:
            socket.stop()
        await self.conversations.aclose()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            event = await receive()
            if event["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    # ---- HTTP ----

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = _path(scope), scope["method"]
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
            # Mounted, and asked for without the slash that the page's relative URLs need.
            # "./", or a prefix with a colon in it would be taken for a scheme.
            target = f"./{quote(_root(scope).rpartition('/')[2])}/"
            response = http.text(307, f"See {target}", (b"location", target.encode()))
        else:
            known = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
            response = self._files[path].response(known)
        if response:
            start, body = response
            # A Content-Length stands in the answer to HEAD too (RFC 9110 section 9.3.2).
            sent = b"" if method == "HEAD" else body
            # Who has gone is an OSError, or with uvicorn and pipelined requests a RuntimeError; who does
            # not read is not waited for either.
            with suppress(OSError, RuntimeError):
                async with asyncio.timeout(self._limits.slow_timeout):
                    await send(start)
                    await send({"type": "http.response.body", "body": sent})

    # ---- WebSockets ----

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            target = _target(scope)
            if target.user_id and target.session_id:
                await self.conversations.check(target.user_id, target.session_id)
        except (_NoSuchPathError, UnknownConversationError) as refusal:
            await _refuse(scope, receive, send, NOT_FOUND, 404, str(refusal))
            return
        except StoreError:
            await _refuse(scope, receive, send, STORE_FAILED, 500, STORE_FAILED.reason)
            return
        if self.conversations.is_closing():
            await _refuse(scope, receive, send, SERVER_STOPPING, 503, SERVER_STOPPING.reason)
            return
        await receive()  # websocket.connect
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if _offers(scope) else None})
        if self.conversations.is_closing():  # meanwhile
            close = {"code": SERVER_STOPPING.code, "reason": SERVER_STOPPING.reason}
            await send({"type": "websocket.close", **close})
            return
        socket = Socket(self.conversations, self._limits, target.dialect, receive, send)
        self._sockets.add(socket)
        try:
            await socket.serve(scope.get("client"), target.user_id, target.session_id, target.after)
        finally:
            self._sockets.discard(socket)


class _Target(NamedTuple):
    """What a WebSocket is for."""

    dialect: Dialect
    user_id: str | None = None
    session_id: str | None = None
    after: After | None = None


class _NoSuchPathError(Exception):
    """A WebSocket was asked for that does not exist; the text says why."""


def _target(scope: Scope) -> _Target:
    """What a WebSocket is for, as its path and its query say."""
    path = _path(scope)
    if path == "/ws":
        return _Target(CHAT)
    if path == "/api/v1/chat/stream":
        return _Target(TURN)
    found = re.fullmatch(r"/ws/([^/]*)", path)
    if not found:
        raise _NoSuchPathError("the paths are /ws/{user_id}, /ws and /api/v1/chat/stream")
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    session_id, after = query.get("session_id", [None])[-1], query.get("after", [None])[-1]
    if not is_name(found[1]):
        raise _NoSuchPathError(f"user_id is {NAME}")
    if session_id is not None and not is_session_id(session_id):
        raise _NoSuchPathError(f"session_id is {SESSION_ID}")
    is_audio = query.get("is_audio", ["false"])[-1]
    if is_audio not in ("true", "false"):
        raise _NoSuchPathError("is_audio is true or false")
    binary = _offers(scope)
    dialect = live(is_audio=is_audio == "true", binary=binary, newest=not (binary or session_id))
    return _Target(dialect, found[1], session_id, _after(after) if after is not None else None)


def _after(after: str) -> After:
    """The last message that a client has got, `<epoch>.<N>` or `<N>`."""
    found = re.fullmatch(r"(?:([A-Za-z0-9_-]{1,64})\.)?([0-9]{1,15})", after)
    if not found:
        raise _NoSuchPathError("after is <epoch>.<N>, or N")
    return After(found[1], int(found[2]))


def _offers(scope: Scope) -> bool:
    """Whether the client offers the subprotocol."""
    return SUBPROTOCOL in scope.get("subprotocols", ())


async def _refuse(
    scope: Scope, receive: Receive, send: Send, close: CloseFrame, status: int, reason: str
) -> None:
    """Refuses a WebSocket so that the client can see why.

    A browser cannot see why an upgrade was refused. So a client that speaks relay.v1 is accepted and at
    once told; any other gets an HTTP response where the server can send one.
    """
    client = scope.get("client")
    log.info(
        "a WebSocket from %s was refused: %d %s", client[0] if client else "?", close.code, one_line(reason)
    )
    await receive()  # websocket.connect
    close = close.because(reason)
    if _offers(scope):
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        await send({"type": "websocket.close", "code": close.code, "reason": close.reason})
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        start, body = http.HttpError(status, reason).response()
        await send({**start, "type": "websocket.http.response.start"})
        await send({"type": "websocket.http.response.body", "body": body})
        await asyncio.sleep(0)  # uvicorn logs an error unless the connection is gone when this returns
    else:
        await send({"type": "websocket.close", "code": close.code, "reason": close.reason})


def _path(scope: Scope) -> str:
    """The path below where the application is mounted: servers pass the whole one and `root_path`."""
    path: str = scope["path"]
    root = _root(scope)
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path


def _root(scope: Scope) -> str:
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


def _agent_named(name: str) -> Any:
    """The agent that RELAY_AGENT names, `module:attribute`; the working directory is looked in, too."""
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise SettingsError(f"RELAY_AGENT is {name!r}, but must be module:attribute")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        raise SettingsError(f"RELAY_AGENT={name}: there is no module {error.name!r}") from error
    except AttributeError as error:
        raise SettingsError(f"RELAY_AGENT={name}: {error}") from error
    except Exception as error:
        raise SettingsError(f"RELAY_AGENT={name}: {type(error).__name__}: {error}") from error


def _log_somewhere() -> None:
    """Shows what relay logs if nobody has asked for logs: servers set up their own loggers only."""
    if log.level == logging.NOTSET:
        log.setLevel(logging.getLogger("uvicorn.error").level or logging.INFO)  # --log-level
    if not logging.getLogger().handlers and not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s:     relay: %(message)s"))
        log.addHandler(handler)


@cache
def _default() -> Relay:
    return Relay.from_env()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """`Relay.from_env()`, made when the server starts: importing this module reads no environment."""
    try:
        relay = _default()
    except SettingsError as error:
        if scope["type"] != "lifespan":
            raise
        await receive()
        await send({"type": "lifespan.startup.failed", "message": f"relay: {error}"})
        return
    await relay(scope, receive, send)


def main() -> None:
    """`python relay.py`: what `uvicorn relay:app` does, with the settings that suit it."""
    import uvicorn

    parser = argparse.ArgumentParser(
        description="Serve the page and an ADK live agent.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: all")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on")
    parser.add_argument("--log-level", default="info", help="debug shows every frame")
    arguments = parser.parse_args()
    uvicorn.run(
        "relay:app",
        host=arguments.host,
        port=arguments.port,
        log_level=arguments.log_level,
        # Sound does not compress; trying costs 13 % of a voice session's CPU.
        ws_per_message_deflate=False,
        # A stalled peer's connection is closed and yet never gone: without a limit it holds the process.
        timeout_graceful_shutdown=3,
    )
    # All is closed. Only a tool that blocks a thread may still run, and Python would wait for it.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
