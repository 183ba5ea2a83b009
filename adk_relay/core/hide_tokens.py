"""Tokens stay out of the log: out of relay's own, and out of those of the ASGI servers."""

from __future__ import annotations

import logging
import re

_HIDDEN = re.compile(
    r"""
    (?P<kept>
        (?:t|%74|%54)(?:o|%6f|%4f)(?:k|%6b|%4b)(?:e|%65|%45)(?:n|%6e|%4e)   # token, also percent-encoded
        (?: = | %3d | \\?["'] \s* : \s* \\?["'] )                           # in a query, or in JSON
        | \bbearer (?: \. | \s+ | %2e | %20 )
        | \binsecure-api-key (?: \. | %2e )
    )
    [^\s&;"'\\,)\]]+
    | \beyJ[\w-]{4,} (?: \. | %2e ) [\w=-]+ (?: \. | %2e ) [\w=-]*          # a JSON Web Token
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Tokens in a line of a log."""


def without_tokens(line: str) -> str:
    """A line for a log without the tokens in it."""
    return _HIDDEN.sub(lambda found: (found["kept"] or "") + "…", line)


class HideTokens(logging.Filter):
    """Takes the tokens out of all that is logged: servers log the query of a URL, and in debug logs more."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the record; it is always logged."""
        if isinstance(record.msg, str):
            record.msg = without_tokens(record.msg)
        # The arguments keep their number and order: uvicorn's formatter takes them apart.
        if isinstance(record.args, tuple):
            record.args = tuple(_hidden(argument) for argument in record.args)
        elif record.args:
            record.args = {key: _hidden(value) for key, value in record.args.items()}
        return True


def _hidden(argument: object) -> object:
    if isinstance(argument, int | float | None):
        return argument
    text = str(argument)
    hidden = without_tokens(text)
    return argument if hidden == text else hidden


_FILTER = HideTokens()

_LOGGERS = (
    *("relay", "relay.agent", "uvicorn", "uvicorn.access", "uvicorn.error", "uvicorn.asgi"),
    *(
        "websockets.server",
        "hypercorn.access",
        "hypercorn.error",
        "daphne.server",
        "_granian",
        "granian.access",
    ),
)
"""The loggers of relay, and those of servers that show what a client has sent. A filter works on one logger
only, not on those below it."""


def hide_tokens() -> None:
    """Takes the tokens out of the logs of relay and of the ASGI servers, from now on."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_FILTER)  # adding it again does nothing
