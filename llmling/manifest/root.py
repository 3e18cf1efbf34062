"""The manifest itself: what a whole file says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from llmling.errors import ManifestError, Problem
from llmling.manifest.agents import AgentConfig
from llmling.manifest.base import Config, Named
from llmling.manifest.budgets import BudgetConfig
from llmling.manifest.load import Found, read
from llmling.manifest.nodes import Loc
from llmling.manifest.pins import Pins
from llmling.manifest.pool import (
    EngineConfig,
    MemoryEngineConfig,
    PoolLimitsConfig,
    ServerConfig,
    ServerEntry,
    SqliteEngineConfig,
)
from llmling.manifest.problems import label
from llmling.manifest.teams import TeamConfig
from llmling.manifest.tools import McpServerConfig
from llmling.masking import names_credential

__all__ = [
    "EngineConfig",
    "Loc",
    "Manifest",
    "MemoryEngineConfig",
    "PoolLimitsConfig",
    "ServerConfig",
    "SqliteEngineConfig",
]


# What a file includes may be its engine.
_INCLUDES = frozenset({"LL101", "LL102"})


class Manifest(Config):
    """A pool of agents as written in YAML.

    Example:
        >>> manifest = Manifest.load("agents.yml")
        >>> list(manifest.agents)
        ['writer', 'editor']
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(title="llmling manifest")

    include: list[str] = Field(default=[])
    """Files or globs merged first; what is written here wins, lists replace."""
    defaults: dict[str, Any] = Field(default={})
    """Keys every agent starts from; an agent's own key wins."""
    engine: EngineConfig = SqliteEngineConfig()
    """What keeps events: `sqlite` (default) or `memory`."""
    server: ServerEntry = ServerConfig()
    """Health and state over HTTP; false: none."""
    limits: PoolLimitsConfig = PoolLimitsConfig()
    """Limits of the whole pool: hops, messages, draining, concurrency, model requests."""
    budget: BudgetConfig | None = None
    """What the whole pool may spend in a day or month."""
    mcp_servers: Named[McpServerConfig] = Field(default={})
    """MCP servers shared by name."""
    agents: Named[AgentConfig] = Field(default={})
    """Agents by name."""
    teams: Named[TeamConfig] = Field(default={})
    """Teams by name."""

    _found: Found | None = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _tools: Mapping[str, Any] = PrivateAttr(default={})
    _again: Callable[[], Found] | None = PrivateAttr(default=None)

    @classmethod
    def load(
        cls,
        source: str | Path | Mapping[str, Any],
        *,
        env: Mapping[str, str] | None = None,
        tools: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Read a manifest from a file, or from a mapping built in Python.

        `env` is where `${VAR}` is looked up; absent: the environment of the process. `tools` are callables that
        stand for the `module:name` of function tools; they are used as they are instead of being imported.

        Raises:
            ManifestError: It cannot be used; the error lists every mistake in all its files.
        """
        return cls._read(source, env, one_agent=False, tools=tools or {})

    @classmethod
    def load_agent(cls, source: str | Path | Mapping[str, Any], *, env: Mapping[str, str] | None = None) -> Manifest:
        """Read a file that describes one agent: its keys at the root, plus `name` (absent: the file's stem).

        Raises:
            ManifestError: It cannot be used; the error lists every mistake.
        """
        return cls._read(source, env, one_agent=True, tools={})

    @classmethod
    def load_engine(cls, source: str | Path, *, env: Mapping[str, str] | None = None) -> Manifest:
        """Read only where a file keeps its events; mistakes in other sections and unset variables do not matter.

        Raises:
            ManifestError: The file, one it includes, or its `engine:` cannot be used.
        """
        found = read(source, env)
        known = found.root is not None and ("engine" not in found.root.entries or "engine" in found.sections)
        errors = [problem for problem in found.report.problems() if problem.severity == "error"]
        if not known or any(problem.code.startswith("LL0") or problem.code in _INCLUDES for problem in errors):
            raise ManifestError(errors)
        self = cls.model_validate({"engine": engine} if (engine := found.sections.get("engine")) else {})
        self._found, self._folder = found, found.folder
        return self

    @classmethod
    def of(cls, agents: Mapping[str, AgentConfig], tools: Mapping[str, Any], folder: Path) -> Manifest:
        """Return a manifest of agents that are valid already; `tools` as for `load`."""
        self = cls.model_validate({"agents": agents})
        self._tools, self._folder = tools, folder
        return self

    @classmethod
    def check(cls, source: str | Path | Mapping[str, Any], *, env: Mapping[str, str] | None = None) -> list[Problem]:
        """Return every error and warning of a manifest, sorted by place; `load` raises exactly when one is an error."""
        return read(source, env).report.problems()

    @classmethod
    def _read(
        cls,
        source: str | Path | Mapping[str, Any],
        env: Mapping[str, str] | None,
        *,
        one_agent: bool,
        tools: Mapping[str, Any],
    ) -> Manifest:
        self = cls._made(read(source, env, one_agent=one_agent, tools=tools), tools)
        self._again = partial(read, source, env, one_agent=one_agent, tools=tools)
        return self

    @classmethod
    def _made(cls, found: Found, tools: Mapping[str, Any]) -> Manifest:
        if found.report.failed:
            raise ManifestError([problem for problem in found.report.problems() if problem.severity == "error"])
        self = cls.model_validate(found.sections)
        self._found, self._folder, self._tools = found, found.folder, tools
        return self

    def reread(self) -> tuple[Found, Callable[[], Manifest]]:
        """Read its file anew; return what was found, and what makes a manifest of it.

        Raises:
            ManifestError: It cannot be used; raised by what makes the manifest.
            ValueError: It was not read from a file.
        """
        if self._again is None or self.path is None:
            raise ValueError("this manifest was not read from a file, so there is nothing to read anew")
        found = self._again()

        def make() -> Manifest:
            made = self._made(found, self._tools)
            made._again = self._again
            return made

        return found, make

    @property
    def sources(self) -> tuple[tuple[Path, ...], tuple[tuple[Path, str], ...]]:
        """The files it was read from, and the patterns of `include` with the folder each starts from."""
        return (self._found.files, self._found.patterns) if self._found else ((), ())

    @property
    def folder(self) -> Path:
        """The folder relative paths start from: that of the manifest's file, or the working directory."""
        return self._folder

    @property
    def path(self) -> Path | None:
        """The manifest's file, or None when it was not read from one."""
        return self._found.path if self._found else None

    @property
    def named(self) -> str:
        """Its file as it was named, quoted for a shell; `FILE` when it was not read from one."""
        found = self._found
        return "FILE" if found is None or found.path is None or found.root is None else quote(found.root.source.name)

    @property
    def pins(self) -> Pins | None:
        """Which tools of MCP servers were accepted, as the lock file beside it says; None when there is none."""
        return self._found.pins if self._found else None

    @property
    def tools(self) -> Mapping[str, Any]:
        """Callables that stand for the `module:name` of function tools."""
        return self._tools

    def locate(self, *loc: str | int) -> str:
        """Return `file:line:column` of a key, such as `locate("agents", "analyzer", "model")`, or the keys joined."""
        return self._found.locate(loc) if self._found else ".".join(str(part) for part in loc)

    def written(self, *loc: str | int) -> str | None:
        """Return the text of a value as it was written, such as `"${KEY}"`, if a variable was filled into it."""
        return self._found.written(loc) if self._found else None

    @property
    def secrets(self) -> set[str]:
        """The secrets it holds: keys, tokens, credentials in headers, addresses and environments of servers."""
        return {word for text in _secrets(self) for word in {text, *text.split()}}

    @property
    def warnings(self) -> list[Problem]:
        """What `check` tells of it; of a manifest there are only warnings."""
        return self._found.report.problems() if self._found else []

    @property
    def filled(self) -> Mapping[str, str]:
        """Values that came from the environment, each with the `${NAME}` it was written as."""
        return self._found.report.secrets if self._found else {}

    def problem(self, loc: Loc, code: str, message: str) -> Problem:
        """Return a problem at the place of a key."""
        if self._found is None:
            return Problem("<manifest>", 1, 1, code, f"{message} ({label(loc)})")
        return self._found.problem(loc, code, message)

    @property
    def nodes(self) -> dict[str, AgentConfig | TeamConfig]:
        """Agents and teams together, by name."""
        return {**self.agents, **self.teams}

    @property
    def triggered(self) -> bool:
        """Whether any trigger is enabled."""
        return any(trigger.enabled for node in self.nodes.values() for trigger in node.triggers)


def _secrets(value: object, name: str = "") -> Iterator[str]:
    match value:
        case SecretStr():
            yield value.get_secret_value()
        case BaseModel():
            for field in type(value).model_fields:
                yield from _secrets(getattr(value, field), field)
        case Mapping():
            for key, inner in cast("Mapping[str, object]", value).items():
                yield from _secrets(inner, key)
        case list():
            for inner in cast("list[object]", value):
                yield from _secrets(inner, name)
        # `key:` alone is what keeps events in order.
        case str() if name != "key" and (names_credential(name) or name.lower() == "cookie"):
            yield value
        case str() if name == "url" and "@" in value:
            yield urlsplit(value).password or ""
        case _:
            pass
