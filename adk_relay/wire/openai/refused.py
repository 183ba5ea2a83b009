"""Errors about a client's event: the API names the event and the field that is wrong."""

from __future__ import annotations

from adk_relay.wire.dialects import BadFrameError

_PARAM = "param "


class RefusedError(BadFrameError):
    """An event that is not valid, or asks for what ADK can't do.

    A `BadFrameError` reaches the encoder as a `messages.Error`, whose `tool_id` here holds the field.

    Args:
        code: for programs, such as `invalid_value`.
        param: the field that is wrong, such as `session.audio.input.format`; "": it is none.
        event_id: that of the event; "": the client gave it none.
    """

    def __init__(self, code: str, message: str, param: str = "", event_id: str = "") -> None:
        super().__init__(code, message, event_id, _PARAM + param)
        self.param = param

    def about(self, event_id: str) -> RefusedError:
        """The same error, about the event with this id."""
        return RefusedError(self.code, str(self), self.param, event_id)


def param_of(tool_id: str) -> str | None:
    """The field that `Error.tool_id` holds; None: the error is no `RefusedError`."""
    return tool_id.removeprefix(_PARAM) if tool_id.startswith(_PARAM) else None
