"""Texts wait until the model has begun to answer the one before."""

from __future__ import annotations

import asyncio

from adk_relay.adk.turn import Turn
from adk_relay.core.inbox import Inbox


class Holding:
    """Holds the texts of one run, as long as its turn says.

    Args:
        turn, inbox: those of the run.
    """

    def __init__(self, turn: Turn, inbox: Inbox) -> None:
        self._turn = turn
        self._inbox = inbox
        self._release: asyncio.TimerHandle | None = None  # set while texts are held

    def update(self) -> None:
        """Lets texts wait, or lets them go on: to be called whenever the turn has changed."""
        seconds = self._turn.holds()
        self._inbox.hold(seconds > 0)
        if self._release:
            self._release.cancel()
        loop = asyncio.get_running_loop()
        self._release = loop.call_later(seconds, self.update) if seconds else None

    def end(self) -> None:
        """The run is over: nothing is held."""
        if self._release:
            self._release.cancel()
        self._inbox.hold(False)
