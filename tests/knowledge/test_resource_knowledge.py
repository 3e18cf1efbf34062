from __future__ import annotations

import logging
from typing import Any, cast

import pytest

from llmling.errors import StartupError, ToolError
from llmling.knowledge.resource import ResourceKnowledge
from llmling.manifest.knowledge import ResourceKnowledgeConfig
from llmling.protocols import ToolProvider
from llmling.runtime.services import Services


def source(resources: dict[str, str]) -> ResourceKnowledge:
    async def read(server: str, uri: str) -> str:
        if uri not in resources:
            raise ToolError(f"{server} is down")
        return resources[uri]

    provider = cast("ToolProvider", cast("Any", object()))
    services = Services(read_resource=read, providers={"files": provider})
    return ResourceKnowledge(ResourceKnowledgeConfig(server="files", uri="file:///x"), services)


async def test_it_is_read_for_every_run() -> None:
    resources = {"file:///x": "one"}
    async with source(resources) as it:
        assert it.title == "file:///x"
        assert await it.text("q") == "one"
        resources["file:///x"] = "two"
        assert await it.text("q") == "two"


async def test_the_model_is_told_when_it_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with source({}) as it:
            assert await it.text("q") == "(resource file:///x is not available right now: files is down)"
    assert "resource 'file:///x' of MCP server 'files': files is down" in caplog.text


async def test_an_unknown_server_is_refused_at_the_start() -> None:
    config = ResourceKnowledgeConfig(server="nope", uri="file:///x")
    with pytest.raises(StartupError, match="MCP server 'nope' is not in the pool; known: none"):
        async with ResourceKnowledge(config, Services()):
            pytest.fail("entered")
