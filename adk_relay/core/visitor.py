"""Visitors: who a client is, what it may do, and until when."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

GUEST = "guest"
"""The user whose conversations are shared by all clients where nobody signs in."""

MAX_NAME_CHARS = 64
MAX_USER_CHARS = 128
"""The longest user id, as in the path of the live dialect."""


@dataclass(slots=True, frozen=True)
class Visitor:
    """What the guard has found out about the client of a socket or a request.

    Attributes:
        user_id: the user whose conversations it reaches; None: nobody has to sign in, so the user in the
            path counts, or else `GUEST`.
        name: what the others in a conversation are told; "": nothing.
        session_id: it was invited to this one conversation of the user; None: it is the user, who
            reaches all of them.
        may_write: it may say something; otherwise it only listens.
        expires_at: until when all this holds, as `time.time()`; None: without an end.
        member: who it is among those in a conversation: the user, or one whom the user has invited; "": that
            is not known.
        address: where it is, if it has not signed in; "": that is not known, or it is this machine.
        may_manage: it was invited, and may also clear and delete the conversation.
    """

    user_id: str | None = None
    name: str = ""
    session_id: str | None = None
    may_write: bool = True
    expires_at: float | None = None
    member: str = field(default="", compare=False)
    address: str = field(default="", compare=False)
    may_manage: bool = False

    @property
    def may_empty(self) -> bool:
        """Whether it may clear and delete the conversations that it reaches."""
        return self.session_id is None or self.may_manage

    @property
    def owner(self) -> str:
        """The user whose conversations it reaches where no path names a user."""
        return GUEST if self.user_id is None else self.user_id

    @property
    def role(self) -> str:
        """What it was invited to do; "": it is the user, or a listener that the host has named."""
        if not self.may_write:
            return "listen"
        if self.session_id is None:
            return ""
        return "manage" if self.may_manage else "write"

    def reaches(self, session_id: str) -> bool:
        """Whether it may ask for this conversation of the user at all."""
        return self.session_id in (None, session_id)


def user_id_of(subject: str) -> str:
    """The user id for what a token or a host calls a user: `ann@example.com` becomes `ann~40example.com`.

    User ids have only characters that need no escape in a URL. All others, and `~` itself, are written as
    `~` and two hexadecimal digits for each byte. So two subjects never become the same user.

    Raises:
        ValueError: it is empty, too long, or no valid Unicode.
    """
    user_id = re.sub(
        r"[^A-Za-z0-9._-]", lambda found: "".join(f"~{byte:02X}" for byte in found[0].encode()), subject
    )
    if not 1 <= len(user_id) <= MAX_USER_CHARS:
        raise ValueError(f"a user has 1 to {MAX_USER_CHARS} characters")
    return user_id


def subject_of(user_id: str) -> str:
    """The subject that `user_id_of` turns into this user id."""
    plain = re.sub(rb"~([0-9A-F]{2})", lambda found: bytes.fromhex(found[1].decode()), user_id.encode())
    return plain.decode()


def name_of(text: str) -> str:
    """A person's name, as the others are told it: printable characters in one line, at most 64."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())[:MAX_NAME_CHARS]
