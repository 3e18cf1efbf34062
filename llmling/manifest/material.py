"""What a manifest names outside itself: Python objects, files and folders, demo scripts, cassettes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from llmling import plugins
from llmling.manifest.agents import FACT_TOOLS, AgentConfig
from llmling.manifest.cassettes import read_cassette
from llmling.manifest.draft import Draft
from llmling.manifest.hooks import hook_methods
from llmling.manifest.importing import ImportFailed, import_object
from llmling.manifest.knowledge import FileKnowledgeConfig, FolderKnowledgeConfig
from llmling.manifest.models import FallbackModelConfig, ReplayModelConfig, ScriptModelConfig
from llmling.manifest.nodes import Loc, ScalarNode, find
from llmling.manifest.pool import SqliteEngineConfig
from llmling.manifest.problems import Source, did_you_mean
from llmling.manifest.scripts import read_script
from llmling.manifest.shape import Part
from llmling.manifest.teams import TeamConfig
from llmling.manifest.tools import AgentToolConfig, FunctionToolConfig

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


def check_material(draft: Draft) -> None:
    """Report Python objects that cannot be imported and files that do not exist."""
    if draft.engine is not None and isinstance(draft.engine.config, SqliteEngineConfig):
        path = draft.engine.config.path
        if (draft.folder / path).is_dir():
            draft.problem(draft.engine, ("path",), "LL310", f'"{path}" is a folder; name a file in it')
    objects: dict[str, Any] = dict(draft.tools)
    scripts: set[tuple[str, str]] = set()
    for _, part in draft.nodes():
        for loc, path, shape in _named(part):
            if path not in objects:
                objects[path] = _imported(path, draft.folder)
            _check_object(draft, part, loc, objects[path], path, shape)
        if isinstance(part.config, AgentConfig):
            _check_tools(draft, part, part.config, objects)
            _check_knowledge(draft, part, part.config)
            if isinstance(part.config.output, Mapping):
                _check_output(draft, part, part.config.output)
        for loc, script in _scripts(part.config.model, ("model",)):
            if (script.type, script.path) not in scripts:
                _check_script(draft, part, (*loc, "path"), script)
            scripts.add((script.type, script.path))


def _named(part: Part) -> Iterator[tuple[Loc, str, str]]:
    for index, connection in enumerate(part.config.connections):
        if connection.transform is not None:
            yield ("connections", index, "transform"), connection.transform, "callable"
    if isinstance(part.config, TeamConfig) and part.config.pick is not None:
        yield ("pick",), part.config.pick, "callable"
    if isinstance(part.config, AgentConfig):
        for index, tool in enumerate(part.config.tools):
            if isinstance(tool, FunctionToolConfig):
                yield ("tools", index, "function"), tool.function, "tool"
        for index, hook in enumerate(part.config.hooks):
            yield ("hooks", index), hook, "hook"
        if isinstance(part.config.output, str):
            yield ("output",), part.config.output, "model"


def _imported(path: str, folder: Path) -> Any:
    try:
        return import_object(path, folder)
    except ImportFailed as error:
        return error


def _check_object(draft: Draft, part: Part, loc: Loc, value: Any, path: str, shape: str) -> None:
    if isinstance(value, ImportFailed):
        draft.problem(part, loc, "LL308" if value.module else "LL309", str(value), sentence=True)
    elif shape == "callable" and not callable(value):
        draft.problem(part, loc, "LL309", f"{path} is not callable", hint="name a function")
    elif shape == "hook":
        try:
            hook_methods(value)
        except ValueError as error:
            draft.problem(part, loc, "LL309", f"{path} {error}", sentence=True)
    elif shape == "model" and not (isinstance(value, type) and issubclass(value, BaseModel)):
        draft.problem(part, loc, "LL309", f"{path} is not a pydantic model", hint="name a subclass of BaseModel")


def _check_tools(draft: Draft, part: Part, config: AgentConfig, objects: Mapping[str, Any]) -> None:
    seen: dict[str, int] = {}
    for index, tool in enumerate(config.tools):
        key = "function" if isinstance(tool, FunctionToolConfig) and tool.name is None else "name"
        try:
            name = _tool_name(tool, objects)
        except ValueError as error:
            draft.problem(part, ("tools", index, "function"), "LL309", str(error))
            continue
        key_place = ("tools", index, key)
        if config.memory.facts and name in FACT_TOOLS:
            hint = "give this one another `name:`"
            draft.problem(part, key_place, "LL312", f'`memory: {{facts: true}}` has a tool "{name}" too', hint=hint)
        if name is not None and (first := seen.setdefault(name, index)) != index:
            hint = "remove one of them" if isinstance(tool, AgentToolConfig) else "give one of them another `name:`"
            draft.problem(part, key_place, "LL312", f'tools[{first}] has the name "{name}" too', hint=hint)


def _tool_name(tool: Any, objects: Mapping[str, Any]) -> str | None:
    """Return the name a model sees, as far as it is known before the start.

    Raises:
        ValueError: The tool cannot be described to a model.
    """
    if isinstance(tool, AgentToolConfig):
        return plugins.load(plugins.AGENT_TOOL_NAME)(tool.name)
    if isinstance(tool, FunctionToolConfig) and not isinstance(found := objects[tool.function], ImportFailed):
        return plugins.load(plugins.DESCRIBE)(tool, found).spec.name
    return None


def _check_knowledge(draft: Draft, part: Part, config: AgentConfig) -> None:
    for index, item in enumerate(config.knowledge):
        loc = ("knowledge", index, "path")
        if isinstance(item, FileKnowledgeConfig):
            if glob.has_magic(item.path):
                if next(glob.iglob(item.path, root_dir=draft.folder, recursive=True), None) is None:  # noqa: PTH207
                    draft.problem(part, loc, "LL310", f'no file matches "{item.path}"', sentence=False)
            elif not (draft.folder / item.path).exists():
                _missing(draft, part, loc, "file or folder", item.path)
        elif isinstance(item, FolderKnowledgeConfig) and not (draft.folder / item.path).is_dir():
            _missing(draft, part, loc, "folder", item.path)


def _missing(draft: Draft, part: Part, loc: Loc, kind: str, path: str) -> None:
    target = draft.folder / path
    if target.exists():
        draft.problem(part, loc, "LL310", f'"{path}" is no {kind}')
        return
    parent = target.parent
    names = [item.name for item in parent.iterdir()] if parent.is_dir() else []
    draft.problem(
        part, loc, "LL310", f'there is no {kind} "{path}"', hint=did_you_mean(target.name, names), sentence=False
    )


def _scripts(model: Any, loc: Loc) -> Iterator[tuple[Loc, ScriptModelConfig | ReplayModelConfig]]:
    if isinstance(model, ScriptModelConfig | ReplayModelConfig):
        yield loc, model
    elif isinstance(model, FallbackModelConfig):
        for index, item in enumerate(model.models):
            yield from _scripts(item, (*loc, "models", index))


def _check_script(draft: Draft, part: Part, loc: Loc, script: ScriptModelConfig | ReplayModelConfig) -> None:
    path = script.path
    read = read_script if isinstance(script, ScriptModelConfig) else read_cassette
    try:
        read(draft.folder / path, Source(os.path.join(draft.shown, path)), draft.report)  # noqa: PTH118
    except FileNotFoundError:
        _missing(draft, part, loc, "file", path)
    except OSError as error:
        draft.problem(part, loc, "LL310", f'cannot read "{path}": {(error.strerror or str(error)).lower()}')


def _check_output(draft: Draft, part: Part, schema: Mapping[str, Any]) -> None:
    for fault in plugins.load(plugins.SCHEMA_FAULTS)(schema):
        loc = ("output", *fault.path)
        node = find(part.node, loc).node
        hint = did_you_mean(node.text, _TYPES) if fault.path[-1:] == ("type",) and isinstance(node, ScalarNode) else ""
        draft.problem(part, loc, "LL214", f"not a valid JSON Schema: {fault}", hint=hint)
