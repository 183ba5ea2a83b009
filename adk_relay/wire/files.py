"""The files of the pages and of the client that they run on, and the redirect to the page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adk_relay.wire import http
from adk_relay.wire.asgi import Scope
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


class Files:
    """All that is served over HTTP except the `Api`.

    Args:
        folders: by the path that each is served at: the one it has in the repository. So the modules of the
            pages find those of the client in both by the same relative path.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._files = _read(folders)

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
        etags = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
        return self._files[path].response(etags)


@dataclass(slots=True, frozen=True)
class _File:
    """A file, read once, with its headers."""

    body: bytes
    etag: bytes
    headers: Headers

    def response(self, if_none_match: bytes) -> Response:
        """The file, or 304 if the client has it already (RFC 9110 section 13.1.2)."""
        known = {tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")}
        if self.etag in known or b"*" in known:
            return {"type": "http.response.start", "status": 304, "headers": self.headers}, b""
        return with_length(200, self.body, self.headers)


def _read(folders: Mapping[str, Path]) -> dict[str, _File]:
    """The files of all folders by the path they are served at.

    They are read once and found by their whole path, so that a request can't name any other file.
    """
    files = {}
    for name, folder in folders.items():
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            body = file.read_bytes()
            etag = b'"%s"' % hashlib.sha256(body).hexdigest()[:32].encode()
            headers = [
                (b"content-type", _TYPES.get(file.suffix, "application/octet-stream").encode()),
                (b"etag", etag),
                (b"cache-control", b"no-cache"),  # browsers ask each time, so a new version is seen at once
                *SECURITY,
            ]
            files[f"/{name}/{file.relative_to(folder).as_posix()}"] = _File(body, etag, headers)
    for path, name in _PLACES.items():
        files[path] = files[f"/static/{name}"]
    return files
