"""The conversation: everything that touches ADK.

`adk web .`, `adk run agent` and `RELAY_AGENT=agent:root_agent` find `root_agent` here. It is made when
it is first asked for: a host that brings an agent of its own, and only needs what else is in this
package, gets no second one, and nothing of its environment is read.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "root_agent":
        from agent.agent import root_agent

        return root_agent
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
