"""The built-in agent. The environment chooses its model."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from google.adk.agents import LlmAgent
from google.adk.models import BaseLlm
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.google_search_tool import google_search

from adk_relay.adk.models import gemini_major, model_from_env


def get_current_time(timezone: str = "UTC") -> dict[str, str]:
    """Tells the current date and time somewhere in the world.

    Args:
        timezone: the IANA name of a time zone, such as "Europe/Berlin" or "America/New_York".
            For a city without a zone of its own, the zone that it lies in. Empty: UTC.

    Returns:
        "status": "success", with "timezone", "local_time" (ISO 8601, with its offset from UTC) and
        "weekday"; or "status": "error", with a "message" that says what is wrong.
    """
    name = timezone.strip() or "UTC"
    try:
        now = datetime.now(ZoneInfo(name))
    except (KeyError, ValueError, OSError):  # an unknown zone; an invalid name; the name of a folder of zones
        return {
            "status": "error",
            "message": f"There is no time zone {name!r}. Use an IANA name, such as Europe/Berlin.",
        }
    return {
        "status": "success",
        "timezone": name,
        "local_time": now.isoformat(timespec="seconds"),
        "weekday": now.strftime("%A"),
    }


def tools_for(model: BaseLlm) -> list[Callable[..., Any] | BaseTool]:
    """The tools that a model can use together."""
    generation = gemini_major(model.model)
    if generation is not None and generation >= 3:
        return [google_search, get_current_time]
    # Earlier generations of Gemini refuse Google Search together with functions. Other models have no
    # Google Search.
    return [google_search] if "gemini-" in model.model else [get_current_time]


_model = model_from_env()

root_agent = LlmAgent(
    name="assistant",
    description="Answers questions, by voice or by text.",
    model=_model,
    instruction=(
        "You are a helpful assistant that people talk to, by voice or by text. Answer in their language,"
        " as one does in a conversation: in one to three sentences, without headings or lists, unless they"
        " ask for more. Look up what may have changed since you were trained."
    ),
    tools=list(tools_for(_model)),
)
