"""A listener of a conversation that another process owns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from adk_relay.bus.commands import Ask
from adk_relay.bus.microphone import Microphone
from adk_relay.bus.pictures import Pictures
from adk_relay.bus.unsettled import Unsettled
from adk_relay.core.inbox import bytes_of
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Error, Message, Status, TurnEnd, UserText
from adk_relay.core.room import After
from adk_relay.core.voice import Configured

State = Literal["reconnecting", "live", "elsewhere", "degraded"]
"""As in `core.messages.Status`."""


@dataclass(slots=True, eq=False)
class Attendee:
    """A listener, and what has to be said again to a new owner."""

    listener: Listener
    after: After | None
    """What it asks for; None: it makes one request, and nothing is replayed to it."""
    came_at: float
    """As `time.time()`."""
    epoch: str
    """The one that its client was told."""
    seq: int
    """The number of the last message in it that its client was told, or could have been."""
    title: str = ""
    """The title of the conversation that its client was told."""
    chosen: Configured | None = None
    """How the agent answers, as its client was told."""
    is_in: bool = False
    """The owner has answered: what comes now is for it."""
    texts: dict[str, UserText | Ask] = field(default_factory=dict)
    """By id: texts without an ack, and requests without an answer."""
    acked: set[str] = field(default_factory=set)
    """The ids of those requests that were acked."""
    answered: set[str] = field(default_factory=set)
    """The ids of those requests that were answered."""
    held: list[bytes] = field(default_factory=list)
    """Other input that came while there was no owner, but sound."""
    unsettled: Unsettled = field(default_factory=Unsettled)
    pictures: Pictures = field(default_factory=Pictures)
    microphone: Microphone | None = None
    """None: it has sent no sound yet."""
    state: State = "live"
    """What the owner has told it last of the state of the conversation."""
    told: State | Literal[""] = ""
    """What it was told here instead, because the owner could not be reached; "": nothing."""

    @property
    def text_bytes(self) -> int:
        """How many bytes its texts have."""
        return sum(bytes_of(each.text if isinstance(each, Ask) else each) for each in self.texts.values())

    def forget(self, text_id: str) -> None:
        """A text was refused, or has its ack and its answer: it is not said again."""
        self.texts.pop(text_id, None)
        self.acked.discard(text_id)
        self.answered.discard(text_id)

    def has_answer(self, text_id: str) -> None:
        """A request was answered. Its ack may come again, if it got lost."""
        if text_id in self.texts:
            self.answered.add(text_id)
            if text_id in self.acked:
                self.forget(text_id)

    def settle(self, message: Message) -> bool:
        """Forgets what need not be said again after a message; returns whether it need not be told."""
        match message:
            case Error(id=text_id) if text_id:
                self.forget(text_id)
            case TurnEnd(goes_on=False, answer=answer):
                self.pictures.answered()
                asked = answer.asked if answer else None
                if self.listener.attends == "own":
                    self.texts.clear()
                    self.acked.clear()
                    self.answered.clear()
                elif asked and asked.connection_id == self.listener.connection_id:
                    self.has_answer(asked.id)
        return self.unsettled.settle(message)

    def tell(self, state: State | Literal[""]) -> None:
        """Tells it what is the matter here; "": nothing is any more."""
        if state != self.told:
            self.told = state
            self.listener.deliver(Status(state or self.state))
