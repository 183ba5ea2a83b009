"""How much of the agent's sound the users have heard: what they have not heard is not in the session as said.

A model makes sound faster than it is played. When an answer is interrupted, the model has sent more than the
user has heard, and ADK stores all of it. What is stored stays stored: an event that is added says how many of
the words were heard (`adk.marks.Unheard`), and whoever reads the session leaves out the others.
"""

from __future__ import annotations

import asyncio
import logging

from adk_relay.adk.failures import what_failed
from adk_relay.adk.fence import NotOwnerError
from adk_relay.adk.marks import unheard_of
from adk_relay.adk.runs import Runs
from adk_relay.adk.session import StoredSession
from adk_relay.adk.speaking import Speaking
from adk_relay.core.heard import Heard, Shortened
from adk_relay.core.listener import Listener
from adk_relay.core.room import Room
from adk_relay.core.spoken import Spoken

log = logging.getLogger("relay.agent")


class Playback:
    """What the listeners of one conversation have heard of the agent's answers.

    Several may listen, and each has played another part. Who has interrupted the answer counts: who has
    stopped it, or written meanwhile, or else who spoke last. If that one gets no sound, the first listener
    counts that says what it has heard.

    Args:
        session, room, runs, speaking: those of the conversation.
        label: names the conversation in the log.

    Invariants:
        While something is to be stored, and nothing has failed, a task stores it.
    """

    def __init__(
        self, session: StoredSession, room: Room, runs: Runs, speaking: Speaking, label: str
    ) -> None:
        self._session = session
        self._room = room
        self._runs = runs
        self._speaking = speaking
        self._label = label
        self._storing: asyncio.Task[None] | None = None

    def interrupts(self, listener: Listener) -> None:
        """A listener stops the answer, or writes a text."""
        self._room.history.aloud.open.by = listener.connection_id

    def begins(self) -> None:
        """An answer opens."""
        answer = self._room.history.aloud.open
        if not answer.ms:
            answer.by = ""  # what was written before is its question

    def take(self, heard: Heard, listener: Listener) -> None:
        """Takes what a listener has heard."""
        answer = self._room.history.aloud.about(heard)
        if answer and self._counts(heard, listener, answer):
            answer.hear(heard.ms)
            self.shorten()

    def shorten(self) -> None:
        """Leaves of the last answer what was heard of it, and tells all."""
        room = self._room
        answer = room.history.aloud.last
        if not (answer and answer.shorten()):
            return
        shortened = Shortened(room.number(), answer.text, answer.first, answer.after)
        room.publish(shortened)
        unheard = unheard_of(shortened, room.epoch)
        self._session.unheard.append(unheard)
        self._runs.shorten(unheard)
        if not self._storing or self._storing.done():
            self._storing = asyncio.create_task(self._store(), name=f"unheard {self._label}")

    async def settle(self) -> None:
        """Waits until nothing is being stored."""
        if self._storing:
            await asyncio.wait({self._storing})

    async def keep(self) -> None:
        """Stores at the end of the conversation what could not be stored before."""
        await self.settle()
        if self._session.unheard:
            await self._store()

    def _counts(self, heard: Heard, listener: Listener, answer: Spoken) -> bool:
        """Whether it matters what a listener has heard of an answer."""
        hearing = {each.connection_id for each in self._room.listeners if each.is_audio}
        if listener.connection_id not in hearing or (heard.leaves and len(hearing) > 1):
            return False
        known = (each for each in (answer.by, self._speaking.last_speaker) if each in hearing)
        is_first = heard.is_users_own or len(hearing) == 1
        answer.by = next(known, listener.connection_id if is_first else "")
        return answer.by == listener.connection_id

    async def _store(self) -> None:
        try:
            await self._session.store_unheard()
        except NotOwnerError:
            pass  # the owner has been told of it
        except Exception as error:
            why = what_failed(error)
            log.error("%s: how much of an answer was heard could not be stored: %s", self._label, why)

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._storing or not self._session.unheard, "nobody stores what was heard"
