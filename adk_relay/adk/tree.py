"""The tree of agents that is served: what is in it, who of them can speak, and who can be watched."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from google.adk import agents
from google.adk.agents import BaseAgent, LlmAgent
from google.adk.apps import App
from google.adk.models import BaseLlm, Gemini
from google.adk.workflow import BaseNode, Workflow

from adk_relay.adk.sound import is_overridden

_ADKS_OWN = (
    "Of its connections, relay watches those that ADK's own agents open in it; it does not see others break."
)


def app_of(agent: Any) -> App:
    """An App, or one of this agent alone.

    Raises:
        TypeError: it is something else, or ADK cannot run it live.
    """
    if isinstance(agent, App):
        app = agent
    elif isinstance(agent, BaseNode):
        app = App.model_construct(name=agent.name, root_agent=agent, plugins=[])
    else:
        raise TypeError(f"agent must be an ADK agent or App, not {type(agent).__name__}")
    assert app.root_agent
    if why := cannot_speak(app.root_agent):
        raise TypeError(why)
    return app


def root_of(agent: Any) -> BaseNode | None:
    """The root of an App, or an agent or a workflow itself; None: it is something else."""
    root = agent.root_agent if isinstance(agent, App) else agent
    return root if isinstance(root, BaseNode) else None


def agents_of(root: BaseNode) -> Iterator[BaseAgent]:
    """The agents of a tree of agents, or of a workflow's graph, each before those below it."""
    pending: deque[BaseNode] = deque([root])
    seen: set[int] = set()
    while pending:
        each = pending.popleft()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, BaseAgent):
            yield each
            pending += each.sub_agents
        elif isinstance(each, Workflow) and each.graph:
            pending += each.graph.nodes


def live_models(root: BaseNode) -> list[BaseLlm]:
    """The models of all agents, the root's first."""
    return [agent.canonical_live_model for agent in agents_of(root) if isinstance(agent, LlmAgent)]


def needs_credentials(agent: Any) -> bool:
    """Whether an agent or an App uses a Gemini client that google-genai makes from the environment."""
    root = root_of(agent)
    models = live_models(root) if root else []
    return any(isinstance(model, Gemini) and not (model.client or model.client_kwargs) for model in models)


def cannot_speak(root: BaseNode) -> str | None:
    """Why ADK cannot run an agent or a workflow live, and what would be right; None: it can."""
    kind = type(root).__name__
    if isinstance(root, Workflow):
        if any(isinstance(agent, LlmAgent) and agent.mode in ("chat", "task") for agent in agents_of(root)):
            return None
        return (
            f"nobody speaks in the workflow {root.name}: in live mode, ADK lets only agents speak"
            " that have mode='chat' or mode='task'"
        )
    if not isinstance(root, BaseAgent):
        return f"{root.name} is a {kind}, but must be an agent or a Workflow"
    base = next(
        (base for base in (_adks("LoopAgent"), _adks("ParallelAgent")) if isinstance(root, base)), BaseAgent
    )
    if _has_its_own(root, base, "_run_live_impl"):
        return None
    return f"ADK has no live mode for a {kind} such as {root.name}: use an LlmAgent or a SequentialAgent"


def what_is_not_watched(root: BaseNode) -> Iterator[str]:
    """What the log says at the start: who cannot speak, and whose connections relay may not see."""
    for agent in agents_of(root):
        of_kind = f"The agent {agent.name} is a {type(agent).__name__}"
        base = LlmAgent if isinstance(agent, LlmAgent) else _adks("SequentialAgent")
        if why := cannot_speak(agent):
            yield f"{why}."
        elif not isinstance(agent, base) or _has_its_own(agent, base, "_run_live_impl"):
            yield f"{of_kind}, which has a live loop of its own. {_ADKS_OWN}"
        elif isinstance(agent, LlmAgent) and _has_its_own(agent, LlmAgent, "_llm_flow"):
            yield f"{of_kind}, which has a flow of its own. {_ADKS_OWN}"


def is_a(name: str, agent: BaseAgent) -> bool:
    """Whether an agent is one of ADK's workflow agents. ADK will remove them: then, none is."""
    return isinstance(agent, _adks(name))


def _adks(name: str) -> type[BaseAgent]:
    try:
        kind: type[BaseAgent] = getattr(agents, name)
    except AttributeError:
        return _Gone
    return kind


class _Gone(BaseAgent):
    """Stands for a class that ADK does not have any more."""


def _has_its_own(agent: BaseAgent, base: type[BaseAgent], name: str) -> bool:
    """Whether an agent has its own form of a method that ADK calls in live mode; its name is private."""
    try:
        return is_overridden(agent, base, name)
    except AttributeError:  # it is missing: nothing is known, and nothing is told
        return base is BaseAgent
