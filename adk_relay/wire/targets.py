"""Targets: the path of a request below the mount point, and what the URL of a WebSocket asks for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import quote

from adk_relay.core.interfaces import UnknownConversationError
from adk_relay.core.room import After
from adk_relay.core.visitor import GUEST, Visitor, name_of
from adk_relay.wire.asgi import Scope, query_of, sent_path
from adk_relay.wire.dialects import NAME, SESSION_ID, Dialect, is_name, is_session_id
from adk_relay.wire.dialects.chat import CHAT
from adk_relay.wire.dialects.live import SUBPROTOCOL, live
from adk_relay.wire.dialects.turn import TURN
from adk_relay.wire.openai.realtime import SUBPROTOCOL as REALTIME
from adk_relay.wire.openai.realtime import realtime
from adk_relay.wire.twilio.call import twilio


class NoSuchTargetError(Exception):
    """The URL of a WebSocket is not valid; the text says why."""


class Target(NamedTuple):
    """What the URL of a WebSocket asks for: a dialect, and in the live dialect a user, a conversation and
    the last message that the client has.

    `session_id` None: the user's default conversation, or the one that the client's frames will name;
    `is_new`: a conversation of this user is made for the socket.
    """

    dialect: Dialect
    user_id: str | None = None
    session_id: str | None = None
    after: After | None = None
    is_new: bool = False


_ALL = After("0", 0)
"""A client that has no message yet gets the whole conversation (see `After.is_first`)."""

_TARGET = re.compile(r"/ws|/ws/[^/]*|/api/v1/chat/stream|/twilio/?|/v1/realtime")
"""The paths of WebSockets."""


def _target_path(scope: Scope) -> str:
    """The path of a WebSocket below the mount point."""
    path = path_of(scope)
    if not _TARGET.fullmatch(path) and _TARGET.fullmatch(scope["path"]):
        # Only uvicorn puts `root_path` before the path. That can be seen only here: with the mount point
        # /ws, the path /ws/alice may be the whole one, or that below the mount point.
        return str(scope["path"])
    return path


def is_call(scope: Scope) -> bool:
    """Whether a WebSocket is a telephone call: its client says in its frames who it is."""
    return _target_path(scope) in ("/twilio", "/twilio/")


def target_of(scope: Scope, queue_bytes: int = 0) -> Target:
    """What a WebSocket's path and query ask for.

    Args:
        queue_bytes: how much may wait in a dialect with a queue of its own.

    Raises:
        NoSuchTargetError: they are not valid.
        NotInstalledError: something is not installed that the dialect needs.
    """
    path = _target_path(scope)
    if is_call(scope):
        return Target(twilio(queue_bytes))
    if path == "/ws":
        return Target(CHAT)
    if path == "/api/v1/chat/stream":
        return Target(TURN)
    if path == "/v1/realtime":
        return _realtime(scope)
    found = re.fullmatch(r"/ws/([^/]*)", path)
    if not found:
        raise NoSuchTargetError(
            "the paths are /ws/{user_id}, /ws, /api/v1/chat/stream, /v1/realtime and /twilio"
        )
    query = query_of(scope)
    session_id, after = query.get("session_id"), query.get("after")
    _check_ids(found[1], session_id)
    is_audio = query.get("is_audio", "false")
    if is_audio not in ("true", "false"):
        raise NoSuchTargetError("is_audio is true or false")
    binary = offers_subprotocol(scope)
    dialect = live(is_audio=is_audio == "true", binary=binary, newest=not (binary or session_id))
    return Target(dialect, found[1], session_id, _after(after) if after is not None else None)


def _realtime(scope: Scope) -> Target:
    """What a client of OpenAI's Realtime API asks for: a new conversation, unless it names one.

    It then gets the whole conversation first, whatever it knew before (see `After.is_first`).
    """
    query = query_of(scope)
    user_id, session_id = query.get("user_id", GUEST), query.get("session_id")
    _check_ids(user_id, session_id)
    after = None if session_id is None else _ALL
    return Target(realtime(scope), user_id, session_id, after, is_new=session_id is None)


def _check_ids(user_id: str | None, session_id: str | None) -> None:
    """Raises NoSuchTargetError if one of them is not valid. What is None is not given."""
    if user_id is not None and not is_name(user_id):
        raise NoSuchTargetError(f"user_id is {NAME}")
    if session_id is not None and not is_session_id(session_id):
        raise NoSuchTargetError(f"session_id is {SESSION_ID}")


def with_name(visitor: Visitor, scope: Scope) -> Visitor:
    """The visitor with the name that it has chosen, in `?name=`, unless its token has one."""
    return visitor if visitor.name else replace(visitor, name=name_of(query_of(scope).get("name", "")))


def as_user(visitor: Visitor, scope: Scope) -> Visitor:
    """The visitor as the user in `?user_id=`, which counts only where nobody signs in.

    Raises:
        NoSuchTargetError: it is not valid.
    """
    user_id = query_of(scope).get("user_id")
    _check_ids(user_id, None)
    return replace(visitor, user_id=user_id) if visitor.user_id is None else visitor


def for_visitor(target: Target, visitor: Visitor) -> Target:
    """What the URL of a WebSocket means for a visitor: whose conversation, and which one.

    A user who has signed in is who the token says; the user in the path counts only where nobody signs in.

    Raises:
        UnknownConversationError: the visitor was invited to another conversation.
    """
    if target.user_id is None or visitor.user_id is None:
        return target
    target = target._replace(user_id=visitor.user_id)
    if visitor.session_id is None:
        return target
    if not visitor.reaches(target.session_id or visitor.session_id):
        raise UnknownConversationError(target.session_id or "")
    # "newest" would take the conversation away from its owner.
    dialect = replace(target.dialect, attends="all")
    after = _ALL if target.is_new else target.after
    return target._replace(dialect=dialect, session_id=visitor.session_id, after=after, is_new=False)


def _after(after: str) -> After:
    """The last message that a client has got, `<epoch>.<N>` or `<N>`."""
    found = re.fullmatch(r"(?:([A-Za-z0-9_-]{1,64})\.)?([0-9]{1,15})", after)
    if not found:
        raise NoSuchTargetError("after is <epoch>.<N>, or N")
    return After(found[1], int(found[2]))


def subprotocol_of(scope: Scope) -> str | None:
    """The subprotocol that is chosen of those that the client of a WebSocket offers; None: none is."""
    if offers_subprotocol(scope):
        return SUBPROTOCOL
    return REALTIME if REALTIME in scope.get("subprotocols", ()) else None


def offers_subprotocol(scope: Scope) -> bool:
    """Whether the client of a WebSocket offers `relay.v1`."""
    return SUBPROTOCOL in scope.get("subprotocols", ())


def path_of(scope: Scope) -> str:
    """The path below the mount point; "" if the mount point itself is requested, without a slash at its end.

    Servers pass the whole path, and the mount point as `root_path`. Litestar passes the path below the mount
    point, and puts a slash at its end; only `raw_path` tells whether the client has sent one.
    """
    path: str = scope["path"]
    root = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    raw = sent_path(scope)
    return path[:-1] if path.endswith("/") and raw and not raw.endswith("/") else path


def mount_point(scope: Scope) -> str:
    """The last segment of the mount point, as it is written in a URL, if it was requested itself."""
    return (sent_path(scope) or quote(scope.get("root_path", "").rstrip("/"))).rpartition("/")[2]
