"""The guard as a whole, with any input: it admits or it refuses, and nobody becomes somebody else."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adk_relay.core.visitor import Visitor
from adk_relay.wire.asgi import Scope
from adk_relay.wire.guard import Guard, Refused
from adk_relay.wire.origin import Origins
from adk_relay.wire.quotas import Quotas
from support.tokens import SECRET, token

LATER = time.time() + 24 * 3600
GOOD = {
    token("alice", exp=LATER, jti="1"): Visitor("alice"),
    token("bob", exp=LATER, jti="2"): Visitor("bob"),
    token("bob", exp=LATER, jti="3", invitation={"session_id": "kitchen", "role": "listen"}): Visitor(
        "bob", session_id="kitchen", may_write=False
    ),
}
BAD = [
    token("alice", exp=LATER, secret="another secret of 32 bytes or more"),
    token("alice", exp=time.time() - 60),
    token("alice", exp=LATER, aud="billing"),
    token("alice", exp=LATER).rpartition(".")[0] + ".",
    token("alice", exp=LATER, invitation={"session_id": "../kitchen", "role": "write"}),
]


def mostly(usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """If most inputs were odd in one way or another, hardly any would get to the end of the guard."""
    return st.sampled_from([usual] * 6 + [odd]).flatmap(lambda chosen: chosen)


TOKENS = mostly(st.sampled_from([*GOOD]), st.sampled_from(BAD) | st.text(max_size=20))
BYTES = st.binary(max_size=30)
OWN, FOREIGN = b"http://localhost", b"https://foreign.example"
AUTHORIZATION = st.builds(
    lambda scheme, text: scheme + text.encode("latin-1", "replace"),
    mostly(st.just(b"Bearer "), st.sampled_from([b"bearer  ", b"BEARER ", b"Basic ", b"Bearer", b""])),
    TOKENS,
)
HOST = mostly(st.just(b"localhost"), st.sampled_from([b"LOCALHOST:80", b"evil.example", b"[::1]", b""]))
ORIGIN = mostly(st.just(OWN), st.sampled_from([OWN.upper(), FOREIGN, b"null", b""]))


def lines(name: bytes, values: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    """A header that is often there once, seldom not at all or twice."""
    one = st.tuples(st.sampled_from([name, name.title()]), mostly(values, BYTES))
    return mostly(st.just(1), st.sampled_from([0, 2])).flatmap(
        lambda n: st.lists(one, min_size=n, max_size=n)
    )


HEADERS = st.builds(
    lambda *parts: [line for part in parts for line in part],
    lines(b"host", HOST),
    lines(b"authorization", AUTHORIZATION),
    mostly(st.just([]), lines(b"origin", ORIGIN)),
    st.lists(st.tuples(BYTES | st.just(b"x-forwarded-for"), BYTES), max_size=2),
)
QUERIES = BYTES | st.lists(
    st.builds(
        lambda name, text: name + text.encode("latin-1", "replace"),
        st.sampled_from([b"token=", b"token=", b"%74oken=", b"token", b"TOKEN=", b"x="]),
        TOKENS,
    ),
    max_size=3,
).map(b"&".join)
SCOPES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["http", "websocket"]),
        "method": st.just("GET"),
        "path": st.text(max_size=20),
        "headers": HEADERS,
        "query_string": QUERIES,
    },
    optional={
        "subprotocols": st.none() | st.lists(TOKENS | TOKENS.map("bearer.".__add__), max_size=3),
        "scheme": st.sampled_from(["http", "https", "ws", "wss"]),
        "server": st.sampled_from([None, ("127.0.0.1", 80), ["::1", 80], ("10.0.0.1", 80), ("/sock", None)]),
        "client": st.none()
        | st.tuples(st.sampled_from(["127.0.0.1", "2001:db8::1"]) | st.text(), st.just(1)),
    },
)


async def outcome(guard: Guard, scope: Scope) -> Visitor | None:
    """Who is admitted; None: it was refused. Afterwards nobody holds a place."""
    try:
        return await guard.admit(scope)
    except Refused as refused:
        assert refused.status in (401, 403, 429, 500, 503)
        text = refused.reason + str(refused.headers)
        assert not any(each in text for each in (*GOOD, *BAD))
        refused.response()
        return None
    finally:
        guard.leave(scope)
        guard.quotas.check()
        assert not guard.quotas._held


def shown(scope: Scope) -> list[str]:
    """All that a scope says, wherever a token may be."""
    headers = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
    texts = [value.decode("latin-1") for value in (*headers, scope["query_string"])]
    return texts + (scope.get("subprotocols") or [])


def who(visitor: Visitor) -> tuple[Any, ...]:
    return visitor.user_id, visitor.session_id, visitor.may_write


def is_fit(scope: Scope) -> bool:
    """Whether a page may be where the request comes from. It knows few."""
    origins = [value for name, value in scope["headers"] if name.lower() == b"origin"]
    hosts = [value for name, value in scope["headers"] if name.lower() == b"host"]
    return len(origins) <= 1 and len(hosts) <= 1 and not {FOREIGN, b"null"} & {*origins}


def request(*headers: tuple[bytes, bytes]) -> Scope:
    return {"type": "http", "headers": [*headers], "query_string": b""}


AUTHORIZATIONS = [(b"authorization", b"Bearer " + each.encode()) for each in GOOD]


@given(SCOPES)
@example(request((b"host", b"localhost"), (b"host", b"evil.example"), *AUTHORIZATIONS[:1]))
@example(request(*AUTHORIZATIONS))
@example(request(*reversed(AUTHORIZATIONS)))
async def test_nobody_is_admitted_but_whom_a_valid_token_names(scope: Scope) -> None:
    guard = Guard(SECRET, quotas=Quotas(max_sockets=1, max_requests=1, user_sockets=1, address_sockets=1))
    visitor = await outcome(guard, scope)
    if visitor is None:
        return
    assert is_fit(scope)
    texts = shown(scope)
    named = [who(GOOD[each]) for each in GOOD if any(each in text for text in texts)]
    assert who(visitor) in named
    # A token in the header counts before all others.
    first = next((text for text in texts[:-1] if text.lower().startswith("bearer ")), None)
    assert first is None or who(GOOD[first[7:].strip()]) == who(visitor)
    assert visitor.expires_at


@given(SCOPES)
async def test_a_token_that_opens_one_socket_opens_no_other(scope: Scope) -> None:
    guard = Guard(SECRET, one_use=True)
    first, second = await outcome(guard, dict(scope)), await outcome(guard, dict(scope))
    assert second is None or scope["type"] == "http"
    assert first or not second
    guard._used.check()


@given(SCOPES)
async def test_without_tokens_only_pages_and_hosts_are_looked_at(scope: Scope) -> None:
    visitor = await outcome(Guard(), scope)
    assert visitor is None or (visitor == Visitor() and is_fit(scope))
    listed = await outcome(Guard(origins=Origins("https://foreign.example", "localhost")), scope)
    assert listed is None or b"localhost" in b"".join(value for _, value in scope["headers"]).lower()


ANSWERS = st.one_of(
    *(st.none(), st.text(max_size=5), st.integers(), st.binary(max_size=3), st.just(Visitor())),
    st.builds(
        Visitor,
        user_id=st.none() | st.text(max_size=5) | st.integers(),
        name=st.text(max_size=5) | st.integers(),
        session_id=st.none() | st.text(max_size=5),
    ),
    st.sampled_from([ValueError("no"), KeyError("no"), RecursionError(), OSError(), UnicodeError()]),
)


@pytest.mark.parametrize("is_async", [True, False])
@given(scope=SCOPES, answer=ANSWERS)
async def test_a_hosts_function_admits_only_whom_it_names(is_async: bool, scope: Scope, answer: Any) -> None:
    def authenticate(of: Scope) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def authenticate_later(of: Scope) -> Any:
        return authenticate(of)

    visitor = await outcome(Guard(authenticate=authenticate_later if is_async else authenticate), scope)
    if visitor is not None:
        named = answer.user_id if isinstance(answer, Visitor) else answer
        assert isinstance(named, str)
        assert bool(visitor.user_id) is bool(named)
        assert not isinstance(answer, Visitor) or visitor.session_id == answer.session_id


@given(SCOPES, TOKENS, st.sampled_from([*GOOD.values()]))
async def test_a_new_token_makes_nobody_somebody_else(scope: Scope, text: str, visitor: Visitor) -> None:
    before = replace(visitor, expires_at=time.time())
    try:
        renewed = await Guard(SECRET).renew(scope, before, text)
    except Refused:
        return
    assert who(renewed) == who(GOOD[text.strip()])
    assert (renewed.user_id, renewed.session_id) == (visitor.user_id, visitor.session_id)
