"""The members of a conversation: nobody may keep the others from talking with the agent."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

from adk_relay.core.allowance import Allowance
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Error, Input, Interrupt, UserTyping

_INTERRUPTIONS = 0.5, 20.0
"""How often a member may stop the answer: a second, and at once."""

_TYPING = 2.0, 20.0
"""How often a member may begin to type: each time, all others are told."""

_MAX_MEMBERS = 1024
"""How many members are remembered: those that did something last."""


def member_of(listener: Listener) -> str:
    """For whom things are counted: where nobody signs in, it is the connection."""
    return listener.member or listener.connection_id


class Members:
    """What each member of a conversation may still do to the others.

    Invariants: at most `_MAX_MEMBERS` are remembered.
    """

    def __init__(self) -> None:
        self._allowances: OrderedDict[str, tuple[Allowance, Allowance]] = OrderedDict()

    def check(self) -> None:
        """Asserts the invariants."""
        assert len(self._allowances) <= _MAX_MEMBERS

    def may(self, user_input: Input, listener: Listener) -> bool:
        """Counts what a listener does. False: it is too much; for an interruption, the listener is told."""
        match user_input:
            case Interrupt():
                allowance = self._of(listener)[0]
            case UserTyping(True):
                allowance = self._of(listener)[1]
            case _:
                return True
        wait = allowance.wait(time.monotonic())
        if not wait:
            allowance.take(1)
        elif isinstance(user_input, Interrupt):
            why = f"You stop the agent too often: wait {math.ceil(wait)} s."
            listener.deliver(Error("rate_limited", why, retry_after=math.ceil(wait)))
        return not wait

    def _of(self, listener: Listener) -> tuple[Allowance, Allowance]:
        member = member_of(listener)
        allowances = self._allowances.pop(member, None) or (Allowance(*_INTERRUPTIONS), Allowance(*_TYPING))
        self._allowances[member] = allowances  # now the last one
        if len(self._allowances) > _MAX_MEMBERS:
            self._allowances.popitem(last=False)
        return allowances
