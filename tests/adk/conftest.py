"""Fixtures of the tests of ADK's layer."""

from __future__ import annotations

import pytest

from support.sound import Seen, watched


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The sound that takes the long way through google-genai."""
    return watched(monkeypatch)
