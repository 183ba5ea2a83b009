"""What users write: live texts are said at once, requests wait for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from adk_relay.core.inbox import Inbox, InboxFullError
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Ack, Error, Taken, UserText, Written
from adk_relay.core.requests import Request, Requests
from adk_relay.core.room import Room
from adk_relay.core.texts import Known, Texts

_LOOK_EVERY = 1.0
"""Seconds between two looks at whether it is the next request's turn."""


class Writing:
    """The texts of one conversation, from the listener that sent each to the inbox.

    Args:
        room: is told what was written.
        requests: those of the conversation, which the room knows too.
        inbox: where texts wait for the model.
        is_owed: whether the user waits for an answer of the model's.
        would_cut_in: whether the next request must wait for something else than an answer.
        want: asks for a run.

    Whose request is answered is known in one place: `requests.current`.

    Invariants:
        A text with an id is said once. An id belongs to the first text that had it.
        While requests wait, one is being answered, or a look is to come at whose turn it is.
    """

    def __init__(
        self,
        room: Room,
        requests: Requests,
        inbox: Inbox,
        *,
        is_owed: Callable[[], bool],
        would_cut_in: Callable[[], bool],
        want: Callable[[], None],
    ) -> None:
        self.requests = requests
        self._texts = Texts()
        self._room = room
        self._inbox = inbox
        self._is_owed = is_owed
        self._would_cut_in = would_cut_in
        self._want = want
        self._next: asyncio.Handle | None = None  # the next look at whose turn it is

    # ---- for the listeners ----

    def say(self, text: UserText, listener: Listener) -> None:
        """Takes a live text: the model is given it as soon as it can take it.

        Raises:
            InboxFullError: too much text waits for the model already.
        """
        if not self._is_repeated(text, listener):
            self._say(text, listener)
            self._texts.add(text, listener)

    def ask(self, text: UserText, listener: Listener) -> None:
        """Takes a request: a text whose answer `listener` waits for.

        A repeated id isn't asked again; the latest sender gets the answer.

        Raises:
            BusyError: too many requests wait already.
        """
        if self._is_repeated(text, listener):
            self._hand_over(text, listener)
            return
        self.requests.take(text, listener)
        self._texts.add(text, listener)
        self._room.set_typing(listener, False)
        self._tell_taken(self.requests.waiting[-1], len(self.requests.waiting) - 1)
        self.begin_next()

    def withdraw(self, listener: Listener) -> bool:
        """Gives up the requests of a listener that leaves; returns whether one of them was being answered."""
        current = self.requests.current
        withdrawn = self.requests.withdraw(listener)
        self._forget(request for request in withdrawn if request is not current)
        self._room.reseat()
        if current not in withdrawn:
            return False
        if self.requests.waiting:
            self._look_later()  # the turn goes on without a request: its end may be one that is not told
        return True

    # ---- for the conversation ----

    @property
    def is_answering(self) -> bool:
        """An answer is under way, or a text waits for one."""
        return bool(self.requests.current or self._inbox.has_text or self._is_owed())

    def answered(self) -> None:
        """A turn has ended: the current request has its answer, and the next one may begin."""
        self.requests.answered()
        self._room.reseat()
        self._look_no_more()
        # Only when the turn has noted its end is it known what else is owed.
        self._next = asyncio.get_running_loop().call_soon(self.begin_next)

    def stored(self, text: UserText) -> None:
        """A text is in the session: the listener that waits for its ack gets it."""
        listener = self._texts.stored(text)
        if listener and listener in self._room.listeners:
            listener.deliver(Ack(text.id))

    def begin_next(self) -> None:
        """Says the next request if it is its turn, or looks again later.

        Not all that may be before it (noise, a text that was stopped before its answer began) comes to an end
        that is told.
        """
        self._look_no_more()
        if not self.requests.waiting:
            return
        if self.is_answering or self._would_cut_in():
            self._look_later()
            if self._inbox.has_text or self._is_owed():
                self._want()  # what is before it may wait since the model could not be reached
            return
        request = self.requests.begin()
        self._room.reseat()
        try:
            self._say(request.text, request.listener)
        except InboxFullError as full:  # of pictures; texts wait their turn
            self._texts.forget(request.text)
            self.drop(str(full))

    def drop(self, why: str = "") -> None:
        """Gives up all requests; those that wait for an answer are told why, if there is a reason to tell."""
        self._forget([*self.requests.waiting])
        failed = self.requests.fail()
        self._room.reseat()
        for request in failed if why else ():
            request.listener.deliver(Error("busy", why, request.text.id))

    def drop_unsaid(self) -> None:
        """Throws away what waits for the model. Its texts can be sent again."""
        for text in self._inbox.clear():
            self._texts.forget(text)

    def keep_waiting(self) -> None:
        """No request is answered any more. Those of a room were said there: they are kept with the rest."""
        for request in self.requests.fail_waiting():
            if request.listener.attends != "own":
                try:
                    self._inbox.add(request.text)
                except InboxFullError:
                    self._texts.forget(request.text)  # it can be sent again

    def clear(self) -> None:
        """The conversation was emptied. Its texts were said, and are gone with the rest.

        Requests that were made meanwhile wait on.
        """
        self._inbox.clear()
        waiting = {request.text.id for request in self.requests.waiting}
        for text_id, listener in self._texts.clear(but=waiting):
            if listener in self._room.listeners:
                listener.deliver(Ack(text_id))

    def close(self) -> None:
        """The conversation is over: no request is begun any more."""
        self.drop()
        self._look_no_more()

    def check(self) -> None:
        """Asserts what of the invariants can be seen from here."""
        looks_again = self._next or self.requests.current
        assert looks_again or not self.requests.waiting, "requests wait, and nobody will look again"

    def _look_later(self) -> None:
        self._look_no_more()
        self._next = asyncio.get_running_loop().call_later(_LOOK_EVERY, self.begin_next)

    def _look_no_more(self) -> None:
        if self._next:
            self._next.cancel()
            self._next = None

    # ---- texts ----

    def _say(self, text: UserText, listener: Listener) -> None:
        self._inbox.add(text)
        self._room.set_typing(listener, False)
        written = Written(self._room.number(), text.text, listener.connection_id, text.id, 0)
        self._room.publish(written, but=listener)
        self._want()

    def _is_repeated(self, text: UserText, listener: Listener) -> bool:
        """Whether a text's id is known; if so, its sender is told, and the text is not said again."""
        match self._texts.look_up(text):
            case Known.NEW:
                return False
            case Known.TAKEN:
                why = "This id was already used for another text: give each text a new random id."
                listener.deliver(Error("bad_data", why, text.id))
            case Known.STORED:
                listener.deliver(Ack(text.id))
            case Known.WAITING:
                self._texts.add(text, listener)
                self._want()  # the text may wait since the model could not be reached
        return True

    def _forget(self, requests: Iterable[Request]) -> None:
        """These were never said: they can be sent again."""
        for request in requests:
            self._texts.forget(request.text)

    # ---- requests ----

    def _hand_over(self, text: UserText, listener: Listener) -> None:
        """A request was sent again, because its socket was lost: the new sender gets the answer."""
        if not (found := self.requests.find(text)):
            return
        request, before = found
        request.listener = listener
        if request is self.requests.current:
            self._room.reseat()
        else:
            self._tell_taken(request, before)

    def _tell_taken(self, request: Request, before: int) -> None:
        """Tells who asked how many are answered before: those in the queue, and the answer under way."""
        ahead = before + self.is_answering
        request.listener.deliver(Taken(request.text, ahead, self._room.history.message_count))
