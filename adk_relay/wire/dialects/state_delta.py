"""What a text changes in the session's state: `state_delta`, a flat JSON object."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, Literal

from adk_relay.core.messages import UserText
from adk_relay.wire.dialects import BadFrameError
from adk_relay.wire.dialects.fields import to_json

MAX_STATE_BYTES = 16 * 1024
"""Bytes that a `state_delta` may have, as compact JSON in UTF-8."""

_KEY = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")
"""`static/openapi.json` has the same pattern."""

_MAX_NUMBER = 2**53
"""What JavaScript and all databases hold exactly."""

_ADKS = ("app:", "user:")
"""With these, ADK's keys are those of other conversations, too."""

Allowed = Literal["session", "all", "off"]
"""Which keys clients may set: those of the conversation, ADK's `app:` and `user:` ones too, or none."""


def with_state(text: UserText, fields: dict[str, Any]) -> UserText:
    """A text with the `state_delta` that is in its frame, if there is one.

    Raises:
        BadFrameError: it is not valid.
    """
    delta, text_id = fields.get("state_delta"), text.id
    if delta is None:
        return text
    if not isinstance(delta, dict):
        raise BadFrameError("bad_data", "state_delta must be a JSON object.", text_id)
    for key, value in delta.items():
        if why := _what_is_wrong(key, value):
            raise BadFrameError("bad_data", why, text_id)
    length = len(to_json(delta).encode())
    if length > MAX_STATE_BYTES:
        why = f"state_delta has {length} bytes; at most {MAX_STATE_BYTES} are allowed."
        raise BadFrameError("too_large", why, text_id)
    return replace(text, state_delta=delta) if delta else text


def check_state(text: UserText, allowed: Allowed, *, is_users_own: bool) -> None:
    """Checks that a client may set the keys of a text's `state_delta`.

    Args:
        is_users_own: the conversation is the visitor's own, or the visitor may manage it.

    Raises:
        BadFrameError: it may not.
    """
    if not text.state_delta:
        return
    if allowed == "off":
        raise BadFrameError("not_allowed", "No state can be set here.", text.id)
    if not is_users_own:  # the agent's instruction would take it as the user's own
        raise BadFrameError("not_allowed", "Only the user whose conversation this is may set state.", text.id)
    if allowed != "all" and (key := next((key for key in text.state_delta if key.startswith(_ADKS)), "")):
        why = f"state_delta has the key {key!r}: keys with app: or user: can't be set here."
        raise BadFrameError("not_allowed", why, text.id)


def _what_is_wrong(key: str, value: Any) -> str:
    """What is wrong with a key or its value; "": nothing is."""
    if not _KEY.fullmatch(key):
        return "Each key of state_delta must have 1 to 128 characters, and no control characters."
    if key.startswith("temp:"):
        return "ADK keeps no temp: keys from one run to the next, so state_delta can't have them."
    if key.rpartition(":")[2].startswith("relay_"):
        return "Keys that begin with relay_ are relay's own."
    if isinstance(value, str):
        return "" if _can_be_stored(value) else f"The value of {key!r} in state_delta is not valid Unicode."
    if isinstance(value, int | float) and not (math.isfinite(value) and abs(value) <= _MAX_NUMBER):
        return f"The value of {key!r} in state_delta must be a number of at most 2^53."
    if not isinstance(value, int | float | bool | None):
        return f"state_delta must be flat: {key!r} must be a string, a number, true, false or null."
    return ""


def _can_be_stored(value: str) -> bool:
    """Whether all databases take a text: JSON can hold half of a surrogate pair, and NUL."""
    return "\0" not in value and not any("\ud800" <= each <= "\udfff" for each in value)
