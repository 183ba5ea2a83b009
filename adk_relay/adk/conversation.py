"""A conversation: what is said in it, and when its run starts and ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from google.adk.agents.run_config import RunConfig
from google.adk.events import Event
from google.adk.runners import Runner
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

from adk_relay.adk.connection import LostConnection
from adk_relay.adk.run import Run
from adk_relay.adk.session import (
    APP_NAME,
    GOES_ON,
    create_session,
    created_at,
    default_id,
    get_session,
    lines_of,
)
from adk_relay.adk.turn import Owed
from adk_relay.core.floor import Floor
from adk_relay.core.inbox import Inbox, InboxFullError
from adk_relay.core.interfaces import BusyError, Stats
from adk_relay.core.logs import failure, one_line
from adk_relay.core.messages import (
    Ack,
    AudioEnd,
    Dropped,
    Ended,
    Error,
    Input,
    Interrupt,
    Message,
    Said,
    Status,
    Taken,
    Transcript,
    TurnEnd,
    UserAudio,
    UserImage,
    UserText,
    UserTyping,
    Written,
)
from adk_relay.core.room import After, Listener, Room

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


_MAX_WAITING = 16
"""Requests that may wait for the answers before them."""

_MAX_HELD = 64
"""Texts that may be said while the conversation is being emptied."""

_MAX_IDS = 4096
"""So many of the latest ids of texts are known again."""

_UNATTENDED = 5.0
"""Seconds that somebody has to attend after having asked for the conversation."""


class Home(Protocol):
    """What a conversation needs to know of where it lives."""

    runner: Runner
    service: BaseSessionService
    config: RunConfig
    model: str
    stats: Stats
    grace: float
    idle_timeout: float
    mic_ms: float
    replay_bytes: int
    replay_seconds: float

    def forget(self, conversation: Conversation) -> None:
        """The conversation is over: nobody needs it in memory any more."""


@dataclass(slots=True, eq=False)
class _Request:
    """A text whose answer somebody waits for."""

    text: UserText
    listener: Listener


@dataclass(slots=True)
class _Known:
    """A text that was said, so that it is not said twice."""

    hash: int
    listener: Listener | None
    """Who is told when it is stored; None: it is."""


class Conversation:
    """A user's conversation: one ADK session and, while it is in use, one run.

    One task owns the run. It sleeps until there is something to say or somebody who wants to hear,
    makes a run, remakes it when its connection is lost, and ends it; so there is never a second one.
    The same task empties the session, so no run can write into one that is gone.
    """

    def __init__(self, home: Home, user_id: str, session_id: str) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.room = Room(replay_bytes=home.replay_bytes, replay_seconds=home.replay_seconds)
        self.is_kept = False
        """There is an ADK session of it."""
        self.created_at = self.last_activity = time.time()
        self._home = home
        self._name = user_id if session_id == default_id(user_id) else f"{user_id}/{session_id}"
        self._inbox = Inbox(on_dropped=self._dropped_up)
        self._floor = Floor(mic_ms=home.mic_ms, hear=self._hear, refuse=self._refuse_speech)
        self._texts: OrderedDict[str, _Known] = OrderedDict()  # by id
        self._request: _Request | None = None
        self._asked_at = 0.0
        self._waiting: deque[_Request] = deque()
        self._held: list[tuple[Input, Listener]] = []
        self._resets: list[tuple[bool, asyncio.Future[None]]] = []
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
        self._next: asyncio.TimerHandle | None = None
        self._back_by = 0.0
        """When, in the event loop's time, the grace ends of who has left last."""
        self._idle: asyncio.TimerHandle | None = None
        self._loading = asyncio.create_task(self._load(), name=f"history {self._name}")
        self._task = asyncio.create_task(self._live(), name=f"conversation {self._name}")

    # ---- for the listeners ----

    async def ready(self) -> None:
        """Waits until it is known what the session holds, or that it is over before it began.

        Raises:
            Exception: the session could not be read.
        """
        await asyncio.wait({self._loading})
        if not self._loading.cancelled():
            self._loading.result()

    def attach(self, listener: Listener, after: After | None = None) -> None:
        """Lets `listener` attend: from now on, or from the message after the one it has got last."""
        if self._grace:
            self._grace.cancel()
            self._grace = None
        self.room.enter(listener, after)
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
        is_alone, is_given_up = self.room.listeners == [listener], False
        if listener.attends == "own":  # what it has asked is for nobody else
            for request in [request for request in self._waiting if request.listener is listener]:
                self._waiting.remove(request)
                self._home.stats.failed += 1
            if self._request and self._request.listener is listener:
                self._home.stats.failed += 1
                self._end_request()
                is_given_up = is_alone
        self._floor.end(listener.connection_id)
        self.room.leave(listener, is_live=not self._reconnecting)
        if is_alone:
            loop = asyncio.get_running_loop()
            if is_given_up:
                self._interrupt()
            elif not at_once:
                self._back_by = loop.time() + self._home.grace
            # Who has left before may still come back to what was said.
            self._grace = loop.call_at(0 if at_once else self._back_by, self._end)

    def handle(self, said: Input, listener: Listener) -> None:
        """Takes what a listener says; never waits.

        Raises:
            InboxFullError: too much text waits for the model already.
        """
        self._last_content = time.monotonic()
        if self._closing:
            return
        match said:
            case UserText() | UserImage() | UserAudio() | Interrupt() if self._resets:
                self._hold(said, listener)
            case Interrupt():
                self._interrupt()
            case UserTyping(typing):
                self.room.typing(listener, typing)
            case UserText():
                self._say(said, listener)
            case UserAudio():
                self._floor.put(listener.connection_id, said)
            case AudioEnd():
                self._floor.end(listener.connection_id)
            case UserImage():
                self._inbox.put(said)
                self._want()

    def ask(self, text: UserText, listener: Listener) -> None:
        """Takes a text whose answer is `listener`'s: it waits until those before it are answered.

        One that comes again, by its id, is not asked again: its answer is that of who sent it last.

        Raises:
            BusyError: 16 wait already.
        """
        self._last_content = time.monotonic()
        if text.id and self._ask_again(text, listener):
            return
        self._home.stats.requests += 1
        if len(self._waiting) >= _MAX_WAITING:
            self._home.stats.failed += 1
            raise BusyError(f"{len(self._waiting)} messages wait for their answers already: try again later.")
        self.room.typing(listener, False)
        ahead = len(self._waiting) + self._is_answering()
        listener.put(Taken(text, ahead, self.room.history.message_count))
        self._waiting.append(_Request(text, listener))
        self._answer_next()

    async def reset(self, *, delete: bool) -> None:
        """Empties the conversation, and all that attend are told; what is said meanwhile comes after.

        Args:
            delete: no session is made until something is said again.

        Raises:
            Exception: the session could not be deleted.
        """
        done = asyncio.get_running_loop().create_future()
        self._resets.append((delete, done))
        self._interrupt()
        self._drop_requests("The conversation was emptied before it was your turn.")
        for text in self._inbox.clear():
            self._texts.pop(text.id, None)  # it can be said again, should the session turn out to stay
        self._end()
        await asyncio.shield(done)

    async def aclose(self) -> None:
        """Ends the run, lets the listeners go, and awaits the conversation's task."""
        self._closing = True
        self._keep_waiting()
        self._dismiss(Ended("stopping"))
        self._loading.cancel()
        self._end()
        _, late = await asyncio.wait({self._task}, timeout=_CLOSE_WAIT)
        if late:
            log.error("%s: the run did not end within %g s", self._name, _CLOSE_WAIT)

    # ---- for the run (live.Host) ----

    def number(self) -> int:
        return self.room.number()

    def emit(self, message: Message) -> None:
        self._last_content = time.monotonic()
        match message:
            case Transcript():
                self.room.say(replace(message, connection_id=self._floor.spoke))
            case TurnEnd(goes_on=False):
                self.last_activity = time.time()
                if self._request:
                    self._home.stats.successful += 1
                    self._home.stats.seconds += time.monotonic() - self._asked_at
                self.room.say(message)
                self._end_request()
                # Only when the turn has taken note of its end is it known what else is owed.
                asyncio.get_running_loop().call_soon(self._answer_next)
            case _ if isinstance(message, Said):
                self.room.say(message)
            case _:
                self.room.tell(message)

    def connected(self) -> None:
        self._ever_connected = True
        self._is_live()

    def stored(self, text: UserText) -> None:
        self.last_activity = time.time()
        if known := self._texts.get(text.id):
            listener, known.listener = known.listener, None
            if listener in self.room.listeners:
                listener.put(Ack(text.id))

    # ---- what is said ----

    def _say(self, text: UserText, listener: Listener) -> None:
        if self._say_again(text, listener):
            return
        self._inbox.put(text)
        if text.id:
            self._texts[text.id] = _Known(hash(text.text), listener)
            if len(self._texts) > _MAX_IDS:
                self._texts.popitem(last=False)
        self.room.typing(listener, False)
        self.room.say(Written(self.number(), text.text, listener.connection_id, text.id, 0), but=listener)
        self._want()

    def _say_again(self, text: UserText, listener: Listener) -> bool:
        """Whether a text was said before, and comes again because its ack was lost."""
        if not (known := self._texts.get(text.id)):
            return False
        if known.hash != hash(text.text):
            listener.put(Error("bad_data", "This id is another text's: ids are to be random.", text.id))
        elif known.listener is None:
            listener.put(Ack(text.id))
        else:
            known.listener = listener
            self._want()  # it may wait since the model could not be reached
        return True

    def _interrupt(self) -> None:
        self._owed = ""
        self.room.recall_audio()
        has_stopped = self._inbox.stop()
        ends = [*self._run.turn.interrupt()] if self._run else []
        # Nothing may have reached a model yet, or the rest was to come with the next run.
        is_to_come = not self._run and (self.room.history.is_answering or self._request)
        if not ends and (has_stopped or is_to_come):
            ends = [TurnEnd(self.number(), interrupted=True)]
        for message in ends:
            self.emit(message)

    def _hear(self, sound: UserAudio | AudioEnd) -> None:
        self._inbox.put(sound)
        # The end of somebody's sound who leaves is worth no connection of its own.
        if isinstance(sound, UserAudio):
            self._want()

    def _refuse_speech(self, connection_id: str) -> None:
        self.room.whisper(connection_id, Error("busy", "Somebody else is speaking: wait until they pause."))

    def _hold(self, said: Input, listener: Listener) -> None:
        if isinstance(said, (UserText, UserImage)):  # the others are of the moment
            if len(self._held) >= _MAX_HELD:
                raise InboxFullError
            self._held.append((said, listener))

    # ---- requests: one at a time ----

    def _is_answering(self) -> bool:
        owed = self._run.turn.owed if self._run else self._owed
        return bool(self._request or owed or self._inbox.has_text)

    def _ask_again(self, text: UserText, listener: Listener) -> bool:
        """Whether a request was made before, and comes again because the socket that made it was lost."""
        if self._request and self._request.text == text:
            self._request.listener = listener
            self.room.answer(listener, text.id)
        for ahead, request in enumerate(self._waiting, start=self._is_answering()):
            if request.text == text:
                request.listener = listener
                listener.put(Taken(text, ahead, self.room.history.message_count))
                return True
        return self._say_again(text, listener)

    def _answer_next(self) -> None:
        """Says the request that is next, or looks again whether it is its turn: not all that may be
        before it (noise, a text that was stopped before its answer began) comes to an end that is told.
        """
        if self._next:
            self._next.cancel()
            self._next = None
        if not self._waiting:
            return
        would_cut_in = self._run and (self._run.speech_pending or self._run.turn.is_stopped_early)
        if would_cut_in or self._resets or self._is_answering():
            self._next = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._answer_next)
            if self._inbox.has_text or self._owed:
                self._want()  # it may wait since the model could not be reached
            return
        self._request = request = self._waiting.popleft()
        self._asked_at = time.monotonic()
        self.room.answer(request.listener, request.text.id)
        try:
            self._say(request.text, request.listener)
        except InboxFullError as full:  # of pictures; texts wait their turn
            self._drop_requests(str(full))

    def _end_request(self) -> None:
        self._request = None
        self.room.answer(None)

    def _drop_requests(self, why: str) -> None:
        """Gives up what waits for an answer, and tells."""
        dropped = [*([self._request] if self._request else []), *self._waiting]
        self._end_request()
        self._waiting.clear()
        self._home.stats.failed += len(dropped)
        for request in dropped:
            request.listener.put(Error("busy", why, request.text.id))

    # ---- the life of a conversation ----

    async def _live(self) -> None:
        try:
            await asyncio.wait({self._loading})
            if not self.room.listeners:
                self._grace = asyncio.get_running_loop().call_later(_UNATTENDED, self._end)
            while True:
                while not (self._wanted or self._stop.is_set()):
                    self._wake.clear()
                    await self._wake.wait()
                if self._stop.is_set():
                    while self._resets:
                        await self._empty()
                    if not self.room.listeners:
                        self._keep_waiting()
                    await self._keep_unsaid()
                    if self._resets:  # meanwhile
                        continue
                    if self._closing or not self.room.listeners:
                        self._dismiss()
                        return
                    self._stop.clear()
                    self._wanted = self._wanted or bool(self._inbox or self._owed)
                    self._stay()
                    continue
                try:
                    await self._converse()
                except Exception as error:
                    self._wanted = False
                    self._failed(error)
        finally:
            for timer in (self._grace, self._idle, self._next):
                if timer:
                    timer.cancel()
            self._loading.cancel()
            self.room.close()
            self._home.forget(self)

    def _stay(self) -> None:
        """Somebody came while the run was ended for nobody: what was under way is over all the same."""
        owes = self._owed or self._inbox.has_text
        if not owes and (self._request or self.room.history.is_answering):
            self.emit(TurnEnd(self.number(), interrupted=True))
        if not self._wanted:
            self._is_live()
        self._answer_next()

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
        driving = asyncio.create_task(run.drive(), name=f"run {self._name}")
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
            self.room.tell(Status("reconnecting"))
        goes_on = error is not None
        for message in run.turn.lost(goes_on=goes_on):
            self.emit(message)
        self._handle, self._owed = None, run.turn.owed  # what holds if the session can't be read now
        await self._settle(run, goes_on=goes_on)
        if run.speech_pending and not self._stop.is_set():
            lost = Error("speech_lost", "The connection broke while you spoke. Please say it again.")
            self.room.whisper(self._floor.spoke, lost)
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
        failure = None if driving.cancelled() else driving.exception()
        return overdue or (failure if isinstance(failure, Exception) else None)

    async def _settle(self, run: Run, *, goes_on: bool) -> None:
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
                else:
                    self.stored(text)
        if run.turn.said:
            await self._append(session, run.turn.author, "model", run.turn.said, goes_on=goes_on)

    def _keep_waiting(self) -> None:
        """What waits for its turn in a room was said there, though nobody will answer it now."""
        for request in self._waiting:
            self._home.stats.failed += 1
            if request.listener.attends != "own":
                with suppress(InboxFullError):
                    self._inbox.put(request.text)
        self._waiting.clear()

    async def _keep_unsaid(self) -> None:
        """Stores the texts that no model could be given before the conversation ended."""
        if self.room.listeners and not self._closing:
            return
        texts = deque(said for said in iter(self._inbox.take, None) if isinstance(said, UserText))
        if texts:
            self._handle = None  # the service knows nothing of them
            try:
                session = await self._find_session()
                while texts:
                    await self._append(session, "user", "user", texts[0].text)
                    said = texts.popleft()
                    self.stored(said)
                    self._owed = "" if said.stopped else "answer"  # should somebody have come back meanwhile
            except Exception as error:
                log.error("%s: %d texts could not be stored: %s", self._name, len(texts), one_line(error))
                while texts:
                    self._inbox.put_back(texts.pop())

    async def _append(
        self, session: Session, author: str, role: str, text: str, *, goes_on: bool = False
    ) -> None:
        content = types.Content(role=role, parts=[types.Part(text=text)])
        marks = {GOES_ON: True} if goes_on else None
        event = Event(author=author, content=content, custom_metadata=marks)
        await self._home.service.append_event(session, event)

    async def _find_session(self) -> Session:
        """The conversation's ADK session; made, if this is its very beginning."""
        service, user_id, session_id = self._home.service, self.user_id, self.session_id
        session = await get_session(service, user_id, session_id)
        if session is None:
            session = await create_session(service, user_id, session_id)
            self.created_at = created_at(session)
            self._home.stats.created += 1
        self.is_kept = True
        return session

    async def _load(self) -> None:
        """Reads what the session holds, before any run can add to it."""
        try:
            session = await get_session(self._home.service, self.user_id, self.session_id)
            if session:
                self.is_kept = True
                self.created_at = created_at(session)
                self.last_activity = session.last_update_time
                self.room.history.load(lines_of(session))
        except Exception:
            self._home.forget(self)  # who asks next finds out anew
            self._end()
            raise

    async def _empty(self) -> None:
        """Deletes the session, now that no run writes into it, and begins a new epoch."""
        resets = [*self._resets]  # they stay, and what is said is held, until the session is gone
        delete = resets[-1][0]
        error: Exception | None = None
        try:
            service, user_id, session_id = self._home.service, self.user_id, self.session_id
            await service.delete_session(app_name=APP_NAME, user_id=user_id, session_id=session_id)
        except Exception as failure:
            error = failure  # for who asked; it is logged there
        else:
            self.is_kept = False
            self.created_at = self.last_activity = time.time()
            if delete:
                self._drop_requests("The conversation was deleted.")
            else:
                try:
                    self.created_at = created_at(await create_session(service, user_id, session_id))
                    self.is_kept = True
                except Exception as failure:  # it is empty all the same, and made when something is said
                    error = failure
            self._handle, self._owed = None, ""
            self._inbox.clear()  # of what the run has put back
            for name, known in self._texts.items():
                if known.listener in self.room.listeners:
                    known.listener.put(Ack(name))  # it was said, and is emptied with the rest
            self._texts.clear()
            self.room.restart(deleted=delete)
            self._is_live()  # what a connection was remade for is gone
            # Deleted, there is no session before something is said.
            self._wanted = not delete and any(one.is_audio for one in self.room.listeners)
        del self._resets[: len(resets)]
        if not self._resets:
            self._release()
        for _, done in resets:
            if not done.done():
                done.set_exception(error) if error else done.set_result(None)

    def _release(self) -> None:
        """Takes what was said while the conversation was being emptied."""
        held, self._held = self._held, []
        for said, listener in held:
            if listener in self.room.listeners:
                try:
                    self.handle(said, listener)
                except InboxFullError as full:
                    listener.put(Error("busy", str(full), said.id if isinstance(said, UserText) else ""))

    def _failed(self, error: Exception) -> None:
        log.error("%s: %s", self._name, _what_failed(error))
        self._reconnecting = False
        self.room.history.cut()
        self._dismiss(_explain(error, self._home.model), Ended("failed"))

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
            self._name,
            _what_failed(error),
            tries.attempt_number + 1,
            _TRIES,
            tries.upcoming_sleep,
        )

    # ---- small things ----

    def _dismiss(self, *last_words: Message) -> None:
        """Tells all, those that wait for their turn too, that it is over."""
        self._home.stats.failed += len(self._waiting) + bool(self._request)
        self._end_request()
        self._waiting.clear()
        for listener in [*self.room.listeners]:
            for message in last_words:
                listener.put(message)

    def _is_live(self) -> None:
        """No connection is being remade any more."""
        if self._reconnecting:
            self._reconnecting = False
            self.room.tell(Status("live"))

    def _dropped_up(self, ms: float) -> None:
        self.room.whisper(self._floor.speaker or self._floor.spoke, Dropped("up", ms))

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
        self._dismiss(Ended("idle"))
        self._end()


def _is_user_text(event: Event, text: UserText, since: float) -> bool:
    parts = event.content.parts if event.content else None
    return bool(event.author == "user" and event.timestamp >= since and parts and parts[0].text == text.text)


def _what_failed(error: BaseException | None) -> str:
    """What failed, for the log: the service's own words, without a traceback."""
    if isinstance(error, LostConnection):
        return f"the model's connection: {one_line(error)}"
    return failure(error)


def _explain(error: Exception, model: str) -> Error:
    """What failed, for the user: plain words, and nothing of the service's own."""
    if not isinstance(error, LostConnection):
        return Error("agent_failed", "The agent failed. The server's log says why.")
    refused = error.reason.lower()
    if error.code in (401, 403) or "api key" in refused or "api_key" in refused:
        words = (
            "The server has no credentials that the model service takes:"
            " check its API key or Google Cloud login."
        )
    elif error.code == 404 or "not found" in refused:
        words = f"The model service does not know the model {model!r}: check its name."
    elif error.permanent:
        words = f"The model {model!r} refused this conversation ({error.code}). The server's log says why."
    else:
        return Error("model_unavailable", "The model could not be reached. Please try again later.")
    return Error("model_refused", words)
