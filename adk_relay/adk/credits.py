"""What an answer has cost, and what it is based on: token usage and grounding, collected over a turn."""

from __future__ import annotations

from google.adk.events import Event
from google.genai import types

from adk_relay.core.credits import Grounding, Source, Usage

_SOURCES = 32
"""Sources of one answer at most."""

_SEARCHES = 16
"""Searches of one answer at most."""

_TITLE_CHARS = 300
_URL_CHARS = 2_000

_SUGGESTIONS_CHARS = 32 * 1024
"""Characters of HTML at most. Longer search suggestions are left out: a part of them would not be HTML."""


class Credits:
    """Collects the token usage and the grounding that the events of a turn report.

    A model reports the tokens of each of its generations, and a turn with tools has several: they are added
    up. It may report the same grounding several times.
    """

    def __init__(self) -> None:
        self._usage: Usage | None = None
        self._sources: dict[str, Source] = {}  # by URL
        self._searches: dict[str, None] = {}
        self._suggestions = ""

    def note(self, event: Event) -> None:
        """Takes what an event reports."""
        if usage := event.usage_metadata:
            self._usage = Usage(
                usage.prompt_token_count or 0,
                usage.candidates_token_count or 0,
                usage.thoughts_token_count or 0,
                usage.total_token_count or 0,
            ).plus(self._usage)
        if grounding := event.grounding_metadata:
            self._ground(grounding)

    def take(self) -> tuple[Usage | None, Grounding | None]:
        """All that was reported since the last call."""
        grounding = None
        if self._sources or self._searches or self._suggestions:
            grounding = Grounding(tuple(self._sources.values()), tuple(self._searches), self._suggestions)
        usage = self._usage
        self._usage = None
        self.forget_grounding()
        return usage, grounding

    def forget_grounding(self) -> None:
        """The answer that it belongs to is over, and nobody is told of its end."""
        self._sources = {}
        self._searches = {}
        self._suggestions = ""

    def _ground(self, grounding: types.GroundingMetadata) -> None:
        for chunk in grounding.grounding_chunks or ():
            found = chunk.web or chunk.retrieved_context or chunk.maps
            url = (found and found.uri) or ""
            if found and 0 < len(url) <= _URL_CHARS and len(self._sources) < _SOURCES:
                self._sources.setdefault(url, Source((found.title or "")[:_TITLE_CHARS], url))
        for search in [*(grounding.web_search_queries or ()), *(grounding.retrieval_queries or ())]:
            if len(self._searches) < _SEARCHES:
                self._searches.setdefault(search[:_TITLE_CHARS])
        entry = grounding.search_entry_point
        if entry and entry.rendered_content and len(entry.rendered_content) <= _SUGGESTIONS_CHARS:
            self._suggestions = entry.rendered_content
