"""What a document leaves out and its reader must give: secrets, and the functions behind its tools."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from llmling.agentspec.document import Part
from llmling.agentspec.secrets import escaped, solved, sounds_secret, variable_name, variables
from llmling.agentspec.toolboxes import REGISTRY
from llmling.manifest.problems import did_you_mean

_PROVIDERS_OWN = frozenset({"OpenAiConfig", "GeminiAIStudioAuthConfig"})
_NOT_A_NAME = re.compile(r"\W", re.ASCII)


class Given:
    """Secrets by reference (`<id>.api_key`) or by variable; tools by name, or a module that has them all.

    Without `secrets` nothing is asked for: the manifest says `${VARIABLE}`. `env` is what its variables stand for,
    `bound` the callables its paths stand for, `folder` where modules are looked for first.
    """

    def __init__(self, tools: Mapping[str, Any] | str | None, secrets: Mapping[str, Any] | None, folder: Path) -> None:
        self._tools = tools
        self._secrets = secrets
        self.folder = folder
        self.env: dict[str, str] = {}
        self.bound: dict[str, Any] = {}
        self.notes: list[str] = []

    # --- secrets ---------------------------------------------------------------------------------------------------

    def field(self, part: Part, name: str) -> Any:
        """Return a field as a manifest writes it, secrets filled in where the document refers to them."""
        reference = part.reference(name)
        if reference is None:
            return written(part.value(name))
        text: Any = part.noted("secrets").get(name)
        if self._secrets is None:
            return self._unknown(part, name) if text is None else text
        if reference in self._secrets:
            return self._matched(text, self._secrets[reference])
        wanted = list(dict.fromkeys(variables(text)))
        if text is not None and all(variable in self._secrets for variable in wanted):
            self.env.update({variable: str(self._secrets[variable]) for variable in wanted})
            return text
        other = f", or {', '.join(wanted)}" if wanted else ""
        part.problem(name, "LL606", f'secret "{reference}" is not given', hint=f"pass it in `secrets`{other}")
        return None

    def secret(self, part: Part, name: str) -> Any:
        """Return a secret as a manifest writes it; one that stands in the document itself is moved to a variable."""
        value = part.value(name)
        if part.reference(name) is None and value and self._secrets is None:
            if isinstance(value, dict):
                pairs = cast("dict[str, Any]", value)
                text: Any = {key: f"${{{variable_name(part.name, key)}}}" for key in pairs}
                shown = ", ".join(f"${{{variable_name(part.name, key)}}}" for key in pairs)
            else:
                shown = text = self._unknown(part, name)
            self.notes.append(f"{part.type} {part.name!r} holds its {name} in the open: set {shown}")
            return text
        if self._secrets is None and part.type in _PROVIDERS_OWN and "secrets" not in part.extras:
            # The provider's own variable is where its key is looked for anyway.
            return None
        return self.field(part, name)

    def fragment(self, part: Part, fragment: Any) -> Any:
        """Return a fragment of a manifest whose variables are given."""
        for variable in dict.fromkeys(variables(fragment)):
            if self._secrets is None:
                continue
            if variable in self._secrets:
                self.env[variable] = str(self._secrets[variable])
            else:
                hint = f"pass it in `secrets` as {variable}"
                part.problem("metadata", "LL606", f'secret "{variable}" is not given', hint=hint)
        return fragment

    def _unknown(self, part: Part, name: str) -> Any:
        if name == "sensitive_headers":
            text = f"${{{variable_name(part.name, 'AUTHORIZATION')}}}"
            self.notes.append(f"the document does not tell the secret headers of {part.name!r}; we wrote Authorization")
            return {"Authorization": text}
        word = name if sounds_secret(name) else f"{name}_secret"
        return f"${{{variable_name(part.name, word)}}}"

    def _matched(self, text: Any, value: Any) -> Any:
        """Return the noted text if its variables can make the value, else the value."""
        if isinstance(value, Mapping):
            known = cast("dict[str, Any]", text) if isinstance(text, dict) else {}
            pairs = cast("Mapping[str, Any]", value)
            return {name: self._matched(known.get(name), item) for name, item in pairs.items()}
        if isinstance(value, list | tuple):
            items = cast("list[Any]", value)
            known = cast("list[Any]", text) if isinstance(text, list) else []
            return [self._matched(known[i] if i < len(known) else None, item) for i, item in enumerate(items)]
        found = solved(text, str(value)) if isinstance(text, str) else None
        if found is None or any(self.env.get(name, item) != item for name, item in found.items()):
            return escaped(str(value))
        self.env.update(found)
        return text

    # --- tools -----------------------------------------------------------------------------------------------------

    def function(self, part: Part) -> str | None:
        """Return the path of the function behind a tool, and remember a callable under it."""
        noted = part.extras.get("function")
        if self._tools is None and isinstance(noted, str):
            return noted
        if isinstance(self._tools, str):
            return f"{self._tools}:{_NOT_A_NAME.sub('_', part.name)}"
        tools = self._tools or {}
        if part.name not in tools:
            given = f"given: {', '.join(tools)}" if tools else "pass it in `tools`, or name a module with --tools"
            hint = did_you_mean(part.name, tools) or given
            part.problem("name", "LL605", f'no function is given for the tool "{part.name}"', hint=hint)
            return None
        found = tools[part.name]
        if isinstance(found, str):
            return found
        # Where it was noted, so that it is written there again; else a name that leads nowhere but here.
        places = [noted] if isinstance(noted, str) else []
        word = variable_name(part.name).lower()
        places += [f"{REGISTRY}{word}", *(f"{REGISTRY}{word}_{number}" for number in range(2, len(self.bound) + 2))]
        path = next(path for path in places if self.bound.get(path, found) is found)
        self.bound[path] = found
        return path


def written(value: Any) -> Any:
    """Return plain data as a manifest writes it."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {name: written(item) for name, item in cast("dict[str, Any]", value).items()}
    return [written(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value
