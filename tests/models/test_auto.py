"""What `model: auto` takes: a key, a local server, else the demo."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web
from llm_server import LLMServer

from llmling import plugins
from llmling.manifest.models import AutoModelConfig, DemoModelConfig, LiteLLMModelConfig
from llmling.messages import Message
from llmling.models.auto import PREFERRED, AutoChoice, AutoModel, probe_local, resolve_auto
from llmling.models.clients import close_clients
from llmling.models.keys import KEYS
from llmling.protocols import ModelRequest, ModelResponse
from llmling.runtime.services import Services

REQUEST = ModelRequest((Message.user("hello there"),))
CLOSED = "http://127.0.0.1:9"


async def nothing(env: Mapping[str, str]) -> AutoChoice | None:
    return None


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    async with LLMServer(models=("llama3.2:1b", "other")) as server:
        yield server
        await close_clients()


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for variables in KEYS.values():
        for variable in variables:
            monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OLLAMA_API_BASE", CLOSED)
    return monkeypatch


def auto() -> AutoModel:
    return plugins.create("models", AutoModelConfig(), Services())


@pytest.mark.parametrize(("provider", "name"), PREFERRED)
async def test_every_key_has_a_model_of_its_provider(provider: str, name: str) -> None:
    for variable in KEYS[provider]:
        choice = await resolve_auto({variable: "k"}, nothing)
        assert isinstance(choice.config, LiteLLMModelConfig)
        assert choice.config.name == name
        assert name.startswith(f"{provider}/")
        assert (choice.loud, choice.reason) == (False, f"{variable} is set")


async def test_the_first_key_in_order_wins_and_empty_ones_do_not_count() -> None:
    choice = await resolve_auto({"GROQ_API_KEY": "k", "ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": ""}, nothing)
    assert choice.reason == "ANTHROPIC_API_KEY is set"


async def test_a_key_comes_before_a_local_server(server: LLMServer) -> None:
    env = {"OPENAI_API_KEY": "k", "OLLAMA_API_BASE": server.url}
    assert (await resolve_auto(env)).reason == "OPENAI_API_KEY is set"
    assert server.paths == []


async def test_nothing_there_is_the_demo_and_loud() -> None:
    choice = await resolve_auto({}, nothing)
    assert isinstance(choice.config, DemoModelConfig)
    assert choice.loud
    assert "DEMO" in choice.reason


async def test_an_answering_ollama_is_taken_with_its_first_model(server: LLMServer) -> None:
    choice = await probe_local({"OLLAMA_API_BASE": server.url})
    assert choice is not None
    assert isinstance(choice.config, LiteLLMModelConfig)
    assert (choice.config.name, choice.config.api_base) == ("ollama/llama3.2:1b", server.url)
    assert server.url in choice.reason
    assert not choice.loud


async def test_an_openai_compatible_server_in_the_environment_is_taken(server: LLMServer) -> None:
    choice = await probe_local({"OPENAI_BASE_URL": server.openai_url, "OLLAMA_API_BASE": server.url})
    assert choice is not None
    assert isinstance(choice.config, LiteLLMModelConfig)
    assert (choice.config.name, choice.config.api_base) == ("openai/llama3.2:1b", server.openai_url)


@pytest.mark.parametrize(
    "answer",
    ["{}", "[]", "not json", '{"object": "list", "data": []}', '{"data": [{"id": "x"}]}', '{"models": [{"size": 1}]}'],
)
async def test_another_server_on_the_port_is_not_mistaken(answer: str) -> None:
    async def anything(request: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", anything)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        found = await probe_local({"OPENAI_BASE_URL": f"{url}/v1", "OLLAMA_API_BASE": url})
        assert found is None or url not in found.reason
    finally:
        await runner.cleanup()


async def test_a_silent_server_costs_no_more_than_its_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening:
        started = asyncio.get_running_loop().time()
        found = await probe_local({"OPENAI_BASE_URL": f"{url}/v1", "OLLAMA_API_BASE": url})
        assert asyncio.get_running_loop().time() - started < 15
        assert found is None or url not in found.reason


async def test_the_choice_is_made_on_the_first_request_and_named(server: LLMServer, clean: pytest.MonkeyPatch) -> None:
    clean.setenv("OLLAMA_API_BASE", server.url)
    model = auto()
    assert (model.name, model.notice) == ("auto", None)
    response = await model.request(REQUEST)
    assert response.message.text == "echo: hello there"
    assert (model.name, model.notice, response.demo) == ("ollama/llama3.2:1b", None, False)
    last = [part async for part in model.stream(REQUEST)][-1]
    assert isinstance(last, ModelResponse)
    assert last.message.text == "echo: hello there"


async def test_all_agents_of_a_loop_share_one_look_and_one_notice(
    clean: pytest.MonkeyPatch, server: LLMServer, caplog: pytest.LogCaptureFixture
) -> None:
    clean.setenv("OLLAMA_API_BASE", server.url)
    server.models = ()
    models = [auto() for _ in range(5)]
    # Of the logger itself: a command that was run in this process may have silenced it.
    with caplog.at_level(logging.INFO, "llmling.models.auto"):
        answers = await asyncio.gather(*(model.request(REQUEST) for model in models))
    assert server.paths.count("GET /api/tags") == 1
    assert len([record for record in caplog.records if "model auto" in record.message]) == 1
    if all(answer.demo for answer in answers):  # nothing else listens on this machine
        assert caplog.records[0].levelno == logging.WARNING
        assert all(model.name == "demo" and model.notice and "DEMO" in model.notice for model in models)


async def test_another_environment_is_looked_at_anew(clean: pytest.MonkeyPatch, server: LLMServer) -> None:
    clean.setenv("OPENAI_API_KEY", "k")
    assert (await auto().resolve()).reason == "OPENAI_API_KEY is set"
    clean.delenv("OPENAI_API_KEY")
    clean.setenv("MISTRAL_API_KEY", "k")
    model = auto()
    assert (await model.resolve()).reason == "MISTRAL_API_KEY is set"
    assert model.name == "mistral/mistral-small-latest"
