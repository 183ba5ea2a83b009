"""Whether a client is on the server's own machine, and who may therefore set instructions and tools."""

from __future__ import annotations

from typing import Literal

from adk_relay.wire.asgi import Scope
from adk_relay.wire.origin import host_of, is_loopback, values

ClientTools = Literal["loopback", "on", "off"]
"""Who may set instructions and tools: clients on the server's own machine, all, or none."""

_FORWARDED = (b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip")
"""Headers by which a proxy tells that it has passed the request on."""


def is_local(scope: Scope) -> bool:
    """Whether the client of a WebSocket is on this machine, as far as the request can tell.

    A proxy on this machine has a loopback address, too. It is recognized by the Host that it passes on, or by
    a header that it adds; one that does neither can't be told from a client.
    """
    client = scope.get("client")
    if not client or not is_loopback(str(client[0])) or any(values(scope, name) for name in _FORWARDED):
        return False
    name = host_of(scope)
    return is_loopback(name) or name.endswith(".localhost")


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
