"""When a client is pinged and when it is given up, on a clock that the test moves."""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from adk_relay.wire.closing import IDLE, NO_PONG, TOO_SLOW, CloseFrame
from adk_relay.wire.heartbeat import Heartbeat
from adk_relay.wire.limits import Limits

FOREVER = 2_500.0

seconds = st.integers(1, 60).map(float)  # whole numbers: sums of them are exact
limits = st.builds(
    Limits,
    queue_bytes=st.just(1),
    slow_timeout=seconds,
    ping_interval=seconds,
    pong_timeout=seconds,
    idle_timeout=st.just(0.0),
)
gaps = st.lists(st.integers(0, 100).map(float), max_size=20)
"""Seconds between a client's frames."""


class Watcher:
    """Looks at a heartbeat when it was told to, and at no other time, as a socket does."""

    def __init__(self, limits: Limits, *, knows_pings: bool = False) -> None:
        self.heartbeat = Heartbeat(limits, 0.0, knows_pings=knows_pings)
        self.now = 0.0
        self.attends = True
        self.pings: list[float] = []
        self.closed: tuple[float, CloseFrame] | None = None
        self.looks = 0
        self._again = 0.0

    def run(self, until: float) -> None:
        while not self.closed and self._again <= until:
            self.now = self._again
            self.looks += 1
            due = self.heartbeat.look(self.now, attends=self.attends)
            self.heartbeat.check(self.now)
            if due.close:
                self.closed = self.now, due.close
                return
            assert due.again > self.now
            self._again = due.again
            if due.ping:
                self.pings.append(self.now)
                self.heartbeat.send_began(self.now)
                self.heartbeat.send_ended(self.now, is_ping=True)
        self.now = until

    def is_open(self) -> bool:
        return self.closed is None

    def frame(self, after: float, *, pong: bool = False, content: bool = False) -> None:
        """A frame comes, so many seconds after what came before."""
        self.run(self.now + after)
        self.heartbeat.frame_came(self.now)
        if pong:
            self.heartbeat.pong_came()
        if content:
            self.heartbeat.content_came()
        self.heartbeat.check(self.now)


@given(limits, gaps)
def test_a_client_that_sends_often_enough_is_not_pinged(limits: Limits, gaps: list[float]) -> None:
    watcher = Watcher(limits)
    for gap in gaps:
        watcher.frame(min(gap, limits.ping_interval - 0.5), pong=True)
    assert (watcher.pings, watcher.closed) == ([], None)


@given(limits)
def test_a_silent_client_is_pinged_again_and_again(limits: Limits) -> None:
    watcher = Watcher(limits)
    watcher.run(10 * limits.ping_interval)
    assert watcher.pings == [n * limits.ping_interval for n in range(1, 11)]


@given(limits, gaps)
def test_a_client_that_never_answers_pings_is_not_closed_for_it(limits: Limits, gaps: list[float]) -> None:
    watcher = Watcher(limits)
    for gap in gaps:
        watcher.frame(gap)
    watcher.run(FOREVER)
    assert watcher.closed is None


@given(limits, gaps)
def test_a_client_that_falls_silent_is_closed_after_a_ping_and_its_timeout(
    limits: Limits, gaps: list[float]
) -> None:
    watcher = Watcher(limits)
    for gap in gaps:
        # Each ping is answered in time, and the client may be quiet for long before it is pinged.
        watcher.frame(min(gap, limits.ping_interval + limits.pong_timeout - 0.5), pong=True)
    watcher.frame(0.0, pong=True)
    last = watcher.now
    assert watcher.is_open()
    watcher.run(FOREVER)
    assert watcher.closed == (last + limits.ping_interval + limits.pong_timeout, NO_PONG)
    assert min(ping for ping in watcher.pings if ping > last) == last + limits.ping_interval


@given(limits, gaps)
def test_a_client_that_has_to_know_pings_is_dead_three_intervals_after_the_first(
    limits: Limits, gaps: list[float]
) -> None:
    watcher = Watcher(limits, knows_pings=True)
    patience = limits.ping_interval + max(3 * limits.ping_interval, limits.pong_timeout)
    for gap in gaps:  # any frame counts, a pong or not
        watcher.frame(min(gap, patience - 0.5))
    last = watcher.now
    watcher.run(FOREVER)
    assert watcher.closed == (last + patience, NO_PONG)


@given(limits)
def test_a_client_that_may_not_know_pings_is_never_dead(limits: Limits) -> None:
    watcher = Watcher(limits)
    watcher.run(FOREVER)
    assert watcher.is_open()


@given(limits, gaps, st.integers(0, 200).map(float))
def test_a_send_that_takes_too_long_ends_the_socket(limits: Limits, gaps: list[float], more: float) -> None:
    # Pings wait behind the send that stalls: none is sent meanwhile.
    watcher = Watcher(replace(limits, ping_interval=math.inf))
    for gap in gaps:
        watcher.run(watcher.now + gap)
        watcher.heartbeat.send_began(watcher.now)
        watcher.run(watcher.now + limits.slow_timeout - 0.5)
        watcher.heartbeat.send_ended(watcher.now, is_ping=False)
    watcher.run(watcher.now + more)
    began = watcher.now
    watcher.heartbeat.send_began(began)
    assert watcher.is_open()
    watcher.run(FOREVER)
    assert watcher.closed == (began + limits.slow_timeout, TOO_SLOW)


@given(limits, seconds, gaps, st.lists(st.booleans(), min_size=20, max_size=20))
def test_a_client_outside_is_idle_when_nothing_but_pings_came_for_the_timeout(
    limits: Limits, idle_timeout: float, gaps: list[float], contents: list[bool]
) -> None:
    watcher = Watcher(replace(limits, idle_timeout=idle_timeout))
    watcher.attends = False
    last_content = 0.0
    for gap, is_content in zip(gaps, contents, strict=False):
        watcher.frame(gap, content=is_content)
        if watcher.closed:
            break
        if is_content:
            last_content = watcher.now
    watcher.run(FOREVER)
    assert watcher.closed == (last_content + idle_timeout, IDLE)


@given(limits, seconds, seconds)
def test_a_client_that_leaves_its_conversation_is_found_idle_within_the_timeout(
    limits: Limits, idle_timeout: float, left: float
) -> None:
    watcher = Watcher(replace(limits, idle_timeout=idle_timeout))
    watcher.run(left)
    assert watcher.is_open()
    watcher.attends = False
    watcher.run(FOREVER)
    assert watcher.closed
    at, frame = watcher.closed
    assert frame == IDLE
    assert max(left, idle_timeout) <= at <= left + idle_timeout


@given(limits, seconds)
def test_frames_need_no_additional_looks(limits: Limits, idle_timeout: float) -> None:
    """Sound is many frames a second, and none of them arms or cancels anything."""
    limits = replace(limits, idle_timeout=idle_timeout)
    watcher = Watcher(limits)
    for _ in range(1000):
        watcher.frame(0.125, content=True)
    shortest = min(limits.slow_timeout, limits.ping_interval, limits.pong_timeout, limits.idle_timeout)
    assert watcher.looks <= 2 * (watcher.now / shortest + 1)
