"""Which pages may use relay in a browser, and under which names the server is reached.

A browser lets any page open a WebSocket to any server, and send requests there. It says in `Origin` which
page it is (RFC 6454 section 7), and a page can't change that. Clients that are no browsers send no `Origin`.

DNS rebinding: a page of evil.example can make its own name mean 127.0.0.1. For the browser, a server on this
machine then belongs to the same site. But the browser still sends the name in `Host`, and that shows it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv6Address, ip_address

from adk_relay.core.logs import one_line
from adk_relay.wire.asgi import Event, Scope, Send, header_values
from adk_relay.wire.http import Headers, Response, empty

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_.~-]+)(?::([0-9]{1,5}))?")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.~-]+)(?::([0-9]{1,5}))?")

_PORTS = {"http": "80", "https": "443"}
"""The port of a URL that names none (RFC 9110 section 4.2)."""

_MAX_AGE = 600
"""Seconds that a browser remembers the answer to a preflight."""

_READABLE = b"retry-after, www-authenticate"
"""Headers of a response that a page of another origin may read, in addition to the usual ones."""


class Origins:
    """Decides whether a request may come from where it comes from.

    Args:
        origins: pages of these origins may use relay, besides those of its own host; separated by commas.
        hosts: the names under which the server is reached, without ports; separated by commas. None: a
            server that listens on this machine only is reached by the machine's own names; any other one by
            any name.

    Raises:
        ValueError: they are no origins, or no names.
    """

    def __init__(self, origins: str | None = None, hosts: str | None = None) -> None:
        self._origins = frozenset(map(_origin, _listed(origins)))
        self._hosts = frozenset(map(_name, _listed(hosts)))

    def problem(self, scope: Scope) -> str:
        """Why a WebSocket or a request is not allowed, for the log and the client; "": it is."""
        hosts, origins = header_values(scope, b"host"), header_values(scope, b"origin")
        if len(hosts) > 1 or len(origins) > 1:
            return "There is more than one Host or Origin."
        host = hosts[0].lower() if hosts else ""
        if problem := self._host_problem(host, scope):
            return problem
        if not origins or origins[0].lower() in self._origins or _is_own(origins[0].lower(), host, scope):
            return ""
        return (
            f"A page of {one_line(origins[0], 100)} may not use this server ({one_line(host, 100)}):"
            " RELAY_ORIGINS can allow it. A proxy in front must pass the Host that it got."
        )

    def _host_problem(self, host: str, scope: Scope) -> str:
        name = _name_in(host)
        if self._hosts:
            return "" if name in self._hosts else f"This server is not {one_line(host, 100)!r} (RELAY_HOSTS)."
        # `server` is the address at which the connection has arrived. Without a Host it is no browser's.
        server = scope.get("server")
        if not host or not (server and is_loopback(str(server[0]))):
            return ""
        if is_loopback(name):
            return ""
        return (
            f"This server is reached as localhost, not as {one_line(host, 100)!r}:"
            " with a proxy in front, RELAY_HOSTS has to name it."
        )

    # ---- pages of other origins: https://fetch.spec.whatwg.org/#http-cors-protocol ----

    def preflight(self, scope: Scope, methods: Collection[str]) -> Response | None:
        """The answer to a browser that asks what a page of another origin may send; None: it does not ask."""
        asked = scope["method"] == "OPTIONS" and header_values(scope, b"access-control-request-method")
        if not asked or not self._is_listed(scope):
            return None
        return empty(
            204,
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", b"authorization, content-type"),
            (b"access-control-max-age", b"%d" % _MAX_AGE),
        )

    def sender(self, scope: Scope, send: Send) -> Send:
        """`send` for a request: a page of a listed origin is let read the response."""
        if not self._origins:
            return send
        added: Headers = [(b"vary", b"origin")]
        if self._is_listed(scope):
            added += [
                (b"access-control-allow-origin", header_values(scope, b"origin")[0].encode("latin-1")),
                (b"access-control-allow-credentials", b"true"),  # for the cookies of a host's `authenticate`
                (b"access-control-expose-headers", _READABLE),
            ]

        async def with_headers(event: Event) -> None:
            if event["type"] == "http.response.start":
                event = {**event, "headers": [*event["headers"], *added]}
            await send(event)

        return with_headers

    def _is_listed(self, scope: Scope) -> bool:
        origins = header_values(scope, b"origin")
        return len(origins) == 1 and origins[0].lower() in self._origins


def _is_own(origin: str, host: str, scope: Scope) -> bool:
    """Whether an origin is the host that was requested, with the same port.

    Behind a proxy that ends TLS, the scheme may not be known here. So `https` is right for a server that
    takes itself for plain HTTP, but not the other way round.
    """
    page, server = _ORIGIN.fullmatch(origin), _HOST.fullmatch(host)
    if not (page and server and page[1] in _PORTS):
        return False
    if scope.get("scheme") in ("https", "wss") and page[1] != "https":
        return False
    usual = _PORTS[page[1]]
    return page[2] == server[1] and (page[3] or usual) == (server[2] or usual)


def host_of(scope: Scope) -> str:
    """The name or the address in `Host`, without the port; "": there is none, or more than one."""
    hosts = header_values(scope, b"host")
    return _name_in(hosts[0].lower()) if len(hosts) == 1 else ""


def pages_of(scope: Scope) -> list[str]:
    """The names or addresses in `Origin`; "" for one that has none, such as `null`."""
    found = [_ORIGIN.fullmatch(origin.lower()) for origin in header_values(scope, b"origin")]
    return [each[2] if each else "" for each in found]


def _name_in(host: str) -> str:
    found = _HOST.fullmatch(host)
    return found[1].rstrip(".") if found else ""


def is_loopback(name: str) -> bool:
    """Whether a name or an address is this machine's for itself (RFC 6761 section 6.3)."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name.strip("[]"))
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        address = address.ipv4_mapped or address
    return address.is_loopback or address.is_unspecified


def _listed(text: str | None) -> list[str]:
    return [entry.strip().lower() for entry in (text or "").split(",") if entry.strip()]


def _origin(text: str) -> str:
    """An origin as browsers write it: without the usual port, and without a path."""
    found = _ORIGIN.fullmatch(text)
    if not found:
        raise ValueError(
            f"origins (RELAY_ORIGINS) has {text!r}, but an origin looks like https://www.example.com"
        )
    is_usual = found[3] is None or found[3] == _PORTS.get(found[1])
    return f"{found[1]}://{found[2]}" + ("" if is_usual else f":{found[3]}")


def _name(text: str) -> str:
    found = _HOST.fullmatch(text)
    if not found or found[2]:
        raise ValueError(f"hosts (RELAY_HOSTS) has {text!r}, but must have names, without ports")
    return found[1].rstrip(".")
