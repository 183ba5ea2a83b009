"""The members of a conversation: nobody may keep the others from talking with the agent."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from adk_relay.core.allowance import Allowance
from adk_relay.core.listener import Listener, Member, member_of
from adk_relay.core.messages import Error, Input, Interrupt, UserText, UserTyping
from adk_relay.core.requests import Requests
from adk_relay.core.rewind import Rewind
from adk_relay.core.voice import Configure

_INTERRUPTIONS = 0.1, 20.0
"""How often a member may stop the answer, or cut in with a text: a second, and at once. So answers to others
have ten seconds."""

_TYPING = 2.0, 20.0
"""How often a member may begin to type: each time, all others are told."""

_ADDRESS = 4
"""All members of one address together may do as much as so many members."""

_MAX_MEMBERS = 1024
"""How many members and addresses are remembered: those that did something last."""


class Members:
    """What each member of a conversation may still do to the others.

    Args:
        requests: those of the conversation.
        is_under_way: returns whether an answer is given or waited for.
        has_others: returns whether anybody but a member attends the conversation.

    Invariants: at most `_MAX_MEMBERS` are remembered.
    """

    def __init__(
        self, requests: Requests, is_under_way: Callable[[], bool], has_others: Callable[[Member], bool]
    ) -> None:
        self._requests = requests
        self._is_under_way = is_under_way
        self._has_others = has_others
        self._writer: Member | None = None
        """Who wrote the last text that is no request."""
        self._allowances: OrderedDict[str, tuple[Allowance, Allowance]] = OrderedDict()
        """By member, and by address: for interruptions, and for typing."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert len(self._allowances) <= _MAX_MEMBERS

    def may(self, user_input: Input, listener: Listener) -> bool:
        """Counts what a listener does. False: it is too much; unless it is typing, the listener is told."""
        member = member_of(listener)
        match user_input:
            case Interrupt() | Rewind() if self._has_others(member):  # who is alone disturbs nobody
                wait = self._take(member, 0)
            case UserText() if self._cuts_in(member):
                wait = self._take(member, 0)
            case Configure():  # each change costs a connection to the model
                wait = self._take(member, 0)
            case UserTyping(True):
                wait = self._take(member, 1)
            case _:
                wait = 0.0
        if isinstance(user_input, UserText) and not wait:
            self._writer = member
        if wait and not isinstance(user_input, UserTyping):
            does = "change how the agent answers" if isinstance(user_input, Configure) else "stop answers"
            why = f"You {does} too often: wait {math.ceil(wait)} s."
            text_id = user_input.id if isinstance(user_input, UserText | Configure) else ""
            listener.deliver(Error("rate_limited", why, text_id, retry_after=math.ceil(wait)))
        return not wait

    def _take(self, member: Member, index: int) -> float:
        """Counts one more of a member, unless it is too much; returns the seconds to wait until it is not."""
        allowances = [self._of(member.id)[index]]
        if member.address:
            allowances.append(self._of(member.address, _ADDRESS)[index])
        now = time.monotonic()
        wait = max(allowance.wait(now) for allowance in allowances)
        if not wait:
            for allowance in allowances:
                allowance.take(1)
        return wait

    def _cuts_in(self, member: Member) -> bool:
        """Whether a text of a member would interrupt an answer that somebody else waits for."""
        is_others = self._writer not in (None, member) or self._requests.has_others(member)
        return is_others and self._is_under_way()

    def _of(self, key: str, members: int = 1) -> tuple[Allowance, Allowance]:
        """The allowances of a member, or of an address, which may do as much as so many members."""
        allowances = self._allowances.pop(key, None) or _allowances(members)
        self._allowances[key] = allowances  # now the last one
        if len(self._allowances) > _MAX_MEMBERS:
            self._allowances.popitem(last=False)
        return allowances


def _allowances(members: int) -> tuple[Allowance, Allowance]:
    one, other = (Allowance(rate * members, most * members) for rate, most in (_INTERRUPTIONS, _TYPING))
    return one, other
