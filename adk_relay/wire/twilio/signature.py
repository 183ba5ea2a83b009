"""Twilio's signature of a request: it shows that the request comes from Twilio, for one's own account.

Source: https://www.twilio.com/docs/usage/security, "Validating Signatures from Twilio".
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable, Iterator

from adk_relay.wire.asgi import Scope, header_values, raw_path

_PORT = re.compile(r":[0-9]+$")
_SCHEMES = {
    "http": (("https", "443"), ("http", "80")),
    "websocket": (("wss", "443"), ("https", "443"), ("ws", "80"), ("http", "80")),
}
"""The schemes that a URL can have had, and their ports. A proxy may have ended TLS."""


def is_signed(auth_token: str, scope: Scope, params: Iterable[tuple[str, str]] = ()) -> bool:
    """Whether a request has a valid `X-Twilio-Signature`.

    Twilio signs the URL as it was given, and the fields of the body. It is not consistent about the port, and
    about the slash at the end of a WebSocket's URL. A proxy may have changed the scheme. So each URL that the
    request can have had is tried; nobody can sign any of them without the auth token.

    Args:
        auth_token: that of the Twilio account.
        params: the fields of the body.
    """
    values = header_values(scope, b"x-twilio-signature")
    if len(values) != 1:
        return False
    fields = "".join(name + value for name, value in sorted(set(params)))
    found = False
    for url in urls_of(scope):
        found |= hmac.compare_digest(
            signature(auth_token, url + fields).encode(), values[0].encode("latin-1")
        )
    return found


def signature(auth_token: str, signed: str) -> str:
    """What Twilio signs a URL and the fields after it with: HMAC-SHA1, in base64."""
    mac = hmac.digest(auth_token.encode(), signed.encode(errors="surrogateescape"), "sha1")
    return base64.b64encode(mac).decode("ascii")


def urls_of(scope: Scope) -> Iterator[str]:
    """Each URL that a request can have had."""
    host = "".join(header_values(scope, b"host"))
    path = raw_path(scope)
    query = scope.get("query_string", b"").decode("latin-1")
    bare = _PORT.sub("", host)
    paths = [path, path + "/"] if scope["type"] == "websocket" and not path.endswith("/") else [path]
    for scheme, port in _SCHEMES[scope["type"]]:
        for name in dict.fromkeys((host, bare, f"{bare}:{port}")):
            for each in paths:
                yield f"{scheme}://{name}{each}" + (f"?{query}" if query else "")
