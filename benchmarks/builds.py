"""The builds that are compared: this one, the same with other settings, and an earlier one."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adk_relay.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent

EARLIER = "89e2bb2fd1018df01e803a73255ff4de9c40165a"
"""The commit of the build that the table calls `today`: the last one before relay was one package."""

HAS_LONG = "sound" in SETTINGS
"""Whether this build can send sound on either way."""


@contextmanager
def check_out_earlier(repository: Path = ROOT) -> Iterator[Path | None]:
    """A folder with the build of `EARLIER`; None: the repository does not have that commit."""
    git = ["git", "-C", str(repository), "worktree"]
    with tempfile.TemporaryDirectory(prefix="relay-earlier-") as folder:
        tree = Path(folder) / "tree"
        try:
            subprocess.run([*git, "add", "--detach", str(tree), EARLIER], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):  # no git, no repository, or a shallow clone
            yield None
            return
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True, capture_output=True)
