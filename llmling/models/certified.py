"""Which requests go our own way: those whose bytes and answers are proven to be the same as litellm's own.

The proof is tests/models/test_parity.py; everything that is not here goes through `litellm.acompletion`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmling.models.dialects.anthropic import ANTHROPIC
from llmling.models.dialects.base import Dialect
from llmling.models.dialects.bedrock import BEDROCK
from llmling.models.dialects.gemini import GEMINI
from llmling.models.dialects.ollama import OLLAMA
from llmling.models.dialects.openai import OPENAI

LITELLM = re.compile(r"1\.110\.\d+$")
"""The releases whose internals this leans on; with another one nothing is certified, and everything works."""

SETTINGS = frozenset({
    "frequency_penalty", "max_completion_tokens", "max_tokens", "parallel_tool_calls", "presence_penalty", "seed",
    "stop", "temperature", "tool_choice", "top_p", "user",
})  # fmt: skip
"""Settings a request may have; with any other it goes litellm's way."""


@dataclass(frozen=True, slots=True)
class Provider:
    """One certified provider: how it answers, and where litellm looks for its address when nobody names one.

    `sent` are headers with the variables that hold them and, last, what is sent when none does; `others` are variables
    that change how it is asked.
    """

    dialect: Dialect
    base: str = ""
    variable: str = ""
    sent: Mapping[str, tuple[tuple[str, ...], str]] = field(default_factory=dict[str, tuple[tuple[str, ...], str]])
    others: tuple[str, ...] = ()

    def default_base(self, env: Mapping[str, str]) -> str:
        """Return the address that is asked when neither the config nor litellm names one."""
        return (env.get(self.variable) if self.variable else None) or self.base

    def headers(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return the headers it is always sent."""
        found = {
            header: next((env[name] for name in names if env.get(name)), otherwise)
            for header, (names, otherwise) in self.sent.items()
        }
        return {header: value for header, value in found.items() if value}


_OURS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "OpenAI-Organization": (("OPENAI_ORGANIZATION", "OPENAI_ORG_ID"), ""),
    "OpenAI-Project": (("OPENAI_PROJECT_ID",), ""),
}
"""What OpenAI's own client sends, which litellm uses for most of those that write OpenAI's format."""
_OF_AZURE: Mapping[str, tuple[tuple[str, ...], str]] = {
    "OpenAI-Organization": (("OPENAI_ORG_ID",), ""),
    "OpenAI-Project": (("OPENAI_PROJECT_ID",), ""),
}


PROVIDERS: Mapping[str, Provider] = {
    "anthropic": Provider(ANTHROPIC, "https://api.anthropic.com/v1/messages"),
    "azure": Provider(
        OPENAI, "", "AZURE_API_BASE", _OF_AZURE, (
            "AZURE_API_BASE", "AZURE_API_VERSION", "AZURE_OPENAI_API_KEY", "AZURE_OPENAI_AD_TOKEN", "AZURE_AD_TOKEN",
            "AZURE_USERNAME",
        ),
    ),
    "bedrock": Provider(
        BEDROCK, others=(
            "AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
            "AWS_REGION_NAME", "AWS_REGION", "AWS_BEDROCK_RUNTIME_ENDPOINT", "AWS_ROLE_NAME", "AWS_PROFILE_NAME",
            "AWS_WEB_IDENTITY_TOKEN",
        ),
    ),
    "deepseek": Provider(OPENAI, "https://api.deepseek.com/beta"),
    "gemini": Provider(GEMINI, "", "GEMINI_API_BASE", others=("GEMINI_API_BASE",)),
    "groq": Provider(OPENAI, "https://api.groq.com/openai/v1", "GROQ_API_BASE"),
    "hosted_vllm": Provider(OPENAI, "", "HOSTED_VLLM_API_BASE"),
    "mistral": Provider(OPENAI, "https://api.mistral.ai/v1", "MISTRAL_API_BASE"),
    "ollama_chat": Provider(OLLAMA, "http://localhost:11434", "OLLAMA_API_BASE"),
    "openai": Provider(OPENAI, "https://api.openai.com/v1", sent=_OURS),
    "openrouter": Provider(
        OPENAI,
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_BASE",
        sent={"HTTP-Referer": (("OR_SITE_URL",), "https://litellm.ai"), "X-Title": (("OR_APP_NAME",), "liteLLM")},
    ),
    "together_ai": Provider(OPENAI),
    "vercel_ai_gateway": Provider(OPENAI),
    **dict.fromkeys(
        (
            "cerebras", "custom_openai", "dashscope", "deepinfra", "featherless_ai", "github", "hyperbolic",
            "llamafile", "lm_studio", "moonshot", "nebius", "novita", "nvidia_nim", "sambanova", "volcengine", "zai",
        ),
        Provider(OPENAI, sent=_OURS),
    ),
}  # fmt: skip
"""Certified providers, as litellm calls them."""


def provider_of(litellm_version: str, name: str, settings: Mapping[str, Any]) -> Provider | None:
    """Return the certified provider a request with these settings may be sent to, or None: litellm's own way."""
    if not LITELLM.match(litellm_version) or not SETTINGS.issuperset(settings):
        return None
    return PROVIDERS.get(name)
