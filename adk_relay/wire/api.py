"""The HTTP interface: lists, reads, clears and deletes conversations, and answers single texts.

`static/openapi.json` describes what it takes and returns. Errors are JSON with a `detail`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from adk_relay.core.inbox import InboxFullError
from adk_relay.core.interfaces import (
    GUEST,
    Conversations,
    StoppingError,
    StoreError,
    Summary,
    ToolResultError,
    UnknownConversationError,
    UnknownToolError,
)
from adk_relay.core.messages import Line, ToolStart
from adk_relay.core.requests import BusyError
from adk_relay.wire.asgi import Event, Receive, Scope, Send
from adk_relay.wire.dialects import BadFrameError, start_fields, tool_fields, tool_result, turn
from adk_relay.wire.http import HttpError, Response, as_json, event_stream
from adk_relay.wire.http_listener import ClientGoneError, HttpListener, busy, ended, while_connected
from adk_relay.wire.limits import Limits
from adk_relay.wire.outbox import Outbox
from adk_relay.wire.targets import query_of

MAX_BODY_BYTES = 64 * 1024
_TOO_LONG = f"The body may have at most {MAX_BODY_BYTES} bytes."

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 1000
"""How many conversations a list has if the query names no limit, and the largest limit."""

_OWN_SITE = (b"", b"same-origin", b"none")
"""Values of Sec-Fetch-Site for requests that no other site has made (W3C Fetch Metadata).

b"": there is no such header, so the client is not a browser.
"""

_EVENT_STREAM = re.compile(rb"text/event-stream(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
"""Matches an Accept header that asks for server-sent events (RFC 9110 section 12.5.1)."""

Handler = Callable[[Scope, Receive, Send], Awaitable[Response | None]]


class Api:
    """Everything that is served over HTTP except files.

    Args:
        conversations: the conversations that it serves.
        limits: the limits of a request.
        connections: returns how many WebSockets are open.
    """

    def __init__(self, conversations: Conversations, limits: Limits, connections: Callable[[], int]) -> None:
        self._conversations = conversations
        self._limits = limits
        self._connections = connections
        self._start = time.time()
        self._began = time.monotonic()

    async def respond(self, handler: Handler, scope: Scope, receive: Receive, send: Send) -> Response | None:
        """The response to a request; None: it was sent already, or the client has gone."""
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
            return busy(str(full)).response()
        except ClientGoneError:
            return None
        except StoppingError:
            return ended("stopping").response()
        except StoreError:
            return HttpError(500, "The conversations can't be reached. The server's log says why.").response()

    def handlers(self, path: str) -> dict[str, Handler]:
        """The handlers of a path by method; empty: there is no such path."""
        match path.split("/")[1:]:
            case ["health"]:
                return {"GET": self._health}
            case ["ready"]:
                return {"GET": self._ready}
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
            case ["sessions", session_id, "tool_result"]:
                return {"POST": partial(self._answer_tool, session_id)}
            case ["api", "v1", "chat"]:
                return {"POST": self._chat}
        return {}

    # ---- health and statistics ----

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> Response:
        return as_json({"status": "ok", **self._counts()})

    async def _ready(self, scope: Scope, receive: Receive, send: Send) -> Response:
        if not await self._conversations.is_ready():
            raise HttpError(503, "Conversations can't be stored now. The server's log says why.")
        return as_json({"status": "ready"})

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
            "uptime_seconds": round(time.monotonic() - self._began, 1),
            "total_requests": stats.requests,
            "successful_requests": stats.successful,
            "failed_requests": stats.failed,
            "active_sessions": self._conversations.active,
            "websocket_connections": self._connections(),
        }

    # ---- conversations ----

    async def _create(self, scope: Scope, receive: Receive, send: Send) -> Response:
        body = await self._body(receive)
        fields = _json_object(body) if body.strip() else {}
        if not isinstance(fields.get("model_id"), str | None):
            raise HttpError(400, "model_id must be a string.")
        session_id = await self._conversations.create()
        return as_json(
            {"session_id": session_id, "model": self._conversations.model, "timestamp": _iso(time.time())}
        )

    async def _list(self, scope: Scope, receive: Receive, send: Send) -> Response:
        limit = query_of(scope).get("limit", str(_DEFAULT_LIMIT))
        if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= _MAX_LIMIT:
            raise HttpError(400, f"limit must be a number from 1 to {_MAX_LIMIT}.")
        summaries = await self._conversations.list(int(limit))
        return as_json(
            {
                "active_sessions": self._conversations.active,
                "sessions": [
                    {
                        "session_id": summary.session_id,
                        "model": self._conversations.model,
                        "message_count": summary.user_messages + summary.model_messages,
                        "duration_minutes": round(_seconds(summary) / 60, 2),
                        "connected_clients": summary.connections,
                        "created_at": _iso(summary.created_at),
                        "last_activity": _iso(summary.last_activity),
                    }
                    for summary in summaries
                ],
            }
        )

    async def _read(self, session_id: str, scope: Scope, receive: Receive, send: Send) -> Response:
        before = query_of(scope).get("before")
        if before is not None and not re.fullmatch("[1-9][0-9]{0,8}", before):
            raise HttpError(400, "before must be the number of a message.")
        number = None if before is None else int(before)
        summary, lines, first = await self._conversations.read(session_id, number)
        return as_json(
            {
                "session_id": session_id,
                "model": self._conversations.model,
                "message_count": summary.user_messages + summary.model_messages,
                "session_duration_seconds": round(_seconds(summary), 1),
                "user_messages": summary.user_messages,
                "model_messages": summary.model_messages,
                "created_at": _iso(summary.created_at),
                "first": first,
                "history": [_line(line) for line in lines],
                "pending": [_waiting(call) for call in summary.pending],
            }
        )

    async def _delete(self, session_id: str, scope: Scope, receive: Receive, send: Send) -> Response:
        await self._conversations.reset(session_id, delete=True)
        return as_json({"message": f"The session {session_id} was deleted."})

    async def _clear(self, session_id: str, scope: Scope, receive: Receive, send: Send) -> Response:
        await self._conversations.reset(session_id, delete=False)
        return as_json({"message": f"The session {session_id} was cleared."})

    async def _answer_tool(self, session_id: str, scope: Scope, receive: Receive, send: Send) -> Response:
        answer = tool_result(_json_object(await self._body(receive)))
        conversation = await self._conversations.find(session_id)
        try:
            conversation.waiting.answer(answer)
        except UnknownToolError as unknown:
            raise HttpError(404, str(unknown)) from None
        except ToolResultError as unfit:
            raise HttpError(400, str(unfit)) from None
        return as_json({"message": f"The call {answer.tool_id} was answered."})

    # ---- one turn ----

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> Response | None:
        ask = turn.request(_json_object(await self._body(receive)))
        assert ask.session_id
        streams = _EVENT_STREAM.search(_header(scope, b"accept").lower())
        encode = (turn.event_stream if streams else turn.encoder)(ask.session_id)
        listener = HttpListener(Outbox(encode, self._limits.queue_bytes))
        try:
            conversation = await self._conversations.open(GUEST, ask.session_id)
        except StoreError:
            self._conversations.stats.fail_early()
            raise
        conversation.attach(listener)
        try:
            conversation.ask(ask.text, listener)
            await while_connected(receive, self._stream(listener, send) if streams else listener.finish())
        finally:
            conversation.detach(listener)
        if streams:
            return None
        if not listener.answer:
            raise listener.error or ended("failed")
        response = next(turn.events(ask.session_id, listener.answer))
        del response["type"]
        return as_json({**response, "session_id": ask.session_id})

    async def _body(self, receive: Receive) -> bytes:
        """A request's body.

        Raises:
            HttpError: it is too long, or does not come in time.
            ClientGoneError: the client has gone.
        """
        body, more = b"", True
        try:
            async with asyncio.timeout(self._limits.slow_timeout):
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise ClientGoneError
                    body += event.get("body", b"")
                    more = event.get("more_body", False)
                    if len(body) > MAX_BODY_BYTES:
                        raise HttpError(413, _TOO_LONG)
        except TimeoutError:
            raise HttpError(408, f"The body did not come within {self._limits.slow_timeout:g} s.") from None
        return body

    async def _stream(self, listener: HttpListener, send: Send) -> None:
        """Sends events as they come, and a comment after a silence, so that no proxy closes the stream."""

        async def send_in_time(event: Event) -> None:
            try:
                async with asyncio.timeout(self._limits.slow_timeout):
                    await send(event)
            except OSError:  # the peer has gone, or it does not read (TimeoutError is an OSError)
                raise ClientGoneError from None

        await send_in_time(event_stream())
        async for frame in listener.frames(self._limits.ping_interval):
            body = frame if isinstance(frame, bytes) else frame.encode()
            await send_in_time({"type": "http.response.body", "body": body, "more_body": True})
        await send_in_time({"type": "http.response.body", "body": b""})


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


def _line(line: Line) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": line.role, "text": line.text}
    if line.id:
        fields["id"] = line.id
    if line.open:
        fields |= {"open": True, "chunks": line.chunks}
    return fields


def _waiting(call: ToolStart) -> dict[str, Any]:
    fields = tool_fields(call) | start_fields(call)
    del fields["pending"]  # all of these are
    return {**fields, "timestamp": call.timestamp}


def _seconds(summary: Summary) -> float:
    return max(summary.last_activity - summary.created_at, 0.0)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
