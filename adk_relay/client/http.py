"""The server's HTTP interface, which answers with JSON objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from adk_relay.client.untrusted import cleaned, one_line
from adk_relay.client.view import Problem

Json = dict[str, Any]

_ANSWER = httpx.Timeout(10, read=600)
"""Seconds that an answer of the agent may take. A proxy on the way may have a shorter limit."""


@dataclass(frozen=True, slots=True)
class Line:
    """A text or an answer in the history of a conversation."""

    is_user: bool
    text: str
    id: str | None
    """The id of the user's text, if the server still knows it."""
    is_open: bool
    """It is an answer that is still coming; it is the last line then."""
    chunks: int
    """How many chunks an open answer has."""
    name: str = ""
    """What the user is called who wrote it; "": that is not known."""
    is_cut: bool = False
    """It is an answer that was interrupted."""
    is_unanswered: bool = False
    """It is a text to which no answer will come any more."""


@dataclass(frozen=True, slots=True)
class History:
    """The end of a conversation's history: its last lines, of `count` in all."""

    lines: list[Line]
    count: int


class Http:
    """A client of the HTTP interface.

    Args:
        url: the server's.
        token: says who the user is; "": the server wants none.

    Raises:
        Problem: the proxy that the environment names can't be used.
    """

    def __init__(self, url: str, token: str = "") -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        """What a WebSocket to the same server has to send, too."""
        try:
            self._client = httpx.AsyncClient(base_url=url, timeout=10, headers=self.headers)
        except (ImportError, ValueError) as error:
            raise Problem(str(error)) from None

    async def close(self) -> None:
        await self._client.aclose()

    async def request(self, method: str, path: str, **options: Any) -> Json:
        """The server's answer, without characters that are unsafe for a terminal.

        Raises:
            Problem: the server can't be reached, or refuses.
        """
        try:
            response = await self._client.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Problem(f"{self.url} gives no answer: {error or type(error).__name__}") from None
        try:
            body = cleaned(response.json())
        except ValueError:
            body = None
        if not isinstance(body, dict) or response.is_error:
            detail = body.get("detail") if isinstance(body, dict) else None
            raise Problem(str(detail or f"The server answers {response.status_code}."))
        return body

    async def chat(self, session_id: str, text: str) -> Json:
        """Sends a text, and waits for the whole answer.

        Raises:
            Problem: there is none.
        """
        body = {"session_id": session_id, "message": text}
        return await self.request("POST", "/api/v1/chat", json=body, timeout=_ANSWER)

    async def history(self, session_id: str) -> History:
        """What was said in a conversation.

        Raises:
            Problem: there is no such conversation, or the answer is not one of a relay.
        """
        body = await self.request("GET", f"/sessions/{session_id}")
        try:
            return History([_line(line) for line in body["history"]], int(body["message_count"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Problem(f"the server's answer is not one of a relay ({error!r})") from None

    async def is_relay(self) -> bool:
        try:
            return "websocket_connections" in await self.request("GET", "/health")
        except Problem:
            return False


def _line(line: Json) -> Line:
    return Line(
        is_user=line.get("role") == "user",
        text=str(line.get("text")),
        id=str(line["id"]) if line.get("id") else None,
        is_open=bool(line.get("open")),
        chunks=int(line.get("chunks", 0)),
        name=one_line(str(line.get("name") or "")),
        is_cut=line.get("interrupted") is True,
        is_unanswered=line.get("unanswered") is True,
    )
