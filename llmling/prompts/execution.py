"""One prompt, one answer: the run loop of agents, with nothing kept from call to call."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr, TypeAdapter, ValidationError

from llmling import plugins
from llmling.errors import LimitExceeded
from llmling.manifest.agents import LimitsConfig, RetriesConfig
from llmling.manifest.models import LiteLLMModelConfig, ModelConfig, ModelSettings
from llmling.messages import Message, RunResult
from llmling.protocols import Model, RetryPolicy
from llmling.runtime.context import RunContext
from llmling.runtime.node import as_message, run_event
from llmling.runtime.output import output_type
from llmling.runtime.profile import Profile
from llmling.runtime.run_loop import RunLoop
from llmling.runtime.services import Services

_model_config: TypeAdapter[Any] = TypeAdapter(ModelConfig)
_SETTINGS = [name for name in ModelSettings.model_fields if name not in {"timeout_s", "extra"}]
_ARGUMENTS = ("provider", "model", "api_key", "api_base", "stream", "timeout_s", "retries")
_PASSED = frozenset({"top_k", "top_a", "models", "speed"})
"""Parameters of providers that look like misspelt ones of ours."""
_INSTEAD = {
    **dict.fromkeys(("timeout", "request_timeout"), "write timeout_s="),
    **dict.fromkeys(("retry", "max_retries", "num_retries"), "write retries="),
    "base_url": "write api_base=",
    "max_completion_tokens": "write max_tokens=",
    "stream_options": "usage is always asked for",
    "messages": "the directive is the user turn",
    **dict.fromkeys(("system", "user_prompt"), "write it in the Context"),
    **dict.fromkeys(("tools", "tool_choice", "functions"), "tools belong to an Agent"),
    "response_format": "write output= in the Context",
    "extra": "write each parameter by its name",
}


@dataclass(frozen=True, slots=True)
class Call:
    """What one execution was asked with; it lives as long as the call, so that a key stays nowhere."""

    provider: str | None
    model: str | Mapping[str, Any] | Model | None
    api_key: str | None
    api_base: str | None
    stream: bool
    timeout_s: float | None
    retries: int | None
    settings: Mapping[str, Any]

    def live_model(self, agent: str = "") -> Model:
        """Return the model that is asked, on behalf of `agent`.

        Raises:
            ValueError: The provider is unknown, or key and address belong to no model.
        """
        model = self.model
        if model is not None and not isinstance(model, str | Mapping):
            self._refuse_address("a model object brings its own")
            return model
        if isinstance(model, str) or model is None:
            model = plugins.load(plugins.MODEL_NAME)(self.provider, model)
        elif self.provider is not None:
            raise ValueError("provider= goes with the name of a model; a mapping names its own")
        config: Any = _model_config.validate_python(model)
        if self.api_key is not None or self.api_base is not None:
            if not isinstance(config, LiteLLMModelConfig):
                self._refuse_address("it belongs to one provider; name it with provider= or model=")
            update = {"api_key": self.api_key and SecretStr(self.api_key), "api_base": self.api_base}
            config = config.model_copy(update={name: value for name, value in update.items() if value is not None})
        return Services(agent=agent).model(config)

    def _refuse_address(self, reason: str) -> None:
        for name in ("provider", "api_key", "api_base"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}= cannot be used here: {reason}")

    def profile(self, agent: str, output: Any) -> Profile:
        """Return how the run is made.

        Raises:
            ValueError: A setting is out of range.
            TypeError: There is no such setting.
        """
        if self.api_key is not None and not self.api_key.strip():
            raise ValueError("api_key= is empty: leave it out to use the key of the environment")
        limits = LimitsConfig() if self.timeout_s is None else _checked(LimitsConfig, timeout_s=self.timeout_s)
        return Profile(
            agent=agent,
            model=self.live_model(agent),
            limits=limits,
            retries=_retries(self.retries),
            settings=_settings(self.settings),
            request_timeout_s=ModelSettings().timeout_s if self.timeout_s is None else limits.timeout_s,
            output=None if output is None else output_type(output),
        )


async def run_prompt(agent: str, user: str, system: str, output: Any, call: Call) -> RunResult:
    """Run one prompt without tools, knowledge or history.

    Raises:
        ValueError: An argument of the call is wrong; nothing was sent.
        RunError: The run failed.
    """
    profile = call.profile(agent, output)
    message = as_message(user)
    texts = [text for text in (system, profile.output.request if profile.output else "") if text]
    turns = (*((Message.system("\n\n".join(texts)),) if texts else ()), message)
    try:
        return await RunLoop(profile, (), RunContext(run_event(agent, message)), streaming=call.stream).run(turns)
    except LimitExceeded as error:
        raise LimitExceeded(
            f"{agent!r} had no answer within {profile.limits.timeout_s:g} s ({error.__cause__ or 'no try ended'}): "
            "pass a longer timeout_s="
        ) from error


def _retries(retries: Any) -> RetryPolicy:
    if retries is None:
        return RetryPolicy()
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise ValueError(f"retries={retries!r}: should be a whole number from 0 on, the tries after the first")
    plain = RetriesConfig()
    return RetryPolicy(retries + 1, plain.backoff_s, plain.max_backoff_s)


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if name in _INSTEAD:
            raise TypeError(f"execute() takes no {name}=: {_INSTEAD[name]}")
        if name in _SETTINGS or name in _PASSED:
            continue
        if close := difflib.get_close_matches(name, (*_SETTINGS, *_ARGUMENTS), 1, 0.8):
            raise TypeError(f"execute() takes no {name}=: did you mean {close[0]}=?")
    known = {name: value for name, value in given.items() if name in _SETTINGS}
    config = _checked(ModelSettings, **known)
    extra = {name: value for name, value in given.items() if name not in known}
    return {**config.model_dump(exclude_none=True, include=set(_SETTINGS)), **extra}


def _checked(kind: type[Any], **values: Any) -> Any:
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        text = first["msg"]
        raise ValueError(f"{name}={json.dumps(values[name], default=repr)}: {text[0].lower()}{text[1:]}") from None
