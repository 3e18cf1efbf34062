"""One request to a model: its time limit, its failures, and the response made of what was read."""

from __future__ import annotations

import asyncio
from typing import Any

from llmling.errors import ModelError
from llmling.manifest.models import LiteLLMModelConfig
from llmling.messages import Usage
from llmling.models.failure import model_error
from llmling.models.route import Access, Route
from llmling.models.tariff import Tokens
from llmling.models.wire import Answer, read_usage
from llmling.protocols import ModelRequest, ModelResponse


class Call:
    """One request of one model, whichever way it goes."""

    __slots__ = ("access", "config", "deadline", "request", "route")

    def __init__(self, config: LiteLLMModelConfig, route: Route, access: Access, request: ModelRequest) -> None:
        self.config = config
        self.route = route
        self.access = access
        self.request = request
        self.deadline = asyncio.get_running_loop().time() + request.timeout_s

    def failure(self, error: Exception, *, late: bool) -> ModelError:
        """Return what an exception means; `late` when it came since the time was over."""
        if late:
            return ModelError(
                f"{self.config.name}: no answer within {self.request.timeout_s:g} s "
                "(`model_settings: {timeout_s: ...}`)",
                provider=self.route.provider,
                retryable=True,
            )
        return self.broken(error)

    def broken(self, error: Exception) -> ModelError:
        """Return what an exception means."""
        access = self.access
        return model_error(self.config.name, self.route.provider, error, base=access.base, secret=access.key)

    def unfinished(self) -> ModelError:
        """Return the failure of a stream that ended without the reason why the model stopped."""
        return ModelError(
            f"{self.config.name}: the stream ended before the answer was finished",
            provider=self.route.provider,
            retryable=True,
        )

    def response(self, answer: Answer, tokens: Tokens | None) -> ModelResponse:
        """Return the response of an answer that was read here."""
        used = Usage(requests=1) if tokens is None else tokens.usage
        return self._response(answer, used, self.route.tariff.of_tokens(tokens))

    def response_of_completion(self, completion: Any) -> ModelResponse:
        """Return the response of a whole answer that litellm has read.

        Raises:
            ValueError: Nothing was said.
        """
        if not completion.choices:
            raise ValueError("it holds no choice, so nothing was said")
        answer = Answer()
        answer.add(completion.choices[0])
        return self.response_of_litellm(answer, getattr(completion, "usage", None))

    def response_of_litellm(self, answer: Answer, usage: Any) -> ModelResponse:
        """Return the response of an answer that litellm has read, with its usage."""
        used = read_usage(usage)
        return self._response(answer, used, self.route.tariff.of_usage(used, usage))

    def _response(self, answer: Answer, used: Usage, cost_usd: float | None) -> ModelResponse:
        return ModelResponse(answer.message(), used, self.config.name, answer.finish_reason or "stop", cost_usd)
