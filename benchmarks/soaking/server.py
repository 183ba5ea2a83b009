"""`relay serve`, which also says how many asyncio tasks and objects it has.

    python benchmarks/soaking/server.py REPORT serve [option ...]

At SIGUSR1 it writes a JSON object to the file REPORT: `tasks` by name, `objects` by type, the number of
`collections` over all objects, and the `pause` of the longest, in seconds of CPU time. What is there when the
server is ready is not counted, because `adk_relay.memory.settle` takes it out of the garbage collector's
sight. SIGUSR2 does the same after a collection.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from collections import Counter
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


class _Collections:
    """What the garbage collector does from now on, with the oldest objects."""

    def __init__(self) -> None:
        self.count, self.longest, self._began = 0, 0.0, 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] == 2 and gc.get_freeze_count():  # after the start
            if phase == "start":
                self._began = time.process_time()
            else:
                self.count += 1
                self.longest = max(self.longest, time.process_time() - self._began)


_collections = _Collections()


def _report(to: Path, *, collects: bool) -> None:
    # The handler runs between two instructions of the event loop's thread.
    if collects:
        gc.collect()
    tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
    objects = Counter(f"{type(found).__module__}.{type(found).__qualname__}" for found in gc.get_objects())
    report = {
        "tasks": tasks,
        "objects": objects,
        "collections": _collections.count,
        "pause": _collections.longest,
    }
    made = to.with_suffix(".new")
    made.write_text(json.dumps(report))
    made.rename(to)  # whoever reads it finds all of it


if __name__ == "__main__":
    sys.path[:1] = [str(_ROOT)]
    to = Path(sys.argv[1])
    signal.signal(signal.SIGUSR1, lambda *_: _report(to, collects=False))
    signal.signal(signal.SIGUSR2, lambda *_: _report(to, collects=True))

    from adk_relay.__main__ import main

    sys.exit(main(sys.argv[2:]))
