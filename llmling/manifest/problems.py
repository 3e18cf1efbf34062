"""Problems of a manifest: their codes, their places, and the report that collects them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from llmling.errors import Problem

CODES = {
    # 0xx: the text
    "LL001": "a file cannot be read",
    "LL002": "a file is not UTF-8 text",
    "LL003": "a file is too large, too deep or repeats too much",
    "LL004": "the YAML is malformed",
    "LL005": "`${...}` inside {} or [] must be quoted",
    "LL006": "a key is written twice",
    "LL007": "custom tags are not allowed",
    "LL008": "an alias names no anchor, or itself",
    "LL009": "a file must hold one document, a mapping",
    "LL010": "a key must be plain text",
    # 1xx: include, extends, environment
    "LL101": "an include cannot be resolved",
    "LL102": "files include each other in a cycle",
    "LL103": "`extends` names no agent",
    "LL104": "agents extend each other in a cycle",
    "LL111": "an environment variable is not set",
    "LL112": "`${...}` is malformed",
    # 2xx: shape
    "LL201": "unknown key",
    "LL202": "missing key",
    "LL203": "wrong type of value",
    "LL204": "value out of range or not one of the choices",
    "LL205": "unknown or missing `type:`",
    "LL208": "invalid template",
    "LL209": "invalid expression",
    "LL210": "invalid cron expression",
    "LL211": "unknown time zone",
    "LL212": "keys that do not fit together",
    "LL213": "other machines could get in without a secret",
    "LL214": "`output` is no JSON Schema",
    "LL215": "what a single NATS server cannot promise",
    # 3xx: references
    "LL301": "unknown agent or team",
    "LL302": "unknown MCP server",
    "LL303": "an agent and a team share a name",
    "LL304": "a team contains itself",
    "LL305": "two triggers share a name",
    "LL306": "two webhooks share an address",
    "LL307": "two listeners share a port",
    "LL308": "a Python module cannot be imported",
    "LL309": "a Python name does not exist or does not fit",
    "LL310": "a file or folder does not exist",
    "LL311": "a demo script is not usable",
    "LL312": "two tools of an agent share a name",
    "LL313": "a cassette is not usable",
    # 4xx: safety
    "LL401": "an agent would trigger itself through a file",
    "LL402": "connections form a cycle without a condition",
    "LL403": "untrusted input, private data and a way out meet",
    # 6xx: Agent Spec
    "LL601": "an Agent Spec document is of no known version",
    "LL602": "there is no such Agent Spec component",
    "LL603": "Agent Spec and llmling have no common word for it",
    "LL604": "a reference in an Agent Spec document leads nowhere",
    "LL605": "a tool of an Agent Spec document was not given",
    "LL606": "a secret of an Agent Spec document was not given",
    "LL607": "an Agent Spec flow is no chain",
}
"""Every code `validate` prints; a code never changes its meaning."""

_LONGEST_EXCERPT = 300
_SHORTEST_SECRET = 4


@dataclass(slots=True, eq=False)
class Source:
    """One file: the name problems show, the way to its folder from the manifest's (`""`: the same), its lines."""

    name: str
    prefix: str = ""
    lines: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written; `line` and `column` count from 1."""

    source: Source
    line: int = 1
    column: int = 1
    length: int = 1

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    @property
    def excerpt(self) -> str:
        """The source line, with what a terminal could misread replaced; empty when there is none to show."""
        lines = self.source.lines
        text = lines[self.line - 1] if self.line <= len(lines) else ""
        if len(text) > _LONGEST_EXCERPT:
            return ""
        return "".join(char if char == "\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


@dataclass(slots=True)
class _Entry:
    severity: str
    uses: list[Place]


class Report:
    """Collects problems; the same mistake at the same place counts once, however many agents inherit it.

    `secrets` maps values that came from the environment to what the file says instead; no message shows them.
    `incomplete` tells that an included file could not be read, so that what is missing may be in it.
    """

    def __init__(self) -> None:
        self.incomplete = False
        self.secrets: dict[str, str] = {}
        self._entries: dict[tuple[Place, str, str], _Entry] = {}
        self._wheres: dict[tuple[Place, str, str], str] = {}

    def add(
        self,
        place: Place,
        code: str,
        message: str,
        *,
        where: str = "",
        hint: str = "",
        uses: Iterable[Place] = (),
        severity: str = "error",
    ) -> None:
        """Note a problem: `message`, then `where` it is in the tree (in brackets behind a whole sentence), then a hint.

        `uses` are the aliases that led to the place.
        """
        key = (place, code, message)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(severity, [])
            self._wheres[key] = _inside(where) + (f"; {hint}" if hint else "")
        entry.uses.extend(use for use in uses if use not in entry.uses)

    @property
    def failed(self) -> bool:
        """Whether there is any error; warnings do not count."""
        return any(entry.severity == "error" for entry in self._entries.values())

    def problems(self) -> list[Problem]:
        """Return what was found, sorted by place."""
        found: list[Problem] = []
        for key, entry in self._entries.items():
            place, code, message = key
            text = self._clean(message + self._wheres[key]) + _used(entry.uses)
            found.append(
                Problem(
                    place.source.name,
                    place.line,
                    place.column,
                    code,
                    text,
                    entry.severity,
                    place.excerpt,
                    max(1, min(place.length, len(place.excerpt) - place.column + 1)),
                )
            )
        return sorted(found)

    def _clean(self, message: str) -> str:
        # Longest first: a value may contain another one.
        for value in sorted(self.secrets, key=len, reverse=True):
            for form in (value, repr(value)[1:-1]):
                if len(form) >= _SHORTEST_SECRET:
                    message = message.replace(form, self.secrets[value])
                else:
                    # A letter or a small number is in many a word; only on its own it is the value.
                    message = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", self.secrets[value], message)
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in message)


def _inside(where: str) -> str:
    return f" {where}" if where.startswith("(") else f" in {where}" if where else ""


def _used(uses: list[Place]) -> str:
    lines = sorted({use.line for use in uses})
    if not lines:
        return ""
    shown = ", ".join(str(line) for line in lines[:5]) + (", ..." if len(lines) > 5 else "")
    return f" (used at line{'s' if len(lines) > 1 else ''} {shown})"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean "x"?` for the nearest known word, or nothing."""
    near = nearest(word, known)
    return f'did you mean "{near}"?' if near else ""


def check_keywords(call: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse a keyword that a call does not know, as Python does.

    Raises:
        TypeError: There is one; the message has the nearest known one.
    """
    for name in given:
        if name not in known:
            near = nearest(name, known)
            hint = f"; did you mean {near!r}?" if near else ""
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{hint}")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the nearest known word or the one that only adds a unit to it, or nothing when none is near."""
    names = {name.lower(): name for name in sorted(known, reverse=True) if name}
    match = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    if match:
        return names[match[0]]
    longer = [name for name in names if name.startswith(f"{word.lower()}_")]
    return names[longer[0]] if len(longer) == 1 else ""


def label(loc: Iterable[str | int]) -> str:
    """Return a path of keys as people write it: `agents.a.triggers[0]`."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
