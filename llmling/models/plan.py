"""What is the same for all requests of one model with the same tools, schema and settings, asked of litellm once."""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmling.messages import Message
from llmling.models.certified import Provider, provider_of
from llmling.models.dialects.base import Dialect, Splitter
from llmling.models.route import Access, Route
from llmling.models.transport import Target, target_of
from llmling.models.wire import wire_json, wire_messages, wire_schema, wire_tools
from llmling.protocols import ModelRequest, ToolSpec

logger = logging.getLogger("llmling.models")

_MOST = 8
_PROBE: tuple[dict[str, Any], ...] = (
    {"role": "system", "content": "s"},
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": "a", "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}
    ]},
    {"role": "tool", "tool_call_id": "c", "content": "t"},
    {"role": "assistant", "tool_calls": [
        {"id": "d", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]},
    {"role": "tool", "tool_call_id": "d", "content": "t"},
    {"role": "assistant", "content": "a"},
    {"role": "user", "content": "u"},
)  # fmt: skip
"""Every shape of message we send."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How to ask one model: where, with what beside the messages, and how the answer is read."""

    target: Target
    dialect: Dialect
    head: str | None
    """The body as far as its messages, when they go as they are; they are its end."""
    transform: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """Makes the body out of messages, for formats of their own."""
    read_by_litellm: Callable[[bytes, list[dict[str, Any]]], Any]
    """Reads an unusual answer."""
    iterator: Callable[[], Any]
    """Makes what reads unusual pieces of a stream."""

    def body(self, messages: tuple[Message, ...]) -> bytes | None:
        """Return the body of a request, or None when litellm would not write it so."""
        if self.head is not None:
            return f"{self.head}{wire_json(messages)}}}".encode()
        try:
            return json.dumps(self.transform(wire_messages(messages))).encode()
        except Exception as error:  # noqa: BLE001 - the border to litellm; its own way says what is wrong
            logger.debug("a request goes through litellm.acompletion: %s", error)
            return None

    def splitter(self) -> Splitter:
        """Return what cuts a streamed answer into values."""
        return self.dialect.splitter()


@dataclass(frozen=True, slots=True)
class _Offer:
    """What a plan was made for."""

    tools: tuple[ToolSpec, ...]
    schema: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    stream: bool

    def fits(self, request: ModelRequest, stream: bool) -> bool:
        return (
            self.stream is stream
            and self.tools == request.tools
            and self.schema == request.output_schema
            and self.settings == request.settings
        )


class Plans:
    """The plans of one model that were used last, at most eight; None among them: litellm's own way."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: list[tuple[_Offer, Plan | None]] = []

    def clear(self) -> None:
        """Forget them, since the key or the address has changed."""
        self._known.clear()

    def of(self, litellm: Any, route: Route, access: Access, request: ModelRequest, *, stream: bool) -> Plan | None:
        """Return the plan for a request, or None when it must go litellm's way."""
        for place, (offer, plan) in enumerate(self._known):
            if offer.fits(request, stream):
                if place:
                    self._known.insert(0, self._known.pop(place))
                return plan
        offer = _Offer(request.tools, request.output_schema, dict(request.settings), stream)
        plan = _plan(litellm, route, access, offer)
        self._known.insert(0, (offer, plan))
        del self._known[_MOST:]
        return plan


def _plan(litellm: Any, route: Route, access: Access, offer: _Offer) -> Plan | None:
    provider = provider_of(_version(), route.provider, offer.settings)
    if provider is None:
        return None
    try:
        return _Asked(litellm, route, access, offer, provider).plan()
    except Exception as error:  # noqa: BLE001 - the border to litellm; its own way says what is wrong, if anything is
        logger.debug("%s goes through litellm.acompletion: %s", route.name, error)
        return None


class _Asked:
    """What litellm says of one model and offer."""

    def __init__(self, litellm: Any, route: Route, access: Access, offer: _Offer, provider: Provider) -> None:
        self.litellm, self.provider, self.name, self.model = litellm, provider, route.provider, route.model
        self.stream = offer.stream
        utils = _module("litellm.utils")
        given = access.given_key
        _, name, found_key, base = litellm.get_llm_provider(model=route.name, api_base=access.base, api_key=given)
        if name != route.provider:
            raise ValueError(f"the address belongs to {name}")
        self.key: str | None = found_key or given
        self.base: str = base or access.base or provider.default_base(os.environ)
        self.config = utils.ProviderConfigManager.get_provider_chat_config(
            model=self.model, provider=litellm.LlmProviders(name)
        )
        params = _params(route, offer)
        self.optional: dict[str, Any] = utils.get_optional_params(
            model=self.model, custom_llm_provider=name, messages=_probe(), **params
        )
        self.own: dict[str, Any] = _module("litellm.litellm_core_utils.get_litellm_params").get_litellm_params(
            acompletion=True, api_key=self.key, custom_llm_provider=name, api_base=base
        )
        self._refuse_what_is_peculiar(params.get("tools"), base)
        self.optional.pop("max_retries", None)
        self.extra: Mapping[str, Any] = self.optional.pop("extra_body", None) or {}

    def _refuse_what_is_peculiar(self, tools: Any, base: str | None) -> None:
        config, optional = self.config, self.optional
        base_config: Any = _module("litellm.llms.base_llm.chat.transformation").BaseConfig
        # Some models are asked by another interface than chat completions.
        facts, named = _module("litellm.responses.bridge_check").responses_api_bridge_check(
            model=self.model, custom_llm_provider=self.name, tools=tools, api_base=base
        )
        if (
            facts.get("mode") == "responses"
            or named != self.model
            or optional.pop("json_mode", False)
            or optional.pop("fake_stream", False)
            or config.sign_request.__func__ is not base_config.sign_request
            or config.should_fake_stream(model=self.model, stream=self.stream, custom_llm_provider=self.name)
            or config.has_custom_stream_wrapper
            or config.uses_async_transform_request
        ):
            raise ValueError("this model or offer is asked in a way of its own")

    def plan(self) -> Plan:
        """Return the plan.

        Raises:
            ValueError: It cannot be asked our way.
        """
        url, headers = self._head()
        head = self._head_of_body(headers)
        ssl = _module("litellm.llms.custom_httpx.http_handler").get_ssl_configuration()
        config = self.config
        return Plan(
            target=target_of(url, headers, ssl),
            dialect=self.provider.dialect,
            head=head,
            transform=lambda messages: self._body(messages, dict(headers)),
            read_by_litellm=self._read,
            iterator=lambda: config.get_model_response_iterator(
                streaming_response=iter(()), sync_stream=False, json_mode=False
            ),
        )

    def _head(self) -> tuple[str, dict[str, str]]:
        headers = self.provider.headers(os.environ)
        if self.name == "anthropic":
            self.base = _module("litellm.litellm_core_utils.url_utils").ensure_api_route(self.base, "v1/messages")
        headers = self.config.validate_environment(
            headers=headers, model=self.model, messages=_probe(), optional_params=self.optional,
            litellm_params=self.own, api_key=self.key, api_base=self.base,
        )  # fmt: skip
        if self.name == "anthropic":
            return self.base, headers
        url = self.config.get_complete_url(
            api_base=self.base, api_key=self.key, model=self.model, optional_params=self.optional,
            litellm_params=self.own, stream=self.stream,
        )  # fmt: skip
        return url, headers

    def _body(self, messages: list[dict[str, Any]], headers: dict[str, str]) -> dict[str, Any]:
        data = self.config.transform_request(
            model=self.model, messages=messages, optional_params=copy.deepcopy(self.optional),
            litellm_params=dict(self.own), headers=headers,
        )  # fmt: skip
        data.update(self.extra)
        if self.stream:
            data["stream"] = True
        return data

    def _head_of_body(self, headers: dict[str, str]) -> str | None:
        """Return the body as far as its messages when litellm leaves messages of every shape we send as they are.

        What litellm adds to the headers for this offer is in them afterwards.
        """
        short = _probe()[:2]
        body = self._body(copy.deepcopy(short), headers)
        if self.name == "anthropic":
            filtered = _module("litellm.anthropic_beta_headers_manager").update_request_with_filtered_beta(
                headers=dict(headers), request_data=copy.deepcopy(body), provider=self.name, api_base=self.base
            )
            if filtered != (headers, body):
                raise ValueError("litellm takes something out of this request")
            return None
        try:
            other = self._body(_probe(), dict(headers))
        except Exception:  # noqa: BLE001 - the border to litellm, which knows exchanges that it refuses
            return None
        if body.pop("messages", None) != short or other.pop("messages") != _probe() or body != other:
            return None
        return f'{json.dumps(body)[:-1]}, "messages": '

    def _read(self, body: bytes, messages: list[dict[str, Any]]) -> Any:
        return self.config.transform_response(
            model=self.model, raw_response=_Raw(body), model_response=self.litellm.ModelResponse(),
            logging_obj=_NoLog(), request_data={}, messages=messages, optional_params=copy.deepcopy(self.optional),
            litellm_params=dict(self.own), encoding=None, api_key=self.key,
        )  # fmt: skip


@functools.cache
def _version() -> str:
    return importlib.metadata.version("litellm")


def _probe() -> list[dict[str, Any]]:
    return copy.deepcopy(list(_PROBE))


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _params(route: Route, offer: _Offer) -> dict[str, Any]:
    params = dict(offer.settings)
    if offer.tools:
        params["tools"] = wire_tools(offer.tools)
    if offer.schema is not None and route.sends_schema:
        params["response_format"] = wire_schema(offer.schema)
    if offer.stream:
        params |= {"stream": True, "stream_options": {"include_usage": True}}
    return params


class _Raw:
    """As much of an HTTP answer as litellm's `transform_response` reads."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.status_code = 200
        self.headers: dict[str, str] = {}

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        return json.loads(self.content)


class _NoLog:
    """Stands where litellm's logging object is told of an answer."""

    def __init__(self) -> None:
        self.optional_params: dict[str, Any] = {}
        self.model_call_details: dict[str, Any] = {}

    def post_call(self, *_: Any, **__: Any) -> None:
        """Take no notice."""
