"""Texts that no model could be given before their conversation ended are stored."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from adk_relay.adk.fence import NotOwnerError
from adk_relay.adk.session import StoredSession
from adk_relay.core.inbox import Inbox
from adk_relay.core.logs import one_line
from adk_relay.core.messages import UserText

log = logging.getLogger("relay.agent")


async def keep_unsaid(
    inbox: Inbox,
    session: StoredSession,
    stored: Callable[[UserText], None],
    is_attended: Callable[[], bool],
    label: str,
) -> None:
    """Empties the inbox, and stores its texts.

    They are given back to the inbox if not all could be stored, or if a listener has come meanwhile: then the
    next run answers them.
    """
    texts = [content for content in iter(inbox.take, None) if isinstance(content, UserText)]
    try:
        found = await session.find() if texts else None
        for index, text in enumerate(texts):
            if found and not text.is_stored:
                await session.append_text(found, text)
                stored(text)
                texts[index] = replace(text, is_stored=True)
    except NotOwnerError:
        pass  # the owner has them
    except Exception as error:
        left = sum(not text.is_stored for text in texts)
        log.error("%s: %d texts could not be stored: %s", label, left, one_line(error))
    if is_attended() or not all(text.is_stored for text in texts):
        for text in reversed(texts):
            inbox.give_back(text)
