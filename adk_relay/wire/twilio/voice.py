"""`POST /twilio/voice`: Twilio asks what to do with a call, and is told to connect it with `WS /twilio`.

Source: https://www.twilio.com/docs/voice/twiml/stream
"""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import parse_qsl
from xml.sax.saxutils import quoteattr

from adk_relay.wire.asgi import Receive, Scope, header_values, raw_path
from adk_relay.wire.body import read_body
from adk_relay.wire.dialects import is_name
from adk_relay.wire.guard import Guard
from adk_relay.wire.http import SECURITY, HttpError, Response, with_length
from adk_relay.wire.sound import is_installed
from adk_relay.wire.twilio import NotInstalledError

_TTL = 4 * 3600
"""Seconds that the token of a call holds: by itself Twilio ends a call after so long."""

_NUMBER = re.compile(r"\+([1-9][0-9]{6,14})")
"""A telephone number (E.164)."""

_WITHHELD = {"7378742833", "2562533", "8656696", "266696687", "86282452253"}
"""What Twilio gives as the number of a caller who withholds it: it spells RESTRICTED, BLOCKED, UNKNOWN,
ANONYMOUS or UNAVAILABLE. All of them would be one user."""

_MAX_FIELDS = 200


async def answer_call(guard: Guard, scope: Scope, receive: Receive, timeout: float) -> Response:
    """The TwiML that connects a call with relay. With a token, if one is needed and can be made.

    Args:
        timeout: seconds in which the body has to be there.

    Raises:
        HttpError, Refused: the call can't be connected.
    """
    if not is_installed():
        raise HttpError(501, str(NotInstalledError()))
    body = await read_body(receive, timeout)
    try:
        fields = parse_qsl(body.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise HttpError(400, f"The body may have at most {_MAX_FIELDS} fields.") from None
    visitor = await guard.admit_call(scope, fields)
    call_sid, caller = (dict(fields).get(name, "") for name in ("CallSid", "From"))
    if not (is_name(call_sid) and len(call_sid) <= 64):
        raise HttpError(400, "CallSid must be an identifier of Twilio.")
    own = f"call-{call_sid}"
    user_id = user_of(caller, own)
    params = {}
    if guard.is_on:
        if visitor.session_id is not None:
            raise HttpError(403, "You were invited to one conversation only.")
        # It reaches no more than the conversation of this call, for those who may see Twilio's logs.
        visitor = visitor if visitor.user_id else replace(visitor, user_id=user_id)
        params["token"] = guard.invite(visitor, own, _TTL, "write")
    elif guard.knows_twilio:
        params["user_id"] = user_id
    document = twiml(_stream_url(scope), params).encode()
    headers = [(b"content-type", b"text/xml; charset=utf-8"), (b"cache-control", b"no-store"), *SECURITY]
    return with_length(200, document, headers)


def _stream_url(scope: Scope) -> str:
    """The URL of `WS /twilio`, beside the one that was requested. Twilio connects by TLS only."""
    host = "".join(header_values(scope, b"host"))
    if not host:
        raise HttpError(400, "There is no Host.")
    return f"wss://{host}{raw_path(scope).removesuffix('/').removesuffix('/voice')}"


def user_of(caller: str, own: str) -> str:
    """The user that a caller is: `tel-` and the number, without the +; `own` if there is no number."""
    found = _NUMBER.fullmatch(caller)
    return f"tel-{found[1]}" if found and found[1] not in _WITHHELD else own


def twiml(url: str, params: dict[str, str]) -> str:
    """The document that connects a call with a WebSocket, which then gets the parameters in `start`."""
    inner = "".join(
        f"<Parameter name={quoteattr(name)} value={quoteattr(value)}/>" for name, value in params.items()
    )
    stream = f"<Stream url={quoteattr(url)}>{inner}</Stream>"
    return f'<?xml version="1.0" encoding="UTF-8"?><Response><Connect>{stream}</Connect></Response>'
