"""Times as clients are told them."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def iso(seconds: float) -> str:
    """A time in ISO 8601, in UTC; `seconds`: as `time.time()`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def now() -> str:
    """The present time, in the same way."""
    return iso(time.time())
