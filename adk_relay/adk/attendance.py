"""Who attends a conversation, and how long it waits for those who have left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from adk_relay.adk.home import Home
from adk_relay.adk.idleness import Idleness
from adk_relay.adk.meter import Meter
from adk_relay.adk.runs import Runs
from adk_relay.adk.speaking import Speaking
from adk_relay.adk.stops import Stop
from adk_relay.adk.waiting import Waiting
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Status
from adk_relay.core.room import After, Room
from adk_relay.core.writing import Writing

_UNATTENDED = 5.0
"""Seconds that a conversation waits for its first listener."""


class Attendance:
    """The comings and goings in one conversation.

    Args:
        room, runs, writing, waiting, speaking, meter, idleness: those of the conversation.
        interrupt: stops the answer.

    Invariants:
        The grace timer is set only while there is no listener.
    """

    def __init__(
        self,
        home: Home,
        room: Room,
        runs: Runs,
        writing: Writing,
        waiting: Waiting,
        speaking: Speaking,
        meter: Meter,
        idleness: Idleness,
        interrupt: Callable[[], None],
    ) -> None:
        self._home = home
        self._room = room
        self._runs = runs
        self._writing = writing
        self._waiting = waiting
        self._speaking = speaking
        self._meter = meter
        self._idleness = idleness
        self._interrupt = interrupt
        self._back_by = 0.0  # when, in the event loop's time, the grace of the listener that left last ends
        self._grace: asyncio.TimerHandle | None = None  # set while there is no listener
        self._expecting: asyncio.TimerHandle | None = None  # set while listeners of an owner before may come

    def check(self) -> None:
        """Asserts the invariants."""
        assert not (self._grace and self._room.listeners), "the grace timer is set, and there are listeners"

    def attach(self, listener: Listener, after: After | None) -> None:
        """Adds a listener to the room. With `after`, it first gets the messages that it missed."""
        if self._grace:
            self._grace.cancel()
            self._grace = None
        self._meter.came()
        self._room.enter(listener, after)
        self._waiting.tell(listener)
        self._idleness.watch()
        if self._runs.is_reconnecting:
            listener.deliver(Status("reconnecting"))
        if listener.connects:
            self._runs.want()

    def detach(self, listener: Listener, *, at_once: bool) -> None:
        """Removes a listener. When it was the last, the conversation ends after the grace, or `at_once`."""
        is_alone, is_given_up = self._room.listeners == [listener], False
        if listener.attends == "own":  # nobody else waits for the answers to its requests
            is_given_up = self._writing.withdraw(listener) and is_alone
        self._speaking.end(listener)
        self._room.leave(listener, is_live=not self._runs.is_reconnecting)
        if is_alone:
            loop = asyncio.get_running_loop()
            if is_given_up:
                self._interrupt()
            elif not at_once:
                self._back_by = loop.time() + self._home.grace
            # A listener that left before may still come back within its own grace.
            self._grace = loop.call_at(0 if at_once else self._back_by, self._runs.stop, Stop.LEFT)

    def begin(self) -> None:
        """The conversation has begun: if it has no listener yet, it waits a moment for one."""
        if not self._room.listeners:
            # Those of an owner before have as long to come again as if they had lost their sockets.
            seconds = max(_UNATTENDED, self._home.grace if self._expecting else 0.0)
            self._grace = asyncio.get_running_loop().call_later(seconds, self._runs.stop, Stop.LEFT)

    def expect(self, present: Mapping[str, str]) -> None:
        """Listeners of an owner before are expected to come again, and nobody is told of that.

        Args:
            present: their names, by connection id.
        """
        self._room.expect(present)
        seconds = max(_UNATTENDED, self._home.grace)
        self._expecting = asyncio.get_running_loop().call_later(seconds, self._expect_no_more)

    def close(self) -> None:
        """The conversation is over."""
        for timer in (self._grace, self._expecting):
            if timer:
                timer.cancel()

    def _expect_no_more(self) -> None:
        self._expecting = None
        self._room.expect_no_more()
        if self._writing.withdraw_absent() and not self._room.listeners:
            self._interrupt()
