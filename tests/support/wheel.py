"""Building the wheel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def build_wheel(source: Path, folder: Path) -> Path:
    """Builds the wheel of the project in `source` into `folder`, and returns its path.

    It uses the hatchling of the tests' environment: pip would get one for each wheel, which takes seconds.
    """
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "--wheel-dir", str(folder), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [built] = folder.glob("*.whl")
    return built
