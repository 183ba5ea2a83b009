"""The agent: `adk web .`, `adk run agent` and `uvicorn relay:app` find `root_agent` here."""

from .agent import root_agent

__all__ = ["root_agent"]
