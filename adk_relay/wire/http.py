"""HTTP answers: the files of `static/`, short texts and JSON, with the headers that keep a page safe.

An answer is what ASGI wants in two events: the `http.response.start`, and the body.
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
"""What is served at a path of its own, too."""

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
    """A request is answered with an error.

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
        """The error as it is sent."""
        return as_json({"detail": self.detail}, self.status, *self.headers)


@dataclass(slots=True, frozen=True)
class StaticFile:
    """A file as it is served."""

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

    Read once, and found by their whole path: no request can name anything else.
    """
    files = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            body = file.read_bytes()
            etag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
            headers = [
                (b"content-type", _TYPES.get(file.suffix, "application/octet-stream").encode()),
                (b"etag", etag),
                (b"cache-control", b"no-cache"),  # kept, but asked for each time: a deployed page is seen
                *_SECURITY,
            ]
            files[f"/static/{file.relative_to(folder).as_posix()}"] = StaticFile(body, etag, headers)
    for path, name in _PLACES.items():
        files[path] = files[f"/static/{name}"]
    return files


def text(status: int, said: str, *headers: tuple[bytes, bytes]) -> Response:
    """A line of plain text."""
    plain = (b"content-type", b"text/plain; charset=utf-8")
    return _response(status, f"{said}\n".encode(), [plain, *_SECURITY, *headers])


def as_json(value: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> Response:
    """A JSON document that is true only now."""
    plain = (b"content-type", b"application/json")
    return _response(
        status, json.dumps(value).encode(), [plain, (b"cache-control", b"no-store"), *_SECURITY, *headers]
    )


def not_allowed(*methods: str) -> Response:
    """405, with what would be allowed (RFC 9110 section 15.5.6)."""
    allowed = ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])
    return HttpError(405, f"Allowed here: {allowed}.", (b"allow", allowed.encode())).response()


def event_stream() -> MutableMapping[str, Any]:
    """The beginning of a stream of server-sent events, which no proxy is to hold back."""
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
