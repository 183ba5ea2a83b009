"""The history that a new connection sends, with a note to the model at its end. Notes are not stored."""

from __future__ import annotations

from google.genai import types

from adk_relay.adk.turn import Owed

_GO_ON = (
    "(The connection was lost while you were speaking. I have what you said so far."
    " Go on from there, without saying it again.)"
)
_ANSWER_ME = "(The connection was lost before you answered my last message. Answer it now.)"
_NO_ANSWER = "(The conversation was interrupted before I could answer.)"


def without(turns: list[types.Content], texts: list[str]) -> list[types.Content]:
    """A history without the last place of each of these texts of the user: they are sent after it."""
    left = [*turns]
    for text in texts:
        for turn in reversed(left):
            if turn.role == "user" and turn.parts and turn.parts[0].text == text:
                left.remove(turn)
                break
    return left


def with_an_end(turns: list[types.Content], owed: Owed) -> list[types.Content]:
    """A history with an end that makes the model answer if, and only if, it owes an answer.

    A model answers a history whose last turn is the user's, and is silent if the last turn is its own.
    """
    if not turns or (turns[-1].role == "user") == bool(owed):
        return turns
    note = {"": _NO_ANSWER, "answer": _ANSWER_ME, "rest": _GO_ON}[owed]
    return [*turns, types.Content(role="user" if owed else "model", parts=[types.Part(text=note)])]
