"""Tool calls that wait for a user: long-running tools, confirmations, and requests for credentials.

ADK marks such a call in the event that holds it (`long_running_tool_ids`), and takes the answer as an event
of the user, with a `function_response` of the same id. Sessions keep both, so a call still waits after a
restart.

In live mode ADK asks for no confirmations and no credentials, and takes no answers to them while a connection
is open. So relay adds the events that ask (`requests`), and begins a new run with the answer: ADK then runs
the tool.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol

from google.adk.agents.invocation_context import InvocationContext
from google.adk.events import Event
from google.adk.flows.llm_flows import functions
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai import types
from pydantic import ValidationError

from adk_relay.adk.calls import MOST
from adk_relay.adk.hosts import Teller
from adk_relay.adk.tools import jsonable
from adk_relay.core.interfaces import ToolResultError, UnknownToolError
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Error, ToolComplete, ToolResult, ToolStart
from adk_relay.core.room import Room

CONFIRMATION = functions.REQUEST_CONFIRMATION_FUNCTION_CALL_NAME
CREDENTIAL = functions.REQUEST_EUC_FUNCTION_CALL_NAME


class Answering(Protocol):
    """What `Waiting` needs from the runs."""

    def answer(self, answer: types.Part) -> None:
        """Gives an answer to the model, now or with the next run."""


class Waiting:
    """The calls of one conversation that wait for an answer of a user.

    Args:
        room: the conversation's room. When it begins a new epoch, no call waits any more.
        host: the conversation.
        runs: take the answers.
    """

    def __init__(self, room: Room, host: Teller, runs: Answering) -> None:
        self._runs = runs
        self._room = room
        self._host = host
        self._calls: dict[str, ToolStart] = {}
        self._epoch = room.epoch

    def load(self, calls: Iterable[ToolStart]) -> None:
        """Begins with the calls that wait in the session."""
        for call in calls:
            self.note(call)

    def note(self, call: ToolStart) -> None:
        """A call waits, or waits with another interim result."""
        self._forget_epoch()
        self._calls[call.tool_id] = call
        if len(self._calls) > MOST:
            del self._calls[next(iter(self._calls))]

    def keep(self, tool_ids: Collection[str]) -> None:
        """Only these calls wait: others were taken back."""
        self._calls = {tool_id: call for tool_id, call in self._calls.items() if tool_id in tool_ids}

    @property
    def calls(self) -> list[ToolStart]:
        """The calls that wait, the oldest first."""
        self._forget_epoch()
        return [*self._calls.values()]

    def tell(self, listener: Listener) -> None:
        """Tells a listener that has just come which calls wait. It may have been told before."""
        if listener.attends != "own":
            for call in self.calls:
                listener.deliver(replace(call, seq=0))

    def take(self, answer: ToolResult, listener: Listener) -> None:
        """Takes the answer of a listener, which is told if it can't be used."""
        try:
            self.answer(answer)
        except UnknownToolError as unknown:
            listener.deliver(Error("unknown_tool", str(unknown), tool_id=answer.tool_id))
        except ToolResultError as unfit:
            listener.deliver(Error("bad_data", str(unfit), tool_id=answer.tool_id))

    def answer(self, answer: ToolResult) -> None:
        """Takes a user's answer, and tells all.

        Raises:
            UnknownToolError: no such call waits.
            ToolResultError: the tool can't use the answer.
        """
        self._forget_epoch()
        call = self._calls.get(answer.tool_id)
        if call is None:
            raise UnknownToolError
        result = jsonable(answer.result)
        if call.tool_name == CONFIRMATION:
            try:
                ToolConfirmation.model_validate(result, strict=True)
            except ValidationError:
                raise ToolResultError(
                    'The result must be {"confirmed": true} or {"confirmed": false}.'
                ) from None
        del self._calls[answer.tool_id]
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        told = {"status": "answered"} if call.tool_name == CREDENTIAL else result  # a credential is a secret
        # It is late: the answer of the agent that the call belongs to has usually ended.
        seq = self._host.number()
        self._host.emit(
            ToolComplete(seq, call.tool_id, call.tool_name, told, now, late=True, was_pending=True)
        )
        response = result if isinstance(result, dict) else {"result": result}
        returned = types.FunctionResponse(id=call.tool_id, name=call.tool_name, response=response)
        self._runs.answer(types.Part(function_response=returned))

    def _forget_epoch(self) -> None:
        if self._epoch != self._room.epoch:
            self._epoch = self._room.epoch
            self._calls.clear()


def ends_in_answer(events: list[Event]) -> bool:
    """Whether the last event of the user answers what ADK has asked: ADK deals with it when a run begins."""
    last = next((event for event in reversed(events) if event.author == "user"), None)
    return last is not None and any(is_request(each.name) for each in last.get_function_responses())


def skip() -> Event:
    """An event of the user after which ADK deals with no answer that was before it."""
    return Event(author="user")


def answer_events(answers: list[types.Part], events: list[Event]) -> list[Event]:
    """The events that hold answers to calls.

    ADK wants all of them in one event of the user. But in live mode it tells a new connection only what the
    agent's own events hold, so the results of tools are in such events, too.

    Args:
        events: those of the session.
    """
    made: list[Event] = []
    for answer in answers:
        response = answer.function_response
        assert response
        calls = functions.find_event_by_function_call_id(events, response.id or "")
        if calls and not is_request(response.name):
            made.append(
                Event(
                    author=calls.author,
                    branch=calls.branch,
                    live_session_id=calls.live_session_id,
                    content=types.Content(role="user", parts=[answer]),
                )
            )
    return [*made, Event(author="user", content=types.Content(role="user", parts=answers))]


def show_to_model(event: Event) -> None:
    """Marks the result of a tool that ran before there was a connection, so that ADK tells the model of it.

    In live mode ADK takes a result without its call out of the history, and writes out the others as text.
    """
    if event.get_function_responses() and not event.live_session_id:
        event.live_session_id = "resumed"


def requests(context: InvocationContext, event: Event) -> list[Event]:
    """The events that ask for what a tool needs before it can run: a confirmation, credentials."""
    found: list[Event | None] = [functions.generate_auth_event(context, event)]
    for tool_id in event.actions.requested_tool_confirmations:
        calls = functions.find_event_by_function_call_id(context.session.events, tool_id)
        if calls and (request := functions.generate_request_confirmation_event(context, calls, event)):
            found.append(request)
            break  # it asks for all of them
    asked = [request for request in found if request]
    for request in asked:
        request.author, request.branch = event.author, event.branch  # a sub-agent may have called the tool
    return asked


def is_request(name: str | None) -> bool:
    """Whether a call is one of ADK's own, which asks for a confirmation or for credentials."""
    return name in (CONFIRMATION, CREDENTIAL)
