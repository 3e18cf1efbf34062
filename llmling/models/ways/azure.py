"""Azure OpenAI: a deployment in the address, the key in a header of its own."""

from __future__ import annotations

import os
import re

from llmling.models.ways.base import Way, module

_PLAIN_NAME = re.compile(r"[\w.-]+")
_OTHER_TOKENS = ("AZURE_OPENAI_AD_TOKEN", "AZURE_AD_TOKEN", "AZURE_USERNAME")
"""With one of these litellm may prove who is asking by Microsoft Entra, which is its own business."""


class AzureWay(Way):
    """How a deployment on Azure is asked, by its key."""

    def head(self) -> tuple[str, dict[str, str]]:
        """Return the address and the headers.

        Raises:
            ValueError: It is asked without a key, through a gateway, or by another interface.
        """
        env, litellm = os.environ, self.litellm
        key = (env.get("AZURE_OPENAI_API_KEY") if self.key == env.get("AZURE_API_KEY") else None) or self.key
        base = self.base
        version = litellm.api_version or env.get("AZURE_API_VERSION") or litellm.AZURE_DEFAULT_API_VERSION
        if (
            not key
            or not base
            or any(map(env.get, _OTHER_TOKENS))
            or "gateway.ai.cloudflare.com" in base
            or "/openai/deployments" in base
            or not _PLAIN_NAME.fullmatch(self.model)
            or litellm.AzureOpenAIO1Config().is_o_series_model(model=self.model)
        ):
            raise ValueError("this deployment is asked in a way of its own")
        headers = self.provider.headers(env)
        if module("litellm.llms.azure.common_utils").BaseAzureLLM.is_azure_v1_api_version(version):
            url = module("litellm.litellm_core_utils.url_utils").ensure_api_route(base, "openai/v1")
            return f"{url}/chat/completions", {**headers, "Authorization": f"Bearer {key}"}
        url = f"{base.rstrip('/')}/openai/deployments/{self.model}/chat/completions?api-version={version}"
        return url, {**headers, "api-key": key}
