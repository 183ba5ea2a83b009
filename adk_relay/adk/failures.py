"""Describes failures of the agent: for the log with the service's own text, for the user in plain words."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tenacity import RetryCallState

from adk_relay.adk.connection import LostConnection
from adk_relay.core.logs import failure, one_line
from adk_relay.core.messages import Error

log = logging.getLogger("relay.agent")


def what_failed(error: BaseException | None) -> str:
    """What failed, for the log: the service's own text, without a traceback."""
    if isinstance(error, LostConnection):
        return f"the model's connection: {one_line(error)}"
    return failure(error)


def explain(error: Exception, model: str) -> Error:
    """What failed, for the user: plain words, without the service's own text.

    Args:
        model: the root agent's model. The error may be another one's.
    """
    if not isinstance(error, LostConnection):
        return Error("agent_failed", "The agent failed. The server's log says why.")
    model = error.model or model
    reason = error.reason.lower()
    if error.code in (401, 403) or "api key" in reason or "api_key" in reason:
        text = (
            "The server has no credentials that the model service accepts:"
            " check its API key or Google Cloud login."
        )
    elif error.code == 404 or "not found" in reason:
        text = f"The model service does not know the model {model!r}: check its name."
    elif error.permanent:
        text = f"The model {model!r} refused this conversation ({error.code}). The server's log says why."
    else:
        return Error("model_unavailable", "The model could not be reached. Please try again later.")
    return Error("model_refused", text)


def is_about_setup(error: Exception) -> bool:
    """Whether a model may have refused a connection for what it was asked for, and not for who asks."""
    if not isinstance(error, LostConnection) or error.code not in (400, 1007):
        return False
    return not any(word in error.reason.lower() for word in ("api key", "api_key"))


def log_retry(label: str, most: int) -> Callable[[RetryCallState], None]:
    """A function for tenacity, which logs that something failed and is tried again.

    Args:
        label: names the conversation.
        most: how often it is tried.
    """

    def log_it(tries: RetryCallState) -> None:
        error = tries.outcome.exception() if tries.outcome else None
        failed, number = what_failed(error), tries.attempt_number + 1
        log.warning("%s: %s; try %d of %d in %.1f s", label, failed, number, most, tries.upcoming_sleep)

    return log_it
