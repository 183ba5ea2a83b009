"""The files of the pages and of the client that they run on, and the redirect to the page."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adk_relay.wire import http
from adk_relay.wire.asgi import Scope, header_values
from adk_relay.wire.http import SECURITY, Headers, Response, with_length
from adk_relay.wire.targets import mount_point

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
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

_NO_GZIP = re.compile(r"q=0(\.0*)?")


class Files:
    """All that is served over HTTP except the `Api`.

    Args:
        folders: by the path that each is served at: the one it has in the repository. So the modules of the
            pages find those of the client in both by the same relative path.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._files = _read(tuple(folders.items()))

    def response(self, scope: Scope, path: str, method: str) -> Response:
        """The response to a request for a path."""
        if not (path == "" or path in self._files):
            return http.HttpError(404, "There is nothing here.").response()
        if method not in ("GET", "HEAD"):
            return http.not_allowed("GET")
        if path == "":
            # The mount point itself, without the slash that the page's relative URLs need. The target begins
            # with "./", because otherwise a prefix that contains a colon would be read as a URL scheme.
            target = f"./{mount_point(scope)}/"
            return http.text(307, f"See {target}", (b"location", target.encode()))
        plain, packed = self._files[path]
        file = packed if packed and _takes_gzip(",".join(header_values(scope, b"accept-encoding"))) else plain
        return file.response(",".join(header_values(scope, b"if-none-match")))


def _takes_gzip(accepted: str) -> bool:
    """Whether a client takes what is packed with gzip (RFC 9110 section 12.5.3)."""
    for each in accepted.lower().split(","):
        coding, *parameters = (part.strip() for part in each.split(";"))
        if coding == "gzip":
            return not any(_NO_GZIP.fullmatch(parameter) for parameter in parameters)
    return False


@dataclass(slots=True, frozen=True)
class _File:
    """A file in one encoding, with its headers."""

    body: bytes
    etag: bytes
    headers: Headers

    def response(self, if_none_match: str) -> Response:
        """The file, or 304 if the client has it already (RFC 9110 section 13.1.2)."""
        known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        if self.etag.decode() in known or "*" in known:
            return {"type": "http.response.start", "status": 304, "headers": self.headers}, b""
        return with_length(200, self.body, self.headers)


@cache  # to pack them takes 0.1 s, and a process may make many relays
def _read(folders: tuple[tuple[str, Path], ...]) -> Mapping[str, tuple[_File, _File | None]]:
    """The files of all folders by the path they are served at: as they are, and packed if that saves much.

    They are read once and found by their whole path, so that a request can't name any other file.
    """
    files = {}
    for name, folder in folders:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            files[f"/{name}/{file.relative_to(folder).as_posix()}"] = _encodings(file)
    for path, name in _PLACES.items():
        files[path] = files[f"/static/{name}"]
    return files


def _encodings(file: Path) -> tuple[_File, _File | None]:
    body = file.read_bytes()
    packed = gzip.compress(body, mtime=0)
    digest = hashlib.sha256(body).hexdigest()[:32].encode()
    headers = [
        (b"content-type", _TYPES.get(file.suffix, "application/octet-stream").encode()),
        (b"cache-control", b"no-cache"),  # browsers ask each time, so a new version is seen at once
        *SECURITY,
    ]
    if len(packed) > 0.9 * len(body):
        return _file(body, b'"%s"' % digest, headers), None
    headers.append((b"vary", b"accept-encoding"))
    # Each encoding has an ETag of its own (RFC 9110 section 8.8.3.3).
    return (
        _file(body, b'"%s"' % digest, headers),
        _file(packed, b'"%s-gzip"' % digest, [*headers, (b"content-encoding", b"gzip")]),
    )


def _file(body: bytes, etag: bytes, headers: Headers) -> _File:
    return _File(body, etag, [*headers, (b"etag", etag)])
