"""The texts that users write: live texts are said at once, requests wait for their turn.

A text is *said* when it goes into the inbox and the other listeners are shown it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from adk_relay.core.absent import Absent
from adk_relay.core.inbox import Inbox, InboxFullError
from adk_relay.core.listener import Listener
from adk_relay.core.messages import Ack, Ended, Error, Taken, UserText, Written
from adk_relay.core.past import Past
from adk_relay.core.recorded import Requested, TextDone, TextSaid
from adk_relay.core.requests import Request, Requests
from adk_relay.core.room import Room
from adk_relay.core.texts import Known, Texts

_LOOK_EVERY = 1.0
"""Seconds between two checks whether the next request can begin."""


class Writing:
    """The texts of one conversation, from the listener that sent each to the inbox.

    Args:
        room: shows the texts to the other listeners.
        requests: the conversation's requests; the room has the same object.
        inbox: where texts wait for the model.
        is_owed: returns whether the model owes the user an answer.
        would_cut_in: returns whether the model could take a new request for a part of something else.
        want: asks for a run.
        sets_state: entered with the `state_delta` of a text while it is taken; raises InboxFullError if there
            is no room for it.

    Only `requests.current` says which request is being answered.

    Invariants:
        A text with an id is said once. An id belongs to the first text that had it.
        While requests wait, one is being answered, or a call of `begin_next` is scheduled.
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
        sets_state: Callable[[Any], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.requests = requests
        self._texts = Texts()
        self._room = room
        self._inbox = inbox
        self._is_owed = is_owed
        self._would_cut_in = would_cut_in
        self._want = want
        self._sets_state = sets_state
        self._next: asyncio.Handle | None = None  # the scheduled call of `begin_next`

    # ---- for the listeners ----

    def say(self, text: UserText, listener: Listener) -> None:
        """Takes a live text. The model gets it as soon as it can take it.

        Raises:
            InboxFullError: too much text waits for the model already.
        """
        text = replace(text, member=listener.member)
        if not self._is_repeated(text, listener):
            with self._sets_state(text.state_delta):
                self._say(text, listener)
            self._texts.add(text, listener)

    def ask(self, text: UserText, listener: Listener) -> None:
        """Takes a request: a text whose answer `listener` waits for.

        A repeated id isn't asked again; the latest sender gets the answer.

        Raises:
            BusyError: too many requests wait already.
            InboxFullError: there is no room for what it sets in the state.
        """
        text = replace(text, member=listener.member)
        if self._is_repeated(text, listener):
            if not self._hand_over(text, listener) and listener.attends == "own":
                self._answer_again(text, listener)
            return
        with self._sets_state(text.state_delta):
            request, before = self.requests.take(text, listener)
        self._texts.add(text, listener)
        self._room.set_typing(listener, False)
        self._tell_taken(request, before)
        self.begin_next()

    def withdraw(self, listener: Listener) -> bool:
        """Gives up the requests of a listener that leaves; returns whether one of them was being answered."""
        current = self.requests.current
        withdrawn = self.requests.withdraw(listener)
        self._forget(request for request in withdrawn if request is not current)
        self._room.update_audience()
        if current not in withdrawn:
            return False
        if self.requests.waiting:
            self._schedule_next()  # the turn goes on without a request, and its end may not be reported
        return True

    def withdraw_absent(self) -> bool:
        """Gives up the requests of "own" listeners that have not come again; returns as `withdraw`."""
        current = self.requests.current
        open_requests = [*self.requests.waiting, *([current] if current else [])]
        were_answered = [self.withdraw(each.listener) for each in open_requests if each.is_abandoned]
        return any(were_answered)

    # ---- for the conversation ----

    def load(self, stored: Iterable[UserText]) -> None:
        """Begins with the texts that are in the session."""
        self._texts.load(stored)

    def restore(self, past: Past, unsaid: Iterable[TextSaid], stored: Iterable[UserText]) -> None:
        """Goes on with the texts of an owner before.

        Args:
            unsaid: those that are not in the session. The others were shown them already.
            stored: those that are in the session.
        """
        self._texts.load(stored)
        for said in unsaid:
            self._texts.add(said.text, Absent(said.connection_id, said.text.name, said.text.member))
            self._inbox.add(said.text)
        current = _request(past.current) if past.current else None
        waiting = []
        for request in map(_request, past.requests):
            if self._texts.look_up(request.text) is Known.STORED:
                current = request  # that it had begun was not recorded any more
            else:
                waiting.append(request)
        self.requests.restore(waiting, current)
        for request in self.requests.waiting:
            self._texts.add(request.text, request.listener)
        self._room.update_audience()

    @property
    def is_answering(self) -> bool:
        """An answer is under way, or a text waits for one."""
        return bool(self.requests.current or self._inbox.has_text or self._is_owed())

    def is_under_way(self) -> bool:
        """Whether an answer is given or waited for, also one that no text has asked for."""
        return self.is_answering or self._room.history.is_answering

    def answered(self) -> None:
        """A turn has ended: the current request has its answer, and the next one may begin."""
        self.requests.answered()
        self._room.update_audience()
        self._cancel_next()
        # Not called at once: what else is owed is known only after the turn has changed its state.
        self._next = asyncio.get_running_loop().call_soon(self.begin_next)

    def stored(self, text: UserText) -> None:
        """A text is in the session: the listener that waits for its ack gets it."""
        self._is_done(text)
        listener = self._texts.stored(text)
        if listener and listener in self._room.listeners:
            listener.deliver(Ack(text.id))

    def begin_next(self) -> None:
        """Says the next request if nothing is before it. Otherwise it schedules another check.

        The check is repeated, because some things before a request never report their end: noise, or a text
        that was stopped before its answer began.
        """
        self._cancel_next()
        if not self.requests.waiting:
            return
        if self.is_answering or self._would_cut_in():
            self._schedule_next()
            if self._inbox.has_text or self._is_owed():
                self._want()  # the text before it may wait because the model could not be reached
            return
        request = self.requests.begin()
        if not request:
            self._schedule_next()
            return
        self._room.update_audience()
        try:
            self._say(request.text, request.listener)
        except InboxFullError as full:  # with pictures: no text is in the inbox here
            self._texts.forget(request.text)
            self.drop(str(full))

    def drop(self, why: str = "") -> None:
        """Gives up all requests. Their listeners get `why` as an error, unless it is empty."""
        self._forget([*self.requests.waiting])
        failed = self.requests.fail()
        self._room.update_audience()
        for request in failed if why else ():
            request.listener.deliver(Error("busy", why, request.text.id))

    def fail_current(self) -> bool:
        """The current request is going to fail: its text is not asked later. Returns whether one is."""
        current = self.requests.current
        if current and (text := self._inbox.discard(current.text)):
            self._is_done(text)
            self._texts.forget(current.text)
        return current is not None

    def knows(self, text: str, text_id: str, listener: Listener) -> bool:
        """Whether the member of a listener has written this text, with this id."""
        looked_up = UserText(text, text_id, member=listener.member)
        return bool(text_id) and self._texts.look_up(looked_up) in (Known.WAITING, Known.STORED)

    def give_up(self, text: UserText) -> None:
        """A text that waits for the model is taken back. It gets an ack, so that it is not sent again."""
        if self._inbox.discard(text):
            self.stored(text)

    def drop_unsaid(self, why: str) -> None:
        """Removes all input that waits for the model. Its texts can be sent again: the senders get `why`."""
        for text in self._inbox.clear():
            self._is_done(text)
            listener = self._texts.forget(text)
            if listener and listener in self._room.listeners:
                listener.deliver(Error("busy", why, text.id))

    def keep_waiting(self) -> None:
        """Gives up the requests that wait. Their texts go to the inbox, and are stored with what waits there.

        The texts of "own" listeners are dropped: their clients get an error instead of the answer.
        """
        for request in self.requests.fail_waiting():
            if request.listener.attends != "own":
                try:
                    self._inbox.add(request.text)
                except InboxFullError:
                    self._texts.forget(request.text)  # it can be sent again

    def clear(self) -> None:
        """The conversation was emptied, with its texts. They get an ack, so that they are not sent again.

        Requests that came during the reset still wait.
        """
        self._inbox.clear()
        waiting = {request.text.key for request in self.requests.waiting}
        for text_id, listener in self._texts.clear(but=waiting):
            if listener in self._room.listeners:
                listener.deliver(Ack(text_id))

    def close(self) -> None:
        """The conversation is over: no request begins any more."""
        self.drop()
        self._cancel_next()

    def check(self) -> None:
        """Asserts the invariants, as far as they can be checked here."""
        goes_on = self._next or self.requests.current
        assert goes_on or not self.requests.waiting, "requests wait, and `begin_next` is not scheduled"

    def _schedule_next(self) -> None:
        self._cancel_next()
        self._next = asyncio.get_running_loop().call_later(_LOOK_EVERY, self.begin_next)

    def _cancel_next(self) -> None:
        if self._next:
            self._next.cancel()
            self._next = None

    # ---- texts ----

    def _say(self, text: UserText, listener: Listener) -> None:
        by = listener.connection_id
        self._inbox.add(text := replace(text, place=self._room.place(), name=listener.name))
        self._room.recording.add(TextSaid(text, by))
        written = Written(self._room.number(), text.text, by, text.id, 0, listener.name)
        self._room.set_typing(listener, False)
        self._room.publish(written, but=listener)
        self._want()

    def _is_repeated(self, text: UserText, listener: Listener) -> bool:
        """Whether a text's id is known. If so, its sender is told, and the text must not be said again."""
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
                self._want()  # the text may wait because the model could not be reached
        return True

    def _is_done(self, text: UserText) -> None:
        """A text is not to be said again."""
        if text.place:
            self._room.recording.add(TextDone(text.place.seq))

    def _forget(self, requests: Iterable[Request]) -> None:
        """Forgets the texts of requests that were never said, so that they can be sent again."""
        for request in requests:
            self._texts.forget(request.text)

    # ---- requests ----

    def _hand_over(self, text: UserText, listener: Listener) -> bool:
        """Gives the answer of a repeated request to its new sender: the old socket was lost.

        Returns:
            Whether it is open.
        """
        if not (found := self.requests.find(text)):
            return False
        request, before = found
        request.listener = listener
        if request is self.requests.current:
            self._room.update_audience()
        else:
            self._tell_taken(request, before)
            self.begin_next()
        return True

    def _answer_again(self, text: UserText, listener: Listener) -> None:
        """Gives a listener the answer to a request that is over, which an owner before could not do."""
        if end := self._room.journal.end_of_answer(text.id):
            listener.deliver(end)
        else:
            listener.deliver(Error("agent_failed", "The answer is lost: ask again.", text.id))
            listener.deliver(Ended("failed"))

    def _tell_taken(self, request: Request, before: int) -> None:
        """Tells the listener how many answers come first: those of the queue, and the one under way."""
        ahead = before + self.is_answering
        request.listener.deliver(Taken(request.text, ahead, self._room.history.message_count))


def _request(found: Requested) -> Request:
    """A request of an owner before. Whoever asks again takes the place of its listener."""
    text, member = found.text, found.member
    listener = Absent(
        found.connection_id, found.name, text.member, member.address, "own" if found.is_own else "all"
    )
    return Request(text, listener, member, found.number)
