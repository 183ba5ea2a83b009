"""Whether relay keeps its promises when its processes and their Redis fail. A benchmark, not a test.

    python benchmarks/chaos.py [--seconds 3600] [--seed 1] [--conversations 50] [--workers 3] [--web 2]

Two processes with sockets and three workers share a Redis and a sqlite file, and 50 conversations go on, with
clients of three dialects that come back through any process. Meanwhile processes are killed, stopped, drained
and cut off from Redis, and Redis is killed, paused and emptied, alone and together. A seed decides what
happens, and in which order; the same seed does the same again. What must hold in spite of that is in
`tests/support/chaos.py`: the first promise that is broken is shown, with what happened before.

In the end it prints what happened, and how long conversations whose worker was lost took until they went on.
It needs redis-server, and runs where there are POSIX signals.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from statistics import quantiles

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    from support.chaos import KINDS, Chaos

    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3600, help="how long things happen")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=50)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--web", type=int, default=2, help="processes with sockets")
    parser.add_argument("--folder", type=Path, help="what the processes log, and a list of what happened")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="relay-chaos-"))
    chaos = Chaos(
        folder,
        options.seed,
        options.seconds,
        conversations=options.conversations,
        workers=options.workers,
        web=options.web,
    )
    world = chaos.world
    try:
        asyncio.run(chaos.run())
        has_failed = False
    except Exception as error:
        has_failed = True
        print(f"{error}\n" + "\n".join(getattr(error, "__notes__", [])))
    print(f"seed {options.seed}, {options.seconds:g} s, in {folder}")
    for title, is_listed in (
        ("What was done:", KINDS.__contains__),
        ("What was seen:", lambda what: what not in KINDS),
    ):
        print(title)
        for what, times in sorted(world.counts.items()):
            if is_listed(what):
                print(f"{times:8} {what}")
    if len(world.takeovers) > 1:
        percent = quantiles(world.takeovers, n=100)
        print(
            f"From the loss of a worker until a client hears that all is well: {len(world.takeovers)} times,"
        )
        print(f"p50 {percent[49]:.1f} s, p99 {percent[98]:.1f} s (those that were hit twice count in full)")
    print(f"{len(world.wrong)} promises were broken")
    return has_failed


if __name__ == "__main__":
    sys.path[:1] = [str(ROOT), str(ROOT / "tests")]  # see bench.py

    sys.exit(main())
