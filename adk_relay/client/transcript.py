"""Keeps track of the words that were shown of a conversation, so that each is shown once."""

from __future__ import annotations

import time
from dataclasses import dataclass

from adk_relay.client.http import History, Json, Line
from adk_relay.client.requests import Request, Requests
from adk_relay.client.stats import Stats
from adk_relay.client.untrusted import one_line
from adk_relay.client.view import View

_RECENT = 10
"""How many messages are shown of a conversation that the user joins."""


@dataclass(slots=True)
class _Answer:
    """An answer that is coming."""

    mine: bool = False
    shown: str = ""
    chunks: int = 0
    """The number of its last chunk that is shown."""
    first_at: float = 0.0
    """When its first chunk came."""


class Transcript:
    """Shows the conversation that the link attends.

    While there is a WebSocket, its frames are shown. After a time without one, the history has the messages
    that were missed, and may end with an answer that is still coming.

    Invariants, which `check` asserts:
        The first `seen` messages of the conversation are shown or were passed over. None: the
        conversation was just entered, and only its last messages are to be shown.
        Words of an answer that is coming are shown only together with the number of their last chunk:
        with no chunk, no word.
    """

    def __init__(self, view: View, requests: Requests, stats: Stats, own_ids: set[str]) -> None:
        self.seen: int | None = 0
        self._view = view
        self._requests = requests
        self._stats = stats
        self._own_ids = own_ids
        self._answer: _Answer | None = None

    def check(self) -> None:
        """Asserts the invariants."""
        assert self.seen is None or self.seen >= 0, self.seen
        if self._answer:
            assert self._answer.chunks or not self._answer.shown, self._answer

    def enter(self, seen: int | None) -> None:
        """Another conversation follows, or this one after it was cleared."""
        self._end(interrupted=True)
        self._view.typing("", False)
        self.seen = seen

    def rewound(self, count: int) -> None:
        """What was said last was taken back: `count` messages are left."""
        self.enter(count)
        self._view.notice("What was said last was taken back.")

    # ---- frames ----

    def start(self, frame: Json) -> None:
        """An answer begins."""
        self._end(interrupted=True)
        self._answer = _Answer(self._is_mine(frame))

    def chunk(self, text: str, number: int) -> None:
        """The next words of an answer."""
        self._stats.chunks += 1
        if not self._answer and number == 1:  # the link joined when the answer had no words yet
            self._answer = _Answer()
        if not self._answer or number != self._answer.chunks + 1:
            return  # the history had this chunk; or one is missing, and `complete` brings the whole answer
        self._answer.chunks = number
        self._answer.first_at = self._answer.first_at or time.monotonic()
        self._show(self._answer, self._answer.shown + text)

    def complete(self, frame: Json, text: str, count: int) -> None:
        """An answer has ended. `text` is all of it, and the conversation now has `count` messages."""
        interrupted = bool(frame.get("interrupted"))
        if not self._answer and count <= (self.seen or 0):
            return  # the history had this answer
        answer = self._answer or _Answer()
        if not text.startswith(answer.shown):  # another answer is shown
            self._end(interrupted=True)
            answer.shown = ""
        answer.mine |= self._is_mine(frame)
        self.seen, self._answer = count, answer
        request = self._requests.get(frame.get("id"))
        if request and self._requests.close(request, succeeded=not interrupted):
            self._stats.response_times.append(time.monotonic() - request.at)
            if answer.first_at:
                self._stats.first_token_times.append(answer.first_at - request.at)
        self._end(text[len(answer.shown) :], interrupted=interrupted)
        if lines := sources(frame):
            self._view.sources(lines)

    def added(self, connection_id: str, text: str, count: int) -> None:
        """A user wrote a text, which is message number `count`."""
        if count <= (self.seen or 0):
            return
        self.seen = count
        self._view.typing(connection_id, False)
        if connection_id not in self._own_ids:
            self._view.line(connection_id, text)

    # ---- the history ----

    def catch_up(self, history: History, count: int) -> None:
        """Shows the messages that were missed, up to number `count`. Frames have the messages after it."""
        if self.seen is None:
            self.seen = max(0, count - _RECENT)
        first = history.count - len(history.lines)  # the history has only the end of a long conversation
        start = max(self.seen - first, 0)
        missed = history.lines[start : max(count - first, 0)]
        # An answer that was cut off is the same as the first answer that was missed.
        cut, self._answer, self.seen = self._answer, None, count
        asked: Request | None = None
        # A restarted server will not answer these.
        unanswered = self._stored_since_shown(history.lines[:start], first + 1)
        for number, line in enumerate(missed, first + start + 1):
            if line.is_user:
                asked = self._requests.find(number, line.id, line.text)
                if not asked:
                    fate = " (not answered)" * line.is_unanswered
                    self._view.line("user", f"{line.text}{fate}", line.name)
                elif not line.id:
                    unanswered.append(asked)
                continue
            answer, cut = cut or _Answer(), None
            self._answer = answer
            answer.mine = asked is not None
            if not line.text.startswith(answer.shown):
                self._end(interrupted=True)
                self._answer = answer = _Answer(asked is not None)
            self._show(answer, line.text)
            if line.is_open:
                answer.chunks = line.chunks
                self.seen = count - 1
            else:
                self._end(interrupted=line.is_cut)
                if asked:
                    self._requests.close(asked, succeeded=not line.is_cut)
        if cut:
            self._answer = cut
            self._end(interrupted=True)
        for request in unanswered:
            self._requests.give_up(request)

    def _stored_since_shown(self, shown: list[Line], first: int) -> list[Request]:
        """The requests that an earlier history has shown, and that the server had stored when it was killed.

        Args:
            first: the number of the first of these lines.
        """
        stored = []
        for request in self._requests:
            number, request.number = request.number, None
            if number is None or not first <= number < first + len(shown):
                continue
            line = shown[number - first]
            if line.is_user and self._requests.find(number, line.id, line.text) and not line.id:
                stored.append(request)
        return stored

    def pass_over(self, count: int) -> None:
        """Skips the messages up to number `count`, except the last one, which may be an open answer."""
        self.seen = max(0, count - 1)

    # ---- the answer that is coming ----

    def _is_mine(self, frame: Json) -> bool:
        return (
            self._requests.get(frame.get("id")) is not None
            or str(frame.get("connection_id")) in self._own_ids
        )

    def _show(self, answer: _Answer, text: str) -> None:
        if len(text) > len(answer.shown):
            self._view.chunk(text[len(answer.shown) :], mine=answer.mine)
            answer.shown = text

    def _end(self, rest: str = "", *, interrupted: bool) -> None:
        answer, self._answer = self._answer, None
        if answer:
            self._view.end(rest, mine=answer.mine, interrupted=interrupted)


def sources(frame: Json) -> list[str]:
    """What an answer is based on, as lines: its sources, and what was searched for. It is from the web."""
    match frame.get("grounding"):
        case {"sources": list(found), "searches": list(searches)}:
            lines = [_source(source) for source in found if isinstance(source, dict)]
            searched = ", ".join(one_line(str(search)) for search in searches)
            return [line for line in lines if line] + [f"searched for: {searched}"] * bool(searched)
    return []


def _source(source: Json) -> str:
    title, url = (one_line(str(source.get(name) or "")) for name in ("title", "url"))
    if not url.startswith(("http://", "https://")):
        url = ""  # such as javascript:, which nobody should follow
    return f"source: {title} {url}".strip() if title or url else ""
