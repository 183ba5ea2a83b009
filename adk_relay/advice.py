"""What an operator should know of how the server was started: it is said once, at the start."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from adk_relay.bounds import MAX_FRAME
from adk_relay.wire.asgi import Receive, Scope

RELAY_SERVE = "relay serve"
"""A key in the lifespan's state: the server is that of `adk_relay/server.py`."""


def warning(receive: Receive, *, is_guarded: bool) -> str:
    """A sentence for the log if others can reach the server and use it without a token; "": not so.

    Args:
        receive: that of the lifespan: uvicorn's own, a method of an object that has the server's
            configuration. The options of other servers can't be seen.
        is_guarded: clients need a token.
    """
    config = _config(receive)
    host = getattr(config, "host", "127.0.0.1")
    if is_guarded or _is_loopback(host) or config.uds is not None or config.fd is not None:
        return ""
    return (
        f"Everybody who can reach this server (it listens on {host or 'all addresses'}) can use the agent,"
        " and read what others say to it: clients need no token. Set RELAY_SECRET, or let only a proxy reach"
        " it that checks who they are"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _config(receive: Receive) -> Any:
    """uvicorn's configuration; None: it is another server."""
    if receive.__module__ != "uvicorn.lifespan.on":
        return None
    return getattr(getattr(receive, "__self__", None), "config", None)


def advice(scope: Scope, receive: Receive) -> str:
    """What plain uvicorn lacks; "": it is `relay serve`, or another server, whose options can't be seen.

    Args:
        scope, receive: those of the lifespan.
    """
    config = _config(receive)
    if RELAY_SERVE in scope.get("state", {}) or config is None:
        return ""
    flags = {
        "--http h11": getattr(config, "http", "") == "h11",
        f"--ws-max-size {MAX_FRAME}": getattr(config, "ws_max_size", MAX_FRAME + 1) <= MAX_FRAME,
        "--ws-per-message-deflate false": not getattr(config, "ws_per_message_deflate", True),
        "--timeout-graceful-shutdown 3": getattr(config, "timeout_graceful_shutdown", None) is not None,
    }
    missing = " ".join(flag for flag, is_set in flags.items() if not is_set)
    return (
        "uvicorn alone does not bound what a client sends in a second, and cuts answers when it stops."
        " Where others can reach this server, use `relay serve`"
        + (f", or at least {missing}" if missing else "")
    )
