"""Python's garbage collector, set up for a server. Only a process that does nothing else should do this."""

from __future__ import annotations

import gc

_YOUNG = 10_000
"""New objects after which the youngest are looked through. Python's own 700 are those of half a start."""


def settle() -> None:
    """Takes everything that is loaded out of the garbage collector's sight. Call it when the server is ready.

    ADK leaves half a million objects that stay for ever. To look through them takes a tenth of a second, in
    which no sound is sent, and it happens whenever conversations have made enough objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
