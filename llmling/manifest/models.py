"""Configs of models: a name, or a mapping with `type:`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, SecretStr

from llmling.manifest.base import Config, Cost, Count, Located, NotTruth, PositiveSeconds, RelativePath, Whole, plugged


class Price(Config):
    """What a model costs, for models whose price is not known."""

    input_per_mtok: Cost
    """US dollars per million input tokens."""
    output_per_mtok: Cost
    """US dollars per million output tokens."""


class AutoModelConfig(Config):
    """Takes the first that is there: a key in the environment, a local server, else the offline demo."""

    type: Literal["auto"] = "auto"


class DemoModelConfig(Config):
    """The offline model: no key, no network, the same answer to the same input, and it says that it is a demo."""

    type: Literal["demo"] = "demo"


class ScriptModelConfig(Config):
    """An offline model that answers from a script."""

    type: Literal["script"] = "script"
    path: RelativePath
    """YAML list of entries `{match, reply, tool_calls, delay_s, error, usage, times}`; the first match answers."""


class ReplayModelConfig(Config):
    """Answers from a cassette that `--record` wrote; nobody is asked."""

    type: Literal["replay"] = "replay"
    path: RelativePath
    """The cassette."""


class HumanModelConfig(Config):
    """A person answers: an event waits until somebody has given the answer."""

    type: Literal["human"] = "human"


class LiteLLMModelConfig(Config):
    """Any model litellm can reach."""

    type: Literal["litellm"] = "litellm"
    name: str = Field(min_length=1)
    """Name as litellm writes it, such as `openai/gpt-4o-mini`."""
    api_base: str | None = None
    """Address of the server, when it is not the provider's own."""
    api_key: SecretStr | None = None
    """Key, usually `"${VAR}"`; absent: the provider's environment variable."""
    price: Price | None = None
    """Price of a model litellm does not know; counts for `cost_usd` and budgets."""
    concurrency: Count | None = None
    """Most requests to this model at once, by all agents of the pool that name it; further ones wait."""
    requests_per_minute: Count | None = None
    """Most requests to this model in any 60 seconds, tries included, by all agents of the pool that name it."""

    @property
    def key(self) -> str:
        """What tells the model apart from others: its name and, where it has one of its own, its address."""
        return self.name if self.api_base is None else f"{self.name} {self.api_base}"


class FallbackModelConfig(Config):
    """Several models: the next one is asked when one has failed for good."""

    type: Literal["fallback"] = "fallback"
    models: list[ModelConfig] = Field(min_length=1)
    """Models in the order they are tried."""


def model_shorthand(value: Any) -> Any:
    """Turn the text a user writes for a model into its mapping."""
    if not isinstance(value, str):
        return value
    if value in {"auto", "demo", "human"}:
        return {"type": value}
    for prefix, kind in (("demo:", "script"), ("replay:", "replay")):
        if value.startswith(prefix):
            path = value.removeprefix(prefix)
            return {"type": kind, "path": Located(path, value.prefix) if isinstance(value, Located) else path}
    return {"type": "litellm", "name": value}


ModelMapping = Annotated[
    Annotated[
        AutoModelConfig
        | DemoModelConfig
        | ScriptModelConfig
        | ReplayModelConfig
        | HumanModelConfig
        | LiteLLMModelConfig
        | FallbackModelConfig,
        Discriminator("type"),
    ],
    plugged("models"),
]
ModelConfig = Annotated[ModelMapping, BeforeValidator(model_shorthand, json_schema_input_type=str | ModelMapping)]


class ModelSettings(Config):
    """Settings sent with each model request; what is absent is left to the provider."""

    temperature: Annotated[float, Field(ge=0, le=2), NotTruth] | None = None
    """Randomness of the answer."""
    max_tokens: Count | None = None
    """Longest answer in tokens."""
    top_p: Annotated[float, Field(gt=0, le=1), NotTruth] | None = None
    """Nucleus sampling."""
    seed: Whole | None = None
    """Seed for providers that offer repeatable answers."""
    stop: list[str] | None = None
    """Texts at which the answer ends."""
    timeout_s: PositiveSeconds = 60.0
    """Longest time for one request, in seconds."""
    extra: dict[str, Any] = Field(default={})
    """Further parameters, passed to the provider as they are."""
