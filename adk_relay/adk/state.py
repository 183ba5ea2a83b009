"""What clients set in the session's state: `UserText.state_delta`.

It is stored in one event with its text, so it is stored as often as the text is: once. The state also has a
list of the keys that clients have set. Others are the agent's own, and nobody is told of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from adk_relay.core.inbox import InboxFullError
from adk_relay.core.messages import UserText

KEYS = "relay_state_keys"
"""The key, in the state, of the list of the keys that clients have set."""

MAX_BYTES = 64 * 1024
"""What clients may set in one conversation, with all texts together: the state is read and written whole."""


class StateFullError(InboxFullError):
    """Clients have set more in the state than is kept."""

    def __init__(self) -> None:
        Exception.__init__(self, f"The conversation's state has {MAX_BYTES} bytes already: use fewer keys.")


class SetState:
    """What clients have set in one conversation, also with texts that are not stored yet.

    Invariants:
        It has at most 64 KiB, or as many bytes as were stored before: a tool may have made a value longer.
    """

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._most = MAX_BYTES

    def check(self) -> None:
        """Asserts the invariants."""
        assert _size(self._values) <= self._most, "clients have set too much"

    def load(self, state: Mapping[str, Any]) -> None:
        """Begins with the state of a session."""
        self._values = shown(state)
        self._most = max(MAX_BYTES, _size(self._values))

    @contextmanager
    def added(self, delta: Mapping[str, Any] | None) -> Iterator[None]:
        """A text with this delta is taken, unless the body raises an exception.

        Raises:
            StateFullError: there is no room for it.
        """
        before = self._values
        if delta:
            values = {**before, **delta}
            if _size(values) > self._most:
                raise StateFullError
            self._values = values
        try:
            yield
        except BaseException:
            self._values = before
            raise


def delta_of(text: UserText, state: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored in the state with a text: what it sets, and the keys of all that clients have set."""
    if not text.state_delta:
        return {}
    keys = [*_keys(state), *(key for key in text.state_delta if key not in _keys(state))]
    return {**text.state_delta, KEYS: keys}


def shown(state: Mapping[str, Any]) -> dict[str, Any]:
    """What clients have set, with the values that are there now: an agent's tool may have changed them."""
    return {key: state[key] for key in _keys(state) if key in state}


def _size(values: Mapping[str, Any]) -> int:
    return len(json.dumps(values, default=str))


def _keys(state: Mapping[str, Any]) -> list[str]:
    keys = state.get(KEYS)
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
