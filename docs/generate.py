"""Writes docs/reference from the code: `python docs/generate.py` (`make docs`); a test holds that it is current."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from llmling.manifest import json_schema
from llmling.manifest.problems import CODES
from llmling_cli.app import app

REFERENCE = Path(__file__).parent / "reference"
_MADE = "<!-- Made by docs/generate.py from the code; do not edit. -->"
_WARNINGS = {
    "LL501": "a key of a model is not set",
    "LL502": "a port is in use",
    "LL503": "a budget bounds money, and the price of a model is not known",
    "LL504": "a model names no provider that is known",
}

SECTIONS = {
    "PoolLimitsConfig": "limits of the pool",
    "SqliteEngineConfig": "engine: sqlite",
    "MemoryEngineConfig": "engine: memory",
    "ServerConfig": "server",
    "AgentConfig": "agents",
    "TeamConfig": "teams",
    "MemberConfig": "members",
    "ConnectionConfig": "connections",
    "LimitsConfig": "limits of a run",
    "ContextConfig": "context",
    "PlanConfig": "plan",
    "InboxConfig": "inbox",
    "RetriesConfig": "retries",
    "RedeliveryConfig": "redelivery",
    "FileTriggerConfig": "trigger: file",
    "WebhookTriggerConfig": "trigger: webhook",
    "HmacAuth": "auth: hmac",
    "GithubAuth": "auth: github",
    "StripeAuth": "auth: stripe",
    "StandardAuth": "auth: standard",
    "BearerAuth": "auth: bearer",
    "NoAuth": "auth: none",
    "ScheduleTriggerConfig": "trigger: schedule",
    "AutoModelConfig": "model: auto",
    "DemoModelConfig": "model: demo",
    "ScriptModelConfig": "model: script",
    "ReplayModelConfig": "model: replay",
    "HumanModelConfig": "model: human",
    "LiteLLMModelConfig": "model: litellm",
    "Price": "price",
    "FallbackModelConfig": "model: fallback",
    "ModelSettings": "model_settings",
    "StructuredInstructionsConfig": "instructions: parts",
    "GuidanceConfig": "guidance",
    "ConstraintsConfig": "constraints",
    "TemplateInstructionsConfig": "instructions: template",
    "FunctionToolConfig": "tool: function",
    "AgentToolConfig": "tool: agent",
    "StdioServerConfig": "mcp server: stdio",
    "HttpServerConfig": "mcp server: http",
    "FileKnowledgeConfig": "knowledge: file",
    "UrlKnowledgeConfig": "knowledge: url",
    "TextKnowledgeConfig": "knowledge: text",
    "PromptKnowledgeConfig": "knowledge: prompt",
    "ResourceKnowledgeConfig": "knowledge: resource",
    "FolderKnowledgeConfig": "knowledge: folder",
    "FileSinkConfig": "sink: file",
    "HttpSinkConfig": "sink: http",
}
"""Definitions of the schema in the order of the page, with their headings."""


def manifest_page() -> str:
    """Return the page of every key of the manifest."""
    schema = json_schema()
    definitions: dict[str, Any] = dict(schema["$defs"])
    definitions.pop("Variable")
    lines = [
        "# Keys of the manifest",
        "",
        _MADE,
        "",
        (
            "Every key with its type, its default and what it does. How a file is read (includes, `${VAR}`, YAML rules)"
            ": [manifest](../manifest.md). The same for editors: [manifest.schema.json](manifest.schema.json), or"
            " `llmling schema`."
        ),
        "",
        (
            "`${VAR}` may stand for any value. Keys that start with `x-` are notes, anywhere. A key without a default"
            " is optional and absent unless it says *required*."
        ),
        "",
        "## root",
        "",
        *_table(schema),
    ]
    # Definitions that a plug point brings and this list does not know come last, under their own names.
    order = [name for name in SECTIONS if name in definitions] + sorted(definitions.keys() - SECTIONS.keys())
    for name in order:
        definition = definitions[name]
        lines += ["", f"## {SECTIONS.get(name, name)}", "", _flat(definition.get("description", "")), ""]
        lines += _table(definition)
    return "\n".join(lines) + "\n"


def _table(definition: dict[str, Any]) -> list[str]:
    required = definition.get("required", [])
    rows = ["| key | type | default | |", "|---|---|---|---|"]
    for key, item in definition.get("properties", {}).items():
        default = "*required*" if key in required else _default(item)
        text = _flat(item.get("description", "")).replace("|", "\\|")
        rows.append(f"| `{key}` | {_type(item)} | {default} | {text} |")
    return rows


def _default(item: dict[str, Any]) -> str:
    if "default" not in item or item["default"] is None or item["default"] == "":
        return ""
    if "$ref" in item and isinstance(item["default"], dict):
        return "see there"
    return f"`{json.dumps(item['default'])}`"


def _type(item: dict[str, Any]) -> str:
    if "$ref" in item:
        return _link(item["$ref"])
    for union in ("anyOf", "oneOf"):
        if union in item:
            kinds = [_type(each) for each in item[union] if each != {"type": "null"} and not _variable(each)]
            return " or ".join(dict.fromkeys(kinds))
    if "const" in item:
        return f"`{json.dumps(item['const'])}`".replace('"', "")
    if "enum" in item:
        return ", ".join(f"`{choice}`" for choice in item["enum"])
    match item.get("type"):
        case "array":
            return f"list of {_type(item['items'])}" if item.get("items") else "list"
        case "object":
            inner = item.get("additionalProperties")
            return (
                f"mapping of {_type(cast('dict[str, Any]', inner))}" if isinstance(inner, dict) and inner else "mapping"
            )
        case "string":
            return "text"
        case "integer":
            return "whole number" + _bounds(item)
        case "number":
            return "number" + _bounds(item)
        case "boolean":
            return "true or false"
        case _:
            return "any"


def _bounds(item: dict[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "over", "maximum": "to", "exclusiveMaximum": "under"}
    parts = [f"{word} {item[key]:g}" for key, word in words.items() if key in item]
    return f" {' '.join(parts)}" if parts else ""


def _variable(item: dict[str, Any]) -> bool:
    return item.get("$ref", "").endswith("/Variable")


def _link(reference: str) -> str:
    name = reference.rpartition("/")[2]
    heading = SECTIONS.get(name, name)
    return f"[{heading}](#{heading.lower().replace(':', '').replace(' ', '-')})"


def _flat(text: str) -> str:
    return " ".join(text.split())


def cli_page() -> str:
    """Return the page of every command with its arguments and options."""
    lines = [
        "# Command line",
        "",
        _MADE,
        "",
        (
            "Exit codes everywhere: 0 done, 1 it failed while running, 2 bad manifest, missing key, port in use or"
            " wrong arguments. `serve` ends with 130 or 143 on a second signal. `--json` prints one JSON object per"
            " line and nothing else on standard output; logs go to standard error. `NO_COLOR` and anything but a"
            " terminal give plain text. `--debug` (or `LLMLING_DEBUG=1`) before the command shows tracebacks."
        ),
    ]
    for path, function in _commands(app, "llmling"):
        usage = [f"`{' '.join([path, *(each.usage for each in _parameters(function))])}`", ""]
        lines += [
            "",
            f"## {path}",
            "",
            *usage,
            *(f"{part}\n" for part in (inspect.getdoc(function) or "").split("\n\n")),
        ]
        if parameters := _parameters(function):
            lines += ["| | | default |", "|---|---|---|", *(each.row for each in parameters)]
    return "\n".join(lines).rstrip() + "\n"


def _commands(group: typer.Typer, path: str) -> list[tuple[str, Any]]:
    found = [
        (f"{path} {command.name or command.callback.__name__}", command.callback)
        for command in group.registered_commands
        if command.callback is not None
    ]
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            found += _commands(inner.typer_instance, f"{path} {inner.name}")
    return found


@dataclass(frozen=True)
class _Parameter:
    usage: str
    row: str


def _parameters(function: Any) -> list[_Parameter]:
    found: list[_Parameter] = []
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = get_args(hints[name])[:2]
        option = isinstance(info, OptionInfo)
        default = "" if parameter.default in (parameter.empty, None, False) else f"`{parameter.default}`"
        word = _option(name, kind, info) if option else str(info.metavar)
        usage = f"[{word}]" if option or parameter.default is None else word
        row = f"| `{word}` | {_flat(info.help or '')} | {default} |"
        found.append(_Parameter(usage, row))
    return found


def _option(name: str, kind: Any, info: OptionInfo) -> str:
    # Within Annotated, typer keeps the first declaration where a default would stand.
    declared = [each for each in (info.default, *(info.param_decls or ())) if str(each).startswith("--")]
    flag = str(declared[0]) if declared else f"--{name.replace('_', '-')}"
    kinds = [each for each in (kind, *get_args(kind)) if isinstance(each, type)]
    if bool in kinds:
        return flag
    choices = [choice for each in kinds if issubclass(each, StrEnum) for choice in each]
    # A bare | would end the cell of a table.
    value = info.metavar or " or ".join(choices) or ("N" if int in kinds else name.upper())
    return f"{flag} {value}"


def problems_page() -> str:
    """Return the page of every code that `validate` prints."""
    lines = [
        "# Codes of `validate`",
        "",
        _MADE,
        "",
        (
            "A code never changes its meaning. Errors stop `validate` and `serve` alike (exit 2); warnings tell what"
            " this machine lacks. The message beside the code says what to write instead."
        ),
        "",
        "| code | means | |",
        "|---|---|---|",
        *(f"| `{code}` | {text} | error |" for code, text in CODES.items()),
        *(f"| `{code}` | {text} | warning |" for code, text in _WARNINGS.items()),
    ]
    return "\n".join(lines) + "\n"


def generated() -> dict[Path, str]:
    """Return the text of every file that is made."""
    return {
        REFERENCE / "manifest.md": manifest_page(),
        REFERENCE / "manifest.schema.json": json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n",
        REFERENCE / "cli.md": cli_page(),
        REFERENCE / "problems.md": problems_page(),
    }


def main() -> None:
    """Write them."""
    REFERENCE.mkdir(exist_ok=True)
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")
        typer.echo(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


if __name__ == "__main__":
    main()
