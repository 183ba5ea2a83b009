"""Where a process spends its time, found by py-spy."""

from __future__ import annotations

import os
import re
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
"""Functions in each of the two lists. Those that call all others are left out."""


@contextmanager
def profile(pid: int, name: str) -> Iterator[None]:
    """Writes profile-NAME.txt: in which functions the process was, and which it had called, in percent of its
    CPU time.
    """
    file = Path(f"profile-{name}.txt").resolve()
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        options = ["--pid", str(pid), "--rate", "500", "--native", "--format", "raw", "--output", str(stacks)]
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
        functions = [re.sub(r":\d+\)$", ")", function) for function in stack.split(";")]  # without the line
        if functions[-1].startswith("epoll_"):  # it waits
            continue
        samples += int(count)
        own[functions[-1]] += int(count)
        for function in set(functions):
            total[function] += int(count)
    text = [f"{samples} samples"]
    for title, counter in (("in the function itself", own), ("with what it called", total)):
        text += ["", f"{title}:", ""]
        shown = [(function, count) for function, count in counter.most_common() if count < samples]
        text += [f"{count / samples:6.1%}  {function}" for function, count in shown[:_SHOWN]]
    return "\n".join(text) + "\n"
