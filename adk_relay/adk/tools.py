"""Whatever a tool is given or answers: the run goes on, and JSON can hold it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from google.adk.plugins.base_plugin import BasePlugin
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.tool_context import ToolContext
from pydantic_core import to_jsonable_python

from adk_relay.core.logs import failure

log = logging.getLogger("relay.agent")


class Tools(BasePlugin):
    """Whatever a tool does, the run goes on: ADK would end it, for the user to pay."""

    async def after_tool_callback(
        self,
        *,
        tool: BaseTool,
        tool_args: dict[str, Any],
        tool_context: ToolContext,
        result: Any,
    ) -> dict[str, Any] | None:
        # Neither ADK nor google-genai can store or send what is not JSON.
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
    """A JSON-serializable twin of whatever a tool was given or has answered; never an exception."""
    try:
        plain = to_jsonable_python(
            value, bytes_mode="base64", inf_nan_mode="strings", fallback=_describe, serialize_unknown=True
        )
        # Half of a surrogate pair can be stored and sent by nobody.
        return json.loads(json.dumps(plain, ensure_ascii=False).encode(errors="replace"))
    except Exception:  # a cycle, an iterator that raises, a mile of brackets: all is possible in a tool
        return f"<{type(value).__name__}>"


def _describe(value: Any) -> Any:
    if hasattr(value, "DESCRIPTOR"):  # a protobuf message; ADK itself does not bring the package
        from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

        return MessageToDict(value)
    return repr(value)
