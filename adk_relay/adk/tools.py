"""Tools: in which thread they run; one that fails does not end the run, and every result becomes JSON."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

from google.adk.agents.run_config import RunConfig
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.tool_context import ToolContext
from google.genai import types
from pydantic_core import to_jsonable_python

from adk_relay.adk.connection import observer
from adk_relay.core.logs import failure

_sync_runner: ModuleType | None
try:
    from google.adk.utils import _sync_runner
except (
    ImportError
):  # a private name of ADK. Without it, asynchronous tools run in loops of their own, as in ADK
    _sync_runner = None

log = logging.getLogger("relay.agent")


def on_tool_error(
    tool: BaseTool, args: dict[str, Any], tool_context: ToolContext, error: BaseException
) -> dict[str, Any] | None:
    """The last of an agent's `on_tool_error_callback`s: without it, ADK would end the run."""
    if isinstance(error, asyncio.CancelledError):
        return None  # the run ends
    log.error("tool %s failed: %s", tool.name, failure(error))
    return {"status": "error", "message": f"The tool {tool.name} failed."}


def after_tool(
    tool: BaseTool, args: dict[str, Any], tool_context: ToolContext, tool_response: Any
) -> dict[str, Any] | None:
    """The last of an agent's `after_tool_callback`s. ADK builds an event of what it returns."""
    if not tool_response and (tool.is_long_running or tool._defers_response):
        if tool.is_long_running and tool_context.function_call_id:
            speaks_on = tool.behavior is types.Behavior.NON_BLOCKING
            observer.get().answers.waits(tool_context.function_call_id, speaks_on=speaks_on)
        return None  # ADK answers the call later
    return None if tool_response is None else plain(tool_response)


def made_plain(callback: Callable[..., Any]) -> Callable[..., Any]:
    """The same `after_tool_callback`, but ADK can build an event of what it returns."""

    async def call(**named: Any) -> Any:
        result = callback(**named)
        if inspect.isawaitable(result):
            result = await result
        return result if result is None else plain(result) or result

    return call


def plain(result: Any) -> dict[str, Any] | None:
    """A result in a form in which ADK can build an event of it; None: it is that already.

    Results with pictures, as ADK's own classes have them, stay as they are: ADK looks for these itself.
    """
    try:
        to_jsonable_python(result, bytes_mode="base64")
        if not isinstance(result, dict) or all(isinstance(key, str) for key in result):
            return None
    except Exception:  # a cycle, an unknown class, very deep nesting: a tool may return anything
        pass
    answer = jsonable(result)
    return answer if isinstance(answer, dict) else {"result": answer}


def in_their_own_loop(config: RunConfig) -> tuple[RunConfig, AbstractContextManager[None]]:
    """A run configuration, and a context for its runs, in which only synchronous tools go to the thread pool.

    With a thread pool, ADK's live mode runs each call of an asynchronous tool in a thread, in an event loop
    of its own. There it can use nothing that belongs to another loop: a client, a lock, an MCP session.
    Outside of live mode, ADK itself does what is done here. To be called for each run, in its event loop.
    """
    pool = config.tool_thread_pool_config
    if pool is None or _sync_runner is None:
        return config, nullcontext()
    executor = _sync_runner._get_tool_thread_pool(pool.max_workers)
    context = _sync_runner._use_executor_for_sync_callables(executor)
    return config.model_copy(update={"tool_thread_pool_config": None}), context


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
