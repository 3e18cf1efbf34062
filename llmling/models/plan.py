"""What is the same for all requests of one model with the same tools, schema and settings, asked of litellm once."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDict

from llmling.messages import Message
from llmling.models.certified import provider_of
from llmling.models.dialects.base import Dialect, Splitter
from llmling.models.loading import Once
from llmling.models.route import Access, Route
from llmling.models.transport import Target, target_of
from llmling.models.ways.anthropic import AnthropicWay
from llmling.models.ways.azure import AzureWay
from llmling.models.ways.base import Offer, Sign, Way, module
from llmling.models.ways.bedrock import BedrockWay
from llmling.models.ways.gemini import GeminiWay
from llmling.models.wire import Answer, wire_json, wire_messages
from llmling.protocols import ModelRequest

logger = logging.getLogger("llmling.models")

_MOST = 8
_WAYS: Mapping[str, type[Way]] = {
    "anthropic": AnthropicWay,
    "azure": AzureWay,
    "bedrock": BedrockWay,
    "gemini": GeminiWay,
}
"""Providers that are asked in a way of their own; all others are asked as OpenAI is."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How to ask one model: where, with what beside the messages, and how the answer is read."""

    target: Target
    dialect: Dialect
    head: str | None
    """The body as far as its messages, when they go as they are; they are its end."""
    transform: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """Makes the body out of messages, for formats of their own."""
    sign: Sign | None
    """Makes the headers out of the body, where they depend on it."""
    read_by_litellm: Callable[[bytes, list[dict[str, Any]]], Any]
    """Reads an unusual answer."""
    iterator: Callable[[Answer], Callable[[Any], Any]]
    """Makes what reads unusual pieces of a stream, some of which has been read."""

    def body(self, messages: tuple[Message, ...]) -> bytes | None:
        """Return the body of a request, or None when litellm would not write it so."""
        if self.head is not None:
            return f"{self.head}{wire_json(messages)}}}".encode()
        try:
            return json.dumps(self.transform(wire_messages(messages))).encode()
        except Exception as error:  # noqa: BLE001 - the border to litellm; its own way says what is wrong
            logger.debug("a request goes through litellm.acompletion: %s", error)
            return None

    def target_of(self, body: bytes) -> Target:
        """Return where a request with that body goes."""
        sign = self.sign
        if sign is None:
            return self.target
        same = self.target
        return Target(same.url, CIMultiDict({**same.headers, **sign(body)}), same.proxy, same.ssl)

    def splitter(self) -> Splitter:
        """Return what cuts a streamed answer into values."""
        return self.dialect.splitter()


@dataclass(slots=True)
class _Known:
    """A plan, or how it is being made; None: litellm's own way."""

    offer: Offer
    making: Once
    made: bool = False
    plan: Plan | None = None


class Plans:
    """The plans of one model that were used last, at most eight."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: list[_Known] = []

    def clear(self) -> None:
        """Forget them, since the key or the address has changed."""
        self._known = []

    async def of(
        self, litellm: Any, route: Route, access: Access, request: ModelRequest, *, stream: bool
    ) -> Plan | None:
        """Return the plan for a request, or None when it must go litellm's way."""
        known = self._known
        for place, each in enumerate(known):
            if each.offer.fits(request, stream):
                if place:
                    known.insert(0, known.pop(place))
                break
        else:
            offer = Offer(request.tools, request.output_schema, dict(request.settings), stream)
            # Away from the loop: litellm imports what a provider needs when it is first asked for it.
            each = _Known(offer, Once(functools.partial(_plan, litellm, route, access, offer), "llmling-plan"))
            known.insert(0, each)
            del known[_MOST:]
        if not each.made:
            each.plan, each.made = await each.making.done(), True
        return each.plan


def _plan(litellm: Any, route: Route, access: Access, offer: Offer) -> Plan | None:
    provider = provider_of(_version(), route.provider, offer.settings)
    if provider is None:
        return None
    try:
        return _of_way(_WAYS.get(route.provider, Way)(litellm, route, access, offer, provider))
    except Exception as error:  # noqa: BLE001 - the border to litellm; its own way says what is wrong, if anything is
        logger.debug("%s goes through litellm.acompletion: %s", route.name, error)
        return None


def _of_way(way: Way) -> Plan:
    url, headers = way.head()
    head = way.head_of_body(headers)
    sign = way.signer(url, headers)
    ssl = module("litellm.llms.custom_httpx.http_handler").get_ssl_configuration()
    return Plan(
        target=target_of(url, headers, ssl),
        dialect=way.provider.dialect,
        head=head,
        transform=lambda messages: way.body(messages, dict(headers)),
        sign=sign,
        read_by_litellm=way.read,
        iterator=way.iterator,
    )


@functools.cache
def _version() -> str:
    return importlib.metadata.version("litellm")
