"""What a conversation needs from `Conversations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from google.adk.agents.run_config import RunConfig

from adk_relay.adk.failing import Failing
from adk_relay.adk.fence import Fence
from adk_relay.adk.reading import Reader
from adk_relay.adk.runner import WatchedRunner
from adk_relay.core.moderation import OnInput
from adk_relay.core.stats import Stats
from adk_relay.core.voice import Choices

if TYPE_CHECKING:
    from adk_relay.adk.conversation import Conversation


class Home(Protocol):
    """What a conversation needs from `Conversations`."""

    runner: WatchedRunner
    writer: Fence
    """The session service, behind the fence."""
    reader: Reader
    app_name: str
    config: RunConfig
    choices: Choices
    client_tools: bool
    """Whether clients may have instructions and tools in any conversation."""
    model: str
    stats: Stats
    failing: Failing
    grace: float
    idle_timeout: float
    mic_ms: float
    replay_bytes: int
    replay_seconds: float
    on_input: OnInput | None

    def forget(self, conversation: Conversation) -> None:
        """The conversation is over: it need not be kept in memory any more."""
