"""How much of an answer a user has heard: a model makes sound faster than it is played."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Heard:
    """Of an answer that was interrupted, the user has heard only the beginning.

    It is about the answer that is open, or else about the last one. Only the words that fit stay in the
    conversation. Another one for the same answer may only shorten it further. It is ignored from a listener
    without sound, for an answer without sound, and for one that was over long ago.
    """

    ms: float
    """How many milliseconds of its sound were played, since a lost connection was restored last, if one was
    lost meanwhile; 0: nothing was heard."""
    seq: int = 0
    """The number of a message that belongs to the answer, such as the end of its turn: what is sent may come
    when the next answer has begun. 0: the client does not say."""
    is_users_own: bool = True
    """It comes from the conversation's own user. Who was invited can't take away what others have heard, but
    for an answer that it has interrupted."""
    leaves: bool = False
    """The user hears no more because the client leaves. If others listen, they may hear the rest."""


@dataclass(slots=True, frozen=True)
class Shortened:
    """The users have heard only the beginning of the last answer that has ended."""

    seq: int
    text: str
    """The words that are left; "": none."""
    first: int
    """The number of the answer's first text."""
    after: int
    """The number of the last message that is certainly before the answer."""


_UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
"""A character of a script that has no spaces between words."""

_BREAKS = re.compile(rf"\s|(?<={_UNSPACED})|(?={_UNSPACED})|\Z")


def words_within(text: str, length: float) -> str:
    """The words of a text that are whole within its first `length` characters."""
    ends = (found.start() for found in _BREAKS.finditer(text))
    end = max((end for end in ends if end <= length), default=0)
    while 0 < end < len(text) and unicodedata.category(text[end]).startswith("M"):
        end -= 1  # it belongs to the character before
    return text[:end].rstrip()
