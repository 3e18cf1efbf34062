"""Anthropic: some features are named in a header, which litellm takes out again where they are not offered."""

from __future__ import annotations

import copy
import functools
import os
from typing import Any

from llmling.models.ways.base import module, probe
from llmling.models.ways.framed import FramedWay


class AnthropicWay(FramedWay):
    """How a model of Anthropic is asked."""

    def head(self) -> tuple[str, dict[str, str]]:
        """Return the address and the headers."""
        self.base = module("litellm.litellm_core_utils.url_utils").ensure_api_route(self.base, "v1/messages")
        headers = self.config.validate_environment(
            headers=self.provider.headers(os.environ), model=self.model, messages=probe(),
            optional_params=self.optional, litellm_params=self.own, api_key=self.key, api_base=self.base,
        )  # fmt: skip
        return self.base, headers

    def head_of_body(self, headers: dict[str, str]) -> str | None:
        """Return None, for its messages are in a format of their own.

        Raises:
            ValueError: It cannot be asked our way.
        """
        body = self.prove(headers)
        filtered = module("litellm.anthropic_beta_headers_manager").update_request_with_filtered_beta(
            headers=dict(headers), request_data=copy.deepcopy(body), provider=self.name, api_base=self.base
        )
        if filtered != (headers, body):
            raise ValueError("litellm takes something out of this request")
        self.refuse_other_names(tool["name"] for tool in body.get("tools", ()))
        return None

    def written(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the messages, and what the model is told first, as litellm writes them."""
        placing = module("litellm.litellm_core_utils.prompt_templates.mid_conversation_system")
        first, later = placing.split_leading_system_run(messages)
        system = self.config.translate_system_message(messages=list(first))
        later = placing.place_mid_conversation_system(later, supports_mid_conversation_system=self._takes_more)
        written = module("litellm.litellm_core_utils.prompt_templates.factory").anthropic_messages_pt(
            model=self.model,
            messages=list(later),
            llm_provider=self.config._resolved_provider,
            drop_params=self.litellm.drop_params is True,
        )
        return {"messages": written, **({"system": system} if system else {})}

    @functools.cached_property
    def _takes_more(self) -> bool:
        return bool(
            module("litellm.utils").supports_mid_conversation_system(
                model=self.model, custom_llm_provider=self.config.custom_llm_provider
            )
        )
