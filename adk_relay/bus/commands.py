"""What processes tell each other, besides the messages and the input of conversations.

An `adk_relay.bus.packs.Item` says which conversation and which connections something is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from adk_relay.core.interfaces import Summary
from adk_relay.core.messages import Gap, Line, Message, Numbered, UserText
from adk_relay.core.room import After, Standing
from adk_relay.core.voice import Configured

# ---- to the owner of a conversation: what a connection does --------------------------------------


@dataclass(slots=True, frozen=True)
class Attend:
    """A listener attends. It gets a `Replay` first, and then what the room is told.

    Where it attends already, it gets what it has missed. The fields are those of `core.listener.Listener`.
    """

    user_id: str
    """Whose conversation it is."""
    name: str
    member: str
    address: str
    is_audio: bool
    connects: bool
    attends: Literal["all", "newest", "own"]
    came_at: float
    """When it came, as `time.time()`: of those that attend as "newest", the one that came last is it."""
    after: After | None = None
    """The last message that it has got; None: it wants nothing replayed."""


@dataclass(slots=True, frozen=True)
class Leave:
    """A listener leaves."""

    at_once: bool = False
    """It will not come back."""


@dataclass(slots=True, frozen=True)
class Ask:
    """A listener waits for the answer to a text."""

    text: UserText


# ---- from the owner ------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Replay:
    """A listener attends, and this is what it has missed. What comes after it follows these messages."""

    messages: tuple[Message, ...]
    epoch: str
    seq: int
    """The number of the last message of all."""
    emptied: Literal["", "cleared", "deleted"] = ""
    """What the epoch has begun with; "": the conversation was not in memory before."""
    title: str = ""
    chosen: Configured | None = None
    """How the agent answers; None: the conversation could not be opened."""

    def missed(self, after: After | None, epoch: str) -> Sequence[Message]:
        """What a listener has missed of it.

        Args:
            after: what it has asked for last. It may have asked several times, and had the answer to one of
                the first times already.
            epoch: the one that it was told.
        """
        messages = self.messages
        if messages and isinstance(messages[0], Gap) and epoch != self.epoch:
            return [replace(messages[0], epoch=self.epoch), *messages[1:]]
        if after and after.epoch == self.epoch:
            got = [
                at for at, each in enumerate(messages) if isinstance(each, Numbered) and each.seq <= after.seq
            ]
            return messages[got[-1] + 1 :] if got else messages
        return messages


@dataclass(slots=True, frozen=True)
class Moved:
    """Tells who owns a conversation. If that is who says it, its listeners have to attend anew."""

    token: int
    """0: the sender knows of no owner, only that it is none."""
    process: str


# ---- through the queues that all workers read, and calls -------------------------------------------


@dataclass(slots=True, frozen=True)
class Claim:
    """A conversation needs an owner."""

    user_id: str
    session_id: str
    seen: int
    """The token of the owner that has died; 0: there was none."""
    asker: str
    """The process that asks."""


@dataclass(slots=True, frozen=True)
class Call:
    """A question to the owner of a conversation, or one that any worker can answer."""

    id: str
    """Chosen by the asker."""
    asker: str
    """The process that waits for the `Reply`."""
    name: Literal["answer", "check", "create", "find", "list", "open", "read", "rename", "reset", "summaries"]
    """The method of `core.interfaces.Conversations`. "summaries": those of conversations that it owns."""
    user_id: str
    session_id: str = ""
    arguments: Any = None
    """JSON: the further arguments, by name."""


@dataclass(slots=True, frozen=True)
class Reply:
    """The answer to a `Call`: what its method returns, or the error that it raises."""

    id: str
    error: str = ""
    """The name of the error's class; "": there is none."""
    error_text: str = ""
    session_id: str = ""
    standing: Standing | None = None
    """Of a conversation that was opened."""
    summaries: tuple[Summary, ...] = ()
    lines: tuple[Line, ...] = ()
    first: int = 0
    """The number of the first line."""
