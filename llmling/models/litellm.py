"""Models through litellm: what it knows of providers, and our own wire where that is proven to be the same."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from llmling.errors import ModelError
from llmling.manifest.models import LiteLLMModelConfig, Price
from llmling.models import acompletion, direct
from llmling.models.call import Call
from llmling.models.loading import Once, load
from llmling.models.plan import Plans
from llmling.models.route import Access, Route, access_of, route_of, watched
from llmling.protocols import ModelRequest, ModelResponse, TextDelta
from llmling.runtime.real_models import refuse_real
from llmling.runtime.services import Services


class LiteLLMModel:
    """Any model litellm can reach. Its own retries are off; it asks exactly once.

    `OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL` and `OLLAMA_API_BASE` move the address; `api_base` and `api_key` of the
    config come first.
    """

    def __init__(self, config: LiteLLMModelConfig, services: Services | None = None) -> None:
        self._config = config
        self._agent = services.agent if services else ""
        self._litellm: Any = None
        self._route: Route | None = None
        self._looking: Once | None = None
        self._plans = Plans()
        self._seen: tuple[str | None, ...] | None = None
        self._watched: tuple[str, ...] = ()
        self._found: Access | None = None

    @property
    def name(self) -> str:
        """Name as the user writes it, such as `openai/gpt-4o-mini`."""
        return self._config.name

    @property
    def key(self) -> str:
        """What tells it apart from other models: name and address."""
        return self._config.key

    async def price(self) -> Price | None:
        """Return what it costs, or None when nobody has said so.

        Raises:
            ModelError: Its key is missing, or its name means nothing.
        """
        self._access()
        return self._config.price or (self._route or await self._look_up()).price

    async def most_output_tokens(self) -> int | None:
        """Return how long an answer can get, or None when nobody has said so.

        Raises:
            ModelError: Its key is missing, or its name means nothing.
        """
        self._access()
        return (self._route or await self._look_up()).most_output_tokens

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the answer. Cancelling it closes the HTTP request.

        Raises:
            ModelError: The provider failed; `retryable` is decided by the HTTP status.
        """
        access = self._access()
        route = self._route or await self._look_up()
        call = Call(self._config, route, access, request)
        plan = await self._plans.of(self._litellm, route, access, request, stream=False)
        body = None if plan is None else plan.body(request.messages)
        if plan is not None and body is not None:
            try:
                return await direct.ask(call, plan, body)
            except direct.Elsewhere:
                pass
        return await acompletion.ask(call)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
        """Yield pieces of text as they arrive and, last, the whole response. Leaving it closes the HTTP request.

        Raises:
            ModelError: As for `request`; also when the stream ends before the model has finished.
        """
        access = self._access()
        route = self._route or await self._look_up()
        call = Call(self._config, route, access, request)
        plan = await self._plans.of(self._litellm, route, access, request, stream=True)
        body = None if plan is None else plan.body(request.messages)
        own = None if plan is None or body is None else direct.stream(call, plan, body)
        try:
            async with aclosing(own or acompletion.stream(call)) as parts:
                async for part in parts:
                    yield part
        except direct.Elsewhere:  # nothing has been said yet
            async with aclosing(acompletion.stream(call)) as parts:
                async for part in parts:
                    yield part

    def _access(self) -> Access:
        """Return where and with which key it is asked: looked up again when the environment has changed.

        Raises:
            ModelError: Its key is missing.
            NotAsked: It would leave this machine, and a test forbids that.
        """
        access = self._found
        if access is None or self._seen != tuple(map(os.environ.get, self._watched)):
            access = self._found = access_of(self._config, os.environ)
            self._watched = watched(self._config, os.environ)
            self._seen = tuple(map(os.environ.get, self._watched))
            self._plans.clear()
        if access.outside:
            refuse_real(self.name, self._agent)
        if access.missing is not None:
            raise ModelError(str(access.missing), provider=access.missing.provider, attempts=0)
        return access

    async def _look_up(self) -> Route:
        self._litellm = litellm = await load()
        if self._looking is None:
            # Away from the loop: litellm imports what a provider needs when it is first asked for it.
            self._looking = Once(functools.partial(route_of, litellm, self._config), "llmling-route")
        self._route = route = await self._looking.done()
        return route
