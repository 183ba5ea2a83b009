"""One run: a `run_live` and its connection to the model, from its start to its end."""

from __future__ import annotations

import logging
import time
from contextlib import aclosing
from typing import Protocol

from google.adk.agents import BaseAgent
from google.adk.agents.run_config import RunConfig
from google.adk.apps import App
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService
from google.genai import types

from adk_relay.adk.connection import LostConnection, observer, watched_agent
from adk_relay.adk.queue import RequestQueue
from adk_relay.adk.session import APP_NAME
from adk_relay.adk.tools import Tools
from adk_relay.adk.translator import Translator
from adk_relay.adk.turn import Owed
from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import ForModel, Message, UserAudio, UserText

log = logging.getLogger("relay.agent")

_DEAF_AFTER = 5.0
"""Seconds an open connection may leave a text untaken, or half sent, before it counts as lost."""

_PROGRESS_AFTER = 60.0
"""Seconds a connection must have lived to count as progress though no turn was completed on it."""

_GO_AWAY_MARGIN = 2.0
"""Seconds before the service's own deadline at which an unfinished answer is given up."""

_SPEECH_FORGOTTEN = 10.0
"""Seconds after which speech without a transcript was noise."""

_GO_ON = (
    "(The connection was lost while you were speaking. I have what you said so far."
    " Go on from there, without saying it again.)"
)
_ANSWER_ME = "(The connection was lost before you answered my last message. Answer it now.)"
_NO_ANSWER = "(The conversation was interrupted before I could answer.)"


def runner(agent: BaseAgent, sessions: BaseSessionService) -> Runner:
    """An ADK runner for `agent`, whose connections can be watched by a `Run`."""
    app = App(name=APP_NAME, root_agent=watched_agent(agent), plugins=[Tools("tools")])
    return Runner(app=app, session_service=sessions)


class Host(Protocol):
    """What a run needs of its conversation. Nothing here may wait."""

    def number(self) -> int:
        """The next message's `seq`."""

    def emit(self, message: Message) -> None:
        """Tells a message to all that attend."""

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
        handle: resume the service's own session instead of replaying the history.
        owed: what the user still waits for from the run before.

    Invariants:
        A resumption handle covers all that the model was given: there is none since input was taken.
        The service can announce its end, and a text can be on its way to it, only once it is connected.
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
    ) -> None:
        self._runner = runner
        self._config = config.model_copy(
            update={"session_resumption": types.SessionResumptionConfig(handle=handle)}
        )
        self._user_id = user_id
        self._session_id = session_id
        self._inbox = inbox
        self._host = host
        self._queue = RequestQueue(inbox, self._taken, host.stored)
        self.translator = Translator(runner.agent, host.number, owed=owed)
        self.turn = self.translator.turn
        self.handle: str | None = None
        """A resumption handle that covers all that the model was given."""
        self._completed_turn = False
        self._spoke_at: float | None = None  # when the user spoke last, if no final transcript has come
        self._connected_at: float | None = None
        self._sending_since: float | None = None
        self._leave_by: float | None = None  # at the latest: the service has said goAway

    async def drive(self) -> None:
        """Runs until the model ends it or `close()` is called.

        Raises:
            LostConnection: the connection failed.
            Exception: whatever else the agent's own code let through.
        """
        observer.set(self)
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

    def close(self) -> None:
        """Asks the run to end: `drive()` returns when the connection is closed."""
        self._queue.close()

    @property
    def is_leaving(self) -> bool:
        """The service said goAway: the next run takes over where this one ends."""
        return self._leave_by is not None

    @property
    def has_progressed(self) -> bool:
        """A turn was completed, or the connection lasted: its loss is a new failure."""
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
        """The user spoke just now, and no final transcript of it has come."""
        return self._spoke_at is not None and time.monotonic() - self._spoke_at < _SPEECH_FORGOTTEN

    def overdue(self) -> LostConnection | None:
        """Why the connection is as good as lost, though nothing says so; one that is due is closed."""
        now = time.monotonic()
        if self._leave_by is not None and now >= self._leave_by:
            if self.turn.is_open or self.turn.owed:
                return LostConnection(None, "the service went away in the middle of an answer")
            self.close()
        if self._connected_at is None:
            return None
        waiting = self._inbox.content_waiting_since
        if waiting is not None and now - max(waiting, self._connected_at) > _DEAF_AFTER:
            return LostConnection(None, f"a text was not taken within {_DEAF_AFTER:g} s")
        if self.unsettled and time.time() - self.unsettled[1] > _DEAF_AFTER:
            return LostConnection(None, f"a text was not stored within {_DEAF_AFTER:g} s")
        if self._sending_since is not None and now - self._sending_since > _DEAF_AFTER:
            return LostConnection(None, f"a text was not sent within {_DEAF_AFTER:g} s")
        return None

    def check(self) -> None:
        """Asserts the invariants."""
        assert not (self.handle and self.turn.given), "a handle is kept that does not cover all input"
        if self._connected_at is None:
            assert not self.is_leaving, "a service that is not connected has announced its end"
            assert self._sending_since is None, "a text is on its way, and nothing is connected"

    # ---- told by the connection (connection.Observer) ----

    def connected(self) -> None:
        # An agent that another one hands over to opens a connection of its own.
        self.handle = self._leave_by = self._sending_since = None
        self._connected_at = time.monotonic()
        self._host.connected()

    def history(self, turns: list[types.Content]) -> list[types.Content]:
        """The history, so ended that the model answers if, and only if, it owes an answer.

        A model answers a history that ends with the user, and is silent after one that ends with
        itself. What is added here is told to the model only; no session stores it.
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
        # The model may not have had what was handed over since the turn began when it made this handle.
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
