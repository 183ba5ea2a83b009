"""Tokens: JSON Web Tokens (RFC 7519) that say who a client is, for a short time.

A token is signed with the server's own secret (HS256), or with a private key whose public half is in a key
set (RS256, ES256). The algorithm that a token names only chooses between the two: a secret is never used as
a public key, nor the other way round, and there are no tokens without a signature (RFC 8725 section 2.1).

| claim | meaning |
|---|---|
| `sub` | the user |
| `exp` | required: until when it holds, in seconds since 1970 |
| `nbf` | from when it holds |
| `aud` | if it is there, it is or has `relay` |
| `jti` | identifies the token, if one token may open one socket only |
| `name` | what the others in a conversation are told |
| `invitation` | `{"session_id", "role"}`: the bearer reaches this conversation only, in one of the `ROLES` |
"""

from __future__ import annotations

import math
import secrets
import time
from typing import Any, NamedTuple

import jwt

from adk_relay.core.visitor import Visitor, name_of, user_id_of
from adk_relay.wire.asgi import Scope, query_of
from adk_relay.wire.dialects import is_session_id
from adk_relay.wire.jwks import ALGORITHMS, KeySet

AUDIENCE = "relay"
MIN_SECRET_BYTES = 32
"""HS256 needs a secret of at least this size (RFC 7518 section 3.2)."""

LEEWAY = 5.0
"""Seconds by which the clocks of servers may differ."""

MAX_TOKEN_CHARS = 8 * 1024

ROLES = ("write", "listen", "manage")
"""What somebody who was invited may do: write, only listen, or write, clear and delete."""

_SUBPROTOCOLS = ("bearer.", "openai-insecure-api-key.")
"""What begins a subprotocol that has a token: all that a browser can send with a WebSocket. The second one is
that of OpenAI's clients."""


class BadTokenError(Exception):
    """A token does not let its bearer in. The message says why, and has nothing of the token."""


class Token(NamedTuple):
    """What a valid token says.

    `jti`: identifies it together with `issuer`; "": it has none.
    """

    visitor: Visitor
    jti: str
    issuer: str


class Tokens:
    """Reads tokens, and issues them if there is a secret.

    Args:
        secret: signs and verifies tokens (HS256); None: such tokens are refused.
        jwks: file or URL of the keys that verify tokens (RS256, ES256); None: such tokens are refused.

    Raises:
        ValueError: the secret is too short, or the file has no key.
    """

    def __init__(self, secret: str | None, jwks: str | None) -> None:
        self._secret = secret.encode() if secret else None
        if self._secret is not None and len(self._secret) < MIN_SECRET_BYTES:
            raise ValueError(
                f"the secret (RELAY_SECRET) has {len(self._secret)} bytes, but must have at least"
                f" {MIN_SECRET_BYTES}: python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"
            )
        try:
            self._keys = KeySet(jwks) if jwks else None
        except ValueError as error:
            raise ValueError(f"jwks (RELAY_JWKS): {error}") from error

    @property
    def can_issue(self) -> bool:
        """Whether there is a secret to sign with."""
        return self._secret is not None

    async def read(self, token: str) -> Token:
        """What a token says.

        Raises:
            BadTokenError: it does not let its bearer in.
            KeysUnavailableError: there are no keys to verify it with.
        """
        try:
            if len(token) > MAX_TOKEN_CHARS:
                raise BadTokenError("The token is too long.")
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise BadTokenError("The token is no JSON Web Token.") from None
        algorithm, key = await self._key(header)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                leeway=LEEWAY,
                # RFC 7519 makes `aud` an error for those who do not expect it; here it is optional.
                options={"require": ["exp", "sub"], "verify_aud": False},
            )
            return _token(claims)
        except jwt.ExpiredSignatureError:
            raise BadTokenError("The token has expired.") from None
        except jwt.ImmatureSignatureError:
            raise BadTokenError("The token does not hold yet.") from None
        except jwt.InvalidSignatureError:
            raise BadTokenError("The token's signature is wrong.") from None
        except jwt.MissingRequiredClaimError as missing:
            raise BadTokenError(f"The token has no {missing.claim}.") from None
        except (jwt.PyJWTError, ValueError, TypeError, LookupError, OverflowError, RecursionError):
            raise BadTokenError("The token is not valid.") from None

    async def _key(self, header: dict[str, Any]) -> tuple[str, Any]:
        """The algorithm of a token, and the key that verifies it."""
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm == "HS256" and self._secret is not None:
            return algorithm, self._secret
        if isinstance(algorithm, str) and algorithm in ALGORITHMS and self._keys:
            key = await self._keys.find(key_id if isinstance(key_id, str) else None, algorithm)
            if key is not None:
                return algorithm, key
            raise BadTokenError("The token's key is not known.")
        raise BadTokenError("The token's algorithm is not accepted.")

    def issue(
        self,
        subject: str,
        ttl: float,
        *,
        name: str = "",
        invitation: dict[str, str] | None = None,
    ) -> str:
        """A new token.

        Args:
            subject: the user.
            ttl: seconds that it holds.
            invitation: the claim of that name.
        """
        if self._secret is None:
            raise ValueError("tokens are signed with RELAY_SECRET, which is not set")
        now = time.time()
        claims: dict[str, Any] = {
            "sub": subject,
            "aud": AUDIENCE,
            "iat": int(now),
            "exp": int(now + ttl),
            "jti": secrets.token_urlsafe(12),
        }
        if name:
            claims["name"] = name
        if invitation:
            claims["invitation"] = invitation
        return jwt.encode(claims, self._secret, algorithm="HS256")


def _token(claims: dict[str, Any]) -> Token:
    """What the claims of a token say whose signature and times are right.

    Raises:
        BadTokenError, LookupError, TypeError: a claim is missing or of the wrong kind.
    """
    expires = claims["exp"]
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not math.isfinite(expires):
        raise BadTokenError("The token's exp is no time.")
    audience = claims.get("aud")
    if audience is not None and AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
        raise BadTokenError(f"The token is not for {AUDIENCE}: its aud is another.")
    try:
        user_id = user_id_of(claims["sub"])
    except ValueError:
        raise BadTokenError("The token's sub is no user.") from None
    session_id, role = None, "write"
    if "invitation" in claims:
        invitation = claims["invitation"]
        session_id, role = invitation["session_id"], invitation["role"]
        if not (isinstance(session_id, str) and is_session_id(session_id) and role in ROLES):
            raise BadTokenError("The token's invitation is not valid.")
    jti, issuer = claims.get("jti", ""), claims.get("iss", "")
    if not (isinstance(jti, str) and isinstance(issuer, str)):
        raise BadTokenError("The token's jti or iss is not valid.")
    name = claims.get("name")
    visitor = Visitor(
        user_id,
        name_of(name) if isinstance(name, str) else "",
        session_id,
        role != "listen",
        # The leeway is part of it: a socket is open as long as a new one could be opened.
        expires + LEEWAY,
        # The user's own name can't have a line break, so nobody who was invited is taken for the user.
        user_id if session_id is None else f"{user_id}\n{jti or name}",
        may_manage=role == "manage",
    )
    return Token(visitor, jti, issuer)


def token_of(scope: Scope) -> str | None:
    """The token that comes with a request; None: there is none.

    It is in `Authorization: Bearer`, else among the subprotocols, else in `?token=`.
    """
    name: bytes
    value: bytes
    for name, value in scope.get("headers", ()):
        if name.lower() == b"authorization":
            scheme, _, token = value.decode("latin-1").strip().partition(" ")
            if scheme.lower() == "bearer":  # Basic, for example, may be for a proxy in front
                return token.strip()
    for subprotocol in scope.get("subprotocols") or ():
        for start in _SUBPROTOCOLS:
            if subprotocol.startswith(start):
                return str(subprotocol.removeprefix(start))
    return query_of(scope).get("token")


def with_token(scope: Scope, token: str) -> Scope:
    """The scope of a request as it would be with another token."""
    headers = [(name, value) for name, value in scope.get("headers", ()) if name.lower() != b"authorization"]
    try:
        headers.append((b"authorization", b"Bearer " + token.encode("latin-1")))
    except UnicodeEncodeError:
        raise BadTokenError("The token is no JSON Web Token.") from None
    return {**scope, "headers": headers}
