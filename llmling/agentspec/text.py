"""Documents and manifests as text: JSON, and YAML that readers of YAML 1.1 and 1.2 take for the same."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

import yaml

from llmling.errors import ManifestError
from llmling.manifest.nodes import MappingNode, core_value
from llmling.manifest.parse import decode, parse
from llmling.manifest.problems import Place, Report, Source

Format: TypeAlias = Literal["json", "yaml"]
_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Write the same value twice rather than an anchor."""
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None if isinstance(core_value(value), str) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)  # pyright: ignore[reportUnknownMemberType]


_Dumper.add_representer(str, _text)


def plain(value: Any) -> Any:
    """Return a value made of nothing but what a writer knows and a comparison takes for equal."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in cast("Mapping[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("list[Any]", value)]
    return str(value) if isinstance(value, str) else value


def to_text(data: Any, form: Format) -> str:
    """Return plain data as JSON or YAML, ending with a line break."""
    data = plain(data)
    if form == "json":
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def from_text(text: str, name: str, report: Report) -> MappingNode:
    """Return the nodes of a document in JSON or YAML; each knows its line and column.

    Raises:
        ManifestError: It cannot be read.
    """
    if text.lstrip()[:1] == "{":
        # JSON writes characters beyond the first 65,536 as two halves, which YAML does not know.
        text = _PAIR.sub(_joined, text)
    source = Source(name)
    decoded = decode(text.encode("utf-8", "surrogatepass"), source, report)
    empty = "a document starts with `component_type:`"
    root = None if decoded is None else parse(decoded, source, report, empty)
    if root is not None and not isinstance(root, MappingNode):
        report.add(Place(source), "LL009", "a document should be a mapping", hint=empty)
    if report.failed or not isinstance(root, MappingNode):
        raise ManifestError(report.problems())
    return root


def _joined(pair: re.Match[str]) -> str:
    code = 0x10000 + ((int(pair[2], 16) - 0xD800) << 10) + (int(pair[3], 16) - 0xDC00)
    return f"{pair[1]}\\U{code:08x}"
