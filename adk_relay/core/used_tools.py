"""The tools that an answer has used, as a history has them: few of them, and short.

A client gets up to 200 messages at once, so what one tool was given and has returned must not be long.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from adk_relay.core.answer import ToolCall

MOST = 32
"""Tool calls of one message: the last ones."""

ADK_ASKS = "adk_request_"
"""How the names of the calls begin with which ADK asks users. They are no tools, and belong to no answer."""

LONGEST = 4096
"""Characters of JSON that the arguments, or the result, of one call have."""


def shortened(calls: Iterable[ToolCall]) -> tuple[ToolCall, ...]:
    """The last of these calls; long arguments and results become the beginning of their JSON, as a string.

    What a tool that waits for a user has returned meanwhile is not its result.
    """
    tools = [call for call in calls if not call.tool_name.startswith(ADK_ASKS)]
    return tuple(_short(replace(call, result=None) if call.is_pending else call) for call in tools[-MOST:])


def with_result(calls: tuple[ToolCall, ...], tool_id: str, result: Any) -> tuple[ToolCall, ...] | None:
    """The same calls, one of which has returned; None: it is not among those that have not."""
    for index, call in enumerate(calls):
        if call.tool_id == tool_id and call.result is None:
            call = _short(replace(call, result=result, is_pending=False))
            return (*calls[:index], call, *calls[index + 1 :])
    return None


def size_of(calls: Iterable[ToolCall]) -> int:
    """Characters of JSON."""
    return sum(len(_json(call.arguments)) + len(_json(call.result)) for call in calls)


def _short(call: ToolCall) -> ToolCall:
    arguments, result = _beginning(call.arguments), _beginning(call.result)
    if arguments is call.arguments and result is call.result:
        return call
    return replace(call, arguments=arguments, result=result, is_truncated=True)


def _beginning(value: Any) -> Any:
    """The value itself, if it is short: also if it is such a beginning."""
    if isinstance(value, str) and len(value) <= LONGEST:
        return value
    whole = _json(value)
    return value if len(whole) <= LONGEST else whole[:LONGEST]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
