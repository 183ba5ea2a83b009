"""How much relay costs: a benchmark, not a test.

    python benchmarks/bench.py [--quick] [down up sessions stalled barge-in rooms replay start]

Machines differ and are shared, so a number of seconds is worth little here. What is compared is measured
in one run, in turns (A B A B …), and what counts is the median of the ratios of all rounds. relay is
measured against

    floor    ADK's `run_live` over the same wire; nobody uses its events
    direct   an ASGI callable that passes what `run_live` yields straight to `send`: without a queue, a
             heartbeat or a bound, for one client that is fast enough
    bare     an ASGI callable that sends frames it already has, without a model

Three kinds of process: the model (a stand-in for the Gemini Live service, over TLS) and the clients share one
core; the server has another core for itself, and only its CPU time is counted.

Where to read on: run.py has the command, report.py the table, apps.py the applications that are compared,
processes.py and model.py the processes, load.py the clients. Every measurement has a file of its own.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    # In place of this folder; the processes that are started get the same path. `support` is in tests/.
    sys.path[:1] = [str(ROOT), str(ROOT / "tests")]

    from benchmarks.run import main

    sys.exit(main())
