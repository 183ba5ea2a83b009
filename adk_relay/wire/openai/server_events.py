"""The events of the server: how they are written, in the names of the API or in those of its beta."""

from __future__ import annotations

import secrets
from base64 import b64encode
from itertools import count
from typing import Any

from adk_relay.wire.dialects.fields import to_json
from adk_relay.wire.outbox import Sound

_BETA: dict[str, str | None] = {
    "conversation.item.added": "conversation.item.created",
    "conversation.item.done": None,
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
}
"""What the beta calls events; None: it has none."""


class ServerEvents:
    """Writes the events of one socket. Each has an id of its own."""

    def __init__(self, *, is_beta: bool) -> None:
        self.is_beta = is_beta
        self._prefix = secrets.token_hex(6)
        self._count = count(1)
        self._sound = _BETA["response.output_audio.delta"] if is_beta else "response.output_audio.delta"

    def new_id(self, kind: str) -> str:
        """An id that no other object of this socket has, and with all likelihood none of another."""
        return f"{kind}_{self._prefix}{next(self._count):06x}"

    def event(self, event_type: str, **fields: Any) -> tuple[str, ...]:
        """An event as a frame; empty: the beta has no such event."""
        name = _BETA.get(event_type, event_type) if self.is_beta else event_type
        if name is None:
            return ()
        return (to_json({"type": name, "event_id": self.new_id("event"), **fields}),)

    def sound(self, response_id: str, item_id: str, index: tuple[int, int], audio: bytes, ms: float) -> Sound:
        """A delta of sound. It is put together here, because there are dozens in a second.

        Args:
            index: those of the item in the response, and of the part in the item.
        """
        delta = b64encode(audio).decode("ascii")
        return Sound(
            f'{{"type":"{self._sound}","event_id":"{self.new_id("event")}","response_id":"{response_id}",'
            f'"item_id":"{item_id}","output_index":{index[0]},"content_index":{index[1]},"delta":"{delta}"}}',
            ms,
        )

    def error(
        self, code: str, message: str, param: str | None = None, event_id: str = "", kind: str = ""
    ) -> tuple[str, ...]:
        """An error.

        Args:
            param: the field of the client's event that is wrong.
            event_id: that of the client's event; "": it has none, or the error is not about one.
            kind: the error's `type`; "": the client's event was wrong.
        """
        error = {
            "type": kind or "invalid_request_error",
            "code": code,
            "message": message,
            "param": param or None,
            "event_id": event_id or None,
        }
        return self.event("error", error=error)
