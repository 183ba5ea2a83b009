"""Measures the turns of one conversation: for the counters, and as spans for traces.

A turn is measured from the end of the user's input: when a text came, or when the last chunk of speech was
heard. Its span is a child of the span of the socket that the input came from. ADK's own spans belong to a
run, which has many turns: they are below the socket that the run began for, and those of tools have a link
to the turn.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, NamedTuple

from google.genai import types
from opentelemetry import context as otel
from opentelemetry import trace

from adk_relay.core.logs import connection_id, conversation_id
from adk_relay.core.messages import (
    ActivityStart,
    Audio,
    AudioEnd,
    Error,
    Message,
    Text,
    ToolComplete,
    ToolStart,
    TurnEnd,
    UserAudio,
)
from adk_relay.core.requests import Requests
from adk_relay.core.stats import Kind, Stats

log = logging.getLogger("relay.agent")

_tracer = trace.get_tracer("adk_relay")

_MOST_TOOLS = 64
"""Tool calls of one conversation that are timed at once."""


class Asked(NamedTuple):
    """Input that is to be answered."""

    kind: Kind
    came: float
    """When it ended, as `time.monotonic()`."""
    context: Context
    """The context of the task that it came in."""


class Meter:
    """Measures the turns of one conversation.

    Args:
        stats: the counters of all conversations.
        session_id: names the conversation in spans.

    Invariants:
        A span is open only while an answer is.
    """

    def __init__(self, stats: Stats, session_id: str) -> None:
        self.stats = stats
        self._session_id = session_id
        self.context = copy_context()
        """The context of the task of the listener that came, or said something, last."""
        self._asked: Asked | None = None  # live input that no answer was begun to
        self._answered: Asked | None = None  # what the open answer is for
        self._is_open = False
        self._span: trace.Span = trace.INVALID_SPAN
        self._tools: dict[str, float] = {}  # when they were called, by id
        self._run = 0.0, ""  # when the present one began, and the connection that it began for

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._is_open or self._span is trace.INVALID_SPAN, "a span is open, and no answer"

    async def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Does the work of the conversation's own task: what it logs is about no socket."""
        connection_id.set("")
        conversation_id.set(self._session_id)
        await work

    # ---- input ----

    def came(self) -> None:
        """A listener came, or asks something."""
        self.context = copy_context()

    def wrote(self) -> None:
        """A live text came."""
        self.came()
        self._asked = Asked("text", time.monotonic(), self.context)

    def heard(self, sound: UserAudio | ActivityStart | AudioEnd) -> None:
        """Sound of the floor came. The question ends with the last speech in it."""
        if isinstance(sound, UserAudio) and sound.is_speech:
            if self._asked is None or self._asked.kind == "text":
                self.came()
            self._asked = Asked("speech", time.monotonic(), self.context)

    # ---- answers ----

    def note(self, message: Message, requests: Requests) -> None:
        """Takes all messages of the runs, before the listeners do; of the ends of turns, those that go on."""
        match message:
            case Audio() | Text():
                if not self._is_open:
                    self._begin(requests)
            case ToolStart():
                if not (self._is_open or message.late):
                    self._begin(requests)
                self._tool_began(message)
            case ToolComplete():
                self._tool_ended(message)
            case TurnEnd(goes_on=True):
                self.stats.use(message.usage)

    def _begin(self, requests: Requests) -> None:
        """The first piece of an answer has come: to the current request, to live input, or to nothing."""
        request = None if requests.is_aside else requests.current
        asked = Asked("text", request.came, request.context) if request else self._asked
        if not request:
            self._asked = None
        self._is_open, self._answered = True, asked
        waited = time.monotonic() - asked.came if asked else 0.0
        if asked:
            self.stats.first_piece[asked.kind].observe(waited)
        self._span = _tracer.start_span(
            "relay.turn",
            context=_span_context(asked.context if asked else self.context),
            start_time=time.time_ns() - int(waited * 1e9),
            attributes={
                "gen_ai.conversation.id": self._session_id,
                "relay.asked_by": asked.kind if asked else "nobody",
            },
        )
        self._span.add_event("first token")

    def ended(self, end: TurnEnd) -> None:
        """A turn has ended."""
        self.stats.use(end.usage)
        how = "interrupted" if end.interrupted else "complete"
        if not self._is_open:
            how = "unanswered"
            self._asked = None
        elif self._answered:
            self.stats.turn[self._answered.kind].observe(time.monotonic() - self._answered.came)
        self.stats.turns.count(how)
        self._span.set_attribute("relay.end", how)
        if end.usage:
            self._span.set_attribute("gen_ai.usage.input_tokens", end.usage.input)
            self._span.set_attribute("gen_ai.usage.output_tokens", end.usage.output)
        self._close()

    def close(self) -> None:
        """The conversation is over."""
        self._close()

    def _close(self) -> None:
        self._span.end()
        self._span, self._is_open, self._answered = trace.INVALID_SPAN, False, None

    # ---- tools ----

    def _tool_began(self, call: ToolStart) -> None:
        """A tool was called. The time of a call that waits for a user is not counted."""
        self.stats.tools_called.count(call.tool_name)
        if not call.is_pending and len(self._tools) < _MOST_TOOLS:
            self._tools[call.tool_id] = time.monotonic()

    def _tool_ended(self, answer: ToolComplete) -> None:
        """A tool has returned."""
        if began := self._tools.pop(answer.tool_id, None):
            self.stats.tools.observe(answer.tool_name, time.monotonic() - began)

    def tool_failed(self, name: str) -> None:
        """A tool has raised an error."""
        self.stats.tools_failed.count(name)

    # ---- runs ----

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Does the work of a run's task: ADK's spans are below that of the socket that the run begins for."""
        self._run = time.monotonic(), self.context.get(connection_id, "")
        self.stats.runs_begun += 1
        connection_id.set(self._run[1])
        otel.attach(_span_context(self.context))
        await work

    def run_ended(self, label: str, how: str) -> None:
        """A run has ended.

        Args:
            label: names the conversation in the log.
            how: done, stopped, renewed or lost.
        """
        self.stats.runs_ended.count(how)
        began, connection = self._run
        seconds, ids = time.monotonic() - began, {"connection": connection, "conversation": self._session_id}
        log.info("%s: a run ended after %.1f s: %s", label, seconds, how, extra=ids)

    def connected(self, seconds: float, *, is_short: bool) -> None:
        """A connection to the model was set up.

        Args:
            is_short: its sound goes past ADK.
        """
        self.stats.connecting.observe(seconds)
        self.stats.connections.count("short" if is_short else "long")

    def gave(self, sound: object) -> None:
        """The model was given sound: past ADK, if it is still in relay's own form; or something else."""
        match sound:
            case UserAudio(pcm, rate):
                self.stats.sound_up.short += len(pcm) / 2 / rate
            case types.Blob(data=bytes() as pcm, mime_type=str() as mime_type):
                kind, _, rate_text = mime_type.partition(";rate=")
                if kind == "audio/pcm" and rate_text.isdecimal():
                    self.stats.sound_up.long += len(pcm) / 2 / int(rate_text)

    def failed(self, error: Error) -> Error:
        """The conversation has failed, and with it the open answer; returns the error."""
        self.stats.failures.count(error.code)
        self._span.set_status(trace.StatusCode.ERROR, error.code)
        self.close()
        return error

    def trace_tool(self) -> None:
        """To be called within ADK's span of a tool: it gets a link to the turn."""
        if self._span.is_recording():
            trace.get_current_span().add_link(self._span.get_span_context())


def _span_context(context: Context) -> otel.Context:
    """What OpenTelemetry has put into the context of a task."""
    return context.run(otel.get_current)
