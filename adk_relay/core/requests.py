"""Requests: texts whose answers a listener waits for. They are answered one at a time, in order."""

from __future__ import annotations

import time
from collections import Counter, deque
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from adk_relay.core.listener import Listener, Member, member_of
from adk_relay.core.messages import UserText
from adk_relay.core.stats import Stats as Stats

_MAX_WAITING = 16
"""Requests of one member that may wait in a conversation."""

_MAX_WAITING_OF_ALL = 64
"""Requests of all its members together."""


class BusyError(Exception):
    """Too many requests wait already; the text says what to do."""


@dataclass(slots=True, eq=False)
class Request:
    """A text whose answer a listener waits for."""

    text: UserText
    listener: Listener
    member: Member
    """Who asks. It stays if the listener is replaced."""
    began: float = 0.0
    """When its turn came, as `time.monotonic()`."""
    came: float = field(default_factory=time.monotonic)
    """When it was made."""
    context: Context = field(default_factory=copy_context)
    """The context of the listener's task: it has what traces and the log call the listener."""


class Requests:
    """The requests of one conversation. They are counted here and nowhere else.

    Args:
        stats: counts the requests of all conversations.

    Invariants:
        At most 16 requests of a member wait, and 64 in all. Members take turns; those of one member wait in
        the order in which they came.
        The current request, whose answer is being given, does not wait.
        Each request that was taken ends once: it is successful or failed.
    """

    def __init__(self, stats: Stats) -> None:
        self.current: Request | None = None
        """The request that is being answered; None: no request is."""
        self.is_aside = False
        """The answer that is open is not that of the current request: its text is still on its way."""
        self.waiting: deque[Request] = deque()
        self._stats = stats
        self._taken = self._ended = 0

    def take(self, text: UserText, listener: Listener) -> tuple[Request, int]:
        """Takes a request, and returns how many are before it in the queue.

        A member, and all members of one address, take at most half of the places that the others have left.

        Raises:
            BusyError: too many of this member, of its address, or of all wait already.
        """
        self._stats.requests += 1
        self._taken += 1
        member, free = member_of(listener), _MAX_WAITING_OF_ALL - len(self.waiting)
        own = sum(request.member == member for request in self.waiting)
        near = sum(request.member.address == member.address for request in self.waiting)
        if own >= min(_MAX_WAITING, free) or (member.address and near >= free):
            self._end(successful=False)
            count = own if own >= _MAX_WAITING else len(self.waiting)
            raise BusyError(f"{count} messages wait for their answers already: try again later.")
        request = Request(text, listener, member)
        before = self._place(own)
        self.waiting.insert(before, request)
        return request, before

    def find(self, text: UserText) -> tuple[Request, int] | None:
        """The open request of this text, and how many are before it in the queue."""
        if self.current and self.current.text == text:
            return self.current, 0
        for ahead, request in enumerate(self.waiting):
            if request.text == text:
                return request, ahead
        return None

    def has_others(self, member: Member, waiting_for: float = 0.0) -> bool:
        """Whether another member waits for an answer, or gets one for which it has waited so many seconds."""
        now, current = time.monotonic(), self.current
        if current and current.member != member and current.began - current.came >= waiting_for:
            return True
        return any(each.member != member and now - each.came >= waiting_for for each in self.waiting)

    def begin(self) -> Request:
        """Makes the first request that waits the current one."""
        assert self.current is None
        self.current = self.waiting.popleft()
        self.is_aside = False
        self.current.began = time.monotonic()
        return self.current

    def answered(self) -> None:
        """An answer has ended. It ends the current request, if there is one and the answer is its own."""
        if self.is_aside:
            self.is_aside = False
        elif self.current:
            self._stats.seconds += time.monotonic() - self.current.began
            self._end(successful=True)
            self.current = None

    def fail(self) -> list[Request]:
        """Gives up all requests, the current one too; returns them in order."""
        failed = [*([self.current] if self.current else []), *self.fail_waiting()]
        if self.current:
            self._end(successful=False)
            self.current = None
        return failed

    def fail_waiting(self) -> list[Request]:
        """Gives up the requests that wait; returns them in order."""
        failed = [*self.waiting]
        self.waiting.clear()
        for _ in failed:
            self._end(successful=False)
        return failed

    def withdraw(self, listener: Listener) -> list[Request]:
        """Gives up all requests of one listener; returns them in order."""
        failed = []
        if self.current and self.current.listener is listener:
            failed.append(self.current)
            self.current = None
        failed += [request for request in self.waiting if request.listener is listener]
        self.waiting = deque(request for request in self.waiting if request.listener is not listener)
        for _ in failed:
            self._end(successful=False)
        return failed

    def check(self) -> None:
        """Asserts the invariants."""
        waiting = Counter(request.member for request in self.waiting)
        assert len(self.waiting) <= _MAX_WAITING_OF_ALL, "too many requests wait"
        assert all(count <= _MAX_WAITING for count in waiting.values()), "too many of one member wait"
        assert self.current not in self.waiting, "the current request waits"
        is_open = len(self.waiting) + (self.current is not None)
        assert self._taken - self._ended == is_open, "a request ended twice, or not at all"

    def _place(self, own: int) -> int:
        """Where the next request of a member goes that has `own` waiting: after as many of each other one."""
        seen: Counter[Member] = Counter()
        for place, request in enumerate(self.waiting):
            if seen[request.member] > own:
                return place
            seen[request.member] += 1
        return len(self.waiting)

    def _end(self, *, successful: bool) -> None:
        self._ended += 1
        if successful:
            self._stats.successful += 1
        else:
            self._stats.failed += 1
