"""The items of a conversation, as one socket knows them: messages, calls of functions, and their results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

MAX_ITEMS = 512
"""How many items are kept; the oldest are forgotten first."""

_MAX_CHARS = 1024 * 1024
"""Characters of all items together, as far as they are known when another one is added."""

Status = Literal["in_progress", "completed", "incomplete"]


@dataclass(slots=True, eq=False)
class Item:
    """An item. Of its sound only the length is kept."""

    id: str
    type: Literal["message", "function_call", "function_call_output"] = "message"
    role: Literal["user", "assistant", ""] = ""
    status: Status = "completed"
    content: list[dict[str, Any]] = field(default_factory=list)
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""
    text_id: str = ""
    """The id of the `UserText` that it is; "": it is none, or was not said yet."""
    audio_ms: float = 0.0
    """How much sound of it the client was sent."""
    first_seq: int = 0
    seq: int = 0
    """The numbers of the first and of the last message of the conversation in it, if it is an answer."""
    previous: str | None = None
    """The id of the item before it when it was added."""

    @property
    def size(self) -> int:
        """How many characters it has, about."""
        words = sum(len(part.get("text") or part.get("transcript") or "") for part in self.content)
        return 100 + words + len(self.arguments) + len(self.output)

    def object(self, *, is_beta: bool = False) -> dict[str, Any]:
        """The item as the API shows it."""
        fields: dict[str, Any] = {"id": self.id, "object": "realtime.item", "type": self.type}
        fields["status"] = self.status
        match self.type:
            case "message":
                content = [_beta(part) for part in self.content] if is_beta else [*self.content]
                return fields | {"role": self.role, "content": content}
            case "function_call":
                return fields | {"name": self.name, "call_id": self.call_id, "arguments": self.arguments}
            case _:
                return fields | {"call_id": self.call_id, "output": self.output}


def _beta(part: dict[str, Any]) -> dict[str, Any]:
    """A part of an item as the beta names it."""
    part_type = part["type"]
    return part | {"type": {"output_text": "text", "output_audio": "audio"}.get(part_type, part_type)}


class Items:
    """The items, in their order.

    Invariants:
        Each id is there once. There are at most `MAX_ITEMS`.
        `last` is the id of the last one.
    """

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self.last: str | None = None
        """What comes next is behind this one; None: it is the first."""

    def check(self) -> None:
        """Asserts the invariants."""
        assert len(self._items) <= MAX_ITEMS, "too many items are kept"
        assert all(item.id == key for key, item in self._items.items()), "an item has another id"
        assert self.last is None or self.last in self._items, "the last item is not there"

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._items

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items.values())

    def get(self, item_id: str) -> Item | None:
        """The item with this id; None: there is none, or it is forgotten."""
        return self._items.get(item_id)

    def add(self, item: Item) -> None:
        """Adds an item at the end."""
        item.previous, self.last = self.last, item.id
        self._items[item.id] = item
        size = sum(each.size for each in self._items.values())
        while len(self._items) > MAX_ITEMS or (size > _MAX_CHARS and len(self._items) > 1):
            size -= self._items.pop(next(iter(self._items))).size

    def remove(self, items: Iterable[Item]) -> None:
        """Removes items."""
        for item in items:
            self._items.pop(item.id, None)
        self.last = next(reversed(self._items), None)

    def since(self, item: Item) -> list[Item]:
        """This item, and all that came after it."""
        items = [*self._items.values()]
        return items[items.index(item) :]

    def last_of_user(self) -> Item | None:
        """The last message of a user."""
        return next((each for each in reversed(self._items.values()) if each.role == "user"), None)

    def last_of_agent(self, count: int) -> list[Item]:
        """The last messages of the agent, the last one first."""
        return [*islice((each for each in reversed(self._items.values()) if each.role == "assistant"), count)]

    def answer_at(self, seq: int) -> Item | None:
        """The message of the agent that has the message of the conversation with this number."""
        return next((each for each in self.last_of_agent(8) if each.first_seq <= seq <= each.seq), None)

    def call(self, call_id: str) -> Item | None:
        """The call of a function with this id."""
        return self._of_call("function_call", call_id)

    def output(self, call_id: str) -> Item | None:
        """The result of the call with this id."""
        return self._of_call("function_call_output", call_id)

    def _of_call(self, item_type: str, call_id: str) -> Item | None:
        found = (each for each in self._items.values() if each.type == item_type and each.call_id == call_id)
        return next(found, None)
