"""Formats of their own, in which all that is beside the messages is the same in all requests."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from llmling.models.ways.base import Way, probe

logger = logging.getLogger("llmling.models")

_OF_MESSAGES = frozenset({"messages", "system"})


class FramedWay(Way, ABC):
    """Writes of each request what differs, once that is proven to be the same as what litellm writes.

    litellm looks up all it knows of a model for each body it writes.
    """

    _frame: Mapping[str, Any] | None = None
    """What is the same in all bodies, once it is proven to be."""

    def body(self, messages: list[dict[str, Any]], headers: dict[str, str]) -> dict[str, Any]:
        """Return what is sent; headers that litellm adds for it are in `headers` afterwards."""
        frame = self._frame
        if frame is not None and (self.offer.tools or not any(map(_is_of_tools, messages))):
            return {**frame, **self.written(messages)}
        return super().body(messages, headers)

    @abstractmethod
    def written(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the messages, and what the model is told first, as litellm writes them."""

    def prove(self, headers: dict[str, str]) -> dict[str, Any]:
        """Return the body for messages of every shape we send, and keep of it what is the same in all."""
        short = probe()[:2]
        shown = probe() if self.offer.tools else short
        body = super().body(copy.deepcopy(shown), headers)
        frame = {name: value for name, value in body.items() if name not in _OF_MESSAGES}
        try:
            same = {**frame, **self.written(copy.deepcopy(shown))} == body
            whole = super().body(copy.deepcopy(short[1:]), dict(headers))
            if same and {**frame, **self.written(copy.deepcopy(short[1:]))} == whole:
                self._frame = frame
        except Exception as error:  # noqa: BLE001 - the border to litellm; it writes the whole of each body then
            logger.debug("what litellm writes for %s is not taken apart: %s", self.model, error)
        return body


def _is_of_tools(message: Mapping[str, Any]) -> bool:
    return message["role"] == "tool" or "tool_calls" in message
