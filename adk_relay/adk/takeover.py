"""A conversation goes on that another process has owned: from what was recorded of it, and its session.

It is the same as after a lost connection to the model. What the session has is what counts: a text that is
not in it is said again, and what the listeners were told of an answer is stored if it is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from google.adk.events import Event

from adk_relay.adk.hosts import Teller
from adk_relay.adk.lines import Lines, Said, cut_answer, said_by
from adk_relay.adk.marks import unheard_of
from adk_relay.adk.rewinds import take_back
from adk_relay.adk.rewound import counts_from
from adk_relay.adk.runs import Runs
from adk_relay.adk.session import StoredSession
from adk_relay.core.heard import Shortened
from adk_relay.core.messages import Line, Numbered, Place, Text, Transcript, TurnEnd, UserText, Written
from adk_relay.core.past import Past
from adk_relay.core.recorded import OpenAnswer, Owing, TextDone, TextSaid
from adk_relay.core.rewind import Rewound
from adk_relay.core.room import Room
from adk_relay.core.writing import Writing


class _Stored:
    """What a session holds of an epoch.

    Args:
        events: the last ones of the session.
    """

    def __init__(self, events: Iterable[Event], epoch: str) -> None:
        self.texts: list[UserText] = []
        """The texts of users that had ids."""
        self.places: set[int] = set()
        """Of the texts of users."""
        self.answers: dict[int, str] = {}
        """The words of the agent, by their place."""
        self.placed: list[tuple[int, Said]] = []
        """All that has a place in the epoch."""
        for event in events:
            said = said_by(event)
            if text := said.user_text:
                self.texts.append(text)
            if not (said.place and said.place.epoch == epoch):
                continue
            seq = said.place.seq
            self.placed.append((seq, said))
            if said.by_user:
                self.places.add(seq)
            elif (words := said.text + said.spoken) and not said.is_stopped:
                self.answers[seq] = self.answers.get(seq, "") + words

    def place_of(self, answer: OpenAnswer) -> int | None:
        """Where an answer is stored, or the beginning of it; None: nowhere."""
        if answer.seq in self.answers:
            return answer.seq
        # An answer that came as a whole was given its place a moment before it was told.
        return next((seq for seq, words in self.answers.items() if words == answer.text), None)

    def rest_of(self, answer: OpenAnswer) -> str:
        """What the listeners were told of an answer, and is not stored."""
        place = self.place_of(answer)
        if place is None:
            # Answers are stored in order: one before the last that is stored was, too, and is not read here.
            is_older = answer.seq < max(self.answers, default=0)
            return "" if is_older else answer.text
        return answer.text[len(self.answers[place]) :]


class Takeover:
    """Lets a conversation begin where another process has left it.

    Args:
        past: what was recorded of it.
        session, room, writing, runs: those of the conversation, which has not begun.
        agent: the name of the agent whose answers are stored, if it is not known.
    """

    def __init__(
        self,
        past: Past,
        session: StoredSession,
        room: Room,
        writing: Writing,
        runs: Runs,
        agent: str,
    ) -> None:
        self._past = past
        self._session = session
        self._room = room
        self._writing = writing
        self._runs = runs
        self._recording = room.recording
        self._agent = agent

    async def perform(self, host: Teller) -> None:
        """Reads the session, stores what is missing in it, and restores all parts of the conversation.

        Raises:
            Exception: the session service failed.
        """
        if emptying := self._past.emptying:
            await self._empty(delete=emptying.delete)
            return
        past, epoch = self._past, self._past.epoch
        if rewinding := past.rewinding:
            place = rewinding.place
            await take_back(self._session, lambda events: place if counts_from(place, events) else None)
            past.forget_answers()
        found = await self._session.read()
        stored = _Stored(found.events if found else (), epoch)
        unsaid = [past.texts[seq] for seq in past.waiting if seq not in stored.places]
        again = {said.text.place.seq for said in unsaid if said.text.place}
        owed = [owing for owing in past.state.owed if owing.seq not in again]
        cut = [*self._cut_answers(stored, owed)]
        unheard = [*self._unheard(found.events if found else ())]
        if cut or unheard:
            found = found or await self._session.find()
            for event in (*cut, *unheard):
                await self._session.append(found, event)
        events = found.events if found else []
        lines = Lines()
        for event in events:
            lines.add(said_by(event))
        counted = [*lines.kept]
        untold = self._restore_history(lines, unsaid, _Stored(events, epoch), self._session.has_more(found))
        if untold and isinstance(untold[-1], Transcript | Written):  # the model may have begun to answer
            owed.append(Owing(0, is_rest=False))
        await self._session.loaded(found, counted, self._room.history)
        self._room.restore(past)
        past.seq = self._room.seq
        self._recording.begin(epoch, past.lines, past)
        self._writing.restore(past, unsaid, stored.texts)
        for seq in past.waiting.keys() - again:
            self._recording.add(TextDone(seq))
        self._restore_runs(owed, resumes=not (owed or cut or untold or rewinding))
        if rewinding:
            count = self._room.history.message_count
            gone = Rewound(host.number(), rewinding.id, rewinding.messages, count)
            for take in (self._room.journal.add, self._recording.told, self._room.broadcast):
                take(gone)  # not the history, which does not have these messages any more
        self._tell(untold, owed, host)

    async def _empty(self, *, delete: bool) -> None:
        """Does the rest of a reset that was under way."""
        await self._session.delete()
        if not delete:
            await self._session.create()
        self._room.emptied = "deleted" if delete else "cleared"
        self._recording.begin(self._room.epoch, 0)

    def _cut_answers(self, stored: _Stored, owed: list[Owing]) -> Iterator[Event]:
        """The events of answers that the listeners were told, and that are not stored."""
        answer = self._past.answer
        for each in (*self._past.ended, *([answer] if answer else [])):
            if each.seq and (rest := stored.rest_of(each)):
                goes_on = each is answer and any(owing.is_rest for owing in owed)
                place = Place(self._past.epoch, stored.place_of(each) or each.seq)
                author = self._past.state.agent or self._agent
                is_cut = each.interrupted or (each is answer and not goes_on)
                yield cut_answer(author, rest, place, goes_on=goes_on, is_cut=is_cut)

    def _unheard(self, events: Iterable[Event]) -> Iterator[Event]:
        """The events that say how much of answers was heard: those that are told, and not stored."""
        stored = [said.unheard for said in map(said_by, events) if said.unheard]
        for message in self._past.messages:
            if isinstance(message, Shortened):
                event = unheard_of(message, self._past.epoch)
                if said_by(event).unheard not in stored:
                    yield event

    def _restore_history(
        self, lines: Lines, unsaid: list[TextSaid], stored: _Stored, has_more: bool
    ) -> list[Numbered]:
        """Begins the history; returns what is stored, and the listeners were not told."""
        past = self._past
        for text in (each.text for each in unsaid):
            lines.add(Said(True, text.text, "", "", False, False, text.place, text.name))
        ids = {message.seq: message.id for message in past.messages if isinstance(message, Written)}
        ids |= {seq: said.text.id for seq, said in past.texts.items()}
        answer = past.answer if past.answer and past.answer.seq else None
        open_at = stored.place_of(answer) if answer else None
        kept: list[Line] = []
        index, tools = 0, lines.loose
        for line, place in zip(lines.kept, lines.places, strict=True):
            seq = place.seq if place and place.epoch == past.epoch else 0
            if line.role == "agent" and seq and seq == open_at:
                index, tools = len(kept), line.tools
            elif seq <= past.seq:
                kept.append(replace(line, id=ids.get(seq, "")) if line.role == "user" else line)
        history = self._room.history
        end = past.lines - (past.rewinding.messages if past.rewinding else 0)
        history.load(kept, has_more=has_more, end=end)
        if past.answer:
            history.reopen(past.answer, index, tools)
        return self._untold(stored, open_at)

    def _untold(self, stored: _Stored, open_at: int | None) -> list[Numbered]:
        """What is stored, and the listeners were not told: without numbers."""
        untold: list[Numbered] = []
        answer = self._past.answer
        if answer and open_at is not None and (rest := stored.answers[open_at][len(answer.text) :]):
            untold.append(Text(0, rest))
        for seq, said in stored.placed:
            if seq <= self._past.seq:
                continue
            if said.heard:
                untold.append(Transcript(0, said.heard, final=True, name=said.name))
            if said.text and said.by_user:
                untold.append(Written(0, said.text, "", said.key[1] if said.key else "", 0, said.name))
            elif (words := said.text + said.spoken) and not said.is_stopped:
                untold.append(Text(0, words, is_transcript=bool(said.spoken)))
        return untold

    def _restore_runs(self, owed: list[Owing], *, resumes: bool) -> None:
        """The next run owes what the one before owed, but for the texts that are said again."""
        past, last = self._past, owed[-1] if owed else None
        said = past.texts.get(last.seq) if last else None
        self._runs.restore(
            past.state,
            "" if last is None else "rest" if last.is_rest else "answer",
            said.text if said else None,
            resumes=resumes,
            is_cut=bool(owed) or past.is_cut,
        )

    def _tell(self, untold: list[Numbered], owed: list[Owing], host: Teller) -> None:
        """Tells the listeners, who have not come yet, what they missed, and that the answer was cut."""
        for message in untold:
            host.emit(replace(message, seq=host.number()))
        if any(owing.is_rest for owing in owed) and not self._past.is_cut:
            host.emit(TurnEnd(host.number(), interrupted=True, goes_on=True))
