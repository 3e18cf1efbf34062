"""`model: auto`: a key in the environment, else an answering local server, else the demo model, loudly."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import aiohttp

from llmling.manifest.models import AutoModelConfig, DemoModelConfig, LiteLLMModelConfig, Price
from llmling.models.keys import KEYS
from llmling.protocols import Model, ModelRequest, ModelResponse, TextDelta
from llmling.runtime.claims import rates_of
from llmling.runtime.gate import key_of
from llmling.runtime.real_models import refuse_real
from llmling.runtime.services import Services

logger = logging.getLogger("llmling.models.auto")

PREFERRED: tuple[tuple[str, str], ...] = (
    ("openai", "openai/gpt-4o-mini"),
    ("anthropic", "anthropic/claude-haiku-4-5"),
    ("gemini", "gemini/gemini-2.5-flash"),
    ("mistral", "mistral/mistral-small-latest"),
    ("groq", "groq/llama-3.3-70b-versatile"),
    ("openrouter", "openrouter/openai/gpt-4o-mini"),
    ("deepseek", "deepseek/deepseek-chat"),
    ("xai", "xai/grok-3-mini"),
    ("together_ai", "together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    ("fireworks_ai", "fireworks_ai/accounts/fireworks/models/llama-v3p3-70b-instruct"),
    ("cerebras", "cerebras/llama3.1-8b"),
    ("perplexity", "perplexity/sonar"),
    ("cohere_chat", "cohere_chat/command-r7b-12-2024"),
)
"""Providers in the order their keys are looked for, with the model that is then asked: capable and cheap."""

PROBE_TIMEOUT_S = 0.3
_NOTICE = (
    "no key in the environment and no local model server: answers come from the DEMO model, which only repeats its "
    "input. Set a key such as OPENAI_API_KEY, or start Ollama, or name a model with `model:` or `--model`"
)


@dataclass(frozen=True, slots=True)
class AutoChoice:
    """What `auto` takes and why; `loud` when the user must be told."""

    config: LiteLLMModelConfig | DemoModelConfig
    reason: str
    loud: bool = False


Probe: TypeAlias = Callable[[Mapping[str, str]], Awaitable[AutoChoice | None]]


async def resolve_auto(env: Mapping[str, str], probe: Probe | None = None) -> AutoChoice:
    """Choose a model: the first key in the environment, else a local server that `probe` finds, else the demo."""
    for provider, name in PREFERRED:
        for variable in KEYS[provider]:
            if env.get(variable):
                return AutoChoice(LiteLLMModelConfig(name=name), f"{variable} is set")
    found = await (probe or probe_local)(env)
    return found or AutoChoice(DemoModelConfig(), _NOTICE, loud=True)


async def probe_local(env: Mapping[str, str]) -> AutoChoice | None:
    """Return the first local server that lists a model, within 300 ms for all of them together.

    Looked for: the address in `OPENAI_BASE_URL`, Ollama (`OLLAMA_API_BASE`, else port 11434), LM Studio (1234) and
    vLLM (8000). Only an answer of the right shape counts, so any other server on these ports is left alone.
    """
    candidates = _candidates(env)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S)) as session:
        answers = await asyncio.gather(*(_listed(session, each.url) for each in candidates))
    for candidate, answer in zip(candidates, answers, strict=True):
        model = _first_tag(answer) if candidate.prefix == "ollama" else _first_model(answer)
        if model is not None:
            config = LiteLLMModelConfig(name=f"{candidate.prefix}/{model}", api_base=candidate.base)
            return AutoChoice(config, f"{candidate.title} answers at {candidate.base}")
    return None


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A server that may be there."""

    title: str
    prefix: str
    base: str
    url: str


def _candidates(env: Mapping[str, str]) -> list[_Candidate]:
    ollama = (env.get("OLLAMA_API_BASE") or "http://127.0.0.1:11434").rstrip("/")
    servers = [
        ("LM Studio", "lm_studio", "http://127.0.0.1:1234/v1"),
        ("vLLM", "hosted_vllm", "http://127.0.0.1:8000/v1"),
    ]
    if own := env.get("OPENAI_BASE_URL"):
        servers.insert(0, ("the server in OPENAI_BASE_URL", "openai", own.rstrip("/")))
    found = [_Candidate(title, prefix, base, f"{base}/models") for title, prefix, base in servers]
    found.insert(1 if own else 0, _Candidate("Ollama", "ollama", ollama, f"{ollama}/api/tags"))
    return found


async def _listed(session: aiohttp.ClientSession, url: str) -> Any:
    try:
        async with session.get(url, allow_redirects=False) as response:
            return json.loads(await response.content.read(1_000_000)) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


def _first_tag(answer: Any) -> str | None:
    match answer:
        case {"models": [{"name": str(name)}, *_]} if name:
            return name
        case _:
            return None


def _first_model(answer: Any) -> str | None:
    match answer:
        case {"object": "list", "data": [{"id": str(name)}, *_]} if name:
            return name
        case _:
            return None


class _Shared:
    """The choice of one loop, made once for all agents and again only when the environment has changed."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.seen: dict[str, str] | None = None
        self.choice = AutoChoice(DemoModelConfig(), "")


_WATCHED = ("OPENAI_BASE_URL", "OLLAMA_API_BASE", *(name for provider, _ in PREFERRED for name in KEYS[provider]))
_shared: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = weakref.WeakKeyDictionary()


async def _choice(env: Mapping[str, str]) -> AutoChoice:
    shared = _shared.setdefault(asyncio.get_running_loop(), _Shared())
    seen = {name: env[name] for name in _WATCHED if name in env}
    async with shared.lock:
        if shared.seen != seen:
            choice = shared.choice = await resolve_auto(env)
            shared.seen = seen
            name = choice.config.name if isinstance(choice.config, LiteLLMModelConfig) else "demo"
            # Whoever shows `notice` to a person can silence this logger, so that it is said once.
            logger.log(logging.WARNING if choice.loud else logging.INFO, "model auto: %s: %s", name, choice.reason)
    return shared.choice


class AutoModel:
    """Chooses on the first request, once, and passes everything on to what it chose."""

    asks_others = True

    def __init__(self, config: AutoModelConfig, services: Services) -> None:
        self._config = config
        self._services = services
        self._choice: AutoChoice | None = None
        self._model: Model | None = None

    @property
    def name(self) -> str:
        """Name of what was chosen; `auto` before."""
        return self._model.name if self._model else "auto"

    @property
    def notice(self) -> str | None:
        """What the user must be told about the choice, or None."""
        return self._choice.reason if self._choice and self._choice.loud else None

    async def resolve(self) -> AutoChoice:
        """Choose now, for whoever wants to show the name and the notice before the first request."""
        if self._choice is None:
            choice = await _choice(os.environ)
            self._model = self._services.model(choice.config)
            self._choice = choice
        return self._choice

    @property
    def key(self) -> str:
        """What tells the model that was chosen apart from others."""
        return "auto" if self._model is None else key_of(self._model)

    async def price(self) -> Price | None:
        """Return what the model that was chosen costs."""
        return (await rates_of(await self._chosen())).price

    async def most_output_tokens(self) -> int | None:
        """Return the longest answer of the model that was chosen."""
        return (await rates_of(await self._chosen())).most_output_tokens

    async def request(self, request: ModelRequest) -> ModelResponse:
        """Return the answer of the model that was chosen."""
        return await (await self._chosen()).request(request)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[TextDelta | ModelResponse, None]:
        """Yield the answer of the model that was chosen."""
        parts = (await self._chosen()).stream(request)
        try:
            async for part in parts:
                yield part
        finally:
            if isinstance(parts, AsyncGenerator):
                await parts.aclose()

    async def _chosen(self) -> Model:
        choice = await self.resolve()
        if not isinstance(choice.config, DemoModelConfig):
            # Also a server on this machine: which one is found there is no matter of the test.
            refuse_real(choice.config.name, self._services.agent)
        assert self._model is not None  # noqa: S101 - set by resolve
        return self._model


def auto_model(config: AutoModelConfig, services: Services) -> AutoModel:
    """Build the model of `model: auto`."""
    return AutoModel(config, services)
