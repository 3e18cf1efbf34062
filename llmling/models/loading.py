"""The only import of litellm, made once per process in a thread, with what it would do to the process undone."""

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
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from llmling import garbage
from llmling.models import clients

_QUIET = {
    "LITELLM_MODE": "PRODUCTION",  # otherwise it reads `.env` of the working directory into the environment
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # otherwise it downloads prices
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",  # otherwise it downloads them, on the event loop
    "LITELLM_LOCAL_BLOG_POSTS": "True",
}
_WARNS = "litellm.llms.vertex_ai.context_caching.vertex_ai_context_caching"
"""Imported by litellm at the first request to Gemini; since 1.110 it has such annotations too."""

_LATER = (
    "litellm.llms.github_copilot.authenticator", "litellm.llms.github_copilot.per_user_auth", "litellm.proxy._types",
    "litellm._service_logger", "litellm.llms.openai.openai",
)  # fmt: skip
"""Imported by litellm in the first call of `acompletion`, where they would stop the loop for a third of a second."""


_ASKED = ("openai/gpt-4o-mini", "anthropic/claude-3-5-haiku-latest")


class _Ended(BaseException):
    """The program has ended while something was imported that nobody waits for."""


class Once:
    """Work done once per process, in a thread of its own; a failure is forgotten, so that it is tried again."""

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        self._work = work
        self._name = name
        self._lock = threading.Lock()
        self._future: concurrent.futures.Future[Any] | None = None
        self._waiting = 0

    def begin(self) -> concurrent.futures.Future[Any]:
        """Begin with it, unless that has been done; return what its result will be in."""
        with self._lock:
            if self._future is None:
                self._future = concurrent.futures.Future()
                self._future.set_running_or_notify_cancel()  # no waiter that is cancelled may cancel it for the others
                threading.Thread(target=self._run, args=(self._future,), name=self._name).start()
            return self._future

    async def done(self) -> Any:
        """Return its result."""
        with self._wanted():
            while True:
                # Who asks at the very moment it is given up makes it begin again.
                with contextlib.suppress(_Ended):
                    return await asyncio.wrap_future(self.begin())

    def result(self) -> Any:
        """Return its result; blocks."""
        with self._wanted():
            while True:
                with contextlib.suppress(_Ended):
                    return self.begin().result()

    @contextmanager
    def _wanted(self) -> Generator[None]:
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _run(self, future: concurrent.futures.Future[Any]) -> None:
        ending = _Ending(lambda: self._waiting > 0)
        sys.meta_path.insert(0, ending)
        try:
            future.set_result(self._work())
        except BaseException as error:  # noqa: BLE001 - handed to every waiter
            with self._lock:
                self._future = None
            future.set_exception(error)
        finally:
            sys.meta_path.remove(ending)


class _Ending:
    """Finds no module, and ends the imports of its thread once the program has ended and nobody waits for them.

    Without it the program would wait. As a daemon the thread would be killed wherever it is, which code in Rust answers
    with an abort.
    """

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self._wanted = wanted
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if self._thread == threading.get_ident() and not threading.main_thread().is_alive() and not self._wanted():
            raise _Ended


async def load() -> Any:
    """Return litellm, imported once per process in a thread of its own; importing it takes about two seconds."""
    return await _litellm.done()


async def load_acompletion() -> Any:
    """Return litellm, with everything imported that `acompletion` would import in its first call."""
    return await _whole.done()


def begin() -> None:
    """Begin to import litellm, unless that has been done; nobody waits for it."""
    _litellm.begin()


def _import() -> Any:
    # It makes 300,000 objects that live as long as the process.
    with garbage.held(imports=True), _environment(_QUIET):
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
            with contextlib.suppress(ImportError, AttributeError):  # of another release
                _ask_for_providers(litellm)
    # So do others that litellm imports when a provider is first asked.
    warnings.filterwarnings("ignore", r"Items? .* using the `ReadOnly` qualifier", UserWarning)
    # Cancelling while litellm prepares a request in a thread leaves what the thread returns to nobody.
    warnings.filterwarnings("ignore", r"coroutine '\S*(acompletion|async_)\S*' was never awaited", RuntimeWarning)
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


def _ask_for_providers(litellm: Any) -> None:
    """Let litellm import and read here what it would on the loop for the first model of a provider."""
    utils: Any = importlib.import_module("litellm.utils")
    source: Any = importlib.import_module("litellm.litellm_core_utils.get_model_cost_map")
    if source.get_model_cost_map_source_info()["source"] == "local":
        # The bundled table is the one it has loaded; parsing it again would stop every thread for as long.
        utils.get_bundled_model_cost_map = lambda: litellm.model_cost
    for name in _ASKED:
        model, provider, _, _ = litellm.get_llm_provider(model=name)
        config = utils.ProviderConfigManager.get_provider_chat_config(model, litellm.LlmProviders(provider))
        config.get_supported_openai_params(model)


def _import_the_rest() -> Any:
    litellm = _litellm.result()
    with garbage.held(imports=True), _environment(_QUIET), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for name in _LATER:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    return litellm


_litellm = Once(_import, "llmling-import-litellm")
_whole = Once(_import_the_rest, "llmling-import-acompletion")


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
