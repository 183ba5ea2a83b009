"""A relay between WebSocket clients and a Google ADK live agent: one ASGI callable.

    uvicorn relay:app          serves the page and the agent of this folder
    Relay(agent=my_agent)      the same as an ASGI application, alone or mounted in another

This file knows sockets and no ADK; `agent/` knows ADK and no sockets. A frame is read here, goes through
`dialects.decode` into the conversation, whose messages come back through `dialects.encoder` and the
`outbox.Outbox` of each socket.

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
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from dotenv import load_dotenv

HERE = Path(__file__).parent

import agent as _agent

if HERE / "agent" not in (Path(folder) for folder in getattr(_agent, "__path__", ())):
    raise ImportError(
        f"relay needs its own package 'agent' ({HERE / 'agent'}), but another one was found first:"
        f" {getattr(_agent, '__file__', _agent)}. Rename that one, or run relay in a process of its own."
    )

import responses
from agent.credentials import missing_credentials
from agent.inbox import InboxFullError
from agent.live import needs_credentials, run_config
from agent.messages import Ended, Error, Interrupt, Message
from agent.sessions import Conversation, Conversations
from dialects import PING, PONG, SUBPROTOCOL, BadFrameError, decode, encoder, to_json
from outbox import Close, Frame, Outbox

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

log = logging.getLogger("relay")

_CLOSE_WAIT = 1.0
"""Seconds a stalled peer has to take the close frame: `send` waits for it to read."""

_FRAMES_A_TURN = 32
"""So many frames are read from one socket before all others have a turn."""

_MAX_BAD_FRAMES = 20
"""So many in a row are no mistakes any more."""

_SETTINGS: dict[str, Callable[[str], Any]] = {
    "sessions": str,
    "queue_bytes": int,
    "slow_timeout": float,
    "ping_interval": float,
    "pong_timeout": float,
    "idle_timeout": float,
    "mic_ms": float,
    "grace": float,
}
"""The settings of `Relay` and how each is read from RELAY_<NAME>."""


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
        for name, value in {"idle_timeout": idle_timeout, "mic_ms": mic_ms, "grace": grace}.items():
            if not value >= 0:
                raise ValueError(f"{name} is {value}, but must not be negative")
        self.conversations = Conversations(
            agent, config=run_config, sessions=sessions, grace=grace, idle_timeout=idle_timeout, mic_ms=mic_ms
        )
        self.queue_bytes = queue_bytes
        self.slow_timeout = slow_timeout
        self.ping_interval = ping_interval
        self.pong_timeout = pong_timeout
        self._files = responses.static_files(HERE / "static")
        self._started = time.monotonic()
        self._connections = 0

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
        agent = _agent_named(os.environ.get("RELAY_AGENT") or "agent:root_agent")
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
                await self._http(scope, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case "lifespan":
                await self._lifespan(receive, send)
            case other:
                raise ValueError(f"relay serves http, websocket and lifespan, not {other!r}")

    async def aclose(self) -> None:
        """Ends every conversation. For hosts that run no lifespan; `lifespan.shutdown` calls it too."""
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

    async def _http(self, scope: Scope, send: Send) -> None:
        path = _path(scope)
        if scope["method"] not in ("GET", "HEAD"):
            response = responses.text(405, "Only GET and HEAD are served here.", (b"allow", b"GET, HEAD"))
        elif path == "":
            # Mounted, and asked for without the slash that the page's relative URLs need.
            # "./", or a prefix with a colon in it would be taken for a scheme.
            target = f"./{quote(_root(scope).rpartition('/')[2])}/"
            response = responses.text(307, f"See {target}", (b"location", target.encode()))
        elif path == "/health":
            response = responses.as_json(self._health())
        elif file := self._files.get(path):
            known = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
            response = file.response(known)
        else:
            response = responses.text(404, "There is nothing here.")
        start, body = response
        # A Content-Length stands in the answer to HEAD too (RFC 9110 section 9.3.2).
        await send(start)
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def _health(self) -> dict[str, Any]:
        return {
            "status": "ok",
            "model": self.conversations.model,
            "connections": self._connections,
            "uptime": round(time.monotonic() - self._started, 1),
        }

    # ---- WebSockets ----

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            user_id, is_audio = _target(scope)
        except _NoSuchPathError as refusal:
            await _refuse(scope, receive, send, 4404, 404, str(refusal))
            return
        if self.conversations.is_closing():
            await _refuse(scope, receive, send, 1001, 503, "the server is going")
            return
        await receive()  # websocket.connect
        binary = SUBPROTOCOL in scope.get("subprotocols", ())
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL if binary else None})
        if self.conversations.is_closing():  # meanwhile
            await send({"type": "websocket.close", "code": 1001, "reason": "the server is going"})
            return
        self._connections += 1
        try:
            conversation = self.conversations.of(user_id)
            socket = _Socket(self, conversation, receive, send, is_audio=is_audio, binary=binary)
            await socket.serve(scope.get("client"))
        finally:
            self._connections -= 1


class _Socket:
    """One accepted WebSocket: reads, writes and watches, until one of the three finds that it is over."""

    def __init__(
        self,
        relay: Relay,
        conversation: Conversation,
        receive: Receive,
        send: Send,
        *,
        is_audio: bool,
        binary: bool,
    ) -> None:
        self.is_audio = is_audio
        self._relay = relay
        self._conversation = conversation
        self._receive = receive
        self._send = send
        self._outbox = Outbox(encoder(is_audio=is_audio, binary=binary), relay.queue_bytes)
        self._debug = log.isEnabledFor(logging.DEBUG)
        self._last_frame = time.monotonic()
        self._sending_since: float | None = None
        self._pinged = 0.0
        """When the last ping was queued; 0: never."""
        self._ping_sent = 0.0
        """When `send` returned of the first one that no frame has followed."""
        self._has_ponged = False
        self._frames_in = self._frames_out = 0

    def put(self, message: Message) -> None:
        """Takes a message of the conversation's; never waits."""
        match message:
            case Ended("idle"):
                self._outbox.close(4408, "idle")
            case Ended("failed"):
                self._outbox.close(1011, "the agent failed")
            case Ended("stopping"):
                self._outbox.close(1001, "the server is going")
            case _:
                self._outbox.put(message)

    async def serve(self, client: tuple[str, int] | None) -> None:
        """Serves the socket until its end, then closes it if it is still there."""
        began = time.monotonic()
        end = Close(1001, "the server is going")
        self._outbox.put_frame(self._hello())
        self._conversation.attach(self)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write())
                group.create_task(self._watch())
                group.create_task(self._read())
        except* Close as ends:
            end = next(e for e in ends.exceptions if isinstance(e, Close))
        except* Exception as errors:
            end = Close(1011, "an internal error")
            log.exception("%s: the socket failed", self._conversation.user_id, exc_info=errors.exceptions[0])
        finally:
            # 1012: the server is going. Runs are ended while it still waits for its connections to go.
            # A client may close with it too, and only gives up its own grace.
            self._conversation.detach(self, at_once=end.code == 1012)
            self._outbox.give_up()
            log.info(
                "%s %s from %s: %.1f s, %d frames in, %d out, %.0f ms of sound dropped, closed %d %s",
                self._conversation.user_id,
                "audio" if self.is_audio else "text",
                client[0] if client else "?",
                time.monotonic() - began,
                self._frames_in,
                self._frames_out,
                self._outbox.dropped_ms,
                end.code,
                _printable(end.reason),
            )
        if not isinstance(end, _Gone):
            try:
                async with asyncio.timeout(_CLOSE_WAIT):
                    await self._send({"type": "websocket.close", "code": end.code, "reason": end.reason})
            except (TimeoutError, OSError, RuntimeError):
                pass  # it stalls, or has gone meanwhile: the server ends what is left of it

    def _hello(self) -> str:
        conversations, conversation = self._relay.conversations, self._conversation
        return to_json(
            {
                "type": "hello",
                "session_id": conversation.session_id,
                "user_id": conversation.user_id,
                "model": conversations.model,
                "rehearsal": conversations.is_rehearsal,
                "is_audio": self.is_audio,
                "ping_interval": self._relay.ping_interval,
                "epoch": conversation.epoch,
                "seq": conversation.seq,
            }
        )

    async def _read(self) -> None:
        bad_frames = 0
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                raise _Gone(event.get("code", 1005), event.get("reason") or "")
            self._last_frame = time.monotonic()
            self._frames_in += 1
            if self._frames_in % _FRAMES_A_TURN == 0:
                await asyncio.sleep(0)  # `receive` does not wait while frames wait
            text = event.get("text")
            frame: Frame = event["bytes"] if text is None else text
            if self._debug:
                log.debug("[CLIENT TO AGENT] %s: %s", self._conversation.user_id, _brief(frame))
            try:
                said = decode(frame)
                match said:
                    case "ping":
                        self._outbox.put_first(PONG)
                    case "pong":
                        self._has_ponged = True
                    case _:
                        if isinstance(said, Interrupt):  # also of an answer that is over and still queued
                            self._outbox.recall_audio()
                        self._conversation.put(said)
                bad_frames = 0
            except BadFrameError as bad:
                self._outbox.put(Error(bad.code, str(bad)))
                bad_frames += 1
                if bad_frames == _MAX_BAD_FRAMES:
                    self._outbox.close(1008, f"{_MAX_BAD_FRAMES} bad frames in a row")
                    return
            except InboxFullError:
                self._outbox.put(
                    Error("busy", "Too much waits for the model already: try again in a moment.")
                )

    async def _write(self) -> None:
        while True:
            frame = await self._outbox.get()
            if self._debug:
                log.debug("[AGENT TO CLIENT] %s: %s", self._conversation.user_id, _brief(frame))
            self._sending_since = time.monotonic()
            try:
                if isinstance(frame, bytes):
                    await self._send({"type": "websocket.send", "bytes": frame})
                else:
                    await self._send({"type": "websocket.send", "text": frame})
            except (OSError, RuntimeError):
                # A peer that has gone is an OSError (ASGI spec 2.4). Where the server itself has closed,
                # for a broken frame, uvicorn calls it a misuse until `receive` has told. What that tells
                # is the code, so it goes first.
                await asyncio.sleep(_CLOSE_WAIT)
                raise _Gone(1006, "") from None
            self._sending_since = None
            self._frames_out += 1
            if frame is PING and self._ping_sent <= self._last_frame:
                self._ping_sent = time.monotonic()

    async def _watch(self) -> None:
        """Pings a client that is quiet, and gives up one that is dead or has stalled.

        Deadlines are looked at when they may have come; nothing is armed or canceled a frame.
        """
        relay = self._relay
        while True:
            now = time.monotonic()
            stalled_at = (self._sending_since or now) + relay.slow_timeout
            if self._sending_since and now >= stalled_at:
                raise Close(1013, "too slow")
            dead_at = float("inf")
            if self._has_ponged and self._ping_sent > self._last_frame:
                dead_at = self._ping_sent + relay.pong_timeout
                if now >= dead_at:
                    raise Close(4408, "no pong")
            ping_at = max(self._last_frame, self._pinged) + relay.ping_interval
            if now >= ping_at:
                self._outbox.put_first(PING)
                self._pinged = now
                ping_at = now + min(relay.ping_interval, relay.pong_timeout)
            await asyncio.sleep(max(min(stalled_at, dead_at, ping_at) - now, 0.001))


class _Gone(Close):
    """The peer has closed the socket: there is nothing left to close."""


class _NoSuchPathError(Exception):
    """A WebSocket was asked for that does not exist; the text says why."""


def _target(scope: Scope) -> tuple[str, bool]:
    """Whose conversation a WebSocket is for, and whether it wants sound."""
    found = re.fullmatch(r"/ws/([^/]*)", _path(scope))
    if not found:
        raise _NoSuchPathError("the path is /ws/{user_id}")
    # RFC 3986 section 2.3: what needs no escape in a URL.
    if not re.fullmatch(r"[A-Za-z0-9._~-]{1,128}", found[1]):
        raise _NoSuchPathError("user_id is 1 to 128 of A-Z a-z 0-9 . _ ~ -")
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    is_audio = query.get("is_audio", ["false"])[-1]
    if is_audio not in ("true", "false"):
        raise _NoSuchPathError("is_audio is true or false")
    return found[1], is_audio == "true"


async def _refuse(scope: Scope, receive: Receive, send: Send, code: int, status: int, reason: str) -> None:
    """Refuses a WebSocket so that the client can see why.

    A browser cannot see why an upgrade was refused. So a client that speaks relay.v1 is accepted and at
    once told; any other gets an HTTP response where the server can send one.
    """
    await receive()  # websocket.connect
    if SUBPROTOCOL in scope.get("subprotocols", ()):
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        await send({"type": "websocket.close", "code": code, "reason": reason})
    elif "websocket.http.response" in (scope.get("extensions") or {}):
        start, body = responses.text(status, reason)
        await send({**start, "type": "websocket.http.response.start"})
        await send({"type": "websocket.http.response.body", "body": body})
        await asyncio.sleep(0)  # uvicorn logs an error unless the connection is gone when this returns
    else:
        await send({"type": "websocket.close", "code": code, "reason": reason})


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


def _brief(frame: Frame) -> str:
    """A frame for the log: sound and pictures are not worth a line of base64."""
    if isinstance(frame, bytes):
        return f"{len(frame)} bytes of sound"
    return _printable(frame[:300]) + (f"… ({len(frame)} characters)" if len(frame) > 300 else "")


def _printable(said: str) -> str:
    """What a peer said, in one line: it could forge lines of the log otherwise."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in said)


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
