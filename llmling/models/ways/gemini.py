"""Gemini: an address for each model, and a format of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from llmling.models.ways.base import NoLog, Way, module, probe
from llmling.models.wire import Answer

_ONE_ANSWER = 65_536
"""The most tokens one answer has; where more are wanted, litellm asks for what follows."""
_BUDGET = "LITELLM_GEMINI_DEFAULT_MAX_OUTPUT_TOKENS"
_CHAT = "litellm.llms.vertex_ai.gemini.vertex_and_google_ai_studio_gemini"


class GeminiWay(Way):
    """How a model of Google's AI Studio is asked."""

    def head(self) -> tuple[str, dict[str, str]]:
        """Return the address and the headers.

        Raises:
            ValueError: An answer of several parts is wanted.
        """
        self.optional.pop("stream", None)
        if self.optional.get("max_output_tokens", 0) > _ONE_ANSWER or os.environ.get(_BUDGET) or self.extra:
            raise ValueError("litellm puts more into this request, or makes several of it")
        env = os.environ
        key = (env.get("GOOGLE_API_KEY") if self.key == env.get("GEMINI_API_KEY") else None) or self.key
        known, url = module(_CHAT).VertexLLM().get_token_and_url(
            model=self.model, auth_header=None, gemini_api_key=key, vertex_project=None, vertex_location=None,
            vertex_credentials=None, stream=self.stream, custom_llm_provider=self.name, api_base=self.base or None,
        )  # fmt: skip
        headers = self.config.validate_environment(
            headers=None, model=self.model, messages=probe(), optional_params=self.optional,
            litellm_params=self.own, api_key=known,
        )  # fmt: skip
        return url, headers

    def body(self, messages: list[dict[str, Any]], headers: dict[str, str]) -> dict[str, Any]:
        """Return what is sent."""
        data: dict[str, Any] = module("litellm.llms.vertex_ai.gemini.transformation").transform_request_body(
            messages=messages, model=self.model, optional_params=dict(self.optional), custom_llm_provider=self.name,
            litellm_params=dict(self.own), cached_content=None,
        )  # fmt: skip
        return data

    def head_of_body(self, headers: dict[str, str]) -> str | None:
        """Return None, for its messages are in a format of their own.

        Raises:
            ValueError: The names of the tools are not sent as they are.
        """
        offered = self.body(probe(), headers).get("tools", ())
        self.refuse_other_names(one["name"] for each in offered for one in each["function_declarations"])
        return None

    def iterator(self, answer: Answer) -> Callable[[Any], Any]:
        """Return litellm's reader of the pieces of a stream, for one of which `answer` has been read already."""
        reader = module(_CHAT).ModelResponseIterator(
            streaming_response=iter(()), sync_stream=False, logging_obj=NoLog()
        )
        reader.cumulative_tool_call_index = len(answer.calls)
        reader.has_seen_tool_calls = bool(answer.calls)
        read: Callable[[Any], Any] = reader.chunk_parser
        return read
