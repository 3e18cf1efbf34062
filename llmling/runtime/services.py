"""What live parts are given when they are built: the few things of the pool they may use."""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llmling import plugins
from llmling.asks import Approve, AskPerson
from llmling.errors import StartupError
from llmling.frozen import frozen
from llmling.manifest.pins import Pins
from llmling.messages import RunResult
from llmling.protocols import Engine, Model, Store, ToolProvider
from llmling.runtime.clock import SYSTEM_CLOCK, Clock
from llmling.runtime.gate import Bounds

if TYPE_CHECKING:
    from llmling.server.listener import Listeners


async def _no_agents(name: str, prompt: str) -> RunResult:
    raise StartupError(f"agent {name!r} is used as a tool, but there is no pool to find it in")


async def _no_resources(server: str, uri: str) -> str:
    raise StartupError(f"resource {uri!r} needs the MCP server {server!r}, but there is no pool to find it in")


_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _NOTHING


@functools.lru_cache(maxsize=16)
def _path(folder: str) -> Path:
    return Path(folder)


def no_url(event_id: str) -> str | None:
    """Return None: without a server no event has an address."""
    return None


def _as_it_is(model: Model, agent: str) -> Model:
    return model


@frozen
class Services:
    """The pool as its parts see it.

    `folder` is the manifest's; relative paths start there. `ask(agent, prompt)` runs another agent, without its
    connections. `read_resource(server, uri)` reads from an MCP server. `approve(call, run)` and `person(question, run)`
    ask whoever attends runs that no engine keeps. `bounds` are what all model requests of a pool share; an agent alone
    has its own. `engine`, `listeners` and `status_url` are there for triggers only; `status_url(event_id)` is the
    address of an event on the pool's server, None without one. `store` is where the pool keeps what outlives a run;
    None without a pool. `agent` is the one a part belongs to, empty for parts of the pool; `around_model(model, agent)`
    returns what stands in for a model, such as one that also records.
    `tools` stand for the paths of function tools. `pins` say which tools of MCP servers were accepted; None: all.
    """

    folder: Path = field(default_factory=lambda: _path(os.getcwd()))  # noqa: PTH109 - a Path takes ten times as long
    clock: Clock = SYSTEM_CLOCK
    ask: Callable[[str, str], Awaitable[RunResult]] = _no_agents
    read_resource: Callable[[str, str], Awaitable[str]] = _no_resources
    approve: Approve | None = None
    person: AskPerson | None = None
    bounds: Bounds | None = None
    engine: Engine | None = None
    listeners: Listeners | None = None
    status_url: Callable[[str], str | None] = no_url
    store: Store | None = None
    providers: Mapping[str, ToolProvider] = field(default_factory=_nothing)
    agent: str = ""
    tools: Mapping[str, Any] = field(default_factory=_nothing)
    pins: Pins | None = None
    around_model: Callable[[Model, str], Model] = _as_it_is

    def model(self, config: Any) -> Model:
        """Turn a model's config into the live model: the one way in which an agent's models are built.

        A model that only asks others is left as it is; those it asks are built here too.
        """
        model: Model = plugins.create("models", config, self)
        return model if getattr(model, "asks_others", False) else self.around_model(model, self.agent)
