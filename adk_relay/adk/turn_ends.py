"""How turns end: by the agent, by a user, or because nobody owes their answer any more."""

from __future__ import annotations

from adk_relay.adk.home import Home
from adk_relay.adk.meter import Meter
from adk_relay.adk.playback import Playback
from adk_relay.adk.runs import Runs
from adk_relay.adk.session import StoredSession
from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import TurnEnd
from adk_relay.core.recorded import Stopped
from adk_relay.core.requests import Requests
from adk_relay.core.room import Room
from adk_relay.core.writing import Writing


class TurnEnds:
    """The ends of turns in one conversation, and whose answer is given.

    Args:
        session, room, requests, inbox, runs, writing, meter, playback: those of the conversation.
    """

    def __init__(
        self,
        home: Home,
        session: StoredSession,
        room: Room,
        requests: Requests,
        inbox: Inbox,
        runs: Runs,
        writing: Writing,
        meter: Meter,
        playback: Playback,
    ) -> None:
        self._failing = home.failing
        self._session = session
        self._room = room
        self._requests = requests
        self._inbox = inbox
        self._runs = runs
        self._writing = writing
        self._meter = meter
        self._playback = playback

    def end(self, end: TurnEnd) -> None:
        """A turn has ended."""
        self._session.touch()
        self._meter.ended(end)
        self._room.publish(end)
        self._playback.shorten()
        self._failing.ended(end)
        self._writing.answered()

    def interrupt(self) -> None:
        """A user stops the agent."""
        self._room.recall_audio()
        self._room.recording.add(Stopped())
        has_stopped = self._inbox.stop()
        ends = self._runs.stop_answer()
        # Without a run the model may have got nothing yet, or the next run would have said the rest.
        is_to_come = not self._runs.run and (self._room.history.is_answering or self._requests.current)
        if not ends and (has_stopped or is_to_come):
            ends = [self._interrupted()]
        for message in ends:
            self.end(message)
        if self._requests.current:  # its text waited while another answer was given
            self.end(self._interrupted())

    def crossed(self) -> None:
        """Two questions are on their way: whose answer comes next is not known."""
        run, current = self._runs.run, self._requests.current
        if run and current and run.turn.waits_for(current.text):
            self.end(self._interrupted())

    def end_unowed(self) -> None:
        """Ends an open answer, or a request, that no run is to go on with."""
        is_owed = self._runs.owed or self._inbox.has_text
        if not is_owed and (self._requests.current or self._room.history.is_answering):
            self.end(self._interrupted())

    def note_whose(self) -> None:
        """An answer opens: it may be another than that of the current request."""
        self._playback.begins()
        run, current = self._runs.run, self._requests.current
        is_aside = bool(run and current and not run.turn.is_about(current.text))
        if is_aside != self._requests.is_aside:
            self._requests.is_aside = is_aside
            self._room.update_audience()

    def would_cut_in(self) -> bool:
        """Whether the model could take a new request for a part of something else."""
        run = self._runs.run
        if self._runs.stop_reason is not None:
            return True
        if run and run.is_at_rest and run.turn.is_uncertain:
            run.renew()  # only a new connection knows the order again
        return bool(run and (run.is_speech_pending or run.turn.is_stopped_early or run.turn.is_uncertain))

    def _interrupted(self) -> TurnEnd:
        return TurnEnd(self._room.number(), interrupted=True)
