"""Python's garbage collector, set up for a server. Only a process that does nothing else should do this."""

from __future__ import annotations

import gc

_YOUNG, _MIDDLE, _OLD = 10_000, 4, 2
"""New objects after which the youngest are looked through (Python's own 700 are those of half a start), how
many such looks come before one through those that have stayed, and how many of these before one through all:
150,000 objects.

What a conversation leaves behind refers to itself, and most of it has stayed for a while, so it goes only
when all are looked through. With Python's own 10 and 10 that is after 1.2 million objects, of hundreds of
conversations: half a gigabyte. It takes a few hundredths of a second, because `settle` leaves it few objects.
"""


def settle() -> None:
    """Takes everything that is loaded out of the garbage collector's sight. Call it when the server is ready.

    ADK leaves half a million objects that stay for ever. To look through them takes a tenth of a second, in
    which no sound is sent, and it happens whenever conversations have made enough objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _OLD)
