"""Requests: the texts that the user has written and whose answers have not come yet."""

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
    """waiting: it has to be sent. sent: it is sent again if the connection breaks before the server confirms
    it. stored: the server has stored it, and it is never sent again."""
    has_failed: bool = False
    """The agent has failed for good since it was sent."""
    number: int | None = None
    """Which message of the conversation it is, if the history has shown it; it may not be stored yet."""


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

    def fail(self) -> None:
        """The agent has failed for good."""
        for request in self:
            request.has_failed = request.state == "sent"

    def send_again(self) -> None:
        """There is a new connection: texts that were sent on the old one may not have arrived."""
        for request in self:
            if request.state == "sent":
                request.state = "waiting"

    def find(self, number: int, request_id: str | None, text: str) -> Request | None:
        """The request that this line of the history, message `number`, belongs to.

        A server that was restarted has the texts that were stored, but not their ids: then the texts are
        compared. A text with an id may not be stored yet. If the agent has failed with it, it is not asked
        again all the same.
        """
        if request_id:
            found = self.get(request_id)
            if found:
                found.number = number
                if found.has_failed:
                    found.state = "stored"
            return found
        for request in self:
            if request.state != "waiting" and cleaned(request.text) == text:
                request.state = "stored"
                return request
        return None

    def close(self, request: Request, *, succeeded: bool) -> bool:
        """Ends a request. False: it had ended already."""
        if not self._by_id.pop(request.id, None):
            return False
        self._stats.succeeded += succeeded
        self._stats.failed += not succeeded
        return True

    def give_up(self, request: Request) -> None:
        """Ends a request that gets no answer."""
        self.close(request, succeeded=False)

    def give_up_sent(self) -> None:
        """Ends all requests that were sent: their answers are not waited for any more."""
        for request in self:
            if request.state != "waiting":
                self.give_up(request)
