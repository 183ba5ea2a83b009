"""Whether the microphone hears the loudspeaker: the client for JavaScript concludes it from both levels."""

from __future__ import annotations

import json
import subprocess

from support.node import PACKAGE, node
from support.server import ROOT


def test_echo_is_told_from_users_and_from_noise() -> None:
    module = (PACKAGE / "src" / "echo.js").as_uri()
    command = [*node(), str(ROOT / "tests" / "support" / "echo.mjs"), module]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(found) == 12
    for case, counts in found.items():
        if case.startswith("echo"):
            assert counts["echo"] >= 49, (case, counts)
        else:
            assert counts["echo"] <= 2, (case, counts)
