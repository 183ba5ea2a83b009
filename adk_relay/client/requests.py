"""The texts that were written here and whose answers have not come yet."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from adk_relay.client.stats import Stats
from adk_relay.client.untrusted import cleaned


@dataclass(slots=True)
class Request:
    """A text whose answer is waited for."""

    text: str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    at: float = field(default_factory=time.monotonic)
    """When it was written."""

    state: Literal["waiting", "sent", "stored"] = "waiting"
    """It waits to be sent; or it was sent, and is sent again if the connection breaks before the server
    confirms it; or the server has stored it, and it is never sent again."""


class Requests:
    """All requests, in the order in which they were written."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._by_id: dict[str, Request] = {}

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._by_id.values()))

    def add(self, text: str) -> None:
        request = Request(text)
        self._by_id[request.id] = request

    def get(self, request_id: object) -> Request | None:
        return self._by_id.get(str(request_id))

    def waiting(self) -> list[Request]:
        """The requests that have to be sent."""
        return [request for request in self if request.state == "waiting"]

    def store(self, request_id: str) -> None:
        """The server has stored a text."""
        if request := self.get(request_id):
            request.state = "stored"

    def send_again(self) -> None:
        """The connection is another: what was sent on the one before may not have arrived."""
        for request in self:
            if request.state == "sent":
                request.state = "waiting"

    def find_stored(self, request_id: str | None, text: str) -> Request | None:
        """The request that a line of the history is; it is marked as stored.

        A server that was started again has kept the texts and not their ids: then the text decides.
        """
        if request_id:
            found = self.get(request_id)
        else:
            sent = (request for request in self if request.state != "waiting")
            found = next((request for request in sent if cleaned(request.text) == text), None)
        if found:
            found.state = "stored"
        return found

    def close(self, request: Request, *, succeeded: bool) -> bool:
        """No answer to it is waited for any more. False: this was so already."""
        if not self._by_id.pop(request.id, None):
            return False
        self._stats.succeeded += succeeded
        self._stats.failed += not succeeded
        return True

    def give_up(self, request: Request) -> None:
        """It gets no answer."""
        self.close(request, succeeded=False)

    def give_up_sent(self) -> None:
        """Nobody waits for the answers to what was sent so far."""
        for request in self:
            if request.state != "waiting":
                self.give_up(request)
