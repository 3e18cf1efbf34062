"""Models through litellm: the only import of litellm, made in a thread on the first request."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from llmling.errors import ModelError
from llmling.manifest.models import LiteLLMModelConfig, Price
from llmling.messages import Usage
from llmling.models import clients
from llmling.models.failure import model_error
from llmling.models.keys import base_url, is_loopback, key_of, missing_key, provider_of
from llmling.models.prices import FREE, LOCAL, entry_price
from llmling.models.wire import Answer, read_usage, wire_messages, wire_schema, wire_tools
from llmling.protocols import ModelRequest, ModelResponse, TextDelta
from llmling.runtime.real_models import refuse_real
from llmling.runtime.services import Services

logger = logging.getLogger("llmling.models")

_OPENAI_LIKE = frozenset({"openai", "custom_openai", "openai_like", "hosted_vllm", "lm_studio", "llamafile"})
_QUIET = {
    "LITELLM_MODE": "PRODUCTION",  # otherwise it reads `.env` of the working directory into the environment
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it downloads prices
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",  # otherwise it downloads them, on the event loop
    "LITELLM_LOCAL_BLOG_POSTS": "True",
}
_WARNS = "litellm.llms.vertex_ai.context_caching.vertex_ai_context_caching"
"""Imported by litellm at the first request to Gemini; since 1.110 it has such annotations too."""


@dataclass(frozen=True, slots=True)
class _Route:
    """What is the same for every request of one model, looked up once."""

    name: str
    """As litellm takes it, provider first."""
    provider: str
    model: str
    """As the provider takes it."""
    sends_schema: bool
    price_key: str | None
    """Its name in litellm's table of prices."""
    price: Price | None
    """What the table says it costs; None when it says nothing."""
    most_output_tokens: int | None
    """The longest answer, as the table says."""


class LiteLLMModel:
    """Any model litellm can reach. Its own retries are off; it asks exactly once.

    `OPENAI_BASE_URL`, `ANTHROPIC_BASE_URL` and `OLLAMA_API_BASE` move the address; `api_base` and `api_key` of the
    config come first.
    """

    def __init__(self, config: LiteLLMModelConfig, services: Services | None = None) -> None:
        self._config = config
        self._agent = services.agent if services else ""
        self._route: _Route | None = None

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
        return self._config.price or (await self._ready()).price

    async def most_output_tokens(self) -> int | None:
        """Return how long an answer can get, or None when nobody has said so.

        Raises:
            ModelError: Its key is missing, or its name means nothing.
        """
        return (await self._ready()).most_output_tokens

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the answer. Cancelling it closes the HTTP request.

        Raises:
            ModelError: The provider failed; `retryable` is decided by the HTTP status.
        """
        call = _Call(self._config, await self._ready(), request)
        async with call.failures():
            completion = await call.send(stream=False)
            if not completion.choices:
                raise ValueError("it holds no choice, so nothing was said")
            answer = Answer()
            for choice in completion.choices[:1]:
                answer.add(choice)
            return call.response(answer, getattr(completion, "usage", None))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
        """Yield pieces of text as they arrive and, last, the whole response. Leaving it closes the HTTP request.

        Raises:
            ModelError: As for `request`; also when the stream ends before the model has finished.
        """
        call = _Call(self._config, await self._ready(), request)
        answer, usage, chunks = Answer(), None, None
        try:
            async with call.failures():
                chunks = await call.send(stream=True)
            while True:
                async with call.failures():
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                usage = getattr(chunk, "usage", None) or usage
                for choice in chunk.choices[:1]:
                    if text := answer.add(choice):
                        yield TextDelta(text)
            # litellm makes up a finish reason when none came; what it received itself is kept beside it.
            if not (_said(chunks, "received_finish_reason") or _said(chunks, "intermittent_finish_reason")):
                raise ModelError(
                    f"{self.name}: the stream ended before the answer was finished",
                    provider=call.route.provider,
                    retryable=True,
                )
        finally:
            if chunks is not None:
                await chunks.aclose()
        yield call.response(answer, usage)

    async def _ready(self) -> _Route:
        base = base_url(self._config, os.environ)
        if base is None or not is_loopback(base):
            refuse_real(self.name, self._agent)
        missing = missing_key(self._config, os.environ)
        if missing is not None:
            raise ModelError(str(missing), provider=missing.provider, attempts=0)
        if self._route is None:
            litellm = await _load()
            self._route = _route(litellm, self._config)
        return self._route


class _Call:
    """One request: its arguments, its time limit and what came of it."""

    def __init__(self, config: LiteLLMModelConfig, route: _Route, request: ModelRequest) -> None:
        self.config = config
        self.route = route
        self.request = request
        self.base = base_url(config, os.environ)
        self.key = key_of(config, os.environ)
        self.deadline = asyncio.get_running_loop().time() + request.timeout_s

    @asynccontextmanager
    async def failures(self) -> AsyncGenerator[None]:
        """Bound what is inside by the request's time and turn every failure into a `ModelError`."""
        limit = asyncio.timeout_at(self.deadline)
        try:
            async with limit:
                yield
        except Exception as error:  # the border to litellm, which raises nearly everything
            name, provider = self.config.name, self.route.provider
            if limit.expired():
                raise ModelError(
                    f"{name}: no answer within {self.request.timeout_s:g} s (`model_settings: {{timeout_s: ...}}`)",
                    provider=provider,
                    retryable=True,
                ) from error
            raise model_error(name, provider, error, base=self.base, secret=self.key) from error

    async def send(self, *, stream: bool) -> Any:
        litellm: Any = sys.modules["litellm"]
        internal: Any = sys.modules.get("litellm._internal_context")
        # An "internal" call starts none of litellm's logging tasks on our loop.
        quiet: Any = internal.is_internal_call.set(True) if internal else None
        try:
            return await litellm.acompletion(**self._arguments(stream), shared_session=await clients.session())
        finally:
            if internal:
                internal.is_internal_call.reset(quiet)

    def _arguments(self, stream: bool) -> dict[str, Any]:
        request = self.request
        arguments: dict[str, Any] = {
            **request.settings,
            "model": self.route.name,
            "messages": wire_messages(request.messages),
            # litellm keeps a client per timeout, so it gets a round one; ours is exact.
            "timeout": 60.0 * (request.timeout_s // 60 + 2),
            "max_retries": 0,
            "num_retries": 0,
            "stream": stream,
        }
        if request.tools:
            arguments["tools"] = wire_tools(request.tools)
        if request.output_schema is not None and self.route.sends_schema:
            arguments["response_format"] = wire_schema(request.output_schema)
        if stream:
            arguments["stream_options"] = {"include_usage": True}
        if self.config.api_base:
            arguments["api_base"] = self.config.api_base
        if self.config.api_key is not None and self.key:
            arguments["api_key"] = self.key
        elif not self.key and self.base and is_loopback(self.base):
            arguments["api_key"] = "none"
        return arguments

    def response(self, answer: Answer, usage: Any) -> ModelResponse:
        used = read_usage(usage)
        return ModelResponse(
            answer.message(), used, self.config.name, answer.finish_reason or "stop", self._cost_usd(used, usage)
        )

    def _cost_usd(self, used: Usage, usage: Any) -> float | None:
        if (price := self.config.price) is not None:
            return (used.input_tokens * price.input_per_mtok + used.output_tokens * price.output_per_mtok) / 1e6
        return _table_price(self.route, usage)


def _table_price(route: _Route, usage: Any) -> float | None:
    if route.price_key is None or usage is None:
        return 0.0 if route.price is FREE else None
    litellm: Any = sys.modules["litellm"]
    entry = litellm.model_cost[route.price_key]
    if entry.get("input_cost_per_token") == 0 == entry.get("output_cost_per_token"):
        return 0.0  # litellm would ask a local server what its model can do, and block the loop
    try:
        costs: tuple[float, float] = litellm.cost_per_token(
            model=route.price_key, custom_llm_provider=entry.get("litellm_provider"), usage_object=usage
        )
    except Exception as error:  # noqa: BLE001 - the border to litellm; an answer is not lost for want of its price
        logger.warning("no price for %s: %s", route.name, error)
        return None
    return sum(costs)


def _route(litellm: Any, config: LiteLLMModelConfig) -> _Route:
    name = config.name
    if name.startswith("ollama/"):
        # litellm's `ollama/` is the completion endpoint, without tools; the chat endpoint has the same models.
        name = f"ollama_chat/{name.removeprefix('ollama/')}"
    elif "/" not in name and provider_of(config, os.environ) == "openai":
        name = f"openai/{name}"
    try:
        model, provider, _, _ = litellm.get_llm_provider(model=name, api_base=config.api_base)
    except litellm.BadRequestError:
        raise ModelError(
            f"model {config.name!r} names no provider that is known: write provider/model, such as openai/gpt-4o-mini",
            attempts=0,
        ) from None
    if provider == "ollama_chat":
        # Of a model it does not know litellm asks the server after every answer, blocking the loop.
        free = {"litellm_provider": provider, "mode": "chat", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0}
        litellm.model_cost.setdefault(name, free)
        candidates = (name,)
    else:
        candidates = (config.name, f"{provider}/{model}", model)
    key = next((candidate for candidate in candidates if candidate in litellm.model_cost), None)
    # An unknown name on an OpenAI-compatible server is tried; asking litellm about Ollama would block the loop.
    sends_schema = provider == "ollama_chat" or (provider in _OPENAI_LIKE and key is None)
    if not sends_schema:
        sends_schema = bool(litellm.supports_response_schema(model=model, custom_llm_provider=provider))
    entry: dict[str, Any] = litellm.model_cost[key] if key is not None else {}
    price = FREE if key is None and provider in LOCAL else entry_price(entry)
    most = entry.get("max_output_tokens")
    return _Route(name, provider, model, sends_schema, key, price, most if isinstance(most, int) else None)


def _said(chunks: Any, attribute: str) -> bool:
    return getattr(chunks, attribute, "unknown to this litellm") is not None


_lock = threading.Lock()
_loading: concurrent.futures.Future[Any] | None = None


async def _load() -> Any:
    """Return litellm, imported once per process in a thread of its own; importing it takes about two seconds."""
    global _loading
    with _lock:
        if _loading is None:
            _loading = concurrent.futures.Future()
            _loading.set_running_or_notify_cancel()  # no waiter that is cancelled may cancel it for the others
            threading.Thread(target=_import_into, args=(_loading,), name="llmling-import-litellm").start()
        loading = _loading
    return await asyncio.wrap_future(loading)


def _import_into(future: concurrent.futures.Future[Any]) -> None:
    global _loading
    try:
        future.set_result(_import())
    except BaseException as error:  # noqa: BLE001 - handed to every waiter
        with _lock:
            _loading = None
        future.set_exception(error)


def _import() -> Any:
    with _environment(_QUIET):
        litellm: Any = importlib.import_module("litellm")
        # Fills its cache while the environment says not to ask the network for it.
        importlib.import_module("litellm.anthropic_beta_headers_manager").is_beta_header_supported("", "anthropic")
        types: Any = importlib.import_module("litellm.types.utils")
        with warnings.catch_warnings():
            # pydantic builds these on first use, and warns of an annotation in them that the user cannot mend.
            warnings.simplefilter("ignore", UserWarning)
            for name in ("Message", "Delta", "ModelResponse", "ModelResponseStream"):
                getattr(types, name)()
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(_WARNS)
    # Cancelling while litellm prepares a request in a thread leaves what the thread returns to nobody.
    warnings.filterwarnings("ignore", r"coroutine '\S*acompletion\S*' was never awaited", RuntimeWarning)
    http: Any = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    make = functools.partial(
        http.get_async_httpx_client,
        llm_provider="litellm_module_level_client",
        params={"timeout": litellm.request_timeout, "client_alias": "module level aclient"},
    )
    vars(litellm)["module_level_aclient"] = clients.LoopClient(make)
    litellm.suppress_debug_info = True
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        log = logging.getLogger(name)
        for handler in list(log.handlers):
            log.removeHandler(handler)
        if log.level == logging.NOTSET:
            log.setLevel(logging.WARNING)
    return litellm


@contextmanager
def _environment(values: dict[str, str]) -> Generator[None]:
    """Set variables that are not set yet, and take exactly those away again."""
    added = {key: value for key, value in values.items() if key not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for key in added:
            os.environ.pop(key, None)
