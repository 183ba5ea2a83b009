"""What plain uvicorn lacks: it is said once, when the server starts."""

from __future__ import annotations

from adk_relay.bounds import MAX_FRAME
from adk_relay.wire.asgi import Receive, Scope

RELAY_SERVE = "relay serve"
"""A key in the lifespan's state: the server is that of `adk_relay/server.py`."""


def advice(scope: Scope, receive: Receive) -> str:
    """A sentence for the log; "": it is `relay serve`, or another server, whose options can't be seen.

    Args:
        scope: that of the lifespan.
        receive: uvicorn's own, a method of an object that has the server's configuration.
    """
    if RELAY_SERVE in scope.get("state", {}) or receive.__module__ != "uvicorn.lifespan.on":
        return ""
    config = getattr(getattr(receive, "__self__", None), "config", None)
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
