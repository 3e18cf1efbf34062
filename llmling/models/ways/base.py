"""What litellm says of one model and what it is offered: where a request goes, what is in it, and how to read more."""

from __future__ import annotations

import copy
import importlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from llmling.models.certified import Provider
from llmling.models.route import Access, Route
from llmling.models.wire import Answer, wire_schema, wire_tools
from llmling.protocols import ModelRequest, ToolSpec

Sign = Callable[[bytes], Mapping[str, str]]
"""Returns the headers of a request with that body."""

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


@dataclass(frozen=True, slots=True)
class Offer:
    """What is the same in many requests of one model."""

    tools: tuple[ToolSpec, ...]
    schema: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    stream: bool

    def fits(self, request: ModelRequest, stream: bool) -> bool:
        """Whether a request is one of them."""
        return (
            self.stream is stream
            and self.tools == request.tools
            and self.schema == request.output_schema
            and self.settings == request.settings
        )


class Way:
    """How one model is asked with one offer, as litellm's configuration of its provider says.

    Raises:
        ValueError: It cannot be asked our way.
    """

    says_stream = True
    """Whether a request says itself that its answer is streamed; else its address does."""

    def __init__(self, litellm: Any, route: Route, access: Access, offer: Offer, provider: Provider) -> None:
        self.litellm, self.provider, self.name, self.model = litellm, provider, route.provider, route.model
        self.offer, self.stream = offer, offer.stream
        utils = module("litellm.utils")
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
            model=self.model, custom_llm_provider=name, messages=probe(), **params
        )
        self.own: dict[str, Any] = module("litellm.litellm_core_utils.get_litellm_params").get_litellm_params(
            acompletion=True, api_key=self.key, custom_llm_provider=name, api_base=base
        )
        self._refuse_what_is_peculiar(params.get("tools"), base)
        self.optional.pop("max_retries", None)
        self.extra: Mapping[str, Any] = self.optional.pop("extra_body", None) or {}

    def _refuse_what_is_peculiar(self, tools: Any, base: str | None) -> None:
        config, optional = self.config, self.optional
        base_config: Any = module("litellm.llms.base_llm.chat.transformation").BaseConfig
        # Some models are asked by another interface than chat completions.
        facts, named = module("litellm.responses.bridge_check").responses_api_bridge_check(
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

    def head(self) -> tuple[str, dict[str, str]]:
        """Return the address and the headers.

        Raises:
            ValueError: It cannot be asked our way.
        """
        headers = self.config.validate_environment(
            headers=self.provider.headers(os.environ), model=self.model, messages=probe(),
            optional_params=self.optional, litellm_params=self.own, api_key=self.key, api_base=self.base,
        )  # fmt: skip
        url = self.config.get_complete_url(
            api_base=self.base, api_key=self.key, model=self.model, optional_params=self.optional,
            litellm_params=self.own, stream=self.stream,
        )  # fmt: skip
        return url, headers

    def body(self, messages: list[dict[str, Any]], headers: dict[str, str]) -> dict[str, Any]:
        """Return what is sent; headers that litellm adds for it are in `headers` afterwards."""
        data = self.config.transform_request(
            model=self.model, messages=messages, optional_params=copy.deepcopy(self.optional),
            litellm_params=dict(self.own), headers=headers,
        )  # fmt: skip
        data.update(self.extra)
        if self.stream and self.says_stream:
            data["stream"] = True
        return data

    def head_of_body(self, headers: dict[str, str]) -> str | None:
        """Return the body as far as its messages when litellm leaves messages of every shape we send as they are.

        What litellm adds to the headers for this offer is in them afterwards.

        Raises:
            ValueError: It cannot be asked our way.
        """
        short = probe()[:2]
        body = self.body(copy.deepcopy(short), headers)
        try:
            other = self.body(probe(), dict(headers))
        except Exception:  # noqa: BLE001 - the border to litellm, which knows exchanges that it refuses
            return None
        if body.pop("messages", None) != short or other.pop("messages") != probe() or body != other:
            return None
        return f'{json.dumps(body)[:-1]}, "messages": '

    def refuse_other_names(self, sent: Iterable[str]) -> None:
        """Refuse tools that are sent by other names than ours; litellm would have to turn them back in each answer.

        Raises:
            ValueError: They are.
        """
        if self.offer.tools and set(sent) != {tool.name for tool in self.offer.tools}:
            raise ValueError("litellm changes the names of the tools")

    def signer(self, url: str, headers: Mapping[str, str]) -> Sign | None:
        """Return what makes the headers of each request, or None when they are the same for all."""
        return None

    def read(self, body: bytes, messages: list[dict[str, Any]]) -> Any:
        """Return an unusual answer as litellm reads it."""
        return self.config.transform_response(
            model=self.model, raw_response=_Raw(body), model_response=self.litellm.ModelResponse(),
            logging_obj=NoLog(), request_data={}, messages=messages, optional_params=copy.deepcopy(self.optional),
            litellm_params=dict(self.own), encoding=None, api_key=self.key,
        )  # fmt: skip

    def iterator(self, answer: Answer) -> Callable[[Any], Any]:
        """Return litellm's reader of the pieces of a stream, for one of which `answer` has been read already."""
        read: Callable[[Any], Any] = self.config.get_model_response_iterator(
            streaming_response=iter(()), sync_stream=False, json_mode=False
        ).chunk_parser
        return read


def probe() -> list[dict[str, Any]]:
    """Return messages of every shape we send."""
    return copy.deepcopy(list(_PROBE))


def module(name: str) -> Any:
    """Return a module of litellm, which has been loaded."""
    return importlib.import_module(name)


def _params(route: Route, offer: Offer) -> dict[str, Any]:
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


class NoLog:
    """Stands where litellm's logging object is told of an answer."""

    def __init__(self) -> None:
        self.optional_params: dict[str, Any] = {}
        self.litellm_params: dict[str, Any] = {}
        self.model_call_details: dict[str, Any] = {}

    def post_call(self, *_: Any, **__: Any) -> None:
        """Take no notice."""
