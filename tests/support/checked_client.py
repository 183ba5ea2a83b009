"""The terminal client as the tests start it: its link asserts its invariants after all that happens to it."""

from __future__ import annotations

import sys

from adk_relay.client import link


class CheckedLink(link.Link):
    async def take(self, raw: str | bytes) -> None:
        await super().take(raw)
        self.check()

    def ask(self, text: str) -> None:
        super().ask(text)
        self.check()

    async def join(self, session_id: str) -> None:
        await super().join(session_id)
        self.check()

    async def disconnect(self) -> None:
        await super().disconnect()
        self.check()


link.Link = CheckedLink  # type: ignore[misc]

if __name__ == "__main__":
    from adk_relay.client.command import main  # after the link was replaced

    sys.exit(main())
