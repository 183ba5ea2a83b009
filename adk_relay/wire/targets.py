"""Targets: the path of a request below the mount point, and what the URL of a WebSocket asks for."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs

from adk_relay.core.room import After
from adk_relay.wire.asgi import Scope
from adk_relay.wire.dialects import NAME, SESSION_ID, Dialect, is_name, is_session_id
from adk_relay.wire.dialects.chat import CHAT
from adk_relay.wire.dialects.live import SUBPROTOCOL, live
from adk_relay.wire.dialects.turn import TURN


class NoSuchTargetError(Exception):
    """The URL of a WebSocket is not valid; the text says why."""


class Target(NamedTuple):
    """What the URL of a WebSocket asks for: a dialect, and in the live dialect a user, a conversation and
    the last message that the client has.

    `session_id` None: the user's default conversation, or the one that the client's frames will name.
    """

    dialect: Dialect
    user_id: str | None = None
    session_id: str | None = None
    after: After | None = None


def target_of(scope: Scope) -> Target:
    """What a WebSocket's path and query ask for.

    Raises:
        NoSuchTargetError: they are not valid.
    """
    path = path_of(scope)
    if path == "/ws":
        return Target(CHAT)
    if path == "/api/v1/chat/stream":
        return Target(TURN)
    found = re.fullmatch(r"/ws/([^/]*)", path)
    if not found:
        raise NoSuchTargetError("the paths are /ws/{user_id}, /ws and /api/v1/chat/stream")
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    session_id, after = query.get("session_id", [None])[-1], query.get("after", [None])[-1]
    if not is_name(found[1]):
        raise NoSuchTargetError(f"user_id is {NAME}")
    if session_id is not None and not is_session_id(session_id):
        raise NoSuchTargetError(f"session_id is {SESSION_ID}")
    is_audio = query.get("is_audio", ["false"])[-1]
    if is_audio not in ("true", "false"):
        raise NoSuchTargetError("is_audio is true or false")
    binary = offers_subprotocol(scope)
    dialect = live(is_audio=is_audio == "true", binary=binary, newest=not (binary or session_id))
    return Target(dialect, found[1], session_id, _after(after) if after is not None else None)


def _after(after: str) -> After:
    """The last message that a client has got, `<epoch>.<N>` or `<N>`."""
    found = re.fullmatch(r"(?:([A-Za-z0-9_-]{1,64})\.)?([0-9]{1,15})", after)
    if not found:
        raise NoSuchTargetError("after is <epoch>.<N>, or N")
    return After(found[1], int(found[2]))


def offers_subprotocol(scope: Scope) -> bool:
    """Whether the client of a WebSocket offers `relay.v1`."""
    return SUBPROTOCOL in scope.get("subprotocols", ())


def path_of(scope: Scope) -> str:
    """The path below the mount point. Servers pass the whole path, and the mount point as `root_path`."""
    path: str = scope["path"]
    root = root_of(scope)
    if root and (path == root or path.startswith(root + "/")):
        return path[len(root) :]
    return path


def root_of(scope: Scope) -> str:
    """The mount point of the application, without a slash at its end; "": it is not mounted."""
    root: str = scope.get("root_path", "")
    return root.rstrip("/")
