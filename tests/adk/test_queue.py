"""The queue that ADK reads: what waits while the connection changes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.adk.agents.live_request_queue import LiveRequest

from adk_relay.adk.queue import RequestQueue
from adk_relay.adk.speech import Speech
from adk_relay.core.inbox import Inbox
from adk_relay.core.messages import ActivityStart, AudioEnd, UserAudio
from support.gemini import speech

SOUND = UserAudio(speech(100), is_speech=True)


def a_queue(*, push_to_talk: bool) -> tuple[Inbox, RequestQueue]:
    def nothing(*_: Any) -> None: ...

    async def no_result(_: Any) -> LiveRequest:
        raise AssertionError("there is no result")

    async def never(_: Any) -> bool:
        return False

    inbox = Inbox(on_dropped=nothing)
    speech = Speech(push_to_talk=push_to_talk)
    queue = RequestQueue(inbox, nothing, nothing, nothing, speech, no_result, never, lambda _: {})
    return inbox, queue


async def taken(queue: RequestQueue, count: int) -> list[str]:
    """What ADK gets next, and nothing after it."""
    names: list[str] = []
    for _ in range(count):
        request = await queue.get()
        names.append(next(iter(request.model_fields_set & {"blob", *_SIGNALS})))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)
    return names


_SIGNALS = ("activity_start", "activity_end", "audio_stream_end")


async def test_sound_that_waits_begins_an_activity_on_the_new_connection() -> None:
    inbox, queue = a_queue(push_to_talk=True)
    inbox.add(SOUND)
    assert (await queue.get()).activity_start  # the old connection gets this, and nothing more
    queue.begin_handover()
    assert await taken(queue, 0) == []
    queue.connected()
    assert await taken(queue, 2) == ["activity_start", "blob"]
    inbox.add(AudioEnd())
    assert await taken(queue, 1) == ["activity_end"]


async def test_an_end_without_a_beginning_is_not_for_the_new_connection() -> None:
    inbox, queue = a_queue(push_to_talk=True)
    inbox.add(ActivityStart())
    assert await taken(queue, 1) == ["activity_start"]
    queue.begin_handover()
    inbox.add(AudioEnd())
    queue.connected()
    assert await taken(queue, 0) == []
    inbox.add(SOUND)
    assert await taken(queue, 2) == ["activity_start", "blob"]


async def test_with_detection_the_end_of_sound_is_for_the_new_connection() -> None:
    inbox, queue = a_queue(push_to_talk=False)
    inbox.add(SOUND)
    inbox.add(AudioEnd())
    assert (await queue.get()).blob
    assert (await queue.get()).blob  # the silence before the end
    queue.begin_handover()
    assert await taken(queue, 0) == []
    queue.connected()
    assert await taken(queue, 1) == ["audio_stream_end"]
