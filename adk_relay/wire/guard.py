"""The guard: who may open a WebSocket or make a request, and as whom.

`Guard.admit` is asked before every WebSocket is accepted (`upgrade.py`), and before every request of the HTTP
interface (`api.py`) that is not open to everybody (`api.OPEN`). Nothing else decides who somebody is.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from adk_relay.core.hide_tokens import hide_tokens
from adk_relay.core.logs import failure
from adk_relay.core.shared import Shared
from adk_relay.core.visitor import Visitor, name_of, subject_of, user_id_of
from adk_relay.wire.asgi import Scope
from adk_relay.wire.closing import (
    BUSY,
    FORBIDDEN,
    INTERNAL_ERROR,
    NOT_FOUND,
    RATE_LIMITED,
    SIGN_IN,
    STORE_FAILED,
    CloseFrame,
)
from adk_relay.wire.dialects import NAME, SESSION_ID, Attend, is_name, is_session_id
from adk_relay.wire.http import Headers, HttpError, Response
from adk_relay.wire.jwks import KeysUnavailableError
from adk_relay.wire.origin import Origins
from adk_relay.wire.quotas import OverQuotaError, Quotas, Rates, address_of, quotas_of
from adk_relay.wire.sharing import Sharing
from adk_relay.wire.tokens import ROLES, BadTokenError, Token, Tokens, token_of, with_token
from adk_relay.wire.twilio.signature import is_signed
from adk_relay.wire.used_tokens import Used, digest

log = logging.getLogger("relay")

Authenticate = Callable[[Scope], "Visitor | str | Awaitable[Visitor | str | None] | None"]
"""A host's own function: from an ASGI scope to a user's id, a `Visitor`, or None, which refuses."""

_FOREIGN = FORBIDDEN.because("foreign page or host")
"""The client comes from a page, or asks for a host, that is not allowed."""

_MAX_TTL = 30 * 24 * 3600
"""Seconds that an invitation holds at most."""


class Refused(Exception):
    """The client is not admitted.

    Attributes:
        status: the HTTP status.
        frame: how a WebSocket is closed.
        reason: why, for the client and the log. It has nothing of a token.
        headers: more headers of the HTTP response.
        is_told: a WebSocket of `relay.v1` is accepted and closed, so that a browser can read the reason;
            False: the upgrade is refused, whoever asks.
    """

    def __init__(
        self,
        status: int,
        frame: CloseFrame,
        reason: str,
        headers: Headers | None = None,
        *,
        is_told: bool = True,
    ) -> None:
        self.status = status
        self.frame = frame
        self.reason = reason
        self.headers = headers or []
        self.is_told = is_told
        super().__init__(status, frame.code, reason)

    def response(self) -> Response:
        """The refusal as an HTTP response."""
        return HttpError(self.status, self.reason, *self.headers).response()


def sign_in(reason: str, *, had_token: bool) -> Refused:
    """The refusal of a client that is nobody (RFC 6750 section 3)."""
    challenge = b'Bearer realm="relay"' + (b', error="invalid_token"' if had_token else b"")
    return Refused(401, SIGN_IN, reason, [(b"www-authenticate", challenge)])


def forbidden(reason: str) -> Refused:
    """The refusal of a client that is somebody, but may not do this."""
    return Refused(403, FORBIDDEN, reason)


def too_many(reason: str, status: int = 503, retry_after: int = 30) -> Refused:
    """The refusal of a client for which there is no place now."""
    return Refused(status, RATE_LIMITED, reason, [(b"retry-after", b"%d" % retry_after)])


class Guard:
    """Admits clients, or refuses them.

    Args:
        secret, jwks: see `tokens.Tokens`. With none of them, and no `authenticate`, everybody is admitted.
        one_use: each token opens one socket at most.
        authenticate: a host's own function, in place of tokens.
        origins: asked before all that; None: only pages of the server's own host may use it.
        quotas: asked after all that; None: there are none.
        shared: where they count in all processes, and tokens that were used; None: there is one process.
        twilio_token: the auth token of the Twilio account whose calls are admitted; None: any call is.

    Raises:
        ValueError: the arguments contradict each other, or the secret or the keys can't be used.
    """

    def __init__(
        self,
        secret: str | None = None,
        jwks: str | None = None,
        *,
        one_use: bool = False,
        authenticate: Authenticate | None = None,
        origins: Origins | None = None,
        quotas: Quotas | None = None,
        shared: Shared | None = None,
        twilio_token: str | None = None,
    ) -> None:
        self.origins = origins or Origins()
        self.quotas = quotas or Quotas()
        self.sharing = Sharing(self.quotas, shared) if shared else None
        self._tokens = Tokens(secret, jwks) if secret or jwks else None
        if authenticate and self._tokens:
            raise ValueError("authenticate= takes the place of the secret and of jwks")
        if one_use and not self._tokens:
            raise ValueError("one_use needs tokens: set the secret or jwks")
        self._authenticate = authenticate
        self._twilio_token = twilio_token
        self._one_use = one_use
        self._used = Used()

    @property
    def is_on(self) -> bool:
        """Whether clients have to say who they are."""
        return bool(self._tokens or self._authenticate)

    async def admit(self, scope: Scope) -> Visitor:
        """Who the client of a WebSocket or a request is. When it is over, `leave` has to be called.

        Raises:
            Refused: it is not admitted.
        """
        self._check_origin(scope)
        visitor, token = await self._identify(scope)
        await self._enter(scope, visitor, address_of(scope))
        await self._use(scope, token)  # last: a client that is to try again needs its token for that
        return visitor

    def _check_origin(self, scope: Scope) -> None:
        if problem := self.origins.problem(scope):
            _log_refusal(scope, problem)
            raise Refused(403, _FOREIGN, problem, is_told=False)

    async def _enter(self, scope: Scope, visitor: Visitor, address: str) -> None:
        """Takes a place among the sockets and requests that are open."""
        try:
            self.quotas.enter(scope, visitor, address)
            if self.sharing and scope["type"] == "websocket":
                await self.sharing.enter(visitor, address)
        except OverQuotaError as over:
            raise too_many(str(over), over.status, over.retry_after) from None

    # ---- telephone calls: Twilio can send no token before the call has begun ----

    @property
    def knows_twilio(self) -> bool:
        """Whether a call that is admitted is one of the operator's own account."""
        return self._twilio_token is not None

    async def admit_call(self, scope: Scope, params: Iterable[tuple[str, str]] = ()) -> Visitor:
        """Who the client of a telephone call is, or the one that asks what to do with a call.

        Its `user_id` is None if it is nobody yet: then `sign_in` finds that out, when the call begins.

        Args:
            params: the fields of the request's body.

        Raises:
            Refused: it is not admitted.
        """
        self._check_origin(scope)
        if self._twilio_token and not is_signed(self._twilio_token, scope, params):
            why = "The X-Twilio-Signature is missing, or wrong for this URL and this account."
            _log_refusal(scope, why)
            raise forbidden(why)
        if self.is_on and (token_of(scope) or not (self._twilio_token or scope["type"] == "websocket")):
            visitor, token = await self._identify(scope)
        else:
            visitor, token = Visitor(address=self._address_of_call(scope)), None
        await self._enter(scope, visitor, self._address_of_call(scope))
        await self._use(scope, token)
        return visitor

    async def sign_in(
        self, scope: Scope, visitor: Visitor, wanted: Attend
    ) -> tuple[Visitor, Rates, str, str]:
        """Who a call is, how much it may send, and the user and the conversation that it attends.

        A token says who it is, and may say which conversation. Where no token is needed, what the call's own
        TwiML says counts if Twilio has signed: only the operator's account can have made that.

        Args:
            scope: that of the socket.
            visitor: what `admit_call` has found.
            wanted: what its `start` says.

        Raises:
            Refused: it is nobody.
        """
        if self.is_on and visitor.user_id is None:
            if not wanted.token:
                raise sign_in("Sign in first: the call needs a <Parameter> token.", had_token=False)
            try:
                visitor, token = await self._identify(with_token(scope, wanted.token))
            except BadTokenError as bad:
                raise sign_in(str(bad), had_token=True) from None
            self.quotas.leave(scope)
            await self._enter(scope, visitor, self._address_of_call(scope))
            await self._use(scope, token)
        if visitor.user_id is None and not self.knows_twilio:
            return visitor, self.quotas.rates(visitor), wanted.own, wanted.own
        user_id = visitor.user_id or wanted.user_id or wanted.own
        session_id = visitor.session_id or wanted.session_id or wanted.own
        if not (is_name(user_id) and is_session_id(session_id)):
            raise Refused(404, NOT_FOUND, f"user_id is {NAME}, and session_id is {SESSION_ID}.")
        return visitor, self.quotas.rates(visitor), user_id, session_id

    def _address_of_call(self, scope: Scope) -> str:
        """The address that a call counts for; "": for none, because all calls come from few of Twilio."""
        return "" if self.knows_twilio else address_of(scope)

    def leave(self, scope: Scope) -> None:
        """A WebSocket or a request is over, whether it was admitted or not."""
        self.quotas.leave(scope)

    async def aclose(self) -> None:
        """The server stops. What is open here counts in other processes no more."""
        if self.sharing:
            await self.sharing.aclose()

    async def _identify(self, scope: Scope) -> tuple[Visitor, Token | None]:
        if self._authenticate:
            return await self._ask_host(self._authenticate, scope), None
        if not self._tokens:
            return Visitor(address=address_of(scope)), None
        token = token_of(scope)
        if token is None:
            raise sign_in("Sign in first: this needs a token.", had_token=False)
        try:
            valid = await self._tokens.read(token)
        except BadTokenError as bad:
            raise sign_in(str(bad), had_token=True) from None
        except KeysUnavailableError:
            raise Refused(
                503, STORE_FAILED.because("tokens can't be checked now"), "Tokens can't be checked now."
            ) from None
        return valid.visitor, valid

    async def renew(self, scope: Scope, visitor: Visitor, token: str) -> Visitor:
        """Takes a new token on an open socket.

        Args:
            scope: that of the socket.
            visitor: what the token before it said.

        Raises:
            Refused: the new token would not open this socket, or holds for a shorter time.
        """
        try:
            renewed, read = await self._identify(with_token(scope, token))
        except BadTokenError as bad:
            raise sign_in(str(bad), had_token=True) from None
        if (renewed.user_id, renewed.session_id) != (visitor.user_id, visitor.session_id):
            raise forbidden("The token is another user's, or for another conversation.")
        if (renewed.expires_at or math.inf) < (visitor.expires_at or math.inf):
            raise forbidden("The token expires before the one that is in use.")
        await self._use(scope, read)
        return renewed

    def invite(self, visitor: Visitor, session_id: str, ttl: float, role: str, name: str = "") -> str:
        """A token for one conversation of a user.

        Raises:
            HttpError: there is no secret to sign it with.
        """
        if not (self._tokens and self._tokens.can_issue) or visitor.user_id is None:
            raise HttpError(409, "Invitations are signed with RELAY_SECRET, which is not set.")
        claim = {"session_id": session_id, "role": role}
        return self._tokens.issue(subject_of(visitor.user_id), ttl, name=name, invitation=claim)

    async def _ask_host(self, authenticate: Authenticate, scope: Scope) -> Visitor:
        try:
            found = authenticate(scope)
            answer = await found if inspect.isawaitable(found) else found
            if isinstance(answer, str):
                answer = Visitor(answer)
            if answer is None:
                raise sign_in("Sign in first.", had_token=False)
            if not isinstance(answer, Visitor) or answer.user_id is None:
                raise TypeError("authenticate must return a user's id, a Visitor with a user_id, or None")
            user_id, name = user_id_of(answer.user_id), name_of(answer.name)
            member = user_id if answer.session_id is None else f"{user_id}\n{name}"
            return replace(answer, user_id=user_id, name=name, member=answer.member or member)
        except Refused:
            raise
        except Exception as error:
            log.error("authenticate failed: %s", failure(error))
            raise Refused(500, INTERNAL_ERROR, "The server can't tell who you are.") from None

    async def _use(self, scope: Scope, token: Token | None) -> None:
        if not (self._one_use and token and scope["type"] == "websocket"):
            return
        if not token.jti:
            raise sign_in("The token has no jti, so it can't be used once only.", had_token=True)
        assert token.visitor.expires_at is not None
        is_used = (used := digest(token)) in self._used
        if not is_used and self.sharing:
            left = token.visitor.expires_at - time.time()
            is_used = await self.sharing.take_once(f"token {used.hex()}", left) is False
            is_used = (
                is_used or used in self._used
            )  # meanwhile, while the other processes could not be reached
        if is_used:
            raise sign_in("The token was used already: it opens one socket only.", had_token=True)
        if not self._used.add(used, token.visitor.expires_at):
            raise Refused(503, BUSY, "Too many tokens are in use now.", [(b"retry-after", b"30")])


def _log_refusal(scope: Scope, why: str) -> None:
    """Logs that a request is refused with 403. Of WebSockets `handshake.refuse` does that."""
    if scope["type"] == "http":
        client = scope.get("client")
        log.info("a request from %s was refused: 403 %s", client[0] if client else "?", why)


def guard_of(
    values: Mapping[str, Any], authenticate: Authenticate | None, shared: Shared | None = None
) -> Guard:
    """The guard that the settings ask for. From now on, no log shows tokens."""
    hide_tokens()
    return Guard(
        values["secret"],
        values["jwks"],
        one_use=values["one_use"] == "true",
        authenticate=authenticate,
        origins=Origins(values["origins"], values["hosts"]),
        quotas=quotas_of(values),
        shared=shared,
        twilio_token=values["twilio_token"],
    )


def invitation(fields: dict[str, Any]) -> tuple[float, str, str]:
    """The ttl in seconds, the role and the name that the body of an invitation asks for.

    Raises:
        HttpError: they are not valid.
    """
    ttl, role, name = fields.get("ttl", 3600), fields.get("role", "write"), fields.get("name", "")
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 1 <= ttl <= _MAX_TTL:
        raise HttpError(400, f"ttl is a number of seconds, from 1 to {_MAX_TTL}.")
    if role not in ROLES:
        raise HttpError(400, f"role is {', '.join(ROLES[:-1])} or {ROLES[-1]}.")
    if not isinstance(name, str):
        raise HttpError(400, "name must be a string.")
    return ttl, role, name_of(name)
