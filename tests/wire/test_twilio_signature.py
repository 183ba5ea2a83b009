"""Twilio's signatures, held against Twilio's own library."""

from __future__ import annotations

from typing import Any

import pytest

from adk_relay.wire.dialects import Attend
from adk_relay.wire.guard import Guard, Refused
from adk_relay.wire.quotas import Quotas
from adk_relay.wire.twilio.signature import is_signed, signature
from support.server import need_module
from support.tokens import SECRET, token

need_module("twilio")

from twilio.request_validator import RequestValidator  # noqa: E402

TOKEN = "12345"
FIELDS = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
]


def scope(url: str, signed: str | None, kind: str = "http") -> dict[str, Any]:
    """A request for a URL, as an ASGI server passes it on that does not know the scheme."""
    rest = url.partition("://")[2]
    host, _, path = rest.partition("/")
    path, _, query = f"/{path}".partition("?")
    headers = [(b"host", host.encode())]
    headers += [] if signed is None else [(b"x-twilio-signature", signed.encode())]
    return {
        "type": kind,
        "headers": headers,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
    }


def signed_by_twilio(url: str, fields: list[tuple[str, str]] = FIELDS) -> str:
    """The signature that Twilio's own library computes."""
    return str(RequestValidator(TOKEN).compute_signature(url, dict(fields)))


def test_the_example_of_twilios_documentation_is_valid() -> None:
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    assert is_signed(TOKEN, scope(url, "RSOYDt4T1cUTdK1PDd93/VVr8B8="), FIELDS)
    assert signature(TOKEN, url + "".join(name + value for name, value in FIELDS)) == signed_by_twilio(url)


@pytest.mark.parametrize(
    ("signed_url", "requested", "kind"),
    [
        ("https://relay.example/twilio/voice", "http://relay.example/twilio/voice", "http"),
        ("http://relay.example/twilio/voice", "http://relay.example/twilio/voice", "http"),
        ("https://relay.example:443/twilio/voice", "http://relay.example/twilio/voice", "http"),
        ("https://relay.example/twilio/voice", "http://relay.example:443/twilio/voice", "http"),
        (
            "https://a.example:8443/twilio/voice?a=%20b",
            "http://a.example:8443/twilio/voice?a=%20b",
            "http",
        ),
        ("https://relay.example/twilio/voice", "http://relay.example:8443/twilio/voice", "http"),
        ("wss://relay.example/twilio", "ws://relay.example/twilio", "websocket"),
        ("wss://relay.example/twilio/", "ws://relay.example/twilio", "websocket"),
        ("https://relay.example/twilio", "ws://relay.example/twilio", "websocket"),
        ("wss://relay.example:443/twilio", "ws://relay.example/twilio", "websocket"),
    ],
)
def test_a_url_is_known_with_and_without_its_port_and_behind_a_proxy_that_ends_tls(
    signed_url: str, requested: str, kind: str
) -> None:
    fields = FIELDS if kind == "http" else []
    assert is_signed(TOKEN, scope(requested, signed_by_twilio(signed_url, fields), kind), fields)
    assert not is_signed("54321", scope(requested, signed_by_twilio(signed_url, fields), kind), fields)


def test_what_was_changed_is_not_signed() -> None:
    url = "https://relay.example/twilio/voice"
    right = signed_by_twilio(url)
    assert is_signed(TOKEN, scope(url, right), [*FIELDS, FIELDS[0]])  # the same field again adds nothing
    assert not is_signed(TOKEN, scope(url, right), FIELDS[1:])
    assert not is_signed(TOKEN, scope(url, right), [*FIELDS, ("More", "")])
    assert not is_signed(TOKEN, scope("https://other.example/twilio/voice", right), FIELDS)
    assert not is_signed(TOKEN, scope("https://relay.example/twilio/voice?", right + "a"), FIELDS)
    assert not is_signed(TOKEN, scope(f"{url}?a=1", right), FIELDS)
    for wrong in (None, "", right.lower(), right + "=", "é"):
        assert not is_signed(TOKEN, scope(url, wrong), FIELDS)
    twice = scope(url, right)
    twice["headers"].append((b"x-twilio-signature", right.encode()))
    assert not is_signed(TOKEN, twice, FIELDS)


def test_keys_of_any_language_are_signed_as_twilios_library_does() -> None:
    fields = [("CallerName", "Zoë 👋"), ("b", ""), ("a", "~"), ("B", "x")]
    url = "https://relay.example/twilio/voice"
    assert is_signed(TOKEN, scope(url, signed_by_twilio(url, fields)), fields)


async def test_signed_calls_come_from_few_addresses_and_do_not_count_for_them() -> None:
    url = "wss://relay.example/twilio"
    for twilio_token, secret in ((TOKEN, None), (TOKEN, SECRET), (None, SECRET)):
        guard = Guard(secret, twilio_token=twilio_token, quotas=Quotas(address_sockets=1))
        calls = [
            scope(url, signed_by_twilio(url, []), "websocket") | {"client": ("192.0.2.1", n)} for n in (1, 2)
        ]
        first, second = calls
        wanted = Attend("call-CA", "", "", token("ann") if secret else "")
        await guard.sign_in(first, await guard.admit_call(first), wanted)
        if twilio_token:
            await guard.sign_in(second, await guard.admit_call(second), wanted)
        else:
            with pytest.raises(Refused):
                await guard.admit_call(second)
        guard.quotas.check()
        for call in calls:
            guard.leave(call)
        guard.quotas.check()
