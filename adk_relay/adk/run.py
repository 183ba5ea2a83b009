"""One run: a `run_live` and its connection to the model, from its start to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, Protocol

from google.adk.agents import BaseAgent
from google.adk.agents.run_config import RunConfig
from google.adk.apps import App
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService, Session
from google.genai import types

from adk_relay.adk.connection import LostConnection, WatchedConnection, observer, watched_agent
from adk_relay.adk.models import telemetry
from adk_relay.adk.queue import RequestQueue
from adk_relay.adk.session import APP_NAME
from adk_relay.adk.sound import ShortWay
from adk_relay.adk.speech import Speech, is_push_to_talk
from adk_relay.adk.tools import Tools
from adk_relay.adk.translator import Translator
from adk_relay.adk.turn import Owed
from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import ForModel, Message, UserAudio, UserText

log = logging.getLogger("relay.agent")

_STALLED_AFTER = 5.0
"""Seconds in which an open connection must take, store and send a text; otherwise it counts as lost."""

_PROGRESS_AFTER = 60.0
"""Seconds after which a connection counts as progress, even if no turn was completed on it."""

_GO_AWAY_MARGIN = 2.0
"""Seconds before the service's own deadline: an answer that is unfinished then is given up."""

_SPEECH_FORGOTTEN = 10.0
"""Seconds after which speech without a transcript counts as noise."""

_GO_ON = (
    "(The connection was lost while you were speaking. I have what you said so far."
    " Go on from there, without saying it again.)"
)
_ANSWER_ME = "(The connection was lost before you answered my last message. Answer it now.)"
_NO_ANSWER = "(The conversation was interrupted before I could answer.)"


def runner(agent: BaseAgent, sessions: BaseSessionService, config: RunConfig, *, short_way: bool) -> Runner:
    """An ADK runner for `agent`, whose connections can be watched by a `Run`.

    Args:
        config: the run configuration that the runs will have.
        short_way: whether sound may go past ADK.
    """
    watched = watched_agent(agent)
    sound = ShortWay(agent, config, observer.get, is_wanted=short_way)
    app = App(name=APP_NAME, root_agent=watched, plugins=[sound, Tools("tools")])
    return _Runner(app=app, session_service=sessions)


_at_hand: ContextVar[list[Session]] = ContextVar("at_hand")
"""The session of the run that begins in this context, if it was just read; it is taken once."""


class _Runner(Runner):
    """A runner that does not read a session which relay has just read: a long one takes milliseconds."""

    # A private name of ADK. Without it there, this method is never called, and ADK reads the session.
    async def _get_or_create_session(self, **named: Any) -> Session:
        if at_hand := _at_hand.get([]):
            return at_hand.pop()
        return await super()._get_or_create_session(**named)


class Host(Protocol):
    """What a run needs from its conversation. No method may wait."""

    def number(self) -> int:
        """The next message's `seq`."""

    def emit(self, message: Message) -> None:
        """Sends a message of the conversation to the listeners."""

    def connected(self) -> None:
        """The connection to the model is there."""

    def stored(self, text: UserText) -> None:
        """A text is in the session."""


class Run:
    """One `run_live` and its connection to the model. The user's input goes in, messages come out.

    Args:
        runner: from `runner()`.
        config: the run configuration; the run works on a copy.
        user_id, session_id: the ADK session, which must exist.
        inbox: where the user's input comes from.
        host: the conversation.
        handle: resumes the service's own session; None: the history is sent instead.
        owed: what the user still waits for from the run before.
        session: the ADK session, if it was just read and not changed since; None: ADK reads it.

    Invariants:
        A resumption handle covers all input that the model was given: taking input removes the handle.
        Only a service that is connected can announce its end, or be sent a text.
    """

    def __init__(
        self,
        runner: Runner,
        config: RunConfig,
        user_id: str,
        session_id: str,
        inbox: Inbox,
        host: Host,
        *,
        handle: str | None = None,
        owed: Owed = "",
        session: Session | None = None,
    ) -> None:
        self._runner = runner
        # Without resumption in the configuration there is none: the history is sent instead.
        resumption = config.session_resumption
        self._config = config.model_copy(
            update={
                "session_resumption": resumption and resumption.model_copy(update={"handle": handle}),
                "telemetry": config.telemetry or telemetry(),
            }
        )
        self._user_id = user_id
        self._session_id = session_id
        # A configuration that limits what ADK reads is ADK's to obey.
        self._at_hand = [session] if session and not config.get_session_config else []
        self._inbox = inbox
        self._host = host
        self._speech = Speech(push_to_talk=is_push_to_talk(config))
        self._queue = RequestQueue(inbox, self._taken, host.stored, self._speech)
        self.translator = Translator(runner.agent, host.number, owed=owed)
        self.turn = self.translator.turn
        self.handle: str | None = None
        """A resumption handle that covers all input that the model was given."""
        self._completed_turn = False
        self._spoke_at: float | None = None  # when the user spoke last, if no final transcript has come
        self._connected_at: float | None = None
        self._sending_since: float | None = None
        self._leave_by: float | None = None  # the deadline, after the service has sent goAway
        self._is_listened_to = False  # a tool reads the user's sound, and gets it from ADK
        self.under_way = 0
        """Events that ADK has let go, and that were not translated yet."""
        self._caught_up = asyncio.Event()  # set when there are none

    async def drive(self) -> None:
        """Runs until the model ends it or `close()` is called.

        Raises:
            LostConnection: the connection failed.
            Exception: the agent's own code raised it.
        """
        observer.set(self)
        _at_hand.set(self._at_hand)
        events = self._runner.run_live(
            user_id=self._user_id,
            session_id=self._session_id,
            live_request_queue=self._queue,
            run_config=self._config,
        )
        async with aclosing(events):
            async for event in events:
                for message in self.translator.messages(event):
                    self._host.emit(message)
                if event.turn_complete and not self.turn.is_open:
                    self._completed_turn = True
                    self._spoke_at = None
                    if self.is_leaving:
                        self._close_if_at_rest()
                elif event.input_transcription and event.input_transcription.finished:
                    self._spoke_at = None
                self.under_way = max(self.under_way - 1, 0)
                if not self.under_way:
                    self._caught_up.set()

    def close(self) -> None:
        """Asks the run to end: `drive()` returns when the connection is closed."""
        self._queue.close()

    @property
    def is_leaving(self) -> bool:
        """The service has sent goAway: the next run continues where this one ends."""
        return self._leave_by is not None

    @property
    def has_progressed(self) -> bool:
        """A turn was completed, or the connection lasted: if it is lost now, that is a new failure."""
        lasted = self._connected_at and time.monotonic() - self._connected_at > _PROGRESS_AFTER
        return self._completed_turn or bool(lasted)

    @property
    def is_at_rest(self) -> bool:
        """Nobody speaks, and nobody waits for an answer."""
        return not (self.turn.is_open or self.turn.owed or self.is_speech_pending)

    @property
    def unsettled(self) -> tuple[UserText, float] | None:
        """A text that ADK has taken and may not have stored, and the `time.time()` it was taken."""
        return self._queue.unsettled

    @property
    def is_speech_pending(self) -> bool:
        """The user has just spoken, and the final transcript has not come yet."""
        return self._spoke_at is not None and time.monotonic() - self._spoke_at < _SPEECH_FORGOTTEN

    def overdue(self) -> LostConnection | None:
        """Why the connection counts as lost although it has reported no error; None: it does not.

        It also closes the run if its deadline has passed and no answer is under way.
        """
        now = time.monotonic()
        if self._leave_by is not None and now >= self._leave_by:
            if self.turn.is_open or self.turn.owed:
                return LostConnection(None, "the service went away in the middle of an answer")
            self.close()
        if self._connected_at is None:
            return None
        waiting = self._inbox.content_waiting_since
        if waiting is not None and now - max(waiting, self._connected_at) > _STALLED_AFTER:
            return LostConnection(None, f"a text was not taken within {_STALLED_AFTER:g} s")
        if self.unsettled and time.time() - self.unsettled[1] > _STALLED_AFTER:
            return LostConnection(None, f"a text was not stored within {_STALLED_AFTER:g} s")
        if self._sending_since is not None and now - self._sending_since > _STALLED_AFTER:
            return LostConnection(None, f"a text was not sent within {_STALLED_AFTER:g} s")
        return None

    def check(self) -> None:
        """Asserts the invariants."""
        assert not (self.handle and self.turn.given), "a handle is kept that does not cover all input"
        if self._connected_at is None:
            assert not self.is_leaving, "a service that is not connected has announced its end"
            assert self._sending_since is None, "a text is on its way, and nothing is connected"

    # ---- told by the short way (sound.Hearer) ----

    def hear(self, pcm: bytes) -> None:
        for message in self.translator.sound(pcm):
            self._host.emit(message)

    def entered(self) -> None:
        self.under_way += 1
        self._caught_up.clear()

    def is_listened_to(self) -> None:
        self._is_listened_to = True
        self._queue.send_sound = None

    async def caught_up(self) -> None:
        await self._caught_up.wait()

    # ---- told by the connection (connection.Observer) ----

    def connected(self, connection: WatchedConnection) -> None:
        # Not only at the start: a sub-agent that takes over opens its own connection.
        self.handle = self._leave_by = self._sending_since = None
        self._connected_at = time.monotonic()
        self._speech.restart()
        short_way = self._runner.plugin_manager.get_plugin("short_way")
        assert isinstance(short_way, ShortWay)
        connection.short_way = short_way.shorten(connection.inner, self, self._runner.plugin_manager.plugins)
        is_open = connection.short_way and not self._is_listened_to
        self._queue.send_sound = connection.send_sound if is_open else None
        self._host.connected()

    def history(self, turns: list[types.Content]) -> list[types.Content]:
        """The history, with an end that makes the model answer if, and only if, it owes an answer.

        A model answers a history whose last turn is the user's, and is silent if the last turn is its
        own. The note that is added here is sent to the model only; it is not stored.
        """
        owed = self.turn.owed
        if not turns or (turns[-1].role == "user") == bool(owed):
            return turns
        note = {"": _NO_ANSWER, "answer": _ANSWER_ME, "rest": _GO_ON}[owed]
        return [*turns, types.Content(role="user" if owed else "model", parts=[types.Part(text=note)])]

    def sending(self, content: types.Content) -> None:
        self._queue.settle()  # ADK stores a text before it sends it
        self._sending_since = time.monotonic()

    def sent(self) -> None:
        self._sending_since = None

    def resumable(self, handle: str) -> None:
        # The service may have made this handle before the model got the input of this turn.
        if not self.turn.given:
            self.handle = handle

    def going_away(self, time_left: float) -> None:
        self._leave_by = time.monotonic() + max(0.0, time_left - _GO_AWAY_MARGIN)
        log.info("%s: the model's connection is to be renewed, %g s left", self._user_id, time_left)
        self._close_if_at_rest()

    def _close_if_at_rest(self) -> None:
        if self.is_at_rest:
            self.close()

    def _taken(self, user_input: ForModel) -> None:
        self.handle = None  # it no longer covers all that the model was given
        self.turn.take(user_input)
        if isinstance(user_input, UserAudio) and user_input.is_speech:
            self._spoke_at = time.monotonic()
