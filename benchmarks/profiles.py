"""Where a process spends its time, found by py-spy."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDERS = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

PY_SPY = shutil.which("py-spy", path=_FOLDERS)
"""None: it is not installed."""

_SHOWN = 60
"""Functions in each of the two lists."""


@contextmanager
def profile(pid: int, name: str) -> Iterator[None]:
    """Writes profile-NAME.txt: in which functions the process was, and which it had called, in percent.

    Samples are taken while the process works, not while it waits.
    """
    file = Path(f"profile-{name}.txt").resolve()
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        options = ["--pid", str(pid), "--rate", "500", "--format", "raw", "--output", str(stacks)]
        spy = subprocess.Popen([PY_SPY or "py-spy", "record", *options], stdout=subprocess.DEVNULL)
        try:
            yield
        finally:
            spy.send_signal(signal.SIGINT)  # it writes what it has
            spy.wait(60)
        file.write_text(_summary(stacks.read_text()))
    print(f"wrote {file}", file=sys.stderr)


def _summary(stacks: str) -> str:
    """From lines with a stack, whose functions are separated by semicolons, and its number of samples."""
    own, total = Counter[str](), Counter[str]()
    samples = 0
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        # Without the line, so that a function is one entry.
        functions = [function.rpartition(":")[0] + ")" for function in stack.split(";")]
        samples += int(count)
        own[functions[-1]] += int(count)
        for function in set(functions):
            total[function] += int(count)
    text = [f"{samples} samples"]
    for title, counter in (("in the function itself", own), ("with what it called", total)):
        text += ["", f"{title}:", ""]
        text += [f"{count / samples:6.1%}  {function}" for function, count in counter.most_common(_SHOWN)]
    return "\n".join(text) + "\n"
