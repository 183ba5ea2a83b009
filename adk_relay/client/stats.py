"""What this client has done since it started: the numbers of the command /stats."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """Counters, and times in seconds."""

    began: float = field(default_factory=time.monotonic)
    messages: int = 0
    succeeded: int = 0
    failed: int = 0
    chunks: int = 0
    attempts: int = 0
    reconnections: int = 0
    sessions: int = 0
    response_times: list[float] = field(default_factory=list)
    first_token_times: list[float] = field(default_factory=list)
