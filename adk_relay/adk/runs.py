"""The runs of one conversation, one at a time: begun when needed, repeated when lost, ended when stopped."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from google.adk.events import Event
from google.adk.sessions import Session
from google.genai import types
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from adk_relay.adk.ahead import Ahead
from adk_relay.adk.answers import UnstoredAnswers
from adk_relay.adk.connection import LostConnection
from adk_relay.adk.failures import log_retry
from adk_relay.adk.fence import NotOwnerError
from adk_relay.adk.hosts import RunsHost
from adk_relay.adk.run import Run
from adk_relay.adk.runner import WatchedRunner
from adk_relay.adk.session import StoredSession
from adk_relay.adk.settling import settle
from adk_relay.adk.shaping import Shaping
from adk_relay.adk.stops import Stop
from adk_relay.adk.turn import Owed, Question
from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import Status, TurnEnd, UserText
from adk_relay.core.recorded import AgentState

log = logging.getLogger("relay.agent")

_END_WAIT = 2.0
"""Seconds a run is given to end by itself before it is cancelled."""

_LOOK_EVERY = 1.0
"""Seconds between two checks whether a run's connection counts as lost."""

_ALONE = 5.0
"""Seconds after an answer without a model in which sound is not listened to."""

_TRIES = 5
_TRY_FOR = 60.0
"""The most tries, and the most seconds, to restore a lost connection without any progress."""


class Runs:
    """Keeps the model connected while a conversation needs it.

    Nothing here has a task of its own: the conversation's task calls `needed()` and `converse()` in turn, so
    there is never a second run, and never one that nobody awaits.

    Args:
        runner: runs the agent.
        shaping, session, inbox, host: those of the conversation, which is the host.
        label: names the conversation in the log.

    Invariants:
        While there is no run, `_handle` and `_owed` say how the next one begins.
        A resumption handle is kept only while no answer is owed.
        `stop_reason` is set if, and only if, the runs are stopped.
    """

    def __init__(
        self,
        runner: WatchedRunner,
        shaping: Shaping,
        session: StoredSession,
        inbox: Inbox,
        host: RunsHost,
        label: str,
    ) -> None:
        self._runner = runner
        self._shaping = shaping
        self._session = session
        self._inbox = inbox
        self._host = host
        self._label = label
        self.run: Run | None = None
        """The present run."""
        self.is_reconnecting = False
        """The listeners were told that the connection was lost, and not yet that there is a new one."""
        self.stop_reason: Stop | None = None
        self._stopped = asyncio.Event()
        self._wanted = False
        self._news = asyncio.Event()  # a run is wanted, or the runs are stopped
        self._was_connected = False  # ever
        self._handle: str | None = None  # the next run resumes the service's own session with it
        self._owed: Owed = ""  # what the next run owes
        self._owed_text: UserText | None = None  # the question that this is the answer to, if it was a text
        self._agent = ""  # the agent that the next run begins with; "": ADK decides
        self._answered_alone_at = -_ALONE
        self.answers = UnstoredAnswers(session, label)
        self._ahead = Ahead(session, inbox, host.changed, host.stored)
        self._at_hand: Session | None = None  # the session, just read: the first run takes it

    # ---- for the conversation ----

    def want(self) -> None:
        """Asks for a run, unless there is one that is not being stopped."""
        if self.run is None or self.stop_reason is not None:
            self._wanted = True
            self._news.set()

    def answer(self, answer: types.Part) -> None:
        """Takes a user's answer to a tool call, as ADK takes it."""
        self.answers.parts.append(answer)
        self._host.changed()
        if self.run and self.stop_reason is None:
            self.run.answer(answer)
        else:
            self.want()

    def refresh(self) -> None:
        """The next turn needs a new connection: the present one is given up at the next rest."""
        self._handle = None
        if self.run and self.stop_reason is None:
            self.run.refresh()
        self._host.changed()

    def stop(self, reason: Stop) -> None:
        """Ends the present run. No other begins before `go_on()`."""
        self.stop_reason = max(reason, self.stop_reason or reason)
        if self.run:
            self.run.close()  # at once, so that it takes nothing that comes from now on
        self._stopped.set()
        self._news.set()

    def go_on(self) -> None:
        """Ends a stop. A run follows if input waits, or an answer is owed."""
        self.stop_reason = None
        self._stopped.clear()
        self._wanted = self._wanted or bool(self._inbox or self._owed or self.answers)

    def emptied(self) -> None:
        """The session is a new one. No run is wanted any more, and no tool call waits."""
        self._wanted = False
        self.answers.parts.clear()
        self._shaping.emptied()

    async def needed(self) -> Stop | None:
        """Waits until a run is wanted (returns None) or the runs are stopped (returns the reason)."""
        while not (self._wanted or self.stop_reason is not None):
            self._news.clear()
            await self._news.wait()
        return self.stop_reason

    @property
    def is_wanted(self) -> bool:
        """A run was asked for, and has not begun."""
        return self._wanted

    @property
    def owed(self) -> Owed:
        """What the user waits for: from the present run, or else from the next one."""
        return self.run.turn.owed if self.run else self._owed

    @property
    def is_speech_pending(self) -> bool:
        """The present run was given speech, and the final transcript has not come yet."""
        return bool(self.run and self.run.is_speech_pending)

    @property
    def answers_alone(self) -> bool:
        """The agent has just answered without a model: sound alone is no reason to ask it again."""
        return time.monotonic() - self._answered_alone_at < _ALONE

    def shorten(self, unheard: Event) -> None:
        """The users have not heard all that the model has said: the next connection gets the history."""
        self._handle = None
        if self.run:
            self.run.shorten(unheard)
        self._host.changed()

    def begin_with(self, owed: Owed, text: UserText | None = None) -> None:
        """Sets what the next run owes, and the text that asked for it, if one did. It sends the history."""
        self._handle, self._owed, self._owed_text = None, owed, text
        self._host.changed()

    @property
    def state(self) -> AgentState:
        """Where the agent is: what another process needs in order to go on."""
        run = self.run
        owing = [Question(self._owed_text, rest=self._owed == "rest")] if self._owed else []
        agent, handle = self._agent, self._handle
        if run:
            owing, agent, handle = run.turn.owing, run.agent, run.handle if run.is_at_rest else None
        ahead = [self._ahead.storing] if self._ahead.storing else []
        owing += map(Question, [*self._inbox.stored_texts, *ahead])
        owed = tuple(question.recorded() for question in owing)
        return AgentState(owed, agent, handle or "", self.answers.recorded(), self._shaping.voice)

    def restore(
        self, state: AgentState, owed: Owed, text: UserText | None, *, resumes: bool, is_cut: bool
    ) -> None:
        """Goes on where another process was: see `begin_with`.

        Args:
            resumes: the resumption handle covers all.
            is_cut: the listeners know that the connection was lost.
        """
        self.begin_with(owed, text)
        self._handle = state.handle or None if resumes else None
        self._agent, self._was_connected = state.agent, bool(state.agent)
        self.is_reconnecting = is_cut
        self.answers.restore(state.answers)
        if self._inbox or self._owed or self.answers:
            self.want()

    def stop_answer(self) -> list[TurnEnd]:
        """The user stops the answer; returns the end of the turn, if there was an answer to stop."""
        self._owed = ""
        ends = self.run.translator.stop() if self.run else []
        self._host.changed()
        return ends

    def connected(self) -> None:
        """The connection to the model is there."""
        self._was_connected = True
        self.end_reconnecting()

    def end_reconnecting(self) -> None:
        """Sends the status "live" to the listeners, if they were told "reconnecting"."""
        if self.is_reconnecting:
            self.is_reconnecting = False
            self._host.tell(Status("live"))

    def give_up(self) -> None:
        """The agent failed for good: no connection is made again, and no run is wanted."""
        self._wanted = self.is_reconnecting = False

    # ---- from the first run to rest ----

    async def converse(self) -> None:
        """Keeps the model connected until the conversation comes to rest or is stopped.

        Raises:
            LostConnection: the loss is permanent, or the last try failed.
            Exception: the agent's own code failed, or the session could not be read.
        """
        self._at_hand = await self._session.find()
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(self._is_transient),
            wait=wait_random_exponential(multiplier=0.5, max=10),
            stop=stop_after_attempt(_TRIES) | stop_after_delay(_TRY_FOR),
            sleep=self._pause,
            before_sleep=log_retry(self._label, _TRIES),
            reraise=True,
        ):
            with attempt:
                while self.stop_reason is None:
                    if await self._shaping.store():
                        self._at_hand = self._handle = None
                    if await self.answers.store():
                        self._at_hand = None
                        self.begin_with("answer")
                    if await self._ahead.store():
                        self._at_hand = self._handle = None
                    if await self._drive(attempt.retry_state) and not (self._inbox or self.answers):
                        return

    async def _drive(self, tries: RetryCallState) -> bool:
        """Drives one run to its end, and leaves the inbox and the session in a consistent state.

        Returns:
            Whether the conversation is at rest; False: the next run is to follow at once.

        Raises:
            LostConnection: the run was lost; `_handle` and `_owed` say how the next one begins.
            Exception: the run failed in another way.
        """
        self._wanted = False
        session = self._session
        self.run = run = Run(
            self._runner,
            self._shaping.config,
            self._shaping.shape,
            session.user_id,
            session.session_id,
            self._inbox,
            self._host,
            handle=self._handle,
            owed=self._owed,
            owed_text=self._owed_text,
            agent=self._agent,
            read=self._read,
            answers=self.answers.parts,
        )
        driving = asyncio.create_task(self._host.meter.run(run.drive()), name=f"run {self._label}")
        error = await self._watch(run, driving)
        self.run = None
        if self.stop_reason is not None:
            error = None
        elif error is None and run.is_unconnected and run.turn.is_open:
            self._host.meter.run_ended(self._label, "done")
            return await self._answered_alone(run)
        elif error is None and (run.turn.owed or not (run.leaving or run.has_progressed)):
            # A normal close in the middle of an answer, or before any progress, is a loss, too.
            error = LostConnection(1000, "the service closed the connection early")
        how = "lost" if error else "renewed" if run.leaving else "done"
        self._host.meter.run_ended(self._label, how if self.stop_reason is None else "stopped")
        # Only a run that was not ended from outside has come to the end of what its agents do.
        goes_on_there = self.stop_reason is not Stop.RESET and (error is not None or run.queue.closed)
        self._agent = run.agent if goes_on_there else ""
        is_given, was_up = (self.stop_reason or 0) >= Stop.GIVEN, not self.is_reconnecting
        if was_up and (self._is_transient(error) if error else is_given and run.turn.is_open):
            self.is_reconnecting = True
            self._host.tell(Status("reconnecting"))
        if run.queue.undecided:
            run.turn.take_back(run.queue.undecided)
        # A question that the model was given after the answer had begun interrupts it.
        goes_on = (error is not None or is_given) and not run.turn.has_next
        for message in run.translator.lose(goes_on=goes_on):
            self._host.emit(message)
        self.begin_with(run.turn.owed, run.turn.owed_text)  # now, in case `settle` can't read the session
        if self.stop_reason is not Stop.LOST:
            await settle(run, session, self._inbox, self._host, goes_on=goes_on)
        if run.is_speech_pending and self.stop_reason is None:
            self._host.lost_speech()
        if error is None:
            resumes = run.is_at_rest if is_given else run.leaving
            self._handle, self._owed = run.handle if resumes else None, self._owed if is_given else ""
            return is_given or not run.leaving
        if run.has_progressed:
            tries.attempt_number = 0  # a new series of tries begins, which does not count this loss
        if run.has_progressed or was_up:
            tries.start_time = time.monotonic()
        is_first = tries.attempt_number == 0
        self._handle = run.handle if is_first and run.is_at_rest else None
        self._owed = run.turn.owed if self._owed else ""  # unless the user has stopped it meanwhile
        self._host.changed()
        if run.is_unconnected and not isinstance(error, LostConnection):
            await self._session.skip_answer()  # its tool may be gone: ADK would fail at each run
        if run.is_unconnected and self._shaping.takes_back(run.shape, error):
            return False
        raise error

    async def _read(self) -> Session:
        """The session, as a run needs it."""
        at_hand, self._at_hand = self._at_hand, None
        return at_hand or await self._session.find()

    async def _answered_alone(self, run: Run) -> bool:
        """The agent has answered without a model, as a `before_agent_callback` may: a complete turn."""
        self._answered_alone_at = time.monotonic()
        for message in run.translator.complete():
            self._host.emit(message)
        run.translator.lose(goes_on=False)
        self.begin_with("")
        if text := run.answered_alone:
            if not text.is_stored:
                await self._session.append_text(await self._session.find(), text)
            self._host.stored(text)
        self._inbox.clear_sound()
        self.end_reconnecting()
        return True

    async def _watch(self, run: Run, driving: asyncio.Task[None]) -> Exception | None:
        """Waits for a run's end, or ends it if it is stopped or lost; returns its error, if there is one."""
        stopping = asyncio.create_task(self._stopped.wait())
        overdue: Exception | None = None
        try:
            while not (driving.done() or stopping.done() or overdue):
                await asyncio.wait(
                    {driving, stopping}, timeout=_LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED
                )
                overdue = run.overdue()
            if not (driving.done() or overdue):
                run.close()
                await asyncio.wait({driving}, timeout=_END_WAIT)
        finally:
            stopping.cancel()
            if not driving.done():
                driving.cancel()
                await asyncio.wait({driving})
        failure = None if driving.cancelled() else driving.exception()
        return overdue or (failure if isinstance(failure, Exception) else None)

    def _is_transient(self, error: BaseException) -> bool:
        """Whether to try again: always, once the model has been reached and if the conversation is ours."""
        if self._was_connected:
            return isinstance(error, Exception) and not isinstance(error, NotOwnerError)
        return isinstance(error, LostConnection) and not error.permanent

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._stopped.is_set() == (self.stop_reason is not None), "stopped without a reason"
        assert not (self._handle and self._owed), "a handle is kept though somebody waits for an answer"
