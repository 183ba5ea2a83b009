"""HTTP responses: the files of `static/`, short texts and JSON, with the security headers of a page.

A response is a pair: ASGI's `http.response.start` event, and the body.
"""

from __future__ import annotations

import json
import math
from collections.abc import MutableMapping
from typing import Any

Response = tuple[MutableMapping[str, Any], bytes]
Headers = list[tuple[bytes, bytes]]

SECURITY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"microphone=(self), camera=(self), display-capture=(self), geolocation=()"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        b" connect-src 'self'; manifest-src 'self'; worker-src 'self'; media-src 'self' blob:;"
        b" base-uri 'none'; form-action 'none'; frame-ancestors 'self';"
        # No string becomes markup or a script, whatever a model says: the pages make nodes.
        b" require-trusted-types-for 'script'; trusted-types 'none'",
    ),
]


class HttpError(Exception):
    """The request is answered with an error.

    Attributes:
        status: the status code (RFC 9110 section 15).
        detail: what was wrong, and what would be right.
    """

    def __init__(self, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
        self.status = status
        self.detail = detail
        self.headers = headers
        super().__init__(status, detail)

    def response(self) -> Response:
        """The error as a response."""
        return as_json({"detail": self.detail}, self.status, *self.headers)


def text(status: int, line: str, *headers: tuple[bytes, bytes]) -> Response:
    """A line of plain text."""
    content_type = (b"content-type", b"text/plain; charset=utf-8")
    return with_length(status, f"{line}\n".encode(), [content_type, *SECURITY, *headers])


def as_json(value: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> Response:
    """A JSON document, which no cache may keep."""
    fixed = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *SECURITY]
    return with_length(status, json.dumps(value).encode(), [*fixed, *headers])


def retry_after(seconds: float) -> tuple[bytes, bytes]:
    """The header that says when to come back (RFC 9110 section 10.2.3)."""
    return b"retry-after", b"%d" % max(1, math.ceil(seconds))


def empty(status: int, *headers: tuple[bytes, bytes]) -> Response:
    """A response without a body."""
    return {"type": "http.response.start", "status": status, "headers": [*SECURITY, *headers]}, b""


def not_allowed(*methods: str) -> Response:
    """405, with the methods that are allowed (RFC 9110 section 15.5.6)."""
    allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
    return HttpError(405, f"Allowed here: {allowed}.", (b"allow", allowed.encode())).response()


def event_stream() -> MutableMapping[str, Any]:
    """The start of a stream of server-sent events; the headers tell proxies not to buffer it."""
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
        *SECURITY,
    ]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def with_length(status: int, body: bytes, headers: Headers) -> Response:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    return {"type": "http.response.start", "status": status, "headers": headers}, body
