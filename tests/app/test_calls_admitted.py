"""Whose conversation a telephone call is, and which calls are taken at all."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import jwt
import pytest

from support.api import get, rehearsal
from support.caller import CALL_SID, RATE, Caller, calling
from support.chat import http
from support.gemini import speech
from support.guarded import guarded, status_of
from support.proxies import nginx
from support.server import a_relay, need_module, serving
from support.tokens import SECRET, token, web, with_token

need_module("soxr")
need_module("twilio")

from twilio.request_validator import RequestValidator  # noqa: E402

pytestmark = [pytest.mark.usefixtures("no_errors")]

CALL = f"call-{CALL_SID}"
AUTH_TOKEN = "the auth token of an account"
FIELDS = {"CallSid": CALL_SID, "From": "+493012345678", "To": "+15005550006", "CallerName": "Zoë"}


def signed(url: str, fields: dict[str, str] | None = None, auth_token: str = AUTH_TOKEN) -> dict[str, str]:
    """The header that Twilio sends with a request for a URL."""
    computed = RequestValidator(auth_token).compute_signature(url, fields or {})
    return {"X-Twilio-Signature": computed}


async def ring(web: httpx.AsyncClient, fields: dict[str, str] = FIELDS, **options: Any) -> httpx.Response:
    """What relay says to Twilio that asks about a call."""
    return await web.post("/twilio/voice", data=fields, **options)


def connection(response: httpx.Response) -> tuple[str, dict[str, str]]:
    """The URL and the parameters in TwiML."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/xml; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    root = ElementTree.fromstring(response.text)
    assert [each.tag for each in root.iter()][:3] == ["Response", "Connect", "Stream"]
    stream = root[0][0]
    params = {each.attrib["name"]: each.attrib["value"] for each in stream}
    assert all(len(name) + len(value) < 500 for name, value in params.items())
    return stream.attrib["url"], params


async def talks(caller: Caller) -> None:
    """The caller speaks, and hears the agent."""
    caller.says(speech(400, RATE))
    await caller.until(lambda: caller.heard_ms > 100)


async def test_where_nobody_signs_in_a_call_is_its_own_conversation_whatever_it_says() -> None:
    async with serving(a_relay(rehearsal(), grace=5)) as port, http(port) as web:
        url, params = connection(await ring(web))
        assert (url, params) == (f"wss://127.0.0.1:{port}/twilio", {})
        said = {"user_id": "ann", "session_id": "anns", "token": token("ann")}
        async with calling(port, params=said) as caller:
            await talks(caller)
            found = await get(web, f"/sessions?user_id={CALL}")
            assert [one["session_id"] for one in found["sessions"]] == [CALL]
        for body in ({}, {"CallSid": "a b"}, {"CallSid": "a" * 65}):
            response = await ring(web, body)
            assert response.status_code == 400
            assert "CallSid" in response.json()["detail"]
        assert (await web.post("/twilio/voice", content="a=&" * 300)).status_code == 400
        assert (await web.post("/twilio/voice", content=b"a" * 70_000)).status_code == 413
        assert (await web.get("/twilio/voice")).status_code == 405


async def test_with_twilios_token_only_signed_calls_are_taken_and_their_twiml_says_whose_they_are() -> None:
    relay = a_relay(rehearsal(), grace=5, twilio_token=AUTH_TOKEN)
    async with serving(relay) as port, http(port) as web:
        voice, media = f"https://127.0.0.1:{port}/twilio/voice", f"wss://127.0.0.1:{port}/twilio"
        url, params = connection(await ring(web, headers=signed(voice, FIELDS)))
        assert (url, params) == (media, {"user_id": "tel-493012345678"})
        for withheld in ("+266696687", "anonymous", "sip:ann@example.com", ""):
            fields = FIELDS | {"From": withheld}
            assert connection(await ring(web, fields, headers=signed(voice, fields)))[1] == {"user_id": CALL}
        for wrong in ({}, signed(voice, FIELDS, "another"), signed(media, FIELDS), signed(voice, {"a": "b"})):
            response = await ring(web, headers=wrong)
            assert response.status_code == 403
            assert "X-Twilio-Signature" in response.json()["detail"]
        assert await status_of(port, "/twilio") == 403
        assert await status_of(port, "/twilio", additional_headers=signed(media, auth_token="another")) == 403
        options: dict[str, Any] = {"additional_headers": signed(media)}
        async with calling(port, params=params | {"session_id": "order-4711"}, **options) as caller:
            await talks(caller)
            found = await get(web, "/sessions?user_id=tel-493012345678")
            assert [one["session_id"] for one in found["sessions"]] == ["order-4711"]
        async with calling(port, params={"user_id": "bob", "session_id": "order-4711"}, **options) as thief:
            assert (await thief.until_closed())[0] == 4404
        async with calling(port, params={"session_id": "new"}, **options) as wrong_id:
            assert (await wrong_id.until_closed())[0] == 4404


async def test_with_a_guard_the_token_decides_and_nothing_else() -> None:
    async with guarded(twilio_token=AUTH_TOKEN, grace=5) as port:
        voice, media = f"https://127.0.0.1:{port}/twilio/voice", f"wss://127.0.0.1:{port}/twilio"
        options: dict[str, Any] = {"additional_headers": signed(media)}
        async with web(port, None) as twilio:
            _, params = connection(await ring(twilio, headers=signed(voice, FIELDS)))
            assert (await ring(twilio)).status_code == 403
        claims = jwt.decode(params["token"], SECRET, ["HS256"], audience="relay")
        assert claims["sub"] == "tel-493012345678"
        assert claims["invitation"] == {"session_id": CALL, "role": "write"}
        assert time.time() + 3600 < claims["exp"] < time.time() + 5 * 3600
        async with calling(
            port, params=params | {"user_id": "ann", "session_id": "anns"}, **options
        ) as caller:
            await talks(caller)
            async with web(port, token("tel-493012345678")) as user:
                assert [one["session_id"] for one in (await get(user, "/sessions"))["sessions"]] == [CALL]
        async with calling(port, params={"token": token("ann"), "session_id": "anns"}, **options) as ann:
            await talks(ann)
            async with web(port, token("ann")) as user:
                assert [one["session_id"] for one in (await get(user, "/sessions"))["sessions"]] == ["anns"]
        for wrong in (
            {},
            {"user_id": "ann"},
            {"token": "ann"},
            {"token": token("ann", secret="another secret, of which nobody knows")},
            {"token": token("ann", exp=time.time() - 60)},
            {"token": token("é" * 9000)},
        ):
            async with calling(port, params=wrong, **options) as nobody:
                code, reason = await nobody.until_closed()
                assert code == 4401, (wrong, reason)
        async with calling(port, params={"token": token("bob"), "session_id": "anns"}, **options) as bob:
            assert (await bob.until_closed())[0] == 4404


async def test_a_token_opens_one_call_and_ends_it_when_it_expires_and_counts_for_its_user() -> None:
    async with guarded(one_use="true", user_sockets=1) as port:
        async with web(port, None) as nobody:
            assert (await ring(nobody)).status_code == 401
        async with web(port, token("ann", jti="1")) as ann:
            _, params = connection(await ring(ann))
        assert jwt.decode(params["token"], SECRET, ["HS256"], audience="relay")["sub"] == "ann"
        async with calling(port, params=params) as caller:
            await talks(caller)
            async with calling(port, params={"token": token("ann", jti="2")}) as second:
                assert (await second.until_closed())[0] == 4429
        async with calling(port, params=params) as again:
            assert await again.until_closed() == (
                4401,
                "The token was used already: it opens one socket only.",
            )
        short = token("bob", jti="3", exp=time.time() - 3)  # there is a leeway of 5 s
        async with calling(port, call_sid="CAbob", params={"token": short}) as bob:
            assert await bob.until_closed() == (4401, "the token has expired")
        # The token may come with the upgrade, too.
        header: dict[str, Any] = with_token(token("eve", jti="4"))
        async with calling(port, call_sid="CAeve", params={"token": "nonsense"}, **header) as eve:
            await talks(eve)
        assert await status_of(port, "/twilio", **with_token("nonsense")) == 401


async def test_a_call_through_nginx_is_known_by_its_public_address(tmp_path: Path) -> None:
    relay = a_relay(rehearsal(), twilio_token=AUTH_TOKEN)
    async with serving(relay) as port, nginx(tmp_path, port) as front, front.browsing() as browser:
        url = f"https://127.0.0.1:{front.port}/twilio/voice"
        found, params = connection(await ring(browser, headers=signed(url, FIELDS)))
        assert found == f"wss://127.0.0.1:{front.port}/twilio"
        options: dict[str, Any] = {"additional_headers": signed(found), "ssl": front.tls}
        async with calling(front.port, params=params, **options) as caller:
            await talks(caller)


async def test_the_log_has_what_a_caller_is_not_told_and_no_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", logger="relay")
    async with guarded(twilio_token=AUTH_TOKEN) as port:
        voice, media = f"https://127.0.0.1:{port}/twilio/voice", f"wss://127.0.0.1:{port}/twilio"
        async with web(port, None) as twilio:
            _, params = connection(await ring(twilio, headers=signed(voice, FIELDS)))
        async with calling(port, params=params, additional_headers=signed(media)) as caller:
            await talks(caller)
        await status_of(port, "/twilio")
        invited = token("bob", invitation={"session_id": "bobs", "role": "listen"})
        async with calling(port, params={"token": invited}, additional_headers=signed(media)) as listener:
            listener.says(speech(100, RATE))
            told = f"{CALL}: the caller can't be told: not_allowed: You were invited to listen only."
            await listener.until(lambda: told in caplog.text)
        assert re.search(r"bob twilio \S+ in bobs: said who it is", caplog.text)
    assert params["token"] not in caplog.text
    assert AUTH_TOKEN not in caplog.text
    assert re.search(r"a WebSocket from 127.0.0.1 was refused: 4403 The X-Twilio-Signature", caplog.text)


async def test_without_the_extra_it_is_said_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("call", "voice"):
        monkeypatch.setattr(f"adk_relay.wire.twilio.{place}.is_installed", lambda: False)
    async with serving(a_relay(rehearsal())) as port, http(port) as web:
        response = await ring(web)
        assert response.status_code == 501
        assert "adk-relay[telephony]" in response.json()["detail"]
        assert await status_of(port, "/twilio") == 501
