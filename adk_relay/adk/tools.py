"""Tools: a tool that fails does not end the run, and every result becomes JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from google.adk.plugins.base_plugin import BasePlugin
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.tool_context import ToolContext
from pydantic_core import to_jsonable_python

from adk_relay.adk.connection import observer
from adk_relay.core.logs import failure

log = logging.getLogger("relay.agent")


class Tools(BasePlugin):
    """A plugin for tools that raise, or whose result is not JSON: without it, ADK would end the run."""

    async def after_tool_callback(
        self,
        *,
        tool: BaseTool,
        tool_args: dict[str, Any],
        tool_context: ToolContext,
        result: Any,
    ) -> dict[str, Any] | None:
        if not result and (tool.is_long_running or tool._defers_response):
            if tool.is_long_running and tool_context.function_call_id:
                observer.get().answers.waits(tool_context.function_call_id)
            return None  # ADK answers the call later
        # ADK and google-genai can neither store nor send a result that is not JSON.
        answer = jsonable(result)
        return answer if isinstance(answer, dict) else {"result": answer}

    async def on_tool_error_callback(
        self,
        *,
        tool: BaseTool,
        tool_args: dict[str, Any],
        tool_context: ToolContext,
        error: Exception,
    ) -> dict[str, Any] | None:
        if isinstance(error, asyncio.CancelledError):
            return None  # the run ends
        log.error("tool %s failed: %s", tool.name, failure(error))
        return {"status": "error", "message": f"The tool {tool.name} failed."}


def jsonable(value: Any) -> Any:
    """A JSON-serializable form of a tool's arguments or result. Never raises."""
    try:
        plain = to_jsonable_python(
            value, bytes_mode="base64", inf_nan_mode="strings", fallback=_describe, serialize_unknown=True
        )
        # Half of a surrogate pair can neither be stored nor sent.
        return json.loads(json.dumps(plain, ensure_ascii=False).encode(errors="replace"))
    except Exception:  # a cycle, an iterator that raises, very deep nesting: a tool may return anything
        return f"<{type(value).__name__}>"


def _describe(value: Any) -> Any:
    if hasattr(value, "DESCRIPTOR"):  # a protobuf message; ADK itself does not bring the package
        from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

        return MessageToDict(value)
    return repr(value)
