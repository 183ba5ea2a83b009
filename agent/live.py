"""One live run: the user's input goes in, ADK's events come out as plain messages."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, AnyStr, Literal, Protocol

from google.adk.agents import BaseAgent, LlmAgent
from google.adk.agents.run_config import RunConfig, ToolThreadPoolConfig
from google.adk.apps import App
from google.adk.events import Event
from google.adk.models import BaseLlm, Gemini
from google.adk.plugins.base_plugin import BasePlugin
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService
from google.adk.tools.base_tool import BaseTool
from google.adk.tools.tool_context import ToolContext
from google.genai import types
from pydantic_core import to_jsonable_python

from agent.connection import LostConnection, observer, watched_agent
from agent.inbox import Inbox, Requests
from agent.logs import failure, one_line
from agent.messages import (
    Audio,
    Error,
    ForModel,
    Message,
    Text,
    ToolComplete,
    ToolStart,
    Transcript,
    TurnEnd,
    UserAudio,
    UserText,
)

log = logging.getLogger("relay.agent")

APP_NAME = "relay"

Owed = Literal["", "answer", "rest"]
"""What the user waits for: nothing, the answer to a question, or the rest of an answer that was cut."""

_DEAF_AFTER = 5.0
"""Seconds an open connection may leave a text untaken, or half sent, before it counts as lost."""

_PROGRESS_AFTER = 60.0
"""Seconds a connection must have lived to count as progress though no turn was completed on it."""

_GO_AWAY_MARGIN = 2.0
"""Seconds before the service's own deadline at which an unfinished answer is given up."""

_SPEECH_FORGOTTEN = 10.0
"""Seconds after which speech without a transcript was noise."""

_FIRST_WORD = 5.0
"""Seconds after which a model that was asked something has begun to answer, if it ever does."""

_AUDIO_PIECE = 24_000
"""Bytes of a message's sound at the most: 500 ms at 24 kHz."""

_TEXT_PIECE = 16 * 1024
"""Characters of a message's text at the most."""

_GO_ON = (
    "(The connection was lost while you were speaking. I have what you said so far."
    " Go on from there, without saying it again.)"
)
_ANSWER_ME = "(The connection was lost before you answered my last message. Answer it now.)"
_NO_ANSWER = "(The conversation was interrupted before I could answer.)"


def run_config(voice: str | None = None, language: str | None = None) -> RunConfig:
    """The default run configuration.

    Sound with both transcriptions whatever the model: every current live model answers in sound, and
    a client in text mode gets the words. The context window is compressed, so that a conversation is
    not cut at fifteen minutes.

    Args:
        voice: a prebuilt voice's name; None: the model's own choice.
        language: a BCP-47 code; None: the model's own choice.
    """
    speech = None
    if voice or language:
        speech = types.SpeechConfig(
            language_code=language,
            voice_config=types.VoiceConfig(prebuilt_voice_config=types.PrebuiltVoiceConfig(voice_name=voice))
            if voice
            else None,
        )
    return RunConfig(
        response_modalities=[types.Modality.AUDIO],
        speech_config=speech,
        context_window_compression=types.ContextWindowCompressionConfig(sliding_window=types.SlidingWindow()),
        session_resumption=types.SessionResumptionConfig(),
        # A tool that blocks would otherwise hold up every conversation of the process.
        tool_thread_pool_config=ToolThreadPoolConfig(),
    )


def runner(agent: BaseAgent, sessions: BaseSessionService) -> Runner:
    """An ADK runner for `agent`, whose connections can be watched by a `Run`."""
    app = App(name=APP_NAME, root_agent=watched_agent(agent), plugins=[_Tools("tools")])
    return Runner(app=app, session_service=sessions)


def live_model(agent: BaseAgent) -> BaseLlm | None:
    """The model that the agent speaks with, if it is an agent with one."""
    pending = [agent]
    while pending:
        one = pending.pop(0)
        if isinstance(one, LlmAgent):
            return one.canonical_live_model
        pending += one.sub_agents
    return None


def needs_credentials(agent: BaseAgent) -> bool:
    """Whether the agent speaks through a Gemini client that google-genai makes from the environment."""
    model = live_model(agent) if isinstance(agent, BaseAgent) else None
    return isinstance(model, Gemini) and not (model.client or model.client_kwargs)


class Host(Protocol):
    """What a run needs of its conversation. Nothing here may wait."""

    def number(self) -> int:
        """The next message's `seq`."""

    def emit(self, message: Message) -> None:
        """Sends a message to whoever listens."""

    def connected(self) -> None:
        """The model's connection is there."""

    def stored(self, text: UserText) -> None:
        """A text is in the session."""


class Run:
    """One `run_live` and its connection to the model, from its start to its end.

    Args:
        runner: from `runner()`.
        config: the run configuration; the run works on a copy.
        user_id, session_id: the ADK session, which must exist.
        inbox: where the user's input comes from.
        host: the conversation.
        handle: resume the service's own session instead of replaying the history.
        owed: what the user still waits for from the run before.
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
        self._requests = Requests(inbox, self._taken, host.stored)
        self.turn = _Turn(runner.agent, host, owed=owed)
        self.handle: str | None = None
        """A resumption handle that covers all that was said."""
        self._completed_turn = False
        self._spoke_at: float | None = None
        self._connected_at: float | None = None
        self._sending_since: float | None = None
        self._leave_by: float | None = None

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
            live_request_queue=self._requests,
            run_config=self._config,
        )
        async with aclosing(events):
            async for event in events:
                for message in self.turn.messages(event):
                    self._host.emit(message)
                if event.turn_complete and not self.turn.open:
                    self._completed_turn = True
                    self._spoke_at = None
                    if self._leave_by is not None:
                        self._leave_if_at_rest()
                elif event.input_transcription and event.input_transcription.finished:
                    self._spoke_at = None

    def close(self) -> None:
        """Asks the run to end: `drive()` returns when the connection is closed."""
        self._requests.close()

    @property
    def leaving(self) -> bool:
        """The service said goAway: the next run is to take over where this one ends."""
        return self._leave_by is not None

    @property
    def progressed(self) -> bool:
        """A turn was completed, or the connection lasted: its loss is a new failure, not the old one."""
        lasted = self._connected_at and time.monotonic() - self._connected_at > _PROGRESS_AFTER
        return self._completed_turn or bool(lasted)

    @property
    def at_rest(self) -> bool:
        """Nobody speaks, and nobody waits for an answer."""
        return not (self.turn.open or self.turn.owed or self.speech_pending)

    @property
    def unsettled(self) -> tuple[UserText, float] | None:
        """A text that ADK has taken and may not have stored, and the `time.time()` it was taken."""
        return self._requests.unsettled

    @property
    def speech_pending(self) -> bool:
        """Somebody spoke just now, and no final transcript of it has come."""
        return self._spoke_at is not None and time.monotonic() - self._spoke_at < _SPEECH_FORGOTTEN

    def overdue(self) -> LostConnection | None:
        """Why the connection is as good as lost, though nothing says so."""
        now = time.monotonic()
        if self._leave_by is not None and now >= self._leave_by:
            if self.turn.open or self.turn.owed:
                return LostConnection(None, "the service went away in the middle of an answer")
            self.close()
        waiting = self._inbox.words_waiting_since
        if self._connected_at is None:
            return None
        if waiting is not None and now - max(waiting, self._connected_at) > _DEAF_AFTER:
            return LostConnection(None, f"a text was not taken within {_DEAF_AFTER:g} s")
        if self.unsettled and time.time() - self.unsettled[1] > _DEAF_AFTER:
            return LostConnection(None, f"a text was not stored within {_DEAF_AFTER:g} s")
        if self._sending_since is not None and now - self._sending_since > _DEAF_AFTER:
            return LostConnection(None, f"a text was not sent within {_DEAF_AFTER:g} s")
        return None

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
        # ADK stores a text before it sends it.
        self._requests.settle()
        self._sending_since = time.monotonic()

    def sent(self) -> None:
        self._sending_since = None

    def resumable(self, handle: str) -> None:
        # What was handed over since the turn began may have crossed with this handle.
        if not self.turn.given:
            self.handle = handle

    def going_away(self, time_left: float) -> None:
        self._leave_by = time.monotonic() + max(0.0, time_left - _GO_AWAY_MARGIN)
        log.info("%s: the model's connection is to be renewed, %g s left", self._user_id, time_left)
        self._leave_if_at_rest()

    def _leave_if_at_rest(self) -> None:
        if self.at_rest:
            self.close()

    def _taken(self, said: ForModel) -> None:
        self.handle = None  # it no longer covers all that was said
        self.turn.take(said)
        if isinstance(said, UserAudio) and said.is_speech:
            self._spoke_at = time.monotonic()


class _Turn:
    """Turns the events of a run into messages, and knows where in a turn the conversation is.

    ADK says everything twice: in pieces as it comes, and once more whole. The pieces are passed on,
    the whole only where there were none.
    """

    def __init__(self, agent: BaseAgent | Any, host: Host, *, owed: Owed) -> None:
        self._number = host.number
        self.open = False
        """The agent has said something and not come to the end."""
        self.given = False
        """The user's input went to the model since the agent last began a turn."""
        self.said = ""
        """What the agent has said of this turn and ADK has not stored yet."""
        self.author = ""
        """Which agent says it."""
        self._asked = 1 if owed else 0  # questions that no turn has answered yet
        self._rest = owed == "rest"  # the answer to the first of them was begun, and cut
        self._asked_meanwhile = 0  # those of them that came after the open turn had begun
        self._heard_meanwhile = False  # speech was told after that; a question only if it interrupts
        self._muted = False  # the user has had enough of this turn
        self._muted_at = 0.0
        self._cut = False  # an interruption was told, and its `turn_complete` is still to come
        self._text = ""  # pieces of text since the last whole
        self._aloud = ""  # the same of what is said aloud
        self._heard = ""  # and of what the user says
        self._tools: dict[str, bool] = {}  # those that have not answered: whether their answer was stopped
        self._tool_answered = False
        model = live_model(agent)
        generation = gemini_major(model.model) if model else None
        # Up to the second generation Gemini ends a turn before tools have answered.
        self._is_early = generation is not None and generation < 3

    @property
    def owed(self) -> Owed:
        """What the user waits for."""
        if not self._asked and (self._muted or not self.open):
            return ""
        return "rest" if self._rest and not self._asked_meanwhile else "answer"

    @property
    def is_stopped_early(self) -> bool:
        """The user has had enough of an answer, and its first word may still come."""
        return self._muted and not self.open and time.monotonic() - self._muted_at < _FIRST_WORD

    def take(self, said: ForModel) -> None:
        """The model was given this."""
        self.given = True
        if isinstance(said, UserText):
            self._ask()
            if said.stopped:
                self._mute()

    def take_back(self) -> None:
        """The model was not given the last text after all."""
        self._asked = max(self._asked - 1, 0)
        self._asked_meanwhile = max(self._asked_meanwhile - 1, 0)

    def messages(self, event: Event) -> Iterator[Message]:
        """What an event says to the user, in order."""
        if (content := event.content) and content.parts and event.author != "user":
            for part in content.parts:
                yield from self._part(part, event)
        elif event.input_transcription:
            yield from self._user_spoke(event.input_transcription)
        elif event.output_transcription:
            yield from self._agent_spoke(event.output_transcription, event.author)
        if event.error_code:
            reported = one_line(f"{event.error_code}: {event.error_message}")
            log.error("the model reported %s", reported)
            yield Error("model_error", "The model reported an error. The server's log says which.")
        if event.interrupted:
            yield from self._interrupted()
        if event.turn_complete:
            yield from self._completed(event)

    def interrupt(self) -> Iterator[Message]:
        """The user has heard enough. The model is not told: the rest of its turn is not passed on."""
        if self.owed:
            self._mute()
            yield TurnEnd(self._number(), interrupted=True)

    def _mute(self) -> None:
        self._muted, self._muted_at = True, time.monotonic()
        self._asked = self._asked_meanwhile = 0
        self._rest = False

    def lost(self, *, goes_on: bool) -> Iterator[Message]:
        """The connection is gone: an open turn ends here. `said` stays, to be stored."""
        if self.open and not self._muted:
            self._rest = True
            self._asked = max(self._asked, 1)
            yield TurnEnd(self._number(), interrupted=True, goes_on=goes_on)
        self.open = False

    def _part(self, part: types.Part, event: Event) -> Iterator[Message]:
        if (blob := part.inline_data) and blob.data:
            self._goes_on(event.author)
            if not self._muted and (blob.mime_type or "").startswith("audio/"):
                for pcm in _pieces(blob.data, _AUDIO_PIECE):
                    yield Audio(self._number(), pcm)
        elif part.text and not part.thought:
            self._goes_on(event.author)
            if event.partial:
                self._text += part.text
                self.said += part.text
                fresh = part.text
            else:
                fresh = "" if self._text else part.text
                self._text = self.said = ""
            if not self._muted:
                for text in _pieces(fresh, _TEXT_PIECE):
                    yield Text(self._number(), text)
        elif call := part.function_call:
            if not event.partial:
                self._goes_on(event.author)
                name, arguments = call.id or "", jsonable(call.args)
                self._tools[name] = self._muted
                yield ToolStart(
                    self._number(), name, call.name or "", arguments, _when(event), late=self._muted
                )
        elif answer := part.function_response:
            late = self._tools.pop(answer.id or "", True)
            self._tool_answered = True
            result = jsonable(answer.response)
            yield ToolComplete(
                self._number(), answer.id or "", answer.name or "", result, _when(event), late=late
            )

    def _user_spoke(self, heard: types.Transcription) -> Iterator[Message]:
        if heard.finished:
            self._heard = ""
            if heard.text:
                if self.open:
                    self._heard_meanwhile = True
                else:
                    self._ask()
                yield Transcript(self._number(), heard.text, final=True)
        elif heard.text:
            self._heard += heard.text
            yield Transcript(self._number(), self._heard, final=False)

    def _agent_spoke(self, spoken: types.Transcription, author: str) -> Iterator[Message]:
        if spoken.finished:
            fresh = "" if self._aloud else spoken.text
            self._aloud = self.said = ""
        else:
            fresh = spoken.text
            self._aloud += fresh or ""
            self.said += fresh or ""
        if fresh:
            self._goes_on(author)
            if not self._muted:
                for text in _pieces(fresh, _TEXT_PIECE):
                    yield Text(self._number(), text, is_transcript=True)

    def _goes_on(self, author: str) -> None:
        if not self.open:
            self.open = True
            self.given = self._rest = self._heard_meanwhile = False
            self._asked_meanwhile = 0
        self.author = author
        self._cut = self._tool_answered = False

    def _interrupted(self) -> Iterator[Message]:
        # A second mark of the same interruption says nothing new.
        if not self._muted and not self._cut:
            yield TurnEnd(self._number(), interrupted=True)
        # What interrupted is still to be answered.
        if self.open:
            self._end(still_asked=self._asked_meanwhile + self._heard_meanwhile)
        else:
            self._end(still_asked=self._asked if self._muted or self._cut else self._asked - 1)
        self._cut = True

    def _completed(self, event: Event) -> Iterator[Message]:
        if self._cut:  # trails the interruption
            self._cut = False
            return
        if self._tools or event.interaction_status == types.InteractionStatus.IN_PROGRESS:
            return
        if self._tool_answered and self._is_early:
            return  # the answer to the tool's answer is still to come
        if not self._muted:
            yield TurnEnd(self._number())
        self._end(still_asked=self._asked_meanwhile if self.open else self._asked - 1)

    def _ask(self) -> None:
        self._asked += 1
        self._asked_meanwhile += 1
        if self._muted and not self.open:
            # The service may take this and what was to be muted as one turn.
            self._muted, self._cut = False, True

    def _end(self, *, still_asked: int) -> None:
        self._asked = max(still_asked, 0)
        self._asked_meanwhile = 0
        self.open = self._rest = self._muted = self._tool_answered = False
        self.said = self._text = self._aloud = ""
        self._tools.clear()


class _Tools(BasePlugin):
    """Whatever a tool does, the run goes on: ADK would end it, for the user to pay."""

    async def after_tool_callback(
        self,
        *,
        tool: BaseTool,
        tool_args: dict[str, Any],
        tool_context: ToolContext,
        result: Any,
    ) -> dict[str, Any] | None:
        # Neither ADK nor google-genai can store or send what is not JSON.
        answer = jsonable(result)
        return answer if isinstance(answer, dict) else {"result": answer}

    async def on_tool_error_callback(
        self,
        *,
        tool: BaseTool,
        tool_args: dict[str, Any],
        tool_context: ToolContext,
        error: Exception,
    ) -> dict[str, Any] | None:
        if isinstance(error, asyncio.CancelledError):
            return None  # the run ends
        log.error("tool %s failed: %s", tool.name, failure(error))
        return {"status": "error", "message": f"The tool {tool.name} failed."}


def gemini_major(model: str) -> int | None:
    """The generation in a Gemini model's name ("gemini-2.5-flash" → 2), None for any other model."""
    found = re.search(r"(?:^|/)gemini-(?:live-)?(\d+)", model)
    return int(found[1]) if found else None


def jsonable(value: Any) -> Any:
    """A JSON-serializable twin of whatever a tool was given or has answered; never an exception."""
    try:
        plain = to_jsonable_python(
            value, bytes_mode="base64", inf_nan_mode="strings", fallback=_describe, serialize_unknown=True
        )
        # Half of a surrogate pair can be stored and sent by nobody.
        return json.loads(json.dumps(plain, ensure_ascii=False).encode(errors="replace"))
    except Exception:  # a cycle, an iterator that raises, a mile of brackets: all is possible in a tool
        return f"<{type(value).__name__}>"


def _describe(value: Any) -> Any:
    if hasattr(value, "DESCRIPTOR"):  # a protobuf message; ADK itself does not bring the package
        from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

        return MessageToDict(value)
    return repr(value)


def _pieces(whole: AnyStr, size: int) -> Iterator[AnyStr]:
    """What is said at once, in frames that no client is too small for and that can be recalled."""
    for start in range(0, len(whole), size):
        yield whole[start : start + size]


def _when(event: Event) -> str:
    return datetime.fromtimestamp(event.timestamp, UTC).isoformat(timespec="milliseconds")
