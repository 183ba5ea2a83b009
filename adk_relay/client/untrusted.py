"""Strings from the server: texts of other people may contain commands for the terminal."""

from __future__ import annotations

import re
from typing import Any

_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters (ECMA-48), marks that change the direction of text, and lone surrogates, which can't
be printed."""


def cleaned(value: Any) -> Any:
    """A JSON value without the unsafe characters of all its strings."""
    match value:
        case str():
            return _UNSAFE.sub("", value)
        case list():
            return [cleaned(item) for item in value]
        case dict():
            return {cleaned(key): cleaned(item) for key, item in value.items()}
    return value


def one_line(text: str) -> str:
    """A text without the line breaks with which it could look like lines of somebody else."""
    return " ".join(text.split())


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects in what should be a list of them."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
