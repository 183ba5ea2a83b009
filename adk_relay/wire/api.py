"""The HTTP interface: lists, reads, renames, clears and deletes conversations, and answers single texts.

`static/openapi.json` describes what it takes and returns. Errors are JSON with a `detail`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Literal, get_args

from adk_relay.core.inbox import InboxFullError
from adk_relay.core.interfaces import (
    Conversations,
    StoppingError,
    StoreError,
    ToolResultError,
    UnknownConversationError,
    UnknownToolError,
    UnreachableError,
)
from adk_relay.core.logs import connection_id, conversation_id
from adk_relay.core.requests import BusyError
from adk_relay.core.times import iso, now
from adk_relay.core.titles import MAX_TITLE_CHARS, one_line
from adk_relay.core.visitor import Visitor
from adk_relay.core.whole import Counts, Role, Whole, counts_of, total
from adk_relay.wire import http
from adk_relay.wire.asgi import Event, Receive, Scope, Send, query_of
from adk_relay.wire.body import MAX_BODY_BYTES, TOO_LONG, json_object, read_body
from adk_relay.wire.closing import CONVERSATION_ENDED_TEXT
from adk_relay.wire.dialects import BadFrameError, is_session_id, tool_result, turn
from adk_relay.wire.dialects.state_delta import check_state
from adk_relay.wire.guard import Guard, Refused, invitation
from adk_relay.wire.http import HttpError, Response, as_json, event_stream, retry_after
from adk_relay.wire.http_listener import ClientGoneError, HttpListener, busy, ended, while_connected
from adk_relay.wire.limits import Limits
from adk_relay.wire.outbox import Frame, Outbox
from adk_relay.wire.shown import in_list, with_history
from adk_relay.wire.targets import NoSuchTargetError, as_user
from adk_relay.wire.twilio.voice import answer_call

_DEFAULT_LIMIT = 100
_MAX_LIMIT = 1000
"""How many conversations a list has if the query names no limit, and the largest limit."""

_EVENT_STREAM = re.compile(rb"text/event-stream(?!\s*;\s*q=0(\.0*)?\s*(,|$))")
"""Matches an Accept header that asks for server-sent events (RFC 9110 section 12.5.1)."""

OPEN = ("/health", "/ready")
"""The paths that need no token: they are for what watches the server."""

_DRAINING = ("/health", "/stats", "/metrics")
"""The paths that are served also while the server drains."""

_VOICE = "/twilio/voice"

Handler = Callable[[Visitor, Scope, Receive, Send], Awaitable[Response | None]]


class Api:
    """Everything that is served over HTTP except files.

    Args:
        conversations: the conversations that it serves.
        limits: the limits of a request.
        guard: admits clients, and issues invitations.
        connections: returns how many WebSockets are open.
        later: returns the headers for whom is refused because the server is about to stop; empty: it is not.
        metrics: returns the response with the metrics.
        only: the paths that are served; None: all. They are then for what watches the process, and need no
            token.
        whole: all processes that share conversations; None: there is one.
    """

    def __init__(
        self,
        conversations: Conversations,
        limits: Limits,
        guard: Guard,
        connections: Callable[[], int],
        later: Callable[[], http.Headers],
        metrics: Callable[[], Response],
        only: Collection[str] | None = None,
        whole: Whole | None = None,
    ) -> None:
        self._conversations = conversations
        self._limits = limits
        self._guard = guard
        self._connections = connections
        self._later = later
        self._metrics = metrics
        self._only = only
        self._open = only or OPEN
        self._whole = whole
        self._start = time.time()
        self._began = time.monotonic()

    async def respond(
        self, handler: Handler, path: str, scope: Scope, receive: Receive, send: Send
    ) -> Response | None:
        """The response to a request for a path; None: it was sent already, or the client has gone."""
        try:
            length = _header(scope, b"content-length")
            if length.isdigit() and int(length) > MAX_BODY_BYTES:
                raise HttpError(413, TOO_LONG)
            if path not in _DRAINING and (later := self._later()):
                raise HttpError(503, CONVERSATION_ENDED_TEXT["stopping"], *later)
            # A call is signed, body and all.
            is_admitted = path in self._open or path == _VOICE
            visitor = Visitor() if is_admitted else await self._guard.admit(scope)
            if path.startswith("/sessions"):
                visitor = as_user(visitor, scope)
            return await handler(visitor, scope, receive, send)
        except (HttpError, Refused) as error:
            return error.response()
        except (BadFrameError, NoSuchTargetError) as bad:
            return HttpError(400, str(bad)).response()
        except UnknownConversationError as unknown:
            return HttpError(404, str(unknown)).response()
        except UnreachableError as away:
            return HttpError(503, str(away), retry_after(5)).response()
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
        if self._only is not None and path not in self._only:
            return {}
        match path.split("/")[1:]:
            case ["health"]:
                return {"GET": self._health}
            case ["ready"]:
                return {"GET": self._ready}
            case ["stats"]:
                return {"GET": self._stats}
            case ["metrics"]:
                return {"GET": self._show_metrics}
            case ["sessions"]:
                return {"GET": self._list}
            case ["sessions", "new"]:
                return {"POST": self._create}
            case ["sessions", session_id]:
                return {
                    "GET": partial(self._read, session_id),
                    "DELETE": partial(self._delete, session_id),
                    "PATCH": partial(self._rename, session_id),
                }
            case ["sessions", session_id, "clear"]:
                return {"POST": partial(self._clear, session_id)}
            case ["sessions", session_id, "invite"]:
                return {"POST": partial(self._invite, session_id)}
            case ["sessions", session_id, "tool_result"]:
                return {"POST": partial(self._answer_tool, session_id)}
            case ["api", "v1", "chat"]:
                return {"POST": self._chat}
            case ["twilio", "voice"]:
                return {"POST": self._answer_call}
        return {}

    # ---- health and statistics ----

    async def _health(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> Response:
        if self._whole and self._whole.has_failed:
            raise HttpError(503, "This process has to be started again. Its log says why.")
        return as_json({"status": "ok", **self._counts(self._all())})

    async def _ready(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> Response:
        if not await self._conversations.is_ready():
            raise HttpError(503, "Conversations can't be held or stored now. The server's log says why.")
        return as_json({"status": "ready"})

    async def _stats(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> Response:
        counts = self._all()
        average = counts.seconds / counts.successful if counts.successful else 0.0
        return as_json(
            {
                **self._counts(counts),
                "average_response_time": round(average, 3),
                "start_time": iso(self._start),
                "total_sessions_created": counts.created,
            }
        )

    async def _show_metrics(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> Response:
        if self._only is None and not self._guard.is_on:
            raise HttpError(404, "Everybody could read the metrics here: see RELAY_METRICS_PORT.")
        if visitor.session_id is not None:
            raise HttpError(403, "You were invited to one conversation only.")
        return self._metrics()

    def _own(self) -> Counts:
        """What this process has, and has counted."""
        return counts_of(self._conversations.stats, self._conversations.active, self._connections())

    def _all(self) -> Counts:
        """The same of all processes together. Those of the others may be some seconds old."""
        return total(self._whole.processes) if self._whole else self._own()

    def _counts(self, counts: Counts) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "model": self._conversations.model,
            "uptime_seconds": round(time.monotonic() - self._began, 1),
            **_numbers(counts),
        }
        if self._whole:
            roles = [process.role for process in self._whole.processes]
            shown["processes"] = {role: roles.count(role) for role in get_args(Role)}
            shown["process"] = _numbers(self._own())
        return shown

    # ---- conversations ----

    async def _create(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> Response:
        if visitor.session_id is not None:
            raise HttpError(403, "You were invited to one conversation only.")
        body = await read_body(receive, self._limits.slow_timeout)
        fields = json_object(body) if body.strip() else {}
        if not isinstance(fields.get("model_id"), str | None):
            raise HttpError(400, "model_id must be a string.")
        session_id, model = await self._conversations.create(visitor.owner), self._conversations.model
        return as_json({"session_id": session_id, "model": model, "timestamp": now()})

    async def _list(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> Response:
        limit = query_of(scope).get("limit", str(_DEFAULT_LIMIT))
        if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= _MAX_LIMIT:
            raise HttpError(400, f"limit must be a number from 1 to {_MAX_LIMIT}.")
        if visitor.session_id is None:
            summaries = await self._conversations.list(visitor.owner, int(limit))
        else:
            summaries = [(await self._conversations.read(visitor.owner, visitor.session_id))[0]]
        return as_json(
            {
                "active_sessions": self._all().conversations,
                "sessions": [in_list(summary, self._conversations.model) for summary in summaries],
            }
        )

    async def _read(
        self, session_id: str, visitor: Visitor, scope: Scope, receive: Receive, send: Send
    ) -> Response:
        _allow(visitor, session_id, "read")
        before = query_of(scope).get("before")
        if before is not None and not re.fullmatch("[1-9][0-9]{0,8}", before):
            raise HttpError(400, "before must be the number of a message.")
        number = None if before is None else int(before)
        summary, lines, first = await self._conversations.read(visitor.owner, session_id, number)
        return as_json(with_history(summary, self._conversations.model, lines, first))

    async def _delete(
        self, session_id: str, visitor: Visitor, scope: Scope, receive: Receive, send: Send
    ) -> Response:
        _allow(visitor, session_id, "empty")
        await self._conversations.reset(visitor.owner, session_id, delete=True)
        return as_json({"message": f"The session {session_id} was deleted."})

    async def _clear(
        self, session_id: str, visitor: Visitor, scope: Scope, receive: Receive, send: Send
    ) -> Response:
        _allow(visitor, session_id, "empty")
        await self._conversations.reset(visitor.owner, session_id, delete=False)
        return as_json({"message": f"The session {session_id} was cleared."})

    async def _rename(
        self, session_id: str, visitor: Visitor, scope: Scope, receive: Receive, send: Send
    ) -> Response:
        _allow(visitor, session_id, "own")
        title = (await self._json(receive)).get("title")
        if not isinstance(title, str) or len(title) > MAX_TITLE_CHARS:
            raise HttpError(400, f"title must be a string of at most {MAX_TITLE_CHARS} characters.")
        title = one_line(title)
        await self._conversations.rename(visitor.owner, session_id, title)
        return as_json({"session_id": session_id, "title": title})

    async def _answer_tool(
        self, session_id: str, visitor: Visitor, scope: Scope, receive: Receive, send: Send
    ) -> Response:
        _allow(visitor, session_id, "write")
        answer = tool_result(await self._json(receive))
        try:
            await self._conversations.answer(visitor.owner, session_id, answer)
        except UnknownToolError as unknown:
            raise HttpError(404, str(unknown)) from None
        except ToolResultError as unfit:
            raise HttpError(400, str(unfit)) from None
        return as_json({"message": f"The call {answer.tool_id} was answered."})

    async def _invite(
        self, session_id: str, visitor: Visitor, scope: Scope, receive: Receive, send: Send
    ) -> Response:
        ttl, role, name = invitation(await self._json(receive))
        _allow(visitor, session_id, "own")
        if not is_session_id(session_id):
            raise UnknownConversationError(session_id)
        await self._conversations.check(visitor.owner, session_id)
        token, expires_at = self._guard.invite(visitor, session_id, ttl, role, name), iso(time.time() + ttl)
        return as_json({"token": token, "session_id": session_id, "role": role, "expires_at": expires_at})

    async def _answer_call(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> Response:
        return await answer_call(self._guard, scope, receive, self._limits.slow_timeout)

    # ---- one turn ----

    async def _chat(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> Response | None:
        ask = turn.request(await self._json(receive))
        assert ask.session_id
        _allow(visitor, ask.session_id, "write")
        check_state(ask.text, self._limits.state_delta, is_users_own=visitor.may_empty)
        streams = _EVENT_STREAM.search(_header(scope, b"accept").lower())
        encode = (turn.event_stream if streams else turn.encoder)(ask.session_id)
        traffic = self._conversations.stats.traffic_of("http")
        outbox = Outbox(encode, self._limits.queue_bytes, traffic)
        listener = HttpListener(outbox, visitor.name, visitor.member, visitor.address)
        connection_id.set(listener.connection_id)
        conversation_id.set(ask.session_id)
        try:
            conversation = await self._conversations.open(visitor.owner, ask.session_id)
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

    async def _json(self, receive: Receive) -> dict[str, Any]:
        return json_object(await read_body(receive, self._limits.slow_timeout))

    async def _stream(self, listener: HttpListener, send: Send) -> None:
        """Sends events as they come, and a comment after a silence, so that no proxy closes the stream."""

        async def send_in_time(event: Event) -> None:
            try:
                async with asyncio.timeout(self._limits.slow_timeout):
                    await send(event)
            except OSError:  # the peer has gone, or it does not read (TimeoutError is an OSError)
                raise ClientGoneError from None

        async def send_frame(frame: Frame) -> None:
            body = frame if isinstance(frame, bytes) else frame.encode()
            await send_in_time({"type": "http.response.body", "body": body, "more_body": True})

        frame = await listener.first_frame()
        await send_in_time(event_stream())
        self._conversations.stats.responses.count("200")
        await send_frame(frame)
        async for frame in listener.frames(self._limits.ping_interval):
            await send_frame(frame)
        await send_in_time({"type": "http.response.body", "body": b""})


def _allow(visitor: Visitor, session_id: str, right: Literal["read", "write", "empty", "own"]) -> None:
    """Checks what somebody who was invited to a conversation may do with one. A user may do all with its own.

    Raises:
        UnknownConversationError: it is another conversation.
        HttpError: the invitation does not go that far.
    """
    if not visitor.reaches(session_id):
        raise UnknownConversationError(session_id)
    if not visitor.may_write and right == "write":
        raise HttpError(403, "You were invited to listen only.")
    may = {"empty": visitor.may_empty, "own": visitor.session_id is None}
    if not may.get(right, True):
        raise HttpError(403, "Only the user whose conversation this is may do this.")


def _numbers(counts: Counts) -> dict[str, int]:
    return {
        "total_requests": counts.requests,
        "successful_requests": counts.successful,
        "failed_requests": counts.failed,
        "active_sessions": counts.conversations,
        "websocket_connections": counts.sockets,
    }


def _header(scope: Scope, wanted: bytes) -> bytes:
    return b",".join(value for name, value in scope["headers"] if name == wanted)
