"""The tools of one agent, under names that no two of them share."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from llmling import plugins
from llmling.errors import StartupError
from llmling.protocols import Approval, Tool, ToolProvider
from llmling.runtime.services import Services

LONGEST_NAME = 64
"""Characters in the name of a tool that every model accepts."""

logger = logging.getLogger("llmling")


class Provided(Protocol):
    """A tool that somebody else offers, under a name that depends on who else offers one."""

    @property
    def origin(self) -> str:
        """Whose tool it is: the same after a restart, and no other tool's."""
        ...


def origin_of(tool: Tool) -> str:
    """Return whose tool it is; empty for one of the agent's own, whose name is what tells it apart."""
    # As `isinstance(tool, Provided)`, which takes fifty times as long.
    return getattr(tool, "origin", "")


class Toolbox:
    """What an agent has itself, from its manifest and from Python, and what its providers offer at the moment.

    Raises:
        StartupError: A tool cannot be described to a model, or two of the agent's own have the same name.
    """

    def __init__(self, agent: str, configs: Sequence[Any], services: Services, given: Sequence[Any] = ()) -> None:
        self._agent = agent
        self._own: dict[str, Tool] = {}
        self._told: set[str] = set()
        as_tool = plugins.load(plugins.AS_TOOL) if given else None
        for index, item in enumerate((*configs, *given)):
            try:
                tool: Tool = as_tool(item) if as_tool and index >= len(configs) else _created(item, services)
            except (ValueError, LookupError) as error:
                raise StartupError(f"agent {agent!r}, tools[{index}]: {error}", usage=True) from error
            name = tool.spec.name
            if name in self._own:
                raise StartupError(
                    f"agent {agent!r}, tools[{index}]: tools[{[*self._own].index(name)}] is a tool named {name!r} too; "
                    "give one of them another name, or remove it",
                    usage=True,
                )
            self._own[name] = tool

    def tools(self, providers: Sequence[ToolProvider]) -> list[Tool]:
        """Return the tools on offer right now.

        Of two with the same name the later one gets a number behind it; own tools come first, then those of the
        providers, in their order. The log says so once.
        """
        if not providers:
            return list(self._own.values())
        offers = [(provider.name, tool) for provider in providers for tool in provider.tools()]
        wanted = {*self._own, *(tool.spec.name for _, tool in offers)}
        tools, owners = dict(self._own), dict.fromkeys(self._own, "the agent itself")
        for provider, tool in offers:
            name, owner = tool.spec.name, f"MCP server {provider!r}"
            if name in tools:
                new = next(name for name in _numbered(name) if name not in tools and name not in wanted)
                self._tell(name, owners[name], owner, new)
                name, tool = new, RenamedTool(tool, new)  # noqa: PLW2901
            tools[name], owners[name] = tool, owner
        return list(tools.values())

    def _tell(self, name: str, first: str, second: str, new: str) -> None:
        line = f"agent {self._agent!r}: {first} and {second} both have a tool {name!r}; the second is now {new!r}"
        if line not in self._told:
            self._told.add(line)
            logger.warning("%s", line)


class RenamedTool:
    """A tool under another name."""

    def __init__(self, tool: Tool, name: str) -> None:
        self.spec = replace(tool.spec, name=name)
        self._tool = tool

    def __repr__(self) -> str:
        return f"RenamedTool({self._tool!r}, {self.spec.name!r})"

    @property
    def origin(self) -> str:
        """As the tool itself says."""
        return origin_of(self._tool)

    @property
    def repeatable(self) -> bool:
        """As the tool itself says."""
        return self._tool.repeatable

    @property
    def destructive(self) -> bool:
        """As the tool itself says."""
        return self._tool.destructive

    @property
    def approval(self) -> Approval | None:
        """As the tool itself says."""
        return self._tool.approval

    @property
    def timeout_s(self) -> float | None:
        """As the tool itself says."""
        return self._tool.timeout_s

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Call the tool.

        Raises:
            ToolError: The tool failed.
        """
        return await self._tool.call(arguments)


def _created(config: Any, services: Services) -> Tool:
    return plugins.create("tools", config, services)


def _numbered(name: str) -> Iterator[str]:
    number = 2
    while True:
        end = f"_{number}"
        yield name[: LONGEST_NAME - len(end)] + end
        number += 1
