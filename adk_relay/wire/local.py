"""Whether a client is on the server's own machine, and who may therefore set instructions and tools."""

from __future__ import annotations

from typing import Literal

from adk_relay.wire.asgi import Scope
from adk_relay.wire.origin import host_of, is_loopback, pages_of

ClientTools = Literal["loopback", "on", "off"]
"""Who may set instructions and tools: clients on the server's own machine, all, or none."""

_FORWARDED = (b"forwarded", b"via", b"x-real-ip", b"x-forwarded-")
"""How the headers begin by which a proxy tells that it has passed the request on."""


def is_local(scope: Scope) -> bool:
    """Whether the client of a WebSocket is on this machine, as far as the request can tell.

    A proxy on this machine has a loopback address, too. It is recognized by the Host that it passes on, by a
    header that it adds, or by the page that a browser names; one without all of them can't be told from a
    client.
    """
    client = scope.get("client")
    if not client or not is_loopback(str(client[0])):
        return False
    if any(key.lower().startswith(_FORWARDED) for key, _ in scope.get("headers", ())):
        return False
    return all(is_loopback(name) for name in (host_of(scope), *pages_of(scope)))


def refusal_of_shape(scope: Scope, allowed: ClientTools) -> str:
    """Why the client of a WebSocket may not set instructions and tools; "": it may."""
    if allowed == "off":
        return "Instructions and tools can't be set here: RELAY_CLIENT_TOOLS forbids it."
    if allowed == "loopback" and not is_local(scope):
        return (
            "Only clients on the server's own machine may set instructions and tools:"
            " RELAY_CLIENT_TOOLS=on allows it to all."
        )
    return ""
