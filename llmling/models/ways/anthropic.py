"""Anthropic: some features are named in a header, which litellm takes out again where they are not offered."""

from __future__ import annotations

import copy
import os

from llmling.models.ways.base import Way, module, probe


class AnthropicWay(Way):
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
        body = self.body(probe()[:2], headers)
        filtered = module("litellm.anthropic_beta_headers_manager").update_request_with_filtered_beta(
            headers=dict(headers), request_data=copy.deepcopy(body), provider=self.name, api_base=self.base
        )
        if filtered != (headers, body):
            raise ValueError("litellm takes something out of this request")
        self.refuse_other_names(tool["name"] for tool in body.get("tools", ()))
        return None
