"""Fixtures that the tests of the whole server share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "sqlite"])
def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where sessions are kept: in memory, and in a file."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/sessions.db"
