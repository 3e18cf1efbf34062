"""Tools as they were accepted: what a server offers is held against the lock file, if there is one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from llmling.errors import ToolError
from llmling.manifest.pins import Pins
from llmling.tools.mcp.tool import Offer


class Guard:
    """Lets the tools of one server through that are as they were accepted; without `pins` all of them.

    One that changed keeps its name and nothing else, so that no model reads what nobody has read, and a call says why
    it is refused. One that is new is left out.
    """

    def __init__(self, server: str, pins: Pins | None, log: logging.Logger) -> None:
        self._server = server
        self._pins = pins
        self._log = log
        self._refused: dict[str, str] = {}
        self._told: set[tuple[str, str]] = set()

    def admit(self, offers: Sequence[Offer]) -> list[Offer]:
        """Return the offers that may be shown; each change is told once."""
        if self._pins is None:
            return list(offers)
        accepted: Mapping[str, str] = self._pins.servers.get(self._server, {})
        shown: list[Offer] = []
        refused: dict[str, str] = {}
        for offer in offers:
            known = accepted.get(offer.name)
            if known == offer.digest:
                shown.append(offer)
                continue
            refused[offer.name] = why = self._reason(offer.name, new=known is None)
            if known is not None:
                bare: dict[str, Any] = {"type": "object", "properties": {}}
                shown.append(Offer(offer.name, f"Do not call it: {why}", bare, repeatable=True, destructive=False))
            if (offer.name, offer.digest) not in self._told:
                self._told.add((offer.name, offer.digest))
                self._log.warning("%s", why)
        self._refused = refused
        return shown

    def check(self, tool: str) -> None:
        """Refuse a call of a tool that nobody accepted as it is now.

        Raises:
            ToolError: It changed, or is new; the message has the command that accepts it.
        """
        if (why := self._refused.get(tool)) is not None:
            raise ToolError(why)

    def _reason(self, tool: str, *, new: bool) -> str:
        assert self._pins is not None  # noqa: S101
        what = "is not in" if new else "has changed since it was written to"
        return (
            f"tool {tool!r} of MCP server {self._server!r} is refused: its definition {what} {self._pins.path.name}; "
            f"a person looks at it and accepts it with `{self._pins.accept}`"
        )
