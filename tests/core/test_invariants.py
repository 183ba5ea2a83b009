"""The checks that run in every test: a broken invariant fails it, whoever sees the error."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import UserText
from support.invariants import Checker, checker, collected, has_check


class Counter:
    """Breaks when it has counted to three, until it counts on."""

    def __init__(self) -> None:
        self.count = 0
        self.checks = 0

    def check(self) -> None:
        self.checks += 1
        assert self.count != 3, "it has counted to three"

    def add(self, number: int = 1) -> None:
        self.count += number

    def through_three(self) -> None:
        self.add(3)
        self.add()

    def up(self) -> Iterator[int]:
        while True:
            self.count += 1
            yield self.count

    async def up_later(self, *, by: int) -> None:
        while True:
            self.count += by
            await asyncio.sleep(0)


def watched() -> tuple[Checker, type[Counter]]:
    kind = type("Watched", (), dict(vars(Counter)))
    checks = Checker()
    checks.wrap(kind)
    return checks, kind


def test_a_broken_invariant_is_raised_and_collected_once() -> None:
    checks, kind = watched()
    counter = kind()
    with pytest.raises(AssertionError, match="counted to three"):
        counter.add(3)
    counter.add(0)  # the first violation is the one to look at
    assert checks.violations == ["after Counter.add: it has counted to three"]
    assert checks.take() == ["after Counter.add: it has counted to three"]
    assert checks.take() == []


def test_only_the_outermost_call_is_checked() -> None:
    checks, kind = watched()
    counter = kind()
    counter.through_three()
    assert (counter.count, counter.checks) == (4, 2)
    assert checks.take() == []


def test_a_generator_is_checked_at_each_step() -> None:
    checks, kind = watched()
    steps = kind().up()
    assert [next(steps), next(steps)] == [1, 2]
    with pytest.raises(AssertionError):
        next(steps)
    assert checks.take() == ["after Counter.up: it has counted to three"]


async def test_a_coroutine_is_checked_each_time_it_waits_and_others_meanwhile() -> None:
    checks, kind = watched()
    counter = kind()
    task = asyncio.create_task(counter.up_later(by=0))
    await asyncio.sleep(0)
    with pytest.raises(AssertionError):
        counter.add(3)
    assert checks.take() == ["after Counter.add: it has counted to three"]
    counter.count = 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_broken_invariant_in_a_task_that_nobody_awaits_is_collected() -> None:
    checks, kind = watched()
    task = asyncio.create_task(kind().up_later(by=1))
    await asyncio.wait({task})
    assert isinstance(task.exception(), AssertionError)
    assert checks.take() == ["after Counter.up_later: it has counted to three"]


def test_an_object_of_many_calls_is_checked_now_and_then() -> None:
    checks, kind = watched()
    counter = kind()
    for _ in range(2_000):
        counter.add(10)
    assert 1_000 < counter.checks < 1_100
    with pytest.raises(AssertionError):
        for _ in range(64):
            counter.count = 3
            counter.add(0)
    assert len(checks.take()) == 1


def test_the_fixture_fails_a_test_that_has_swallowed_the_error() -> None:
    fixture = collected()
    next(fixture)
    inbox = Inbox(on_dropped=lambda ms: None)
    inbox._content_bytes += 1
    with pytest.raises(AssertionError):
        inbox.add(UserText("one"))
    with pytest.raises(AssertionError, match=r"after Inbox\.add"):
        next(fixture)
    assert checker.violations == []


def test_the_classes_that_are_checked_are_those_with_a_check_of_their_own() -> None:
    class Checked:
        def check(self) -> None: ...

    class Derived(Checked): ...

    class Busy:
        def check(self, now: float) -> None: ...

    class Remote:
        async def check(self) -> None: ...

    assert [has_check(kind) for kind in (Checked, Derived, Busy, Remote, Inbox)] == [True, *[False] * 3, True]
