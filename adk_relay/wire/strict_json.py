"""JSON of clients: what models, databases or other clients can't take is no JSON here."""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DEPTH = 64
"""How deep objects and lists may be nested: what is deeper could be read, but not be copied or stored."""

JSON_LIMITS = f", at most {MAX_DEPTH} levels deep, and with numbers that are finite"
"""What an error adds."""

_MAX_DIGITS = 300
"""Those of the largest float, about. Python also reads longer integers, and can't make floats of them."""


def read_json(text: str | bytes) -> Any:
    """The value in a text.

    Raises:
        ValueError: it is not valid, nested too deep, or has a number that is not finite (also 1e999 is none).
    """
    text = text if isinstance(text, str) else text.decode()
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        raise ValueError("it is nested too deep")
    return value


def _is_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        within = ([*each.values()] if isinstance(each, dict) else each for each in level)
        level = [each for found in within for each in found if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError("a number is too large")
    return int(digits)


def _float(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError("a number is too large")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant)
