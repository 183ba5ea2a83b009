"""`state_delta`: the server and `static/openapi.json` agree on what is valid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from adk_relay.core.messages import UserText
from adk_relay.wire.dialects import BadFrameError
from adk_relay.wire.dialects.state_delta import with_state

_API = json.loads((Path(__file__).parents[2] / "static/openapi.json").read_text("utf-8"))
_SCHEMA = _API["components"]["schemas"]["ChatRequest"]["properties"]["state_delta"]
_PREFIXES = st.sampled_from(["", "temp:", "app:", "user:", "relay_", "app:relay_", "temp"])
_KEYS = st.builds(str.__add__, _PREFIXES, st.text(max_size=130))
_VALUES = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
_DELTAS = st.dictionaries(_KEYS, st.one_of(_VALUES, st.none(), st.lists(st.integers())), max_size=3)


@given(_DELTAS)
@example({"\x1f": 1})
@example({"a\x7f": 1})
@example({"\u200b": 1})
@example({"a": "\0"})
@example({"a": 2**53})
@example({"a": 2**53 + 1})
@example({"": 1})
@example({"relay_a": 1})
@example({"a:relay_": 1})
@example({"a:relay_b:c": 1})
@example({"a:b\u2028relay_c": 1})
def test_the_description_is_true(delta: dict[str, Any]) -> None:
    try:
        with_state(UserText("x"), {"state_delta": delta})
    except BadFrameError:
        is_valid = False
    else:
        is_valid = True
    assert Draft202012Validator(_SCHEMA).is_valid(delta) == is_valid
