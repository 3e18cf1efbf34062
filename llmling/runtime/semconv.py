"""The names of attributes in spans: those of OpenTelemetry where it has one, and the only place that spells them.

The GenAI conventions are still being renamed, so no other module writes such a name.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Final

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
OUTPUT_TYPE: Final = "gen_ai.output.type"
AGENT_NAME: Final = "gen_ai.agent.name"
WORKFLOW_NAME: Final = "gen_ai.workflow.name"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

ERROR_TYPE: Final = "error.type"
UNKNOWN_TOOL: Final = "unknown_tool"
RESEND_COUNT: Final = "http.request.resend_count"
"""Of a try: how many tries of the same request came before it; absent on the first."""
EVENT_ID: Final = "cloudevents.event_id"
EVENT_SOURCE: Final = "cloudevents.event_source"
EVENT_TYPE: Final = "cloudevents.event_type"

RUN_ID: Final = "llmling.run_id"
COST_USD: Final = "llmling.cost_usd"
RETRIES: Final = "llmling.retries"
"""Of a run: how many of its model requests were tries after the first."""
DEMO: Final = "llmling.demo"

SETTINGS: Final[Mapping[str, str]] = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
"""Settings of a model request and the attributes that hold them."""

TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - tokens of a model
TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105 - tokens of a model
DURATIONS: Final[Mapping[str, str]] = {
    "chat": "gen_ai.client.operation.duration",
    "invoke_agent": "gen_ai.invoke_agent.duration",
    "invoke_workflow": "gen_ai.workflow.duration",
    "execute_tool": "gen_ai.execute_tool.duration",
}
"""Operations and the metrics of how long they took."""
DURATION_BUCKETS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BUCKETS: Final = tuple(float(4**power) for power in range(14))
LABELS: Final = (
    OPERATION,
    PROVIDER,
    REQUEST_MODEL,
    RESPONSE_MODEL,
    AGENT_NAME,
    WORKFLOW_NAME,
    TOOL_NAME,
    ERROR_TYPE,
)
"""Attributes that metrics are told apart by: none that grows with the number of events."""

_PROVIDERS: Final[Mapping[str, str]] = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "cohere_chat": "cohere",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "ollama_chat": "ollama",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}


@functools.lru_cache(maxsize=256)
def provider_and_model(name: str) -> tuple[str | None, str]:
    """Split `provider/model` and say the provider as OpenTelemetry does; None when the name has none, or several."""
    prefix, slash, model = name.partition("/")
    return (_PROVIDERS.get(prefix, prefix), model) if slash and " " not in name else (None, name)
