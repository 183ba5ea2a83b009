"""Every test also checks the invariants of relay's own objects, after each call from outside.

A class that has state has a method `check(self)` or `check_state(self)`, which raises AssertionError where
its invariants do not hold. `install()` finds these classes, and wraps their public methods so that it runs
when the outermost call on an object is over. A generator or a coroutine is over each time it hands control
back: whoever runs then may use the object.

A violation is raised at once, and also collected: a background task that it ends may have nobody who
looks at its error. `collected()` fails the test for it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator
from types import FunctionType, coroutine
from typing import Any

LAYERS = ("adk_relay.core.", "adk_relay.wire.", "adk_relay.adk.", "adk_relay.bus.")
"""Where the classes are whose objects are checked. The client's state holds between the steps of its task,
and not after each call; its own tests check it."""

CHECKS = ("check", "check_state")
"""What the method is called; the second one where the first has another meaning."""

_CHECK_ALL = 1000
"""So many calls of an object are all checked."""

_THEN_EVERY = 64
"""Of those that follow, one in so many: a thousand sockets in a room are many calls of a large object."""


class Checker:
    """Wraps methods, counts the calls, and keeps the violations that it has found."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._calls: dict[int, int] = {}  # by the object's id; a new object of that id begins anew
        self._inside: set[int] = set()
        self._broken: set[int] = set()  # told once: the first violation is the one to look at

    def wrap(self, kind: type) -> None:
        """Wraps `__init__` and the public methods that the class itself defines."""
        for name, function in list(vars(kind).items()):
            is_public = name == "__init__" or not name.startswith("_")
            if isinstance(function, FunctionType) and is_public and name not in CHECKS:
                setattr(kind, name, self._wrapped(function))

    def take(self) -> list[str]:
        """The violations since the last time; the counting of calls begins anew."""
        found, self.violations = self.violations, []
        self._calls.clear()
        self._broken.clear()
        return found

    def _wrapped(self, function: FunctionType) -> Callable[..., Any]:
        if inspect.isasyncgenfunction(function):
            raise TypeError(f"{function.__qualname__}: async generators are not checked yet")
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(this: Any, *args: Any, **kwargs: Any) -> Any:
                return await _awaitable(self._steps(this, function, function(this, *args, **kwargs)))

            return call_async
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generate(this: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
                return self._steps(this, function, function(this, *args, **kwargs))

            return generate

        @functools.wraps(function)
        def call(this: Any, *args: Any, **kwargs: Any) -> Any:
            return self._call(this, function, lambda: function(this, *args, **kwargs))

        return call

    def _steps(
        self, this: Any, function: FunctionType, steps: Generator[Any, Any, Any] | Coroutine[Any, Any, Any]
    ) -> Generator[Any, Any, Any]:
        """Runs a generator or a coroutine; each of its steps is a call."""
        step: Callable[[], Any] = functools.partial(steps.send, None)
        while True:
            try:
                value = self._call(this, function, step)
            except StopIteration as end:
                return end.value
            try:
                step = functools.partial(steps.send, (yield value))
            except GeneratorExit:
                self._call(this, function, steps.close)
                raise
            except BaseException as error:
                step = functools.partial(steps.throw, error)

    def _call(self, this: Any, function: FunctionType, step: Callable[[], Any]) -> Any:
        key = id(this)
        if key in self._inside:
            return step()
        if function.__name__ == "__init__":
            self._calls[key] = 0
            self._broken.discard(key)
        self._inside.add(key)
        is_made = function.__name__ != "__init__"
        try:
            result = step()
            is_made = True
            return result
        finally:
            self._inside.discard(key)
            if is_made:
                self._look_at(this, key, function)

    def _look_at(self, this: Any, key: int, function: FunctionType) -> None:
        calls = self._calls[key] = self._calls.get(key, 0) + 1
        if key in self._broken or (calls > _CHECK_ALL and calls % _THEN_EVERY):
            return
        try:
            kind: type = type(this)
            check = check_of(kind)
            assert check
            check(this)
        except AssertionError as violation:
            self._broken.add(key)
            message, *_ = str(violation).splitlines() or [""]
            self.violations.append(f"after {function.__qualname__}: {message}")
            raise


checker = Checker()


@coroutine
def _awaitable(steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    return (yield from steps)


_seen: set[str] = set()


def install() -> None:
    """Wraps the classes of all modules of relay that are imported by now and were not before."""
    for name, module in sys.modules.copy().items():  # a thread may be importing one
        if name.startswith(LAYERS) and name not in _seen:
            _seen.add(name)
            for kind in [*vars(module).values()]:  # a thread may be importing it
                if isinstance(kind, type) and kind.__module__ == name and has_check(kind):
                    checker.wrap(kind)


@functools.cache  # it is asked for after each call
def check_of(kind: type) -> Callable[[Any], None] | None:
    """What checks the invariants of a class, and of those that are derived from it; None: nothing does."""
    for name in CHECKS:
        check = getattr(kind, name, None)
        if (
            isinstance(check, FunctionType)
            and not inspect.iscoroutinefunction(check)
            and [*inspect.signature(check).parameters] == ["self"]
        ):
            return check
    return None


def has_check(kind: type) -> bool:
    """Whether a class has a method of its own that checks invariants, and not another one of that name."""
    check = check_of(kind)
    return check is not None and check in vars(kind).values()


def collected() -> Iterator[None]:
    """What the fixture does: a test in which an invariant was broken fails, whoever saw the error."""
    install()
    yield
    if violations := checker.take():
        raise AssertionError("\n".join(["invariants were broken:", *violations]))
