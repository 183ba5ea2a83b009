"""HTTP by hand: a request is sent exactly as it is written."""

from __future__ import annotations

from support.raw import Peer


class Response:
    """An HTTP response, as it came over the wire."""

    def __init__(self, raw: bytes) -> None:
        head, _, self.body = raw.partition(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        self.status = int(line.split(" ")[1])
        self.headers: dict[str, str] = {}
        for header in headers:
            name, _, value = header.partition(":")
            assert name.lower() not in self.headers, f"{name} twice"
            self.headers[name.lower()] = value.strip()


async def ask(port: int, target: str, method: str = "GET", **headers: str) -> Response:
    """Sends a target exactly as it is written; a client library would normalize it."""
    fields = {"Host": "127.0.0.1", "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    async with Peer.connected(port) as peer:
        await peer.send_raw("\r\n".join(lines).encode("latin-1"))
        return Response(await peer.ended())
