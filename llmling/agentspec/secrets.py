"""Secrets: no document holds one. On the way out each becomes a reference and the variable it is known by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, cast

from pydantic import BaseModel, SecretStr

from llmling.manifest.nodes import Loc
from llmling.manifest.root import Manifest

_SOUNDS_SECRET = re.compile(r"keys?(?![a-z])|token|secret|passw|credential|auth(?!or(?!i))|cookie", re.IGNORECASE)
_SHORTEST = 6
_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}")


def sounds_secret(name: str) -> bool:
    """Whether a name is that of a credential."""
    return _SOUNDS_SECRET.search(name) is not None


def escaped(text: str) -> str:
    """Return a text as a manifest must write it to mean just that."""
    return text.replace("${", "$${")


def unescaped(value: Any) -> Any:
    """Return what a fragment of a manifest says, without filling in variables."""
    if isinstance(value, str):
        return value.replace("$${", "${")
    if isinstance(value, list):
        return [unescaped(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: unescaped(item) for key, item in cast("dict[str, Any]", value).items()}
    return value


def variables(value: Any) -> Iterable[str]:
    """Yield the variables a fragment of a manifest asks for, and has no default for."""
    if isinstance(value, str):
        yield from (found[1] for found in _VARIABLE.finditer(value) if not found[2])
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from variables(item)
    elif isinstance(value, dict):
        for item in cast("dict[str, Any]", value).values():
            yield from variables(item)


def holds_secret(fragment: Any) -> bool:
    """Whether a fragment of a manifest asks for a variable anywhere."""
    if isinstance(fragment, str):
        return _VARIABLE.search(fragment) is not None
    if isinstance(fragment, dict):
        return any(holds_secret(item) for item in cast("dict[str, Any]", fragment).values())
    return isinstance(fragment, list) and any(holds_secret(item) for item in cast("list[Any]", fragment))


def variable_name(*words: str) -> str:
    """Return a name for a variable, such as `OPENAI_API_KEY`."""
    name = re.sub(r"\W+", "_", "_".join(words), flags=re.ASCII).strip("_").upper()
    return f"_{name}" if name[:1].isdigit() else name or "SECRET"


def solved(text: str, value: str) -> dict[str, str] | None:
    """Return what the variables in `text` must hold to make `value` of it, or None when nothing does."""
    names: list[str] = []
    pattern, end = "", 0
    for found in _VARIABLE.finditer(text):
        pattern += re.escape(text[end : found.start()])
        pattern += f"(?P={found[1]})" if found[1] in names else f"(?P<{found[1]}>.*)"
        names.append(found[1])
        end = found.end()
    match = re.fullmatch(pattern + re.escape(text[end:]), value, re.DOTALL)
    return None if match is None or not names else dict(match.groupdict())


class Fragments:
    """Writes values of a manifest as fragments of one, secrets as `${VARIABLE}`."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._names: dict[str, str] = {}
        self._known = {value for value, text in manifest.filled.items() if sounds_secret(text)}

    def leaks(self, text: str) -> bool:
        """Whether a text that is about to be written shows a secret."""
        return any(len(value) >= _SHORTEST and value in text for value in self._known)

    def of(self, value: Any, loc: Loc, *, leave: Iterable[str] = ()) -> Any:
        """Return plain data that a manifest takes back; of a config only the keys that were set."""
        if isinstance(value, SecretStr):
            return self.secret(value.get_secret_value(), loc)
        if isinstance(value, str):
            return self.text(value, loc)
        if isinstance(value, BaseModel):
            kept = (*(("type",) if "type" in type(value).model_fields else ()), *type(value).model_fields)
            return {
                name: self.of(getattr(value, name), (*loc, name))
                for name in dict.fromkeys(kept)
                if (name in value.model_fields_set or name == "type") and name not in leave
            }
        if isinstance(value, Mapping):
            pairs = cast("Mapping[str, Any]", value)
            return {name: self._entry(name, item, (*loc, name)) for name, item in pairs.items()}
        if isinstance(value, list | tuple):
            listed = cast("list[Any]", value)
            return [self.of(item, (*loc, index)) for index, item in enumerate(listed)]
        return value

    def _entry(self, name: str, value: Any, loc: Loc) -> Any:
        # Headers and environments: their keys are names of the user, and say whether the value is a secret.
        if isinstance(value, str) and loc[-2:-1] in {("headers",), ("env",)} and sounds_secret(name):
            return self.secret(value, loc)
        return self.of(value, loc)

    def text(self, value: str, loc: Loc) -> str:
        """Return a text, or how it was written when a variable in it is a secret."""
        return self.hidden(loc) or escaped(str(value))

    def hidden(self, loc: Loc) -> str | None:
        """Return how a text was written, if a secret variable was filled into it."""
        text = self._manifest.written(*loc)
        return text if text is not None and any(sounds_secret(found[1]) for found in _VARIABLE.finditer(text)) else None

    def secret(self, value: str, loc: Loc, *words: str) -> str:
        """Return how a secret was written, or a variable made up for it: the same one for the same secret."""
        self._known.add(value)
        if (text := self._manifest.written(*loc)) is not None:
            return text
        if not value:
            return ""
        if value not in self._names:
            name = variable_name(*(words or (str(part) for part in loc)))
            number, taken = 1, set(self._names.values())
            while (numbered := name if number == 1 else f"{name}_{number}") in taken:
                number += 1
            self._names[value] = numbered
        return f"${{{self._names[value]}}}"
