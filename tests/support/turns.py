"""Random turns of a model: what tests play on both ways of sound, to compare what a listener gets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from adk_relay.core.messages import Interrupt, Message, Text, TurnEnd
from support.client import Json
from support.gemini import Connection, GeminiLive, UserTurn
from support.sound import Attendee

Step = tuple[Any, ...]


def lookup(word: str) -> dict[str, str]:
    """Looks up a word."""
    return {"found": word.upper()}


def sound_part(pcm: bytes, mime_type: str = "audio/pcm;rate=24000", **more: Any) -> Json:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(pcm).decode()}, **more}


def parts(*parts: Json, role: str = "model", **more: Any) -> Json:
    """A frame with these parts, and more fields of its serverContent."""
    return {"serverContent": {"modelTurn": {"role": role, "parts": list(parts)}, **more}}


def written(random: Random, frame: Json) -> str | bytes:
    """A frame as JSON. The service writes it with line breaks and in binary frames; others may not."""
    styles: list[Json] = [{}, {"indent": 2}, {"separators": (",", ":")}]
    text = json.dumps(frame, **random.choice(styles))
    return text if random.random() < 0.5 else text.encode()


def turns(random: Random, count: int = 4) -> list[list[Step]]:
    """Some random turns; each ends with "last N", spoken, and a `turn_complete`."""
    return [_turn(random, number) for number in range(count)]


def _turn(random: Random, number: int) -> list[Step]:
    is_paced = random.random() < 0.5
    steps: list[Step] = []
    if random.random() < 0.4:  # the user stops the answer, or cuts in
        steps += _steps(random, is_paced)
        steps += [("stop", number)] if random.random() < 0.5 else [("frame", {"interrupted": True})]
        steps += [("sound", random.randbytes(1920)) for _ in range(random.randrange(4))]
        steps += _steps(random, is_paced)
        steps += [("complete",)]
    steps += [("frame", {"outputTranscription": {"text": f"last {number}"}})]
    steps += _steps(random, is_paced)
    if random.random() < 0.2:
        steps += [("go_away",), *_steps(random, is_paced)]
    steps += [("frame", {"generationComplete": True})] if random.random() < 0.7 else []
    return [*steps, ("complete",)]


def _steps(random: Random, is_paced: bool) -> list[Step]:
    steps: list[Step] = []
    for _ in range(random.randrange(2, 14)):
        pcm = random.randbytes(2 * random.choice([1, 20, 480, 960, 960, 960, 960, 2400, 13000]))
        word = random.choice(["ei ", "bi ", "ßi 🎈 "])
        name = random.choices(
            ["sound", "spoken", "heard", "text", "thought", "tool", "two", "both", "usage", "handle"],
            [12, 5, 2, 1, 1, 1, 1, 1, 1, 1],
        )[0]
        match name:
            case "sound":
                steps += [("sound", pcm)] * random.randrange(1, 4)
            case "spoken":
                steps.append(("frame", {"outputTranscription": {"text": word}}))
            case "heard":
                steps.append(("frame", {"inputTranscription": {"text": word}}))
            case "text":
                steps.append(("parts", [{"text": word}]))
            case "thought":
                steps.append(("parts", [{"text": word, "thought": True}]))
            case "two":
                steps.append(("parts", [sound_part(pcm), random.choice([{"text": word}, sound_part(pcm)])]))
            case "both":
                steps.append(("parts", [sound_part(pcm)], {"outputTranscription": {"text": word}}))
            case "tool":
                # Up to 2.x the turn is not over before something was said about the result.
                spoken = ("frame", {"outputTranscription": {"text": word}})
                steps += [("tool", word), random.choice([spoken, ("sound", pcm)])]
            case _:
                steps.append((name,))
        if is_paced:
            steps.append(("pause", random.choice([0, 0.001, 0.003])))
    return steps


@dataclass
class Player:
    """A model that plays turns, one for each text of the user."""

    seed: int
    turns: list[list[Step]]
    _next: int = 0
    _calls: int = 0
    _stopped: dict[int, asyncio.Event] = field(default_factory=dict)

    def play_on(self, gemini: GeminiLive) -> None:
        gemini.answer = self._answer

    async def listen(self, attendee: Attendee) -> None:
        """Asks for all turns, and waits until each has come."""
        for number, steps in enumerate(self.turns):
            attendee.ask(f"turn {number}")
            if ("stop", number) in steps:
                await attendee.until(_is_text(f"stop {number}"))
                attendee.say(Interrupt())
                self._stop(number).set()
            await attendee.until(_is_text(f"last {number}"))
            ends = sum(isinstance(each, TurnEnd) for each in attendee.messages)
            if not _ends_with_turn(attendee.messages, f"last {number}"):
                await attendee.turn(ends + 1)

    def sound_parts(self, *, alone: bool) -> int:
        """How many parts of sound are alone in their frames, or are not."""
        steps = [step for turn in self.turns for step in turn]
        if alone:
            return sum(step[0] == "sound" for step in steps)
        return sum("inlineData" in part for step in steps if step[0] == "parts" for part in step[1])

    def _stop(self, number: int) -> asyncio.Event:
        return self._stopped.setdefault(number, asyncio.Event())

    async def _answer(self, connection: Connection, turn: UserTurn) -> None:
        number, self._next = self._next, self._next + 1
        random = Random(self.seed)
        for step in self.turns[number]:
            await self._play(connection, random, step)

    async def _play(self, connection: Connection, random: Random, step: Step) -> None:
        match step:
            case "sound", pcm:
                await connection.send_raw(written(random, parts(sound_part(pcm))))
            case "frame", content:
                await connection.send_raw(written(random, {"serverContent": content}))
            case "parts", some:
                await connection.send_raw(written(random, parts(*some)))
            case "parts", some, more:
                await connection.send_raw(written(random, parts(*some, **more)))
            case "tool", word:
                self._calls += 1
                await connection.call_tool("lookup", {"word": word}, f"call {self._calls}")
            case "stop", number:
                await connection.send({"serverContent": {"outputTranscription": {"text": f"stop {number}"}}})
                await self._stop(number).wait()
            case ("usage",):
                await connection.usage()
            case ("handle",):
                await connection.resumption_update(resumable=random.random() < 0.5)
            case ("go_away",):
                await connection.go_away(60)
            case "pause", seconds:
                await asyncio.sleep(seconds)
            case ("complete",):
                await connection.turn_complete()
            case _:
                raise AssertionError(step)


def _is_text(text: str) -> Callable[[Message], bool]:
    return lambda message: isinstance(message, Text) and message.text == text


def _ends_with_turn(messages: list[Message], text: str) -> bool:
    """Whether a turn has ended after this text."""
    at = next(index for index, message in enumerate(messages) if _is_text(text)(message))
    return any(isinstance(message, TurnEnd) for message in messages[at:])
