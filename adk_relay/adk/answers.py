"""The tool calls of one run that wait for a user, and the answers on their way to ADK."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from google.adk.agents.invocation_context import InvocationContext
from google.adk.agents.live_request_queue import LiveRequest
from google.adk.events import Event
from google.genai import types

from adk_relay.adk.calls import keep
from adk_relay.adk.failures import what_failed
from adk_relay.adk.fence import NotOwnerError
from adk_relay.adk.session import StoredSession
from adk_relay.adk.translator import Translator
from adk_relay.adk.waiting import answer_events, requests
from adk_relay.core.messages import Message
from adk_relay.core.recorded import ToolAnswered

log = logging.getLogger("relay.agent")


class UnstoredAnswers:
    """The answers of users to the tool calls of one conversation, while they are not in its session.

    Args:
        session: the conversation's session.
        label: names the conversation in the log.
    """

    def __init__(self, session: StoredSession, label: str) -> None:
        self.parts: list[types.Part] = []
        """The answers, as ADK takes them."""
        self._session = session
        self._label = label

    def __bool__(self) -> bool:
        return bool(self.parts)

    def recorded(self) -> tuple[ToolAnswered, ...]:
        """The answers as they are recorded."""
        found = (part.function_response for part in self.parts)
        return tuple(ToolAnswered(each.id or "", each.name or "", each.response) for each in found if each)

    def restore(self, answers: Iterable[ToolAnswered]) -> None:
        """Begins with these answers."""
        for each in answers:
            response = types.FunctionResponse(id=each.tool_id, name=each.tool_name, response=each.response)
            self.parts.append(types.Part(function_response=response))

    async def store(self) -> bool:
        """Stores them; returns whether there were any.

        Raises:
            Exception: the session service failed.
        """
        if answers := [*self.parts]:
            session = await self._session.find()
            for event in answer_events(answers, session.events):
                await self._session.append(session, event)
            del self.parts[: len(answers)]
        return bool(answers)

    async def keep(self) -> None:
        """Stores them at the end of a conversation: if that fails, they are lost, and logged."""
        try:
            await self.store()
        except NotOwnerError:
            pass  # the owner has them
        except Exception as error:
            log.error(
                "%s: the answers to tool calls could not be stored: %s", self._label, what_failed(error)
            )


class Answers:
    """The calls of a run that wait for a user.

    A call is open while the model waits for its result: its tool has returned nothing, and nobody has said
    anything since. The answer to an open call is the call's result. Any other answer is stored before a run
    begins, and the run sends it with the history: the model has gone on without it, or ADK has to run a tool.

    Args:
        unstored: the answers that are not stored yet; the next run begins with those that are left.
        translator: makes messages of events.
        emit: takes these messages.
        is_behind: returns whether events of ADK were not translated yet.

    Invariants:
        Only while a context is known, a call is open. Only while a call is open, a turn is to end for it.
    """

    def __init__(
        self,
        unstored: list[types.Part],
        translator: Translator,
        emit: Callable[[Message], None],
        is_behind: Callable[[], bool],
    ) -> None:
        self._unstored = unstored
        self._translator = translator
        self._emit = emit
        self._is_behind = is_behind
        self._context: InvocationContext | None = None
        self._open: set[str] = set()
        self._must_pause = False  # a call has opened, and the turn goes on for the users

    def check(self) -> None:
        """Asserts the invariants."""
        assert self._context or not self._open, "a call is open, and ADK's context is not known"
        assert self._open or not self._must_pause, "a turn is to end for a call, and none is open"

    def began(self, context: InvocationContext) -> None:
        """An agent has begun, or the run, which in a workflow is no agent's."""
        self._context = context

    def waits(self, tool_id: str, *, speaks_on: bool) -> None:
        """A tool has returned nothing.

        Args:
            speaks_on: the model does not wait for this tool before it goes on, and completes its turn.
        """
        self._open.add(tool_id)
        self._must_pause = self._must_pause or not speaks_on
        self.pause()

    def forget_open(self) -> None:
        """The user has said something, or there is a new connection: the model waits for no result."""
        self._open.clear()
        self._must_pause = False

    def is_open(self, tool_id: str) -> bool:
        """Whether the model waits for the result of this call."""
        return tool_id in self._open

    def pause(self) -> None:
        """Ends the turn for the users if the model says nothing more before it has a result."""
        if self._must_pause and not self._is_behind():
            for message in self._translator.pause():
                self._emit(message)
            # Once: what the model says after that is another turn.
            self._must_pause = self._translator.turn.is_open

    async def ask(self, event: Event) -> None:
        """Asks for what a tool needs, if its result says that it needs something."""
        actions = event.actions
        if self._context and (actions.requested_tool_confirmations or actions.requested_auth_configs):
            for request in requests(self._context, event):
                await self._append(request)
                for message in self._translator.messages(request):
                    self._emit(message)

    async def result(self, answer: types.Part) -> LiveRequest:
        """Stores the answer to an open call; returns the request that gives it to the model."""
        assert answer.function_response and self._context
        self._open.discard(answer.function_response.id or "")
        self._must_pause = self._must_pause and bool(self._open)
        for event in answer_events([answer], self._context.session.events):
            await self._append(event)
        self._unstored.remove(answer)
        self._translator.turn.take_result()
        return LiveRequest(content=types.Content(role="user", parts=[answer]))

    async def _append(self, event: Event) -> None:
        """Stores an event in the run's own session, as ADK's tasks do."""
        assert self._context
        event.invocation_id = self._context.invocation_id
        keep(event, self._context.session)
        await self._context.session_service.append_event(session=self._context.session, event=event)
