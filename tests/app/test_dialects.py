"""All three dialects against one conversation."""

from __future__ import annotations

import asyncio

import pytest
from websockets.exceptions import ConnectionClosed

from support.chat import Chat, chat, created, guest, http, stored, turn
from support.client import Client, Json, client
from support.gemini import Connection, GeminiLive, UserTurn
from support.server import a_relay, serving

pytestmark = [pytest.mark.usefixtures("no_errors"), pytest.mark.bus]


async def test_all_dialects_at_once_see_one_conversation(gemini: GeminiLive) -> None:
    async def answer(connection: Connection, turn: UserTurn) -> None:
        await connection.say(f"You said: {turn.text}.", delay=0.001)

    async def ask(who: Chat, name: str) -> None:
        for number in range(5):
            await who.chat(f"{name}{number}")

    async def request(name: str) -> Json:
        return await turn(port, session_id, name)

    async def post(name: str) -> Json:
        async with http(port) as web:
            response = await web.post("/api/v1/chat", json={"session_id": session_id, "message": name})
        assert response.status_code == 200
        said: Json = response.json()
        return said

    async def say(who: Client) -> None:
        for number in range(5):
            await who.say(f"live{number}")
            await who.until(lambda said: said.get("turn_complete") or said.get("interrupted"))

    gemini.answer = answer
    relay = a_relay()
    async with serving(relay) as port, http(port) as web:
        session_id = await created(port)
        async with (
            chat(port, session_id) as one,
            chat(port, session_id) as two,
            guest(port, session_id) as live,
            guest(port, session_id, audio=True) as listening,
        ):
            _, _, _, requested, posted = await asyncio.gather(
                ask(one, "one"), ask(two, "two"), say(live), request("turn"), post("post")
            )
            # A last request, when all others are answered: nothing interrupts it.
            while (await web.get("/stats")).json()["successful_requests"] < 5 + 5 + 1 + 1:
                pass
            await one.chat("last")
            for who in (one, two):
                await who.until(lambda said: said.get("full_response") == "You said: last.")
            for hearer in (live, listening):
                await hearer.until(lambda said: said.get("data", "").endswith(" last."))
                await hearer.turn()
            answers = [(one_["full_response"], "interrupted" in one_) for one_ in one.of("response_complete")]
            assert [
                (one_["full_response"], "interrupted" in one_) for one_ in two.of("response_complete")
            ] == answers
            for hearer in (live, listening):
                heard, text = [], ""
                for said in hearer.frames:
                    if said.get("mime_type") == "text/plain":
                        text += said["data"]
                    elif "turn_complete" in said:
                        heard.append((text, bool(said["interrupted"])))
                        text = ""
                assert heard == answers
            # All others are told of each text, in the order in which the model got them.
            given = gemini.connections[0].texts
            assert len(given) == len(set(given)) == 5 + 5 + 5 + 1 + 1 + 1
            for who, own in ((one, ("one", "last")), (two, ("two",))):
                told = [said["message"] for said in who.of("message_added")]
                assert told == [text for text in given if not text.startswith(own)]
            for hearer, own in ((live, ("live",)), (listening, ("none",))):
                told = [said["text"] for said in hearer.frames if said.get("type") == "message"]
                assert told == [text for text in given if not text.startswith(own)]
            # All count the same.
            counts = [said["message_count"] for said in one.of("response_complete")]
            assert counts == sorted(counts) == [said["message_count"] for said in two.of("response_complete")]
            for who in (one, two):
                seen = [said["message_count"] for said in who.frames if "message_count" in said]
                assert seen == sorted(seen)
            history = (await web.get(f"/sessions/{session_id}")).json()
            assert history["message_count"] == counts[-1] == len(history["history"])
            assert [line["text"] for line in history["history"] if line["role"] == "user"] == given
            for response, name in ((requested, "turn"), (posted, "post")):
                assert f"You said: {name}.".startswith(response["content"])
                assert (response["content"], "interrupted" in response) in answers
            kept = await stored(relay, session_id)
            assert kept is not None
            assert [text for who_, text in kept if who_ == "user"] == given
    assert gemini.connects == 1


async def test_each_dialect_is_spoken_to_in_its_own(gemini: GeminiLive) -> None:
    async with serving(a_relay()) as port, chat(port) as chatting:
        await chatting.send(type="create_session")
        session_id = (await chatting.get("session_created"))["session_id"]
        async with guest(port, session_id, audio=True) as live, client(port, "bob") as bob:
            assert await live.ask("by live") == "You said: by live."
            added = await chatting.get("message_added")
            assert (added["message"], added["connection_id"]) == ("by live", live.hello["connection_id"])
            assert (await chatting.get("response_complete"))["full_response"] == "You said: by live."
            assert (await turn(port, session_id, "by turn"))["content"] == "You said: by turn."
            frames = await live.turn()
            assert [said["text"] for said in frames if said.get("type") == "message"] == ["by turn"]
            assert (await chatting.get("response_complete"))["message_count"] == 4
            assert await chatting.ask("by chat") == "You said: by chat."
            frames = await live.turn()
            assert frames[0]["connection_id"] == chatting.hello["connection_id"]
            assert live.audio == bytes(gemini.connections[0].sound)
            await live.send(type="typing_start")
            assert (await chatting.get("user_typing"))["typing"] is True
            await chatting.send(type="typing_start")
            typing = await live.until(lambda said: said.get("type") == "typing")
            assert typing[-1]["connection_id"] == chatting.hello["connection_id"]
            assert await bob.ask("and I?") == "You said: and I?."  # in another conversation
            assert not any(said.get("type") == "message" for said in bob.frames)
        with pytest.raises(ConnectionClosed):
            await bob.next()
