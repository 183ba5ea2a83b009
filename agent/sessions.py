"""Conversations: who listens, what is said, and when a run starts and ends."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from google.adk.agents import BaseAgent
from google.adk.agents.run_config import RunConfig
from google.adk.events import Event
from google.adk.sessions import BaseSessionService, Session
from google.genai import types
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from agent.connection import LostConnection
from agent.inbox import Inbox
from agent.live import APP_NAME, Owed, Run, live_model, run_config, runner
from agent.messages import Dropped, Ended, Error, Input, Interrupt, Message, Status, UserText
from agent.store import session_service

log = logging.getLogger("relay.agent")

_END_WAIT = 2.0
"""Seconds a run is given to end by itself before it is cancelled."""

_CLOSE_WAIT = 5.0
"""Seconds after which `aclose` no longer waits for a run that does not even heed its cancellation."""

_LOOK_EVERY = 1.0
"""Seconds between two looks at whether a run's connection is as good as lost."""

_TRIES = 5
_TRY_FOR = 60.0
"""How often, and for how many seconds, a lost connection is remade without any progress."""


class Listener(Protocol):
    """Who attends a conversation."""

    @property
    def is_audio(self) -> bool:
        """Whether it wants to hear and to speak, and so needs the model's connection at once."""

    def put(self, message: Message) -> None:
        """Takes a message; must not wait."""


class Conversations:
    """All conversations of one agent.

    Args:
        agent: any ADK agent.
        config: the run configuration; None: `live.run_config()`.
        sessions: an ADK session-service URI, or a session service.
        grace: seconds that a run outlives its conversation's last listener.
        idle_timeout: seconds without content in either direction after which it ends; 0: never.
        mic_ms: milliseconds of sound that are sent to the model at once.

    Raises:
        ValueError: the URI names no session service that is installed here.
        TypeError: `agent` is no ADK agent.
    """

    def __init__(
        self,
        agent: BaseAgent,
        *,
        config: RunConfig | None = None,
        sessions: str | BaseSessionService,
        grace: float,
        idle_timeout: float,
        mic_ms: float,
    ) -> None:
        if not isinstance(agent, BaseAgent):
            raise TypeError(f"agent must be an ADK agent, not {type(agent).__name__}")
        # ADK logs a failure several times over, with tracebacks; it reaches relay as an exception
        # and is one line there. A host that has set a level of its own keeps it.
        if (adk := logging.getLogger("google_adk")).level == logging.NOTSET:
            adk.setLevel(logging.CRITICAL)
        self.config = config or run_config()
        self.service = session_service(sessions) if isinstance(sessions, str) else sessions
        self.runner = runner(agent, self.service)
        self.grace = grace
        self.idle_timeout = idle_timeout
        self.mic_ms = mic_ms
        model = live_model(agent)
        self.model = model.model if model else agent.name
        self.is_rehearsal = self.model == "rehearsal"
        self._closing = False
        self._ending = asyncio.Lock()
        self._ended = False
        self._open: dict[str, Conversation] = {}

    def is_closing(self) -> bool:
        """Whether no new conversation is to be begun."""
        return self._closing

    def of(self, user_id: str) -> Conversation:
        """The user's conversation: the one in memory, or a new life of the one in the session."""
        if user_id not in self._open:
            self._open[user_id] = Conversation(self, user_id)
        return self._open[user_id]

    def forget(self, conversation: Conversation) -> None:
        """Called by a conversation that nobody needs in memory any more."""
        self._open.pop(conversation.user_id, None)

    async def aclose(self) -> None:
        """Ends every run and awaits it, then closes ADK's runner and the session service."""
        self._closing = True
        async with self._ending:  # who asks second waits for the first
            if self._ended:
                return
            self._ended = True
            await asyncio.gather(*(conversation.aclose() for conversation in [*self._open.values()]))
            self._open.clear()
            await self.runner.close()
            close: Callable[[], Awaitable[None]] | None = getattr(self.service, "close", None)
            if close:
                await close()


class Conversation:
    """A user's conversation: one ADK session and, while it is in use, one run.

    One task owns the run. It sleeps until there is something to say or somebody who wants to hear,
    makes a run, remakes it when its connection is lost, and ends it; so there is never a second one.
    """

    def __init__(self, home: Conversations, user_id: str) -> None:
        self.user_id = user_id
        self.session_id = f"live-{user_id}"
        self.epoch = secrets.token_urlsafe(6)
        """Names this life of the conversation in memory: its numbers mean nothing in another."""
        self.seq = 0
        """The number of the last message."""
        self._home = home
        self._inbox = Inbox(mic_ms=home.mic_ms, on_dropped=self._dropped_up)
        self._listeners: list[Listener] = []
        self._current: Listener | None = None
        self._wanted = False
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._closing = False
        self._run: Run | None = None
        self._handle: str | None = None
        self._owed: Owed = ""
        self._ever_connected = False
        self._reconnecting = False
        self._last_content = time.monotonic()
        self._grace: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._live(), name=f"conversation {user_id}")

    # ---- for the listeners ----

    def attach(self, listener: Listener) -> None:
        """Gives the conversation to `listener`; the one before it stays, and is told `elsewhere`."""
        if self._grace:
            self._grace.cancel()
            self._grace = None
        if self._current:
            self._current.put(Status("elsewhere"))
        self._listeners.append(listener)
        self._current = listener
        self._last_content = time.monotonic()
        if self._idle is None and self._home.idle_timeout > 0:
            self._look_for_idleness()
        if self._reconnecting:
            listener.put(Status("reconnecting"))
        if listener.is_audio:
            self._want()

    def detach(self, listener: Listener, *, at_once: bool = False) -> None:
        """Takes a listener away; when it was the last, the conversation ends after the grace.

        Args:
            at_once: nobody will come back, so there is no grace.
        """
        self._listeners.remove(listener)
        if self._current is listener:
            self._current = self._listeners[-1] if self._listeners else None
            # The one before it has the conversation again, or it would be answered to nobody.
            self._tell(Status("reconnecting" if self._reconnecting else "live"))
        if not self._listeners:
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(0 if at_once else self._home.grace, self._end)

    def put(self, said: Input) -> None:
        """Takes what the user says; never waits.

        Raises:
            InboxFullError: too much text waits for the model already.
        """
        self._last_content = time.monotonic()
        if isinstance(said, Interrupt):
            self._owed = ""
            if self._run:
                for message in self._run.turn.interrupt():
                    self.emit(message)
        elif not self._closing:
            self._inbox.put(said)
            self._want()

    async def aclose(self) -> None:
        """Ends the run, lets the listeners go, and awaits the conversation's task."""
        self._closing = True
        for listener in self._listeners:
            listener.put(Ended("stopping"))
        self._end()
        _, late = await asyncio.wait({self._task}, timeout=_CLOSE_WAIT)
        if late:
            log.error("%s: the run did not end within %g s", self.user_id, _CLOSE_WAIT)

    # ---- for the run (live.Host) ----

    def number(self) -> int:
        self.seq += 1
        return self.seq

    def emit(self, message: Message) -> None:
        self._last_content = time.monotonic()
        self._tell(message)

    def connected(self) -> None:
        self._ever_connected = True
        if self._reconnecting:
            self._reconnecting = False
            self._tell(Status("live"))

    # ---- the life of a conversation ----

    async def _live(self) -> None:
        try:
            while True:
                while not (self._wanted or self._stop.is_set()):
                    self._wake.clear()
                    await self._wake.wait()
                if self._stop.is_set():
                    await self._keep_unsaid()
                    if self._closing or not self._listeners:
                        return
                    self._stop.clear()
                    self._wanted = self._wanted or bool(self._inbox)
                    continue
                try:
                    await self._converse()
                except Exception as error:
                    self._wanted = False
                    self._failed(error)
        finally:
            for timer in (self._grace, self._idle):
                if timer:
                    timer.cancel()
            self._home.forget(self)

    async def _converse(self) -> None:
        """Keeps the model connected until the conversation comes to rest or is stopped.

        Raises:
            LostConnection: what is permanent, or still lost after the last try.
            Exception: the agent's own code failed, or the session could not be read.
        """
        await self._find_session()
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(self._is_transient),
            wait=wait_random_exponential(multiplier=0.5, max=10),
            stop=stop_after_attempt(_TRIES) | stop_after_delay(_TRY_FOR),
            sleep=self._pause,
            before_sleep=self._log_retry,
            reraise=True,
        ):
            with attempt:
                while not self._stop.is_set():
                    if await self._drive(attempt.retry_state) and not self._inbox:
                        return

    async def _drive(self, tries: RetryCallState) -> bool:
        """Sees one run to its end, whoever ends it, and leaves inbox and session in order.

        Returns:
            Whether the conversation is at rest; False: the next run is to follow at once.

        Raises:
            LostConnection: the run was lost; `_handle` and `_owed` say how the next one begins.
            Exception: whatever else made it fail.
        """
        self._wanted = False
        self._run = run = Run(
            self._home.runner,
            self._home.config,
            self.user_id,
            self.session_id,
            self._inbox,
            self,
            handle=self._handle,
            owed=self._owed,
        )
        driving = asyncio.create_task(run.drive(), name=f"run {self.user_id}")
        error = await self._watch(run, driving)
        self._run = None
        if self._stop.is_set():
            error = None
        elif error is None and not run.leaving and (run.turn.owed or not run.progressed):
            # A goodbye in mid answer, or before anything was said, is a loss all the same.
            error = LostConnection(1000, "the service closed the connection early")
        was_up = not self._reconnecting
        if error and was_up and self._is_transient(error):
            self._reconnecting = True
            self._tell(Status("reconnecting"))
        for message in run.turn.lost():
            self.emit(message)
        self._handle, self._owed = None, run.turn.owed  # what holds if the session can't be read now
        await self._settle(run)
        if run.speech_pending and not self._stop.is_set():
            self._tell(Error("speech_lost", "The connection broke while you spoke. Please say it again."))
        if error is None:
            self._handle, self._owed = run.handle if run.leaving else None, ""
            return not run.leaving
        if run.progressed:
            tries.attempt_number = 0  # this loss begins a new series of tries; it is none of them
        if run.progressed or was_up:
            tries.start_time = time.monotonic()
        first = tries.attempt_number == 0
        self._handle = run.handle if first and run.at_rest else None
        self._owed = run.turn.owed if self._owed else ""  # unless the user has had enough meanwhile
        raise error

    async def _watch(self, run: Run, driving: asyncio.Task[None]) -> Exception | None:
        """Waits for a run's end, or brings it about; returns why it failed, if it did."""
        stopping = asyncio.create_task(self._stop.wait())
        overdue: LostConnection | None = None
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
        if overdue or driving.cancelled():
            return overdue
        failure = driving.exception()
        return failure if isinstance(failure, Exception) else None

    async def _settle(self, run: Run) -> None:
        """Sees to it that each text is in the history or in the inbox, and a cut answer in the history."""
        if not (run.unsettled or run.turn.said):
            return
        session = None
        try:
            session = await self._find_session()
        finally:
            if run.unsettled:
                text, taken_at = run.unsettled
                events = session.events if session else []  # unreadable: better twice than never
                if not any(_is_user_text(event, text, taken_at) for event in events):
                    self._inbox.put_back(text)
                    run.turn.take_back()
        if run.turn.said:
            await self._append(session, run.turn.author, "model", run.turn.said)

    async def _keep_unsaid(self) -> None:
        """Stores the texts that no model could be given before the conversation ended."""
        if self._listeners and not self._closing:
            return
        texts = [said for said in iter(self._inbox.take, None) if isinstance(said, UserText)]
        if texts:
            try:
                session = await self._find_session()
                for said in texts:
                    await self._append(session, "user", "user", said.text)
            except Exception as error:
                log.error("%s: %d texts could not be stored: %s", self.user_id, len(texts), error)

    async def _append(self, session: Session, author: str, role: str, text: str) -> None:
        content = types.Content(role=role, parts=[types.Part(text=text)])
        await self._home.service.append_event(session, Event(author=author, content=content))

    async def _find_session(self) -> Session:
        """The conversation's ADK session; made, if this is its very beginning."""
        service, user_id, session_id = self._home.service, self.user_id, self.session_id
        session = await service.get_session(app_name=APP_NAME, user_id=user_id, session_id=session_id)
        return session or await service.create_session(
            app_name=APP_NAME, user_id=user_id, session_id=session_id
        )

    def _failed(self, error: Exception) -> None:
        log.error("%s: %s", self.user_id, _one_line(error))
        self._reconnecting = False
        self._tell(_explain(error, self._home.model))
        for listener in self._listeners:
            listener.put(Ended("failed"))

    def _is_transient(self, error: BaseException) -> bool:
        """Whether to try again: always, once the model has been reached."""
        if self._ever_connected:
            return isinstance(error, Exception)
        return isinstance(error, LostConnection) and not error.permanent

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def _log_retry(self, tries: RetryCallState) -> None:
        error = tries.outcome.exception() if tries.outcome else None
        log.warning(
            "%s: %s; try %d of %d in %.1f s",
            self.user_id,
            _one_line(error),
            tries.attempt_number + 1,
            _TRIES,
            tries.upcoming_sleep,
        )

    # ---- small things ----

    def _tell(self, message: Message) -> None:
        if self._current:
            self._current.put(message)

    def _dropped_up(self, ms: float) -> None:
        self._tell(Dropped("up", ms))

    def _want(self) -> None:
        """Asks for a run. One that lives serves; one that is being ended does not."""
        if self._run is None or self._stop.is_set():
            self._wanted = True
            self._wake.set()

    def _end(self) -> None:
        self._stop.set()
        self._wake.set()

    def _look_for_idleness(self) -> None:
        left = self._last_content + self._home.idle_timeout - time.monotonic()
        if left > 0:
            self._idle = asyncio.get_running_loop().call_later(left, self._look_for_idleness)
            return
        self._idle = None
        for listener in self._listeners:
            listener.put(Ended("idle"))
        self._end()


def _is_user_text(event: Event, text: UserText, since: float) -> bool:
    parts = event.content.parts if event.content else None
    return bool(event.author == "user" and event.timestamp >= since and parts and parts[0].text == text.text)


def _one_line(error: BaseException | None) -> str:
    """What failed, for the log: the service's own words, without a traceback."""
    what = str(error) if isinstance(error, LostConnection) else f"{type(error).__name__}: {error}"
    return "the model's connection: " * isinstance(error, LostConnection) + " ".join(what.split())[:500]


def _explain(error: Exception, model: str) -> Error:
    """What failed, for the user: plain words, and nothing of the service's own."""
    if not isinstance(error, LostConnection):
        return Error("agent_failed", "The agent failed. The server's log says why.")
    refused = error.reason.lower()
    if error.code in (401, 403) or "api key" in refused or "api_key" in refused:
        words = "The model service refused the credentials: check the server's API key or Google Cloud login."
    elif error.code == 404 or "not found" in refused:
        words = f"The model service does not know the model {model!r}: check its name."
    elif error.permanent:
        words = f"The model {model!r} refused this conversation ({error.code}). The server's log says why."
    else:
        return Error("model_unavailable", "The model could not be reached. Please try again later.")
    return Error("model_refused", words)
