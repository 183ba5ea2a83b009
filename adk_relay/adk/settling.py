"""What a run leaves behind when it ends is put in order."""

from __future__ import annotations

from dataclasses import replace

from adk_relay.adk.hosts import RunsHost
from adk_relay.adk.run import Run
from adk_relay.adk.session import StoredSession, holds
from adk_relay.core.inbox import Inbox


async def settle(run: Run, session: StoredSession, inbox: Inbox, host: RunsHost, *, goes_on: bool) -> None:
    """Makes sure that each text was sent or is in the inbox, and a cut answer in the session.

    Args:
        goes_on: another run says the rest of the answer.

    Raises:
        Exception: the session service failed.
    """
    unstored = run.translator.unstored
    text = run.queue.undecided
    if not (text or unstored):
        return
    found, is_stored = None, text is not None and run.queue.unsettled is None
    try:
        found = await session.find()
    finally:
        if text:
            if run.queue.unsettled and found and holds(found, *run.queue.unsettled):
                host.stored(text)
                is_stored = True
            # Also if the session can't be read: a text said twice is better than a lost one.
            inbox.give_back(replace(text, is_stored=is_stored))
    if unstored:
        await session.append(found, run.translator.cut_answer(goes_on=goes_on))
