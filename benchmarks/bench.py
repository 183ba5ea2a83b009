"""How much relay costs: a benchmark, not a test.

    python benchmarks/bench.py [--quick] [--profile ROW] [row ...]

Machines differ and are shared, so a number of seconds is worth little here. What is compared is measured
in one run, in turns (A B A B …), and what counts is the median of the ratios of all rounds. relay is
measured against

    floor    ADK's `run_live` over the same wire; nobody uses its events
    direct   an ASGI callable that passes what `run_live` yields straight to `send`: without a queue, a
             heartbeat or a bound, for one client that is fast enough
    sample   the loop of ADK's custom-streaming sample: JSON with base64, one task for each direction
    today    the build that the aims were set against, from the repository's history (`EARLIER` in
             builds.py). Without that commit, as in a shallow clone, its rows are left out
    long     relay with RELAY_SOUND=long: every chunk of sound goes through google-genai and ADK

and, as `relay serve`, `relay worker` and a Redis of their own (`bus` and the rows after it), against one
`relay serve` without a bus. Their sessions are in /dev/shm, where there is one, so that the disk does not
count.

Three kinds of process: the model (a stand-in for the Gemini Live service, over TLS) and the clients share one
core; the servers have another core for themselves, and only the CPU time of the one that is measured is
counted. CPU time is comparable on a busy machine, too; latencies need a quiet one.

Where to read on: run.py has the command, report.py the table, apps.py and sample.py the applications that
are compared, builds.py, processes.py, spread.py and model.py the processes, load.py and peers.py the
clients. The other files have the measurements. soak.py, with soaking/, is a program of its own.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    # In place of this folder; the processes that are started get the same path. `support` is in tests/.
    sys.path[:1] = [str(ROOT), str(ROOT / "tests")]

    from benchmarks.run import main

    sys.exit(main())
