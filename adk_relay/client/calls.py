"""Tool calls that wait for a user: what they ask, and what is sent for an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adk_relay.client.http import Json
from adk_relay.client.untrusted import one_line
from adk_relay.client.view import Problem, View

_CONFIRMATION = "adk_request_confirmation"
_CREDENTIAL = "adk_request_credential"
_ADKS_OWN_HINT = "Please approve or reject the tool call"
"""How ADK's hint begins if the tool gives none. It says no more than the question does."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call that waits, as `tool_start` tells it (docs/wire.md, "Tools that wait")."""

    id: str
    name: str
    arguments: Any
    """An object; the beginning of its JSON, if it is very long."""
    interim: Any = None
    """What the tool has returned so far."""

    @property
    def subject(self) -> str:
        """What waits, as code: `delete_file(name="a.txt")`. In a confirmation: the tool that may be used."""
        name, arguments = self.name, self.arguments
        if self._is_confirmation and (tool := _object(_object(arguments).get("originalFunctionCall"))):
            name, arguments = str(tool.get("name")), tool.get("args")
        if isinstance(arguments, str):
            return one_line(f"{name}({arguments}…)")
        shown = ", ".join(f"{key}={_json(value)}" for key, value in _object(arguments).items())
        return one_line(f"{name}({shown})")

    @property
    def question(self) -> str:
        """What the user is asked, in one line."""
        if self.name == _CREDENTIAL:
            return one_line(
                f"The agent needs you to sign in: {_json(_object(self.arguments).get('authConfig'))}"
            )
        if self._is_confirmation:
            hint = str(self._confirmation.get("hint") or "")
            hint = "" if hint.startswith(_ADKS_OWN_HINT) else f" {hint}"
            details = "" if self._payload is None else f" Details: {_json(self._payload)}"
            return one_line(f"May the agent use {self.subject}?{hint}{details}")
        so_far = "" if self.interim is None else f" It has returned so far: {_json(self.interim)}"
        return one_line(f"{self.subject} waits for your answer.{so_far}")

    @property
    def how(self) -> str:
        """How the user answers."""
        return "/answer yes or /answer no" if self._is_confirmation else "/answer JSON"

    def result(self, answer: str) -> Any:
        """The result that is sent for what the user has typed: yes, no or JSON.

        Raises:
            Problem: it is none of these.
        """
        said = {"yes": True, "no": False}.get(answer.lower())
        if said is None:
            try:
                return json.loads(answer)
            except (ValueError, RecursionError):
                raise Problem(f"An answer is yes, no or JSON (a text in quotes), not {answer}") from None
        if not self._is_confirmation:
            return said
        return {"confirmed": said} | ({} if self._payload is None else {"payload": self._payload})

    def outcome(self, result: Any) -> str:
        """The line that tells of an answer."""
        confirmed = _object(result).get("confirmed") if self._is_confirmation else None
        if isinstance(confirmed, bool):
            return f"{self.subject}: {'allowed' if confirmed else 'not allowed'}."
        return one_line(f"{self.subject}: answered with {_json(result)}")

    @property
    def _is_confirmation(self) -> bool:
        return self.name == _CONFIRMATION

    @property
    def _confirmation(self) -> Json:
        return _object(_object(self.arguments).get("toolConfirmation"))

    @property
    def _payload(self) -> Any:
        return self._confirmation.get("payload")


class Calls:
    """The calls of the conversation that wait, the oldest first.

    The server tells of all of them again whenever the link joins the conversation. Each is shown once, and
    again if its tool has returned something meanwhile.

    Invariant, which `check` asserts:
        Every call that waits was shown.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._waiting: dict[str, Call] = {}
        self._shown: dict[str, Call] = {}
        self._are_old = False  # the link has joined anew, and the server has told of no call since

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._waiting.values()))

    def find(self, beginning: str) -> Call | None:
        """The call that waits with this id, or the only one whose id begins like this.

        Raises:
            Problem: several begin like this.
        """
        if call := self._waiting.get(beginning):
            return call
        found = [call for call in self if call.id.startswith(beginning)]
        if len(found) > 1:
            raise Problem(f"{len(found)} calls begin with {beginning}.")
        return found[0] if found else None

    def check(self) -> None:
        """Asserts the invariant."""
        assert self._waiting.items() <= self._shown.items(), (self._waiting, self._shown)

    def forget(self) -> None:
        """Another conversation follows, or this one after it was cleared."""
        self._waiting.clear()
        self._shown.clear()

    def joined(self) -> None:
        """The server tells next which calls wait. Others may have answered those that are known."""
        self._are_old = True

    def refused(self, call: Call) -> None:
        """The server has refused an answer. Unless it has just told of the call, others have answered it."""
        if self._are_old:
            self._waiting.pop(call.id, None)

    def start(self, frame: Json) -> None:
        """A call waits."""
        call = Call(
            str(frame.get("tool_id")),
            str(frame.get("tool_name")),
            frame.get("arguments"),
            frame.get("interim"),
        )
        if self._are_old:
            self._are_old = False
            self._waiting.clear()
        self._waiting[call.id] = call
        if self._shown.get(call.id) != call:
            self._shown[call.id] = call
            oldest = f" The oldest of {len(self._waiting)} gets it; /answer lists them."
            self._view.call(call.question, call.how + oldest * (len(self._waiting) > 1))

    def complete(self, call_id: str, result: Any) -> None:
        """A user has answered a call, here or elsewhere."""
        if call := self._waiting.pop(call_id, None):
            self._view.notice(call.outcome(result))


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
