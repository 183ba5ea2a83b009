"""Ids of texts: those whose clients gave them none get one here, by which a new owner knows them again."""

from __future__ import annotations

import secrets
from dataclasses import replace

from adk_relay.core.answer import Asked
from adk_relay.core.messages import Error, Line, Message, Taken, TurnEnd, TurnStart, UserText, Written

_OWN = "~relay~"
"""How these ids begin. Clients never see them."""


def is_own(text_id: str) -> bool:
    """Whether a text got its id here."""
    return text_id.startswith(_OWN)


def with_id(text: UserText) -> UserText:
    """The same text, with an id."""
    return text if text.id else replace(text, id=_OWN + secrets.token_urlsafe(9))


def without_own_ids(message: Message) -> Message:
    """The same message, as clients see it."""
    match message:
        case Written(id=id) | Line(id=id) | Error(id=id) if is_own(id):
            return replace(message, id="")
        case Taken(text) if is_own(text.id):
            return replace(message, text=replace(text, id=""))
        case TurnStart(Asked() as asked) if is_own(asked.id):
            return TurnStart(replace(asked, id=""))
        case TurnEnd(answer=answer) if answer and answer.asked and is_own(answer.asked.id):
            return replace(message, answer=replace(answer, asked=replace(answer.asked, id="")))
    return message
