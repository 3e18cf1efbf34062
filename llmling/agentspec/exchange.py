"""The way out and the way in: `dump` writes a document of Agent Spec, `load` reads one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from llmling.agentspec.component import written
from llmling.agentspec.document import Document
from llmling.agentspec.exporting import Exporter
from llmling.agentspec.given import Given
from llmling.agentspec.importing import Importer
from llmling.agentspec.live import manifest_of
from llmling.agentspec.secrets import Fragments
from llmling.agentspec.text import Format, from_text, to_text
from llmling.errors import LLMlingError, ManifestError
from llmling.manifest.problems import Report
from llmling.manifest.root import Manifest
from llmling.runtime.agent import Agent


class Pool(Protocol):
    """An `AgentPool`, or whatever else knows its manifest."""

    @property
    def manifest(self) -> Manifest:
        """What it was made of."""
        ...


@dataclass(frozen=True, slots=True)
class Translation:
    """A document as the text of a manifest; `notes` are what a person should look at."""

    text: str
    notes: tuple[str, ...] = ()


def dump(
    thing: Manifest | Agent[Any] | Pool,
    format: Format = "json",  # noqa: A002
    *,
    name: str | None = None,
) -> str:
    """Return a pool, or with `name` one of its agents or teams, as a document of Agent Spec.

    The same content gives the same text. No secret is in it: each is a reference, `<component id>.<field>`.

    Raises:
        LookupError: There is no agent or team `name`.
        ManifestError: Something has no place in Agent Spec; the problems name all of it.
    """
    if isinstance(thing, Agent):
        manifest, name = manifest_of(thing)
    else:
        manifest = thing if isinstance(thing, Manifest) else thing.manifest
    exporter = Exporter(manifest)
    document = written(exporter.whole() if name is None else exporter.one(name))
    _check(document, exporter.fragments)
    return to_text(document, format)


def _check(document: dict[str, Any], fragments: Fragments) -> None:
    """Refuse to write a secret in the open, wherever it got in."""
    todo: list[tuple[str, Any]] = [("", document)]
    while todo:
        path, value = todo.pop()
        if isinstance(value, dict):
            todo.extend((f"{path}.{key}", item) for key, item in cast("dict[str, Any]", value).items())
        elif isinstance(value, list):
            todo.extend((f"{path}[{index}]", item) for index, item in enumerate(cast("list[Any]", value)))
        elif isinstance(value, str) and fragments.leaks(value):
            raise LLMlingError(f"a secret would be written in the open at {path[1:]}; keep it out of there")


def load(
    text: str, *, tools: Mapping[str, Any] | str | None = None, secrets: Mapping[str, Any] | None = None
) -> Manifest:
    """Read a document of Agent Spec, JSON or YAML; `AgentPool(manifest)` runs it.

    `tools` are the functions behind its tools by name, or a module that has them all; without them those are
    imported that `dump` noted. `secrets` holds the values of its references (`<component id>.api_key`), or of the
    variables they were known by.

    Raises:
        ManifestError: It cannot be used; the error lists every mistake with its line and column.
    """
    given = Given(tools, secrets or {}, Path.cwd())
    return Manifest.load(_mapping(text, given), env=given.env, tools=given.bound)


def translate(
    text: str, *, name: str = "<document>", tools: Mapping[str, str] | str | None = None, folder: Path | None = None
) -> Translation:
    """Return a document of Agent Spec as the text of a manifest, secrets as `${VARIABLE}`.

    `name` is what problems call the document, `tools` the `module:function` behind each of its tools or a module that
    has them all, `folder` where modules are looked for first; absent: the working directory.

    Raises:
        ManifestError: It cannot be used; the error lists every mistake with its line and column.
    """
    given = Given(tools, None, folder or Path.cwd())
    mapping = _mapping(text, given, name)
    return Translation(to_text(mapping, "yaml"), tuple(given.notes))


def _mapping(text: str, given: Given, name: str = "<document>") -> dict[str, Any]:
    report = Report()
    document = Document(from_text(text, name, report), report)
    mapping = Importer(document, given).manifest()
    if report.failed:
        raise ManifestError(report.problems())
    return mapping
