"""The log: which connection and conversation a line is about, and foreign texts that can't forge lines.

Each line of relay's loggers has the attributes `connection` and `conversation`, for the formatters here and
for those of a host. They are "" where a line is about none.
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

connection_id: ContextVar[str] = ContextVar("connection_id", default="")
"""The socket or HTTP request that this context works for."""

conversation_id: ContextVar[str] = ContextVar("conversation_id", default="")
"""The conversation that this context works for."""


def failure(error: BaseException | None) -> str:
    """The type of an error and its own text, in one line."""
    return one_line(f"{type(error).__name__}: {error}")


def one_line(value: object, limit: int = 500) -> str:
    """The text of a peer, a tool or a service as one printable line, so that it can't forge log lines."""
    text = " ".join(str(value).split())
    return _printable(text[:limit])


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


_LOGGERS = ("relay", "relay.agent")

_ACCEPTED = '"WebSocket %s" [accepted]'
"""How uvicorn's line for an accepted WebSocket ends, before its arguments are put in."""


class _Lines(logging.Filter):
    """Adds the ids to each line, and makes each message one printable line, whatever it was made of."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, variable in (("connection", connection_id), ("conversation", conversation_id)):
            if not hasattr(record, name):
                setattr(record, name, variable.get())
        message = record.getMessage()
        if not message.isprintable():
            record.msg, record.args = _printable(message), None
        return True


class NoTraceback(logging.Filter):
    """For uvicorn's logger: an invalid frame is what a peer has done, and worth a line, but no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
            record.exc_info = None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


class NoRepeats(logging.Filter):
    """For uvicorn's loggers: relay has one line for a WebSocket that is opened, and one for a refused one."""

    def filter(self, record: logging.LogRecord) -> bool:
        line = str(record.msg)
        return not (line.startswith(("connection open", "connection rejected")) or line.endswith(_ACCEPTED))


class TextFormatter(logging.Formatter):
    """For people: the level, who says it, the message, and the ids that the message does not name."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        source = "relay" if record.name in _LOGGERS else record.name
        line = f"{record.levelname}:     {source}: {record.message}"
        ids = [
            f"{name} {found}"
            for name in ("conversation", "connection")
            if (found := getattr(record, name, "")) and found not in record.message
        ]
        return f"{line} ({', '.join(ids)})" if ids else line


class JsonFormatter(logging.Formatter):
    """For machines: one JSON object a line, a traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("connection", "conversation"):
            if found := getattr(record, name, ""):
                fields[name] = found
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_Lines())
