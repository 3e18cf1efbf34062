"""Several models in order: the next one is asked when one has failed for good."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Self

from llmling.errors import ModelError, NotAsked
from llmling.manifest.models import FallbackModelConfig
from llmling.protocols import Model, ModelRequest, ModelResponse, TextDelta
from llmling.runtime.clock import Clock
from llmling.runtime.retry import request_with_retries, stream_with_retries
from llmling.runtime.services import Services


class FallbackModel:
    """Asks each model with the tries of `request.retries`; a failure that no try can mend goes straight to the next."""

    retries_by_itself = True
    asks_others = True

    def __init__(self, config: FallbackModelConfig, services: Services) -> None:
        self._set_up([services.model(model) for model in config.models], services.clock)

    @classmethod
    def of(cls, models: Sequence[Model], clock: Clock, name: str) -> Self:
        """Build one from models that are there already, under a name of its own."""
        self = cls.__new__(cls)
        self.asks_others = False  # what it asks was built elsewhere
        self._set_up(models, clock, name)
        return self

    def _set_up(self, models: Sequence[Model], clock: Clock, name: str = "") -> None:
        self._models = tuple(models)
        self._clock = clock
        self._name = name

    @property
    def name(self) -> str:
        """The names of its models, in order."""
        return self._name or " | ".join(model.name for model in self._models)

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the first answer; its `model` says whose it is.

        Raises:
            ModelError: Every model failed; the message has each one's reason, `attempts` the requests of all.
        """
        failures: list[ModelError] = []
        for model in self._models:
            try:
                return await request_with_retries(
                    model,
                    request,
                    request.retries,
                    clock=self._clock,
                    on_retry=request.on_retry,
                    patient=model is self._models[-1],
                )
            except NotAsked:
                raise
            except ModelError as error:
                self._failed(error, failures, request)
        raise self._all_failed(failures)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
        """Yield the first answer that begins; once text was yielded, its failure is final.

        Raises:
            ModelError: Every model failed before it yielded anything, or one failed after.
        """
        failures: list[ModelError] = []
        for model in self._models:
            silent = True
            parts = stream_with_retries(
                model,
                request,
                request.retries,
                clock=self._clock,
                on_retry=request.on_retry,
                patient=model is self._models[-1],
            )
            try:
                async for part in parts:
                    silent = False
                    yield part
                return
            except ModelError as error:
                if not silent or isinstance(error, NotAsked):
                    raise
                self._failed(error, failures, request)
            finally:
                await parts.aclose()
        raise self._all_failed(failures)

    def _failed(self, error: ModelError, failures: list[ModelError], request: ModelRequest) -> None:
        failures.append(error)
        if request.on_retry is not None and len(failures) < len(self._models):
            request.on_retry(error, 0.0)

    def _all_failed(self, failures: list[ModelError]) -> ModelError:
        last = failures[-1]
        waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
        return ModelError(
            "every model failed: " + "; ".join(str(failure) for failure in failures),
            status=last.status,
            provider=last.provider,
            attempts=sum(failure.attempts for failure in failures),
            retryable=any(failure.retryable for failure in failures),
            retry_after_s=min(waits, default=None),
            too_long=any(failure.too_long for failure in failures),
        )
