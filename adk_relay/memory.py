"""Python's garbage collector, set up for a server. Only a process that does nothing else should do this."""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 10_000, 2, 1
"""New objects after which the youngest are looked through (Python's own 700 are those of half a start), how
many such looks come before one through those that have stayed, and how many of these before one through all:
60,000 objects.

What a conversation leaves behind refers to itself, and most of it has stayed for a while, so it goes only
when all are looked through. With Python's own 10 and 10 that is after 1.2 million objects, of a thousand
conversations: half a gigabyte, and then it takes most of a second to free them. So it is done more often, and
takes less than a tenth of a second: `settle` has left few objects to look through.
"""


def settle() -> None:
    """Takes everything that is loaded out of the garbage collector's sight. Call it when the server is ready.

    ADK leaves half a million objects that stay for ever. To look through them takes a tenth of a second, in
    which no sound is sent, and it happens whenever conversations have made enough objects.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # nothing is left; otherwise a look through all would wait for a quarter of what was there
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
