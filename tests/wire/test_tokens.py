"""Tokens: which let their bearer in, and as whom."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import math
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from adk_relay.core.visitor import Visitor, subject_of, user_id_of
from adk_relay.wire import jwks
from adk_relay.wire.tokens import LEEWAY, MAX_TOKEN_CHARS, BadTokenError, Tokens
from support.tokens import SECRET, ec_key, key_set, public, rsa_key, serving_keys, token

TOKENS = Tokens(SECRET, None)


def part(fields: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()


def signed(
    header: dict[str, Any], claims: dict[str, Any], key: Any = SECRET, algorithm: str = "HS256"
) -> str:
    """A token with any header, signed as `algorithm` says, whatever the header says."""
    signer = jwt.get_algorithm_by_name(algorithm)
    text = f"{part(header)}.{part(claims)}"
    signature = signer.sign(text.encode(), signer.prepare_key(key))
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "alice", "exp": time.time() + 300, **more}


# ---- a secret --------------------------------------------------------------------------------


async def test_a_token_says_who_its_bearer_is() -> None:
    expires = time.time() + 60
    read = await TOKENS.read(token("alice", exp=expires, name=" Ann \n B. ", jti="7", iss="me", aud="relay"))
    assert read.visitor == Visitor("alice", "Ann B.", None, True, expires + LEEWAY)
    assert (read.jti, read.issuer) == ("7", "me")


async def test_a_token_that_relay_makes_is_valid() -> None:
    made = TOKENS.issue("ann@example.com", 60, name="Ann")
    read = await TOKENS.read(made)
    assert read.visitor.user_id == "ann~40example.com"
    assert read.visitor.name == "Ann"
    assert read.jti
    assert read.visitor.expires_at == pytest.approx(time.time() + 60 + LEEWAY, abs=10)


async def test_an_invitation_is_for_one_conversation() -> None:
    for role, may_write in (("write", True), ("listen", False), ("manage", True)):
        read = await TOKENS.read(token(invitation={"session_id": "kitchen", "role": role}))
        assert (read.visitor.session_id, read.visitor.may_write) == ("kitchen", may_write)
        assert read.visitor.may_empty is (role == "manage")
        assert read.visitor.reaches("kitchen")
        assert not read.visitor.reaches("cellar")


NOW = time.time()


def refused() -> dict[str, tuple[str, str]]:
    """Tokens that are refused, and what the error says. They are made now: some expire in minutes."""
    now = time.time()
    return {
        "expired": (token(exp=now - LEEWAY - 60), "expired"),
        "never expires": (token(exp=None), "no exp"),
        "expires at no time": (token(exp=str(now + 900)), "exp is no time|not valid"),
        "expires at true": (token(exp=True), "expired"),
        "does not hold yet": (token(nbf=now + 900), "not hold yet"),
        "was made in the future": (token(iat=now + 900), "not hold yet"),
        "for another server": (token(aud="billing"), "aud"),
        "for other servers": (token(aud=["billing", "mail"]), "aud"),
        "for nobody": (token(aud=[]), "aud"),
        "nobody's": (token(sub=None), "no sub"),
        "of an empty user": (token(""), "sub"),
        "of a user who is a number": (token(sub=7), "not valid"),
        "of a user whose id is too long": (token("a" * 129), "sub"),
        "another secret": (token(secret="another secret of 32 bytes or more"), "signature"),
        "no signature": (token().rpartition(".")[0] + ".", "signature"),
        "alg none": (jwt.encode(claims(), "", "none"), "algorithm"),
        "alg None": (signed({"alg": "None"}, claims()), "algorithm"),
        "alg none, but signed": (signed({"alg": "none"}, claims()), "algorithm"),
        "no alg": (signed({}, claims()), "algorithm"),
        "alg is a list": (signed({"alg": ["HS256"]}, claims()), "algorithm"),
        "another alg": (jwt.encode(claims(), SECRET * 2, "HS512"), "algorithm"),
        "an alg without keys": (signed({"alg": "RS256"}, claims()), "algorithm"),
        "critical header": (signed({"alg": "HS256", "crit": ["exp"]}, claims()), "no JSON Web Token"),
        "payload elsewhere": (signed({"alg": "HS256", "b64": False}, claims()), "no JSON Web Token"),
        "too long": (token(more="x" * MAX_TOKEN_CHARS), "too long"),
        "an invitation to nothing": (token(invitation=[]), "not valid"),
        "an invitation without a role": (token(invitation={"session_id": "kitchen"}), "not valid"),
        "an invitation to anything": (token(invitation={"session_id": None, "role": "write"}), "invitation"),
        "an invitation to a path": (token(invitation={"session_id": "../a", "role": "write"}), "invitation"),
        "an invitation to half a character": (
            token(invitation={"session_id": "\ud800", "role": "write"}),
            "invitation",
        ),
        "an invitation to a list": (token(invitation={"session_id": ["a"], "role": "write"}), "invitation"),
        "an invitation in another role": (
            token(invitation={"session_id": "kitchen", "role": "admin"}),
            "invitation",
        ),
        "a jti that is no text": (token(jti=7), "not valid"),
        "no token": ("", "no JSON Web Token"),
        "a word": ("alice", "no JSON Web Token"),
        "half of a surrogate pair": ("\ud800.\ud800.\ud800", "no JSON Web Token"),
    }


@pytest.mark.parametrize("case", refused())
async def test_a_token_that_is_refused(case: str) -> None:
    bad, why = refused()[case]
    with pytest.raises(BadTokenError, match=why) as refusal:
        await TOKENS.read(bad)
    assert not bad or bad not in str(refusal.value)


async def test_clocks_may_differ_by_a_few_seconds() -> None:
    await TOKENS.read(token(exp=time.time() - LEEWAY + 2))
    await TOKENS.read(token(nbf=time.time() + LEEWAY - 2))


async def test_a_token_for_relay_among_others() -> None:
    await TOKENS.read(token(aud=["billing", "relay"]))


@pytest.mark.parametrize("secret", ["short", "x" * 31, "ä" * 15])
def test_a_short_secret_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(ValueError, match=r"RELAY_SECRET.* at least 32") as refusal:
        Tokens(secret, None)
    assert secret not in str(refusal.value)


def test_no_secret_is_in_a_repr() -> None:
    assert SECRET not in repr(TOKENS)


# ---- any input -------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
TIMES = JSON | st.sampled_from([0, NOW - 3600, NOW + 3600, 1e308, -1.5])
HEADERS = st.fixed_dictionaries(
    {"alg": st.sampled_from(["HS256", "none", "RS256", "ES256", "HS512"]) | JSON},
    optional={"typ": JSON, "kid": JSON, "crit": JSON, "b64": JSON},
)
CLAIMS = st.fixed_dictionaries(
    {"sub": st.sampled_from(["alice", "bob"]) | JSON, "exp": TIMES},
    optional={
        "nbf": TIMES,
        "iat": TIMES,
        "aud": JSON | st.just("relay"),
        "jti": JSON,
        "name": JSON,
        "invitation": JSON
        | st.fixed_dictionaries(
            {
                "session_id": JSON | st.just("kitchen"),
                "role": st.sampled_from(["listen", "manage"]) | JSON,
            }
        ),
    },
)


async def outcome(tokens: Tokens, text: str) -> Visitor | None:
    try:
        return (await tokens.read(text)).visitor
    except BadTokenError:
        return None


@given(st.text() | st.text("eyJ.0_-=", max_size=60))
async def test_no_text_raises_and_none_passes(text: str) -> None:
    assert await outcome(TOKENS, text) is None


@given(HEADERS, CLAIMS, st.sampled_from([SECRET, "another secret of 32 bytes or more"]), st.data())
async def test_only_what_is_signed_and_valid_passes(
    header: dict[str, Any], given_claims: dict[str, Any], secret: str, data: st.DataObject
) -> None:
    text = signed(header, given_claims, secret)
    if data.draw(st.integers(0, 3), "broken?") == 0:
        at = data.draw(st.integers(0, len(text) - 1), "at")
        text = text[:at] + data.draw(st.sampled_from("Aa0._-"), "by") + text[at + 1 :]
    visitor = await outcome(TOKENS, text)
    if visitor is None:
        return
    assert secret == SECRET
    head, body, _ = (part + "==" for part in text.split("."))
    read_header = json.loads(base64.urlsafe_b64decode(head))
    read_claims = json.loads(base64.urlsafe_b64decode(body))
    assert read_header["alg"] == "HS256"
    assert {*read_header.get("crit", [])} <= {"b64"}
    assert read_header.get("b64") is not False
    assert math.isfinite(read_claims["exp"])
    assert read_claims["exp"] > NOW - LEEWAY
    assert float(read_claims.get("nbf", 0)) <= time.time() + LEEWAY + 1
    assert "aud" not in read_claims or read_claims["aud"] is None or "relay" in read_claims["aud"]
    assert visitor.user_id == user_id_of(read_claims["sub"])
    if "invitation" in read_claims:
        assert visitor.session_id == read_claims["invitation"]["session_id"]
        assert visitor.may_write is (read_claims["invitation"]["role"] in ("write", "manage"))
        assert visitor.may_empty is (read_claims["invitation"]["role"] == "manage")
    else:
        assert visitor.session_id is None


@given(st.text(), st.text())
def test_two_subjects_are_never_one_user(one: str, other: str) -> None:
    try:
        ids = user_id_of(one), user_id_of(other)
    except ValueError:
        return
    assert (ids[0] == ids[1]) is (one == other)
    assert subject_of(ids[0]) == one


# ---- keys ------------------------------------------------------------------------------------


def by_rsa(key_id: str | None = "r", key: Any = None, **more: Any) -> str:
    return jwt.encode(claims(**more), key or rsa_key(), "RS256", {"kid": key_id} if key_id else None)


def by_ec(key_id: str | None = "e", **more: Any) -> str:
    return jwt.encode(claims(**more), ec_key(), "ES256", {"kid": key_id} if key_id else None)


def keys_file(tmp_path: Path, *keys: dict[str, Any]) -> str:
    path = tmp_path / "keys.json"
    path.write_text(key_set(*keys))
    return str(path)


BOTH = public(rsa_key(), kid="r"), public(ec_key(), kid="e")


async def test_tokens_of_both_kinds_of_keys(tmp_path: Path) -> None:
    tokens = Tokens(None, keys_file(tmp_path, *BOTH))
    for text in (by_rsa(), by_ec(), by_rsa(None), by_ec(None)):  # a kid is needed only if there are several
        assert (await tokens.read(text)).visitor.user_id == "alice"
    assert await outcome(tokens, by_rsa(exp=NOW - 60)) is None


async def test_keys_and_algorithms_are_not_mixed_up(tmp_path: Path) -> None:
    tokens = Tokens(SECRET, keys_file(tmp_path, *BOTH))
    pem = rsa_key().public_key()
    as_secret = pem.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = f"{part({'alg': 'HS256', 'kid': 'r'})}.{part(claims())}"
    signature = base64.urlsafe_b64encode(hmac.digest(as_secret, text.encode(), hashlib.sha256))
    bad = [
        f"{text}.{signature.rstrip(b'=').decode()}",  # the public key as the secret
        signed({"alg": "RS256", "kid": "r"}, claims()),  # the secret as the key
        signed({"alg": "ES256", "kid": "r"}, claims(), rsa_key(), "RS256"),
        signed({"alg": "RS256", "kid": "e"}, claims(), rsa_key(), "RS256"),
        signed({"alg": "RS256", "kid": "e"}, claims(), ec_key(), "ES256"),
        by_rsa("unknown"),
        by_rsa(key=rsa_key("another")),
    ]
    for each in bad:
        assert await outcome(tokens, each) is None
    assert await outcome(tokens, token())
    assert await outcome(Tokens(None, keys_file(tmp_path, *BOTH)), token()) is None


@pytest.mark.parametrize(
    "key",
    [
        public(rsa_key("short", 1024), kid="r"),
        public(rsa_key(), kid="r", use="enc"),
        public(rsa_key(), kid="r", alg="PS256"),
        public(rsa_key(), kid="r", key_ops=["encrypt"]),
        public(rsa_key(), kid="r", n="!"),
        public(ec_key(), kid="e", crv="P-521"),
        {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode(), "kid": "r"},
    ],
    ids=["short", "encrypts", "another algorithm", "no verify", "broken", "another curve", "a secret"],
)
def test_a_key_that_can_not_be_used(tmp_path: Path, key: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"RELAY_JWKS.* no RSA key"):
        Tokens(None, keys_file(tmp_path, key))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keys": 7}', '{"keys": [7]}', "[" * 100_000])
def test_a_file_without_keys_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys.json").write_text(text)
    with pytest.raises(ValueError, match="RELAY_JWKS"):
        Tokens(None, str(tmp_path / "keys.json"))
    with pytest.raises(ValueError, match="RELAY_JWKS"):
        Tokens(None, str(tmp_path / "nowhere.json"))


async def test_a_new_key_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving_keys(key_set(public(ec_key(), kid="e"))) as server:
        tokens = Tokens(None, server.url)
        assert await outcome(tokens, by_ec())
        assert server.requests == 1
        server.body = key_set(*BOTH)
        assert await outcome(tokens, by_rsa()) is None  # at most once a minute
        assert server.requests == 1
        monkeypatch.setattr(jwks, "_PAUSE", 0)
        assert await outcome(tokens, by_rsa())
        assert await outcome(tokens, by_ec())
        assert server.requests == 2


async def test_unknown_keys_ask_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving_keys(key_set(*BOTH)) as server:
        tokens = Tokens(None, server.url)
        found = await asyncio.gather(*(outcome(tokens, by_rsa(f"unknown {n}")) for n in range(50)))
        assert found == [None] * 50
        assert server.requests == 1


async def test_reading_keys_holds_up_only_those_who_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving_keys(key_set(*BOTH)) as server:
        tokens = Tokens(None, server.url)
        assert await outcome(tokens, by_ec())
        server.open.clear()
        server.asked.clear()
        monkeypatch.setattr(jwks, "_PAUSE", 0)
        waiting = asyncio.create_task(outcome(tokens, by_rsa("unknown")))
        await asyncio.wait_for(server.asked.wait(), 30)
        assert await outcome(tokens, by_ec())  # the loop goes on, and so do those whose key is known
        monkeypatch.undo()
        server.open.set()
        assert await waiting is None


async def test_keys_that_can_not_be_read_are_no_fault_of_the_token(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_keys("no keys") as server:
        tokens = Tokens(None, server.url)
        for _ in range(3):
            with pytest.raises(jwks.KeysUnavailableError):
                await tokens.read(by_rsa())
        assert server.requests == 1
    assert [record.levelname for record in caplog.records if record.name == "relay"] == ["ERROR"]


async def test_old_keys_are_read_again_while_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving_keys(key_set(*BOTH)) as server:
        tokens = Tokens(None, server.url)
        assert await outcome(tokens, by_ec())
        server.body = key_set(public(rsa_key(), kid="r"))
        server.asked.clear()
        monkeypatch.setattr(jwks, "_OLD", 0)
        assert await outcome(tokens, by_ec())  # nobody waits for that
        monkeypatch.undo()
        async with asyncio.timeout(30):
            while await outcome(tokens, by_ec()):  # the key was withdrawn
                await asyncio.sleep(0.01)
        assert await outcome(tokens, by_rsa())
