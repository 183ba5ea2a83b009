"""Ids that relay gives to texts whose clients gave them none, so that a new owner knows them again."""

from __future__ import annotations

import secrets
from dataclasses import replace

from adk_relay.core.messages import UserText

_OWN = "~relay~"
"""How these ids begin. Clients never see them: see `wire.dialects.id_field`."""


def is_own(text_id: str) -> bool:
    """Whether relay has given a text its id."""
    return text_id.startswith(_OWN)


def with_id(text: UserText) -> UserText:
    """The same text, with an id."""
    return text if text.id else replace(text, id=_OWN + secrets.token_urlsafe(9))
