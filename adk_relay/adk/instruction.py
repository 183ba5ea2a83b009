"""Whether a change of the session's state changes an agent's instruction.

In live mode the model is told the instruction when a connection is made, and never again. So a text that
changes the state needs a new connection, if the instruction is another one afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.agents.invocation_context import InvocationContext
from google.adk.agents.readonly_context import ReadonlyContext
from google.adk.utils.instructions_utils import inject_session_state


class Instruction:
    """The instruction of the agent that speaks in one run."""

    def __init__(self) -> None:
        self._context: InvocationContext | None = None
        self._told: dict[str, Any] = {}  # the state with which the model was told it

    def began(self, context: InvocationContext) -> None:
        """An agent begins, and with it a connection."""
        self._context, self._told = context, {**context.session.state}

    @property
    def state(self) -> Mapping[str, Any]:
        """The session's state."""
        return self._context.session.state if self._context else {}

    async def changes(self, delta: Mapping[str, Any]) -> bool:
        """Whether the instruction is another one than the model was told, once the state has this, too."""
        if all(key in self.state and _is_same(self.state[key], value) for key, value in delta.items()):
            return False
        try:
            return await self._with(self._told) != await self._with({**self.state, **delta})
        except Exception:  # the agent's own code, or a key is missing: the next connection tells of it
            return True

    async def _with(self, state: dict[str, Any]) -> list[str]:
        """What the instructions of the agent are with a state, as ADK fills them in."""
        if not self._context or not isinstance(agent := self._context.agent, LlmAgent):
            raise LookupError("no agent has begun whose instruction is known")
        session = self._context.session.model_copy(update={"state": state})
        context = ReadonlyContext(self._context.model_copy(update={"session": session}))
        told = [await agent.canonical_instruction(context)]
        if isinstance(root := agent.root_agent, LlmAgent) and root.global_instruction:
            told.append(await root.canonical_global_instruction(context))
        return [text if is_final else await inject_session_state(text, context) for text, is_final in told]


def _is_same(before: Any, value: Any) -> bool:
    return type(before) is type(value) and bool(before == value)
