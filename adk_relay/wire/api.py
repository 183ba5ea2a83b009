"""The HTTP interface: conversations listed, read, cleared and deleted, and a turn for who has no WebSocket.

What it takes and gives is told by `static/openapi.json`. Errors are JSON with a `detail`.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal
from urllib.parse import parse_qs

from adk_relay.core.inbox import InboxFullError
from adk_relay.core.interfaces import (
    GUEST,
    BusyError,
    Conversations,
    StoppingError,
    StoreError,
    Summary,
    UnknownConversationError,
)
from adk_relay.core.messages import Ended, Error, Line, Message, TurnEnd
from adk_relay.wire.asgi import Event, Receive, Scope, Send
from adk_relay.wire.dialects import BadFrameError, turn
from adk_relay.wire.http import HttpError, Response, as_json, event_stream
from adk_relay.wire.outbox import Close, Frame, Outbox
from adk_relay.wire.websocket import ENDS, Limits

MAX_BODY_BYTES = 64 * 1024
_TOO_LONG = f"The body may have {MAX_BODY_BYTES} bytes."

_LISTED = 100
_MAX_LISTED = 1000
"""How many conversations a list has if it is not asked for a number, and at the most."""

_OWN_SITE = (b"", b"same-origin", b"none")
"""What a browser says of a request that is no other site's (W3C Fetch Metadata); "": no browser."""

_ENDED = {"idle": 504, "failed": 502, "stopping": 503}
"""What it means for a request that its conversation has ended (RFC 9110 section 15.6)."""

_EVENT_STREAM = re.compile(rb"text/event-stream(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
"""Whether an Accept asks for events (RFC 9110 section 12.5.1)."""

Handler = Callable[[Scope, Receive, Send], Awaitable[Response | None]]


class Api:
    """What is served over HTTP besides files.

    Args:
        conversations: whose conversations.
        limits: what a stream of events is granted.
        connections: tells how many WebSockets are open.
    """

    def __init__(self, conversations: Conversations, limits: Limits, connections: Callable[[], int]) -> None:
        self._conversations = conversations
        self._limits = limits
        self._connections = connections
        self._start = time.time()

    async def respond(self, handler: Handler, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """The answer to a request; None: it is sent already, or nobody waits for it any more."""
        try:
            if scope["method"] not in ("GET", "HEAD") and _header(scope, b"sec-fetch-site") not in _OWN_SITE:
                raise HttpError(403, "A page of another site may not change anything here.")
            length = _header(scope, b"content-length")
            if length.isdigit() and int(length) > MAX_BODY_BYTES:
                raise HttpError(413, _TOO_LONG)
            return await handler(scope, receive, send)
        except HttpError as error:
            return error.response()
        except BadFrameError as bad:
            return HttpError(400, str(bad)).response()
        except UnknownConversationError as unknown:
            return HttpError(404, str(unknown)).response()
        except (BusyError, InboxFullError) as full:
            return _busy(str(full)).response()
        except _GoneError:
            return None
        except StoppingError:
            return _ended("stopping").response()
        except StoreError:
            return HttpError(500, "The conversations can't be reached. The server's log says why.").response()

    def handlers(self, path: str) -> dict[str, Handler]:
        """Who answers a path, by method; nobody, if there is no such path."""
        match path.split("/")[1:]:
            case ["health"]:
                return {"GET": self._health}
            case ["stats"]:
                return {"GET": self._stats}
            case ["sessions"]:
                return {"GET": self._list}
            case ["sessions", "new"]:
                return {"POST": self._create}
            case ["sessions", session_id]:
                return {"GET": partial(self._read, session_id), "DELETE": partial(self._delete, session_id)}
            case ["sessions", session_id, "clear"]:
                return {"POST": partial(self._clear, session_id)}
            case ["api", "v1", "chat"]:
                return {"POST": self._chat}
        return {}

    # ---- how things stand ----

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> Response:
        return as_json({"status": "ok", **self._counts()})

    async def _stats(self, scope: Scope, receive: Receive, send: Send) -> Response:
        stats = self._conversations.stats
        return as_json(
            {
                **self._counts(),
                "average_response_time": round(stats.seconds / stats.successful, 3)
                if stats.successful
                else 0.0,
                "start_time": _iso(self._start),
                "total_sessions_created": stats.created,
            }
        )

    def _counts(self) -> dict[str, Any]:
        stats = self._conversations.stats
        return {
            "model": self._conversations.model,
            "uptime_seconds": round(time.time() - self._start, 1),
            "total_requests": stats.requests,
            "successful_requests": stats.successful,
            "failed_requests": stats.failed,
            "active_sessions": self._conversations.active,
            "websocket_connections": self._connections(),
        }

    # ---- conversations ----

    async def _create(self, scope: Scope, receive: Receive, send: Send) -> Response:
        body = await self._body(receive)
        asked = _json_object(body) if body.strip() else {}
        if not isinstance(asked.get("model_id"), str | None):
            raise HttpError(400, "model_id must be a string.")
        session_id = await self._conversations.create()
        return as_json(
            {"session_id": session_id, "model": self._conversations.model, "timestamp": _iso(time.time())}
        )

    async def _list(self, scope: Scope, receive: Receive, send: Send) -> Response:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        limit = query.get("limit", [str(_LISTED)])[-1]
        if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= _MAX_LISTED:
            raise HttpError(400, f"limit must be a number from 1 to {_MAX_LISTED}.")
        summaries = await self._conversations.list(int(limit))
        return as_json(
            {
                "active_sessions": self._conversations.active,
                "sessions": [
                    {
                        "session_id": one.session_id,
                        "model": self._conversations.model,
                        "message_count": one.user_messages + one.model_messages,
                        "duration_minutes": round(_seconds(one) / 60, 2),
                        "connected_clients": one.connections,
                        "created_at": _iso(one.created_at),
                        "last_activity": _iso(one.last_activity),
                    }
                    for one in summaries
                ],
            }
        )

    async def _read(self, session_id: str, scope: Scope, receive: Receive, send: Send) -> Response:
        one, lines = await self._conversations.read(session_id)
        return as_json(
            {
                "session_id": session_id,
                "model": self._conversations.model,
                "message_count": one.user_messages + one.model_messages,
                "session_duration_seconds": round(_seconds(one), 1),
                "user_messages": one.user_messages,
                "model_messages": one.model_messages,
                "created_at": _iso(one.created_at),
                "history": [_line(line) for line in lines],
            }
        )

    async def _delete(self, session_id: str, scope: Scope, receive: Receive, send: Send) -> Response:
        await self._conversations.reset(session_id, delete=True)
        return as_json({"message": f"The session {session_id} was deleted."})

    async def _clear(self, session_id: str, scope: Scope, receive: Receive, send: Send) -> Response:
        await self._conversations.reset(session_id, delete=False)
        return as_json({"message": f"The session {session_id} was cleared."})

    # ---- one turn ----

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        asked = turn.request(_json_object(await self._body(receive)))
        assert asked.session_id
        streams = _EVENT_STREAM.search(_header(scope, b"accept").lower())
        encode = (turn.event_stream if streams else turn.encoder)(asked.session_id)
        asker = _Asker(Outbox(encode, self._limits.queue_bytes))
        conversation = await self._conversations.open(GUEST, asked.session_id)
        conversation.attach(asker)
        try:
            conversation.ask(asked.text, asker)
            answering = self._stream(asker, send) if streams else asker.finish()
            await _while_there(receive, answering)
        finally:
            conversation.detach(asker)
        if streams:
            return None
        if not asker.end:
            raise asker.error or _ended("failed")
        response = next(turn.events(asked.session_id, asker.end))
        del response["type"]
        return as_json({**response, "session_id": asked.session_id})

    async def _body(self, receive: Receive) -> bytes:
        """A request's body.

        Raises:
            HttpError: it is too long, or does not come in time.
            _GoneError: its sender has gone.
        """
        body, more = b"", True
        try:
            async with asyncio.timeout(self._limits.slow_timeout):
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise _GoneError
                    body += event.get("body", b"")
                    more = event.get("more_body", False)
                    if len(body) > MAX_BODY_BYTES:
                        raise HttpError(413, _TOO_LONG)
        except TimeoutError:
            raise HttpError(408, f"The body did not come within {self._limits.slow_timeout:g} s.") from None
        return body

    async def _stream(self, asker: _Asker, send: Send) -> None:
        """Sends events as they come, and something now and then, or a proxy would take it for dead."""

        async def send_in_time(event: Event) -> None:
            try:
                async with asyncio.timeout(self._limits.slow_timeout):
                    await send(event)
            except OSError:  # a TimeoutError is one
                raise _GoneError from None

        await send_in_time(event_stream())
        async for frame in asker.frames(self._limits.ping_interval):
            body = frame if isinstance(frame, bytes) else frame.encode()
            await send_in_time({"type": "http.response.body", "body": body, "more_body": True})
        await send_in_time({"type": "http.response.body", "body": b""})


class _Asker:
    """Who listens for the answer to one request."""

    is_audio = False
    attends: Literal["own"] = "own"

    def __init__(self, outbox: Outbox) -> None:
        self.connection_id = secrets.token_urlsafe(9)
        self.end: TurnEnd | None = None
        self.error: HttpError | None = None
        self._outbox = outbox

    def put(self, message: Message) -> None:
        """Takes a message of the conversation's; never waits."""
        match message:
            case Ended(why):
                if not self.error:
                    self.error = _ended(why)
                    self._outbox.put(Error(why, self.error.detail))
                self._outbox.close(1011, why)
            case Error(code, said):
                self.error = _busy(said) if code == "busy" else HttpError(502, said)
                self._outbox.put(message)
                if code == "busy":
                    self._outbox.close(1013, code)
            case TurnEnd(goes_on=False):
                self.end = message
                self._outbox.put(message)
                self._outbox.close(1000, "done")
            case _:
                self._outbox.put(message)

    def replay(self, messages: Sequence[Message]) -> None:
        """Is never asked for."""

    async def finish(self) -> None:
        """Waits for the end."""
        async for _ in self.frames(None):
            pass

    async def frames(self, patience: float | None) -> AsyncIterator[Frame]:
        """What there is to send, to the end; after `patience` seconds of nothing, a comment."""
        while True:
            try:
                async with asyncio.timeout(patience):
                    frame = await self._outbox.get()
            except TimeoutError:
                frame = ": still here\n\n"
            except Close:
                if not (self.end or self.error):  # it is the queue that has given up
                    told = self._outbox.encode(Error("too_slow", "You read too slowly to get the answer."))
                    for frame in told if isinstance(told, tuple) else ():
                        yield frame
                return
            yield frame


class _GoneError(Exception):
    """The client has gone, and waits for nothing any more."""


async def _while_there(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Sees `work` to its end.

    Raises:
        _GoneError: the client went away before it.
    """
    tasks = asyncio.create_task(work), asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ends = [task.done() for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not ends[0]:
        raise _GoneError
    tasks[0].result()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise HttpError(400, "The body must be JSON.") from None
    if not isinstance(value, dict):
        raise HttpError(400, "The body must be a JSON object.")
    return value


def _header(scope: Scope, wanted: bytes) -> bytes:
    return b",".join(value for name, value in scope["headers"] if name == wanted)


def _ended(why: str) -> HttpError:
    return HttpError(_ENDED[why], ENDS[why])


def _busy(why: str) -> HttpError:
    return HttpError(429, why, (b"retry-after", b"5"))


def _line(line: Line) -> dict[str, Any]:
    said: dict[str, Any] = {"role": line.role, "text": line.text}
    if line.id:
        said["id"] = line.id
    if line.open:
        said |= {"open": True, "chunks": line.pieces}
    return said


def _seconds(one: Summary) -> float:
    return max(one.last_activity - one.created_at, 0.0)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
