"""HTTP responses: the files of `static/`, short texts and JSON, with the security headers of a page.

A response is a pair: ASGI's `http.response.start` event, and the body.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Response = tuple[MutableMapping[str, Any], bytes]
Headers = list[tuple[bytes, bytes]]

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}

_PLACES = {
    "/": "index.html",
    "/demo": "demo.html",
    "/docs": "docs.html",
    "/openapi.json": "openapi.json",
    "/favicon.ico": "icon.svg",
}
"""Files that are also served at a path of their own."""

_SECURITY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=()"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        b" connect-src 'self'; manifest-src 'self'; worker-src 'self'; media-src 'self' blob:;"
        b" base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
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


@dataclass(slots=True, frozen=True)
class StaticFile:
    """A file, read once, with its headers."""

    body: bytes
    etag: bytes
    headers: Headers

    def response(self, if_none_match: bytes) -> Response:
        """The file, or 304 if the client has it already (RFC 9110 section 13.1.2)."""
        known = {tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")}
        if self.etag in known or b"*" in known:
            return {"type": "http.response.start", "status": 304, "headers": self.headers}, b""
        return _response(200, self.body, self.headers)


def static_files(folder: Path) -> dict[str, StaticFile]:
    """The files of `folder` by the path they are served at.

    They are read once and found by their whole path, so that a request can't name any other file.
    """
    files = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            body = file.read_bytes()
            etag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
            headers = [
                (b"content-type", _TYPES.get(file.suffix, "application/octet-stream").encode()),
                (b"etag", etag),
                (b"cache-control", b"no-cache"),  # browsers ask each time, so a new version is seen at once
                *_SECURITY,
            ]
            files[f"/static/{file.relative_to(folder).as_posix()}"] = StaticFile(body, etag, headers)
    for path, name in _PLACES.items():
        files[path] = files[f"/static/{name}"]
    return files


def text(status: int, line: str, *headers: tuple[bytes, bytes]) -> Response:
    """A line of plain text."""
    content_type = (b"content-type", b"text/plain; charset=utf-8")
    return _response(status, f"{line}\n".encode(), [content_type, *_SECURITY, *headers])


def as_json(value: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> Response:
    """A JSON document, which no cache may keep."""
    fixed = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *_SECURITY]
    return _response(status, json.dumps(value).encode(), [*fixed, *headers])


def empty(status: int, *headers: tuple[bytes, bytes]) -> Response:
    """A response without a body."""
    return {"type": "http.response.start", "status": status, "headers": [*_SECURITY, *headers]}, b""


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
        *_SECURITY,
    ]
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _response(status: int, body: bytes, headers: Headers) -> Response:
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    return {"type": "http.response.start", "status": status, "headers": headers}, body
